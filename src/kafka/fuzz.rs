//! Requests of anybody: none panics, none costs more memory than a bound and its own length, whatever it
//! claims, and none leaves more behind than may be there.
//!
//! `WARDENT_FUZZ_SECONDS=3600 cargo test --release --lib campaign_frames` tries some ten million.

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use kafka_protocol::{
    messages::{
        self, TopicName, alter_client_quotas_request, alter_user_scram_credentials_request,
        create_acls_request, delete_acls_request, describe_client_quotas_request,
        describe_producers_request, describe_user_scram_credentials_request, fetch_request,
        list_offsets_request, metadata_request, offset_for_leader_epoch_request, produce_request,
    },
    protocol::{Encodable, StrBytes},
};
use tokio::{
    runtime::{Builder, LocalOptions},
    time::timeout,
};

use super::{
    api::{self, Answer},
    broker::Call,
    frame::{self, Asked},
    rig::{Rig, framed},
    table::{APIS, Key},
};
use crate::base::fuzz::{Dice, campaign, hash, is_alone};

/// What answering may take: of records, and of topics, that are there.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What reading may take, for each byte of a request.
const BYTES_PER_BYTE: u64 = 256;

/// How much memory the process may have at the end, in KiB.
const PROCESS_KIB_MAX: u64 = 256 * 1024;

/// Of so many requests one is waited for; the others are given up as soon as they wait for something.
const WAITED_FOR: usize = 64;

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("orders"))
}

/// A request, as each version that the crate can write it in.
fn sample(samples: &mut Vec<Vec<u8>>, key: Key, request: &impl Encodable) {
    let row = APIS.iter().find(|row| row.key == key).unwrap();
    for version in row.served_from..=row.newest {
        // What is not in that version is left out by who writes it, or refused.
        if request.encode(&mut BytesMut::new(), version).is_ok() {
            let frame = framed(key, version, 7, request);
            samples.push(frame[frame::LENGTH_BYTES..].to_vec());
        }
    }
}

fn samples() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let to = &mut all;
    let partition = fetch_request::FetchPartition::default().with_partition_max_bytes(1 << 20);
    let topic = fetch_request::FetchTopic::default()
        .with_topic(name())
        .with_partitions(vec![partition.clone(), partition.with_partition(1)]);
    let fetch = messages::FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic]);
    sample(to, Key::Fetch, &fetch);
    let partition = list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1);
    let topic = list_offsets_request::ListOffsetsTopic::default()
        .with_name(name())
        .with_partitions(vec![partition]);
    let list = messages::ListOffsetsRequest::default().with_topics(vec![topic]);
    sample(to, Key::ListOffsets, &list);
    let topic = metadata_request::MetadataRequestTopic::default().with_name(Some(name()));
    let metadata = messages::MetadataRequest::default().with_topics(Some(vec![topic]));
    sample(to, Key::Metadata, &metadata);
    let versions = messages::ApiVersionsRequest::default();
    sample(to, Key::ApiVersions, &versions);
    of_topics(to);
    samples_of_access(to);
    samples_of_producers(to);
    all
}

fn samples_of_access(to: &mut Vec<Vec<u8>>) {
    let text = StrBytes::from_static_str;
    let handshake = messages::SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
    sample(to, Key::SaslHandshake, &handshake);
    let message = Bytes::from_static(b"n,,n=me,r=abc");
    let authenticate = messages::SaslAuthenticateRequest::default().with_auth_bytes(message);
    sample(to, Key::SaslAuthenticate, &authenticate);
    let describe = messages::DescribeAclsRequest::default().with_resource_type_filter(1);
    sample(to, Key::DescribeAcls, &describe);
    let creation = create_acls_request::AclCreation::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"))
        .with_principal(text("User:me"));
    let create = messages::CreateAclsRequest::default().with_creations(vec![creation]);
    sample(to, Key::CreateAcls, &create);
    let filter = delete_acls_request::DeleteAclsFilter::default().with_operation(1);
    let delete = messages::DeleteAclsRequest::default().with_filters(vec![filter]);
    sample(to, Key::DeleteAcls, &delete);
    let part = describe_client_quotas_request::ComponentData::default()
        .with_entity_type(text("user"))
        .with_match_type(2);
    let describe = messages::DescribeClientQuotasRequest::default().with_components(vec![part]);
    sample(to, Key::DescribeClientQuotas, &describe);
    let part = alter_client_quotas_request::EntityData::default().with_entity_type(text("user"));
    let op = alter_client_quotas_request::OpData::default()
        .with_key(text("consumer_byte_rate"))
        .with_value(1.0);
    let entry = alter_client_quotas_request::EntryData::default()
        .with_entity(vec![part])
        .with_ops(vec![op]);
    let alter = messages::AlterClientQuotasRequest::default().with_entries(vec![entry]);
    sample(to, Key::AlterClientQuotas, &alter);
    let me = describe_user_scram_credentials_request::UserName::default().with_name(text("me"));
    let describe =
        messages::DescribeUserScramCredentialsRequest::default().with_users(Some(vec![me]));
    sample(to, Key::DescribeUserScramCredentials, &describe);
    let set = alter_user_scram_credentials_request::ScramCredentialUpsertion::default()
        .with_name(text("me"))
        .with_salt(Bytes::from_static(b"salt"))
        .with_salted_password(Bytes::from_static(b"hash"));
    let alter = messages::AlterUserScramCredentialsRequest::default().with_upsertions(vec![set]);
    sample(to, Key::AlterUserScramCredentials, &alter);
}

/// What asks for topics, and for what becomes of them.
fn of_topics(to: &mut Vec<Vec<u8>>) {
    use messages::{
        alter_configs_request, create_partitions_request, create_topics_request,
        delete_records_request, describe_configs_request, incremental_alter_configs_request,
    };
    let text = StrBytes::from_static_str;
    let config = create_topics_request::CreatableTopicConfig::default()
        .with_name(text("cleanup.policy"))
        .with_value(Some(text("compact")));
    let topic = create_topics_request::CreatableTopic::default()
        .with_name(TopicName(text("carts")))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![config]);
    let create = messages::CreateTopicsRequest::default().with_topics(vec![topic]);
    sample(to, Key::CreateTopics, &create.with_validate_only(true));
    let delete = messages::DeleteTopicsRequest::default().with_topic_names(vec![name()]);
    sample(to, Key::DeleteTopics, &delete);
    let partition = delete_records_request::DeleteRecordsPartition::default().with_offset(-1);
    let topic = delete_records_request::DeleteRecordsTopic::default()
        .with_name(name())
        .with_partitions(vec![partition]);
    let delete = messages::DeleteRecordsRequest::default().with_topics(vec![topic]);
    sample(to, Key::DeleteRecords, &delete);
    let topic = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"));
    let describe = messages::DescribeConfigsRequest::default().with_resources(vec![topic]);
    sample(to, Key::DescribeConfigs, &describe);
    let config = alter_configs_request::AlterableConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("5")));
    let topic = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"))
        .with_configs(vec![config]);
    let alter = messages::AlterConfigsRequest::default().with_resources(vec![topic]);
    sample(to, Key::AlterConfigs, &alter);
    let config = incremental_alter_configs_request::AlterableConfig::default()
        .with_name(text("cleanup.policy"))
        .with_config_operation(2)
        .with_value(Some(text("delete")));
    let topic = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"))
        .with_configs(vec![config]);
    let alter = messages::IncrementalAlterConfigsRequest::default().with_resources(vec![topic]);
    sample(to, Key::IncrementalAlterConfigs, &alter);
    let grown = create_partitions_request::CreatePartitionsTopic::default()
        .with_name(name())
        .with_count(3);
    let grow = messages::CreatePartitionsRequest::default().with_topics(vec![grown]);
    sample(to, Key::CreatePartitions, &grow);
    let dirs = messages::DescribeLogDirsRequest::default();
    sample(to, Key::DescribeLogDirs, &dirs);
    let elect = messages::ElectLeadersRequest::default();
    sample(to, Key::ElectLeaders, &elect);
    let moved = messages::ListPartitionReassignmentsRequest::default();
    sample(to, Key::ListPartitionReassignments, &moved);
    let cluster = messages::DescribeClusterRequest::default();
    sample(to, Key::DescribeCluster, &cluster);
}

/// Of what producers ask. They write to a topic that is not there, so that the log stays as it is.
fn samples_of_producers(to: &mut Vec<Vec<u8>>) {
    let mut builder = crate::log::Builder::new();
    builder.push(0, Some(b"key"), Some(&[b'v'; 1100]), &[("name", b"value")]);
    let batch = builder.finish(crate::log::Compression::Zstd);
    let partition = produce_request::PartitionProduceData::default()
        .with_records(Some(Bytes::copy_from_slice(batch.bytes())));
    let topic = produce_request::TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str("nothing")))
        .with_partition_data(vec![partition]);
    let produce = messages::ProduceRequest::default()
        .with_acks(-1)
        .with_topic_data(vec![topic]);
    sample(to, Key::Produce, &produce);
    let init = messages::InitProducerIdRequest::default();
    sample(to, Key::InitProducerId, &init);
    let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
    let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
        .with_topic(name())
        .with_partitions(vec![partition]);
    let ends = messages::OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    sample(to, Key::OffsetForLeaderEpoch, &ends);
    let topic = describe_producers_request::TopicRequest::default()
        .with_name(name())
        .with_partition_indexes(vec![0, 1]);
    let producers = messages::DescribeProducersRequest::default().with_topics(vec![topic]);
    sample(to, Key::DescribeProducers, &producers);
}

const WORDS: [&[u8]; 14] = [
    &[0x00],
    &[0x01],
    &[0x02],
    &[0x7f],
    &[0x00, 0x01],
    &[0xff, 0xff],
    &[0x7f, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x80, 0x00, 0x00, 0x00],
    &[0x00, 0x00, 0x00, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    b"orders",
    b"wardent.http.access",
];

#[test]
fn campaign_frames() {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    let rig = Rc::new(runtime.block_on(async {
        let rig = Rig::new(&[("orders", 2)]);
        rig.append("orders", 0, &["a", "b"]).await;
        rig
    }));
    let samples = samples();
    let samples: Vec<_> = samples.iter().map(Vec::as_slice).collect();
    campaign("frames", &samples, &WORDS, |input| {
        let class = Cell::new(0);
        let cost = allocation_counter::measure(|| {
            class.set(runtime.block_on(answered(&rig, input)));
        });
        let bound = ANSWER_BYTES_MAX + BYTES_PER_BYTE * input.len() as u64;
        match cost.bytes_max <= bound {
            true => Ok(class.get()),
            false => Err(format!("{} bytes for {}", cost.bytes_max, input.len())),
        }
    });
    let most = most_kib();
    // Other tests take memory of the same process.
    assert!(!is_alone() || most <= PROCESS_KIB_MAX, "{most} KiB");
}

/// Answers one request, or begins to; tells apart what became of it.
async fn answered(rig: &Rig, input: &[u8]) -> u64 {
    let Ok(header) = frame::header(Bytes::copy_from_slice(input)) else {
        return 0;
    };
    let Asked::Spoken(row, body) = header.asked else {
        return 0;
    };
    let call = Call {
        broker: &rig.broker,
        session: &rig.session,
        version: body.version(),
    };
    let rooms = &rig.broker.rooms;
    let answer = api::answer(row, header.correlation, body, rooms.request(), &call);
    let answer = match Dice::of(input).below(WAITED_FOR) {
        0 => timeout(Duration::from_millis(20), answer).await.ok(),
        _ => answer.now_or_never(),
    };
    rig.session.answer.replace(rooms.answer());
    let length = match answer {
        // Whoever asked has gone.
        None => 0,
        Some(Err(_)) => return 0,
        Some(Ok(Answer::Nothing)) => 1,
        Some(Ok(Answer::Later(later))) => {
            let later = later.bytes(&rig.broker);
            let within = Duration::from_millis(20);
            timeout(within, later).await.map_or(2, |bytes| bytes.len())
        }
        Some(Ok(Answer::Bytes(bytes))) => bytes.len(),
    };
    hash(&(row.key, call.version, length.checked_ilog2()))
}

/// The most memory that this process has had, in KiB.
fn most_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse().unwrap()
}
