//! When the local log's retention takes what is not mirrored yet.

use std::time::Duration;

/// How a partition is kept, and how far it is mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Kept {
    /// The first record that is there.
    pub(super) low: i64,
    /// The end.
    pub(super) high: i64,
    /// All before it is acknowledged by the cluster.
    pub(super) done: i64,
    /// Its bytes on disk.
    pub(super) bytes: u64,
    /// How many of them it may have.
    pub(super) bytes_max: u64,
}

/// A partition as it was a while before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) kept: Kept,
    /// How long before.
    pub(super) span: Duration,
}

impl Kept {
    /// In how many milliseconds a partition that grows as it did since `before` is so long that records go that are
    /// not mirrored; none where that does not come.
    pub(super) fn loses_by_size_in_ms(&self, before: &Before) -> Option<u64> {
        let growth = self.high.saturating_sub(before.kept.high);
        let progress = self.done.saturating_sub(before.kept.done);
        if self.done >= self.high || growth <= progress {
            return None;
        }
        let held = u128::from(self.high.abs_diff(self.low).max(1));
        let bytes = u128::from(self.bytes);
        let waiting = bytes * u128::from(self.high.abs_diff(self.done)) / held;
        let free = u128::from(self.bytes_max).saturating_sub(waiting);
        let grown = (bytes * u128::from(growth.unsigned_abs()) / held).max(1);
        let ms = free.saturating_mul(before.span.as_millis()) / grown;
        Some(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

/// How old records are looked for that are not mirrored, in sixteenths of how old they may become.
pub(super) const AGES: [u64; 4] = [15, 14, 12, 8];

/// The moment before which a record has so many sixteenths of `retention_ms` behind it, at `now_ms`.
pub(super) fn moment(sixteenths: u64, retention_ms: u64, now_ms: u64) -> u64 {
    now_ms.saturating_sub(retention_ms / 16 * sixteenths)
}

/// In how many milliseconds at most a record goes that has so many sixteenths of its time behind it.
pub(super) fn left_ms(sixteenths: u64, retention_ms: u64) -> u64 {
    retention_ms / 16 * 16_u64.saturating_sub(sixteenths)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn kept(low: i64, done: i64, high: i64) -> Kept {
        Kept {
            low,
            high,
            done,
            bytes: high.abs_diff(low) * 100,
            bytes_max: 1_000_000,
        }
    }

    #[test]
    fn what_waits_and_grows_is_lost_when_it_fills_what_a_partition_may_have() {
        let before = Before {
            kept: kept(0, 1_000, 4_000),
            span: MINUTE,
        };
        // 4,000 records of 100 bytes wait, 1,000 come a minute: 600,000 bytes are left for six minutes.
        let now = kept(0, 1_000, 5_000);
        assert_eq!(now.loses_by_size_in_ms(&before), Some(6 * 60_000));
    }

    #[test]
    fn who_catches_up_loses_nothing() {
        let before = Before {
            kept: kept(0, 1_000, 4_000),
            span: MINUTE,
        };
        assert_eq!(kept(0, 2_500, 5_000).loses_by_size_in_ms(&before), None);
        assert_eq!(kept(0, 5_000, 5_000).loses_by_size_in_ms(&before), None);
    }

    #[test]
    fn what_is_over_is_told_at_once() {
        let before = Before {
            kept: kept(0, 0, 19_000),
            span: MINUTE,
        };
        assert_eq!(kept(0, 0, 20_000).loses_by_size_in_ms(&before), Some(0));
    }

    #[test]
    fn a_record_is_looked_for_by_its_age() {
        assert_eq!(moment(12, 1_600, 10_000), 8_800);
        assert_eq!(left_ms(12, 1_600), 400);
        assert!(AGES.is_sorted_by(|one, other| one > other));
    }
}
