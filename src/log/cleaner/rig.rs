//! A whole log that is driven step by step: what tests of retention and compaction stand on.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Bounds, Cleaner, Rest};
use crate::{
    base::{clock::Clock, disk::Disk},
    log::{
        Append, Appender, Batch, Builder, Changer, Cleanup, Command, Compression, Flush, Flusher,
        Log, Partition, Reason, Settings, TopicConfig, TopicSettings, View,
        compaction::{Compaction, Job, Source, Step, Summary},
        open,
    },
};

/// 2026-11-21T00:00:00Z.
pub(in crate::log) const NOW_MS: u64 = 1_795_219_200_000;
pub(in crate::log) const HOUR_MS: u64 = 3_600_000;
pub(in crate::log) const DAY_MS: u64 = 24 * HOUR_MS;

pub(in crate::log) const BANS: &str = "wardent.client.ban";
pub(in crate::log) const ACCESS: &str = "wardent.http.access";
pub(in crate::log) const AUDIT: &str = "wardent.audit.event";
pub(in crate::log) const FOREIGN: &str = "shop.orders";

/// Segments are closed by tests alone, unless they say otherwise.
const NEVER: Duration = Duration::from_hours(24 * 10_000);

pub(in crate::log) fn compacted() -> TopicConfig {
    TopicConfig {
        cleanup: Cleanup::Compact,
        segment_age: NEVER,
        max_batch_bytes: 16 << 20,
        delete_retention: Duration::from_hours(24),
        is_reserved: true,
        ..TopicConfig::default()
    }
}

pub(in crate::log) fn access(retention: Option<Duration>) -> TopicConfig {
    TopicConfig {
        retention,
        segment_age: NEVER,
        max_batch_bytes: 16 << 20,
        flush: Flush::Lazily {
            age: Duration::from_secs(5),
            bytes: 8 << 20,
        },
        is_expendable: true,
        is_reserved: true,
        ..TopicConfig::default()
    }
}

pub(in crate::log) fn topic(name: &str, partitions: u32, config: TopicConfig) -> TopicSettings {
    TopicSettings {
        name: name.to_owned(),
        partitions,
        config,
    }
}

/// A record as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::log) struct Read {
    pub(in crate::log) offset: i64,
    pub(in crate::log) key: Option<String>,
    pub(in crate::log) value: Option<String>,
}

/// An open log whose threads do not run.
#[derive(Debug)]
pub(in crate::log) struct Rig {
    pub(in crate::log) disk: Arc<dyn Disk>,
    pub(in crate::log) clock: Clock,
    pub(in crate::log) log: Arc<Log>,
    pub(in crate::log) appender: Appender,
    pub(in crate::log) flusher: Flusher,
    pub(in crate::log) changer: Changer,
    done: Arc<AtomicU64>,
}

impl Rig {
    pub(in crate::log) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        clock: Clock,
        topics: Vec<TopicSettings>,
    ) -> Self {
        let settings = Settings {
            dir: PathBuf::from(dir),
            disk_max: u64::MAX,
            ballast_bytes: 0,
            topics,
        };
        let opened = open(settings, Arc::clone(&disk), clock.clone()).unwrap();
        Self {
            disk,
            clock,
            log: opened.log,
            appender: opened.appender,
            flusher: opened.flusher,
            changer: opened.changer,
            done: Arc::default(),
        }
    }

    pub(in crate::log) fn partition(&self, topic: &str, index: u32) -> Arc<Partition> {
        self.log.partition(topic, index).unwrap()
    }

    /// Lets appender and flusher do what there is to do.
    pub(in crate::log) fn settle(&mut self) {
        while self.appender.turn() || self.flusher.turn() {}
    }

    /// Appends one batch, and sees that it is acknowledged.
    pub(in crate::log) fn append_batch(&mut self, partition: &Arc<Partition>, batch: Batch) {
        let before = self.done.load(Ordering::Relaxed);
        let done = Arc::clone(&self.done);
        let append = Append {
            partition: Arc::clone(partition),
            batch,
            done: Box::new(move |result| {
                result.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }),
        };
        self.log.appends().offer(append).unwrap();
        self.settle();
        assert_eq!(self.done.load(Ordering::Relaxed), before + 1);
    }

    /// Appends records as one batch, stamped with the time of the clock.
    pub(in crate::log) fn append(
        &mut self,
        partition: &Arc<Partition>,
        records: &[(&str, Option<&str>)],
    ) {
        let now_ms = i64::try_from(self.clock.unix_ms()).unwrap();
        self.append_batch(partition, batch(now_ms, records));
    }

    /// Appends a batch for which there is no room.
    pub(in crate::log) fn append_in_vain(&mut self, partition: &Arc<Partition>) {
        let before = self.done.load(Ordering::Relaxed);
        let done = Arc::clone(&self.done);
        let append = Append {
            partition: Arc::clone(partition),
            batch: batch(0, &[("a", Some("1"))]),
            done: Box::new(move |result| {
                assert_eq!(result.unwrap_err().reason, Reason::DiskFull);
                done.fetch_add(1, Ordering::Relaxed);
            }),
        };
        self.log.appends().offer(append).unwrap();
        self.settle();
        assert_eq!(self.done.load(Ordering::Relaxed), before + 1);
    }

    pub(in crate::log) fn roll(&mut self, partition: &Arc<Partition>) {
        self.ask(Command::Roll(Arc::clone(partition)));
    }

    fn ask(&mut self, command: Command) {
        let before = self.done.load(Ordering::Relaxed);
        let done = Arc::clone(&self.done);
        let told = move |result: Result<(), _>| {
            result.unwrap();
            done.fetch_add(1, Ordering::Relaxed);
        };
        self.log.ask(command, Box::new(told)).unwrap();
        self.settle();
        assert_eq!(self.done.load(Ordering::Relaxed), before + 1);
    }

    /// What a pass over a partition would work on, from its beginning.
    pub(in crate::log) fn job(&self, partition: &Arc<Partition>) -> Job {
        let segments = partition.segments();
        let closed = segments.iter().filter(|one| !one.is_active);
        let closed = closed.map(|facts| Source {
            base_offset: facts.base_offset,
            end_offset: facts.end_offset,
            bytes: facts.bytes,
        });
        Job {
            partition: Arc::clone(partition),
            segments: closed.collect(),
            first_dirty: 0,
            segment_bytes: partition.topic().config().segment_bytes,
            delete_retention: partition.topic().config().delete_retention,
            now_ms: Some(self.clock.unix_ms()),
            keys_max: 1 << 20,
        }
    }

    /// One pass; says what it did and how often segments were replaced.
    pub(in crate::log) fn compact(&mut self, job: Job) -> (Summary, usize) {
        let partition = Arc::clone(&job.partition);
        let mut compaction = Compaction::new(Arc::clone(&self.disk), job);
        let mut replaced = 0;
        loop {
            match compaction.step().unwrap() {
                Step::More => {}
                Step::Replace(run, cleaned) => {
                    self.ask(Command::Replace(Arc::clone(&partition), run, cleaned));
                    replaced += 1;
                }
                Step::Done(summary) => return (summary, replaced),
            }
        }
    }

    /// A cleaner that may use so many bytes.
    pub(in crate::log) fn cleaner(&self, bytes_max: u64) -> Cleaner {
        let bounds = Bounds {
            spares_foreign: false,
            bytes_max,
            ballast_bytes: 0,
        };
        Cleaner::new(Arc::clone(&self.log), bounds)
    }

    /// Lets a cleaner look, and go on until it has nothing to do.
    pub(in crate::log) fn clean(&mut self, cleaner: &mut Cleaner) {
        self.clock.advance_ms(10_000);
        for _ in 0..10_000 {
            let rest = cleaner.turn();
            let worked = self.appender.turn();
            self.settle();
            if rest != Rest::Pause && !worked {
                return;
            }
        }
        panic!("the cleaner finds no end");
    }
}

pub(in crate::log) fn batch(stamp_ms: i64, records: &[(&str, Option<&str>)]) -> Batch {
    let mut builder = Builder::new();
    for (key, value) in records {
        let key = Some(key.as_bytes()).filter(|key| !key.is_empty());
        builder.push(stamp_ms, key, value.map(str::as_bytes), &[]);
    }
    builder.finish(Compression::Lz4)
}

/// All stored batches of a partition, below the high watermark.
pub(in crate::log) fn stored(partition: &Partition) -> Vec<u8> {
    let mut all = Vec::new();
    let mut offset = partition.log_start_offset();
    while offset < partition.high_watermark() {
        let bytes = partition.read(offset, 1 << 20).unwrap();
        let mut rest = bytes.as_slice();
        if rest.is_empty() {
            break;
        }
        while let Ok((view, after)) = View::read(rest) {
            offset = view.last_offset() + 1;
            rest = after;
        }
        all.extend_from_slice(&bytes);
    }
    all
}

/// All records of a partition as a reader finds them, every checksum checked.
pub(in crate::log) fn records(partition: &Partition) -> Vec<Read> {
    let stored = stored(partition);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut scratch = Vec::new();
    let mut read = Vec::new();
    let mut rest = stored.as_slice();
    while !rest.is_empty() {
        let (view, after) = View::read(rest).unwrap();
        view.verify().unwrap();
        for record in view.records(&mut scratch).unwrap() {
            let record = record.unwrap();
            read.push(Read {
                offset: record.offset,
                key: record.key.map(text),
                value: record.value.map(text),
            });
        }
        rest = after;
    }
    read
}
