//! Paths as a policy matches them.

use std::fmt;

use super::{report::shown, words::FromWord};

/// A pattern of normalised paths: `*` is one segment, `**` any rest, a closing `/` makes a prefix,
/// anything else is exact. It is written decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(String);

impl PathPattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches every path there is.
    pub fn matches_everything(&self) -> bool {
        matches!(self.0.as_str(), "/" | "/**")
    }

    /// Whether every path that `other` matches is matched by this one, too.
    pub fn covers(&self, other: &Self) -> bool {
        let (ours, ours_open) = self.segments();
        let (theirs, theirs_open) = other.segments();
        let alike = |(our, their): (&&str, &&str)| *our == "*" || our == their;
        let pairs_alike = ours.iter().zip(&theirs).all(alike);
        pairs_alike
            && match (ours_open, theirs_open) {
                (true, true) => ours.len() <= theirs.len(),
                // `/a/` is not `/a`: something must follow the prefix.
                (true, false) => ours.len() < theirs.len(),
                (false, true) => false,
                (false, false) => ours.len() == theirs.len(),
            }
    }

    /// The segments, and whether any rest may follow them.
    fn segments(&self) -> (Vec<&str>, bool) {
        let path = self.0.strip_prefix('/').unwrap_or(&self.0);
        let open = path
            .strip_suffix("**")
            .or(path.ends_with('/').then_some(path));
        let open = open.or(path.is_empty().then_some(path));
        let fixed = open.unwrap_or(path).trim_end_matches('/');
        let segments = fixed.split('/').filter(|segment| !segment.is_empty());
        (segments.collect(), open.is_some())
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromWord for PathPattern {
    const EXPECTED: &'static str = "a path such as /accounts/login/";

    fn from_word(word: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("`{}` {why}", shown(word)));
        let Some(path) = word.strip_prefix('/') else {
            return refuse("must start with `/`");
        };
        if word.len() > 2_048 {
            return refuse("is longer than 2048 bytes");
        }
        if word.contains('?') || word.contains('#') {
            return refuse("has a query or a fragment (only the path is matched)");
        }
        if word.contains('%') {
            return refuse("is percent-encoded (write it decoded)");
        }
        if word.chars().any(char::is_control) {
            return refuse("has a control character in it");
        }
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            match segment {
                "" if !is_last => return refuse("has `//` in it (normalised paths have not)"),
                "." | ".." => return refuse("has dot segments (normalised paths have not)"),
                "**" if !is_last => return refuse("has `**` before its end (it must come last)"),
                "*" | "**" => {}
                other if other.contains('*') => {
                    return refuse("has a `*` inside a segment (it must stand alone, as in `/*/`)");
                }
                _ => {}
            }
        }
        Ok(Self(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::from_word(text).unwrap()
    }

    #[test]
    fn the_patterns_of_the_contract_are_read() {
        for text in [
            "/", "/a", "/a/", "/.git/**", "/.env", "/a/*/b", "/**", "/*", "/ä b",
        ] {
            assert_eq!(pattern(text).as_str(), text);
        }
    }

    #[test]
    fn every_mistake_has_its_message() {
        for (text, says) in [
            ("", "`` must start with `/`"),
            ("*", "`*` must start with `/`"),
            ("a/b", "`a/b` must start with `/`"),
            (
                "/a?b",
                "`/a?b` has a query or a fragment (only the path is matched)",
            ),
            ("/a%20b", "`/a%20b` is percent-encoded (write it decoded)"),
            (
                "/a//b",
                "`/a//b` has `//` in it (normalised paths have not)",
            ),
            (
                "/a/../b",
                "`/a/../b` has dot segments (normalised paths have not)",
            ),
            ("/.", "`/.` has dot segments (normalised paths have not)"),
            (
                "/**/a",
                "`/**/a` has `**` before its end (it must come last)",
            ),
            ("/**/", "`/**/` has `**` before its end (it must come last)"),
            (
                "/a*",
                "`/a*` has a `*` inside a segment (it must stand alone, as in `/*/`)",
            ),
            (
                "/***",
                "`/***` has a `*` inside a segment (it must stand alone, as in `/*/`)",
            ),
            ("/a\u{1b}", "`/a\\u{1b}` has a control character in it"),
        ] {
            assert_eq!(PathPattern::from_word(text).unwrap_err(), says);
        }
    }

    #[test]
    fn a_wider_pattern_covers_a_narrower_one() {
        for (wide, narrow) in [
            ("/a", "/a"),
            ("/a/", "/a/b"),
            ("/a/", "/a/b/"),
            ("/a/", "/a/**"),
            ("/a/**", "/a/"),
            ("/", "/a"),
            ("/**", "/"),
            ("/*", "/a"),
            ("/a/*/c", "/a/b/c"),
            ("/*/**", "/a/*"),
        ] {
            assert!(
                pattern(wide).covers(&pattern(narrow)),
                "{wide} covers {narrow}"
            );
        }
    }

    #[test]
    fn a_narrower_pattern_does_not_cover_a_wider_one() {
        for (narrow, wide) in [
            ("/a/", "/a"),
            ("/a", "/a/"),
            ("/a/b", "/a/*"),
            ("/a/b/", "/a/"),
            ("/a/*", "/a/b/c"),
            ("/a/b", "/a"),
            ("/*", "/"),
        ] {
            assert!(
                !pattern(narrow).covers(&pattern(wide)),
                "{narrow} against {wide}"
            );
        }
    }
}
