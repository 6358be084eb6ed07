//! Follows the end of the access topic, and looks at no more than [`EVENTS_PER_S`] of what comes.
//!
//! Where more comes, each event that is looked at stands for those that were passed over in its partition
//! since the last look: the numbers of the rows stay right on average, and their cost stays the same.

use std::{collections::VecDeque, sync::Arc};

use super::{
    super::status::stamp,
    Top,
    samples::{By, ONE, Sample, Samples},
};
use crate::{
    event::{access, avro},
    log::{Log, Partition, View},
};

/// Events that are looked at in a second. At 10,000 requests a second, with 100 µs of CPU each, these cost
/// well below a hundredth of that.
const EVENTS_PER_S: u64 = 500;

/// Of those that are there already when somebody asks first, so many are looked at.
const FIRST_EVENTS: u64 = 2_000;

/// Time that is remembered, in milliseconds.
pub(super) const REMEMBERED_MS: u64 = 300_000;

/// Bytes of one read, unless a batch has more.
const READ_BYTES: usize = 64 * 1024;

/// What is known of the end of the log.
#[derive(Debug)]
pub(super) struct Follower {
    samples: Samples,
    /// For each partition, what has been looked at.
    places: Vec<Place>,
    /// How much came in each round, oldest first.
    rounds: VecDeque<Round>,
    last_ns: Option<u64>,
    /// Events that may still be looked at, in thousandths.
    allowed: u64,
    /// The partition that is looked at first in the next round.
    turn: usize,
    scratch: Vec<u8>,
    json: Vec<u8>,
}

#[derive(Debug)]
struct Place {
    partition: u32,
    /// The offset up to which all was looked at or passed over.
    at: i64,
    /// Events that were passed over and that no other stands for yet.
    passed_over: u64,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    unix_ms: u64,
    /// Events that came.
    came: u64,
    /// Those of them that were looked at.
    looked_at: u64,
}

impl Follower {
    /// One that knows nothing yet.
    pub(super) fn new() -> Self {
        Self {
            samples: Samples::default(),
            places: Vec::new(),
            rounds: VecDeque::new(),
            last_ns: None,
            allowed: FIRST_EVENTS * 1_000,
            turn: 0,
            scratch: Vec::new(),
            json: Vec::new(),
        }
    }

    /// Looks at what has come since the last round.
    pub(super) fn follow(&mut self, log: &Log, unix_ms: u64, monotonic_ns: u64) {
        let is_access = |one: &&Arc<Partition>| one.topic().name == access::TOPIC;
        let partitions: Vec<_> = log.partitions().iter().filter(is_access).cloned().collect();
        if let Some(last_ns) = self.last_ns.replace(monotonic_ns) {
            let passed_ms = monotonic_ns.saturating_sub(last_ns) / 1_000_000;
            let more = passed_ms.saturating_mul(EVENTS_PER_S);
            self.allowed = (self.allowed + more).min(EVENTS_PER_S * 1_000);
        }
        let mut round = Round {
            unix_ms,
            came: 0,
            looked_at: 0,
        };
        let budget = self.allowed / 1_000;
        let all: u64 = partitions.iter().map(|one| self.come_since(one)).sum();
        let count = partitions.len().max(1);
        self.turn = (self.turn + 1) % count;
        for partition in partitions.iter().cycle().skip(self.turn).take(count) {
            let came = self.come_since(partition);
            // As large a part of each.
            let quota = (came * budget).div_ceil(all.max(1)).min(came);
            let looked_at = self.look(partition, came, quota, unix_ms);
            round.came += came;
            round.looked_at += looked_at;
        }
        self.allowed = self.allowed.saturating_sub(round.looked_at * 1_000);
        if self.rounds.is_empty() {
            // What came before is known as far as it was looked at, and nobody knows how much there was.
            round.came = round.looked_at;
        }
        self.rounds.push_back(round);
        let since_ms = unix_ms.saturating_sub(REMEMBERED_MS);
        self.samples.forget_before(since_ms);
        while self
            .rounds
            .front()
            .is_some_and(|one| one.unix_ms < since_ms)
        {
            self.rounds.pop_front();
        }
    }

    /// Events of a partition that came since the last round; in the first, all that there are.
    fn come_since(&self, partition: &Partition) -> u64 {
        let place = self
            .places
            .iter()
            .find(|place| place.partition == partition.index());
        let at = place.map_or(partition.log_start_offset(), |place| place.at);
        // A log that was healed may have become shorter.
        u64::try_from(partition.high_watermark() - at).unwrap_or(0)
    }

    /// Looks at the last `quota` of the `came` events, and gives how many were.
    fn look(&mut self, partition: &Partition, came: u64, quota: u64, now_ms: u64) -> u64 {
        let end = partition.high_watermark();
        let from = end.saturating_sub(i64::try_from(quota).unwrap_or(i64::MAX));
        let found = if quota == 0 {
            Vec::new()
        } else {
            self.read(partition, from, quota, now_ms)
        };
        let looked_at = found.len() as u64;
        let is_first = self.rounds.is_empty();
        let index = partition.index();
        let known = self
            .places
            .iter()
            .position(|place| place.partition == index);
        let known = known.and_then(|known| self.places.get_mut(known));
        let passed_over = known.as_ref().map_or(0, |place| place.passed_over);
        let all = if is_first {
            looked_at
        } else {
            passed_over + came
        };
        let place = Place {
            partition: index,
            at: end,
            passed_over: if looked_at == 0 && !is_first { all } else { 0 },
        };
        match known {
            Some(known) => *known = place,
            None => self.places.push(place),
        }
        if is_first && came > quota {
            let oldest = found.iter().map(|sample| sample.ended_ms).min();
            self.samples.since_ms = self.samples.since_ms.max(oldest.unwrap_or(now_ms));
        }
        let weight = (all * ONE).checked_div(looked_at).unwrap_or(0);
        for mut sample in found {
            sample.weight = weight;
            self.samples.push(sample);
        }
        looked_at
    }

    /// The requests from `from` on, `quota` of them at most.
    fn read(&mut self, partition: &Partition, from: i64, quota: u64, now_ms: u64) -> Vec<Sample> {
        let mut found = Vec::new();
        let mut at = from;
        let mut left = quota;
        // What cannot be read now is passed over: who wants every event asks for events.
        while left > 0
            && let Ok(stored) = partition.read(at, READ_BYTES)
            && !stored.is_empty()
        {
            let begun_at = at;
            let mut bytes = stored.as_slice();
            while let Ok((batch, rest)) = View::read(bytes) {
                bytes = rest;
                at = at.max(batch.last_offset() + 1);
                if batch.is_control() || batch.verify().is_err() {
                    continue;
                }
                let Ok(records) = batch.records(&mut self.scratch) else {
                    continue;
                };
                for record in records.flatten() {
                    if record.offset < from || left == 0 {
                        continue;
                    }
                    left -= 1;
                    let arrived_ms = u64::try_from(record.timestamp_ms).unwrap_or(0);
                    let value = record.value.unwrap_or_default();
                    let value = avro::as_json(value, &mut self.json).unwrap_or_default();
                    found.extend(self.samples.read(value, arrived_ms, now_ms));
                }
            }
            if at == begun_at {
                break;
            }
        }
        found
    }

    /// The ranking of the last `window_ms`.
    pub(super) fn top(&self, by: By, window_ms: u64, limit: usize, now_ms: u64) -> Top {
        let since_ms = now_ms.saturating_sub(window_ms).max(self.samples.since_ms);
        let (rows, looked_at) = self.samples.rows(by, since_ms, limit);
        let rounds = self.rounds.iter().filter(|round| round.unix_ms > since_ms);
        let (came, seen) = rounds.fold((0, 0), |(came, seen), round| {
            (came + round.came, seen + round.looked_at)
        });
        Top {
            by: by.word().to_owned(),
            window_s: window_ms / 1_000,
            since: stamp(since_ms),
            until: stamp(now_ms),
            events: looked_at,
            share: part(seen, came),
            rows,
        }
    }
}

/// Which part `some` is of `all`, to a thousandth; of nothing, all.
fn part(some: u64, all: u64) -> f64 {
    let permille = (some * 1_000).checked_div(all).unwrap_or(1_000);
    f64::from(u32::try_from(permille).unwrap_or(1_000)) / 1_000.0
}
