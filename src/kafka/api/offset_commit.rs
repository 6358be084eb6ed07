//! OffsetCommit (key 8): how far a group is, kept with its metadata; answered when it is on disk.

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    group::{Commit, Committed, TopicPartition, Who},
    wire::{Malformed, Reader, Writer},
};

/// Who commits, and what.
#[derive(Debug)]
pub(super) struct Request {
    group: String,
    generation: i32,
    who: Who,
    topics: Vec<Topic<Asked>>,
}

/// Partitions of a topic.
#[derive(Debug, PartialEq, Eq)]
struct Topic<P> {
    name: String,
    partitions: Vec<P>,
}

/// The next offset that is to be read of a partition.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    index: i32,
    offset: i64,
    epoch: i32,
    metadata: String,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let version = from.version();
        let group = from.string()?;
        let generation = from.i32()?;
        let member = from.string()?;
        let instance = if version >= 7 {
            from.nullable_string()?
        } else {
            None
        };
        if version <= 4 {
            // How long to keep it is decided here.
            let _retention_ms = from.i64()?;
        }
        let topics = from.array(|from| {
            let name = from.string()?;
            let partitions = from.array(|from| {
                let index = from.i32()?;
                let offset = from.i64()?;
                let epoch = if version >= 6 { from.i32()? } else { -1 };
                let metadata = from.nullable_string()?.unwrap_or_default();
                from.tags()?;
                Ok(Asked {
                    index,
                    offset,
                    epoch,
                    metadata,
                })
            })?;
            from.tags()?;
            Ok(Topic { name, partitions })
        })?;
        from.tags()?;
        Ok(Self {
            group,
            generation,
            who: Who { member, instance },
            topics,
        })
    }
}

/// What became of each of them.
#[derive(Debug)]
pub(super) struct Response {
    topics: Vec<Topic<(i32, ErrorCode)>>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        if to.version() >= 3 {
            // Throttle time.
            to.i32(0);
        }
        to.array(&self.topics, |to, topic| {
            to.string(&topic.name);
            to.array(&topic.partitions, |to, (index, error)| {
                to.i32(*index);
                to.i16(error.code());
                to.tags();
            });
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let may_group = call.may(Operation::Read, Resource::Group(&request.group));
    let unix_ms = i64::try_from(call.broker.clock.unix_ms()).unwrap_or(i64::MAX);
    let mut offsets = Vec::new();
    let mut checked = Vec::new();
    for topic in request.topics {
        let may = call.may(Operation::Read, Resource::Topic(&topic.name));
        let check = |index: i32| {
            let there = u32::try_from(index)
                .ok()
                .and_then(|index| call.broker.log.partition(&topic.name, index));
            match there {
                _ if !may_group => Some(ErrorCode::GroupAuthorizationFailed),
                _ if !may => Some(ErrorCode::TopicAuthorizationFailed),
                None => Some(ErrorCode::UnknownTopicOrPartition),
                Some(_) => None,
            }
        };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let refused = check(asked.index);
            partitions.push((asked.index, refused));
            if refused.is_none() {
                let of = TopicPartition {
                    topic: topic.name.clone(),
                    partition: asked.index,
                };
                let committed = Committed {
                    offset: asked.offset,
                    leader_epoch: asked.epoch,
                    metadata: asked.metadata,
                    unix_ms,
                };
                offsets.push((of, committed));
            }
        }
        checked.push(Topic {
            name: topic.name,
            partitions,
        });
    }
    let commit = Commit {
        group: request.group,
        generation: request.generation,
        who: request.who,
        offsets,
    };
    let codes = match commit.offsets.is_empty() {
        true => Vec::new(),
        false => call.broker.groups.commit(commit).await,
    };
    Response::of(checked, codes)
}

impl Response {
    /// Where nothing was refused, the next of `codes` says what became of it.
    fn of(checked: Vec<Topic<(i32, Option<ErrorCode>)>>, codes: Vec<ErrorCode>) -> Self {
        let mut codes = codes.into_iter();
        let mut told = |(index, refused): (i32, Option<ErrorCode>)| {
            let own = || codes.next().unwrap_or(ErrorCode::UnknownServerError);
            (index, refused.unwrap_or_else(own))
        };
        let topics = checked.into_iter().map(|topic| Topic {
            partitions: topic.partitions.into_iter().map(&mut told).collect(),
            name: topic.name,
        });
        Self {
            topics: topics.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            GroupId, OffsetCommitRequest, OffsetCommitResponse, TopicName,
            offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::OffsetCommit) {
            let text = StrBytes::from_static_str;
            let mut partition = OffsetCommitRequestPartition::default()
                .with_partition_index(3)
                .with_committed_offset(11)
                .with_committed_metadata(Some(text("meta")));
            if version >= 6 {
                partition = partition.with_committed_leader_epoch(5);
            }
            let topic = OffsetCommitRequestTopic::default()
                .with_name(TopicName(text("orders")))
                .with_partitions(vec![partition]);
            let mut theirs = OffsetCommitRequest::default()
                .with_group_id(GroupId(text("g")))
                .with_generation_id_or_member_epoch(7)
                .with_member_id(text("m"))
                .with_topics(vec![topic]);
            if version >= 7 {
                theirs = theirs.with_group_instance_id(Some(text("i")));
            }
            let ours = oracle::read(Key::OffsetCommit, version, &theirs, Request::read);
            assert_eq!((ours.group.as_str(), ours.generation), ("g", 7));
            assert_eq!(ours.who.member, "m");
            assert_eq!(ours.who.instance.is_some(), version >= 7);
            let asked = Asked {
                index: 3,
                offset: 11,
                epoch: if version >= 6 { 5 } else { -1 },
                metadata: "meta".to_owned(),
            };
            assert_eq!(ours.topics[0].name, "orders");
            assert_eq!(ours.topics[0].partitions, [asked]);
        }
    }

    #[test]
    fn answers_are_written_in_the_order_of_the_request() {
        let refused = Some(ErrorCode::UnknownTopicOrPartition);
        let checked = vec![Topic {
            name: "orders".to_owned(),
            partitions: vec![(0, None), (9, refused), (1, None)],
        }];
        let codes = vec![ErrorCode::None, ErrorCode::OffsetMetadataTooLarge];
        let response = Response::of(checked, codes);
        for version in oracle::versions(Key::OffsetCommit) {
            let write = |to: &mut Writer| response.write(to);
            let read: OffsetCommitResponse = oracle::written(Key::OffsetCommit, version, write);
            let told = read.topics[0].partitions.iter();
            let told: Vec<_> = told
                .map(|one| (one.partition_index, one.error_code))
                .collect();
            assert_eq!(told, [(0, 0), (9, 3), (1, 12)]);
        }
    }
}
