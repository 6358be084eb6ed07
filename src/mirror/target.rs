//! The cluster's topics: looked for, and made where they are missing and may be.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfig as _,
    consumer::Consumer as _,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    Failure, Settings,
    client::{self, Consumer},
};

/// For one question to a side, and its answer.
pub(super) const ASKED_WITHIN: Duration = Duration::from_secs(10);

/// A topic as it is to be on the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    /// At least so many.
    pub(super) partitions: usize,
    /// What it is made with, where it is made.
    pub(super) configs: Vec<(&'a str, &'a str)>,
}

/// What came of preparing topics.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// What stands in the way of each topic that cannot be used.
    pub(super) refused: BTreeMap<String, String>,
    /// Those that were not there before.
    pub(super) made: BTreeSet<String>,
}

/// Makes what is missing.
///
/// # Errors
/// When the cluster cannot be asked.
pub(super) fn prepare(
    settings: &Settings,
    asker: &Consumer,
    wanted: &[Wanted<'_>],
) -> Result<Prepared, Failure> {
    let mut prepared = Prepared::default();
    for topic in wanted {
        let there = partitions(asker, topic.name)?;
        let result = match there {
            Ok(0) => make(settings, topic).map(|()| {
                prepared.made.insert(topic.name.to_owned());
            }),
            Ok(there) if there < topic.partitions => grow(settings, topic),
            Ok(_) => Ok(()),
            Err(code) => Err(code.to_string()),
        };
        if let Err(why) = result {
            prepared.refused.insert(topic.name.to_owned(), why);
        }
    }
    Ok(prepared)
}

/// How many partitions a topic has on one of the sides; none where there is no such topic.
///
/// # Errors
/// When the side does not answer; within, when it refuses this topic.
pub(super) fn partitions(
    asker: &Consumer,
    topic: &str,
) -> Result<Result<usize, RDKafkaErrorCode>, Failure> {
    let metadata = asker.fetch_metadata(Some(topic), ASKED_WITHIN);
    let metadata = match metadata {
        Ok(metadata) => metadata,
        Err(error) => return told(&error),
    };
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let Some(found) = found else {
        return Ok(Ok(0));
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(Ok(found.partitions().len())),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            Ok(Ok(0))
        }
        // It is there, only not all of it at this moment.
        Some(RDKafkaErrorCode::LeaderNotAvailable) => Ok(Ok(found.partitions().len())),
        Some(code) => Ok(Err(code)),
    }
}

fn told(error: &KafkaError) -> Result<Result<usize, RDKafkaErrorCode>, Failure> {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            Ok(Ok(0))
        }
        Some(code @ RDKafkaErrorCode::TopicAuthorizationFailed) => Ok(Err(code)),
        _ => Err(Failure(error.to_string())),
    }
}

fn make(settings: &Settings, topic: &Wanted<'_>) -> Result<(), String> {
    let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
    // -1: as the cluster's default has it (KIP-464).
    let replicas = settings.replication.map_or(-1, i32::from);
    let mut new = NewTopic::new(topic.name, partitions, TopicReplication::Fixed(replicas));
    for (name, value) in &topic.configs {
        new = new.set(name, value);
    }
    let admin = admin(settings)?;
    let options = options();
    let made = answer(admin.create_topics([&new], &options))?;
    match made.into_iter().next() {
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(format!("it is not there, and cannot be made: {code}")),
        Some(Ok(_)) | None => {
            tracing::info!(topic = topic.name, partitions, "made on the cluster");
            Ok(())
        }
    }
}

fn grow(settings: &Settings, topic: &Wanted<'_>) -> Result<(), String> {
    let admin = admin(settings)?;
    let new = NewPartitions::new(topic.name, topic.partitions);
    let options = options();
    let grown = answer(admin.create_partitions([&new], &options))?;
    match grown.into_iter().next() {
        Some(Err((_, code))) => Err(format!(
            "it has fewer partitions than here ({}), and cannot be given more: {code}",
            topic.partitions
        )),
        Some(Ok(_)) | None => Ok(()),
    }
}

fn admin(settings: &Settings) -> Result<AdminClient<DefaultClientContext>, String> {
    AdminClient::from_config(&client::asking(settings)).map_err(|error| error.to_string())
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(ASKED_WITHIN))
        .operation_timeout(Some(ASKED_WITHIN))
}

/// Waits for an answer; the client has threads of its own that see to it.
fn answer<T>(asked: impl Future<Output = Result<T, KafkaError>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(asked).map_err(|error| error.to_string())
}
