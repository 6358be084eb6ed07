//! Decides about bans, alone.
//!
//! Workers tell what they saw ([`Facts`]) and never wait for an answer; operators' acts come the same
//! way. One thread counts, decides, sets the ends of bans in the table of clients, and publishes.
//! Its tallies and its book are its own: what nobody shares, nobody waits for.
//!
//! A ban is blamed on what is proven, and only there. A request that was refused because of a ban is
//! no violation, so no ban feeds itself.

mod act;
mod ban;
mod book;
mod facts;
mod memory;
mod others;
mod run;
mod tally;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use act::{Act, Acts, Done, NotDone, Page, Place, Standing};
pub use ban::{Ban, Decided, Target};
pub use book::{Book, Full, Now};
pub use facts::{Cause, Excerpt, Facts, Violation};
pub use memory::{Change, Memory, Publish, Receipt, Stamp, Told, Trouble};
pub use others::{Decision, Hearing, NotTaken, OtherNumbers, SpentElsewhere};
pub use run::{Numbers, Owner, Restored, Restoring};

use crate::client::Protected;

/// When and how long a client is banned (`bans`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanPolicy {
    /// So many points …
    pub threshold: u32,
    /// … within this time …
    pub window: Duration,
    /// … ban the client this long …
    pub duration: Duration,
    /// … and every further time longer by this factor …
    pub factor: u32,
    /// … up to this long …
    pub max: Duration,
    /// … until nothing has happened for this long.
    pub forget: Duration,
    /// Whom nothing bans.
    pub protected: Protected,
}

impl BanPolicy {
    /// How long a ban is that follows `earlier` ones.
    pub fn duration_after(&self, earlier: u32) -> Duration {
        let factor = self.factor.saturating_pow(earlier);
        self.duration.saturating_mul(factor).min(self.max)
    }
}
