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
    fn far_moments_are_cut_and_not_a_panic() {
        let mut out = Vec::new();
        Stamps::default().write_rfc3339(u64::MAX, &mut out);
        assert!(out.starts_with(b"9999-12-31T23:59:59."));
    }
}
