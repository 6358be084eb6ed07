//! What is remembered of a client or a network, and how it is told so that it can be had back.

use std::{borrow::Cow, sync::Arc};

use arc_swap::ArcSwapOption;

use super::{
    act::{Answer, Done, NotDone},
    ban::{Decided, Target},
    facts::Violation,
};
use crate::{
    base::{hlc::Hlc, id::RequestId, node::NodeName},
    event::{
        ban::{BanState, Kind, State},
        exchange::decided,
    },
};

/// All that is remembered of one client or network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// What became of the last ban.
    pub state: State,
    /// The how-manieth it is; 0 where what led to it is forgotten.
    pub level: u32,
    /// When it began, in milliseconds since 1970, as all moments here.
    pub since_unix_ms: u64,
    /// When it ends, or would have. The same as the beginning where there was no ban.
    pub until_unix_ms: u64,
    /// When it came to its end, one way or the other.
    pub ended_unix_ms: Option<u64>,
    /// Until when nothing counts.
    pub grace_until_unix_ms: Option<u64>,
    /// Who decided it.
    pub decided: Decided,
    /// Why.
    pub why: String,
    /// The last request that led to it.
    pub request: Option<RequestId>,
    /// Which node decided it and when, where there are several.
    pub stamp: Stamp,
}

/// Who decided something, and when, in the order of all nodes: of two decisions about one target, the
/// higher one holds on every node, whichever comes there first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// When, by the cluster's clock; zero for what nobody decided.
    pub hlc: Hlc,
    /// Which node; none where there is no cluster.
    pub node: Option<NodeName>,
}

impl Stamp {
    /// Whether it is a decision that others have to know of.
    pub fn counts(&self) -> bool {
        self.node.is_some() && self.hlc > Hlc::ZERO
    }
}

/// What stands for the policy where operators are named.
const POLICY: &str = "policy";

impl Decided {
    /// Who, in a word.
    pub fn name(&self) -> &str {
        match self {
            Self::ByPolicy => POLICY,
            Self::By(actor) => actor,
        }
    }
}

impl Memory {
    /// Whether there ever was a ban, and not a time of grace alone.
    pub fn has_ban(&self) -> bool {
        self.until_unix_ms > self.since_unix_ms
    }

    /// The record that says so at `unix_ms`.
    pub fn record(&self, target: &Target, unix_ms: u64) -> BanState<'_> {
        let of_ban = |unix_ms| self.has_ban().then_some(unix_ms);
        let request = self.request.as_ref();
        let node = self.stamp.node.as_ref();
        BanState {
            unix_ms,
            target: target.to_string().into(),
            kind: match target {
                Target::Client(_) => Kind::Client,
                Target::Network(_) => Kind::Network,
            },
            state: self.state,
            level: self.level,
            since_unix_ms: of_ban(self.since_unix_ms),
            until_unix_ms: of_ban(self.until_unix_ms),
            ended_unix_ms: self.ended_unix_ms,
            grace_until_unix_ms: self.grace_until_unix_ms,
            why: Cow::Borrowed(&self.why),
            by: Cow::Borrowed(self.decided.name()),
            request: request.map(|id| String::from_utf8_lossy(id.as_bytes())),
            node: node.map(|node| Cow::Borrowed(node.as_str())),
            hlc: node.map(|_| self.stamp.hlc),
        }
    }
}

impl From<BanState<'_>> for Memory {
    fn from(record: BanState<'_>) -> Self {
        let since_unix_ms = record.since_unix_ms.unwrap_or(record.unix_ms);
        let request = record.request.as_deref();
        let node = record.node.as_deref().and_then(|node| node.parse().ok());
        let stamp = Stamp {
            hlc: node.as_ref().map_or(Hlc::ZERO, |_| decided(&record)),
            node,
        };
        Self {
            state: record.state,
            level: record.level,
            since_unix_ms,
            until_unix_ms: record.until_unix_ms.unwrap_or(since_unix_ms),
            ended_unix_ms: record.ended_unix_ms,
            grace_until_unix_ms: record.grace_until_unix_ms,
            decided: match record.by {
                by if by == POLICY => Decided::ByPolicy,
                by => Decided::By(by.into_owned()),
            },
            why: record.why.into_owned(),
            request: request.and_then(|id| RequestId::read(id.as_bytes())),
            stamp,
        }
    }
}

/// What happened to a ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It began.
    Began,
    /// It came to its end.
    Expired,
    /// Somebody lifted it.
    Lifted,
    /// Somebody had what led to it forgotten, or nothing counts for a while; there was no ban.
    Spared,
    /// Nothing is remembered any more.
    Forgotten,
    /// Another node's decision that changes nothing for requests.
    Noted,
}

impl Change {
    /// The change's public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Began => "ban",
            Self::Expired => "expire",
            Self::Lifted => "unban",
            Self::Spared => "spare",
            Self::Forgotten => "forget",
            Self::Noted => "note",
        }
    }
}

/// One change, as it is told.
#[derive(Debug)]
pub struct Told {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What.
    pub change: Change,
    /// Whose ban.
    pub target: Target,
    /// Whether it holds, or would if the policy were enforced: that is remembered nowhere.
    pub enforced: bool,
    /// What was remembered before.
    pub before: Option<Memory>,
    /// What is remembered now; none when that is nothing.
    pub after: Option<Memory>,
    /// The violations that led to it, oldest first.
    pub evidence: Vec<Violation>,
    /// Who waits for it to be on disk.
    pub receipt: Option<Receipt>,
    /// The other node that decided it.
    pub elsewhere: Option<NodeName>,
}

impl Told {
    /// Who did it: the policy, an operator, the clock, or another node.
    pub fn actor(&self) -> Cow<'_, str> {
        if let Some(node) = &self.elsewhere {
            return Cow::Owned(format!("cluster:{node}"));
        }
        Cow::Borrowed(match (self.change, &self.after) {
            (Change::Expired | Change::Forgotten, _) | (_, None) => "clock",
            (Change::Began | Change::Lifted | Change::Spared | Change::Noted, Some(memory)) => {
                memory.decided.name()
            }
        })
    }
}

/// Where changes of bans are told.
pub trait Publish: Send + 'static {
    /// How many changes would be taken now. Only the owner makes it less.
    fn room(&self) -> usize;

    /// Takes a change, without waiting.
    ///
    /// # Errors
    /// Hands it back when there is no room.
    fn tell(&mut self, told: Box<Told>) -> Result<(), Box<Told>>;

    /// Why what was told does not get onto the disk, while it does not.
    fn trouble(&self) -> Arc<Trouble>;
}

/// Why what was decided is not on disk, while it is not. Written by whoever writes it there.
#[derive(Debug, Default)]
pub struct Trouble(ArcSwapOption<String>);

impl Trouble {
    /// Says what the trouble is, or that there is none.
    pub fn set(&self, words: Option<String>) {
        self.0.store(words.map(Arc::new));
    }

    /// What it is.
    pub fn words(&self) -> Option<Arc<String>> {
        self.0.load_full()
    }
}

/// Owed to an operator who waits: the answer, once what was done is on disk.
#[derive(Debug)]
pub struct Receipt {
    answer: Answer,
    result: Result<Done, NotDone>,
}

impl Receipt {
    /// For who waits for `answer`; what was done is in force already.
    pub(super) fn new(answer: Answer, result: Result<Done, NotDone>) -> Self {
        answer.is_decided();
        Self { answer, result }
    }

    /// It is on disk.
    pub fn kept(self) {
        self.answer.give(self.result);
    }

    /// It is not, and nobody knows when it will be.
    pub fn not_kept(self, why: impl Into<String>) {
        let why = why.into();
        self.answer.give(Err(NotDone::NotKept { why }));
    }
}
