//! A disk that stops or fails at any operation of a compaction.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::*;
use crate::base::disk::sim::{Fault, Plan};

/// A log on a simulated disk with four closed segments to compact: two that become one, though no record of
/// the second stays; one that stays as it is; one that changes.
fn simulated(seed: u64) -> (Sim, Rig) {
    let dir = Path::new("/log");
    let sim = Sim::new(seed, dir);
    let mut rig = Rig::open(
        Arc::new(sim.clone()),
        dir,
        Clock::manual(NOW_MS),
        simulated_topics(),
    );
    let bans = rig.partition(BANS, 0);
    rig.append(&bans, &[("a", Some("1")), ("b", Some("1"))]);
    rig.append(&bans, &[("c", None), ("a", Some("2"))]);
    rig.roll(&bans);
    rig.append(&bans, &[("d", Some("1"))]);
    rig.append(&bans, &[("d", Some("2"))]);
    rig.roll(&bans);
    let large = "x".repeat(900);
    rig.append(&bans, &[("e", Some(&large)), ("f", Some("1"))]);
    rig.roll(&bans);
    rig.append(&bans, &[("b", Some(&large)), ("g", Some("1")), ("g", None)]);
    rig.append(&bans, &[("h", Some("1")), ("d", Some("3"))]);
    rig.roll(&bans);
    rig.append(&bans, &[("h", Some("2")), ("a", Some("3"))]);
    (sim, rig)
}

fn simulated_topics() -> Vec<crate::log::TopicSettings> {
    let config = TopicConfig {
        segment_bytes: 1_000,
        ..compacted()
    };
    vec![topic(BANS, 1, config)]
}

/// Runs a cleaner until it has nothing to do or its pass failed. Calls `between` after each turn.
fn cleaned(rig: &mut Rig, mut between: impl FnMut(&mut Rig)) {
    let mut cleaner = rig.cleaner(UNBOUNDED);
    for _ in 0..200 {
        let rest = cleaner.turn();
        let worked = rig.appender.turn();
        rig.flusher.turn();
        between(rig);
        if rest != Rest::Pause && !worked {
            return;
        }
    }
    panic!("the cleaner finds no end");
}

/// The last value of each key.
fn replayed(partition: &Partition) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for record in records(partition) {
        match record.value {
            Some(value) => map.insert(record.key.unwrap(), value),
            None => map.remove(&record.key.unwrap()),
        };
    }
    map
}

#[test]
fn a_crash_at_any_operation_of_a_swap_leaves_the_old_or_the_new() {
    let (sim, mut rig) = simulated(1);
    let bans = rig.partition(BANS, 0);
    let first = sim.operations();
    let mut states = vec![stored(&bans)];
    cleaned(&mut rig, |rig| {
        let now = stored(&rig.partition(BANS, 0));
        if states.last() != Some(&now) {
            states.push(now);
        }
    });
    assert_eq!(states.len(), 3, "two swaps");
    let (last, expected) = (sim.operations(), replayed(&bans));
    // Reading states of the log takes operations of its own, so there are more numbers than needed.
    let mut seen = vec![0_u32; states.len()];
    for at in first..last {
        for is_power_cut in [false, true] {
            let (sim, mut rig) = simulated(at);
            sim.plan(Some(Plan {
                from: at,
                count: u64::MAX,
                fault: Fault::Eio,
            }));
            cleaned(&mut rig, |_| {});
            let after = if is_power_cut {
                sim.power_cut(at)
            } else {
                sim.kill()
            };
            drop(rig);
            let dir = PathBuf::from("/log");
            let mut rig = Rig::open(
                Arc::new(after.clone()),
                &dir,
                Clock::manual(NOW_MS),
                simulated_topics(),
            );
            let bans = rig.partition(BANS, 0);
            let found = stored(&bans);
            let state = states.iter().position(|state| *state == found);
            let state = state.unwrap_or_else(|| panic!("a mix after operation {at}"));
            seen[state] += 1;
            assert_eq!(replayed(&bans), expected);
            let left = after.paths();
            let is_whole = |path: &PathBuf| {
                let name = path.to_str().unwrap();
                !name.ends_with(".cleaned") && !name.ends_with(".swap")
            };
            assert!(left.iter().all(is_whole), "{left:?}");
            cleaned(&mut rig, |_| {});
            assert_eq!(Some(&stored(&bans)), states.last(), "operation {at}");
        }
    }
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
}

#[test]
fn a_disk_that_fails_one_operation_costs_no_value_and_is_tried_again() {
    let (sim, mut rig) = simulated(1);
    let first = sim.operations();
    cleaned(&mut rig, |_| {});
    let last = sim.operations();
    let expected = replayed(&rig.partition(BANS, 0));
    for at in first..last {
        for fault in [Fault::Eio, Fault::Enospc, Fault::Short] {
            let (sim, mut rig) = simulated(1);
            sim.plan(Some(Plan {
                from: at,
                count: 1,
                fault,
            }));
            let mut cleaner = rig.cleaner(UNBOUNDED);
            rig.clean(&mut cleaner);
            let bans = rig.partition(BANS, 0);
            assert_eq!(replayed(&bans), expected, "{fault:?} at {at}");
            drop(cleaner);
            drop(rig);
            let again = Arc::new(sim.kill());
            let dir = PathBuf::from("/log");
            let rig = Rig::open(again, &dir, Clock::manual(NOW_MS), simulated_topics());
            let bans = rig.partition(BANS, 0);
            assert_eq!(replayed(&bans), expected, "{fault:?} at {at}, reopened");
        }
    }
}
