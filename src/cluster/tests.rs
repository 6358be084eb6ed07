//! Nodes whose clients spend, and a courier that is late, loses, doubles and mixes up.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::{
    base::clock::Clock,
    client::{ClientKey, Protected},
    event::exchange::{SPENT_MAX, Spent},
    limit::{Clients, ClockIds, Keeper, Limit, Quota, spending::Spending},
    owner::{Act, Acts, BanPolicy, Done, Owner, Publish, Trouble},
};

struct Nobody;

impl Publish for Nobody {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn tell(&mut self, _: Box<crate::owner::Told>) -> Result<(), Box<crate::owner::Told>> {
        Ok(())
    }

    fn trouble(&self) -> Arc<Trouble> {
        Arc::default()
    }
}

/// One node with one worker and one limit.
struct Node {
    name: NodeName,
    owner: Owner,
    acts: Acts,
    clients: Arc<Clients>,
    spending: Spending,
    cluster: Cluster,
    limit: Limit,
    taken: Option<Number>,
}

const RATE: u64 = 20;
const BURST: u64 = 40;

impl Node {
    fn new(name: &str, clock: &Clock) -> Self {
        let keeper = Keeper::new(10_000);
        let policy = BanPolicy {
            threshold: 10,
            window: Duration::from_secs(60),
            duration: Duration::from_secs(600),
            factor: 2,
            max: Duration::from_secs(1_800),
            forget: Duration::from_secs(86_400),
            protected: Protected::default(),
        };
        let policy = Arc::new(ArcSwap::from_pointee(policy));
        let (owner, acts) = Owner::new(keeper, 10, policy, clock.clone(), Box::new(Nobody));
        let quota = Quota::new(format!("{RATE}/s").parse().unwrap(), 40).shared();
        let limit = Limit {
            quota,
            clock: ClockIds::default().clock("defaults", 0).unwrap(),
        };
        let spendings = Arc::<Spendings>::default();
        let name: NodeName = name.parse().unwrap();
        let node = Self {
            clients: Arc::clone(owner.clients()),
            owner,
            acts,
            spending: spendings.join(),
            cluster: Cluster::new(name.clone(), false, Some(spendings), clock.clone()),
            name,
            limit,
            taken: None,
        };
        let names = [("defaults/1".to_owned(), limit)];
        node.cluster.state.try_lock().unwrap().names = Names::of_limits(names.into_iter());
        node
    }

    fn asks(&mut self, client: ClientKey, now_ns: u64) -> bool {
        let seen = self.clients.see(client);
        let spent = self.clients.spend(seen, &[self.limit], now_ns).unwrap();
        if spent.admitted {
            self.spending.note(client, &[self.limit], now_ns);
        }
        spent.admitted
    }

    /// One exchange, as the admin socket does it.
    fn exchange(&mut self, runtime: &Runtime, usage: Vec<Usage>) -> Answer {
        let told = Told {
            usage,
            usage_taken: self.taken,
            ..Told::default()
        };
        let mut state = self.cluster.state.try_lock().unwrap();
        let mut inbox = self.cluster.hear(told, &mut state, 64).unwrap();
        let act = Act::Hear {
            decisions: Vec::new(),
            part: None,
            spent: std::mem::take(&mut inbox.spent),
        };
        let (acts, owner) = (&self.acts, &mut self.owner);
        let done = runtime.block_on(async {
            let (done, _) = tokio::join!(acts.ask(act), async { owner.turn() });
            done
        });
        let Ok(Done::Heard(hearing)) = done else {
            panic!("{done:?}");
        };
        self.cluster.answer(inbox, hearing, &mut state)
    }

    fn number(&self, of: impl Fn(&Numbers) -> &AtomicU64) -> u64 {
        of(self.cluster.numbers()).load(Ordering::Relaxed)
    }
}

/// What the courier does with what it carries.
#[derive(Debug, Clone, Copy)]
struct Courier {
    late_ms: u64,
    /// Of ten answers, so many never reach the mirror.
    loses: u64,
    doubles: bool,
    mixes_up: bool,
}

struct Fleet {
    clock: Clock,
    nodes: Vec<Node>,
    runtime: Runtime,
    courier: Courier,
    /// What is on its way: when it arrives, at which node, and what.
    on_way: Vec<(u64, usize, Usage)>,
    now_ms: u64,
    answers: u64,
}

const INTERVAL_MS: u64 = 100;

/// The workers' ticks.
const TICK_MS: u64 = 50;

impl Fleet {
    fn of(count: usize, courier: Courier) -> Self {
        let clock = Clock::manual(1_700_000_000_000);
        clock.advance_ms(1_000);
        Self {
            nodes: (0..count)
                .map(|nth| Node::new(&format!("web-{nth}"), &clock))
                .collect(),
            clock,
            runtime: Builder::new_current_thread().enable_time().build().unwrap(),
            courier,
            on_way: Vec::new(),
            now_ms: 0,
            answers: 0,
        }
    }

    /// Five milliseconds, with what falls into them.
    fn step(&mut self) {
        self.clock.advance_ms(5);
        self.now_ms += 5;
        let now_ns = self.clock.monotonic_ns();
        for nth in 0..self.nodes.len() {
            if self.now_ms % TICK_MS == 0 {
                self.nodes[nth].spending.tick(now_ns);
            }
            // Not all at the same time.
            if (self.now_ms + 15 * nth as u64) % INTERVAL_MS == 0 {
                self.exchange(nth);
            }
            self.nodes[nth].owner.turn();
        }
    }

    fn exchange(&mut self, nth: usize) {
        let mut arrived = Vec::new();
        self.on_way.retain(|(at_ms, to, usage)| {
            let is_here = *to == nth && *at_ms <= self.now_ms;
            if is_here {
                arrived.push(usage.clone());
            }
            !is_here
        });
        if self.courier.mixes_up {
            arrived.reverse();
        }
        let answer = self.nodes[nth].exchange(&self.runtime, arrived);
        let Some(usage) = answer.usage else {
            return;
        };
        self.answers += 1;
        if self.answers % 10 < self.courier.loses {
            return;
        }
        self.nodes[nth].taken = Some(usage.number);
        for to in 0..self.nodes.len() {
            let mixed_ms = match self.courier.mixes_up {
                true => 70 * (usage.number.seq % 3),
                false => 0,
            };
            let at_ms = self.now_ms + self.courier.late_ms + mixed_ms;
            self.on_way.push((at_ms, to, usage.clone()));
            if self.courier.doubles {
                self.on_way.push((at_ms + 200, to, usage.clone()));
            }
        }
    }
}

fn client(n: u32) -> ClientKey {
    ClientKey::new(std::net::Ipv4Addr::from_bits(n).into(), 64)
}

/// Has one client ask every node as often as it can for this long; says what was admitted at each step.
fn storm(fleet: &mut Fleet, seconds: u64) -> Vec<(u64, u64)> {
    let mut admitted = 0;
    let mut seen = Vec::new();
    let begin_ms = fleet.now_ms;
    while fleet.now_ms < begin_ms + seconds * 1_000 {
        fleet.step();
        let now_ns = fleet.clock.monotonic_ns();
        for node in &mut fleet.nodes {
            for _ in 0..4 {
                admitted += u64::from(node.asks(client(7), now_ns));
            }
        }
        seen.push((fleet.now_ms - begin_ms, admitted));
    }
    seen
}

/// What all nodes together may admit within `ms`, where each hears of the others within `told_ms`.
fn bound(nodes: u64, ms: u64, told_ms: u64) -> u64 {
    let earned = |ms: u64| (RATE * ms).div_ceil(1_000) + 1;
    BURST + earned(ms) + (nodes - 1) * (BURST + earned(told_ms))
}

fn assert_bound(courier: Courier, told_ms: u64) {
    for nodes in [2, 3, 5] {
        let mut fleet = Fleet::of(nodes, courier);
        let seen = storm(&mut fleet, 40);
        for (ms, admitted) in &seen {
            let bound = bound(nodes as u64, *ms, told_ms);
            assert!(
                *admitted <= bound,
                "{nodes} nodes, {courier:?}: {admitted} after {ms} ms, over {bound}"
            );
        }
        // And the client gets what it may ask for, once.
        let (ms, all) = seen.last().copied().unwrap();
        assert!(all >= RATE * ms / 1_000 * 95 / 100, "{all} in {ms} ms");
    }
}

const PROMPT: Courier = Courier {
    late_ms: 20,
    loses: 0,
    doubles: false,
    mixes_up: false,
};

/// From a request on one node until the others know: until the worker hands over, until the next exchange
/// there, on the way, until the next exchange here.
const fn told_ms(late_ms: u64) -> u64 {
    TICK_MS + 5 + INTERVAL_MS + late_ms + INTERVAL_MS
}

#[test]
fn who_asks_every_node_gets_little_more_than_from_one_and_pays_it_back() {
    assert_bound(PROMPT, told_ms(PROMPT.late_ms));
}

#[test]
fn a_late_courier_costs_what_is_earned_meanwhile() {
    let late = Courier {
        late_ms: 800,
        ..PROMPT
    };
    assert_bound(late, told_ms(late.late_ms));
}

#[test]
fn a_courier_that_loses_doubles_and_mixes_up_makes_nothing_count_twice_or_never() {
    let bad = Courier {
        late_ms: 100,
        loses: 3,
        doubles: true,
        mixes_up: true,
    };
    // What three exchanges in a row lose is told by the fourth.
    assert_bound(bad, told_ms(100) + 140 + 3 * INTERVAL_MS);
}

#[test]
fn without_an_exchange_each_node_limits_by_itself_and_little_is_held_against_anybody_afterwards() {
    let mut fleet = Fleet::of(3, PROMPT);
    let mut admitted = 0;
    for _ in 0..12_000 {
        fleet.clock.advance_ms(5);
        let now_ns = fleet.clock.monotonic_ns();
        for node in &mut fleet.nodes {
            node.owner.turn();
            node.spending.tick(now_ns);
            admitted += u64::from(node.asks(client(7), now_ns));
        }
    }
    let alone = BURST + RATE * 60;
    assert!(admitted.abs_diff(3 * alone) <= 3, "{admitted}");
    // The mirror is back: of a minute, at most what was spent within ten seconds counts.
    for _ in 0..200 {
        fleet.step();
    }
    let waits_ms = (0..60_000).step_by(5).find(|_| {
        fleet.step();
        let now_ns = fleet.clock.monotonic_ns();
        fleet.nodes[0].asks(client(7), now_ns)
    });
    let waits_ms = waits_ms.unwrap();
    assert!(waits_ms > 1_000, "{waits_ms}");
    assert!(
        waits_ms <= 2 * (10_000 + 1_000 * BURST / RATE),
        "{waits_ms}"
    );
    assert!(fleet.nodes[0].cluster.spent_lost() > RATE * 30);
}

#[test]
fn of_many_clients_those_that_spent_most_are_told_first_and_the_rest_next() {
    let mut fleet = Fleet::of(2, PROMPT);
    let now_ns = fleet.clock.monotonic_ns();
    for n in 0..500 {
        for _ in 0..=n % 20 {
            assert!(fleet.nodes[0].asks(client(n), now_ns));
        }
    }
    fleet.clock.advance_ms(100);
    let node = &mut fleet.nodes[0];
    node.spending.tick(fleet.clock.monotonic_ns());
    let mut told: Vec<Spent> = Vec::new();
    for batch in [SPENT_MAX, SPENT_MAX, 100] {
        let usage = node.exchange(&fleet.runtime, Vec::new()).usage.unwrap();
        assert_eq!(usage.spent.len(), batch);
        assert_eq!(usage.node, node.name);
        // Until it is taken, it is the same.
        assert_eq!(
            node.exchange(&fleet.runtime, Vec::new()).usage.as_ref(),
            Some(&usage)
        );
        node.taken = Some(usage.number);
        told.extend(usage.spent);
    }
    assert_eq!(node.exchange(&fleet.runtime, Vec::new()).usage, None);
    assert!(told.is_sorted_by(|one, next| one.spent >= next.spent));
    let clients: std::collections::HashSet<_> = told.iter().map(|spent| &spent.client).collect();
    assert_eq!(clients.len(), 500);
    let all: u64 = told.iter().map(|spent| u64::from(spent.spent)).sum();
    assert_eq!(node.number(|numbers| &numbers.spent_told), all);
    assert_eq!(all, 25 * (1..=20).sum::<u64>());
}

#[test]
fn what_is_not_understood_is_counted_and_charged_to_nobody() {
    let mut fleet = Fleet::of(1, PROMPT);
    let usage = |seq, limit: &str, client: &str| Usage {
        node: "web-9".parse().unwrap(),
        number: Number { run: 1, seq },
        unix_ms: fleet.clock.unix_ms(),
        spent: vec![Spent {
            limit: limit.to_owned(),
            client: client.to_owned(),
            spent: 40,
        }],
    };
    let mut batches = vec![
        usage(1, "login/1", "0.0.0.7"),
        usage(2, "defaults/2", "0.0.0.7"),
        usage(3, "defaults/1", "everybody"),
        usage(4, "defaults/1", "0.0.0.0/8"),
        usage(5, "defaults/1", "0.0.0.7"),
    ];
    let old = Usage {
        unix_ms: fleet.clock.unix_ms() - LATE_MS - 1,
        ..usage(6, "defaults/1", "0.0.0.8")
    };
    let own = Usage {
        node: "web-0".parse().unwrap(),
        ..usage(7, "defaults/1", "0.0.0.8")
    };
    batches.extend([old, own]);
    let node = &mut fleet.nodes[0];
    node.exchange(&fleet.runtime, batches);
    assert_eq!(node.number(|numbers| &numbers.spent_unknown), 160);
    assert_eq!(node.number(|numbers| &numbers.spent_heard), 40);
    assert_eq!(node.number(|numbers| &numbers.usage_late), 1);
    let now_ns = fleet.clock.monotonic_ns();
    assert!(!node.asks(client(7), now_ns), "its whole burst is spent");
    assert!(node.asks(client(8), now_ns));
}

#[test]
fn a_ban_is_read_as_its_key_and_value_say_or_not_at_all() {
    let value = |changes: &[(&str, &str)]| {
        let text = "{\"event\":\"ban\",\"v\":1,\"time\":\"2026-11-21T10:00:01.042Z\",\
            \"target\":\"198.51.100.7\",\"kind\":\"client\",\"state\":\"banned\",\"level\":2,\
            \"since\":\"2026-11-21T10:00:01.042Z\",\"until\":\"2026-11-21T10:20:01.042Z\",\
            \"why\":\"trap\",\"by\":\"policy\",\"node\":\"web-1\",\"hlc\":\"1795255201042-3\"}";
        let changed = changes
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        Some(changed)
    };
    let read = |key: &str, value: Option<String>| {
        let record = BanRecord {
            key: key.to_owned(),
            value,
        };
        decision(&record, 64)
    };
    let key = "198.51.100.7|web-1";
    let whole = read(key, value(&[])).unwrap().unwrap();
    assert_eq!(whole.memory.stamp.hlc.to_string(), "1795255201042-3");
    let before = value(&[(",\"node\":\"web-1\",\"hlc\":\"1795255201042-3\"", "")]);
    let before = read(key, before).unwrap().unwrap();
    assert_eq!(before.memory.stamp.hlc.to_string(), "1795255201042-0");
    assert_eq!(before.memory.stamp.node, whole.memory.stamp.node);
    assert_eq!(read(key, None), Ok(None));
    for (key, value) in [
        ("198.51.100.7", value(&[])),
        ("198.51.100.8|web-1", value(&[])),
        ("198.51.100.7|web-2", value(&[])),
        (key, value(&[("\"v\":1", "\"v\":2")])),
        (key, Some("{}".to_owned())),
        (
            "everybody|web-1",
            value(&[("\"198.51.100.7\"", "\"everybody\"")]),
        ),
        (
            "2001:db8::/48|web-1",
            value(&[("\"198.51.100.7\"", "\"2001:db8::/48\"")]),
        ),
    ] {
        assert!(read(key, value).is_err(), "{key}");
    }
}
