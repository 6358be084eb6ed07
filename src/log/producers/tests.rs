//! Producers that number what they write: doubles, gaps, epochs, and what a restart remembers of them.

use std::sync::Arc;

use super::{
    snapshot::{decoded, encoded},
    *,
};
use crate::{
    base::disk::sim::Sim,
    log::{
        Appended, Batch, Command, NotAppended,
        tests::rig::{DIR, DURABLE, LAZY, NOW_MS, Rig, batch, numbered, numbers, settings},
    },
};
use std::path::Path;

const DAY_NS: u64 = REMEMBERED_NS;

/// A batch of `count` records of producer 7.
fn of(epoch: i16, sequence: i32, count: u64) -> Batch {
    numbered(&batch(1, count), 7, epoch, sequence)
}

/// Judges a batch, and takes it in at `offset` where it is new.
fn sent(
    producers: &mut Producers,
    mut batch: Batch,
    offset: i64,
    now_ns: u64,
) -> Result<Option<i64>, Reason> {
    let before = producers.judge(&batch, now_ns)?;
    if before.is_none() {
        batch.place(offset, 0);
        producers.took(&batch, now_ns);
    }
    Ok(before.map(|before| before.base_offset))
}

#[test]
fn numbers_follow_each_other_and_the_last_five_batches_are_known_again() {
    let mut producers = Producers::default();
    for batch in 0..8 {
        let sequence = 3 * batch;
        let offset = i64::from(100 + sequence);
        assert_eq!(
            sent(&mut producers, of(0, sequence, 3), offset, 0),
            Ok(None)
        );
    }
    for batch in 0..8 {
        let sequence = 3 * batch;
        let again = sent(&mut producers, of(0, sequence, 3), 500, 0);
        let expected = match batch {
            0..3 => Err(Reason::OutOfOrderSequence),
            _ => Ok(Some(i64::from(100 + sequence))),
        };
        assert_eq!(again, expected, "{sequence}");
    }
    for (sequence, count) in [(25, 1), (23, 1), (21, 4), (0, 1)] {
        let other = sent(&mut producers, of(0, sequence, count), 500, 0);
        assert_eq!(other, Err(Reason::OutOfOrderSequence), "{sequence}");
    }
    assert_eq!(sent(&mut producers, of(0, 24, 1), 500, 0), Ok(None));
}

#[test]
fn a_later_epoch_begins_anew_and_ends_the_one_before() {
    let mut producers = Producers::default();
    assert_eq!(
        sent(&mut producers, of(1, 40, 2), 0, 0),
        Ok(None),
        "unknown"
    );
    let skipped = sent(&mut producers, of(2, 5, 1), 2, 0);
    assert_eq!(skipped, Err(Reason::OutOfOrderSequence));
    assert_eq!(sent(&mut producers, of(3, 0, 1), 2, 0), Ok(None));
    // The same numbers, of who has the id no more.
    let fenced = sent(&mut producers, of(1, 40, 2), 3, 0);
    assert_eq!(fenced, Err(Reason::Fenced));
    assert_eq!(sent(&mut producers, of(3, 0, 1), 3, 0), Ok(Some(2)));
}

#[test]
fn after_the_last_number_comes_the_first() {
    let mut producers = Producers::default();
    let last = of(0, i32::MAX - 1, 4);
    assert_eq!(sent(&mut producers, last.clone(), 0, 0), Ok(None));
    assert_eq!(sent(&mut producers, last, 4, 0), Ok(Some(0)));
    assert_eq!(sent(&mut producers, of(0, 2, 1), 4, 0), Ok(None));
    let mut producers = Producers::default();
    assert_eq!(sent(&mut producers, of(0, i32::MAX, 1), 0, 0), Ok(None));
    assert_eq!(sent(&mut producers, of(0, 0, 1), 1, 0), Ok(None));
}

#[test]
fn who_is_silent_for_a_day_or_longest_among_too_many_is_forgotten() {
    let mut producers = Producers::default();
    sent(&mut producers, of(0, 0, 1), 0, 0).unwrap();
    sent(&mut producers, of(0, 1, 1), 1, 10).unwrap();
    let again = sent(&mut producers, of(0, 5, 1), 2, DAY_NS + 9);
    assert_eq!(again, Err(Reason::OutOfOrderSequence));
    assert_eq!(sent(&mut producers, of(0, 5, 1), 2, DAY_NS + 10), Ok(None));
    let other = |id| numbered(&batch(1, 1), id, 0, 0);
    for id in (100..).take(PRODUCERS_MAX - 1) {
        sent(&mut producers, other(id), 0, DAY_NS + 11).unwrap();
    }
    // Producer 7 is heard of once more, and 100 is not.
    sent(&mut producers, of(0, 6, 1), 3, DAY_NS + 12).unwrap();
    sent(&mut producers, other(99), 0, DAY_NS + 13).unwrap();
    assert_eq!(producers.known.len(), PRODUCERS_MAX);
    assert!(producers.known.contains_key(&7) && !producers.known.contains_key(&100));
    for round in 0..30_000 {
        sent(&mut producers, of(0, 7 + round, 1), 9, DAY_NS + 14).unwrap();
        assert!(producers.heard.len() <= 2 * PRODUCERS_MAX + HEARD_SPARE);
    }
}

#[test]
fn a_file_is_as_kafka_writes_it() {
    let mut producers = Producers::default();
    sent(&mut producers, of(3, 0, 2), 40, 0).unwrap();
    let bytes = encoded(&producers);
    let timestamp = (NOW_MS + 1).to_be_bytes();
    let entry = [
        &7_i64.to_be_bytes()[..],
        &3_i16.to_be_bytes(),
        &1_i32.to_be_bytes(),
        &41_i64.to_be_bytes(),
        &1_i32.to_be_bytes(),
        &timestamp,
        &(-1_i32).to_be_bytes(),
        &(-1_i64).to_be_bytes(),
    ]
    .concat();
    assert_eq!(bytes[..2], 1_i16.to_be_bytes());
    assert_eq!(bytes[2..6], crc32c::crc32c(&bytes[6..]).to_be_bytes());
    assert_eq!(bytes[6..10], 1_i32.to_be_bytes());
    assert_eq!(bytes[10..], entry);
}

#[test]
fn files_are_read_back_and_what_is_damaged_is_none() {
    let mut producers = Producers::default();
    for sequence in 0..7 {
        sent(&mut producers, of(0, sequence, 1), sequence.into(), 0).unwrap();
        let other = numbered(&batch(1, 2), i64::from(sequence), 2, 9);
        sent(&mut producers, other, 100, 0).unwrap();
    }
    let bytes = encoded(&producers);
    let mut back = decoded(&bytes, 5).unwrap();
    assert_eq!(encoded(&back), bytes);
    assert_eq!(back.facts(), producers.facts());
    assert_eq!(sent(&mut back, of(0, 2, 1), 50, 5), Ok(Some(2)));
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert!(decoded(&flipped, 5).is_none(), "{at}");
        assert!(decoded(&bytes[..at], 5).is_none(), "{at}");
    }
}

fn disk() -> Sim {
    Sim::new(1, Path::new("/"))
}

fn appended(rig: &mut Rig, topic: &str, batch: Batch) -> Result<Appended, Reason> {
    let result = rig.append(topic, batch);
    result.map_err(|NotAppended { reason, .. }| reason)
}

/// a duplicate has the same offsets, a gap and an old epoch are refused, and all of it outlives a stop,
/// a kill, and files that are damaged or gone.
#[test]
fn producers_are_known_again_however_the_log_was_left() {
    for topic in [LAZY, DURABLE] {
        for left in 0..5 {
            let disk = disk();
            let mut rig = Rig::on(&disk);
            let partition = rig.partition(topic);
            let mut first = Vec::new();
            for sequence in 0..4 {
                if sequence == 2 {
                    rig.ask(Command::Roll(Arc::clone(&partition))).unwrap();
                }
                first.push(appended(&mut rig, topic, of(1, 2 * sequence, 2)).unwrap());
            }
            let path = |offset: i64| partition.dir.join(format!("{offset:020}.snapshot"));
            let disk = match left {
                0 => {
                    rig.close();
                    disk.power_cut(3)
                }
                1 => disk.kill(),
                2 => disk.power_cut(3),
                3 => {
                    rig.close();
                    let mut bytes = disk.bytes(&path(8)).unwrap();
                    bytes[20] ^= 1;
                    disk.put(&path(8), &bytes);
                    disk.kill()
                }
                _ => {
                    rig.close();
                    disk.take(&path(8));
                    disk.take(&path(4));
                    disk.kill()
                }
            };
            let mut rig = Rig::on(&disk);
            if topic == LAZY && left == 2 {
                // What was not safe may be gone, and its numbers with it.
                continue;
            }
            for (sequence, first) in (0..4).zip(&first) {
                let again = appended(&mut rig, topic, of(1, 2 * sequence, 2));
                assert_eq!(again, Ok(*first), "{topic}, left {left}");
            }
            let gap = appended(&mut rig, topic, of(1, 9, 1));
            assert_eq!(gap, Err(Reason::OutOfOrderSequence));
            assert_eq!(appended(&mut rig, topic, of(0, 8, 1)), Err(Reason::Fenced));
            let next = appended(&mut rig, topic, of(1, 8, 1)).unwrap();
            assert_eq!(next.base_offset, 8);
            assert_eq!(numbers(&rig.partition(topic), 0).len(), 9);
        }
    }
}

#[test]
fn a_duplicate_is_acknowledged_only_when_the_first_is_safe() {
    let disk = disk();
    let mut rig = Rig::on(&disk);
    let first = rig.offer(DURABLE, of(0, 0, 1));
    let second = rig.offer(DURABLE, of(0, 0, 1));
    rig.appender.turn();
    assert!(first.lock().unwrap().is_none() && second.lock().unwrap().is_none());
    rig.settle();
    let told = |outcome: &super::super::tests::rig::Outcome| outcome.lock().unwrap().take();
    let first = told(&first).unwrap().unwrap();
    assert_eq!(told(&second).unwrap().unwrap(), first);
    assert_eq!(appended(&mut rig, DURABLE, of(0, 0, 1)), Ok(first));
    assert_eq!(rig.partition(DURABLE).high_watermark(), 1);
}

#[test]
fn what_could_not_be_made_safe_is_new_when_it_is_sent_again() {
    use crate::base::disk::sim::{Fault, Plan};
    let disk = disk();
    let mut rig = Rig::on(&disk);
    assert!(appended(&mut rig, DURABLE, of(0, 0, 1)).is_ok());
    let lost = rig.offer(DURABLE, of(0, 1, 1));
    rig.appender.turn();
    rig.ask_later(Command::Roll(rig.partition(DURABLE)));
    rig.appender.turn();
    disk.plan(Some(Plan {
        from: disk.operations(),
        count: 1,
        fault: Fault::Eio,
    }));
    rig.settle();
    disk.plan(None);
    assert!(lost.lock().unwrap().take().unwrap().is_err());
    for _ in 0..3 {
        rig.clock.advance_ms(1_500);
        rig.settle();
    }
    let again = appended(&mut rig, DURABLE, of(0, 1, 1)).unwrap();
    assert_eq!(again.base_offset, 1);
    let mut rig = Rig::on(&disk.power_cut(9));
    assert_eq!(appended(&mut rig, DURABLE, of(0, 1, 1)), Ok(again));
    assert_eq!(numbers(&rig.partition(DURABLE), 0).len(), 2);
}

#[test]
fn it_is_told_which_producers_there_are() {
    let mut rig = Rig::on(&disk());
    appended(&mut rig, LAZY, of(2, 0, 3)).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let tell = crate::log::TellProducers(Box::new(move |facts| tell.send(facts).unwrap()));
    let asked = Command::Producers(rig.partition(LAZY), tell);
    rig.ask(asked).unwrap();
    let expected = ProducerFacts {
        id: 7,
        epoch: 2,
        last_sequence: 2,
        last_timestamp_ms: i64::try_from(NOW_MS + 1).unwrap(),
    };
    assert_eq!(told.try_recv().unwrap(), [expected]);
}

#[test]
fn what_a_power_cut_took_before_a_batch_is_taken_when_it_is_sent_again() {
    let mut producers = Producers::default();
    let at = |sequence: i32, count, offset| {
        let mut batch = of(0, sequence, count);
        batch.place(offset, 0);
        batch
    };
    producers.took(&at(0, 2, 0), 0);
    // 2 to 7 and their offsets are missing.
    producers.gap_end = Some(8);
    producers.took(&at(8, 1, 8), 0);
    producers.gap_end = None;
    assert!(producers.has_missing());
    let refused = [(1, 2), (7, 2), (2, 7), (10, 1)];
    for (sequence, count) in refused {
        let other = sent(&mut producers, of(0, sequence, count), 9, 0);
        assert_eq!(other, Err(Reason::OutOfOrderSequence), "{sequence}");
    }
    assert_eq!(sent(&mut producers, of(0, 2, 2), 9, 0), Ok(None));
    assert_eq!(sent(&mut producers, of(0, 2, 2), 11, 0), Ok(Some(9)));
    assert_eq!(sent(&mut producers, of(0, 4, 4), 11, 0), Ok(None));
    assert!(!producers.has_missing());
    assert_eq!(sent(&mut producers, of(0, 8, 1), 15, 0), Ok(Some(8)));
    assert_eq!(sent(&mut producers, of(0, 4, 4), 15, 0), Ok(Some(11)));
    assert_eq!(sent(&mut producers, of(0, 9, 1), 15, 0), Ok(None));
}

#[test]
fn what_follows_a_first_batch_that_could_not_be_written_is_not_taken_before_it() {
    use crate::base::disk::sim::{Fault, Plan};
    let disk = disk();
    let mut rig = Rig::on(&disk);
    disk.plan(Some(Plan {
        from: disk.operations(),
        count: 2,
        fault: Fault::Enospc,
    }));
    assert_eq!(
        appended(&mut rig, DURABLE, of(0, 0, 2)),
        Err(Reason::DiskFull)
    );
    disk.plan(None);
    let next = appended(&mut rig, DURABLE, of(0, 2, 1));
    assert_eq!(next, Err(Reason::OutOfOrderSequence));
    assert!(appended(&mut rig, DURABLE, of(0, 0, 2)).is_ok());
    assert!(appended(&mut rig, DURABLE, of(0, 2, 1)).is_ok());
}

#[test]
fn who_is_silent_longest_in_the_whole_log_is_forgotten_first() {
    let mut all = [Producers::default(), Producers::default()];
    let one = |id| numbered(&batch(1, 1), id, 0, 0);
    for id in 0..64 {
        let place = usize::from(id % 3 == 0);
        let heard_at_ns = u64::try_from(id).unwrap();
        sent(&mut all[place], one(id), 0, heard_at_ns).unwrap();
    }
    assert_eq!(fit(all.iter_mut(), 64), 64);
    // One in sixteen goes besides.
    assert_eq!(fit(all.iter_mut(), 32), 30);
    for id in 0..64 {
        let is_known = all.iter().any(|one| one.known.contains_key(&id));
        assert_eq!(is_known, id >= 34, "{id}");
    }
    assert!(all[0].known.capacity() < 128 && all[0].heard.len() <= 64);
}

/// What the log knows of producers in all partitions of a topic.
fn known(rig: &mut Rig, topic: &str) -> usize {
    let partitions = rig.log.topics().partitions_of(topic).to_vec();
    let known = partitions.into_iter().map(|partition| {
        let (tell, told) = std::sync::mpsc::channel();
        let tell =
            crate::log::TellProducers(Box::new(move |facts| tell.send(facts.len()).unwrap()));
        rig.ask(Command::Producers(partition, tell)).unwrap();
        told.try_recv().unwrap()
    });
    known.sum()
}

#[test]
fn a_log_remembers_so_many_producers_and_no_more_however_many_files_tell_of_them() {
    let disk = disk();
    let mut settings = settings(Path::new(DIR));
    settings.topics[0].partitions = 11;
    Rig::with(settings.clone(), Arc::new(disk.clone())).close();
    let mut producers = Producers::default();
    for id in (0..).take(PRODUCERS_MAX) {
        let mut batch = numbered(&batch(1, 1), id, 0, 0);
        batch.place(0, 0);
        producers.took(&batch, 0);
    }
    let bytes = encoded(&producers);
    for index in 0..11 {
        let path = format!("{DIR}/{LAZY}-{index}/{:020}.snapshot", 0);
        disk.put(Path::new(&path), &bytes);
    }
    let mut rig = Rig::with(settings, Arc::new(disk));
    let opened = known(&mut rig, LAZY);
    assert!(
        (ALL_PRODUCERS_MAX * 7 / 8..=ALL_PRODUCERS_MAX).contains(&opened),
        "{opened}"
    );
    // Those who come later are not forgotten for those who were silent.
    let more = ALL_PRODUCERS_MAX - opened + 1_024;
    for id in (0..).take(more).map(|id| 1_000_000 + id) {
        rig.clock.advance_ms(1);
        appended(&mut rig, DURABLE, numbered(&batch(1, 1), id, 0, 0)).unwrap();
    }
    rig.clock.advance_ms(1_000);
    rig.settle();
    let later = known(&mut rig, DURABLE);
    assert_eq!(later, more.min(PRODUCERS_MAX));
    assert!(later + known(&mut rig, LAZY) <= ALL_PRODUCERS_MAX);
}
