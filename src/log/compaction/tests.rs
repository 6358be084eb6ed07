//! Compaction against a plain map: what a reader finds before, and what after.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use proptest::prelude::*;

use super::*;
use crate::{
    base::{clock::Clock, disk::System},
    log::{
        Batch, Builder, Compression,
        batch::HEADER_BYTES,
        cleaner::rig::{
            BANS, DAY_MS, HOUR_MS, NOW_MS, Read, Rig, batch, compacted, records, stored, topic,
        },
        tests::rig::numbered,
    },
};

/// A log with one compacted topic on the machine's disk.
struct Bans {
    rig: Rig,
    partition: Arc<Partition>,
    _dir: tempfile::TempDir,
}

impl Bans {
    fn new(segment_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::log::TopicConfig {
            segment_bytes,
            ..compacted()
        };
        let rig = Rig::open(
            Arc::new(System),
            dir.path(),
            Clock::manual(NOW_MS),
            vec![topic(BANS, 1, config)],
        );
        Self {
            partition: rig.partition(BANS, 0),
            rig,
            _dir: dir,
        }
    }

    fn append(&mut self, records: &[(&str, Option<&str>)]) {
        self.rig.append(&self.partition, records);
    }

    fn roll(&mut self) {
        self.rig.roll(&self.partition);
    }

    fn compact(&mut self) -> Summary {
        self.rig.compact(self.rig.job(&self.partition)).0
    }

    fn records(&self) -> Vec<Read> {
        records(&self.partition)
    }

    /// Offsets and values of what is left.
    fn left(&self) -> Vec<(i64, Option<String>)> {
        let left = self.records().into_iter();
        left.map(|one| (one.offset, one.value)).collect()
    }
}

fn some(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[test]
fn of_each_key_the_last_record_stays_at_its_offset_and_the_active_segment_is_untouched() {
    let mut bans = Bans::new(1 << 20);
    bans.append(&[("a", Some("1")), ("b", Some("1")), ("a", Some("2"))]);
    bans.append(&[("a", Some("3"))]);
    bans.roll();
    bans.append(&[("b", Some("4")), ("a", Some("5"))]);
    let summary = bans.compact();
    let left = [
        (1, some("1")),
        (3, some("3")),
        (4, some("4")),
        (5, some("5")),
    ];
    assert_eq!(bans.left(), left);
    assert_eq!((summary.first_dirty, summary.records_dropped), (4, 2));
    assert_eq!((summary.keys, summary.is_complete), (2, true));
}

#[test]
fn a_second_pass_changes_nothing() {
    let mut bans = Bans::new(1 << 20);
    for round in ["1", "2", "3"] {
        bans.append(&[("a", Some(round)), ("b", None), (round, Some("x"))]);
        bans.roll();
    }
    bans.compact();
    let before = stored(&bans.partition);
    let (summary, replaced) = bans.rig.compact(bans.rig.job(&bans.partition));
    assert_eq!((summary.records_dropped, replaced), (0, 0));
    assert_eq!(stored(&bans.partition), before);
}

#[test]
fn small_segments_become_one_and_every_offset_can_still_be_read_from() {
    let mut bans = Bans::new(1 << 20);
    for value in 0..40 {
        bans.append(&[("a", Some("old")), ("b", Some(&value.to_string()))]);
        bans.roll();
    }
    bans.compact();
    assert_eq!(bans.partition.segments().len(), 2);
    assert_eq!(bans.left(), [(78, some("old")), (79, some("39"))]);
    for offset in 0..80 {
        let bytes = bans.partition.read(offset, 1).unwrap();
        let (view, _) = View::read(&bytes).unwrap();
        assert!(view.last_offset() >= offset, "{offset}");
    }
    assert_eq!(bans.partition.read(80, 1).unwrap(), b"");
}

#[test]
fn segments_that_do_not_fit_together_stay_apart() {
    let mut bans = Bans::new(1 << 20);
    let large = "x".repeat(400 << 10);
    let mut builder = Builder::new();
    for key in ["a", "b", "c", "d"] {
        builder.push(0, Some(key.as_bytes()), Some(large.as_bytes()), &[]);
        let batch = builder.finish(Compression::None);
        bans.rig.append_batch(&bans.partition, batch);
        bans.roll();
    }
    let summary = bans.compact();
    let sizes: Vec<_> = bans
        .partition
        .segments()
        .iter()
        .map(|one| one.bytes >> 10)
        .collect();
    assert_eq!(sizes, [800, 800, 0]);
    assert_eq!(summary.bytes_before, summary.bytes_after);
    assert_eq!(bans.records().len(), 4);
}

#[test]
fn a_tombstone_stays_until_its_horizon_and_the_value_it_hides_never_comes_back() {
    let mut bans = Bans::new(1 << 20);
    bans.append(&[("a", Some("1")), ("b", Some("1"))]);
    bans.append(&[("a", None), ("c", Some("1"))]);
    bans.roll();
    let summary = bans.compact();
    let with_tombstone = [(1, some("1")), (2, None), (3, some("1"))];
    assert_eq!(bans.left(), with_tombstone);
    let horizon_ms = i64::try_from(NOW_MS + DAY_MS).unwrap();
    assert_eq!(summary.tombstones.earliest_horizon_ms, Some(horizon_ms));
    bans.rig.clock.advance_ms(DAY_MS);
    bans.compact();
    assert_eq!(
        bans.left(),
        with_tombstone,
        "at the horizon itself it is still there"
    );
    bans.rig.clock.advance_ms(1);
    let summary = bans.compact();
    assert_eq!(bans.left(), [(1, some("1")), (3, some("1"))]);
    assert_eq!(summary.tombstones, Tombstones::default());
}

#[test]
fn a_horizon_changes_no_timestamp() {
    let mut bans = Bans::new(1 << 20);
    bans.append(&[("a", None), ("b", Some("1"))]);
    bans.roll();
    bans.compact();
    let stored = stored(&bans.partition);
    let (view, _) = View::read(&stored).unwrap();
    let now_ms = i64::try_from(NOW_MS).unwrap();
    let day_ms = i64::try_from(DAY_MS).unwrap();
    assert_eq!(view.delete_horizon(), Some(now_ms + day_ms));
    assert_eq!(view.base_timestamp(), now_ms + day_ms);
    assert_eq!(view.max_timestamp(), now_ms);
    let mut scratch = Vec::new();
    for record in view.records(&mut scratch).unwrap() {
        assert_eq!(record.unwrap().timestamp_ms, now_ms);
    }
}

#[test]
fn while_the_clock_is_not_believed_tombstones_stay_and_get_no_horizon() {
    let mut bans = Bans::new(1 << 20);
    bans.append(&[("a", Some("1")), ("a", None)]);
    bans.roll();
    let job = Job {
        now_ms: None,
        ..bans.rig.job(&bans.partition)
    };
    let (summary, _) = bans.rig.compact(job);
    assert_eq!(bans.left(), [(1, None)]);
    assert_eq!(summary.tombstones.without_horizon, 1);
    bans.compact();
    bans.rig.clock.advance_ms(3 * DAY_MS);
    let job = Job {
        now_ms: None,
        ..bans.rig.job(&bans.partition)
    };
    bans.rig.compact(job);
    assert_eq!(bans.left(), [(1, None)]);
    bans.compact();
    assert_eq!(bans.left(), []);
}

#[test]
fn records_without_a_key_go() {
    let mut bans = Bans::new(1 << 20);
    bans.append(&[("", Some("1")), ("a", Some("2"))]);
    bans.roll();
    bans.compact();
    assert_eq!(bans.left(), [(1, some("2"))]);
}

#[test]
fn when_nothing_is_left_an_empty_batch_keeps_the_place() {
    let mut bans = Bans::new(1 << 20);
    for _ in 0..3 {
        bans.append(&[("", Some("1")), ("", Some("2"))]);
        bans.roll();
    }
    bans.compact();
    assert_eq!(bans.left(), []);
    let stored = stored(&bans.partition);
    let (view, rest) = View::read(&stored).unwrap();
    assert_eq!(
        (view.base_offset(), view.last_offset(), view.count()),
        (4, 5, 0)
    );
    assert_eq!((stored.len(), rest.len()), (HEADER_BYTES, 0));
    let (_, replaced) = bans.rig.compact(bans.rig.job(&bans.partition));
    assert_eq!(replaced, 0);
}

/// A batch that says of itself what a test wants; its checksum is right.
fn patched(records: &[(&str, Option<&str>)], attributes: i16, producer: i64) -> Batch {
    let mut bytes = batch(0, records).bytes().to_vec();
    bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
    bytes[43..51].copy_from_slice(&producer.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Batch::built(bytes).unwrap()
}

#[test]
fn a_producers_last_batch_stays_though_it_be_empty_and_its_earlier_ones_go() {
    let mut bans = Bans::new(1 << 20);
    for (sequence, value) in (0..).zip(["1", "2", "3"]) {
        let batch = numbered(&patched(&[("a", Some(value))], 0, -1), 7, 0, sequence);
        bans.rig.append_batch(&bans.partition, batch);
    }
    bans.append(&[("a", Some("4"))]);
    bans.roll();
    bans.compact();
    let stored = stored(&bans.partition);
    let (first, rest) = View::read(&stored).unwrap();
    let (second, rest) = View::read(rest).unwrap();
    assert_eq!(rest, b"");
    assert_eq!(
        (first.base_offset(), first.count(), first.producer_id()),
        (2, 0, 7)
    );
    assert_eq!((second.base_offset(), second.count()), (3, 1));

    let batch = numbered(&patched(&[("b", Some("1"))], 0, -1), 7, 0, 3);
    bans.rig.append_batch(&bans.partition, batch);
    bans.roll();
    bans.compact();
    assert_eq!(bans.left(), [(3, some("4")), (4, some("1"))]);
    assert_eq!(bans.partition.read(0, 1).unwrap()[7], 3);
}

#[test]
fn what_is_left_of_a_batch_is_packed_as_the_batch_was() {
    for compression in Compression::ALL {
        let mut bans = Bans::new(1 << 20);
        let long = "x".repeat(2000);
        let mut builder = Builder::new();
        for (key, value) in [("a", "old"), ("b", long.as_str()), ("a", "new")] {
            builder.push(0, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
        }
        let batch = builder.finish(compression);
        assert_eq!(Some(compression), Compression::of(batch.codec()));
        bans.rig.append_batch(&bans.partition, batch);
        bans.roll();
        bans.compact();
        assert_eq!(bans.left(), [(1, some(&long)), (2, some("new"))]);
        let stored = stored(&bans.partition);
        let (view, _) = View::read(&stored).unwrap();
        assert_eq!(
            (Some(compression), 2),
            (Compression::of(view.codec()), view.count())
        );
    }
}

#[test]
fn marks_of_transactions_stay() {
    let mut bans = Bans::new(1 << 20);
    let mark = patched(&[("a", Some("mark"))], 1 << 5 | 1 << 4, 3);
    bans.rig.append_batch(&bans.partition, mark);
    bans.append(&[("a", Some("2"))]);
    bans.roll();
    bans.compact();
    assert_eq!(bans.left(), [(0, some("mark")), (1, some("2"))]);
}

#[test]
fn what_cannot_be_read_stays_and_so_do_the_tombstones_that_may_hide_it() {
    let mut bans = Bans::new(1 << 20);
    let unknown = patched(&[("a", Some("1"))], 5, -1);
    bans.append(&[("b", Some("1")), ("b", None)]);
    bans.rig.append_batch(&bans.partition, unknown.clone());
    bans.append(&[("a", None), ("c", Some("1"))]);
    bans.roll();
    bans.compact();
    bans.rig.clock.advance_ms(3 * DAY_MS);
    let summary = bans.compact();
    assert_eq!(
        summary.tombstones,
        Tombstones::default(),
        "no pass is due for it"
    );
    let stored = stored(&bans.partition);
    let (first, rest) = View::read(&stored).unwrap();
    let (second, rest) = View::read(rest).unwrap();
    // The tombstone of `b` comes before anything that cannot be read, so it hides nothing.
    assert_eq!(first.bytes()[12..], {
        let mut placed = unknown;
        placed.place(2, first.leader_epoch());
        placed.bytes()[12..].to_vec()
    });
    assert_eq!(
        (second.base_offset(), second.count(), rest.len()),
        (3, 2, 0)
    );
}

#[test]
fn damage_stops_the_pass_and_nothing_is_changed() {
    let mut bans = Bans::new(1 << 20);
    for _ in 0..3 {
        bans.append(&[("a", Some("1")), ("a", Some("2"))]);
        bans.roll();
    }
    let path = bans.rig.job(&bans.partition).path(4);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let names = || {
        let mut names = bans.rig.disk.names(&bans.partition.dir).unwrap();
        names.sort();
        names
    };
    let (before, stored_before) = (names(), stored(&bans.partition));
    let mut compaction = Compaction::new(Arc::clone(&bans.rig.disk), bans.rig.job(&bans.partition));
    let halt = loop {
        match compaction.step() {
            Ok(Step::More) => {}
            Ok(other) => panic!("{other:?}"),
            Err(halt) => break halt,
        }
    };
    match halt {
        Halt::Damaged {
            path: told,
            position,
            damage,
        } => assert_eq!((told, position, damage), (path, 0, Damage::Crc)),
        Halt::Io(..) => panic!("{halt}"),
    }
    assert_eq!((names(), stored(&bans.partition)), (before, stored_before));
}

#[test]
fn a_disk_that_is_full_stops_the_pass_and_leaves_no_file_behind() {
    use crate::base::disk::sim::{Fault, Plan, Sim};
    let dir = std::path::Path::new("/log");
    let sim = Sim::new(1, dir);
    let topics = vec![topic(BANS, 1, compacted())];
    let mut rig = Rig::open(Arc::new(sim.clone()), dir, Clock::manual(NOW_MS), topics);
    let partition = rig.partition(BANS, 0);
    for _ in 0..3 {
        rig.append(&partition, &[("a", Some("1")), ("a", Some("2"))]);
        rig.roll(&partition);
    }
    let before = sim.paths();
    let from = sim.operations();
    for fails in 0..200 {
        sim.plan(Some(Plan {
            from: from.max(sim.operations()) + fails,
            count: u64::MAX,
            fault: Fault::Enospc,
        }));
        let mut compaction = Compaction::new(Arc::clone(&rig.disk), rig.job(&partition));
        let halted = loop {
            match compaction.step() {
                Ok(Step::More) => {}
                Ok(Step::Replace(_, cleaned)) => {
                    rig.disk.remove(&cleaned.path).unwrap();
                    compaction.abandon();
                    break false;
                }
                Ok(Step::Done(_)) => break false,
                Err(Halt::Io(..)) => break true,
                Err(halt @ Halt::Damaged { .. }) => panic!("{halt}"),
            }
        };
        sim.plan(None);
        assert_eq!(sim.paths(), before, "after {fails} operations");
        if !halted {
            assert!(fails > 0);
            return;
        }
    }
    panic!("a pass never got as far as to replace a segment");
}

#[test]
fn more_keys_than_fit_are_compacted_pass_by_pass() {
    let mut bans = Bans::new(1 << 20);
    for round in 0..4 {
        for key in 0..30 {
            let (key, value) = (format!("k{key}"), format!("v{round}"));
            bans.append(&[(&key, Some(&value))]);
        }
        bans.roll();
    }
    let mut first_dirty = 0;
    let mut passes = 0;
    loop {
        let job = Job {
            keys_max: 10,
            first_dirty,
            ..bans.rig.job(&bans.partition)
        };
        let (summary, _) = bans.rig.compact(job);
        assert!(summary.first_dirty > first_dirty && summary.keys <= 10);
        first_dirty = summary.first_dirty;
        passes += 1;
        if summary.is_complete {
            break;
        }
    }
    assert_eq!(passes, 12);
    let left = bans.left();
    assert_eq!(left.len(), 30);
    assert!(
        left.iter()
            .all(|(offset, value)| *offset >= 90 && *value == some("v3"))
    );
}

#[derive(Debug, Clone)]
enum Act {
    Append(Vec<(u8, Option<u16>)>),
    Roll,
    /// A pass, and whether the clock is believed.
    Compact(bool),
    /// So many hours pass.
    Wait(u64),
}

fn some_act() -> impl Strategy<Value = Act> {
    let record = (0_u8..12, prop::option::weighted(0.8, any::<u16>()));
    prop_oneof![
        6 => prop::collection::vec(record, 1..6).prop_map(Act::Append),
        3 => Just(Act::Roll),
        2 => prop::bool::weighted(0.8).prop_map(Act::Compact),
        1 => (1_u64..40).prop_map(Act::Wait),
    ]
}

/// What a consumer that reads everything in order ends up with.
fn replayed(records: &[Read]) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for record in records {
        let key = record.key.clone().unwrap();
        match &record.value {
            Some(value) => map.insert(key, value.clone()),
            None => map.remove(&key),
        };
    }
    map
}

fn check_against_model(acts: Vec<Act>, segment_bytes: u64) {
    let mut bans = Bans::new(segment_bytes);
    let mut written: Vec<Read> = Vec::new();
    // The horizon that a pass gave a tombstone, and none when it is gone.
    let mut horizons = HashMap::new();
    let mut first_dirty = 0;
    for act in acts {
        match act {
            Act::Append(batch) => {
                let texts: Vec<_> = batch
                    .iter()
                    .map(|(key, value)| (format!("k{key}"), value.map(|value| value.to_string())))
                    .collect();
                let borrowed: Vec<_> = texts
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_deref()))
                    .collect();
                bans.append(&borrowed);
                for (key, value) in texts {
                    let offset = i64::try_from(written.len()).unwrap();
                    let key = Some(key);
                    written.push(Read { offset, key, value });
                }
            }
            Act::Roll => bans.roll(),
            Act::Wait(hours) => bans.rig.clock.advance_ms(hours * HOUR_MS),
            Act::Compact(is_believed) => {
                let mut job = bans.rig.job(&bans.partition);
                job.first_dirty = first_dirty;
                job.now_ms = job.now_ms.filter(|_| is_believed);
                let end = job.segments.last().map_or(0, |last| last.end_offset);
                let (now_ms, is_any) = (job.now_ms, !job.segments.is_empty());
                let (summary, _) = bans.rig.compact(job.clone());
                first_dirty = summary.first_dirty;
                check_pass(&bans.records(), &written, end, now_ms, &mut horizons);
                if is_any {
                    let before = stored(&bans.partition);
                    let again = Job {
                        first_dirty,
                        now_ms,
                        ..bans.rig.job(&bans.partition)
                    };
                    let (summary, replaced) = bans.rig.compact(again);
                    assert_eq!((replaced, summary.records_dropped), (0, 0));
                    assert_eq!(stored(&bans.partition), before);
                }
            }
        }
        let read = bans.records();
        assert!(read.windows(2).all(|pair| pair[0].offset < pair[1].offset));
        assert_eq!(replayed(&read), replayed(&written));
    }
}

/// Below `end` exactly the last record of each key is left, and of tombstones those whose time has not come.
fn check_pass(
    read: &[Read],
    written: &[Read],
    end: i64,
    now_ms: Option<u64>,
    horizons: &mut HashMap<i64, Option<u64>>,
) {
    let closed: Vec<_> = written.iter().filter(|one| one.offset < end).collect();
    let lasts: HashMap<_, _> = closed.iter().map(|one| (&one.key, one.offset)).collect();
    let expected: Vec<_> = written
        .iter()
        .filter(|one| {
            if one.offset >= end {
                return true;
            }
            let is_last = lasts[&one.key] == one.offset;
            let is_over = match (horizons.get(&one.offset), now_ms) {
                (Some(Some(horizon_ms)), Some(now_ms)) => now_ms > *horizon_ms,
                (Some(None), _) => true,
                (Some(Some(_)) | None, _) => false,
            };
            is_last && !(one.value.is_none() && is_over)
        })
        .cloned()
        .collect();
    for one in written
        .iter()
        .filter(|one| one.offset < end && one.value.is_none())
    {
        let stays = expected.iter().any(|left| left.offset == one.offset);
        if !stays {
            horizons.insert(one.offset, None);
        } else if let Some(now_ms) = now_ms {
            let first = Some(now_ms + DAY_MS);
            horizons.entry(one.offset).or_insert(first);
        }
    }
    assert_eq!(read, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_is_written_and_closed_a_pass_leaves_what_the_model_leaves(
        acts in prop::collection::vec(some_act(), 1..60),
        segment_bytes in prop_oneof![Just(200_u64), Just(600), Just(1 << 20)],
    ) {
        check_against_model(acts, segment_bytes);
    }
}

/// A million records of ten thousand keys, or a hundredth of them where nobody asked for all with
/// `WARDENT_COMPACTION_FULL=1`.
#[test]
fn of_many_records_the_last_of_each_key_is_left_and_offsets_stay() {
    let is_full = std::env::var_os("WARDENT_COMPACTION_FULL").is_some();
    let (keys, all) = if is_full {
        (10_000, 1_000_000)
    } else {
        (100, 10_000)
    };
    measured(keys, all, "E-15");
}

/// A million keys fit into one pass: run in full by `WARDENT_COMPACTION_FULL=1`.
#[test]
fn a_topic_of_many_keys_is_compacted_in_one_pass() {
    let is_full = std::env::var_os("WARDENT_COMPACTION_FULL").is_some();
    let keys = if is_full { 1_000_000 } else { 5_000 };
    measured(keys, keys * 2, "bans");
}

#[expect(clippy::print_stdout, reason = "a test tells how long it took")]
fn measured(keys: u64, all: u64, name: &str) {
    let mut bans = Bans::new(64 << 20);
    let mut builder = Builder::new();
    let now_ms = i64::try_from(NOW_MS).unwrap();
    let mut lasts = HashMap::new();
    for index in 0..all {
        let key = format!("ip:198.51.{}", index.wrapping_mul(7_919) % keys);
        let value = format!(
            r#"{{"v":1,"target":"{key}","until":{},"level":{},"rule":"login","reason":"rate_limited"}}"#,
            NOW_MS + index,
            index % 7,
        );
        let is_tombstone = index % 97 == 0;
        let value = (!is_tombstone).then_some(value);
        builder.push(
            now_ms,
            Some(key.as_bytes()),
            value.as_deref().map(str::as_bytes),
            &[],
        );
        lasts.insert(key, (i64::try_from(index).unwrap(), is_tombstone));
        if builder.count() == 500 || index + 1 == all {
            let batch = builder.finish(Compression::Lz4);
            bans.rig.append_batch(&bans.partition, batch);
        }
        if index % (all / 5) == 0 {
            bans.roll();
        }
    }
    bans.roll();
    bans.append(&[("active", Some("1"))]);
    let active = bans.partition.segments().last().copied();

    let clock = Clock::system();
    let (summary, replaced) = bans.rig.compact(bans.rig.job(&bans.partition));
    let took_ms = clock.monotonic_ns() / 1_000_000;
    println!("{name}: {all} records, {keys} keys: {took_ms} ms, {replaced} replaced, {summary:?}");

    assert!(summary.is_complete);
    assert_eq!(summary.keys, keys);
    assert_eq!(summary.records_dropped, all - keys);
    let read = bans.records();
    assert!(read.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    assert_eq!(read.len() as u64, keys + 1);
    for one in read.iter().take(usize::try_from(keys).unwrap()) {
        let key = one.key.as_ref().unwrap();
        assert_eq!(lasts[key], (one.offset, one.value.is_none()), "{key}");
    }
    assert_eq!(bans.partition.segments().last().copied(), active);
}
