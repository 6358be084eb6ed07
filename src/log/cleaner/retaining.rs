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
    segment::SEGMENTS_MAX,
    topic::Topic,
    trusted_time::{Doubt, Kept, TrustedTime, millis},
};

/// Where what must be known of the clock is kept between two runs.
const KEPT: &str = "trusted-time-checkpoint";

/// How often it is written where nothing changes.
const KEPT_EVERY: Duration = Duration::from_mins(10);

/// What is freed at the most beyond what must be, in bytes.
const SPARE_MAX: u64 = 256 * 1024 * 1024;

/// Segments of a partition that are deleted at once: the appender does it, and appends wait meanwhile.
const DELETED_AT_ONCE: usize = 8;

/// Bytes of both indexes for a byte of log, one in so many: 20 for every 4,096.
const INDEXED: u64 = 204;

/// Deletes what goes.
#[derive(Debug)]
pub(super) struct Retaining {
    bounds: Bounds,
    time: TrustedTime,
    told: Option<Doubt>,
    kept_at_ns: Option<u64>,
    is_over_told: bool,
    /// Closed segments without a credible stamp.
    met: Met,
    /// Commands that the appender has not answered.
    unanswered: usize,
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
}

/// By partition and base offset, when a segment was met first, in milliseconds since 1970.
type Met = HashMap<(usize, i64), u64>;

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
            is_over_told: false,
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
        self.bytes(shared) > self.bounds.bytes_max
    }

    fn bytes(&self, shared: &Shared) -> u64 {
        let all = shared.log.partitions();
        let segments = all.iter().flat_map(|one| one.segments());
        let bytes = segments.map(|facts| with_indexes(facts.bytes));
        bytes.fold(self.bounds.ballast_bytes, u64::saturating_add)
    }

    /// Whether there is no room on the disk: a write found none, and since then none came.
    pub(super) fn is_full(&self, shared: &Shared) -> bool {
        let free = || shared.disk.free_bytes(shared.log.dir());
        shared.log.health().is_full.get() && free().is_ok_and(|free| free < self.spare())
    }

    /// What is freed beyond what must be, for what is written until the next look.
    fn spare(&self) -> u64 {
        (self.bounds.bytes_max / 64).min(SPARE_MAX)
    }

    /// What goes. On a disk that others filled that is the oldest access segment, one with each look until
    /// writes succeed again; nothing else goes for what others did.
    fn decided(&self, shared: &Shared, holdings: &[Holding], now_ms: Option<u64>) -> Decision {
        let mut budget = Budget {
            bytes_max: self.bounds.bytes_max,
            bytes_else: self.bounds.ballast_bytes,
            bytes_spare: self.spare(),
        };
        if self.is_over(shared) || !self.is_full(shared) {
            return decide(holdings, now_ms, budget);
        }
        budget.bytes_max = self.bytes(shared).saturating_sub(1);
        budget.bytes_spare = 0;
        let mut decision = decide(holdings, now_ms, budget);
        let is_access = |one: &Deletion| {
            let holding = holdings.get(one.partition);
            holding.is_some_and(|holding| holding.rules.at_cap == AtCap::First)
        };
        decision
            .deletions
            .retain(|one| one.reason != Reason::Cap || is_access(one));
        decision.rolls.clear();
        decision.bytes_over = 0;
        decision
    }

    /// Counts what was done since, and says whether everything asked for is answered.
    pub(super) fn hear(&mut self, shared: &Shared) -> bool {
        while let Ok(answer) = self.answers.try_recv() {
            self.unanswered = self.unanswered.saturating_sub(1);
            match &answer.result {
                Ok(()) => count(&shared.health, &answer),
                Err(NotDone::Stopping | NotDone::Deleted) => {}
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
        let partitions = &shared.log.partitions();
        let met = std::mem::take(&mut self.met);
        let holdings: Vec<_> = partitions
            .iter()
            .map(|one| self.holding(one, now_ms, &met))
            .collect();
        let decision = self.decided(shared, &holdings, now_ms);
        self.tell_over(shared, &decision);
        self.ask(shared, partitions, &holdings, &decision);
        let segments: usize = holdings.iter().map(|one| one.segments.len()).sum();
        for (partition, holding) in partitions.iter().zip(&holdings) {
            let has_room = segments < SEGMENTS_MAX || partition.topic().config().is_reserved;
            if has_room && is_stale(shared, partition, holding, now_ms) {
                self.give(shared, Command::Roll(Arc::clone(partition)), Vec::new());
            }
        }
    }

    fn holding(&mut self, partition: &Partition, now_ms: Option<u64>, met: &Met) -> Holding {
        let facts = partition.segments();
        let segments = facts.iter().map(|facts| {
            let mut segment = Segment {
                base_offset: facts.base_offset,
                bytes: with_indexes(facts.bytes),
                is_empty: facts.bytes == 0,
                max_timestamp_ms: facts.max_timestamp_ms,
                met_ms: None,
            };
            if !facts.is_active && credible(&segment, now_ms).is_none() {
                let name = (partition.number, facts.base_offset);
                segment.met_ms = met.get(&name).copied().or(now_ms);
                self.met.extend(segment.met_ms.map(|met_ms| (name, met_ms)));
            }
            segment
        });
        Holding {
            segments: segments.collect(),
            rules: rules(partition.topic(), self.bounds.spares_foreign),
        }
    }

    fn tell_over(&mut self, shared: &Shared, decision: &Decision) {
        shared.health.bytes_over.set(decision.bytes_over);
        let is_over = decision.bytes_over > 0 && decision.rolls.is_empty();
        shared.log.health().is_over.set(is_over);
        if is_over && !self.is_over_told {
            tracing::warn!(
                "the log takes {} bytes more than it may, and nothing is left that may be deleted for it: \
                 clients' topics take nothing until then; raise `log.disk_max`, free space on its disk, or shorten what is kept",
                decision.bytes_over
            );
        }
        self.is_over_told = is_over;
    }

    fn ask(
        &mut self,
        shared: &Shared,
        partitions: &[Arc<Partition>],
        holdings: &[Holding],
        decision: &Decision,
    ) {
        for (index, (partition, holding)) in partitions.iter().zip(holdings).enumerate() {
            let going = decision
                .deletions
                .iter()
                .filter(|one| one.partition == index);
            let going: Vec<_> = going.take(DELETED_AT_ONCE).copied().collect();
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
    if let (Some(first), Some(last)) = (answer.deletions.first(), answer.deletions.last()) {
        tracing::info!(
            "the log: {} segments of {} deleted, from {} to {}",
            answer.deletions.len(),
            answer.partition,
            first.base_offset,
            last.base_offset
        );
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

fn rules(topic: &Topic, spares_foreign: bool) -> Rules {
    let config = topic.config();
    // Names that only Wardent itself writes to.
    let is_own = topic.name.starts_with("wardent.") || topic.name.starts_with("__");
    let is_deleted = config.cleanup.deletes() && (is_own || !spares_foreign);
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
/// only a closed segment can be deleted and compacted. Its records must have, too, where their times can be true:
/// the age of one that was begun before the start is told by a clock that may have jumped.
fn is_stale(
    shared: &Shared,
    partition: &Partition,
    holding: &Holding,
    now_ms: Option<u64>,
) -> bool {
    let age_ms = millis(partition.topic().config().segment_age);
    let Some((now_ms, active)) = now_ms.zip(holding.segments.last()) else {
        return false;
    };
    let stamp_ms = credible(active, Some(now_ms));
    partition.is_overdue(shared.clock.monotonic_ns())
        && stamp_ms.is_none_or(|stamp_ms| now_ms.saturating_sub(stamp_ms) >= age_ms)
}

fn kept(shared: &Shared) -> Option<Kept> {
    let path = shared.log.dir().join(KEPT);
    let text = checkpoint::read(&*shared.disk, &path).ok().flatten()?;
    text.parse().ok()
}

fn newest_record(shared: &Shared) -> Option<u64> {
    let all = shared.log.partitions();
    let segments = all.iter().flat_map(|one| one.segments());
    let stamps = segments.filter_map(|facts| u64::try_from(facts.max_timestamp_ms).ok());
    stamps.max()
}
