//! What the log counts, for metrics and for who asks how it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A number that one thread writes and others read; relaxed, since each stands for itself.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    pub(super) fn raise_to(&self, number: u64) {
        self.0.fetch_max(number, Ordering::Relaxed);
    }
}

/// Whether something is so.
#[derive(Debug, Default)]
pub struct Mark(AtomicBool);

impl Mark {
    /// Whether it is.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, is_so: bool) {
        self.0.store(is_so, Ordering::Relaxed);
    }
}

/// What was appended to the topics of one class.
#[derive(Debug, Default)]
pub struct Appending {
    /// Batches in the log.
    pub batches: Number,
    /// Their bytes, as stored.
    pub bytes: Number,
    /// Their records.
    pub records: Number,
    /// Batches that were given back.
    pub errors: Number,
}

/// The log's numbers.
#[derive(Debug, Default)]
pub struct Health {
    /// Topics whose records are acknowledged when they are on disk.
    pub durable: Appending,
    /// Topics whose records are acknowledged when they are in the page cache.
    pub lazy: Appending,
    /// Calls of fdatasync.
    pub syncs: Number,
    /// Those that failed.
    pub sync_errors: Number,
    /// How long the last took, in nanoseconds.
    pub sync_last_ns: Number,
    /// How long the longest took, in nanoseconds.
    pub sync_max_ns: Number,
    /// Checkpoints that could not be written; they are tried again.
    pub checkpoint_errors: Number,
    /// Partitions that take no appends, because the disk failed them.
    pub offline: Number,
    /// Partitions that were offline and are not any more.
    pub healed: Number,
    /// Times that a segment at work was mended: damage taken out of it, or its indexes made anew.
    pub mended: Number,
    /// Whether the last write found no room.
    pub is_full: Mark,
    /// Whether the log is larger than it may be, and nothing is left that may be deleted for it. Written by who
    /// cleans it; what is not Wardent's own is refused meanwhile.
    pub is_over: Mark,
    /// Whether the room that is kept for durable topics is there.
    pub has_ballast: Mark,
    /// The appender's last turn, in milliseconds of the monotonic clock.
    pub appender_beat_ms: Number,
    /// The flusher's last turn, in milliseconds of the monotonic clock.
    pub flusher_beat_ms: Number,
}

impl Health {
    pub(super) fn appending(&self, is_durable: bool) -> &Appending {
        if is_durable {
            &self.durable
        } else {
            &self.lazy
        }
    }
}
