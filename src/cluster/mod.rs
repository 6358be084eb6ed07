//! This node among others: what the mirror tells of them, and what they are told.
//!
//! Nothing here speaks with the cluster, and nothing waits for it: without the mirror, this is a node by
//! itself. [`Cluster::hear`] reads what the mirror brings; the owner does what is to be done;
//! [`Cluster::answer`] says what other nodes are to know. Whatever comes twice counts once.

mod carry;
mod names;
#[cfg(test)]
mod tests;
mod window;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;

use carry::Carry;
use names::Names;
use window::Windows;

use crate::{
    base::{clock::Clock, node::NodeName},
    event::{
        ban::{BanState, Kind},
        exchange::{
            Answer, BANS_MAX, BanRecord, Number, Part, Refused, Report, Told, USAGE_MAX, Usage,
            ban_key, decided, read_ban_key,
        },
    },
    guard::policy::Policy,
    limit::spending::Spendings,
    owner::{Decision, Hearing, Memory, SpentElsewhere, Target},
};

/// A mirror that has not been heard of for so long is taken for gone, in milliseconds.
pub const SILENT_MS: u64 = 5_000;

/// What clients spent here is told within this time, in milliseconds.
const TOLD_WITHIN_MS: u64 = 10_000;

/// What clients spent elsewhere longer ago than this is not counted, in milliseconds.
const LATE_MS: u64 = 60_000;

/// Refusals that are told of one exchange.
const REFUSED_MAX: usize = 20;

/// What is counted of exchanges; relaxed, since each number stands for itself.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Exchanges that were answered.
    pub exchanges: AtomicU64,
    /// When the mirror was heard of last, in milliseconds of the monotonic clock; 0 for never.
    pub heard_ms: AtomicU64,
    /// Records of bans that could not be read.
    pub unreadable: AtomicU64,
    /// Batches of usage of other nodes that were counted.
    pub usage_counted: AtomicU64,
    /// Those that had been counted before, or came too late.
    pub usage_late: AtomicU64,
    /// What was spent elsewhere of limits that are not known here, or by clients that cannot be read.
    pub spent_unknown: AtomicU64,
    /// Requests that were admitted elsewhere, and count here.
    pub spent_heard: AtomicU64,
    /// Requests that were admitted here, and other nodes were told of.
    pub spent_told: AtomicU64,
    /// Requests that were admitted here, and no node will be told of.
    pub spent_lost: AtomicU64,
    /// Clients and limits of which there is more to tell.
    pub carried: AtomicU64,
}

fn add(number: &AtomicU64, more: u64) {
    number.fetch_add(more, Ordering::Relaxed);
}

/// What the mirror said last of itself.
#[derive(Debug, Clone)]
pub struct Heard {
    /// What it said.
    pub report: Report,
    /// When, in milliseconds of the monotonic clock.
    pub at_ms: u64,
}

/// This node's side of the cluster.
#[derive(Debug)]
pub struct Cluster {
    node: NodeName,
    shares_bans: bool,
    spendings: Option<Arc<Spendings>>,
    /// Written by exchanges, one after the other.
    heard: ArcSwapOption<Heard>,
    numbers: Numbers,
    state: tokio::sync::Mutex<State>,
    clock: Clock,
}

/// What one exchange after the other goes by.
#[derive(Debug)]
pub struct State {
    windows: Windows,
    carry: Carry,
    names: Names,
    /// The run of this process.
    run: u64,
    /// Batches that were made.
    made: u64,
    /// The one that the mirror has not taken yet.
    pending: Option<Usage>,
}

/// What of an exchange is the owner's.
#[derive(Debug, Default)]
pub struct Inbox {
    /// What other nodes decided.
    pub decisions: Vec<Decision>,
    /// Which part of a reading that is.
    pub part: Option<Part>,
    /// What clients spent there.
    pub spent: Vec<SpentElsewhere>,
    /// What could not be read.
    refused: Vec<Refused>,
    /// Batches of usage that count by it, and the requests in them.
    counted: Vec<(NodeName, Number)>,
    requests: u64,
    usage_taken: Option<Number>,
}

/// Told more than fits into an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch;

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "more than {BANS_MAX} bans or {USAGE_MAX} batches of usage: send several exchanges"
        )
    }
}

impl std::error::Error for TooMuch {}

impl Cluster {
    /// The side of `node`; `spendings` where it shares limits.
    pub fn new(
        node: NodeName,
        shares_bans: bool,
        spendings: Option<Arc<Spendings>>,
        clock: Clock,
    ) -> Self {
        let state = State {
            windows: Windows::default(),
            carry: Carry::default(),
            names: Names::default(),
            run: clock.unix_ms(),
            made: 0,
            pending: None,
        };
        Self {
            node,
            shares_bans,
            spendings,
            heard: ArcSwapOption::empty(),
            numbers: Numbers::default(),
            state: tokio::sync::Mutex::new(state),
            clock,
        }
    }

    /// What this node is called.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// Whether bans are shared.
    pub fn shares_bans(&self) -> bool {
        self.shares_bans
    }

    /// Whether limits are shared.
    pub fn shares_limits(&self) -> bool {
        self.spendings.is_some()
    }

    /// What is counted.
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// What the mirror said last of itself.
    pub fn heard(&self) -> Option<Arc<Heard>> {
        self.heard.load_full()
    }

    /// How long nothing has been heard of the mirror, in milliseconds; none where nothing ever was.
    pub fn silent_ms(&self) -> Option<u64> {
        let heard_ms = self.numbers.heard_ms.load(Ordering::Relaxed);
        (heard_ms > 0).then(|| self.now_ms().saturating_sub(heard_ms))
    }

    /// Requests that no other node will be told of.
    pub fn spent_lost(&self) -> u64 {
        let tables = self.spendings.as_ref().map_or(0, |all| all.lost());
        tables + self.numbers.spent_lost.load(Ordering::Relaxed)
    }

    /// The state of exchanges, held while one is under way: they come one after the other.
    pub async fn state(&self) -> tokio::sync::MutexGuard<'_, State> {
        self.state.lock().await
    }

    fn now_ms(&self) -> u64 {
        self.clock.monotonic_ns() / 1_000_000
    }

    /// Reads what the mirror tells; one IPv6 client is a network of this prefix.
    ///
    /// # Errors
    /// When it is more than fits into one exchange.
    pub fn hear(&self, told: Told, state: &mut State, prefix: u8) -> Result<Inbox, TooMuch> {
        if told.bans.len() > BANS_MAX || told.usage.len() > USAGE_MAX {
            return Err(TooMuch);
        }
        let at_ms = self.now_ms().max(1);
        self.numbers.heard_ms.store(at_ms, Ordering::Relaxed);
        if let Some(mut report) = told.report {
            report.bound();
            self.heard.store(Some(Arc::new(Heard { report, at_ms })));
        }
        let mut inbox = Inbox {
            part: told.bans_read.filter(|_| self.shares_bans),
            usage_taken: told.usage_taken,
            ..Inbox::default()
        };
        for record in told.bans.iter().filter(|_| self.shares_bans) {
            match decision(record, prefix) {
                Ok(decision) => inbox.decisions.extend(decision),
                Err(why) => {
                    add(&self.numbers.unreadable, 1);
                    inbox.refuse(&record.key, why);
                }
            }
        }
        if self.shares_limits() {
            for usage in told.usage {
                self.read_usage(usage, state, prefix, &mut inbox);
            }
        }
        Ok(inbox)
    }

    /// Reads one batch of usage, if it is another node's and was not counted before.
    fn read_usage(&self, usage: Usage, state: &mut State, prefix: u8, inbox: &mut Inbox) {
        let Usage { node, number, .. } = usage;
        if node == self.node {
            return;
        }
        let age_ms = self.clock.unix_ms().saturating_sub(usage.unix_ms);
        if age_ms > LATE_MS || !state.windows.is_new(&node, number) {
            add(&self.numbers.usage_late, 1);
            return;
        }
        state.windows.count(&node, number);
        inbox.counted.push((node, number));
        for spent in usage.spent {
            let limit = state.names.limit(&spent.limit);
            match (limit, Target::parse(&spent.client, prefix)) {
                (Some(limit), Ok(Target::Client(client))) => {
                    let spent = spent.spent.min(limit.quota.told_at_once_max());
                    let limit = *limit;
                    inbox.requests += u64::from(spent);
                    inbox.spent.push(SpentElsewhere {
                        client,
                        limit,
                        spent,
                    });
                }
                (None, _) | (_, Ok(Target::Network(_)) | Err(_)) => {
                    add(&self.numbers.spent_unknown, spent.spent.into());
                }
            }
        }
    }

    /// Takes back what the owner has not heard: it may come again.
    pub fn not_done(&self, inbox: &Inbox, state: &mut State) {
        for (node, number) in &inbox.counted {
            state.windows.uncount(node, *number);
        }
    }

    /// What is to be answered, once the owner has done its part.
    pub fn answer(&self, inbox: Inbox, hearing: Hearing, state: &mut State) -> Answer {
        let numbers = &self.numbers;
        add(&numbers.spent_heard, inbox.requests);
        add(&numbers.usage_counted, inbox.counted.len() as u64);
        let mut refused = inbox.refused;
        for (target, stamp, not) in hearing.refused {
            if refused.len() < REFUSED_MAX {
                let node = stamp.node.as_ref().map_or("", NodeName::as_str);
                refused.push(Refused {
                    key: ban_key(&target.to_string(), node),
                    why: not.to_string(),
                });
            }
        }
        let usage = self.usage(state, inbox.usage_taken);
        add(&numbers.exchanges, 1);
        Answer {
            usage,
            wants_bans: self.shares_bans && hearing.wants_all,
            next_read: hearing.next_read,
            refused,
        }
    }

    /// The batch that the mirror has to take: the one before, as long as it has not taken that.
    fn usage(&self, state: &mut State, taken: Option<Number>) -> Option<Usage> {
        let spendings = self.spendings.as_ref()?;
        let numbers = &self.numbers;
        let now_ns = self.clock.monotonic_ns();
        let carry = &mut state.carry;
        spendings.fetch(|table| {
            let last_ns = table.last_ns();
            for noted in table.drain() {
                if !carry.add(noted, last_ns) {
                    add(&numbers.spent_lost, noted.spent.into());
                }
            }
        });
        add(&numbers.spent_lost, carry.forget(now_ns));
        let unix_ms = self.clock.unix_ms();
        let has_taken = |usage: &mut Usage| taken == Some(usage.number);
        if let Some(usage) = state.pending.take_if(has_taken) {
            add(&numbers.spent_told, requests(&usage));
        }
        // Nobody fetched it in time.
        let is_old = |usage: &mut Usage| unix_ms.saturating_sub(usage.unix_ms) > TOLD_WITHIN_MS;
        if let Some(usage) = state.pending.take_if(is_old) {
            add(&numbers.spent_lost, requests(&usage));
        }
        if state.pending.is_none() {
            let spent = carry.take(&state.names);
            if !spent.is_empty() {
                state.made += 1;
                let number = Number {
                    run: state.run,
                    seq: state.made,
                };
                let node = self.node.clone();
                state.pending = Some(Usage {
                    node,
                    number,
                    unix_ms,
                    spent,
                });
            }
        }
        numbers.carried.store(carry.len() as u64, Ordering::Relaxed);
        state.pending.clone()
    }
}

impl State {
    /// Goes by the limits of this policy from now on.
    pub fn renew(&mut self, policy: &Policy) {
        self.names.renew(policy);
    }
}

impl Inbox {
    fn refuse(&mut self, key: &str, why: &str) {
        if self.refused.len() < REFUSED_MAX {
            let (key, why) = (key.to_owned(), why.to_owned());
            self.refused.push(Refused { key, why });
        }
    }
}

fn requests(usage: &Usage) -> u64 {
    let spent = usage.spent.iter();
    spent.map(|spent| u64::from(spent.spent)).sum()
}

/// What a record of the cluster's bans says; nothing for a tombstone.
///
/// # Errors
/// When it cannot be read, or its value is about somebody else than its key.
fn decision(record: &BanRecord, ipv6_prefix: u8) -> Result<Option<Decision>, &'static str> {
    let (target, node) = read_ban_key(&record.key).ok_or("the key is no target and node")?;
    let Some(value) = &record.value else {
        return Ok(None);
    };
    let state = BanState::read(value.as_bytes())
        .map_err(|_| "the value is no state of a ban that this version can read")?;
    if state.target != target {
        return Err("the value is about another target than the key");
    }
    if state
        .node
        .as_deref()
        .is_some_and(|own| own != node.as_str())
    {
        return Err("the value is of another node than the key");
    }
    let of =
        Target::parse(target, ipv6_prefix).map_err(|_| "the key names no client or network")?;
    if state.kind == Kind::Client && !matches!(of, Target::Client(_)) {
        return Err(
            "one client of that node is many here: give all nodes the same `client_ip.ipv6_prefix`",
        );
    }
    let told_unix_ms = state.unix_ms;
    let hlc = decided(&state);
    let mut memory = Memory::from(state);
    memory.stamp.hlc = hlc;
    memory.stamp.node = Some(node);
    Ok(Some(Decision {
        target: of,
        memory,
        told_unix_ms,
    }))
}
