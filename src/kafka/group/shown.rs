//! What is told of groups: to clients that describe them, and to everybody who looks in.

use bytes::Bytes;

use super::{
    classic::{Group, State},
    coordinator::Coordinator,
    member::Member,
};

/// A group, as lists name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) group: String,
    pub(crate) protocol_type: String,
    pub(crate) state: &'static str,
}

impl Listed {
    pub(super) fn all(groups: &Coordinator) -> Vec<Self> {
        let listed = |group: &Group| Self {
            group: group.name.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state.name(),
        };
        groups.groups().map(listed).collect()
    }
}

/// A group and its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) state: &'static str,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<DescribedMember>,
}

/// A member; metadata and assignment only while the group is stable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedMember {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) host: String,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

impl Described {
    /// There is no such group.
    pub(crate) fn dead() -> Self {
        Self {
            state: "Dead",
            ..Self::unknown()
        }
    }

    /// Nothing is told of it.
    pub(crate) fn unknown() -> Self {
        Self {
            state: "",
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        }
    }

    pub(super) fn of(groups: &Coordinator, name: &str) -> Option<Self> {
        let group = groups.group(name)?;
        let is_stable = matches!(group.state, State::Stable { .. });
        let protocol = group
            .protocol
            .clone()
            .filter(|_| is_stable)
            .unwrap_or_default();
        let metadata = |member: &Member| match is_stable {
            true => member.metadata(&protocol),
            false => Bytes::new(),
        };
        let members = group.members.values().map(|member| DescribedMember {
            id: member.who.member.clone(),
            instance: member.who.instance.clone(),
            client_id: member.client_id.clone(),
            host: member.host.clone(),
            metadata: metadata(member),
            assignment: match is_stable {
                true => member.assignment.clone(),
                false => Bytes::new(),
            },
        });
        Some(Self {
            state: group.state.name(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol,
        })
    }
}

/// All groups, as they were a moment ago.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupsShown {
    /// By name.
    pub groups: Vec<GroupShown>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupShown {
    /// Its name.
    pub name: String,
    /// As Kafka calls it: `Stable`, `Empty`, …
    pub state: &'static str,
    /// Its generation.
    pub generation: i32,
    /// How its members assign; empty where they have not agreed.
    pub protocol: String,
    /// Its members, the oldest first.
    pub members: Vec<MemberShown>,
    /// How far it is, by topic and partition.
    pub offsets: Vec<OffsetShown>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberShown {
    /// Its id.
    pub id: String,
    /// `group.instance.id`, where it is a static one.
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it comes from.
    pub host: String,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetShown {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset that is to be read.
    pub offset: i64,
    /// When it was committed, in Unix milliseconds.
    pub committed_unix_ms: i64,
    /// The time of the first record from there on, in Unix milliseconds, to a batch; none where there is no
    /// such record, or it is not known yet.
    pub first_unix_ms: Option<i64>,
}

impl GroupsShown {
    /// All but the times of records.
    pub(super) fn of(groups: &Coordinator) -> Self {
        Self {
            groups: groups.groups().map(GroupShown::of).collect(),
        }
    }
}

impl GroupShown {
    fn of(group: &Group) -> Self {
        let member = |member: &Member| MemberShown {
            id: member.who.member.clone(),
            instance: member.who.instance.clone(),
            client_id: member.client_id.clone(),
            host: member.host.clone(),
        };
        let offsets = group.offsets.iter().map(|(of, committed)| OffsetShown {
            topic: of.topic.clone(),
            partition: of.partition,
            offset: committed.offset,
            committed_unix_ms: committed.unix_ms,
            first_unix_ms: None,
        });
        Self {
            name: group.name.clone(),
            state: group.state.name(),
            generation: group.generation,
            protocol: group.protocol.clone().unwrap_or_default(),
            members: group.members.values().map(member).collect(),
            offsets: offsets.collect(),
        }
    }
}
