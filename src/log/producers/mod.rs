//! What a partition remembers of idempotent producers (KIP-98), so that a batch that is sent twice is in the
//! log once, and none is there whose predecessor is not.
//!
//! A producer numbers its records; each batch says the number of its first. Of each producer the last five
//! batches are remembered: as many as a client may have under way. It knows nothing of time but what it is
//! handed, and nothing of transactions, of which there are none.
//!
//! After a power cut a batch may be there whose predecessor is not: neither was acknowledged, and of two that
//! were not safe the later may outlive the earlier. The producer sends both again. So what is missing before a
//! batch, where offsets are missing too, is taken when it comes, though it stands after what follows it.
//!
//! Source: Kafka's `ProducerStateManager`, `ProducerAppendInfo` and `ProducerStateEntry`.

mod budget;
mod snapshot;

use std::collections::{HashMap, VecDeque};

use super::{Header, Reason, appends::Appended};

pub use budget::ALL_PRODUCERS_MAX;
pub(super) use budget::fit;
pub(super) use snapshot::{Snapshots, load};

/// Batches of a producer that are known again.
const BATCHES_KEPT: usize = 5;

/// Producers that a partition remembers, at some 500 bytes each; for one more, who was silent longest is
/// forgotten.
pub const PRODUCERS_MAX: usize = 10_000;

/// Entries of who was heard when that may count no more, beside as many as there are producers.
const HEARD_SPARE: usize = 32;

/// For how long a producer that is silent is remembered (`producer.id.expiration.ms`), in nanoseconds.
const REMEMBERED_NS: u64 = 24 * 3600 * 1_000_000_000;

/// Records that are believed to be missing before a batch, at the most.
const MISSING_MAX: i64 = 1 << 20;

/// Numbers of records: after `i32::MAX` comes 0.
const SEQUENCES: i64 = 1 << 31;

/// What is told of a producer (KIP-664).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerFacts {
    /// Who it is.
    pub id: i64,
    /// How often it was given that id.
    pub epoch: i16,
    /// The number of its last record.
    pub last_sequence: i32,
    /// The latest time of its last batch, in Unix milliseconds.
    pub last_timestamp_ms: i64,
}

/// What is known of a partition's producers.
#[derive(Debug, Default)]
pub(super) struct Producers {
    known: HashMap<i64, Producer>,
    /// Ids by when they were heard of, the longest ago first; one for each time, of which the last counts.
    heard: VecDeque<(i64, u64)>,
    /// Counts how often any was heard of.
    times: u64,
    /// Where the log goes on after offsets that are missing, the last such place. While it is walked only.
    gap_end: Option<i64>,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// The number of its first record, while it has no batch.
    first: i32,
    /// The last of them, in their order.
    batches: VecDeque<Numbered>,
    /// Which of the entries in `heard` counts.
    heard: u64,
    heard_at_ns: u64,
}

impl Producer {
    /// One without a batch, whose first record has this number.
    fn new(epoch: i16, first: i32) -> Self {
        Self {
            epoch,
            first,
            batches: VecDeque::new(),
            heard: 0,
            heard_at_ns: 0,
        }
    }

    /// The number that the next record has.
    fn next_sequence(&self) -> i32 {
        let last = self.batches.back();
        last.map_or(self.first, |last| {
            in_range(i64::from(last.last_sequence) + 1)
        })
    }

    /// Puts a batch where it belongs. Before it something may be missing that is the producer's, if the log has
    /// a gap that ends here, or ended since its last one.
    fn put(&mut self, mut batch: Numbered, gap_end: Option<i64>) {
        let next = self
            .batches
            .iter()
            .position(|next| batch.is_missing_before(next));
        if let Some(at) = next
            && let Some(next) = self.batches.get_mut(at)
        {
            let before = distance(batch.first_sequence(), next.first_sequence());
            let after = before - i64::from(batch.offset_delta) - 1;
            batch.missing = next.missing - i32::try_from(before).unwrap_or(next.missing);
            next.missing = i32::try_from(after).unwrap_or(0);
            self.batches.insert(at, batch);
            let excess = self.batches.len().saturating_sub(2 * BATCHES_KEPT);
            self.batches.drain(..excess);
            return;
        }
        let last = self.batches.back().map(|last| last.last_offset);
        let has_gap = gap_end.is_some_and(|end| last.is_none_or(|last| last < end));
        let missing = distance(self.next_sequence(), batch.first_sequence());
        if has_gap && missing <= MISSING_MAX {
            batch.missing = i32::try_from(missing).unwrap_or(0);
        }
        self.batches.push_back(batch);
        let excess = self.batches.len().saturating_sub(BATCHES_KEPT);
        self.batches.drain(..excess);
    }
}

/// A batch with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbered {
    last_sequence: i32,
    last_offset: i64,
    offset_delta: i32,
    timestamp_ms: i64,
    /// So many records right before it are missing.
    missing: i32,
}

impl Numbered {
    fn of(batch: &Header) -> Self {
        Self {
            last_sequence: last_sequence(batch),
            last_offset: batch.last_offset(),
            offset_delta: batch.last_offset_delta(),
            timestamp_ms: batch.max_timestamp(),
            missing: 0,
        }
    }

    /// Whether this one is among the records that are missing before `next`.
    fn is_missing_before(&self, next: &Self) -> bool {
        let ahead = distance(self.first_sequence(), next.first_sequence());
        let own = i64::from(self.offset_delta) + 1;
        own <= ahead && ahead <= i64::from(next.missing)
    }

    fn first_sequence(&self) -> i32 {
        let first = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        in_range(first)
    }

    fn appended(&self) -> Appended {
        Appended {
            base_offset: self.last_offset - i64::from(self.offset_delta),
            last_offset: self.last_offset,
        }
    }
}

/// The number of a batch's last record.
fn last_sequence(batch: &Header) -> i32 {
    in_range(i64::from(batch.base_sequence()) + i64::from(batch.last_offset_delta()))
}

/// How far the number `to` is after `from`.
fn distance(from: i32, to: i32) -> i64 {
    (i64::from(to) - i64::from(from)).rem_euclid(SEQUENCES)
}

fn in_range(sequence: i64) -> i32 {
    i32::try_from(sequence.rem_euclid(SEQUENCES)).unwrap_or(0)
}

impl Producers {
    /// Whether a batch that has a producer is in the log already, and where. None where it is new, and may be
    /// appended.
    ///
    /// # Errors
    /// When a later one has its producer's id, or its number is not the next.
    pub(super) fn judge(
        &mut self,
        batch: &Header,
        now_ns: u64,
    ) -> Result<Option<Appended>, Reason> {
        self.forget_silent(now_ns);
        let Some(producer) = self.known.get(&batch.producer_id()) else {
            // Of who was forgotten, or of whose records nothing is left, any number is taken.
            return Ok(None);
        };
        let epoch = batch.producer_epoch();
        if epoch < producer.epoch {
            return Err(Reason::Fenced);
        }
        let first = batch.base_sequence();
        if epoch > producer.epoch {
            return match first {
                0 => Ok(None),
                _ => Err(Reason::OutOfOrderSequence),
            };
        }
        let last = last_sequence(batch);
        let known = producer.batches.iter();
        let known = known
            .rev()
            .find(|one| (one.first_sequence(), one.last_sequence) == (first, last));
        if let Some(known) = known {
            return Ok(Some(known.appended()));
        }
        let own = Numbered::of(batch);
        let is_missing = producer
            .batches
            .iter()
            .any(|next| own.is_missing_before(next));
        match is_missing || producer.next_sequence() == first {
            true => Ok(None),
            false => Err(Reason::OutOfOrderSequence),
        }
    }

    /// Takes in a batch that is in the log now, if it has a producer.
    pub(super) fn took(&mut self, batch: &Header, now_ns: u64) {
        if batch.producer_id() >= 0 && !batch.is_control() {
            let epoch = batch.producer_epoch();
            self.remember(batch.producer_id(), epoch, Numbered::of(batch), now_ns);
        }
    }

    fn remember(&mut self, id: i64, epoch: i16, batch: Numbered, now_ns: u64) {
        let producer = self.known.entry(id);
        let producer = producer.or_insert_with(|| Producer::new(epoch, 0));
        if producer.epoch != epoch {
            *producer = Producer::new(epoch, 0);
        }
        producer.put(batch, self.gap_end);
        self.heard_of(id, now_ns);
    }

    /// A batch that has a producer could not be appended: where nothing is known of that, what follows must not
    /// be taken before it.
    pub(super) fn missed(&mut self, batch: &Header, now_ns: u64) {
        let (id, epoch, first) = (
            batch.producer_id(),
            batch.producer_epoch(),
            batch.base_sequence(),
        );
        if id >= 0 && !self.known.contains_key(&id) {
            self.known.insert(id, Producer::new(epoch, first));
            self.heard_of(id, now_ns);
        }
    }

    /// As [`Self::missed`], for producers of `before` of whom nothing is left.
    pub(super) fn missed_all(&mut self, before: &Self, now_ns: u64) {
        for (id, producer) in &before.known {
            let first = producer.batches.front();
            let first = first.map_or(producer.first, Numbered::first_sequence);
            if !self.known.contains_key(id) {
                self.known.insert(*id, Producer::new(producer.epoch, first));
                self.heard_of(*id, now_ns);
            }
        }
    }

    fn heard_of(&mut self, id: i64, now_ns: u64) {
        self.times += 1;
        if let Some(producer) = self.known.get_mut(&id) {
            producer.heard = self.times;
            producer.heard_at_ns = now_ns;
        }
        self.heard.push_back((id, self.times));
        if self.known.len() > PRODUCERS_MAX {
            self.forget_longest();
        }
        if self.heard.len() > 2 * self.known.len() + HEARD_SPARE {
            let known = &self.known;
            self.heard
                .retain(|(id, heard)| known.get(id).is_some_and(|one| one.heard == *heard));
        }
    }

    /// Forgets who has been silent for too long.
    fn forget_silent(&mut self, now_ns: u64) {
        while let Some((id, heard)) = self.heard.front().copied() {
            let own = self.known.get(&id).filter(|one| one.heard == heard);
            let is_silent =
                own.is_some_and(|own| now_ns.saturating_sub(own.heard_at_ns) >= REMEMBERED_NS);
            if own.is_some() && !is_silent {
                return;
            }
            if is_silent {
                self.known.remove(&id);
                self.shrink();
            }
            self.heard.pop_front();
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Who was silent longest: since when, and the latest time of its last batch.
    fn longest_silent(&mut self) -> Option<(u64, i64)> {
        loop {
            let (id, heard) = self.heard.front().copied()?;
            if let Some(own) = self.known.get(&id).filter(|one| one.heard == heard) {
                let last = own.batches.back().map_or(-1, |last| last.timestamp_ms);
                return Some((own.heard_at_ns, last));
            }
            self.heard.pop_front();
        }
    }

    /// Gives back the room of those who are forgotten.
    fn shrink(&mut self) {
        let kept = 2 * self.known.len() + HEARD_SPARE;
        if self.known.capacity() > 2 * kept {
            self.known.shrink_to(kept);
            self.heard.shrink_to(kept);
        }
    }

    /// Forgets who was silent longest.
    fn forget_longest(&mut self) {
        while let Some((id, heard)) = self.heard.pop_front() {
            if self.known.get(&id).is_some_and(|one| one.heard == heard) {
                self.known.remove(&id);
                return;
            }
        }
    }

    /// Whether something is missing that may still come.
    fn has_missing(&self) -> bool {
        let batches = self.known.values().flat_map(|one| &one.batches);
        batches.into_iter().any(|batch| batch.missing > 0)
    }

    /// What is told of them, by id.
    pub(super) fn facts(&self) -> Vec<ProducerFacts> {
        let facts = self.known.iter().filter_map(|(id, producer)| {
            let last = producer.batches.back()?;
            Some(ProducerFacts {
                id: *id,
                epoch: producer.epoch,
                last_sequence: last.last_sequence,
                last_timestamp_ms: last.timestamp_ms,
            })
        });
        let mut facts: Vec<_> = facts.collect();
        facts.sort_unstable_by_key(|one| one.id);
        facts
    }
}

#[cfg(test)]
mod tests;
