//! The room as its clients see it: over connections, against a log at work.

use std::time::Duration;

use kafka_protocol::{
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, BrokerId, FetchRequest, FetchResponse,
        ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    },
    protocol::StrBytes,
};
use tokio::{
    io::AsyncWriteExt as _,
    time::{pause, timeout},
};

use super::{
    rig::{Rig, framed, with_broker},
    table::{APIS, Key},
};
use crate::log::View;

/// Longer than anything here takes on a busy machine.
const AT_LAST: Duration = Duration::from_secs(30);

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn fetch(topic: &str, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

/// The error and the values of the one partition of an answer.
fn values(answer: &FetchResponse) -> (i16, Vec<String>) {
    let partition = &answer.responses[0].partitions[0];
    let bytes = partition.records.clone().unwrap_or_default();
    let (mut rest, mut scratch, mut values) = (bytes.as_ref(), Vec::new(), Vec::new());
    while !rest.is_empty() {
        let (view, next) = View::read(rest).unwrap();
        view.verify().unwrap();
        for record in view.records(&mut scratch).unwrap() {
            let value = record.unwrap().value.unwrap().to_owned();
            values.push(String::from_utf8(value).unwrap());
        }
        rest = next;
    }
    (partition.error_code, values)
}

#[test]
fn what_is_appended_is_read_as_it_is_stored() {
    with_broker(&[("orders", 1)], async |rig| {
        rig.append("orders", 0, &["a", "b"]).await;
        rig.append("orders", 0, &["c"]).await;
        for version in 4..=12 {
            let read = async |offset| {
                let request = fetch("orders", offset);
                let answer: FetchResponse = rig.ask(Key::Fetch, version, &request).await;
                values(&answer)
            };
            assert_eq!(read(0).await, (0, vec!["a".into(), "b".into(), "c".into()]));
            // The whole batch that holds the offset.
            assert_eq!(read(1).await, (0, vec!["a".into(), "b".into(), "c".into()]));
            assert_eq!(read(2).await, (0, vec!["c".into()]));
            assert_eq!(read(3).await, (0, vec![]));
            //
            assert_eq!(read(4).await, (1, vec![]));
            assert_eq!(read(-5).await, (1, vec![]));
        }
    });
}

#[test]
fn a_limit_gives_one_batch_at_least() {
    with_broker(&[("orders", 1)], async |rig| {
        rig.append("orders", 0, &["a", "b"]).await;
        rig.append("orders", 0, &["c"]).await;
        let small = fetch("orders", 0).with_max_bytes(1);
        let answer: FetchResponse = rig.ask(Key::Fetch, 12, &small).await;
        assert_eq!(values(&answer), (0, vec!["a".into(), "b".into()]));
    });
}

#[test]
fn who_waits_for_more_is_woken_by_an_append() {
    with_broker(&[("orders", 1)], async |rig| {
        // Q-12, with fewer.
        let mut waiting = Vec::new();
        for _ in 0..50 {
            let mut client = rig.connect();
            let long = fetch("orders", 0).with_max_wait_ms(600_000);
            let correlation = client.send(Key::Fetch, 11, &long).await;
            waiting.push((client, correlation));
        }
        rig.append("orders", 0, &["a"]).await;
        for (mut client, correlation) in waiting {
            let answer = client.receive(Key::Fetch, 11, correlation);
            let answer: FetchResponse = timeout(AT_LAST, answer).await.unwrap();
            assert_eq!(values(&answer), (0, vec!["a".into()]));
        }
    });
}

#[test]
fn who_goes_away_takes_its_request_with_it() {
    with_broker(&[("orders", 1)], async |rig| {
        let mut client = rig.connect();
        let long = fetch("orders", 0).with_max_wait_ms(600_000);
        client.send(Key::Fetch, 11, &long).await;
        let partition = rig.partition("orders", 0);
        until(|| partition.waiters() == 1).await;
        drop(client);
        until(|| partition.waiters() == 0).await;
    });
}

async fn until(is_so: impl Fn() -> bool) {
    let looks = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(AT_LAST, looks).await.unwrap();
}

#[test]
fn offsets_are_found_by_time() {
    with_broker(&[("orders", 1)], async |rig| {
        rig.append("orders", 0, &["a", "b"]).await;
        rig.append("orders", 0, &["c"]).await;
        let find = async |version: i16, time_ms: i64| {
            let partition = ListOffsetsPartition::default().with_timestamp(time_ms);
            let topic = ListOffsetsTopic::default()
                .with_name(name("orders"))
                .with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(vec![topic]);
            let answer: ListOffsetsResponse = rig.ask(Key::ListOffsets, version, &request).await;
            let found = &answer.topics[0].partitions[0];
            assert_eq!(found.error_code, 0);
            found.offset
        };
        for version in 1..=7 {
            assert_eq!(find(version, -1).await, 3);
            assert_eq!(find(version, -2).await, 0);
            assert_eq!(find(version, 0).await, 0);
            // Nobody lives so long.
            assert_eq!(find(version, i64::MAX - 1).await, -1);
        }
        // The first record of the latest time.
        assert!((0..3).contains(&find(7, -3).await));
    });
}

#[test]
fn versions_and_topics_are_told() {
    with_broker(&[("orders", 3)], async |rig| {
        let mut client = rig.connect();
        let request = ApiVersionsRequest::default();
        let answer: ApiVersionsResponse = client.ask(Key::ApiVersions, 3, &request).await;
        assert_eq!(answer.api_keys.len(), APIS.len());
        let request = MetadataRequest::default().with_topics(None);
        let answer: MetadataResponse = client.ask(Key::Metadata, 9, &request).await;
        let topics = answer.topics.iter();
        let orders = topics.filter(|topic| topic.name == Some(name("orders")));
        assert_eq!(
            orders
                .map(|topic| topic.partitions.len())
                .collect::<Vec<_>>(),
            [3]
        );
        assert!(answer.cluster_id.is_some());
    });
}

#[test]
fn what_is_no_request_ends_the_connection() {
    with_broker(&[], async |rig| {
        //
        let frames: [&[u8]; 6] = [
            b"\x7f\xff\xff\xff",
            b"\xff\xff\xff\xff",
            b"\0\0\0\0",
            b"\0\0\0\x03abc",
            b"GET / HTTP/1.1\r\n\r\n",
            // An unknown API.
            b"\0\0\0\x0a\x7f\xff\0\0\0\0\0\x07\xff\xff",
        ];
        for frame in frames {
            let mut client = rig.connect();
            client.stream.write_all(frame).await.unwrap();
            assert!(
                timeout(AT_LAST, client.is_closed()).await.unwrap(),
                "{frame:?}"
            );
        }
        let cuts: u64 = rig.broker.counters.cuts().map(|(_, count)| count).sum();
        assert_eq!(cuts, 6);
    });
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    with_broker(&[], async |rig| {
        //
        let mut client = rig.connect();
        let frame = b"\0\0\0\x0a\0\x12\x7f\xff\0\0\0\x07\xff\xff";
        client.stream.write_all(frame).await.unwrap();
        let answer: ApiVersionsResponse = client.receive(Key::ApiVersions, 0, 7).await;
        assert_eq!(answer.error_code, 35);
        assert!(answer.api_keys.iter().any(|api| api.api_key == 18));
    });
}

#[test]
fn requests_that_come_at_once_are_answered_in_their_order() {
    with_broker(&[("orders", 1)], async |rig| {
        let mut client = rig.connect();
        let request = MetadataRequest::default().with_topics(None);
        let mut bytes = Vec::new();
        for correlation in 0..100 {
            bytes.extend_from_slice(&framed(Key::Metadata, 5, correlation, &request));
        }
        client.stream.write_all(&bytes).await.unwrap();
        for correlation in 0..100 {
            let _: MetadataResponse = client.receive(Key::Metadata, 5, correlation).await;
        }
    });
}

#[test]
fn what_follows_a_request_in_its_frame_is_passed_over() {
    with_broker(&[("orders", 1)], async |rig: std::rc::Rc<Rig>| {
        let mut client = rig.connect();
        let request = MetadataRequest::default().with_topics(None);
        let mut bytes = framed(Key::Metadata, 12, 1, &request).to_vec();
        bytes.extend_from_slice(&[0; 3]);
        bytes[3] += 3;
        client.stream.write_all(&bytes).await.unwrap();
        let answer: MetadataResponse = client.receive(Key::Metadata, 12, 1).await;
        assert!(!answer.topics.is_empty());
        let _: MetadataResponse = client.ask(Key::Metadata, 12, &request).await;
    });
}

#[test]
fn the_epoch_of_metadata_is_that_of_the_partition() {
    with_broker(&[("orders", 2)], async |rig| {
        let request = MetadataRequest::default().with_topics(None);
        let answer: MetadataResponse = rig.ask(Key::Metadata, 12, &request).await;
        let mut compared = 0;
        for topic in &answer.topics {
            let name = topic.name.as_ref().unwrap();
            for partition in &topic.partitions {
                let index = u32::try_from(partition.partition_index).unwrap();
                let own = rig.broker.log.partition(name, index).unwrap();
                assert!(own.leader_epoch() >= 0);
                assert_eq!(partition.leader_epoch, own.leader_epoch());
                compared += 1;
            }
        }
        assert!(compared >= 2);
    });
}

/// How often connections were ended for that.
fn cuts(rig: &Rig, why: &str) -> u64 {
    let counts = rig.broker.counters.cuts();
    counts
        .filter(|(name, _)| *name == why)
        .map(|(_, count)| count)
        .sum()
}

#[test]
fn who_says_nothing_or_does_not_end_what_it_says_is_cut_off() {
    with_broker(&[], async |rig| {
        pause();
        let mut silent = rig.connect();
        assert!(silent.is_closed().await);
        assert_eq!(cuts(&rig, "idle"), 1);
        let mut slow = rig.connect();
        let request = framed(Key::ApiVersions, 0, 1, &ApiVersionsRequest::default());
        for byte in &request[..request.len() - 1] {
            slow.stream.write_all(&[*byte]).await.unwrap();
        }
        assert!(slow.is_closed().await);
        assert_eq!(cuts(&rig, "slow_request"), 1);
    });
}

#[test]
fn who_does_not_take_its_answer_is_cut_off() {
    with_broker(&[("orders", 1)], async |rig| {
        let long = "x".repeat(500_000);
        rig.append("orders", 0, &[&long]).await;
        pause();
        let mut client = rig.connect();
        client.send(Key::Fetch, 11, &fetch("orders", 0)).await;
        // Far more than the way to the client holds; none of it is read.
        tokio::time::sleep(Duration::from_secs(31)).await;
        until(|| cuts(&rig, "slow_answer") == 1).await;
    });
}

#[test]
fn long_requests_share_a_bounded_room() {
    with_broker(&[], async |rig| {
        pause();
        let mut greedy = Vec::new();
        for _ in 0..5 {
            let mut client = rig.connect();
            greedy.push(tokio::task::spawn_local(async move {
                let length: i32 = 16 * 1024 * 1024;
                client
                    .stream
                    .write_all(&length.to_be_bytes())
                    .await
                    .unwrap();
                let some = vec![0; 64 * 1024];
                // All of it but the last part; whoever is cut off finds that nobody takes it.
                for _ in 0..255 {
                    if client.stream.write_all(&some).await.is_err() {
                        break;
                    }
                }
                assert!(client.is_closed().await);
            }));
        }
        for client in greedy {
            client.await.unwrap();
        }
        let (refused, slow) = (cuts(&rig, "no_memory"), cuts(&rig, "slow_request"));
        assert!(refused >= 1 && refused + slow == 5, "{refused} and {slow}");
        // What they held is there again.
        let mut client = rig.connect();
        let request = ApiVersionsRequest::default();
        let _: ApiVersionsResponse = client.ask(Key::ApiVersions, 0, &request).await;
    });
}
