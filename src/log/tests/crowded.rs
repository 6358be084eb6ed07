//! A log with as many segments as it may have.

use std::{path::Path, sync::Arc, time::Duration};

use super::{
    super::{segment::SEGMENTS_MAX, *},
    rig::*,
};
use crate::base::disk::sim::Sim;

const FOREIGN: &str = "foreign";
const PARTITIONS: u32 = 64;

/// A log of which clients have a topic whose segments are closed every second.
fn crowded() -> (Sim, Rig) {
    let sim = Sim::new(1, Path::new("/"));
    let mut settings = settings(Path::new(DIR));
    let mut foreign = topic(FOREIGN, settings.topics[0].config.flush);
    foreign.partitions = PARTITIONS;
    foreign.config.segment_age = Duration::from_secs(1);
    foreign.config.segment_bytes = 4_000;
    foreign.config.is_reserved = false;
    settings.topics.push(foreign);
    for topic in &mut settings.topics {
        topic.config.segment_age = Duration::from_secs(1);
    }
    let rig = Rig::with(settings, Arc::new(sim.clone()));
    (sim, rig)
}

fn segments(rig: &Rig) -> usize {
    let all = rig.log.partitions();
    all.iter().map(|one| one.segments().len()).sum()
}

/// A second later, a record for each partition of that topic.
fn a_second_later(rig: &mut Rig) -> Vec<Result<Appended, Reason>> {
    rig.clock.advance_ms(1_000);
    let outcomes: Vec<_> = (0..PARTITIONS)
        .map(|index| {
            let outcome = Outcome::default();
            let told = Arc::clone(&outcome);
            let append = Append {
                partition: rig.log.partition(FOREIGN, index).unwrap(),
                batch: batch(1, 1),
                done: Box::new(move |result| *told.lock().unwrap() = Some(result)),
            };
            rig.log.appends().offer(append).unwrap();
            outcome
        })
        .collect();
    rig.settle();
    let told = outcomes
        .iter()
        .map(|one| one.lock().unwrap().take().unwrap());
    told.map(|told| told.map_err(|not| not.reason)).collect()
}

#[test]
fn what_clients_write_begins_no_more_segments_than_a_log_may_have() {
    let (_, mut rig) = crowded();
    let mut rounds = 0;
    while segments(&rig) < SEGMENTS_MAX {
        assert!(a_second_later(&mut rig).iter().all(Result::is_ok));
        rounds += 1;
        assert!(rounds < 1_000, "{} segments", segments(&rig));
    }
    // They grow, and are closed for their age no more.
    for _ in 0..3 {
        assert!(a_second_later(&mut rig).iter().all(Result::is_ok));
    }
    assert_eq!(segments(&rig), SEGMENTS_MAX);
    // What would begin another is refused; Wardent's own topics go on.
    let mut refused = Vec::new();
    while refused.is_empty() {
        let told = a_second_later(&mut rig);
        refused.extend(told.into_iter().filter_map(Result::err));
    }
    assert!(refused.iter().all(|one| *one == Reason::TooManySegments));
    assert_eq!(segments(&rig), SEGMENTS_MAX);
    for topic in [DURABLE, LAZY] {
        rig.append(topic, batch(1, 1)).unwrap();
        rig.clock.advance_ms(1_000);
        rig.append(topic, batch(2, 1)).unwrap();
        assert_eq!(rig.partition(topic).segments().len(), 2);
    }
    // What retention deletes makes room.
    let partition = rig.log.partition(FOREIGN, 0).unwrap();
    let end = partition.high_watermark();
    rig.ask(Command::DeleteBelow(partition, end)).unwrap();
    rig.clock.advance_ms(1_000);
    rig.settle();
    assert!(a_second_later(&mut rig).iter().all(Result::is_ok));
}
