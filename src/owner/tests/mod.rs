//! The owner, turn by turn, with time handed in.

mod others;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;

use super::{tally::tests::violation, *};
use crate::{
    base::clock::Clock,
    client::{ClientKey, Protected},
    event::ban::State,
    limit::{Clients, Keeper, ticks},
};

pub(super) const WHO: &str = "198.51.100.7";

/// What was published: the change, whom it is about, its level, whether it is enforced.
type Lines = Arc<Mutex<Vec<(Change, String, u32, bool)>>>;

struct Paper(Lines);

/// Changes that the paper has room for, until somebody reads it.
const ROOM: usize = 200_000;

impl Publish for Paper {
    fn room(&self) -> usize {
        ROOM - self.0.lock().unwrap().len().min(ROOM)
    }

    fn tell(&mut self, told: Box<Told>) -> Result<(), Box<Told>> {
        if self.room() == 0 {
            return Err(told);
        }
        let level = told.after.map_or(0, |memory| memory.level);
        let line = (told.change, told.target.to_string(), level, told.enforced);
        self.0.lock().unwrap().push(line);
        if let Some(receipt) = told.receipt {
            receipt.kept();
        }
        Ok(())
    }

    fn trouble(&self) -> Arc<Trouble> {
        Arc::default()
    }
}

struct House {
    owner: Owner,
    acts: Acts,
    clients: Arc<Clients>,
    clock: Clock,
    told: Lines,
}

fn policy() -> BanPolicy {
    BanPolicy {
        threshold: 10,
        window: Duration::from_secs(60),
        duration: Duration::from_secs(600),
        factor: 2,
        max: Duration::from_secs(1_800),
        forget: Duration::from_secs(86_400),
        protected: Protected::default(),
    }
}

fn house(bans_max: usize) -> House {
    let clock = Clock::manual(1_700_000_000_000);
    clock.advance_ms(1);
    let keeper = Keeper::new(1_000);
    let clients = Arc::clone(keeper.clients());
    let told = Lines::default();
    let policy = Arc::new(ArcSwap::from_pointee(policy()));
    let paper = Box::new(Paper(Arc::clone(&told)));
    let (owner, acts) = Owner::new(keeper, bans_max, policy, clock.clone(), paper);
    House {
        owner,
        acts,
        clients,
        clock,
        told,
    }
}

impl House {
    fn violate(&mut self, who: &str, points: u32) {
        self.owner.facts().tell(violation(who, points));
        self.owner.turn();
    }

    fn is_banned(&self, who: &str) -> bool {
        let ip: IpAddr = who.parse().unwrap();
        let until = self
            .clients
            .banned_until(&self.clients.see(ClientKey::new(ip, 64)), ip);
        until > ticks(self.clock.monotonic_ns())
    }

    fn pass(&mut self, seconds: u64) {
        self.clock.advance_ms(seconds * 1_000);
        self.owner.turn();
    }

    fn act(&mut self, act: Act) -> Result<Done, NotDone> {
        let mut under_way = self.acts.begin(act).unwrap();
        self.owner.turn();
        under_way.answered.try_recv().unwrap()
    }

    fn ban(&mut self, target: &str, seconds: u64) -> Result<Done, NotDone> {
        self.act(Act::Ban {
            target: Target::parse(target, 64).unwrap(),
            duration: Duration::from_secs(seconds),
            why: "because".to_owned(),
            actor: "test".to_owned(),
        })
    }

    fn unban(&mut self, target: &str, grace_s: u64) -> Result<Done, NotDone> {
        self.act(Act::Unban {
            target: Target::parse(target, 64).unwrap(),
            grace: Duration::from_secs(grace_s),
            actor: "test".to_owned(),
        })
    }

    fn show(&mut self, target: &str) -> Result<Done, NotDone> {
        self.act(Act::Show(Target::parse(target, 64).unwrap()))
    }

    fn list(&mut self, after: Option<Place>, count: usize) -> Page {
        match self.act(Act::List { after, count }) {
            Ok(Done::Listed(page)) => page,
            other => panic!("no list: {other:?}"),
        }
    }

    fn weigh(&mut self, who: &str) -> Standing {
        let client = ClientKey::new(who.parse().unwrap(), 64);
        match self.act(Act::Weigh(client)) {
            Ok(Done::Weighed(standing)) => standing,
            other => panic!("no standing: {other:?}"),
        }
    }

    fn told(&self) -> Vec<(Change, String, u32, bool)> {
        self.told.lock().unwrap().clone()
    }
}

#[test]
fn a_hundred_violations_at_once_are_one_ban_of_the_first_level() {
    let mut house = house(100);
    for _ in 0..100 {
        house.owner.facts().tell(violation(WHO, 1));
    }
    house.owner.turn();
    assert!(house.is_banned(WHO));
    assert_eq!(house.told(), [(Change::Began, WHO.to_owned(), 1, true)]);
}

#[test]
fn points_below_the_threshold_ban_nobody_and_are_forgotten() {
    let mut house = house(100);
    for _ in 0..9 {
        house.violate(WHO, 1);
    }
    house.pass(61);
    house.violate(WHO, 9);
    assert!(!house.is_banned(WHO));
    house.violate(WHO, 1);
    assert!(house.is_banned(WHO));
}

#[test]
fn every_further_ban_is_longer_up_to_a_bound_and_until_it_is_forgotten() {
    let mut house = house(100);
    for (level, seconds) in [(1, 600), (2, 1_200), (3, 1_800), (4, 1_800)] {
        house.violate(WHO, 10);
        house.pass(seconds - 1);
        assert!(house.is_banned(WHO), "level {level}");
        house.pass(2);
        assert!(!house.is_banned(WHO), "level {level}");
    }
    // Forgotten by the hour, and not by the sweep's coming by.
    house.clock.advance_ms(86_401_000);
    house.violate(WHO, 10);
    let began = house
        .told()
        .into_iter()
        .filter(|told| told.0 == Change::Began);
    let levels: Vec<_> = began.map(|told| told.2).collect();
    assert_eq!(levels, [1, 2, 3, 4, 1]);
    let expired = house
        .told()
        .into_iter()
        .filter(|told| told.0 == Change::Expired);
    assert_eq!(expired.count(), 4);
}

#[test]
fn a_ban_is_no_reason_for_a_longer_one() {
    let mut house = house(100);
    house.violate(WHO, 10);
    for _ in 0..50 {
        house.violate(WHO, 10);
    }
    house.pass(601);
    assert!(!house.is_banned(WHO));
    assert_eq!(house.told().len(), 2);
}

#[test]
fn what_is_only_observed_bans_nobody_and_is_told() {
    let mut house = house(100);
    for _ in 0..30 {
        let mut seen = violation(WHO, 1);
        seen.enforced = false;
        house.owner.facts().tell(seen);
    }
    house.owner.turn();
    assert!(!house.is_banned(WHO));
    assert_eq!(house.told(), [(Change::Began, WHO.to_owned(), 1, false)]);
    for _ in 0..9 {
        house.violate(WHO, 1);
    }
    assert!(!house.is_banned(WHO), "what was observed does not count");
}

#[test]
fn what_is_only_observed_is_told_later_where_there_was_no_room() {
    let mut house = house(100);
    let filler = (Change::Spared, String::new(), 0, false);
    *house.told.lock().unwrap() = vec![filler; ROOM];
    for _ in 0..10 {
        let mut seen = violation(WHO, 1);
        seen.enforced = false;
        house.owner.facts().tell(seen);
    }
    house.owner.turn();
    house.owner.turn();
    let deferred = house.owner.numbers().deferred.load(Ordering::Relaxed);
    assert_eq!(deferred, 1);
    house.told.lock().unwrap().clear();
    for _ in 0..3 {
        house.owner.turn();
    }
    assert_eq!(house.told(), [(Change::Began, WHO.to_owned(), 1, false)]);
    house.pass(700);
    assert_eq!(house.told().len(), 1, "its end is nobody's");
}

#[test]
fn what_a_start_leaves_out_and_binds_nobody_is_told_as_forgotten() {
    let mut house = house(1);
    let now_unix_ms = house.clock.unix_ms();
    let memory = |state, since_unix_ms| Memory {
        state,
        level: 1,
        since_unix_ms,
        until_unix_ms: since_unix_ms + 600_000,
        ended_unix_ms: None,
        grace_until_unix_ms: None,
        decided: Decided::ByPolicy,
        why: String::new(),
        request: None,
        stamp: Stamp::default(),
    };
    let mut restoring = house.owner.restore();
    for (number, state) in [State::Expired, State::Banned, State::Banned]
        .into_iter()
        .enumerate()
    {
        let target = Target::parse(&format!("198.51.100.{}", number + 1), 64).unwrap();
        let since_unix_ms = now_unix_ms - 60_000 + number as u64;
        let memory = memory(state, since_unix_ms);
        restoring.remember(target, memory, since_unix_ms);
    }
    assert_eq!(restoring.finish().left_out, 2);
    house.owner.turn();
    // A ban that has time left comes back when there is room for it.
    assert_eq!(
        house.told(),
        [(Change::Forgotten, "198.51.100.1".to_owned(), 0, true)]
    );
}

#[test]
fn evidence_stays_with_the_ban() {
    let mut house = house(100);
    for _ in 0..10 {
        house.violate(WHO, 1);
    }
    let shown = house.act(Act::Show(Target::parse(WHO, 64).unwrap()));
    let Ok(Done::Shown(ban)) = shown else {
        panic!("{shown:?}");
    };
    assert_eq!(ban.evidence.len(), 10);
    assert_eq!(ban.why, "rate_limited");
    assert_eq!(ban.until_unix_ms - ban.since_unix_ms, 600_000);
}

#[test]
fn an_unban_forgets_what_led_to_it_and_grace_keeps_the_client_free() {
    let mut house = house(100);
    house.violate(WHO, 10);
    house.unban(WHO, 300).unwrap();
    assert!(!house.is_banned(WHO));
    house.violate(WHO, 100);
    assert!(!house.is_banned(WHO), "grace");
    house.pass(301);
    house.violate(WHO, 9);
    assert!(!house.is_banned(WHO), "counts were cleared");
    house.violate(WHO, 1);
    assert!(house.is_banned(WHO));
    assert_eq!(house.told().last().unwrap().2, 1, "so was the level");
}

#[test]
fn unbanning_who_is_not_banned_says_so_and_still_clears_and_spares() {
    let mut house = house(100);
    house.violate(WHO, 9);
    let refused = house.unban(WHO, 0).unwrap_err();
    assert_eq!(refused.to_string(), "198.51.100.7 is not banned");
    house.violate(WHO, 9);
    assert!(!house.is_banned(WHO), "counts were cleared");
    assert!(matches!(house.unban(WHO, 60), Ok(Done::Spared)));
    house.violate(WHO, 10);
    assert!(!house.is_banned(WHO), "grace");
}

#[test]
fn operators_ban_clients_and_networks() {
    let mut house = house(100);
    house.ban("203.0.113.0/24", 3_600).unwrap();
    house.ban("2001:db8:1:2::99", 3_600).unwrap();
    assert!(house.is_banned("203.0.113.77"));
    assert!(!house.is_banned("203.0.114.1"));
    assert!(house.is_banned("2001:db8:1:2::1"), "one client is a /64");
    let page = house.list(None, 10);
    assert_eq!((page.total, page.next), (2, None));
    assert!(
        page.bans
            .iter()
            .all(|ban| ban.decided == Decided::By("test".to_owned()))
    );
    house.unban("203.0.113.0/24", 0).unwrap();
    assert!(!house.is_banned("203.0.113.77"));
    house.pass(3_601);
    assert!(!house.is_banned("2001:db8:1:2::1"));
}

#[test]
fn pages_hold_every_ban_once_and_the_latest_first() {
    let mut house = house(100);
    for n in 1..=25 {
        house.ban(&format!("198.51.100.{n}"), 3_600).unwrap();
        // Every other one begins in the same millisecond as the one before.
        house.clock.advance_ms((n + 1) % 2);
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = house.list(after, 7);
        assert_eq!(page.total, 25);
        seen.extend(page.bans.iter().map(|ban| ban.target.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 25);
    assert_eq!(seen[0], "198.51.100.25");
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 25);
}

#[test]
fn a_banned_network_is_named_where_a_client_in_it_is_asked_for() {
    let mut house = house(100);
    house.ban("203.0.112.0/20", 3_600).unwrap();
    house.ban("203.0.113.0/24", 3_600).unwrap();
    let shown = house.show("203.0.113.7");
    let Ok(Done::Shown(ban)) = shown else {
        panic!("{shown:?}");
    };
    assert_eq!(ban.target.to_string(), "203.0.113.0/24");
    let refused = house.unban("203.0.113.7", 0).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "203.0.113.7 is not banned itself: 203.0.113.0/24 is"
    );
    let refused = house.show("198.51.100.7").unwrap_err();
    assert_eq!(refused.to_string(), "198.51.100.7 is not banned");
}

#[test]
fn what_is_held_against_a_client_can_be_asked_for_and_changes_nothing() {
    let mut house = house(100);
    house.violate(WHO, 9);
    for _ in 0..3 {
        let standing = house.weigh(WHO);
        assert_eq!((standing.points, standing.level), (9, 0));
    }
    house.violate(WHO, 1);
    let standing = house.weigh(WHO);
    assert_eq!((standing.points, standing.level), (0, 1));
    house.pass(30);
    house.unban(WHO, 60).unwrap();
    assert!(house.weigh(WHO).has_grace);
}

#[test]
fn a_network_in_the_clothes_of_ipv6_is_the_one_that_clients_are_in() {
    let mut house = house(100);
    house.ban("::ffff:203.0.113.0/120", 60).unwrap();
    assert!(house.is_banned("203.0.113.9"));
    assert!(!house.is_banned("203.0.114.9"));
}

#[test]
fn nobody_bans_loopback() {
    let mut house = house(100);
    let refused = house.ban("127.0.0.1", 60).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "127.0.0.1 cannot be banned: it is loopback"
    );
}

#[test]
fn a_full_book_keeps_the_bans_it_has() {
    let mut house = house(2);
    for who in ["198.51.100.1", "198.51.100.2", "198.51.100.3"] {
        house.violate(who, 10);
    }
    assert!(house.is_banned("198.51.100.1") && house.is_banned("198.51.100.2"));
    assert!(!house.is_banned("198.51.100.3"));
    assert_eq!(house.owner.numbers().refused.load(Ordering::Relaxed), 1);
    assert_eq!(house.ban("198.51.100.4", 60).unwrap_err(), NotDone::Full);
    assert_eq!(house.unban("198.51.100.4", 60).unwrap_err(), NotDone::Full);
}

#[test]
fn what_is_only_remembered_gives_way_to_a_new_ban() {
    let mut house = house(3);
    house.violate("198.51.100.1", 10);
    house.pass(1);
    house.violate("198.51.100.2", 10);
    house.unban("198.51.100.3", 86_400).unwrap();
    house.pass(700);
    house.violate("198.51.100.4", 10);
    assert!(house.is_banned("198.51.100.4"));
    assert_eq!(house.weigh("198.51.100.1").level, 0, "it ended first");
    assert_eq!(house.weigh("198.51.100.2").level, 1);
    house.ban("203.0.113.0/24", 60).unwrap();
    assert_eq!(house.ban("198.51.100.5", 60).unwrap_err(), NotDone::Full);
    assert!(house.weigh("198.51.100.3").has_grace);
}

#[test]
fn a_ban_that_is_over_ends_once_also_when_somebody_lifts_it_late() {
    let mut house = house(100);
    house.violate(WHO, 10);
    house.clock.advance_ms(600_000);
    assert!(house.unban(WHO, 0).is_err());
    house.pass(1);
    let changes: Vec<_> = house.told().into_iter().map(|told| told.0).collect();
    use Change::{Began, Expired, Forgotten, Spared};
    assert_eq!(changes, [Began, Expired, Spared, Forgotten]);
}

#[test]
fn a_step_of_the_wall_clock_changes_no_ban() {
    const DAY_MS: u64 = 86_400_000;
    let mut house = house(100);
    house.violate(WHO, 5);
    for (n, unix_ms) in [
        0,
        1_700_000_000_000 + DAY_MS,
        1_700_000_000_000 - DAY_MS,
        1 << 42,
    ]
    .into_iter()
    .enumerate()
    {
        house.clock.set_unix_ms(unix_ms);
        house.owner.turn();
        if n == 0 {
            assert!(!house.is_banned(WHO));
            house.violate(WHO, 5);
        }
        assert!(house.is_banned(WHO), "the wall clock says {unix_ms}");
        house.pass(100);
    }
    house.pass(199);
    assert!(house.is_banned(WHO), "600 s by the monotonic clock");
    house.pass(2);
    assert!(!house.is_banned(WHO));
}

#[test]
fn a_violation_wakes_the_sleeping_owner() {
    let House {
        owner,
        clients,
        clock,
        ..
    } = house(100);
    let facts = Arc::clone(owner.facts());
    let ended = Arc::new(AtomicBool::new(false));
    let working = owner.start(Arc::clone(&ended)).unwrap();
    facts.tell(violation(WHO, 10));
    let ip: IpAddr = WHO.parse().unwrap();
    let mut looks = 0;
    while clients.banned_until(&clients.see(ClientKey::new(ip, 64)), ip)
        <= ticks(clock.monotonic_ns())
    {
        looks += 1;
        assert!(looks < 10_000, "no ban within 10 s");
        thread::sleep(Duration::from_millis(1));
    }
    ended.store(true, Ordering::Relaxed);
    working.join().unwrap();
}

#[test]
fn a_flood_of_bans_keeps_less_evidence_and_every_ban() {
    let mut house = house(60_000);
    let who = |nth: u32| format!("198.{}.{}.{}", nth >> 16 & 255, nth >> 8 & 255, nth & 255);
    for nth in 0..51_000 {
        let facts = Arc::clone(house.owner.facts());
        facts.tell(violation(&who(nth), 5));
        facts.tell(violation(&who(nth), 5));
        if nth % 2_000 == 1_999 {
            house.owner.turn();
        }
    }
    house.owner.turn();
    for (nth, kept) in [(0, 2), (49_999, 2), (50_000, 1), (50_999, 1)] {
        let shown = house.act(Act::Show(Target::parse(&who(nth), 64).unwrap()));
        let Ok(Done::Shown(ban)) = shown else {
            panic!("{shown:?}");
        };
        assert_eq!(ban.evidence.len(), kept, "ban {nth}");
    }
}

#[test]
fn a_network_with_grace_spares_the_clients_in_it() {
    let mut house = house(100);
    house.ban("203.0.113.0/24", 3_600).unwrap();
    house.unban("203.0.113.0/24", 300).unwrap();
    house.violate("203.0.113.7", 100);
    house.violate("203.0.114.7", 100);
    assert!(!house.is_banned("203.0.113.7"));
    assert!(house.weigh("203.0.113.7").has_grace);
    assert!(house.is_banned("203.0.114.7"), "another network");
    // A ban of the network ends its grace, and so does time.
    house.ban("203.0.113.0/24", 10).unwrap();
    assert!(!house.weigh("203.0.113.7").has_grace);
    house.unban("203.0.113.0/24", 300).unwrap();
    house.pass(301);
    house.violate("203.0.113.7", 10);
    assert!(house.is_banned("203.0.113.7"));
}

#[test]
fn an_unban_that_only_forgets_a_level_is_told() {
    let mut house = house(100);
    house.violate(WHO, 10);
    house.pass(601);
    assert!(house.unban(WHO, 0).is_err(), "not banned any more");
    house.violate(WHO, 10);
    let told: Vec<_> = house
        .told()
        .into_iter()
        .map(|told| (told.0, told.2))
        .collect();
    use Change::{Began, Expired, Forgotten, Spared};
    let expected = [
        (Began, 1),
        (Expired, 1),
        (Spared, 0),
        (Forgotten, 0),
        (Began, 1),
    ];
    assert_eq!(told, expected);
}

#[test]
fn an_act_that_changes_nothing_is_told_to_nobody() {
    let mut house = house(100);
    assert!(house.unban(WHO, 0).is_err());
    assert!(house.show(WHO).is_err());
    house.list(None, 10);
    assert!(house.told().is_empty());
}

#[test]
fn who_gives_way_in_a_full_book_is_told_as_forgotten() {
    let mut house = house(1);
    house.violate("198.51.100.1", 10);
    house.pass(601);
    house.violate("198.51.100.2", 10);
    house.owner.turn();
    let last = house.told().pop().unwrap();
    assert_eq!(
        last,
        (Change::Forgotten, "198.51.100.1".to_owned(), 0, true)
    );
}

#[test]
fn nobody_hears_of_an_act_once_the_owner_is_gone() {
    let House { owner, acts, .. } = house(100);
    drop(owner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let refused = runtime.block_on(acts.ask(Act::List {
        after: None,
        count: 1,
    }));
    assert_eq!(refused.unwrap_err(), NotDone::Stopping);
}
