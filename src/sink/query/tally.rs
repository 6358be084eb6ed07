//! What a walk over events took note of, beside the events.

use serde::{Deserialize, Serialize};

/// Counts of one walk, or of several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Records that were looked at.
    pub scanned: u64,
    /// Events whose client is hashed, so that no address and no network finds them.
    pub hashed: u64,
    /// Records that hold no JSON object.
    pub unreadable: u64,
    /// Batches whose bytes are damaged.
    pub damaged: u64,
    /// Events that retention took before they were read.
    pub gone: u64,
}

impl Tally {
    /// Adds what another walk took note of.
    pub fn add(&mut self, other: &Self) {
        self.scanned += other.scanned;
        self.hashed += other.hashed;
        self.unreadable += other.unreadable;
        self.damaged += other.damaged;
        self.gone += other.gone;
    }

    /// What an operator should know of it.
    pub fn notes(&self) -> Vec<String> {
        let told = [
            (
                "events with a hash in place of an address, which no address finds",
                self.hashed,
                "give the hash, `h:…`, as an event shows it",
            ),
            (
                "records that are no events and were passed over",
                self.unreadable,
                "`wardent log verify` tells where",
            ),
            (
                "damaged batches that were passed over",
                self.damaged,
                "`wardent log verify` tells where",
            ),
            (
                "events that went by retention before they were read",
                self.gone,
                "ask for less at a time, or keep more (`log.access`)",
            ),
        ];
        let noted = told.into_iter().filter(|(_, count, _)| *count > 0);
        noted
            .map(|(what, count, advice)| format!("{what}: {count}; {advice}"))
            .collect()
    }
}
