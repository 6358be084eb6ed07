//! Proves that of each run and lane every access event is in the log, or told as lost.
//!
//! Events of one lane are spread over the partitions, and each partition has them in order. With all
//! partitions read side by side by time, the numbers still missing are few at any moment, and what is
//! missing in the end is a hole. Two holes are nobody's fault: before the beginning of what retention has
//! left, and in the last seconds of a run, where a kill or a power cut takes what was on its way.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::sink::query::field::Field;

/// Ranges of numbers that may wait for what is missing before them; with more nothing is proven.
const WAITING_MAX: usize = 1_000_000;

/// An event so long after what is left of a partition begins was not told before that.
const SLACK_MS: i64 = 60_000;

/// What a kill or a power cut may take, until the next event of the run or its end: access events are
/// flushed within five seconds.
const END_MS: i64 = 10_000;

/// What a number can be: the last one that every reader of JSON takes for what it is (RFC 8259 section 6).
const SEQ_MAX: u64 = (1 << 53) - 1;

/// Holes that are named.
const HOLES_MAX: usize = 100;

/// What is known of all lanes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completeness {
    /// Lanes, of all runs.
    pub lanes: u64,
    /// Access events.
    pub events: u64,
    /// Events that the log itself tells as lost.
    pub told_lost: u64,
    /// Events of the last seconds of a run that are not there: on their way, or lost with the process.
    pub missing_at_end: u64,
    /// Other events that are neither there nor told as lost.
    pub missing: u64,
    /// Events that are there more than once.
    pub repeated: u64,
    /// Where events are missing, but for the last seconds of a run; the first 100 places.
    pub holes: Vec<Hole>,
    /// Whether events stand so far out of order that this proves nothing.
    pub is_unproven: bool,
}

/// Events of one lane that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The run.
    pub run: String,
    /// The lane.
    pub lane: u64,
    /// The number of the first.
    pub from: u64,
    /// The number of the last.
    pub to: u64,
}

/// One worker in one life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Lane {
    run: [u8; 8],
    number: u64,
}

/// Takes note of events.
#[derive(Debug)]
pub struct Books {
    lanes: HashMap<Lane, Seen>,
    /// Partitions whose beginning is gone, with the lanes seen in what is left.
    cut: HashMap<u32, HashSet<Lane>>,
    /// The latest moment at which what is left of a partition begins.
    begins_ms: i64,
    told: Completeness,
    waiting: usize,
    fields: Fields,
}

#[derive(Debug)]
struct Fields {
    run: Field,
    lane: Field,
    seq: Field,
    from: Field,
    to: Field,
}

impl Default for Books {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            cut: HashMap::new(),
            begins_ms: i64::MIN,
            told: Completeness::default(),
            waiting: 0,
            fields: Fields {
                run: Field::new("run"),
                lane: Field::new("lane"),
                seq: Field::new("seq"),
                from: Field::new("from"),
                to: Field::new("to"),
            },
        }
    }
}

impl Books {
    /// Takes note that retention took the beginning of a partition, and that what is left begins with
    /// events told at about `told_ms`.
    pub fn begins_cut(&mut self, partition: u32, told_ms: i64) {
        self.cut.insert(partition, HashSet::new());
        self.begins_ms = self.begins_ms.max(told_ms);
    }

    /// Takes note of a record of the access topic, told at about `told_ms`: the latest moment of its
    /// batch, in Unix milliseconds. False where it is neither an event nor a gap.
    pub fn take(&mut self, partition: u32, told_ms: i64, event: &[u8]) -> bool {
        let Some((lane, from, to)) = self.fields.place(event) else {
            return false;
        };
        if event.starts_with(b"{\"event\":\"gap\"") {
            self.told.told_lost = self.told.told_lost.saturating_add(to - from + 1);
        } else {
            self.told.events += 1;
        }
        let is_first_here = self
            .cut
            .get_mut(&partition)
            .is_some_and(|lanes| lanes.insert(lane));
        let is_old = !self.cut.is_empty() && told_ms <= self.begins_ms.saturating_add(SLACK_MS);
        let seen = self.lanes.entry(lane).or_default();
        let waiting = self.waiting - seen.ahead.len();
        seen.last_ms = seen.last_ms.max(told_ms);
        if is_old {
            // What retention took elsewhere may have any number up to this one.
            seen.excuse(to);
        } else {
            seen.first_new = Some(seen.first_new.map_or(from, |first| first.min(from)));
            if is_first_here {
                // In this partition it may have taken any number before this one.
                seen.excuse(from - 1);
            }
            match waiting < WAITING_MAX {
                true => self.told.repeated += seen.add(from, to, told_ms),
                false => self.told.is_unproven = true,
            }
        }
        self.waiting = waiting + seen.ahead.len();
        true
    }

    /// What became of it.
    pub fn close(mut self) -> Completeness {
        self.told.lanes = self.lanes.len() as u64;
        let mut ends = HashMap::<[u8; 8], i64>::new();
        for (lane, seen) in &self.lanes {
            let end = ends.entry(lane.run).or_insert(i64::MIN);
            *end = (*end).max(seen.last_ms);
        }
        let mut lanes: Vec<_> = self.lanes.into_iter().collect();
        lanes.sort_unstable_by_key(|(lane, _)| *lane);
        for (lane, mut seen) in lanes {
            let is_everywhere = self.cut.values().all(|lanes| lanes.contains(&lane));
            // Where it is not seen any more, all of its older events may have been.
            if let Some(first) = seen.first_new.filter(|_| !is_everywhere) {
                seen.excuse(first - 1);
            }
            let end_ms = ends.get(&lane.run).copied().unwrap_or(i64::MAX);
            self.told
                .add_holes(lane, &seen, end_ms.saturating_sub(END_MS));
        }
        self.told
    }
}

impl Completeness {
    fn add_holes(&mut self, lane: Lane, seen: &Seen, end_begins_ms: i64) {
        let mut before = seen.whole_to;
        for (&start, range) in &seen.ahead {
            let (from, to) = (before + 1, start - 1);
            before = range.to;
            if range.told_ms >= end_begins_ms {
                self.missing_at_end = self.missing_at_end.saturating_add(to - from + 1);
                continue;
            }
            self.missing = self.missing.saturating_add(to - from + 1);
            if self.holes.len() < HOLES_MAX {
                self.holes.push(Hole {
                    run: String::from_utf8_lossy(&lane.run).into_owned(),
                    lane: lane.number,
                    from,
                    to,
                });
            }
        }
    }
}

impl Fields {
    /// The lane of a record, and its first and last number.
    fn place(&self, event: &[u8]) -> Option<(Lane, u64, u64)> {
        let lane = Lane {
            run: self.run.text(event)?.try_into().ok()?,
            number: self.lane.number(event)?,
        };
        let (from, to) = match self.seq.number(event) {
            Some(seq) => (seq, seq),
            None => (self.from.number(event)?, self.to.number(event)?),
        };
        let are_numbers = 1 <= from && from <= to && to <= SEQ_MAX;
        are_numbers.then_some((lane, from, to))
    }
}

/// What was seen of one lane.
#[derive(Debug)]
struct Seen {
    /// All numbers from 1 to this one were seen, or need not be.
    whole_to: u64,
    /// All numbers to this one need not be seen.
    excused_to: u64,
    /// What was seen beyond, by the first number of each range. No two of them touch.
    ahead: BTreeMap<u64, Range>,
    /// The least number of an event that retention cannot have reached.
    first_new: Option<u64>,
    last_ms: i64,
}

#[derive(Debug, Clone, Copy)]
struct Range {
    to: u64,
    /// When its first number was told.
    told_ms: i64,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            whole_to: 0,
            excused_to: 0,
            ahead: BTreeMap::new(),
            first_new: None,
            last_ms: i64::MIN,
        }
    }
}

impl Seen {
    /// Takes note that nothing up to this number need be there.
    fn excuse(&mut self, to: u64) {
        self.excused_to = self.excused_to.max(to);
        self.whole_to = self.whole_to.max(to);
        self.absorb();
    }

    /// Takes what is whole now out of what is ahead.
    fn absorb(&mut self) {
        while let Some(entry) = self.ahead.first_entry() {
            if *entry.key() > self.whole_to + 1 {
                return;
            }
            self.whole_to = self.whole_to.max(entry.remove().to);
        }
    }

    /// Adds numbers, and says how many of them had been seen.
    fn add(&mut self, from: u64, to: u64, told_ms: i64) -> u64 {
        let mut repeated = overlap(from, to, self.excused_to + 1, self.whole_to);
        let (mut from, mut to, mut told_ms) = (from, to, told_ms);
        // What touches it becomes one range with it.
        while let Some((&start, &range)) = self.ahead.range(..=to + 1).next_back() {
            if range.to + 1 < from {
                break;
            }
            repeated += overlap(from, to, start, range.to);
            self.ahead.remove(&start);
            if start < from {
                (from, told_ms) = (start, range.told_ms);
            }
            to = to.max(range.to);
        }
        if to > self.whole_to {
            self.ahead
                .insert(from.max(self.whole_to + 1), Range { to, told_ms });
        }
        self.absorb();
        repeated
    }
}

/// How many numbers two ranges have in common.
fn overlap(from: u64, to: u64, other_from: u64, other_to: u64) -> u64 {
    let (from, to) = (from.max(other_from), to.min(other_to));
    (to + 1).saturating_sub(from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(lane: u32, seq: u64) -> String {
        format!(r#"{{"event":"access","v":1,"run":"00c0ffee","lane":{lane},"seq":{seq}}}"#)
    }

    fn gap(lane: u32, from: u64, to: u64) -> String {
        format!(r#"{{"event":"gap","v":1,"run":"00c0ffee","lane":{lane},"from":{from},"to":{to}}}"#)
    }

    /// All events of lane 1 but those in `missing`, a second apart, the last of them long after.
    fn books(count: u64, missing: &[u64]) -> Books {
        let mut books = Books::default();
        for seq in (1..=count).filter(|seq| !missing.contains(seq)) {
            assert!(books.take(0, seq.cast_signed() * 1_000, event(1, seq).as_bytes()));
        }
        assert!(books.take(0, 1_000_000, event(2, 1).as_bytes()));
        books
    }

    fn hole(from: u64, to: u64) -> Hole {
        Hole {
            run: "00c0ffee".to_owned(),
            lane: 1,
            from,
            to,
        }
    }

    #[test]
    fn what_is_all_there_is_complete() {
        let told = books(10, &[]).close();
        assert_eq!(
            (told.lanes, told.events, told.missing, told.missing_at_end),
            (2, 11, 0, 0)
        );
        assert!(told.holes.is_empty() && !told.is_unproven);
    }

    #[test]
    fn a_hole_is_named_and_a_gap_fills_it() {
        let told = books(10, &[1, 4, 5]).close();
        assert_eq!(told.holes, [hole(1, 1), hole(4, 5)]);
        assert_eq!(told.missing, 3);
        let mut filled = books(10, &[1, 4, 5]);
        assert!(filled.take(3, 900, gap(1, 1, 1).as_bytes()));
        assert!(filled.take(3, 9_000, gap(1, 4, 5).as_bytes()));
        let told = filled.close();
        assert_eq!((told.missing, told.told_lost, told.repeated), (0, 3, 0));
    }

    #[test]
    fn what_a_killed_process_took_with_it_is_told_apart() {
        let mut books = Books::default();
        for seq in [1, 2, 4, 7] {
            books.take(0, 100_000, event(1, seq).as_bytes());
        }
        let told = books.close();
        assert_eq!((told.missing, told.missing_at_end), (0, 3));
    }

    #[test]
    fn events_that_are_there_twice_are_counted() {
        let mut books = books(10, &[5]);
        for seq in [1, 7, 7] {
            books.take(1, 20_000, event(1, seq).as_bytes());
        }
        assert_eq!(books.close().repeated, 3);
    }

    #[test]
    fn what_retention_may_have_taken_is_not_missing() {
        // Of partition 0 all is there from 101 on, of partition 1 from 107 on: each has every other event.
        let mut books = Books::default();
        books.begins_cut(0, 100_000);
        books.begins_cut(1, 106_000);
        for seq in 101..=400_u64 {
            let partition = u32::from(seq % 2 == 0);
            if (partition == 1 && seq < 107) || seq == 301 {
                continue;
            }
            books.take(
                partition,
                seq.cast_signed() * 1_000,
                event(1, seq).as_bytes(),
            );
        }
        assert_eq!(books.close().holes, [hole(301, 301)]);
    }

    #[test]
    fn a_lane_that_is_seen_no_more_in_a_cut_partition_may_have_had_anything_there() {
        let mut books = Books::default();
        books.begins_cut(1, 100_000);
        for seq in [5, 9, 12] {
            books.take(0, 100_000, event(1, seq).as_bytes());
        }
        for seq in [20, 21, 23] {
            books.take(0, 500_000, event(1, seq).as_bytes());
        }
        books.take(0, 900_000, event(2, 1).as_bytes());
        assert_eq!(books.close().holes, [hole(22, 22)]);
    }

    #[test]
    fn other_records_are_none() {
        let mut books = Books::default();
        for other in [
            "",
            "{}",
            r#"{"event":"access","run":"00c0ffee","lane":1}"#,
            r#"{"event":"access","run":"00c0ffee","lane":1,"seq":0}"#,
            r#"{"event":"access","run":"c0ffee","lane":1,"seq":1}"#,
            r#"{"event":"gap","run":"00c0ffee","lane":1,"from":2,"to":1}"#,
            r#"{"event":"gap","run":"00c0ffee","lane":1,"from":1,"to":18446744073709551615}"#,
        ] {
            assert!(!books.take(0, 0, other.as_bytes()), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same_holes(
            ranges in proptest::collection::vec((1..60_u64, 0..4_u64), 0..40)
        ) {
            let mut seen = Seen::default();
            let mut there = HashSet::new();
            for (from, more) in ranges {
                let repeated = seen.add(from, from + more, 0);
                let known = (from..=from + more).filter(|number| !there.insert(*number)).count();
                prop_assert_eq!(repeated, known as u64);
            }
            let last = there.iter().copied().max().unwrap_or(0);
            let mut told = Completeness::default();
            told.add_holes(Lane { run: *b"00c0ffee", number: 1 }, &seen, i64::MAX);
            let missing = (1..=last).filter(|number| !there.contains(number)).count();
            prop_assert_eq!(told.missing, missing as u64);
        }
    }
}
