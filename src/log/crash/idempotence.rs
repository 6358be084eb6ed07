//! Idempotent producers that send again whatever was not acknowledged, over crashes and disks that fail: each
//! record is in the log once, in its order, where it was acknowledged to be.

use std::{collections::VecDeque, path::Path, sync::Arc};

use super::{model::Wrong, seeds};
use crate::{
    base::{
        disk::sim::{Fault, Plan, Sim},
        fuzz::Dice,
    },
    log::{
        Command, NotAppended, Reason,
        tests::rig::{DIR, DURABLE, LAZY, Outcome, Rig, batch, numbered, numbers, settings},
    },
};

const PRODUCERS: usize = 3;
/// What a client may have under way.
const UNDER_WAY_MAX: usize = 5;
/// Rounds within which all is acknowledged when nothing is wrong any more.
const ROUNDS_MAX: usize = 40;
/// What tells the records of producers apart.
const SPAN: u64 = 1_000_000;

/// A batch that is not acknowledged.
struct Unacknowledged {
    sequence: i32,
    count: u64,
    /// Each time it was sent since the log was opened.
    sent: Vec<Outcome>,
}

/// A client.
struct Client {
    id: u64,
    next: i32,
    under_way: VecDeque<Unacknowledged>,
    /// First record, how many, and the offset that was told.
    acknowledged: Vec<(i32, u64, i64)>,
    /// Something was refused, so that all that follows it is to be sent again.
    is_behind: bool,
    refused: Option<Reason>,
}

impl Client {
    fn new(id: u64) -> Self {
        Self {
            id,
            next: 0,
            under_way: VecDeque::new(),
            acknowledged: Vec::new(),
            is_behind: false,
            refused: None,
        }
    }

    fn send(&self, rig: &Rig, topic: &str, sequence: i32, count: u64) -> Outcome {
        let number = self.id * SPAN + u64::try_from(sequence).unwrap();
        let id = i64::try_from(self.id).unwrap();
        rig.offer(topic, numbered(&batch(number, count), id, 0, sequence))
    }

    fn send_new(&mut self, rig: &Rig, topic: &str, count: u64) {
        if self.under_way.len() < UNDER_WAY_MAX && !self.is_behind {
            let sent = vec![self.send(rig, topic, self.next, count)];
            self.under_way.push_back(Unacknowledged {
                sequence: self.next,
                count,
                sent,
            });
            self.next += i32::try_from(count).unwrap();
        }
    }

    fn send_again(&mut self, rig: &Rig, topic: &str) {
        for at in 0..self.under_way.len() {
            let (sequence, count) = (self.under_way[at].sequence, self.under_way[at].count);
            let outcome = self.send(rig, topic, sequence, count);
            self.under_way[at].sent.push(outcome);
        }
        self.is_behind = false;
    }

    /// Takes what it was told.
    fn hear(&mut self) -> Result<(), Wrong> {
        for one in &mut self.under_way {
            let mut offset = None;
            for outcome in &one.sent {
                match outcome.lock().unwrap().take() {
                    Some(Ok(appended)) => {
                        if offset.is_some_and(|offset| offset != appended.base_offset) {
                            return Err(format!("{} of {} is told twice", one.sequence, self.id));
                        }
                        offset = Some(appended.base_offset);
                    }
                    Some(Err(NotAppended { reason, .. })) => {
                        if reason == Reason::Fenced {
                            return Err(format!("producer {} is fenced", self.id));
                        }
                        self.is_behind = true;
                        self.refused = Some(reason);
                    }
                    None => {}
                }
            }
            if let Some(offset) = offset {
                self.acknowledged.push((one.sequence, one.count, offset));
                one.count = 0;
            }
        }
        self.under_way.retain(|one| one.count > 0);
        Ok(())
    }
}

struct Story {
    dice: Dice,
    disk: Sim,
    topic: &'static str,
    clients: Vec<Client>,
}

impl Story {
    fn opened(&mut self) -> Rig {
        loop {
            let stops = self.dice.below(4) == 0;
            let after = self.dice.below(80) as u64;
            self.disk.stop_after(stops.then_some(after));
            let mut settings = settings(Path::new(DIR));
            for topic in &mut settings.topics {
                topic.config.segment_bytes = 2_000;
            }
            let rig = Rig::try_with(settings, Arc::new(self.disk.clone()));
            if let (Ok(rig), false) = (rig, self.disk.is_gone()) {
                self.disk.stop_after(None);
                return rig;
            }
            self.stop();
        }
    }

    /// What is not safe outlives the end of the process, and that of the machine only in a durable topic's
    /// promise.
    fn stop(&mut self) {
        self.disk = match self.topic == LAZY || self.dice.below(2) == 0 {
            true => self.disk.kill(),
            false => self.disk.power_cut(self.dice.next()),
        };
        for one in self.clients.iter_mut().flat_map(|one| &mut one.under_way) {
            one.sent.clear();
        }
    }

    fn hear(&mut self) -> Result<(), Wrong> {
        match self.disk.is_gone() {
            true => Ok(()),
            false => self.clients.iter_mut().try_for_each(Client::hear),
        }
    }

    fn step(&mut self, rig: &mut Rig) -> Result<(), Wrong> {
        let client = self.dice.below(PRODUCERS);
        match self.dice.below(24) {
            0..8 => {
                let count = 1 + self.dice.below(4) as u64;
                self.clients[client].send_new(rig, self.topic, count);
            }
            8..10 => self.clients[client].send_again(rig, self.topic),
            10..16 => drop(rig.appender.turn()),
            16..20 => drop(rig.flusher.turn()),
            20 => rig.clock.advance_ms(self.dice.below(4_000) as u64),
            21 => {
                let roll = Command::Roll(rig.partition(self.topic));
                let _ = rig.log.ask(roll, Box::new(drop));
            }
            _ => {
                let fault = [Fault::Eio, Fault::Enospc, Fault::Short][self.dice.below(3)];
                let count = [1, 2, 30][self.dice.below(3)];
                let from = self.disk.operations() + self.dice.below(20) as u64;
                self.disk.plan(Some(Plan { from, count, fault }));
            }
        }
        self.hear()
    }

    /// With nothing wrong any more, everything is acknowledged.
    fn recover(&mut self, rig: &mut Rig) -> Result<(), Wrong> {
        self.disk.plan(None);
        for _ in 0..ROUNDS_MAX {
            for _ in 0..4 {
                rig.settle();
                rig.clock.advance_ms(1_000);
            }
            self.hear()?;
            if self.clients.iter().all(|one| one.under_way.is_empty()) {
                return self.check(rig);
            }
            for client in &mut self.clients {
                client.send_again(rig, self.topic);
            }
        }
        let waiting = self.clients.iter().flat_map(|one| {
            let refused = one.refused;
            let own = one.under_way.iter();
            own.map(move |own| (one.id, own.sequence, own.count, refused))
        });
        let waiting: Vec<_> = waiting.collect();
        Err(format!(
            "what is sent again is never acknowledged: {waiting:?}, found {:?}",
            rig.report
        ))
    }

    fn check(&self, rig: &Rig) -> Result<(), Wrong> {
        let partition = rig.partition(self.topic);
        let found = numbers(&partition, partition.log_start_offset());
        for client in &self.clients {
            let mut own: Vec<_> = found
                .iter()
                .filter(|(_, number)| number / SPAN == client.id)
                .collect();
            // After a power cut what follows may be there first, and what is missing may not be there yet.
            own.sort_by_key(|(_, number)| *number);
            if let Some(twice) = own.windows(2).find(|pair| pair[0].1 == pair[1].1) {
                return Err(format!("{twice:?} are the same record"));
            }
            let sent = client.under_way.is_empty().then_some(client.next);
            if sent.is_some_and(|sent| own.len() != usize::try_from(sent).unwrap()) {
                return Err(format!("{sent:?} of {} are {}", client.id, own.len()));
            }
            let at = |sequence: usize| {
                let number = client.id * SPAN + sequence as u64;
                let found = own.binary_search_by_key(&number, |(_, number)| *number);
                found.ok().map(|at| own[at].0)
            };
            for (sequence, count, offset) in &client.acknowledged {
                let last =
                    usize::try_from(*sequence).unwrap() + usize::try_from(count - 1).unwrap();
                let at = at(last);
                let expected = offset + i64::try_from(count - 1).unwrap();
                if at != Some(expected) {
                    return Err(format!(
                        "record {last} of {} is at {at:?}, told was {expected}",
                        client.id
                    ));
                }
            }
        }
        Ok(())
    }

    fn play(&mut self) -> Result<(), Wrong> {
        for _ in 0..2 + self.dice.below(4) {
            let mut rig = self.opened();
            self.check(&rig)?;
            for client in &mut self.clients {
                client.send_again(&rig, self.topic);
            }
            for _ in 0..self.dice.below(160) {
                self.step(&mut rig)?;
            }
            if self.dice.below(2) == 0 {
                self.recover(&mut rig)?;
            }
            self.disk.plan(None);
            if self.dice.below(3) == 0 {
                let stops = self.dice.below(2) == 0;
                let after = self.dice.below(40) as u64;
                self.disk.stop_after(stops.then_some(after));
                rig.appender.finish();
                rig.flusher.finish();
                self.hear()?;
            }
            self.stop();
        }
        let mut rig = self.opened();
        self.check(&rig)?;
        for client in &mut self.clients {
            client.send_again(&rig, self.topic);
        }
        self.recover(&mut rig)
    }
}

#[test]
fn who_sends_again_over_crashes_has_each_record_in_the_log_once() {
    for seed in seeds() {
        for topic in [DURABLE, LAZY] {
            let mut story = Story {
                dice: Dice::seeded(seed),
                disk: Sim::new(seed, Path::new("/")),
                topic,
                clients: (1..).take(PRODUCERS).map(Client::new).collect(),
            };
            if let Err(wrong) = story.play() {
                panic!("seed {seed}, {topic}: {wrong}");
            }
        }
    }
}
