//! The one meaning of a request's path.
//!
//! Percent-decoded once, slashes merged, dot segments removed, a trailing slash kept. Rules are
//! written for this form; what is forwarded is always the original target. A path that programs
//! read in different ways has no meaning and is refused. Bytes have no further meaning: `\`, control
//! characters, `;` and overlong UTF-8 are passed as the bytes they are (RFC 3986 section 6.2.2), but
//! for `..;`, which servlet containers take for `..`.

use std::fmt;

/// A path's one meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning<'a> {
    /// The path, decoded; begins with `/`.
    pub path: &'a [u8],
    /// Whether it differs from what was sent.
    pub changed: bool,
    /// Whether dot segments were removed.
    pub had_dots: bool,
}

/// Why a path has no single meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BadPath {
    /// It does not begin with `/`.
    NotAbsolute,
    /// It has a `%` without two hex digits after it.
    BadPercent,
    /// It has an encoded slash (`%2F`): one segment to some, two to others.
    EncodedSlash,
    /// It has a NUL, encoded or not: the end of the path to some.
    Nul,
    /// Its `..` segments lead above the root.
    AboveRoot,
    /// It has a dot segment with a parameter (`..;`): a name to some, one level up to others.
    DotParameter,
}

impl BadPath {
    /// What is wrong and what would be right, in a sentence.
    pub fn why(self) -> &'static str {
        match self {
            Self::NotAbsolute => "the path does not begin with `/`",
            Self::BadPercent => "the path has a `%` without two hex digits after it",
            Self::EncodedSlash => {
                "the path has an encoded slash (%2F), which programs read in different ways"
            }
            Self::Nul => "the path has a NUL (%00), which ends it for some programs",
            Self::AboveRoot => "the path leads above the root with `..`",
            Self::DotParameter => {
                "the path has a dot segment with a parameter (`..;`), which programs read in different ways"
            }
        }
    }
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl std::error::Error for BadPath {}

/// The one meaning of `raw`, the path part of a request target, without the query.
///
/// Borrowed from `raw` where nothing changes; else built in `buffer`, whose content is replaced and
/// which grows only where it has less room than `raw` is long. The whole is one pass.
///
/// Slashes are merged before dot segments are removed, as nginx does and more strictly than RFC 3986
/// section 5.2.4: `/a//../b` is `/b`, and `/a//../../b` leads above the root.
///
/// # Errors
/// When the path has no single meaning; see [`BadPath`]. Of several reasons the first is given.
pub fn normalise<'a>(raw: &'a [u8], buffer: &'a mut Vec<u8>) -> Result<Meaning<'a>, BadPath> {
    let Some(relative) = raw.strip_prefix(b"/") else {
        return Err(BadPath::NotAbsolute);
    };
    if is_plain(raw) {
        return Ok(Meaning {
            path: raw,
            changed: false,
            had_dots: false,
        });
    }
    let had_dots = rebuild(relative, buffer)?;
    Ok(Meaning {
        path: buffer,
        changed: buffer != raw,
        had_dots,
    })
}

/// Whether nothing here could need a change: no percent sign, no NUL, no slash before a slash or dot.
fn is_plain(raw: &[u8]) -> bool {
    let mut previous = 0;
    raw.iter().all(|&byte| {
        let after_slash = previous == b'/' && (byte == b'/' || byte == b'.');
        previous = byte;
        !after_slash && byte != b'%' && byte != 0
    })
}

/// Says whether there were dot segments.
fn rebuild(relative: &[u8], buffer: &mut Vec<u8>) -> Result<bool, BadPath> {
    let mut had_dots = false;
    buffer.clear();
    buffer.reserve(relative.len() + 1);
    buffer.push(b'/');
    let mut segments = relative.split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        // The buffer ends in a slash here, so an empty or dot segment leaves it as it is.
        let start = buffer.len();
        decode(segment, buffer)?;
        match buffer.get(start..).unwrap_or_default() {
            b"" => {}
            b"." => {
                had_dots = true;
                buffer.truncate(start);
            }
            b".." => {
                had_dots = true;
                buffer.truncate(parent(buffer, start)?);
            }
            [b'.', b';', ..] | [b'.', b'.', b';', ..] => return Err(BadPath::DotParameter),
            _ if segments.peek().is_some() => buffer.push(b'/'),
            _ => {}
        }
    }
    Ok(had_dots)
}

/// How much of `buffer`, of which `start` bytes end in a slash, is left one level up.
fn parent(buffer: &[u8], start: usize) -> Result<usize, BadPath> {
    let without_slash = buffer.get(..start - 1).unwrap_or_default();
    let slash = memchr::memrchr(b'/', without_slash).ok_or(BadPath::AboveRoot)?;
    Ok(slash + 1)
}

fn decode(segment: &[u8], buffer: &mut Vec<u8>) -> Result<(), BadPath> {
    let mut rest = segment.iter();
    while let Some(&byte) = rest.next() {
        let decoded = match byte {
            b'%' => percent_decoded(rest.next(), rest.next())?,
            plain => plain,
        };
        match decoded {
            0 => return Err(BadPath::Nul),
            // The segment was split at plain slashes, so this one was encoded.
            b'/' => return Err(BadPath::EncodedSlash),
            decoded => buffer.push(decoded),
        }
    }
    Ok(())
}

fn percent_decoded(high: Option<&u8>, low: Option<&u8>) -> Result<u8, BadPath> {
    let (high, low) = high.zip(low).ok_or(BadPath::BadPercent)?;
    let byte = hex_value(*high).zip(hex_value(*low));
    byte.map(|(high, low)| high << 4 | low)
        .ok_or(BadPath::BadPercent)
}

/// The value of a hex digit of either case.
pub(super) fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::fuzz::{campaign, hash};

    fn meaning(raw: &str) -> Result<String, BadPath> {
        let mut buffer = b"left over".to_vec();
        let meaning = normalise(raw.as_bytes(), &mut buffer)?;
        assert_eq!(meaning.changed, meaning.path != raw.as_bytes(), "{raw}");
        Ok(String::from_utf8_lossy(meaning.path).into_owned())
    }

    #[test]
    fn a_normal_path_is_borrowed_as_it_is() {
        for raw in [
            "/", "/admin/", "/a/b.c", "/a/b..", "/*", "/a;b=c/d", "/a\\b", "/ü",
        ] {
            let mut buffer = Vec::new();
            let meaning = normalise(raw.as_bytes(), &mut buffer).unwrap();
            assert_eq!((meaning.path, meaning.changed), (raw.as_bytes(), false));
            assert_eq!(meaning.path.as_ptr(), raw.as_ptr(), "{raw}");
            assert_eq!(buffer.capacity(), 0, "{raw}");
        }
    }

    #[test]
    fn names_that_begin_with_dots_are_names() {
        for raw in ["/.env", "/.git/config", "/...", "/a/..b", "/.well-known/x"] {
            assert_eq!(meaning(raw).as_deref(), Ok(raw));
        }
    }

    #[test]
    fn percent_encoding_is_undone_once() {
        assert_eq!(meaning("/%61dmin/").as_deref(), Ok("/admin/"));
        assert_eq!(meaning("/%2561dmin/").as_deref(), Ok("/%61dmin/"));
        assert_eq!(meaning("/a%252fb").as_deref(), Ok("/a%2fb"));
        assert_eq!(meaning("/%252e%252e/a").as_deref(), Ok("/%2e%2e/a"));
        assert_eq!(meaning("/caf%C3%a9").as_deref(), Ok("/café"));
        assert_eq!(meaning("/a%3Fb%23c").as_deref(), Ok("/a?b#c"));
    }

    #[test]
    fn dot_segments_are_removed_however_they_are_written() {
        for raw in [
            "/x/../admin/",
            "/x/%2e%2e/admin/",
            "/x/.%2E/admin/",
            "/x/%2e./admin/",
            "/./admin/",
            "/%2e/admin/",
            "/x/y/../../admin/",
            "/x/./../admin/./",
            "/admin/x/..",
            "/admin/.",
        ] {
            assert_eq!(meaning(raw).as_deref(), Ok("/admin/"), "{raw}");
        }
    }

    #[test]
    fn slashes_are_merged_and_a_trailing_one_is_kept() {
        for (raw, expected) in [
            ("//admin/", "/admin/"),
            ("///admin//x///", "/admin/x/"),
            ("//", "/"),
            ("/admin", "/admin"),
            ("//admin", "/admin"),
            ("/a//../b", "/b"),
        ] {
            assert_eq!(meaning(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn dots_that_end_at_the_root_are_the_root() {
        for raw in ["/a/..", "/a/../", "/.", "/./", "/a/b/../.."] {
            assert_eq!(meaning(raw).as_deref(), Ok("/"), "{raw}");
        }
    }

    #[test]
    fn dots_above_the_root_have_no_meaning() {
        for raw in [
            "/..",
            "/../x",
            "/a/../../x",
            "/%2e%2e/x",
            "//../x",
            "/a//../../x",
            "/./../x",
        ] {
            assert_eq!(meaning(raw), Err(BadPath::AboveRoot), "{raw}");
        }
    }

    #[test]
    fn dot_segments_with_parameters_have_no_meaning() {
        for raw in ["/a/..;/b", "/..;x=y/b", "/a/.;/b", "/a/%2e%2e%3b/b", "/..;"] {
            assert_eq!(meaning(raw), Err(BadPath::DotParameter), "{raw}");
        }
        for raw in ["/a;../b", "/...;/b", "/.a;/b", "/a..;/b"] {
            assert_eq!(meaning(raw).as_deref(), Ok(raw));
        }
    }

    #[test]
    fn dot_segments_are_told_even_where_they_cancel_out() {
        for (raw, expected) in [
            ("/a/../a/b", true),
            ("/a/%2e/b", true),
            ("/a//b", false),
            ("/a/%62", false),
            ("/a/..b", false),
            ("/a/b", false),
        ] {
            let mut buffer = Vec::new();
            let meaning = normalise(raw.as_bytes(), &mut buffer).unwrap();
            assert_eq!(meaning.had_dots, expected, "{raw}");
        }
    }

    #[test]
    fn encoded_slashes_and_nuls_have_no_meaning() {
        for raw in ["/a%2Fb", "/a%2fb", "/%2f", "/x/..%2fadmin"] {
            assert_eq!(meaning(raw), Err(BadPath::EncodedSlash), "{raw}");
        }
        for raw in ["/a%00b", "/%00", "/a\0b"] {
            assert_eq!(meaning(raw), Err(BadPath::Nul), "{raw}");
        }
    }

    #[test]
    fn a_percent_sign_needs_two_hex_digits() {
        for raw in [
            "/%", "/a%", "/%2", "/%2/f", "/%zz", "/%g0", "/%0g", "/%%41", "/%+1",
        ] {
            assert_eq!(meaning(raw), Err(BadPath::BadPercent), "{raw}");
        }
    }

    #[test]
    fn a_path_begins_with_a_slash() {
        for raw in ["", "*", "a/b", "%2fa", "http://app.test/"] {
            assert_eq!(meaning(raw), Err(BadPath::NotAbsolute), "{raw}");
        }
    }

    #[test]
    fn encoded_controls_and_backslashes_are_bytes_like_others() {
        assert_eq!(meaning("/a%0d%0ab%5cc").as_deref(), Ok("/a\r\nb\\c"));
        assert_eq!(meaning("/x/..%5cadmin").as_deref(), Ok("/x/..\\admin"));
    }

    #[test]
    fn overlong_utf8_is_no_slash_and_no_dot() {
        let mut buffer = Vec::new();
        let meaning = normalise(b"/x%c0%af..%c0%ae/y", &mut buffer).unwrap();
        assert_eq!(meaning.path, b"/x\xc0\xaf..\xc0\xae/y");
    }

    #[test]
    fn a_buffer_with_room_is_not_grown() {
        let mut buffer = Vec::with_capacity(16);
        let room = buffer.capacity();
        normalise(b"//aaaaaaaaaaaaaa", &mut buffer).unwrap();
        assert_eq!(buffer.capacity(), room);
    }

    /// The same rules written down a second time: the whole is split, decoded and folded.
    fn by_the_book(raw: &[u8]) -> Option<Vec<u8>> {
        let text: String = raw.iter().map(|&byte| char::from(byte)).collect();
        let mut stack: Vec<Vec<u8>> = Vec::new();
        let mut ends_in_slash = true;
        for segment in text.strip_prefix('/')?.split('/') {
            let mut pieces = segment.split('%');
            let mut decoded: Vec<u8> = latin1(pieces.next()?);
            for piece in pieces {
                let digits = piece.get(..2)?;
                if !digits.chars().all(|c| c.is_ascii_hexdigit()) {
                    return None;
                }
                decoded.push(u8::from_str_radix(digits, 16).ok()?);
                decoded.extend(latin1(piece.get(2..)?));
            }
            if decoded.contains(&0) || decoded.contains(&b'/') {
                return None;
            }
            if decoded.starts_with(b".;") || decoded.starts_with(b"..;") {
                return None;
            }
            ends_in_slash = matches!(&*decoded, b"" | b"." | b"..");
            match &*decoded {
                b"" | b"." => {}
                b".." => drop(stack.pop()?),
                _ => stack.push(decoded),
            }
        }
        let mut path = stack.iter().fold(Vec::new(), |path, segment| {
            [&path[..], b"/", segment].concat()
        });
        if ends_in_slash {
            path.push(b'/');
        }
        Some(path)
    }

    fn latin1(text: &str) -> Vec<u8> {
        text.chars().map(|c| u8::try_from(c).unwrap()).collect()
    }

    #[test]
    fn campaign_paths() {
        let samples: &[&[u8]] = &[
            b"/",
            b"/a/b/../c",
            b"/%61/./b//c/",
            b"/x/%2e%2E/y%2f",
            b"a/b",
        ];
        let words: &[&[u8]] = &[
            b"/", b"//", b".", b"..", b"/../", b"/./", b"%", b"%2e", b"%2E", b"%2f", b"%00",
            b"%25", b"%2", b"%zz", b"%c0%af", b"a", b";", b"\\", b"\0", b"\xff",
        ];
        campaign("paths", samples, words, |raw| {
            let mut buffer = b"left over".to_vec();
            let ours = normalise(raw, &mut buffer);
            let expected = by_the_book(raw);
            if ours.ok().map(|meaning| meaning.path.to_vec()) != expected {
                return Err(format!("{ours:?} and by the book {expected:?}"));
            }
            let Some(path) = expected else { return Ok(0) };
            // The meaning, written safely, means itself.
            let encode = |&byte: &u8| match byte {
                b'/' => "/".to_owned(),
                byte => format!("%{byte:02x}"),
            };
            let written: String = path.iter().map(encode).collect();
            let mut buffer = Vec::new();
            let again = normalise(written.as_bytes(), &mut buffer).map(|again| again.path == path);
            if again != Ok(true) {
                return Err(format!("{written} does not mean itself: {again:?}"));
            }
            Ok(hash(&(
                path.len().min(32),
                path.split(|&b| b == b'/').count(),
            )))
        });
    }

    proptest! {
        #[test]
        fn a_meaning_has_no_double_slash_and_no_dot_segment(raw in "(/|\\.|%2e|a|%61|%25|%){0,12}") {
            let mut buffer = Vec::new();
            let raw = format!("/{raw}");
            if let Ok(meaning) = normalise(raw.as_bytes(), &mut buffer) {
                prop_assert_eq!(meaning.path.first(), Some(&b'/'));
                let mut inner = meaning.path[1..].split(|&byte| byte == b'/').collect::<Vec<_>>();
                let last = inner.pop().unwrap();
                prop_assert!(last != b"." && last != b"..");
                prop_assert!(inner.iter().all(|segment| ![b"".as_slice(), b".", b".."].contains(segment)));
            }
        }

        #[test]
        fn a_meaning_without_percent_signs_means_itself(raw in "[/.ab]{0,12}") {
            let (mut once, mut twice) = (Vec::new(), Vec::new());
            let raw = format!("/{raw}");
            if let Ok(first) = normalise(raw.as_bytes(), &mut once) {
                let second = normalise(first.path, &mut twice).unwrap();
                prop_assert_eq!((second.path, second.changed), (first.path, false));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(raw: Vec<u8>) {
            let _ = normalise(&raw, &mut Vec::new());
            let _ = normalise(&[b"/", raw.as_slice()].concat(), &mut Vec::new());
        }
    }
}
