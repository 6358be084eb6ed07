//! Topics that come, grow, change and go while the log runs.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        checkpoint::{CLEANED, read_offsets, write_offsets},
        *,
    },
    rig::*,
};
use crate::base::disk::{
    Disk as _,
    sim::{Fault, Plan, Sim},
};

const NEW: &str = "shop.orders";

fn lazily() -> Flush {
    Flush::Lazily {
        age: Duration::from_secs(5),
        bytes: 8 * 1024 * 1024,
    }
}

fn create(partitions: u32) -> Change {
    Change::Create(TopicSettings {
        partitions,
        ..topic(NEW, Flush::EachAppend)
    })
}

fn delete() -> Change {
    let name = NEW.to_owned();
    Change::Delete { name }
}

fn grow(partitions: u32) -> Change {
    let name = NEW.to_owned();
    Change::Grow { name, partitions }
}

fn configure(rig: &Rig, name: &str, flush: Flush) -> Change {
    let config = TopicConfig {
        flush,
        ..(*rig.partition(name).topic().config()).clone()
    };
    let name = name.to_owned();
    Change::Configure { name, config }
}

fn sim() -> Sim {
    Sim::new(1, Path::new("/"))
}

/// The directories of the log, but for what is always there.
fn dirs(sim: &Sim) -> BTreeSet<String> {
    let names = sim.names(Path::new(DIR)).unwrap().into_iter();
    names
        .filter(|name| name.starts_with("shop") || name.contains("delete"))
        .collect()
}

#[test]
fn a_new_topic_takes_appends_and_outlives_a_power_cut() {
    let sim = sim();
    let mut rig = Rig::on(&sim);
    let before = rig.log.topics();
    let made = rig.change(create(3)).unwrap();
    assert_eq!((made.name.as_str(), made.partitions()), (NEW, 3));
    assert!(before.get(NEW).is_none(), "a snapshot does not change");
    let topics = rig.log.topics();
    assert_eq!(topics.partitions_of(NEW).len(), 3);
    assert!(Arc::ptr_eq(topics.by_id(&made.id).unwrap(), &made));
    rig.append(NEW, batch(0, 10)).unwrap();
    for seed in 0..20 {
        let rig = Rig::on(&sim.kill().power_cut(seed));
        let topic = Arc::clone(rig.log.topics().get(NEW).unwrap());
        assert_eq!((topic.id, topic.partitions()), (made.id, 3));
        assert_eq!(numbers(&rig.partition(NEW), 0).len(), 10);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let mut rig = Rig::on(&sim());
    let name = |name: &str| {
        Change::Create(TopicSettings {
            name: name.to_owned(),
            ..topic(NEW, Flush::EachAppend)
        })
    };
    rig.change(create(2)).unwrap();
    let mut refused = |change| rig.change(change).unwrap_err();
    assert!(matches!(refused(create(1)), NotChanged::Exists));
    assert!(matches!(refused(name("a b")), NotChanged::Name));
    assert!(matches!(refused(grow(2)), NotChanged::Partitions));
    assert!(matches!(refused(grow(1025)), NotChanged::Partitions));
    let nobody = || "nobody".to_owned();
    let unknown = Change::Delete { name: nobody() };
    assert!(matches!(refused(unknown), NotChanged::Unknown));
    let config = TopicConfig::default();
    let unknown = Change::Configure {
        name: nobody(),
        config,
    };
    assert!(matches!(refused(unknown), NotChanged::Unknown));
    let none = Change::Create(TopicSettings {
        partitions: 0,
        ..topic("none", Flush::EachAppend)
    });
    assert!(matches!(refused(none), NotChanged::Partitions));
}

#[test]
fn a_topic_grows_and_its_partitions_keep_what_they_have() {
    let sim = sim();
    let mut rig = Rig::on(&sim);
    rig.change(create(1)).unwrap();
    rig.append(NEW, batch(0, 10)).unwrap();
    let first = rig.partition(NEW);
    let grown = rig.change(grow(4)).unwrap();
    assert_eq!(grown.partitions(), 4);
    assert!(Arc::ptr_eq(&first, &rig.partition(NEW)));
    assert_eq!(rig.append(NEW, batch(10, 1)).unwrap().base_offset, 10);
    let rig = Rig::on(&sim.power_cut(3));
    assert_eq!(rig.partition(NEW).topic().partitions(), 4);
    assert_eq!(numbers(&rig.partition(NEW), 0).len(), 11);
}

#[test]
fn a_topic_that_is_deleted_is_gone_and_who_read_it_reads_on() {
    let sim = sim();
    let mut rig = Rig::on(&sim);
    let old = rig.change(create(2)).unwrap();
    rig.append(NEW, batch(0, 500)).unwrap();
    let partition = rig.partition(NEW);
    let before = numbers(&partition, 0);
    // Written, and never safe: given back.
    let outcome = rig.offer(NEW, batch(500, 1));
    while rig.appender.turn() {}
    rig.change(delete()).unwrap();
    let given_back = outcome.lock().unwrap().take().unwrap();
    assert!(given_back.is_ok_and(|at| at.base_offset == 500) || partition.is_deleted());
    assert!(partition.is_deleted() && rig.log.partition(NEW, 0).is_none());
    assert_eq!(dirs(&sim), BTreeSet::new());
    assert_eq!(numbers(&partition, 0)[..500], before);
    let append = Append {
        partition: Arc::clone(&partition),
        batch: batch(0, 1),
        done: Box::new(|result| assert_eq!(result.unwrap_err().reason, Reason::Deleted)),
    };
    rig.log.appends().offer(append).unwrap();
    rig.settle();
    let new = rig.change(create(1)).unwrap();
    assert_ne!(new.id, old.id);
    assert_eq!(rig.append(NEW, batch(7, 1)).unwrap().base_offset, 0);
    // Its indexes are where the old one's were.
    assert_eq!(numbers(&partition, 0)[..500], before);
    assert_eq!(numbers(&rig.partition(NEW), 0), [(0, 7)]);
    assert!(matches!(
        rig.ask(Command::Roll(partition)),
        Err(NotDone::Deleted)
    ));
}

#[test]
fn what_waits_to_be_safe_when_its_topic_is_deleted_is_given_back() {
    let sim = sim();
    let mut rig = Rig::on(&sim);
    rig.change(create(1)).unwrap();
    let outcome = rig.offer(NEW, batch(0, 1));
    while rig.appender.turn() {}
    let done = Box::new(|result: Result<_, _>| drop(result.unwrap()));
    rig.log.change(delete(), done).unwrap();
    // The flusher comes late.
    while rig.changer.turn() | rig.appender.turn() {}
    assert!(outcome.lock().unwrap().is_none());
    rig.flusher.turn();
    let given_back = outcome.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(given_back.reason, Reason::Deleted);
    assert_eq!(rig.log.appends().waiting(), (0, 0));
}

/// A log with a topic, made just now: what is done with it next may be cut anywhere.
fn with_topic(sim: &Sim) -> Rig {
    let mut rig = Rig::on(sim);
    rig.change(create(3)).unwrap();
    rig.append(NEW, batch(0, 30)).unwrap();
    rig
}

/// Has a change tried on a machine that stops before so many more operations. Says whether it was made.
fn cut_in(rig: &mut Rig, sim: &Sim, change: Change, after: u64) -> bool {
    sim.stop_after(Some(after));
    let is_made = rig.change(change).is_ok();
    is_made && !sim.is_gone()
}

#[test]
fn whenever_the_power_is_cut_a_topic_is_whole_or_not_there() {
    for after in 0.. {
        let sim = sim();
        let mut rig = Rig::on(&sim);
        let is_made = cut_in(&mut rig, &sim, create(3), after);
        for seed in 0..12 {
            let rig = Rig::on(&sim.power_cut(seed));
            let topics = rig.log.topics();
            let count = topics.partitions_of(NEW).len();
            assert!(
                count == 3 || count == 0 && !is_made,
                "{after} {seed}: {count}"
            );
        }
        if is_made {
            return;
        }
    }
}

#[test]
fn whenever_the_power_is_cut_a_topic_that_is_deleted_is_as_it_was_or_gone() {
    for after in 0.. {
        let sim = sim();
        let mut rig = with_topic(&sim);
        let id = rig.partition(NEW).topic().id;
        let is_deleted = cut_in(&mut rig, &sim, delete(), after);
        for seed in 0..12 {
            let sim = sim.power_cut(seed);
            let rig = Rig::on(&sim);
            match rig.log.partition(NEW, 0) {
                Some(partition) => {
                    assert!(!is_deleted, "{after} {seed}");
                    assert_eq!(partition.topic().partitions(), 3, "{after} {seed}");
                    assert_eq!(partition.topic().id, id);
                    assert_eq!(numbers(&partition, 0).len(), 30, "{after} {seed}");
                }
                None => assert_eq!(dirs(&sim), BTreeSet::new(), "{after} {seed}"),
            }
        }
        if is_deleted {
            return;
        }
    }
}

#[test]
fn whichever_operation_fails_a_change_is_made_or_can_be_made_again() {
    let changes: [fn() -> Change; 3] = [delete, || grow(5), || create(2)];
    for (which, change) in changes.into_iter().enumerate() {
        for fault in [Fault::Eio, Fault::Enospc] {
            for after in 0.. {
                let sim = sim();
                let mut rig = with_topic(&sim);
                if which == 2 {
                    rig.change(delete()).unwrap();
                }
                let from = sim.operations() + after;
                let count = 1;
                sim.plan(Some(Plan { from, count, fault }));
                let made = rig.change(change());
                let is_over = sim.operations() <= from;
                sim.plan(None);
                for _ in 0..3 {
                    rig.clock.advance_ms(1_000);
                    rig.settle();
                }
                let is_there = rig.log.topics().get(NEW).is_some();
                if made.is_ok() {
                    assert_eq!(is_there, which != 0, "{which} {fault:?} {after}");
                } else if which == 1 || is_there == (which == 0) {
                    // It was not made.
                    let again = rig.change(change());
                    again.unwrap_or_else(|error| panic!("{which} {fault:?} {after}: {error:?}"));
                }
                if which == 0 {
                    rig.change(create(1)).unwrap();
                }
                rig.append(NEW, batch(0, 1)).unwrap();
                let expected: BTreeSet<_> = (0..[1, 5, 2][which])
                    .map(|index| format!("{NEW}-{index}"))
                    .collect();
                rig.clock.advance_ms(1_000);
                rig.settle();
                assert_eq!(dirs(&sim), expected, "{which} {fault:?} {after}");
                rig.close();
                let rig = Rig::on(&sim.kill());
                assert!(rig.was_clean);
                let count = rig.partition(NEW).topic().partitions();
                assert_eq!(count, [1, 5, 2][which]);
                if is_over {
                    break;
                }
            }
        }
    }
}

#[test]
fn what_was_known_of_a_deleted_topic_is_not_believed_of_the_next_of_its_name() {
    for seed in 0..30 {
        let sim = Sim::new(seed, Path::new("/"));
        let mut rig = with_topic(&sim);
        for number in 1..40 {
            rig.append(NEW, batch(number * 30, 30)).unwrap();
        }
        rig.clock.advance_ms(11_000);
        rig.settle();
        rig.clock.advance_ms(11_000);
        rig.settle();
        let points = sim.bytes(&PathBuf::from(DIR).join(checkpoint::RECOVERY_POINTS));
        let points = String::from_utf8(points.unwrap()).unwrap();
        assert!(points.contains("shop.orders 0 1200"), "{points}");
        rig.change(delete()).unwrap();
        rig.change(create(1)).unwrap();
        for name in [
            checkpoint::RECOVERY_POINTS,
            checkpoint::LOG_STARTS,
            checkpoint::HIGH_WATERMARKS,
        ] {
            let told = sim.bytes(&PathBuf::from(DIR).join(name)).unwrap();
            let told = String::from_utf8(told).unwrap();
            assert!(!told.contains(NEW), "{name}: {told}");
        }
        let change = configure(&rig, NEW, lazily());
        rig.change(change).unwrap();
        for number in 0..20 {
            rig.append(NEW, batch(number * 10, 10)).unwrap();
        }
        // Nothing of it is safe. What is there after the cut is walked.
        let rig = Rig::on(&sim.power_cut(seed));
        let partition = rig.partition(NEW);
        numbers(&partition, 0);
    }
}

#[test]
fn a_topic_that_becomes_durable_takes_nothing_back_that_was_shown() {
    let sim = sim();
    let mut rig = Rig::on(&sim);
    rig.append(LAZY, batch(0, 10)).unwrap();
    let partition = rig.partition(LAZY);
    assert_eq!(
        (partition.high_watermark(), partition.flushed_offset()),
        (10, 0)
    );
    // The flusher does not come before the next batch is written, and then it fails.
    let change = configure(&rig, LAZY, Flush::EachAppend);
    rig.log.change(change, Box::new(|_| {})).unwrap();
    while rig.changer.turn() | rig.appender.turn() {}
    assert!(partition.is_durable());
    let outcome = rig.offer(LAZY, batch(10, 10));
    while rig.appender.turn() {}
    assert_eq!(partition.high_watermark(), 10);
    let from = sim.operations();
    let fault = Fault::Eio;
    let count = 1;
    sim.plan(Some(Plan { from, count, fault }));
    rig.flusher.turn();
    assert!(partition.is_offline());
    assert!(outcome.lock().unwrap().take().unwrap().is_err());
    sim.plan(None);
    for _ in 0..3 {
        rig.clock.advance_ms(1_000);
        rig.settle();
    }
    assert_eq!(numbers(&partition, 0).len(), 10);
    assert_eq!(rig.append(LAZY, batch(10, 1)).unwrap().base_offset, 10);
    let rig = Rig::on(&sim.power_cut(3));
    assert_eq!(numbers(&rig.partition(LAZY), 0).len(), 11);
}

#[test]
fn a_topic_that_is_durable_no_more_still_tells_those_who_waited_the_truth() {
    let sim = sim();
    let mut rig = Rig::on(&sim);
    let partition = rig.partition(DURABLE);
    let outcome = rig.offer(DURABLE, batch(0, 10));
    while rig.appender.turn() {}
    let change = configure(&rig, DURABLE, lazily());
    rig.log.change(change, Box::new(|_| {})).unwrap();
    while rig.changer.turn() | rig.appender.turn() {}
    assert!(partition.is_durable(), "something waits to be safe");
    assert!(outcome.lock().unwrap().is_none() && partition.high_watermark() == 0);
    rig.settle();
    assert_eq!(
        outcome.lock().unwrap().take().unwrap().unwrap().last_offset,
        9
    );
    rig.offer(DURABLE, batch(10, 1));
    while rig.appender.turn() {}
    assert!(!partition.is_durable());
    assert_eq!(
        (partition.high_watermark(), partition.flushed_offset()),
        (11, 10)
    );
    assert_eq!(rig.log.appends().waiting(), (0, 0));
    rig.clock.advance_ms(5_000);
    rig.settle();
    assert_eq!(partition.flushed_offset(), 11);
}

#[test]
fn a_segment_that_ages_goes_by_the_age_that_it_may_have_now() {
    let mut rig = Rig::on(&sim());
    rig.append(DURABLE, batch(0, 1)).unwrap();
    rig.clock.advance_ms(10_000);
    let config = TopicConfig {
        segment_age: Duration::from_secs(15),
        max_batch_bytes: 500,
        ..(*rig.partition(DURABLE).topic().config()).clone()
    };
    let name = DURABLE.to_owned();
    rig.change(Change::Configure { name, config }).unwrap();
    rig.append(DURABLE, batch(1, 1)).unwrap();
    let partition = rig.partition(DURABLE);
    assert_eq!(partition.segments().len(), 1);
    rig.clock.advance_ms(5_000);
    rig.append(DURABLE, batch(2, 1)).unwrap();
    assert_eq!(partition.segments().len(), 2);
    let refused = rig.append(DURABLE, batch(0, 100)).unwrap_err();
    assert_eq!(refused.reason, Reason::TooLarge);
}

#[test]
fn a_change_that_waits_when_the_log_is_closed_is_refused() {
    let mut rig = Rig::on(&sim());
    let (tell, told) = std::sync::mpsc::channel();
    let done = move |result: Result<Arc<Topic>, NotChanged>| tell.send(result.is_ok()).unwrap();
    rig.log.change(create(1), Box::new(done)).unwrap();
    rig.changer.finish();
    assert_eq!(told.try_recv(), Ok(false));
    assert!(rig.log.change(create(1), Box::new(|_| {})).is_err());
    rig.close();
}

#[test]
fn a_topic_of_a_name_that_another_had_is_not_taken_for_compacted() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = Rig::on(&sim);
    rig.change(create(1)).unwrap();
    let dir = Path::new(DIR);
    let other = (DURABLE.to_owned(), 0, 7);
    let offsets = [(NEW.to_owned(), 0, 1_000), other.clone()];
    write_offsets(&sim, dir, CLEANED, &offsets).unwrap();
    rig.change(delete()).unwrap();
    rig.change(create(1)).unwrap();
    let sim = sim.power_cut(3);
    assert_eq!(read_offsets(&sim, dir, CLEANED).unwrap(), [other]);
}
