//! OffsetFetch (key 9): how far groups are (KIP-709).

use std::collections::HashSet;

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    group::Committed,
    wire::{Malformed, Reader, Writer},
};

/// No such offset, or epoch.
const NONE: i32 = -1;

/// Which groups, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    groups: Vec<Asked>,
}

/// A group, and its partitions; none for wherever it has committed.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    group: String,
    topics: Option<Vec<Topic<i32>>>,
}

/// Partitions of a topic.
#[derive(Debug, PartialEq, Eq)]
struct Topic<P> {
    name: String,
    partitions: Vec<P>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let version = from.version();
        let groups = match version {
            8.. => from.array(Asked::read)?,
            _ => {
                let group = from.string()?;
                let topics = from.nullable_array(read_topic)?;
                // Before version 2 there is no way to ask for all.
                let topics = if version >= 2 {
                    topics
                } else {
                    Some(topics.unwrap_or_default())
                };
                vec![Asked { group, topics }]
            }
        };
        if version >= 7 {
            // What is committed is stable: there are no transactions.
            let _require_stable = from.bool()?;
        }
        from.tags()?;
        Ok(Self { groups })
    }
}

impl Asked {
    fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let group = from.string()?;
        if from.version() >= 9 {
            // Kafka compares them in groups of KIP-848 alone, and @platformatic/kafka makes them up.
            let _member = from.nullable_string()?;
            let _member_epoch = from.i32()?;
        }
        let topics = from.nullable_array(read_topic)?;
        from.tags()?;
        Ok(Self { group, topics })
    }
}

fn read_topic(from: &mut Reader) -> Result<Topic<i32>, Malformed> {
    let name = from.string()?;
    let partitions = from.array(Reader::i32)?;
    from.tags()?;
    Ok(Topic { name, partitions })
}

/// How far they are.
#[derive(Debug)]
pub(super) struct Response {
    groups: Vec<Found>,
}

#[derive(Debug)]
struct Found {
    group: String,
    error: ErrorCode,
    topics: Vec<Topic<Place>>,
}

/// A partition, what is committed there, and why not.
#[derive(Debug)]
struct Place {
    index: i32,
    committed: Option<Committed>,
    error: ErrorCode,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        let version = to.version();
        if version >= 3 {
            // Throttle time.
            to.i32(0);
        }
        if version >= 8 {
            to.array(&self.groups, |to, group| {
                to.string(&group.group);
                to.array(&group.topics, |to, topic| {
                    write_topic(to, topic, ErrorCode::None);
                });
                to.i16(group.error.code());
                to.tags();
            });
        } else if let Some(group) = self.groups.first() {
            // Version 1 has no other place for an error.
            let own = if version >= 2 {
                ErrorCode::None
            } else {
                group.error
            };
            to.array(&group.topics, |to, topic| write_topic(to, topic, own));
            if version >= 2 {
                to.i16(group.error.code());
            }
        }
        to.tags();
    }
}

fn write_topic(to: &mut Writer, topic: &Topic<Place>, of_group: ErrorCode) {
    to.string(&topic.name);
    to.array(&topic.partitions, |to, place| {
        let committed = place.committed.as_ref();
        to.i32(place.index);
        to.i64(committed.map_or(i64::from(NONE), |one| one.offset));
        if to.version() >= 5 {
            to.i32(committed.map_or(NONE, |one| one.leader_epoch));
        }
        to.nullable_string(Some(committed.map_or("", |one| one.metadata.as_str())));
        to.i16(place.error.or(of_group).code());
        to.tags();
    });
    to.tags();
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let mut seen = HashSet::new();
    let mut groups = Vec::with_capacity(request.groups.len());
    for asked in request.groups {
        groups.push(match seen.insert(asked.group.clone()) {
            true => find(asked, call).await,
            false => Found::refused(asked.group, ErrorCode::InvalidRequest, None),
        });
    }
    Response { groups }
}

async fn find(asked: Asked, call: &Call<'_>) -> Found {
    let Asked { group, topics } = asked;
    if !call.may(Operation::Describe, Resource::Group(&group)) {
        return Found::refused(group, ErrorCode::GroupAuthorizationFailed, topics);
    }
    let may = |topic: &str| call.may(Operation::Describe, Resource::Topic(topic));
    let named = topics.map(|topics| topics.into_iter().partition(|topic| may(&topic.name)));
    let (of, refused): (_, Vec<_>) = match named {
        None => (None, Vec::new()),
        Some((of, refused)) => (Some(of), refused),
    };
    let wanted = of.as_ref().map(|of: &Vec<Topic<i32>>| {
        let names = of.iter();
        names
            .map(|topic| (topic.name.clone(), topic.partitions.clone()))
            .collect()
    });
    let fetched = match call
        .broker
        .groups
        .fetch(group.clone(), wanted, call.session)
        .await
    {
        Ok(fetched) => fetched,
        Err(error) => {
            let of = of.map(|of| of.into_iter().chain(refused).collect());
            return Found::refused(group, error, of);
        }
    };
    let seen = fetched.into_iter().filter(|(topic, _)| may(topic));
    let seen = seen.map(|(name, partitions)| Topic {
        name,
        partitions: partitions.into_iter().map(Place::from).collect(),
    });
    let refused = refused
        .into_iter()
        .map(|topic| topic.refused(ErrorCode::TopicAuthorizationFailed));
    Found {
        group,
        error: ErrorCode::None,
        topics: seen.chain(refused).collect(),
    }
}

impl From<(i32, Option<Committed>)> for Place {
    fn from((index, committed): (i32, Option<Committed>)) -> Self {
        Self {
            index,
            committed,
            error: ErrorCode::None,
        }
    }
}

impl Topic<i32> {
    fn refused(self, error: ErrorCode) -> Topic<Place> {
        let place = |index| Place {
            error,
            ..Place::from((index, None))
        };
        Topic {
            name: self.name,
            partitions: self.partitions.into_iter().map(place).collect(),
        }
    }
}

impl Found {
    fn refused(group: String, error: ErrorCode, topics: Option<Vec<Topic<i32>>>) -> Self {
        let topics = topics.into_iter().flatten();
        Self {
            group,
            error,
            topics: topics.map(|topic| topic.refused(ErrorCode::None)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName,
            offset_fetch_request::{
                OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
            },
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read() {
        let text = StrBytes::from_static_str;
        for version in oracle::versions(Key::OffsetFetch) {
            let name = TopicName(text("orders"));
            let theirs = if version >= 8 {
                let topic = OffsetFetchRequestTopics::default()
                    .with_name(name)
                    .with_partition_indexes(vec![3]);
                let mut group = OffsetFetchRequestGroup::default()
                    .with_group_id(GroupId(text("g")))
                    .with_topics(Some(vec![topic]));
                if version >= 9 {
                    group = group.with_member_id(Some(text("m"))).with_member_epoch(7);
                }
                OffsetFetchRequest::default().with_groups(vec![group])
            } else {
                let topic = OffsetFetchRequestTopic::default()
                    .with_name(name)
                    .with_partition_indexes(vec![3]);
                OffsetFetchRequest::default()
                    .with_group_id(GroupId(text("g")))
                    .with_topics(Some(vec![topic]))
            };
            let ours = oracle::read(Key::OffsetFetch, version, &theirs, Request::read);
            let topic = Topic {
                name: "orders".to_owned(),
                partitions: vec![3],
            };
            let expected = Asked {
                group: "g".to_owned(),
                topics: Some(vec![topic]),
            };
            assert_eq!(ours.groups, [expected]);
        }
    }

    #[test]
    fn null_is_all_of_them() {
        let group = GroupId(StrBytes::from_static_str("g"));
        for version in 2..=9 {
            let theirs = if version >= 8 {
                let group = OffsetFetchRequestGroup::default()
                    .with_group_id(group.clone())
                    .with_topics(None);
                OffsetFetchRequest::default().with_groups(vec![group])
            } else {
                OffsetFetchRequest::default()
                    .with_group_id(group.clone())
                    .with_topics(None)
            };
            let ours = oracle::read(Key::OffsetFetch, version, &theirs, Request::read);
            assert_eq!(ours.groups[0].topics, None);
        }
    }

    #[test]
    fn answers_are_written() {
        let committed = Committed {
            offset: 11,
            leader_epoch: 5,
            metadata: "meta".to_owned(),
            unix_ms: 0,
        };
        let found = Found {
            group: "g".to_owned(),
            error: ErrorCode::None,
            topics: vec![Topic {
                name: "orders".to_owned(),
                partitions: vec![Place::from((0, Some(committed))), Place::from((1, None))],
            }],
        };
        let response = Response {
            groups: vec![found],
        };
        for version in oracle::versions(Key::OffsetFetch) {
            let write = |to: &mut Writer| response.write(to);
            let read: OffsetFetchResponse = oracle::written(Key::OffsetFetch, version, write);
            let epoch = if version >= 5 { 5 } else { -1 };
            let told: Vec<_> = if version >= 8 {
                let partitions = read.groups[0].topics[0].partitions.iter();
                let told = partitions.map(|one| {
                    let metadata = one.metadata.clone().unwrap_or_default();
                    (
                        one.committed_offset,
                        one.committed_leader_epoch,
                        metadata.to_string(),
                    )
                });
                told.collect()
            } else {
                let partitions = read.topics[0].partitions.iter();
                let told = partitions.map(|one| {
                    let metadata = one.metadata.clone().unwrap_or_default();
                    (
                        one.committed_offset,
                        one.committed_leader_epoch,
                        metadata.to_string(),
                    )
                });
                told.collect()
            };
            assert_eq!(
                told,
                [(11, epoch, "meta".to_owned()), (-1, -1, String::new())]
            );
        }
    }
}
