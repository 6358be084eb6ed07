//! One field of a flat JSON object, found without reading the others.
//!
//! It holds for what [`event`](crate::event) writes: no spaces, no nested objects, no name twice. A
//! quote inside a string stands behind a backslash, so `"name":` can be nothing but a field's name.

use memchr::memmem::Finder;

/// Where a field stands.
#[derive(Debug, Clone)]
pub struct Field {
    finder: Finder<'static>,
}

impl Field {
    /// The field of this name, which needs no escaping.
    pub fn new(name: &str) -> Self {
        let needle = format!("\"{name}\":");
        Self {
            finder: Finder::new(needle.as_bytes()).into_owned(),
        }
    }

    /// What follows the field's colon, to the end of the object; none where there is no such field.
    fn rest<'a>(&self, object: &'a [u8]) -> Option<&'a [u8]> {
        let at = self.finder.find(object)?;
        object.get(at + self.finder.needle().len()..)
    }

    /// The field's text, still escaped; none where it is missing or no text.
    pub fn text<'a>(&self, object: &'a [u8]) -> Option<&'a [u8]> {
        let text = self.rest(object)?.strip_prefix(b"\"")?;
        let mut from = 0;
        loop {
            let end = from + memchr::memchr(b'"', text.get(from..)?)?;
            let before = text.get(..end)?;
            let backslashes = before.iter().rev().take_while(|&&byte| byte == b'\\');
            // An even number of them escapes one another, and not the quote.
            if backslashes.count() % 2 == 0 {
                return Some(before);
            }
            from = end + 1;
        }
    }

    /// The field's number; none where it is missing or no whole number.
    pub fn number(&self, object: &[u8]) -> Option<u64> {
        let rest = self.rest(object)?;
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = std::str::from_utf8(rest.get(..length)?).ok()?;
        digits.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &[u8] = br#"{"a":"x","path":"/\"status\":\\","status":413,"b":"","n":null}"#;

    fn text(name: &str) -> Option<&'static [u8]> {
        Field::new(name).text(OBJECT)
    }

    #[test]
    fn a_text_ends_at_its_own_quote() {
        assert_eq!(text("a"), Some(b"x".as_slice()));
        assert_eq!(text("path"), Some(br#"/\"status\":\\"#.as_slice()));
        assert_eq!(text("b"), Some(b"".as_slice()));
    }

    #[test]
    fn a_name_inside_a_text_is_no_field() {
        assert_eq!(Field::new("status").number(OBJECT), Some(413));
    }

    #[test]
    fn what_is_not_there_or_of_another_kind_is_none() {
        assert_eq!(text("c"), None);
        assert_eq!(text("status"), None);
        assert_eq!(text("n"), None);
        assert_eq!(Field::new("a").number(OBJECT), None);
        assert_eq!(
            Field::new("a").text(br#"{"a":"cut o"#.get(..9).unwrap()),
            None
        );
    }
}
