//! What another policy would have done with the requests that are in the log.
//!
//! Two engines judge each request again, in the order in which they came and at the time at which they
//! came: one with the policy that is in force, one with the candidate. An [`Engine`] is Wardent itself
//! without its sockets: the guards' chain, the table of clients, the owner of bans. No rule is told twice.
//!
//! What an event does not tell (the value of a secret, a signature, how long a body was that nobody read)
//! is taken as it was found then, and counted where that may matter ([`Unknown`]). Both engines begin
//! with no bans and with everybody's whole burst.

mod engine;
mod reader;
mod record;
mod report;
mod run;

pub use engine::{Ban, Engine, Judged, Mind};
pub use reader::Reading;
pub use record::{Line, Recorded, Shown};
pub use report::{Banned, Change, Example, Kind, PerClient, Report, Total, Unknown};
pub use run::{Plan, Progress, replay};

use crate::guard::verdict::Reason;

/// What became of a request, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It was let through.
    Passes,
    /// It was let through, and only because its route observes.
    WouldBeRefused(Reason),
    /// It was refused.
    Refused(Reason),
}

impl Fate {
    /// Whether it was let through.
    pub fn passes(self) -> bool {
        match self {
            Self::Passes | Self::WouldBeRefused(_) => true,
            Self::Refused(_) => false,
        }
    }
}
