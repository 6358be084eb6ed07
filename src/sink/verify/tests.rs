//! What is planted is found, and told with its place.

use std::{fs, time::Duration};

use super::*;
use crate::{
    base::disk::System,
    log::{Command, TopicConfig},
    sink::query::written::{Events, Written, append},
};

/// Small segments, so that there are closed ones.
const SEGMENT_BYTES: u64 = 8 * 1024;

fn config() -> TopicConfig {
    TopicConfig {
        flush: crate::log::Flush::Lazily {
            age: Duration::from_secs(1),
            bytes: u64::MAX,
        },
        segment_bytes: SEGMENT_BYTES,
        ..TopicConfig::default()
    }
}

/// What compresses badly, so that segments fill up.
fn noise(seq: u64) -> String {
    let numbers = (0..8_u64).map(|nth| (seq * 31 + nth + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    numbers.map(|number| format!("{number:016x}")).collect()
}

fn event(seq: u64) -> (i64, String) {
    let noise = noise(seq);
    let text = format!(
        r#"{{"event":"access","v":1,"run":"00c0ffee","lane":0,"seq":{seq},"path":"/{noise}"}}"#
    );
    (i64::try_from(seq).unwrap() * 1_000, text)
}

/// Events 1 to 1,000 in two partitions, in batches of ten, without those in `missing`.
fn log_without(missing: &[u64]) -> Written {
    let written = Written::with(&[&[], &[]], config());
    for from in (1..=1_000).step_by(10) {
        let events: Vec<_> = (from..from + 10)
            .filter(|seq| !missing.contains(seq))
            .map(event)
            .collect();
        let events: Vec<_> = events
            .iter()
            .map(|(ms, text)| (*ms, text.as_str()))
            .collect();
        let (even, odd): (Vec<_>, Vec<_>) = events.iter().partition(|(ms, _)| ms % 2_000 == 0);
        for (partition, events) in written.partitions().iter().zip([even, odd]) {
            append(&written.log, partition, &events);
        }
    }
    written
}

fn closed(mut written: Written) -> Written {
    written.stop();
    written
}

fn look(written: &Written) -> Verified {
    let partitions = written.files();
    let subject = Subject {
        dir: written.dir(),
        disk: &System,
        partitions: &partitions,
        is_running: false,
    };
    verify(subject, &mut |_| true).unwrap().unwrap()
}

/// The first closed segment of partition 0, by the end of its name.
fn file(written: &Written, extension: &str) -> PathBuf {
    let name = format!("wardent.http.access-0/{:020}.{extension}", 0);
    written.dir().join(name)
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn findings(verified: &Verified) -> Vec<(String, Option<u64>, String)> {
    let told = verified.findings.iter();
    told.map(|one| (one.file.clone(), one.position, one.what.clone()))
        .collect()
}

#[test]
fn a_sound_log_is_sound_while_it_runs_and_afterwards() {
    let written = log_without(&[]);
    let subject = Subject {
        dir: written.dir(),
        disk: &System,
        partitions: written.partitions(),
        is_running: true,
    };
    let mut last = Progress::default();
    let running = verify(subject, &mut |progress| {
        last = progress;
        true
    });
    let running = running.unwrap().unwrap();
    assert!(running.is_sound(), "{running:?}");
    assert_eq!((running.records, running.access.events), (1_000, 1_000));
    assert!(running.segments > 10, "{running:?}");
    assert_eq!(last.bytes, last.of);
    let stopped = look(&closed(written));
    assert!(stopped.is_sound(), "{stopped:?}");
    assert_eq!((stopped.records, stopped.torn_bytes), (1_000, 0));
}

#[test]
fn whoever_says_no_ends_it() {
    let written = log_without(&[]);
    let subject = Subject {
        dir: written.dir(),
        disk: &System,
        partitions: written.partitions(),
        is_running: true,
    };
    assert_eq!(verify(subject, &mut |_| false).unwrap(), None);
}

#[test]
fn a_flipped_byte_in_a_closed_segment_is_found() {
    let written = closed(log_without(&[]));
    let path = file(&written, "log");
    change(&path, |bytes| bytes[100] ^= 1);
    let told = look(&written);
    assert!(!told.is_sound());
    let (name, position, what) = findings(&told).swap_remove(0);
    assert_eq!(name, format!("wardent.http.access-0/{:020}.log", 0));
    assert_eq!(position, Some(0));
    assert_eq!(
        what,
        "the batch's checksum does not fit its bytes: offsets 0 to 4"
    );
    // What it held is missing, and everything else is there.
    assert_eq!(told.access.missing, 5);
    assert_eq!(told.records, 995);
}

#[test]
fn a_batch_whose_length_lies_costs_only_what_is_about_it() {
    let written = closed(log_without(&[]));
    let length_at = 8;
    change(&file(&written, "log"), |bytes| bytes[length_at] = 0x7f);
    let told = look(&written);
    assert!(!told.is_sound());
    assert_eq!(told.findings[0].position, Some(0));
    assert!(
        told.access.missing > 0 && told.access.missing < 500,
        "{told:?}"
    );
}

#[test]
fn events_that_were_never_written_are_missing() {
    let told = look(&closed(log_without(&[1, 500, 501])));
    let holes: Vec<_> = told
        .access
        .holes
        .iter()
        .map(|hole| (hole.from, hole.to))
        .collect();
    assert_eq!(holes, [(1, 1), (500, 501)]);
    assert_eq!(
        (told.access.missing, told.wrong, told.is_sound()),
        (3, 0, false)
    );
}

#[test]
fn a_segment_that_is_gone_from_the_middle_is_missing() {
    let written = closed(log_without(&[]));
    let dir = written.dir().join("wardent.http.access-1");
    let mut logs: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    logs.sort();
    fs::remove_file(&logs[2]).unwrap();
    let told = look(&written);
    assert!(findings(&told)[0].2.contains("are missing"), "{told:?}");
    assert!(told.access.missing > 5, "{told:?}");
}

#[test]
fn what_retention_took_is_not_missing() {
    let written = closed(log_without(&[]));
    for extension in ["log", "index", "timeindex"] {
        fs::remove_file(file(&written, extension)).unwrap();
    }
    let told = look(&written);
    assert!(told.is_sound(), "{told:?}");
    assert!(told.access.events < 1_000);
}

#[test]
fn what_retention_takes_meanwhile_is_not_missing() {
    let written = log_without(&[]);
    let partition = &written.partitions()[0];
    let segments = partition.segments();
    assert!(segments.len() > 5);
    let subject = Subject {
        dir: written.dir(),
        disk: &System,
        partitions: written.partitions(),
        is_running: true,
    };
    let mut has_begun = false;
    let told = verify(subject, &mut |_| {
        if !std::mem::replace(&mut has_begun, true) {
            let (tell, done) = std::sync::mpsc::channel();
            let delete = Command::DeleteBelow(Arc::clone(partition), segments[4].base_offset);
            let tell = Box::new(move |result: Result<(), _>| tell.send(result.is_ok()).unwrap());
            written.log.ask(delete, tell).unwrap();
            assert!(done.recv().unwrap());
        }
        true
    });
    let told = told.unwrap().unwrap();
    assert!(told.is_sound(), "{told:?}");
    assert!(told.access.events < 1_000, "{told:?}");
}

#[test]
fn an_index_that_lies_is_found() {
    let written = closed(log_without(&[]));
    for (extension, at, words) in [
        ("index", 7, "points at byte"),
        ("index", 3, "of the batch at byte"),
        ("timeindex", 7, "the latest time up to there is"),
        ("timeindex", 11, "names the offset"),
    ] {
        let path = file(&written, extension);
        let whole = fs::read(&path).unwrap();
        change(&path, |bytes| bytes[at] ^= 1);
        let told = look(&written);
        let (name, position, what) = findings(&told).swap_remove(0);
        assert_eq!(name, format!("wardent.http.access-0/{:020}.{extension}", 0));
        assert_eq!(position, Some(0));
        assert!(what.contains(words), "{extension} {at}: {what}");
        assert_eq!((told.records, told.access.missing), (1_000, 0));
        fs::write(&path, whole).unwrap();
    }
    assert!(look(&written).is_sound());
}

#[test]
fn an_index_of_a_closed_segment_that_is_not_there_is_told() {
    let written = closed(log_without(&[]));
    fs::remove_file(file(&written, "index")).unwrap();
    let told = look(&written);
    assert!(
        findings(&told)[0].2.starts_with("cannot be read"),
        "{told:?}"
    );
}

#[test]
fn a_torn_end_is_told_and_no_damage() {
    let written = closed(log_without(&[]));
    let dir = written.dir().join("wardent.http.access-0");
    let last = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .max()
        .unwrap();
    change(&last, |bytes| bytes.extend_from_slice(&[0; 77]));
    let told = look(&written);
    assert_eq!((told.torn_bytes, told.is_sound()), (77, true), "{told:?}");
}

#[test]
fn records_that_are_no_access_events_are_told() {
    let stranger: Events<'_> = &[(1, r#"{"event":"access"}"#), (2, "")];
    let told = look(&closed(Written::with(&[&[stranger]], config())));
    assert_eq!(findings(&told)[0].2, "2 records are no access events");
}
