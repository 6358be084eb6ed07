//! Moments as an operator names them: how long ago, or when.

use std::fmt;

use crate::{
    base::units::{UnitError, parse_duration},
    event::time::from_rfc3339,
};

/// Milliseconds since 1970 of `24h` (before `now_ms`) or `2026-11-21T10:00:00+01:00` (RFC 3339).
///
/// # Errors
/// When it is neither.
pub fn moment(text: &str, now_ms: u64) -> Result<u64, BadMoment> {
    if text.contains('-') || text.contains(':') {
        return date_time(text).ok_or(BadMoment::NoDate);
    }
    let ago = parse_duration(text).map_err(BadMoment::Duration)?;
    Ok(now_ms.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
}

/// A moment that cannot be read; the text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadMoment {
    /// It looks like a date and is none.
    NoDate,
    /// It looks like a duration and is none.
    Duration(UnitError),
}

impl fmt::Display for BadMoment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDate => f.write_str("no moment such as 2026-11-21T10:00:00Z"),
            Self::Duration(error) => write!(f, "{error}; or write a moment: 2026-11-21T10:00:00Z"),
        }
    }
}

impl std::error::Error for BadMoment {}

/// RFC 3339 section 5.6, with its offsets and fractions; what is finer than a millisecond is cut off.
fn date_time(text: &str) -> Option<u64> {
    let text = text.to_ascii_uppercase();
    let (local, offset_min) = match text.strip_suffix('Z') {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            (local, offset_minutes(offset)?)
        }
    };
    let (seconds, fraction) = local.split_once('.').unwrap_or((local, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: String = fraction.chars().chain("00".chars()).take(3).collect();
    let local_ms = from_rfc3339(&format!("{seconds}.{fraction}Z"))?;
    local_ms.checked_add_signed(-offset_min * 60_000)
}

/// Minutes of `+01:00`.
fn offset_minutes(text: &str) -> Option<i64> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |digits: &str, below: i64| -> Option<i64> {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then_some(digits)?.parse().ok();
        number.filter(|&number| number < below)
    };
    Some(sign * (number(hours, 24)? * 60 + number(minutes, 60)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_255_200_000;

    #[test]
    fn a_duration_is_how_long_ago() {
        assert_eq!(moment("24h", NOW), Ok(NOW - 86_400_000));
        assert_eq!(moment("0s", NOW), Ok(NOW));
        assert_eq!(moment("3650d", 1), Ok(0));
    }

    #[test]
    fn a_date_is_a_moment_wherever_it_is_written() {
        for text in [
            "2026-11-21T10:00:00Z",
            "2026-11-21t10:00:00z",
            "2026-11-21T10:00:00.000Z",
            "2026-11-21T11:30:00+01:30",
            "2026-11-21T00:00:00.0000001-10:00",
        ] {
            assert_eq!(moment(text, 0), Ok(NOW), "{text}");
        }
        assert_eq!(moment("2026-11-21T10:00:00.25Z", 0), Ok(NOW + 250));
    }

    #[test]
    fn what_is_no_moment_is_an_error() {
        for text in [
            "2026-11-21",
            "10:00:00",
            "2026-11-21T10:00:00",
            "2026-11-21T10:00:00+0100",
            "2026-11-21T10:00:00+24:00",
            "2026-11-21T10:00:00.Z",
            "2026-13-21T10:00:00Z",
            "1970-01-01T00:00:00+01:00",
            "-é00:00",
            ":",
        ] {
            assert_eq!(moment(text, NOW), Err(BadMoment::NoDate), "{text}");
        }
        let error = moment("yesterday", NOW).unwrap_err().to_string();
        assert!(
            error.ends_with("or write a moment: 2026-11-21T10:00:00Z"),
            "{error}"
        );
    }
}
