//! Reading events back: which are wanted, where they stand, one after the other.
//!
//! It reads what [`log`](crate::log) hands out below the high watermark, of a log that runs or of a
//! directory that nobody writes to, and changes nothing.

pub mod ask;
pub mod field;
pub mod filter;
pub mod position;
pub mod scan;
pub mod tally;
pub mod when;
#[cfg(test)]
pub(crate) mod written;

use crate::event;

/// The topics that events are told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventTopic {
    /// Finished requests.
    Access,
    /// The state of each ban.
    Ban,
    /// Bans with their evidence, reloads, administrative acts.
    Audit,
}

impl EventTopic {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Access, Self::Ban, Self::Audit];

    /// The word for it on the command line and in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Ban => "ban",
            Self::Audit => "audit",
        }
    }

    /// The topic's own name, as Kafka clients call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => event::access::TOPIC,
            Self::Ban => event::ban::TOPIC,
            Self::Audit => event::audit::TOPIC,
        }
    }

    /// The topic of this word or name.
    pub fn parse(text: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|topic| [topic.word(), topic.name()].contains(&text))
    }

    /// What its events may be asked for, beside their time.
    pub fn conditions(self) -> &'static [&'static str] {
        match self {
            Self::Access => &[
                "client", "verdict", "reason", "route", "status", "method", "path", "host", "id",
            ],
            Self::Ban | Self::Audit => &["client"],
        }
    }
}
