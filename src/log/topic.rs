//! Topics, and how each of them is kept.

use std::time::Duration;

/// The longest name Kafka allows, in bytes.
const NAME_BYTES_MAX: usize = 249;

/// What becomes of old records (`cleanup.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// They go, by age and by size.
    Delete,
    /// The last record of each key stays.
    Compact,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// What tells it from another of the same name, before or after it.
    pub id: [u8; 16],
    /// How many partitions it has.
    pub partitions: u32,
    /// How it is kept.
    pub config: TopicConfig,
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
    fn names_are_those_that_kafka_takes() {
        assert!(is_name("__consumer_offsets") && is_name("a.b-c_D9"));
        assert!(!is_name("") && !is_name("..") && !is_name("a b") && !is_name("é"));
        assert!(is_name(&"a".repeat(249)) && !is_name(&"a".repeat(250)));
    }
}
