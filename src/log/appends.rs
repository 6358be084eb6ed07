//! What is to be appended, on its way to the appender.
//!
//! Whoever appends never waits: a batch is taken, or handed back. Each class of topics has room of its own,
//! so that a disk that makes nothing safe does not keep access events from the page cache, and no client bans,
//! offsets or what administrators decide from the disk.

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

/// Batches that may wait of one class, until they are done with.
pub const BATCHES_MAX: usize = 1024;
/// Of durable topics of Wardent's own there may be more: groups alone may have [`BATCHES_MAX`] under way.
pub const OWN_DURABLE_BATCHES_MAX: usize = BATCHES_MAX + BATCHES_MAX / 2;

/// Bytes that may wait of one class.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of durable topics of Wardent's own: 16 MiB of groups, and 8 MiB.
const OWN_DURABLE_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Batches that may wait in all.
pub(super) const ALL_BATCHES_MAX: usize = 3 * BATCHES_MAX + OWN_DURABLE_BATCHES_MAX;

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

/// Whose room a batch has: that of its topic when it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class {
    is_durable: bool,
    is_reserved: bool,
}

/// What waits of one class.
#[derive(Debug)]
struct Room {
    batches_max: usize,
    bytes_max: usize,
    batches: AtomicUsize,
    bytes: AtomicUsize,
}

impl Room {
    fn of(batches_max: usize, bytes_max: usize) -> Self {
        Self {
            batches_max,
            bytes_max,
            batches: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Takes room for `bytes`; one batch always fits, however long it is.
    fn take(&self, bytes: usize) -> bool {
        // Relaxed: the counts bound memory and order nothing.
        let batches = self.batches.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = batches < self.batches_max && (batches == 0 || before + bytes <= self.bytes_max);
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
    pub(super) class: Class,
}

/// The room of Wardent's own topics, and that of all others.
#[derive(Debug)]
struct Rooms {
    own: Room,
    others: Room,
}

impl Rooms {
    fn batches(&self) -> usize {
        // Relaxed: it is a number to look at.
        let count = |room: &Room| room.batches.load(Ordering::Relaxed);
        count(&self.own) + count(&self.others)
    }
}

/// The queue to the appender.
#[derive(Debug)]
pub struct Appends {
    queue: ArrayQueue<Taken>,
    lazy: Rooms,
    durable: Rooms,
    is_closed: AtomicBool,
    /// Those who are offering right now.
    offering: AtomicUsize,
    pub(super) bell: Bell,
}

impl Appends {
    pub(super) fn new() -> Self {
        Self {
            queue: ArrayQueue::new(ALL_BATCHES_MAX),
            lazy: Rooms {
                own: Room::of(BATCHES_MAX, BYTES_MAX),
                others: Room::of(BATCHES_MAX, BYTES_MAX),
            },
            durable: Rooms {
                own: Room::of(OWN_DURABLE_BATCHES_MAX, OWN_DURABLE_BYTES_MAX),
                others: Room::of(BATCHES_MAX, BYTES_MAX),
            },
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
        let class = Class {
            is_durable: append.partition.is_durable(),
            is_reserved: append.partition.topic().config().is_reserved,
        };
        let bytes = append.batch.bytes().len();
        let room = self.room(class);
        if !room.take(bytes) {
            return Err(append);
        }
        let taken = Taken { append, class };
        self.queue.push(taken).map_err(|taken| {
            room.give(bytes);
            taken.append
        })
    }

    fn room(&self, class: Class) -> &Room {
        let rooms = match class.is_durable {
            true => &self.durable,
            false => &self.lazy,
        };
        match class.is_reserved {
            true => &rooms.own,
            false => &rooms.others,
        }
    }

    /// Batches that were taken and are not done with, of durable topics and of lazily flushed ones.
    pub fn waiting(&self) -> (usize, usize) {
        (self.durable.batches(), self.lazy.batches())
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
    pub(super) fn appended(&self, class: Class, bytes: usize, done: Done, where_: Appended) {
        self.room(class).give(bytes);
        done(Ok(where_));
    }

    /// Tells who offered a batch that it is not in the log, and gives it back.
    pub(super) fn refused(&self, class: Class, batch: Batch, done: Done, reason: Reason) {
        self.room(class).give(batch.bytes().len());
        done(Err(NotAppended { batch, reason }));
    }
}

impl Drop for Appends {
    fn drop(&mut self) {
        while let Some(Taken { append, class }) = self.queue.pop() {
            self.refused(class, append.batch, append.done, Reason::Stopping);
        }
    }
}
