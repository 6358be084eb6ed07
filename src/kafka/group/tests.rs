//! Groups as clients see them: over connections, against a log at work.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ConsumerProtocolSubscription, DeleteGroupsRequest, DeleteGroupsResponse,
        DescribeGroupsRequest, DescribeGroupsResponse, FindCoordinatorRequest,
        FindCoordinatorResponse, GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
        JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
        ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
        OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest,
        SyncGroupResponse, TopicName,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::{Encodable as _, StrBytes},
};
use tokio::time::timeout;

use super::{TOPIC, partition_of};
use crate::{
    kafka::{
        rig::{Client, Rig, with_broker},
        table::Key,
        topics,
    },
    log::Change,
};

/// Longer than anything here takes on a busy machine.
const AT_LAST: Duration = Duration::from_secs(30);

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

/// What a consumer of `orders` says of itself.
fn subscription() -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    let said = ConsumerProtocolSubscription::default().with_topics(vec![text("orders")]);
    said.encode(&mut bytes, 1).unwrap();
    bytes.freeze()
}

fn join(member: &str, instance: Option<&str>) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(subscription());
    JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(20_000)
        .with_member_id(text(member))
        .with_group_instance_id(instance.map(text))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// Joins with the version of today's clients, with the round for the member's id.
async fn joined(client: &mut Client, instance: Option<&str>) -> JoinGroupResponse {
    let answer: JoinGroupResponse = client.ask(Key::JoinGroup, 9, &join("", instance)).await;
    if answer.error_code != 79 {
        return answer;
    }
    let again = join(&answer.member_id, instance);
    client.ask(Key::JoinGroup, 9, &again).await
}

/// Syncs; a leader gives each member its own name to work on.
async fn synced(
    client: &mut Client,
    joined: &JoinGroupResponse,
    instance: Option<&str>,
) -> SyncGroupResponse {
    let assigned = joined.members.iter().map(|member| {
        SyncGroupRequestAssignment::default()
            .with_member_id(member.member_id.clone())
            .with_assignment(Bytes::from(member.member_id.to_string()))
    });
    let sync = SyncGroupRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_group_instance_id(instance.map(text))
        .with_assignments(assigned.collect());
    client.ask(Key::SyncGroup, 5, &sync).await
}

async fn beat(client: &mut Client, joined: &JoinGroupResponse) -> i16 {
    let beat = HeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone());
    let answer: HeartbeatResponse = client.ask(Key::Heartbeat, 4, &beat).await;
    answer.error_code
}

fn commit(member: &str, generation: i32, offset: i64, metadata: &str) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(3)
        .with_committed_metadata(Some(text(metadata)));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text("orders")))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(vec![topic])
}

async fn committed(rig: &Rig, request: &OffsetCommitRequest) -> i16 {
    let answer: OffsetCommitResponse = rig.ask(Key::OffsetCommit, 8, request).await;
    answer.topics[0].partitions[0].error_code
}

/// Offset, leader epoch and metadata of `orders-0`.
async fn fetched(rig: &Rig) -> (i64, i32, String) {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(TopicName(text("orders")))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(group("g"))
        .with_topics(Some(vec![topic]));
    let answer: OffsetFetchResponse = rig.ask(Key::OffsetFetch, 7, &request).await;
    assert_eq!(answer.error_code, 0);
    let place = &answer.topics[0].partitions[0];
    assert_eq!(place.error_code, 0);
    let metadata = place.metadata.clone().unwrap_or_default().to_string();
    (
        place.committed_offset,
        place.committed_leader_epoch,
        metadata,
    )
}

/// Waits until groups are read back.
async fn loaded(rig: &Rig) {
    let is_loaded = async {
        loop {
            let request = ListGroupsRequest::default();
            let answer: ListGroupsResponse = rig.ask(Key::ListGroups, 5, &request).await;
            if answer.error_code != 14 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(AT_LAST, is_loaded).await.unwrap();
}

#[test]
fn two_members_share_the_work_and_one_takes_over() {
    with_broker(&[("orders", 2)], async |rig| {
        loaded(&rig).await;
        let (mut one, mut two) = (rig.connect(), rig.connect());
        let both = async { tokio::join!(joined(&mut one, None), joined(&mut two, None)) };
        let (first, second) = timeout(AT_LAST, both).await.unwrap();
        assert_eq!((first.error_code, second.error_code), (0, 0));
        assert_eq!((first.generation_id, second.generation_id), (1, 1));
        assert_eq!(first.members.len() + second.members.len(), 2, "one leads");
        let both = async {
            tokio::join!(
                synced(&mut one, &first, None),
                synced(&mut two, &second, None)
            )
        };
        let (own, theirs) = timeout(AT_LAST, both).await.unwrap();
        assert_eq!(own.assignment, Bytes::from(first.member_id.to_string()));
        assert_eq!(theirs.assignment, Bytes::from(second.member_id.to_string()));
        assert_eq!(
            (beat(&mut one, &first).await, beat(&mut two, &second).await),
            (0, 0)
        );

        // The second leaves; the first hears of it with its next heartbeat, and has all the work.
        let member = MemberIdentity::default().with_member_id(second.member_id.clone());
        let leave = LeaveGroupRequest::default()
            .with_group_id(group("g"))
            .with_members(vec![member]);
        let left: LeaveGroupResponse = two.ask(Key::LeaveGroup, 5, &leave).await;
        assert_eq!((left.error_code, left.members[0].error_code), (0, 0));
        assert_eq!(beat(&mut one, &first).await, 27);
        let again = join(&first.member_id, None);
        let again: JoinGroupResponse = timeout(AT_LAST, one.ask(Key::JoinGroup, 9, &again))
            .await
            .unwrap();
        assert_eq!((again.generation_id, again.members.len()), (2, 1));
        // Who is late is told so.
        assert_eq!(beat(&mut one, &first).await, 22);
        assert_eq!(beat(&mut two, &second).await, 25);
    });
}

#[test]
fn assignments_that_no_record_holds_are_refused() {
    with_broker(&[("orders", 2)], async |rig| {
        loaded(&rig).await;
        let mut one = rig.connect();
        let joined = timeout(AT_LAST, joined(&mut one, None)).await.unwrap();
        for (bytes, expected) in [(1 << 20, -1), (1_000, 0)] {
            let bytes = Bytes::from(vec![b'x'; bytes + 1]);
            let assignment = SyncGroupRequestAssignment::default()
                .with_member_id(joined.member_id.clone())
                .with_assignment(bytes);
            let sync = SyncGroupRequest::default()
                .with_group_id(group("g"))
                .with_generation_id(joined.generation_id)
                .with_member_id(joined.member_id.clone())
                .with_assignments(vec![assignment]);
            let answer = one.ask(Key::SyncGroup, 5, &sync);
            let answer: SyncGroupResponse = timeout(AT_LAST, answer).await.unwrap();
            assert_eq!(answer.error_code, expected);
        }
    });
}

#[test]
fn a_member_whose_client_goes_away_while_it_waits_is_waited_for_no_more() {
    with_broker(&[("orders", 1)], async |rig| {
        loaded(&rig).await;
        let (mut one, mut two) = (rig.connect(), rig.connect());
        // Before version 4 a member does not know its id before the group is complete.
        let forgotten = two
            .send(
                Key::JoinGroup,
                3,
                &join("", None).with_group_instance_id(None),
            )
            .await;
        assert_eq!(forgotten, 1);
        drop(two);
        let alone = timeout(AT_LAST, joined(&mut one, None)).await.unwrap();
        assert_eq!(alone.error_code, 0);
        let known = timeout(AT_LAST, synced(&mut one, &alone, None))
            .await
            .unwrap();
        assert_eq!(known.error_code, 0);
        let described = described(&rig).await;
        assert_eq!(described, ("Stable".to_owned(), 1));
    });
}

async fn described(rig: &Rig) -> (String, usize) {
    let request = DescribeGroupsRequest::default().with_groups(vec![group("g")]);
    let answer: DescribeGroupsResponse = rig.ask(Key::DescribeGroups, 5, &request).await;
    let told = &answer.groups[0];
    (told.group_state.to_string(), told.members.len())
}

#[test]
fn what_is_committed_is_a_record_and_comes_back_with_its_metadata() {
    with_broker(&[("orders", 1)], async |rig| {
        loaded(&rig).await;
        assert_eq!(fetched(&rig).await, (-1, -1, String::new()));
        assert_eq!(committed(&rig, &commit("", -1, 42, "mark")).await, 0);
        assert_eq!(fetched(&rig).await, (42, 3, "mark".to_owned()));
        let long = "x".repeat(4097);
        assert_eq!(committed(&rig, &commit("", -1, 43, &long)).await, 12);
        assert_eq!(committed(&rig, &commit("m", 5, 43, "")).await, 25);
        assert_eq!(fetched(&rig).await.0, 42);
        let home = partition_of("g", 4);
        assert_eq!(rig.partition(TOPIC, home).high_watermark(), 1);
        let unknown = commit("", -1, 1, "");
        let mut unknown = unknown;
        unknown.topics[0].name = TopicName(text("nowhere"));
        assert_eq!(committed(&rig, &unknown).await, 3);
    });
}

#[test]
fn groups_and_offsets_survive_a_restart() {
    with_broker(&[("orders", 1)], async |rig| {
        loaded(&rig).await;
        let mut one = rig.connect();
        let first = timeout(AT_LAST, joined(&mut one, None)).await.unwrap();
        let work = timeout(AT_LAST, synced(&mut one, &first, None))
            .await
            .unwrap();
        let member = first.member_id.as_str();
        assert_eq!(committed(&rig, &commit(member, 1, 7, "")).await, 0);
        assert_eq!(committed(&rig, &commit(member, 2, 8, "")).await, 22);
        assert_eq!(committed(&rig, &commit("", -1, 8, "")).await, 25);

        let other = rig.another_broker();
        loaded(&other).await;
        let mut one = other.connect();
        assert_eq!(beat(&mut one, &first).await, 0, "no rebalance");
        let again = timeout(AT_LAST, synced(&mut one, &first, None))
            .await
            .unwrap();
        assert_eq!(again.assignment, work.assignment);
        assert_eq!(committed(&other, &commit(member, 1, 9, "")).await, 0);
        assert_eq!(fetched(&other).await.0, 9);
    });
}

#[test]
fn a_topic_that_is_deleted_takes_along_how_far_groups_were() {
    with_broker(&[("orders", 1)], async |rig| {
        loaded(&rig).await;
        let name = || "orders".to_owned();
        let commit = commit("", -1, 7, "m");
        assert_eq!(committed(&rig, &commit).await, 0);
        let deleted = topics::delete(&rig.broker, name(), Duration::ZERO);
        deleted.await.unwrap();
        topics::ensure(&rig.broker, "orders").await.unwrap();
        forgotten(&rig).await;
        let again = rig.another_broker();
        loaded(&again).await;
        assert_eq!(fetched(&again).await.0, -1);

        // A stop came before groups heard of it.
        assert_eq!(committed(&rig, &commit).await, 0);
        let (tell, told) = tokio::sync::oneshot::channel();
        let done = Box::new(move |result: Result<_, _>| tell.send(result.is_ok()).unwrap());
        let change = Change::Delete { name: name() };
        rig.log().change(change, done).unwrap();
        assert!(told.await.unwrap());
        let again = rig.another_broker();
        loaded(&again).await;
        topics::ensure(&again.broker, "orders").await.unwrap();
        forgotten(&again).await;
    });
}

/// Waits until the group has committed nothing.
async fn forgotten(rig: &Rig) {
    let is_forgotten = async {
        while fetched(rig).await.0 != -1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(AT_LAST, is_forgotten).await.unwrap();
}

#[test]
fn a_record_that_rotted_costs_no_group_what_came_after() {
    with_broker(&[("orders", 1)], async |rig| {
        loaded(&rig).await;
        for offset in [5, 7] {
            let code = committed(&rig, &commit("", -1, offset, "m")).await;
            assert_eq!(code, 0);
        }
        let partition = format!("{TOPIC}-{}", partition_of("g", 4));
        let file = rig.log().dir().join(partition);
        let file = file.join(format!("{:020}.log", 0));
        let mut bytes = std::fs::read(&file).unwrap();
        // Of the first batch, the version of its format: nobody can tell where it ends.
        bytes[16] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let rig = rig.another_broker();
        loaded(&rig).await;
        assert_eq!(fetched(&rig).await.0, 7);
    });
}

#[test]
fn a_static_member_that_comes_back_costs_no_rebalance_and_fences_the_one_before() {
    with_broker(&[("orders", 1)], async |rig| {
        loaded(&rig).await;
        let (mut one, mut two) = (rig.connect(), rig.connect());
        let first = timeout(AT_LAST, joined(&mut one, Some("i"))).await.unwrap();
        let work = timeout(AT_LAST, synced(&mut one, &first, Some("i")))
            .await
            .unwrap();
        let second = timeout(AT_LAST, joined(&mut two, Some("i"))).await.unwrap();
        assert_eq!((second.error_code, second.generation_id), (0, 1));
        assert_ne!(second.member_id, first.member_id);
        assert!(second.skip_assignment && !second.members.is_empty());
        let again = timeout(AT_LAST, synced(&mut two, &second, Some("i")))
            .await
            .unwrap();
        assert_eq!(again.assignment, work.assignment);
        let fenced = timeout(AT_LAST, synced(&mut one, &first, Some("i")))
            .await
            .unwrap();
        assert_eq!(fenced.error_code, 82);
    });
}

#[test]
fn groups_are_deleted_only_without_members_and_offsets_only_where_nobody_reads() {
    with_broker(&[("orders", 1), ("bills", 1)], async |rig| {
        loaded(&rig).await;
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![group("g")]);
        let deleted = async || {
            let answer: DeleteGroupsResponse = rig.ask(Key::DeleteGroups, 2, &delete).await;
            answer.results[0].error_code
        };
        let forgotten = async |topic: &str| {
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
            let topic = OffsetDeleteRequestTopic::default()
                .with_name(TopicName(text(topic)))
                .with_partitions(vec![partition]);
            let request = OffsetDeleteRequest::default()
                .with_group_id(group("g"))
                .with_topics(vec![topic]);
            let answer: OffsetDeleteResponse = rig.ask(Key::OffsetDelete, 0, &request).await;
            let own = answer
                .topics
                .first()
                .map(|topic| topic.partitions[0].error_code);
            (answer.error_code, own)
        };
        assert_eq!(deleted().await, 69);
        assert_eq!(forgotten("orders").await, (69, None));
        let mut one = rig.connect();
        let first = timeout(AT_LAST, joined(&mut one, None)).await.unwrap();
        timeout(AT_LAST, synced(&mut one, &first, None))
            .await
            .unwrap();
        assert_eq!(
            committed(&rig, &commit(&first.member_id, 1, 7, "")).await,
            0
        );
        assert_eq!(deleted().await, 68);
        assert_eq!(forgotten("orders").await, (0, Some(86)));
        assert_eq!(forgotten("bills").await, (0, Some(0)));
        let member = MemberIdentity::default().with_member_id(first.member_id.clone());
        let leave = LeaveGroupRequest::default()
            .with_group_id(group("g"))
            .with_members(vec![member]);
        let _: LeaveGroupResponse = one.ask(Key::LeaveGroup, 5, &leave).await;
        assert_eq!(described(&rig).await, ("Empty".to_owned(), 0));
        assert_eq!(forgotten("orders").await, (0, Some(0)));
        assert_eq!(fetched(&rig).await.0, -1);
        assert_eq!(committed(&rig, &commit("", -1, 8, "")).await, 0);
        assert_eq!(deleted().await, 0);
        assert_eq!(described(&rig).await, ("Dead".to_owned(), 0));
        // Nothing of it comes back.
        let other = rig.another_broker();
        loaded(&other).await;
        assert_eq!(described(&other).await.0, "Dead");
        assert_eq!(fetched(&other).await.0, -1);
    });
}

///
#[test]
fn a_flood_of_groups_and_members_is_bounded() {
    with_broker(&[], async |rig| {
        loaded(&rig).await;
        let mut told = std::collections::BTreeMap::new();
        for number in 0..1_100 {
            let mut request = join("", None).with_group_id(group(&format!("flood-{number}")));
            if number % 100 == 99 {
                request = request.with_session_timeout_ms([i32::MAX, 1][number / 100 % 2]);
            }
            let answer: JoinGroupResponse = rig.ask(Key::JoinGroup, 9, &request).await;
            *told.entry(answer.error_code).or_insert(0) += 1;
        }
        // Invalid session timeouts; ids to come back with; no room for more groups.
        assert_eq!(told, [(26, 11), (79, 1_000), (81, 89)].into());
        told.clear();
        for _ in 0..300 {
            let request = join("", None).with_group_id(group("flood-0"));
            let answer: JoinGroupResponse = rig.ask(Key::JoinGroup, 9, &request).await;
            *told.entry(answer.error_code).or_insert(0) += 1;
        }
        assert_eq!(told, [(79, 249), (81, 51)].into());
    });
}

#[test]
fn this_broker_coordinates_every_group() {
    with_broker(&[], async |rig| {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
        let answer: FindCoordinatorResponse = rig.ask(Key::FindCoordinator, 4, &request).await;
        let found = &answer.coordinators[0];
        assert_eq!(
            (found.error_code, found.node_id.0, found.port),
            (0, 1, 9092)
        );
    });
}
