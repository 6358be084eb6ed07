//! The fields of a flat JSON object, in one pass and without copying.
//!
//! It reads what [`access`](super::access) writes: no spaces, no escapes in names. A value that is an object
//! or a list itself, as a later version may add, is passed over. Anything else is no event.

/// A value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A text, still escaped where `is_escaped`.
    Text {
        /// What stands between the quotes.
        raw: &'a [u8],
        /// Whether it has a backslash.
        is_escaped: bool,
    },
    /// A number, `true`, `false` or `null`, as written.
    Plain(&'a [u8]),
    /// An object or a list.
    Nested,
}

impl<'a> Value<'a> {
    /// The text as it stands; for texts of Wardent's own, which need no escaping.
    pub fn own_text(self) -> Option<&'a [u8]> {
        match self {
            Self::Text { raw, .. } => Some(raw),
            Self::Plain(_) | Self::Nested => None,
        }
    }

    /// The whole number.
    pub fn number(self) -> Option<u64> {
        let Self::Plain(digits) = self else {
            return None;
        };
        let add = |number: u64, digit: &u8| {
            let digit = digit.wrapping_sub(b'0');
            let digit = (digit < 10).then_some(u64::from(digit))?;
            number.checked_mul(10)?.checked_add(digit)
        };
        match digits {
            [] => None,
            digits => digits.iter().try_fold(0, add),
        }
    }

    /// Appends the bytes that the text stands for; false where it is none.
    pub fn append_to(self, out: &mut Vec<u8>) -> bool {
        let Self::Text { raw, is_escaped } = self else {
            return false;
        };
        if !is_escaped {
            out.extend_from_slice(raw);
            return true;
        }
        let mut rest = raw;
        loop {
            rest = match rest {
                [] => return true,
                [b'\\', b'u', b'0', b'0', high, low, rest @ ..] => {
                    let digit = |byte: &u8| char::from(*byte).to_digit(16);
                    let byte = digit(high).zip(digit(low));
                    let Some(byte) = byte.and_then(|(h, l)| u8::try_from(h * 16 + l).ok()) else {
                        return false;
                    };
                    out.push(byte);
                    rest
                }
                [b'\\', escaped @ (b'"' | b'\\' | b'/'), rest @ ..] => {
                    out.push(*escaped);
                    rest
                }
                [b'\\', ..] => return false,
                [byte, rest @ ..] => {
                    out.push(*byte);
                    rest
                }
            };
        }
    }
}

/// Hands each field to `each`; none where the bytes are no flat object, or `each` gives up.
pub fn read<'a>(
    object: &'a [u8],
    mut each: impl FnMut(&'a [u8], Value<'a>) -> Option<()>,
) -> Option<()> {
    let mut rest = object.strip_prefix(b"{")?;
    if rest == b"}" {
        return Some(());
    }
    loop {
        rest = rest.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', rest)?;
        let (name, after) = rest.split_at_checked(end)?;
        let (value, after) = value(after.strip_prefix(b"\":")?)?;
        each(name, value)?;
        rest = match after {
            [b',', rest @ ..] => rest,
            [b'}'] => return Some(()),
            _ => return None,
        };
    }
}

/// The value at the beginning of `bytes`, and what comes after it.
fn value(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    match bytes.first()? {
        b'"' => text(bytes.get(1..)?),
        b'{' | b'[' => nested(bytes).map(|after| (Value::Nested, after)),
        _ => {
            let is_end = |byte: &u8| matches!(byte, b',' | b'}');
            let end = bytes.iter().position(is_end)?;
            let (plain, after) = bytes.split_at_checked(end)?;
            (!plain.is_empty()).then_some((Value::Plain(plain), after))
        }
    }
}

/// A text, of which the first quote is behind.
fn text(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let mut from = 0;
    loop {
        let end = from + memchr::memchr2(b'"', b'\\', bytes.get(from..)?)?;
        if bytes.get(end) == Some(&b'"') {
            let raw = bytes.get(..end)?;
            let is_escaped = from > 0;
            return Some((Value::Text { raw, is_escaped }, bytes.get(end + 1..)?));
        }
        from = end + 2;
    }
}

/// What comes after an object or a list.
fn nested(mut bytes: &[u8]) -> Option<&[u8]> {
    let mut depth = 0_usize;
    loop {
        let (first, rest) = bytes.split_first()?;
        bytes = rest;
        match first {
            b'"' => bytes = text(bytes)?.1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(bytes);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(object: &str) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        read(object.as_bytes(), |name, value| {
            let mut text = Vec::new();
            let shown = match value {
                Value::Text { .. } => {
                    value.append_to(&mut text).then_some(())?;
                    text.iter().map(|&byte| char::from(byte)).collect()
                }
                Value::Plain(plain) => String::from_utf8_lossy(plain).into_owned(),
                Value::Nested => "nested".to_owned(),
            };
            found.push((String::from_utf8_lossy(name).into_owned(), shown));
            Some(())
        })?;
        Some(found)
    }

    #[test]
    fn fields_are_found_one_after_the_other() {
        let object = r#"{"a":"x","p":"/\"b\":\\","n":-1,"e":"","t":true,"l":[{"q":"]}"},2],"u":"\u00e9\u001b"}"#;
        let found = fields(object).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("a", "x"),
                ("p", r#"/"b":\"#),
                ("n", "-1"),
                ("e", ""),
                ("t", "true"),
                ("l", "nested"),
                ("u", "\u{e9}\u{1b}"),
            ]
        );
        assert_eq!(fields("{}"), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_flat_object_is_none() {
        for text in [
            "",
            "x",
            "{",
            "[1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":\"x",
            "{\"a\":1}x",
            "{\"a\":\"\\",
            "{\"a\":1,}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u00zz\"}",
            "{\"a\":[1}",
            "{a:1}",
            "{\"a\":\"\\u0",
        ] {
            assert_eq!(fields(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_whole_and_in_bounds() {
        assert_eq!(Value::Plain(b"413").number(), Some(413));
        for no in [&b"-1"[..], b"1.5", b"true", b"99999999999999999999", b""] {
            assert_eq!(Value::Plain(no).number(), None);
        }
    }
}
