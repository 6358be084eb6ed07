//! The appender: one thread that owns the write side of every partition.

use std::{io, sync::Arc, time::Duration};

use super::{
    Append, Batch, Header, Reason,
    appends::Appended,
    ballast::{Ballast, is_full},
    commands::{Asked, Command, NotDone},
    flusher::Pending,
    heal,
    mend::mend,
    partition::{Partition, Standing},
    store::Log,
    swap,
    writer::Writer,
};

/// Batches appended before anything else gets a turn.
const BATCHES: usize = 256;

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
    writers: Vec<Writer>,
    /// By partition; none where it is well.
    ailing: Vec<Option<Ailing>>,
    ballast: Ballast,
    /// By partition: those of lazily flushed topics that are refused without a try.
    refused: Vec<Option<Refused>>,
    /// Until when the operator has been told of writes that fail.
    told_until_ns: u64,
    next_tick_ns: u64,
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
            ailing: vec![None; writers.len()],
            refused: vec![None; writers.len()],
            told_until_ns: 0,
            log,
            writers,
            ballast,
            next_tick_ns: 0,
        }
    }

    /// The log it appends to.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// One turn: commands, appends, and once a second what is not well. Says whether there may be more to do
    /// at once.
    pub fn turn(&mut self) -> bool {
        let now_ns = self.log.clock.monotonic_ns();
        let mut done = 0;
        while let Some(asked) = self.log.commands.next() {
            self.carry_out(asked);
            done += 1;
        }
        while done < BATCHES
            && let Some(append) = self.log.appends().next()
        {
            self.append(append, now_ns);
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
            !log.appends().is_empty() || !log.commands.is_empty() || log.appends().is_over()
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
        for writer in &mut self.writers {
            writer.active.end_indexes();
            // What fails once more is brought to its end when the log is opened.
            let _ = swap::settle(writer, &*self.log.disk);
        }
        self.log.set_appender_over();
    }

    fn append(&mut self, append: Append, now_ns: u64) {
        let Append {
            partition,
            mut batch,
            done,
        } = append;
        let is_durable = partition.is_durable();
        match self.written(&partition, &mut batch, now_ns) {
            Ok(appended) => {
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
                        partition,
                        batch,
                        done,
                        appended,
                    });
                    self.show(number, &header, now_ns);
                } else {
                    self.show(number, &header, now_ns);
                    let appends = self.log.appends();
                    appends.appended(false, header.size(), done, appended);
                }
            }
            Err(reason) => {
                self.log.health().appending(is_durable).errors.add(1);
                self.log.appends().refused(is_durable, batch, done, reason);
            }
        }
    }

    fn show(&mut self, number: usize, batch: &Header, now_ns: u64) {
        let Some(writer) = self.writers.get_mut(number) else {
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
    ) -> Result<Appended, Reason> {
        let is_durable = partition.is_durable();
        let writer = self.writers.get_mut(partition.number);
        let writer = writer.filter(|writer| Arc::ptr_eq(&writer.partition, partition));
        let writer = writer.ok_or(Reason::Offline)?;
        if partition.is_offline() {
            return Err(Reason::Offline);
        }
        let bytes_max = partition.topic().config.max_batch_bytes;
        if u32::try_from(batch.bytes().len()).is_ok_and(|bytes| bytes > bytes_max) {
            return Err(Reason::TooLarge);
        }
        if let Some(Some(refused)) = self.refused.get(partition.number)
            && now_ns < refused.until_ns
        {
            return Err(refused.reason);
        }
        let mut result = writer.write(batch, now_ns);
        if is_durable && matches!(&result, Err(error) if is_full(error)) && self.ballast.give_up() {
            self.log.health().has_ballast.set(false);
            tracing::warn!(
                "the log's disk is full: its ballast is given up for {}",
                partition.name()
            );
            result = writer.write(batch, now_ns);
        }
        match result {
            Ok(appended) => {
                self.succeeded(partition.number, is_durable);
                Ok(appended)
            }
            Err(error) => Err(self.failed(partition, &error, now_ns)),
        }
    }

    /// A write succeeded. What a durable topic got into its ballast says nothing of the others.
    fn succeeded(&mut self, number: usize, is_durable: bool) {
        if self.log.health().is_full.get() && (!is_durable || self.ballast.is_whole()) {
            tracing::info!("the log's disk has room again");
            self.log.health().is_full.set(false);
        }
        if let Some(refused) = self.refused.get_mut(number).filter(|_| !is_durable) {
            *refused = None;
        }
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
        for (writer, refused) in self.writers.iter().zip(&mut self.refused) {
            let is_own = writer.partition.number == partition.number;
            if !writer.partition.is_durable() && (is_full || is_own) {
                *refused = Some(Refused { reason, until_ns });
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
        let writer = self.writers.get_mut(partition.number);
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
            },
            _ => Err(NotDone::Offline),
        };
        done(result);
    }

    /// What is looked at once a second.
    fn tick(&mut self, now_ns: u64) {
        if !self.ballast.is_there() {
            self.ballast.restore();
            self.log.health().has_ballast.set(self.ballast.is_there());
        }
        let mut offline = 0;
        for number in 0..self.writers.len() {
            offline += u64::from(!self.is_well(number, now_ns));
            self.look_for_odd(number);
        }
        self.log.health().offline.set(offline);
    }

    /// Mends what readers found odd in a partition. What cannot be mended is when it is met again.
    fn look_for_odd(&mut self, number: usize) {
        let Some(writer) = self.writers.get_mut(number) else {
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
        let (Some(writer), Some(ailing)) =
            (self.writers.get_mut(number), self.ailing.get_mut(number))
        else {
            return true;
        };
        let standing = writer.partition.standing();
        if standing == Standing::Online {
            *ailing = None;
            return true;
        }
        let since = ailing.get_or_insert(Ailing {
            tried_at_ns: now_ns,
            wait: HEALED_AFTER,
        });
        let is_due = now_ns >= since.tried_at_ns.saturating_add(ns(since.wait));
        if standing != Standing::LetGo || !is_due {
            return false;
        }
        let name = writer.partition.name();
        let mut healed = heal::heal(writer, &self.log.disk);
        let is_durable = writer.partition.is_durable();
        if is_durable && matches!(&healed, Err(error) if is_full(error)) && self.ballast.give_up() {
            healed = heal::heal(writer, &self.log.disk);
        }
        match healed {
            Ok(()) => {
                *ailing = None;
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

/// Mends a segment, and tells what was found.
fn mended(writer: &mut Writer, log: &Log, base_offset: i64) -> io::Result<()> {
    for found in mend(writer, &log.disk, log.dir(), base_offset)? {
        tracing::error!("the log: {found}");
        log.health().mended.add(1);
    }
    Ok(())
}
