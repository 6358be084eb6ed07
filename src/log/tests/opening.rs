//! Opening a log: who may, what is found, what is set right.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use super::{super::*, rig::*};
use crate::base::disk::{System, sim::Sim};

fn refusal(dir: &Path) -> String {
    Rig::try_with(settings(dir), Arc::new(System))
        .unwrap_err()
        .to_string()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_log_has_the_names_that_kafka_gives() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    rig.append(DURABLE, batch(0, 3)).unwrap();
    rig.close();
    let expected = [
        ".kafka_cleanshutdown",
        ".lock",
        "durable-0",
        "lazy-0",
        "log-start-offset-checkpoint",
        "meta.properties",
        "recovery-point-offset-checkpoint",
        "replication-offset-checkpoint",
    ];
    assert_eq!(names(dir.path()), expected.map(str::to_owned).into());
    let expected = [
        "00000000000000000000.index",
        "00000000000000000000.log",
        "00000000000000000000.timeindex",
        "00000000000000000003.snapshot",
        "leader-epoch-checkpoint",
        "partition.metadata",
    ];
    assert_eq!(
        names(&dir.path().join("durable-0")),
        expected.map(str::to_owned).into()
    );
    let points = fs::read_to_string(dir.path().join("recovery-point-offset-checkpoint")).unwrap();
    assert_eq!(points, "0\n2\ndurable 0 3\nlazy 0 0\n");
}

/// KIP-320.
#[test]
fn who_read_in_an_earlier_epoch_is_told_where_it_ended() {
    let disk = Sim::new(1, Path::new("/"));
    let mut rig = Rig::on(&disk);
    rig.append(DURABLE, batch(1, 3)).unwrap();
    let partition = rig.partition(DURABLE);
    assert_eq!(partition.leader_epoch(), 0);
    assert_eq!(partition.end_of_epoch(0), Some((0, 3)));
    let disk = disk.kill();
    // A start in which nothing was appended has no epoch that anybody could have read in.
    for _ in 0..2 {
        drop(Rig::on(&disk));
    }
    let mut rig = Rig::on(&disk.kill());
    rig.append(DURABLE, batch(4, 2)).unwrap();
    let partition = rig.partition(DURABLE);
    let own = partition.leader_epoch();
    assert!(own > 0);
    assert_eq!(partition.end_of_epoch(own), Some((own, 5)));
    assert_eq!(partition.end_of_epoch(0), Some((0, 3)));
    assert_eq!(partition.end_of_epoch(own - 1).map(|(_, end)| end), Some(3));
    assert_eq!(partition.end_of_epoch(own + 1), None);
}

#[test]
fn a_second_process_is_told_who_has_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let expected = format!(
        "log dir {} is locked by pid {}",
        dir.path().display(),
        std::process::id()
    );
    assert_eq!(refusal(dir.path()), expected);
    drop(rig);
    Rig::open(dir.path()).close();
}

#[test]
fn a_log_of_a_later_version_is_refused_and_left_as_it_is() {
    let newer = [
        (
            "meta.properties",
            "version=2\nnode.id=1\ncluster.id=a\ndirectory.id=b\n",
        ),
        ("recovery-point-offset-checkpoint", "1\n0\n"),
        (
            "lazy-0/partition.metadata",
            "version: 1\ntopic_id: 4mm7Q0VOQpeSvqfVZlGhHA",
        ),
        ("lazy-0/leader-epoch-checkpoint", "1\n0\n"),
    ];
    for (name, text) in newer {
        let dir = tempfile::tempdir().unwrap();
        Rig::open(dir.path()).close();
        fs::remove_file(dir.path().join(".lock")).unwrap();
        fs::write(dir.path().join(name), text).unwrap();
        let before = names(dir.path());
        let message = refusal(dir.path());
        assert!(
            message.contains(name) && message.contains("which this Wardent does not know"),
            "{message}"
        );
        assert_eq!(names(dir.path()), before);
    }
}

#[test]
fn a_log_of_the_version_before_is_opened_and_keeps_its_cluster() {
    let dir = tempfile::tempdir().unwrap();
    Rig::open(dir.path()).close();
    let meta = dir.path().join("meta.properties");
    fs::write(&meta, "version=0\nbroker.id=1\ncluster.id=ours\n").unwrap();
    let rig = Rig::open(dir.path());
    assert_eq!(rig.log.meta().cluster_id, "ours");
    assert!(fs::read_to_string(&meta).unwrap().contains("version=1\n"));
}

#[test]
fn a_foreign_meta_is_refused_with_the_field() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("meta.properties"), "version=1\nnode.id=7\n").unwrap();
    assert!(refusal(dir.path()).contains("`node.id` is 7"));
    assert_eq!(
        names(dir.path()),
        BTreeSet::from(["meta.properties".to_owned()])
    );
}

#[test]
fn topics_that_are_found_are_served_though_nobody_configured_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = settings(dir.path());
    first.topics.push(TopicSettings {
        partitions: 3,
        ..topic("theirs", Flush::EachAppend)
    });
    let mut rig = Rig::with(first, Arc::new(System));
    rig.append("theirs", batch(0, 7)).unwrap();
    let id = rig.partition("theirs").topic().id;
    rig.close();
    let rig = Rig::open(dir.path());
    let topic = Arc::clone(rig.partition("theirs").topic());
    assert_eq!((topic.id, topic.partitions()), (id, 3));
    assert_eq!(numbers(&rig.partition("theirs"), 0).len(), 7);
}

#[test]
fn what_was_left_half_made_is_removed_and_what_is_not_ours_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    rig.append(LAZY, batch(0, 3)).unwrap();
    rig.close();
    let own = dir.path().join("lazy-0");
    let left_over = [
        "00000000000000000000.log.cleaned",
        "00000000000000000000.log.mended",
        "00000000000000000000.index.cleaned",
        "00000000000000000009.log.deleted",
        "00000000000000000009.index",
        "leader-epoch-checkpoint.tmp",
    ];
    for name in left_over {
        fs::write(own.join(name), b"anything").unwrap();
    }
    fs::write(own.join("notes.txt"), b"theirs").unwrap();
    fs::create_dir(dir.path().join("gone-0.abcdef-delete")).unwrap();
    fs::write(
        dir.path()
            .join("gone-0.abcdef-delete/00000000000000000000.log"),
        b"",
    )
    .unwrap();
    let rig = Rig::open(dir.path());
    assert_eq!(rig.report.len(), left_over.len() + 1, "{:?}", rig.report);
    let now = names(&own);
    assert!(left_over.iter().all(|name| !now.contains(*name)), "{now:?}");
    assert!(now.contains("notes.txt") && !dir.path().join("gone-0.abcdef-delete").exists());
    assert_eq!(numbers(&rig.partition(LAZY), 0).len(), 3);
}

#[test]
fn a_crash_begins_a_new_epoch_and_an_orderly_stop_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let epochs = dir.path().join("durable-0/leader-epoch-checkpoint");
    let mut rig = Rig::open(dir.path());
    rig.append(DURABLE, batch(0, 5)).unwrap();
    drop(rig);
    assert_eq!(fs::read_to_string(&epochs).unwrap(), "0\n1\n0 0\n");
    let mut rig = Rig::open(dir.path());
    assert!(!rig.was_clean);
    rig.append(DURABLE, batch(5, 5)).unwrap();
    let bytes = rig.partition(DURABLE).read(5, 1).unwrap();
    assert_eq!(View::read(&bytes).unwrap().0.leader_epoch(), 1);
    rig.close();
    assert_eq!(fs::read_to_string(&epochs).unwrap(), "0\n2\n0 0\n1 5\n");
    Rig::open(dir.path()).close();
    assert_eq!(fs::read_to_string(&epochs).unwrap(), "0\n2\n0 0\n1 5\n");
}

#[test]
fn a_checkpoint_that_is_garbage_costs_a_walk_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    for number in 0..300 {
        rig.append(DURABLE, batch(number * 10, 10)).unwrap();
    }
    drop(rig);
    for name in [
        "recovery-point-offset-checkpoint",
        "log-start-offset-checkpoint",
    ] {
        fs::write(dir.path().join(name), b"\xff\x00 no text").unwrap();
    }
    fs::write(dir.path().join("durable-0/leader-epoch-checkpoint"), b"?").unwrap();
    let rig = Rig::open(dir.path());
    assert_eq!(numbers(&rig.partition(DURABLE), 0).len(), 3_000);
    let told = rig
        .report
        .iter()
        .filter(|found| matches!(found, Found::Checkpoint { .. }));
    assert_eq!(told.count(), 3);
}

#[test]
fn only_what_follows_the_recovery_point_is_walked() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    for number in 0..300 {
        rig.append(DURABLE, batch(number * 10, 10)).unwrap();
    }
    rig.clock.advance_ms(11_000);
    rig.settle();
    rig.clock.advance_ms(11_000);
    rig.settle();
    drop(rig);
    // Were it walked, this byte would be found.
    let first = dir.path().join("durable-0/00000000000000000000.log");
    let mut bytes = fs::read(&first).unwrap();
    bytes[70] ^= 1;
    fs::write(&first, bytes).unwrap();
    let rig = Rig::open(dir.path());
    assert!(!rig.was_clean && rig.report.is_empty(), "{:?}", rig.report);
}

#[test]
fn offsets_without_an_end_are_neither_believed_nor_counted_beyond() {
    const LAST: i64 = i64::MAX;
    let dir = tempfile::tempdir().unwrap();
    Rig::open(dir.path()).close();
    let own = dir.path().join("durable-0");
    for end in ["log", "index", "timeindex"] {
        fs::remove_file(own.join(format!("{:020}.{end}", 0))).unwrap();
    }
    for name in ["recovery-point", "log-start"] {
        let text = format!("0\n2\ndurable 0 {LAST}\nlazy 0 {LAST}\n");
        fs::write(dir.path().join(format!("{name}-offset-checkpoint")), text).unwrap();
    }
    fs::write(own.join(format!("{LAST:020}.log")), b"").unwrap();
    fs::write(own.join(format!("{:020}.log", LAST - 3)), b"").unwrap();
    let mut rig = Rig::open(dir.path());
    for topic in [DURABLE, LAZY] {
        rig.append(topic, batch(0, 10)).unwrap();
        assert_eq!(numbers(&rig.partition(topic), 0).len(), 10);
    }
}

#[test]
fn a_start_of_the_log_beyond_its_end_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    for number in 0..3 {
        rig.append(DURABLE, batch(number * 10, 10)).unwrap();
        let partition = rig.partition(DURABLE);
        rig.log
            .ask(Command::Roll(partition), Box::new(drop))
            .unwrap();
        rig.settle();
    }
    rig.close();
    let path = dir.path().join("log-start-offset-checkpoint");
    fs::write(path, "0\n2\ndurable 0 81\nlazy 0 0\n").unwrap();
    let rig = Rig::open(dir.path());
    let partition = rig.partition(DURABLE);
    assert_eq!(partition.log_start_offset(), 0);
    assert_eq!(numbers(&partition, 0).len(), 30);
}

#[test]
fn a_full_disk_keeps_no_log_from_being_opened() {
    let sim = Sim::new(1, Path::new("/"));
    let at = Path::new("/log");
    let mut rig = Rig::with(settings(at), Arc::new(sim.clone()));
    rig.append(DURABLE, batch(0, 10)).unwrap();
    rig.append(LAZY, batch(0, 10)).unwrap();
    sim.set_capacity(sim.used());
    let sim = sim.kill();
    let rig = Rig::with(settings(at), Arc::new(sim));
    assert_eq!(numbers(&rig.partition(DURABLE), 0).len(), 10);
    assert_eq!(numbers(&rig.partition(LAZY), 0).len(), 10);
}
