//! A log in a directory of its own, driven turn by turn.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::super::*;
use crate::base::{
    clock::Clock,
    disk::{Disk, System, sim::Sim},
};

/// Where the log is on a simulated disk.
pub(super) const DIR: &str = "/log";

/// A topic as access events have it.
pub(super) const LAZY: &str = "lazy";
/// A topic as bans have it.
pub(super) const DURABLE: &str = "durable";

/// A wall clock's time, in Unix milliseconds.
pub(super) const NOW_MS: u64 = 1_795_000_000_000;

pub(super) fn topic(name: &str, flush: Flush) -> TopicSettings {
    TopicSettings {
        name: name.to_owned(),
        partitions: 1,
        config: TopicConfig {
            flush,
            segment_bytes: 64 * 1024,
            is_expendable: !flush.is_durable(),
            ..TopicConfig::default()
        },
    }
}

pub(super) fn settings(dir: &Path) -> Settings {
    let lazily = Flush::Lazily {
        age: Duration::from_secs(5),
        bytes: 8 * 1024 * 1024,
    };
    Settings {
        dir: dir.to_owned(),
        disk_max: 1 << 30,
        ballast_bytes: 0,
        topics: vec![topic(LAZY, lazily), topic(DURABLE, Flush::EachAppend)],
    }
}

/// An open log that nobody else drives.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) log: Arc<Log>,
    pub(super) appender: Appender,
    pub(super) flusher: Flusher,
    pub(super) changer: Changer,
    pub(super) report: Vec<Found>,
    pub(super) was_clean: bool,
    pub(super) clock: Clock,
}

/// What became of one batch.
pub(super) type Outcome = Arc<Mutex<Option<Result<Appended, NotAppended>>>>;

impl Rig {
    /// A log on a simulated disk.
    pub(super) fn on(sim: &Sim) -> Self {
        Self::with(settings(Path::new(DIR)), Arc::new(sim.clone()))
    }

    /// Has the appender carry out a command, and says what came of it.
    pub(super) fn ask(&mut self, command: Command) -> Result<(), NotDone> {
        let told = Arc::new(Mutex::new(None));
        let tell = Arc::clone(&told);
        let done = Box::new(move |result| *tell.lock().unwrap() = Some(result));
        self.log.ask(command, done).unwrap();
        self.settle();
        let result = told.lock().unwrap().take();
        result.unwrap()
    }

    /// Has a change of topics made, and says what came of it.
    pub(super) fn change(&mut self, change: Change) -> Result<Arc<Topic>, NotChanged> {
        let told = Arc::new(Mutex::new(None));
        let tell = Arc::clone(&told);
        let done = Box::new(move |result| *tell.lock().unwrap() = Some(result));
        self.log.change(change, done).unwrap();
        self.settle();
        let result = told.lock().unwrap().take();
        result.expect("it is told what became of a change")
    }

    pub(super) fn open(dir: &Path) -> Self {
        Self::with(settings(dir), Arc::new(System))
    }

    pub(super) fn with(settings: Settings, disk: Arc<dyn Disk>) -> Self {
        Self::try_with(settings, disk).unwrap()
    }

    pub(super) fn try_with(settings: Settings, disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        let clock = Clock::manual(NOW_MS);
        let opened = open(settings, disk, clock.clone())?;
        Ok(Self {
            log: opened.log,
            appender: opened.appender,
            flusher: opened.flusher,
            changer: opened.changer,
            report: opened.report,
            was_clean: opened.was_clean,
            clock,
        })
    }

    pub(super) fn partition(&self, topic: &str) -> Arc<Partition> {
        self.log.partition(topic, 0).unwrap()
    }

    /// Offers a batch.
    pub(super) fn offer(&self, topic: &str, batch: Batch) -> Outcome {
        let outcome = Outcome::default();
        let told = Arc::clone(&outcome);
        let append = Append {
            partition: self.partition(topic),
            batch,
            done: Box::new(move |result| *told.lock().unwrap() = Some(result)),
        };
        self.log.appends().offer(append).unwrap();
        outcome
    }

    /// Lets appender and flusher work until nothing is left to do at once.
    pub(super) fn settle(&mut self) {
        while self.appender.turn() | self.flusher.turn() | self.changer.turn() {}
    }

    /// Appends a batch and waits for what becomes of it.
    pub(super) fn append(&mut self, topic: &str, batch: Batch) -> Result<Appended, NotAppended> {
        let outcome = self.offer(topic, batch);
        self.settle();
        let result = outcome.lock().unwrap().take();
        result.expect("it is told what became of a batch")
    }

    /// Ends it in good order.
    pub(super) fn close(mut self) {
        self.appender.finish();
        assert!(self.flusher.finish());
    }
}

/// A batch of `count` records, the first with the value `number`.
pub(super) fn batch(number: u64, count: u64) -> Batch {
    batch_at(i64::try_from(NOW_MS + number).unwrap(), number, count)
}

/// The same, all of its records made at one time.
pub(super) fn batch_at(timestamp_ms: i64, number: u64, count: u64) -> Batch {
    let mut builder = Builder::new();
    for number in number..number + count {
        let value = format!(
            "event {number} {}",
            "x".repeat(usize::try_from(number % 50).unwrap())
        );
        builder.push(timestamp_ms, Some(b"key"), Some(value.as_bytes()), &[]);
    }
    builder.finish(Compression::None)
}

/// Offset and number of every record that can be read from `from` on.
pub(super) fn numbers(partition: &Partition, from: i64) -> Vec<(i64, u64)> {
    let mut found = Vec::new();
    let mut offset = from;
    loop {
        let bytes = partition.read(offset, 10_000).unwrap();
        if bytes.is_empty() {
            return found;
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (view, after) = View::read(rest).unwrap();
            view.verify().unwrap();
            let mut scratch = Vec::new();
            for record in view.records(&mut scratch).unwrap() {
                let record = record.unwrap();
                let text = std::str::from_utf8(record.value.unwrap()).unwrap();
                let number = text.split(' ').nth(1).unwrap().parse().unwrap();
                if record.offset >= from {
                    found.push((record.offset, number));
                }
            }
            offset = view.last_offset() + 1;
            rest = after;
        }
    }
}
