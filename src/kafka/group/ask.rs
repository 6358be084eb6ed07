//! What members and tools ask of the coordinator, and what it answers.

use bytes::Bytes;

use crate::kafka::ErrorCode;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// What time it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Now {
    /// Milliseconds of the monotonic clock: deadlines.
    pub(crate) ms: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z: stamps.
    pub(crate) unix_ms: i64,
    /// Whether the wall clock may decide what is old enough to be forgotten.
    pub(crate) is_believed: bool,
}

/// A member as it calls itself. An empty `member` is one that has no id yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) member: String,
    /// `group.instance.id` of a static member (KIP-345).
    pub(crate) instance: Option<String>,
}

/// Asks to be a member of the group's next generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Join {
    pub(crate) group: String,
    pub(crate) who: Who,
    pub(crate) client_id: String,
    pub(crate) host: String,
    pub(crate) session_timeout_ms: i32,
    pub(crate) rebalance_timeout_ms: i32,
    /// `consumer`, `connect`, …: opaque.
    pub(crate) protocol_type: String,
    /// By preference: names, and what the member says of itself, which is opaque.
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// Whether a new member is given its id first, and is to join again with it (KIP-394).
    pub(crate) needs_known_id: bool,
    /// Whether the member can be told to lead without assigning (KIP-814).
    pub(crate) can_skip_assignment: bool,
}

/// A member, as its leader is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) who: Who,
    pub(crate) metadata: Bytes,
}

/// The answer to [`Join`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) error: ErrorCode,
    /// -1 where there is none.
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) skip_assignment: bool,
    pub(crate) member: String,
    /// For the leader alone.
    pub(crate) members: Vec<JoinedMember>,
}

impl Joined {
    pub(crate) fn refused(member: &str, error: ErrorCode) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member: member.to_owned(),
            members: Vec::new(),
        }
    }
}

/// Asks for the member's assignment; the leader brings everybody's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sync {
    pub(crate) group: String,
    pub(crate) generation: i32,
    pub(crate) who: Who,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    /// By member.
    pub(crate) assignments: Vec<(String, Bytes)>,
}

/// The answer to [`Sync`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) error: ErrorCode,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

impl Synced {
    pub(crate) fn refused(error: ErrorCode) -> Self {
        Self {
            error,
            protocol_type: None,
            protocol: None,
            assignment: Bytes::new(),
        }
    }
}

/// A member that lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) group: String,
    pub(crate) generation: i32,
    pub(crate) who: Who,
}

/// Members that leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leave {
    pub(crate) group: String,
    pub(crate) members: Vec<Who>,
}

/// A partition of a topic, by name. Whether there is such a one is not asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TopicPartition {
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The next offset that is to be read.
    pub(crate) offset: i64,
    /// Of the leader that the record before it came from; -1 where the client does not say.
    pub(crate) leader_epoch: i32,
    /// Whatever the client keeps with it.
    pub(crate) metadata: String,
    /// When it was committed, in Unix milliseconds.
    pub(crate) unix_ms: i64,
}

/// Asks to keep how far the group is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) group: String,
    /// -1 for one who is no member.
    pub(crate) generation: i32,
    pub(crate) who: Who,
    pub(crate) offsets: Vec<(TopicPartition, Committed)>,
}

/// What the coordinator wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The answer to a join.
    Joined(Ticket, Joined),
    /// The answer to a sync.
    Synced(Ticket, Synced),
    /// The answer to a commit or a deletion: a code for each part of it, in its order.
    Answered(Ticket, Vec<ErrorCode>),
    /// Records for the partition of `__consumer_offsets` that is this group's. What became of them is to be
    /// told by [`super::Coordinator::written`].
    Write(Write),
}

/// Records that are to be kept, all of them or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) id: WriteId,
    pub(crate) group: String,
    /// Keys and values; one without a value is a tombstone.
    pub(crate) records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// One write, in the order in which they are to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WriteId(pub(crate) u64);
