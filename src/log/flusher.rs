//! The flusher: one thread that makes safe on disk what the appender wrote, and then says so.
//!
//! Durable topics are flushed as soon as something waits; what is appended meanwhile waits for the next
//! flush, all of it together (group commit). Others are flushed by age and bytes. What is never done is a
//! second fsync where one failed: the partition goes offline, and the appender heals it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    Batch, Reason,
    appends::{Appended, Class, Done},
    checkpoint::{self, HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS, offsets_text},
    partition::{Partition, Standing},
    store::{CLEAN_SHUTDOWN, Log},
    topic::Flush,
    topics::Topics,
};

/// How long it sleeps when nothing wakes it.
const NAP_MAX: Duration = Duration::from_secs(1);

/// Checkpoints are written this long after something changed, or after so many bytes: what has to be walked
/// after a crash.
const CHECKPOINT_AGE: Duration = Duration::from_secs(10);
const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;

/// A batch that is written and waits to be safe.
pub(super) struct Pending {
    pub(super) partition: Arc<Partition>,
    /// The partition's, when the batch was written.
    pub(super) generation: u64,
    /// Whose room it has.
    pub(super) class: Class,
    pub(super) batch: Batch,
    pub(super) done: Done,
    pub(super) appended: Appended,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending")
            .field("partition", &self.partition.name())
            .field("appended", &self.appended)
            .finish_non_exhaustive()
    }
}

/// Makes safe what was appended.
#[derive(Debug)]
pub struct Flusher {
    log: Arc<Log>,
    topics: Arc<Topics>,
    /// By partition.
    backlogs: BTreeMap<usize, Backlog>,
    checkpoints: Checkpoints,
}

/// What of one partition waits.
#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<Pending>,
    /// Bytes that had been appended when it was flushed the last time.
    flushed_bytes: u64,
}

/// The log's checkpoints: as they were written, and when the next are due.
#[derive(Debug, Default)]
struct Checkpoints {
    written: Vec<(usize, [i64; 3])>,
    changed_at_ns: Option<u64>,
    /// Bytes flushed since they were written.
    bytes: u64,
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}

impl Flusher {
    pub(super) fn new(log: Arc<Log>) -> Self {
        Self {
            topics: log.topics(),
            log,
            backlogs: BTreeMap::new(),
            checkpoints: Checkpoints::default(),
        }
    }

    /// The log it flushes.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// One turn: all durable partitions for which something waits, one other that is due, and checkpoints
    /// that are. Says whether something was done, so that there may be more.
    pub fn turn(&mut self) -> bool {
        let log = Arc::clone(&self.log);
        let topics = self.look_again();
        self.take_pending();
        let mut worked = false;
        let all = topics.partitions();
        for partition in all.iter().filter(|one| one.is_durable()) {
            if needs_flush(partition) {
                worked |= self.flush(partition);
            }
        }
        let now_ns = log.clock.monotonic_ns();
        let mut lazy = all.iter().filter(|one| !one.is_durable());
        if let Some(partition) = lazy.find(|one| self.is_due(one, now_ns)) {
            worked |= self.flush(partition);
        }
        self.let_go();
        // Acquire: pairs with the changer's wish; what it has taken out of the topics is not written.
        let is_asked = log.changes.wants_checkpoints.swap(false, Ordering::Acquire);
        if is_asked || self.checkpoints.are_due(&topics, now_ns) {
            // What could not be written is tried again when it is due again.
            let written = self.write_checkpoints(now_ns);
            if written.is_err() {
                log.health().checkpoint_errors.add(1);
            }
            if is_asked {
                // It wishes for one at a time.
                let _ = log.changes.checkpointed.push(written);
                log.changes.bell.ring();
                worked = true;
            }
        }
        log.health().flusher_beat_ms.set(now_ns / 1_000_000);
        worked
    }

    /// The topics that there are now. What is known of those that are no more is forgotten.
    fn look_again(&mut self) -> Arc<Topics> {
        let now = self.log.topics();
        if !Arc::ptr_eq(&now, &self.topics) {
            let numbers: BTreeSet<_> = now.partitions().iter().map(|one| one.number).collect();
            self.backlogs
                .retain(|number, one| numbers.contains(number) || !one.waiting.is_empty());
            self.topics = Arc::clone(&now);
        }
        now
    }

    /// Sleeps until a durable partition has something, or another is due.
    pub(super) fn nap(&self) {
        let log = &self.log;
        let now_ns = log.clock.monotonic_ns();
        log.flusher_bell.nap(self.until_due(now_ns), || {
            let is_waiting = |partition: &Arc<Partition>| {
                partition.is_durable() && needs_flush(partition)
                    || self.is_due(partition, now_ns)
                    || partition.standing() == Standing::Offline
            };
            !log.pending.is_empty()
                || log.is_appender_over()
                || log.changes.wants_checkpoints.load(Ordering::Relaxed)
                || log.topics().partitions().iter().any(is_waiting)
        });
    }

    /// How long until a lazily flushed partition is due. One that is offline waits for the appender.
    pub(super) fn until_due(&self, now_ns: u64) -> Duration {
        let until_due = |partition: &Arc<Partition>| {
            let since = partition.dirty_since_ns()?;
            match partition.topic().config().flush {
                Flush::Lazily { age, .. } if partition.standing() == Standing::Online => {
                    Some(since.saturating_add(ns(age)).saturating_sub(now_ns))
                }
                Flush::Lazily { .. } | Flush::EachAppend => None,
            }
        };
        let topics = self.log.topics();
        let nearest = topics.partitions().iter().filter_map(until_due).min();
        nearest.map_or(NAP_MAX, Duration::from_nanos).min(NAP_MAX)
    }

    /// Whether nothing more will be appended.
    pub(super) fn is_over(&self) -> bool {
        self.log.is_appender_over()
    }

    /// Flushes everything, writes the checkpoints, and marks the log as closed in good order. The appender
    /// has finished. Says whether all of it is safe; what is not is given back as far as it was to be
    /// acknowledged.
    pub fn finish(&mut self) -> bool {
        let log = Arc::clone(&self.log);
        while self.turn() {}
        let topics = self.look_again();
        for partition in topics.partitions() {
            if partition.standing() == Standing::Online && partition.dirty_since_ns().is_some() {
                self.flush(partition);
            }
            if let Some(active) = partition.active() {
                active.seal();
            }
        }
        self.take_pending();
        self.let_go();
        let is_safe = topics.partitions().iter().all(|partition| {
            !partition.is_offline() && partition.flushed_offset() >= partition.log_end_offset()
        });
        let now_ns = log.clock.monotonic_ns();
        let closed = self.write_checkpoints(now_ns).and_then(|()| match is_safe {
            true => log.mark_closed(),
            false => Ok(()),
        });
        if let Err(error) = &closed {
            tracing::error!(
                "the log could not be closed in good order ({CLEAN_SHUTDOWN}): {error}"
            );
        }
        log.unlock();
        is_safe && closed.is_ok()
    }

    fn take_pending(&mut self) {
        while let Some(pending) = self.log.pending.pop() {
            let backlog = self.backlogs.entry(pending.partition.number);
            backlog.or_default().waiting.push_back(pending);
        }
        for backlog in self.backlogs.values_mut() {
            let is_gone = |pending: &mut Pending| {
                let partition = &pending.partition;
                partition.is_deleted() || pending.generation != partition.generation()
            };
            while let Some(pending) = backlog.waiting.pop_front_if(is_gone) {
                let reason = match pending.partition.is_deleted() {
                    true => Reason::Deleted,
                    false => Reason::Io,
                };
                give_back(&self.log, pending, reason);
            }
        }
    }

    /// Whether a lazily flushed partition has waited long enough, or has enough.
    fn is_due(&self, partition: &Partition, now_ns: u64) -> bool {
        let Some(since) = partition.dirty_since_ns() else {
            return false;
        };
        let Flush::Lazily { age, bytes } = partition.topic().config().flush else {
            return false;
        };
        let flushed = self.backlogs.get(&partition.number);
        let flushed = flushed.map_or(0, |backlog| backlog.flushed_bytes);
        partition.standing() == Standing::Online
            && (now_ns.saturating_sub(since) >= ns(age)
                || partition.appended_bytes().saturating_sub(flushed) >= bytes)
    }

    /// Makes a partition safe up to where it is now. Says whether it is.
    fn flush(&mut self, partition: &Partition) -> bool {
        let since = partition.take_dirty();
        // In this order: the segments have at least what is below `end`.
        let appended_bytes = partition.appended_bytes();
        let end = partition.log_end_offset();
        if let Err(error) = self.sync(partition) {
            // Of a topic that goes meanwhile, files are not where they were.
            if self.log.topics().has(partition) {
                self.log.health().sync_errors.add(1);
                tracing::error!(
                    "the log: making {} safe on disk failed: {error}; it is offline until it is healed",
                    partition.name()
                );
            }
            partition.add_dirty(0, since.unwrap_or_default());
            partition.set_standing(Standing::Offline);
            return false;
        }
        partition.set_flushed(end);
        let backlog = self.backlogs.entry(partition.number).or_default();
        self.checkpoints.bytes += appended_bytes.saturating_sub(backlog.flushed_bytes);
        backlog.flushed_bytes = appended_bytes;
        // Also where it is durable no more, and somebody waits since it was.
        partition.show_below(end);
        self.acknowledge(partition, end);
        true
    }

    fn acknowledge(&mut self, partition: &Partition, end: i64) {
        let log = Arc::clone(&self.log);
        // The appender queues what waits before it lets the log's end pass it: all below is here.
        self.take_pending();
        let Some(backlog) = self.backlogs.get_mut(&partition.number) else {
            return;
        };
        while let Some(pending) = backlog
            .waiting
            .pop_front_if(|pending| pending.appended.last_offset < end)
        {
            let Pending {
                class,
                batch,
                done,
                appended,
                ..
            } = pending;
            log.appends()
                .appended(class, batch.bytes().len(), done, appended);
        }
    }

    /// Makes safe the segments of a partition that are not, in their order.
    fn sync(&self, partition: &Partition) -> io::Result<()> {
        let flushed = partition.flushed_offset();
        let segments = partition.all_segments();
        for segment in segments.iter() {
            if segment.end_offset() > flushed {
                self.timed(|| segment.log.sync_data())?;
            }
            if !segment.is_named() {
                self.timed(|| self.log.disk.sync_dir(&partition.dir))?;
                segment.set_named(true);
            }
            if segment.is_closed() && !segment.is_sealed() {
                segment.seal();
            }
        }
        Ok(())
    }

    fn timed(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let health = self.log.health();
        let began_ns = self.log.clock.monotonic_ns();
        let result = sync();
        let took_ns = self.log.clock.monotonic_ns().saturating_sub(began_ns);
        health.syncs.add(1);
        health.sync_last_ns.set(took_ns);
        health.sync_max_ns.raise_to(took_ns);
        result
    }

    /// Gives back what waits for partitions that are offline, after which the appender may heal them.
    fn let_go(&mut self) {
        for partition in self.topics.partitions() {
            if partition.standing() == Standing::Online {
                continue;
            }
            if let Some(backlog) = self.backlogs.get_mut(&partition.number) {
                for pending in backlog.waiting.drain(..) {
                    give_back(&self.log, pending, Reason::Io);
                }
            }
            if partition.standing() == Standing::Offline {
                partition.set_standing(Standing::LetGo);
            }
        }
    }

    fn write_checkpoints(&mut self, now_ns: u64) -> io::Result<()> {
        let log = Arc::clone(&self.log);
        let topics = self.look_again();
        let current = current(&topics);
        // Even where it fails: it is not tried again at once.
        self.checkpoints.changed_at_ns = Some(now_ns);
        self.checkpoints.bytes = 0;
        let text = |which: usize| {
            let offsets: Vec<_> = topics
                .partitions()
                .iter()
                .zip(&current)
                .map(|(partition, (_, offsets))| {
                    let offset = offsets.get(which).copied().unwrap_or_default();
                    (partition.topic().name.clone(), partition.index(), offset)
                })
                .collect();
            offsets_text(&offsets)
        };
        let files = [
            (RECOVERY_POINTS, text(0)),
            (HIGH_WATERMARKS, text(1)),
            (LOG_STARTS, text(2)),
        ];
        checkpoint::write_all(&*log.disk, log.dir(), &files)?;
        self.checkpoints.changed_at_ns = None;
        self.checkpoints.written = current;
        Ok(())
    }
}

/// Recovery point, high watermark and log start of every partition.
fn current(topics: &Topics) -> Vec<(usize, [i64; 3])> {
    let offsets = |partition: &Arc<Partition>| {
        let offsets = [
            partition.flushed_offset(),
            partition.high_watermark(),
            partition.log_start_offset(),
        ];
        (partition.number, offsets)
    };
    topics.partitions().iter().map(offsets).collect()
}

impl Checkpoints {
    fn are_due(&mut self, topics: &Topics, now_ns: u64) -> bool {
        if self.changed_at_ns.is_none() && current(topics) != self.written {
            self.changed_at_ns = Some(now_ns);
        }
        let is_old = self
            .changed_at_ns
            .is_some_and(|at| now_ns.saturating_sub(at) >= ns(CHECKPOINT_AGE));
        is_old || self.bytes >= CHECKPOINT_BYTES
    }
}

/// Whether a partition has something that is not safe.
fn needs_flush(partition: &Partition) -> bool {
    partition.standing() == Standing::Online && partition.dirty_since_ns().is_some()
}

fn give_back(log: &Log, pending: Pending, reason: Reason) {
    let Pending {
        class, batch, done, ..
    } = pending;
    log.health().durable.errors.add(1);
    log.appends().refused(class, batch, done, reason);
}

impl Drop for Flusher {
    fn drop(&mut self) {
        let log = Arc::clone(&self.log);
        self.take_pending();
        for pending in self
            .backlogs
            .values_mut()
            .flat_map(|backlog| backlog.waiting.drain(..))
        {
            give_back(&log, pending, Reason::Io);
        }
    }
}
