//! What the cleaner counts, for metrics and for who asks how the log is kept.

use crate::log::health::{Mark, Number};

/// What went for one reason.
#[derive(Debug, Default)]
pub struct Deleted {
    /// Segments.
    pub segments: Number,
    /// Their bytes.
    pub bytes: Number,
}

/// The cleaner's numbers.
#[derive(Debug, Default)]
pub struct CleanerHealth {
    /// What was older than its topic allows.
    pub too_old: Deleted,
    /// What its topic had no room for.
    pub too_large: Deleted,
    /// What the whole log had no room for.
    pub over_cap: Deleted,
    /// Segments that were closed early, so that they can go.
    pub rolls: Number,
    /// Deletions and rolls that the appender could not carry out; they are asked for again.
    pub deletion_errors: Number,
    /// Whether nothing is deleted for its age, because the clock is not believed.
    pub is_suspended: Mark,
    /// Whether a file that is written to was removed by somebody else, so that what it takes is lost.
    pub is_removed: Mark,
    /// How often the clock lost its belief.
    pub suspensions: Number,
    /// Bytes of the log above its cap, with nothing left that may go.
    pub bytes_over: Number,
    /// Passes of compaction that came to their end.
    pub passes: Number,
    /// Passes that did not: the disk failed, or a batch is damaged.
    pub pass_errors: Number,
    /// Partitions that are not compacted for now, because their last pass failed.
    pub halted: Number,
    /// Records that compaction dropped.
    pub records_dropped: Number,
    /// Bytes that compaction freed.
    pub compacted_bytes: Number,
    /// Keys that the last pass remembered.
    pub last_keys: Number,
    /// Memory that the last pass took for keys, in bytes.
    pub last_keys_bytes: Number,
    /// How long the last pass took, pauses included, in milliseconds.
    pub last_pass_ms: Number,
    /// The cleaner's last turn, in milliseconds of the monotonic clock.
    pub beat_ms: Number,
}
