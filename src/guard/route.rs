//! Which of the policy's routes a request takes.
//!
//! Patterns are written for the normalised path (see [`path`](super::path)). The first route that
//! matches wins; a request that none matches gets the defaults.

use std::{fmt, ptr, str::FromStr};

use super::path::hex_value;

/// A path pattern: exact, or a prefix when it ends in `/`; `*` is one segment, a last `**` any rest.
///
/// `/.git/**` matches `/.git/` and everything below it, as `/.git/` does, and not `/.git`.
/// Compared byte for byte and case-sensitively with the decoded path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    segments: Box<[Segment]>,
    /// Whether a slash and any rest follow the segments.
    is_prefix: bool,
    /// Whether some segment is `*`; without, the bytes of `text` are compared as they are.
    has_wildcard: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Exactly(Box<[u8]>),
    /// Any one segment that is not empty.
    Any,
}

/// Why a text is no pattern; the message goes on after the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPattern {
    /// It does not begin with `/`.
    NotAbsolute,
    /// It is longer than [`PATTERN_BYTES_MAX`].
    TooLong,
    /// It has a `?` or a `#`, which end the path.
    Query,
    /// It has a control character.
    Control,
    /// It has two slashes in a row, which a normalised path never has.
    EmptySegment,
    /// It has a `.` or `..` segment, which a normalised path never has.
    DotSegment,
    /// It has a percent-encoding, while it is compared with the decoded path.
    Encoded,
    /// A segment has a `*` beside other characters.
    PartialWildcard,
    /// A `**` is not the last segment.
    RestNotLast,
}

/// The longest a pattern may be.
pub const PATTERN_BYTES_MAX: usize = 2_048;

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAbsolute => f.write_str("must start with `/`"),
            Self::TooLong => write!(f, "is longer than {PATTERN_BYTES_MAX} bytes"),
            Self::Query => f.write_str("has a query or a fragment (only the path is matched)"),
            Self::Control => f.write_str("has a control character in it"),
            Self::EmptySegment => f.write_str("has `//` in it (normalised paths have not)"),
            Self::DotSegment => f.write_str("has dot segments (normalised paths have not)"),
            Self::Encoded => f.write_str("is percent-encoded (write it decoded)"),
            Self::PartialWildcard => {
                f.write_str("has a `*` inside a segment (it must stand alone, as in `/*/`)")
            }
            Self::RestNotLast => f.write_str("has `**` before its end (it must come last)"),
        }
    }
}

impl std::error::Error for BadPattern {}

impl Pattern {
    /// Reads a pattern as written in the policy.
    ///
    /// # Errors
    /// When it could never match a normalised path, or means something else than it seems to.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let relative = text.strip_prefix('/').ok_or(BadPattern::NotAbsolute)?;
        if text.len() > PATTERN_BYTES_MAX {
            return Err(BadPattern::TooLong);
        }
        let mut parts: Vec<&str> = relative.split('/').collect();
        let is_prefix = parts
            .pop_if(|last| last.is_empty() || *last == "**")
            .is_some();
        let segments: Vec<Segment> = parts.into_iter().map(segment).collect::<Result<_, _>>()?;
        Ok(Self {
            text: text.strip_suffix("**").unwrap_or(text).into(),
            has_wildcard: segments.contains(&Segment::Any),
            segments: segments.into(),
            is_prefix,
        })
    }

    /// Whether this normalised path is one of the pattern's.
    pub fn matches(&self, path: &[u8]) -> bool {
        if self.has_wildcard {
            return self.matches_by_segment(path, |sent, literal| sent == literal);
        }
        if self.is_prefix {
            return path.starts_with(self.text.as_bytes());
        }
        path == self.text.as_bytes()
    }

    /// Whether this path as sent, neither decoded nor normalised, is written as the pattern is.
    ///
    /// What a path cannot hold but encoded (RFC 3986 section 3.3: `é`, a space) counts as written so:
    /// there is no other way to send it.
    pub fn matches_as_written(&self, raw: &[u8]) -> bool {
        self.matches_by_segment(raw, is_written_as)
    }

    fn matches_by_segment(&self, path: &[u8], same: impl Fn(&[u8], &[u8]) -> bool) -> bool {
        let Some(relative) = path.strip_prefix(b"/") else {
            return false;
        };
        let mut sent = relative.split(|&byte| byte == b'/');
        let each_matches = self.segments.iter().all(|segment| {
            sent.next().is_some_and(|sent| match segment {
                Segment::Exactly(literal) => same(sent, literal),
                Segment::Any => !sent.is_empty(),
            })
        });
        // A prefix asks for a slash after its segments, so for one more segment, be it empty.
        each_matches && sent.next().is_some() == self.is_prefix
    }

    /// Whether it matches every path there is.
    pub fn matches_everything(&self) -> bool {
        self.is_prefix && self.segments.is_empty()
    }

    /// Whether every path that `other` matches is matched by this pattern too.
    pub fn covers(&self, other: &Self) -> bool {
        let (own, others) = (self.segments.len(), other.segments.len());
        let long_enough = match (self.is_prefix, other.is_prefix) {
            (true, true) => own <= others,
            (true, false) => own < others,
            (false, false) => own == others,
            (false, true) => false,
        };
        let mut pairs = self.segments.iter().zip(&other.segments);
        long_enough
            && pairs.all(|(own, other)| match (own, other) {
                (Segment::Any, Segment::Any | Segment::Exactly(_)) => true,
                (Segment::Exactly(own), Segment::Exactly(other)) => own == other,
                (Segment::Exactly(_), Segment::Any) => false,
            })
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        Self::parse(text)
    }
}

impl fmt::Display for Pattern {
    /// As written, but for a last `**`, which is left out: `/a/` means the same as `/a/**`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn segment(text: &str) -> Result<Segment, BadPattern> {
    match text {
        "" => Err(BadPattern::EmptySegment),
        "." | ".." => Err(BadPattern::DotSegment),
        "*" => Ok(Segment::Any),
        "**" => Err(BadPattern::RestNotLast),
        _ if text.contains('*') => Err(BadPattern::PartialWildcard),
        _ if text.contains(['?', '#']) => Err(BadPattern::Query),
        _ if text.contains(char::is_control) => Err(BadPattern::Control),
        _ if has_percent_encoding(text.as_bytes()) => Err(BadPattern::Encoded),
        _ => Ok(Segment::Exactly(text.as_bytes().into())),
    }
}

fn has_percent_encoding(text: &[u8]) -> bool {
    text.array_windows()
        .any(|triple| percent_encoded(triple).is_some())
}

fn percent_encoded(&[percent, high, low]: &[u8; 3]) -> Option<u8> {
    let (high, low) = hex_value(high).zip(hex_value(low))?;
    (percent == b'%').then_some(high << 4 | low)
}

/// Whether a segment as sent is `literal`, with encoded only what cannot be sent otherwise.
fn is_written_as(mut sent: &[u8], literal: &[u8]) -> bool {
    let each_same = literal.iter().all(|&wanted| {
        let encoded = sent
            .split_first_chunk()
            .filter(|_| !may_stand_plain(wanted));
        let (written, rest) = match (encoded, sent) {
            (Some((triple, rest)), _) if percent_encoded(triple) == Some(wanted) => (wanted, rest),
            (_, [plain, rest @ ..]) => (*plain, rest),
            (_, []) => return false,
        };
        sent = rest;
        written == wanted
    });
    each_same && sent.is_empty()
}

/// `pchar` of RFC 3986 section 3.3.
fn may_stand_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// One line of the policy's list: what it is for, and what holds there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route<T> {
    /// The paths; one that matches is enough.
    pub patterns: Vec<Pattern>,
    /// The methods, compared as written; none means any. `GET` does not include `HEAD`.
    pub methods: Option<Vec<String>>,
    /// What holds for requests that take this route.
    pub value: T,
}

impl<T> Route<T> {
    fn takes(&self, method: &[u8], mut on_path: impl FnMut(&Pattern) -> bool) -> bool {
        self.allows(method) && self.patterns.iter().any(&mut on_path)
    }

    fn allows(&self, method: &[u8]) -> bool {
        let listed = |methods: &Vec<String>| methods.iter().any(|own| own.as_bytes() == method);
        self.methods.as_ref().is_none_or(listed)
    }
}

/// The policy's routes, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes<T>(Vec<Route<T>>);

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> From<Vec<Route<T>>> for Routes<T> {
    fn from(routes: Vec<Route<T>>) -> Self {
        Self(routes)
    }
}

impl<T> Routes<T> {
    /// What holds for this method and normalised path: the first route that matches; none if none does.
    pub fn find(&self, method: &[u8], path: &[u8]) -> Option<&T> {
        self.find_route(method, path).map(|route| &route.value)
    }

    /// The first route that matches this method and normalised path.
    pub fn find_route(&self, method: &[u8], path: &[u8]) -> Option<&Route<T>> {
        let mut routes = self.0.iter();
        routes.find(|route| route.takes(method, |pattern| pattern.matches(path)))
    }

    /// Whether the path as sent would not take the route `found` that its meaning takes.
    ///
    /// Then an application that does not normalise sees another path than the one `found` was
    /// written for, and a route that skips the secret or the bots must not be reached so. That the
    /// path as sent matches a pattern of `found` is not enough: with routes for `/static/private/`
    /// and then `/static/`, `/static/private/../x` is written like both and takes the first.
    pub fn only_by_normalisation(&self, method: &[u8], raw: &[u8], found: &Route<T>) -> bool {
        let as_written =
            |route: &&Route<T>| route.takes(method, |pattern| pattern.matches_as_written(raw));
        let taken = self.0.iter().find(as_written);
        !taken.is_some_and(|taken| ptr::eq(taken, found))
    }

    /// The routes, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Route<T>> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn route(
        patterns: &[&str],
        methods: Option<&[&str]>,
        value: &'static str,
    ) -> Route<&'static str> {
        Route {
            patterns: patterns.iter().map(|text| pattern(text)).collect(),
            methods: methods.map(|list| list.iter().map(|&method| method.to_owned()).collect()),
            value,
        }
    }

    fn assert_matches(text: &str, inside: &[&str], outside: &[&str]) {
        for path in inside {
            assert!(
                pattern(text).matches(path.as_bytes()),
                "{text} misses {path}"
            );
        }
        for path in outside {
            assert!(
                !pattern(text).matches(path.as_bytes()),
                "{text} takes {path}"
            );
        }
    }

    #[test]
    fn a_plain_path_is_exact() {
        assert_matches(
            "/admin",
            &["/admin"],
            &[
                "/administrator",
                "/admin/",
                "/admin/x",
                "/ADMIN",
                "/",
                "/x/admin",
            ],
        );
    }

    #[test]
    fn a_path_that_ends_in_a_slash_is_a_prefix() {
        assert_matches(
            "/admin/",
            &["/admin/", "/admin/x", "/admin/x/y/"],
            &["/admin", "/adminx/", "/"],
        );
        assert_matches("/", &["/", "/x", "/x/y"], &["", "x"]);
    }

    #[test]
    fn a_star_is_exactly_one_segment() {
        assert_matches(
            "/u/*/edit",
            &["/u/7/edit", "/u/*/edit", "/u/a.b/edit"],
            &[
                "/u/edit",
                "/u//edit",
                "/u/7/8/edit",
                "/u/7/edit/",
                "/u/7/edits",
                "/u/7",
            ],
        );
        assert_matches("/u/*", &["/u/7"], &["/u/", "/u", "/u/7/"]);
        assert_matches("/*/", &["/u/", "/u/7"], &["/", "/u"]);
    }

    #[test]
    fn two_stars_are_any_rest() {
        assert_matches(
            "/.git/**",
            &["/.git/", "/.git/config", "/.git/a/b"],
            &["/.git", "/.gitignore", "/x/.git/"],
        );
        assert_matches("/**", &["/", "/x", "/x/y"], &[]);
        assert_matches("/*/x/**", &["/a/x/", "/a/x/b/c"], &["/a/x", "/x/", "/a/y/"]);
    }

    #[test]
    fn patterns_that_could_never_match_or_mislead_are_refused() {
        for (text, expected) in [
            ("", BadPattern::NotAbsolute),
            ("admin", BadPattern::NotAbsolute),
            ("**", BadPattern::NotAbsolute),
            ("/a//b", BadPattern::EmptySegment),
            ("//", BadPattern::EmptySegment),
            ("/a/../b", BadPattern::DotSegment),
            ("/a/.", BadPattern::DotSegment),
            ("/a/**/b", BadPattern::RestNotLast),
            ("/a/**/", BadPattern::RestNotLast),
            ("/*.php", BadPattern::PartialWildcard),
            ("/a/b*", BadPattern::PartialWildcard),
            ("/a/***", BadPattern::PartialWildcard),
            ("/a?b=c", BadPattern::Query),
            ("/a#b", BadPattern::Query),
            ("/a\u{1b}", BadPattern::Control),
            ("/caf%C3%A9", BadPattern::Encoded),
            (
                &format!("/{}", "a".repeat(PATTERN_BYTES_MAX)),
                BadPattern::TooLong,
            ),
        ] {
            assert_eq!(Pattern::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_lone_percent_sign_is_a_character() {
        assert_matches("/100%", &["/100%"], &["/100"]);
        assert_matches("/%zz", &["/%zz"], &[]);
    }

    #[test]
    fn the_first_route_that_matches_wins() {
        let routes = Routes::from(vec![
            route(&["/a/b"], None, "exact"),
            route(&["/x", "/a/"], None, "prefix"),
            route(&["/**"], None, "rest"),
        ]);
        assert_eq!(routes.find(b"GET", b"/a/b"), Some(&"exact"));
        assert_eq!(routes.find(b"GET", b"/a/c"), Some(&"prefix"));
        assert_eq!(routes.find(b"GET", b"/x"), Some(&"prefix"));
        assert_eq!(routes.find(b"GET", b"/a"), Some(&"rest"));
        assert_eq!(Routes::<()>::default().find(b"GET", b"/a"), None);
    }

    #[test]
    fn methods_are_taken_as_written_and_none_means_any() {
        let routes = Routes::from(vec![
            route(&["/a"], Some(&["GET", "POST"]), "listed"),
            route(&["/a"], None, "any"),
        ]);
        assert_eq!(routes.find(b"GET", b"/a"), Some(&"listed"));
        assert_eq!(routes.find(b"POST", b"/a"), Some(&"listed"));
        for other in [b"HEAD".as_slice(), b"get", b"PUT", b""] {
            assert_eq!(routes.find(other, b"/a"), Some(&"any"));
        }
    }

    #[test]
    fn only_an_open_root_matches_everything() {
        for (text, everything) in [("/", true), ("/**", true), ("/*/", false), ("/a/", false)] {
            assert_eq!(pattern(text).matches_everything(), everything, "{text}");
        }
    }

    #[test]
    fn covering_is_told_where_every_path_is_taken() {
        for (wide, narrow) in [
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/", "/a/**"),
            ("/a/", "/a/b"),
            ("/a/", "/a/*/c/"),
            ("/", "/a"),
            ("/**", "/"),
            ("/*", "/a"),
            ("/*/", "/a/b"),
            ("/*/b", "/*/b"),
            ("/a/**", "/a/"),
            ("/*/**", "/a/*"),
        ] {
            assert!(pattern(wide).covers(&pattern(narrow)), "{wide} {narrow}");
        }
        for (narrow, wide) in [
            ("/a", "/b"),
            ("/a", "/a/"),
            ("/a/", "/a"),
            ("/a/b", "/a/"),
            ("/a", "/*"),
            ("/a/b/", "/a/"),
            ("/*", "/a/b"),
            ("/*/b", "/a/*"),
            ("/a/*", "/a/b/c"),
            ("/a/b", "/a"),
            ("/*", "/"),
        ] {
            assert!(!pattern(narrow).covers(&pattern(wide)), "{narrow} {wide}");
        }
    }

    fn webhooks() -> Routes<&'static str> {
        Routes::from(vec![
            route(&["/static/private/"], None, "private"),
            route(&["/webhooks/stripe", "/hook"], Some(&["POST"]), "stripe"),
            route(&["/static/"], None, "static"),
            route(&["/münchen/*"], None, "munich"),
        ])
    }

    fn only_by_normalisation(raw: &str) -> bool {
        let (mut buffer, routes) = (Vec::new(), webhooks());
        let meaning = super::super::path::normalise(raw.as_bytes(), &mut buffer).unwrap();
        let found = routes.find_route(b"POST", meaning.path).unwrap();
        routes.only_by_normalisation(b"POST", raw.as_bytes(), found)
    }

    #[test]
    fn a_path_written_as_the_route_is_does_not_need_normalisation() {
        for raw in [
            "/webhooks/stripe",
            "/hook",
            "/static/a",
            "/static/a%20b",
            "/static//a",
            "/static/x/../y",
        ] {
            assert!(!only_by_normalisation(raw), "{raw}");
        }
    }

    #[test]
    fn a_route_reached_by_dots_slashes_or_encoding_is_told() {
        for raw in [
            "/admin/../webhooks/stripe",
            "/admin/%2e%2e/webhooks/stripe",
            "//webhooks/stripe",
            "/webhooks//stripe",
            "/webhooks/./stripe",
            "/webhooks/%73tripe",
            "/%77ebhooks/stripe",
            "/hook/x/../../hook",
            "/x/../static/y",
        ] {
            assert!(only_by_normalisation(raw), "{raw}");
        }
    }

    #[test]
    fn a_path_written_like_an_earlier_route_does_not_reach_a_later_one() {
        assert!(only_by_normalisation("/static/private/../x"));
        assert!(!only_by_normalisation("/static/private/x"));
    }

    #[test]
    fn what_can_only_be_sent_encoded_is_written_so() {
        assert!(!only_by_normalisation("/m%C3%BCnchen/x"));
        assert!(!only_by_normalisation("/m%c3%bcnchen/x"));
        assert!(!only_by_normalisation("/münchen/x"));
        assert!(only_by_normalisation("/%6D%C3%BCnchen/x"));
        for cut in ["/m%C3%B", "/m%C3", "/m", "/"] {
            assert!(!pattern("/mü").matches_as_written(cut.as_bytes()), "{cut}");
        }
        assert!(!pattern("/mü").matches_as_written(b"/m%C3%BCx"));
    }

    proptest! {
        #[test]
        fn a_covered_pattern_matches_nothing_else(
            wide in "(/(a|b|\\*)){0,3}(/|/\\*\\*|/a)",
            narrow in "(/(a|b|\\*)){0,3}(/|/\\*\\*|/a)",
            path in "(/(a|b|c)){0,4}/?",
        ) {
            let (wide, narrow) = (pattern(&wide), pattern(&narrow));
            if wide.covers(&narrow) && narrow.matches(path.as_bytes()) {
                prop_assert!(wide.matches(path.as_bytes()));
            }
        }

        #[test]
        fn comparing_whole_or_by_segment_is_the_same(text in "(/[ab]){0,3}(/|/\\*\\*|/a)", path in "(/[ab]?){0,4}") {
            let pattern = pattern(&text);
            prop_assert_eq!(pattern.matches(path.as_bytes()), pattern.matches_as_written(path.as_bytes()));
        }

        #[test]
        fn no_bytes_make_matching_panic(text in "/[a-z*%é/]{0,9}", path: Vec<u8>) {
            if let Ok(pattern) = Pattern::parse(&text) {
                pattern.matches(&path);
                pattern.matches_as_written(&path);
            }
        }
    }
}
