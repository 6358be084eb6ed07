//! Random lives of a group, watched by a judge that knows the protocol and nothing of the coordinator.
//!
//! Clients join, sync, beat, leave, die, come back, lose answers and change their minds; the disk is slow or
//! fails; time jumps. At the end everybody is well, and the group must come to rest.
//! `WARDENT_GROUP_SEEDS=100000 cargo test --lib kafka::group::model` tries more lives; a failure names its seed.

mod client;
mod judge;

use std::collections::{HashMap, VecDeque};

use client::{Client, Stage};
use judge::Judge;

use super::{
    ask::*,
    classic::Group,
    coordinator::{Coordinator, Ids},
    writes::NotKept,
};
use crate::kafka::ErrorCode;

const GROUP: &str = "g";
/// Partitions that the group shares.
const PARTITIONS: u8 = 6;
/// The longest timeouts that clients ask for, in milliseconds.
const SESSION_MS: u64 = 6_000;
const REBALANCE_MS: u64 = 8_000;
/// How long an answer may take: until the slowest has joined or synced, and the disk has answered.
const ANSWER_MS: u64 = REBALANCE_MS + SESSION_MS + 5_000;

/// Numbers that look random (splitmix64).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// What is wrong with a coordinator that is to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// Some answers to joins are never given.
    WithholdsJoins,
    /// Some answers to syncs are never given.
    WithholdsSyncs,
    /// Nothing happens by itself.
    NeverTicks,
    /// Every member is told what the leader is.
    AssignsToAll,
    /// An assignment of the generation before.
    AssignsOldWork,
    /// Who is fenced or late is told that all is well.
    BelievesEverybody,
    /// Those who are dead never time out.
    NeverBuries,
    /// Members of one generation are told of two leaders.
    CrownsTwo,
    /// The disk is never heard of.
    ForgetsTheDisk,
    /// An answer is given twice.
    AnswersTwice,
}

struct World {
    coordinator: Coordinator,
    bug: Option<Bug>,
    dice: Dice,
    now: Now,
    clients: Vec<Client>,
    judge: Judge,
    next_ticket: u64,
    /// Who asked, by ticket, as long as nobody was answered.
    asked: HashMap<Ticket, (usize, u64)>,
    disk: VecDeque<(WriteId, u64)>,
    first_assignment: HashMap<i32, bytes::Bytes>,
    last_assignment: Option<bytes::Bytes>,
}

impl World {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut dice = Dice(seed);
        let mut ids = Dice(seed ^ 0xabcd);
        let count = 1 + dice.below(6);
        let clients = (0..count)
            .map(|number| Client::new(number, &mut dice))
            .collect();
        let ids = Ids(Box::new(move || u128::from(ids.next())));
        Self {
            coordinator: Coordinator::new(ids),
            bug,
            dice,
            now: Now {
                ms: 1,
                unix_ms: 1_795_000_000_000,
                is_believed: true,
            },
            clients,
            judge: Judge::default(),
            next_ticket: 0,
            asked: HashMap::new(),
            disk: VecDeque::new(),
            first_assignment: HashMap::new(),
            last_assignment: None,
        }
    }

    fn ticket(&mut self, client: usize) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.asked.insert(ticket, (client, self.now.ms));
        ticket
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn join(&mut self, client: usize) {
        let mut join = self.clients[client].join();
        let ticket = self.ticket(client);
        self.clients[client].stage = Stage::Joining(ticket, self.now.ms);
        if self.has(Bug::NeverBuries) {
            join.session_timeout_ms = 30 * 60_000;
        }
        self.coordinator.join(self.now, ticket, &join);
        self.settle();
    }

    fn sync(&mut self, client: usize) {
        let sync = self.clients[client].sync();
        let ticket = self.ticket(client);
        self.judge.asks_to_sync(&sync);
        self.clients[client].stage = Stage::Syncing(ticket, self.now.ms);
        self.coordinator.sync(self.now, ticket, &sync);
        self.settle();
    }

    fn beat(&mut self, client: usize) {
        let beat = self.clients[client].beat();
        let mut code = self.coordinator.heartbeat(self.now, &beat);
        if self.has(Bug::BelievesEverybody) {
            code = ErrorCode::None;
        }
        self.judge.heard(&beat, code);
        self.clients[client].heard(code);
        self.settle();
    }

    fn commit(&mut self, client: usize) {
        let commit = self.clients[client].commit(self.now.unix_ms);
        let ticket = self.ticket(client);
        self.coordinator.commit(self.now, ticket, commit);
        self.settle();
    }

    fn leave(&mut self, client: usize) {
        let who = self.clients[client].who.clone();
        let leave = Leave {
            group: GROUP.to_owned(),
            members: vec![who],
        };
        self.coordinator.leave(self.now, &leave);
        self.clients[client].restart();
        self.settle();
    }

    /// The client's process ends. Its connection may be seen to close, or not.
    fn die(&mut self, client: usize) {
        if let Some(ticket) = self.clients[client].waits_for()
            && self.dice.one_in(2)
        {
            self.coordinator.gone(self.now, GROUP, ticket);
            self.asked.remove(&ticket);
            self.judge.let_go(ticket);
            self.settle();
        }
        self.clients[client].restart();
    }

    /// Hands on what the coordinator wants done.
    fn settle(&mut self) {
        for effect in self.coordinator.effects() {
            match effect {
                Effect::Write(write) => {
                    let delay = match self.dice.below(20) {
                        0 if !self.judge.is_calm => 7_000,
                        1..4 => self.dice.below(1_500),
                        _ => 0,
                    };
                    let after = self.disk.back().map_or(0, |(_, at)| *at);
                    self.disk
                        .push_back((write.id, after.max(self.now.ms + delay)));
                }
                Effect::Joined(ticket, joined) => self.joined(ticket, joined),
                Effect::Synced(ticket, synced) => self.synced(ticket, synced),
                Effect::Answered(ticket, _) => {
                    self.asked.remove(&ticket).expect("answered once");
                }
            }
        }
        let state = self
            .coordinator
            .group(GROUP)
            .map_or("none", |group| group.state.name());
        self.judge.is_in(state, self.now.ms);
    }

    fn joined(&mut self, ticket: Ticket, mut joined: Joined) {
        if self.has(Bug::WithholdsJoins) && ticket.0.is_multiple_of(7) {
            return;
        }
        if self.has(Bug::CrownsTwo) && joined.error == ErrorCode::None {
            joined.leader.clone_from(&joined.member);
        }
        let asked = self.asked.remove(&ticket);
        if self.judge.was_let_go(ticket) {
            return;
        }
        let (client, _) = asked.expect("a join is answered once");
        self.judge.joined(&joined);
        // An answer may be lost on its way.
        let is_lost = self.dice.one_in(15) && !self.judge.is_calm;
        if self.clients[client].waits_for() == Some(ticket) && !is_lost {
            self.clients[client].joined(joined);
        }
    }

    fn synced(&mut self, ticket: Ticket, mut synced: Synced) {
        if self.has(Bug::WithholdsSyncs) && ticket.0.is_multiple_of(7) {
            return;
        }
        let asked = self.asked.remove(&ticket);
        if self.judge.was_let_go(ticket) {
            return;
        }
        let (client, _) = asked.expect("a sync is answered once");
        if self.clients[client].waits_for() != Some(ticket) {
            return;
        }
        let generation = self.clients[client].generation;
        if synced.error == ErrorCode::None {
            let real = synced.assignment.clone();
            let first = self
                .first_assignment
                .entry(generation)
                .or_insert_with(|| real.clone());
            if self.bug == Some(Bug::AssignsToAll) {
                synced.assignment = first.clone();
            }
            if self.bug == Some(Bug::AssignsOldWork)
                && let Some(last) = self.last_assignment.replace(real)
            {
                synced.assignment = last;
            }
        }
        self.judge
            .synced(&self.clients[client].who, generation, &synced);
        if self.has(Bug::AnswersTwice) {
            self.asked.remove(&ticket).expect("a sync is answered once");
        }
        let is_lost = self.dice.one_in(15) && !self.judge.is_calm;
        if !is_lost {
            self.clients[client].synced(synced);
        }
    }

    /// Time goes by; on the way everything happens when it is due.
    fn wait(&mut self, ms: u64) {
        let end = self.now.ms + ms;
        loop {
            let disk = self.disk.front().map_or(u64::MAX, |(_, at)| *at);
            let tick = self.coordinator.due_ms();
            let next = disk.min(tick).clamp(self.now.ms, end);
            self.now.unix_ms += i64::try_from(next - self.now.ms).unwrap();
            self.now.ms = next;
            if disk <= next {
                let (id, _) = self.disk.pop_front().unwrap();
                let result = match self.dice.one_in(25) && !self.judge.is_calm {
                    true => Err(NotKept::NotNow),
                    false => Ok(()),
                };
                if !self.has(Bug::ForgetsTheDisk) {
                    self.coordinator.written(self.now, id, result);
                }
            } else if tick <= next && !self.has(Bug::NeverTicks) {
                self.coordinator.tick(self.now);
            } else {
                break;
            }
            self.settle();
        }
        self.assert_nobody_waits_too_long();
    }

    fn assert_nobody_waits_too_long(&self) {
        for (ticket, (_, since)) in &self.asked {
            let waited = self.now.ms - since;
            let group = self.coordinator.group(GROUP);
            assert!(
                waited <= ANSWER_MS,
                "{ticket:?} waits for {waited} ms: {group:#?}"
            );
        }
        self.judge.assert_no_rebalance_lasts(self.now.ms, ANSWER_MS);
        let (groups, offsets, bytes, writing) = self.coordinator.sizes();
        let is_bounded = groups <= 1 && offsets <= 1 && bytes < 1 << 20 && writing < 1 << 16;
        assert!(is_bounded, "{groups} {offsets} {bytes} {writing}");
    }

    /// A client does what is its turn to do.
    fn act(&mut self, client: usize) {
        let is_calm = self.judge.is_calm;
        match self.clients[client].stage {
            Stage::Away if is_calm && self.clients[client].retires => {}
            Stage::Away if is_calm || self.dice.one_in(2) => self.join(client),
            Stage::Away => {}
            Stage::Joined => self.sync(client),
            Stage::Joining(_, since) | Stage::Syncing(_, since) => {
                // The answer was lost: it comes again, with the id that it knows of.
                if self.now.ms - since > ANSWER_MS {
                    self.join(client);
                }
            }
            Stage::Member if is_calm => self.beat(client),
            Stage::Member => match self.dice.below(12) {
                0 => self.join(client),
                1 => {
                    self.clients[client].change_mind();
                    self.join(client);
                }
                2 => self.commit(client),
                _ => self.beat(client),
            },
        }
    }

    fn live(&mut self, steps: u64) {
        for _ in 0..steps {
            let client = usize::try_from(self.dice.below(self.clients.len() as u64)).unwrap();
            match self.dice.below(40) {
                0 => self.leave(client),
                1 => self.die(client),
                2 if self.dice.one_in(4) => self.wait(2 * SESSION_MS),
                _ => self.act(client),
            }
            if !self.dice.one_in(3) {
                let ms = self.dice.below(400);
                self.wait(ms);
            }
        }
    }

    /// Everybody who is there is well from now on: soon all of the work is shared.
    fn calm_down(&mut self) {
        self.judge.is_calm = true;
        for client in &mut self.clients {
            client.retires = client.stage == Stage::Away && self.dice.one_in(2);
        }
        for _ in 0..200 {
            for client in 0..self.clients.len() {
                self.act(client);
            }
            self.wait(500);
        }
        let at_work = self
            .clients
            .iter()
            .filter(|client| client.stage != Stage::Away);
        let mut owned: Vec<u8> = at_work.flat_map(|one| one.owned().to_vec()).collect();
        owned.sort_unstable();
        let all: Vec<u8> = match self.clients.iter().all(|client| client.retires) {
            true => Vec::new(),
            false => (0..PARTITIONS).collect(),
        };
        assert_eq!(owned, all, "{:#?}", self.clients);
    }

    /// Nobody comes any more: nothing of the group is left but what it has committed.
    fn end(&mut self) {
        for client in &mut self.clients {
            client.restart();
        }
        self.wait(60_000);
        assert!(self.asked.is_empty(), "{:?}", self.asked);
        let members = |group: &Group| group.members.len();
        assert_eq!(self.coordinator.group(GROUP).map_or(0, members), 0);
        self.wait(20 * 60_000);
        let group = self.coordinator.group(GROUP);
        let is_kept = group.is_some_and(|group| {
            assert_eq!((group.state.name(), group.members.len()), ("Empty", 0));
            !group.offsets.is_empty()
        });
        assert_eq!(group.is_some(), is_kept, "an empty group is kept");
        let week = u64::try_from(super::offsets::RETENTION_MS).unwrap();
        self.wait(week + 60 * 60_000);
        assert_eq!(self.coordinator.sizes(), (0, 0, 0, 0));
    }
}

fn life(seed: u64, bug: Option<Bug>) -> Judge {
    let mut world = World::new(seed, bug);
    let steps = 20 + world.dice.below(180);
    world.live(steps);
    world.calm_down();
    world.end();
    world.judge
}

#[test]
fn campaign_no_life_of_a_group_ends_badly() {
    let seeds = std::env::var("WARDENT_GROUP_SEEDS").map_or(400, |seeds| seeds.parse().unwrap());
    let (mut generations, mut assigned, mut replaced) = (0, 0, 0);
    for seed in 0..seeds {
        let lived = std::panic::catch_unwind(|| life(seed, None));
        let judge = lived.unwrap_or_else(|_| panic!("seed {seed}"));
        generations += judge.generations();
        assigned += judge.assigned;
        replaced += judge.replaced;
    }
    // Something must have happened.
    assert!(generations > 2 * seeds && assigned > 4 * seeds && replaced > seeds / 20);
}

#[test]
fn every_planted_bug_is_found() {
    let bugs = [
        Bug::WithholdsJoins,
        Bug::WithholdsSyncs,
        Bug::NeverTicks,
        Bug::AssignsToAll,
        Bug::AssignsOldWork,
        Bug::BelievesEverybody,
        Bug::NeverBuries,
        Bug::CrownsTwo,
        Bug::ForgetsTheDisk,
        Bug::AnswersTwice,
    ];
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let missed: Vec<_> = bugs
        .into_iter()
        .filter(|bug| {
            (0..200).all(|seed| std::panic::catch_unwind(|| life(seed, Some(*bug))).is_ok())
        })
        .collect();
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "{missed:?}");
}
