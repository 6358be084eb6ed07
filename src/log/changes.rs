//! Which topics there shall be: what is asked for while the log runs, and what became of it.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crossbeam_queue::ArrayQueue;

use super::{
    topic::{Topic, TopicConfig, TopicSettings},
    topics::Topics,
    writer::Writer,
};
use crate::base::bell::Bell;

/// Changes that may wait.
const CHANGES_MAX: usize = 64;

/// Topics a log may have.
pub const TOPICS_MAX: usize = 1_000;

/// Partitions a log may have in all its topics: each has a few files open.
pub const ALL_PARTITIONS_MAX: usize = 4_096;

/// Another topic, or another way to keep one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new topic.
    Create(TopicSettings),
    /// No such topic any more. Who still has its partitions can go on reading them.
    Delete {
        /// Its name.
        name: String,
    },
    /// More partitions.
    Grow {
        /// The topic's name.
        name: String,
        /// How many it shall have.
        partitions: u32,
    },
    /// Another way to keep a topic.
    Configure {
        /// The topic's name.
        name: String,
        /// How it shall be kept.
        config: TopicConfig,
    },
}

/// Why a change was not made. Where it is the disk's doing, a crash may still make it.
#[derive(Debug)]
pub enum NotChanged {
    /// There is a topic of this name.
    Exists,
    /// There is no topic of this name.
    Unknown,
    /// The name is none that a topic may have.
    Name,
    /// A topic has at least one partition and at most [`super::topic::PARTITIONS_MAX`], and grows only.
    Partitions,
    /// The log would have more than [`TOPICS_MAX`] topics or [`ALL_PARTITIONS_MAX`] partitions.
    TooMany,
    /// The disk failed or is full.
    Io(io::Error),
    /// The log is being closed.
    Stopping,
}

impl fmt::Display for NotChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exists => "there is a topic of this name",
            Self::Unknown => "there is no topic of this name",
            Self::Name => "a topic's name has 1 to 249 letters, digits, `.`, `_` and `-`",
            Self::Partitions => "a topic has 1 to 1024 partitions, and never fewer than before",
            Self::TooMany => "the log has as many topics or partitions as it may have",
            Self::Io(_) => "the disk failed",
            Self::Stopping => "the log is being closed",
        })
    }
}

impl std::error::Error for NotChanged {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Exists
            | Self::Unknown
            | Self::Name
            | Self::Partitions
            | Self::TooMany
            | Self::Stopping => None,
        }
    }
}

/// Called once, on a thread of the log's, with the topic as it is now, or was. It must not wait.
pub type Changed = Box<dyn FnOnce(Result<Arc<Topic>, NotChanged>) + Send>;

/// A change, and who is told.
pub(super) struct Asked {
    pub(super) change: Change,
    pub(super) done: Changed,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.change.fmt(f)
    }
}

/// What the appender is handed, one at a time; it answers each with the writers that it gives back.
#[derive(Debug)]
pub(super) enum Handover {
    /// Partitions that are complete on disk. From here on they are served: these are the topics then.
    Join(Arc<Topic>, Vec<Writer>, Arc<Topics>),
    /// A topic that is to go. It gives its writers back; these are the topics then.
    Leave(Arc<Topic>, Arc<Topics>),
    /// How a topic is kept from here on.
    Configure(Arc<Topic>, TopicConfig),
}

/// What lies between who asks for changes, the changer, the appender and the flusher.
#[derive(Debug)]
pub(super) struct Changes {
    asked: ArrayQueue<Asked>,
    is_closed: AtomicBool,
    is_over: AtomicBool,
    /// From the changer to the appender, and back.
    pub(super) handover: ArrayQueue<Handover>,
    pub(super) handed: ArrayQueue<Vec<Writer>>,
    /// Whether the changer waits for the flusher to write the checkpoints, and what became of it.
    pub(super) wants_checkpoints: AtomicBool,
    pub(super) checkpointed: ArrayQueue<io::Result<()>>,
    /// The changer's.
    pub(super) bell: Bell,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self {
            asked: ArrayQueue::new(CHANGES_MAX),
            is_closed: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            handover: ArrayQueue::new(1),
            handed: ArrayQueue::new(1),
            wants_checkpoints: AtomicBool::new(false),
            checkpointed: ArrayQueue::new(1),
            bell: Bell::default(),
        }
    }

    /// Queues a change, or hands it back because the queue is full or the log is being closed.
    #[expect(
        clippy::result_large_err,
        reason = "it is what was given, and rarely so"
    )]
    pub(super) fn give(&self, change: Change, done: Changed) -> Result<(), Change> {
        if self.is_closed() {
            return Err(change);
        }
        let asked = Asked { change, done };
        self.asked.push(asked).map_err(|asked| asked.change)?;
        self.bell.ring();
        Ok(())
    }

    pub(super) fn next(&self) -> Option<Asked> {
        self.asked.pop()
    }

    /// Whether the changer has something to do at once.
    pub(super) fn is_waiting(&self) -> bool {
        !self.asked.is_empty()
            || !self.handed.is_empty()
            || !self.checkpointed.is_empty()
            || self.is_closed()
    }

    /// Takes no changes any more.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.bell.ring();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Nobody will change anything any more.
    pub(super) fn set_over(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Refuses what waits.
    pub(super) fn refuse_all(&self) {
        while let Some(asked) = self.asked.pop() {
            (asked.done)(Err(NotChanged::Stopping));
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.refuse_all();
    }
}
