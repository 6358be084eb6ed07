//! Chooses what is compacted, and brings passes to their end.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    time::Duration,
};

use super::{Shared, ns};
use crate::log::{
    checkpoint::{self, CLEANED, Unread},
    cleaned::Cleaned,
    commands::{Command, NotDone},
    compaction::{Compaction, Halt, Job, KEYS_MAX, Source, Step, Summary, Tombstones},
    partition::Partition,
    segment::{LOG, base_of},
    topics::Topics,
};

/// A partition of which at least one byte in so many is new is compacted (`min.cleanable.dirty.ratio=0.5`).
const DIRTY: u64 = 2;

/// One with anything new is compacted so long after its last pass (`max.compaction.lag.ms`).
const PASS_EVERY: Duration = Duration::from_hours(24);

/// After the disk failed a pass, the next try comes so much later; after damage, so much.
const AGAIN_AFTER_DISK: Duration = Duration::from_mins(1);
const AGAIN_AFTER_DAMAGE: Duration = Duration::from_hours(1);

/// Compacts one partition after the other.
#[derive(Debug)]
pub(super) struct Compacting {
    /// By partition: where the next pass begins.
    first_dirty: HashMap<usize, i64>,
    /// By partition.
    known: HashMap<usize, Known>,
    /// The topics that were there when somebody looked last.
    topics: Option<Arc<Topics>>,
    pass: Option<Pass>,
    sender: Sender<Result<(), NotDone>>,
    answers: Receiver<Result<(), NotDone>>,
}

/// What is known of a partition since the start.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Of its last pass.
    last: Option<Last>,
    /// It failed, and is tried again at this time, in monotonic nanoseconds.
    again_at_ns: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    ended_at_ns: u64,
    is_complete: bool,
    tombstones: Tombstones,
}

#[derive(Debug)]
struct Pass {
    partition: Arc<Partition>,
    compaction: Compaction,
    began_ns: u64,
    swap: Swap,
}

/// What a pass waits for.
#[derive(Debug)]
enum Swap {
    /// Nothing.
    None,
    /// Room in the appender's queue.
    Ready(Vec<i64>, Box<Cleaned>),
    /// The appender's answer.
    Asked,
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is nothing to compact.
    Idle,
    /// There is more to do.
    Working,
    /// The appender must answer first.
    Waiting,
}

impl Compacting {
    pub(super) fn new(shared: &Shared) -> Self {
        let (sender, answers) = channel();
        let read = checkpoint::read_offsets(&*shared.disk, shared.log.dir(), CLEANED);
        let offsets = read.unwrap_or_else(|unread| {
            let why = match unread {
                Unread::Newer(version) => format!("version {version} is not understood"),
                Unread::Wrong(what) => what,
                Unread::Io(error) => error.to_string(),
            };
            tracing::warn!(
                "the log: {CLEANED}: {why}; compacted topics are compacted from their beginning"
            );
            Vec::new()
        });
        let topics = shared.log.topics();
        let numbered = |(topic, index, offset): (String, u32, i64)| {
            let partition = topics.partition(&topic, index)?;
            Some((partition.number, offset))
        };
        Self {
            first_dirty: offsets.into_iter().filter_map(numbered).collect(),
            topics: None,
            known: HashMap::new(),
            pass: None,
            sender,
            answers,
        }
    }

    /// Goes on with the pass that there is, or begins one that is due.
    pub(super) fn turn(&mut self, shared: &Shared, now_ms: Option<u64>) -> Progress {
        let Some(mut pass) = self.pass.take() else {
            self.pass = self.next_pass(shared, now_ms);
            return match self.pass {
                Some(_) => Progress::Working,
                None => Progress::Idle,
            };
        };
        let progress = match std::mem::replace(&mut pass.swap, Swap::None) {
            Swap::None => match pass.compaction.step() {
                Ok(Step::More) => Progress::Working,
                Ok(Step::Replace(replaced, cleaned)) => {
                    self.ask(shared, &mut pass, replaced, cleaned)
                }
                Ok(Step::Done(summary)) => {
                    self.done(shared, &pass, &summary);
                    return Progress::Working;
                }
                Err(halt) => {
                    self.failed(shared, &pass, &halt);
                    return Progress::Working;
                }
            },
            Swap::Ready(replaced, cleaned) => self.ask(shared, &mut pass, replaced, cleaned),
            Swap::Asked => match self.answers.try_recv() {
                Ok(Ok(())) => Progress::Working,
                Ok(Err(error)) => {
                    pass.compaction.abandon();
                    let dir = pass.partition.dir.clone();
                    self.failed(shared, &pass, &Halt::Io(dir, io::Error::other(error)));
                    return Progress::Working;
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    pass.swap = Swap::Asked;
                    Progress::Waiting
                }
            },
        };
        self.pass = Some(pass);
        progress
    }

    /// Ends what is under way, without leaving anything half done.
    pub(super) fn abandon(&mut self) {
        if let Some(mut pass) = self.pass.take() {
            pass.compaction.abandon();
        }
    }

    fn ask(
        &self,
        shared: &Shared,
        pass: &mut Pass,
        replaced: Vec<i64>,
        cleaned: Box<Cleaned>,
    ) -> Progress {
        let (sender, bell) = (self.sender.clone(), Arc::clone(&shared.bell));
        let done = Box::new(move |result| {
            // Who does not listen any more has ended.
            let _ = sender.send(result);
            bell.ring();
        });
        let command = Command::Replace(Arc::clone(&pass.partition), replaced, cleaned);
        pass.swap = match shared.log.ask(command, done) {
            Err(Command::Replace(_, replaced, cleaned)) => Swap::Ready(replaced, cleaned),
            Ok(())
            | Err(
                Command::Roll(_)
                | Command::DeleteBelow(..)
                | Command::Mend(..)
                | Command::Producers(..),
            ) => Swap::Asked,
        };
        Progress::Waiting
    }

    fn next_pass(&mut self, shared: &Shared, now_ms: Option<u64>) -> Option<Pass> {
        // What it writes beside the segments needs room, which others need more now.
        if shared.log.health().is_full.get() {
            return None;
        }
        let now_ns = shared.clock.monotonic_ns();
        let topics = shared.log.topics();
        self.forget(shared, &topics);
        let compacted = topics
            .partitions()
            .iter()
            .filter(|one| one.topic().config().cleanup.compacts() && !one.is_offline());
        for partition in compacted {
            let first_dirty = self.first_dirty.get(&partition.number).copied();
            let first_dirty = first_dirty.unwrap_or_default();
            let known = self.known.get(&partition.number).copied();
            let job = job(partition, first_dirty, now_ms);
            if is_due(&job, known.unwrap_or_default(), now_ns, now_ms) {
                return Some(Pass {
                    partition: Arc::clone(partition),
                    compaction: Compaction::new(Arc::clone(&shared.disk), job),
                    began_ns: now_ns,
                    swap: Swap::None,
                });
            }
        }
        None
    }

    fn done(&mut self, shared: &Shared, pass: &Pass, summary: &Summary) {
        let now_ns = shared.clock.monotonic_ns();
        let took_ms = now_ns.saturating_sub(pass.began_ns) / 1_000_000;
        let health = &shared.health;
        health.passes.add(1);
        health.records_dropped.add(summary.records_dropped);
        let freed = summary.bytes_before.saturating_sub(summary.bytes_after);
        health.compacted_bytes.add(freed);
        health.last_keys.set(summary.keys);
        health.last_keys_bytes.set(summary.keys_bytes);
        health.last_pass_ms.set(took_ms);
        tracing::info!(
            "the log: {} is compacted up to {}: {} records dropped, {freed} bytes freed in {took_ms} ms",
            pass.partition.name(),
            summary.first_dirty,
            summary.records_dropped,
        );
        let number = pass.partition.number;
        self.first_dirty.insert(number, summary.first_dirty);
        let known = Known {
            last: Some(Last {
                ended_at_ns: now_ns,
                is_complete: summary.is_complete,
                tombstones: summary.tombstones,
            }),
            again_at_ns: None,
        };
        self.known.insert(number, known);
        self.count_halted(shared);
        self.write_checkpoint(shared);
    }

    /// Writes where next passes begin, as Kafka does. Without it the next run compacts what is compacted.
    fn write_checkpoint(&self, shared: &Shared) {
        let offset_of = |partition: &Arc<Partition>| {
            let offset = *self.first_dirty.get(&partition.number)?;
            Some((partition.topic().name.clone(), partition.index(), offset))
        };
        let written = shared.log.keep_compacted(|| {
            let topics = shared.log.topics();
            let offsets = topics.partitions().iter().filter_map(offset_of);
            Ok::<_, io::Error>(Some(offsets.collect()))
        });
        if let Err(error) = written {
            tracing::warn!("the log: {CLEANED} could not be written: {error}");
        }
    }

    /// Forgets partitions that are no more, also on disk: another topic may get the name.
    fn forget(&mut self, shared: &Shared, topics: &Arc<Topics>) {
        if self
            .topics
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, topics))
        {
            return;
        }
        let numbers: BTreeSet<_> = topics.partitions().iter().map(|one| one.number).collect();
        let had = self.first_dirty.len();
        self.first_dirty
            .retain(|number, _| numbers.contains(number));
        self.known.retain(|number, _| numbers.contains(number));
        if self.first_dirty.len() < had {
            self.write_checkpoint(shared);
        }
        self.topics = Some(Arc::clone(topics));
    }

    fn failed(&mut self, shared: &Shared, pass: &Pass, halt: &Halt) {
        if !shared.log.topics().has(&pass.partition) {
            // Its files are on their way out.
            return;
        }
        let (what, after) = match halt {
            Halt::Io(..) => ("the disk failed it", AGAIN_AFTER_DISK),
            Halt::Damaged { .. } => ("it waits until this is mended", AGAIN_AFTER_DAMAGE),
        };
        let name = pass.partition.name();
        tracing::warn!(
            "the log: {name} could not be compacted, {what}: {halt}; next try in {} min",
            after.as_secs() / 60
        );
        if let Halt::Damaged { path, .. } = halt
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
            && let Some(base_offset) = base_of(name, LOG)
        {
            let mend = Command::Mend(Arc::clone(&pass.partition), base_offset);
            // Where there is no room for it, the next pass asks again.
            let _ = shared.log.ask(mend, Box::new(drop));
        }
        shared.health.pass_errors.add(1);
        let known = self.known.entry(pass.partition.number).or_default();
        known.again_at_ns = Some(shared.clock.monotonic_ns().saturating_add(ns(after)));
        self.count_halted(shared);
    }

    fn count_halted(&self, shared: &Shared) {
        let halted = self.known.values().filter(|one| one.again_at_ns.is_some());
        shared.health.halted.set(halted.count() as u64);
    }
}

/// What there is to compact: closed segments, as far as readers see them.
fn job(partition: &Arc<Partition>, first_dirty: i64, now_ms: Option<u64>) -> Job {
    let high_watermark = partition.high_watermark();
    let segments = partition.segments();
    let closed = segments
        .iter()
        .take_while(|one| !one.is_active && one.end_offset <= high_watermark);
    let closed = closed.map(|facts| Source {
        base_offset: facts.base_offset,
        end_offset: facts.end_offset,
        bytes: facts.bytes,
    });
    let config = partition.topic().config();
    let segments: Vec<_> = closed.collect();
    let end = segments.last().map_or(0, |last| last.end_offset);
    Job {
        partition: Arc::clone(partition),
        // What was compacted beyond the end was lost since, and is written anew.
        first_dirty: if first_dirty > end { 0 } else { first_dirty },
        segments,
        segment_bytes: config.segment_bytes,
        delete_retention: config.delete_retention,
        now_ms,
        keys_max: KEYS_MAX,
    }
}

fn is_due(job: &Job, known: Known, now_ns: u64, now_ms: Option<u64>) -> bool {
    if known.again_at_ns.is_some_and(|at_ns| now_ns < at_ns) || job.segments.is_empty() {
        return false;
    }
    // The first pass since the start learns which tombstones there are.
    let Some(last) = known.last else {
        return true;
    };
    let dirty = job
        .segments
        .iter()
        .filter(|one| one.end_offset > job.first_dirty);
    let dirty: u64 = dirty.map(|one| one.bytes).sum();
    let all: u64 = job.segments.iter().map(|one| one.bytes).sum();
    let is_old = now_ns.saturating_sub(last.ended_at_ns) >= ns(PASS_EVERY);
    let is_over = now_ms.is_some_and(|now_ms| {
        let horizon_ms = last.tombstones.earliest_horizon_ms;
        let has_passed =
            horizon_ms.is_some_and(|at_ms| u64::try_from(at_ms).is_ok_and(|at_ms| at_ms < now_ms));
        has_passed || last.tombstones.without_horizon > 0
    });
    let is_dirty = dirty > 0 && dirty.saturating_mul(DIRTY) >= all;
    is_dirty || dirty > 0 && is_old || is_over || !last.is_complete
}
