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
pub(in crate::log) const DIR: &str = "/log";

/// A topic as access events have it.
pub(in crate::log) const LAZY: &str = "lazy";
/// A topic as bans have it.
pub(in crate::log) const DURABLE: &str = "durable";

/// A wall clock's time, in Unix milliseconds.
pub(in crate::log) const NOW_MS: u64 = 1_795_000_000_000;

pub(in crate::log) fn topic(name: &str, flush: Flush) -> TopicSettings {
    TopicSettings {
        name: name.to_owned(),
        partitions: 1,
        config: TopicConfig {
            flush,
            segment_bytes: 64 * 1024,
            is_expendable: !flush.is_durable(),
            is_reserved: true,
            ..TopicConfig::default()
        },
    }
}

pub(in crate::log) fn settings(dir: &Path) -> Settings {
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
pub(in crate::log) struct Rig {
    pub(in crate::log) log: Arc<Log>,
    pub(in crate::log) appender: Appender,
    pub(in crate::log) flusher: Flusher,
    pub(in crate::log) changer: Changer,
    pub(in crate::log) report: Vec<Found>,
    pub(in crate::log) was_clean: bool,
    pub(in crate::log) clock: Clock,
}

/// What became of one batch.
pub(in crate::log) type Outcome = Arc<Mutex<Option<Result<Appended, NotAppended>>>>;

impl Rig {
    /// A log on a simulated disk.
    pub(in crate::log) fn on(sim: &Sim) -> Self {
        Self::with(settings(Path::new(DIR)), Arc::new(sim.clone()))
    }

    /// Has the appender carry out a command, and says what came of it.
    pub(in crate::log) fn ask(&mut self, command: Command) -> Result<(), NotDone> {
        let told = Arc::new(Mutex::new(None));
        let tell = Arc::clone(&told);
        let done = Box::new(move |result| *tell.lock().unwrap() = Some(result));
        self.log.ask(command, done).unwrap();
        self.settle();
        let result = told.lock().unwrap().take();
        result.unwrap()
    }

    /// Has a change of topics made, and says what came of it.
    pub(in crate::log) fn change(&mut self, change: Change) -> Result<Arc<Topic>, NotChanged> {
        let told = Arc::new(Mutex::new(None));
        let tell = Arc::clone(&told);
        let done = Box::new(move |result| *tell.lock().unwrap() = Some(result));
        self.log.change(change, done).unwrap();
        self.settle();
        let result = told.lock().unwrap().take();
        result.expect("it is told what became of a change")
    }

    /// Asks the appender for something, which it does in its next turn.
    pub(in crate::log) fn ask_later(&self, command: Command) {
        self.log.ask(command, Box::new(drop)).unwrap();
    }

    pub(in crate::log) fn open(dir: &Path) -> Self {
        Self::with(settings(dir), Arc::new(System))
    }

    pub(in crate::log) fn with(settings: Settings, disk: Arc<dyn Disk>) -> Self {
        Self::try_with(settings, disk).unwrap()
    }

    pub(in crate::log) fn try_with(
        settings: Settings,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, OpenError> {
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

    pub(in crate::log) fn partition(&self, topic: &str) -> Arc<Partition> {
        self.log.partition(topic, 0).unwrap()
    }

    /// Offers a batch.
    pub(in crate::log) fn offer(&self, topic: &str, batch: Batch) -> Outcome {
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
    pub(in crate::log) fn settle(&mut self) {
        while self.appender.turn() | self.flusher.turn() | self.changer.turn() {}
    }

    /// Appends a batch and waits for what becomes of it.
    pub(in crate::log) fn append(
        &mut self,
        topic: &str,
        batch: Batch,
    ) -> Result<Appended, NotAppended> {
        let outcome = self.offer(topic, batch);
        self.settle();
        let result = outcome.lock().unwrap().take();
        result.expect("it is told what became of a batch")
    }

    /// Ends it in good order.
    pub(in crate::log) fn close(mut self) {
        self.appender.finish();
        assert!(self.flusher.finish());
    }
}

/// A batch of `count` records, the first with the value `number`.
pub(in crate::log) fn batch(number: u64, count: u64) -> Batch {
    batch_at(i64::try_from(NOW_MS + number).unwrap(), number, count)
}

/// The same, all of its records made at one time.
pub(in crate::log) fn batch_at(timestamp_ms: i64, number: u64, count: u64) -> Batch {
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

/// The same batch, of a producer that numbers its records.
pub(in crate::log) fn numbered(batch: &Batch, id: i64, epoch: i16, sequence: i32) -> Batch {
    let mut bytes = batch.bytes().to_vec();
    bytes[43..51].copy_from_slice(&id.to_be_bytes());
    bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Batch::received(bytes, Demands::NONE, &mut Vec::new()).unwrap()
}

/// Offset and number of every record that can be read from `from` on.
pub(in crate::log) fn numbers(partition: &Partition, from: i64) -> Vec<(i64, u64)> {
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
