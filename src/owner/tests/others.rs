//! Several owners who hear of each other, late, twice and in any order.

use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;
use crate::{
    base::hlc::{AHEAD_MAX_MS, Hlc},
    event::exchange::Part,
};

type Press = Arc<Mutex<Vec<Told>>>;

#[derive(Debug)]
struct Recorder(Press);

impl Publish for Recorder {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn tell(&mut self, mut told: Box<Told>) -> Result<(), Box<Told>> {
        if let Some(receipt) = told.receipt.take() {
            receipt.kept();
        }
        self.0.lock().unwrap().push(*told);
        Ok(())
    }

    fn trouble(&self) -> Arc<Trouble> {
        Arc::default()
    }
}

/// One node: an owner, and all that it has told.
#[derive(Debug)]
struct Node {
    owner: Owner,
    acts: Acts,
    clients: Arc<Clients>,
    clock: Clock,
    told: Press,
}

const NOON: u64 = 1_700_000_000_000;

impl Node {
    fn new(name: &str) -> Self {
        Self::with(name, NOON, 1_000, Protected::default())
    }

    fn with(name: &str, wall_unix_ms: u64, bans_max: usize, protected: Protected) -> Self {
        let clock = Clock::manual(wall_unix_ms);
        clock.advance_ms(1);
        let keeper = Keeper::new(1_000);
        let clients = Arc::clone(keeper.clients());
        let told = Press::default();
        let policy = BanPolicy {
            protected,
            ..policy()
        };
        let policy = Arc::new(ArcSwap::from_pointee(policy));
        let press = Box::new(Recorder(Arc::clone(&told)));
        let (mut owner, acts) = Owner::new(keeper, bans_max, policy, clock.clone(), press);
        owner.join(name.parse().unwrap());
        Self {
            owner,
            acts,
            clients,
            clock,
            told,
        }
    }

    fn act(&mut self, act: Act) -> Result<Done, NotDone> {
        let mut under_way = self.acts.begin(act).unwrap();
        self.owner.turn();
        under_way.answered.try_recv().unwrap()
    }

    fn ban(&mut self, target: &str, seconds: u64) {
        let act = Act::Ban {
            target: at(target),
            duration: Duration::from_secs(seconds),
            why: "because".to_owned(),
            actor: "uid:0".to_owned(),
        };
        self.act(act).unwrap();
    }

    fn unban(&mut self, target: &str, grace_s: u64) -> Result<Done, NotDone> {
        self.act(Act::Unban {
            target: at(target),
            grace: Duration::from_secs(grace_s),
            actor: "uid:0".to_owned(),
        })
    }

    fn violate(&mut self, target: &str) {
        self.owner.facts().tell(violation(target, 10));
        self.owner.turn();
    }

    fn pass(&mut self, seconds: u64) {
        self.clock.advance_ms(seconds * 1_000);
        self.owner.turn();
    }

    fn hear_part(&mut self, decisions: Vec<Decision>, part: Option<Part>) -> Hearing {
        let spent = Vec::new();
        match self.act(Act::Hear {
            decisions,
            part,
            spent,
        }) {
            Ok(Done::Heard(hearing)) => hearing,
            other => panic!("{other:?}"),
        }
    }

    fn hear(&mut self, decisions: Vec<Decision>) -> Hearing {
        self.hear_part(decisions, None)
    }

    /// A reading of everything, in one part.
    fn read(&mut self, decisions: Vec<Decision>) -> Hearing {
        let read = self.hear(Vec::new()).next_read;
        let last = true;
        self.hear_part(
            decisions,
            Some(Part {
                read,
                part: 0,
                last,
            }),
        )
    }

    /// What this node decided, in its order, as others hear of it.
    fn decided(&self) -> Vec<Decision> {
        let told = self.told.lock().unwrap();
        let own = told
            .iter()
            .filter(|told| told.enforced && told.elsewhere.is_none());
        let decision = |told: &Told| {
            Some(Decision {
                target: told.target,
                memory: told.after.clone()?,
                told_unix_ms: told.unix_ms,
            })
        };
        own.filter_map(decision).collect()
    }

    /// What the cluster's topic has of this node: the last decision about each target.
    fn compacted(&self) -> Vec<Decision> {
        let mut last = indexmap::IndexMap::new();
        for decision in self.decided() {
            last.insert(decision.target, decision);
        }
        last.into_values().collect()
    }

    fn is_banned(&self, ip: &str) -> bool {
        let ip: IpAddr = ip.parse().unwrap();
        let seen = self.clients.see(ClientKey::new(ip, 64));
        self.clients.banned_until(&seen, ip) > ticks(self.clock.monotonic_ns())
    }

    fn changes(&self) -> Vec<(Change, String)> {
        let told = self.told.lock().unwrap();
        let line = |told: &Told| (told.change, told.actor().into_owned());
        told.iter().map(line).collect()
    }

    fn number(&self, of: impl Fn(&OtherNumbers) -> &AtomicU64) -> u64 {
        of(&self.owner.numbers().others).load(Ordering::Relaxed)
    }
}

fn at(target: &str) -> Target {
    Target::parse(target, 64).unwrap()
}

#[test]
fn a_ban_of_one_node_holds_on_another_and_is_told_as_that_ones() {
    let (mut one, mut other) = (Node::new("web-1"), Node::new("web-2"));
    one.violate(WHO);
    assert!(other.hear(one.decided()).refused.is_empty());
    assert!(other.is_banned(WHO));
    let told = (Change::Began, "cluster:web-1".to_owned());
    assert_eq!(other.changes(), [told]);
    let Ok(Done::Shown(ban)) = other.act(Act::Show(at(WHO))) else {
        panic!("no ban");
    };
    assert_eq!(ban.stamp.node.unwrap().as_str(), "web-1");
    assert_eq!((ban.why.as_str(), ban.level), ("rate_limited", 1));
    // It came from there, and never goes back.
    assert_eq!(other.decided(), []);
}

#[test]
fn the_next_ban_is_longer_wherever_it_is_decided() {
    let (mut one, mut other) = (Node::new("web-1"), Node::new("web-2"));
    one.violate(WHO);
    other.hear(one.decided());
    other.pass(601);
    assert!(!other.is_banned(WHO));
    assert_eq!(
        other.changes().last().unwrap(),
        &(Change::Expired, "clock".to_owned())
    );
    other.violate(WHO);
    assert_eq!(other.owner.memory(&at(WHO)).unwrap().level, 2);
}

#[test]
fn an_unban_lifts_everywhere_also_for_who_hears_of_the_ban_later() {
    let mut nodes = ["web-1", "web-2", "web-3"].map(Node::new);
    let [one, two, three] = &mut nodes;
    one.ban(WHO, 3_600);
    two.hear(one.decided());
    two.pass(1);
    two.unban(WHO, 0).unwrap();
    three.hear(two.decided());
    three.hear(one.decided());
    one.hear(two.decided());
    for node in &nodes {
        assert!(!node.is_banned(WHO));
    }
    assert_eq!(nodes[2].number(|numbers| &numbers.older), 1);
    assert_eq!(
        nodes[0].changes().last().unwrap(),
        &(Change::Lifted, "cluster:web-2".to_owned())
    );
}

#[test]
fn a_lifted_ban_is_contradicted_for_as_long_as_somebody_may_remember_it() {
    let (mut one, mut other) = (Node::new("web-1"), Node::new("web-2"));
    one.ban(WHO, 3_600);
    other.hear(one.decided());
    other.unban(WHO, 0).unwrap();
    // The first was away, comes back with what it has, and nobody is banned by it again.
    other.pass(3_600 + 80_000);
    other.hear(one.decided());
    assert!(!other.is_banned(WHO));
    assert_eq!(other.number(|numbers| &numbers.older), 1);
    // In the end, it is forgotten.
    other.pass(86_400);
    other.pass(1);
    assert_eq!(other.owner.memory(&at(WHO)), None);
}

#[test]
fn a_clock_that_is_far_ahead_decides_nothing_here() {
    let far = NOON + AHEAD_MAX_MS + 1_000;
    let mut ahead = Node::with("web-1", far, 100, Protected::default());
    let mut other = Node::new("web-2");
    ahead.violate(WHO);
    let hearing = other.hear(ahead.decided());
    assert!(!other.is_banned(WHO));
    let [(target, stamp, not)] = &hearing.refused[..] else {
        panic!("{hearing:?}");
    };
    assert_eq!((*target, stamp.hlc), (at(WHO), Hlc::at(far + 1)));
    assert!(matches!(not, NotTaken::TooFarAhead(_)));
    assert_eq!(other.number(|numbers| &numbers.ahead), 1);
    // Nor does what is decided here come after it.
    other.violate("198.51.100.8");
    assert!(other.decided()[0].memory.stamp.hlc < Hlc::at(NOON + 1_000));
}

#[test]
fn what_was_heard_is_before_what_is_decided_afterwards() {
    let mut ahead = Node::with("web-9", NOON + 30_000, 100, Protected::default());
    let mut other = Node::new("web-1");
    ahead.ban(WHO, 600);
    other.hear(ahead.decided());
    other.unban(WHO, 0).unwrap();
    ahead.hear(other.decided());
    assert!(!ahead.is_banned(WHO));
    other.owner.turn();
    assert_eq!(other.number(|numbers| &numbers.clock_ahead_ms), 30_000);
}

#[test]
fn nobody_is_hit_whom_a_local_ban_may_not_hit() {
    let mut one = Node::new("web-1");
    let protected = Protected {
        allowed: [format!("{WHO}/32").parse().unwrap()].into_iter().collect(),
        trusted_peers: ["10.0.0.0/8".parse().unwrap()].into_iter().collect(),
    };
    let mut other = Node::with("web-2", NOON, 100, protected);
    for who in [WHO, "10.1.2.3"] {
        one.ban(who, 600);
    }
    let mut decisions = one.decided();
    // Nobody bans loopback; a node that did would be mistaken.
    let loopback = Decision {
        target: at("127.0.0.1"),
        ..decisions[0].clone()
    };
    decisions.push(loopback);
    let hearing = other.hear(decisions);
    assert_eq!(hearing.refused.len(), 3);
    assert_eq!(other.number(|numbers| &numbers.protected), 3);
    for who in [WHO, "10.1.2.3", "127.0.0.1"] {
        assert!(!other.is_banned(who), "{who}");
        assert_eq!(other.owner.memory(&at(who)), None);
    }
    assert_eq!(other.changes(), []);
}

#[test]
fn a_full_book_takes_no_more_from_others() {
    let mut one = Node::new("web-1");
    let mut other = Node::with("web-2", NOON, 2, Protected::default());
    other.ban("198.51.100.1", 600);
    for last in 2..5 {
        one.ban(&format!("198.51.100.{last}"), 600);
    }
    let hearing = other.hear(one.decided());
    assert_eq!(hearing.refused.len(), 2);
    assert!(other.is_banned("198.51.100.1") && other.is_banned("198.51.100.2"));
    assert_eq!(other.number(|numbers| &numbers.full), 2);
}

#[test]
fn networks_are_banned_and_lifted_as_clients_are() {
    let (mut one, mut other) = (Node::new("web-1"), Node::new("web-2"));
    one.ban("203.0.113.0/24", 600);
    other.hear(one.decided());
    assert!(other.is_banned("203.0.113.77"));
    one.unban("203.0.113.0/24", 0).unwrap();
    other.hear(one.decided());
    assert!(!other.is_banned("203.0.113.77"));
}

#[test]
fn time_left_is_never_more_than_the_whole_ban() {
    let mut one = Node::new("web-1");
    let mut behind = Node::with("web-2", NOON - 3_600_000, 100, Protected::default());
    one.ban(WHO, 600);
    // Refused by its moment, it is heard once the clock is right again: 20 s are left.
    assert_eq!(behind.hear(one.decided()).refused.len(), 1);
    behind.clock.advance_ms(3_600_000 + 580_000);
    behind.hear(one.decided());
    assert!(behind.is_banned(WHO));
    behind.pass(19);
    assert!(behind.is_banned(WHO));
    behind.pass(2);
    assert!(!behind.is_banned(WHO));
    // One that is over changes nothing but what is remembered.
    let mut late = Node::with("web-3", NOON + 700_000, 100, Protected::default());
    late.hear(one.decided());
    assert!(!late.is_banned(WHO));
    assert_eq!(late.owner.memory(&at(WHO)).unwrap().level, 1);
    assert_eq!(
        late.changes(),
        [(Change::Noted, "cluster:web-1".to_owned())]
    );
}

// Readings of everything.

#[test]
fn what_nobody_says_any_more_is_lifted() {
    let (mut one, mut other) = (Node::new("web-1"), Node::new("web-2"));
    for who in [WHO, "198.51.100.8", "203.0.113.0/24"] {
        one.ban(who, 600);
    }
    other.ban("198.51.100.9", 600);
    assert!(other.hear(one.decided()).wants_all);
    let rest: Vec<_> = one.decided().drain(..1).collect();
    let hearing = other.read(rest.clone());
    assert!(!hearing.wants_all);
    assert!(other.is_banned(WHO));
    assert!(!other.is_banned("198.51.100.8") && !other.is_banned("203.0.113.7"));
    assert!(
        other.is_banned("198.51.100.9"),
        "its own bans are not the cluster's"
    );
    assert_eq!(other.number(|numbers| &numbers.withdrawn), 2);
    let lifted = (Change::Lifted, "cluster:web-1".to_owned());
    let changes = other.changes();
    assert_eq!(
        changes.iter().filter(|change| **change == lifted).count(),
        2
    );
    // The cluster has it again, and so has this node.
    other.hear(one.decided());
    assert!(other.is_banned("198.51.100.8") && other.is_banned("203.0.113.7"));
}

#[test]
fn a_reading_with_a_part_missing_lifts_nobody_and_is_wanted_again() {
    let (mut one, mut other) = (Node::new("web-1"), Node::new("web-2"));
    one.ban(WHO, 600);
    one.ban("198.51.100.8", 600);
    other.hear(one.decided());
    let read = other.hear(Vec::new()).next_read;
    let part = |part, last| Some(Part { read, part, last });
    let (first, second) = (
        vec![one.decided()[0].clone()],
        vec![one.decided()[1].clone()],
    );
    assert!(!other.hear_part(first.clone(), part(0, false)).wants_all);
    // Part 1 is lost.
    let hearing = other.hear_part(Vec::new(), part(2, true));
    assert!(hearing.wants_all && hearing.next_read != read);
    assert!(other.is_banned(WHO) && other.is_banned("198.51.100.8"));
    // What is left of it is no reading any more.
    assert!(other.hear_part(Vec::new(), part(3, true)).wants_all);
    assert!(other.hear_part(Vec::new(), part(0, true)).wants_all);
    assert!(other.is_banned(WHO) && other.is_banned("198.51.100.8"));
    // In parts, each of them twice.
    let read = hearing.next_read;
    let part = |part, last| Some(Part { read, part, last });
    for _ in 0..2 {
        assert!(!other.hear_part(first.clone(), part(0, false)).wants_all);
    }
    for _ in 0..2 {
        assert!(!other.hear_part(second.clone(), part(1, true)).wants_all);
    }
    assert!(other.is_banned(WHO) && other.is_banned("198.51.100.8"));
    assert_eq!(other.number(|numbers| &numbers.readings), 1);
}

#[test]
fn what_lost_against_a_withdrawn_decision_holds_again() {
    let mut nodes = ["web-1", "web-2", "web-3"].map(Node::new);
    let [one, two, three] = &mut nodes;
    one.ban(WHO, 600);
    two.pass(1);
    two.ban(WHO, 3_600);
    three.hear(one.decided());
    three.hear(two.decided());
    assert_eq!(
        three.owner.memory(&at(WHO)),
        two.decided().pop().map(|decision| decision.memory)
    );
    // The second node's log is gone, and the cluster has forgotten it.
    three.read(one.compacted());
    assert_eq!(
        three.owner.memory(&at(WHO)),
        one.decided().pop().map(|decision| decision.memory)
    );
    assert!(three.is_banned(WHO));
}

#[test]
fn all_that_was_heard_outlives_a_restart_and_stays_in_order() {
    let (mut one, mut other) = (Node::new("web-1"), Node::new("web-2"));
    one.ban(WHO, 600);
    one.ban("198.51.100.8", 600);
    other.hear(one.decided());
    other.unban("198.51.100.8", 0).unwrap();
    let mut again = Node::new("web-2");
    let told = std::mem::take(&mut *other.told.lock().unwrap());
    let mut restoring = again.owner.restore();
    for told in told {
        let state = told.after.unwrap();
        let mut value = Vec::new();
        let stamps = crate::event::time::Stamps::default();
        state
            .record(&told.target, told.unix_ms)
            .write(&stamps, &mut value);
        let record = crate::event::ban::BanState::read(&value).unwrap();
        let told_unix_ms = record.unix_ms;
        restoring.remember(told.target, record.into(), told_unix_ms);
    }
    restoring.finish();
    assert!(again.is_banned(WHO) && !again.is_banned("198.51.100.8"));
    again.hear(one.decided());
    assert!(!again.is_banned("198.51.100.8"));
    assert_eq!(again.number(|numbers| &numbers.known), 1);
    assert_eq!(again.number(|numbers| &numbers.older), 1);
    // Its clock goes on where it was.
    again.unban(WHO, 0).unwrap();
    one.hear(again.decided());
    assert!(!one.is_banned(WHO));
}

#[test]
fn what_was_decided_before_there_was_a_cluster_is_this_nodes() {
    let mut alone = house(100);
    alone.ban(WHO, 600).unwrap();
    let memory = alone.owner.memory(&at(WHO)).unwrap();
    assert_eq!(memory.stamp, Stamp::default());
    let mut node = Node::new("web-1");
    let mut restoring = node.owner.restore();
    restoring.remember(at(WHO), memory, NOON);
    restoring.finish();
    let stamp = node.owner.memory(&at(WHO)).unwrap().stamp;
    assert_eq!(stamp.hlc, Hlc::at(NOON));
    assert_eq!(stamp.node.unwrap().as_str(), "web-1");
}

// Whatever happens.

const TARGETS: [&str; 4] = [
    "198.51.100.1",
    "198.51.100.2",
    "2001:db8::/64",
    "203.0.113.0/24",
];

/// What one node does, or hears: of the decisions so far, the how-manieth.
#[derive(Debug, Clone)]
enum Step {
    Violate(usize, usize),
    Ban(usize, usize),
    Unban(usize, usize, u64),
    Pass(usize, u64),
    Hear(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (node, target) = (0..3_usize, 0..TARGETS.len());
    let step = prop_oneof![
        (node.clone(), 0..2_usize).prop_map(|(node, target)| Step::Violate(node, target)),
        (node.clone(), target.clone()).prop_map(|(node, target)| Step::Ban(node, target)),
        (node.clone(), target, prop_oneof![Just(0), Just(7_000)])
            .prop_map(|(node, target, grace)| Step::Unban(node, target, grace)),
        (node.clone(), 0..3_u64).prop_map(|(node, seconds)| Step::Pass(node, seconds)),
        (node, any::<usize>()).prop_map(|(node, nth)| Step::Hear(node, nth)),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// In any order, with any repetition, after whatever went before: all nodes remember the same.
    #[test]
    fn nodes_that_have_heard_the_same_remember_the_same(
        steps in steps(),
        skews in prop::array::uniform3(0..40_000_u64),
        order in any::<u64>(),
    ) {
        let mut nodes: Vec<_> = (0..3)
            .map(|nth| Node::with(&format!("web-{nth}"), NOON + skews[nth], 100, Protected::default()))
            .collect();
        let all = |nodes: &[Node]| -> Vec<Decision> { nodes.iter().flat_map(Node::decided).collect() };
        for step in steps {
            match step {
                Step::Violate(node, target) => nodes[node].violate(TARGETS[target]),
                Step::Ban(node, target) => nodes[node].ban(TARGETS[target], 86_400),
                Step::Unban(node, target, grace) => {
                    // There may be nothing to lift.
                    let _ = nodes[node].unban(TARGETS[target], grace);
                }
                Step::Pass(node, seconds) => nodes[node].pass(seconds),
                Step::Hear(node, nth) => {
                    let all = all(&nodes);
                    if !all.is_empty() {
                        nodes[node].hear(vec![all[nth % all.len()].clone()]);
                    }
                }
            }
        }
        let decisions = all(&nodes);
        for (nth, node) in nodes.iter_mut().enumerate() {
            let mut mixed: Vec<_> = decisions.iter().chain(&decisions).cloned().collect();
            let key = |decision: &Decision| {
                let mut hasher = std::hash::DefaultHasher::new();
                std::hash::Hash::hash(&(order, nth, &decision.memory.stamp), &mut hasher);
                std::hash::Hasher::finish(&hasher)
            };
            mixed.sort_by_key(key);
            prop_assert_eq!(node.hear(mixed).refused, vec![]);
        }
        for target in TARGETS {
            let memories: Vec<_> = nodes.iter().map(|node| node.owner.memory(&at(target))).collect();
            prop_assert_eq!(&memories[0], &memories[1]);
            prop_assert_eq!(&memories[1], &memories[2]);
            let ip = target.split('/').next().unwrap();
            let banned: Vec<_> = nodes.iter().map(|node| node.is_banned(ip)).collect();
            prop_assert!(banned.iter().all(|is| *is == banned[0]), "{target}: {banned:?}");
        }
        // And so does who joins now, and reads what compaction has left.
        let mut new = Node::with("web-9", NOON + 20_000, 100, Protected::default());
        new.read(nodes.iter().flat_map(Node::compacted).collect());
        for target in TARGETS {
            prop_assert_eq!(new.owner.memory(&at(target)), nodes[0].owner.memory(&at(target)));
        }
    }
}
