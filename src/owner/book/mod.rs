//! The book of bans: who is banned, until when, for the how-manieth time, and why.

mod back;

use std::time::Duration;

use foldhash::quality::RandomState;
use indexmap::IndexMap;
use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::{
    BanPolicy,
    ban::{Ban, Decided, Target},
    facts::Violation,
    memory::{Change, Memory, Stamp, Told},
};
use crate::{
    base::{clock::Clock, node::NodeName},
    event::ban::State,
};

/// What is remembered of one client or network.
#[derive(Debug)]
struct Entry {
    /// The last ban, in force or over; one of no time where there was none.
    ban: Ban,
    /// What became of it.
    state: State,
    /// When it came to its end, or will, in nanoseconds of the monotonic clock: before zero, if that
    /// was before the start.
    ended_ns: i64,
    /// When it came to its end by the wall clock.
    ended_unix_ms: Option<u64>,
    /// Until when nothing is held against it.
    grace: Grace,
    /// Whether the last change found nobody to tell it to.
    is_untold: bool,
    /// The last reading of the cluster's bans in which it was.
    read: u32,
}

/// Until when nothing is held against somebody, by both clocks.
#[derive(Debug, Clone, Copy, Default)]
struct Grace {
    until_ns: u64,
    until_unix_ms: u64,
}

impl Grace {
    fn of(duration: Duration, now: Now) -> Self {
        Self {
            until_ns: after(now.ns, duration),
            until_unix_ms: now.unix_ms.saturating_add(millis(duration)),
        }
    }
}

/// One moment, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// In nanoseconds of the monotonic clock.
    pub ns: u64,
    /// In milliseconds since 1970.
    pub unix_ms: u64,
}

impl Now {
    /// What `clock` says.
    pub fn of(clock: &Clock) -> Self {
        Self {
            ns: clock.monotonic_ns(),
            unix_ms: clock.unix_ms(),
        }
    }
}

impl Entry {
    fn is_in_force(&self) -> bool {
        self.state == State::Banned
    }

    fn is_network_in_force(&self) -> bool {
        self.is_in_force() && matches!(self.ban.target, Target::Network(_))
    }

    /// Whether it gives way to a new ban: nothing of it binds, and the log has what a start must know.
    fn gives_way(&self, now_ns: u64) -> bool {
        let is_told = !self.is_untold || self.state == State::Expired;
        !self.is_in_force() && self.grace.until_ns <= now_ns && is_told
    }

    /// Whether nothing of it matters any more.
    ///
    /// A lifted ban leaves no level behind; but where there are other nodes, one of them may still say that
    /// it is in force, and is to be contradicted for as long as that one remembers it.
    fn is_over(&self, forget: Duration, now_ns: u64) -> bool {
        let leaves_nothing = self.ban.level == 0 && !self.ban.stamp.counts();
        let is_forgotten = leaves_nothing || is_past(self.ended_ns, forget, now_ns);
        !self.is_in_force() && is_forgotten && self.grace.until_ns <= now_ns
    }

    fn memory(&self) -> Memory {
        let Ban {
            since_unix_ms,
            until_unix_ms,
            level,
            ref decided,
            ref why,
            ref stamp,
            request,
            ..
        } = self.ban;
        Memory {
            state: self.state,
            level,
            since_unix_ms,
            until_unix_ms,
            ended_unix_ms: self.ended_unix_ms,
            grace_until_unix_ms: Some(self.grace.until_unix_ms).filter(|&until| until > 0),
            decided: decided.clone(),
            why: why.clone(),
            request,
            stamp: stamp.clone(),
        }
    }
}

/// All bans, and the levels of those that are over. The owner's alone.
#[derive(Debug)]
pub struct Book {
    entries: IndexMap<Target, Entry, RandomState>,
    entries_max: usize,
    /// Where the sweep goes on.
    next: usize,
    /// Where the search for room goes on.
    next_room: usize,
    active: usize,
    networks: usize,
    /// Entries whose last change is untold.
    untold: usize,
    /// Networks in which nothing is held against anybody, until when.
    spared: JointPrefixMap<IpNet, u64>,
    /// Whose memory gave way: to be told as forgotten.
    gone: Vec<Target>,
    /// The own node, where there are others.
    own: Option<NodeName>,
}

/// The book has no room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Bans in force that keep all their evidence, some 2 KiB each; those beyond keep the last violation.
const WITH_EVIDENCE_MAX: usize = 50_000;

/// Entries looked at in one go.
const SLICE: usize = 1024;

/// Targets whose memory gave way and who wait to be told as forgotten. Of those beyond, a start
/// remembers a level that is too high.
const GONE_MAX: usize = 64 * 1024;

impl Book {
    /// A book of `bans_max` entries.
    pub fn new(bans_max: usize) -> Self {
        Self {
            entries: IndexMap::default(),
            entries_max: bans_max,
            next: 0,
            next_room: 0,
            active: 0,
            networks: 0,
            untold: 0,
            spared: JointPrefixMap::new(),
            gone: Vec::new(),
            own: None,
        }
    }

    /// Joins a cluster, in which this node is called `own`.
    pub fn join(&mut self, own: NodeName) {
        self.own = Some(own);
    }

    /// Notes who decided the last change of a target, and when.
    pub fn sign(&mut self, target: &Target, stamp: &Stamp) {
        if let Some(entry) = self.entries.get_mut(target) {
            entry.ban.stamp = stamp.clone();
        }
    }

    /// The node that decided last about a target, if it is another one.
    pub fn elsewhere(&self, target: &Target) -> Option<NodeName> {
        self.other_node(&self.entries.get(target)?.ban.stamp)
    }

    fn other_node(&self, stamp: &Stamp) -> Option<NodeName> {
        let node = stamp.node.as_ref()?;
        let is_other = self.own.as_ref().is_some_and(|own| own != node);
        is_other.then(|| node.clone())
    }

    /// The ban in force on exactly this target.
    pub fn get(&self, target: &Target, now_ns: u64) -> Option<&Ban> {
        let entry = self.entries.get(target)?;
        (entry.is_in_force() && entry.ban.until_ns > now_ns).then_some(&entry.ban)
    }

    /// The ban in force on the smallest network around this target.
    pub fn around(&self, target: &Target, now_ns: u64) -> Option<&Ban> {
        if !self.has_networks() {
            return None;
        }
        let own = target.network();
        self.bans(now_ns)
            .filter(|ban| match ban.target {
                Target::Network(network) => network != own && network.contains(&own),
                Target::Client(_) => false,
            })
            .max_by_key(|ban| ban.target.network().prefix_len())
    }

    /// Whether nothing is held against this target for now, or against anybody in a network around it.
    pub fn has_grace(&self, target: &Target, now_ns: u64) -> bool {
        let entry = self.entries.get(target);
        if entry.is_some_and(|entry| entry.grace.until_ns > now_ns) {
            return true;
        }
        let mut around = self.spared.cover_values(&target.network());
        around.any(|&until_ns| until_ns > now_ns)
    }

    /// Bans in force, in no order.
    pub fn bans(&self, now_ns: u64) -> impl Iterator<Item = &Ban> {
        let in_force = self.entries.values().filter(|entry| entry.is_in_force());
        let bans = in_force.map(|entry| &entry.ban);
        bans.filter(move |ban| ban.until_ns > now_ns)
    }

    /// Of how many targets something is remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bans are in force, those included that ended since the last sweep came by.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Whether a network is banned as a whole.
    pub fn has_networks(&self) -> bool {
        self.networks > 0
    }

    /// How many targets there are whose last change found nobody to tell it to.
    pub fn untold(&self) -> usize {
        self.untold
    }

    /// All that is remembered of a target.
    pub fn memory(&self, target: &Target) -> Option<Memory> {
        self.entries.get(target).map(Entry::memory)
    }

    /// Notes whether the last change of a target was told. One that is remembered no more has nothing
    /// to tell.
    pub fn set_told(&mut self, target: &Target, is_told: bool) {
        if let Some(entry) = self.entries.get_mut(target)
            && entry.is_untold == is_told
        {
            entry.is_untold = !is_told;
            if is_told {
                self.untold -= 1;
            } else {
                self.untold += 1;
            }
        }
    }

    /// Bans a target for what it did, as long as the policy says after those before.
    ///
    /// # Errors
    /// When the book is full of others.
    pub fn ban_for(
        &mut self,
        target: Target,
        evidence: Vec<Violation>,
        policy: &BanPolicy,
        clock: &Clock,
    ) -> Result<Ban, Full> {
        let now = Now::of(clock);
        let earlier = self.level(&target, policy, now.ns);
        let duration = policy.duration_after(earlier);
        let last = evidence.last();
        let ban = Ban {
            why: last.map_or("", |last| last.cause.name()).to_owned(),
            enforced: last.is_none_or(|last| last.enforced),
            request: last.map(|last| last.request),
            decided: Decided::ByPolicy,
            evidence,
            ..blank(target, duration, earlier.saturating_add(1), now)
        };
        self.put(ban, now.ns)
    }

    /// Bans a target because somebody says so.
    ///
    /// # Errors
    /// When the book is full of others.
    pub fn ban_by(
        &mut self,
        actor: &str,
        target: Target,
        duration: Duration,
        why: String,
        clock: &Clock,
    ) -> Result<Ban, Full> {
        let now = Now::of(clock);
        let earlier = self.entries.get(&target).map_or(0, |entry| entry.ban.level);
        let ban = Ban {
            why,
            decided: Decided::By(actor.to_owned()),
            ..blank(target, duration, earlier.max(1), now)
        };
        self.put(ban, now.ns)
    }

    /// Lifts the ban of a target and forgets what led to it; nothing counts for `grace` from now.
    /// Returns the ban that was in force.
    pub fn lift(
        &mut self,
        target: &Target,
        grace: Duration,
        actor: &str,
        clock: &Clock,
    ) -> Option<Ban> {
        let now = Now::of(clock);
        let entry = self.entries.get_mut(target)?;
        let lifted = entry.is_in_force().then(|| entry.ban.clone());
        entry.state = State::Lifted;
        entry.ban.level = 0;
        entry.ban.decided = Decided::By(actor.to_owned());
        entry.ban.evidence = Vec::new();
        if lifted.is_some() {
            entry.ended_unix_ms = Some(now.unix_ms);
            self.ended(target);
        } else if entry.ban.until_unix_ms == entry.ban.since_unix_ms {
            // There never was a ban.
            (entry.ban.since_unix_ms, entry.ban.until_unix_ms) = (now.unix_ms, now.unix_ms);
        }
        self.set_grace(target, grace, now);
        lifted
    }

    /// Notes that nothing counts against a target for `grace` from now.
    ///
    /// # Errors
    /// When the book is full of others.
    pub fn spare(
        &mut self,
        target: Target,
        grace: Duration,
        actor: &str,
        clock: &Clock,
    ) -> Result<(), Full> {
        let now = Now::of(clock);
        self.make_room(&target, now.ns)?;
        self.entries.entry(target).or_insert_with(|| Entry {
            ban: Ban {
                decided: Decided::By(actor.to_owned()),
                ..blank(target, Duration::ZERO, 0, now)
            },
            state: State::Lifted,
            ended_ns: signed(now.ns),
            ended_unix_ms: None,
            grace: Grace::default(),
            is_untold: false,
            read: 0,
        });
        self.set_grace(&target, grace, now);
        Ok(())
    }

    fn set_grace(&mut self, target: &Target, duration: Duration, now: Now) {
        let grace = match duration.is_zero() {
            true => Grace::default(),
            false => Grace::of(duration, now),
        };
        if let Some(entry) = self.entries.get_mut(target) {
            entry.grace = grace;
            self.spare_network(target, grace);
        }
    }

    /// Notes a network's grace where those within it are looked for.
    fn spare_network(&mut self, target: &Target, grace: Grace) {
        let Target::Network(network) = target else {
            return;
        };
        if grace.until_ns > 0 {
            self.spared.insert(*network, grace.until_ns);
        } else {
            self.spared.remove(network);
        }
    }

    /// Ends the ban of a target whose time is over, and tells it.
    pub fn settle(&mut self, target: &Target, now: Now) -> Option<Told> {
        let entry = self.entries.get_mut(target)?;
        if !entry.is_in_force() || entry.ban.until_ns > now.ns {
            return None;
        }
        let before = entry.memory();
        entry.state = State::Expired;
        // One that ended before the start ended when it had to.
        entry.ended_unix_ms = Some(now.unix_ms.min(entry.ban.until_unix_ms));
        entry.ban.evidence = Vec::new();
        let told = Told {
            unix_ms: now.unix_ms,
            change: Change::Expired,
            target: *target,
            enforced: entry.ban.enforced,
            before: Some(before),
            after: Some(entry.memory()),
            evidence: Vec::new(),
            receipt: None,
            elsewhere: None,
        };
        self.ended(target);
        Some(told)
    }

    /// Looks at the next entries of the round, and returns what is to be told: bans that are over, what
    /// is forgotten now that its time has come, and what could not be told before. Of the last two, no
    /// more than there is `room` for.
    pub fn sweep(&mut self, policy: &BanPolicy, now: Now, mut room: usize) -> Vec<Told> {
        let mut told = Vec::new();
        while room > 0
            && let Some(target) = self.gone.pop()
        {
            // One who is back has been told as such.
            if !self.entries.contains_key(&target) {
                told.push(forgotten(target, now));
                room -= 1;
            }
        }
        for _ in 0..SLICE.min(self.entries.len()) {
            if self.next >= self.entries.len() {
                self.next = 0;
            }
            let Some((&target, entry)) = self.entries.get_index(self.next) else {
                break;
            };
            let is_over = entry.is_over(policy.forget, now.ns);
            let is_untold = entry.is_untold;
            if is_over && room > 0 {
                self.remove(self.next);
                told.push(forgotten(target, now));
                room -= 1;
                continue;
            }
            self.next += 1;
            if let Some(expired) = self.settle(&target, now) {
                told.push(expired);
                room = room.saturating_sub(1);
            } else if is_untold && room > 0 {
                told.extend(self.again(&target, now));
                room -= 1;
            }
        }
        told
    }

    /// The last change of a target, to be told once more.
    fn again(&self, target: &Target, now: Now) -> Option<Told> {
        let entry = self.entries.get(target)?;
        let after = entry.memory();
        Some(Told {
            unix_ms: now.unix_ms,
            change: match entry.state {
                State::Banned => Change::Began,
                State::Expired => Change::Expired,
                State::Lifted if after.has_ban() => Change::Lifted,
                State::Lifted => Change::Spared,
            },
            target: *target,
            enforced: entry.ban.enforced,
            before: None,
            after: Some(after),
            evidence: entry.ban.evidence.clone(),
            receipt: None,
            elsewhere: self.other_node(&entry.ban.stamp),
        })
    }

    /// How many bans of this target make the next one longer.
    pub fn level(&self, target: &Target, policy: &BanPolicy, now_ns: u64) -> u32 {
        self.entries
            .get(target)
            .filter(|entry| !is_past(entry.ended_ns, policy.forget, now_ns))
            .map_or(0, |entry| entry.ban.level)
    }

    /// Puts a ban in place of the one there may be.
    ///
    /// # Errors
    /// When it is one entry too many: a ban in force never gives way to another.
    fn put(&mut self, mut ban: Ban, now_ns: u64) -> Result<Ban, Full> {
        self.make_room(&ban.target, now_ns)?;
        if self.active >= WITH_EVIDENCE_MAX {
            let but_the_last = ban.evidence.len().saturating_sub(1);
            ban.evidence.drain(..but_the_last);
        }
        ban.evidence.shrink_to_fit();
        self.insert(Entry {
            ban: ban.clone(),
            state: State::Banned,
            ended_ns: signed(ban.until_ns),
            ended_unix_ms: None,
            grace: Grace::default(),
            is_untold: false,
            read: 0,
        });
        Ok(ban)
    }

    fn insert(&mut self, entry: Entry) {
        let target = entry.ban.target;
        self.active += usize::from(entry.is_in_force());
        self.networks += usize::from(entry.is_network_in_force());
        self.spare_network(&target, entry.grace);
        if let Some(before) = self.entries.insert(target, entry) {
            self.uncount(&before);
        }
    }

    /// Takes an entry that is no more out of all numbers.
    fn uncount(&mut self, entry: &Entry) {
        self.untold -= usize::from(entry.is_untold);
        self.active -= usize::from(entry.is_in_force());
        self.networks -= usize::from(entry.is_network_in_force());
    }

    /// Makes room for this target, if it has none yet: what is only remembered gives way, or whoever
    /// has many addresses could fill the book with bans that are over, and nobody would be banned
    /// until they are forgotten. Of the entries looked at, the one that ended first goes.
    ///
    /// # Errors
    /// When there is nothing but bans in force and times of grace among them.
    fn make_room(&mut self, target: &Target, now_ns: u64) -> Result<(), Full> {
        if self.entries.len() < self.entries_max || self.entries.contains_key(target) {
            return Ok(());
        }
        if self.active >= self.entries.len() {
            return Err(Full);
        }
        let looked_at = (0..SLICE.min(self.entries.len())).filter_map(|_| {
            if self.next_room >= self.entries.len() {
                self.next_room = 0;
            }
            let (_, entry) = self.entries.get_index(self.next_room)?;
            let index = self.next_room;
            self.next_room += 1;
            entry.gives_way(now_ns).then_some((entry.ended_ns, index))
        });
        let (_, index) = looked_at.min().ok_or(Full)?;
        let gone = self.remove(index);
        if self.gone.len() < GONE_MAX {
            self.gone.extend(gone);
        }
        Ok(())
    }

    /// Forgets a target, as the log did.
    pub fn forget(&mut self, target: &Target) {
        if let Some(index) = self.entries.get_index_of(target) {
            self.remove(index);
        }
    }

    fn remove(&mut self, index: usize) -> Option<Target> {
        let (target, entry) = self.entries.swap_remove_index(index)?;
        self.uncount(&entry);
        self.spare_network(&target, Grace::default());
        Some(target)
    }

    /// Counts a ban that is no longer in force.
    fn ended(&mut self, target: &Target) {
        self.active -= 1;
        self.networks -= usize::from(matches!(target, Target::Network(_)));
    }
}

fn blank(target: Target, duration: Duration, level: u32, now: Now) -> Ban {
    Ban {
        target,
        since_unix_ms: now.unix_ms,
        until_unix_ms: now.unix_ms.saturating_add(millis(duration)),
        until_ns: after(now.ns, duration),
        level,
        decided: Decided::ByPolicy,
        why: String::new(),
        enforced: true,
        request: None,
        evidence: Vec::new(),
        stamp: Stamp::default(),
    }
}

fn forgotten(target: Target, now: Now) -> Told {
    Told {
        unix_ms: now.unix_ms,
        change: Change::Forgotten,
        target,
        enforced: true,
        before: None,
        after: None,
        evidence: Vec::new(),
        receipt: None,
        elsewhere: None,
    }
}

fn after(now_ns: u64, duration: Duration) -> u64 {
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    now_ns.saturating_add(ns)
}

/// Whether so much time has passed since a moment, which may be before the start.
fn is_past(since_ns: i64, duration: Duration, now_ns: u64) -> bool {
    let ns = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    since_ns.saturating_add(ns) <= signed(now_ns)
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
