//! Which events are wanted: the one language of the API, the command line and [`scan`](super::scan).
//!
//! An event is looked at twice. The raw look reads the few fields it needs in place and turns most
//! events down; only what passes it is parsed as JSON, and that look decides.

use std::{fmt, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::{EventTopic, field::Field, tally::Tally, when::moment};
use crate::{
    base::id::RequestId,
    event::access::Verdict,
    guard::{path::normalise, route::Pattern, verdict::Reason},
};

/// The names of all conditions, as the API and the command line spell them.
pub const CONDITIONS: [&str; 11] = [
    "since", "until", "client", "verdict", "reason", "route", "status", "method", "path", "host",
    "id",
];

/// An id's event is stamped with the moment of the id, but for a clock that was set back in between.
const ID_SLACK_MS: u64 = 10_000;

/// What an event must be like to be found.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Whether its events are flat objects of Wardent's own writing, which can be looked at raw.
    is_flat: bool,
    pub(super) since_ms: Option<i64>,
    pub(super) until_ms: Option<i64>,
    tests: Vec<Test>,
}

#[derive(Debug, Clone)]
struct Test {
    /// The field that must fit.
    name: &'static str,
    field: Field,
    wanted: Wanted,
}

#[derive(Debug, Clone)]
enum Wanted {
    Exactly(String),
    IgnoringCase(String),
    Status(RangeInclusive<u64>),
    Client(Client),
    Path(Pattern),
}

/// Whose events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Client {
    Network(IpNet),
    /// As a log with `ip_privacy: hash` names it.
    Hashed(String),
}

/// A condition that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFilter {
    /// Its name.
    pub name: &'static str,
    /// What is wrong and what would be right; goes on after the name.
    pub why: String,
}

impl fmt::Display for BadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.name, self.why)
    }
}

impl std::error::Error for BadFilter {}

impl Filter {
    /// Reads the conditions that `get` knows, for events of `topic`; spans of time end at `now_ms`.
    ///
    /// # Errors
    /// When one of them says nothing, or is not for this topic.
    pub fn read<'a>(
        topic: EventTopic,
        get: impl Fn(&'static str) -> Option<&'a str>,
        now_ms: u64,
    ) -> Result<Self, BadFilter> {
        let mut filter = Self {
            is_flat: topic == EventTopic::Access,
            since_ms: None,
            until_ms: None,
            tests: Vec::new(),
        };
        for name in CONDITIONS {
            let Some(text) = get(name) else { continue };
            let bad = |why: String| BadFilter { name, why };
            match name {
                "since" | "until" => {
                    let at = moment(text, now_ms).map_err(|error| bad(error.to_string()))?;
                    let at = Some(i64::try_from(at).unwrap_or(i64::MAX));
                    match name {
                        "since" => filter.since_ms = at,
                        _ => filter.until_ms = at,
                    }
                }
                _ => {
                    if !topic.conditions().contains(&name) {
                        return Err(bad(format!(
                            "events of the topic `{}` have none",
                            topic.word()
                        )));
                    }
                    let wanted = wanted(name, text).map_err(bad)?;
                    filter.tests.push(Test::new(topic, name, wanted));
                }
            }
        }
        if filter.is_between_nothing() {
            return Err(BadFilter {
                name: "until",
                why: "is not after `since`".to_owned(),
            });
        }
        if filter.since_ms.is_none() {
            let since = get("id")
                .and_then(request_id)
                .map(|id| id.unix_ms().saturating_sub(ID_SLACK_MS));
            filter.since_ms = since.and_then(|since| i64::try_from(since).ok());
        }
        Ok(filter)
    }

    /// Events before this moment are not wanted, in milliseconds since 1970.
    pub fn since_ms(&self) -> Option<i64> {
        self.since_ms
    }

    /// Events at this moment and after are not wanted, likewise.
    pub fn until_ms(&self) -> Option<i64> {
        self.until_ms
    }

    /// Whether all events of some time are wanted.
    pub fn takes_all(&self) -> bool {
        self.tests.is_empty()
    }

    fn is_between_nothing(&self) -> bool {
        let both = self.since_ms.zip(self.until_ms);
        both.is_some_and(|(since, until)| until <= since)
    }

    /// Whether an event of this moment may be wanted.
    pub fn is_in_time(&self, timestamp_ms: i64) -> bool {
        self.since_ms.is_none_or(|since| timestamp_ms >= since)
            && self.until_ms.is_none_or(|until| timestamp_ms < until)
    }

    /// Whether an event may be wanted, by a look at its bytes; those it turns down are not wanted.
    pub fn may_take(&self, event: &[u8], tally: &mut Tally) -> bool {
        !self.is_flat || self.tests.iter().all(|test| test.may_pass(event, tally))
    }

    /// Whether a tombstone of this key is wanted: by who asks for all, or for those whom it is about.
    pub fn takes_tombstone(&self, key: &[u8], tally: &mut Tally) -> bool {
        let mut is_about = |test: &Test| test.name == "target" && test.wanted.is(key, tally);
        self.tests.iter().all(&mut is_about)
    }

    /// Whether an event is wanted.
    pub fn takes(&self, event: &Map<String, Value>, tally: &mut Tally) -> bool {
        self.tests.iter().all(|test| test.passes(event, tally))
    }
}

impl Test {
    fn new(topic: EventTopic, name: &'static str, wanted: Wanted) -> Self {
        let name = match (topic, name) {
            (EventTopic::Ban | EventTopic::Audit, "client") => "target",
            _ => name,
        };
        Self {
            name,
            field: Field::new(name),
            wanted,
        }
    }

    fn may_pass(&self, event: &[u8], tally: &mut Tally) -> bool {
        match &self.wanted {
            Wanted::Status(range) => {
                let status = self.field.number(event);
                status.is_some_and(|status| range.contains(&status))
            }
            Wanted::Exactly(_) | Wanted::IgnoringCase(_) | Wanted::Client(_) | Wanted::Path(_) => {
                self.field.text(event).is_some_and(|text| {
                    // What is escaped is left to the second look.
                    memchr::memchr(b'\\', text).is_some() || self.wanted.is(text, tally)
                })
            }
        }
    }

    fn passes(&self, event: &Map<String, Value>, tally: &mut Tally) -> bool {
        let Some(value) = event.get(self.name) else {
            return false;
        };
        match (&self.wanted, value.as_str()) {
            (Wanted::Status(range), _) => {
                value.as_u64().is_some_and(|status| range.contains(&status))
            }
            (wanted, Some(text)) => wanted.is(&bytes_of(text), tally),
            (_, None) => false,
        }
    }
}

/// The bytes a client sent, of the text that stands for them.
///
/// Events tell a byte that is no printable ASCII as the character of its number.
fn bytes_of(text: &str) -> Vec<u8> {
    let each = text.chars().map(|c| u8::try_from(c).ok());
    let bytes: Option<Vec<u8>> = each.collect();
    bytes.unwrap_or_else(|| text.as_bytes().to_vec())
}

impl Wanted {
    fn is(&self, text: &[u8], tally: &mut Tally) -> bool {
        match self {
            Self::Exactly(wanted) => wanted.as_bytes() == text,
            Self::IgnoringCase(wanted) => wanted.as_bytes().eq_ignore_ascii_case(text),
            Self::Client(client) => client.is(text, tally),
            Self::Path(pattern) => {
                let mut buffer = Vec::new();
                // What has no single meaning is compared as it was sent.
                let meaning = normalise(text, &mut buffer);
                pattern.matches(meaning.map_or(text, |meaning| meaning.path))
            }
            Self::Status(_) => false,
        }
    }
}

impl Client {
    fn is(&self, text: &[u8], tally: &mut Tally) -> bool {
        match self {
            Self::Hashed(wanted) => wanted.as_bytes() == text,
            Self::Network(wanted) => {
                if text.starts_with(HASHED) {
                    tally.hashed += 1;
                    return false;
                }
                let network = std::str::from_utf8(text).ok().and_then(network);
                network.is_some_and(|told| wanted.contains(&told) || told.contains(wanted))
            }
        }
    }
}

/// What a hashed client begins with.
const HASHED: &[u8] = b"h:";

/// An address, or a network.
fn network(text: &str) -> Option<IpNet> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical().into());
    }
    text.parse().ok().map(|network: IpNet| network.trunc())
}

fn wanted(name: &str, text: &str) -> Result<Wanted, String> {
    match name {
        "client" => client(text).map(Wanted::Client),
        "status" => status(text)
            .map(Wanted::Status)
            .ok_or_else(|| "write a status, as 403, or a class of them, as 4xx".to_owned()),
        "path" => {
            let pattern = Pattern::parse(text);
            pattern.map(Wanted::Path).map_err(|error| error.to_string())
        }
        "host" => Ok(Wanted::IgnoringCase(text.to_owned())),
        "id" => request_id(text)
            .map(|id| Wanted::Exactly(String::from_utf8_lossy(id.as_bytes()).into_owned()))
            .ok_or_else(|| "an id has 26 letters and digits, as in X-Request-ID".to_owned()),
        "verdict" => one_of(text, &Verdict::ALL.map(Verdict::name)),
        "reason" => one_of(text, &Reason::ALL.map(Reason::name)),
        _ => Ok(Wanted::Exactly(text.to_owned())),
    }
}

/// An id in either case, as it may have been copied from anywhere.
fn request_id(text: &str) -> Option<RequestId> {
    RequestId::read(text.to_ascii_uppercase().as_bytes())
}

fn client(text: &str) -> Result<Client, String> {
    if let Some(hash) = hashed(text) {
        return Ok(Client::Hashed(hash));
    }
    network(text).map(Client::Network).ok_or_else(|| {
        "neither an address nor a network, nor `h:` and 16 hexadecimal digits, as the log shows a hashed one"
            .to_owned()
    })
}

/// `h:` and 16 hexadecimal digits, as the log writes them.
fn hashed(text: &str) -> Option<String> {
    let digits = text.strip_prefix("h:")?;
    let is_hash = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_ascii_lowercase())
}

fn status(text: &str) -> Option<RangeInclusive<u64>> {
    let class = text.strip_suffix("xx");
    let digits = class.unwrap_or(text);
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = is_plain.then_some(digits)?.parse().ok()?;
    match class {
        Some(_) => (1..=5)
            .contains(&number)
            .then(|| number * 100..=number * 100 + 99),
        // Zero is a request that was never answered.
        None => (number == 0 || (100..=599).contains(&number)).then_some(number..=number),
    }
}

fn one_of(text: &str, known: &[&str]) -> Result<Wanted, String> {
    if known.contains(&text) {
        return Ok(Wanted::Exactly(text.to_owned()));
    }
    Err(format!("there are {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_255_200_000;
    const EVENT: &str = r#"{"event":"access","v":1,"time":"2026-11-21T10:00:01.042Z","id":"01KAJ0000000000000000000AA","client":"198.51.100.7","proven":true,"method":"GET","host":"App.test","path":"/a//%62/\u00e9","status":413,"verdict":"refused","reason":"body_too_large","route":"up\"load","user_agent":"\"client\":\"203.0.113.9\""}"#;

    fn filter(conditions: &[(&str, &str)]) -> Result<Filter, BadFilter> {
        let get = |name| {
            let found = conditions.iter().find(|(own, _)| *own == name);
            found.map(|(_, text)| *text)
        };
        Filter::read(EventTopic::Access, get, NOW)
    }

    /// What both looks say; the raw one never turns down what the other would take.
    fn takes_of(conditions: &[(&str, &str)], event: &str) -> bool {
        let filter = filter(conditions).unwrap();
        let mut tally = Tally::default();
        let parsed: Map<String, Value> = serde_json::from_str(event).unwrap();
        let takes = filter.takes(&parsed, &mut tally);
        let may = filter.may_take(event.as_bytes(), &mut tally);
        assert!(may || !takes, "{conditions:?} {event}");
        takes && may
    }

    fn takes(name: &str, text: &str) -> bool {
        takes_of(&[(name, text)], EVENT)
    }

    #[test]
    fn each_condition_takes_what_fits_and_nothing_else() {
        for (name, fits, does_not) in [
            ("client", "198.51.100.7", "198.51.100.70"),
            ("client", "198.51.100.0/24", "203.0.113.0/24"),
            ("client", "::ffff:198.51.100.7", "2001:db8::/32"),
            ("verdict", "refused", "passed"),
            ("reason", "body_too_large", "trap"),
            ("route", "up\"load", "up"),
            ("status", "413", "414"),
            ("status", "4xx", "5xx"),
            ("method", "GET", "get"),
            ("host", "app.TEST", "app.test:80"),
            (
                "id",
                "01kaj0000000000000000000aa",
                "01KAJ0000000000000000000AB",
            ),
        ] {
            assert!(takes(name, fits), "{name} {fits}");
            assert!(!takes(name, does_not), "{name} {does_not}");
        }
    }

    #[test]
    fn a_path_is_compared_as_the_policy_compares_it() {
        let event = |path: &str| EVENT.replace(r"/a//%62/\u00e9", path);
        for (pattern, path, fits) in [
            ("/a/b/", r"/a//%62/\u00e9", true),
            ("/a/b", "/a/./b", true),
            ("/*/b", "/x/b", true),
            ("/a/**", "/a/", true),
            ("/a", "/a/", false),
            ("/a/b", "/b/../a", false),
            // A path without a single meaning, as it was sent.
            ("/a/", "/a/%zz", true),
        ] {
            assert_eq!(
                takes_of(&[("path", pattern)], &event(path)),
                fits,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        assert!(takes_of(&[("status", "413"), ("method", "GET")], EVENT));
        assert!(!takes_of(&[("status", "413"), ("method", "PUT")], EVENT));
    }

    #[test]
    fn what_a_client_writes_fits_no_condition() {
        assert!(!takes("client", "203.0.113.9"));
    }

    #[test]
    fn an_event_without_the_field_is_not_taken() {
        assert!(!takes_of(
            &[("client", "::/0")],
            r#"{"event":"gap","run":"00c0ffee","status":"413"}"#
        ));
        assert!(!takes_of(
            &[("status", "413")],
            r#"{"event":"gap","status":"413"}"#
        ));
    }

    #[test]
    fn a_log_of_networks_is_asked_by_address_and_a_hashed_one_by_its_hash() {
        let of = |client: &str| EVENT.replace("198.51.100.7", client);
        assert!(takes_of(
            &[("client", "198.51.100.9")],
            &of("198.51.100.0/24")
        ));
        assert!(!takes_of(
            &[("client", "198.51.101.9")],
            &of("198.51.100.0/24")
        ));
        let hashed = of("h:0123456789abcdef");
        for asked in ["h:0123456789abcdef", "h:0123456789ABCDEF"] {
            assert!(takes_of(&[("client", asked)], &hashed), "{asked}");
        }
        let filter = filter(&[("client", "198.51.100.7")]).unwrap();
        let mut tally = Tally::default();
        assert!(!filter.may_take(hashed.as_bytes(), &mut tally));
        assert_eq!(tally.hashed, 1);
    }

    #[test]
    fn time_is_from_since_to_before_until() {
        let ms = i64::try_from(NOW).unwrap();
        let filter = filter(&[("since", "1h"), ("until", "2026-11-21T10:00:00Z")]).unwrap();
        assert!(filter.is_in_time(ms - 3_600_000) && filter.is_in_time(ms - 1));
        assert!(!filter.is_in_time(ms - 3_600_001) && !filter.is_in_time(ms));
    }

    #[test]
    fn an_id_says_since_when_to_look() {
        let filter = filter(&[("id", "01ARYZ6S410000000000000000")]).unwrap();
        assert_eq!(filter.since_ms(), Some(1_469_918_176_385 - 10_000));
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (name, text, words) in [
            (
                "verdict",
                "denied",
                "`verdict`: there are passed, refused, failed, aborted",
            ),
            (
                "status",
                "6xx",
                "`status`: write a status, as 403, or a class of them, as 4xx",
            ),
            (
                "status",
                "+403",
                "`status`: write a status, as 403, or a class of them, as 4xx",
            ),
            ("path", "a", "`path`: must start with `/`"),
            (
                "id",
                "1",
                "`id`: an id has 26 letters and digits, as in X-Request-ID",
            ),
        ] {
            assert_eq!(filter(&[(name, text)]).unwrap_err().to_string(), words);
        }
        for name in ["client", "since", "until", "reason"] {
            assert_eq!(filter(&[(name, "x y")]).unwrap_err().name, name);
        }
        // A part of a hash, or a mistyped one, would find nothing and not say why.
        for hash in [
            "h:",
            "h:0123456789abcde",
            "h:0123456789abcdefa",
            "h:0123456789abcdeg",
        ] {
            assert_eq!(filter(&[("client", hash)]).unwrap_err().name, "client");
        }
        let turned = filter(&[("since", "1h"), ("until", "2h")]).unwrap_err();
        assert_eq!(turned.to_string(), "`until`: is not after `since`");
        let get = |name| (name == "path").then_some("/");
        let of_bans = Filter::read(EventTopic::Ban, get, NOW).unwrap_err();
        assert_eq!(
            of_bans.to_string(),
            "`path`: events of the topic `ban` have none"
        );
    }
}
