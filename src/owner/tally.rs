//! One client's violation points within a window of time.

use std::collections::VecDeque;

use super::facts::Violation;

/// Moments kept apart. Where a window holds more, the two oldest count from the older one.
const MOMENTS_MAX: usize = 128;

/// Violations kept as evidence: the latest.
const EVIDENCE_MAX: usize = 16;

/// The points of one client.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// When, in milliseconds of the monotonic clock, and how many points; oldest first.
    moments: VecDeque<(u64, u32)>,
    /// When, likewise, and what; the latest of them.
    evidence: VecDeque<(u64, Violation)>,
}

impl Tally {
    /// Adds a violation; says how many points there are within the `window_ms` up to `now_ms`.
    pub(super) fn add(&mut self, violation: Violation, now_ms: u64, window_ms: u64) -> u64 {
        self.forget_before(now_ms.saturating_sub(window_ms));
        if self.moments.len() >= MOMENTS_MAX
            && let Some((oldest_ms, points)) = self.moments.pop_front()
            && let Some(next) = self.moments.front_mut()
        {
            *next = (oldest_ms, next.1.saturating_add(points));
        }
        self.moments.push_back((now_ms, violation.points));
        if self.evidence.len() >= EVIDENCE_MAX {
            self.evidence.pop_front();
        }
        self.evidence.push_back((now_ms, violation));
        self.points()
    }

    /// Forgets what is older than `then_ms`.
    pub(super) fn forget_before(&mut self, then_ms: u64) {
        while self.moments.front().is_some_and(|&(at, _)| at < then_ms) {
            self.moments.pop_front();
        }
        while self.evidence.front().is_some_and(|&(at, _)| at < then_ms) {
            self.evidence.pop_front();
        }
    }

    pub(super) fn points(&self) -> u64 {
        self.moments
            .iter()
            .map(|&(_, points)| u64::from(points))
            .sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.moments.is_empty()
    }

    /// The latest violations, oldest first.
    pub(super) fn into_evidence(self) -> Vec<Violation> {
        self.evidence.into_iter().map(|(_, seen)| seen).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        base::id::RequestIds,
        client::ClientKey,
        owner::facts::{Cause, Excerpt},
    };

    pub(crate) fn violation(client: &str, points: u32) -> Violation {
        Violation {
            client: ClientKey::new(client.parse().unwrap(), 64),
            cause: Cause::RateLimited,
            points,
            enforced: true,
            request: RequestIds::starting_at(1).next(0),
            unix_ms: 0,
            path: Excerpt::of(b"/"),
        }
    }

    #[test]
    fn points_count_within_the_window_alone() {
        let mut tally = Tally::default();
        for second in 0..10 {
            tally.add(violation("198.51.100.7", 1), second * 1_000, 5_000);
        }
        assert_eq!(tally.points(), 6);
        assert_eq!(tally.add(violation("198.51.100.7", 2), 60_000, 5_000), 2);
    }

    #[test]
    fn evidence_is_what_counted_and_nothing_older() {
        let mut tally = Tally::default();
        for second in 0..10 {
            tally.add(violation("198.51.100.7", 1), second * 1_000, 5_000);
        }
        assert_eq!(tally.into_evidence().len(), 6);
    }

    #[test]
    fn a_flood_of_violations_takes_bounded_memory_and_loses_no_points() {
        let mut tally = Tally::default();
        let points = (0..10_000).map(|n| tally.add(violation("198.51.100.7", 1), n, 60_000));
        assert_eq!(points.last(), Some(10_000));
        assert!(tally.moments.len() <= MOMENTS_MAX);
        assert_eq!(tally.into_evidence().len(), EVIDENCE_MAX);
    }
}
