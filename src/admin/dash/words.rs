//! Numbers, times and addresses, as people read them.

use maud::{Markup, html};

/// A count with its thousands apart: `1 234 567`, by thin spaces that no line breaks at.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A rate or a time, as exact as it is worth: `0.25`, `3.1`, `482`.
pub(super) fn decimal(number: f64) -> String {
    if number >= 100.0 {
        return format!("{number:.0}");
    }
    let text = if number >= 10.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.2}")
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Milliseconds that may not be known.
pub(super) fn ms(number: Option<f64>) -> String {
    number.map_or_else(|| "–".to_owned(), decimal)
}

/// Bytes, in the unit that fits.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut rest, mut unit) = (number, 0, 0);
    while whole >= 1_024 && unit + 1 < UNITS.len() {
        rest = whole % 1_024 * 10 / 1_024;
        whole /= 1_024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if whole < 10 && unit > 0 {
        format!("{whole}.{rest} {name}")
    } else {
        format!("{whole} {name}")
    }
}

/// A span of time, in its two largest units: `9 min 58 s`.
pub(super) fn span_ms(ms: u64) -> String {
    let seconds = ms / 1_000;
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let mut told = Vec::new();
    for (length, name) in units {
        let number = rest / length;
        rest %= length;
        if number > 0 && told.len() < 2 {
            told.push(format!("{number}\u{a0}{name}"));
        } else if !told.is_empty() {
            break;
        }
    }
    if told.is_empty() {
        return if ms == 0 {
            "0\u{a0}s".to_owned()
        } else {
            format!("{ms}\u{a0}ms")
        };
    }
    told.join(" ")
}

/// A moment of RFC 3339, to the second: `2026-11-22 00:16:51 UTC`.
pub(super) fn moment(rfc3339: &str) -> String {
    let (day, time) = rfc3339.split_once('T').unwrap_or((rfc3339, ""));
    let time = time.split(['.', 'Z']).next().unwrap_or_default();
    format!("{day} {time} UTC").replace("  ", " ")
}

/// A moment, marked up as one.
pub(super) fn time(rfc3339: &str) -> Markup {
    html! { time datetime=(rfc3339) { (moment(rfc3339)) } }
}

/// Text as a part of a path or of a query (RFC 3986 section 2.1).
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A client or network, with the way to its page.
pub(super) fn client(target: &str) -> Markup {
    html! { a.mono href={ "/client/" (encoded(target)) } { (target) } }
}

/// A request's id, with the way to its page.
pub(super) fn request(id: &str) -> Markup {
    html! { a.mono href={ "/request/" (encoded(id)) } { (id) } }
}

/// What a machine calls so, as people read it: `rate_limited` as `rate limited`.
pub(super) fn plain(name: &str) -> String {
    name.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_in_the_unit_that_fits() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(20 << 30), "20 GiB");
        assert_eq!(decimal(0.0), "0");
        assert_eq!(decimal(1.5), "1.5");
        assert_eq!(decimal(60.0), "60");
        assert_eq!(decimal(45.12), "45.1");
        assert_eq!(decimal(1234.5), "1234");
        assert_eq!(ms(None), "–");
    }

    #[test]
    fn times_are_told_in_two_units() {
        assert_eq!(span_ms(0), "0\u{a0}s");
        assert_eq!(span_ms(250), "250\u{a0}ms");
        assert_eq!(span_ms(598_000), "9\u{a0}min 58\u{a0}s");
        assert_eq!(span_ms(3_605_000), "1\u{a0}h");
        assert_eq!(span_ms(90_000_000), "1\u{a0}d 1\u{a0}h");
        assert_eq!(
            moment("2026-11-22T00:16:51.123Z"),
            "2026-11-22 00:16:51 UTC"
        );
    }

    #[test]
    fn nothing_leaves_its_part_of_a_path() {
        assert_eq!(encoded("2001:db8::/64"), "2001:db8::/64");
        assert_eq!(encoded("a b?c#d\"<%"), "a%20b%3Fc%23d%22%3C%25");
    }
}
