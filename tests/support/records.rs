//! What is in the log's files, read as any program would that knows Kafka's format.

use std::{fs, path::Path};

use serde_json::Value;
use wardent::log::View;

/// One record of a topic.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: String,
    /// `null` for a record without a value.
    pub(crate) text: String,
}

impl Found {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// All whole records of a topic, partition by partition; `log` is the log's directory.
pub(crate) fn of_topic(log: &Path, topic: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for partition in 0.. {
        let dir = log.join(format!("{topic}-{partition}"));
        if !dir.is_dir() {
            break;
        }
        let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
        let mut segments: Vec<_> = files
            .filter(|path| path.extension().is_some_and(|own| own == "log"))
            .collect();
        segments.sort();
        for segment in segments {
            records_of(&fs::read(segment).unwrap(), partition, &mut found);
        }
    }
    found
}

fn records_of(mut bytes: &[u8], partition: u32, found: &mut Vec<Found>) {
    let mut scratch = Vec::new();
    while let Ok((batch, rest)) = View::read(bytes) {
        batch.verify().unwrap();
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        let records = batch.records(&mut scratch).unwrap();
        found.extend(records.map(|record| {
            let record = record.unwrap();
            Found {
                partition,
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
                key: text(record.key),
                text: text(record.value.or(Some(b"null"))),
            }
        }));
        bytes = rest;
    }
}
