//! The APIs, a file each: what is asked, what is answered, and what happens in between.

mod alter_client_quotas;
mod alter_configs;
mod alter_user_scram_credentials;
mod api_versions;
mod create_acls;
mod create_partitions;
mod create_topics;
mod delete_acls;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_user_scram_credentials;
mod elect_leaders;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sasl_authenticate;
mod sasl_handshake;
mod sync_group;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    broker::{Broker, Call},
    counters::Cut,
    error::ErrorCode,
    frame,
    room::Part,
    table::{Key, Row},
    wire::{Malformed, Reader, Shape, Writer},
};
use crate::log::{Partition, ReadError};

/// What a thing that a request names takes at the most while it is answered, beside the name: in bytes.
const ELEMENT_BYTES: usize = 256;

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// These bytes, complete.
    Bytes(Vec<u8>),
    /// The request is begun, and the next may begin; its answer comes when the log has done its part.
    Later(Later),
    /// Nothing is answered, and the connection goes on.
    Nothing,
}

/// An answer that waits for the log.
#[derive(Debug)]
pub(crate) struct Later {
    begun: produce::Begun,
    to: Writer,
    /// What the request takes until it is answered.
    _room: Part,
}

impl Later {
    /// The answer, complete, when it is there.
    pub(crate) async fn bytes(mut self, broker: &Broker) -> Vec<u8> {
        let response = self.begun.ended(broker).await;
        response.write(&mut self.to);
        complete(self.to)
    }
}

macro_rules! answered {
    ($api:ident, $from:expr, $call:expr, $to:expr) => {{
        let (body, mut room) = $from;
        // It has no part in the request's own bytes: whoever waits holds what it names, and no more.
        let (request, bytes) = decoded(body, &mut room, $api::Request::read).await?;
        room.shrink_to(bytes);
        let response = $api::answer(request, $call).await;
        response.write(&mut $to);
        Ok(Answer::Bytes(complete($to)))
    }};
}

/// Reads a request, and takes room for what it names: says how much. What follows a request is passed over, as
/// Kafka does: librdkafka 2.12 has three bytes behind a Metadata that asks for all topics.
async fn decoded<T>(
    body: Reader,
    room: &mut Part,
    read: fn(&mut Reader) -> Result<T, Malformed>,
) -> Result<(T, usize), Cut> {
    let mut from = body.clone();
    let request = read(&mut from)?;
    let bytes = from.elements().saturating_mul(ELEMENT_BYTES);
    let total = room.bytes().saturating_add(bytes);
    if room.try_hold(total) {
        return Ok((request, bytes));
    }
    // Who waits for room takes none.
    drop(request);
    room.hold(total).await?;
    from = body;
    Ok((read(&mut from)?, bytes))
}

/// Answers a request of a version that is advertised. It has `room`, and gives it back.
///
/// # Errors
/// When it is malformed, or there is no room for what it names.
pub(crate) async fn answer(
    row: &Row,
    correlation: i32,
    body: Reader,
    room: Part,
    call: &Call<'_>,
) -> Result<Answer, Cut> {
    let shape = row.shape(call.version);
    let from = (body, room);
    let mut to = Writer::new(frame::begin(correlation, row.key, shape), shape);
    match row.key {
        Key::Produce => {
            let (body, mut room) = from;
            let (request, bytes) = decoded(body, &mut room, produce::Request::read).await?;
            let begun = produce::begin(request, call).await;
            // The log has the batches now.
            room.shrink_to(bytes);
            Ok(match begun {
                None => Answer::Nothing,
                Some(begun) => Answer::Later(Later {
                    begun,
                    to,
                    _room: room,
                }),
            })
        }
        Key::Fetch => answered!(fetch, from, call, to),
        Key::ListOffsets => answered!(list_offsets, from, call, to),
        Key::Metadata => answered!(metadata, from, call, to),
        Key::SaslHandshake => answered!(sasl_handshake, from, call, to),
        Key::OffsetCommit => answered!(offset_commit, from, call, to),
        Key::OffsetFetch => answered!(offset_fetch, from, call, to),
        Key::FindCoordinator => answered!(find_coordinator, from, call, to),
        Key::JoinGroup => answered!(join_group, from, call, to),
        Key::Heartbeat => answered!(heartbeat, from, call, to),
        Key::LeaveGroup => answered!(leave_group, from, call, to),
        Key::SyncGroup => answered!(sync_group, from, call, to),
        Key::DescribeGroups => answered!(describe_groups, from, call, to),
        Key::ListGroups => answered!(list_groups, from, call, to),
        Key::DeleteGroups => answered!(delete_groups, from, call, to),
        Key::OffsetDelete => answered!(offset_delete, from, call, to),
        Key::ApiVersions => answered!(api_versions, from, call, to),
        Key::InitProducerId => answered!(init_producer_id, from, call, to),
        Key::OffsetForLeaderEpoch => answered!(offset_for_leader_epoch, from, call, to),
        Key::DescribeProducers => answered!(describe_producers, from, call, to),
        Key::DescribeAcls => answered!(describe_acls, from, call, to),
        Key::CreateAcls => answered!(create_acls, from, call, to),
        Key::DeleteAcls => answered!(delete_acls, from, call, to),
        Key::SaslAuthenticate => answered!(sasl_authenticate, from, call, to),
        Key::DescribeClientQuotas => answered!(describe_client_quotas, from, call, to),
        Key::AlterClientQuotas => answered!(alter_client_quotas, from, call, to),
        Key::DescribeUserScramCredentials => {
            answered!(describe_user_scram_credentials, from, call, to)
        }
        Key::AlterUserScramCredentials => {
            answered!(alter_user_scram_credentials, from, call, to)
        }
        Key::CreateTopics => answered!(create_topics, from, call, to),
        Key::DeleteTopics => answered!(delete_topics, from, call, to),
        Key::DeleteRecords => answered!(delete_records, from, call, to),
        Key::DescribeConfigs => answered!(describe_configs, from, call, to),
        Key::AlterConfigs => answered!(alter_configs, from, call, to),
        Key::DescribeLogDirs => answered!(describe_log_dirs, from, call, to),
        Key::CreatePartitions => answered!(create_partitions, from, call, to),
        Key::ElectLeaders => answered!(elect_leaders, from, call, to),
        Key::IncrementalAlterConfigs => answered!(incremental_alter_configs, from, call, to),
        Key::ListPartitionReassignments => answered!(list_partition_reassignments, from, call, to),
        Key::DescribeCluster => answered!(describe_cluster, from, call, to),
    }
}

/// The answer to who asks for versions in one that is not spoken: those that are, in the oldest one, so that
/// anybody can read it (KIP-511).
pub(crate) fn unsupported_versions(correlation: i32) -> Answer {
    let shape = Shape {
        version: 0,
        is_flexible: false,
    };
    let mut to = Writer::new(frame::begin(correlation, Key::ApiVersions, shape), shape);
    api_versions::Response::unsupported().write(&mut to);
    Answer::Bytes(complete(to))
}

/// The partitions that a request has named, so that none is looked at twice.
#[derive(Debug, Default)]
struct Named(HashMap<String, HashSet<i32>>);

impl Named {
    /// Whether it was not named before.
    fn is_new(&mut self, topic: &str, partition: i32) -> bool {
        match self.0.get_mut(topic) {
            Some(partitions) => partitions.insert(partition),
            None => {
                self.0.insert(topic.to_owned(), [partition].into());
                true
            }
        }
    }
}

fn complete(to: Writer) -> Vec<u8> {
    let mut bytes = to.into_bytes();
    frame::end(&mut bytes);
    bytes
}

/// How long that many milliseconds are; not at all, where they are less than none.
fn millis(stated: i32) -> Duration {
    Duration::from_millis(u64::try_from(stated).unwrap_or(0))
}

/// The epoch in which the partition is led; -1 tells that none is known.
fn leader_epoch(partition: &Partition) -> i32 {
    partition.leader_epoch()
}

/// Compares the epoch that a client goes by with that of the partition (KIP-320).
fn check_epoch(partition: &Partition, stated: i32) -> Result<(), ErrorCode> {
    let own = leader_epoch(partition);
    match stated {
        -1 => Ok(()),
        _ if own < 0 => Ok(()),
        _ if stated < own => Err(ErrorCode::FencedLeaderEpoch),
        _ if stated > own => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// What is told where a partition cannot be read.
fn read_failed(partition: &Partition, error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Damaged { .. } => {
            tracing::warn!("{} cannot be read for a client: {error}", partition.name());
            ErrorCode::CorruptMessage
        }
        ReadError::Io(..) => {
            tracing::warn!("{} cannot be read for a client: {error}", partition.name());
            ErrorCode::KafkaStorageError
        }
    }
}
