//! The publisher, turn by turn, with a shelf that does as it is told.

mod restored;

use std::{sync::Mutex, time::Duration};

use arc_swap::ArcSwap;
use tokio::{runtime::Runtime, task::JoinHandle};

use super::*;
use crate::{
    base::id::RequestIds,
    client::{ClientKey, Protected},
    limit::Keeper,
    log::View,
    owner::{
        Act, Acts, BanPolicy, Cause, Done, Excerpt, Memory, NotDone, Owner, Target, Violation,
    },
    sink::bans::{Replayed, replay},
};

/// What the shelf was offered and has not answered yet, and what it has kept.
#[derive(Default)]
struct Taken {
    under_way: Vec<(Topic, Batch, Ack)>,
    kept: Vec<(Topic, Batch)>,
    /// Why nothing is taken, if so.
    refuses: Option<&'static str>,
}

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Taken>>);

impl fmt::Debug for Paper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Paper")
    }
}

impl Shelf for Paper {
    fn offer(&self, topic: Topic, batch: Batch, ack: Ack) -> Result<(), String> {
        let mut taken = self.0.lock().unwrap();
        if let Some(why) = taken.refuses {
            return Err(why.to_owned());
        }
        taken.under_way.push((topic, batch, ack));
        Ok(())
    }
}

impl Paper {
    fn refuses(&self, why: Option<&'static str>) {
        self.0.lock().unwrap().refuses = why;
    }

    /// Says of all that is under way that it is on disk; how many batches that are.
    fn keep(&self) -> usize {
        let mut taken = self.0.lock().unwrap();
        let under_way = std::mem::take(&mut taken.under_way);
        let count = under_way.len();
        for (topic, batch, ack) in under_way {
            taken.kept.push((topic, batch));
            ack(Ok(()));
        }
        count
    }

    /// Keeps the batch of one topic alone.
    fn keep_only(&self, wanted: Topic) {
        let mut taken = self.0.lock().unwrap();
        let under_way = std::mem::take(&mut taken.under_way);
        for (topic, batch, ack) in under_way {
            if topic == wanted {
                taken.kept.push((topic, batch));
                ack(Ok(()));
            } else {
                taken.under_way.push((topic, batch, ack));
            }
        }
    }

    /// Says of all that is under way that it did not get onto the disk.
    fn fail(&self, why: &str) {
        let under_way = std::mem::take(&mut self.0.lock().unwrap().under_way);
        for (_, _, ack) in under_way {
            ack(Err(why.to_owned()));
        }
    }

    fn batches(&self) -> usize {
        self.0.lock().unwrap().kept.len()
    }

    /// The records of a topic in their order: key and value, none for a tombstone.
    fn records(&self, wanted: Topic) -> Vec<(String, serde_json::Value)> {
        let taken = self.0.lock().unwrap();
        let mut records = Vec::new();
        let of_topic = taken.kept.iter().filter(|(topic, _)| *topic == wanted);
        for (_, batch) in of_topic {
            let (view, _) = View::read(batch.bytes()).unwrap();
            view.verify().unwrap();
            for record in view.records(&mut Vec::new()).unwrap() {
                let record = record.unwrap();
                let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                let value = record
                    .value
                    .map(|value| serde_json::from_slice(value).unwrap());
                records.push((key, value.unwrap_or_default()));
            }
        }
        records
    }

    /// One field of all records of a topic.
    fn field(&self, topic: Topic, name: &str) -> Vec<String> {
        let records = self.records(topic).into_iter();
        let text = |value: &serde_json::Value| {
            let text = value.as_str().map(str::to_owned);
            text.unwrap_or_else(|| value.to_string())
        };
        records
            .map(|(_, value)| text(value.get(name).unwrap_or_default()))
            .collect()
    }

    /// All batches of bans, as they stand on disk.
    fn bans(&self) -> Vec<u8> {
        let taken = self.0.lock().unwrap();
        let bans = taken.kept.iter().filter(|(topic, _)| *topic == Topic::Bans);
        bans.flat_map(|(_, batch)| batch.bytes().to_vec()).collect()
    }
}

struct House {
    owner: Owner,
    acts: Acts,
    publisher: Publisher,
    auditor: Auditor,
    paper: Paper,
    clock: Clock,
    runtime: Runtime,
}

const START_UNIX_MS: u64 = 1_795_255_200_000;

fn house() -> House {
    house_at(Clock::manual(START_UNIX_MS), 100_000)
}

fn house_at(clock: Clock, bans_max: usize) -> House {
    let paper = Paper::default();
    let shelf = Box::new(paper.clone());
    let (publisher, changes, auditor) = Publisher::new(shelf, Encoder::default(), clock.clone());
    let policy = ArcSwap::from_pointee(BanPolicy {
        threshold: 10,
        window: Duration::from_secs(60),
        duration: Duration::from_secs(600),
        factor: 2,
        max: Duration::from_secs(7 * 86_400),
        forget: Duration::from_secs(86_400),
        protected: Protected::default(),
    });
    let (owner, acts) = Owner::new(
        Keeper::new(100_000),
        bans_max,
        Arc::new(policy),
        clock.clone(),
        Box::new(changes),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    House {
        owner,
        acts,
        publisher,
        auditor,
        paper,
        clock,
        runtime,
    }
}

fn one_of_many(nth: usize) -> String {
    format!("10.{}.{}.{}", nth >> 16, nth >> 8 & 255, nth & 255)
}

fn target(text: &str) -> Target {
    Target::parse(text, 64).unwrap()
}

impl House {
    fn violate(&mut self, who: &str) {
        self.violate_as(who, true);
    }

    fn violate_as(&mut self, who: &str, enforced: bool) {
        self.tell(who, enforced);
        self.owner.turn();
    }

    /// So many clients violate, and the owner hears of many at once.
    fn flood(&mut self, count: usize) {
        for nth in 0..count {
            self.tell(&one_of_many(nth), true);
            if nth % 4_000 == 3_999 {
                self.owner.turn();
            }
        }
        self.owner.turn();
    }

    fn tell(&self, who: &str, enforced: bool) {
        let unix_ms = self.clock.unix_ms();
        self.owner.facts().tell(Violation {
            client: ClientKey::new(who.parse().unwrap(), 64),
            cause: Cause::Trap,
            points: 10,
            enforced,
            request: RequestIds::starting_at(1).next(unix_ms),
            unix_ms,
            path: Excerpt::of(b"/.env\xff\"\x1b"),
        });
    }

    /// Begins an act, and lets the owner do it.
    fn begin(&mut self, act: Act) -> JoinHandle<Result<Done, NotDone>> {
        let acts = self.acts.clone();
        let asking = self.runtime.spawn(async move { acts.ask(act).await });
        self.let_run();
        self.owner.turn();
        asking
    }

    fn let_run(&self) {
        self.runtime.block_on(async {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        });
    }

    fn ban(&mut self, who: &str) -> JoinHandle<Result<Done, NotDone>> {
        self.begin(Act::Ban {
            target: target(who),
            duration: Duration::from_secs(3_600),
            why: "ticket \u{1b} 4711".to_owned(),
            actor: "uid:0".to_owned(),
        })
    }

    fn unban(&mut self, who: &str, grace_s: u64) -> JoinHandle<Result<Done, NotDone>> {
        self.begin(Act::Unban {
            target: target(who),
            grace: Duration::from_secs(grace_s),
            actor: "uid:0".to_owned(),
        })
    }

    /// Brings all that waits onto the disk.
    fn flush(&mut self) {
        while self.publisher.turn() || self.paper.keep() > 0 {}
        self.let_run();
    }

    fn pass(&mut self, seconds: u64) {
        self.clock.advance_ms(seconds * 1_000);
        self.owner.turn();
    }

    /// What another owner knows that starts at `clock` with what is on disk.
    fn after_start(&self, clock: Clock, bans_max: usize) -> (House, Replayed) {
        let mut fresh = house_at(clock, bans_max);
        let mut replayed = Replayed::default();
        let mut restoring = fresh.owner.restore();
        let bans = self.paper.bans();
        replay(&bans, 64, &mut Vec::new(), &mut restoring, &mut replayed);
        restoring.finish();
        (fresh, replayed)
    }
}

#[test]
fn an_act_is_answered_when_both_its_records_are_on_disk() {
    let mut house = house();
    let asking = house.ban("198.51.100.7");
    house.publisher.turn();
    for topic in [Topic::Bans, Topic::Audit] {
        house.let_run();
        assert!(!asking.is_finished());
        house.paper.keep_only(topic);
        house.publisher.turn();
    }
    let done = house.runtime.block_on(asking).unwrap();
    assert!(matches!(done, Ok(Done::Banned(_))), "{done:?}");
    assert_eq!(house.paper.field(Topic::Bans, "state"), ["banned"]);
    assert_eq!(house.paper.field(Topic::Audit, "what"), ["ban"]);
    assert_eq!(house.paper.field(Topic::Audit, "actor"), ["uid:0"]);
}

#[test]
fn what_fails_is_offered_again_and_nothing_newer_overtakes_it() {
    let mut house = house();
    let banning = house.ban("198.51.100.7");
    house.publisher.turn();
    let lifting = house.unban("198.51.100.7", 0);
    house.paper.fail("No space left on device");
    house.publisher.turn();
    let trouble = house.auditor.trouble().words().unwrap();
    assert_eq!(*trouble, "No space left on device");
    house.paper.refuses(Some("the log is busy"));
    for _ in 0..50 {
        house.clock.advance_ms(100);
        house.publisher.turn();
        house.let_run();
    }
    assert!(!banning.is_finished() && !lifting.is_finished());
    house.paper.refuses(None);
    house.clock.advance_ms(1_000);
    house.flush();
    assert!(banning.is_finished() && lifting.is_finished());
    // Then nothing is left to remember.
    let states = house.paper.field(Topic::Bans, "state");
    assert_eq!(states, ["banned", "lifted", "null"]);
    assert_eq!(house.paper.field(Topic::Audit, "what"), ["ban", "unban"]);
    assert!(house.auditor.trouble().words().is_none());
    assert!(house.auditor.numbers().failed.load(Ordering::Relaxed) > 5);
}

#[test]
fn what_comes_while_the_disk_is_busy_is_one_batch() {
    let mut house = house();
    house.violate("198.51.100.1");
    house.publisher.turn();
    for nth in 0..200 {
        house.violate(&format!("203.0.113.{nth}"));
    }
    house.flush();
    assert_eq!(house.paper.records(Topic::Bans).len(), 201);
    assert_eq!(house.paper.batches(), 4);
    let written = house.auditor.numbers().written.load(Ordering::Relaxed);
    assert_eq!(written, 402);
}

#[test]
fn what_found_no_room_is_told_when_there_is_some() {
    let mut house = house();
    let many = CHANGES_MAX + 1_000;
    house.flood(many);
    let numbers = Arc::clone(house.owner.numbers());
    let deferred = numbers.deferred.load(Ordering::Relaxed);
    assert!(deferred > 0);
    // One of them ends meanwhile, and is told as what it is then.
    let late = one_of_many(many - 1);
    drop(house.unban(&late, 60));
    for _ in 0..100 {
        house.flush();
        house.owner.turn();
    }
    house.flush();
    assert_eq!(numbers.untold.load(Ordering::Relaxed), 0);
    let mut targets = house.paper.field(Topic::Bans, "target");
    targets.sort_unstable();
    targets.dedup();
    assert_eq!(targets.len(), many);
    let bans = house.paper.records(Topic::Bans);
    let last = bans.iter().rfind(|(key, _)| *key == late).unwrap();
    assert_eq!(last.1["state"], "lifted");
    let audited = house.paper.field(Topic::Audit, "target");
    assert!(audited.contains(&one_of_many(many - 2)));
}

#[test]
fn an_act_finds_room_where_a_flood_of_bans_has_none() {
    let mut house = house();
    house.flood(CHANGES_MAX);
    let asking = house.ban("198.51.100.7");
    house.flush();
    let done = house.runtime.block_on(asking).unwrap();
    assert!(matches!(done, Ok(Done::Banned(_))), "{done:?}");
}

#[test]
fn an_act_that_finds_no_room_says_that_it_is_in_force_and_not_on_disk() {
    let mut house = house();
    house.flood(CHANGES_MAX);
    let refused = (0..CHANGES_MAX).find_map(|nth| {
        let who = one_of_many(1 << 16 | nth);
        let asking = house.ban(&who);
        house.let_run();
        asking.is_finished().then_some((who, asking))
    });
    let (who, asking) = refused.unwrap();
    let words = house.runtime.block_on(asking).unwrap().unwrap_err();
    assert_eq!(
        words.to_string(),
        "it is in force, but not on disk yet: too many changes wait to be written already; \
         it is written as soon as that can be"
    );
    for _ in 0..100 {
        house.flush();
        house.owner.turn();
    }
    assert!(house.paper.field(Topic::Bans, "target").contains(&who));
}

#[test]
fn what_is_observed_goes_to_the_audit_alone() {
    let mut house = house();
    house.violate_as("198.51.100.7", false);
    house.flush();
    assert!(house.paper.records(Topic::Bans).is_empty());
    assert_eq!(house.paper.field(Topic::Audit, "what"), ["would_ban"]);
    assert_eq!(house.paper.field(Topic::Audit, "enforced"), ["false"]);
}

#[test]
fn the_audit_tells_who_what_before_after_and_on_what_evidence() {
    let mut house = house();
    house.violate("198.51.100.7");
    house.pass(601);
    house.flush();
    house.violate("198.51.100.7");
    drop(house.unban("198.51.100.7", 60));
    house.flush();
    let notes = house.paper.records(Topic::Audit);
    let what: Vec<_> = notes.iter().map(|(_, note)| note["what"].clone()).collect();
    assert_eq!(what, ["ban", "expire", "ban", "unban"]);
    assert!(notes.iter().all(|(key, _)| key == "198.51.100.7"));
    let [ban, expire, again, unban] = [0, 1, 2, 3].map(|nth| notes[nth].1.clone());
    assert_eq!(ban["actor"], "policy");
    assert_eq!(ban["why"], "trap");
    assert_eq!(ban["evidence"][0]["points"], 10);
    assert_eq!(ban["evidence"][0]["path"], "/.env\u{ff}\"\u{1b}");
    assert_eq!(ban["after"]["until"], "2026-11-21T10:10:00.000Z");
    assert_eq!(expire["actor"], "clock");
    assert_eq!(expire["before"]["state"], "banned");
    assert_eq!(expire["after"]["state"], "expired");
    assert_eq!(again["before"]["level"], 1);
    assert_eq!(again["after"]["level"], 2);
    assert_eq!(unban["actor"], "uid:0");
    assert_eq!(unban["after"]["grace_until"], "2026-11-21T10:11:01.000Z");
}

#[test]
fn a_full_queue_of_notes_drops_and_counts() {
    let mut house = house();
    for _ in 0..AUDITS_MAX + 7 {
        let note = Audit::new(audit::What::Reload, "file", 0);
        house.auditor.tell(note);
    }
    assert_eq!(house.auditor.numbers().dropped.load(Ordering::Relaxed), 7);
    house.flush();
    assert_eq!(house.paper.records(Topic::Audit).len(), AUDITS_MAX);
}

#[test]
fn the_end_brings_what_waits_onto_the_disk() {
    let mut house = house_at(Clock::system(), 100);
    for nth in 0..50 {
        house.violate(&format!("203.0.113.{nth}"));
    }
    let paper = house.paper.clone();
    let ended = Arc::new(AtomicBool::new(true));
    let working = house.publisher.start(ended).unwrap();
    let clock = Clock::system();
    while !working.is_finished() {
        paper.keep();
        assert!(clock.monotonic_ns() < 10_000_000_000, "it goes on for 10 s");
        std::thread::yield_now();
    }
    working.join().unwrap();
    assert_eq!(paper.records(Topic::Bans).len(), 50);
}

#[test]
fn the_end_does_not_wait_forever_for_a_disk_that_is_gone() {
    let mut house = house();
    house.paper.refuses(Some("Input/output error"));
    house.violate("198.51.100.7");
    let clock = house.clock.clone();
    let ended = Arc::new(AtomicBool::new(true));
    let working = house.publisher.start(ended).unwrap();
    while !working.is_finished() {
        clock.advance_ms(1_000);
        std::thread::sleep(Duration::from_millis(1));
    }
    working.join().unwrap();
    assert_eq!(house.paper.batches(), 0);
}
