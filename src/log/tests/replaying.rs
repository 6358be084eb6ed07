//! A partition that is read back whole, though something in it rotted.

use std::{path::Path, sync::Arc};

use super::{super::*, rig::*};
use crate::base::disk::sim::{Fault, Plan, Sim};

/// Two segments of ten batches of ten records each, and a third with one batch.
fn three_segments(sim: &Sim) -> Rig {
    let mut rig = Rig::on(sim);
    for number in 0..21 {
        if number == 10 || number == 20 {
            let partition = rig.partition(DURABLE);
            rig.ask(Command::Roll(partition)).unwrap();
        }
        rig.append(DURABLE, batch(number * 10, 10)).unwrap();
    }
    rig
}

/// Flips bits of a byte of the batch with this offset.
fn rot(rig: &Rig, sim: &Sim, segment: i64, offset: i64, at: usize) {
    let partition = rig.partition(DURABLE);
    let path = partition.dir.join(format!("{segment:020}.log"));
    let batch = partition.read(offset, 1).unwrap();
    let mut bytes = sim.bytes(&path).unwrap();
    let position = bytes.windows(batch.len()).position(|own| own == batch);
    bytes[position.unwrap() + at] ^= 0x55;
    sim.put(&path, &bytes);
}

/// Base offsets of the batches that a walk gives, and how often something was damaged.
fn walked(rig: &mut Rig, mends: bool) -> (Vec<i64>, u64) {
    let mut bases = Vec::new();
    let mut replay = Replay::of(rig.partition(DURABLE));
    loop {
        match replay.step(500).unwrap() {
            Replayed::Over => return (bases, replay.damaged()),
            Replayed::Damaged(base) if mends => {
                let partition = Arc::clone(replay.partition());
                rig.ask(Command::Mend(partition, base)).unwrap();
            }
            Replayed::Damaged(_) => {}
            Replayed::Batches(bytes) => {
                let mut rest = bytes.as_slice();
                while let Ok((view, after)) = View::read(rest) {
                    view.verify().unwrap();
                    bases.push(view.base_offset());
                    rest = after;
                }
                assert!(rest.is_empty());
            }
        }
    }
}

#[test]
fn a_batch_that_rotted_costs_itself() {
    // Base offset, length, format, checksum, last offset delta, a record.
    for at in [0, 7, 9, 11, 16, 17, 26, 100] {
        for rotten in [0, 40, 90, 110] {
            let sim = Sim::new(1, Path::new("/"));
            let mut rig = three_segments(&sim);
            rot(&rig, &sim, rotten / 100 * 100, rotten, at);
            let (bases, damaged) = walked(&mut rig, true);
            let expected: Vec<_> = (0..210)
                .step_by(10)
                .filter(|base| *base != rotten)
                .collect();
            assert_eq!(bases, expected, "byte {at} of {rotten}");
            // One that says that it stands where others were may be taken for one of those.
            let is_hidden = at == 7 && damaged == 0;
            assert!(damaged == 1 || is_hidden, "byte {at} of {rotten}");
        }
    }
}

#[test]
fn where_nothing_can_be_mended_no_more_than_a_segment_is_passed_over() {
    for at in [0, 9, 16, 100] {
        let sim = Sim::new(1, Path::new("/"));
        let mut rig = three_segments(&sim);
        rot(&rig, &sim, 0, 40, at);
        let (bases, damaged) = walked(&mut rig, false);
        assert!(damaged >= 1);
        assert_eq!(bases[..4], [0, 10, 20, 30], "byte {at}");
        assert!(bases.ends_with(&(100..210).step_by(10).collect::<Vec<_>>()));
        // Where it ends is not in doubt.
        assert_eq!(bases.contains(&50), at == 100, "byte {at}: {bases:?}");
    }
}

#[test]
fn a_disk_that_fails_is_no_damage() {
    let sim = Sim::new(1, Path::new("/"));
    let rig = three_segments(&sim);
    let mut replay = Replay::of(rig.partition(DURABLE));
    sim.plan(Some(Plan {
        from: sim.operations(),
        count: 1,
        fault: Fault::Eio,
    }));
    assert!(matches!(replay.step(500), Err(ReadError::Io(..))));
    sim.plan(None);
    assert!(matches!(replay.step(500), Ok(Replayed::Batches(bytes)) if !bytes.is_empty()));
    assert_eq!(replay.damaged(), 0);
}
