//! Whatever happens in between, what was acknowledged is found again: random acts on a disk that forgets.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{super::*, rig::*};
use crate::base::{
    disk::sim::{Fault, Plan, Sim},
    fuzz::Dice,
};

/// What must be found, by topic and offset.
type Promised = BTreeMap<(&'static str, i64), u64>;

struct Story {
    dice: Dice,
    next: u64,
    waiting: Vec<(&'static str, u64, u64, Outcome)>,
    promised: Promised,
    /// Whether the last crash was a power cut.
    forgot: bool,
}

impl Story {
    fn act(&mut self, rig: &mut Rig) {
        match self.dice.below(12) {
            0..=2 => self.offer(rig, LAZY),
            3..=5 => self.offer(rig, DURABLE),
            6..=7 => drop(rig.appender.turn()),
            8..=9 => drop(rig.flusher.turn()),
            10 => rig.clock.advance_ms(self.dice.below(12_000) as u64),
            _ => {
                let partition = rig.partition([LAZY, DURABLE][self.dice.below(2)]);
                let command = match self.dice.below(3) {
                    0 => Command::DeleteBelow(
                        Arc::clone(&partition),
                        i64::try_from(self.dice.below(100)).unwrap(),
                    ),
                    _ => Command::Roll(Arc::clone(&partition)),
                };
                drop(rig.log.ask(command, Box::new(|_| {})));
            }
        }
        self.hear();
    }

    fn offer(&mut self, rig: &mut Rig, topic: &'static str) {
        let count = 1 + self.dice.below(60) as u64;
        let outcome = rig.offer(topic, batch(self.next, count));
        self.waiting.push((topic, self.next, count, outcome));
        self.next += count;
    }

    fn hear(&mut self) {
        for (topic, number, count, outcome) in &self.waiting {
            if let Some(Ok(appended)) = outcome.lock().unwrap().take() {
                for ahead in 0..*count {
                    let offset = appended.base_offset + ahead.cast_signed();
                    self.promised.insert((topic, offset), number + ahead);
                }
            }
        }
    }

    /// Compares what was promised with what is there.
    fn check(&mut self, rig: &Rig, forgets: bool) {
        for topic in [LAZY, DURABLE] {
            let partition = rig.partition(topic);
            let start = partition.log_start_offset();
            let found: BTreeMap<i64, u64> = numbers(&partition, start).into_iter().collect();
            for (offset, number) in &found {
                let promised = self.promised.get(&(topic, *offset));
                let may_differ = forgets && topic == LAZY;
                assert!(may_differ || promised.is_none_or(|promised| promised == number));
            }
            let mut all: Vec<_> = found.values().collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), found.len(), "{topic}: a record is there twice");
            if forgets && topic == LAZY {
                self.promised.retain(|(own, _), _| *own != topic);
            }
            for ((own, offset), number) in &self.promised {
                if *own == topic && *offset >= start {
                    assert_eq!(
                        found.get(offset),
                        Some(number),
                        "{topic} {offset} {start} {:?} {:?}",
                        rig.report,
                        partition.segments()
                    );
                }
            }
        }
    }
}

/// Something that will go wrong soon.
fn trouble(sim: &Sim, dice: &mut Dice) -> Plan {
    let faults = [
        Fault::Eio,
        Fault::Enospc,
        Fault::Eintr,
        Fault::Eagain,
        Fault::Short,
    ];
    Plan {
        from: sim.operations() + dice.below(30) as u64,
        count: [1, 2, 3, 500][dice.below(4)],
        fault: faults[dice.below(faults.len())],
    }
}

fn play(seed: u64, has_trouble: bool) {
    let mut story = Story {
        dice: Dice::seeded(seed),
        next: 0,
        waiting: Vec::new(),
        promised: Promised::new(),
        forgot: false,
    };
    let mut sim = Sim::new(seed, Path::new("/"));
    let mut clean = false;
    for round in 0..4 {
        let mut settings = settings(Path::new(DIR));
        for topic in &mut settings.topics {
            topic.config.segment_bytes = 8_000;
        }
        let mut rig = Rig::with(settings, Arc::new(sim.clone()));
        assert_eq!(rig.was_clean, clean);
        story.check(&rig, round > 0 && story.forgot);
        story.forgot = false;
        for _ in 0..story.dice.below(120) {
            if has_trouble && story.dice.below(8) == 0 {
                sim.plan(Some(trouble(&sim, &mut story.dice)));
            }
            story.act(&mut rig);
        }
        clean = story.dice.below(4) == 0;
        if clean {
            rig.appender.finish();
            clean = rig.flusher.finish();
            assert!(clean || has_trouble);
            story.hear();
        }
        sim.plan(None);
        story.waiting.clear();
        sim = match story.dice.below(2) {
            0 => sim.kill(),
            _ => {
                story.forgot = !clean;
                sim.power_cut(story.dice.next())
            }
        };
    }
}

fn play_all(has_trouble: bool) {
    let seeds = std::env::var("WARDENT_LOG_SEEDS").ok();
    let seeds = seeds.map_or(60, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let played = std::panic::catch_unwind(|| play(seed, has_trouble));
        assert!(played.is_ok(), "seed {seed}, trouble {has_trouble}");
    }
}

#[test]
fn what_was_acknowledged_is_found_again() {
    play_all(false);
}

#[test]
fn what_was_acknowledged_is_found_again_on_a_disk_that_fails() {
    play_all(true);
}
