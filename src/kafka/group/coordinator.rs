//! All groups: who asks what of which, within which bounds.
//!
//! It is a machine without clock, disk or network: what time it is, is told it; what is to be answered and
//! written, it hands back as [`Effect`]s. So a model can drive it (see `model`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    ask::{
        Beat, Commit, Committed, Effect, Join, Joined, Leave, Now, Sync, Synced, Ticket,
        TopicPartition, WriteId,
    },
    classic::{Group, State},
    offsets::failed,
    record::{self, GroupValue, Key},
    writes::{NotKept, Turn, What, Writes},
};
use crate::kafka::ErrorCode;

/// Groups there may be.
pub(crate) const GROUPS_MAX: usize = 1_000;
/// Offsets there may be, of all groups.
pub(crate) const OFFSETS_MAX: usize = 100_000;
/// Bytes that members, assignments and offsets of all groups may take.
pub(crate) const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that one member may say of itself, in all its protocols.
const MEMBER_BYTES_MAX: usize = 1024 * 1024;
/// Protocols that a member may speak.
const PROTOCOLS_MAX: usize = 64;

/// How short and how long a session may be, in milliseconds (`group.min.session.timeout.ms`,
/// `group.max.session.timeout.ms`).
pub(crate) const SESSION_MS: std::ops::RangeInclusive<i32> = 1_000..=30 * 60_000;

/// How often offsets and empty groups are looked through for what is old, in milliseconds
/// (`offsets.retention.check.interval.ms`).
const SWEEP_MS: u64 = 10 * 60_000;

/// Where member ids come from: so many random bits.
pub(crate) struct Ids(pub(crate) Box<dyn FnMut() -> u128>);

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

impl Ids {
    /// An id that nobody can guess, as Kafka makes it: the client's or the instance's name, and a UUID.
    fn next(&mut self, name: &str) -> String {
        let hex = format!("{:032x}", (self.0)());
        let part = |range| hex.get(range).unwrap_or_default();
        let (a, b, c, d, e) = (
            part(0..8),
            part(8..12),
            part(12..16),
            part(16..20),
            part(20..32),
        );
        format!("{name}-{a}-{b}-{c}-{d}-{e}")
    }
}

/// The coordinator of all groups.
#[derive(Debug)]
pub(crate) struct Coordinator {
    groups: BTreeMap<String, Kept>,
    /// When something becomes of a group by itself, the earliest first.
    due: BTreeSet<(u64, String)>,
    ids: Ids,
    writes: Writes,
    effects: Vec<Effect>,
    /// Of all groups.
    bytes: usize,
    offsets: usize,
    next_sweep_ms: u64,
}

/// A group, and what of it is counted.
#[derive(Debug)]
struct Kept {
    group: Group,
    due_ms: Option<u64>,
    bytes: usize,
    offsets: usize,
}

impl Coordinator {
    pub(crate) fn new(ids: Ids) -> Self {
        Self {
            groups: BTreeMap::new(),
            due: BTreeSet::new(),
            ids,
            writes: Writes::default(),
            effects: Vec::new(),
            bytes: 0,
            offsets: 0,
            next_sweep_ms: 0,
        }
    }

    /// What is to be done, in this order.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`Self::tick`] is to be called next.
    pub(crate) fn due_ms(&self) -> u64 {
        let group = self.due.first().map(|(due_ms, _)| *due_ms);
        let others = [group, self.writes.due_ms()].into_iter().flatten();
        others.fold(self.next_sweep_ms, u64::min)
    }

    /// How much there is: groups, offsets, bytes of both, bytes on their way to the disk.
    pub(crate) fn sizes(&self) -> (usize, usize, usize, usize) {
        (
            self.groups.len(),
            self.offsets,
            self.bytes,
            self.writes.bytes(),
        )
    }

    /// A member joins; the answer is [`Effect::Joined`].
    pub(crate) fn join(&mut self, now: Now, ticket: Ticket, join: &Join) {
        if let Err(error) = self.check_join(now, join) {
            let joined = Joined::refused(&join.who.member, error);
            return self.effects.push(Effect::Joined(ticket, joined));
        }
        let instance = join.who.instance.as_deref();
        let id = self.ids.next(instance.unwrap_or(&join.client_id));
        self.with(now, &join.group, |group, turn| {
            group.join(turn, ticket, join, id);
        });
    }

    fn check_join(&mut self, now: Now, join: &Join) -> Result<(), ErrorCode> {
        if join.group.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        if !SESSION_MS.contains(&join.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let lengths = join.protocols.iter();
        let bytes: usize = lengths.map(|(name, said)| name.len() + said.len()).sum();
        if bytes > MEMBER_BYTES_MAX || join.protocols.len() > PROTOCOLS_MAX {
            return Err(ErrorCode::InvalidRequest);
        }
        if self.bytes + bytes > BYTES_MAX {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        if self.groups.contains_key(&join.group) {
            return Ok(());
        }
        if !join.who.member.is_empty() {
            return Err(ErrorCode::UnknownMemberId);
        }
        match self.make(now, &join.group) {
            true => Ok(()),
            false => Err(ErrorCode::GroupMaxSizeReached),
        }
    }

    /// Makes a group, if there is room for one. Groups with which nothing is lost give way.
    fn make(&mut self, now: Now, name: &str) -> bool {
        if self.groups.len() >= GROUPS_MAX {
            self.bury(now);
        }
        if self.groups.len() >= GROUPS_MAX || self.bytes >= BYTES_MAX {
            return false;
        }
        self.keep(Group::new(name.to_owned()));
        true
    }

    fn keep(&mut self, group: Group) {
        let name = group.name.clone();
        let kept = Kept {
            group,
            due_ms: None,
            bytes: 0,
            offsets: 0,
        };
        self.groups.insert(name.clone(), kept);
        self.count(&name);
    }

    /// Does something with a group, and counts it anew.
    fn with<T>(
        &mut self,
        now: Now,
        name: &str,
        act: impl FnOnce(&mut Group, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let kept = self.groups.get_mut(name)?;
        let mut turn = Turn {
            now,
            effects: &mut self.effects,
            writes: &mut self.writes,
        };
        let done = act(&mut kept.group, &mut turn);
        self.count(name);
        self.let_idle_go(name);
        Some(done)
    }

    fn count(&mut self, name: &str) {
        let Some(kept) = self.groups.get_mut(name) else {
            return;
        };
        let (bytes, offsets) = (kept.group.bytes(), kept.group.offsets.len());
        self.bytes = self.bytes - kept.bytes + bytes;
        self.offsets = self.offsets - kept.offsets + offsets;
        (kept.bytes, kept.offsets) = (bytes, offsets);
        let due_ms = kept.group.due_ms();
        if kept.due_ms != due_ms {
            if let Some(before) = kept.due_ms {
                self.due.remove(&(before, name.to_owned()));
            }
            if let Some(due_ms) = due_ms {
                self.due.insert((due_ms, name.to_owned()));
            }
            kept.due_ms = due_ms;
        }
    }

    /// Lets go of a group that was never more than a name.
    fn let_idle_go(&mut self, name: &str) {
        let is_name = |kept: &Kept| kept.group.generation == 0 && kept.group.is_idle();
        if self.groups.get(name).is_some_and(is_name) && self.writes.of(name).next().is_none() {
            self.remove(name);
        }
    }

    fn remove(&mut self, name: &str) -> Option<Group> {
        let kept = self.groups.remove(name)?;
        self.bytes -= kept.bytes;
        self.offsets -= kept.offsets;
        if let Some(due_ms) = kept.due_ms {
            self.due.remove(&(due_ms, name.to_owned()));
        }
        Some(kept.group)
    }

    /// A member asks for its assignment; the answer is [`Effect::Synced`].
    pub(crate) fn sync(&mut self, now: Now, ticket: Ticket, sync: &Sync) {
        let bytes: usize = sync.assignments.iter().map(|(_, bytes)| bytes.len()).sum();
        let error = if sync.group.is_empty() {
            ErrorCode::InvalidGroupId
        } else if self.bytes + bytes > BYTES_MAX {
            ErrorCode::UnknownServerError
        } else {
            let known = self.with(now, &sync.group, |group, turn| {
                group.sync(turn, ticket, sync);
            });
            if known.is_some() {
                return;
            }
            ErrorCode::UnknownMemberId
        };
        self.effects
            .push(Effect::Synced(ticket, Synced::refused(error)));
    }

    /// A member lives.
    pub(crate) fn heartbeat(&mut self, now: Now, beat: &Beat) -> ErrorCode {
        if beat.group.is_empty() {
            return ErrorCode::InvalidGroupId;
        }
        let answer = self.with(now, &beat.group, |group, _| group.heartbeat(now.ms, beat));
        answer.unwrap_or(ErrorCode::UnknownMemberId)
    }

    /// Members leave: what of the whole, and of each of them.
    pub(crate) fn leave(&mut self, now: Now, leave: &Leave) -> (ErrorCode, Vec<ErrorCode>) {
        if leave.group.is_empty() {
            return (ErrorCode::InvalidGroupId, Vec::new());
        }
        let left = self.with(now, &leave.group, |group, turn| {
            if matches!(group.state, State::Dead { .. }) {
                return (ErrorCode::CoordinatorNotAvailable, Vec::new());
            }
            let members = leave.members.iter();
            let codes = members.map(|who| group.leave(turn, who)).collect();
            (ErrorCode::None, codes)
        });
        left.unwrap_or_else(|| {
            let codes = vec![ErrorCode::UnknownMemberId; leave.members.len()];
            (ErrorCode::None, codes)
        })
    }

    /// Who waited for that answer is gone.
    pub(crate) fn gone(&mut self, now: Now, group: &str, ticket: Ticket) {
        self.with(now, group, |group, turn| group.let_go(turn, ticket));
    }

    /// Offsets are committed; the answer is [`Effect::Answered`], when they are on disk.
    pub(crate) fn commit(&mut self, now: Now, ticket: Ticket, commit: Commit) {
        let is_known = self.groups.contains_key(&commit.group);
        let metadata = commit.offsets.iter();
        let bytes: usize = metadata
            .map(|(_, committed)| committed.metadata.len())
            .sum();
        let error = if self.bytes + bytes > BYTES_MAX {
            Some(ErrorCode::InvalidCommitOffsetSize)
        } else if is_known {
            None
        } else if commit.generation >= 0 {
            Some(ErrorCode::IllegalGeneration)
        } else {
            let is_made = self.make(now, &commit.group);
            (!is_made).then_some(ErrorCode::CoordinatorNotAvailable)
        };
        if let Some(error) = error {
            let codes = vec![error; commit.offsets.len()];
            return self.effects.push(Effect::Answered(ticket, codes));
        }
        let room = OFFSETS_MAX.saturating_sub(self.offsets);
        let name = commit.group.clone();
        self.with(now, &name, |group, turn| {
            group.commit(turn, ticket, commit, room);
        });
    }

    /// How far a group is in a partition; none where it has not said.
    pub(crate) fn committed(&self, group: &str, of: &TopicPartition) -> Option<&Committed> {
        self.group(group)?.offsets.get(of)
    }

    /// How far a group is, wherever it has said.
    pub(crate) fn all_committed(
        &self,
        group: &str,
    ) -> impl Iterator<Item = (&TopicPartition, &Committed)> {
        self.group(group)
            .into_iter()
            .flat_map(|group| group.offsets.iter())
    }

    /// Forgets offsets of a group; the answer is [`Effect::Answered`], or the code for all of it.
    pub(crate) fn forget(
        &mut self,
        now: Now,
        ticket: Ticket,
        group: &str,
        offsets: Vec<TopicPartition>,
    ) -> ErrorCode {
        if group.is_empty() {
            return ErrorCode::InvalidGroupId;
        }
        let known = self.with(now, group, |group, turn| {
            group.forget(turn, ticket, offsets);
        });
        match known {
            Some(()) => ErrorCode::None,
            None => ErrorCode::GroupIdNotFound,
        }
    }

    /// Forgets how far all groups are in a topic that is gone: another of its name begins at 0. Says whether there
    /// was room to write that; where there was not, it is to be asked again.
    pub(crate) fn forget_topic(&mut self, now: Now, topic: &str) -> bool {
        let names: Vec<_> = self.groups.keys().cloned().collect();
        names.iter().all(|name| {
            let forgotten = self.with(now, name, |group, turn| group.forget_topic(turn, topic));
            forgotten.unwrap_or(true)
        })
    }

    /// The topics in which groups are somewhere.
    pub(super) fn topics(&self) -> BTreeSet<String> {
        let groups = self.groups.values().map(|kept| &kept.group);
        let offsets = groups.flat_map(|group| group.offsets.iter());
        offsets.map(|(of, _)| of.topic.clone()).collect()
    }

    /// Deletes a group without members, and its offsets; the answer is [`Effect::Answered`] with one code.
    pub(crate) fn delete(&mut self, now: Now, ticket: Ticket, name: &str) {
        let refused = match self.group(name).map(|group| group.state) {
            None | Some(State::Dead { .. }) => Some(ErrorCode::GroupIdNotFound),
            Some(State::Empty) => None,
            Some(_) => Some(ErrorCode::NonEmptyGroup),
        };
        let code = match refused {
            Some(error) => error,
            None => match self.kill(now, name, Some(ticket)) {
                true => return,
                false => ErrorCode::CoordinatorNotAvailable,
            },
        };
        self.effects.push(Effect::Answered(ticket, vec![code]));
    }

    /// Writes tombstones for a group and all that is committed to it.
    fn kill(&mut self, now: Now, name: &str, ticket: Option<Ticket>) -> bool {
        let mut committing = Vec::new();
        for write in self.writes.of(name) {
            if let What::Committed { offsets, .. } = &write.what {
                committing.extend(offsets.iter().map(|(of, _)| of.clone()));
            }
        }
        let killed = self.with(now, name, |group, turn| {
            let known = group.offsets.iter().map(|(of, _)| of);
            let keys = known
                .chain(&committing)
                .map(|of| record::offset_key(name, of));
            let mut records: Vec<_> = keys.map(|key| (key, None)).collect();
            records.push((record::group_key(name), None));
            let write = turn.write(name, records, What::Deleted { ticket });
            if let Ok(write) = write {
                group.state = State::Dead { write };
                group.pending.clear();
            }
            write.is_ok()
        });
        killed.unwrap_or(false)
    }

    /// Lets go of groups with which nothing is lost.
    fn bury(&mut self, now: Now) {
        let idle = self.groups.values().map(|kept| &kept.group);
        let idle = idle.filter(|group| group.is_idle());
        let idle = idle.filter(|group| self.writes.of(&group.name).next().is_none());
        for name in idle.map(|group| group.name.clone()).collect::<Vec<_>>() {
            self.kill(now, &name, None);
        }
    }

    /// What became of a write.
    pub(crate) fn written(&mut self, now: Now, id: WriteId, result: Result<(), NotKept>) {
        let Some(write) = self.writes.end(id) else {
            return;
        };
        let name = write.group;
        match (write.what, result) {
            (What::Deleted { ticket }, result) => self.deleted(now, &name, id, ticket, result),
            (
                What::Committed {
                    ticket,
                    offsets,
                    codes,
                },
                Ok(()),
            ) => {
                // Whoever waits or not: it is on disk.
                self.with(now, &name, |group, _| {
                    for (of, committed) in offsets {
                        group.offsets.put(of, committed);
                    }
                });
                self.answer(ticket, codes);
            }
            (
                What::Forgotten {
                    ticket,
                    offsets,
                    codes,
                },
                Ok(()),
            ) => {
                self.with(now, &name, |group, _| {
                    for of in &offsets {
                        group.offsets.remove(of);
                    }
                });
                self.answer(ticket, codes);
            }
            (
                What::Committed { ticket, codes, .. } | What::Forgotten { ticket, codes, .. },
                Err(why),
            ) => {
                let error = match why {
                    NotKept::TooLarge => ErrorCode::InvalidCommitOffsetSize,
                    NotKept::NotNow => ErrorCode::CoordinatorNotAvailable,
                };
                self.answer(ticket, failed(&codes, error));
            }
            (what, Ok(())) => {
                self.with(now, &name, |group, turn| group.kept(turn, id, what));
            }
            (what, Err(why)) => {
                self.with(now, &name, |group, turn| group.failed(turn, what, why));
            }
        }
        self.let_idle_go(&name);
    }

    fn answer(&mut self, ticket: Option<Ticket>, codes: Vec<ErrorCode>) {
        if let Some(ticket) = ticket {
            self.effects.push(Effect::Answered(ticket, codes));
        }
    }

    fn deleted(
        &mut self,
        now: Now,
        name: &str,
        id: WriteId,
        ticket: Option<Ticket>,
        result: Result<(), NotKept>,
    ) {
        if result.is_ok() {
            self.remove(name);
        } else {
            self.with(now, name, |group, _| {
                if group.state == (State::Dead { write: id }) {
                    group.state = State::Empty;
                }
            });
        }
        let code = match result {
            Ok(()) => ErrorCode::None,
            Err(_) => ErrorCode::CoordinatorNotAvailable,
        };
        self.answer(ticket, vec![code]);
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Now) {
        for id in self.writes.late(now.ms) {
            self.give_up(now, id);
        }
        while let Some((due_ms, name)) = self.due.first().cloned()
            && due_ms <= now.ms
        {
            self.with(now, &name, |group, turn| group.tick(turn));
        }
        if self.next_sweep_ms <= now.ms {
            self.next_sweep_ms = now.ms + SWEEP_MS;
            self.sweep(now);
        }
    }

    /// A write took too long: who waits for it is answered. What it says may still come to the disk, and is
    /// then true.
    fn give_up(&mut self, now: Now, id: WriteId) {
        let Some(write) = self.writes.get_mut(id) else {
            return;
        };
        let name = write.group.clone();
        let late = |ticket: &mut Option<Ticket>, codes: &[ErrorCode]| {
            let codes = failed(codes, ErrorCode::RequestTimedOut);
            ticket.take().map(|ticket| Effect::Answered(ticket, codes))
        };
        match &mut write.what {
            What::Committed { ticket, codes, .. } | What::Forgotten { ticket, codes, .. } => {
                self.effects.extend(late(ticket, codes));
            }
            What::Deleted { ticket } => {
                let codes = [ErrorCode::None];
                self.effects.extend(late(ticket, &codes));
            }
            What::Noted => {}
            what @ (What::Assigned { .. } | What::Replaced { .. }) => {
                let what = std::mem::replace(what, What::Noted);
                self.with(now, &name, |group, turn| {
                    group.failed(turn, what, NotKept::NotNow);
                });
            }
        }
    }

    /// Forgets what is old, as far as the clock is believed.
    fn sweep(&mut self, now: Now) {
        if now.is_believed {
            for name in self.groups.keys().cloned().collect::<Vec<_>>() {
                self.with(now, &name, |group, turn| group.expire(turn));
            }
        }
        self.bury(now);
    }

    /// Takes back what a record of the log says. It is only to be called before anything is asked.
    ///
    /// # Errors
    /// When it cannot be read, or there is no room for it.
    pub(super) fn restore(
        &mut self,
        now: Now,
        key: Key,
        value: Option<Restored>,
    ) -> Result<(), ErrorCode> {
        match (key, value) {
            (Key::Offset(name, of), Some(Restored::Offset(committed))) => {
                self.room_for(&name)?;
                if !self.groups.contains_key(&name) {
                    self.keep(Group::new(name.clone()));
                }
                self.with(now, &name, |group, _| group.offsets.put(of, committed));
            }
            (Key::Offset(name, of), _) => {
                self.with(now, &name, |group, _| group.offsets.remove(&of));
            }
            (Key::Group(name), Some(Restored::Group(value))) => {
                self.room_for(&name)?;
                let mut group = Group::restored(name.clone(), value, now.ms);
                if let Some(before) = self.remove(&name) {
                    group.offsets = before.offsets;
                }
                self.keep(group);
            }
            (Key::Group(name), _) => {
                if let Some(before) = self.remove(&name)
                    && !before.offsets.is_empty()
                {
                    let mut group = Group::new(name);
                    group.offsets = before.offsets;
                    self.keep(group);
                }
            }
        }
        Ok(())
    }

    /// All records were taken back: members' sessions begin now.
    pub(super) fn restored(&mut self, now: Now) {
        self.next_sweep_ms = now.ms + SWEEP_MS;
        for name in self.groups.keys().cloned().collect::<Vec<_>>() {
            self.with(now, &name, |group, turn| {
                for member in group.members.values_mut() {
                    member.touch(turn.now.ms);
                }
            });
        }
    }

    /// The topic's partitions are read one after the other, so that the sum of what each of them remembers
    /// of its time may be more than there ever was at once.
    fn room_for(&self, name: &str) -> Result<(), ErrorCode> {
        let has_room = self.bytes < 4 * BYTES_MAX
            && (self.groups.len() < 4 * GROUPS_MAX || self.groups.contains_key(name))
            && self.offsets < 4 * OFFSETS_MAX;
        has_room.then_some(()).ok_or(ErrorCode::GroupMaxSizeReached)
    }

    /// All groups, by name.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values().map(|kept| &kept.group)
    }

    pub(super) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name).map(|kept| &kept.group)
    }
}

/// What a record of the log says.
#[derive(Debug)]
pub(super) enum Restored {
    Offset(Committed),
    Group(GroupValue),
}
