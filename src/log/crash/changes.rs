//! Topics that are made, grown, kept otherwise and deleted while the machine stops, or the disk fails: each is
//! there as a whole or not at all, and what was acknowledged of one is found in it and in no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    model::{Left, Wrong, stored},
    seeds,
    world::{DIR, settings},
};
use crate::{
    base::{
        clock::Clock,
        disk::sim::{Fault, Plan, Sim},
        fuzz::Dice,
    },
    log::{
        Append, Appender, Builder, Change, Changer, Compression, Flush, Flusher, Id, Log, Opened,
        Partition, TopicConfig, TopicSettings, open,
    },
};

const NAMES: [&str; 3] = ["shop.orders", "shop.carts", "shop"];
const BEGAN_MS: u64 = 1_700_000_000_000;

/// What is known of a topic that once was.
#[derive(Debug, Default)]
struct Known {
    name: &'static str,
    /// Partitions that it has for sure, and may have.
    has: u32,
    may_have: u32,
    /// Whether somebody asked for it to go, and was told that it is gone.
    may_be_gone: bool,
    is_gone: bool,
    /// Records that were offered and acknowledged, by partition and offset.
    records: BTreeMap<(u32, i64), Record>,
    offered: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    id: u64,
    is_safe: bool,
}

/// What the log says, as long as the machine runs.
#[derive(Debug)]
enum Said {
    Appended(Id, u32, i64, u64, bool),
    Made(Id, u32, &'static str),
    Gone(Id, &'static str),
    NotGone(&'static str),
    NotMade,
}

struct Story {
    disk: Sim,
    clock: Clock,
    dice: Dice,
    topics: BTreeMap<Id, Known>,
    said: Arc<Mutex<Vec<Said>>>,
    next_id: u64,
    builder: Builder,
    /// The most partitions that anybody asked for, by name, since a topic of it was found.
    asked: BTreeMap<&'static str, u32>,
    /// Deletions that are not answered, by name.
    deletions: BTreeMap<&'static str, u32>,
    told: Vec<String>,
}

struct Running {
    log: Arc<Log>,
    appender: Appender,
    flusher: Flusher,
    changer: Changer,
}

impl Story {
    fn new(seed: u64) -> Self {
        Self {
            disk: Sim::new(seed, Path::new(DIR).parent().unwrap()),
            clock: Clock::manual(BEGAN_MS),
            dice: Dice::seeded(seed ^ 0x70b1c5),
            topics: BTreeMap::new(),
            said: Arc::default(),
            next_id: 1,
            builder: Builder::new(),
            asked: BTreeMap::new(),
            deletions: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    fn tell(&mut self, what: String) {
        self.told.push(what);
    }

    fn open(&mut self) -> Option<Running> {
        let disk = Arc::new(self.disk.clone());
        match open(settings(3_000), disk, self.clock.clone()) {
            Ok(Opened {
                log,
                appender,
                flusher,
                changer,
                report,
                ..
            }) if !self.disk.is_gone() => {
                self.tell(format!("opened, found {report:?}"));
                Some(Running {
                    log,
                    appender,
                    flusher,
                    changer,
                })
            }
            Ok(_) => None,
            Err(error) => {
                self.tell(format!("not opened: {error}"));
                None
            }
        }
    }

    /// Compares what is there with what was said.
    fn check(&mut self, log: &Log, left: Left) -> Result<(), Wrong> {
        self.disk.watch(true);
        let topics = log.topics();
        for (id, known) in &self.topics {
            let found = topics.by_id(id);
            if found.is_some() && known.is_gone {
                return Err(format!("{} is back: {known:?}", known.name));
            }
            if found.is_none() && !known.may_be_gone {
                return Err(format!("{} is lost: {known:?}", known.name));
            }
        }
        for name in NAMES {
            let Some(topic) = topics.get(name) else {
                continue;
            };
            let most = self.asked.get(name).copied().unwrap_or(0);
            let known = self.topics.entry(topic.id).or_insert_with(|| Known {
                name,
                may_have: most,
                ..Known::default()
            });
            let has = topic.partitions();
            if has < known.has || has > known.may_have.max(most) {
                return Err(format!("{name} has {has} partitions: {known:?}"));
            }
            // What was deleted and is back is back for good.
            known.may_be_gone = false;
            known.has = has;
            for partition in topics.partitions_of(name) {
                checked(partition, known, left)?;
            }
        }
        let there: BTreeSet<_> = topics.iter().map(|topic| topic.id).collect();
        self.topics
            .retain(|id, known| known.is_gone || there.contains(id));
        self.disk.watch(false);
        Ok(())
    }

    fn act(&mut self, running: &mut Running) {
        let name = NAMES[self.dice.below(NAMES.len())];
        match self.dice.below(20) {
            0..6 => self.offer(&running.log, name),
            6..9 => drop(running.appender.turn()),
            9..12 => drop(running.flusher.turn()),
            12..16 => drop(running.changer.turn()),
            16 => self.clock.advance_ms(self.dice.below(12_000) as u64),
            _ => self.change(&running.log, name),
        }
        self.hear(&running.log);
    }

    fn offer(&mut self, log: &Log, name: &'static str) {
        let topics = log.topics();
        let partitions = topics.partitions_of(name);
        if partitions.is_empty() {
            return;
        }
        let partition = Arc::clone(&partitions[self.dice.below(partitions.len())]);
        let (id, index) = (partition.topic().id, partition.index());
        let number = self.next_id;
        self.next_id += 1;
        let padding = "x".repeat(self.dice.below(300));
        let value = format!("{number}:{padding}");
        let now_ms = i64::try_from(self.clock.unix_ms()).unwrap();
        self.builder
            .push(now_ms, Some(b"key"), Some(value.as_bytes()), &[]);
        self.known(id, name).offered.insert(number);
        let (said, disk) = (Arc::clone(&self.said), self.disk.clone());
        let own = Arc::clone(&partition);
        let append = Append {
            batch: self.builder.finish(Compression::None),
            done: Box::new(move |result| {
                if let (Ok(at), false) = (result, disk.is_gone()) {
                    let is_safe = own.flushed_offset() > at.base_offset;
                    let appended = Said::Appended(id, index, at.base_offset, number, is_safe);
                    said.lock().unwrap().push(appended);
                }
            }),
            partition,
        };
        drop(log.appends().offer(append));
    }

    /// What is known of a topic that is there. One that is to be deleted may go at any time.
    fn known(&mut self, id: Id, name: &'static str) -> &mut Known {
        let may_be_gone = self.deletions.get(name).is_some_and(|count| *count > 0);
        let known = self.topics.entry(id).or_default();
        known.name = name;
        known.may_be_gone |= may_be_gone;
        known
    }

    fn change(&mut self, log: &Log, name: &'static str) {
        let topics = log.topics();
        let topic = topics.get(name);
        let partitions = 1 + u32::try_from(self.dice.below(3)).unwrap();
        let flush = match self.dice.below(2) {
            0 => Flush::EachAppend,
            _ => Flush::Lazily {
                age: Duration::from_secs(5),
                bytes: 2_000,
            },
        };
        let config = TopicConfig {
            flush,
            segment_bytes: 2_000,
            segment_age: Duration::from_secs(20),
            ..TopicConfig::default()
        };
        let owned = name.to_owned();
        let change = match (topic, self.dice.below(4)) {
            (None, _) => Change::Create(TopicSettings {
                name: owned,
                partitions,
                config,
            }),
            (Some(topic), 0) => {
                *self.deletions.entry(name).or_default() += 1;
                self.known(topic.id, name);
                Change::Delete { name: owned }
            }
            (Some(topic), 1) => Change::Grow {
                name: owned,
                partitions: topic.partitions() + partitions,
            },
            (Some(_), _) => Change::Configure {
                name: owned,
                config,
            },
        };
        let most = match &change {
            Change::Create(settings) => settings.partitions,
            Change::Grow { partitions, .. } => *partitions,
            Change::Delete { .. } | Change::Configure { .. } => 0,
        };
        let asked = self.asked.entry(name).or_default();
        *asked = most.max(*asked);
        self.tell(format!("{change:?}"));
        let is_deletion = matches!(change, Change::Delete { .. });
        let (said, disk) = (Arc::clone(&self.said), self.disk.clone());
        let done = Box::new(move |result: Result<Arc<crate::log::Topic>, _>| {
            if disk.is_gone() {
                return;
            }
            said.lock().unwrap().push(match result {
                Ok(topic) if is_deletion => Said::Gone(topic.id, name),
                Err(_) if is_deletion => Said::NotGone(name),
                Ok(topic) => Said::Made(topic.id, topic.partitions(), name),
                Err(_) => Said::NotMade,
            });
        });
        if log.change(change, done).is_err() && is_deletion {
            *self.deletions.entry(name).or_default() -= 1;
        }
    }

    fn hear(&mut self, log: &Log) {
        let said = std::mem::take(&mut *self.said.lock().unwrap());
        for said in said {
            match said {
                Said::Appended(id, index, offset, number, is_safe) => {
                    let known = self.topics.entry(id).or_default();
                    let record = Record {
                        id: number,
                        is_safe,
                    };
                    known.records.insert((index, offset), record);
                }
                Said::Made(id, partitions, name) => {
                    self.told.push(format!("made {name} with {partitions}"));
                    let known = self.known(id, name);
                    known.has = partitions.max(known.has);
                    known.may_have = partitions.max(known.may_have);
                }
                Said::Gone(id, name) => {
                    self.told.push(format!("{name} is gone"));
                    let known = self.known(id, name);
                    (known.may_be_gone, known.is_gone) = (true, true);
                    *self.deletions.entry(name).or_default() -= 1;
                }
                Said::NotGone(name) => {
                    self.told.push(format!("{name} is not deleted"));
                    *self.deletions.entry(name).or_default() -= 1;
                }
                Said::NotMade => self.told.push("not made".to_owned()),
            }
        }
        if self.disk.is_gone() {
            return;
        }
        // What is safe, and stays so.
        for partition in log.topics().partitions() {
            let flushed = partition.flushed_offset();
            if let Some(known) = self.topics.get_mut(&partition.topic().id) {
                let from = (partition.index(), 0)..(partition.index(), flushed);
                for (_, record) in known.records.range_mut(from) {
                    record.is_safe = true;
                }
            }
        }
    }

    /// A fault that comes soon, or the end of the machine.
    fn trouble(&mut self, kind: usize) {
        let from = self.disk.operations() + self.dice.below(40) as u64;
        match kind {
            0 => self.disk.stop_after(Some(self.dice.below(60) as u64)),
            1 => {
                let fault = [Fault::Eio, Fault::Enospc][self.dice.below(2)];
                let count = [1, 1, 2, 30][self.dice.below(4)];
                self.disk.plan(Some(Plan { from, count, fault }));
            }
            _ => {}
        }
    }

    /// The machine stops while a topic is made, grown or deleted.
    fn stop_in_a_change(&mut self, running: &mut Running) {
        self.disk.plan(None);
        while running.changer.turn() | running.appender.turn() | running.flusher.turn() {}
        self.hear(&running.log);
        let name = NAMES[self.dice.below(NAMES.len())];
        self.change(&running.log, name);
        let after = self.dice.below(60) as u64;
        self.disk.stop_after(Some(after));
        while !self.disk.is_gone()
            && running.changer.turn() | running.appender.turn() | running.flusher.turn()
        {}
        self.hear(&running.log);
    }

    fn live(&mut self) -> Result<(), Wrong> {
        let mut left = Left::Closed;
        for _ in 0..4 {
            // On the way the machine may stop.
            if self.dice.below(3) == 0 {
                self.disk.stop_after(Some(self.dice.below(100) as u64));
                if self.open().is_none() {
                    left = Left::PowerCut;
                    self.disk = self.disk.power_cut(self.dice.next());
                } else {
                    self.disk = self.disk.kill();
                    left = match left {
                        Left::PowerCut => left,
                        Left::Closed | Left::Killed => Left::Killed,
                    };
                }
            }
            let Some(mut running) = self.open() else {
                return Err("the log cannot be opened".to_owned());
            };
            self.check(&running.log, left)?;
            for _ in 0..self.dice.below(200) {
                if self.dice.below(30) == 0 {
                    let kind = self.dice.below(6);
                    self.trouble(kind);
                }
                self.act(&mut running);
                if self.disk.is_gone() {
                    break;
                }
            }
            if self.dice.below(2) == 0 {
                self.stop_in_a_change(&mut running);
            }
            let closes = self.dice.below(3) == 0 && !self.disk.is_gone();
            if closes {
                self.disk.plan(None);
                while running.changer.turn() | running.appender.turn() | running.flusher.turn() {}
                running.changer.finish();
                running.appender.finish();
                running.flusher.finish();
                self.hear(&running.log);
            }
            left = match (closes && !self.disk.is_gone(), self.dice.below(3)) {
                (true, _) => Left::Closed,
                (false, 0) => Left::Killed,
                (false, _) => Left::PowerCut,
            };
            self.tell(format!("stop, {left:?}"));
            self.said.lock().unwrap().clear();
            let disk = match left {
                Left::PowerCut => self.disk.power_cut(self.dice.next()),
                Left::Closed | Left::Killed => self.disk.kill(),
            };
            drop(running);
            self.said.lock().unwrap().clear();
            self.deletions.clear();
            self.disk = disk;
        }
        Ok(())
    }
}

/// Checks what is read of a partition.
fn checked(partition: &Arc<Partition>, known: &mut Known, left: Left) -> Result<(), Wrong> {
    let (index, name) = (partition.index(), partition.name());
    let mut found = BTreeMap::new();
    let mut next = partition.log_start_offset();
    while next < partition.high_watermark() {
        let bytes = partition
            .read(next, 1 << 16)
            .map_err(|error| format!("{name} at {next}: {error:?}"))?;
        let Some(last) = stored(&bytes)?.last().map(|last| last.offset) else {
            break;
        };
        for one in stored(&bytes)? {
            if !known.offered.contains(&one.id) {
                return Err(format!("{name} has {one:?}, of another: {known:?}"));
            }
            found.insert((index, one.offset), one.id);
        }
        next = last + 1;
    }
    for (at, record) in known.records.range((index, 0)..(index, i64::MAX)) {
        let is_there = found.get(at) == Some(&record.id);
        let may_be_gone = left == Left::PowerCut && !record.is_safe;
        if !is_there && !may_be_gone {
            return Err(format!("{name}: {record:?} at {at:?} is lost, {left:?}"));
        }
    }
    // What is gone stays gone.
    let own = |at: &(u32, i64)| at.0 == index;
    known
        .records
        .retain(|at, record| !own(at) || found.get(at) == Some(&record.id));
    Ok(())
}

#[test]
fn topics_that_come_and_go_are_whole_or_not_there() {
    for seed in seeds() {
        let mut story = Story::new(seed);
        if let Err(wrong) = story.live() {
            let from = story.told.len().saturating_sub(60);
            panic!("seed {seed}: {wrong}\n{}", story.told[from..].join("\n"));
        }
    }
}
