//! The book of bans: who is banned, until when, for the how-manieth time, and why.

use std::{fmt, net::IpAddr, str::FromStr};

use indexmap::IndexMap;
use ipnet::IpNet;

use super::{BanPolicy, facts::Violation};
use crate::{
    base::{clock::Clock, net::folded},
    client::ClientKey,
};

/// Whom a ban is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// One client.
    Client(ClientKey),
    /// All of a network.
    Network(IpNet),
}

impl Target {
    /// What an operator means by `text`: the client at an address, or a network.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str, ipv6_prefix: u8) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Client(ClientKey::new(ip, ipv6_prefix)));
        }
        let network = IpNet::from_str(text).map_err(|_| {
            format!(
                "`{text}` is neither an address nor a network: write 198.51.100.7, 2001:db8::1 or 203.0.113.0/24"
            )
        })?;
        let network = folded(network.trunc());
        let client = ClientKey::new(network.addr(), ipv6_prefix);
        Ok(if client.network() == network {
            Self::Client(client)
        } else {
            Self::Network(network)
        })
    }

    /// The first address that it holds for.
    pub fn network(&self) -> IpNet {
        match self {
            Self::Client(client) => client.network(),
            Self::Network(network) => *network,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => client.fmt(f),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// Who decided a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// The policy, by the client's violations.
    ByPolicy,
    /// An operator.
    By(String),
}

/// One ban.
#[derive(Debug, Clone)]
pub struct Ban {
    /// Whom it is for.
    pub target: Target,
    /// When it began, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// When it ends by the wall clock of its beginning, in milliseconds since 1970.
    pub until_unix_ms: u64,
    /// When it ends, in nanoseconds of the monotonic clock.
    pub until_ns: u64,
    /// The how-manieth it is, beginning with 1.
    pub level: u32,
    /// Who decided it.
    pub decided: Decided,
    /// Why, in a word or a sentence.
    pub why: String,
    /// Whether it holds, or would if the policy were enforced.
    pub enforced: bool,
    /// The violations that led to it, oldest first.
    pub evidence: Vec<Violation>,
}

impl Ban {
    /// The ban, and nothing of what led to it.
    pub fn without_evidence(&self) -> Self {
        Self {
            evidence: Vec::new(),
            why: self.why.clone(),
            decided: self.decided.clone(),
            ..*self
        }
    }
}

/// What is remembered of one client or network.
#[derive(Debug)]
struct Entry {
    /// The ban in force.
    ban: Option<Ban>,
    /// Bans so far.
    level: u32,
    /// When the last one ended, or will.
    ended_ns: u64,
    /// Until when nothing is held against it.
    grace_ns: u64,
}

/// All bans, and the levels of those that are over. The owner's alone.
#[derive(Debug)]
pub struct Book {
    entries: IndexMap<Target, Entry>,
    entries_max: usize,
    /// Where the sweep goes on.
    next: usize,
    /// Where the search for room goes on.
    next_room: usize,
    active: usize,
    networks: usize,
}

/// The book has no room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Bans in force that keep all their evidence, some 2 KiB each; those beyond keep the last violation.
const WITH_EVIDENCE_MAX: usize = 50_000;

/// Entries looked at in one go.
const SLICE: usize = 1024;

impl Book {
    /// A book of `bans_max` entries.
    pub fn new(bans_max: usize) -> Self {
        Self {
            entries: IndexMap::new(),
            entries_max: bans_max,
            next: 0,
            next_room: 0,
            active: 0,
            networks: 0,
        }
    }

    /// The ban in force on exactly this target.
    pub fn get(&self, target: &Target, now_ns: u64) -> Option<&Ban> {
        let ban = self.entries.get(target)?.ban.as_ref()?;
        (ban.until_ns > now_ns).then_some(ban)
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

    /// Whether nothing is held against this target for now.
    pub fn has_grace(&self, target: &Target, now_ns: u64) -> bool {
        let entry = self.entries.get(target);
        entry.is_some_and(|entry| entry.grace_ns > now_ns)
    }

    /// Bans in force, in no order.
    pub fn bans(&self, now_ns: u64) -> impl Iterator<Item = &Ban> {
        let bans = self.entries.values().filter_map(|entry| entry.ban.as_ref());
        bans.filter(move |ban| ban.until_ns > now_ns)
    }

    /// How many bans are in force, those included that ended since the last sweep came by.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Whether a network is banned as a whole.
    pub fn has_networks(&self) -> bool {
        self.networks > 0
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
        let now_ns = clock.monotonic_ns();
        let earlier = self.level(&target, policy, now_ns);
        let duration = policy.duration_after(earlier);
        let last = evidence.last();
        let ban = Ban {
            why: last.map_or("", |last| last.cause.name()).to_owned(),
            enforced: last.is_none_or(|last| last.enforced),
            decided: Decided::ByPolicy,
            evidence,
            ..Self::blank(target, duration, earlier + 1, clock)
        };
        self.put(ban, now_ns)
    }

    /// Bans a target because somebody says so.
    ///
    /// # Errors
    /// When the book is full of others.
    pub fn ban_by(
        &mut self,
        actor: &str,
        target: Target,
        duration: std::time::Duration,
        why: String,
        clock: &Clock,
    ) -> Result<Ban, Full> {
        let earlier = self.entries.get(&target).map_or(0, |entry| entry.level);
        let ban = Ban {
            why,
            decided: Decided::By(actor.to_owned()),
            ..Self::blank(target, duration, earlier.max(1), clock)
        };
        self.put(ban, clock.monotonic_ns())
    }

    /// Lifts the ban of a target and forgets what led to it; nothing counts for `grace` from now.
    /// Returns the ban that was in force.
    pub fn lift(
        &mut self,
        target: &Target,
        grace: std::time::Duration,
        now_ns: u64,
    ) -> Option<Ban> {
        let entry = self.entries.get_mut(target)?;
        // One that is over is the sweep's to tell.
        let lifted = entry.ban.take_if(|ban| ban.until_ns > now_ns);
        entry.level = 0;
        entry.grace_ns = after(now_ns, grace);
        self.ended(lifted.as_ref());
        lifted
    }

    /// Notes that nothing counts against a target for `grace` from now.
    ///
    /// # Errors
    /// When the book is full of others.
    pub fn spare(
        &mut self,
        target: Target,
        grace: std::time::Duration,
        now_ns: u64,
    ) -> Result<(), Full> {
        self.make_room(&target, now_ns)?;
        let entry = self.entries.entry(target).or_insert(Entry {
            ban: None,
            level: 0,
            ended_ns: now_ns,
            grace_ns: 0,
        });
        entry.grace_ns = after(now_ns, grace);
        Ok(())
    }

    /// Looks at the next entries of the round: returns bans that are over, and forgets levels whose
    /// time has come.
    pub fn sweep(&mut self, policy: &BanPolicy, now_ns: u64) -> Vec<Ban> {
        let mut over = Vec::new();
        for _ in 0..SLICE.min(self.entries.len()) {
            if self.next >= self.entries.len() {
                self.next = 0;
            }
            let Some((_, entry)) = self.entries.get_index_mut(self.next) else {
                break;
            };
            let ended = entry.ban.take_if(|ban| ban.until_ns <= now_ns);
            let is_forgotten = entry.ban.is_none()
                && after(entry.ended_ns, policy.forget) <= now_ns
                && entry.grace_ns <= now_ns;
            // A lifted ban leaves no level behind.
            let is_blank = entry.ban.is_none() && entry.level == 0 && entry.grace_ns <= now_ns;
            if is_forgotten || is_blank {
                self.entries.swap_remove_index(self.next);
            } else {
                self.next += 1;
            }
            self.ended(ended.as_ref());
            over.extend(ended);
        }
        over
    }

    /// How many bans of this target make the next one longer.
    pub fn level(&self, target: &Target, policy: &BanPolicy, now_ns: u64) -> u32 {
        self.entries
            .get(target)
            .filter(|entry| after(entry.ended_ns, policy.forget) > now_ns)
            .map_or(0, |entry| entry.level)
    }

    fn blank(target: Target, duration: std::time::Duration, level: u32, clock: &Clock) -> Ban {
        let (now_ns, now_unix_ms) = (clock.monotonic_ns(), clock.unix_ms());
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Ban {
            target,
            since_unix_ms: now_unix_ms,
            until_unix_ms: now_unix_ms.saturating_add(duration_ms),
            until_ns: after(now_ns, duration),
            level,
            decided: Decided::ByPolicy,
            why: String::new(),
            enforced: true,
            evidence: Vec::new(),
        }
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
        let entry = Entry {
            level: ban.level,
            ended_ns: ban.until_ns,
            grace_ns: 0,
            ban: Some(ban.clone()),
        };
        let before = self.entries.insert(ban.target, entry);
        self.ended(before.and_then(|entry| entry.ban).as_ref());
        self.active += 1;
        self.networks += usize::from(matches!(ban.target, Target::Network(_)));
        Ok(ban)
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
            let gives_way = entry.ban.is_none() && entry.grace_ns <= now_ns;
            gives_way.then_some((entry.ended_ns, index))
        });
        let (_, index) = looked_at.min().ok_or(Full)?;
        self.entries.swap_remove_index(index);
        Ok(())
    }

    fn ended(&mut self, ban: Option<&Ban>) {
        if let Some(ban) = ban {
            self.active -= 1;
            self.networks -= usize::from(matches!(ban.target, Target::Network(_)));
        }
    }
}

fn after(now_ns: u64, duration: std::time::Duration) -> u64 {
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    now_ns.saturating_add(ns)
}
