//! CreatePartitions (key 37): topics that grow (KIP-195).

use std::{collections::HashMap, time::Duration};

use super::super::{
    auth::{Operation, Resource},
    broker::{Call, NODE_ID},
    error::ErrorCode,
    topics::{self, configs::Refused},
    wire::{Malformed, Reader, Writer},
};
use crate::log::topic::PARTITIONS_MAX;

/// Topics that are to grow.
#[derive(Debug)]
pub(super) struct Request {
    topics: Vec<Wanted>,
    within: Duration,
    is_tried_only: bool,
}

/// A topic that is to grow.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    partitions: i32,
    /// Which brokers have each of the new ones.
    assigned: Option<Vec<Vec<i32>>>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let topics = from.array(|from| {
            let name = from.string()?;
            let partitions = from.i32()?;
            let assigned = from.nullable_array(|from| {
                let brokers = from.array(Reader::i32)?;
                from.tags()?;
                Ok(brokers)
            })?;
            from.tags()?;
            Ok(Wanted {
                name,
                partitions,
                assigned,
            })
        })?;
        let within = super::millis(from.i32()?);
        let is_tried_only = from.bool()?;
        from.tags()?;
        Ok(Self {
            topics,
            within,
            is_tried_only,
        })
    }
}

/// What became of them.
#[derive(Debug)]
pub(super) struct Response {
    topics: Vec<(String, Option<Refused>)>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.array(&self.topics, |to, (name, refused)| {
            let refused = refused.as_ref();
            to.string(name);
            to.i16(
                refused
                    .map_or(ErrorCode::None, |refused| refused.code)
                    .code(),
            );
            to.nullable_string(refused.map(|refused| refused.why.as_str()));
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let mut times = HashMap::<&str, u32>::new();
    for topic in &request.topics {
        *times.entry(&topic.name).or_default() += 1;
    }
    let mut topics = Vec::new();
    for wanted in &request.topics {
        let grown = match times.remove(wanted.name.as_str()) {
            // What is there more than once is told once.
            None => continue,
            Some(1) => grow(wanted, &request, call).await,
            Some(_) => Err(Refused::new(
                ErrorCode::InvalidRequest,
                "Duplicate topic name.",
            )),
        };
        topics.push((wanted.name.clone(), grown.err()));
    }
    Response { topics }
}

async fn grow(wanted: &Wanted, request: &Request, call: &Call<'_>) -> Result<(), Refused> {
    let refused = |code, why: String| Err(Refused::new(code, why));
    let name = &wanted.name;
    if !call.may(Operation::Alter, Resource::Topic(name)) {
        let why = "Authorization failed.".to_owned();
        return refused(ErrorCode::TopicAuthorizationFailed, why);
    }
    let topics = call.broker.log.topics();
    let Some(topic) = topics.get(name) else {
        let why = "This server does not host this topic-partition.".to_owned();
        return refused(ErrorCode::UnknownTopicOrPartition, why);
    };
    let has = topic.partitions();
    let wants = u32::try_from(wanted.partitions).unwrap_or(0);
    if wants <= has || wants > PARTITIONS_MAX {
        let why = format!(
            "The topic {name} currently has {has} partition(s); {} would not be an increase, \
             or be more than {PARTITIONS_MAX}.",
            wanted.partitions
        );
        return refused(ErrorCode::InvalidPartitions, why);
    }
    if let Some(assigned) = &wanted.assigned {
        let is_right = u32::try_from(assigned.len()) == Ok(wants - has)
            && assigned.iter().all(|brokers| *brokers == [NODE_ID]);
        if !is_right {
            let why = "each of the new partitions is on the one broker, 1".to_owned();
            return refused(ErrorCode::InvalidReplicaAssignment, why);
        }
    }
    if !request.is_tried_only {
        topics::grow(call.broker, name.clone(), wants, request.within).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, TopicName,
            create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{
        table::Key,
        topics::rig::{Rig, run},
        wire::oracle,
    };

    fn wanted(name: &str, partitions: i32) -> Wanted {
        Wanted {
            name: name.to_owned(),
            partitions,
            assigned: None,
        }
    }

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::CreatePartitions) {
            let name = TopicName(StrBytes::from_static_str("orders"));
            let assigned = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let topic = CreatePartitionsTopic::default()
                .with_name(name)
                .with_count(5);
            let topics = vec![
                topic.clone().with_assignments(None),
                topic.with_assignments(Some(vec![assigned])),
            ];
            let theirs = CreatePartitionsRequest::default()
                .with_topics(topics)
                .with_timeout_ms(1)
                .with_validate_only(true);
            let ours = oracle::read(Key::CreatePartitions, version, &theirs, Request::read);
            assert!(ours.is_tried_only);
            let assigned = Wanted {
                assigned: Some(vec![vec![1]]),
                ..wanted("orders", 5)
            };
            assert_eq!(ours.topics, [wanted("orders", 5), assigned]);
        }
    }

    #[test]
    fn answers_are_written() {
        let refused = Refused::new(ErrorCode::InvalidPartitions, "no");
        let response = Response {
            topics: vec![("a".to_owned(), None), ("b".to_owned(), Some(refused))],
        };
        for version in oracle::versions(Key::CreatePartitions) {
            let write = |to: &mut Writer| response.write(to);
            let read: CreatePartitionsResponse =
                oracle::written(Key::CreatePartitions, version, write);
            let codes: Vec<_> = read.results.iter().map(|one| one.error_code).collect();
            assert_eq!(codes, [0, 37]);
            assert_eq!(read.results[1].error_message.as_deref(), Some("no"));
        }
    }

    #[test]
    fn topics_grow_and_never_shrink() {
        run(|rig: Rig| async move {
            rig.made("first").await;
            rig.made("second").await;
            let assigned = |brokers: Vec<i32>| Wanted {
                assigned: Some(vec![brokers]),
                ..wanted("second", 5)
            };
            let tries = [
                (wanted("first", 6), None),
                (wanted("first", 6), Some(ErrorCode::InvalidPartitions)),
                (wanted("first", -1), Some(ErrorCode::InvalidPartitions)),
                (assigned(vec![2]), Some(ErrorCode::InvalidReplicaAssignment)),
                (assigned(vec![1]), None),
                (
                    wanted("nobody", 6),
                    Some(ErrorCode::UnknownTopicOrPartition),
                ),
                (
                    wanted("wardent.audit.event", 6),
                    Some(ErrorCode::TopicAuthorizationFailed),
                ),
            ];
            for (wanted, expected) in tries {
                let request = Request {
                    topics: vec![wanted],
                    within: Duration::ZERO,
                    is_tried_only: false,
                };
                let told = answer(request, &rig.call(3)).await;
                let code = told.topics[0].1.as_ref().map(|refused| refused.code);
                assert_eq!(code, expected, "{told:?}");
            }
            let topics = rig.log().topics();
            let has = |name| topics.get(name).unwrap().partitions();
            assert_eq!((has("first"), has("second")), (6, 5));
        });
    }
}
