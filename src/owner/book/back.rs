//! What comes into the book from outside: from the log at the start, from other nodes later.

use std::time::Duration;

use super::{
    Book, Entry, Full, Grace, Memory, Now, Stamp, State, Target, Told, after, forgotten, signed,
};
use crate::{
    base::hlc::Hlc,
    owner::{ban::Ban, memory::Change},
};

impl Book {
    /// Makes room at once for as many entries as are about to come back, within the bound.
    pub fn reserve(&mut self, entries: usize) {
        self.entries.reserve(entries.min(self.entries_max));
    }

    /// Takes back what was remembered when this was written, at `told_unix_ms`; what was remembered of
    /// the target until now is forgotten. For the time before the first request, the book may hold too
    /// much: [`Book::trim`] ends that.
    ///
    /// What is left of a ban is told by the wall clock, and is never more than all of it: a clock that
    /// was set back makes no ban longer than it was.
    pub fn restore(&mut self, target: Target, memory: Memory, told_unix_ms: u64, now: Now) {
        let since_unix_ms = memory.since_unix_ms;
        let left_of = |from_unix_ms: u64, until_unix_ms: u64| {
            let whole_ms = until_unix_ms.saturating_sub(from_unix_ms);
            let left_ms = until_unix_ms.saturating_sub(now.unix_ms);
            Duration::from_millis(left_ms.min(whole_ms))
        };
        let until_ns = after(now.ns, left_of(since_unix_ms, memory.until_unix_ms));
        // Of a lifted ban that other nodes may know of, its own end counts: until then it is contradicted.
        let end_unix_ms = match memory.ended_unix_ms {
            Some(ended) if memory.state != State::Lifted || !memory.stamp.counts() => ended,
            Some(_) | None => memory.until_unix_ms,
        };
        let ended_ns = match memory.state {
            State::Banned if until_ns > now.ns => signed(until_ns),
            State::Banned | State::Expired | State::Lifted => {
                let from_now_ms = i128::from(end_unix_ms) - i128::from(now.unix_ms);
                let from_now_ns = from_now_ms.saturating_mul(1_000_000);
                let at_ns = i128::from(now.ns).saturating_add(from_now_ns);
                i64::try_from(at_ns).unwrap_or(if at_ns < 0 { i64::MIN } else { i64::MAX })
            }
        };
        let grace = memory
            .grace_until_unix_ms
            .map_or_else(Grace::default, |until_unix_ms| Grace {
                until_ns: after(now.ns, left_of(told_unix_ms, until_unix_ms)),
                until_unix_ms,
            });
        self.insert(Entry {
            ban: Ban {
                target,
                since_unix_ms,
                until_unix_ms: memory.until_unix_ms,
                until_ns,
                level: memory.level,
                decided: memory.decided,
                why: memory.why,
                enforced: true,
                request: memory.request,
                evidence: Vec::new(),
                stamp: memory.stamp,
            },
            state: memory.state,
            ended_ns,
            ended_unix_ms: memory.ended_unix_ms,
            grace,
            is_untold: false,
            read: 0,
        });
    }

    /// Takes over what another node decided, in place of what was remembered of the target until now. Says
    /// whether a ban is in force by it.
    ///
    /// # Errors
    /// When the book is full of others.
    pub fn take(
        &mut self,
        target: Target,
        mut memory: Memory,
        told_unix_ms: u64,
        now: Now,
    ) -> Result<bool, Full> {
        self.make_room(&target, now.ns)?;
        let is_over = memory.until_unix_ms <= now.unix_ms;
        if memory.state == State::Banned && is_over {
            memory.state = State::Expired;
            memory.ended_unix_ms = Some(memory.until_unix_ms);
        }
        let is_in_force = memory.state == State::Banned;
        self.restore(target, memory, told_unix_ms, now);
        Ok(is_in_force)
    }

    /// The stamp of what is remembered of a target.
    pub fn stamp(&self, target: &Target) -> Option<&Stamp> {
        self.entries.get(target).map(|entry| &entry.ban.stamp)
    }

    /// Notes that what is remembered of a target was in a reading of the cluster's bans.
    pub fn mark_read(&mut self, target: &Target, read: u32) {
        if let Some(entry) = self.entries.get_mut(target) {
            entry.read = read;
        }
    }

    /// In which reading of the cluster's bans the last decision about a target was.
    pub fn last_read(&self, target: &Target) -> u32 {
        self.entries.get(target).map_or(0, |entry| entry.read)
    }

    /// Targets about which other nodes decided last, and not in this reading.
    pub fn unread(&self, read: u32) -> Vec<Target> {
        let unread = |(target, entry): (&Target, &Entry)| {
            let is_missing = entry.read != read && self.other_node(&entry.ban.stamp).is_some();
            is_missing.then_some(*target)
        };
        self.entries.iter().filter_map(unread).collect()
    }

    /// Ends what another node decided and no longer says: a ban in force is lifted, and whatever is decided
    /// next holds, also the same once more. Returns what is to be told.
    pub fn withdraw(&mut self, target: &Target, now: Now) -> Option<Told> {
        let entry = self.entries.get(target)?;
        let is_in_force = entry.is_in_force();
        let elsewhere = self.other_node(&entry.ban.stamp);
        let before = entry.memory();
        if !is_in_force {
            self.forget(target);
            return Some(forgotten(*target, now));
        }
        let entry = self.entries.get_mut(target)?;
        entry.state = State::Lifted;
        entry.ban.level = 0;
        entry.ban.evidence = Vec::new();
        entry.ban.stamp.hlc = Hlc::ZERO;
        entry.ended_unix_ms = Some(now.unix_ms);
        let after = entry.memory();
        self.ended(target);
        Some(Told {
            unix_ms: now.unix_ms,
            change: Change::Lifted,
            target: *target,
            enforced: true,
            before: Some(before),
            after: Some(after),
            evidence: Vec::new(),
            receipt: None,
            elsewhere,
        })
    }

    /// Brings the book back within its bound: bans in force stay before those that are over, and of
    /// either the latest. Returns how many gave way; those that bind nobody are told as forgotten.
    pub fn trim(&mut self, now_ns: u64) -> usize {
        let too_many = self.entries.len().saturating_sub(self.entries_max);
        if too_many == 0 {
            return 0;
        }
        let rank = |entry: &Entry| {
            let is_in_force = entry.is_in_force() && entry.ban.until_ns > now_ns;
            (is_in_force, entry.ban.since_unix_ms)
        };
        let entries = self.entries.iter();
        let mut ranks: Vec<_> = entries
            .map(|(target, entry)| (rank(entry), *target))
            .collect();
        ranks.select_nth_unstable(too_many - 1);
        for ((is_in_force, _), target) in ranks.iter().take(too_many) {
            let has_grace = self.has_grace(target, now_ns);
            self.forget(target);
            // The log would keep for ever what nobody tells as forgotten. A ban or a grace that has time
            // left comes back with the next start that has room for it.
            if !is_in_force && !has_grace {
                self.gone.push(*target);
            }
        }
        too_many
    }
}
