//! How fast records may leave: so many bytes a second, so that who catches up leaves the line to others.

use std::time::Duration;

/// A clock that runs ahead of time by what was sent (GCRA, as limits do it).
#[derive(Debug, Clone)]
pub(super) struct Pace {
    bytes_per_s: u64,
    /// When what was sent until now would have been sent at just this rate, in nanoseconds.
    ahead_ns: u64,
}

/// How much of a second may be sent at once.
const BURST: Duration = Duration::from_millis(250);

impl Pace {
    /// So many bytes a second; 0 is taken for 1.
    pub(super) fn new(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s: bytes_per_s.max(1),
            ahead_ns: 0,
        }
    }

    /// Takes note that `bytes` were sent at `now_ns`.
    pub(super) fn sent(&mut self, bytes: usize, now_ns: u64) {
        let bytes = u128::try_from(bytes).unwrap_or(u128::MAX);
        let span_ns = bytes.saturating_mul(1_000_000_000) / u128::from(self.bytes_per_s);
        let span_ns = u64::try_from(span_ns).unwrap_or(u64::MAX);
        self.ahead_ns = self.ahead_ns.max(now_ns).saturating_add(span_ns);
    }

    /// How long to wait at `now_ns` before more is sent.
    pub(super) fn wait(&self, now_ns: u64) -> Duration {
        let burst_ns = super::nanos(BURST);
        Duration::from_nanos(
            self.ahead_ns
                .saturating_sub(now_ns.saturating_add(burst_ns)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn no_more_leaves_in_a_second_than_was_said_and_a_quarter_more() {
        let mut pace = Pace::new(1_000_000);
        let (mut now_ns, mut sent) = (5 * SECOND_NS, 0_u64);
        while now_ns < 6 * SECOND_NS {
            match pace.wait(now_ns) {
                Duration::ZERO => {
                    pace.sent(1_000, now_ns);
                    sent += 1_000;
                }
                wait => now_ns += super::super::nanos(wait),
            }
        }
        assert!((1_250_000..=1_252_000).contains(&sent), "{sent}");
    }

    #[test]
    fn who_was_idle_has_saved_up_nothing() {
        let mut pace = Pace::new(1_000);
        pace.sent(1_000, 0);
        pace.sent(1_000, 3_600 * SECOND_NS);
        assert_eq!(pace.wait(3_600 * SECOND_NS), Duration::from_millis(750));
    }
}
