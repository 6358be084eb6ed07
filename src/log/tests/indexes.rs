//! Indexes are never believed against the log, and never decide about it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{super::*, rig::*};
use crate::base::fuzz::Dice;

/// Records, in ten a batch.
const RECORDS: u64 = 3_000;

/// A log of several segments, closed in good order, and what it answers.
fn written(dir: &Path) -> Answers {
    let mut rig = Rig::open(dir);
    for number in (0..RECORDS).step_by(10) {
        rig.append(LAZY, batch(number, 10)).unwrap();
    }
    assert!(rig.partition(LAZY).segments().len() > 2);
    let answers = answers(&rig.partition(LAZY));
    rig.close();
    answers
}

/// For many offsets the first batch, for many times the first record.
type Answers = (Vec<i64>, Vec<Option<(i64, i64)>>);

fn answers(partition: &Partition) -> Answers {
    let by_offset = |offset: u64| {
        let bytes = partition.read(offset.cast_signed(), 1).unwrap();
        View::read(&bytes).unwrap().0.base_offset()
    };
    let by_time = |ahead: u64| {
        let timestamp_ms = i64::try_from(NOW_MS + ahead).unwrap();
        partition.offset_at_or_after(timestamp_ms).unwrap()
    };
    let steps = || (0..RECORDS).step_by(3);
    (
        steps().map(by_offset).collect(),
        steps().map(by_time).collect(),
    )
}

fn index_files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("lazy-0")).unwrap();
    let mut paths: Vec<_> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with("index"))
        .collect();
    paths.sort();
    assert!(paths.len() > 4);
    paths
}

#[test]
fn times_are_found_by_the_first_record_of_that_time_or_later() {
    let dir = tempfile::tempdir().unwrap();
    let (_, by_time) = written(dir.path());
    for (step, found) in by_time.iter().enumerate() {
        // All ten of a batch have the time of its first.
        let expected = (step as u64 * 3).div_ceil(10) * 10;
        let expected = (expected < RECORDS).then(|| {
            let timestamp_ms = i64::try_from(NOW_MS + expected).unwrap();
            (expected.cast_signed(), timestamp_ms)
        });
        assert_eq!(*found, expected);
    }
}

#[test]
fn missing_short_and_garbage_indexes_are_made_anew_and_answer_the_same() {
    let damages: [fn(&Path, &mut Dice); 4] = [
        |path, _| fs::remove_file(path).unwrap(),
        |path, _| fs::write(path, b"").unwrap(),
        |path, dice| {
            let mut bytes = fs::read(path).unwrap();
            bytes.truncate(dice.below(bytes.len().max(1)));
            fs::write(path, bytes).unwrap();
        },
        |path, dice| {
            let len = fs::read(path).unwrap().len();
            let noise: Vec<u8> = (0..len).map(|_| dice.next().to_le_bytes()[0]).collect();
            fs::write(path, noise).unwrap();
        },
    ];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        let expected = written(dir.path());
        let mut dice = Dice::seeded(7);
        let whole: Vec<_> = index_files(dir.path())
            .iter()
            .map(|path| fs::read(path).unwrap())
            .collect();
        for path in index_files(dir.path()) {
            damage(&path, &mut dice);
        }
        let rig = Rig::open(dir.path());
        assert!(rig.was_clean);
        let rebuilt = rig
            .report
            .iter()
            .filter(|found| matches!(found, Found::IndexRebuilt(_)));
        assert_eq!(rebuilt.count(), rig.partition(LAZY).segments().len());
        assert_eq!(answers(&rig.partition(LAZY)), expected);
        let now: Vec<_> = index_files(dir.path())
            .iter()
            .map(|path| fs::read(path).unwrap())
            .collect();
        assert_eq!(now, whole);
    }
}

#[test]
fn entries_beyond_the_logs_end_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let log = index_files(dir.path())
        .last()
        .unwrap()
        .with_extension("log");
    let bytes = fs::read(&log).unwrap();
    let (first, _) = View::read(&bytes).unwrap();
    fs::write(&log, first.bytes()).unwrap();
    let mut rig = Rig::open(dir.path());
    let partition = rig.partition(LAZY);
    let end = first.last_offset() + 1;
    assert_eq!(partition.log_end_offset(), end);
    assert_eq!(numbers(&partition, 0).len(), usize::try_from(end).unwrap());
    assert_eq!(rig.append(LAZY, batch(0, 1)).unwrap().base_offset, end);
    let index = fs::read(log.with_extension("index")).unwrap();
    assert_eq!(index.len(), 8);
}

#[test]
fn an_index_that_lies_while_the_log_is_open_is_found_out_by_who_looks_something_up() {
    let dir = tempfile::tempdir().unwrap();
    let expected = written(dir.path());
    let rig = Rig::open(dir.path());
    for path in index_files(dir.path()) {
        let mut bytes = fs::read(&path).unwrap();
        // Still in order, and wrong.
        for entry in bytes.chunks_mut(if path.extension().unwrap() == "index" {
            8
        } else {
            12
        }) {
            entry[3] ^= 1;
            entry[7] ^= 1;
        }
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(answers(&rig.partition(LAZY)), expected);
}

#[test]
fn what_is_read_while_the_log_is_down_is_the_same_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let expected = written(dir.path());
    let before = listing(dir.path());
    let disk: std::sync::Arc<dyn crate::base::disk::Disk> =
        std::sync::Arc::new(crate::base::disk::System);
    let partitions = open_to_read(dir.path(), &disk).unwrap();
    let lazy = partitions
        .iter()
        .find(|one| one.topic().name == LAZY)
        .unwrap();
    assert_eq!(answers(lazy), expected);
    // Also without the indexes, and with half a batch at the end.
    for path in index_files(dir.path()) {
        fs::remove_file(path).unwrap();
    }
    let is_log = |path: &&PathBuf| path.extension().is_some_and(|end| end == "log");
    let last = before.keys().rfind(is_log);
    let bytes = fs::read(last.unwrap()).unwrap();
    fs::write(last.unwrap(), &bytes[..bytes.len() - 1]).unwrap();
    let before = listing(dir.path());
    let partitions = open_to_read(dir.path(), &disk).unwrap();
    let lazy = partitions
        .iter()
        .find(|one| one.topic().name == LAZY)
        .unwrap();
    assert_eq!(numbers(lazy, 0).len() as u64, RECORDS - 10);
    assert_eq!(listing(dir.path()), before);
}

/// All files and their bytes.
fn listing(dir: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(listing(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}
