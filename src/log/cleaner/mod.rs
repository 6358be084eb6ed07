//! The cleaner: one thread that keeps the log within its bounds, and compacted topics small.
//!
//! It decides; the appender, which owns the segments, carries out. Every ten seconds it looks for what is too
//! old or too large, and whether the log's files are still there; at once when the disk is full or the log above
//! its cap. Between looks it compacts, in steps of half a mebibyte with pauses that leave it a quarter of one
//! core, so that no look waits for a pass and the thread ends promptly.

mod compacting;
mod numbers;
mod retaining;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

pub use numbers::{CleanerHealth, Deleted};

use self::{
    compacting::{Compacting, Progress},
    retaining::Retaining,
};
use super::{
    partition::Partition,
    segment::{LOG, Segment},
    store::Log,
};
use crate::base::{
    bell::Bell,
    clock::Clock,
    disk::{Disk, Open},
};

/// How often it looks for what goes.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often it asks whether it must look at once.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A step of compaction is followed by a pause of so many times its length, and of so much at the most.
const PAUSES: u32 = 3;
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// How long who ends it waits for it.
const END_WITHIN: Duration = Duration::from_secs(5);

/// How much less urgent it is than what else the machine does (nice).
const NICENESS: i32 = 10;

/// What the log may take of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// All of it, in bytes.
    pub bytes_max: u64,
    /// What of it is kept free for durable topics, in bytes.
    pub ballast_bytes: u64,
    /// Whether topics that are not Wardent's own are left alone, since how they are to be kept is not known.
    pub spares_foreign: bool,
}

/// What the cleaner's parts work on.
#[derive(Debug)]
struct Shared {
    log: Arc<Log>,
    disk: Arc<dyn Disk>,
    clock: Clock,
    bell: Arc<Bell>,
    health: Arc<CleanerHealth>,
}

impl Shared {
    /// Looks whether the files that are written to are still where they were. A file that somebody has removed
    /// takes what is written all the same, and even makes it safe; only nobody finds it again.
    fn look_for_files(&self) {
        let removed = |partition: &&Arc<Partition>| {
            let is_removed = |segment: &Arc<Segment>| {
                let found = self.disk.open(&segment.path(LOG), Open::Read);
                found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            };
            // One that is not the active one any more may have been deleted in between.
            let active = || partition.active();
            active()
                .filter(is_removed)
                .is_some_and(|segment| active().is_some_and(|still| Arc::ptr_eq(&still, &segment)))
        };
        let all = self.log.partitions();
        let gone = all.iter().filter(removed).collect::<Vec<_>>();
        // One whose topic was deleted in between has its files elsewhere, or none.
        let topics = self.log.topics();
        let is_removed = gone.into_iter().any(|one| topics.has(one));
        if is_removed && !self.health.is_removed.get() {
            let dir = self.log.dir().display();
            tracing::error!(
                "files of the log in {dir} were removed: what is written to them is lost; start Wardent anew"
            );
        }
        self.health.is_removed.set(is_removed);
    }
}

/// Deletes and compacts.
#[derive(Debug)]
pub struct Cleaner {
    shared: Shared,
    retaining: Retaining,
    compacting: Compacting,
    now_ms: Option<u64>,
    next_look_ns: u64,
    next_ask_ns: u64,
    was_full: bool,
}

/// How long nothing is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// There is more to do, after a pause that leaves others their share.
    Pause,
    /// Until the appender answers, or so long.
    For(Duration),
}

impl Cleaner {
    /// A cleaner of a log that is open. There must be one only.
    pub fn new(log: Arc<Log>, bounds: Bounds) -> Self {
        let shared = Shared {
            disk: Arc::clone(&log.disk),
            clock: log.clock.clone(),
            bell: Arc::default(),
            health: Arc::default(),
            log,
        };
        Self {
            retaining: Retaining::new(&shared, bounds),
            compacting: Compacting::new(&shared),
            now_ms: None,
            next_look_ns: 0,
            next_ask_ns: 0,
            was_full: false,
            shared,
        }
    }

    /// Its numbers.
    pub fn health(&self) -> &Arc<CleanerHealth> {
        &self.shared.health
    }

    /// One turn: a look, if it is time, and one step of compaction.
    pub fn turn(&mut self) -> Rest {
        let shared = &self.shared;
        let now_ns = shared.clock.monotonic_ns();
        shared.health.beat_ms.set(now_ns / 1_000_000);
        let is_answered = self.retaining.hear(shared);
        if now_ns >= self.next_ask_ns && is_answered {
            self.next_ask_ns = now_ns.saturating_add(ns(ASK_EVERY));
            let is_full = self.retaining.is_full(shared);
            let is_urgent = is_full && !self.was_full || self.retaining.is_over(shared);
            self.was_full = is_full;
            if is_urgent || now_ns >= self.next_look_ns {
                self.next_look_ns = now_ns.saturating_add(ns(LOOK_EVERY));
                shared.look_for_files();
                self.now_ms = self.retaining.read_clock(shared);
                self.retaining.look(shared, self.now_ms);
            }
        }
        match self.compacting.turn(shared, self.now_ms) {
            Progress::Working => Rest::Pause,
            Progress::Idle | Progress::Waiting => Rest::For(ASK_EVERY),
        }
    }

    /// Ends what is under way, without leaving anything half done.
    pub fn finish(&mut self) {
        self.compacting.abandon();
        self.retaining.write_kept(&self.shared);
    }

    /// Runs on a thread of its own until what is returned is dropped. The appender must still run then.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(mut self) -> io::Result<CleanerThread> {
        let (bell, health) = (Arc::clone(&self.shared.bell), Arc::clone(self.health()));
        let ended = Arc::<AtomicBool>::default();
        let until = Arc::clone(&ended);
        let (told, over) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("cleaner".to_owned())
            .spawn(move || {
                // 0 is the calling thread. Where it is refused the cleaner runs all the same.
                let _ = rustix::process::setpriority_process(None, NICENESS);
                self.shared.bell.is_heard_here();
                // Acquire: pairs with the end of `CleanerThread`.
                while !until.load(Ordering::Acquire) {
                    let began_ns = self.shared.clock.monotonic_ns();
                    let rest = self.turn();
                    let took_ns = self.shared.clock.monotonic_ns().saturating_sub(began_ns);
                    let nap = match rest {
                        Rest::Pause => Duration::from_nanos(took_ns)
                            .saturating_mul(PAUSES)
                            .min(PAUSE_MAX),
                        Rest::For(nap) => nap,
                    };
                    self.shared.bell.nap(nap, || until.load(Ordering::Acquire));
                }
                self.finish();
                // Who ended it may have stopped waiting.
                let _ = told.send(());
            })?;
        Ok(CleanerThread {
            ended,
            bell,
            health,
            over,
            thread: Some(thread),
        })
    }
}

/// A cleaner on its thread; it ends when this is dropped.
#[derive(Debug)]
pub struct CleanerThread {
    ended: Arc<AtomicBool>,
    bell: Arc<Bell>,
    health: Arc<CleanerHealth>,
    over: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl CleanerThread {
    /// The cleaner's numbers.
    pub fn health(&self) -> &Arc<CleanerHealth> {
        &self.health
    }
}

impl Drop for CleanerThread {
    fn drop(&mut self) {
        // Release: pairs with the thread's looks.
        self.ended.store(true, Ordering::Release);
        self.bell.ring();
        // A disk that does not answer keeps the thread, but not who ends it. One that panicked is over, too.
        let is_over = self.over.recv_timeout(END_WITHIN) != Err(RecvTimeoutError::Timeout);
        if let Some(thread) = self.thread.take().filter(|_| is_over) {
            // A panic in it has been told.
            let _ = thread.join();
        }
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(in crate::log) mod rig;
#[cfg(test)]
mod tests;
