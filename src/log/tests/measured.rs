//! Figures, on the machine's own disk: `cargo test --release --lib log::tests::measured -- --ignored --nocapture`.
#![expect(clippy::print_stderr, reason = "figures are printed")]
#![expect(clippy::disallowed_methods, reason = "it is measured")]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{super::*, rig::*};
use crate::base::{clock::Clock, disk::System};

fn megabytes_64(dir: &std::path::Path) -> Settings {
    let mut settings = settings(dir);
    for topic in &mut settings.topics {
        topic.config.segment_bytes = 64 * 1024 * 1024;
    }
    settings
}

#[test]
#[ignore = "writes a gigabyte"]
fn opening_a_gigabyte_takes_little_time() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Rig::with(megabytes_64(dir.path()), Arc::new(System));
    let mut rig = open();
    let value = vec![b'x'; 400_000];
    for number in 0..2_600 {
        let mut builder = Builder::new();
        builder.push(NOW_MS.cast_signed(), None, Some(&value), &[]);
        rig.append(LAZY, builder.finish(Compression::None)).unwrap();
        if number % 20 == 0 {
            rig.clock.advance_ms(6_000);
            rig.settle();
        }
    }
    let timed = || {
        let began = Instant::now();
        let rig = open();
        (began.elapsed(), rig)
    };
    rig.append(LAZY, batch(0, 1)).unwrap();
    drop(rig);
    let (unclean, rig) = timed();
    assert!(!rig.was_clean);
    rig.close();
    let (clean, rig) = timed();
    let bytes = rig.log.size_bytes();
    eprintln!("{bytes} bytes: after a crash {unclean:?}, after an orderly stop {clean:?}");
    assert!(rig.was_clean && unclean.as_secs_f64() < 2.0 && clean.as_secs_f64() < 0.5);
}

/// CPU time of the thread with this name, in clock ticks of a hundredth of a second.
fn ticks_of(thread: &str) -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let own = stats.filter(|stat| stat.contains(&format!("({thread})")));
    own.map(|stat| {
        let words: Vec<u64> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split(' ')
            .map(|word| word.parse().unwrap_or(0))
            .collect();
        words[12] + words[13]
    })
    .sum()
}

#[test]
#[ignore = "writes half a gigabyte"]
fn appending_from_the_queue_to_the_page_cache() {
    const BATCHES: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let opened = open(megabytes_64(dir.path()), Arc::new(System), Clock::system()).unwrap();
    let running = start(opened.appender, opened.flusher, opened.changer).unwrap();
    let partition = running.log().partition(LAZY, 0).unwrap();
    let mut builder = Builder::new();
    for number in 0..250_u64 {
        let value = format!("{number:0100}");
        builder.push(NOW_MS.cast_signed(), None, Some(value.as_bytes()), &[]);
    }
    let batch = builder.finish(Compression::None);
    let bytes = batch.bytes().len();
    let done = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    for _ in 0..BATCHES {
        let done = Arc::clone(&done);
        let mut append = Append {
            partition: Arc::clone(&partition),
            batch: batch.clone(),
            done: Box::new(move |result| {
                result.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }),
        };
        while let Err(back) = running.log().appends().offer(append) {
            append = back;
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    while done.load(Ordering::Relaxed) < BATCHES {
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = began.elapsed();
    let ticks = ticks_of("appender");
    assert_eq!(running.stop(Duration::from_secs(60)), Ended::Clean);
    let events = BATCHES * 250;
    eprintln!(
        "{events} events in batches of 250 and {bytes} bytes: {took:?}, appender {} ms of CPU: {:.1} us a batch",
        ticks * 10,
        ticks as f64 * 10_000.0 / BATCHES as f64
    );
}

#[test]
#[ignore = "depends on the disk"]
fn acknowledging_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(megabytes_64(dir.path()), Arc::new(System), Clock::system()).unwrap();
    let running = start(opened.appender, opened.flusher, opened.changer).unwrap();
    let partition = running.log().partition(DURABLE, 0).unwrap();
    let mut times = Vec::new();
    for number in 0..200 {
        let (tell, told) = std::sync::mpsc::channel();
        let began = Instant::now();
        let append = Append {
            partition: Arc::clone(&partition),
            batch: batch(number, 1),
            done: Box::new(move |result| tell.send(result.is_ok()).unwrap()),
        };
        running.log().appends().offer(append).unwrap();
        assert!(told.recv().unwrap());
        times.push(began.elapsed());
    }
    times.sort_unstable();
    eprintln!(
        "one at a time: median {:?}, p99 {:?}",
        times[100], times[198]
    );
    assert_eq!(running.stop(Duration::from_secs(60)), Ended::Clean);
}
