//! The ranking over a log that is written while time stands still.

use super::*;
use crate::{
    base::clock::Clock,
    log::Partition,
    sink::query::written::{Written, append},
};

const NOW: u64 = 1_795_255_200_000;

fn event(client: &str) -> String {
    format!(
        r#"{{"event":"access","v":1,"time":"t","client":"{client}","method":"GET","path":"/","status":200,"verdict":"passed","route":"","bytes_out":10,"total_us":1000,"user_agent":"x"}}"#
    )
}

/// Appends `count` requests of `client` as one batch.
fn come(written: &Written, partition: &Arc<Partition>, client: &str, count: usize, unix_ms: u64) {
    let event = event(client);
    let unix_ms = i64::try_from(unix_ms).unwrap();
    let events: Vec<_> = (0..count).map(|_| (unix_ms, event.as_str())).collect();
    append(&written.log, partition, &events);
}

struct Watched {
    written: Written,
    clock: Clock,
    follower: Follower,
}

impl Watched {
    fn new(partitions: usize) -> Self {
        Self {
            written: Written::new(&vec![&[][..]; partitions]),
            clock: Clock::manual(NOW),
            follower: Follower::new(),
        }
    }

    fn come(&self, partition: usize, client: &str, count: usize) {
        let partition = &self.written.partitions()[partition];
        come(
            &self.written,
            partition,
            client,
            count,
            self.clock.unix_ms(),
        );
    }

    /// Looks, `ms` after the last time.
    fn look(&mut self, ms: u64) {
        self.clock.advance_ms(ms);
        let (unix_ms, ns) = (self.clock.unix_ms(), self.clock.monotonic_ns());
        self.follower.follow(&self.written.log, unix_ms, ns);
    }

    fn top(&self, window_ms: u64) -> Top {
        self.follower
            .top(By::Client, window_ms, 10, self.clock.unix_ms())
    }
}

fn rows(top: &Top) -> Vec<(&str, u64)> {
    let rows = top.rows.iter();
    rows.map(|row| (row.key.as_str(), row.requests)).collect()
}

#[test]
fn what_was_there_and_what_comes_is_counted_once() {
    let mut watched = Watched::new(2);
    watched.come(0, "198.51.100.7", 3);
    watched.come(1, "203.0.113.9", 5);
    watched.look(10);
    watched.look(250);
    watched.come(0, "198.51.100.7", 4);
    watched.look(250);
    let top = watched.top(60_000);
    assert_eq!(rows(&top), [("198.51.100.7", 7), ("203.0.113.9", 5)]);
    assert_eq!((top.events, top.share), (12, 1.0));
    assert_eq!(top.since, "2026-11-21T09:59:00.510Z");
    watched.look(60_000);
    assert!(rows(&watched.top(1_000)).is_empty());
    watched.look(REMEMBERED_MS);
    assert!(rows(&watched.top(REMEMBERED_MS)).is_empty());
}

#[test]
fn of_much_a_part_is_looked_at_and_stands_for_all() {
    let mut watched = Watched::new(2);
    watched.look(10);
    // What may be looked at at once is spent first.
    watched.come(0, "192.0.2.1", 3_000);
    watched.look(1_000);
    watched.look(100_000);
    for _ in 0..40 {
        for _ in 0..10 {
            watched.come(0, "198.51.100.7", 300);
            watched.come(1, "203.0.113.9", 100);
        }
        watched.look(250);
    }
    let top = watched.top(60_000);
    assert!((0.02..0.05).contains(&top.share), "{}", top.share);
    // 500 a second, and what was saved up in one.
    assert!((5_000..6_000).contains(&top.events), "{}", top.events);
    assert_eq!(
        rows(&top),
        [("198.51.100.7", 120_000), ("203.0.113.9", 40_000)]
    );
}

#[test]
fn a_long_log_is_not_read_from_its_beginning() {
    let mut watched = Watched::new(1);
    for _ in 0..10 {
        watched.come(0, "198.51.100.7", 1_000);
        watched.clock.advance_ms(1_000);
    }
    watched.look(10);
    let top = watched.top(60_000);
    assert_eq!((top.events, top.share), (1_000, 1.0));
    // The oldest that was looked at ended at the moment from which on all is known.
    assert_eq!(top.since, "2026-11-21T10:00:08.001Z");
}

#[test]
fn what_came_while_nothing_may_be_looked_at_is_told_by_the_next() {
    let mut watched = Watched::new(1);
    watched.look(10);
    watched.come(0, "198.51.100.7", 10_000);
    watched.look(1_000);
    watched.come(0, "198.51.100.7", 10_000);
    watched.look(0);
    watched.come(0, "198.51.100.7", 10_000);
    watched.look(1_000);
    assert_eq!(rows(&watched.top(60_000)), [("198.51.100.7", 30_000)]);
}

#[test]
fn a_thread_answers_and_a_second_one_when_it_has_ended() {
    let written = Written::new(&[&[]]);
    let clock = Clock::system();
    come(
        &written,
        &written.partitions()[0],
        "198.51.100.7",
        2,
        clock.unix_ms(),
    );
    let following = Following::default();
    let ask = Ask {
        by: By::Client,
        window: Duration::from_secs(60),
        limit: 10,
    };
    for _ in 0..2 {
        let answer = following.hand_over(ask, &written.log, &clock).unwrap();
        assert_eq!(
            rows(&answer.blocking_recv().unwrap()),
            [("198.51.100.7", 2)]
        );
        // As if it had ended.
        *following.0.lock().unwrap() = sync_channel(0).0;
    }
}

#[test]
fn who_has_not_been_asked_for_a_while_ends() {
    let written = Written::new(&[&[]]);
    let clock = Clock::manual(NOW);
    let (way, questions) = sync_channel(1);
    let following = std::thread::spawn({
        let (log, clock) = (Arc::clone(&written.log), clock.clone());
        move || follow(&log, &clock, &questions)
    });
    let ask = Ask {
        by: By::Client,
        window: Duration::from_secs(1),
        limit: 1,
    };
    let (answer, answered) = oneshot::channel();
    way.try_send(Waiting { ask, answer }).unwrap();
    assert!(answered.blocking_recv().is_ok());
    clock.advance_ms(16_000);
    following.join().unwrap();
    let answer = oneshot::channel().0;
    assert!(way.try_send(Waiting { ask, answer }).is_err());
}

#[test]
fn what_cannot_be_meant_is_told() {
    for (query, words) in [
        (
            "by=x",
            "`by`: there are client, route, path, reason, bot, user_agent",
        ),
        ("window=6m", "`window`: from 1s to 5m"),
        ("window=999ms", "`window`: from 1s to 5m"),
        ("limit=0", "`limit`: write a whole number from 1 to 200"),
        ("limit=201", "`limit`: write a whole number from 1 to 200"),
    ] {
        let query = Query::read(Some(query), &["by", "window", "limit"]).unwrap();
        assert_eq!(Ask::read(&query).unwrap_err().words, words);
    }
    let query = Query::read(Some("window=5m&by=path"), &["by", "window"]).unwrap();
    let ask = Ask::read(&query).unwrap();
    assert_eq!(
        (ask.by, ask.window.as_secs(), ask.limit),
        (By::Path, 300, ROWS)
    );
}
