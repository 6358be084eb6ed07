//! What a producer sends, and what it is answered: numbered, doubled, damaged, too late.

use kafka_protocol::{
    messages::{
        InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse,
        ProduceRequest, ProduceResponse, TopicName,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
    protocol::StrBytes,
};

use super::*;
use crate::{
    kafka::{
        rig::{Rig, with_broker},
        table::Key,
        wire::oracle,
    },
    log::{Builder, Change, Cleanup, Compression, TopicConfig},
};

fn batch(keys: &[Option<&[u8]>], time_ms: i64, compression: Compression) -> Vec<u8> {
    let mut builder = Builder::new();
    for key in keys {
        builder.push(time_ms, *key, Some(&[b'v'; 700]), &[]);
    }
    builder.finish(compression).bytes().to_vec()
}

fn plain() -> Vec<u8> {
    batch(&[Some(b"a"), None], 1_000, Compression::None)
}

/// The batch with other bytes, and the checksum that it should then have.
fn with(mut bytes: Vec<u8>, fields: &[(usize, &[u8])]) -> Vec<u8> {
    for (at, field) in fields {
        bytes[*at..at + field.len()].copy_from_slice(field);
    }
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn numbered(id: i64, epoch: i16, sequence: i32) -> Vec<u8> {
    let fields: [(usize, &[u8]); 3] = [
        (43, &id.to_be_bytes()),
        (51, &epoch.to_be_bytes()),
        (53, &sequence.to_be_bytes()),
    ];
    with(plain(), &fields)
}

fn request(topic: &str, index: i32, acks: i16, records: Vec<u8>) -> ProduceRequest {
    let partition = PartitionProduceData::default()
        .with_index(index)
        .with_records(Some(records.into()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partition_data(vec![partition]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic])
}

async fn told(rig: &Rig, version: i16, request: &ProduceRequest) -> PartitionProduceResponse {
    let answer: ProduceResponse = rig.ask(Key::Produce, version, request).await;
    answer.responses[0].partition_responses[0].clone()
}

async fn sent(rig: &Rig, topic: &str, records: Vec<u8>) -> (i16, i64) {
    let told = told(rig, 9, &request(topic, 0, -1, records)).await;
    (told.error_code, told.base_offset)
}

#[test]
fn requests_are_read() {
    for version in oracle::versions(Key::Produce) {
        let theirs = request("orders", 3, -1, b"records".to_vec());
        let ours = oracle::read(Key::Produce, version, &theirs, Request::read);
        assert_eq!((ours.acks, ours.wait), (-1, Duration::from_secs(10)));
        assert!(!ours.is_transactional);
        let sent = Sent {
            index: 3,
            records: Bytes::from_static(b"records"),
        };
        let topic = Topic {
            name: "orders".to_owned(),
            partitions: vec![sent],
        };
        assert_eq!(ours.topics, [topic]);
    }
}

#[test]
fn answers_are_written() {
    let told = |outcome, log_start| Told {
        index: 3,
        outcome,
        log_start,
    };
    let wrong = Refused {
        error: ErrorCode::InvalidRecord,
        why: Some("no key".to_owned()),
        records: vec![1, 4],
    };
    let response = Response {
        topics: vec![Topic {
            name: "orders".to_owned(),
            partitions: vec![told(Ok(12), 5), told(Err(wrong), -1)],
        }],
        throttle_ms: 9,
    };
    for version in oracle::versions(Key::Produce) {
        let write = |to: &mut Writer| response.write(to);
        let read: ProduceResponse = oracle::written(Key::Produce, version, write);
        assert_eq!(read.throttle_time_ms, 9);
        let partitions = &read.responses[0].partition_responses;
        let one = &partitions[0];
        assert_eq!((one.index, one.error_code, one.base_offset), (3, 0, 12));
        assert_eq!(one.log_append_time_ms, -1);
        assert_eq!(one.log_start_offset, if version >= 5 { 5 } else { -1 });
        let other = &partitions[1];
        assert_eq!((other.error_code, other.base_offset), (87, -1));
        if version >= 8 {
            let records: Vec<_> = other
                .record_errors
                .iter()
                .map(|one| one.batch_index)
                .collect();
            assert_eq!(records, [1, 4]);
            assert_eq!(other.error_message.as_deref(), Some("no key"));
        }
    }
}

#[test]
fn what_is_acknowledged_is_in_the_log_in_every_version_and_packed_in_every_way() {
    with_broker(&[("orders", 1)], |rig| async move {
        let mut expected = 0;
        for version in oracle::versions(Key::Produce) {
            for compression in Compression::ALL {
                let records = batch(&[None, Some(b"a")], 1_000, compression);
                let acks = if version % 2 == 0 { 1 } else { -1 };
                let told = told(&rig, version, &request("orders", 0, acks, records)).await;
                if compression == Compression::Zstd && version < ZSTD_FROM {
                    assert_eq!(told.error_code, 76);
                    continue;
                }
                assert_eq!(
                    (told.error_code, told.base_offset),
                    (0, expected),
                    "{version}"
                );
                expected += 2;
                assert_eq!(rig.partition("orders", 0).high_watermark(), expected);
            }
        }
    });
}

///
#[test]
fn what_is_not_whole_or_wrong_is_refused_and_nothing_is_appended() {
    with_broker(&[("orders", 1)], |rig| async move {
        let mut flipped = plain();
        *flipped.last_mut().unwrap() ^= 1;
        let mut short = plain();
        short.pop();
        let far = i64::try_from(rig.broker.clock.unix_ms()).unwrap() + 2 * AHEAD_MAX_MS;
        let refused = [
            (flipped, 2),
            (short, 2),
            (Vec::new(), 2),
            ([plain(), plain()].concat(), 87),
            (with(plain(), &[(16, &[1])]), 87),
            (with(plain(), &[(57, &1_i32.to_be_bytes())]), 87),
            (with(plain(), &[(21, &[0, 0x20])]), 87),
            (with(plain(), &[(21, &[0, 0x10])]), 87),
            (with(plain(), &[(21, &[0, 0x05])]), 76),
            (with(plain(), &[(21, &[0, 0x01])]), 87),
            (with(plain(), &[(43, &7_i64.to_be_bytes())]), 87),
            (batch(&[None], far, Compression::None), 32),
            (vec![0; 2 << 20], 10),
        ];
        for (at, (records, error)) in refused.into_iter().enumerate() {
            assert_eq!(sent(&rig, "orders", records).await, (error, -1), "{at}");
        }
        assert_eq!(rig.partition("orders", 0).log_end_offset(), 0);
        assert_eq!(sent(&rig, "orders", plain()).await, (0, 0));
    });
}

#[test]
fn records_without_keys_are_named_where_the_topic_is_compacted() {
    with_broker(&[("orders", 1)], |rig| async move {
        let (tell, changed) = oneshot::channel();
        let config = TopicConfig {
            cleanup: Cleanup::Compact,
            ..TopicConfig::clone(&rig.partition("orders", 0).topic().config())
        };
        let name = "orders".to_owned();
        let done = Box::new(move |result| drop(tell.send(result)));
        let asked = rig.log().change(Change::Configure { name, config }, done);
        assert!(asked.is_ok());
        changed.await.unwrap().unwrap();
        let refused = told(&rig, 9, &request("orders", 0, -1, plain())).await;
        let records = refused.record_errors.iter().map(|one| one.batch_index);
        assert_eq!(records.collect::<Vec<_>>(), [1]);
        assert_eq!((refused.error_code, refused.base_offset), (87, -1));
        let keyed = batch(&[Some(b"a"), Some(b"b")], 1_000, Compression::Lz4);
        assert_eq!(sent(&rig, "orders", keyed).await, (0, 0));
    });
}

#[test]
fn who_may_not_write_or_writes_to_what_is_not_there_is_told_so() {
    with_broker(&[("orders", 1)], |rig| async move {
        for topic in [
            "wardent.http.access",
            "__consumer_offsets",
            "_schemas",
            "wardent.none",
        ] {
            assert_eq!(sent(&rig, topic, plain()).await, (29, -1), "{topic}");
        }
        assert_eq!(sent(&rig, "nowhere", plain()).await, (3, -1));
        for index in [1, -1] {
            let told = told(&rig, 9, &request("orders", index, 1, plain())).await;
            assert_eq!(told.error_code, 3);
        }
        for acks in [2, -2] {
            let told = told(&rig, 9, &request("orders", 0, acks, plain())).await;
            assert_eq!(told.error_code, 21);
        }
    });
}

#[test]
fn without_acknowledgement_nothing_is_answered_and_all_is_appended() {
    with_broker(&[("orders", 1)], |rig| async move {
        let mut shown = rig.partition("orders", 0).subscribe();
        let request = request("orders", 0, 0, plain());
        assert!(
            rig.try_ask(Key::Produce, 9, &request)
                .await
                .unwrap()
                .is_none()
        );
        let shown = shown.wait_for(|end| *end == 2);
        let shown = timeout(Duration::from_secs(30), shown).await;
        assert!(shown.is_ok());
    });
}

/// Q-19, up to the restart, which `log/producers` has.
#[test]
fn a_batch_that_is_sent_twice_is_in_the_log_once() {
    with_broker(&[("orders", 1)], |rig| async move {
        let asked = InitProducerIdRequest::default().with_transactional_id(None);
        let given: InitProducerIdResponse = rig.ask(Key::InitProducerId, 4, &asked).await;
        let id = given.producer_id.0;
        assert_eq!(sent(&rig, "orders", numbered(id, 1, 0)).await, (0, 0));
        assert_eq!(sent(&rig, "orders", numbered(id, 1, 2)).await, (0, 2));
        for _ in 0..2 {
            assert_eq!(sent(&rig, "orders", numbered(id, 1, 0)).await, (0, 0));
        }
        assert_eq!(sent(&rig, "orders", numbered(id, 1, 5)).await, (45, -1));
        assert_eq!(sent(&rig, "orders", numbered(id, 0, 4)).await, (47, -1));
        assert_eq!(sent(&rig, "orders", numbered(id, 1, 4)).await, (0, 4));
        assert_eq!(rig.partition("orders", 0).high_watermark(), 6);
    });
}

#[test]
fn versions_of_old_formats_are_answered_in_their_own_shape() {
    with_broker(&[("orders", 1)], |rig| async move {
        for version in 0..BATCHES_FROM {
            let shape = oracle::shape(Key::Produce, version);
            let mut asked = Writer::new(Vec::new(), shape);
            asked.i16(1);
            asked.i32(1_000);
            asked.array(&["orders"], |to, name| {
                to.string(name);
                to.array(&[0], |to, index| {
                    to.i32(*index);
                    to.nullable_bytes(Some(b"old"));
                });
            });
            let mut from = Reader::new(asked.into_bytes().into(), shape);
            let request = Request::read(&mut from).unwrap();
            from.end().unwrap();
            let call = Call {
                broker: &rig.broker,
                session: &rig.session,
                version,
            };
            let begun = begin(request, &call).await.unwrap();
            let response = begun.ended(&rig.broker).await;
            let mut to = Writer::new(Vec::new(), shape);
            response.write(&mut to);
            let tail: &[u8] = match version {
                0 => &[],
                1 => &[0; 4],
                _ => &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            };
            let expected = [
                &[0, 0, 0, 1, 0, 6][..],
                b"orders",
                &[0, 0, 0, 1, 0, 0, 0, 0, 0, 35],
                &[0xff; 8],
                tail,
            ];
            assert_eq!(to.into_bytes(), expected.concat(), "v{version}");
        }
    });
}

#[test]
fn requests_that_follow_each_other_at_once_are_answered_in_their_order() {
    with_broker(&[("orders", 1)], |rig| async move {
        let mut client = rig.connect();
        let records = |name: &[u8]| batch(&[Some(name)], 0, Compression::None);
        let mut asked = Vec::new();
        // More than wait for the log at once, and another question in their midst.
        for _ in 0..10 {
            let produce = request("orders", 0, -1, records(b"before"));
            asked.push(client.send(Key::Produce, 9, &produce).await);
        }
        let all = MetadataRequest::default().with_topics(None);
        let between = client.send(Key::Metadata, 9, &all).await;
        let unheard = request("orders", 0, 0, records(b"unheard"));
        client.send(Key::Produce, 9, &unheard).await;
        let last = request("orders", 0, -1, records(b"after"));
        let last = client.send(Key::Produce, 9, &last).await;
        for (offset, correlation) in (0..).zip(asked) {
            let answer: ProduceResponse = client.receive(Key::Produce, 9, correlation).await;
            assert_eq!(
                answer.responses[0].partition_responses[0].base_offset,
                offset
            );
        }
        let _: MetadataResponse = client.receive(Key::Metadata, 9, between).await;
        let answer: ProduceResponse = client.receive(Key::Produce, 9, last).await;
        assert_eq!(answer.responses[0].partition_responses[0].base_offset, 11);
    });
}

#[test]
fn a_partition_that_is_named_twice_takes_one_batch() {
    with_broker(&[("orders", 1)], |rig| async move {
        let one = request("orders", 0, -1, plain());
        let mut twice = one.clone();
        twice.topic_data.extend(one.topic_data);
        let told: ProduceResponse = rig.ask(Key::Produce, 9, &twice).await;
        let topics = told.responses.iter();
        let codes: Vec<_> = topics
            .map(|topic| topic.partition_responses[0].error_code)
            .collect();
        assert_eq!(codes, [0, 42]);
    });
}

#[test]
fn what_is_unpacked_is_bounded_and_others_are_served_meanwhile() {
    with_broker(&[("orders", 40)], |rig| async move {
        let mut builder = Builder::new();
        builder.push(1_000, None, Some(&vec![0; 15 << 20]), &[]);
        let bomb = builder.finish(Compression::Zstd).bytes().to_vec();
        assert!(bomb.len() < 100_000);
        let mut all = request("orders", 0, -1, bomb.clone());
        let partitions = &mut all.topic_data[0].partition_data;
        for index in 1..40 {
            let next = partitions[0].clone().with_index(index);
            partitions.push(next);
        }
        let turns = std::cell::Cell::new(0);
        let others = async {
            loop {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        let told: ProduceResponse = tokio::select! {
            told = rig.ask(Key::Produce, 9, &all) => told,
            () = others => unreachable!(),
        };
        let told = &told.responses[0].partition_responses;
        let count = |code| told.iter().filter(|one| one.error_code == code).count();
        // 17 are more than 256 MiB; the rest is not looked at.
        assert_eq!((count(0), count(10)), (18, 22));
        assert!(turns.get() > 18, "{}", turns.get());
    });
}
