//! A disk that fails: nothing false is acknowledged, nothing true is lost, and it heals by itself.

use std::{path::Path, sync::Arc, time::Duration};

use super::{super::*, rig::*};
use crate::base::disk::sim::{Fault, Plan, Sim};

fn rig_on(sim: &Sim, ballast_bytes: u64) -> Rig {
    let mut settings = settings(Path::new(DIR));
    settings.ballast_bytes = ballast_bytes;
    Rig::with(settings, Arc::new(sim.clone()))
}

/// The next `count` operations fail.
fn fail(sim: &Sim, count: u64, fault: Fault) {
    let from = sim.operations();
    sim.plan(Some(Plan { from, count, fault }));
}

#[test]
fn a_failed_sync_gives_the_batch_back_and_the_partition_heals() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = rig_on(&sim, 0);
    rig.append(DURABLE, batch(0, 10)).unwrap();
    let outcome = rig.offer(DURABLE, batch(10, 10));
    while rig.appender.turn() {}
    fail(&sim, 1, Fault::Eio);
    rig.flusher.turn();
    let partition = rig.partition(DURABLE);
    let given_back = outcome.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(given_back.reason, Reason::Io);
    assert!(partition.is_offline());
    assert_eq!(numbers(&partition, 0).len(), 10);
    assert_eq!(
        rig.append(DURABLE, batch(20, 1)).unwrap_err().reason,
        Reason::Offline
    );
    assert_eq!(rig.log.health().sync_errors.get(), 1);
    // The others do not know of it.
    rig.append(LAZY, batch(0, 1)).unwrap();
    for _ in 0..3 {
        rig.clock.advance_ms(1_000);
        rig.settle();
    }
    assert!(!partition.is_offline());
    assert_eq!(rig.log.health().healed.get(), 1);
    let appended = rig.append(DURABLE, given_back.batch).unwrap();
    assert_eq!(appended.base_offset, 10);
    let before = numbers(&partition, 0);
    assert_eq!(before.len(), 20);
    let rig = rig_on(&sim.power_cut(3), 0);
    assert_eq!(numbers(&rig.partition(DURABLE), 0), before);
}

#[test]
fn a_failed_sync_takes_nothing_back_that_was_shown() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = rig_on(&sim, 0);
    rig.append(LAZY, batch(0, 10)).unwrap();
    rig.clock.advance_ms(6_000);
    fail(&sim, 1, Fault::Eio);
    rig.flusher.turn();
    let partition = rig.partition(LAZY);
    assert!(partition.is_offline());
    sim.plan(None);
    for _ in 0..3 {
        rig.clock.advance_ms(1_000);
        rig.settle();
    }
    assert_eq!(numbers(&partition, 0).len(), 10);
    assert_eq!(rig.append(LAZY, batch(10, 1)).unwrap().base_offset, 10);
    rig.close();
    let rig = rig_on(&sim.power_cut(3), 0);
    assert_eq!(numbers(&rig.partition(LAZY), 0).len(), 11);
}

#[test]
fn the_flusher_sleeps_while_a_partition_is_offline() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = rig_on(&sim, 0);
    rig.append(LAZY, batch(0, 10)).unwrap();
    rig.clock.advance_ms(6_000);
    let now_ns = rig.clock.monotonic_ns();
    assert_eq!(rig.flusher.until_due(now_ns), Duration::ZERO);
    fail(&sim, u64::MAX / 2, Fault::Eio);
    while rig.flusher.turn() {}
    assert!(rig.partition(LAZY).is_offline());
    assert_eq!(rig.flusher.until_due(now_ns), Duration::from_secs(1));
}

#[test]
fn healing_is_tried_again_later_and_later() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = rig_on(&sim, 0);
    let outcome = rig.offer(DURABLE, batch(0, 1));
    while rig.appender.turn() {}
    fail(&sim, u64::MAX / 2, Fault::Eio);
    rig.flusher.turn();
    assert!(outcome.lock().unwrap().is_some());
    let mut tries = Vec::new();
    for second in 0..100 {
        let before = sim.operations();
        rig.clock.advance_ms(1_000);
        while rig.appender.turn() {}
        if sim.operations() > before {
            tries.push(second);
        }
    }
    let waits: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
}

#[test]
fn a_write_that_fails_leaves_nothing_behind() {
    for fault in [Fault::Eio, Fault::Enospc] {
        for cannot_cut in [false, true] {
            let sim = Sim::new(1, Path::new("/"));
            let mut rig = rig_on(&sim, 0);
            rig.append(LAZY, batch(0, 10)).unwrap();
            fail(&sim, if cannot_cut { 2 } else { 1 }, fault);
            let refused = rig.append(LAZY, batch(10, 40)).unwrap_err();
            let reasons = [Reason::Io, Reason::DiskFull];
            assert!(reasons.contains(&refused.reason));
            sim.plan(None);
            // Spared for a second, then taken again.
            assert_eq!(
                rig.append(LAZY, batch(10, 5)).unwrap_err().reason,
                refused.reason
            );
            rig.clock.advance_ms(1_000);
            assert_eq!(rig.append(LAZY, batch(10, 5)).unwrap().base_offset, 10);
            let expected = numbers(&rig.partition(LAZY), 0);
            assert_eq!(expected.len(), 15);
            let rig = rig_on(&sim.kill(), 0);
            assert_eq!(numbers(&rig.partition(LAZY), 0), expected);
        }
    }
}

#[test]
fn writes_that_are_short_or_interrupted_go_on() {
    for fault in [Fault::Short, Fault::Eintr, Fault::Eagain] {
        let sim = Sim::new(1, Path::new("/"));
        let mut rig = rig_on(&sim, 0);
        for number in 0..50 {
            fail(&sim, 3, fault);
            let appended = rig.append(DURABLE, batch(number * 10, 10)).unwrap();
            assert_eq!(appended.base_offset, number.cast_signed() * 10);
        }
        sim.plan(None);
        assert_eq!(numbers(&rig.partition(DURABLE), 0).len(), 500);
    }
}

#[test]
fn a_full_disk_has_room_for_bans_until_the_ballast_is_used_up() {
    let sim = Sim::new(1, Path::new("/"));
    sim.set_capacity(200_000);
    let mut rig = rig_on(&sim, 64 * 1024);
    assert!(rig.log.health().has_ballast.get());
    let mut number = 0;
    let refused = loop {
        match rig.append(LAZY, batch(number, 20)) {
            Ok(_) => number += 20,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.reason, Reason::DiskFull);
    assert!(rig.log.health().is_full.get());
    for number in 0..20 {
        rig.append(DURABLE, batch(number, 1)).unwrap();
    }
    assert!(!rig.log.health().has_ballast.get());
    // Room comes back, and with it the ballast.
    sim.set_capacity(1_000_000);
    rig.clock.advance_ms(1_000);
    rig.settle();
    assert!(rig.log.health().has_ballast.get());
    rig.append(LAZY, refused.batch).unwrap();
    assert!(!rig.log.health().is_full.get());
    let found = numbers(&rig.partition(LAZY), 0).len() as u64;
    assert_eq!(found, number + 20);
}

/// What clients flush at each append is as safe as bans, and as dear to them; the ballast is not for it.
#[test]
fn the_ballast_is_for_wardents_own_topics_alone() {
    const FOREIGN: &str = "foreign";
    let mut sim = Sim::new(1, Path::new("/"));
    sim.set_capacity(200_000);
    let mut settings = settings(Path::new(DIR));
    settings.ballast_bytes = 64 * 1024;
    let mut foreign = topic(FOREIGN, Flush::EachAppend);
    foreign.config.is_reserved = false;
    settings.topics.push(foreign);
    let mut rig = Rig::with(settings.clone(), Arc::new(sim.clone()));
    while rig.append(FOREIGN, batch(0, 20)).is_ok() {}
    assert!(rig.log.health().has_ballast.get(), "it is kept");
    while rig.log.health().has_ballast.get() {
        rig.append(DURABLE, batch(0, 1)).unwrap();
    }
    // What it gave is for bans, also after the process was killed.
    for left in 0..2 {
        rig.clock.advance_ms(2_000);
        for topic in [FOREIGN, LAZY] {
            let refused = rig.append(topic, batch(0, 1)).unwrap_err();
            assert_eq!(refused.reason, Reason::DiskFull, "{topic}, {left}");
        }
        rig.append(DURABLE, batch(0, 1)).unwrap();
        sim = sim.kill();
        rig = Rig::with(settings.clone(), Arc::new(sim.clone()));
    }
    sim.set_capacity(1_000_000);
    rig.clock.advance_ms(1_000);
    rig.settle();
    assert!(rig.log.health().has_ballast.get());
    rig.append(FOREIGN, batch(0, 1)).unwrap();
}

#[test]
fn a_batch_that_is_too_long_is_given_back() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = rig_on(&sim, 0);
    let mut builder = Builder::new();
    builder.push(0, None, Some(&vec![b'x'; 2 << 20]), &[]);
    let refused = rig
        .append(LAZY, builder.finish(Compression::None))
        .unwrap_err();
    assert_eq!(refused.reason, Reason::TooLarge);
    assert_eq!(refused.batch.count(), 1);
}

#[test]
fn the_queue_is_bounded_for_each_class_and_hands_back_what_does_not_fit() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = rig_on(&sim, 0);
    let append = |topic: &str| Append {
        partition: rig.partition(topic),
        batch: batch(0, 1),
        done: Box::new(|_| {}),
    };
    for _ in 0..appends::OWN_DURABLE_BATCHES_MAX {
        rig.log.appends().offer(append(DURABLE)).unwrap();
    }
    assert!(rig.log.appends().offer(append(DURABLE)).is_err());
    rig.log.appends().offer(append(LAZY)).unwrap();
    let durable = append(DURABLE);
    // Written, and not safe: they still count.
    while rig.appender.turn() {}
    let durable = rig.log.appends().offer(durable).unwrap_err();
    rig.settle();
    assert_eq!(rig.log.appends().waiting(), (0, 0));
    rig.log.appends().offer(durable).unwrap();
}

#[test]
fn what_clients_append_leaves_room_for_wardents_own() {
    let sim = Sim::new(1, Path::new("/"));
    let mut settings = settings(Path::new(DIR));
    for mut topic in settings.topics.clone() {
        topic.name = format!("their.{}", topic.name);
        topic.config.is_reserved = false;
        settings.topics.push(topic);
    }
    let mut rig = Rig::with(settings, Arc::new(sim));
    let offer = |topic: &str| {
        let append = Append {
            partition: rig.partition(topic),
            batch: batch(0, 1),
            done: Box::new(|_| {}),
        };
        rig.log.appends().offer(append).is_ok()
    };
    for topic in [DURABLE, LAZY] {
        let theirs = format!("their.{topic}");
        assert!((0..appends::BATCHES_MAX).all(|_| offer(&theirs)));
        assert!(!offer(&theirs));
        assert!((0..appends::BATCHES_MAX).all(|_| offer(topic)));
    }
    rig.settle();
    assert_eq!(rig.log.appends().waiting(), (0, 0));
}

#[test]
fn a_full_disk_opens_with_its_ballast() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = rig_on(&sim, 64 * 1024);
    for number in 0..20 {
        rig.append(DURABLE, batch(number * 10, 10)).unwrap();
    }
    drop(rig);
    // Damage whose repair needs room.
    let path = Path::new(DIR).join("durable-0/00000000000000000000.log");
    let mut bytes = sim.bytes(&path).unwrap();
    bytes[100] ^= 1;
    sim.put(&path, &bytes);
    let used: usize = sim
        .paths()
        .iter()
        .map(|path| sim.bytes(path).unwrap().len())
        .sum();
    sim.set_capacity(used as u64 + 500);
    let mut rig = rig_on(&sim, 64 * 1024);
    assert_eq!(numbers(&rig.partition(DURABLE), 0).len(), 190);
    assert!(!rig.log.health().has_ballast.get());
    assert_eq!(rig.append(DURABLE, batch(0, 1)).unwrap().base_offset, 200);
}

#[test]
fn a_file_that_fails_keeps_nobody_else_from_appending() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = rig_on(&sim, 0);
    fail(&sim, 1, Fault::Eio);
    assert_eq!(
        rig.append(DURABLE, batch(0, 1)).unwrap_err().reason,
        Reason::Io
    );
    sim.plan(None);
    rig.append(LAZY, batch(0, 1)).unwrap();
    rig.append(DURABLE, batch(0, 1)).unwrap();
}
