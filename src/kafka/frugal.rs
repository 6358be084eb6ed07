//! What a request may cost: no more memory than what it brings, and what there is, account for.

use kafka_protocol::{
    messages::{
        GroupId, OffsetDeleteRequest, OffsetFetchRequest, TopicName,
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
    },
    protocol::{Encodable, StrBytes},
};
use tokio::runtime::{Builder, LocalOptions};

use super::{
    rig::{Rig, framed},
    table::Key,
};

const MIB: u64 = 1 << 20;

fn name(length: usize) -> TopicName {
    TopicName(StrBytes::from_string("x".repeat(length)))
}

/// The most bytes that it takes at once to answer this.
fn cost(key: Key, version: i16, request: &impl Encodable) -> u64 {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    let rig = runtime.block_on(async {
        let rig = Rig::new(&[("orders", 1)]);
        rig.append("orders", 0, &["a"]).await;
        rig
    });
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
