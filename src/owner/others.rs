//! What other nodes decide about bans.
//!
//! Each decision has a [`Stamp`]: of two about one target the higher one holds, so every node that has
//! heard the same decisions remembers the same, in whatever order and however often it heard them. The
//! passing of time is no decision: each node ends a ban, and forgets one, by itself.
//!
//! A reading of all that the cluster has shows what nobody says any more: that is lifted. Decisions that
//! lose against one which this reading has not shown yet are kept aside until it has, or holds no more.

use std::{
    cmp::Ordering as Order,
    collections::HashMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    BanPolicy, Owner,
    ban::Target,
    book::{Full, Now},
    memory::{Change, Memory, Stamp, Told},
    run::count,
};
use crate::{
    base::{
        hlc::{Hlc, HybridClock, TooFarAhead},
        node::NodeName,
    },
    client::ClientKey,
    event::{ban::State, exchange::Part},
    limit::Limit,
};

/// Losing decisions that are kept aside during a reading; those beyond come with the next one.
const ASIDE_MAX: usize = 100_000;

/// Refusals that are told of one hearing.
const REFUSED_MAX: usize = 20;

/// What another node decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// About whom.
    pub target: Target,
    /// What is to be remembered.
    pub memory: Memory,
    /// When it was so, in milliseconds since 1970.
    pub told_unix_ms: u64,
}

/// What a client spent on another node, of a limit that counts for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpentElsewhere {
    /// Who.
    pub client: ClientKey,
    /// Of which limit.
    pub limit: Limit,
    /// How many requests.
    pub spent: u32,
}

/// Why a decision of another node does not hold here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// Its moment is too far ahead of the wall clock.
    TooFarAhead(TooFarAhead),
    /// Nothing bans this client.
    Protected(&'static str),
    /// The book of bans is full.
    Full,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFarAhead(TooFarAhead { ahead_ms }) => write!(
                f,
                "decided {ahead_ms} ms ahead of this node's clock: set the clocks of both nodes (NTP)"
            ),
            Self::Protected(because) => write!(f, "cannot be banned here: {because}"),
            Self::Full => f.write_str("limits.bans_max is reached"),
        }
    }
}

/// What came of decisions that were heard.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hearing {
    /// Those that do not hold here; the first of them.
    pub refused: Vec<(Target, Stamp, NotTaken)>,
    /// Whether everything that the cluster has is wanted, from the beginning.
    pub wants_all: bool,
    /// The number of the reading that may begin next.
    pub next_read: u64,
}

/// What is counted of other nodes' decisions. Written by the owner alone; relaxed, since each number stands
/// for itself.
#[derive(Debug, Default)]
pub struct OtherNumbers {
    /// Those that hold.
    pub taken: AtomicU64,
    /// Those that hold already.
    pub known: AtomicU64,
    /// Those that a later one has overtaken.
    pub older: AtomicU64,
    /// Those too far ahead.
    pub ahead: AtomicU64,
    /// Those about whom nothing bans.
    pub protected: AtomicU64,
    /// Those for which the book had no room.
    pub full: AtomicU64,
    /// Those that nobody says any more.
    pub withdrawn: AtomicU64,
    /// Readings of all that the cluster has.
    pub readings: AtomicU64,
    /// How far the cluster's clock is ahead of the wall clock, in milliseconds.
    pub clock_ahead_ms: AtomicU64,
}

/// This node's place among the others.
#[derive(Debug)]
pub(super) struct Seat {
    node: NodeName,
    clock: HybridClock,
    /// The number of the reading that may begin next.
    next_read: u64,
    reading: Option<Reading>,
    /// Counts the readings, from 1.
    readings: u32,
    wants_all: bool,
}

/// A reading of all that the cluster has, as far as it has come.
#[derive(Debug)]
struct Reading {
    id: u64,
    next_part: u64,
    /// The best of the decisions that lost against one which has not been read.
    aside: HashMap<Target, Decision>,
}

/// What a part is to the reading that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bears {
    /// It goes on by it.
    Next,
    /// It has had it before.
    Again,
    /// It has come to nothing, or this part belongs to another one.
    Nothing,
}

impl Seat {
    /// The place of `node`, whose readings are counted from `first_read`.
    fn new(node: NodeName, first_read: u64) -> Self {
        Self {
            node,
            clock: HybridClock::default(),
            next_read: first_read,
            reading: None,
            readings: 0,
            wants_all: true,
        }
    }

    /// Begins, goes on with, or gives up a reading.
    fn read(&mut self, part: Part) -> Bears {
        if part.part == 0 && part.read == self.next_read {
            self.next_read += 1;
            self.readings += 1;
            self.wants_all = false;
            self.reading = Some(Reading {
                id: part.read,
                next_part: 1,
                aside: HashMap::new(),
            });
            return Bears::Next;
        }
        let Some(reading) = self.reading.as_mut().filter(|own| own.id == part.read) else {
            return Bears::Nothing;
        };
        if part.part < reading.next_part {
            return Bears::Again;
        }
        if part.part > reading.next_part {
            self.reading = None;
            self.wants_all = true;
            return Bears::Nothing;
        }
        reading.next_part += 1;
        Bears::Next
    }
}

impl Owner {
    /// Joins a cluster, in which this node is called `node`. For the time before anything is restored.
    pub fn join(&mut self, node: NodeName) {
        self.book.join(node.clone());
        // Another number after each start, so that what was begun before is known as such.
        self.seat = Some(Seat::new(node, self.clock.unix_ms()));
    }

    /// Has a decision of this node's that was just put into the book stand in the order of all nodes.
    pub(super) fn sign(&mut self, target: &Target) -> Stamp {
        let Some(seat) = &mut self.seat else {
            return Stamp::default();
        };
        let stamp = Stamp {
            hlc: seat.clock.tick(self.clock.unix_ms()),
            node: Some(seat.node.clone()),
        };
        self.book.sign(target, &stamp);
        stamp
    }

    /// Goes on after what the log remembers. What has no stamp was decided here, before there were others.
    pub(super) fn resume(&mut self, memory: &mut Memory, told_unix_ms: u64) {
        let Some(seat) = &mut self.seat else {
            return;
        };
        if memory.stamp.node.is_none() {
            memory.stamp = Stamp {
                hlc: Hlc::at(told_unix_ms),
                node: Some(seat.node.clone()),
            };
        }
        seat.clock.resume(memory.stamp.hlc);
    }

    /// Has clocks stand where they would, had clients spent here what they spent on other nodes.
    pub(super) fn hear_spent(&mut self, spent: &[SpentElsewhere]) {
        let now_ns = self.clock.monotonic_ns();
        for elsewhere in spent {
            let SpentElsewhere {
                client,
                limit,
                spent,
            } = elsewhere;
            self.keeper.spent_elsewhere(*client, limit, *spent, now_ns);
        }
    }

    /// Hears what other nodes decided; as a part of a reading of all that the cluster has, or as news.
    pub(super) fn hear_others(
        &mut self,
        decisions: Vec<Decision>,
        part: Option<Part>,
        policy: &BanPolicy,
    ) -> Hearing {
        let Some(seat) = &mut self.seat else {
            return Hearing::default();
        };
        let bears = part.map(|part| seat.read(part));
        let read = match bears {
            // What came late was read before.
            Some(Bears::Nothing) => None,
            Some(Bears::Next | Bears::Again) | None => Some(seat.readings),
        };
        let had_networks = self.book.has_networks();
        let mut refused = Vec::new();
        for decision in decisions {
            let (target, stamp) = (decision.target, decision.memory.stamp.clone());
            if let Err(not) = self.hear_other(decision, read, policy) {
                count(not.number(&self.numbers.others));
                if refused.len() < REFUSED_MAX {
                    refused.push((target, stamp, not));
                }
            }
        }
        if part.is_some_and(|part| part.last) && bears == Some(Bears::Next) {
            self.end_reading(policy);
        }
        if had_networks || self.book.has_networks() {
            // Once for all of them: each would be a new prefix tree.
            self.enforce_networks();
        }
        let seat = self.seat.as_ref();
        Hearing {
            refused,
            wants_all: seat.is_some_and(|seat| seat.wants_all),
            next_read: seat.map_or(0, |seat| seat.next_read),
        }
    }

    /// Hears one decision; `read` is the reading that it is in. Banned networks are left to be enforced.
    fn hear_other(
        &mut self,
        decision: Decision,
        read: Option<u32>,
        policy: &BanPolicy,
    ) -> Result<(), NotTaken> {
        let now = Now::of(&self.clock);
        let (target, stamp) = (decision.target, &decision.memory.stamp);
        if let Some(seat) = &mut self.seat {
            let heard = seat.clock.hear(stamp.hlc, now.unix_ms);
            heard.map_err(NotTaken::TooFarAhead)?;
        }
        match self.book.stamp(&target).map(|own| stamp.cmp(own)) {
            Some(Order::Less) => {
                count(&self.numbers.others.older);
                self.put_aside(decision, read);
                return Ok(());
            }
            Some(Order::Equal) => count(&self.numbers.others.known),
            Some(Order::Greater) | None => self.take(decision, now, policy)?,
        }
        if let Some(read) = read {
            self.book.mark_read(&target, read);
        }
        if let Some(reading) = self.reading() {
            reading.aside.remove(&target);
        }
        Ok(())
    }

    /// Keeps a decision that has lost, if what it lost against may be withdrawn when the reading ends.
    fn put_aside(&mut self, decision: Decision, read: Option<u32>) {
        let last_read = self.book.last_read(&decision.target);
        let Some(reading) = self.reading() else {
            return;
        };
        let aside = &mut reading.aside;
        let is_best = |known: &Decision| known.memory.stamp < decision.memory.stamp;
        let has_room = aside.len() < ASIDE_MAX || aside.contains_key(&decision.target);
        if read.is_some_and(|read| read != last_read)
            && has_room
            && aside.get(&decision.target).is_none_or(is_best)
        {
            aside.insert(decision.target, decision);
        }
    }

    fn reading(&mut self) -> Option<&mut Reading> {
        self.seat.as_mut()?.reading.as_mut()
    }

    /// Puts in force what another node decided.
    fn take(&mut self, decision: Decision, now: Now, policy: &BanPolicy) -> Result<(), NotTaken> {
        let Decision {
            target,
            memory,
            told_unix_ms,
        } = decision;
        if memory.state == State::Banned
            && matches!(target, Target::Client(_))
            && let Some(because) = policy.protected.why(target.network().addr())
        {
            return Err(NotTaken::Protected(because));
        }
        let before = self.book.memory(&target);
        let was_in_force = self.book.get(&target, now.ns).is_some();
        let is_in_force = self
            .book
            .take(target, memory, told_unix_ms, now)
            .map_err(|Full| NotTaken::Full)?;
        count(&self.numbers.others.taken);
        let after = self.book.memory(&target);
        let state = after.as_ref().map(|memory| memory.state);
        if let Target::Client(client) = target {
            if state == Some(State::Lifted) {
                self.points.swap_remove(&client);
            }
            let until = self.book.get(&target, now.ns).map(|ban| ban.until_ns);
            if let Some(until_ns) = until {
                self.enforce(&target, until_ns);
            } else if was_in_force {
                self.keeper.ban_until(client, 0, now.ns);
            }
        }
        let change = match (is_in_force, was_in_force, state) {
            (true, _, _) => Change::Began,
            (false, true, Some(State::Lifted)) => Change::Lifted,
            (false, true, _) => Change::Expired,
            (false, false, _) => Change::Noted,
        };
        let told = Told {
            unix_ms: now.unix_ms,
            change,
            target,
            enforced: true,
            before,
            elsewhere: self.book.elsewhere(&target),
            after,
            evidence: Vec::new(),
            receipt: None,
        };
        self.tell(told);
        Ok(())
    }

    /// Ends a reading: what other nodes decided and no longer say is withdrawn.
    fn end_reading(&mut self, policy: &BanPolicy) {
        let Some(seat) = &mut self.seat else {
            return;
        };
        let readings = seat.readings;
        let aside = seat.reading.take().map(|reading| reading.aside);
        count(&self.numbers.others.readings);
        let now = Now::of(&self.clock);
        for target in self.book.unread(readings) {
            let Some(told) = self.book.withdraw(&target, now) else {
                continue;
            };
            count(&self.numbers.others.withdrawn);
            if let (Change::Lifted, Target::Client(client)) = (told.change, target) {
                self.keeper.ban_until(client, 0, now.ns);
            }
            self.tell(told);
        }
        for decision in aside.into_iter().flat_map(HashMap::into_values) {
            if let Err(not) = self.hear_other(decision, Some(readings), policy) {
                count(not.number(&self.numbers.others));
            }
        }
    }

    /// How far the clock of all nodes is ahead of the wall clock, in milliseconds.
    pub(super) fn tell_clock(&self, now: Now) {
        if let Some(seat) = &self.seat {
            let ahead_ms = seat.clock.ahead_ms(now.unix_ms);
            let number = &self.numbers.others.clock_ahead_ms;
            number.store(ahead_ms, Ordering::Relaxed);
        }
    }
}

impl NotTaken {
    fn number(self, numbers: &OtherNumbers) -> &AtomicU64 {
        match self {
            Self::TooFarAhead(_) => &numbers.ahead,
            Self::Protected(_) => &numbers.protected,
            Self::Full => &numbers.full,
        }
    }
}
