//! What goes and what stays, of a whole log, whatever clock and disk do.

mod crashes;

use std::{path::Path, sync::Arc, time::Duration};

use super::{rig::*, *};
use crate::{
    base::disk::{System, sim::Sim},
    log::{Builder, Compression, Partition, TopicConfig, checkpoint, run},
};

const MIB: usize = 1 << 20;
const WEEK: Duration = Duration::from_hours(7 * 24);
const UNBOUNDED: u64 = u64::MAX;

/// A log of access, bans and audit on the machine's disk.
struct House {
    rig: Rig,
    dir: tempfile::TempDir,
    topics: Vec<crate::log::TopicSettings>,
}

fn audit() -> TopicConfig {
    TopicConfig {
        retention: Some(Duration::from_hours(365 * 24)),
        ..access(None)
    }
}

impl House {
    fn new() -> Self {
        let unexpendable = TopicConfig {
            is_expendable: false,
            ..audit()
        };
        Self::of(vec![
            topic(ACCESS, 2, access(Some(WEEK))),
            topic(BANS, 1, compacted()),
            topic(AUDIT, 1, unexpendable.clone()),
            topic(FOREIGN, 1, unexpendable),
        ])
    }

    fn of(topics: Vec<crate::log::TopicSettings>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW_MS);
        let rig = Rig::open(Arc::new(System), dir.path(), clock, topics.clone());
        Self { rig, dir, topics }
    }

    /// Ends it as a crash of the process does, and opens it again under a clock of the same time.
    fn reopened(self) -> Self {
        let Self { rig, dir, topics } = self;
        let clock = Clock::manual(rig.clock.unix_ms());
        drop(rig);
        let rig = Rig::open(Arc::new(System), dir.path(), clock, topics.clone());
        Self { rig, dir, topics }
    }

    fn partition(&self, topic: &str) -> Arc<Partition> {
        self.rig.partition(topic, 0)
    }

    /// Appends so many bytes and closes the segment.
    fn segment(&mut self, partition: &Arc<Partition>, bytes: usize) {
        self.large(partition, bytes);
        self.rig.roll(partition);
    }

    fn large(&mut self, partition: &Arc<Partition>, bytes: usize) {
        let mut builder = Builder::new();
        let now_ms = i64::try_from(self.rig.clock.unix_ms()).unwrap();
        builder.push(now_ms, Some(b"key"), Some(&vec![b'x'; bytes]), &[]);
        let batch = builder.finish(Compression::None);
        self.rig.append_batch(partition, batch);
    }

    fn days_pass(&self, days: u64) {
        self.rig.clock.advance_ms(days * DAY_MS);
    }
}

/// Base offsets of all segments, the active one's last.
fn bases(partition: &Partition) -> Vec<i64> {
    let segments = partition.segments();
    segments.iter().map(|one| one.base_offset).collect()
}

#[test]
fn what_is_older_than_its_topic_allows_is_deleted_and_counted() {
    let mut house = House::new();
    let access = house.partition(ACCESS);
    let audit = house.partition(AUDIT);
    for _ in 0..5 {
        house.segment(&access, 1_000);
        house.segment(&audit, 1_000);
        house.days_pass(3);
    }
    house.large(&access, 1_000);
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    house.rig.clean(&mut cleaner);
    assert_eq!(bases(&access), [3, 4, 5]);
    assert_eq!(access.log_start_offset(), 3);
    assert_eq!(bases(&audit), [0, 1, 2, 3, 4, 5]);
    let health = cleaner.health();
    assert_eq!(health.too_old.segments.get(), 3);
    assert!(health.too_old.bytes.get() > 3_000);
    assert!(!health.is_suspended.get());
    // Offsets go on where they were.
    house.large(&access, 1_000);
    assert_eq!(access.high_watermark(), 7);
}

#[test]
fn a_file_that_somebody_removed_is_missed() {
    let mut house = House::new();
    let access = house.partition(ACCESS);
    house.segment(&access, 1_000);
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    house.rig.clean(&mut cleaner);
    assert!(!cleaner.health().is_removed.get());
    let active = access.active().unwrap();
    house.rig.disk.remove(&active.path("log")).unwrap();
    house.rig.clock.advance_ms(10_000);
    house.rig.clean(&mut cleaner);
    assert!(cleaner.health().is_removed.get());
}

#[test]
fn a_partition_is_kept_within_its_size() {
    let mut config = access(None);
    config.retention_bytes = Some(3 * MIB as u64);
    let mut house = House::of(vec![topic(ACCESS, 1, config)]);
    let access = house.partition(ACCESS);
    for _ in 0..6 {
        house.segment(&access, MIB - 4_096 * 4);
    }
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    house.rig.clean(&mut cleaner);
    assert_eq!(bases(&access), [3, 4, 5, 6]);
    assert_eq!(cleaner.health().too_large.segments.get(), 3);
}

#[test]
fn above_the_cap_the_oldest_access_segments_go_and_bans_and_audit_never_do() {
    let mut house = House::new();
    let (bans, audit) = (house.partition(BANS), house.partition(AUDIT));
    let (one, two) = (house.partition(ACCESS), house.rig.partition(ACCESS, 1));
    house.segment(&audit, 2 * MIB);
    house.segment(&bans, 2 * MIB);
    for _ in 0..3 {
        house.segment(&one, MIB);
        house.rig.clock.advance_ms(HOUR_MS);
        house.segment(&two, MIB);
        house.rig.clock.advance_ms(HOUR_MS);
    }
    let mut cleaner = house.rig.cleaner(8 * MIB as u64);
    house.rig.clean(&mut cleaner);
    assert_eq!((bases(&one), bases(&two)), (vec![2, 3], vec![1, 2, 3]));
    assert_eq!((bases(&audit).len(), bases(&bans).len()), (2, 2));
    let health = cleaner.health();
    assert_eq!(health.over_cap.segments.get(), 3);
    assert_eq!(health.bytes_over.get(), 0);
}

#[test]
fn when_only_active_segments_are_left_they_are_closed_and_go() {
    let mut house = House::new();
    let (access, audit) = (house.partition(ACCESS), house.partition(AUDIT));
    house.segment(&audit, 4 * MIB);
    house.large(&access, 2 * MIB);
    let mut cleaner = house.rig.cleaner(5 * MIB as u64);
    house.rig.clean(&mut cleaner);
    assert_eq!(bases(&access), [0, 1]);
    assert_eq!(cleaner.health().rolls.get(), 1);
    house.rig.clean(&mut cleaner);
    assert_eq!(bases(&access), [1]);
    assert_eq!((access.log_start_offset(), access.high_watermark()), (1, 1));
    assert_eq!(bases(&audit), [0, 1]);
}

#[test]
fn a_cap_that_cannot_be_kept_is_told_and_costs_no_ban() {
    let mut house = House::new();
    let (bans, foreign) = (house.partition(BANS), house.partition(FOREIGN));
    house.segment(&bans, 3 * MIB);
    house.segment(&foreign, MIB);
    let mut cleaner = house.rig.cleaner(MIB as u64);
    house.rig.clean(&mut cleaner);
    assert_eq!(bases(&foreign), [1]);
    assert_eq!(bases(&bans), [0, 1]);
    assert!(cleaner.health().bytes_over.get() > MIB as u64);
}

#[test]
fn a_log_that_clients_filled_for_good_takes_nothing_more_of_theirs() {
    let theirs = TopicConfig {
        is_reserved: false,
        ..compacted()
    };
    let topics = vec![
        topic(ACCESS, 1, access(None)),
        topic(BANS, 1, compacted()),
        topic(FOREIGN, 1, theirs),
    ];
    let mut house = House::of(topics);
    let (bans, foreign) = (house.partition(BANS), house.partition(FOREIGN));
    let access = house.partition(ACCESS);
    house.segment(&foreign, 2 * MIB);
    let mut cleaner = house.rig.cleaner(MIB as u64);
    house.rig.clean(&mut cleaner);
    house.rig.append_in_vain(&foreign);
    house.rig.append(&bans, &[("a", Some("1"))]);
    house.rig.append(&access, &[("a", Some("1"))]);
    // With more room they go on.
    let mut cleaner = house.rig.cleaner(16 * MIB as u64);
    house.rig.clean(&mut cleaner);
    house.rig.append(&foreign, &[("a", Some("1"))]);
}

#[test]
fn above_the_cap_it_does_not_wait_for_the_next_look() {
    let mut house = House::new();
    let access = house.partition(ACCESS);
    let mut cleaner = house.rig.cleaner(3 * MIB as u64);
    house.rig.clean(&mut cleaner);
    for _ in 0..4 {
        house.segment(&access, MIB);
    }
    house.rig.clock.advance_ms(1_000);
    cleaner.turn();
    house.rig.settle();
    assert_eq!(bases(&access), [2, 3, 4]);
}

#[test]
fn a_reader_that_holds_a_segment_goes_on_reading_when_it_is_deleted() {
    let mut house = House::new();
    let access = house.partition(ACCESS);
    house.segment(&access, 5_000);
    let held = access.all_segments();
    house.days_pass(8);
    house.large(&access, 1_000);
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    house.rig.clean(&mut cleaner);
    assert_eq!(bases(&access), [1]);
    assert!(access.read(0, 1).is_err());
    let bytes = held[0].read(0, 1, MIB).unwrap();
    assert!(bytes.len() > 5_000);
}

/// Three segments of access that are young, one batch in the active one, and a tombstone.
fn young() -> House {
    let mut house = House::new();
    let (access, bans) = (house.partition(ACCESS), house.partition(BANS));
    for _ in 0..3 {
        house.segment(&access, 1_000);
        house.rig.clock.advance_ms(HOUR_MS);
    }
    house.large(&access, 1_000);
    house
        .rig
        .append(&bans, &[("a", Some("1")), ("b", Some("1")), ("a", None)]);
    house.rig.roll(&bans);
    house
}

/// Where the clock jumps: a day either way, 1970, the end of 32 bits, the end of the year 9999, of all.
fn jumps(now_ms: u64) -> [u64; 6] {
    [
        now_ms + DAY_MS,
        now_ms - DAY_MS,
        0,
        4_294_967_296_000,
        253_402_300_799_999,
        u64::MAX,
    ]
}

#[test]
fn a_clock_that_jumps_while_the_log_is_open_deletes_nothing() {
    for at in 0..6 {
        let mut house = young();
        let (access, bans) = (house.partition(ACCESS), house.partition(BANS));
        let mut cleaner = house.rig.cleaner(UNBOUNDED);
        house.rig.clean(&mut cleaner);
        let there = records(&bans);
        assert_eq!(there.len(), 2, "a pass of compaction went before");
        let to_ms = jumps(house.rig.clock.unix_ms())[at];
        house.rig.clock.set_unix_ms(to_ms);
        for _ in 0..20 {
            house.rig.clean(&mut cleaner);
            house.rig.clock.advance_ms(HOUR_MS);
        }
        assert_eq!(bases(&access), [0, 1, 2, 3], "{to_ms}");
        assert_eq!(records(&bans), there, "{to_ms}");
        assert!(cleaner.health().is_suspended.get());
        // A second that comes twice, and the way back.
        house.rig.clock.set_unix_ms(NOW_MS + 23 * HOUR_MS);
        house.rig.clean(&mut cleaner);
        house.rig.clock.set_unix_ms(NOW_MS + 23 * HOUR_MS);
        house.rig.clean(&mut cleaner);
        house.rig.clock.advance_ms(DAY_MS);
        house.rig.clean(&mut cleaner);
        assert!(!cleaner.health().is_suspended.get());
        assert_eq!(bases(&access), [0, 1, 2, 3], "{to_ms}");
        // The clock is right again, and so is what goes.
        house.days_pass(8);
        house.rig.clean(&mut cleaner);
        assert_eq!(bases(&access)[0], 3, "{to_ms}");
    }
}

#[test]
fn a_clock_that_jumps_while_the_log_is_closed_deletes_nothing() {
    for at in 0..6 {
        let house = young();
        let to_ms = jumps(house.rig.clock.unix_ms() + 6 * DAY_MS)[at];
        house.rig.clock.set_unix_ms(to_ms);
        let mut house = house.reopened();
        let mut cleaner = house.rig.cleaner(UNBOUNDED);
        house.rig.clean(&mut cleaner);
        assert!(cleaner.health().is_suspended.get(), "{to_ms}");
        cleaner.finish();
        drop(cleaner);
        let mut house = house.reopened();
        let mut cleaner = house.rig.cleaner(UNBOUNDED);
        house.rig.clean(&mut cleaner);
        assert!(
            cleaner.health().is_suspended.get(),
            "{to_ms}, at the second start"
        );
        assert_eq!(bases(&house.partition(ACCESS)), [0, 1, 2, 3], "{to_ms}");
    }
}

#[test]
fn a_clock_that_is_wrong_for_good_still_leaves_every_partition_its_newest_segment() {
    let house = young();
    house.rig.clock.set_unix_ms(4_294_967_296_000);
    let mut house = house.reopened();
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    house.rig.clean(&mut cleaner);
    house.days_pass(2);
    house.rig.clean(&mut cleaner);
    assert!(!cleaner.health().is_suspended.get());
    assert!(!records(&house.partition(ACCESS)).is_empty());
}

#[test]
fn records_of_the_future_do_not_stay_for_ever() {
    let mut house = House::new();
    let access = house.partition(ACCESS);
    let far_ms = i64::try_from(NOW_MS + 9_000 * DAY_MS).unwrap();
    house.rig.append(&access, &[("a", Some("1"))]);
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    for _ in 0..3 {
        house
            .rig
            .append_batch(&access, batch(far_ms, &[("a", Some("1"))]));
        house.rig.roll(&access);
    }
    house.rig.clean(&mut cleaner);
    house.days_pass(6);
    house.rig.clean(&mut cleaner);
    assert_eq!(bases(&access), [0, 2, 3, 4]);
    house.days_pass(2);
    house.rig.append(&access, &[("a", Some("1"))]);
    house.rig.clean(&mut cleaner);
    assert_eq!(
        bases(&access),
        [0, 2, 3, 4],
        "they go with what came after them"
    );
    house.rig.roll(&access);
    house.days_pass(8);
    house.rig.append(&access, &[("a", Some("1"))]);
    house.rig.clean(&mut cleaner);
    assert_eq!(bases(&access), [5]);
}

#[test]
fn an_active_segment_that_reached_its_age_is_closed_though_nothing_comes() {
    let mut config = access(Some(WEEK));
    config.segment_age = Duration::from_hours(1);
    let mut house = House::of(vec![topic(ACCESS, 1, config)]);
    let access = house.partition(ACCESS);
    house.large(&access, 1_000);
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    house.rig.clean(&mut cleaner);
    assert_eq!(bases(&access), [0]);
    house.rig.clock.advance_ms(HOUR_MS);
    house.rig.clean(&mut cleaner);
    assert_eq!(bases(&access), [0, 1]);
    house.rig.clock.advance_ms(HOUR_MS);
    house.rig.clean(&mut cleaner);
    assert_eq!(bases(&access), [0, 1], "an empty one stays");
}

#[test]
fn records_of_long_ago_close_no_segment_that_was_just_begun() {
    let mut config = access(None);
    config.segment_age = Duration::from_hours(1);
    let mut house = House::of(vec![topic(FOREIGN, 1, config)]);
    let foreign = house.partition(FOREIGN);
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    let long_ago = i64::try_from(NOW_MS - 400 * DAY_MS).unwrap();
    for _ in 0..3 {
        let imported = batch(long_ago, &[("a", Some("1"))]);
        house.rig.append_batch(&foreign, imported);
        house.rig.clean(&mut cleaner);
    }
    assert_eq!(bases(&foreign), [0]);
    house.rig.clock.advance_ms(HOUR_MS);
    house.rig.clean(&mut cleaner);
    assert_eq!(bases(&foreign), [0, 3]);
}

#[test]
fn a_compacted_topic_is_compacted_when_half_of_it_is_new_and_a_tombstone_goes_in_time() {
    let mut house = House::new();
    let bans = house.partition(BANS);
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    house.rig.clean(&mut cleaner);
    assert_eq!(cleaner.health().passes.get(), 0);
    let all: Vec<_> = (0..10).map(|key| format!("k{key}")).collect();
    let all: Vec<_> = all.iter().map(|key| (key.as_str(), Some("1"))).collect();
    house.rig.append(&bans, &all);
    house.rig.roll(&bans);
    house.rig.clean(&mut cleaner);
    assert_eq!(cleaner.health().passes.get(), 1);

    house.rig.append(&bans, &[("k1", None)]);
    house.rig.roll(&bans);
    house.rig.clean(&mut cleaner);
    assert_eq!(cleaner.health().passes.get(), 1, "a tenth is new");
    house.rig.append(&bans, &all[2..]);
    house.rig.roll(&bans);
    house.rig.clean(&mut cleaner);
    assert_eq!(cleaner.health().passes.get(), 2, "half is new");
    let tombstones = |partition: &Partition| {
        let records = records(partition);
        records.iter().filter(|one| one.value.is_none()).count()
    };
    assert_eq!((records(&bans).len(), tombstones(&bans)), (10, 1));
    house.rig.clean(&mut cleaner);
    house.rig.clock.advance_ms(23 * HOUR_MS);
    house.rig.clean(&mut cleaner);
    assert_eq!((cleaner.health().passes.get(), tombstones(&bans)), (2, 1));
    house.rig.clock.advance_ms(HOUR_MS);
    house.rig.clean(&mut cleaner);
    assert_eq!((cleaner.health().passes.get(), tombstones(&bans)), (3, 0));
    assert_eq!(cleaner.health().records_dropped.get(), 10);
    assert!(cleaner.health().compacted_bytes.get() > 0);
}

#[test]
fn a_little_that_is_new_is_compacted_after_a_day() {
    let mut house = House::new();
    let bans = house.partition(BANS);
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    house.segment(&bans, 10_000);
    house.rig.clean(&mut cleaner);
    house.rig.append(&bans, &[("a", Some("1"))]);
    house.rig.roll(&bans);
    house.rig.clean(&mut cleaner);
    assert_eq!(cleaner.health().passes.get(), 1);
    house.days_pass(1);
    house.rig.clean(&mut cleaner);
    assert_eq!(cleaner.health().passes.get(), 2);
}

#[test]
fn the_next_run_goes_on_where_compaction_was() {
    let mut house = House::new();
    let bans = house.partition(BANS);
    house
        .rig
        .append(&bans, &[("a", Some("1")), ("a", Some("2"))]);
    house.rig.roll(&bans);
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    house.rig.clean(&mut cleaner);
    let path = house.dir.path().join(checkpoint::CLEANED);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, "0\n1\nwardent.client.ban 0 2\n");
    drop(cleaner);
    drop(bans);

    let mut house = house.reopened();
    let bans = house.partition(BANS);
    let before = stored(&bans);
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    house.rig.clean(&mut cleaner);
    assert_eq!(cleaner.health().last_keys.get(), 0, "nothing is new");
    assert_eq!(stored(&bans), before);
}

#[test]
fn damage_in_one_topic_halts_its_compaction_and_no_other() {
    let topics = [BANS, "other"].map(|name| topic(name, 1, compacted()));
    let mut house = House::of(topics.to_vec());
    for name in [BANS, "other"] {
        let partition = house.partition(name);
        house
            .rig
            .append(&partition, &[("a", Some("1")), ("a", Some("2"))]);
        if name == BANS {
            house.rig.append(&partition, &[("b", Some("1"))]);
        }
        house.rig.roll(&partition);
    }
    let bans = house.partition(BANS);
    let path = bans.dir.join("00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let mut cleaner = house.rig.cleaner(UNBOUNDED);
    house.rig.clean(&mut cleaner);
    let health = cleaner.health();
    assert_eq!((health.passes.get(), health.pass_errors.get()), (1, 1));
    assert_eq!(health.halted.get(), 1);
    assert_eq!(records(&house.partition("other")).len(), 1);
    assert_eq!(bases(&bans), [0, 3], "it is mended, not compacted");
    assert_eq!(house.rig.log.health().mended.get(), 1);

    house.rig.clock.advance_ms(HOUR_MS);
    house.rig.clean(&mut cleaner);
    assert_eq!(cleaner.health().halted.get(), 0);
    assert_eq!(records(&bans).len(), 1, "the undamaged batch's");
}

#[test]
fn on_its_thread_it_compacts_by_itself_and_ends_when_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let topics = vec![topic(BANS, 1, compacted())];
    let mut rig = Rig::open(Arc::new(System), dir.path(), Clock::system(), topics);
    let bans = rig.partition(BANS, 0);
    rig.append(&bans, &[("a", Some("1")), ("a", Some("2"))]);
    rig.roll(&bans);
    let cleaner = rig.cleaner(UNBOUNDED);
    let Rig {
        appender,
        flusher,
        changer,
        ..
    } = rig;
    let running = run::start(appender, flusher, changer).unwrap();
    let thread = cleaner.start().unwrap();
    let clock = Clock::system();
    while thread.health().passes.get() == 0 {
        assert!(clock.monotonic_ns() < 30_000_000_000, "no pass in 30 s");
        thread::yield_now();
    }
    assert_eq!(records(&bans).len(), 1);
    drop(thread);
    let ended = running.stop(Duration::from_secs(30));
    assert_eq!(ended, run::Ended::Clean);
}

#[test]
fn on_a_disk_that_is_full_old_access_segments_make_room_and_bans_stay() {
    let dir = Path::new("/log");
    let sim = Sim::new(7, dir);
    let foreign = TopicConfig {
        is_expendable: false,
        ..access(None)
    };
    let topics = vec![
        topic(ACCESS, 1, access(None)),
        topic(BANS, 1, compacted()),
        topic(FOREIGN, 1, foreign),
    ];
    let clock = Clock::manual(NOW_MS);
    let mut rig = Rig::open(Arc::new(sim.clone()), dir, clock, topics);
    let foreign = rig.partition(FOREIGN, 0);
    rig.append(&foreign, &[("a", Some("1"))]);
    rig.roll(&foreign);
    let (access, bans) = (rig.partition(ACCESS, 0), rig.partition(BANS, 0));
    let large = "x".repeat(500);
    rig.append(&bans, &[("a", Some(&large))]);
    rig.roll(&bans);
    for _ in 0..4 {
        rig.append(&access, &[("a", Some(&large))]);
        rig.roll(&access);
    }
    let mut cleaner = rig.cleaner(64 << 20);
    rig.clean(&mut cleaner);
    assert_eq!(bases(&access), [0, 1, 2, 3, 4]);

    // Others fill the disk, and a write finds that out.
    let paths = sim.paths();
    let taken = paths
        .iter()
        .map(|path| sim.bytes(path).unwrap().len() as u64);
    sim.set_capacity(taken.sum());
    rig.append_in_vain(&access);
    rig.clock.advance_ms(1_000);
    cleaner.turn();
    rig.settle();
    assert_eq!(bases(&access), [1, 2, 3, 4], "one goes at once");
    for _ in 0..5 {
        rig.clock.advance_ms(1_000);
        cleaner.turn();
        rig.settle();
    }
    assert_eq!(bases(&access).len(), 4, "and no more before the next look");
    rig.append(&access, &[("a", Some("1"))]);
    for _ in 0..3 {
        rig.clean(&mut cleaner);
    }
    assert_eq!(bases(&access).len(), 4, "writes succeed again");

    // A disk that others emptied costs nothing more, though no write has found that out.
    rig.log.health().is_full.set(true);
    sim.set_capacity(1 << 40);
    for _ in 0..3 {
        rig.clean(&mut cleaner);
    }
    assert_eq!(bases(&access).len(), 4);

    // Full for good: access goes segment by segment, but for the active one, and nothing else.
    sim.set_capacity(0);
    rig.append_in_vain(&access);
    for _ in 0..6 {
        rig.clean(&mut cleaner);
    }
    let left = [&access, &foreign, &bans].map(|partition| bases(partition).len());
    assert_eq!(left, [1, 2, 2]);
    assert_eq!(cleaner.health().bytes_over.get(), 0);
}
