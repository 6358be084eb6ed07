//! Batches of anybody: read without a panic, within bounds, and the same when they are written again. And
//! segments of anybody: opened, with what is whole in them, once and for all.

use std::{path::Path, sync::Arc};

use super::{
    Append, Batch, Builder, Compression, Damage, Demands, Found, HEADER_BYTES, Opened, Partition,
    Settings, TopicConfig, TopicSettings, Unfit, View, batch::UNPACKED_BYTES_MAX, open,
};
use crate::base::{
    clock::Clock,
    disk::sim::Sim,
    fuzz::{Dice, campaign, hash},
};

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
        built(&many, Compression::Gzip),
        built(&many, Compression::Snappy),
        built(&many, Compression::Zstd),
    ]
}

const WORDS: [&[u8]; 20] = [
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
    &[0x1f, 0x8b, 0x08, 0x00],
    b"\x82SNAPPY\0\x00\x00\x00\x01\x00\x00\x00\x01",
    // A frame with a window of 2 GiB, and the last block, of one byte that is repeated.
    &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8],
    &[0x03, 0x00, 0x10, 0x61],
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
    whole_or_not(view, &said)?;
    let compression = Compression::of(view.codec()).unwrap_or_default();
    let rewritten = Builder::new().rewrite(view, None, compression, |_| true);
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

/// With the right checksum it is taken from a client if, and only if, its records can be read and are numbered
/// without a gap; and then says the same, but for times.
fn whole_or_not(view: &View<'_>, said: &Result<Vec<Said>, Damage>) -> Result<(), String> {
    let mut bytes = view.bytes().to_vec();
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let marks = view.attributes() & 0b111_0000;
    let numbered = view.producer_epoch() >= 0 && view.base_sequence() >= 0;
    let may_say = marks == 0
        && i64::from(view.count()) == i64::from(view.last_offset_delta()) + 1
        && (view.producer_id() < 0 || numbered);
    match (Batch::received(bytes, Demands::NONE, &mut Vec::new()), said) {
        (Err(Unfit::Claims(_)), _) if !may_say => Ok(()),
        (Err(Unfit::Damaged(found)), Err(damage)) if may_say && found == *damage => Ok(()),
        (Ok(batch), Ok(said)) if may_say => {
            let (again, _) = View::read(batch.bytes()).map_err(|damage| damage.to_string())?;
            again.verify().map_err(|damage| damage.to_string())?;
            let again = said_by(&again, &mut Vec::new()).map_err(|damage| damage.to_string())?;
            let latest = again.iter().map(|(_, time_ms, ..)| *time_ms).max();
            let what = |(offset, _, key, value, headers): &Said| {
                (*offset, key.clone(), value.clone(), *headers)
            };
            let is_same = again.iter().map(what).eq(said.iter().map(what));
            (is_same && latest == Some(batch.max_timestamp()))
                .then_some(())
                .ok_or_else(|| "what is received is not what was sent".to_owned())
        }
        (received, said) => Err(format!("{said:?} is received as {received:?}")),
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

const DIR: &str = "/log";

fn opened(disk: &Sim) -> Result<Opened, String> {
    let settings = Settings {
        dir: DIR.into(),
        disk_max: 1 << 30,
        ballast_bytes: 0,
        topics: vec![TopicSettings {
            name: "events".to_owned(),
            partitions: 1,
            config: TopicConfig::default(),
        }],
    };
    let clock = Clock::manual(1_700_000_000_000);
    open(settings, Arc::new(disk.clone()), clock).map_err(|error| error.to_string())
}

/// Every batch of the partition, as it is stored.
fn batches(partition: &Partition) -> Result<Vec<Vec<u8>>, String> {
    let mut next = partition.log_start_offset();
    let mut found = Vec::new();
    while next < partition.high_watermark() {
        let bytes = partition
            .read(next, 1)
            .map_err(|error| format!("at {next}: {error}"))?;
        let Ok((view, _)) = View::read(&bytes) else {
            break;
        };
        view.verify().map_err(|damage| damage.to_string())?;
        if view.last_offset() < next {
            return Err(format!("at {next} a batch is read that ends before"));
        }
        next = view.last_offset() + 1;
        found.push(bytes);
    }
    Ok(found)
}

/// Batches one after the other, as a partition has them.
fn placed(batches: &[&[u8]]) -> Vec<u8> {
    let mut log = Vec::new();
    let mut next = 0;
    for bytes in batches {
        let mut batch = Batch::received(bytes.to_vec(), Demands::NONE, &mut Vec::new()).unwrap();
        batch.place(next, 0);
        next = batch.last_offset() + 1;
        log.extend_from_slice(batch.bytes());
    }
    log
}

/// How many batches stand at the front of a segment, without a doubt.
fn surely_whole(mut log: &[u8]) -> usize {
    let (mut count, mut expected) = (0, 0);
    while let Ok((view, after)) = View::read(log) {
        let is_next = view.base_offset() == expected && view.last_offset() < i64::from(i32::MAX);
        if !is_next || view.verify().is_err() {
            break;
        }
        (log, expected, count) = (after, view.last_offset() + 1, count + 1);
    }
    count
}

/// Appends a batch. Says whether it could be.
fn appended(opened: &mut Opened, partition: &Arc<Partition>) -> bool {
    let mut builder = Builder::new();
    builder.push(0, None, Some(b"more"), &[]);
    let end = partition.high_watermark();
    let append = Append {
        partition: Arc::clone(partition),
        batch: builder.finish(Compression::None),
        done: Box::new(|_| ()),
    };
    opened.log.appends().offer(append).unwrap();
    opened.appender.turn();
    opened.flusher.turn();
    partition.high_watermark() > end
}

#[test]
fn campaign_segments() {
    let one = built(&[b"one", b"two"], Compression::None);
    let long = built(&[&[b'x'; 700], &[b'y'; 700]], Compression::Lz4);
    let samples = [
        placed(&[&one, &one, &one]),
        placed(&[&one, &long, &one, &long]),
        placed(&[&long]),
    ];
    let samples: Vec<&[u8]> = samples.iter().map(Vec::as_slice).collect();
    let words = [&WORDS[..], &[&one, &samples[0][one.len()..]]].concat();
    campaign("segments", &samples, &words, |input| {
        let disk = Sim::new(1, Path::new("/"));
        drop(opened(&disk)?);
        let mut dice = Dice::of(input);
        let path = |end: &str| Path::new(DIR).join(format!("events-0/00000000000000000000.{end}"));
        disk.put(&path("log"), input);
        for end in ["index", "timeindex"] {
            let random: Vec<u8> = (0..dice.below(40))
                .map(|_| dice.next().to_le_bytes()[0])
                .collect();
            disk.put(&path(end), &random);
        }
        let disk = disk.kill();
        let mut first = opened(&disk)?;
        let partition = first.log.partition("events", 0).unwrap();
        let found = batches(&partition)?;
        let whole = surely_whole(input);
        if found.len() < whole {
            return Err(format!(
                "{} of {whole} whole batches are found",
                found.len()
            ));
        }
        if let Some(strange) = found
            .iter()
            .find(|one| memchr::memmem::find(input, one).is_none())
        {
            return Err(format!("{} was not there", strange.escape_ascii()));
        }
        let goes_on = appended(&mut first, &partition);
        let again = opened(&disk.kill())?;
        let found_again = batches(&again.log.partition("events", 0).unwrap())?;
        let is_same = found_again.starts_with(&found)
            && found_again.len() == found.len() + usize::from(goes_on)
            && !again.report.iter().any(Found::is_loss);
        if !is_same {
            let (then, now) = (found.len(), found_again.len());
            return Err(format!(
                "{then} batches are {now} the next time: {:?}",
                again.report
            ));
        }
        Ok(match found.len() {
            0 => 0,
            count => hash(&(count, first.report.len())),
        })
    });
}
