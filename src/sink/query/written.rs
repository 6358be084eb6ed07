//! A log for tests, in a directory of its own, written as Wardent writes it.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    base::{
        clock::Clock,
        disk::{Disk, System},
    },
    log::{
        self, Append, Builder, Compression, Log, Partition, Running, Settings, TopicConfig,
        TopicSettings,
    },
};

/// A batch of events: each its moment and its JSON; an empty one is a tombstone.
pub(crate) type Events<'a> = &'a [(i64, &'a str)];

/// A log that is removed with this.
pub(crate) struct Written {
    pub(crate) log: Arc<Log>,
    partitions: Vec<Arc<Partition>>,
    running: Option<Running>,
    dir: tempfile::TempDir,
}

impl Written {
    /// A log with one partition of the access topic for each list of batches.
    pub(crate) fn new(batches: &[&[Events<'_>]]) -> Self {
        let config = TopicConfig {
            flush: log::Flush::Lazily {
                age: Duration::from_secs(1),
                bytes: u64::MAX,
            },
            ..TopicConfig::default()
        };
        Self::with(batches, config)
    }

    /// The same, with this configuration of the topic.
    pub(crate) fn with(batches: &[&[Events<'_>]], config: TopicConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            dir: dir.path().to_owned(),
            disk_max: 1 << 30,
            ballast_bytes: 0,
            topics: vec![TopicSettings {
                name: "wardent.http.access".to_owned(),
                partitions: u32::try_from(batches.len()).unwrap(),
                config,
            }],
        };
        let disk: Arc<dyn Disk> = Arc::new(System);
        let opened = log::open(settings, disk, Clock::system()).unwrap();
        let written = Self {
            log: Arc::clone(&opened.log),
            partitions: opened.log.partitions(),
            running: Some(log::start(opened.appender, opened.flusher, opened.changer).unwrap()),
            dir,
        };
        for (partition, batches) in written.partitions.iter().zip(batches) {
            for events in *batches {
                append(&written.log, partition, events);
            }
        }
        written
    }

    pub(crate) fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Closes the log; its files stay.
    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop(Duration::from_secs(30));
        }
    }

    /// What a reader finds in the files.
    pub(crate) fn files(&self) -> Vec<Arc<Partition>> {
        let disk: Arc<dyn Disk> = Arc::new(System);
        log::open_to_read(self.dir.path(), &disk).unwrap()
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Appends one batch and waits until it can be read.
pub(crate) fn append(log: &Log, partition: &Arc<Partition>, events: Events<'_>) {
    let mut builder = Builder::new();
    for (timestamp_ms, event) in events {
        let value = (!event.is_empty()).then_some(event.as_bytes());
        builder.push(*timestamp_ms, Some(b"key"), value, &[]);
    }
    let (told, done) = std::sync::mpsc::channel();
    let append = Append {
        partition: Arc::clone(partition),
        batch: builder.finish(Compression::Lz4),
        done: Box::new(move |result| told.send(result.is_ok()).unwrap()),
    };
    log.appends().offer(append).map_err(drop).unwrap();
    assert!(done.recv().unwrap());
}
