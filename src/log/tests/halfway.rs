//! A disk that fails in the middle of something: what is at work and what is on disk stay the same log.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{super::*, rig::*};
use crate::base::disk::{
    Disk,
    sim::{Fault, Plan, Sim},
};

/// Four segments of ten batches of ten records, the last of them active.
fn four_segments(sim: &Sim) -> Rig {
    let mut rig = Rig::on(sim);
    for number in 0..40 {
        if number % 10 == 0 {
            let partition = rig.partition(DURABLE);
            rig.ask(Command::Roll(partition)).unwrap();
        }
        rig.append(DURABLE, batch(number * 10, 10)).unwrap();
    }
    rig
}

/// The batches from 100 to 300 of which `stays` holds, made to take their place.
fn cleaned(rig: &Rig, stays: impl Fn(i64) -> bool) -> std::io::Result<Cleaned> {
    let partition = rig.partition(DURABLE);
    let mut cleaned = Cleaned::begin(&partition, &**rig.log.disk(), 100)?;
    let mut next = 100;
    while next < 300 {
        let bytes = partition.read(next, 1).unwrap();
        let view = View::read(&bytes).unwrap().0;
        if stays(view.base_offset()) {
            cleaned.write(&bytes)?;
        }
        next = view.last_offset() + 1;
    }
    cleaned.finish()
}

/// Lets the appender look at what is not well.
fn pass_some_time(rig: &mut Rig) {
    for _ in 0..3 {
        rig.clock.advance_ms(1_000);
        rig.settle();
    }
}

/// Every segment at work has, under its name, the bytes that it says it has.
fn assert_as_on_disk(rig: &Rig, sim: &Sim, step: u64) {
    for segment in rig.partition(DURABLE).segments() {
        let name = format!("durable-0/{:020}.log", segment.base_offset);
        let path: PathBuf = Path::new(DIR).join(name);
        let bytes = sim.bytes(&path).map(|bytes| bytes.len() as u64);
        assert_eq!(bytes, Some(segment.bytes), "step {step}: {path:?}");
    }
}

fn fail_at(sim: &Sim, step: u64, count: u64) {
    sim.plan(Some(Plan {
        from: sim.operations() + step,
        count,
        fault: Fault::Eio,
    }));
}

#[test]
fn a_swap_that_failed_half_way_comes_to_its_end_while_the_log_is_at_work() {
    for (step, count) in (0..40).flat_map(|step| [(step, 1), (step, 2), (step, 5)]) {
        let sim = Sim::new(step, Path::new("/"));
        let mut rig = four_segments(&sim);
        let partition = rig.partition(DURABLE);
        let old = numbers(&partition, 0);
        let is_half = |offset: i64| offset % 20 == 0;
        let new = cleaned(&rig, is_half).unwrap();
        fail_at(&sim, step, count);
        let run = vec![100, 200];
        let replace = Command::Replace(Arc::clone(&partition), run, Box::new(new));
        let is_done = rig.ask(replace).is_ok();
        let is_over = is_done
            && sim
                .plan(None)
                .is_some_and(|plan| plan.from > sim.operations());
        sim.plan(None);
        // A reader has met something odd, and it is looked into.
        let mended = rig.ask(Command::Mend(Arc::clone(&partition), 100));
        assert!(mended.is_ok(), "step {step}: {mended:?}");
        pass_some_time(&mut rig);
        assert_as_on_disk(&rig, &sim, step);
        let found = numbers(&partition, 0);
        let kept = |(offset, _): &&(i64, u64)| !(100..300).contains(offset) || offset % 20 < 10;
        let halved: Vec<_> = old.iter().filter(kept).copied().collect();
        assert!(found == old || found == halved, "step {step}: {found:?}");
        // The next pass does better.
        let bases = partition.segments().into_iter().map(|one| one.base_offset);
        let run: Vec<_> = bases.filter(|base| (100..300).contains(base)).collect();
        let new = cleaned(&rig, |offset| offset % 40 == 0).unwrap();
        let replace = Command::Replace(Arc::clone(&partition), run, Box::new(new));
        let again = rig.ask(replace);
        assert!(again.is_ok(), "step {step}: {again:?}");
        assert_as_on_disk(&rig, &sim, step);
        let expected = numbers(&partition, 0);
        let next = match step % 2 {
            0 => sim.kill(),
            _ => sim.power_cut(step),
        };
        let rig = Rig::on(&next);
        let found = numbers(&rig.partition(DURABLE), 0);
        assert_eq!(found, expected, "step {step}: {:?}", rig.report);
        if is_over {
            return;
        }
    }
    panic!("a swap takes more steps than that");
}

#[test]
fn a_mend_after_a_swap_that_failed_half_way_costs_no_other_segment() {
    for step in 0..40 {
        let sim = Sim::new(step, Path::new("/"));
        let mut rig = four_segments(&sim);
        let partition = rig.partition(DURABLE);
        let new = cleaned(&rig, |_| true).unwrap();
        let mut expected = numbers(&partition, 0);
        let path = Path::new(DIR).join("durable-0/00000000000000000100.log");
        let mut bytes = sim.bytes(&path).unwrap();
        bytes[HEADER_BYTES + 5] ^= 1;
        sim.put(&path, &bytes);
        fail_at(&sim, step, 1);
        let run = vec![100, 200];
        let replace = Command::Replace(Arc::clone(&partition), run, Box::new(new));
        let _ = rig.ask(replace);
        sim.plan(None);
        let _ = rig.ask(Command::Mend(Arc::clone(&partition), 100));
        let rig = Rig::on(&sim.kill());
        let is_other = |(offset, _): &(i64, u64)| !(100..110).contains(offset);
        let mut found = numbers(&rig.partition(DURABLE), 0);
        found.retain(is_other);
        expected.retain(is_other);
        assert_eq!(found, expected, "step {step}: {:?}", rig.report);
    }
}

#[test]
fn a_mend_that_failed_half_way_leaves_what_is_on_disk() {
    for step in 0..40 {
        let sim = Sim::new(step, Path::new("/"));
        let rig = four_segments(&sim);
        let path = Path::new(DIR).join("durable-0/00000000000000000100.log");
        let mut bytes = sim.bytes(&path).unwrap();
        bytes[HEADER_BYTES + 5] ^= 1;
        sim.put(&path, &bytes);
        rig.close();
        let mut rig = Rig::on(&sim);
        let partition = rig.partition(DURABLE);
        fail_at(&sim, step, 1);
        let is_done = rig.ask(Command::Mend(Arc::clone(&partition), 100)).is_ok();
        let is_over = sim
            .plan(None)
            .is_some_and(|plan| plan.from > sim.operations());
        pass_some_time(&mut rig);
        assert_as_on_disk(&rig, &sim, step);
        if is_over {
            assert!(is_done);
            assert_eq!(numbers(&partition, 0).len(), 390);
            return;
        }
    }
    panic!("a mend takes more steps than that");
}

#[test]
fn what_could_not_be_removed_is_when_it_is_asked_for_again() {
    for step in 0..40 {
        let sim = Sim::new(step, Path::new("/"));
        let mut rig = four_segments(&sim);
        let partition = rig.partition(DURABLE);
        fail_at(&sim, step, 1);
        let delete = || Command::DeleteBelow(Arc::clone(&partition), 300);
        let is_done = rig.ask(delete()).is_ok();
        let is_over = sim
            .plan(None)
            .is_some_and(|plan| plan.from > sim.operations());
        assert_eq!(partition.log_start_offset(), 300, "step {step}");
        rig.ask(delete()).unwrap();
        let names = sim.names(&Path::new(DIR).join("durable-0")).unwrap();
        let logs: Vec<_> = names.iter().filter(|name| name.ends_with(".log")).collect();
        assert_eq!(logs, ["00000000000000000300.log"], "step {step}");
        assert_eq!(numbers(&partition, 300).len(), 100);
        if is_over {
            assert!(is_done);
            return;
        }
    }
    panic!("deleting takes more steps than that");
}
