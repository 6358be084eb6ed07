//! What this node's clients spent and other nodes have not been told.

use std::collections::HashMap;

use super::names::Names;
use crate::{
    client::ClientKey,
    event::exchange::{SPENT_MAX, Spent},
    limit::{
        Clock,
        spending::{Noted, TOLD_WITHIN},
    },
};

/// Clients and limits that are carried.
const CARRIED_MAX: usize = 50_000;

/// What is carried of all clients: what is not told within ten seconds of its being spent is forgotten.
#[derive(Debug, Default)]
pub(super) struct Carry {
    held: HashMap<(ClientKey, Clock), Held>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    spent: u32,
    /// When the last of it was spent, in nanoseconds of the monotonic clock.
    last_ns: u64,
}

impl Carry {
    /// Adds what was spent up to `last_ns`; false where there is no room for it.
    pub(super) fn add(&mut self, noted: Noted, last_ns: u64) -> bool {
        let key = (noted.client, noted.clock);
        if self.held.len() >= CARRIED_MAX && !self.held.contains_key(&key) {
            return false;
        }
        let held = self.held.entry(key).or_insert(Held { spent: 0, last_ns });
        held.spent = held.spent.saturating_add(noted.spent);
        held.last_ns = held.last_ns.max(last_ns);
        true
    }

    /// Forgets what is too old, and says how many requests that is.
    pub(super) fn forget(&mut self, now_ns: u64) -> u64 {
        let mut forgotten = 0;
        self.held.retain(|_, held| {
            let age_ns = u128::from(now_ns.saturating_sub(held.last_ns));
            let is_kept = age_ns <= TOLD_WITHIN.as_nanos();
            forgotten += if is_kept { 0 } else { u64::from(held.spent) };
            is_kept
        });
        forgotten
    }

    /// Takes out what is told next: the clients that spent most of their limits come first.
    pub(super) fn take(&mut self, names: &Names) -> Vec<Spent> {
        // Of a limit that is no more, nobody has to know.
        self.held.retain(|(_, clock), _| names.of(*clock).is_some());
        let mut ranked: Vec<_> = self
            .held
            .iter()
            .filter_map(|(key, held)| {
                Some((share(held.spent, names.of(key.1)?.quota.burst()), *key))
            })
            .collect();
        if ranked.len() > SPENT_MAX {
            ranked.select_nth_unstable_by(SPENT_MAX, |one, other| other.cmp(one));
            ranked.truncate(SPENT_MAX);
        }
        ranked.sort_unstable_by(|one, other| other.cmp(one));
        let told = ranked.into_iter().filter_map(|(_, key)| {
            let held = self.held.remove(&key)?;
            let (client, clock) = key;
            let limit = names.of(clock)?;
            Some(Spent {
                limit: names.name(clock)?.to_owned(),
                client: client.to_string(),
                // What is more was spent while nobody was told.
                spent: held.spent.min(limit.quota.told_at_once_max()),
            })
        });
        told.collect()
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

/// Which part of a limit's burst was spent, in 65,536ths.
fn share(spent: u32, burst: u32) -> u64 {
    (u64::from(spent) << 16) / u64::from(burst.max(1))
}
