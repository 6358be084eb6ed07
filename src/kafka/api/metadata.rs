//! Metadata (key 3): which topics there are, and where their partitions are led: all of them here.

use std::{collections::HashSet, sync::Arc};

use super::super::{
    auth::{Operation, Resource, is_wardents_alone},
    broker::{Call, NODE_ID},
    error::ErrorCode,
    topics,
    wire::{Malformed, Reader, Uuid, Writer},
};
use crate::log::{Topic, topic::is_name};

/// What is told of rights where nobody asked.
const NOT_ASKED: i32 = i32::MIN;

/// Topics that are told of; all of them where there is no list.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) topics: Option<Vec<Named>>,
    pub(super) may_create: bool,
    pub(super) with_cluster_rights: bool,
    pub(super) with_topic_rights: bool,
}

/// A topic that is asked for: by name, or by id where there is none.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Named {
    id: Uuid,
    name: Option<String>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let version = from.version();
        let topics = from.nullable_array(|from| {
            let id = match version {
                10.. => from.uuid()?,
                _ => Uuid::default(),
            };
            let name = match version {
                10.. => from.nullable_string()?,
                _ => Some(from.string()?),
            };
            from.tags()?;
            Ok(Named { id, name })
        })?;
        // In version 0 an empty list is what no list is later.
        let topics = topics.filter(|topics| version > 0 || !topics.is_empty());
        let may_create = version < 4 || from.bool()?;
        let with_cluster_rights = (8..=10).contains(&version) && from.bool()?;
        let with_topic_rights = version >= 8 && from.bool()?;
        from.tags()?;
        Ok(Self {
            topics,
            may_create,
            with_cluster_rights,
            with_topic_rights,
        })
    }
}

/// This broker and the topics.
#[derive(Debug)]
pub(super) struct Response {
    host: String,
    port: u16,
    cluster_id: String,
    topics: Vec<Told>,
    cluster_rights: i32,
}

/// What is told of a topic.
#[derive(Debug)]
struct Told {
    error: ErrorCode,
    name: Option<String>,
    id: Uuid,
    is_internal: bool,
    /// By number.
    partitions: Vec<Leader>,
    rights: i32,
}

/// What is told of a partition.
#[derive(Debug)]
struct Leader {
    error: ErrorCode,
    index: i32,
    epoch: i32,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        let version = to.version();
        if version >= 3 {
            // Throttle time.
            to.i32(0);
        }
        to.array(&[()], |to, ()| {
            to.i32(NODE_ID);
            to.string(&self.host);
            to.i32(self.port.into());
            if version >= 1 {
                // No rack.
                to.nullable_string(None);
            }
            to.tags();
        });
        if version >= 2 {
            to.nullable_string(Some(&self.cluster_id));
        }
        if version >= 1 {
            // Controller.
            to.i32(NODE_ID);
        }
        to.array(&self.topics, Told::write);
        if (8..=10).contains(&version) {
            to.i32(self.cluster_rights);
        }
        to.tags();
    }
}

impl Told {
    fn write(to: &mut Writer, topic: &Self) {
        let version = to.version();
        to.i16(topic.error.code());
        match version {
            12.. => to.nullable_string(topic.name.as_deref()),
            _ => to.string(topic.name.as_deref().unwrap_or_default()),
        }
        if version >= 10 {
            to.uuid(&topic.id);
        }
        if version >= 1 {
            to.bool(topic.is_internal);
        }
        to.array(&topic.partitions, Leader::write);
        if version >= 8 {
            to.i32(topic.rights);
        }
        to.tags();
    }

    fn refused(error: ErrorCode, name: Option<String>, id: Uuid) -> Self {
        Self {
            error,
            name,
            id,
            is_internal: false,
            partitions: Vec::new(),
            rights: NOT_ASKED,
        }
    }
}

impl Leader {
    fn write(to: &mut Writer, partition: &Self) {
        let version = to.version();
        to.i16(partition.error.code());
        to.i32(partition.index);
        to.i32(NODE_ID);
        if version >= 7 {
            to.i32(partition.epoch);
        }
        for _ in ["replicas", "in sync"] {
            to.array(&[NODE_ID], |to, id| to.i32(*id));
        }
        if version >= 5 {
            // None is offline.
            to.array::<()>(&[], |_, ()| {});
        }
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let broker = call.broker;
    let topics = match &request.topics {
        None => {
            let all = broker.log.topics();
            let seen =
                |topic: &&Arc<Topic>| call.may(Operation::Describe, Resource::Topic(&topic.name));
            all.iter()
                .filter(seen)
                .map(|topic| told(topic, &request, call))
                .collect()
        }
        Some(named) => {
            // Each once, as Kafka does: of one that has many partitions much is told.
            let mut seen = HashSet::new();
            let mut topics = Vec::new();
            for one in named.iter().filter(|one| seen.insert(*one)) {
                topics.push(look_up(one, &request, call).await);
            }
            topics
        }
    };
    let cluster_rights = match request.with_cluster_rights {
        true => call.bits(Resource::Cluster),
        false => NOT_ASKED,
    };
    Response {
        host: broker.settings.host.clone(),
        port: broker.settings.port,
        cluster_id: broker.log.meta().cluster_id.clone(),
        topics,
        cluster_rights,
    }
}

async fn look_up(named: &Named, request: &Request, call: &Call<'_>) -> Told {
    let Some(name) = &named.name else {
        return look_up_id(named.id, request, call);
    };
    let refused = |error| Told::refused(error, Some(name.clone()), Uuid::default());
    if !is_name(name) {
        return refused(ErrorCode::InvalidTopicException);
    }
    if !call.may(Operation::Describe, Resource::Topic(name)) {
        return refused(ErrorCode::TopicAuthorizationFailed);
    }
    if let Some(topic) = call.broker.log.topics().get(name) {
        return told(topic, request, call);
    }
    if !request.may_create || is_wardents_alone(name) {
        // Rights are told of one that is not there, too: kafka-python reads the number for none as one.
        return Told {
            rights: rights(name, request, call),
            ..refused(ErrorCode::UnknownTopicOrPartition)
        };
    }
    if !topics::may_create(call, name) {
        return refused(ErrorCode::TopicAuthorizationFailed);
    }
    match topics::ensure(call.broker, name).await {
        Ok(topic) => told(&topic, request, call),
        Err(why) => {
            tracing::warn!("the topic {name} was not made on first use: {}", why.why);
            refused(why.code)
        }
    }
}

/// A topic that is asked for by its id alone.
fn look_up_id(id: Uuid, request: &Request, call: &Call<'_>) -> Told {
    let topics = call.broker.log.topics();
    let found = topics.by_id(&id);
    let found = found.filter(|topic| call.may(Operation::Describe, Resource::Topic(&topic.name)));
    match found {
        Some(topic) => told(topic, request, call),
        None => Told::refused(ErrorCode::UnknownTopicId, None, id),
    }
}

fn told(topic: &Topic, request: &Request, call: &Call<'_>) -> Told {
    // One that takes no appends for now can still be read: it is never told as without a leader.
    let leader = |index: u32| {
        let partition = call.broker.log.partition(&topic.name, index);
        Leader {
            error: ErrorCode::None,
            index: i32::try_from(index).unwrap_or(i32::MAX),
            // librdkafka takes -1 for 0, and is fenced by every later epoch.
            epoch: partition.map_or(-1, |partition| super::leader_epoch(&partition)),
        }
    };
    Told {
        error: ErrorCode::None,
        name: Some(topic.name.clone()),
        id: topic.id,
        is_internal: topic.name == "__consumer_offsets",
        partitions: (0..topic.partitions()).map(leader).collect(),
        rights: rights(&topic.name, request, call),
    }
}

/// What the client may do with a topic, where it has asked.
fn rights(name: &str, request: &Request, call: &Call<'_>) -> i32 {
    match request.with_topic_rights {
        true => call.bits(Resource::Topic(name)),
        false => NOT_ASKED,
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            MetadataRequest, MetadataResponse, TopicName, metadata_request::MetadataRequestTopic,
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::Metadata) {
            let name = TopicName(StrBytes::from_static_str("orders"));
            let topic = MetadataRequestTopic::default().with_name(Some(name));
            let mut theirs = MetadataRequest::default()
                .with_topics(Some(vec![topic]))
                .with_allow_auto_topic_creation(version < 4);
            if version >= 8 {
                theirs = theirs.with_include_topic_authorized_operations(true);
            }
            if (8..=10).contains(&version) {
                theirs = theirs.with_include_cluster_authorized_operations(true);
            }
            let ours = oracle::read(Key::Metadata, version, &theirs, Request::read);
            let named = Named {
                id: Uuid::default(),
                name: Some("orders".to_owned()),
            };
            assert_eq!(ours.topics, Some(vec![named]));
            assert_eq!(ours.may_create, version < 4);
            assert_eq!(ours.with_topic_rights, version >= 8);
            assert_eq!(ours.with_cluster_rights, (8..=10).contains(&version));
        }
    }

    #[test]
    fn no_list_and_an_empty_one_are_told_apart_from_version_1_on() {
        for version in oracle::versions(Key::Metadata) {
            let empty = MetadataRequest::default().with_topics(Some(vec![]));
            let ours = oracle::read(Key::Metadata, version, &empty, Request::read);
            assert_eq!(ours.topics.is_none(), version == 0);
            if version > 0 {
                let all = MetadataRequest::default().with_topics(None);
                let ours = oracle::read(Key::Metadata, version, &all, Request::read);
                assert!(ours.topics.is_none());
            }
        }
    }

    #[test]
    fn answers_are_written() {
        let response = Response {
            host: "127.0.0.1".to_owned(),
            port: 9092,
            cluster_id: "abc".to_owned(),
            topics: vec![Told {
                error: ErrorCode::None,
                name: Some("orders".to_owned()),
                id: [7; 16],
                is_internal: true,
                partitions: vec![Leader {
                    error: ErrorCode::None,
                    index: 0,
                    epoch: 5,
                }],
                rights: 8,
            }],
            cluster_rights: 9,
        };
        for version in oracle::versions(Key::Metadata) {
            let write = |to: &mut Writer| response.write(to);
            let read: MetadataResponse = oracle::written(Key::Metadata, version, write);
            let [broker] = read.brokers.as_slice() else {
                panic!("{read:?}")
            };
            assert_eq!(
                (broker.node_id.0, broker.host.as_str(), broker.port),
                (1, "127.0.0.1", 9092)
            );
            let [topic] = read.topics.as_slice() else {
                panic!("{read:?}")
            };
            assert_eq!(topic.name.as_ref().unwrap().0.as_str(), "orders");
            assert_eq!(topic.is_internal, version >= 1);
            assert_eq!(topic.topic_id.as_bytes() == &[7; 16], version >= 10);
            let [partition] = topic.partitions.as_slice() else {
                panic!("{read:?}")
            };
            assert_eq!(partition.leader_id.0, 1);
            assert_eq!(partition.leader_epoch, if version >= 7 { 5 } else { -1 });
            assert_eq!(partition.replica_nodes.len(), 1);
            assert_eq!(read.controller_id.0, if version >= 1 { 1 } else { -1 });
        }
    }
}
