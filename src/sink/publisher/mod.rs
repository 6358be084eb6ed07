//! Brings what the owner of bans decides, and whatever else is to be accounted for, onto the disk.
//!
//! Everything that waits goes into one round: one batch for each of the two topics, as large as what
//! came while the disk was busy with the round before. A round is over when both batches are on disk,
//! however often that takes; only then the next begins, so that no older state overtakes a newer one.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_queue::ArrayQueue;

use super::bans::{self, Encoder};
use crate::{
    base::{abort::AbortOnPanic, bell::Bell, clock::Clock},
    event::{
        audit::{self, Audit},
        ban,
    },
    log::{Batch, Builder, Compression},
    owner::{Publish, Receipt, Told, Trouble},
};

/// Changes of bans that may wait.
const CHANGES_MAX: usize = 16 * 1024;

/// Of these, so many are for acts that somebody waits for: no flood of bans takes their place.
const FOR_ACTS: usize = 512;

/// Bytes that waiting changes may take, beside those that somebody waits for.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes that a change takes at the most: one with all its evidence, and a reason as long as it may be.
const CHANGE_BYTES_MAX: usize = 4 * 1024;

/// Other things to account for that may wait.
const AUDITS_MAX: usize = 1024;

/// Bytes of records at which a round is full.
const ROUND_BYTES: usize = 256 * 1024;

/// How long the publisher sleeps when nothing wakes it.
const NAP: Duration = Duration::from_millis(100);

/// How long until a batch that was not taken is offered again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long the end waits for what is not on disk yet.
const DRAIN: Duration = Duration::from_secs(5);

/// The topics that are written here, by their place in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// `wardent.client.ban`.
    Bans,
    /// `wardent.audit.event`.
    Audit,
}

impl Topic {
    const ALL: [Self; 2] = [Self::Bans, Self::Audit];

    /// As the log calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bans => ban::TOPIC,
            Self::Audit => audit::TOPIC,
        }
    }
}

/// What became of a batch: it is on disk, or why not.
pub type Ack = Box<dyn FnOnce(Result<(), String>) + Send>;

/// Where batches are kept.
pub trait Shelf: fmt::Debug + Send {
    /// Takes a batch, without waiting; `ack` is called when it is on disk, or is not going to be.
    ///
    /// # Errors
    /// With the reason, when it is not even taken. `ack` is then not called.
    fn offer(&self, topic: Topic, batch: Batch, ack: Ack) -> Result<(), String>;
}

/// What the publisher counts. Relaxed, since each number stands for itself.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Records that are on disk, of both topics.
    pub written: AtomicU64,
    /// Batches that are on disk.
    pub batches: AtomicU64,
    /// Batches that had to be offered again.
    pub failed: AtomicU64,
    /// Things to account for that found no room, and are lost to the audit.
    pub dropped: AtomicU64,
    /// Records that wait to be written.
    pub waiting: AtomicU64,
    /// The publisher's last turn, in milliseconds of the monotonic clock.
    pub beat_ms: AtomicU64,
}

/// What waits to be written, and who writes it.
#[derive(Debug)]
struct Waiting {
    changes: ArrayQueue<Box<Told>>,
    audits: ArrayQueue<Box<Audit>>,
    /// Of the changes. The owner adds, the publisher takes away.
    bytes: AtomicUsize,
    /// Batches whose fate the publisher has not heard of yet.
    acks: AtomicUsize,
    bell: Bell,
    numbers: Arc<Numbers>,
    trouble: Arc<Trouble>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.audits.is_empty()
    }

    fn bytes(&self) -> usize {
        // Relaxed: one thread adds, one takes away, and the bound is a rough one.
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The owner's way to the publisher. There is one: only so its room grows unless it fills it itself.
#[derive(Debug)]
pub struct Changes(Arc<Waiting>);

impl Publish for Changes {
    fn room(&self) -> usize {
        let taken = self.0.changes.len() + FOR_ACTS;
        let bytes = BYTES_MAX.saturating_sub(self.0.bytes());
        let by_bytes = bytes / CHANGE_BYTES_MAX;
        CHANGES_MAX.saturating_sub(taken).min(by_bytes)
    }

    fn tell(&mut self, told: Box<Told>) -> Result<(), Box<Told>> {
        let has_room = match told.receipt {
            Some(_) => self.0.bytes() < BYTES_MAX + FOR_ACTS * CHANGE_BYTES_MAX,
            None => self.room() > 0,
        };
        if !has_room {
            return Err(told);
        }
        let bytes = bans::bytes_of(&told);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        let pushed = self.0.changes.push(told);
        if pushed.is_err() {
            self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.0.bell.ring();
        pushed
    }

    fn trouble(&self) -> Arc<Trouble> {
        Arc::clone(&self.0.trouble)
    }
}

/// Everybody else's way to the audit.
#[derive(Debug, Clone)]
pub struct Auditor(Arc<Waiting>);

impl Auditor {
    /// Tells what is to be accounted for, or counts it as dropped.
    pub fn tell(&self, audit: Audit) {
        if self.0.audits.push(Box::new(audit)).is_err() {
            self.0.numbers.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.0.bell.ring();
    }

    /// What the publisher counts.
    pub fn numbers(&self) -> &Arc<Numbers> {
        &self.0.numbers
    }

    /// Why what was told is not on disk, while it is not.
    pub fn trouble(&self) -> &Arc<Trouble> {
        &self.0.trouble
    }
}

/// Writes what was told to the log's two topics.
#[derive(Debug)]
pub struct Publisher {
    waiting: Arc<Waiting>,
    shelf: Box<dyn Shelf>,
    encoder: Encoder,
    clock: Clock,
    bans: Builder,
    audit: Builder,
    round: Option<Round>,
    acked: mpsc::Receiver<(Topic, Result<(), String>)>,
    acks: mpsc::Sender<(Topic, Result<(), String>)>,
}

/// What is being brought onto the disk.
#[derive(Debug)]
struct Round {
    parts: Vec<Part>,
    receipts: Vec<Receipt>,
}

/// One topic's batch of a round.
#[derive(Debug)]
struct Part {
    topic: Topic,
    batch: Batch,
    stage: Stage,
    /// How often it was not taken.
    failed: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// To be offered at this moment of the monotonic clock, in nanoseconds.
    Waits(u64),
    /// In the log's hands.
    UnderWay,
    /// On disk.
    Kept,
}

impl Publisher {
    /// A publisher onto `shelf`, and the ways that lead to it.
    pub fn new(shelf: Box<dyn Shelf>, encoder: Encoder, clock: Clock) -> (Self, Changes, Auditor) {
        let waiting = Arc::new(Waiting {
            changes: ArrayQueue::new(CHANGES_MAX),
            audits: ArrayQueue::new(AUDITS_MAX),
            bytes: AtomicUsize::new(0),
            acks: AtomicUsize::new(0),
            bell: Bell::default(),
            numbers: Arc::default(),
            trouble: Arc::default(),
        });
        let (acks, acked) = mpsc::channel();
        let publisher = Self {
            waiting: Arc::clone(&waiting),
            shelf,
            encoder,
            clock,
            bans: Builder::new(),
            audit: Builder::new(),
            round: None,
            acked,
            acks,
        };
        (publisher, Changes(Arc::clone(&waiting)), Auditor(waiting))
    }

    /// Works on a thread of its own until `ended`, and then a while longer for what is not on disk yet.
    ///
    /// A panic there aborts the process: it would go on serving, and nothing it decides would outlive it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(mut self, ended: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || {
                let _abort = AbortOnPanic("publisher");
                self.waiting.bell.is_heard_here();
                while !ended.load(Ordering::Relaxed) {
                    if !self.turn() {
                        self.nap();
                    }
                }
                self.drain();
            })
    }

    /// Sleeps until there is something to do.
    fn nap(&self) {
        let has_round = self.round.is_some();
        // A round has to be over before what came since is taken. SeqCst, with the bell's own.
        let has_work = || {
            let is_acked = self.waiting.acks.load(Ordering::SeqCst) > 0;
            is_acked || (!has_round && !self.waiting.is_empty())
        };
        self.waiting.bell.nap(self.pause(), has_work);
    }

    /// How long to sleep at the most: until a batch is to be offered again.
    fn pause(&self) -> Duration {
        let parts = self.round.iter().flat_map(|round| &round.parts);
        let offers = parts.filter_map(|part| match part.stage {
            Stage::Waits(at_ns) => Some(at_ns),
            Stage::UnderWay | Stage::Kept => None,
        });
        let now_ns = self.clock.monotonic_ns();
        let first = offers.min().map(|at_ns| at_ns.saturating_sub(now_ns));
        first.map_or(NAP, |ns| Duration::from_nanos(ns).min(NAP))
    }

    fn drain(&mut self) {
        let begin_ns = self.clock.monotonic_ns();
        loop {
            let is_busy = self.turn();
            if self.round.is_none() && self.waiting.is_empty() {
                return;
            }
            let waited_ns = self.clock.monotonic_ns().saturating_sub(begin_ns);
            if u128::from(waited_ns) >= DRAIN.as_nanos() {
                let trouble = self.waiting.trouble.words();
                tracing::error!(
                    records = self.unwritten(),
                    trouble = trouble
                        .as_deref()
                        .map_or("the disk is slow", String::as_str),
                    "what was decided last is not on disk, and will not be"
                );
                return;
            }
            if !is_busy {
                self.nap();
            }
        }
    }

    /// One turn; says whether there may be more to do at once.
    pub fn turn(&mut self) -> bool {
        let heard = self.hear_acks();
        let is_over = |round: &Round| round.parts.iter().all(|part| part.stage == Stage::Kept);
        let over = self.round.take_if(|round| is_over(round));
        let has_ended = over.is_some();
        if let Some(round) = over {
            self.waiting.trouble.set(None);
            round.receipts.into_iter().for_each(Receipt::kept);
        }
        if self.round.is_none() {
            self.round = self.next_round();
        }
        let has_offered = self.offer();
        let numbers = &self.waiting.numbers;
        numbers.waiting.store(self.unwritten(), Ordering::Relaxed);
        let now_ms = self.clock.monotonic_ns() / 1_000_000;
        numbers.beat_ms.store(now_ms, Ordering::Relaxed);
        heard || has_ended || has_offered
    }

    /// Takes note of what became of batches; says whether there was news.
    fn hear_acks(&mut self) -> bool {
        let mut heard = false;
        while let Ok((topic, result)) = self.acked.try_recv() {
            heard = true;
            self.waiting.acks.fetch_sub(1, Ordering::SeqCst);
            let now_ns = self.clock.monotonic_ns();
            let parts = self.round.iter_mut().flat_map(|round| &mut round.parts);
            for part in parts.filter(|part| part.topic == topic) {
                match &result {
                    Ok(()) => {
                        part.stage = Stage::Kept;
                        let numbers = &self.waiting.numbers;
                        let count = u64::from(part.batch.count());
                        numbers.written.fetch_add(count, Ordering::Relaxed);
                        numbers.batches.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(why) => self.waiting.postpone(part, why, now_ns),
                }
            }
        }
        heard
    }

    /// The batches of what waits; none when nothing does.
    fn next_round(&mut self) -> Option<Round> {
        let mut receipts = Vec::new();
        let has_room =
            |bans: &Builder, audit: &Builder| bans.raw_bytes().max(audit.raw_bytes()) < ROUND_BYTES;
        while has_room(&self.bans, &self.audit)
            && let Some(told) = self.waiting.changes.pop()
        {
            let bytes = bans::bytes_of(&told);
            self.waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.encoder.encode(&told, &mut self.bans, &mut self.audit);
            receipts.extend(told.receipt);
        }
        while has_room(&self.bans, &self.audit)
            && let Some(audit) = self.waiting.audits.pop()
        {
            self.encoder.encode_audit(&audit, &mut self.audit);
        }
        let now_ns = self.clock.monotonic_ns();
        let builders = [&mut self.bans, &mut self.audit];
        let parts = Topic::ALL.into_iter().zip(builders);
        let parts: Vec<_> = parts
            .filter(|(_, builder)| !builder.is_empty())
            .map(|(topic, builder)| Part {
                topic,
                batch: builder.finish(Compression::Lz4),
                stage: Stage::Waits(now_ns),
                failed: 0,
            })
            .collect();
        let has_news = !parts.is_empty() || !receipts.is_empty();
        has_news.then_some(Round { parts, receipts })
    }

    /// Offers the batches whose time has come; says whether one was taken.
    fn offer(&mut self) -> bool {
        let now_ns = self.clock.monotonic_ns();
        let mut has_offered = false;
        let parts = self.round.iter_mut().flat_map(|round| &mut round.parts);
        for part in parts.filter(|part| matches!(part.stage, Stage::Waits(at) if at <= now_ns)) {
            let (acks, waiting) = (self.acks.clone(), Arc::clone(&self.waiting));
            let topic = part.topic;
            let ack: Ack = Box::new(move |result| {
                waiting.acks.fetch_add(1, Ordering::SeqCst);
                // Whoever waited for it may have gone.
                let _ = acks.send((topic, result));
                waiting.bell.ring();
            });
            // A copy: what the disk does with a batch that it then fails is not known.
            match self.shelf.offer(topic, part.batch.clone(), ack) {
                Ok(()) => {
                    part.stage = Stage::UnderWay;
                    has_offered = true;
                }
                Err(why) => self.waiting.postpone(part, &why, now_ns),
            }
        }
        has_offered
    }

    /// Records that wait, in the queues and in the round.
    fn unwritten(&self) -> u64 {
        let parts = self.round.iter().flat_map(|round| &round.parts);
        let in_round = parts
            .filter(|part| part.stage != Stage::Kept)
            .map(|part| u64::from(part.batch.count()));
        let queued = self.waiting.changes.len() + self.waiting.audits.len();
        in_round.sum::<u64>() + queued as u64
    }
}

impl Waiting {
    /// Has a batch offered again later, and says why it was not taken.
    fn postpone(&self, part: &mut Part, why: &str, now_ns: u64) {
        if part.failed == 0 {
            let topic = part.topic.name();
            tracing::error!(topic, why, "not on disk; it is tried again until it is");
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << part.failed.min(16));
        let pause_ns = u64::try_from(pause.min(LONGEST_PAUSE).as_nanos()).unwrap_or(u64::MAX);
        part.failed = part.failed.saturating_add(1);
        part.stage = Stage::Waits(now_ns.saturating_add(pause_ns));
        self.numbers.failed.fetch_add(1, Ordering::Relaxed);
        self.trouble.set(Some(why.to_owned()));
    }
}

#[cfg(test)]
mod tests;
