//! What a start cannot read of bans and schemas goes to `wardent.dead.letter`, once, and nothing else is
//! lost for it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{path::Path, sync::Arc, sync::mpsc, time::Duration};

use support::{records, rig::Rig, time, wardent::Wardent};
use wardent::{
    base::{clock::Clock, disk::System},
    log::{self, Append, Builder, Compression, TopicConfig, TopicSettings},
};

const LETTERS: &str = "wardent.dead.letter";

/// Appends records to topics of a log that nobody has open.
fn put(dir: &Path, records: &[(&str, &str, &str)]) {
    let topic = |name: &str| TopicSettings {
        name: name.to_owned(),
        partitions: 1,
        config: TopicConfig::default(),
    };
    let settings = log::Settings {
        dir: dir.to_owned(),
        disk_max: 1 << 30,
        ballast_bytes: 0,
        topics: vec![topic("wardent.client.ban"), topic("_schemas")],
    };
    let opened = log::open(settings, Arc::new(System), Clock::system()).unwrap();
    let running = log::start(opened.appender, opened.flusher, opened.changer).unwrap();
    for (name, key, value) in records {
        let mut builder = Builder::new();
        builder.push(
            7,
            Some(key.as_bytes()),
            Some(value.as_bytes()),
            &[("own", b"h")],
        );
        let (told, done) = mpsc::channel();
        let append = Append {
            partition: opened.log.partition(name, 0).unwrap(),
            batch: builder.finish(Compression::None),
            done: Box::new(move |result| told.send(result.is_ok()).unwrap()),
        };
        opened.log.appends().offer(append).unwrap();
        assert!(done.recv().unwrap());
    }
    running.stop(Duration::from_secs(30));
}

#[track_caller]
fn wait_for_letters(wardent: &Wardent, count: usize) {
    let is_there =
        || wardent.metric("wardent_dead_letters_total{outcome=\"written\"") >= count as f64;
    time::eventually("the letters are on disk", is_there);
}

#[test]
fn a_record_that_cannot_be_read_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let ban = r#"{"event":"ban","v":1,"time":"2026-11-21T10:00:01.042Z","target":"198.51.100.9","kind":"client","state":"banned","level":1,"since":"2026-11-21T10:00:01.042Z","until":"2126-11-21T10:00:01.042Z","why":"x","by":"uid:0"}"#;
    put(
        dir.path(),
        &[
            (
                "wardent.client.ban",
                "198.51.100.7",
                r#"{"event":"ban","v":2}"#,
            ),
            ("wardent.client.ban", "198.51.100.9", ban),
            ("_schemas", "no key of a registry", "x"),
        ],
    );
    let rig = Rig::with(|setup| setup.log_dir(dir.path()));
    wait_for_letters(&rig.wardent, 2);
    // What can be read is in force.
    assert_eq!(rig.wardent.bans().len(), 1);
    // The next start meets them again, and has nothing new to tell.
    let again = rig.wardent.again();
    put_one_more_after(again, dir.path());
}

fn put_one_more_after(wardent: Wardent, dir: &Path) {
    drop(wardent.end());
    put(dir, &[("_schemas", "another", "y")]);
    let rig = Rig::with(|setup| setup.log_dir(dir));
    wait_for_letters(&rig.wardent, 1);
    drop(rig.wardent.end());
    let mut texts: Vec<_> = records::of_topic(dir, LETTERS)
        .into_iter()
        .map(|record| (record.key, record.text))
        .collect();
    texts.sort();
    let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        texts,
        [
            text("198.51.100.7", r#"{"event":"ban","v":2}"#),
            text("another", "y"),
            text("no key of a registry", "x"),
        ]
    );
}
