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
    log::{Partition, ReadError, View},
};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// What is still to be read.
#[derive(Debug)]
pub(super) struct Replay {
    /// Partitions, the next offset of each, and where it ended when this began.
    left: VecDeque<(Arc<Partition>, i64, i64)>,
    scratch: Vec<u8>,
    /// Records that were taken back, and what could not be: unreadable ones, those without room, damaged
    /// batches and stretches.
    pub(super) records: u64,
    pub(super) lost: u64,
}

impl Replay {
    pub(super) fn new(partitions: impl Iterator<Item = Arc<Partition>>) -> Self {
        let whole = |partition: Arc<Partition>| {
            let (first, end) = (partition.log_start_offset(), partition.high_watermark());
            (partition, first, end)
        };
        Self {
            left: partitions.map(whole).collect(),
            scratch: Vec::new(),
            records: 0,
            lost: 0,
        }
    }

    /// Takes back one chunk; says whether there is more.
    ///
    /// # Errors
    /// When the disk fails. It may be tried again.
    pub(super) fn step(&mut self, into: &mut Coordinator, now: Now) -> Result<bool, ReadError> {
        let Some((partition, next, end)) = self.left.front_mut() else {
            return Ok(false);
        };
        let partition = Arc::clone(partition);
        let from = *next;
        let batches = match partition.read(from, CHUNK_BYTES) {
            Err(error @ ReadError::Io(..)) => return Err(error),
            Ok(batches) if from < *end => batches,
            Ok(_) => Vec::new(),
            Err(_) => {
                self.lost += 1;
                // What cannot be told apart ends with its segment.
                let segments = partition.segments().into_iter();
                let mut after = segments
                    .map(|one| one.base_offset)
                    .filter(|base| *base > from);
                *next = after.next().unwrap_or(*end);
                return Ok(true);
            }
        };
        if batches.is_empty() {
            self.left.pop_front();
            return Ok(!self.left.is_empty());
        }
        let mut rest = batches.as_slice();
        while let Ok((view, after)) = View::read(rest) {
            rest = after;
            *next = view.last_offset() + 1;
            let records = view.verify().and_then(|()| view.records(&mut self.scratch));
            let Ok(records) = records else {
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
        if *next == from {
            // Bytes that are no batch, which the log never gives.
            self.left.pop_front();
            self.lost += 1;
        }
        Ok(!self.left.is_empty())
    }
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
    while let Ok(true) = replay.step(&mut groups, now) {}
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
