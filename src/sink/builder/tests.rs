//! The builder by turns, with a topic that does what a test says.

use std::sync::{Mutex, atomic::AtomicBool, atomic::Ordering};

use super::*;
use crate::{
    event::place::Run,
    log::View,
    sink::lane::{self, Lane},
};

/// What a topic does with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Writes,
    Refuses,
    IsFull,
    /// Takes it, and says nothing.
    Hangs,
}

#[derive(Debug, Clone)]
struct Fake(Arc<State>);

struct State {
    mood: Mutex<Mood>,
    /// By partition, the records as `(key, value)`.
    written: Mutex<Vec<Vec<(String, String)>>>,
    batches: Mutex<Vec<(usize, bool)>>,
    hanging: Mutex<Vec<(u32, Batch, Written)>>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl Fake {
    fn new(partitions: usize) -> Self {
        Self(Arc::new(State {
            mood: Mutex::new(Mood::Writes),
            written: Mutex::new(vec![Vec::new(); partitions]),
            batches: Mutex::default(),
            hanging: Mutex::default(),
        }))
    }

    fn is_now(&self, mood: Mood) {
        *self.0.mood.lock().unwrap() = mood;
    }

    fn write(&self, partition: u32, batch: &Batch) {
        let (view, rest) = View::read(batch.bytes()).unwrap();
        assert!(rest.is_empty());
        view.verify().unwrap();
        let mut scratch = Vec::new();
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        let records = view.records(&mut scratch).unwrap();
        let records = records.map(|record| {
            let record = record.unwrap();
            (text(record.key), text(record.value))
        });
        self.0.written.lock().unwrap()[partition as usize].extend(records);
        let is_packed = batch.codec() != 0;
        let mut batches = self.0.batches.lock().unwrap();
        batches.push((batch.bytes().len(), is_packed));
    }

    fn write_what_hangs(&self) {
        for (partition, batch, written) in self.0.hanging.lock().unwrap().drain(..) {
            self.write(partition, &batch);
            written(Ok(()));
        }
    }

    /// Of all partitions.
    fn values(&self) -> Vec<String> {
        let written = self.0.written.lock().unwrap();
        let values = written.iter().flatten().map(|(_, value)| value.clone());
        values.collect()
    }
}

impl Topic for Fake {
    fn partitions(&self) -> u32 {
        u32::try_from(self.0.written.lock().unwrap().len()).unwrap()
    }

    fn offer(&self, partition: u32, batch: Batch, written: Written) -> Result<(), Batch> {
        match *self.0.mood.lock().unwrap() {
            Mood::Writes => {
                self.write(partition, &batch);
                written(Ok(()));
            }
            Mood::Refuses => written(Err(Refused {
                batch,
                why: "no space left".to_owned(),
            })),
            Mood::IsFull => return Err(batch),
            Mood::Hangs => {
                let mut hanging = self.0.hanging.lock().unwrap();
                hanging.push((partition, batch, written));
            }
        }
        Ok(())
    }
}

/// A lane, its builder, and the topic it writes to.
struct Stage {
    lane: Option<Lane>,
    builder: Builder,
    topic: Fake,
    clock: Clock,
    told: u64,
}

impl Stage {
    fn new(partitions: usize, lane_bytes: usize) -> Self {
        let (bell, clock) = (Arc::default(), Clock::manual(1_795_255_201_042));
        let (lane, drain) = lane::lane(Run::new(1), 0, lane_bytes, &bell);
        let topic = Fake::new(partitions);
        let builder = Builder::new(vec![drain], Box::new(topic.clone()), bell, clock.clone());
        Self {
            lane: Some(lane),
            builder,
            topic,
            clock,
            told: 0,
        }
    }

    /// Tells so many events, of clients in turn, each of `bytes` at least.
    fn tell(&mut self, events: u64, bytes: usize) {
        let lane = self.lane.as_mut().unwrap();
        for _ in 0..events {
            self.told += 1;
            let value = format!("{{\"seq\":{}}}", lane.next().seq);
            let value = format!("{value:<bytes$}");
            let client = format!("198.51.100.{}", self.told % 200);
            lane.tell(self.told, Some(client.as_bytes()), value.as_bytes());
        }
    }

    /// Tells so many events of noise, a turn each. It does not compress: the backlog is bounded in bytes as
    /// stored.
    fn tell_noise(&mut self, events: u64) {
        for _ in 0..events {
            let noise: String = (0..4_000_u64)
                .map(|n| char::from(b'a' + (mixed(self.told * 4_000 + n) % 26) as u8))
                .collect();
            let lane = self.lane.as_mut().unwrap();
            let value = format!("{{\"seq\":{},\"noise\":\"{noise}\"}}", lane.next().seq);
            self.told += 1;
            lane.tell(self.told, None, value.as_bytes());
            self.turn();
        }
    }

    fn turn(&mut self) -> Turn {
        self.clock.advance_ms(5);
        self.builder.turn()
    }

    /// A turn, and another when what the first one took has been gathered for long enough.
    fn turn_and_wait(&mut self) {
        self.turn();
        self.clock.advance_ms(20);
        self.turn();
    }

    /// Turns until there is nothing to do.
    fn settle(&mut self) {
        let turns = (0..10_000).take_while(|_| self.turn() == Turn::Busy);
        assert!(turns.count() < 9_999, "never at rest");
    }

    /// The numbers that are in the log, those that gaps tell among them, sorted.
    fn seqs(&self) -> Vec<u64> {
        let mut seqs = Vec::new();
        for value in self.topic.values() {
            let value: serde_json::Value = serde_json::from_str(&value).unwrap();
            let number = |name: &str| value[name].as_u64();
            match (number("seq"), number("from"), number("to")) {
                (Some(seq), _, _) => seqs.push(seq),
                (None, Some(from), Some(to)) => seqs.extend(from..=to),
                _ => panic!("{value}"),
            }
        }
        seqs.sort_unstable();
        seqs
    }

    #[track_caller]
    fn assert_all_are_told(&self) {
        assert_eq!(self.seqs(), (1..=self.told).collect::<Vec<_>>());
    }
}

#[test]
fn events_go_to_the_partition_of_their_client_in_their_order() {
    let mut stage = Stage::new(4, 1 << 20);
    stage.tell(1_000, 0);
    assert_eq!(stage.turn(), Turn::Busy);
    stage.settle();
    stage.assert_all_are_told();
    let written = stage.topic.0.written.lock().unwrap();
    for (partition, records) in (0..).zip(written.iter()) {
        let elsewhere = |key: &str| partition_of(key.as_bytes(), 4) != partition;
        assert!(!records.iter().any(|(key, _)| elsewhere(key)));
        assert!(!records.is_empty());
        let numbers: Vec<u64> = records
            .iter()
            .map(|(_, value)| serde_json::from_str::<serde_json::Value>(value).unwrap())
            .map(|value| value["seq"].as_u64().unwrap())
            .collect();
        assert!(numbers.is_sorted());
    }
}

#[test]
fn what_is_gathered_is_one_packed_batch_for_each_partition() {
    let mut stage = Stage::new(2, 1 << 20);
    stage.tell(200, 300);
    stage.turn_and_wait();
    let batches = stage.topic.0.batches.lock().unwrap().clone();
    assert_eq!(batches.len(), 2);
    assert!(
        batches
            .iter()
            .all(|(bytes, is_packed)| *is_packed && *bytes < 10_000)
    );
}

#[test]
fn few_events_wait_for_one_look_and_many_until_a_batch_is_worth_it() {
    for (events, looks) in [(5, 2), (200, 5)] {
        let mut stage = Stage::new(1, 1 << 20);
        stage.tell(events, 300);
        for _ in 1..looks {
            stage.turn();
            assert!(stage.topic.0.batches.lock().unwrap().is_empty());
        }
        stage.turn();
        assert_eq!(stage.topic.0.batches.lock().unwrap().len(), 1);
    }
}

#[test]
fn a_batch_is_closed_at_128_kib() {
    let mut stage = Stage::new(1, 1 << 20);
    stage.tell(400, 1_000);
    stage.turn_and_wait();
    assert_eq!(stage.topic.0.batches.lock().unwrap().len(), 4);
}

#[test]
fn what_lies_in_a_lane_that_fills_up_is_stored_raw() {
    let mut stage = Stage::new(1, 256 << 10);
    stage.tell(200, 1_000);
    stage.turn_and_wait();
    let batches = stage.topic.0.batches.lock().unwrap().clone();
    assert_eq!(
        batches
            .iter()
            .map(|(_, packed)| *packed)
            .collect::<Vec<_>>(),
        [false, true]
    );
}

#[test]
fn a_batch_that_is_refused_is_offered_again_in_its_order() {
    let mut stage = Stage::new(1, 1 << 20);
    stage.topic.is_now(Mood::Refuses);
    for _ in 0..50 {
        stage.tell(10, 300);
        stage.turn();
    }
    assert_eq!(stage.topic.values(), Vec::<String>::new());
    let counts = Arc::clone(stage.builder.counts());
    // 250 ms with pauses of 20, 40, 80, 160 ms and so on.
    assert!(
        (3..=40).contains(&counts.refusals()),
        "{}",
        counts.refusals()
    );
    assert_eq!(counts.trouble().unwrap().as_str(), "no space left");
    stage.topic.is_now(Mood::Writes);
    stage.clock.advance_ms(1_000);
    stage.settle();
    stage.assert_all_are_told();
    assert!(stage.topic.values().is_sorted_by_key(|value| {
        let value: serde_json::Value = serde_json::from_str(value).unwrap();
        value["seq"].as_u64()
    }));
    assert!(counts.trouble().is_none());
    assert_eq!((counts.events(), counts.backlog_bytes()), (500, 0));
}

#[test]
fn a_full_queue_is_no_refusal() {
    let mut stage = Stage::new(3, 1 << 20);
    stage.topic.is_now(Mood::IsFull);
    stage.tell(100, 0);
    stage.turn();
    assert_eq!(stage.builder.counts().refusals(), 0);
    stage.topic.is_now(Mood::Writes);
    stage.turn();
    stage.settle();
    stage.assert_all_are_told();
}

#[test]
fn no_batch_overtakes_one_that_is_under_way() {
    let mut stage = Stage::new(1, 1 << 20);
    stage.topic.is_now(Mood::Hangs);
    for _ in 0..2 {
        stage.tell(10, 0);
        stage.turn_and_wait();
    }
    assert_eq!(stage.topic.0.hanging.lock().unwrap().len(), 1);
    stage.topic.write_what_hangs();
    stage.turn();
    stage.topic.write_what_hangs();
    stage.settle();
    stage.assert_all_are_told();
}

#[test]
fn a_disk_that_is_gone_costs_events_and_every_one_is_told_when_it_is_back() {
    let mut stage = Stage::new(2, 256 << 10);
    stage.topic.is_now(Mood::Hangs);
    let counts = Arc::clone(stage.builder.counts());
    stage.tell_noise(4_000);
    let most = (BACKLOG_BYTES_MAX + BATCH_BYTES * 2) as u64;
    assert!(counts.backlog_bytes() > BACKLOG_BYTES_MAX as u64 / 2);
    assert!(counts.backlog_bytes() <= most, "{}", counts.backlog_bytes());
    let lost = stage.builder.lanes[0].counts().lost();
    assert!(lost > 0);
    stage.topic.is_now(Mood::Writes);
    stage.topic.write_what_hangs();
    stage.settle();
    stage.tell(1, 0);
    stage.settle();
    stage.assert_all_are_told();
    assert_eq!(stage.builder.lanes[0].counts().gaps(), 1);
}

/// A number that looks like nothing in particular.
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40
}

#[test]
fn when_the_lanes_end_all_is_written_the_last_gap_too() {
    let mut stage = Stage::new(2, 2_000);
    stage.tell(100, 100);
    stage.lane = None;
    assert_eq!(stage.turn(), Turn::Busy);
    let turns = (0..10).find(|_| stage.turn() == Turn::Over);
    assert!(turns.is_some(), "does not end");
    stage.assert_all_are_told();
    assert!(
        stage
            .topic
            .values()
            .iter()
            .any(|value| value.contains("lane_full"))
    );
}

#[test]
fn what_nobody_takes_is_given_up_after_the_end() {
    let mut stage = Stage::new(1, 1 << 20);
    stage.topic.is_now(Mood::IsFull);
    stage.tell(7, 0);
    stage.lane = None;
    let turns = (0..10_000)
        .take_while(|_| stage.turn() != Turn::Over)
        .count();
    assert_eq!(turns, 1_000, "5 s in turns of 5 ms");
    assert_eq!(stage.builder.counts().given_up(), 7);
}

#[test]
fn what_is_left_in_the_lanes_at_the_end_is_counted_too() {
    let mut stage = Stage::new(1, 1 << 20);
    stage.topic.is_now(Mood::IsFull);
    stage.tell_noise(4_000);
    stage.lane = None;
    while stage.turn() != Turn::Over {}
    let lost = stage.builder.lanes[0].counts().lost();
    let given_up = stage.builder.counts().given_up();
    assert!(lost > 0);
    assert_eq!(given_up + lost, 4_000);
}

#[test]
fn its_thread_hears_the_first_event_after_a_long_silence_and_ends_with_its_lanes() {
    let (bell, clock) = (Arc::<Bell>::default(), Clock::system());
    let (mut lane, drain) = lane::lane(Run::new(1), 0, 1 << 20, &bell);
    let topic = Fake::new(1);
    let builder = Builder::new(
        vec![drain],
        Box::new(topic.clone()),
        Arc::clone(&bell),
        clock,
    );
    let counts = Arc::clone(builder.counts());
    let ended = Arc::new(AtomicBool::new(false));
    let thread = builder.start().unwrap();
    let waiter = std::thread::spawn({
        let ended = Arc::clone(&ended);
        move || {
            thread.join().unwrap();
            ended.store(true, Ordering::SeqCst);
        }
    });
    let clock = Clock::system();
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let begin_ns = clock.monotonic_ns();
        while !holds() {
            assert!(clock.monotonic_ns() - begin_ns < 20_000_000_000, "{what}");
            std::thread::yield_now();
        }
    };
    // It naps when its beat has stood still for longer than it dozes.
    until("never naps", &|| {
        let beat_ms = counts.beat_ms();
        let begin_ns = clock.monotonic_ns();
        while clock.monotonic_ns() - begin_ns < 100_000_000 {
            std::thread::yield_now();
        }
        counts.beat_ms() == beat_ms
    });
    lane.tell(1, None, b"{\"seq\":1}");
    until("not written", &|| counts.events() == 1);
    assert_eq!(topic.values(), ["{\"seq\":1}"]);
    drop(lane);
    bell.wake();
    until("does not end", &|| ended.load(Ordering::SeqCst));
    waiter.join().unwrap();
}
