//! One group: who its members are, and in which state it is (KIP-62's classic protocol).
//!
//! ```text
//!   Empty ──join──→ PreparingRebalance ──all joined, or out of time──→ CompletingRebalance
//!     ↑                 ↑        │                                        │
//!     └──nobody left────│────────┘          the leader's sync, on disk ───┘
//!                       └──────────── Stable ←────────────────────────────┘
//! ```
//!
//! What happens to it is in [`super::rebalance`] and [`super::offsets`].

use std::collections::{BTreeMap, HashMap};

use indexmap::IndexMap;

use super::{
    ask::{Join, JoinedMember, Who, WriteId},
    member::{Member, choose},
    offsets::Offsets,
    record::{GroupValue, MemberValue},
};
use crate::kafka::ErrorCode;

/// Members a group may have, with those that were only given an id.
pub(crate) const MEMBERS_MAX: usize = 250;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No members; it may have offsets.
    Empty,
    /// Members are waited for until then.
    Preparing {
        until_ms: u64,
        /// Of the first rebalance of a group: how long it may still be put off for more members.
        first: Option<First>,
    },
    /// There is a generation; its assignments are waited for until then, and then for the disk.
    Completing {
        until_ms: u64,
        write: Option<WriteId>,
    },
    /// Everybody can know its assignment; who has not asked for it until then is no member any more.
    Stable { until_ms: Option<u64> },
    /// It is being deleted.
    Dead { write: WriteId },
}

/// The first rebalance of a group waits for members that come one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First {
    pub(super) left_ms: u64,
    /// Somebody came since it was last put off.
    pub(super) has_newcomer: bool,
}

impl State {
    /// As Kafka calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing { .. } => "PreparingRebalance",
            Self::Completing { .. } => "CompletingRebalance",
            Self::Stable { .. } => "Stable",
            Self::Dead { .. } => "Dead",
        }
    }
}

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) state: State,
    /// Since when it is `Empty`, in Unix milliseconds; -1 where that is not known.
    pub(super) since_unix_ms: i64,
    /// None as long as it never had members.
    pub(super) protocol_type: Option<String>,
    pub(super) generation: i32,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    /// By id, the oldest first.
    pub(super) members: IndexMap<String, Member>,
    /// Ids of static members, by instance.
    statics: HashMap<String, String>,
    /// Ids that were given and not used yet: when they are forgotten.
    pub(super) pending: BTreeMap<String, u64>,
    pub(super) offsets: Offsets,
}

impl Group {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            state: State::Empty,
            since_unix_ms: -1,
            protocol_type: None,
            generation: 0,
            protocol: None,
            leader: None,
            members: IndexMap::new(),
            statics: HashMap::new(),
            pending: BTreeMap::new(),
            offsets: Offsets::default(),
        }
    }

    /// A group as the log remembers it. Its members' sessions begin now.
    pub(super) fn restored(name: String, value: GroupValue, now_ms: u64) -> Self {
        let mut group = Self::new(name);
        group.since_unix_ms = value.since_unix_ms;
        group.generation = value.generation;
        group.leader = value.leader;
        group.protocol = value.protocol;
        group.protocol_type = Some(value.protocol_type);
        let protocol = group.protocol.clone().unwrap_or_default();
        for value in value.members {
            let join = Join {
                who: Who {
                    member: String::new(),
                    instance: value.instance,
                },
                client_id: value.client_id,
                host: value.host,
                session_timeout_ms: value.session_timeout_ms,
                rebalance_timeout_ms: value.rebalance_timeout_ms,
                protocols: vec![(protocol.clone(), value.subscription)],
                ..Join::default()
            };
            let mut member = Member::new(value.id, &join, true);
            member.is_new = false;
            member.assignment = value.assignment;
            member.touch(now_ms);
            group.put(member);
        }
        if !group.members.is_empty() {
            group.state = State::Stable { until_ms: None };
        }
        group
    }

    /// What the log is to remember of it, with these assignments.
    pub(super) fn value(&self, assignment_of: impl Fn(&Member) -> bytes::Bytes) -> GroupValue {
        let protocol = self.protocol.clone().unwrap_or_default();
        let signed = |ms: u64| i32::try_from(ms).unwrap_or(i32::MAX);
        let members = self.members.values().map(|member| MemberValue {
            id: member.who.member.clone(),
            instance: member.who.instance.clone(),
            client_id: member.client_id.clone(),
            host: member.host.clone(),
            rebalance_timeout_ms: signed(member.rebalance_timeout_ms),
            session_timeout_ms: signed(member.session_timeout_ms),
            subscription: member.metadata(&protocol),
            assignment: assignment_of(member),
        });
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since_unix_ms: self.since_unix_ms,
            members: members.collect(),
        }
    }

    /// Takes a member in; the first one decides of which kind the group is.
    pub(super) fn put(&mut self, member: Member) {
        let id = member.who.member.clone();
        if let Some(instance) = &member.who.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.pending.remove(&id);
        self.members.insert(id, member);
    }

    /// Takes a member out; another leads where it did.
    pub(super) fn take(&mut self, id: &str) -> Option<Member> {
        let member = self.members.shift_remove(id)?;
        if let Some(instance) = &member.who.instance {
            self.statics.remove(instance);
        }
        if self.leads(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Gives a static member's place to the same instance under a new id.
    pub(super) fn replace(&mut self, old: &str, new: &str) {
        let led = self.leads(old);
        let Some(mut member) = self.members.shift_remove(old) else {
            return;
        };
        new.clone_into(&mut member.who.member);
        if led {
            self.leader = Some(new.to_owned());
        }
        self.put(member);
    }

    pub(super) fn leads(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    /// The id under which a static member is known.
    pub(super) fn static_member(&self, instance: &str) -> Option<&String> {
        self.statics.get(instance)
    }

    /// Whether who asks is a member, and the one that it says.
    pub(super) fn check(&self, who: &Who) -> Result<(), ErrorCode> {
        if let Some(instance) = &who.instance {
            match self.static_member(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(id) if *id != who.member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        match self.members.contains_key(&who.member) {
            true => Ok(()),
            false => Err(ErrorCode::UnknownMemberId),
        }
    }

    /// The same, and of this generation.
    pub(super) fn check_in(&self, who: &Who, generation: i32) -> Result<(), ErrorCode> {
        self.check(who)?;
        match generation == self.generation {
            true => Ok(()),
            false => Err(ErrorCode::IllegalGeneration),
        }
    }

    /// Whether who joins has a protocol with everybody else in common.
    pub(super) fn fits(&self, join: &Join) -> bool {
        let mut protocols = join.protocols.iter();
        if self.members.is_empty() {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(join.protocol_type.as_str())
            && protocols.any(|(name, _)| self.members.values().all(|member| member.speaks(name)))
    }

    /// Whether there is room for who joins.
    pub(super) fn has_room_for(&self, id: &str) -> bool {
        self.members.contains_key(id)
            || self.pending.contains_key(id)
            || self.members.len() + self.pending.len() < MEMBERS_MAX
    }

    /// The protocol that members would agree on now.
    pub(super) fn choose(&self) -> Option<String> {
        choose(&self.members.values())
    }

    /// How long members may take to join: as long as the slowest of them asks for.
    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        let timeouts = self.members.values().map(|one| one.rebalance_timeout_ms);
        timeouts.max().unwrap_or(0)
    }

    /// Whether nobody is waited for any more.
    pub(super) fn have_all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some())
    }

    /// All members, as the leader is told of them.
    pub(super) fn told(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let told = |member: &Member| JoinedMember {
            who: member.who.clone(),
            metadata: member.metadata(protocol),
        };
        self.members.values().map(told).collect()
    }

    /// When something becomes of it by itself.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let state = match self.state {
            State::Preparing { until_ms, .. } | State::Completing { until_ms, .. } => {
                Some(until_ms)
            }
            State::Stable { until_ms } => until_ms,
            State::Empty | State::Dead { .. } => None,
        };
        let sessions = self.members.values().filter(|member| member.can_expire());
        let sessions = sessions.map(|member| member.due_ms).min();
        let pending = self.pending.values().min().copied();
        [state, sessions, pending].into_iter().flatten().min()
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty() && self.offsets.is_empty()
    }

    /// Bytes that it takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        let members: usize = self.members.values().map(Member::bytes).sum();
        let pending: usize = self.pending.keys().map(|id| id.len() + 64).sum();
        size_of::<Self>() + 2 * self.name.len() + members + pending + self.offsets.bytes()
    }
}
