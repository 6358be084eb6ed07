//! `/api/v1/log/topics`: which topics there are, for whoever may read.

use std::{collections::BTreeMap, sync::Arc};

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::{
    api::{Query, Refused, Reply, say},
    server::Server,
};
use crate::{
    kafka,
    log::{Log, Partition, Topic},
};

/// All topics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topics {
    /// By name.
    pub topics: Vec<TopicShown>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicShown {
    /// Its name.
    pub name: String,
    /// How it is kept; none where only its files are known.
    #[serde(flatten)]
    pub kept: Option<Kept>,
    /// Its partitions.
    pub partitions: Vec<PartitionShown>,
}

/// How a topic is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Whether what is acknowledged outlives a power cut.
    pub durable: bool,
    /// `delete` or `compact`.
    pub cleanup: String,
    /// How old a record may become, in milliseconds.
    pub retention_ms: Option<u64>,
    /// How many bytes one partition may have.
    pub retention_bytes: Option<u64>,
    /// What is otherwise than for topics that nobody says more of, by the names that Kafka has for it.
    #[serde(default)]
    pub configs: BTreeMap<String, String>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionShown {
    /// Its number.
    pub partition: u32,
    /// The first offset that is there.
    pub log_start_offset: i64,
    /// The first offset that cannot be read yet.
    pub high_watermark: i64,
    /// The first offset that is not written yet.
    pub log_end_offset: i64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Whether the disk failed it: it can be read, and takes nothing until it is healed.
    pub offline: bool,
}

impl Topics {
    /// The topics of a log that runs.
    pub fn of_log(log: &Log) -> Self {
        Self::of(&log.partitions(), |topic| Some(Kept::of(log, topic)))
    }

    /// The topics of these partitions, of which nobody knows how they are kept.
    pub fn of_files(partitions: &[Arc<Partition>]) -> Self {
        Self::of(partitions, |_| None)
    }

    fn of(partitions: &[Arc<Partition>], kept: impl Fn(&Topic) -> Option<Kept>) -> Self {
        let mut partitions = partitions.to_vec();
        partitions.sort_by_key(|one| (one.topic().name.clone(), one.index()));
        let mut topics = Vec::<TopicShown>::new();
        for partition in &partitions {
            let topic = partition.topic();
            if topics.last().is_none_or(|last| last.name != topic.name) {
                topics.push(TopicShown {
                    name: topic.name.clone(),
                    kept: kept(topic),
                    partitions: Vec::new(),
                });
            }
            if let Some(topic) = topics.last_mut() {
                topic.partitions.push(PartitionShown::of(partition));
            }
        }
        Self { topics }
    }
}

impl Kept {
    fn of(log: &Log, topic: &Topic) -> Self {
        let config = topic.config();
        let configs = kafka::differing(log, topic).into_iter();
        Self {
            configs: configs
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            durable: config.flush.is_durable(),
            cleanup: config.cleanup.name().to_owned(),
            retention_ms: config
                .retention
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            retention_bytes: config.retention_bytes,
        }
    }
}

impl PartitionShown {
    fn of(partition: &Partition) -> Self {
        Self {
            partition: partition.index(),
            log_start_offset: partition.log_start_offset(),
            high_watermark: partition.high_watermark(),
            log_end_offset: partition.log_end_offset(),
            bytes: partition.size_bytes(),
            segments: partition.segments().len() as u64,
            offline: partition.is_offline(),
        }
    }
}

impl Server {
    /// Shows the topics.
    ///
    /// # Errors
    /// By any method but GET.
    pub(super) fn topics(&self, request: &Request<Incoming>) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "use GET to read",
            ));
        }
        Query::read(request.uri().query(), &[])?;
        say(StatusCode::OK, &Topics::of_log(&self.view.log.log))
    }
}
