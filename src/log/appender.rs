//! The appender: one thread that owns the write side of every partition.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use super::{
    Append, Batch, Header, Reason,
    appends::{Appended, Taken},
    ballast::{Ballast, is_full},
    changes::Handover,
    commands::{Asked, Command, NotDone},
    flusher::Pending,
    heal,
    mend::mend,
    partition::{Partition, Standing},
    producers::{self, ALL_PRODUCERS_MAX},
    segment::SEGMENTS_MAX,
    store::Log,
    swap,
    topic::{Topic, TopicConfig},
    writer::Writer,
};

/// Batches appended before anything else gets a turn.
const BATCHES: usize = 256;

/// Batches that have producers, until it is looked how many of these the log remembers.
const CLAIMED: usize = 1024;

/// How long it sleeps when nothing wakes it, and between looks at what is not well.
const TICK: Duration = Duration::from_secs(1);

/// How long topics that are flushed lazily are refused after a write failed.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// How long a partition waits to be healed, at first and at the most.
const HEALED_AFTER: Duration = Duration::from_secs(1);
const HEALED_AFTER_MAX: Duration = Duration::from_secs(30);

/// Owns the write side of every partition.
#[derive(Debug)]
pub struct Appender {
    log: Arc<Log>,
    /// By partition.
    writers: BTreeMap<usize, Writer>,
    /// Partitions that are offline.
    ailing: BTreeMap<usize, Ailing>,
    ballast: Ballast,
    /// Partitions of lazily flushed topics that are refused without a try.
    refused: BTreeMap<usize, Refused>,
    /// Partitions that are still durable, and shall not be.
    unsettled: BTreeSet<usize>,
    /// Batches that had producers, since it was looked how many of these the log remembers.
    claimed: usize,
    /// Segments of all partitions; counted once a second, and what begins in between.
    segments: usize,
    /// Until when the operator has been told of writes that fail.
    told_until_ns: u64,
    next_tick_ns: u64,
}

/// Where a batch is.
enum Written {
    /// It was just written.
    Now(Appended),
    /// It was in the log before.
    Before(Appended),
}

/// When a partition that is offline is healed.
#[derive(Debug, Clone, Copy)]
struct Ailing {
    tried_at_ns: u64,
    wait: Duration,
}

/// Why, and until when, a partition of a lazily flushed topic is refused without a try.
#[derive(Debug, Clone, Copy)]
struct Refused {
    reason: Reason,
    until_ns: u64,
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}

impl Appender {
    pub(super) fn new(log: Arc<Log>, writers: Vec<Writer>, ballast: Ballast) -> Self {
        log.health().has_ballast.set(ballast.is_there());
        Self {
            ailing: BTreeMap::new(),
            refused: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            claimed: 0,
            segments: 0,
            told_until_ns: 0,
            log,
            writers: by_number(writers),
            ballast,
            next_tick_ns: 0,
        }
    }

    /// The log it appends to.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// One turn: topics that come and go, commands, appends, and once a second what is not well. Says whether there may be more to do
    /// at once.
    pub fn turn(&mut self) -> bool {
        let now_ns = self.log.clock.monotonic_ns();
        let mut done = 0;
        while let Some(handover) = self.log.changes.handover.pop() {
            self.take(handover);
            done += 1;
        }
        if !self.unsettled.is_empty() {
            self.settle();
        }
        while let Some(asked) = self.log.commands.next() {
            self.carry_out(asked);
            done += 1;
        }
        while done < BATCHES
            && let Some(taken) = self.log.appends().next()
        {
            self.append(taken, now_ns);
            done += 1;
        }
        if now_ns >= self.next_tick_ns {
            self.next_tick_ns = now_ns + ns(TICK);
            self.tick(now_ns);
        }
        self.log.health().appender_beat_ms.set(now_ns / 1_000_000);
        done > 0
    }

    /// Sleeps until something is offered, for a second at the most.
    pub(super) fn nap(&self) {
        let log = &self.log;
        log.appends().bell.nap(TICK, || {
            !log.appends().is_empty()
                || !log.commands.is_empty()
                || !log.changes.handover.is_empty()
                || log.appends().is_over() && log.changes.is_over()
        });
    }

    /// Whether nothing is left to append and nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        self.log.appends().is_over()
    }

    /// Appends what was offered, and ends the indexes. The log takes nothing any more.
    pub fn finish(&mut self) {
        self.log.appends().close();
        while self.turn() || !self.is_over() {}
        for writer in self.writers.values_mut() {
            writer.active.end_indexes();
            writer.keep_producers();
            // What fails once more is brought to its end when the log is opened.
            let _ = swap::settle(writer, &*self.log.disk);
        }
        self.log.set_appender_over();
    }

    /// Takes partitions on, lets go of them, or keeps them otherwise.
    fn take(&mut self, handover: Handover) {
        let mut back = Vec::new();
        match handover {
            Handover::Join(topic, mut writers, topics) => {
                let unsettled = writers.iter_mut().filter_map(|writer| {
                    (!writer.settle_class()).then_some(writer.partition.number)
                });
                self.unsettled.extend(unsettled);
                self.writers.extend(by_number(writers));
                let count = topics.partitions_of(&topic.name).len();
                topic.set_partitions(u32::try_from(count).unwrap_or(u32::MAX));
                self.log.set_topics(topics);
            }
            Handover::Leave(topic, topics) => {
                self.log.set_topics(topics);
                for number in self.numbers_of(&topic) {
                    back.extend(self.writers.remove(&number));
                    self.ailing.remove(&number);
                    self.refused.remove(&number);
                    self.unsettled.remove(&number);
                }
            }
            Handover::Configure(topic, config) => self.configure(&topic, config),
        }
        // It hands over one at a time.
        let _ = self.log.changes.handed.push(back);
        self.log.changes.bell.ring();
    }

    fn numbers_of(&self, topic: &Arc<Topic>) -> Vec<usize> {
        let own = self.writers.values().map(|writer| &writer.partition);
        let own = own.filter(|partition| Arc::ptr_eq(partition.topic(), topic));
        own.map(|partition| partition.number).collect()
    }

    fn configure(&mut self, topic: &Arc<Topic>, config: TopicConfig) {
        let was = topic.config();
        topic.set_config(config);
        for number in self.numbers_of(topic) {
            let writer = self.writers.get_mut(&number);
            if writer.is_some_and(|writer| !writer.reconfigured(&was)) {
                self.unsettled.insert(number);
            }
        }
        // What is durable now may have been written long ago.
        self.log.flusher_bell.ring();
    }

    /// Lets partitions be durable no more that shall not be.
    fn settle(&mut self) {
        let writers = &mut self.writers;
        self.unsettled.retain(|number| {
            let writer = writers.get_mut(number);
            writer.is_some_and(|writer| !writer.settle_class())
        });
    }

    fn append(&mut self, taken: Taken, now_ns: u64) {
        let Taken { append, class } = taken;
        let Append {
            partition,
            mut batch,
            done,
        } = append;
        let is_durable = partition.is_durable();
        if batch.producer_id() >= 0 {
            self.claimed += 1;
            if self.claimed >= CLAIMED {
                self.hold_producers();
            }
        }
        match self.written(&partition, &mut batch, now_ns) {
            Ok(Written::Before(appended)) => {
                let pending = Pending {
                    generation: partition.generation(),
                    class,
                    partition,
                    batch,
                    done,
                    appended,
                };
                self.repeated(pending, now_ns);
            }
            Ok(Written::Now(appended)) => {
                let header = *batch;
                let count = self.log.health().appending(is_durable);
                count.batches.add(1);
                count.bytes.add(header.size() as u64);
                count.records.add(header.count().into());
                let number = partition.number;
                if is_durable {
                    // Before the log's end passes it, so that whoever flushes it finds who waits.
                    self.log.wait_for_flush(Pending {
                        generation: partition.generation(),
                        class,
                        partition,
                        batch,
                        done,
                        appended,
                    });
                    self.show(number, &header, now_ns);
                } else {
                    self.show(number, &header, now_ns);
                    let appends = self.log.appends();
                    appends.appended(class, header.size(), done, appended);
                }
            }
            Err(reason) => {
                self.log.health().appending(is_durable).errors.add(1);
                self.log.appends().refused(class, batch, done, reason);
            }
        }
    }

    /// Holds the bound of producers that the whole log remembers.
    fn hold_producers(&mut self) {
        self.claimed = 0;
        let count: usize = self.writers.values().map(|one| one.producers.len()).sum();
        if count > ALL_PRODUCERS_MAX {
            let all = self.writers.values_mut().map(|one| &mut one.producers);
            producers::fit(all, ALL_PRODUCERS_MAX);
        }
    }

    /// A batch came that is in the log already: it is acknowledged when that is safe, or at once.
    fn repeated(&mut self, repeated: Pending, now_ns: u64) {
        let partition = Arc::clone(&repeated.partition);
        if partition.is_durable() && partition.flushed_offset() <= repeated.appended.last_offset {
            self.log.wait_for_flush(repeated);
            // Should it be flushed by now, it is flushed again for who waits.
            partition.add_dirty(0, now_ns);
            self.log.flusher_bell.ring();
            return;
        }
        let Pending {
            class,
            batch,
            done,
            appended,
            ..
        } = repeated;
        let bytes = batch.bytes().len();
        self.log.appends().appended(class, bytes, done, appended);
    }

    fn show(&mut self, number: usize, batch: &Header, now_ns: u64) {
        let Some(writer) = self.writers.get_mut(&number) else {
            return;
        };
        writer.show(batch, now_ns);
        if writer.wants_flush() {
            self.log.flusher_bell.ring();
        }
    }

    fn written(
        &mut self,
        partition: &Arc<Partition>,
        batch: &mut Batch,
        now_ns: u64,
    ) -> Result<Written, Reason> {
        let is_durable = partition.is_durable();
        let writer = self.writers.get_mut(&partition.number);
        let writer = writer.filter(|writer| Arc::ptr_eq(&writer.partition, partition));
        let writer = writer.ok_or(Reason::Deleted)?;
        if partition.is_offline() {
            return Err(Reason::Offline);
        }
        let config = partition.topic().config();
        let (bytes_max, is_reserved) = (config.max_batch_bytes, config.is_reserved);
        if u32::try_from(batch.bytes().len()).is_ok_and(|bytes| bytes > bytes_max) {
            return Err(Reason::TooLarge);
        }
        let is_vital = is_durable && is_reserved;
        if self.ballast.is_spent() && !is_vital {
            // What is left is what the ballast kept, for those that are.
            self.log.health().is_full.set(true);
            return Err(Reason::DiskFull);
        }
        if self.log.health().is_over.get() && !is_reserved {
            return Err(Reason::DiskFull);
        }
        if let Some(refused) = self.refused.get(&partition.number)
            && now_ns < refused.until_ns
        {
            return Err(refused.reason);
        }
        if batch.producer_id() >= 0
            && let Some(before) = writer.producers.judge(batch, now_ns)?
        {
            return Ok(Written::Before(before));
        }
        let must_roll = writer.must_roll(batch);
        let is_crowded = self.segments >= SEGMENTS_MAX && !is_reserved;
        if must_roll && is_crowded {
            return Err(Reason::TooManySegments);
        }
        let rolls = must_roll || partition.is_overdue(now_ns) && !is_crowded;
        self.segments += usize::from(rolls);
        let mut result = writer.write(batch, rolls);
        if is_vital && matches!(&result, Err(error) if is_full(error)) && self.ballast.give_up() {
            self.log.health().has_ballast.set(false);
            tracing::warn!(
                "the log's disk is full: its ballast is given up for {}",
                partition.name()
            );
            result = writer.write(batch, rolls);
        }
        match result {
            Ok(appended) => {
                self.succeeded(partition.number);
                Ok(Written::Now(appended))
            }
            Err(error) => {
                writer.producers.missed(batch, now_ns);
                Err(self.failed(partition, &error, now_ns))
            }
        }
    }

    /// A write succeeded. What found room that the ballast gave says nothing of the others.
    fn succeeded(&mut self, number: usize) {
        if self.log.health().is_full.get() && !self.ballast.is_spent() {
            tracing::info!("the log's disk has room again");
            self.log.health().is_full.set(false);
        }
        self.refused.remove(&number);
    }

    /// A write failed: tells it, and spares the disk the lazily flushed topics for a second: this one, or
    /// all of them where there is no room for any.
    fn failed(&mut self, partition: &Partition, error: &io::Error, now_ns: u64) -> Reason {
        let until_ns = now_ns + ns(REFUSED_FOR);
        let is_full = is_full(error);
        let reason = match is_full {
            true => Reason::DiskFull,
            false => Reason::Io,
        };
        if is_full {
            self.log.health().is_full.set(true);
        }
        for (number, writer) in &self.writers {
            let is_own = *number == partition.number;
            if !writer.partition.is_durable() && (is_full || is_own) {
                let refused = Refused { reason, until_ns };
                self.refused.insert(*number, refused);
            }
        }
        if now_ns >= self.told_until_ns {
            self.told_until_ns = until_ns;
            tracing::error!(
                "the log: appending to {} failed: {error}; free space on its disk, or look at the disk",
                partition.name()
            );
        }
        reason
    }

    fn carry_out(&mut self, asked: Asked) {
        let Asked { command, done } = asked;
        let partition = Arc::clone(command.partition());
        let writer = self.writers.get_mut(&partition.number);
        let result = match writer.filter(|writer| Arc::ptr_eq(&writer.partition, &partition)) {
            Some(writer) if !partition.is_offline() => match command {
                Command::Roll(_) => writer.roll().map_err(NotDone::Io),
                Command::DeleteBelow(_, offset) => swap::settle(writer, &*self.log.disk)
                    .map_err(NotDone::Io)
                    .and_then(|()| swap::delete_below(&partition, &*self.log.disk, offset)),
                Command::Replace(_, run, cleaned) => {
                    swap::replace(writer, &self.log.disk, run, *cleaned)
                }
                Command::Mend(_, base) => mended(writer, &self.log, base).map_err(NotDone::Io),
                Command::Producers(_, tell) => {
                    (tell.0)(writer.producers.facts());
                    Ok(())
                }
            },
            Some(_) => Err(NotDone::Offline),
            None => Err(NotDone::Deleted),
        };
        done(result);
    }

    /// What is looked at once a second.
    fn tick(&mut self, now_ns: u64) {
        if !self.ballast.is_there() {
            self.ballast.restore();
            self.log.health().has_ballast.set(self.ballast.is_there());
        }
        self.hold_producers();
        let all = self.writers.values().map(|writer| &writer.partition);
        self.segments = all.map(|one| one.segment_count()).sum();
        let mut offline = 0;
        let numbers: Vec<_> = self.writers.keys().copied().collect();
        for number in numbers {
            offline += u64::from(!self.is_well(number, now_ns));
            self.look_for_odd(number);
        }
        self.log.health().offline.set(offline);
    }

    /// Mends what readers found odd in a partition. What cannot be mended is when it is met again.
    fn look_for_odd(&mut self, number: usize) {
        let Some(writer) = self.writers.get_mut(&number) else {
            return;
        };
        let partition = Arc::clone(&writer.partition);
        if partition.is_offline() {
            return;
        }
        if let Err(error) = swap::settle(writer, &*self.log.disk) {
            tracing::error!(
                "the log: replacing segments of {} failed half-way: {error}; it is tried again",
                partition.name()
            );
            return;
        }
        for segment in partition.all_segments().iter().filter(|one| one.take_odd()) {
            if let Err(error) = mended(writer, &self.log, segment.base_offset) {
                tracing::error!("the log: mending {} failed: {error}", partition.name());
            }
        }
    }

    /// Whether a partition is online, or could be brought there.
    fn is_well(&mut self, number: usize, now_ns: u64) -> bool {
        let Some(writer) = self.writers.get_mut(&number) else {
            return true;
        };
        let standing = writer.partition.standing();
        if standing == Standing::Online {
            self.ailing.remove(&number);
            return true;
        }
        let since = self.ailing.entry(number).or_insert(Ailing {
            tried_at_ns: now_ns,
            wait: HEALED_AFTER,
        });
        let is_due = now_ns >= since.tried_at_ns.saturating_add(ns(since.wait));
        if standing != Standing::LetGo || !is_due {
            return false;
        }
        let name = writer.partition.name();
        let mut healed = heal::heal(writer, &self.log.disk);
        let is_vital =
            writer.partition.is_durable() && writer.partition.topic().config().is_reserved;
        if is_vital && matches!(&healed, Err(error) if is_full(error)) && self.ballast.give_up() {
            healed = heal::heal(writer, &self.log.disk);
        }
        match healed {
            Ok(()) => {
                self.ailing.remove(&number);
                self.log.health().healed.add(1);
                tracing::warn!("the log: {name} is healed and takes appends again");
                true
            }
            Err(error) => {
                since.tried_at_ns = now_ns;
                since.wait = (since.wait * 2).min(HEALED_AFTER_MAX);
                tracing::error!(
                    "the log: {name} is offline and could not be healed: {error}; next try in {} s",
                    since.wait.as_secs()
                );
                false
            }
        }
    }
}

fn by_number(writers: Vec<Writer>) -> BTreeMap<usize, Writer> {
    let numbered = |writer: Writer| (writer.partition.number, writer);
    writers.into_iter().map(numbered).collect()
}

/// Mends a segment, and tells what was found.
fn mended(writer: &mut Writer, log: &Log, base_offset: i64) -> io::Result<()> {
    for found in mend(writer, &log.disk, log.dir(), base_offset)? {
        tracing::error!("the log: {found}");
        log.health().mended.add(1);
    }
    Ok(())
}
