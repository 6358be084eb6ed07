//! Whether the wall clock may decide what is old enough to be deleted.
//!
//! A machine without a battery starts in 1970, a restored one in last month, a mistyped `date` in 2106;
//! each of them would make retention delete what is young. So the wall clock is held against monotonic
//! time while Wardent runs, and against the log itself when it starts. When it does not fit, nothing is
//! deleted for its age until the clock has agreed with itself for [`AGREEMENT`]. What is deleted for size
//! needs no clock, so that the disk stays bounded meanwhile.
//!
//! Bounds of this: an error of less than [`JUMP_MAX`], or one of less than [`STOP_MAX`] that was made while
//! Wardent did not run, is not seen, and may delete records so much too early. Monotonic time stands still
//! while the machine sleeps, so that a sleep of more than an hour counts as a jump: it costs a day's delay.

use std::{fmt, str::FromStr, time::Duration};

use crate::base::clock::Clock;

/// A wall clock that moves this much more or less than monotonic time does was set, not slewed.
pub(crate) const JUMP_MAX: Duration = Duration::from_hours(1);

/// How long a clock must go on without a jump before it is believed again: time enough for time
/// synchronisation to come up and for an operator to see the warning.
pub(crate) const AGREEMENT: Duration = Duration::from_hours(24);

/// A start so long after the last sign of life is more likely a wrong clock. A wrong guess costs little:
/// old records stay a day longer. So it is short: a weekend.
pub(crate) const STOP_MAX: Duration = Duration::from_hours(3 * 24);

/// 2020-01-01T00:00:00Z in milliseconds: before this program was written, so no time it can have run at.
pub(crate) const EARLIEST_MS: u64 = 1_577_836_800_000;

/// Why the wall clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It shows a time before 2020.
    TooEarly,
    /// It moved by so many milliseconds more than monotonic time.
    Jumped(i64),
    /// At the start it stood so many milliseconds before the last sign of life.
    BehindTheLog(u64),
    /// At the start it stood so many milliseconds after the last sign of life.
    FarAhead(u64),
    /// It was not believed when Wardent stopped, and has not agreed with itself for long enough since.
    NotYetAgain,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooEarly => write!(f, "it shows a time before 2020"),
            Self::Jumped(by) => write!(f, "it jumped by {} s", by / 1_000),
            Self::BehindTheLog(by) => {
                write!(
                    f,
                    "it stands {} s before the log's last sign of life",
                    by / 1_000
                )
            }
            Self::FarAhead(by) => {
                write!(
                    f,
                    "it stands {} s after the log's last sign of life",
                    by / 1_000
                )
            }
            Self::NotYetAgain => write!(f, "it was wrong before the restart"),
        }
    }
}

/// What is kept between two runs: without it a restart would believe a clock that jumped before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The wall clock when this was written.
    pub unix_ms: u64,
    /// For how long it had agreed with itself then; [`AGREEMENT`] at most.
    pub agreed_ms: u64,
}

impl fmt::Display for Kept {
    /// In the form of Kafka's checkpoints: version, number of lines, lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "0\n1\n{} {}", self.unix_ms, self.agreed_ms)
    }
}

impl FromStr for Kept {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let line = text.strip_prefix("0\n1\n").ok_or(())?;
        let line = line.strip_suffix('\n').ok_or(())?;
        let (unix_ms, agreed_ms) = line.split_once(' ').ok_or(())?;
        Ok(Self {
            unix_ms: unix_ms.parse().map_err(drop)?,
            agreed_ms: agreed_ms.parse().map_err(drop)?,
        })
    }
}

/// The wall clock, and what speaks against it.
#[derive(Debug)]
pub(crate) struct TrustedTime {
    clock: Clock,
    /// The reading that later ones are held against: at most [`AGREEMENT`] old, so that years of slewing
    /// do not add up to a jump.
    held: Reading,
    /// For how long the clock had agreed with itself at `held`.
    agreed_ms: u64,
    doubt: Option<Doubt>,
}

/// Both clocks at one moment, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Reading {
    unix_ms: u64,
    monotonic_ms: u64,
}

impl Reading {
    fn of(clock: &Clock) -> Self {
        Self {
            unix_ms: clock.unix_ms(),
            monotonic_ms: clock.monotonic_ns() / 1_000_000,
        }
    }
}

impl TrustedTime {
    /// Judges the clock by what the last run kept or, where there is nothing, by the newest record's timestamp.
    pub(crate) fn new(clock: Clock, kept: Option<Kept>, newest_record_ms: Option<u64>) -> Self {
        let held = Reading::of(&clock);
        let doubt = doubt_at_start(held.unix_ms, kept, newest_record_ms);
        let agreed_ms = match (doubt, kept) {
            (None, _) => millis(AGREEMENT),
            (Some(Doubt::NotYetAgain), Some(kept)) => kept.agreed_ms,
            (Some(_), _) => 0,
        };
        Self {
            clock,
            held,
            agreed_ms,
            doubt,
        }
    }

    /// The wall clock in milliseconds since 1970, where it is believed.
    pub(crate) fn now_ms(&mut self) -> Option<u64> {
        let now = Reading::of(&self.clock);
        let passed_ms = now.monotonic_ms.saturating_sub(self.held.monotonic_ms);
        let expected_ms = self.held.unix_ms.saturating_add(passed_ms);
        let agreed_ms = self.agreed_ms.saturating_add(passed_ms);
        if now.unix_ms < EARLIEST_MS {
            self.lose_trust(now, Doubt::TooEarly);
        } else if now.unix_ms.abs_diff(expected_ms) > millis(JUMP_MAX) {
            let by = i128::from(now.unix_ms) - i128::from(expected_ms);
            let by = i64::try_from(by).unwrap_or(i64::MAX);
            self.lose_trust(now, Doubt::Jumped(by));
        } else if agreed_ms >= millis(AGREEMENT) {
            self.doubt = None;
            if passed_ms >= millis(AGREEMENT) {
                self.held = now;
            }
            self.agreed_ms = millis(AGREEMENT);
        }
        self.doubt.is_none().then_some(now.unix_ms)
    }

    fn lose_trust(&mut self, now: Reading, doubt: Doubt) {
        self.held = now;
        self.agreed_ms = 0;
        self.doubt = Some(doubt);
    }

    /// Why the clock was not believed when it was last read.
    pub(crate) fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// What the next run must know.
    pub(crate) fn kept(&self) -> Kept {
        let now = Reading::of(&self.clock);
        let passed_ms = now.monotonic_ms.saturating_sub(self.held.monotonic_ms);
        let agreed_ms = self.agreed_ms.saturating_add(passed_ms);
        Kept {
            unix_ms: now.unix_ms,
            agreed_ms: agreed_ms.min(millis(AGREEMENT)),
        }
    }
}

fn doubt_at_start(now_ms: u64, kept: Option<Kept>, newest_record_ms: Option<u64>) -> Option<Doubt> {
    if now_ms < EARLIEST_MS {
        return Some(Doubt::TooEarly);
    }
    // What the last run kept comes first: records may be stamped by a foreign producer, or be old because
    // nothing was written for long.
    let newest_ms = kept.map(|kept| kept.unix_ms).or(newest_record_ms);
    if let Some(behind) = newest_ms.and_then(|newest| newest.checked_sub(now_ms))
        && behind > millis(JUMP_MAX)
    {
        return Some(Doubt::BehindTheLog(behind));
    }
    if let Some(ahead) = newest_ms.and_then(|newest| now_ms.checked_sub(newest))
        && ahead > millis(STOP_MAX)
    {
        return Some(Doubt::FarAhead(ahead));
    }
    kept.filter(|kept| kept.agreed_ms < millis(AGREEMENT))
        .map(|_| Doubt::NotYetAgain)
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;
    /// 2026-11-21T00:00:00Z.
    const NOW_MS: u64 = 1_795_219_200_000;

    fn started() -> (Clock, TrustedTime) {
        let clock = Clock::manual(NOW_MS);
        let time = TrustedTime::new(clock.clone(), None, Some(NOW_MS - HOUR_MS));
        (clock, time)
    }

    #[test]
    fn a_clock_that_fits_the_log_is_believed_at_once() {
        let (clock, mut time) = started();
        assert_eq!(time.now_ms(), Some(NOW_MS));
        clock.advance_ms(400 * DAY_MS);
        assert_eq!(time.now_ms(), Some(NOW_MS + 400 * DAY_MS));
    }

    #[test]
    fn after_a_jump_either_way_it_is_believed_only_when_it_agreed_with_itself_for_a_day() {
        for to in [NOW_MS + DAY_MS, NOW_MS - DAY_MS, NOW_MS + 80 * 365 * DAY_MS] {
            let (clock, mut time) = started();
            clock.set_unix_ms(to);
            assert_eq!(time.now_ms(), None);
            assert!(matches!(time.doubt(), Some(Doubt::Jumped(_))));
            clock.advance_ms(DAY_MS - 1);
            assert_eq!(time.now_ms(), None);
            clock.advance_ms(1);
            assert_eq!(time.now_ms(), Some(to + DAY_MS));
            assert_eq!(time.doubt(), None);
        }
    }

    #[test]
    fn a_second_jump_starts_the_day_again() {
        let (clock, mut time) = started();
        clock.set_unix_ms(NOW_MS + DAY_MS);
        assert_eq!(time.now_ms(), None);
        clock.advance_ms(23 * HOUR_MS);
        clock.set_unix_ms(NOW_MS);
        assert_eq!(time.now_ms(), None);
        clock.advance_ms(23 * HOUR_MS);
        assert_eq!(time.now_ms(), None);
        clock.advance_ms(HOUR_MS);
        assert_eq!(time.now_ms(), Some(NOW_MS + DAY_MS));
    }

    #[test]
    fn slewing_and_repeated_seconds_are_no_jumps_however_long_they_go_on() {
        let (clock, mut time) = started();
        let mut wall_ms = NOW_MS;
        for _ in 0..20_000 {
            // An hour of a clock that is slewed by 500 parts per million, and a leap second.
            wall_ms += HOUR_MS + HOUR_MS / 2_000 - 1_000;
            clock.advance_ms(HOUR_MS);
            clock.set_unix_ms(wall_ms);
            assert_eq!(time.now_ms(), Some(wall_ms));
        }
    }

    #[test]
    fn many_steps_that_are_each_too_small_are_a_jump() {
        let (clock, mut time) = started();
        let mut believed = 0;
        for step in 1..=60 {
            clock.advance_ms(60_000);
            clock.set_unix_ms(NOW_MS + step * 31 * 60_000);
            believed += u64::from(time.now_ms().is_some());
        }
        assert!(believed <= 2, "{believed} of 60 steps");
    }

    #[test]
    fn times_at_the_ends_of_the_calendar_are_not_believed() {
        // 1970, the last second of 32 bits, the last millisecond of the year 9999, and the end of all.
        for to in [0, 4_294_967_296_000, 253_402_300_799_999, u64::MAX] {
            let (clock, mut time) = started();
            clock.set_unix_ms(to);
            assert_eq!(time.now_ms(), None);
            let fresh = TrustedTime::new(clock.clone(), None, Some(NOW_MS));
            assert!(fresh.doubt().is_some(), "{to} at a start");
            assert_eq!(fresh.kept().agreed_ms, 0);
        }
    }

    #[test]
    fn at_a_start_the_clock_must_fit_the_newest_record() {
        let doubt = |newest_ms| {
            let clock = Clock::manual(NOW_MS);
            TrustedTime::new(clock, None, newest_ms).doubt()
        };
        assert_eq!(doubt(None), None);
        assert_eq!(doubt(Some(NOW_MS + HOUR_MS)), None);
        assert_eq!(
            doubt(Some(NOW_MS + 2 * HOUR_MS)),
            Some(Doubt::BehindTheLog(2 * HOUR_MS))
        );
        assert_eq!(doubt(Some(NOW_MS - 3 * DAY_MS)), None);
        assert_eq!(
            doubt(Some(NOW_MS - 4 * DAY_MS)),
            Some(Doubt::FarAhead(4 * DAY_MS))
        );
    }

    #[test]
    fn a_restart_does_not_make_a_clock_that_jumped_believed() {
        let (clock, mut time) = started();
        let jumped_ms = NOW_MS + 700 * DAY_MS;
        clock.set_unix_ms(jumped_ms);
        assert_eq!(time.now_ms(), None);
        clock.advance_ms(20 * HOUR_MS);
        assert_eq!(time.now_ms(), None);
        let kept: Kept = time.kept().to_string().parse().unwrap();

        let newest_ms = Some(jumped_ms + 20 * HOUR_MS);
        let mut time = TrustedTime::new(clock.clone(), Some(kept), newest_ms);
        assert_eq!(time.doubt(), Some(Doubt::NotYetAgain));
        assert_eq!(time.now_ms(), None);
        // What it agreed before the restart counts.
        clock.advance_ms(4 * HOUR_MS);
        assert!(time.now_ms().is_some());
    }

    #[test]
    fn a_quiet_log_is_no_reason_to_doubt_when_the_last_run_was_yesterday() {
        let kept = Kept {
            unix_ms: NOW_MS - DAY_MS,
            agreed_ms: DAY_MS,
        };
        let clock = Clock::manual(NOW_MS);
        let mut time = TrustedTime::new(clock, Some(kept), Some(NOW_MS - 200 * DAY_MS));
        assert_eq!(time.now_ms(), Some(NOW_MS));
    }

    #[test]
    fn what_is_kept_is_read_again_and_nothing_else_is() {
        let kept = Kept {
            unix_ms: NOW_MS,
            agreed_ms: 5,
        };
        assert_eq!(kept.to_string(), "0\n1\n1795219200000 5\n");
        assert_eq!(kept.to_string().parse(), Ok(kept));
        for damaged in ["", "0\n1\n", "0\n1\n1 2", "1\n1\n1 2\n", "0\n1\n1 -2\n"] {
            assert_eq!(damaged.parse::<Kept>(), Err(()), "{damaged:?}");
        }
    }
}
