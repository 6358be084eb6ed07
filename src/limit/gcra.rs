//! The generic cell rate algorithm (ITU-T I.371, as "virtual scheduling"): arithmetic alone.
//!
//! A client's whole state is one number, the theoretical arrival time (TAT): the moment at which its
//! whole burst is available again. A request that is admitted moves it one emission interval on; one
//! that is refused moves nothing.

use crate::base::units::Rate;

/// A moment or a span on the monotonic clock, in units of 64 ns.
///
/// Fine enough that the interval of 15,000 requests a second is exact to a thousandth, and coarse
/// enough that a TAT of the next years leaves bits free in one word (see [`super::cold`]).
pub type Ticks = u64;

/// Nanoseconds of one tick, as a power of two.
const TICK_BITS: u32 = 6;

/// No client can run further ahead than this: 366 days.
const TOLERANCE_MAX: Ticks = ticks(366 * 86_400 * 1_000_000_000);

/// What a clock reading is in ticks.
pub const fn ticks(ns: u64) -> Ticks {
    ns >> TICK_BITS
}

/// Whole seconds, rounded up.
pub const fn seconds(ticks: Ticks) -> u64 {
    const TICKS_PER_SECOND: u64 = self::ticks(1_000_000_000);
    ticks.div_ceil(TICKS_PER_SECOND)
}

/// So many requests at once, and so many more as time goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The time that one request takes up, in ticks; rounded up, so that a rate is never exceeded.
    interval: Ticks,
    /// How far ahead of the clock a client may run, in ticks.
    tolerance: Ticks,
    /// How far ahead it can be at the most, by what it spent elsewhere; without that, the tolerance.
    ceiling: Ticks,
    /// How many are admitted at once.
    burst: u32,
}

/// What a client spent elsewhere is told within this time, or not at all, in ticks.
const TOLD_WITHIN: Ticks = ticks(10 * 1_000_000_000);

/// So many nodes may let a client have its whole burst at once, and all of that is held against it.
const NODES: u64 = 16;

impl Quota {
    /// `rate`, of which `burst` may come at once; a burst of none is taken as one.
    ///
    /// A rate above one in 64 ns is that rate. Of a burst that would take more than 366 days to
    /// earn, so much is admitted as those days earn.
    pub fn new(rate: Rate, burst: u32) -> Self {
        let per_ns = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let count = u64::from(rate.count.get()) << TICK_BITS;
        let interval = per_ns.div_ceil(count).max(1);
        let tolerance = interval
            .saturating_mul(burst.max(1).into())
            .min(TOLERANCE_MAX.max(interval));
        Self {
            interval,
            tolerance,
            ceiling: tolerance,
            burst: u32::try_from(tolerance / interval).unwrap_or(u32::MAX),
        }
    }

    /// The same, of all nodes of a cluster together: what a client spent on others is a debt, that keeps it
    /// waiting for longer than its own burst would.
    pub fn shared(self) -> Self {
        let of_one = self.tolerance.saturating_add(TOLD_WITHIN);
        let debt = of_one.saturating_mul(NODES).min(TOLERANCE_MAX);
        Self {
            ceiling: self.tolerance.saturating_add(debt),
            ..self
        }
    }

    /// Whether other nodes count as well.
    pub fn is_shared(&self) -> bool {
        self.ceiling > self.tolerance
    }

    /// What one node lets a client have at the most within the time in which it is told to others.
    pub fn told_at_once_max(&self) -> u32 {
        let earned = u32::try_from(TOLD_WITHIN / self.interval).unwrap_or(u32::MAX);
        self.burst.saturating_add(earned).saturating_add(1)
    }

    /// How many are admitted at once.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// The time in which a whole burst is earned, in ticks.
    pub fn window(&self) -> Ticks {
        self.tolerance
    }

    /// Whether a client with this TAT may ask now, and its next TAT if so.
    ///
    /// # Errors
    /// How long until it may, in ticks.
    #[inline]
    pub fn admit(&self, tat: Ticks, now: Ticks) -> Result<Ticks, Ticks> {
        let ahead = self.ahead(tat, now).saturating_add(self.interval);
        if ahead <= self.tolerance {
            Ok(now + ahead)
        } else {
            Err(ahead - self.tolerance)
        }
    }

    /// The TAT, or the furthest that this quota could have moved it to by now.
    ///
    /// One further ahead comes from another quota, before a reload. Whoever keeps TATs stores what
    /// this returns, so that a wider limit takes effect within its own window.
    #[inline]
    pub(super) fn bounded(&self, tat: Ticks, now: Ticks) -> Ticks {
        tat.min(now.saturating_add(self.ceiling))
    }

    /// The TAT after so many requests that were admitted elsewhere.
    #[inline]
    pub(super) fn after(&self, tat: Ticks, now: Ticks, spent: u32) -> Ticks {
        let more = self.interval.saturating_mul(spent.into());
        self.bounded(tat.max(now).saturating_add(more), now)
    }

    /// How many more would be admitted now.
    #[inline]
    pub fn remaining(&self, tat: Ticks, now: Ticks) -> u32 {
        let left = self.tolerance.saturating_sub(self.ahead(tat, now)) / self.interval;
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// How long until the whole burst is there again, in ticks; at most [`Quota::window`], unless the client
    /// spent elsewhere as well.
    #[inline]
    pub fn ahead(&self, tat: Ticks, now: Ticks) -> Ticks {
        tat.saturating_sub(now).min(self.ceiling)
    }

    /// The TAT without one admitted request.
    #[inline]
    pub(super) fn without_one(&self, tat: Ticks) -> Ticks {
        tat.saturating_sub(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(rate: &str, burst: u32) -> Quota {
        Quota::new(rate.parse().unwrap(), burst)
    }

    const fn ms(ms: u64) -> Ticks {
        ticks(ms * 1_000_000)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let quota = quota("10/s", 5);
        let mut tat = 0;
        for _ in 0..5 {
            tat = quota.admit(tat, ms(1_000)).unwrap();
        }
        assert_eq!(quota.admit(tat, ms(1_000)), Err(ms(100)));
        assert_eq!(quota.admit(tat, ms(1_100) - 1), Err(1));
        assert!(quota.admit(tat, ms(1_100)).is_ok());
    }

    #[test]
    fn refusals_do_not_push_the_next_slot_back() {
        let quota = quota("10/s", 1);
        let tat = quota.admit(0, 0).unwrap();
        for now in 0..1_000 {
            assert!(quota.admit(tat, now).is_err());
        }
        assert!(quota.admit(tat, ms(100)).is_ok());
    }

    #[test]
    fn what_remains_and_when_all_is_back() {
        let quota = quota("20/s", 40);
        let mut tat = 0;
        for _ in 0..17 {
            tat = quota.admit(tat, ms(5)).unwrap();
        }
        assert_eq!(quota.remaining(tat, ms(5)), 23);
        assert_eq!(seconds(quota.ahead(tat, ms(5))), 1);
        assert_eq!(seconds(quota.window()), 2);
        assert_eq!(quota.remaining(0, ms(5)), 40);
    }

    #[test]
    fn a_debt_from_a_narrower_limit_is_bounded_by_the_wider_one() {
        let tat = quota("1/h", 1).admit(0, 0).unwrap();
        let wide = quota("20/s", 40);
        assert_eq!(wide.bounded(tat, 0), ms(2_000));
        assert_eq!(wide.admit(wide.bounded(tat, 0), 0), Err(ms(50)));
        assert!(wide.admit(wide.bounded(tat, 0), ms(50)).is_ok());
    }

    #[test]
    fn extremes_neither_overflow_nor_divide_by_zero() {
        for rate in ["4294967295/s", "1/s", "1/d"] {
            for burst in [0, 1, u32::MAX] {
                let quota = quota(rate, burst);
                assert!(quota.burst() >= 1, "{rate} {burst}");
                for now in [0, ms(1), 1 << 52] {
                    let tat = quota.admit(0, now).unwrap();
                    assert!(tat > now);
                    assert!(quota.remaining(u64::MAX, now) == 0);
                }
            }
        }
    }

    /// The textbook form with exact fractions: time in units of 1/count of a tick.
    struct Reference {
        count: u128,
        per: u128,
        burst: u128,
        tat: u128,
    }

    impl Reference {
        fn admits(&mut self, now: u64) -> bool {
            let now = u128::from(now) * self.count;
            let next = self.tat.max(now) + self.per;
            let admitted = next <= now + self.per * self.burst;
            if admitted {
                self.tat = next;
            }
            admitted
        }
    }

    #[test]
    fn a_million_decisions_are_those_of_the_reference() {
        // Rates whose interval is a whole number of ticks; the others are rounded, see `Quota`.
        let cases = [
            ("20/s", 40),
            ("300/m", 7),
            ("5/m", 5),
            ("5000/h", 100),
            ("10/s", 1),
        ];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut decided = 0;
        for (rate, burst) in cases {
            let quota = quota(rate, burst);
            let parsed: Rate = rate.parse().unwrap();
            let mut reference = Reference {
                count: parsed.count.get().into(),
                per: u128::from(ticks(u64::try_from(parsed.per.as_nanos()).unwrap())),
                burst: burst.into(),
                tat: 0,
            };
            let (mut tat, mut now) = (0, 1);
            for _ in 0..200_000 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                now += random % (quota.interval * 2);
                let admitted = quota.admit(tat, now);
                assert_eq!(admitted.is_ok(), reference.admits(now), "{rate} at {now}");
                tat = admitted.unwrap_or(tat);
                decided += 1;
            }
        }
        assert_eq!(decided, 1_000_000);
    }

    #[test]
    fn a_clock_that_is_slewed_changes_the_rate_by_no_more() {
        // NTP corrects by 500 ppm at most: five minutes of it, at twice the limit.
        let quota = quota("20/s", 40);
        let (mut tat, mut admitted) = (0, 0_u32);
        for request in 0..12_000_u64 {
            let true_ns = request * 25_000_000;
            let slewed = ticks(true_ns + true_ns / 2_000);
            if let Ok(next) = quota.admit(tat, slewed) {
                tat = next;
                admitted += 1;
            }
        }
        let rate = f64::from(admitted - quota.burst()) / 300.0;
        assert!((rate / 20.0 - 1.0).abs() < 0.001, "{rate} a second");
    }

    proptest! {
        #[test]
        fn no_rate_is_exceeded(count in 1_u32..100_000, burst in 1_u32..500, step in 1_u64..100_000) {
            let quota = quota(&format!("{count}/s"), burst);
            let (mut tat, mut admitted) = (0, 0_u64);
            let calls = 2_000;
            for call in 0..calls {
                if let Ok(next) = quota.admit(tat, call * step) {
                    tat = next;
                    admitted += 1;
                }
            }
            let elapsed_ns = u128::from((calls - 1) * step) << TICK_BITS;
            let earned = elapsed_ns * u128::from(count) / 1_000_000_000;
            prop_assert!(u128::from(admitted) <= u128::from(burst) + earned);
        }
    }
}
