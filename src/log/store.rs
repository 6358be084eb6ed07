//! The log as a whole: its directory, its topics, who appends and who reads.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;

use super::{
    Appender, Found, Health,
    appends::{ALL_BATCHES_MAX, Appends},
    changer::Changer,
    changes::{Change, Changed, Changes},
    checkpoint,
    commands::{Command, CommandDone, Commands},
    flusher::{Flusher, Pending},
    meta::Meta,
    partition::Partition,
    topic::TopicSettings,
    topics::Topics,
};
use crate::base::{bell::Bell, clock::Clock, disk::Disk};

/// There only after the log was closed in good order; removed before anything else when it is opened.
pub(super) const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
pub(super) const LOCK: &str = ".lock";

/// What a log should be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its directory.
    pub dir: PathBuf,
    /// Bytes it may have in all; held by who cleans it.
    pub disk_max: u64,
    /// Bytes that are kept for durable topics when the disk is full; 0 for none.
    pub ballast_bytes: u64,
    /// Topics that should be there. Others that are found are served as well.
    pub topics: Vec<TopicSettings>,
}

/// An open log.
#[derive(Debug)]
pub struct Opened {
    /// For everybody.
    pub log: Arc<Log>,
    /// Appends; one thread has it.
    pub appender: Appender,
    /// Makes safe; another thread has it.
    pub flusher: Flusher,
    /// Makes and removes topics; a third has it.
    pub changer: Changer,
    /// What was not as it should be.
    pub report: Vec<Found>,
    /// Whether it had been closed in good order.
    pub was_clean: bool,
}

/// Why the log cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it.
    Locked {
        /// The log's directory.
        dir: PathBuf,
        /// That process, if it says so.
        pid: Option<u32>,
    },
    /// A later Wardent or Kafka wrote it. Nothing was written to it.
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// A file that says what the log is, is not understood. Nothing was written to it.
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The disk failed or is full, or may not be used.
    Io {
        /// What it was about.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { dir, pid } => {
                write!(f, "log dir {} is locked by ", dir.display())?;
                match pid {
                    Some(pid) => write!(f, "pid {pid}"),
                    None => f.write_str("another process"),
                }
            }
            Self::Newer { path, version } => write!(
                f,
                "{} has version {version}, which this Wardent does not know: use the one that wrote it, or a later one (nothing was written)",
                path.display()
            ),
            Self::Wrong { path, what } => {
                write!(f, "{}: {what} (nothing was written)", path.display())
            }
            Self::Io { path, error } => write!(f, "log: {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::Locked { .. } | Self::Newer { .. } | Self::Wrong { .. } => None,
        }
    }
}

/// The log, for everybody: readers by partition, writers by [`Log::appends`].
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    meta: Meta,
    /// Written by the appender.
    topics: ArcSwap<Topics>,
    appends: Appends,
    health: Health,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Clock,
    pub(super) commands: Commands,
    pub(super) changes: Changes,
    /// From the appender to the flusher. As many as may wait of all topics, so it is never full.
    pub(super) pending: ArrayQueue<Pending>,
    pub(super) flusher_bell: Bell,
    is_appender_over: AtomicBool,
    /// Held by who writes up to where partitions are compacted: who cleans the log, and who makes a topic of a
    /// name that another had.
    compacted_up_to: Mutex<()>,
    lock: Mutex<Option<Box<dyn fmt::Debug + Send + Sync>>>,
}

impl Log {
    pub(super) fn new(
        dir: PathBuf,
        meta: Meta,
        topics: Topics,
        (disk, clock): (Arc<dyn Disk>, Clock),
        lock: Box<dyn fmt::Debug + Send + Sync>,
    ) -> Self {
        Self {
            dir,
            meta,
            topics: ArcSwap::from_pointee(topics),
            appends: Appends::new(),
            health: Health::default(),
            disk,
            clock,
            commands: Commands::new(),
            changes: Changes::new(),
            pending: ArrayQueue::new(ALL_BATCHES_MAX),
            flusher_bell: Bell::default(),
            is_appender_over: AtomicBool::new(false),
            compacted_up_to: Mutex::new(()),
            lock: Mutex::new(Some(lock)),
        }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The disk it is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Who it is.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The topics that it has now.
    pub fn topics(&self) -> Arc<Topics> {
        self.topics.load_full()
    }

    /// From here on these are the topics.
    pub(super) fn set_topics(&self, topics: Arc<Topics>) {
        self.topics.store(topics);
    }

    /// The partitions that it has now, by topic and number.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.topics.load().partitions().to_vec()
    }

    /// A partition; none where there is no such.
    pub fn partition(&self, topic: &str, index: u32) -> Option<Arc<Partition>> {
        self.topics.load().partition(topic, index).cloned()
    }

    /// Asks for a topic to be made, removed, or kept otherwise; hands it back where its queue is full or the
    /// log is being closed.
    ///
    /// # Errors
    /// With what was asked; `done` was dropped without a call.
    #[expect(
        clippy::result_large_err,
        reason = "it is what was asked, and rarely so"
    )]
    pub fn change(&self, change: Change, done: Changed) -> Result<(), Change> {
        self.changes.give(change, done)
    }

    /// The queue to the appender.
    pub fn appends(&self) -> &Appends {
        &self.appends
    }

    /// Asks the appender for something other than an append; hands it back where its queue is full.
    ///
    /// # Errors
    /// With what was asked; `done` was dropped without a call.
    pub fn ask(&self, command: Command, done: CommandDone) -> Result<(), Command> {
        self.commands.give(command, done, &self.appends.bell)
    }

    /// What it counts.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Bytes of all segments' logs.
    pub fn size_bytes(&self) -> u64 {
        let topics = self.topics.load();
        topics.partitions().iter().map(|one| one.size_bytes()).sum()
    }

    /// For how long something has waited to be safe, in milliseconds; 0 where nothing does.
    pub fn unflushed_ms(&self) -> u64 {
        let topics = self.topics.load();
        let since = topics
            .partitions()
            .iter()
            .filter_map(|one| one.dirty_since_ns());
        let now_ns = self.clock.monotonic_ns();
        since
            .min()
            .map_or(0, |since| now_ns.saturating_sub(since) / 1_000_000)
    }

    /// Writes up to where partitions are compacted, as `offsets` says; nothing where that says nothing. What it
    /// goes by is what there is from when it is called.
    pub(super) fn keep_compacted<E>(
        &self,
        offsets: impl FnOnce() -> Result<Option<checkpoint::Offsets>, E>,
    ) -> Result<(), E>
    where
        E: From<io::Error>,
    {
        let lock = self.compacted_up_to.lock();
        let _writing = lock.unwrap_or_else(PoisonError::into_inner);
        match offsets()? {
            Some(offsets) => Ok(checkpoint::write_offsets(
                &*self.disk,
                &self.dir,
                checkpoint::CLEANED,
                &offsets,
            )?),
            None => Ok(()),
        }
    }

    /// Queues a batch that is written and waits to be safe.
    pub(super) fn wait_for_flush(&self, pending: Pending) {
        if let Err(pending) = self.pending.push(pending) {
            // As many as may wait have room. Were that ever wrong, nobody would be told that what is written
            // is safe; it would be told as failed, and offered again.
            debug_assert!(false, "more wait to be safe than were let in");
            let Pending {
                class, batch, done, ..
            } = pending;
            self.appends.refused(class, batch, done, super::Reason::Io);
        }
    }

    pub(super) fn set_appender_over(&self) {
        self.is_appender_over.store(true, Ordering::Release);
        self.flusher_bell.ring();
    }

    pub(super) fn is_appender_over(&self) -> bool {
        self.is_appender_over.load(Ordering::Acquire)
    }

    /// Leaves the mark of an orderly stop.
    pub(super) fn mark_closed(&self) -> io::Result<()> {
        let text = "{\"version\":0,\"brokerEpoch\":-1}";
        checkpoint::write(&*self.disk, &self.dir, CLEAN_SHUTDOWN, text)
    }

    /// Lets another process have the log.
    pub(super) fn unlock(&self) {
        let lock = self
            .lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(lock);
    }
}
