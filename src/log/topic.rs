//! Topics, and how each of them is kept.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER;

use super::meta::Id;

/// The longest name Kafka allows, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 249;

/// What becomes of old records (`cleanup.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// They go, by age and by size.
    Delete,
    /// The last record of each key stays.
    Compact,
    /// Both: the last record of each key stays, until its age or the size takes it.
    CompactDelete,
}

impl Cleanup {
    /// Whether records go by age and size.
    pub fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::CompactDelete)
    }

    /// Whether an older record of a key goes.
    pub fn compacts(self) -> bool {
        matches!(self, Self::Compact | Self::CompactDelete)
    }

    /// As Kafka writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactDelete => "compact,delete",
        }
    }
}

/// When appended records are safe, and when they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Acknowledged and shown only when they are on disk (`flush.messages=1`).
    EachAppend,
    /// Acknowledged and shown when they are in the page cache; on disk after `age` or `bytes`, whichever
    /// comes first.
    Lazily {
        /// How long they may be in the page cache only.
        age: Duration,
        /// How much of them may be in the page cache only.
        bytes: u64,
    },
}

impl Flush {
    /// Whether an acknowledgement outlives a power cut.
    pub fn is_durable(self) -> bool {
        self == Self::EachAppend
    }
}

/// How a topic is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// What becomes of old records.
    pub cleanup: Cleanup,
    /// How old a record may become; without it, as old as it likes.
    pub retention: Option<Duration>,
    /// How many bytes one partition may have; without it, as many as there is room for.
    pub retention_bytes: Option<u64>,
    /// Bytes at which a segment is closed.
    pub segment_bytes: u64,
    /// The age at which a segment is closed.
    pub segment_age: Duration,
    /// When records are safe.
    pub flush: Flush,
    /// The longest batch that is taken, in bytes.
    pub max_batch_bytes: u32,
    /// How long a tombstone is kept after compaction saw it.
    pub delete_retention: Duration,
    /// Whether it gives way to others when the disk is full.
    pub is_expendable: bool,
    /// Whether Wardent itself goes by it: nothing that is appended to other topics may take its room.
    pub is_reserved: bool,
}

impl Default for TopicConfig {
    /// For a topic that nobody has configured: nothing of it is thrown away, and nothing risked.
    fn default() -> Self {
        Self {
            cleanup: Cleanup::Delete,
            retention: None,
            retention_bytes: None,
            segment_bytes: 64 * 1024 * 1024,
            segment_age: Duration::from_secs(7 * 24 * 3600),
            flush: Flush::EachAppend,
            max_batch_bytes: 1024 * 1024 + 12,
            delete_retention: Duration::from_secs(24 * 3600),
            is_expendable: false,
            is_reserved: false,
        }
    }
}

/// A topic that should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// Its name.
    pub name: String,
    /// How many partitions it has; those that are on disk besides are kept.
    pub partitions: u32,
    /// How it is kept.
    pub config: TopicConfig,
}

/// A topic that is there.
#[derive(Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// What tells it from another of the same name, before or after it.
    pub id: Id,
    /// Written by the appender.
    partitions: AtomicU32,
    /// Written by the appender.
    config: ArcSwap<TopicConfig>,
    /// As it was opened, or made.
    first_config: TopicConfig,
}

impl Topic {
    pub(super) fn new(name: String, id: Id, partitions: u32, config: TopicConfig) -> Self {
        Self {
            name,
            id,
            partitions: partitions.into(),
            config: ArcSwap::from_pointee(config.clone()),
            first_config: config,
        }
    }

    /// How many partitions it has. They may become more, and never less.
    pub fn partitions(&self) -> u32 {
        self.partitions.load(Ordering::Acquire)
    }

    /// How it is kept, as it was decided last.
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.load_full()
    }

    /// How it was kept when the log was opened, or it was made: as Wardent's configuration says of its own.
    pub fn first_config(&self) -> &TopicConfig {
        &self.first_config
    }

    pub(super) fn set_partitions(&self, partitions: u32) {
        self.partitions.store(partitions, Ordering::Release);
    }

    pub(super) fn set_config(&self, config: TopicConfig) {
        self.config.store(Arc::new(config));
    }
}

/// Whether Kafka would take this name: 1 to 249 of `[A-Za-z0-9._-]`, and not `.` or `..`.
pub fn is_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.chars().all(is_allowed)
        && !matches!(name, "." | "..")
}

/// The name of a partition's directory.
pub(super) fn dir_name(topic: &str, index: u32) -> String {
    format!("{topic}-{index}")
}

/// The partition whose directory has this name; none where it is no partition's.
pub(super) fn of_dir_name(name: &str) -> Option<(&str, u32)> {
    let (topic, index) = name.rsplit_once('-')?;
    let number: u32 = index.parse().ok()?;
    let is_canonical = number < PARTITIONS_MAX && number.to_string() == index;
    (is_canonical && is_name(topic)).then_some((topic, number))
}

/// The end of the name of a directory that is on its way out, as Kafka has it.
pub(super) const DELETED: &str = "-delete";

/// What the directory of a deleted topic's partition is called until it is gone. The id tells of which topic
/// it is: the name may have no room for all of the topic's.
pub(super) fn deleted_name(topic: &str, index: u32, id: &Id) -> String {
    let end = format!("-{index}.{}{DELETED}", HEXLOWER.encode(id));
    let room = FILE_NAME_BYTES_MAX.saturating_sub(end.len());
    format!("{}{end}", topic.get(..room).unwrap_or(topic))
}

/// The id of the topic whose partition had the directory that is called so now; none where it is no such.
pub(super) fn deleted_id(name: &str) -> Option<Id> {
    let (_, id) = name.strip_suffix(DELETED)?.rsplit_once('.')?;
    HEXLOWER.decode(id.as_bytes()).ok()?.try_into().ok()
}

/// The longest name of a file, in bytes.
const FILE_NAME_BYTES_MAX: usize = 255;

/// Partitions a topic may have.
pub const PARTITIONS_MAX: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_a_partitions_only_by_the_name_that_it_would_be_given() {
        assert_eq!(
            of_dir_name("wardent.http.access-3"),
            Some(("wardent.http.access", 3))
        );
        assert_eq!(of_dir_name("a-b-0"), Some(("a-b", 0)));
        for other in [
            "quarantine",
            "a-01",
            "a-+1",
            "-1",
            "a-",
            "a/b-1",
            "a-1024",
            "a-1.x-delete",
        ] {
            assert_eq!(of_dir_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_deleted_partition_has_a_name_that_fits_and_tells_its_topic() {
        let id = *b"0123456789abcdef";
        let name = deleted_name("a.b", 3, &id);
        assert_eq!(name, "a.b-3.30313233343536373839616263646566-delete");
        assert_eq!(deleted_id(&name), Some(id));
        let longest = deleted_name(&"a".repeat(NAME_BYTES_MAX), 1023, &id);
        assert_eq!(longest.len(), 255);
        assert_eq!(deleted_id(&longest), Some(id));
        assert_eq!(deleted_id("a-0.x-delete"), None);
    }

    #[test]
    fn names_are_those_that_kafka_takes() {
        assert!(is_name("__consumer_offsets") && is_name("a.b-c_D9"));
        assert!(!is_name("") && !is_name("..") && !is_name("a b") && !is_name("é"));
        assert!(is_name(&"a".repeat(249)) && !is_name(&"a".repeat(250)));
    }
}
