//! Moments in the two spellings that leave the process, computed once a second.

use std::cell::RefCell;

/// Formats moments; one of its own for each worker.
#[derive(Debug, Default)]
pub struct Stamps(RefCell<Second>);

#[derive(Debug)]
struct Second {
    unix_s: u64,
    /// `2026-11-21T10:00:00`
    rfc3339: [u8; 19],
    /// `Sat, 21 Nov 2026 10:00:00 GMT`
    http_date: [u8; 29],
}

impl Default for Second {
    fn default() -> Self {
        Self::at(0)
    }
}

impl Second {
    fn at(unix_s: u64) -> Self {
        /// The last second that both formats can spell: the end of the year 9999.
        const LAST: u64 = 253_402_300_799;
        let moment = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_s.min(LAST));
        let http_date = httpdate::fmt_http_date(moment);
        let mut second = Self {
            unix_s,
            rfc3339: *b"1970-01-01T00:00:00",
            http_date: *b"Thu, 01 Jan 1970 00:00:00 GMT",
        };
        if let Ok(text) = http_date.as_bytes().try_into() {
            second.http_date = text;
            second.rfc3339 = to_rfc3339(&second.http_date);
        }
        second
    }
}

/// `Sat, 21 Nov 2026 10:00:00 GMT` → `2026-11-21T10:00:00`
fn to_rfc3339(date: &[u8; 29]) -> [u8; 19] {
    const MONTHS: [&[u8]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    let month = date.get(8..11).unwrap_or_default();
    let number = MONTHS.iter().position(|&name| name == month).unwrap_or(0) + 1;
    let [
        _,
        _,
        _,
        _,
        _,
        d1,
        d2,
        _,
        _,
        _,
        _,
        _,
        y1,
        y2,
        y3,
        y4,
        _,
        h1,
        h2,
        _,
        m1,
        m2,
        _,
        s1,
        s2,
        ..,
    ] = *date;
    let (n1, n2) = if number < 10 {
        (b'0', b"0123456789".get(number))
    } else {
        (b'1', b"0123456789".get(number - 10))
    };
    let n2 = n2.copied().unwrap_or(b'0');
    [
        y1, y2, y3, y4, b'-', n1, n2, b'-', d1, d2, b'T', h1, h2, b':', m1, m2, b':', s1, s2,
    ]
}

/// Milliseconds since 1970 of `2026-11-21T10:00:00.123Z`, as [`Stamps::write_rfc3339`] spells it;
/// the fraction may be left out. None for any other text.
pub fn from_rfc3339(text: &str) -> Option<u64> {
    let (seconds, rest) = text.as_bytes().split_first_chunk::<19>()?;
    let fraction = match rest {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if digits.len() == 3 => number(digits)?,
        _ => return None,
    };
    let [
        y1,
        y2,
        y3,
        y4,
        b'-',
        n1,
        n2,
        b'-',
        d1,
        d2,
        b'T',
        h1,
        h2,
        b':',
        m1,
        m2,
        b':',
        s1,
        s2,
    ] = *seconds
    else {
        return None;
    };
    let (year, month, day) = (
        number(&[y1, y2, y3, y4])?,
        number(&[n1, n2])?,
        number(&[d1, d2])?,
    );
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?);
    let is_time = hour < 24 && minute < 60 && second < 60;
    let is_date = year >= 1970 && (1..=days_of(year, month)).contains(&day);
    if !(is_time && is_date) {
        return None;
    }
    // Years that begin in March, so that the leap day is the last one of its year.
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    /// From the first of March of the year 0 to the first of January 1970.
    const BEFORE_1970: u64 = 719_468;
    let days = year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - BEFORE_1970;
    let unix_s = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(unix_s * 1_000 + fraction)
}

/// A number of decimal digits alone.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + u64::from(digit))
    })
}

/// How many days a month of the Gregorian calendar has; none where there is no such month.
fn days_of(year: u64, month: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 0,
    }
}

impl Stamps {
    /// Appends `2026-11-21T10:00:00.123Z` (RFC 3339).
    pub fn write_rfc3339(&self, unix_ms: u64, out: &mut Vec<u8>) {
        self.with(unix_ms / 1_000, |second| {
            out.extend_from_slice(&second.rfc3339);
        });
        let ms = unix_ms % 1_000;
        let digit = |value: u64| {
            b"0123456789"
                .get((value % 10) as usize)
                .copied()
                .unwrap_or(b'0')
        };
        out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
    }

    /// `2026-11-21T10:00:00.123Z`, as a text of its own.
    pub fn rfc3339(&self, unix_ms: u64) -> String {
        let mut out = Vec::with_capacity(24);
        self.write_rfc3339(unix_ms, &mut out);
        // Digits and signs alone.
        String::from_utf8(out).unwrap_or_default()
    }

    /// Appends `Sat, 21 Nov 2026 10:00:00 GMT` (RFC 9110 section 5.6.7).
    pub fn write_http_date(&self, unix_ms: u64, out: &mut Vec<u8>) {
        self.with(unix_ms / 1_000, |second| {
            out.extend_from_slice(&second.http_date);
        });
    }

    fn with(&self, unix_s: u64, then: impl FnOnce(&Second)) {
        let mut second = self.0.borrow_mut();
        if second.unix_s != unix_s {
            *second = Second::at(unix_s);
        }
        then(&second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_moment() {
        let stamps = Stamps::default();
        let mut out = Vec::new();
        stamps.write_rfc3339(1_795_255_201_042, &mut out);
        out.push(b' ');
        stamps.write_http_date(1_795_255_201_042, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-11-21T10:00:01.042Z Sat, 21 Nov 2026 10:00:01 GMT"
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        // A leap day, the ends of years and centuries, and 400 years in steps of 17 days and a bit.
        let some = [0, 951_782_400_000, 4_107_542_399_999, 253_402_300_799_999];
        let many = (0..8_600).map(|n| n * 1_468_812_345);
        for unix_ms in some.into_iter().chain(many) {
            let mut out = Vec::new();
            Stamps::default().write_rfc3339(unix_ms, &mut out);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(from_rfc3339(&text), Some(unix_ms), "{text}");
        }
        assert_eq!(
            from_rfc3339("2026-11-21T10:00:01Z"),
            Some(1_795_255_201_000)
        );
    }

    #[test]
    fn what_is_no_moment_is_not_read() {
        for text in [
            "",
            "Z",
            "2026-11-21",
            "2026-11-21T10:00:01",
            "2026-11-21T10:00:01+01:00",
            "2026-11-21 10:00:01Z",
            "2026-11-21T10:00:01.5Z",
            "2026-02-29T10:00:01Z",
            "2100-02-29T10:00:01Z",
            "2026-04-31T10:00:01Z",
            "2026-01-00T10:00:01Z",
            "2026-01-32T10:00:01Z",
            "2026-00-01T10:00:01Z",
            "2026-13-01T10:00:01Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T10:00:60Z",
            "1969-12-31T23:59:59Z",
            "2026-+1-21T10:00:01Z",
            "2026-11-21-01T10:00:01Z",
            "２026-11-21T10:00:01Z",
        ] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn far_moments_are_cut_and_not_a_panic() {
        let mut out = Vec::new();
        Stamps::default().write_rfc3339(u64::MAX, &mut out);
        assert!(out.starts_with(b"9999-12-31T23:59:59."));
    }
}
