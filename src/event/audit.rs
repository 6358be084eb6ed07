//! What was decided and done, by whom and why, as a record of `wardent.audit.event`.
//!
//! The field names are public and stable: docs/schemas/wardent.audit.event.v1.json.

use serde::Serialize;
use serde_json::Value;

use super::{ascii::write_json, ban::State, time::Stamps};

/// The topic of these records.
pub const TOPIC: &str = "wardent.audit.event";

/// Bytes of a reason or a report at most; a longer one is cut.
pub const WHY_BYTES_MAX: usize = 4 * 1024;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A ban began.
    Ban,
    /// A ban would have begun, had the policy been enforced.
    WouldBan,
    /// Somebody lifted a ban.
    Unban,
    /// Somebody who was not banned is kept free for a while.
    Spare,
    /// A ban came to its end.
    Expire,
    /// A policy is in force.
    Reload,
    /// A policy was refused; the one before stays in force.
    ReloadRefused,
    /// Wardent began to serve.
    Start,
    /// Wardent ended its service.
    Stop,
    /// Bans came back from the log.
    Restore,
    /// The log was found damaged at start, and mended.
    LogRecovered,
    /// A user of Kafka's clients, its rights or a quota were changed.
    KafkaAccess,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What.
    pub what: What,
    /// Who did it: an operator (`uid:0`), `policy`, `clock`, `file`, `signal` or `wardent`.
    pub actor: String,
    /// To whom.
    pub target: Option<String>,
    /// How it was.
    pub before: Option<Standing>,
    /// How it is.
    pub after: Option<Standing>,
    /// The requests that led to it, oldest first.
    pub evidence: Vec<Evidence>,
    /// Why, in a word or a sentence; the report of a refusal.
    pub why: String,
    /// Whether it holds, or would if the policy were enforced.
    pub enforced: bool,
}

/// How something stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Standing {
    /// A client or a network.
    Ban(BanStanding),
    /// The policy.
    Policy(PolicyStanding),
    /// A user of Kafka's clients with its rights, or a quota.
    Access(Value),
}

/// How a client or a network stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BanStanding {
    /// What became of its last ban.
    pub state: State,
    /// The how-manieth ban it is.
    pub level: u32,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When it ends, or would have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Until when nothing counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_until: Option<String>,
    /// Who decided it.
    pub by: String,
}

/// Which policy is in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyStanding {
    /// Which one, counted from the start.
    pub policy: u64,
    /// The SHA-256 of its file, in hex.
    pub sha256: String,
    /// Wardent's version.
    pub version: &'static str,
}

/// One request that led to a ban.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// Its `X-Request-ID`.
    pub id: String,
    /// When it came.
    pub time: String,
    /// What it is held against its client for.
    pub cause: &'static str,
    /// How much it counts.
    pub points: u32,
    /// What it asked for: the beginning of its path, each byte that is no ASCII as one character.
    pub path: String,
}

#[derive(Serialize)]
struct Wire<'a> {
    event: &'static str,
    v: u32,
    time: String,
    what: What,
    actor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'a Standing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a Standing>,
    #[serde(skip_serializing_if = "<[Evidence]>::is_empty")]
    evidence: &'a [Evidence],
    why: &'a str,
    enforced: bool,
}

impl Audit {
    /// One that says what happened and who did it, and nothing else.
    pub fn new(what: What, actor: impl Into<String>, unix_ms: u64) -> Self {
        Self {
            unix_ms,
            what,
            actor: actor.into(),
            target: None,
            before: None,
            after: None,
            evidence: Vec::new(),
            why: String::new(),
            enforced: true,
        }
    }

    /// The record's key: whom it is about, else who did it.
    pub fn key(&self) -> &str {
        self.target.as_deref().unwrap_or(&self.actor)
    }

    /// Appends the record's value.
    pub fn write(&self, stamps: &Stamps, out: &mut Vec<u8>) {
        let wire = Wire {
            event: "audit",
            v: 1,
            time: stamps.rfc3339(self.unix_ms),
            what: self.what,
            actor: &self.actor,
            target: self.target.as_deref(),
            before: self.before.as_ref(),
            after: self.after.as_ref(),
            evidence: &self.evidence,
            why: cut(&self.why),
            enforced: self.enforced,
        };
        write_json(&wire, out);
    }
}

/// The beginning of a text, up to a whole character.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(WHY_BYTES_MAX))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(audit: &Audit) -> String {
        let mut out = Vec::new();
        audit.write(&Stamps::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let audit = Audit::new(What::ReloadRefused, "file", 1_795_255_201_042);
        assert_eq!(
            written(&audit),
            "{\"event\":\"audit\",\"v\":1,\"time\":\"2026-11-21T10:00:01.042Z\",\
             \"what\":\"reload_refused\",\"actor\":\"file\",\"why\":\"\",\"enforced\":true}"
        );
        assert_eq!(audit.key(), "file");
    }

    #[test]
    fn a_long_report_is_cut_between_characters() {
        let mut audit = Audit::new(What::ReloadRefused, "file", 0);
        audit.why = format!("x{}", "é".repeat(10_000));
        let read: Value = serde_json::from_str(&written(&audit)).unwrap();
        assert_eq!(read["why"].as_str().unwrap().len(), WHY_BYTES_MAX - 1);
    }
}
