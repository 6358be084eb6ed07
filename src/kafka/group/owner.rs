//! The one task that drives the coordinator: it hears what is asked, tells the time, brings records to the log
//! and answers. Nobody else touches a group.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    mem,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::spawn_local,
    time::{sleep, timeout},
};

use super::{
    ages::Ages,
    ask::{Effect, Joined, Now, Synced, Ticket, Write, WriteId},
    coordinator::{Coordinator, Ids},
    groups::Groups,
    record::partition_of,
    replay::{Replay, Step},
    shown::GroupsShown,
    writes::{NotKept, bytes_of},
};
use crate::{
    base::clock::Clock,
    kafka::{Counters, ErrorCode},
    log::{
        Append, Builder, CleanerHealth, Command, Compression, Log, MENDED_WITHIN, NotAppended,
        Partition, Reason,
    },
};

/// The topic in which groups are kept.
pub(super) const TOPIC: &str = "__consumer_offsets";

/// What may wait for the owner; who asks then waits until there is room.
const ASKS_MAX: usize = 1_024;

/// What is done of it before answers and records go out.
const ASKS_AT_ONCE: usize = 256;

/// Bytes of records at which a batch is full.
const BATCH_BYTES: usize = 256 * 1024;

/// The longest nap: a deadline is at the most so late when the clocks of the runtime and of deadlines differ.
const NAP_MAX: Duration = Duration::from_secs(1);

/// How long until a disk that failed is read again.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// How old what is shown may be: where there is much to show, a little older.
const SHOWN_EACH_MS: u64 = 1_000;
const MUCH: usize = 10_000;

/// What is asked of the owner.
pub(super) type Act = Box<dyn FnOnce(&mut Owner)>;

/// Who is answered when.
#[derive(Debug)]
pub(super) enum Waiter {
    Join(oneshot::Sender<Joined>),
    Sync(oneshot::Sender<Synced>),
    Codes(oneshot::Sender<Vec<ErrorCode>>),
}

/// Those who waited for an answer and went away. There are at most as many as waited.
#[derive(Debug, Default)]
pub(super) struct Gone {
    tickets: RefCell<Vec<(String, Ticket)>>,
    told: Notify,
}

impl Gone {
    pub(super) fn tell(&self, group: String, ticket: Ticket) {
        self.tickets.borrow_mut().push((group, ticket));
        self.told.notify_one();
    }
}

/// What became of a write, as the log tells it.
type Ack = (Vec<WriteId>, Result<(), NotKept>);

/// The owner of all groups.
pub(super) struct Owner {
    pub(super) coordinator: Coordinator,
    pub(super) waiting: HashMap<Ticket, Waiter>,
    /// As long as the log is being read.
    replay: Option<Replay>,
    log: Arc<Log>,
    clock: Clock,
    cleaner: Arc<CleanerHealth>,
    asks: mpsc::Receiver<Act>,
    gone: Rc<Gone>,
    /// One for each batch under way, so bounded by the coordinator's writes.
    acked: mpsc::UnboundedReceiver<Ack>,
    acks: mpsc::UnboundedSender<Ack>,
    counters: Arc<Counters>,
    ages: Ages,
    show_again_ms: u64,
}

/// Begins to read the groups of that log, and to serve them; `cleaner` says whether what is old by the wall
/// clock may be forgotten. To be called on the listener's runtime.
pub(crate) fn start(
    log: &Arc<Log>,
    clock: &Clock,
    cleaner: Arc<CleanerHealth>,
    counters: &Arc<Counters>,
) -> Groups {
    let (give, asks) = mpsc::channel(ASKS_MAX);
    let (acks, acked) = mpsc::unbounded_channel();
    let gone = Rc::<Gone>::default();
    let partitions = (0..).map_while(|index| log.partition(TOPIC, index));
    let owner = Owner {
        coordinator: Coordinator::new(random_ids()),
        waiting: HashMap::new(),
        replay: Some(Replay::new(partitions)),
        log: Arc::clone(log),
        clock: clock.clone(),
        cleaner,
        asks,
        gone: Rc::clone(&gone),
        acked,
        acks,
        counters: Arc::clone(counters),
        ages: Ages::default(),
        show_again_ms: 0,
    };
    spawn_local(owner.run());
    Groups::new(give, gone, Rc::new(Cell::new(0)))
}

/// Ids that nobody can guess; where there is no randomness, at least none twice.
fn random_ids() -> Ids {
    let mut count = 0_u128;
    Ids(Box::new(move || {
        let mut bytes = [0; 16];
        count += 1;
        match getrandom::fill(&mut bytes) {
            Ok(()) => u128::from_ne_bytes(bytes),
            Err(_) => count,
        }
    }))
}

impl Owner {
    /// Until nobody can ask any more.
    async fn run(mut self) {
        while self.replay.is_some() {
            self.read_on().await;
        }
        loop {
            let act = self.next().await;
            match act {
                Next::Asked(act) => act(&mut self),
                Next::Acked((ids, result)) => self.acked(&ids, result),
                Next::Gone => {}
                Next::Due => {
                    let now = self.now();
                    self.coordinator.tick(now);
                }
                Next::Over => return,
            }
            self.catch_up();
            self.carry_out();
            self.show();
        }
    }

    /// Reads a chunk of the log, and tells those who ask meanwhile to come again.
    async fn read_on(&mut self) {
        let now = self.now();
        let Some(replay) = &mut self.replay else {
            return;
        };
        match replay.step(&mut self.coordinator, now) {
            Ok(Step::More) => tokio::task::yield_now().await,
            Ok(Step::Damaged(partition, base)) => self.mended(partition, base).await,
            Ok(Step::Over) => {
                if replay.lost > 0 {
                    tracing::warn!(
                        records = replay.records,
                        lost = replay.lost,
                        "not all that groups committed could be read back"
                    );
                }
                self.replay = None;
                self.coordinator.restored(now);
                self.forget_topics_gone(now);
                self.show();
            }
            Err(error) => {
                tracing::error!("{TOPIC} cannot be read, groups wait: {error}");
                self.answer_for(READ_AGAIN).await;
            }
        }
        self.catch_up();
    }

    /// Has a segment mended in which something damaged was met, and waits for that.
    async fn mended(&mut self, partition: Arc<Partition>, base: i64) {
        let (tell, told) = oneshot::channel();
        let mend = Command::Mend(partition, base);
        // Who waited may have gone on.
        let done = Box::new(move |result| drop(tell.send(result)));
        if self.log.ask(mend, done).is_ok() {
            self.answer_until(async { drop(timeout(MENDED_WITHIN, told).await) })
                .await;
        }
    }

    /// Forgets how far groups are in topics that were deleted, where a stop came before that was on disk.
    fn forget_topics_gone(&mut self, now: Now) {
        let there = self.log.topics();
        let known = self.coordinator.topics();
        let gone = known.iter().filter(|topic| there.get(topic).is_none());
        for topic in gone {
            if !self.coordinator.forget_topic(now, topic) {
                tracing::warn!(
                    "not all that groups committed of {topic}, which is gone, is forgotten"
                );
            }
        }
    }

    async fn answer_for(&mut self, time: Duration) {
        self.answer_until(sleep(time)).await;
    }

    /// Answers those who ask meanwhile.
    async fn answer_until(&mut self, over: impl Future<Output = ()>) {
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                act = self.asks.recv() => match act {
                    Some(act) => act(self),
                    None => return over.await,
                },
            }
        }
    }

    async fn next(&mut self) -> Next {
        let due_ms = self.coordinator.due_ms();
        let left = Duration::from_millis(due_ms.saturating_sub(self.now().ms)).min(NAP_MAX);
        tokio::select! {
            act = self.asks.recv() => act.map_or(Next::Over, Next::Asked),
            // It never ends, since this has a sender of its own.
            ack = self.acked.recv() => ack.map_or(Next::Over, Next::Acked),
            () = self.gone.told.notified() => Next::Gone,
            () = sleep(left) => Next::Due,
        }
    }

    /// Does what came besides.
    fn catch_up(&mut self) {
        for _ in 0..ASKS_AT_ONCE {
            match self.asks.try_recv() {
                Ok(act) => act(self),
                Err(_) => break,
            }
        }
        while let Ok((ids, result)) = self.acked.try_recv() {
            self.acked(&ids, result);
        }
        let gone = mem::take(&mut *self.gone.tickets.borrow_mut());
        for (group, ticket) in gone {
            self.waiting.remove(&ticket);
            let now = self.now();
            self.coordinator.gone(now, &group, ticket);
        }
    }

    pub(super) fn now(&self) -> Now {
        Now {
            ms: self.clock.monotonic_ns() / 1_000_000,
            unix_ms: i64::try_from(self.clock.unix_ms()).unwrap_or(i64::MAX),
            is_believed: !self.cleaner.is_suspended.get(),
        }
    }

    /// Whether groups are known already.
    pub(super) fn is_loading(&self) -> bool {
        self.replay.is_some()
    }

    fn acked(&mut self, ids: &[WriteId], result: Result<(), NotKept>) {
        let now = self.now();
        for id in ids {
            self.coordinator.written(now, *id, result);
        }
    }

    /// Answers, and brings records to the log. What the log does not take at once is told to the coordinator,
    /// which may answer because of it.
    fn carry_out(&mut self) {
        loop {
            let effects = self.coordinator.effects();
            if effects.is_empty() {
                return;
            }
            let mut writes = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Write(write) => writes.push(write),
                    Effect::Joined(ticket, joined) => {
                        if let Some(Waiter::Join(tell)) = self.waiting.remove(&ticket) {
                            // Who went away is let go of by `gone`.
                            let _ = tell.send(joined);
                        }
                    }
                    Effect::Synced(ticket, synced) => {
                        if let Some(Waiter::Sync(tell)) = self.waiting.remove(&ticket) {
                            let _ = tell.send(synced);
                        }
                    }
                    Effect::Answered(ticket, codes) => {
                        if let Some(Waiter::Codes(tell)) = self.waiting.remove(&ticket) {
                            let _ = tell.send(codes);
                        }
                    }
                }
            }
            self.write(writes);
        }
    }

    fn write(&mut self, writes: Vec<Write>) {
        let count = (0..).take_while(|index| self.log.partition(TOPIC, *index).is_some());
        let partitions = u32::try_from(count.count()).unwrap_or(u32::MAX);
        for (index, filled) in batched(writes, partitions, self.now().unix_ms) {
            self.append(index, filled);
        }
    }

    fn append(&mut self, index: u32, (mut builder, ids): Filled) {
        let Some(partition) = self.log.partition(TOPIC, index) else {
            return self.acked(&ids, Err(NotKept::NotNow));
        };
        let acks = self.acks.clone();
        let under_way = ids.clone();
        let append = Append {
            partition,
            batch: builder.finish(Compression::Lz4),
            done: Box::new(move |result| {
                let result = result.map(drop).map_err(|not| why(&not));
                // The owner has ended.
                let _ = acks.send((under_way, result));
            }),
        };
        if self.log.appends().offer(append).is_err() {
            self.acked(&ids, Err(NotKept::NotNow));
        }
    }

    /// Has everybody who looks see what there is, now and then.
    fn show(&mut self) {
        let now = self.now();
        if now.ms < self.show_again_ms {
            return;
        }
        let (_, offsets, ..) = self.coordinator.sizes();
        let pause_ms = match offsets > MUCH {
            true => 10 * SHOWN_EACH_MS,
            false => SHOWN_EACH_MS,
        };
        self.show_again_ms = now.ms + pause_ms;
        let mut shown = GroupsShown::of(&self.coordinator);
        let log = &self.log;
        self.ages
            .add_to(&mut shown, |topic, index| log.partition(topic, index));
        self.counters.groups.store(Arc::new(shown));
    }
}

/// A batch with the writes that are in it.
type Filled = (Builder, Vec<WriteId>);

/// Puts what goes to one partition into as few batches as may be, in order. A write is never divided, and one
/// that fills a batch is alone in it, so that where it is too large it fails for nobody else.
fn batched(writes: Vec<Write>, partitions: u32, now_ms: i64) -> Vec<(u32, Filled)> {
    let mut full = Vec::new();
    let mut open: BTreeMap<u32, Filled> = BTreeMap::new();
    for write in writes {
        let index = partition_of(&write.group, partitions);
        let (builder, ids) = open.entry(index).or_default();
        if !ids.is_empty() && builder.raw_bytes() + bytes_of(&write.records) > BATCH_BYTES {
            full.push((index, (mem::take(builder), mem::take(ids))));
        }
        for (key, value) in &write.records {
            builder.push(now_ms, Some(key), value.as_deref(), &[]);
        }
        ids.push(write.id);
    }
    full.extend(open);
    full
}

fn why(not: &NotAppended) -> NotKept {
    match not.reason {
        Reason::TooLarge => NotKept::TooLarge,
        // What groups write has no producer's numbers: it is neither out of order nor fenced.
        Reason::DiskFull
        | Reason::Io
        | Reason::Offline
        | Reason::Deleted
        | Reason::OutOfOrderSequence
        | Reason::Fenced
        | Reason::TooManySegments
        | Reason::Stopping => NotKept::NotNow,
    }
}

/// What is to be done next.
enum Next {
    Asked(Act),
    Acked(Ack),
    Gone,
    Due,
    Over,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fills_a_batch_is_alone_in_it() {
        let write = |id: u64, group: &str, bytes: usize| Write {
            id: WriteId(id),
            group: group.to_owned(),
            records: vec![(b"key".to_vec(), Some(vec![b'x'; bytes]))],
        };
        let writes = vec![
            write(1, "g", 100),
            write(2, "g", 100),
            write(3, "g", 2 * BATCH_BYTES),
            write(4, "g", 100),
            write(5, "other", 100),
            write(6, "g", BATCH_BYTES / 2),
            write(7, "g", BATCH_BYTES / 2),
        ];
        let of_g = partition_of("g", 4);
        assert_ne!(of_g, partition_of("other", 4));
        let batches = batched(writes, 4, 0);
        let ids = batches.iter().filter(|(index, _)| *index == of_g);
        let ids = ids.map(|(_, (_, ids))| ids.iter().map(|id| id.0).collect());
        let ids: Vec<Vec<u64>> = ids.collect();
        assert_eq!(ids, [vec![1, 2], vec![3], vec![4, 6], vec![7]]);
        assert_eq!(batches.len(), 5);
    }
}
