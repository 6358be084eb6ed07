//! What a request may cost: no more memory than what it brings, and what there is, account for.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use kafka_protocol::{
    messages::{
        DescribeGroupsRequest, DescribeGroupsResponse, DescribeProducersRequest,
        DescribeProducersResponse, FetchRequest, FetchResponse, GroupId, MetadataRequest,
        MetadataResponse, OffsetDeleteRequest, OffsetFetchRequest, OffsetFetchResponse, TopicName,
        describe_producers_request::TopicRequest,
        fetch_request::{FetchPartition, FetchTopic},
        metadata_request::MetadataRequestTopic,
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic},
    },
    protocol::{Encodable, StrBytes},
};
use tokio::{
    io::AsyncReadExt as _,
    runtime::{Builder, LocalOptions, LocalRuntime},
    time::{pause, sleep, timeout},
};

use super::{
    counters::Cut,
    rig::{Rig, framed, with_broker},
    room::FREE_BYTES,
    table::Key,
};

const MIB: u64 = 1 << 20;

fn name(length: usize) -> TopicName {
    TopicName(StrBytes::from_string("x".repeat(length)))
}

fn rig() -> (LocalRuntime, Rig) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    let rig = runtime.block_on(async {
        let rig = Rig::new(&[("orders", 1)]);
        rig.append("orders", 0, &["a"]).await;
        rig
    });
    (runtime, rig)
}

/// The most bytes that it takes at once to answer this.
fn cost(key: Key, version: i16, request: &impl Encodable) -> u64 {
    let (runtime, rig) = rig();
    let frame = framed(key, version, 7, request);
    let answered = async { drop(rig.try_answer(frame).await) };
    let cost = allocation_counter::measure(|| runtime.block_on(answered));
    runtime.block_on(async move { drop(rig) });
    cost.bytes_max
}

#[test]
fn a_name_costs_its_own_length_however_many_partitions_are_named() {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(name(30_000))
        .with_partition_indexes(vec![0; 50_000]);
    let fetch = OffsetFetchRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("g")))
        .with_topics(Some(vec![topic]));
    let bytes = cost(Key::OffsetFetch, 7, &fetch);
    assert!(bytes < 32 * MIB, "{bytes}");
    let partition = OffsetDeleteRequestPartition::default();
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(name(30_000))
        .with_partitions(vec![partition; 50_000]);
    let delete = OffsetDeleteRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("g")))
        .with_topics(vec![topic]);
    let bytes = cost(Key::OffsetDelete, 0, &delete);
    assert!(bytes < 32 * MIB, "{bytes}");
}

fn metadata(names: &[&str]) -> MetadataRequest {
    let topic = |name: &&str| {
        let name = TopicName(StrBytes::from_string((*name).to_owned()));
        MetadataRequestTopic::default().with_name(Some(name))
    };
    MetadataRequest::default().with_topics(Some(names.iter().map(topic).collect()))
}

fn group(name: &'static str) -> GroupId {
    GroupId(StrBytes::from_static_str(name))
}

#[test]
fn what_is_named_twice_is_told_once() {
    with_broker(&[("orders", 1)], async |rig| {
        let twice = metadata(&["orders", "orders"]);
        let told: MetadataResponse = rig.ask(Key::Metadata, 9, &twice).await;
        assert_eq!(told.topics.len(), 1);
        let twice = DescribeGroupsRequest::default().with_groups(vec![group("g"), group("g")]);
        let told: DescribeGroupsResponse = rig.ask(Key::DescribeGroups, 5, &twice).await;
        // The first is perhaps not read from the log yet.
        let is_refused = |place: usize| told.groups[place].error_code == 42;
        assert_eq!((is_refused(0), is_refused(1)), (false, true));
        let one = OffsetFetchRequestGroup::default()
            .with_group_id(group("g"))
            .with_topics(None);
        let twice = OffsetFetchRequest::default().with_groups(vec![one.clone(), one]);
        let told: OffsetFetchResponse = rig.ask(Key::OffsetFetch, 8, &twice).await;
        // The first is perhaps not read from the log yet.
        let is_refused = |place: usize| told.groups[place].error_code == 42;
        assert_eq!((is_refused(0), is_refused(1)), (false, true));
        let orders = TopicName(StrBytes::from_static_str("orders"));
        let topic = TopicRequest::default()
            .with_name(orders)
            .with_partition_indexes(vec![0, 0]);
        let twice = DescribeProducersRequest::default().with_topics(vec![topic]);
        let told: DescribeProducersResponse = rig.ask(Key::DescribeProducers, 0, &twice).await;
        let partitions = told.topics[0].partitions.iter();
        let codes: Vec<_> = partitions.map(|partition| partition.error_code).collect();
        assert_eq!(codes, [0, 42]);
    });
}

#[test]
fn one_name_again_and_again_costs_what_the_request_does() {
    let names = vec!["wardent.http.access"; 90_000];
    let bytes = cost(Key::Metadata, 4, &metadata(&names));
    assert!(bytes < 40 * MIB, "{bytes}");
}

#[test]
fn what_a_request_names_takes_room() {
    with_broker(&[("orders", 1)], async |rig| {
        pause();
        let mut others = rig.broker.rooms.request();
        assert!(others.try_hold(64 * 1024 * 1024 + FREE_BYTES));
        let ask = async |count| {
            let request = metadata(&vec!["orders"; count]);
            rig.try_ask(Key::Metadata, 9, &request).await.map(drop)
        };
        assert_eq!(ask(200).await, Ok(()));
        assert_eq!(ask(2_000).await, Err(Cut::NoMemory));
        drop(others);
        assert_eq!(ask(2_000).await, Ok(()));
    });
}

#[test]
fn an_answer_takes_room_until_it_is_taken_and_that_is_not_for_ever() {
    with_broker(&[], async |rig| {
        let names: Vec<_> = (0..600).map(|one| format!("{one:x>200}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let all = metadata(&names).with_allow_auto_topic_creation(false);
        let rooms = &rig.broker.rooms;
        let free = rooms.free_for_answers();
        let mut client = rig.connect();
        client.send(Key::Metadata, 9, &all).await;
        let length = client.stream.read_i32().await.unwrap();
        let length = usize::try_from(length).unwrap();
        assert_eq!(rooms.free_for_answers(), free + FREE_BYTES - length - 4);
        pause();
        // A byte now and then is not enough.
        let taken = async {
            while client.stream.read_u8().await.is_ok() {
                sleep(Duration::from_secs(20)).await;
            }
        };
        let within = Duration::from_secs(3600);
        timeout(within, taken).await.unwrap_err();
        let slow = rig
            .broker
            .counters
            .cuts()
            .find(|(why, _)| *why == "slow_answer");
        assert_eq!(slow, Some(("slow_answer", 1)));
        assert_eq!(rooms.free_for_answers(), free);
    });
}

fn fetch(bytes_min: i32, bytes_max: i32, max_wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default().with_partition_max_bytes(bytes_max);
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_static_str("orders")))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(bytes_min)
        .with_max_bytes(bytes_max)
        .with_topics(vec![topic])
}

fn fetched(answer: &FetchResponse) -> (i16, usize) {
    let partition = &answer.responses[0].partitions[0];
    let records = partition.records.as_ref();
    (partition.error_code, records.map_or(0, Bytes::len))
}

#[test]
fn a_fetch_takes_room_for_what_it_gets_not_for_what_it_asks_for() {
    with_broker(&[("orders", 1)], async |rig| {
        rig.append("orders", 0, &[&"x".repeat(500_000)]).await;
        let rooms = &rig.broker.rooms;
        let free = rooms.free_for_answers();
        let mut client = rig.connect();
        client.send(Key::Fetch, 11, &fetch(1, 1, 0)).await;
        let length = client.stream.read_i32().await.unwrap();
        let length = usize::try_from(length).unwrap();
        assert!(length > 500_000, "{length}");
        assert_eq!(rooms.free_for_answers(), free + FREE_BYTES - length - 4);
        drop(client);
        // Others hold all of it: the answer comes in time, with nothing.
        let mut others = rooms.answer();
        while rooms.free_for_answers() < free {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(others.try_hold(free + FREE_BYTES));
        let told: FetchResponse = rig.ask(Key::Fetch, 11, &fetch(1, 1 << 20, 150)).await;
        assert_eq!(fetched(&told), (0, 0));
        let asked = fetch(1, 1 << 20, 60_000);
        let waits = rig.ask(Key::Fetch, 11, &asked);
        let frees = async {
            sleep(Duration::from_millis(10)).await;
            drop(others);
        };
        let (told, ()): (FetchResponse, ()) = tokio::join!(waits, frees);
        assert!(fetched(&told).1 > 500_000);
    });
}

#[test]
fn who_waits_for_more_reads_nothing_yet() {
    let (runtime, rig) = rig();
    runtime.block_on(rig.append("orders", 0, &[&"x".repeat(500_000)]));
    let frame = framed(Key::Fetch, 11, 7, &fetch(1 << 20, 1 << 21, 60_000));
    let first = async { rig.try_answer(frame).now_or_never().is_none() };
    let mut waits = false;
    let cost = allocation_counter::measure(|| waits = runtime.block_on(first));
    assert!(
        waits && cost.bytes_max < 100_000,
        "{} bytes",
        cost.bytes_max
    );
    runtime.block_on(async move { drop(rig) });
}
