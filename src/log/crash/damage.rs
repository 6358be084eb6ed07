//! Logs whose files were cut, flipped or mixed up: what is wrong is found, and only that is lost.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    model::{Left, Stored, stored},
    world::{DIR, World, settings},
};
use crate::{
    base::{clock::Clock, disk::sim::Sim, fuzz::Dice},
    log::{Append, Builder, Command, Compression, Opened, Partition, View, open},
};

const SEGMENT_BYTES: u64 = 60_000;
const TOPIC: &str = "audit";
const BEGAN_MS: i64 = 1_700_000_000_000;

fn opened(disk: &Sim) -> Opened {
    let clock = Clock::manual(BEGAN_MS.unsigned_abs());
    open(settings(SEGMENT_BYTES), Arc::new(disk.clone()), clock).unwrap()
}

fn partition(opened: &Opened) -> Arc<Partition> {
    opened.log.partition(TOPIC, 0).unwrap()
}

/// Appends batches of two records, a second apart, and makes them safe.
fn append(opened: &mut Opened, batches: u32, padding: usize) {
    let mut builder = Builder::new();
    let mut dice = Dice::seeded(7);
    let partition = partition(opened);
    for index in 0..i64::from(batches) {
        let noise: Vec<u8> = (0..padding).map(|_| dice.next().to_le_bytes()[0]).collect();
        for half in 0..2 {
            let time_ms = BEGAN_MS + 1000 * index + 500 * half;
            let value = [format!("{}:", 2 * index + half + 1).as_bytes(), &noise].concat();
            builder.push(time_ms, Some(b"key"), Some(&value), &[]);
        }
        let append = Append {
            partition: Arc::clone(&partition),
            batch: builder.finish(Compression::None),
            done: Box::new(|result| assert!(result.is_ok())),
        };
        opened.log.appends().offer(append).unwrap();
        opened.appender.turn();
    }
    opened.flusher.turn();
}

/// A disk with such a log, left without being closed.
fn left_open(batches: u32, padding: usize) -> Sim {
    let disk = Sim::new(1, Path::new(DIR).parent().unwrap());
    let mut opened = opened(&disk);
    append(&mut opened, batches, padding);
    let left = disk.kill();
    drop(opened);
    left
}

/// The same, closed in good order.
fn closed(batches: u32, padding: usize) -> Sim {
    let disk = Sim::new(1, Path::new(DIR).parent().unwrap());
    let mut opened = opened(&disk);
    append(&mut opened, batches, padding);
    opened.appender.finish();
    assert!(opened.flusher.finish());
    disk.kill()
}

/// The files of the partition that end so, the oldest first.
fn files(disk: &Sim, extension: &str) -> Vec<PathBuf> {
    let dir = Path::new(DIR).join(format!("{TOPIC}-0"));
    let mut paths = disk.paths();
    paths.retain(|path| {
        path.parent() == Some(&dir) && path.extension().is_some_and(|own| own == extension)
    });
    paths
}

fn read(partition: &Partition) -> Vec<Stored> {
    let mut found: Vec<Stored> = Vec::new();
    let mut next = partition.log_start_offset();
    loop {
        let bytes = partition.read(next, 1).unwrap();
        if bytes.is_empty() {
            return found;
        }
        found.extend(stored(&bytes).unwrap());
        next = found.last().unwrap().offset + 1;
    }
}

/// Where the batches begin, and where the last ends.
fn bounds(log: &[u8]) -> Vec<usize> {
    let mut bounds = vec![0];
    let mut rest = log;
    while let Ok((_, after)) = View::read(rest) {
        rest = after;
        bounds.push(log.len() - rest.len());
    }
    bounds
}

/// E-03.
#[test]
fn a_log_that_is_cut_anywhere_keeps_its_whole_batches_and_goes_on_after_them() {
    let left = left_open(6, 40);
    let [path] = &files(&left, "log")[..] else {
        panic!("one segment")
    };
    let log = left.bytes(path).unwrap();
    let bounds = bounds(&log);
    assert_eq!(bounds.len(), 7);
    for cut in bounds[3]..log.len() {
        let disk = left.kill();
        disk.put(path, &log[..cut]);
        let mut opened = opened(&disk);
        let whole = bounds.iter().filter(|end| **end <= cut).count() - 1;
        let partition = partition(&opened);
        let expected = i64::try_from(2 * whole).unwrap();
        assert_eq!(partition.high_watermark(), expected, "cut at {cut}");
        assert_eq!(read(&partition).len(), 2 * whole, "cut at {cut}");
        let is_told = !opened.report.is_empty();
        assert_eq!(
            is_told,
            !bounds.contains(&cut),
            "cut at {cut}: {:?}",
            opened.report
        );
        append(&mut opened, 1, 10);
        assert_eq!(partition.high_watermark(), expected + 2);
    }
}

/// E-05.
#[test]
fn a_byte_that_is_flipped_anywhere_costs_its_batch_alone() {
    let left = left_open(6, 40);
    let path = &files(&left, "log")[0];
    let log = left.bytes(path).unwrap();
    let bounds = bounds(&log);
    let all = stored(&log).unwrap();
    let mut dice = Dice::seeded(5);
    for at in bounds[3]..log.len() {
        let batch = bounds.iter().filter(|start| **start <= at).count() - 1;
        // Neither the offset nor the epoch is part of the checksum.
        let field = at - bounds[batch];
        let mut flipped = log.clone();
        flipped[at] ^= 1 << dice.below(8);
        let disk = left.kill();
        disk.put(path, &flipped);
        let mut opened = opened(&disk);
        let partition = partition(&opened);
        let found = read(&partition);
        if (12..16).contains(&field) {
            assert_eq!(found.len(), all.len(), "epoch of batch {batch}");
            continue;
        }
        let mut expected = all.clone();
        expected.drain(2 * batch..2 * batch + 2);
        if field < 8 && batch == 5 {
            // The last batch may be where it says, after others that are gone.
            let ids = |records: &[Stored]| records.iter().map(|one| one.id).collect::<Vec<_>>();
            assert!(
                [ids(&all), ids(&expected)].contains(&ids(&found)),
                "{found:?}"
            );
        } else {
            assert_eq!(found, expected, "byte {field} of batch {batch}");
            assert!(!opened.report.is_empty(), "byte {field} of batch {batch}");
        }
        let end = partition.high_watermark();
        append(&mut opened, 1, 10);
        assert_eq!(partition.high_watermark(), end + 2);
    }
}

/// What look-ups answer: the offsets of batches by offset, and offsets by time.
type Answers = Vec<(i64, Option<(i64, i64)>)>;

fn looked_up(disk: &Sim) -> Answers {
    let opened = opened(disk);
    let partition = partition(&opened);
    let end = usize::try_from(partition.high_watermark()).unwrap();
    let mut dice = Dice::seeded(3);
    let answer = |_| {
        let offset = i64::try_from(dice.below(end)).unwrap();
        let bytes = partition.read(offset, 1).unwrap();
        let time_ms = BEGAN_MS - 1000 + 500 * i64::try_from(dice.below(end + 4)).unwrap();
        let by_time = partition.offset_at_or_after(time_ms).unwrap();
        (View::read(&bytes).unwrap().0.base_offset(), by_time)
    };
    (0..1000).map(answer).collect()
}

/// E-07 and E-08.
#[test]
fn indexes_that_are_missing_short_random_or_ahead_of_their_log_change_no_answer() {
    for left in [left_open(400, 200), closed(400, 200)] {
        let expected = looked_up(&left.kill());
        let mut dice = Dice::seeded(9);
        for extension in ["index", "timeindex"] {
            let paths = files(&left, extension);
            assert!(paths.len() > 2, "{paths:?}");
            for (path, kind) in paths
                .iter()
                .flat_map(|path| (0..5).map(move |kind| (path, kind)))
            {
                let disk = left.kill();
                let mut bytes = disk.bytes(path).unwrap();
                match kind {
                    0 => disk.take(path),
                    1 => disk.put(path, &bytes[..dice.below(bytes.len().max(1))]),
                    2 => {
                        bytes.fill_with(|| dice.next().to_le_bytes()[0]);
                        disk.put(path, &bytes);
                    }
                    3 => {
                        // Entries beyond the end of the log, in order.
                        let entry = if extension == "index" { 8 } else { 12 };
                        for ahead in 1..5_u8 {
                            let mut more = vec![0x7f; entry];
                            more[entry - 1] = ahead;
                            more[3] = ahead;
                            bytes.extend(more);
                        }
                        disk.put(path, &bytes);
                    }
                    _ => {
                        let at = dice.below(bytes.len().max(1));
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte ^= 1 << dice.below(8);
                        }
                        disk.put(path, &bytes);
                    }
                }
                assert_eq!(looked_up(&disk), expected, "{kind} of {}", path.display());
            }
        }
    }
}

#[test]
fn a_partition_that_retention_empties_goes_on_where_it_ended() {
    for (after, seed) in (6..22).flat_map(|after| (0..40).map(move |seed| (after, seed))) {
        let disk = Sim::new(seed, Path::new(DIR).parent().unwrap());
        let mut opened = opened(&disk);
        append(&mut opened, 3, 40);
        let partition = partition(&opened);
        let commands = [
            Command::Roll(Arc::clone(&partition)),
            Command::DeleteBelow(partition, 6),
        ];
        for command in commands {
            opened.log.ask(command, Box::new(|_| ())).unwrap();
        }
        disk.stop_after(Some(after));
        opened.appender.turn();
        let end = after_a_power_cut(&disk, seed);
        assert_eq!(end, 6, "cut after {after} operations, seed {seed}");
    }
}

/// Where the partition ends.
fn after_a_power_cut(disk: &Sim, seed: u64) -> i64 {
    partition(&opened(&disk.power_cut(seed))).high_watermark()
}

/// What was written is there when the process was killed, and the machine was not.
#[test]
fn a_process_that_is_killed_loses_nothing_that_it_wrote() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        assert_eq!(world.open(Left::Closed), Ok(true));
        for _ in 0..50 {
            for lane in 0..world.lanes.len() {
                world.offer(lane).unwrap();
            }
            world.turn_appender().unwrap();
        }
        // No turn of the flusher: nothing is safe, and everything is written.
        world.stop(Left::Killed);
        assert_eq!(world.open(Left::Killed), Ok(true));
        world.all_is_there().unwrap();
    }
}
