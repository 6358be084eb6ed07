//! The log on its two threads.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use super::{super::*, rig::*};
use crate::base::{clock::Clock, disk::System};

const PATIENCE: Duration = Duration::from_secs(30);

fn running(dir: &std::path::Path) -> Running {
    let opened = open(settings(dir), Arc::new(System), Clock::system()).unwrap();
    start(opened.appender, opened.flusher, opened.changer).unwrap()
}

#[test]
fn what_is_offered_is_appended_and_made_safe_without_anybody_asking() {
    let dir = tempfile::tempdir().unwrap();
    let running = running(dir.path());
    for topic in [LAZY, DURABLE] {
        for number in 0..20 {
            let (tell, told) = mpsc::channel();
            let append = Append {
                partition: running.log().partition(topic, 0).unwrap(),
                batch: batch(number, 1),
                done: Box::new(move |result| tell.send(result).unwrap()),
            };
            running.log().appends().offer(append).unwrap();
            let appended = told.recv_timeout(PATIENCE).unwrap().unwrap();
            assert_eq!(appended.base_offset, number.cast_signed());
        }
    }
    assert!(running.log().health().syncs.get() > 0);
    assert_eq!(running.stop(PATIENCE), Ended::Clean);
    let rig = Rig::open(dir.path());
    assert!(rig.was_clean && rig.report.is_empty(), "{:?}", rig.report);
    assert_eq!(numbers(&rig.partition(DURABLE), 0).len(), 20);
    assert_eq!(numbers(&rig.partition(LAZY), 0).len(), 20);
}

#[test]
fn what_was_offered_before_the_end_is_in_the_log_and_what_comes_after_is_handed_back() {
    let dir = tempfile::tempdir().unwrap();
    let running = running(dir.path());
    let log = Arc::clone(running.log());
    let (tell, told) = mpsc::channel();
    let append = |number| {
        let tell = tell.clone();
        Append {
            partition: log.partition(DURABLE, 0).unwrap(),
            batch: batch(number, 1),
            done: Box::new(move |result| tell.send(result.is_ok()).unwrap()),
        }
    };
    for number in 0..200 {
        log.appends().offer(append(number)).unwrap();
    }
    assert_eq!(running.stop(PATIENCE), Ended::Clean);
    assert!(log.appends().offer(append(200)).is_err());
    assert_eq!(told.try_iter().filter(|is_ok| *is_ok).count(), 200);
    assert_eq!(numbers(&log.partition(DURABLE, 0).unwrap(), 0).len(), 200);
    // The lock is free, though the log is still read.
    Rig::open(dir.path()).close();
}

#[test]
fn a_follower_hears_of_every_move_of_the_high_watermark() {
    let dir = tempfile::tempdir().unwrap();
    let running = running(dir.path());
    let partition = running.log().partition(DURABLE, 0).unwrap();
    let mut watermark = partition.subscribe();
    let append = Append {
        partition: Arc::clone(&partition),
        batch: batch(0, 5),
        done: Box::new(|_| {}),
    };
    running.log().appends().offer(append).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let waited = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, watermark.wait_for(|offset| *offset == 5))
            .await
            .is_ok()
    });
    assert!(waited);
    assert_eq!(running.stop(PATIENCE), Ended::Clean);
}
