//! What became of the requests of each route, counted beside its rules.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::event::access::Verdict;

/// Cache lines of a tally: as many workers count without meeting one another, more of them share.
const LINES: usize = 16;

/// The finished requests of one route. Written by all workers; relaxed, since each number stands for itself.
#[derive(Debug, Default)]
pub struct Tally([Line; LINES]);

/// On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line {
    /// In the order of [`Verdict::ALL`].
    verdicts: [AtomicU64; Verdict::ALL.len()],
    duration_us: AtomicU64,
}

impl Tally {
    /// Counts a finished request of the `nth` worker.
    #[inline]
    pub fn finished(&self, nth: usize, verdict: Verdict, duration_us: u64) {
        if let Some(line) = self.0.get(nth % LINES) {
            if let Some(count) = line.verdicts.get(verdict as usize) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            line.duration_us.fetch_add(duration_us, Ordering::Relaxed);
        }
    }

    /// Finished requests by verdict, in the order of [`Verdict::ALL`].
    pub fn verdicts(&self) -> [u64; Verdict::ALL.len()] {
        let mut sums = [0; Verdict::ALL.len()];
        for line in &self.0 {
            for (sum, count) in sums.iter_mut().zip(&line.verdicts) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        sums
    }

    /// What they took together, in microseconds.
    pub fn duration_us(&self) -> u64 {
        let lines = self.0.iter();
        lines
            .map(|line| line.duration_us.load(Ordering::Relaxed))
            .sum()
    }
}

/// The tallies by route, which a reload keeps as long as a route keeps its name.
#[derive(Debug, Default)]
pub struct Tallies(HashMap<String, Arc<Tally>>);

impl Tallies {
    /// That of the route `name`.
    pub fn of(&mut self, name: &str) -> Arc<Tally> {
        Arc::clone(self.0.entry(name.to_owned()).or_default())
    }

    /// Forgets all but these.
    pub fn keep_only<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let names: HashSet<&str> = names.collect();
        self.0.retain(|name, _| names.contains(name.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_count_into_one_sum() {
        let tally = Tally::default();
        for nth in 0..LINES * 2 {
            tally.finished(nth, Verdict::Refused, 10);
        }
        tally.finished(0, Verdict::Passed, 5);
        assert_eq!(tally.verdicts(), [1, 32, 0, 0]);
        assert_eq!(tally.duration_us(), 325);
    }

    #[test]
    fn a_route_that_keeps_its_name_keeps_its_counts() {
        let mut tallies = Tallies::default();
        for name in ["stays", "goes"] {
            tallies.of(name).finished(0, Verdict::Passed, 1);
        }
        tallies.keep_only(["stays"].into_iter());
        assert_eq!(tallies.of("stays").verdicts(), [1, 0, 0, 0]);
        assert_eq!(tallies.of("goes").verdicts(), [0; 4]);
    }
}
