//! Looks at what the log holds, and asks the appender to delete what goes.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use super::{Bounds, CleanerHealth, Shared};
use crate::log::{
    checkpoint,
    commands::{Command, NotDone},
    partition::Partition,
    retention::{
        AtCap, Budget, Decision, Deletion, Holding, Reason, Rules, Segment, credible, decide,
    },
    topic::{Cleanup, Topic},
    trusted_time::{Doubt, Kept, TrustedTime, millis},
};

/// Where what must be known of the clock is kept between two runs.
const KEPT: &str = "trusted-time-checkpoint";

/// How often it is written where nothing changes.
const KEPT_EVERY: Duration = Duration::from_mins(10);

/// Bytes of both indexes for a byte of log, one in so many: 20 for every 4,096.
const INDEXED: u64 = 204;

/// Deletes what goes.
#[derive(Debug)]
pub(super) struct Retaining {
    bounds: Bounds,
    time: TrustedTime,
    told: Option<Doubt>,
    kept_at_ns: Option<u64>,
    /// When closed segments without a credible stamp were met first, in milliseconds since 1970.
    met: HashMap<(String, i64), u64>,
    /// Commands that the appender has not answered.
    unanswered: usize,
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
}

/// What became of a command.
#[derive(Debug)]
struct Answer {
    partition: String,
    deletions: Vec<Deletion>,
    result: Result<(), NotDone>,
}

impl Retaining {
    pub(super) fn new(shared: &Shared, bounds: Bounds) -> Self {
        let (sender, answers) = channel();
        let mut retaining = Self {
            bounds,
            time: TrustedTime::new(shared.clock.clone(), kept(shared), newest_record(shared)),
            told: None,
            kept_at_ns: None,
            met: HashMap::new(),
            unanswered: 0,
            sender,
            answers,
        };
        retaining.read_clock(shared);
        retaining
    }

    /// The wall clock in milliseconds since 1970, where it is believed. What became of that belief is told.
    pub(super) fn read_clock(&mut self, shared: &Shared) -> Option<u64> {
        let now_ms = self.time.now_ms();
        let doubt = self.time.doubt();
        shared.health.is_suspended.set(doubt.is_some());
        if doubt != self.told {
            match doubt {
                Some(doubt) => {
                    shared.health.suspensions.add(1);
                    tracing::warn!(
                        "the log: the clock is not believed, because {doubt}; until it has run for a day \
                         without a jump nothing is deleted for its age: check the machine's time"
                    );
                }
                None => tracing::info!("the log: the clock is believed again"),
            }
            self.told = doubt;
            self.kept_at_ns = None;
        }
        self.keep(shared);
        now_ms
    }

    /// Keeps for the next run what must be known of the clock.
    fn keep(&mut self, shared: &Shared) {
        let now_ns = shared.clock.monotonic_ns();
        let is_due = |at: u64| now_ns.saturating_sub(at) >= millis(KEPT_EVERY) * 1_000_000;
        if self.kept_at_ns.is_none_or(is_due) {
            self.write_kept(shared);
            self.kept_at_ns = Some(now_ns);
        }
    }

    pub(super) fn write_kept(&self, shared: &Shared) {
        let text = self.time.kept().to_string();
        // Without it the next run judges by what it finds, as the first one did.
        let _ = checkpoint::write(&*shared.disk, shared.log.dir(), KEPT, &text);
    }

    /// Whether the log is larger than it may be.
    pub(super) fn is_over(&self, shared: &Shared) -> bool {
        let sizes = shared
            .log
            .all()
            .iter()
            .map(|one| with_indexes(one.size_bytes()));
        let all = sizes.fold(self.bounds.ballast_bytes, u64::saturating_add);
        all > self.bounds.bytes_max
    }

    /// Counts what was done since, and says whether everything asked for is answered.
    pub(super) fn hear(&mut self, shared: &Shared) -> bool {
        while let Ok(answer) = self.answers.try_recv() {
            self.unanswered = self.unanswered.saturating_sub(1);
            match &answer.result {
                Ok(()) => count(&shared.health, &answer),
                Err(NotDone::Stopping) => {}
                Err(error) => {
                    shared.health.deletion_errors.add(1);
                    tracing::warn!("the log: deleting of {} failed: {error}", answer.partition);
                }
            }
        }
        self.unanswered == 0
    }

    /// Decides what goes, and asks for it.
    pub(super) fn look(&mut self, shared: &Shared, now_ms: Option<u64>) {
        let partitions = shared.log.all();
        let holdings: Vec<_> = partitions
            .iter()
            .map(|one| self.holding(one, now_ms))
            .collect();
        let segments = partitions.iter().zip(&holdings);
        let still_there: Vec<_> = segments
            .flat_map(|(partition, holding)| {
                let name = partition.name();
                let bases = holding.segments.iter().map(|segment| segment.base_offset);
                bases
                    .map(move |base| (name.clone(), base))
                    .collect::<Vec<_>>()
            })
            .collect();
        self.met.retain(|segment, _| still_there.contains(segment));

        let budget = Budget {
            bytes_max: self.bounds.bytes_max,
            bytes_else: self.bounds.ballast_bytes,
            bytes_spare: self.bounds.bytes_max / 64,
        };
        let decision = decide(&holdings, now_ms, budget);
        shared.health.bytes_over.set(decision.bytes_over);
        self.ask(shared, &holdings, &decision);
        for (partition, holding) in partitions.iter().zip(&holdings) {
            if is_stale(partition, holding, now_ms) {
                self.give(shared, Command::Roll(Arc::clone(partition)), Vec::new());
            }
        }
    }

    fn holding(&mut self, partition: &Arc<Partition>, now_ms: Option<u64>) -> Holding {
        let facts = partition.segments();
        let segments = facts.iter().map(|facts| {
            let mut segment = Segment {
                base_offset: facts.base_offset,
                bytes: with_indexes(facts.bytes),
                is_empty: facts.bytes == 0,
                max_timestamp_ms: facts.max_timestamp_ms,
                met_ms: None,
            };
            if let Some(now_ms) = now_ms
                && !facts.is_active
                && credible(&segment, Some(now_ms)).is_none()
            {
                let met = self.met.entry((partition.name(), facts.base_offset));
                segment.met_ms = Some(*met.or_insert(now_ms));
            }
            segment
        });
        Holding {
            segments: segments.collect(),
            rules: rules(partition.topic()),
        }
    }

    fn ask(&mut self, shared: &Shared, holdings: &[Holding], decision: &Decision) {
        let partitions = shared.log.all();
        for (index, (partition, holding)) in partitions.iter().zip(holdings).enumerate() {
            let going = decision
                .deletions
                .iter()
                .filter(|one| one.partition == index);
            let going: Vec<_> = going.copied().collect();
            // What stays begins where the first segment does that does not go.
            if !going.is_empty()
                && let Some(first) = holding.segments.get(going.len())
            {
                let command = Command::DeleteBelow(Arc::clone(partition), first.base_offset);
                self.give(shared, command, going);
            }
        }
        for partition in decision
            .rolls
            .iter()
            .filter_map(|index| partitions.get(*index))
        {
            self.give(shared, Command::Roll(Arc::clone(partition)), Vec::new());
        }
    }

    /// Gives a command. Where there is no room for it, the next look finds the same again.
    fn give(&mut self, shared: &Shared, command: Command, deletions: Vec<Deletion>) {
        let partition = command.partition();
        if partition.is_offline() {
            return;
        }
        let (sender, bell) = (self.sender.clone(), Arc::clone(&shared.bell));
        let partition = partition.name();
        let done = Box::new(move |result| {
            // Who does not listen any more has ended.
            let _ = sender.send(Answer {
                partition,
                deletions,
                result,
            });
            bell.ring();
        });
        if shared.log.ask(command, done).is_ok() {
            self.unanswered += 1;
        }
    }
}

fn count(health: &CleanerHealth, answer: &Answer) {
    if answer.deletions.is_empty() {
        health.rolls.add(1);
    }
    for deletion in &answer.deletions {
        let deleted = match deletion.reason {
            Reason::Age => &health.too_old,
            Reason::Size => &health.too_large,
            Reason::Cap => &health.over_cap,
        };
        deleted.segments.add(1);
        deleted.bytes.add(deletion.bytes);
    }
}

/// Bytes of a segment with its indexes.
fn with_indexes(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / INDEXED)
}

fn rules(topic: &Topic) -> Rules {
    let config = &topic.config;
    let is_deleted = config.cleanup == Cleanup::Delete;
    // Names that only Wardent itself writes to.
    let is_own = topic.name.starts_with("wardent.") || topic.name.starts_with("__");
    Rules {
        age_max: config.retention.filter(|_| is_deleted),
        bytes_max: config.retention_bytes.filter(|_| is_deleted),
        at_cap: match (is_deleted, config.is_expendable, is_own) {
            (true, true, _) => AtCap::First,
            (true, false, false) => AtCap::Then,
            (true, false, true) | (false, _, _) => AtCap::Never,
        },
    }
}

/// Whether an active segment must be closed though nothing is appended to it: it has reached its age, and
/// only a closed segment can be deleted and compacted.
fn is_stale(partition: &Partition, holding: &Holding, now_ms: Option<u64>) -> bool {
    let age = partition.topic().config.segment_age;
    let Some((now_ms, active)) = now_ms.zip(holding.segments.last()) else {
        return false;
    };
    let stamp_ms = credible(active, Some(now_ms)).filter(|_| !active.is_empty);
    stamp_ms.is_some_and(|stamp_ms| now_ms.saturating_sub(stamp_ms) > millis(age))
}

fn kept(shared: &Shared) -> Option<Kept> {
    let path = shared.log.dir().join(KEPT);
    let text = checkpoint::read(&*shared.disk, &path).ok().flatten()?;
    text.parse().ok()
}

fn newest_record(shared: &Shared) -> Option<u64> {
    let segments = shared.log.all().iter().flat_map(|one| one.segments());
    let stamps = segments.filter_map(|facts| u64::try_from(facts.max_timestamp_ms).ok());
    stamps.max()
}
