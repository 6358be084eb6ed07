//! DescribeProducers (key 61): who has written to a partition as an idempotent producer of late (KIP-664).

use std::time::Duration;

use tokio::{sync::oneshot, time::timeout};

use super::{
    super::{
        auth::{Operation, Resource},
        broker::Call,
        error::ErrorCode,
        wire::{Malformed, Reader, Writer},
    },
    Named,
};
use crate::log::{Command, ProducerFacts, TellProducers};

/// What a producer takes in an answer.
const PRODUCER_BYTES: usize = 40;

/// How long the log may take to tell.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Producers of partitions.
#[derive(Debug)]
pub(super) struct Request {
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
        let topics = from.array(|from| {
            let name = from.string()?;
            let partitions = from.array(Reader::i32)?;
            from.tags()?;
            Ok(Topic { name, partitions })
        })?;
        from.tags()?;
        Ok(Self { topics })
    }
}

/// The producers.
#[derive(Debug)]
pub(super) struct Response {
    topics: Vec<Topic<Found>>,
}

/// Those of one partition.
#[derive(Debug)]
struct Found {
    index: i32,
    producers: Result<Vec<ProducerFacts>, ErrorCode>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.array(&self.topics, |to, topic| {
            to.string(&topic.name);
            to.array(&topic.partitions, |to, found| {
                let error = found.producers.as_ref().err();
                to.i32(found.index);
                to.i16(error.copied().unwrap_or(ErrorCode::None).code());
                to.nullable_string(None);
                let producers = found
                    .producers
                    .as_ref()
                    .map_or([].as_slice(), Vec::as_slice);
                to.array(producers, |to, producer| {
                    to.i64(producer.id);
                    to.i32(producer.epoch.into());
                    to.i32(producer.last_sequence);
                    to.i64(producer.last_timestamp_ms);
                    // Neither a coordinator nor a transaction.
                    to.i32(-1);
                    to.i64(-1);
                    to.tags();
                });
                to.tags();
            });
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let mut named = Named::default();
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for index in topic.partitions {
            let producers = match named.is_new(&topic.name, index) {
                true => producers(&topic.name, index, call).await,
                false => Err(ErrorCode::InvalidRequest),
            };
            let producers = producers.and_then(|producers| {
                let bytes = producers.len() * PRODUCER_BYTES;
                match call.session.holds(bytes) {
                    true => Ok(producers),
                    // Clients come again.
                    false => Err(ErrorCode::RequestTimedOut),
                }
            });
            partitions.push(Found { index, producers });
        }
        topics.push(Topic {
            name: topic.name,
            partitions,
        });
    }
    Response { topics }
}

async fn producers(
    topic: &str,
    index: i32,
    call: &Call<'_>,
) -> Result<Vec<ProducerFacts>, ErrorCode> {
    if !call.may(Operation::Read, Resource::Topic(topic)) {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    let index = u32::try_from(index).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    let log = &call.broker.log;
    let partition = log.partition(topic, index);
    let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let (tell, told) = oneshot::channel();
    // Who asked may have gone.
    let tell = TellProducers(Box::new(move |facts| drop(tell.send(facts))));
    let asked = log.ask(Command::Producers(partition, tell), Box::new(drop));
    // Where it has too much to do, or is offline, the client asks again.
    asked.map_err(|_| ErrorCode::NotLeaderOrFollower)?;
    match timeout(TOLD_WITHIN, told).await {
        Ok(Ok(facts)) => Ok(facts),
        Ok(Err(_)) | Err(_) => Err(ErrorCode::NotLeaderOrFollower),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            DescribeProducersRequest, DescribeProducersResponse, TopicName,
            describe_producers_request::TopicRequest,
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read_and_answers_written() {
        let topic = TopicRequest::default()
            .with_name(TopicName(StrBytes::from_static_str("orders")))
            .with_partition_indexes(vec![3, 4]);
        let theirs = DescribeProducersRequest::default().with_topics(vec![topic]);
        let ours = oracle::read(Key::DescribeProducers, 0, &theirs, Request::read);
        assert_eq!(ours.topics[0].partitions, [3, 4]);
        let facts = ProducerFacts {
            id: 7,
            epoch: 2,
            last_sequence: 9,
            last_timestamp_ms: 11,
        };
        let found = Found {
            index: 3,
            producers: Ok(vec![facts]),
        };
        let response = Response {
            topics: vec![Topic {
                name: "orders".to_owned(),
                partitions: vec![found],
            }],
        };
        let write = |to: &mut Writer| response.write(to);
        let read: DescribeProducersResponse = oracle::written(Key::DescribeProducers, 0, write);
        let partition = &read.topics[0].partitions[0];
        let producer = &partition.active_producers[0];
        assert_eq!((partition.partition_index, producer.producer_id.0), (3, 7));
        assert_eq!((producer.producer_epoch, producer.last_sequence), (2, 9));
        assert_eq!(producer.last_timestamp, 11);
    }
}
