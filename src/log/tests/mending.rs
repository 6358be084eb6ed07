//! What rots in a closed segment costs the batch it is in.

use std::{fs, path::Path, sync::Arc};

use super::{super::*, rig::*};
use crate::base::disk::{Disk, System};

/// A log whose first segment was closed long ago.
fn two_segments(dir: &Path) -> Rig {
    let mut rig = Rig::open(dir);
    for number in 0..20 {
        rig.append(DURABLE, batch(number * 10, 10)).unwrap();
    }
    let partition = rig.partition(DURABLE);
    rig.log
        .ask(Command::Roll(partition), Box::new(|_| {}))
        .unwrap();
    rig.settle();
    rig.append(DURABLE, batch(200, 10)).unwrap();
    rig.close();
    Rig::open(dir)
}

/// Flips bits of the batch with offset 100.
fn rot(rig: &Rig, dir: &Path, at: usize) {
    let log = dir.join("durable-0/00000000000000000000.log");
    let mut bytes = fs::read(&log).unwrap();
    let batch = rig.partition(DURABLE).read(100, 1).unwrap();
    let position = bytes
        .windows(batch.len())
        .position(|own| own == batch)
        .unwrap();
    bytes[position + at] ^= 0x55;
    fs::write(&log, bytes).unwrap();
}

#[test]
fn a_header_that_rots_is_found_by_who_reads_and_costs_one_batch() {
    for byte in [8, 16] {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = two_segments(dir.path());
        let partition = rig.partition(DURABLE);
        let mut expected = numbers(&partition, 0);
        rot(&rig, dir.path(), byte);
        let error = partition.read(100, 1).unwrap_err();
        assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
        rig.clock.advance_ms(1_000);
        rig.settle();
        expected.retain(|(offset, _)| !(100..110).contains(offset));
        assert_eq!(numbers(&partition, 0), expected);
        assert_eq!(rig.log.health().mended.get(), 1);
        assert_eq!(
            fs::read_dir(dir.path().join("quarantine")).unwrap().count(),
            1
        );
        rig.close();
        let rig = Rig::open(dir.path());
        assert!(rig.was_clean && rig.report.is_empty(), "{:?}", rig.report);
        assert_eq!(numbers(&rig.partition(DURABLE), 0), expected);
    }
}

#[test]
fn a_record_that_rots_is_taken_out_when_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = two_segments(dir.path());
    let partition = rig.partition(DURABLE);
    let mut expected = numbers(&partition, 0);
    rot(&rig, dir.path(), HEADER_BYTES + 20);
    let bytes = partition.read(100, 1).unwrap();
    assert_eq!(View::read(&bytes).unwrap().0.verify(), Err(Damage::Crc));
    let mend = Command::Mend(rig.partition(DURABLE), 0);
    rig.log
        .ask(mend, Box::new(|result| result.unwrap()))
        .unwrap();
    rig.settle();
    expected.retain(|(offset, _)| !(100..110).contains(offset));
    assert_eq!(numbers(&partition, 0), expected);
}

#[test]
fn a_segment_is_mended_while_another_thread_compacts_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = two_segments(dir.path());
    let partition = rig.partition(DURABLE);
    let mut cleaned = Cleaned::begin(&partition, &System, 0).unwrap();
    cleaned.write(&partition.read(10, 1).unwrap()).unwrap();
    rot(&rig, dir.path(), 16);
    rig.ask(Command::Mend(Arc::clone(&partition), 0)).unwrap();
    assert_eq!(numbers(&partition, 0).len(), 200);
    cleaned.write(&partition.read(20, 1).unwrap()).unwrap();
    let cleaned = Box::new(cleaned.finish().unwrap());
    rig.ask(Command::Replace(partition, vec![0], cleaned))
        .unwrap();
    let left = numbers(&rig.partition(DURABLE), 10);
    let offsets: Vec<_> = left.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (10..30).chain(200..210).collect::<Vec<_>>());
}

#[test]
fn an_active_segment_is_closed_before_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    for number in 0..20 {
        rig.append(DURABLE, batch(number * 10, 10)).unwrap();
    }
    let partition = rig.partition(DURABLE);
    rot(&rig, dir.path(), 16);
    partition.read(100, 1).unwrap_err();
    rig.clock.advance_ms(1_000);
    rig.settle();
    assert_eq!(numbers(&partition, 0).len(), 190);
    assert_eq!(rig.append(DURABLE, batch(200, 1)).unwrap().base_offset, 200);
    assert_eq!(numbers(&partition, 0).len(), 191);
}

#[test]
fn what_looks_like_batches_in_a_damaged_one_does_not_cost_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.topics[1].config.segment_bytes = 8 << 20;
    let disk: Arc<dyn Disk> = Arc::new(System);
    let mut rig = Rig::with(settings.clone(), Arc::clone(&disk));
    rig.append(DURABLE, batch(0, 10)).unwrap();
    // Headers of batches that would go on for a mebibyte, and cannot stand there.
    let mut header = batch(0, 1).bytes().get(..HEADER_BYTES).unwrap().to_vec();
    header[8..12].copy_from_slice(&(1_i32 << 20).to_be_bytes());
    let mut builder = Builder::new();
    builder.push(0, Some(b"key"), Some(&header.repeat(400)), &[]);
    let hostile = builder.finish(Compression::None);
    let size = hostile.bytes().len();
    rig.append(DURABLE, hostile).unwrap();
    for number in 0..400 {
        rig.append(DURABLE, batch(number * 100, 100)).unwrap();
    }
    drop(rig);
    let log = dir.path().join("durable-0/00000000000000000000.log");
    let mut bytes = fs::read(&log).unwrap();
    assert!(bytes.len() > (1 << 20) + size);
    let at = batch(0, 10).bytes().len();
    bytes[at + 16] ^= 0x55;
    fs::write(&log, bytes).unwrap();
    let rig = Rig::with(settings, disk);
    let found = numbers(&rig.partition(DURABLE), 0).len();
    assert_eq!(found, 10 + 40_000, "{:?}", rig.report);
}
