//! Durations, sizes and rates as an operator writes them: a whole number and a unit.
//!
//! A number without a unit is refused everywhere: what the next reader takes it for is a guess,
//! and a limit guessed wrong is no limit.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

/// Parses `250ms`, `30s`, `10m`, `24h` or `7d`.
///
/// # Errors
/// When it is not a whole number and one of these units, or more than ten years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, &DURATION).map(Duration::from_millis)
}

/// Parses `512B`, `64KiB`, `10MiB`, `8GiB` or `1TiB` into bytes.
///
/// # Errors
/// When it is not a whole number and one of these units, or more than a file can hold.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZE)
}

/// How many of something in how much time, such as `20/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In this much time: a second, a minute, an hour or a day.
    pub per: Duration,
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (count, unit) = text.split_once('/').ok_or(UnitError::NotARate)?;
        let per = RATE_PERIODS.iter().find(|(name, _)| *name == unit);
        let (_, seconds) = per.ok_or_else(|| UnitError::UnknownUnit {
            unit: unit.to_owned(),
            known: "s, m, h, d",
        })?;
        let count = whole_number(count)?;
        let count = u32::try_from(count).map_err(|_| UnitError::TooLarge {
            most: "4294967295 in a period",
        })?;
        Ok(Self {
            count: NonZeroU32::new(count).ok_or(UnitError::Zero)?,
            per: Duration::from_secs(*seconds),
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.per.as_secs();
        match RATE_PERIODS.iter().find(|(_, period)| *period == seconds) {
            Some((unit, _)) => write!(f, "{}/{unit}", self.count),
            None => write!(f, "{}/{seconds}s", self.count),
        }
    }
}

const RATE_PERIODS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

/// Why a quantity was refused; the text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitError {
    /// Nothing before the unit, or something that is no whole number.
    NotANumber {
        /// What stood where the number belongs.
        text: String,
    },
    /// A number alone.
    NoUnit {
        /// The units there are.
        known: &'static str,
    },
    /// A unit nobody knows.
    UnknownUnit {
        /// The unit as it was written.
        unit: String,
        /// The units there are.
        known: &'static str,
    },
    /// More than Wardent can mean.
    TooLarge {
        /// The most there can be.
        most: &'static str,
    },
    /// A rate of nothing.
    Zero,
    /// A rate without its slash.
    NotARate,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANumber { text } if text.is_empty() => {
                write!(f, "a whole number is missing before the unit")
            }
            Self::NotANumber { text } => write!(f, "`{text}` is not a whole number"),
            Self::NoUnit { known } => write!(f, "the unit is missing (use {known})"),
            Self::UnknownUnit { unit, known } => write!(f, "unknown unit `{unit}` (use {known})"),
            Self::TooLarge { most } => write!(f, "too large (at most {most})"),
            Self::Zero => write!(f, "a rate of 0 lets nothing through (use 1 or more)"),
            Self::NotARate => write!(f, "not a rate (use a number and a period, such as 20/s)"),
        }
    }
}

impl std::error::Error for UnitError {}

/// A family of units and the most it can express, in its smallest unit.
struct Scale {
    units: &'static [(&'static str, u64)],
    known: &'static str,
    max: u64,
    most: &'static str,
}

/// Ten years bound it, so that no sum of an instant and a few durations can overflow.
const DURATION: Scale = Scale {
    units: &[
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ],
    known: "ms, s, m, h, d",
    max: 3_650 * 86_400_000,
    most: "3650d",
};

/// File offsets are signed, so half of what 64 bits could say is all there is.
const SIZE: Scale = Scale {
    units: &[
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ],
    known: "B, KiB, MiB, GiB, TiB",
    max: i64::MAX.unsigned_abs(),
    most: "8388607TiB",
};

fn parse(text: &str, scale: &Scale) -> Result<u64, UnitError> {
    let unit_at = text
        .find(|c: char| c.is_ascii_alphabetic() || c == 'µ')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number = whole_number(number)?;
    if unit.is_empty() {
        return Err(UnitError::NoUnit { known: scale.known });
    }
    let factor = scale.units.iter().find(|(name, _)| *name == unit);
    let (_, factor) = factor.ok_or_else(|| UnitError::UnknownUnit {
        unit: unit.to_owned(),
        known: scale.known,
    })?;
    let amount = number.checked_mul(*factor);
    amount
        .filter(|amount| *amount <= scale.max)
        .ok_or(UnitError::TooLarge { most: scale.most })
}

/// Decimal digits only: what `0x10`, `1_000` or `+5` mean differs from reader to reader.
fn whole_number(text: &str) -> Result<u64, UnitError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UnitError::NotANumber {
            text: text.to_owned(),
        });
    }
    text.parse().map_err(|_| UnitError::TooLarge {
        most: "18446744073709551615",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint<T: fmt::Debug>(result: Result<T, UnitError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn durations_are_read_as_the_contract_writes_them() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("10m", 600_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
    }

    #[test]
    fn sizes_are_read_as_the_contract_writes_them() {
        for (text, bytes) in [
            ("123B", 123),
            ("64KiB", 65_536),
            ("10MiB", 10_485_760),
            ("8GiB", 8_589_934_592),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn rates_are_read_and_written_alike() {
        for text in ["20/s", "300/m", "5000/h", "7/d"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        let rate: Rate = "300/m".parse().unwrap();
        assert_eq!((rate.count.get(), rate.per.as_secs()), (300, 60));
    }

    #[test]
    fn a_refusal_says_what_would_be_right() {
        let rate = |text: &str| complaint(text.parse::<Rate>());
        assert_eq!(rate("10/parsec"), "unknown unit `parsec` (use s, m, h, d)");
        assert_eq!(
            rate("10"),
            "not a rate (use a number and a period, such as 20/s)"
        );
        assert_eq!(
            rate("0/s"),
            "a rate of 0 lets nothing through (use 1 or more)"
        );
        assert_eq!(rate("-1/s"), "`-1` is not a whole number");
        assert_eq!(
            rate("5000000000/s"),
            "too large (at most 4294967295 in a period)"
        );
        assert_eq!(
            complaint(parse_duration("30")),
            "the unit is missing (use ms, s, m, h, d)"
        );
        assert_eq!(
            complaint(parse_duration("1.5h")),
            "`1.5` is not a whole number"
        );
        assert_eq!(
            complaint(parse_duration("h")),
            "a whole number is missing before the unit"
        );
        assert_eq!(
            complaint(parse_duration("")),
            "a whole number is missing before the unit"
        );
        assert_eq!(
            complaint(parse_duration("4000d")),
            "too large (at most 3650d)"
        );
        assert_eq!(
            complaint(parse_size("10MB")),
            "unknown unit `MB` (use B, KiB, MiB, GiB, TiB)"
        );
        assert_eq!(
            complaint(parse_size("9999999TiB")),
            "too large (at most 8388607TiB)"
        );
        assert_eq!(
            complaint(parse_size("99999999999999999999999B")),
            "too large (at most 18446744073709551615)"
        );
    }

    #[test]
    fn no_text_makes_a_parser_panic() {
        for text in [
            "/", "//", "/s", "é", "5é", "µs", "٣s", "1/\u{0}", "1e309s", "NaN", ".inf",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
            assert!(parse_size(text).is_err(), "{text}");
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
