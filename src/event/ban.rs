//! What is remembered of one client's or network's bans, as a record of `wardent.client.ban`.
//!
//! The last record of a key says all there is to know of it; a record without a value, that nothing
//! is. The field names are public and stable: docs/schemas/wardent.client.ban.v1.json.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    ascii::write_json,
    time::{Stamps, from_rfc3339},
};
use crate::base::hlc::Hlc;

/// The topic of these records.
pub const TOPIC: &str = "wardent.client.ban";

/// The version of the record.
const VERSION: u32 = 1;

/// What became of the last ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is in force until its end.
    Banned,
    /// It came to its end; its level is remembered.
    Expired,
    /// Somebody lifted it, and what led to it is forgotten.
    Lifted,
}

/// Whom a ban is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One client.
    Client,
    /// All of a network.
    Network,
}

/// One record's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanState<'a> {
    /// When it was so, in milliseconds since 1970, as all moments here.
    pub unix_ms: u64,
    /// Whose it is; the record's key.
    pub target: Cow<'a, str>,
    /// Whom that stands for.
    pub kind: Kind,
    /// What became of the last ban.
    pub state: State,
    /// The how-manieth ban it is; 0 where what led to it is forgotten.
    pub level: u32,
    /// When the ban began; none where there was none.
    pub since_unix_ms: Option<u64>,
    /// When it ends, or would have.
    pub until_unix_ms: Option<u64>,
    /// When it came to its end, one way or the other.
    pub ended_unix_ms: Option<u64>,
    /// Until when nothing counts.
    pub grace_until_unix_ms: Option<u64>,
    /// Why, in a word or a sentence.
    pub why: Cow<'a, str>,
    /// Who decided it: `policy`, or an operator.
    pub by: Cow<'a, str>,
    /// The id of the last request that led to it.
    pub request: Option<Cow<'a, str>>,
    /// The node of the cluster that decided it; none where there was no cluster.
    pub node: Option<Cow<'a, str>>,
    /// When that node decided it, by the cluster's clock.
    pub hlc: Option<Hlc>,
}

/// A value that is no state of a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// It is no JSON, or lacks what every state has.
    Broken,
    /// It is of a version that came later.
    Version(u32),
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    event: &'a str,
    v: u32,
    time: &'a str,
    target: &'a str,
    kind: Kind,
    state: State,
    level: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_until: Option<&'a str>,
    #[serde(borrow)]
    why: Cow<'a, str>,
    #[serde(borrow)]
    by: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hlc: Option<Hlc>,
}

impl<'a> BanState<'a> {
    /// Appends the value.
    pub fn write(&self, stamps: &Stamps, out: &mut Vec<u8>) {
        let spelled = |unix_ms: Option<u64>| unix_ms.map(|unix_ms| stamps.rfc3339(unix_ms));
        let since = spelled(self.since_unix_ms);
        let until = spelled(self.until_unix_ms);
        let ended = spelled(self.ended_unix_ms);
        let grace_until = spelled(self.grace_until_unix_ms);
        let wire = Wire {
            event: "ban",
            v: VERSION,
            time: &stamps.rfc3339(self.unix_ms),
            target: &self.target,
            kind: self.kind,
            state: self.state,
            level: self.level,
            since: since.as_deref(),
            until: until.as_deref(),
            ended: ended.as_deref(),
            grace_until: grace_until.as_deref(),
            why: Cow::Borrowed(&self.why),
            by: Cow::Borrowed(&self.by),
            request: self.request.as_deref(),
            node: self.node.as_deref(),
            hlc: self.hlc,
        };
        write_json(&wire, out);
    }

    /// Reads a value back.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(value: &'a [u8]) -> Result<Self, Unreadable> {
        let own = Own::of(value).and_then(Own::read);
        let Ok(wire) = own.map_or_else(|| serde_json::from_slice(value), Ok) else {
            return Err(version_of(value));
        };
        if wire.v != VERSION {
            return Err(Unreadable::Version(wire.v));
        }
        if wire.event != "ban" {
            return Err(Unreadable::Broken);
        }
        let moment = |text: &str| from_rfc3339(text).ok_or(Unreadable::Broken);
        Ok(Self {
            unix_ms: moment(wire.time)?,
            target: wire.target.into(),
            kind: wire.kind,
            state: wire.state,
            level: wire.level,
            since_unix_ms: wire.since.map(moment).transpose()?,
            until_unix_ms: wire.until.map(moment).transpose()?,
            ended_unix_ms: wire.ended.map(moment).transpose()?,
            grace_until_unix_ms: wire.grace_until.map(moment).transpose()?,
            why: wire.why,
            by: wire.by,
            request: wire.request.map(Cow::Borrowed),
            node: wire.node.map(Cow::Borrowed),
            hlc: wire.hlc,
        })
    }
}

/// A value that is spelled as [`BanState::write`] does. A start may read a million of them, and this is
/// some times as fast as JSON in general, which reads whatever is spelled otherwise.
struct Own<'a>(&'a str);

impl<'a> Own<'a> {
    fn of(value: &'a [u8]) -> Option<Self> {
        std::str::from_utf8(value).ok().map(Self)
    }

    fn read(mut self) -> Option<Wire<'a>> {
        self.skip("{\"event\":\"ban\",\"v\":1")?;
        let wire = Wire {
            event: "ban",
            v: VERSION,
            time: self.text("time")?,
            target: self.text("target")?,
            kind: match self.text("kind")? {
                "client" => Kind::Client,
                "network" => Kind::Network,
                _ => return None,
            },
            state: match self.text("state")? {
                "banned" => State::Banned,
                "expired" => State::Expired,
                "lifted" => State::Lifted,
                _ => return None,
            },
            level: self.level()?,
            since: self.text("since"),
            until: self.text("until"),
            ended: self.text("ended"),
            grace_until: self.text("grace_until"),
            why: Cow::Borrowed(self.text("why")?),
            by: Cow::Borrowed(self.text("by")?),
            request: self.text("request"),
            node: self.text("node"),
            hlc: match self.text("hlc") {
                Some(hlc) => Some(hlc.parse().ok()?),
                None => None,
            },
        };
        (self.0 == "}").then_some(wire)
    }

    fn skip(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    /// The field of this name, if it is next and in it nothing is escaped.
    fn text(&mut self, name: &str) -> Option<&'a str> {
        let rest = self.0.strip_prefix(",\"")?.strip_prefix(name)?;
        let rest = rest.strip_prefix("\":\"")?;
        let end = memchr::memchr2(b'"', b'\\', rest.as_bytes())?;
        let (text, rest) = rest.split_at_checked(end)?;
        self.0 = rest.strip_prefix('"')?;
        Some(text)
    }

    fn level(&mut self) -> Option<u32> {
        self.skip(",\"level\":")?;
        let end = memchr::memchr(b',', self.0.as_bytes())?;
        let (digits, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().ok())?
    }
}

/// Why a value cannot be read that lacks something: a later version may.
fn version_of(value: &[u8]) -> Unreadable {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    match serde_json::from_slice(value) {
        Ok(Version { v }) if v != VERSION => Unreadable::Version(v),
        Ok(_) | Err(_) => Unreadable::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> BanState<'static> {
        BanState {
            unix_ms: 1_795_255_201_042,
            target: "2001:db8::/64".into(),
            kind: Kind::Client,
            state: State::Banned,
            level: 2,
            since_unix_ms: Some(1_795_255_201_042),
            until_unix_ms: Some(1_795_256_401_042),
            ended_unix_ms: None,
            grace_until_unix_ms: None,
            why: "trap".into(),
            by: "policy".into(),
            request: Some("01M7ZF3VDZFJM7QHBHBFMVRYEM".into()),
            node: None,
            hlc: None,
        }
    }

    fn of_cluster() -> BanState<'static> {
        BanState {
            node: Some("web-1".into()),
            hlc: Some(Hlc::at(1_795_255_201_042)),
            ..state()
        }
    }

    fn written(state: &BanState<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        state.write(&Stamps::default(), &mut out);
        out
    }

    #[test]
    fn a_state_is_flat_json() {
        assert_eq!(
            String::from_utf8(written(&state())).unwrap(),
            "{\"event\":\"ban\",\"v\":1,\"time\":\"2026-11-21T10:00:01.042Z\",\
             \"target\":\"2001:db8::/64\",\"kind\":\"client\",\"state\":\"banned\",\"level\":2,\
             \"since\":\"2026-11-21T10:00:01.042Z\",\"until\":\"2026-11-21T10:20:01.042Z\",\
             \"why\":\"trap\",\"by\":\"policy\",\"request\":\"01M7ZF3VDZFJM7QHBHBFMVRYEM\"}"
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let lifted = BanState {
            state: State::Lifted,
            kind: Kind::Network,
            level: 0,
            since_unix_ms: None,
            until_unix_ms: None,
            ended_unix_ms: Some(0),
            grace_until_unix_ms: Some(253_402_300_799_999),
            why: "\"ticket\" \u{1b} 4711 — é \u{1f600}".into(),
            by: "uid:0".into(),
            request: None,
            ..state()
        };
        for state in [state(), lifted, of_cluster()] {
            assert_eq!(BanState::read(&written(&state)), Ok(state.clone()));
        }
    }

    #[test]
    fn a_state_of_a_cluster_says_who_decided_it_and_in_which_order() {
        let text = String::from_utf8(written(&of_cluster())).unwrap();
        assert!(
            text.ends_with(",\"node\":\"web-1\",\"hlc\":\"1795255201042-0\"}"),
            "{text}"
        );
        for wrong in ["1795255201042", "1-70000", ""] {
            let wrong = text.replace("1795255201042-0", wrong);
            assert_eq!(
                BanState::read(wrong.as_bytes()),
                Err(Unreadable::Broken),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_own_spelling_is_read_as_json_is() {
        let value = written(&of_cluster());
        let own = Own::of(&value).and_then(Own::read).unwrap();
        let general: Wire<'_> = serde_json::from_slice(&value).unwrap();
        assert_eq!(written_wire(&own), value);
        assert_eq!(written_wire(&general), value);
        let text = String::from_utf8(value).unwrap();
        let others = [
            text.replace("\"level\":2", "\"level\": 2"),
            text.replace("\"why\":\"trap\"", "\"why\":\"tr\\u0061p\""),
            text.replace(",\"by\":\"policy\"", "")
                .replace(",\"why\"", ",\"by\":\"policy\",\"why\""),
        ];
        for text in others {
            assert!(Own::of(text.as_bytes()).and_then(Own::read).is_none());
            assert_eq!(BanState::read(text.as_bytes()), Ok(of_cluster()), "{text}");
        }
    }

    fn written_wire(wire: &Wire<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        write_json(wire, &mut out);
        out
    }

    #[test]
    fn what_is_no_state_is_not_read() {
        let text = String::from_utf8(written(&state())).unwrap();
        let broken = [
            String::new(),
            "{}".to_owned(),
            text.replace("\"ban\"", "\"access\""),
            text.replace("banned", "bound"),
            text.replace("2026-11", "2026-13"),
            text.replace("\"level\":2,", ""),
            text[..text.len() - 1].to_owned(),
        ];
        for text in broken {
            assert_eq!(
                BanState::read(text.as_bytes()),
                Err(Unreadable::Broken),
                "{text}"
            );
        }
        let later = text
            .replace("\"v\":1", "\"v\":2")
            .replace("\"level\":2,", "");
        assert_eq!(
            BanState::read(later.as_bytes()),
            Err(Unreadable::Version(2))
        );
        let more = text.replace("\"v\":1", "\"v\":1,\"more\":[1]");
        assert_eq!(BanState::read(more.as_bytes()), Ok(state()));
    }
}
