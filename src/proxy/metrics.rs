//! What each worker counts. Written by that worker alone, read by whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::deadline::Stage;
use crate::{bots::Category, event::access::Verdict, guard::verdict::Reason};

/// A number with one writer.
///
/// All orderings are relaxed: a reader may see a value that is a moment old, and no other memory
/// depends on it.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `more`. Must be called by the one writer: this is a load and a store, not one step.
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        let value = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value as of a moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of request durations, in microseconds.
pub const DURATION_BOUNDS_US: [u64; 13] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// The beat of a worker that has come to its end: later than any, so that nobody waits for the next.
pub(crate) const ENDED: u64 = u64::MAX;

/// One worker's numbers.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Finished requests by verdict, in the order of [`Verdict::ALL`].
    pub requests: [Count; Verdict::ALL.len()],
    /// Refused and failed requests by reason, in the order of [`Reason::ALL`].
    pub refusals: [Count; Reason::ALL.len()],
    /// Requests that would have been refused, were their routes enforced, in the order of
    /// [`Reason::ALL`].
    pub observations: [Count; Reason::ALL.len()],
    /// Requests of bots by category, in the order of [`Category::ALL`].
    pub bots: [Count; Category::ALL.len()],
    /// Answers by the first digit of their status, 1xx to 5xx.
    pub statuses: [Count; 5],
    /// Requests by duration; one bucket more than bounds.
    pub durations: [Count; DURATION_BOUNDS_US.len() + 1],
    /// All durations together, in microseconds.
    pub duration_sum_us: Count,
    /// Bytes of bodies from clients.
    pub body_bytes_in: Count,
    /// Bytes on the wire to clients.
    pub bytes_out: Count,
    /// Connections accepted.
    pub accepted: Count,
    /// Connections closed at once because there were too many.
    pub turned_away: Count,
    /// Failures to accept a connection.
    pub accept_errors: Count,
    /// Client connections open now.
    pub connections: Count,
    /// Connections to the upstream made.
    pub connects: Count,
    /// Requests sent on a connection that had served before.
    pub reuses: Count,
    /// Requests sent once more after a kept connection turned out dead.
    pub retries: Count,
    /// Switches of protocols, mostly to WebSocket.
    pub tunnels: Count,
    /// Panics that were caught.
    pub panics: Count,
    /// Waits under way, in the order of [`stage_names`].
    pub waiting: [Count; Stage::ALL.len()],
    /// Idle connections to the upstream.
    pub idle_upstream: Count,
    /// The worker's clock at its last tick, in milliseconds; [`ENDED`] once it has drained.
    pub beat_ms: Count,
    /// The worker's clock when it last answered a canary, in milliseconds.
    pub canary_ms: Count,
}

/// The names of the stages that requests wait in.
pub fn stage_names() -> impl Iterator<Item = &'static str> {
    Stage::ALL.iter().map(|stage| stage.name())
}

impl WorkerMetrics {
    /// Counts a bot's request.
    pub(crate) fn bot(&self, category: Category) {
        add_at(&self.bots, category as usize);
    }

    /// Counts what would have been refused.
    pub(crate) fn observed(&self, reason: Reason) {
        add_at(&self.observations, reason as usize);
    }

    /// Counts a finished request.
    pub(crate) fn finished(
        &self,
        verdict: Verdict,
        reason: Option<Reason>,
        status: u16,
        duration_us: u64,
    ) {
        add_at(&self.requests, verdict as usize);
        if let Some(reason) = reason {
            add_at(&self.refusals, reason as usize);
        }
        if let Some(class) = usize::from(status / 100).checked_sub(1) {
            add_at(&self.statuses, class);
        }
        add_at(
            &self.durations,
            DURATION_BOUNDS_US.partition_point(|&bound| bound < duration_us),
        );
        self.duration_sum_us.add(duration_us);
    }
}

fn add_at(counts: &[Count], place: usize) {
    if let Some(count) = counts.get(place) {
        count.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_orders_are_those_of_the_enums() {
        assert!(
            Verdict::ALL
                .iter()
                .enumerate()
                .all(|(i, v)| *v as usize == i)
        );
        assert!(
            Reason::ALL
                .iter()
                .enumerate()
                .all(|(i, r)| *r as usize == i)
        );
        assert!(Stage::ALL.iter().enumerate().all(|(i, s)| *s as usize == i));
    }

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let metrics = WorkerMetrics::default();
        metrics.finished(Verdict::Passed, None, 200, 1_000);
        metrics.finished(Verdict::Passed, None, 200, u64::MAX / 2);
        assert_eq!(metrics.durations[1].get(), 1);
        assert_eq!(metrics.durations[DURATION_BOUNDS_US.len()].get(), 1);
    }
}
