//! OffsetForLeaderEpoch (key 23): where an epoch ended, so that who read further knows that what it read is gone
//! (KIP-320).

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    wire::{Malformed, Reader, Writer},
};

/// Ends of epochs, by partition.
#[derive(Debug)]
pub(super) struct Request {
    topics: Vec<Topic<Asked>>,
}

/// Partitions of a topic.
#[derive(Debug, PartialEq, Eq)]
struct Topic<P> {
    name: String,
    partitions: Vec<P>,
}

/// A partition, the epoch that the client goes by, and the one whose end it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    index: i32,
    current: i32,
    epoch: i32,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        if from.version() >= 3 {
            let _replica = from.i32()?;
        }
        let topics = from.array(|from| {
            let name = from.string()?;
            let partitions = from.array(|from| {
                let asked = Asked {
                    index: from.i32()?,
                    current: from.i32()?,
                    epoch: from.i32()?,
                };
                from.tags()?;
                Ok(asked)
            })?;
            from.tags()?;
            Ok(Topic { name, partitions })
        })?;
        from.tags()?;
        Ok(Self { topics })
    }
}

/// The ends.
#[derive(Debug)]
pub(super) struct Response {
    topics: Vec<Topic<Found>>,
}

/// An epoch of a partition, and the first offset after it.
#[derive(Debug, Clone, Copy)]
struct Found {
    index: i32,
    end: Result<(i32, i64), ErrorCode>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.array(&self.topics, |to, topic| {
            to.string(&topic.name);
            to.array(&topic.partitions, |to, found| {
                let (epoch, end) = found.end.unwrap_or((-1, -1));
                let error = found.end.err().unwrap_or(ErrorCode::None);
                to.i16(error.code());
                to.i32(found.index);
                to.i32(epoch);
                to.i64(end);
                to.tags();
            });
            to.tags();
        });
        to.tags();
    }
}

#[expect(clippy::unused_async, reason = "as all APIs are")]
pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| Found {
            index: asked.index,
            end: end(&topic.name, *asked, call),
        });
        Topic {
            partitions: partitions.collect(),
            name: topic.name,
        }
    });
    Response {
        topics: topics.collect(),
    }
}

fn end(topic: &str, asked: Asked, call: &Call<'_>) -> Result<(i32, i64), ErrorCode> {
    if !call.may(Operation::Describe, Resource::Topic(topic)) {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    let index = u32::try_from(asked.index).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    let partition = call.broker.log.partition(topic, index);
    let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    super::check_epoch(&partition, asked.current)?;
    // Of an epoch that is yet to come, as Kafka, neither an end nor an error.
    Ok(partition.end_of_epoch(asked.epoch).unwrap_or((-1, -1)))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            BrokerId, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
            offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        },
        protocol::StrBytes,
    };

    use crate::kafka::{rig::with_broker, table::Key, wire::oracle};

    fn request(current: i32, epoch: i32) -> OffsetForLeaderEpochRequest {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(current)
            .with_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(TopicName(StrBytes::from_static_str("orders")))
            .with_partitions(vec![partition]);
        OffsetForLeaderEpochRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic])
    }

    #[test]
    fn epochs_end_where_the_log_says() {
        with_broker(&[("orders", 1)], |rig| async move {
            for version in oracle::versions(Key::OffsetForLeaderEpoch) {
                for (current, epoch, expected) in [
                    (-1, 0, (0, 0, 0)),
                    (0, 0, (0, 0, 0)),
                    (0, 5, (0, -1, -1)),
                    (3, 0, (75, -1, -1)),
                ] {
                    let asked = request(current, epoch);
                    let answer: OffsetForLeaderEpochResponse =
                        rig.ask(Key::OffsetForLeaderEpoch, version, &asked).await;
                    let found = &answer.topics[0].partitions[0];
                    let found = (found.error_code, found.leader_epoch, found.end_offset);
                    assert_eq!(found, expected, "v{version}: {epoch}");
                }
            }
        });
    }
}
