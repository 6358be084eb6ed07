//! Rolling, deleting and replacing segments, also where a crash comes in between.

use std::{path::Path, sync::Arc};

use super::{super::*, rig::*};
use crate::base::disk::{
    Disk,
    sim::{Fault, Plan, Sim},
};

/// Five segments of ten batches of ten records.
fn five_segments(sim: &Sim) -> Rig {
    let mut rig = Rig::on(sim);
    for segment in 0..5 {
        for batch_number in 0..10 {
            rig.append(DURABLE, batch(segment * 100 + batch_number * 10, 10))
                .unwrap();
        }
        if segment < 4 {
            let partition = rig.partition(DURABLE);
            rig.ask(Command::Roll(partition)).unwrap();
        }
    }
    assert_eq!(bases(&rig), [0, 100, 200, 300, 400]);
    rig
}

fn bases(rig: &Rig) -> Vec<i64> {
    let segments = rig.partition(DURABLE).segments();
    segments.iter().map(|segment| segment.base_offset).collect()
}

/// Every second batch of the segments from 100 on, to take their place.
fn half_of(rig: &Rig, from: i64, to: i64) -> std::io::Result<Cleaned> {
    let partition = rig.partition(DURABLE);
    let mut cleaned = Cleaned::begin(&partition, &**rig.log.disk(), from)?;
    for offset in (from..to).step_by(20) {
        cleaned.write(&partition.read(offset, 1).unwrap())?;
    }
    cleaned.finish()
}

#[test]
fn a_roll_closes_a_segment_that_has_something() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = Rig::on(&sim);
    let partition = rig.partition(DURABLE);
    rig.ask(Command::Roll(Arc::clone(&partition))).unwrap();
    assert_eq!(bases(&rig), [0]);
    rig.append(DURABLE, batch(0, 3)).unwrap();
    rig.ask(Command::Roll(partition)).unwrap();
    assert_eq!(bases(&rig), [0, 3]);
}

#[test]
fn a_segment_is_closed_when_it_is_old_or_large() {
    let sim = Sim::new(1, Path::new("/"));
    let mut settings = settings(Path::new(DIR));
    settings.topics[1].config.segment_age = std::time::Duration::from_secs(60);
    settings.topics[1].config.segment_bytes = 1_000;
    let mut rig = Rig::with(settings, Arc::new(sim));
    rig.append(DURABLE, batch(0, 1)).unwrap();
    rig.clock.advance_ms(59_000);
    rig.append(DURABLE, batch(1, 1)).unwrap();
    assert_eq!(bases(&rig), [0]);
    // A clock that is set closes nothing.
    rig.clock.set_unix_ms(NOW_MS * 3);
    rig.append(DURABLE, batch(2, 1)).unwrap();
    assert_eq!(bases(&rig), [0]);
    rig.clock.advance_ms(1_000);
    rig.append(DURABLE, batch(3, 1)).unwrap();
    assert_eq!(bases(&rig), [0, 3]);
    rig.append(DURABLE, batch(4, 30)).unwrap();
    assert_eq!(bases(&rig), [0, 3, 4]);
    assert_eq!(numbers(&rig.partition(DURABLE), 0).len(), 34);
}

#[test]
fn a_segment_that_came_back_within_the_one_that_took_its_place_goes() {
    let mut sim = Sim::new(1, Path::new("/"));
    let mut rig = five_segments(&sim);
    let partition = rig.partition(DURABLE);
    let old = partition.dir.join("00000000000000000200.log");
    let bytes = sim.bytes(&old).unwrap();
    let mut cleaned = Cleaned::begin(&partition, &sim, 100).unwrap();
    for offset in (110..300).step_by(20) {
        cleaned.write(&partition.read(offset, 1).unwrap()).unwrap();
    }
    let cleaned = Box::new(cleaned.finish().unwrap());
    rig.ask(Command::Replace(partition, vec![100, 200], cleaned))
        .unwrap();
    let expected = numbers(&rig.partition(DURABLE), 0);
    for was_clean in [false, true] {
        match was_clean {
            true => rig.close(),
            false => drop(rig),
        }
        sim = sim.kill();
        sim.put(&old, &bytes);
        rig = Rig::on(&sim);
        assert_eq!(bases(&rig), [0, 100, 300, 400], "{was_clean}");
        assert!(rig.report.contains(&Found::Removed(old.clone())));
        assert_eq!(numbers(&rig.partition(DURABLE), 0), expected);
    }
}

#[test]
fn deleting_moves_the_logs_start_and_a_restart_does_not_move_it_back() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = five_segments(&sim);
    let partition = rig.partition(DURABLE);
    let before = partition.read(150, 1).unwrap();
    rig.ask(Command::DeleteBelow(Arc::clone(&partition), 250))
        .unwrap();
    assert_eq!(bases(&rig), [200, 300, 400]);
    assert_eq!(partition.log_start_offset(), 250);
    let error = partition.read(249, 1).unwrap_err();
    assert!(matches!(
        error,
        ReadError::OutOfRange {
            first: 250,
            end: 500
        }
    ));
    assert_eq!(View::read(&before).unwrap().0.base_offset(), 150);
    rig.close();
    let mut rig = Rig::on(&sim.power_cut(1));
    let partition = rig.partition(DURABLE);
    assert_eq!(partition.log_start_offset(), 250);
    // Beyond its end, the active segment stays.
    rig.ask(Command::DeleteBelow(Arc::clone(&partition), i64::MAX))
        .unwrap();
    assert_eq!(
        (bases(&rig), partition.log_start_offset()),
        (vec![400], 500)
    );
    assert!(partition.read(500, 1).unwrap().is_empty());
    assert_eq!(rig.append(DURABLE, batch(500, 1)).unwrap().base_offset, 500);
}

#[test]
fn a_new_segment_takes_the_place_of_a_run_of_others() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = five_segments(&sim);
    let all = numbers(&rig.partition(DURABLE), 0);
    let kept = |(offset, _): &(i64, u64)| !(100..300).contains(offset) || offset % 20 < 10;
    let expected: Vec<_> = all.into_iter().filter(kept).collect();
    let cleaned = half_of(&rig, 100, 300).unwrap();
    let partition = rig.partition(DURABLE);
    let command = Command::Replace(Arc::clone(&partition), vec![100, 200], Box::new(cleaned));
    rig.ask(command).unwrap();
    assert_eq!(bases(&rig), [0, 100, 300, 400]);
    assert_eq!(numbers(&partition, 0), expected);
    // An offset that is gone is answered with the next.
    let bytes = partition.read(115, 1).unwrap();
    assert_eq!(View::read(&bytes).unwrap().0.base_offset(), 120);
    rig.close();
    assert_eq!(
        numbers(&Rig::on(&sim.power_cut(1)).partition(DURABLE), 0),
        expected
    );
}

#[test]
fn only_a_run_of_closed_segments_is_replaced() {
    let sim = Sim::new(1, Path::new("/"));
    let mut rig = five_segments(&sim);
    let before = numbers(&rig.partition(DURABLE), 0);
    for run in [
        vec![],
        vec![100, 300],
        vec![100],
        vec![200, 300],
        vec![100, 200, 300, 400],
        vec![7],
    ] {
        let cleaned = half_of(&rig, 100, 300).unwrap();
        let command = Command::Replace(rig.partition(DURABLE), run, Box::new(cleaned));
        assert!(matches!(rig.ask(command), Err(NotDone::NoRun)));
    }
    assert_eq!(numbers(&rig.partition(DURABLE), 0), before);
}

#[test]
fn a_crash_at_any_step_of_a_swap_leaves_the_old_or_the_new() {
    let mut olds = 0;
    let mut news = 0;
    for step in 0.. {
        let sim = Sim::new(step, Path::new("/"));
        let mut rig = five_segments(&sim);
        let old = numbers(&rig.partition(DURABLE), 0);
        let kept = |(offset, _): &&(i64, u64)| !(100..300).contains(offset) || offset % 20 < 10;
        let new: Vec<_> = old.iter().filter(kept).copied().collect();
        let from = sim.operations() + step;
        // From this step on, the machine is gone.
        sim.plan(Some(Plan {
            from,
            count: u64::MAX / 2,
            fault: Fault::Eio,
        }));
        let is_over = half_of_or_none(&rig).is_some_and(|cleaned| {
            let partition = rig.partition(DURABLE);
            let run = vec![100, 200];
            let command = Command::Replace(partition, run, Box::new(cleaned));
            rig.ask(command).is_ok()
        });
        let next = if step % 2 == 0 {
            sim.kill()
        } else {
            sim.power_cut(step)
        };
        let rig = Rig::on(&next);
        let found = numbers(&rig.partition(DURABLE), 0);
        olds += u64::from(found == old);
        news += u64::from(found == new);
        assert!(
            found == old || found == new,
            "step {step}: {:?}",
            rig.report
        );
        let names = next.names(&Path::new(DIR).join("durable-0")).unwrap();
        assert!(
            names
                .iter()
                .all(|name| !name.ends_with(".cleaned") && !name.ends_with(".swap"))
        );
        if is_over {
            break;
        }
    }
    assert!(olds > 3 && news > 3, "{olds} {news}");
}

fn half_of_or_none(rig: &Rig) -> Option<Cleaned> {
    let partition = rig.partition(DURABLE);
    let mut cleaned = Cleaned::begin(&partition, &**rig.log.disk(), 100).ok()?;
    for offset in (100..300).step_by(20) {
        cleaned.write(&partition.read(offset, 1).ok()?).ok()?;
    }
    cleaned.finish().ok()
}

#[test]
fn a_crash_at_any_step_of_a_roll_loses_nothing() {
    for step in 0.. {
        let sim = Sim::new(step, Path::new("/"));
        let mut rig = Rig::on(&sim);
        for number in 0..20 {
            rig.append(DURABLE, batch(number * 10, 10)).unwrap();
        }
        let expected = numbers(&rig.partition(DURABLE), 0);
        let from = sim.operations() + step;
        sim.plan(Some(Plan {
            from,
            count: u64::MAX / 2,
            fault: Fault::Eio,
        }));
        let command = Command::Roll(rig.partition(DURABLE));
        let is_over = rig.ask(command).is_ok();
        let is_over = is_over && rig.append(DURABLE, batch(200, 1)).is_ok();
        let next = if step % 2 == 0 {
            sim.kill()
        } else {
            sim.power_cut(step)
        };
        let mut rig = Rig::on(&next);
        let found = numbers(&rig.partition(DURABLE), 0);
        assert_eq!(found[..200], expected, "step {step}");
        let end = rig.partition(DURABLE).log_end_offset();
        assert_eq!(rig.append(DURABLE, batch(0, 1)).unwrap().base_offset, end);
        if is_over {
            break;
        }
    }
}
