//! Records that are on their way to the disk, and what becomes true when they are there.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::ask::{Committed, Effect, Now, Ticket, TopicPartition, Write, WriteId};
use crate::kafka::ErrorCode;

/// Writes that may be under way, and their bytes; beyond them groups are told to come again.
const WRITES_MAX: usize = 1_024;
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long an answer waits for the disk (`offsets.commit.timeout.ms`).
pub(super) const WRITE_TIMEOUT_MS: u64 = 5_000;

/// Why records were not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// They are more than the topic takes at once.
    TooLarge,
    /// The disk failed, is full or slow, or the log is being closed.
    NotNow,
}

/// What becomes true when records are on disk.
#[derive(Debug)]
pub(super) enum What {
    /// Nothing that is not true already.
    Noted,
    /// The members' assignments.
    Assigned {
        generation: i32,
        assignments: HashMap<String, Bytes>,
    },
    /// A static member has another id; who waits for that, and who led before.
    Replaced {
        ticket: Ticket,
        member: String,
        leader_before: String,
    },
    /// Offsets are committed.
    Committed {
        ticket: Option<Ticket>,
        offsets: Vec<(TopicPartition, Committed)>,
        codes: Vec<ErrorCode>,
    },
    /// Offsets are forgotten.
    Forgotten {
        ticket: Option<Ticket>,
        offsets: Vec<TopicPartition>,
        codes: Vec<ErrorCode>,
    },
    /// The group is gone.
    Deleted { ticket: Option<Ticket> },
}

#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) group: String,
    bytes: usize,
    /// Until then it is waited for.
    until_ms: Option<u64>,
    pub(super) what: What,
}

/// All that is under way, in the order in which it is appended.
#[derive(Debug, Default)]
pub(super) struct Writes {
    next: u64,
    bytes: usize,
    under_way: BTreeMap<WriteId, UnderWay>,
}

impl Writes {
    /// Ends a write.
    pub(super) fn end(&mut self, id: WriteId) -> Option<UnderWay> {
        let ended = self.under_way.remove(&id)?;
        self.bytes -= ended.bytes;
        Some(ended)
    }

    pub(super) fn of<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a UnderWay> {
        self.under_way
            .values()
            .filter(move |one| one.group == group)
    }

    pub(super) fn due_ms(&self) -> Option<u64> {
        self.under_way.values().filter_map(|one| one.until_ms).min()
    }

    /// Those that are waited for no more, though what they write may still come to the disk.
    pub(super) fn late(&mut self, now_ms: u64) -> Vec<WriteId> {
        let late = self.under_way.iter_mut();
        let late = late.filter(|(_, one)| one.until_ms.is_some_and(|until| until <= now_ms));
        late.map(|(id, one)| {
            one.until_ms = None;
            *id
        })
        .collect()
    }

    pub(super) fn get_mut(&mut self, id: WriteId) -> Option<&mut UnderWay> {
        self.under_way.get_mut(&id)
    }

    pub(super) fn count(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// One thing that happens: when, and what comes of it.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) effects: &'a mut Vec<Effect>,
    pub(super) writes: &'a mut Writes,
}

/// A record's key and value.
pub(super) type Record = (Vec<u8>, Option<Vec<u8>>);

/// Bytes that records take, and more rather than less.
pub(super) fn bytes_of(records: &[Record]) -> usize {
    let of = |(key, value): &Record| key.len() + value.as_ref().map_or(0, Vec::len) + 64;
    records.iter().map(of).sum()
}

impl Turn<'_> {
    /// Has records written, or says that there is no room for them now.
    pub(super) fn write(
        &mut self,
        group: &str,
        records: Vec<Record>,
        what: What,
    ) -> Result<WriteId, What> {
        let bytes = bytes_of(&records);
        if self.writes.count() >= WRITES_MAX || self.writes.bytes + bytes > BYTES_MAX {
            return Err(what);
        }
        self.writes.next += 1;
        let id = WriteId(self.writes.next);
        let under_way = UnderWay {
            group: group.to_owned(),
            bytes,
            until_ms: Some(self.now.ms.saturating_add(WRITE_TIMEOUT_MS)),
            what,
        };
        self.writes.bytes += bytes;
        self.writes.under_way.insert(id, under_way);
        self.effects.push(Effect::Write(Write {
            id,
            group: group.to_owned(),
            records,
        }));
        Ok(id)
    }
}
