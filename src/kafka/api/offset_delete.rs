//! OffsetDelete (key 47): what a group has committed is forgotten, unless it reads that topic (KIP-496).

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    group::TopicPartition,
    wire::{Malformed, Reader, Writer},
};
use crate::log::topic::is_name;

/// A group, and where it is to be forgotten.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    group: String,
    topics: Vec<Topic<i32>>,
}

/// Partitions of a topic.
#[derive(Debug, PartialEq, Eq)]
struct Topic<P> {
    name: String,
    partitions: Vec<P>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let group = from.string()?;
        let topics = from.array(|from| {
            let name = from.string()?;
            let partitions = from.array(Reader::i32)?;
            Ok(Topic { name, partitions })
        })?;
        Ok(Self { group, topics })
    }
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
    topics: Vec<Topic<(i32, ErrorCode)>>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        to.i16(self.error.code());
        // Throttle time.
        to.i32(0);
        to.array(&self.topics, |to, topic| {
            to.string(&topic.name);
            to.array(&topic.partitions, |to, (index, error)| {
                to.i32(*index);
                to.i16(error.code());
            });
        });
    }

    fn refused(error: ErrorCode) -> Self {
        Self {
            error,
            topics: Vec::new(),
        }
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    if !call.may(Operation::Delete, Resource::Group(&request.group)) {
        return Response::refused(ErrorCode::GroupAuthorizationFailed);
    }
    let check = |topic: &Topic<i32>| {
        if !call.may(Operation::Read, Resource::Topic(&topic.name)) {
            return Err(ErrorCode::TopicAuthorizationFailed);
        }
        // Of a topic that cannot be, nothing was committed.
        match is_name(&topic.name) {
            true => Ok(()),
            false => Err(ErrorCode::UnknownTopicOrPartition),
        }
    };
    let checked: Vec<_> = request
        .topics
        .into_iter()
        .map(|one| (check(&one), one))
        .collect();
    let allowed = checked.iter().filter(|(checked, _)| checked.is_ok());
    let of = allowed.flat_map(|(_, topic)| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| TopicPartition {
            topic: topic.name.clone(),
            partition: *partition,
        })
    });
    let forgotten = call
        .broker
        .groups
        .forget(request.group.clone(), of.collect())
        .await;
    let mut codes = match forgotten {
        Ok(codes) => codes.into_iter(),
        Err(error) => return Response::refused(error),
    };
    let topics = checked.into_iter().map(|(checked, topic)| {
        let mut code = || match checked {
            Ok(()) => codes.next().unwrap_or(ErrorCode::UnknownServerError),
            Err(error) => error,
        };
        let partitions = topic.partitions.into_iter().map(|index| (index, code()));
        Topic {
            partitions: partitions.collect(),
            name: topic.name,
        }
    });
    Response {
        error: ErrorCode::None,
        topics: topics.collect(),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            GroupId, OffsetDeleteRequest, OffsetDeleteResponse, TopicName,
            offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read_and_answers_written() {
        for version in oracle::versions(Key::OffsetDelete) {
            let text = StrBytes::from_static_str;
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(3);
            let topic = OffsetDeleteRequestTopic::default()
                .with_name(TopicName(text("orders")))
                .with_partitions(vec![partition]);
            let theirs = OffsetDeleteRequest::default()
                .with_group_id(GroupId(text("g")))
                .with_topics(vec![topic]);
            let ours = oracle::read(Key::OffsetDelete, version, &theirs, Request::read);
            assert_eq!(ours.group, "g");
            assert_eq!(
                (ours.topics[0].name.as_str(), &ours.topics[0].partitions[..]),
                ("orders", &[3][..])
            );
            let response = Response {
                error: ErrorCode::None,
                topics: vec![Topic {
                    name: "orders".to_owned(),
                    partitions: vec![(3, ErrorCode::GroupSubscribedToTopic)],
                }],
            };
            let write = |to: &mut Writer| response.write(to);
            let read: OffsetDeleteResponse = oracle::written(Key::OffsetDelete, version, write);
            let partition = &read.topics[0].partitions[0];
            assert_eq!((partition.partition_index, partition.error_code), (3, 86));
        }
    }
}
