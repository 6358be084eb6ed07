//! From the lanes to the log: gathers events into batches, compresses them, and sees each batch written.
//!
//! It has a thread of its own and looks into the lanes every [`LOOK_EVERY`] while there is traffic. A batch
//! that cannot be written is offered again until it is, in its order; meanwhile no more is taken than
//! [`BACKLOG_BYTES_MAX`], so that lanes are the only place where events are lost, and a gap tells which.

mod counts;
#[cfg(test)]
mod tests;
mod topic;

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

pub use counts::Counts;
pub use topic::LogTopic;

use super::lane::{Drain, Told};
use crate::{
    base::{abort::AbortOnPanic, bell::Bell, clock::Clock},
    event::{avro::Codec, place::Gap, time::Stamps},
    log::{self, Batch, Compression, partition_of},
};

/// How often it looks into the lanes.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long events of a partition are gathered, from the look that took the first of them to the next: a
/// batch costs as much as ten events, whatever is in it.
const LINGER: Duration = Duration::from_millis(4);
/// How long they are where many come, so that batches grow; not longer than a reader would notice.
const LINGER_MAX: Duration = Duration::from_millis(20);
/// Bytes that are many to have come within [`LINGER`].
const MANY_BYTES: usize = 16 << 10;
/// Bytes of records at which a batch is closed before that: more would save no more space.
const BATCH_BYTES: usize = 128 << 10;
/// Bytes of batches that may wait or be under way; until some are written, lanes are left alone.
const BACKLOG_BYTES_MAX: usize = 8 << 20;
/// Batches under way at most: there is room in the log's queue for what others write, too.
const UNDER_WAY_MAX: usize = 256;
/// Bytes taken from one lane before the next one's turn.
const TURN_BYTES: usize = 1 << 20;
/// Turns in a row without an event, after which it sleeps until there is one.
const IDLE_TURNS: u32 = 20;
/// How long it sleeps at most.
const NAP: Duration = Duration::from_secs(1);
/// How long a batch that was refused is left alone at first; twice as long after each refusal.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long what is left may take when all lanes have ended.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// Where batches go: the partitions of one topic.
pub trait Topic: fmt::Debug + Send {
    /// How many there are; never zero.
    fn partitions(&self) -> u32;

    /// Takes a batch to be written, or hands it back because too many wait. Never waits.
    ///
    /// `written` is called once, from any thread.
    ///
    /// # Errors
    /// The batch, when too many wait.
    fn offer(&self, partition: u32, batch: Batch, written: Written) -> Result<(), Batch>;
}

/// Hears what became of a batch.
pub type Written = Box<dyn FnOnce(Result<(), Refused>) + Send>;

/// A batch that was not written.
#[derive(Debug)]
pub struct Refused {
    /// The batch, to be offered again.
    pub batch: Batch,
    /// Why, in words for the operator.
    pub why: String,
}

/// The batches of one partition.
#[derive(Debug, Default)]
struct Queue {
    /// What is being gathered.
    open: log::Builder,
    /// Since when, on the monotonic clock.
    open_since_ns: u64,
    /// What waits, the oldest first.
    closed: VecDeque<Batch>,
    /// How many are under way. The next go when all have been heard of, so that none overtakes one that
    /// was refused.
    under_way: usize,
    /// Those that were refused of them.
    refused: Vec<Batch>,
    /// Until when it is left alone, on the monotonic clock.
    not_before_ns: u64,
    backoff: Duration,
}

/// What became of one batch.
#[derive(Debug)]
struct Heard {
    partition: u32,
    bytes: usize,
    events: u32,
    result: Result<(), Refused>,
}

/// No more batches may be under way.
struct Full;

/// Gathers events into batches.
#[derive(Debug)]
pub struct Builder {
    lanes: Vec<Drain>,
    topic: Box<dyn Topic>,
    queues: Vec<Queue>,
    /// Holds no more than is under way.
    heard: Receiver<Heard>,
    tell: Sender<Heard>,
    under_way: usize,
    /// The partition that is the first to offer its batches, by turns.
    first: usize,
    backlog_bytes: usize,
    /// What values are turned into; JSON where none.
    codec: Option<&'static Codec>,
    /// A value that was turned.
    value: Vec<u8>,
    stamps: Stamps,
    clock: Clock,
    /// When this turn began, on the monotonic clock.
    now_ns: u64,
    bell: Arc<Bell>,
    counts: Arc<Counts>,
    /// When all lanes were seen to have ended, on the monotonic clock.
    ended_ns: Option<u64>,
}

/// What a turn has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// There were events, or batches wait.
    Busy,
    /// There was nothing to do.
    Idle,
    /// All lanes have ended, and what could be written of them is.
    Over,
}

impl Builder {
    /// Drains `lanes` into `topic`. `bell` is the one that the lanes ring.
    pub fn new(lanes: Vec<Drain>, topic: Box<dyn Topic>, bell: Arc<Bell>, clock: Clock) -> Self {
        let (tell, heard) = channel();
        let queues = (0..topic.partitions()).map(|_| Queue::default());
        Self {
            lanes,
            queues: queues.collect(),
            topic,
            heard,
            tell,
            under_way: 0,
            first: 0,
            backlog_bytes: 0,
            codec: None,
            value: Vec::new(),
            stamps: Stamps::default(),
            clock,
            now_ns: 0,
            bell,
            counts: Arc::default(),
            ended_ns: None,
        }
    }

    /// The same, with values as `codec` has them; JSON where none.
    pub fn with_codec(self, codec: Option<&'static Codec>) -> Self {
        Self { codec, ..self }
    }

    /// What it counts.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Starts its thread, which ends when all lanes have ended and are written.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("builder".to_owned())
            .spawn(move || self.run())
    }

    fn run(mut self) {
        let _guard = AbortOnPanic("builder of the log's batches");
        self.bell.is_heard_here();
        let mut idle_turns = 0;
        loop {
            match self.turn() {
                Turn::Over => return,
                Turn::Busy => idle_turns = 0,
                Turn::Idle => idle_turns += 1,
            }
            if idle_turns > IDLE_TURNS {
                let lanes = &self.lanes;
                let waits = || lanes.iter().any(|lane| !lane.is_empty());
                self.bell.nap(NAP, waits);
            }
            // Also after a nap: the event that ended it is seldom alone.
            self.bell.doze(LOOK_EVERY);
        }
    }

    /// Hears what became of batches, takes what the lanes hold, and offers what is whole.
    pub fn turn(&mut self) -> Turn {
        let now_ns = self.clock.monotonic_ns();
        self.now_ns = now_ns;
        self.hear(now_ns);
        // Before the lanes are emptied: what comes afterwards would else be missed.
        let have_ended = self.lanes.iter().all(Drain::has_ended);
        let took_any = self.drain();
        if have_ended {
            self.take_last_gaps();
        }
        self.close_due(have_ended);
        self.offer_all(now_ns);
        self.counts.show(self.backlog_bytes, now_ns / 1_000_000);
        let is_through = self.backlog_bytes == 0
            && self.queues.iter().all(|queue| queue.open.is_empty())
            && self.lanes.iter().all(Drain::is_empty);
        match (have_ended, is_through) {
            (true, true) => Turn::Over,
            (true, false) if self.is_too_late(now_ns) => Turn::Over,
            (false, true) if !took_any => Turn::Idle,
            _ => Turn::Busy,
        }
    }

    /// Takes note of batches that were written, and takes those back that were not.
    fn hear(&mut self, now_ns: u64) {
        while let Ok(heard) = self.heard.try_recv() {
            let Some(queue) = self.queues.get_mut(heard.partition as usize) else {
                continue;
            };
            queue.under_way -= 1;
            self.under_way -= 1;
            match heard.result {
                Ok(()) => {
                    queue.backoff = Duration::ZERO;
                    self.backlog_bytes -= heard.bytes;
                    self.counts.written(heard.events, heard.bytes);
                }
                Err(Refused { batch, why }) => {
                    queue.refused.push(batch);
                    queue.backoff = (queue.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
                    let backoff_ns = u64::try_from(queue.backoff.as_nanos()).unwrap_or(u64::MAX);
                    queue.not_before_ns = now_ns.saturating_add(backoff_ns);
                    self.counts.refused(why);
                }
            }
            if queue.under_way == 0 {
                for batch in queue.refused.drain(..).rev() {
                    queue.closed.push_front(batch);
                }
            }
        }
    }

    /// Takes what the lanes hold, as far as there is room for it; whether that was anything.
    fn drain(&mut self) -> bool {
        let is_behind = self.lanes.iter().any(Drain::is_half_full);
        // Compressing is what costs time: when the lanes fill up though the disk keeps pace, it is left.
        let compression = match is_behind && self.backlog_bytes == 0 {
            true => Compression::None,
            false => Compression::Lz4,
        };
        let mut lanes = std::mem::take(&mut self.lanes);
        let mut took_any = false;
        for lane in &mut lanes {
            let mut taken_bytes = 0;
            while taken_bytes < TURN_BYTES && self.backlog_bytes < BACKLOG_BYTES_MAX {
                let taken = lane.next(|told| {
                    self.gather(told, compression);
                    told.value.len()
                });
                let Some(bytes) = taken else {
                    break;
                };
                taken_bytes += bytes;
                took_any = true;
            }
        }
        self.lanes = lanes;
        took_any
    }

    fn gather(&mut self, told: Told<'_>, compression: Compression) {
        let partition = partition_of(told.key, self.topic.partitions());
        let Some(queue) = self.queues.get_mut(partition as usize) else {
            return;
        };
        if queue.open.is_empty() {
            queue.open_since_ns = self.now_ns;
        }
        let value = match self.codec {
            Some(codec) => {
                self.value.clear();
                // What is not as the schema says stays what it is: readers know both.
                match codec.write(told.value, &mut self.value) {
                    true => &self.value,
                    false => told.value,
                }
            }
            None => told.value,
        };
        queue
            .open
            .push(told.unix_ms, Some(told.key), Some(value), &[]);
        if queue.open.raw_bytes() >= BATCH_BYTES {
            self.backlog_bytes += queue.close(compression);
        }
    }

    /// Gathers the gaps that found no room in their lanes before these ended.
    fn take_last_gaps(&mut self) {
        let mut lanes = std::mem::take(&mut self.lanes);
        let ended = lanes.iter_mut().filter(|lane| lane.is_empty());
        for gap in ended.filter_map(Drain::take_last_gap) {
            self.gather_gap(&gap);
        }
        self.lanes = lanes;
    }

    fn gather_gap(&mut self, gap: &Gap) {
        let mut value = Vec::new();
        gap.write(&self.stamps, &mut value);
        let key = gap.first.lane_text();
        let told = Told {
            unix_ms: i64::try_from(gap.unix_ms).unwrap_or(i64::MAX),
            key: key.as_bytes(),
            value: &value,
        };
        self.gather(told, Compression::Lz4);
    }

    /// Closes what has been gathered for long enough; all of it, where nothing more comes.
    fn close_due(&mut self, is_last: bool) {
        for queue in &mut self.queues {
            if is_last || queue.is_due(self.now_ns) {
                self.backlog_bytes += queue.close(Compression::Lz4);
            }
        }
    }

    /// Offers what waits, as far as it may go now.
    fn offer_all(&mut self, now_ns: u64) {
        let count = self.queues.len();
        for place in (self.first..count).chain(0..self.first) {
            if self.offer_of(place, now_ns).is_err() {
                self.first = place;
                return;
            }
        }
    }

    /// Offers what one partition has, or fails where all have enough under way.
    fn offer_of(&mut self, place: usize, now_ns: u64) -> Result<(), Full> {
        let (Some(queue), Ok(partition)) = (self.queues.get_mut(place), u32::try_from(place))
        else {
            return Ok(());
        };
        if queue.under_way > 0 || now_ns < queue.not_before_ns {
            return Ok(());
        }
        while let Some(batch) = queue.closed.pop_front() {
            if self.under_way == UNDER_WAY_MAX {
                queue.closed.push_front(batch);
                return Err(Full);
            }
            let (bytes, events) = (batch.bytes().len(), batch.count());
            let tell = self.tell.clone();
            let written = Box::new(move |result| {
                // Only when the builder has given up is nobody there to hear it.
                let _ = tell.send(Heard {
                    partition,
                    bytes,
                    events,
                    result,
                });
            });
            if let Err(batch) = self.topic.offer(partition, batch, written) {
                queue.closed.push_front(batch);
                return Err(Full);
            }
            queue.under_way += 1;
            self.under_way += 1;
        }
        Ok(())
    }

    /// Whether what is left after the lanes' end has had its time. It is then counted as lost.
    fn is_too_late(&mut self, now_ns: u64) -> bool {
        let ended_ns = *self.ended_ns.get_or_insert(now_ns);
        let is_late = Duration::from_nanos(now_ns - ended_ns) >= ENDED_WITHIN;
        if is_late {
            let waiting = self.queues.iter().flat_map(|queue| &queue.closed);
            let mut events: u64 = waiting.map(|batch| u64::from(batch.count())).sum();
            for lane in &mut self.lanes {
                while lane.next(|_| ()).is_some() {
                    events += 1;
                }
            }
            let bytes = self.backlog_bytes;
            tracing::error!(
                events,
                bytes,
                "the log took no more access events: these are lost"
            );
            self.counts.left(events);
        }
        is_late
    }
}

impl Queue {
    /// Whether what is gathered should wait for no more.
    fn is_due(&self, now_ns: u64) -> bool {
        let linger = match self.open.raw_bytes() < MANY_BYTES {
            true => LINGER,
            false => LINGER_MAX,
        };
        u128::from(now_ns.saturating_sub(self.open_since_ns)) >= linger.as_nanos()
    }

    /// Closes what is being gathered; the bytes of the batch.
    fn close(&mut self, compression: Compression) -> usize {
        if self.open.is_empty() {
            return 0;
        }
        let batch = self.open.finish(compression);
        let bytes = batch.bytes().len();
        self.closed.push_back(batch);
        bytes
    }
}
