//! What is built is read back, by this house and as others would.

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::log::{Demands, Header, Unfit};

const NONE: &str = include_str!("../../../tests/data/batches/none.hex");
const LZ4: &str = include_str!("../../../tests/data/batches/lz4.hex");
/// When the records of these batches were made.
const MADE_MS: i64 = 1_700_000_000_000;

fn of_hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
}

/// A record that owns its parts.
#[derive(Debug, Clone, PartialEq)]
struct Owned {
    offset: i64,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Owned {
    fn of(record: &Record<'_>) -> Self {
        let header = |(name, value): (&[u8], Option<&[u8]>)| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            (name, value.map(<[u8]>::to_vec))
        };
        Self {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(header).collect(),
        }
    }

    fn push_to(&self, builder: &mut Builder) {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref().unwrap()))
            .collect();
        builder.push(
            self.timestamp_ms,
            self.key.as_deref(),
            self.value.as_deref(),
            &headers,
        );
    }
}

/// All records of the one batch in `bytes`, which is sound.
fn read(bytes: &[u8]) -> Vec<Owned> {
    let (view, rest) = View::read(bytes).unwrap();
    assert_eq!(rest, b"");
    view.verify().unwrap();
    let mut scratch = Vec::new();
    let records = view.records(&mut scratch).unwrap();
    records.map(|record| Owned::of(&record.unwrap())).collect()
}

/// The records that `SOURCES.md` describes.
fn of_kafka_python() -> Vec<Owned> {
    let record = |index: i64| {
        let value = format!(r#"{{"event":"http.access","status":200,"path":"/a/b","n":{index}}}"#);
        let headers = [
            ("lane".to_owned(), Some(b"1".to_vec())),
            ("none".to_owned(), None),
        ];
        Owned {
            offset: index,
            timestamp_ms: MADE_MS + if index == 0 { 0 } else { (index - 2) * 1000 },
            key: (index != 3).then(|| format!("203.0.113.{index}").into_bytes()),
            value: (index != 5).then(|| value.repeat(3).into_bytes()),
            headers: if index % 4 == 0 {
                headers.to_vec()
            } else {
                Vec::new()
            },
        }
    };
    (0..12).map(record).collect()
}

#[test]
fn batches_of_kafka_python_are_read() {
    for text in [NONE, LZ4] {
        let bytes = of_hex(text);
        assert_eq!(read(&bytes), of_kafka_python());
        let header = Header::read(&bytes).unwrap();
        assert_eq!((header.count(), header.last_offset()), (12, 11));
        assert_eq!(header.base_timestamp(), MADE_MS);
        assert_eq!(header.max_timestamp(), MADE_MS + 9000);
        assert_eq!((header.producer_id(), header.base_sequence()), (-1, -1));
    }
    assert_eq!(Header::read(&of_hex(LZ4)).unwrap().codec(), 3);
}

#[test]
fn the_same_records_make_the_same_bytes() {
    let theirs = of_hex(NONE);
    let (view, _) = View::read(&theirs).unwrap();
    let ours = Builder::new().rewrite(&view, None, Compression::None, |_| true);
    assert_eq!(ours.unwrap().bytes(), theirs);
}

#[test]
fn a_batch_of_others_is_taken_only_when_all_of_it_is_sound() {
    let mut scratch = Vec::new();
    let bytes = of_hex(LZ4);
    let batch = Batch::received(bytes.clone(), Demands::NONE, &mut scratch).unwrap();
    assert_eq!(batch.count(), 12);
    let mut flipped = bytes.clone();
    flipped[100] ^= 1;
    assert_eq!(
        Batch::received(flipped, Demands::NONE, &mut scratch),
        Err(Unfit::Damaged(Damage::Crc))
    );
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(
        Batch::received(longer, Demands::NONE, &mut scratch),
        Err(Unfit::Damaged(Damage::Length(_)))
    ));
    let mut shorter = bytes;
    shorter.pop();
    assert_eq!(
        Batch::received(shorter, Demands::NONE, &mut scratch),
        Err(Unfit::Damaged(Damage::TooShort))
    );
}

#[test]
fn every_flipped_bit_behind_the_epoch_is_found() {
    let bytes = of_hex(LZ4);
    for bit in 16 * 8..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let found = View::read(&flipped).and_then(|(view, _)| view.verify());
        assert!(found.is_err(), "bit {bit}");
    }
}

#[test]
fn what_is_no_header_is_named() {
    let bytes = of_hex(NONE);
    let damaged = |at: usize, with: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        View::read(&bytes).map(|_| ()).unwrap_err()
    };
    assert_eq!(damaged(16, &[1]), Damage::Magic(1));
    assert_eq!(damaged(8, &[0, 0, 0, 48]), Damage::Length(48));
    assert_eq!(damaged(8, &[0xff; 4]), Damage::Length(-1));
    assert_eq!(damaged(8, &[0x7f, 0xff, 0xff, 0xff]), Damage::TooShort);
    assert_eq!(damaged(0, &[0xff; 8]), Damage::Offsets);
    assert_eq!(
        damaged(0, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        Damage::Offsets
    );
    assert_eq!(damaged(23, &[0xff; 4]), Damage::Offsets);
    assert_eq!(damaged(23, &[0, 0, 0, 10]), Damage::Count);
    assert_eq!(damaged(57, &[0xff; 4]), Damage::Count);
    assert_eq!(damaged(57, &[0x7f, 0xff, 0xff, 0xff]), Damage::Count);
    assert_eq!(View::read(&[0; 200]).map(|_| ()), Err(Damage::Magic(0)));
    assert_eq!(Header::read(&bytes[..60]), Err(Damage::TooShort));
}

#[test]
fn a_compression_that_there_is_none_of_is_named() {
    let mut bytes = of_hex(LZ4);
    bytes[22] = 5;
    let (view, _) = View::read(&bytes).unwrap();
    let damage = view.records(&mut Vec::new()).map(|_| ()).unwrap_err();
    assert_eq!(damage, Damage::Compression(5));
    assert_eq!(damage.to_string(), "there is no compression 5");
}

#[test]
fn its_place_is_set_without_touching_the_checksum() {
    let mut builder = Builder::new();
    builder.push(5, None, Some(b"first"), &[]);
    builder.push(7, None, Some(b"second"), &[]);
    let mut batch = builder.finish(Compression::Lz4);
    batch.place(1_000_000_000_000, 7);
    assert_eq!(batch.last_offset(), 1_000_000_000_001);
    let (view, _) = View::read(batch.bytes()).unwrap();
    assert_eq!(
        (view.base_offset(), view.leader_epoch()),
        (1_000_000_000_000, 7)
    );
    let offsets: Vec<_> = read(batch.bytes())
        .iter()
        .map(|record| record.offset)
        .collect();
    assert_eq!(offsets, [1_000_000_000_000, 1_000_000_000_001]);
}

#[test]
fn only_what_gains_by_it_is_compressed() {
    let codec_of = |value: &[u8]| {
        let mut builder = Builder::new();
        builder.push(0, None, Some(value), &[]);
        builder.finish(Compression::Lz4).codec()
    };
    assert_eq!(codec_of(&[7; 900]), 0);
    assert_eq!(codec_of(&[7; 1024]), 3);
    let mut dice = crate::base::fuzz::Dice::seeded(1);
    let noise: Vec<u8> = (0..200_000).map(|_| dice.next().to_le_bytes()[0]).collect();
    assert_eq!(codec_of(&noise), 0);
}

#[test]
fn a_batch_without_records_can_be() {
    let batch = Builder::new().finish(Compression::Lz4);
    assert_eq!(batch.bytes().len(), HEADER_BYTES);
    assert_eq!(read(batch.bytes()), []);
}

#[test]
fn a_rewritten_batch_keeps_its_offsets_and_times_and_says_when_its_tombstones_go() {
    let bytes = of_hex(LZ4);
    let (view, _) = View::read(&bytes).unwrap();
    let mut builder = Builder::new();
    let batch = builder
        .rewrite(
            &view,
            Some(MADE_MS + 86_400_000),
            Compression::Lz4,
            |record| record.offset % 5 == 0,
        )
        .unwrap();
    assert_eq!(batch.delete_horizon(), Some(MADE_MS + 86_400_000));
    assert_eq!((batch.base_offset(), batch.last_offset()), (0, 11));
    assert_eq!(batch.max_timestamp(), MADE_MS + 8000);
    let mut kept = of_kafka_python();
    kept.retain(|record| record.offset % 5 == 0);
    assert_eq!(read(batch.bytes()), kept);
    // Once said, it stays; and none may be left.
    let (view, _) = View::read(batch.bytes()).unwrap();
    let none = builder
        .rewrite(&view, Some(0), Compression::Lz4, |_| false)
        .unwrap();
    assert_eq!(none.delete_horizon(), Some(MADE_MS + 86_400_000));
    assert_eq!((none.count(), none.last_offset()), (0, 11));
    assert_eq!(read(none.bytes()), []);
}

/// Counted by the thread that the test runs on.
#[test]
fn a_record_costs_no_allocation_and_a_batch_costs_one() {
    let mut builder = Builder::new();
    let mut build = || {
        for index in 0..250 {
            builder.push(
                index,
                Some(b"203.0.113.7"),
                Some(&[b'x'; 300]),
                &[("lane", b"1")],
            );
        }
        builder.finish(Compression::Lz4)
    };
    drop(build());
    let counted = allocation_counter::measure(|| drop(build()));
    assert_eq!(counted.count_total, 1);
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 0..5_000_usize).prop_map(|(byte, times)| std::vec::from_elem(byte, times)),
    ]
}

fn records() -> impl Strategy<Value = Vec<Owned>> {
    let header = ("[a-z]{0,8}", bytes().prop_map(Some));
    let times = prop_oneof![any::<i64>(), MADE_MS..MADE_MS + 100_000];
    let record = (
        times,
        option::of(bytes()),
        option::of(bytes()),
        vec(header, 0..3),
    );
    let record = record.prop_map(|(timestamp_ms, key, value, headers)| Owned {
        offset: 0,
        timestamp_ms,
        key,
        value,
        headers,
    });
    vec(record, 0..40).prop_map(|mut records| {
        for (offset, record) in (0..).zip(&mut records) {
            record.offset = offset;
        }
        records
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_come_back(batches in vec(records(), 1..4), is_packed: bool) {
        let compression = if is_packed { Compression::Lz4 } else { Compression::None };
        let mut builder = Builder::new();
        for records in batches {
            for record in &records {
                record.push_to(&mut builder);
            }
            prop_assert_eq!(builder.count() as usize, records.len());
            let batch = builder.finish(compression);
            prop_assert!(builder.is_empty() && builder.raw_bytes() == 0);
            let latest = records.iter().map(|record| record.timestamp_ms).max();
            prop_assert_eq!(batch.max_timestamp(), latest.unwrap_or(-1).max(-1));
            prop_assert_eq!(read(batch.bytes()), records);
        }
    }
}
