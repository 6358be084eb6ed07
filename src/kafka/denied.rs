//! Who has no right to something gets nothing of it, from no API: each row of the table is asked.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::{
    messages::{self as m, GroupId, TopicName},
    protocol::{Decodable, Encodable, StrBytes},
};

use super::{
    access::Sasl,
    auth::{Acl, Principal},
    broker::Security,
    login::State,
    rig::{Rig, with_secured_broker},
    sasl::{Mechanism, Scram},
    table::{APIS, Asked, Key},
};

const TOPIC: i16 = 29;
const GROUP: i16 = 30;
const CLUSTER: i16 = 31;
/// Told as if there were nothing.
const NOTHING: i16 = 0;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn orders() -> TopicName {
    TopicName(text("orders"))
}

fn asking() -> Security {
    Security {
        tls: None,
        sasl: Some(Sasl {
            mechanisms: vec![Mechanism::Scram(Scram::Sha512)],
        }),
        tell: None,
    }
}

/// Asks as `me`, and notes that the API was asked.
struct Asker<'a> {
    rig: &'a Rig,
    asked: BTreeSet<i16>,
}

impl Asker<'_> {
    async fn ask<A: Decodable>(&mut self, key: Key, version: i16, request: &impl Encodable) -> A {
        self.asked.insert(key.code());
        self.rig.ask(key, version, request).await
    }
}

async fn is_me(rig: &Rig, lines: &[&str]) {
    let lines = lines.iter().map(|line| super::auth::acl::tests::acl(line));
    let kept = |acl: Acl| (acl.key(), Some(serde_json::to_value(&acl).unwrap()));
    let me = BTreeSet::from(["User:me".to_owned()]);
    let access = &rig.broker.access;
    access
        .change("test", &me, lines.map(kept).collect())
        .await
        .unwrap();
    rig.session
        .principal
        .replace(Principal::User("me".to_owned()));
    rig.session.login.replace(State::In);
}

#[test]
fn without_a_right_no_api_tells_or_does_anything() {
    with_secured_broker(&[("orders", 1)], asking(), async |rig| {
        rig.append("orders", 0, &["secret"]).await;
        is_me(&rig, &[]).await;
        let mut to = Asker {
            rig: &rig,
            asked: BTreeSet::new(),
        };
        records(&mut to).await;
        groups(&mut to).await;
        topics(&mut to).await;
        cluster(&mut to).await;
        let all = APIS.iter().filter(|row| row.asked == Asked::LoggedIn);
        let all: BTreeSet<_> = all.map(|row| row.key.code()).collect();
        assert_eq!(to.asked, all);
        let partition = rig.partition("orders", 0);
        assert_eq!(
            (partition.log_start_offset(), partition.high_watermark()),
            (0, 1)
        );
    });
}

async fn records(to: &mut Asker<'_>) {
    let mut builder = crate::log::Builder::new();
    builder.push(0, Some(b"key"), Some(b"forged"), &[]);
    let batch = builder.finish(crate::log::Compression::None);
    let partition = m::produce_request::PartitionProduceData::default()
        .with_records(Some(Bytes::copy_from_slice(batch.bytes())));
    let topic = m::produce_request::TopicProduceData::default()
        .with_name(orders())
        .with_partition_data(vec![partition]);
    let request = m::ProduceRequest::default()
        .with_acks(-1)
        .with_topic_data(vec![topic]);
    let told: m::ProduceResponse = to.ask(Key::Produce, 9, &request).await;
    assert_eq!(told.responses[0].partition_responses[0].error_code, TOPIC);

    let told = fetched(to).await;
    assert_eq!(told.error_code, TOPIC);
    assert!(told.records.is_none_or(|records| records.is_empty()));

    let partition = m::list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1);
    let topic = m::list_offsets_request::ListOffsetsTopic::default()
        .with_name(orders())
        .with_partitions(vec![partition]);
    let request = m::ListOffsetsRequest::default().with_topics(vec![topic]);
    let told: m::ListOffsetsResponse = to.ask(Key::ListOffsets, 7, &request).await;
    let found = &told.topics[0].partitions[0];
    assert_eq!((found.error_code, found.offset), (TOPIC, -1));

    let partition = m::offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
    let topic = m::offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
        .with_topic(orders())
        .with_partitions(vec![partition]);
    let request = m::OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    let told: m::OffsetForLeaderEpochResponse =
        to.ask(Key::OffsetForLeaderEpoch, 4, &request).await;
    let end = &told.topics[0].partitions[0];
    assert_eq!((end.error_code, end.end_offset), (TOPIC, -1));

    let topic = m::describe_producers_request::TopicRequest::default()
        .with_name(orders())
        .with_partition_indexes(vec![0]);
    let request = m::DescribeProducersRequest::default().with_topics(vec![topic]);
    let told: m::DescribeProducersResponse = to.ask(Key::DescribeProducers, 0, &request).await;
    assert_eq!(told.topics[0].partitions[0].error_code, TOPIC);

    let request = m::InitProducerIdRequest::default().with_transactional_id(None);
    let told: m::InitProducerIdResponse = to.ask(Key::InitProducerId, 4, &request).await;
    assert_eq!((told.error_code, told.producer_id.0), (CLUSTER, -1));
}

async fn fetched(to: &mut Asker<'_>) -> m::fetch_response::PartitionData {
    let partition = m::fetch_request::FetchPartition::default().with_partition_max_bytes(1 << 20);
    let topic = m::fetch_request::FetchTopic::default()
        .with_topic(orders())
        .with_partitions(vec![partition]);
    let request = m::FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic]);
    let told: m::FetchResponse = to.ask(Key::Fetch, 11, &request).await;
    told.responses[0].partitions[0].clone()
}

async fn groups(to: &mut Asker<'_>) {
    let group = || GroupId(text("readers"));
    let request = m::FindCoordinatorRequest::default().with_key(text("readers"));
    let told: m::FindCoordinatorResponse = to.ask(Key::FindCoordinator, 3, &request).await;
    assert_eq!(told.error_code, GROUP);
    let request = m::JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"));
    let told: m::JoinGroupResponse = to.ask(Key::JoinGroup, 7, &request).await;
    assert_eq!((told.error_code, told.member_id.as_str()), (GROUP, ""));
    let request = m::SyncGroupRequest::default().with_group_id(group());
    let told: m::SyncGroupResponse = to.ask(Key::SyncGroup, 4, &request).await;
    assert_eq!(told.error_code, GROUP);
    let request = m::HeartbeatRequest::default().with_group_id(group());
    let told: m::HeartbeatResponse = to.ask(Key::Heartbeat, 4, &request).await;
    assert_eq!(told.error_code, GROUP);
    let request = m::LeaveGroupRequest::default().with_group_id(group());
    let told: m::LeaveGroupResponse = to.ask(Key::LeaveGroup, 4, &request).await;
    assert_eq!(told.error_code, GROUP);
    assert_eq!(committed(to).await, GROUP);
    let request = m::OffsetFetchRequest::default()
        .with_group_id(group())
        .with_topics(None);
    let told: m::OffsetFetchResponse = to.ask(Key::OffsetFetch, 7, &request).await;
    assert_eq!((told.error_code, told.topics.len()), (GROUP, 0));
    let request = m::ListGroupsRequest::default();
    let told: m::ListGroupsResponse = to.ask(Key::ListGroups, 4, &request).await;
    assert_eq!((told.error_code, told.groups.len()), (NOTHING, 0));
    let request = m::DescribeGroupsRequest::default().with_groups(vec![group()]);
    let told: m::DescribeGroupsResponse = to.ask(Key::DescribeGroups, 5, &request).await;
    assert_eq!(told.groups[0].error_code, GROUP);
    let request = m::DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    let told: m::DeleteGroupsResponse = to.ask(Key::DeleteGroups, 2, &request).await;
    assert_eq!(told.results[0].error_code, GROUP);
    let request = m::OffsetDeleteRequest::default().with_group_id(group());
    let told: m::OffsetDeleteResponse = to.ask(Key::OffsetDelete, 0, &request).await;
    assert_eq!(told.error_code, GROUP);
}

/// Commits an offset of the topic; the error.
async fn committed(to: &mut Asker<'_>) -> i16 {
    let partition = m::offset_commit_request::OffsetCommitRequestPartition::default();
    let topic = m::offset_commit_request::OffsetCommitRequestTopic::default()
        .with_name(orders())
        .with_partitions(vec![partition]);
    let request = m::OffsetCommitRequest::default()
        .with_group_id(GroupId(text("readers")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let told: m::OffsetCommitResponse = to.ask(Key::OffsetCommit, 8, &request).await;
    told.topics[0].partitions[0].error_code
}

async fn topics(to: &mut Asker<'_>) {
    for topics in [None, Some(vec![orders()])] {
        let named = topics.map(|names| {
            let topic =
                |name| m::metadata_request::MetadataRequestTopic::default().with_name(Some(name));
            names.into_iter().map(topic).collect()
        });
        let is_named = named.is_some();
        let request = m::MetadataRequest::default().with_topics(named);
        let told: m::MetadataResponse = to.ask(Key::Metadata, 9, &request).await;
        let codes: Vec<_> = told.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, if is_named { vec![TOPIC] } else { vec![] });
        assert!(told.topics.iter().all(|topic| topic.partitions.is_empty()));
    }
    let topic = m::create_topics_request::CreatableTopic::default()
        .with_name(TopicName(text("mine")))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = m::CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(1_000);
    let told: m::CreateTopicsResponse = to.ask(Key::CreateTopics, 5, &request).await;
    assert_eq!(told.topics[0].error_code, TOPIC);
    let request = m::DeleteTopicsRequest::default().with_topic_names(vec![orders()]);
    let told: m::DeleteTopicsResponse = to.ask(Key::DeleteTopics, 5, &request).await;
    assert_eq!(told.responses[0].error_code, TOPIC);
    let topic = m::create_partitions_request::CreatePartitionsTopic::default()
        .with_name(orders())
        .with_count(3);
    let request = m::CreatePartitionsRequest::default().with_topics(vec![topic]);
    let told: m::CreatePartitionsResponse = to.ask(Key::CreatePartitions, 2, &request).await;
    assert_eq!(told.results[0].error_code, TOPIC);
    assert_eq!(deleted_records(to).await, TOPIC);
    let resource = m::describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"));
    let request = m::DescribeConfigsRequest::default().with_resources(vec![resource]);
    let told: m::DescribeConfigsResponse = to.ask(Key::DescribeConfigs, 2, &request).await;
    assert_eq!(
        (told.results[0].error_code, told.results[0].configs.len()),
        (TOPIC, 0)
    );
    let resource = m::alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"));
    let request = m::AlterConfigsRequest::default().with_resources(vec![resource]);
    let told: m::AlterConfigsResponse = to.ask(Key::AlterConfigs, 1, &request).await;
    assert_eq!(told.responses[0].error_code, TOPIC);
    assert_eq!(altered(to).await, TOPIC);
}

/// Deletes the topic's records; the error.
async fn deleted_records(to: &mut Asker<'_>) -> i16 {
    let partition = m::delete_records_request::DeleteRecordsPartition::default().with_offset(-1);
    let topic = m::delete_records_request::DeleteRecordsTopic::default()
        .with_name(orders())
        .with_partitions(vec![partition]);
    let request = m::DeleteRecordsRequest::default().with_topics(vec![topic]);
    let told: m::DeleteRecordsResponse = to.ask(Key::DeleteRecords, 2, &request).await;
    told.topics[0].partitions[0].error_code
}

/// Changes how the topic is kept; the error.
async fn altered(to: &mut Asker<'_>) -> i16 {
    let config = m::incremental_alter_configs_request::AlterableConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("1")));
    let resource = m::incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"))
        .with_configs(vec![config]);
    let request = m::IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let told: m::IncrementalAlterConfigsResponse =
        to.ask(Key::IncrementalAlterConfigs, 1, &request).await;
    told.responses[0].error_code
}

async fn cluster(to: &mut Asker<'_>) {
    let request = m::DescribeLogDirsRequest::default().with_topics(None);
    let told: m::DescribeLogDirsResponse = to.ask(Key::DescribeLogDirs, 4, &request).await;
    assert!(told.results.iter().all(|dir| dir.topics.is_empty()));
    let request = m::ElectLeadersRequest::default().with_topic_partitions(None);
    let told: m::ElectLeadersResponse = to.ask(Key::ElectLeaders, 2, &request).await;
    assert_eq!(told.error_code, CLUSTER);
    let request = m::ListPartitionReassignmentsRequest::default().with_topics(None);
    let told: m::ListPartitionReassignmentsResponse =
        to.ask(Key::ListPartitionReassignments, 0, &request).await;
    assert_eq!(told.error_code, CLUSTER);
    let request = m::DescribeClusterRequest::default();
    let told: m::DescribeClusterResponse = to.ask(Key::DescribeCluster, 0, &request).await;
    assert!(told.error_code == CLUSTER || told.brokers.len() == 1);
    let request = m::DescribeAclsRequest::default()
        .with_resource_type_filter(1)
        .with_pattern_type_filter(1)
        .with_operation(1)
        .with_permission_type(1);
    let told: m::DescribeAclsResponse = to.ask(Key::DescribeAcls, 2, &request).await;
    assert_eq!((told.error_code, told.resources.len()), (CLUSTER, 0));
    let line = m::create_acls_request::AclCreation::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"))
        .with_resource_pattern_type(3)
        .with_principal(text("User:me"))
        .with_host(text("*"))
        .with_operation(2)
        .with_permission_type(3);
    let request = m::CreateAclsRequest::default().with_creations(vec![line]);
    let told: m::CreateAclsResponse = to.ask(Key::CreateAcls, 2, &request).await;
    assert_eq!(told.results[0].error_code, CLUSTER);
    let filter = m::delete_acls_request::DeleteAclsFilter::default()
        .with_resource_type_filter(1)
        .with_pattern_type_filter(1)
        .with_operation(1)
        .with_permission_type(1);
    let request = m::DeleteAclsRequest::default().with_filters(vec![filter]);
    let told: m::DeleteAclsResponse = to.ask(Key::DeleteAcls, 2, &request).await;
    assert_eq!(told.filter_results[0].error_code, CLUSTER);
    let request = m::DescribeClientQuotasRequest::default();
    let told: m::DescribeClientQuotasResponse =
        to.ask(Key::DescribeClientQuotas, 1, &request).await;
    assert_eq!(told.error_code, CLUSTER);
    let entity = m::alter_client_quotas_request::EntityData::default()
        .with_entity_type(text("user"))
        .with_entity_name(Some(text("me")));
    let entry = m::alter_client_quotas_request::EntryData::default().with_entity(vec![entity]);
    let request = m::AlterClientQuotasRequest::default().with_entries(vec![entry]);
    let told: m::AlterClientQuotasResponse = to.ask(Key::AlterClientQuotas, 1, &request).await;
    assert_eq!(told.entries[0].error_code, CLUSTER);
    let request = m::DescribeUserScramCredentialsRequest::default();
    let told: m::DescribeUserScramCredentialsResponse =
        to.ask(Key::DescribeUserScramCredentials, 0, &request).await;
    assert_eq!((told.error_code, told.results.len()), (CLUSTER, 0));
    let deletion = m::alter_user_scram_credentials_request::ScramCredentialDeletion::default()
        .with_name(text("me"))
        .with_mechanism(2);
    let request = m::AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]);
    let told: m::AlterUserScramCredentialsResponse =
        to.ask(Key::AlterUserScramCredentials, 0, &request).await;
    assert_eq!(told.results[0].error_code, CLUSTER);
}

#[test]
fn one_right_is_not_another() {
    with_secured_broker(&[("orders", 1)], asking(), async |rig| {
        rig.append("orders", 0, &["secret"]).await;
        let mut to = Asker {
            rig: &rig,
            asked: BTreeSet::new(),
        };
        let group = "me allow read group literal readers";
        is_me(&rig, &["me allow describe topic literal orders", group]).await;
        assert_eq!(fetched(&mut to).await.error_code, TOPIC);
        assert_eq!(committed(&mut to).await, TOPIC);
        is_me(&rig, &["me allow read topic literal orders", group]).await;
        assert_eq!(fetched(&mut to).await.error_code, 0);
        assert_eq!(committed(&mut to).await, 0);
        assert_eq!(deleted_records(&mut to).await, TOPIC);
        assert_eq!(altered(&mut to).await, TOPIC);
    });
}

#[test]
fn who_may_see_the_cluster_elects_nobody_in_it() {
    with_secured_broker(&[("orders", 1)], asking(), async |rig| {
        let topic = m::elect_leaders_request::TopicPartitions::default()
            .with_topic(orders())
            .with_partitions(vec![0, 9]);
        let request = m::ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]));
        is_me(&rig, &["me allow describe cluster literal kafka-cluster"]).await;
        let told: m::ElectLeadersResponse = rig.ask(Key::ElectLeaders, 2, &request).await;
        let told = told.replica_election_results[0].partition_result.iter();
        assert!(told.map(|one| one.error_code).eq([CLUSTER; 2]));
    });
}
