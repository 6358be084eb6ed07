//! How fast events are found in the log: a million of them, from the page cache, through both looks.
//!
//! `cargo bench --bench query`

use std::{
    path::Path,
    sync::{Arc, mpsc},
};

use divan::{Bencher, counter::ItemsCount};
use wardent::{
    base::{
        clock::Clock,
        disk::{Disk, System},
    },
    log::{
        self, Append, Builder, Compression, Flush, Partition, Settings, TopicConfig, TopicSettings,
    },
    sink::{
        query::{
            EventTopic,
            filter::Filter,
            position::Position,
            scan::{Bounds, Order, page},
        },
        verify::{Subject, verify},
    },
};

const EVENTS: u64 = 1_000_000;
const PARTITIONS: u32 = 4;
const BATCH: u64 = 250;

fn main() {
    divan::main();
}

/// An event as real traffic makes them: a few hosts and agents, many paths and clients.
fn event(number: u64) -> (i64, String) {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let unix_ms = 1_795_255_200_000 + i64::try_from(number / 10).unwrap_or(0);
    let (client, path, id) = (mixed % 250, mixed % 977, mixed);
    let refused = match number % 100 {
        0 => {
            r#""status":429,"verdict":"refused","reason":"rate_limited","why":"over the limit of the route""#
        }
        _ => r#""status":200,"verdict":"passed""#,
    };
    let text = format!(
        r#"{{"event":"access","v":1,"time":"2026-11-21T10:00:01.042Z","id":"01KAJ{id:021}","run":"00c0ffee","lane":0,"seq":{seq},"client":"198.51.100.{client}","proven":true,"peer":"127.0.0.1","method":"GET","host":"www.example.org","path":"/articles/2026/{path}/","{refused},"route":"defaults","body_bytes_in":0,"bytes_out":{out},"total_us":{us},"connected_us":120,"answered_us":{us},"upstream":"127.0.0.1:8000","user_agent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"}}"#,
        seq = number + 1,
        refused = refused.trim_start_matches('"'),
        out = 1_000 + mixed % 9_000,
        us = 500 + mixed % 40_000,
    );
    (unix_ms, text)
}

/// Writes the events, and gives the partitions as a reader opens them.
fn written(dir: &Path) -> Vec<Arc<Partition>> {
    let disk: Arc<dyn Disk> = Arc::new(System);
    let settings = Settings {
        dir: dir.to_owned(),
        disk_max: 1 << 40,
        ballast_bytes: 0,
        topics: vec![TopicSettings {
            name: EventTopic::Access.name().to_owned(),
            partitions: PARTITIONS,
            config: TopicConfig {
                flush: Flush::Lazily {
                    age: std::time::Duration::from_secs(5),
                    bytes: u64::MAX,
                },
                ..TopicConfig::default()
            },
        }],
    };
    let Ok(opened) = log::open(settings, Arc::clone(&disk), Clock::system()) else {
        return Vec::new();
    };
    let log = Arc::clone(&opened.log);
    let Ok(running) = log::start(opened.appender, opened.flusher, opened.changer) else {
        return Vec::new();
    };
    let mut builder = Builder::new();
    for first in (0..EVENTS).step_by(usize::try_from(BATCH).unwrap_or(1)) {
        for number in first..first + BATCH {
            let (unix_ms, text) = event(number);
            builder.push(unix_ms, Some(b"198.51.100.7"), Some(text.as_bytes()), &[]);
        }
        let partition = usize::try_from(first / BATCH % u64::from(PARTITIONS)).unwrap_or(0);
        let partitions = log.partitions();
        let Some(partition) = partitions.get(partition) else {
            continue;
        };
        let (told, done) = mpsc::channel::<()>();
        let append = Append {
            partition: Arc::clone(partition),
            batch: builder.finish(Compression::Lz4),
            done: Box::new(move |_| drop(told)),
        };
        let _ = log.appends().offer(append);
        // It is dropped when the batch is written.
        let _ = done.recv();
    }
    running.stop(std::time::Duration::from_secs(60));
    log::open_to_read(dir, &disk).unwrap_or_default()
}

/// What is asked for: a name and its conditions.
const QUESTIONS: [(&str, &[(&str, &str)]); 6] = [
    ("nobody's id", &[("id", "01KAJ0000000000000000000AA")]),
    ("a client", &[("client", "198.51.100.77")]),
    ("a network", &[("client", "203.0.113.0/24")]),
    ("a path", &[("path", "/articles/*/1000/")]),
    (
        "refused, one in a hundred",
        &[("verdict", "refused"), ("path", "/nothing/**")],
    ),
    ("a status", &[("status", "5xx")]),
];

#[divan::bench(args = QUESTIONS.map(|(name, _)| name), sample_count = 5, sample_size = 1)]
fn find(bencher: Bencher<'_, '_>, name: &str) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let partitions = written(dir.path());
    let question = QUESTIONS.iter().find(|(own, _)| *own == name);
    let conditions = question.map_or(&[][..], |(_, conditions)| conditions);
    let get = |name| {
        conditions
            .iter()
            .find(|(own, _)| *own == name)
            .map(|(_, value)| *value)
    };
    let Ok(filter) = Filter::read(EventTopic::Access, get, u64::MAX) else {
        return;
    };
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let bounds = &mut Bounds {
            events: usize::MAX,
            is_over: &mut || false,
        };
        page(
            &partitions,
            &filter,
            Order::Oldest,
            &Position::default(),
            bounds,
        )
        .map(|page| assert_eq!(page.tally.scanned, EVENTS, "all are looked at"))
        .ok()
    });
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn look_at_every_byte(bencher: Bencher<'_, '_>) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let partitions = written(dir.path());
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let subject = Subject {
            dir: dir.path(),
            disk: &System,
            partitions: &partitions,
            is_running: false,
        };
        verify(subject, &mut |_| true)
            .map(|told| assert!(told.is_some_and(|told| told.is_sound()), "it is sound"))
            .ok()
    });
}
