//! The append-only log, in Kafka's own on-disk format.
//!
//! What it guarantees:
//! - Batches are appended one after the other and never changed; each partition's offsets grow by one with
//!   each record and are never given twice to records that a reader was shown.
//! - What is acknowledged of a durable topic outlives kill -9 and a power cut, and no reader sees it before
//!   it does. What is acknowledged of another outlives kill -9.
//! - A crash costs what was not safe at the end, and nothing before it; a damaged batch costs itself.
//! - Whoever appends or reads never waits for the appender, the flusher, or each other.
//! - Nothing is ever synced a second time where a sync failed.
//!
//! One process has a log ([`open`]); any other may read it ([`open_to_read`]). Names and contents of all
//! files are Kafka's, but for `ballast` and `quarantine/`. It knows nothing of what records say.

mod appender;
pub mod appends;
mod ballast;
pub mod batch;
pub mod build;
mod changer;
pub mod changes;
pub mod checkpoint;
mod cleaned;
pub mod cleaner;
mod codec;
mod commands;
mod compaction;
mod dir;
mod files;
mod flusher;
mod found;
mod heal;
pub mod health;
mod index;
mod mend;
mod meta;
pub mod murmur2;
mod offline;
mod partition;
mod producers;
mod received;
pub mod record;
mod recovery;
mod replay;
mod retention;
mod run;
mod scan;
mod segment;
mod store;
mod swap;
pub mod topic;
mod topics;
mod trusted_time;
mod writer;

pub use appender::Appender;
pub use appends::{Append, Appended, Appends, Done, NotAppended, Reason};
pub use batch::{Batch, Damage, HEADER_BYTES, Header, View};
pub use build::Builder;
pub use changer::Changer;
pub use changes::{Change, Changed, NotChanged};
pub use cleaned::Cleaned;
pub use cleaner::{Bounds, Cleaner, CleanerHealth};
pub use codec::Compression;
pub use commands::{Command, CommandDone, NotDone, TellProducers};
pub use dir::{open, open_to_read};
pub use flusher::Flusher;
pub use found::Found;
pub use health::Health;
pub use meta::{Id, Meta, text_of as id_text};
pub use murmur2::{murmur2, partition_of};
pub use partition::{Partition, SegmentFacts};
pub use producers::{ALL_PRODUCERS_MAX, PRODUCERS_MAX, ProducerFacts};
pub use received::{Claim, Demands, Fault, Unfit};
pub use record::{Headers, Record, Records};
pub use replay::{MENDED_WITHIN, Replay, Replayed};
pub use run::{Ended, Running, start};
pub use segment::ReadError;
pub use store::{Log, OpenError, Opened, Settings};
pub use topic::{Cleanup, Flush, Topic, TopicConfig, TopicSettings};
pub use topics::Topics;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
