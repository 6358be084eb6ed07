//! ListOffsets (key 2): the first offset of a partition, its end, and those of a time (KIP-79, KIP-734).

use super::{
    super::{
        auth::{Operation, Resource},
        broker::Call,
        error::ErrorCode,
        wire::{Malformed, Reader, Writer},
    },
    Named,
};
use crate::log::{Partition, ReadError};

/// Times that stand for a place.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const OF_LATEST_TIME: i64 = -3;

/// No such offset, or time, or epoch.
const NONE: i64 = -1;

/// Offsets of partitions, by time.
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

/// A partition, and the time whose offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    index: i32,
    epoch: i32,
    time_ms: i64,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let version = from.version();
        let _replica = from.i32()?;
        if version >= 2 {
            // Nothing here is ever uncommitted.
            let _isolation = from.i8()?;
        }
        let topics = from.array(|from| {
            let name = from.string()?;
            let partitions = from.array(|from| {
                let index = from.i32()?;
                let epoch = match version {
                    4.. => from.i32()?,
                    _ => -1,
                };
                let time_ms = from.i64()?;
                from.tags()?;
                Ok(Asked {
                    index,
                    epoch,
                    time_ms,
                })
            })?;
            from.tags()?;
            Ok(Topic { name, partitions })
        })?;
        from.tags()?;
        Ok(Self { topics })
    }
}

/// The offsets.
#[derive(Debug)]
pub(super) struct Response {
    topics: Vec<Topic<Found>>,
}

/// An offset of a partition, and the time of its record.
#[derive(Debug, Clone, Copy)]
struct Found {
    index: i32,
    error: ErrorCode,
    time_ms: i64,
    offset: i64,
    epoch: i32,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        if to.version() >= 2 {
            // Throttle time.
            to.i32(0);
        }
        to.array(&self.topics, |to, topic| {
            to.string(&topic.name);
            to.array(&topic.partitions, Found::write);
            to.tags();
        });
        to.tags();
    }
}

impl Found {
    fn write(to: &mut Writer, found: &Self) {
        to.i32(found.index);
        to.i16(found.error.code());
        to.i64(found.time_ms);
        to.i64(found.offset);
        if to.version() >= 4 {
            to.i32(found.epoch);
        }
        to.tags();
    }

    fn refused(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error,
            time_ms: NONE,
            offset: NONE,
            epoch: -1,
        }
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let mut named = Named::default();
    let mut topics = Vec::with_capacity(request.topics.len());
    for Topic { name, partitions } in request.topics {
        let may = call.may(Operation::Describe, Resource::Topic(&name));
        let mut found = Vec::with_capacity(partitions.len());
        for asked in partitions {
            let looked_up = match may {
                false => Err(ErrorCode::TopicAuthorizationFailed),
                true if !named.is_new(&name, asked.index) => Err(ErrorCode::InvalidRequest),
                // By time, records are read and unpacked.
                true if asked.time_ms >= 0 || asked.time_ms == OF_LATEST_TIME => {
                    call.broker.in_turn(|| find(&name, asked, call)).await
                }
                true => find(&name, asked, call),
            };
            found.push(looked_up.unwrap_or_else(|error| Found::refused(asked.index, error)));
        }
        topics.push(Topic {
            name,
            partitions: found,
        });
    }
    Response { topics }
}

fn find(topic: &str, asked: Asked, call: &Call<'_>) -> Result<Found, ErrorCode> {
    let index = u32::try_from(asked.index).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    let partition = call.broker.log.partition(topic, index);
    let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    super::check_epoch(&partition, asked.epoch)?;
    let (offset, time_ms) = offset_of(&partition, asked.time_ms)
        .map_err(|error| super::read_failed(&partition, &error))?;
    Ok(Found {
        index: asked.index,
        error: ErrorCode::None,
        time_ms,
        offset,
        epoch: super::leader_epoch(&partition),
    })
}

/// The offset at that time, and the time of its record.
fn offset_of(partition: &Partition, time_ms: i64) -> Result<(i64, i64), ReadError> {
    let time_ms = match time_ms {
        LATEST => return Ok((partition.high_watermark(), NONE)),
        EARLIEST => return Ok((partition.log_start_offset(), NONE)),
        OF_LATEST_TIME => {
            let times = partition.segments().into_iter();
            let latest = times.map(|segment| segment.max_timestamp_ms).max();
            latest.unwrap_or(NONE)
        }
        other => other,
    };
    if time_ms < 0 {
        return Ok((NONE, NONE));
    }
    Ok(partition
        .offset_at_or_after(time_ms)?
        .unwrap_or((NONE, NONE)))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            BrokerId, ListOffsetsRequest, ListOffsetsResponse, TopicName,
            list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::ListOffsets) {
            let mut partition = ListOffsetsPartition::default()
                .with_partition_index(3)
                .with_timestamp(-2);
            if version >= 4 {
                partition = partition.with_current_leader_epoch(7);
            }
            let topic = ListOffsetsTopic::default()
                .with_name(TopicName(StrBytes::from_static_str("orders")))
                .with_partitions(vec![partition]);
            let theirs = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(vec![topic]);
            let ours = oracle::read(Key::ListOffsets, version, &theirs, Request::read);
            let asked = Asked {
                index: 3,
                epoch: if version >= 4 { 7 } else { -1 },
                time_ms: EARLIEST,
            };
            let topic = Topic {
                name: "orders".to_owned(),
                partitions: vec![asked],
            };
            assert_eq!(ours.topics, [topic]);
        }
    }

    #[test]
    fn answers_are_written() {
        let found = Found {
            index: 3,
            error: ErrorCode::None,
            time_ms: 11,
            offset: 12,
            epoch: 13,
        };
        let response = Response {
            topics: vec![Topic {
                name: "orders".to_owned(),
                partitions: vec![found],
            }],
        };
        for version in oracle::versions(Key::ListOffsets) {
            let write = |to: &mut Writer| response.write(to);
            let read: ListOffsetsResponse = oracle::written(Key::ListOffsets, version, write);
            let partition = &read.topics[0].partitions[0];
            assert_eq!((partition.partition_index, partition.error_code), (3, 0));
            assert_eq!((partition.timestamp, partition.offset), (11, 12));
            assert_eq!(partition.leader_epoch, if version >= 4 { 13 } else { -1 });
        }
    }
}
