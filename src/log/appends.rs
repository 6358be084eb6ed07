//! What is to be appended, on its way to the appender.
//!
//! Whoever appends never waits: a batch is taken, or handed back. Each class of topics has room of its own,
//! so that a disk that makes nothing safe does not keep access events from the page cache.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crossbeam_queue::ArrayQueue;

use super::{Batch, partition::Partition};
use crate::base::bell::Bell;

/// Batches of one class that may wait, until they are done with.
pub const BATCHES_MAX: usize = 1024;
/// Their bytes: of lazily flushed topics, of durable ones.
const LAZY_BYTES_MAX: usize = 32 * 1024 * 1024;
const DURABLE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Called once, on a thread of the log's, with what became of a batch: for lazily flushed topics when it is
/// in the page cache, for durable ones when it is on disk. It must not wait.
pub type Done = Box<dyn FnOnce(Result<Appended, NotAppended>) + Send>;

/// A batch for a partition.
pub struct Append {
    /// Where it goes.
    pub partition: Arc<Partition>,
    /// It gets its offsets when it is appended.
    pub batch: Batch,
    /// Who is told.
    pub done: Done,
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append")
            .field("partition", &self.partition.name())
            .field("bytes", &self.batch.bytes().len())
            .finish_non_exhaustive()
    }
}

/// The offsets that a batch got: the same again where it was in the log already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Of its first record.
    pub base_offset: i64,
    /// Of its last record.
    pub last_offset: i64,
}

/// A batch that is not in the log, and why. Only a crash can still bring it there: what was written of it
/// and not taken back may then be found whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAppended {
    /// It may be offered again.
    pub batch: Batch,
    /// Why.
    pub reason: Reason,
}

/// Why a batch is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There is no room on the disk.
    DiskFull,
    /// The disk failed.
    Io,
    /// The partition takes no appends until it is healed.
    Offline,
    /// The topic was deleted, or is none of this log.
    Deleted,
    /// Its number is not the one that follows its producer's last.
    OutOfOrderSequence,
    /// A later producer has its producer's id.
    Fenced,
    /// It is longer than the topic's `max.message.bytes`.
    TooLarge,
    /// It would begin a segment, and the log has as many as it may have.
    TooManySegments,
    /// The log is being closed.
    Stopping,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::DiskFull,
        Self::Io,
        Self::Offline,
        Self::Deleted,
        Self::OutOfOrderSequence,
        Self::Fenced,
        Self::TooLarge,
        Self::TooManySegments,
        Self::Stopping,
    ];

    /// Its public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::Io => "io",
            Self::Offline => "offline",
            Self::Deleted => "deleted",
            Self::OutOfOrderSequence => "out_of_order_sequence",
            Self::Fenced => "fenced",
            Self::TooLarge => "too_large",
            Self::TooManySegments => "too_many_segments",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskFull => "there is no room on the disk",
            Self::Io => "the disk failed",
            Self::Offline => "the partition is offline until it is healed",
            Self::Deleted => "the topic was deleted",
            Self::OutOfOrderSequence => "the batch does not follow its producer's last",
            Self::Fenced => "a later producer has its id",
            Self::TooLarge => "the batch is longer than the topic allows",
            Self::TooManySegments => "the log has as many segments as it may have",
            Self::Stopping => "the log is being closed",
        })
    }
}

/// What waits of one class.
#[derive(Debug, Default)]
struct Room {
    batches: AtomicUsize,
    bytes: AtomicUsize,
}

impl Room {
    /// Takes room for `bytes`; one batch always fits, however long it is.
    fn take(&self, bytes: usize, bytes_max: usize) -> bool {
        // Relaxed: the counts bound memory and order nothing.
        let batches = self.batches.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = batches < BATCHES_MAX && (batches == 0 || before + bytes <= bytes_max);
        if !fits {
            self.give(bytes);
        }
        fits
    }

    fn give(&self, bytes: usize) {
        self.batches.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A batch that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) append: Append,
    /// Whether its topic was durable then: whose room it has.
    pub(super) was_durable: bool,
}

/// The queue to the appender.
#[derive(Debug)]
pub struct Appends {
    queue: ArrayQueue<Taken>,
    lazy: Room,
    durable: Room,
    is_closed: AtomicBool,
    /// Those who are offering right now.
    offering: AtomicUsize,
    pub(super) bell: Bell,
}

impl Appends {
    pub(super) fn new() -> Self {
        Self {
            queue: ArrayQueue::new(2 * BATCHES_MAX),
            lazy: Room::default(),
            durable: Room::default(),
            is_closed: AtomicBool::new(false),
            offering: AtomicUsize::new(0),
            bell: Bell::default(),
        }
    }

    /// Queues a batch, or hands it back because there is no room for it or the log is being closed. Never
    /// waits.
    ///
    /// # Errors
    /// With what was offered; `done` was not called.
    pub fn offer(&self, append: Append) -> Result<(), Append> {
        // SeqCst, with `close`: either this sees that it is closed, or `close` sees that this is offering.
        self.offering.fetch_add(1, Ordering::SeqCst);
        let result = match self.is_closed.load(Ordering::SeqCst) {
            true => Err(append),
            false => self.push(append),
        };
        self.offering.fetch_sub(1, Ordering::SeqCst);
        if result.is_ok() {
            self.bell.ring();
        }
        result
    }

    fn push(&self, append: Append) -> Result<(), Append> {
        let was_durable = append.partition.is_durable();
        let bytes = append.batch.bytes().len();
        let (room, bytes_max) = self.room(was_durable);
        if !room.take(bytes, bytes_max) {
            return Err(append);
        }
        let taken = Taken {
            append,
            was_durable,
        };
        self.queue.push(taken).map_err(|taken| {
            room.give(bytes);
            taken.append
        })
    }

    fn room(&self, is_durable: bool) -> (&Room, usize) {
        match is_durable {
            true => (&self.durable, DURABLE_BYTES_MAX),
            false => (&self.lazy, LAZY_BYTES_MAX),
        }
    }

    /// Batches that were taken and are not done with, of durable topics and of lazily flushed ones.
    pub fn waiting(&self) -> (usize, usize) {
        let count = |room: &Room| room.batches.load(Ordering::Relaxed);
        (count(&self.durable), count(&self.lazy))
    }

    /// Takes nothing any more.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.bell.ring();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Whether it is closed, and nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        self.is_closed() && self.offering.load(Ordering::SeqCst) == 0 && self.queue.is_empty()
    }

    pub(super) fn next(&self) -> Option<Taken> {
        self.queue.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Tells who offered a batch that it is in the log.
    pub(super) fn appended(&self, was_durable: bool, bytes: usize, done: Done, where_: Appended) {
        self.room(was_durable).0.give(bytes);
        done(Ok(where_));
    }

    /// Tells who offered a batch that it is not in the log, and gives it back.
    pub(super) fn refused(&self, was_durable: bool, batch: Batch, done: Done, reason: Reason) {
        self.room(was_durable).0.give(batch.bytes().len());
        done(Err(NotAppended { batch, reason }));
    }
}

impl Drop for Appends {
    fn drop(&mut self) {
        while let Some(Taken {
            append,
            was_durable,
        }) = self.queue.pop()
        {
            self.refused(was_durable, append.batch, append.done, Reason::Stopping);
        }
    }
}
