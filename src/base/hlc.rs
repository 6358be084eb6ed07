//! A hybrid logical clock: moments of several machines in one order.
//!
//! Kulkarni, Demirbas and others, "Logical Physical Clocks" (2014): a moment is the wall clock's, and where
//! that stands still, lags or was set back, a counter goes on. What was heard is always before what is
//! decided afterwards, whatever the wall clocks of both machines say.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How far ahead of the local wall clock another machine's moment may be, in milliseconds. One that is
/// further ahead would win over all that is decided here until then.
pub const AHEAD_MAX_MS: u64 = 60_000;

/// One moment: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16. Spelled
/// `<milliseconds>-<counter>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(u64);

const COUNTER_BITS: u32 = 16;
const MS_MAX: u64 = u64::MAX >> COUNTER_BITS;

impl Hlc {
    /// Before all others: of what nobody decided.
    pub const ZERO: Self = Self(0);

    /// The first moment of this millisecond.
    pub fn at(unix_ms: u64) -> Self {
        Self(unix_ms.min(MS_MAX) << COUNTER_BITS)
    }

    /// Its millisecond since 1970.
    pub fn unix_ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The next moment; a counter that is at its end goes over into the next millisecond.
    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counter = self.0 & ((1 << COUNTER_BITS) - 1);
        write!(f, "{}-{counter}", self.unix_ms())
    }
}

/// A text that is no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotHlc;

impl fmt::Display for NotHlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a moment of a hybrid logical clock, such as 1795255201042-0")
    }
}

impl std::error::Error for NotHlc {}

impl FromStr for Hlc {
    type Err = NotHlc;

    fn from_str(text: &str) -> Result<Self, NotHlc> {
        let (unix_ms, counter) = text.split_once('-').ok_or(NotHlc)?;
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(unix_ms) || !is_number(counter) {
            return Err(NotHlc);
        }
        let unix_ms: u64 = unix_ms.parse().map_err(|_| NotHlc)?;
        let counter: u16 = counter.parse().map_err(|_| NotHlc)?;
        if unix_ms > MS_MAX {
            return Err(NotHlc);
        }
        Ok(Self(unix_ms << COUNTER_BITS | u64::from(counter)))
    }
}

impl Serialize for Hlc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hlc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The clock itself. It belongs to who decides.
#[derive(Debug, Default)]
pub struct HybridClock {
    last: Hlc,
}

/// A moment of another machine that is too far ahead to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFarAhead {
    /// How far, in milliseconds.
    pub ahead_ms: u64,
}

impl HybridClock {
    /// The moment of a decision that is taken now: after all that was decided or heard here before.
    pub fn tick(&mut self, wall_unix_ms: u64) -> Hlc {
        self.last = self.last.next().max(Hlc::at(wall_unix_ms));
        self.last
    }

    /// Takes note of another machine's moment: what is decided here from now on comes after it.
    ///
    /// # Errors
    /// When it is more than [`AHEAD_MAX_MS`] ahead of the wall clock. It is then not taken note of.
    pub fn hear(&mut self, other: Hlc, wall_unix_ms: u64) -> Result<(), TooFarAhead> {
        let ahead_ms = other.unix_ms().saturating_sub(wall_unix_ms);
        if ahead_ms > AHEAD_MAX_MS {
            return Err(TooFarAhead { ahead_ms });
        }
        self.last = self.last.max(other);
        Ok(())
    }

    /// Goes on after a moment of its own, which the log remembers.
    pub fn resume(&mut self, own: Hlc) {
        self.last = self.last.max(own);
    }

    /// How far this clock is ahead of the wall clock, in milliseconds: since that was set back, or another
    /// machine's is ahead.
    pub fn ahead_ms(&self, wall_unix_ms: u64) -> u64 {
        self.last.unix_ms().saturating_sub(wall_unix_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_moment_is_spelled_and_read_back() {
        let mut clock = HybridClock::default();
        assert_eq!(clock.tick(1_795_255_201_042).to_string(), "1795255201042-0");
        let second = clock.tick(1_795_255_201_042);
        assert_eq!(second.to_string(), "1795255201042-1");
        assert_eq!("1795255201042-1".parse(), Ok(second));
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "+1-0",
            "1-65536",
            "1-+1",
            "281474976710656-0",
            "1-0-0",
            " 1-0",
        ] {
            assert_eq!(text.parse::<Hlc>(), Err(NotHlc), "{text}");
        }
    }

    #[test]
    fn what_is_heard_comes_before_what_is_decided_next() {
        let mut clock = HybridClock::default();
        clock.tick(1_000);
        let other = Hlc::at(31_000).next();
        clock.hear(other, 1_000).unwrap();
        assert!(clock.tick(1_001) > other);
        assert_eq!(clock.ahead_ms(1_001), 29_999);
        assert_eq!(clock.tick(40_000), Hlc::at(40_000));
    }

    #[test]
    fn a_clock_that_is_a_minute_ahead_is_believed_and_a_faster_one_is_not() {
        let mut clock = HybridClock::default();
        assert_eq!(clock.hear(Hlc::at(61_000), 1_000), Ok(()));
        let refused = clock.hear(Hlc::at(61_001), 1_000);
        assert_eq!(refused, Err(TooFarAhead { ahead_ms: 60_001 }));
        assert_eq!(clock.tick(1_000), Hlc::at(61_000).next());
    }

    #[test]
    fn a_wall_clock_that_is_set_back_turns_nothing_round() {
        let mut clock = HybridClock::default();
        let before = clock.tick(50_000);
        assert!(clock.tick(10_000) > before);
        let mut restarted = HybridClock::default();
        restarted.resume(before);
        assert!(restarted.tick(10_000) > before);
    }

    proptest! {
        #[test]
        fn moments_of_one_clock_only_grow(steps in prop::collection::vec((0_u64..200_000, any::<bool>()), 1..50)) {
            let mut clock = HybridClock::default();
            let mut last = Hlc::ZERO;
            for (ms, is_heard) in steps {
                if is_heard {
                    let _ = clock.hear(Hlc::at(ms), 100_000);
                } else {
                    let next = clock.tick(ms);
                    prop_assert!(next > last);
                    prop_assert_eq!(next.to_string().parse(), Ok(next));
                    last = next;
                }
            }
        }
    }
}
