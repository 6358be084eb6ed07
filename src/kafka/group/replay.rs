//! Groups as the log remembers them: `__consumer_offsets` from its beginning, a chunk at a time.

use std::{collections::VecDeque, sync::Arc};

use super::{
    ages::Ages,
    ask::Now,
    coordinator::{Coordinator, Ids, Restored},
    owner::TOPIC,
    record::{self, Key},
    shown::GroupsShown,
};
use crate::{
    base::clock::Clock,
    log::{Partition, ReadError, Replay as Reading, Replayed, View},
};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// What is still to be read.
#[derive(Debug)]
pub(super) struct Replay {
    left: VecDeque<Reading>,
    scratch: Vec<u8>,
    /// Records that were taken back, and what could not be: unreadable ones, those without room, damaged
    /// batches and stretches.
    pub(super) records: u64,
    pub(super) lost: u64,
}

impl Replay {
    pub(super) fn new(partitions: impl Iterator<Item = Arc<Partition>>) -> Self {
        Self {
            left: partitions.map(Reading::of).collect(),
            scratch: Vec::new(),
            records: 0,
            lost: 0,
        }
    }

    /// Takes back one chunk.
    ///
    /// # Errors
    /// When the disk fails. It may be tried again.
    pub(super) fn step(&mut self, into: &mut Coordinator, now: Now) -> Result<Step, ReadError> {
        let Some(reading) = self.left.front_mut() else {
            return Ok(Step::Over);
        };
        let batches = match reading.step(CHUNK_BYTES)? {
            Replayed::Batches(batches) => batches,
            Replayed::Damaged(base) => {
                self.lost += 1;
                return Ok(Step::Damaged(Arc::clone(reading.partition()), base));
            }
            Replayed::Over => {
                self.left.pop_front();
                return Ok(Step::More);
            }
        };
        let mut rest = batches.as_slice();
        while let Ok((view, after)) = View::read(rest) {
            rest = after;
            let Ok(records) = view.records(&mut self.scratch) else {
                self.lost += 1;
                continue;
            };
            for record in records {
                let taken = record
                    .ok()
                    .and_then(|record| take_back(record.key, record.value, into, now));
                match taken {
                    Some(()) => self.records += 1,
                    None => self.lost += 1,
                }
            }
        }
        Ok(Step::More)
    }
}

/// What a step came to.
#[derive(Debug)]
pub(super) enum Step {
    /// There is more.
    More,
    /// The segment with this base offset is to be mended; where it is not, what is damaged is passed over.
    Damaged(Arc<Partition>, i64),
    /// All was taken back.
    Over,
}

/// The groups that a log of these partitions remembers, for who looks at the files of one that nobody writes.
pub fn groups_in(partitions: &[Arc<Partition>], clock: &Clock) -> GroupsShown {
    let now = Now {
        ms: clock.monotonic_ns() / 1_000_000,
        ..Now::default()
    };
    let mut groups = Coordinator::new(Ids(Box::new(|| 0)));
    let is_ours = |partition: &&Arc<Partition>| partition.topic().name == TOPIC;
    let mut replay = Replay::new(partitions.iter().filter(is_ours).cloned());
    // What cannot be read is not shown.
    while let Ok(Step::More | Step::Damaged(..)) = replay.step(&mut groups, now) {}
    let mut shown = GroupsShown::of(&groups);
    let find = |topic: &str, index| {
        let is_it = |one: &&Arc<Partition>| one.index() == index && one.topic().name == topic;
        partitions.iter().find(is_it).cloned()
    };
    Ages::default().add_to(&mut shown, find);
    shown
}

/// Takes one record back; none where that cannot be done.
fn take_back(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    into: &mut Coordinator,
    now: Now,
) -> Option<()> {
    let Some(key) = record::read_key(key?).ok()? else {
        // Of a kind that only later Kafkas write.
        return Some(());
    };
    let value = match (&key, value) {
        (_, None) => None,
        (Key::Offset(..), Some(value)) => Some(Restored::Offset(record::read_offset(value).ok()?)),
        (Key::Group(_), Some(value)) => Some(Restored::Group(record::read_group(value).ok()?)),
    };
    into.restore(now, key, value).ok()
}
