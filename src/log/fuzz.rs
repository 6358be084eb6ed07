//! Batches of anybody: read without a panic, within bounds, and the same when they are written again.

use super::{Batch, Builder, Compression, Damage, HEADER_BYTES, View, batch::UNPACKED_BYTES_MAX};
use crate::base::fuzz::{Dice, campaign, hash};

/// What a record says, but for its headers.
type Said = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, u32);

fn built(values: &[&[u8]], compression: Compression) -> Vec<u8> {
    let mut builder = Builder::new();
    for (index, value) in (0..).zip(values) {
        let key: &[u8] = b"203.0.113.7";
        builder.push(1_000 * index, Some(key), Some(value), &[("lane", b"1")]);
    }
    builder.push(-1, None, None, &[]);
    builder.finish(compression).bytes().to_vec()
}

fn samples() -> Vec<Vec<u8>> {
    let long = [b'x'; 700];
    let few: [&[u8]; 2] = [b"one", b""];
    let many: [&[u8]; 5] = [
        b"{\"status\":200}",
        &long,
        b"{\"status\":403}",
        &long,
        b"last",
    ];
    let two = [
        built(&few, Compression::None),
        built(&many, Compression::Lz4),
    ];
    vec![
        built(&[], Compression::None),
        two[0].clone(),
        two[1].clone(),
        two.concat(),
    ]
}

const WORDS: [&[u8]; 16] = [
    &[0x00, 0x01],
    &[0x01],
    &[0x7f],
    &[0x80, 0x80, 0x80, 0x80, 0x08],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff; 8],
    &[0x00; 8],
    &[0x00, 0x00, 0x00, 0x31, 0x00, 0x00, 0x00, 0x00, 0x02],
    &[0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82],
    // Linked blocks of 4 MiB, and a frame of the first format.
    &[0x04, 0x22, 0x4d, 0x18, 0x40, 0x70, 0xdf],
    &[0x02, 0x21, 0x4c, 0x18],
    // A block stored as it is, and one that repeats a byte.
    &[0x05, 0x00, 0x00, 0x80, b'a', b'b', b'c', b'd', b'e'],
    &[
        0x0b, 0x00, 0x00, 0x00, 0x1f, 0x61, 0x01, 0x00, 0xff, 0xff, 0xff, 0xff, 0x00, 0x50, 0x61,
    ],
    &[0x00, 0x00, 0x00, 0x00],
];

#[test]
fn campaign_batches() {
    let samples = samples();
    let samples: Vec<&[u8]> = samples.iter().map(Vec::as_slice).collect();
    campaign("batches", &samples, &WORDS, |input| {
        let mut rest = input;
        let mut understood = Vec::new();
        while let Ok((view, after)) = View::read(rest) {
            if after.len() + HEADER_BYTES > rest.len() {
                return Err("a batch is shorter than its header".to_owned());
            }
            understood.push(one(&view)?);
            rest = after;
        }
        Ok(if understood.is_empty() {
            0
        } else {
            hash(&understood)
        })
    });
}

/// How one batch was understood: its codec, and its records or what is wrong with them.
fn one(view: &View<'_>) -> Result<(u8, u32, Option<Damage>), String> {
    let mut scratch = Vec::new();
    let said = said_by(view, &mut scratch);
    if scratch.len() > UNPACKED_BYTES_MAX + 1 {
        return Err(format!("{} bytes were unpacked", scratch.len()));
    }
    whole_or_not(view, said.as_ref().err())?;
    let rewritten = Builder::new().rewrite(view, None, Compression::Lz4, |_| true);
    match (&said, rewritten) {
        (Err(damage), Err(again)) if *damage == again => {}
        (Ok(said), Ok(again)) => {
            let (again, _) = View::read(again.bytes()).map_err(|damage| damage.to_string())?;
            again.verify().map_err(|damage| damage.to_string())?;
            if said_by(&again, &mut scratch).as_ref() != Ok(said) {
                return Err("the records are others when they are written again".to_owned());
            }
        }
        (said, again) => return Err(format!("{said:?} is written again as {again:?}")),
    }
    some_stay(view, &said)?;
    let count = view.count().min(20);
    Ok((view.codec(), count, said.err()))
}

fn said_by(view: &View<'_>, scratch: &mut Vec<u8>) -> Result<Vec<Said>, Damage> {
    let records = view.records(scratch)?;
    let mut said = Vec::new();
    for record in records {
        let record = record?;
        assert!(record.headers.iter().count() == record.headers.count() as usize);
        assert!((view.base_offset()..=view.last_offset()).contains(&record.offset));
        said.push((
            record.offset,
            record.timestamp_ms,
            record.key.map(<[u8]>::to_vec),
            record.value.map(<[u8]>::to_vec),
            record.headers.count(),
        ));
    }
    assert_eq!(said.len(), view.count() as usize);
    Ok(said)
}

/// With the right checksum it is taken from a stranger if, and only if, its records can be read.
fn whole_or_not(view: &View<'_>, damage: Option<&Damage>) -> Result<(), String> {
    let mut bytes = view.bytes().to_vec();
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    match Batch::received(bytes, &mut Vec::new()) {
        Ok(_) if damage.is_none() => Ok(()),
        Err(found) if damage == Some(&found) => Ok(()),
        received => Err(format!("{damage:?} is received as {received:?}")),
    }
}

/// When only some of the records stay, they stay as they are.
fn some_stay(view: &View<'_>, said: &Result<Vec<Said>, Damage>) -> Result<(), String> {
    let Ok(said) = said else {
        return Ok(());
    };
    let mut dice = Dice::of(view.bytes());
    let kept: Vec<bool> = said.iter().map(|_| dice.below(2) == 0).collect();
    let mut each = kept.iter();
    let fewer = Builder::new()
        .rewrite(view, Some(12_345), Compression::None, |_| {
            *each.next().unwrap()
        })
        .map_err(|damage| damage.to_string())?;
    let (fewer, _) = View::read(fewer.bytes()).map_err(|damage| damage.to_string())?;
    let left: Vec<_> = said
        .iter()
        .zip(&kept)
        .filter_map(|(said, kept)| kept.then_some(said.clone()))
        .collect();
    let is_same = said_by(&fewer, &mut Vec::new()).as_ref() == Ok(&left)
        && fewer.last_offset() == view.last_offset()
        && fewer.delete_horizon().is_some();
    is_same
        .then_some(())
        .ok_or_else(|| "what stays is not what was".to_owned())
}
