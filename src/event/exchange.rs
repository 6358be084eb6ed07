//! What the mirror and the proxy of one node tell each other: `POST /api/v1/cluster/exchange`.
//!
//! The mirror asks ten times a second, and at once when other nodes' bans came; it alone speaks with the
//! cluster. Both may be restarted at any time, and a request or its answer may get lost: the mirror sends
//! what was not answered again, with its number, and nothing that comes twice counts twice.
//!
//! Records of the cluster's two topics:
//!
//! | topic | key | value |
//! | --- | --- | --- |
//! | [`BANS`], compacted | [`ban_key`]: target and node | as `wardent.client.ban`, [`BanState`](super::ban::BanState) as JSON; none when the node remembers nothing any more |
//! | [`USAGE`], kept for ten minutes | the node | [`Usage`] as JSON |
//!
//! A node's own decisions are those records of its local `wardent.client.ban` whose `node` is its own, or
//! that have none: they are from before it was in a cluster, decided at `<time in ms>-0`
//! ([`decided`]). Records of other nodes in it were written by the proxy, and never go back.

use serde::{Deserialize, Serialize};

use super::ban::BanState;
use crate::base::{hlc::Hlc, node::NodeName};

/// The cluster's topic of bans: what each node decided last of each target.
pub const BANS: &str = "wardent.cluster.ban";

/// The cluster's topic of what clients spent.
pub const USAGE: &str = "wardent.cluster.usage";

/// Where the exchange is on the admin socket.
pub const PATH: &str = "/api/v1/cluster/exchange";

/// Bytes of one exchange at most, either way.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bans of one exchange at most.
pub const BANS_MAX: usize = 1_000;

/// Batches of usage of one exchange at most.
pub const USAGE_MAX: usize = 256;

/// Entries of one batch of usage at most.
pub const SPENT_MAX: usize = 200;

/// The key of what `node` decided of `target` in [`BANS`].
pub fn ban_key(target: &str, node: &str) -> String {
    format!("{target}|{node}")
}

/// The target and the node of a key of [`BANS`].
pub fn read_ban_key(key: &str) -> Option<(&str, NodeName)> {
    let (target, node) = key.rsplit_once('|')?;
    Some((target, node.parse().ok()?))
}

/// When a state was decided: one from before there was a cluster, when it came to be.
pub fn decided(state: &BanState<'_>) -> Hlc {
    state.hlc.unwrap_or_else(|| Hlc::at(state.unix_ms))
}

/// What the mirror tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// How the mirror is; left out where it is as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// Records of [`BANS`], in the topic's order; the own node's may be among them, and are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bans: Vec<BanRecord>,
    /// Which part of a reading of the whole topic these bans are; none for what came after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bans_read: Option<Part>,
    /// What other nodes' clients spent: values of [`USAGE`], as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usage: Vec<Usage>,
    /// The number of the last own usage that the mirror has taken. The proxy gives each batch again until
    /// it is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_taken: Option<Number>,
}

/// One record of [`BANS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRecord {
    /// Its key.
    pub key: String,
    /// Its value, as it is; none for a tombstone, which may be left out: each node forgets by itself.
    pub value: Option<String>,
}

/// A part of a reading of the whole topic of bans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Which reading: what the last answer before its first part gave as `next_read`. So one that comes
    /// late is known as such, and lifts nothing.
    pub read: u64,
    /// Which part of it, counted from 0. One that is sent again has the same number; where one is missing,
    /// the reading comes to nothing, and another is asked for.
    pub part: u64,
    /// Whether it is the last: other nodes' bans that were in no part are then lifted.
    pub last: bool,
}

/// What is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What clients spent here since, if it was anything: to be written to [`USAGE`] as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Whether the whole topic of bans is to be read, from its beginning: there was no whole reading since
    /// the proxy began, and none is under way.
    pub wants_bans: bool,
    /// The number of the next reading of it.
    pub next_read: u64,
    /// Bans that were refused, and why; the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
}

/// A record that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its key.
    pub key: String,
    /// Why.
    pub why: String,
}

/// The number of a batch of usage, so that it counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// The run of the proxy: another after each start.
    pub run: u64,
    /// Counted from 1 within the run.
    pub seq: u64,
}

/// What clients spent on one node, of limits with `scope: cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Which node.
    pub node: NodeName,
    /// Which batch of that node.
    pub number: Number,
    /// When it was made, in milliseconds since 1970. What comes more than a minute later is not counted.
    pub unix_ms: u64,
    /// The clients that spent most of their limits come first; each pair of limit and client once.
    pub spent: Vec<Spent>,
}

/// What one client spent of one limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// The limit: its route's name or `defaults`, and the how-manieth of that route it is, as in `login/1`.
    pub limit: String,
    /// The client.
    pub client: String,
    /// How many requests.
    pub spent: u32,
}

/// How the mirror stands with the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has not reached the cluster since it began.
    Starting,
    /// Everything goes.
    Connected,
    /// Something does not: a topic is stopped, or a broker is missing.
    Degraded,
    /// The cluster cannot be reached.
    Away,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Connected, Self::Degraded, Self::Away];

    /// The state's public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Connected => "connected",
            Self::Degraded => "degraded",
            Self::Away => "away",
        }
    }
}

/// What the mirror says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// How it stands.
    pub state: State,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// What is wrong, in words for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The cluster's id, where it has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The brokers that are known of.
    #[serde(default)]
    pub brokers: Vec<Broker>,
    /// What is mirrored and shared.
    #[serde(default)]
    pub topics: Vec<Topic>,
}

/// One broker of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Its id; negative for one that is only named in the configuration.
    pub id: i32,
    /// Its address.
    pub address: String,
    /// Whether there is a connection to it.
    pub is_up: bool,
}

/// One topic on its way to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Its name on the cluster: a mirrored topic, [`BANS`] or [`USAGE`].
    pub topic: String,
    /// Why nothing of it is sent any more, where that is so: others go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Records of the local log that the cluster has not acknowledged.
    pub lag: u64,
    /// How long the oldest of them waits, in milliseconds.
    pub behind_ms: u64,
    /// How long until the local log's retention takes records that are not acknowledged, in milliseconds;
    /// none where it will not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loses_in_ms: Option<u64>,
    /// Records that the cluster has acknowledged since the mirror began, and the bytes of their values.
    pub sent: u64,
    /// See `sent`.
    pub sent_bytes: u64,
    /// Records that were gone from the local log before they could be sent, since the mirror began.
    pub lost: u64,
    /// Records that can never be delivered and became dead letters, since the mirror began.
    pub dead: u64,
    /// Where each partition is.
    #[serde(default)]
    pub partitions: Vec<Partition>,
}

/// One partition on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Which.
    pub partition: i32,
    /// The first local offset that is not acknowledged.
    pub position: i64,
    /// The end of the local partition.
    pub end: i64,
}

impl Report {
    /// Brokers, topics, and partitions of a topic at most; texts in bytes.
    pub const BROKERS_MAX: usize = 256;
    /// See [`Report::BROKERS_MAX`].
    pub const TOPICS_MAX: usize = 256;
    /// See [`Report::BROKERS_MAX`].
    pub const PARTITIONS_MAX: usize = 1_024;
    /// See [`Report::BROKERS_MAX`].
    pub const TEXT_BYTES_MAX: usize = 500;

    /// Cuts off what is more than anybody needs, so that who keeps it is bounded.
    pub fn bound(&mut self) {
        self.brokers.truncate(Self::BROKERS_MAX);
        self.topics.truncate(Self::TOPICS_MAX);
        let brokers = self.brokers.iter_mut().map(|broker| &mut broker.address);
        let own = self.why.iter_mut().chain(&mut self.cluster_id);
        own.chain(brokers).for_each(shorten);
        for topic in &mut self.topics {
            topic.partitions.truncate(Self::PARTITIONS_MAX);
            shorten(&mut topic.topic);
            topic.error.iter_mut().for_each(shorten);
        }
    }
}

fn shorten(text: &mut String) {
    text.truncate(text.floor_char_boundary(Report::TEXT_BYTES_MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_target_and_node() {
        let key = ban_key("2001:db8::/64", "web-1");
        assert_eq!(key, "2001:db8::/64|web-1");
        let (target, node) = read_ban_key(&key).unwrap();
        assert_eq!((target, node.as_str()), ("2001:db8::/64", "web-1"));
        for key in ["", "198.51.100.7", "198.51.100.7|", "198.51.100.7|web 1"] {
            assert_eq!(read_ban_key(key), None, "{key}");
        }
    }

    #[test]
    fn a_mirror_may_say_little() {
        let told: Told = serde_json::from_str("{}").unwrap();
        assert_eq!(told, Told::default());
        assert_eq!(serde_json::to_string(&told).unwrap(), "{}");
        assert!(serde_json::from_str::<Told>(r#"{"ban": []}"#).is_err());
    }

    #[test]
    fn the_words_are_stable() {
        let text = r#"{"report":{"state":"degraded","since_unix_ms":1,"why":"no broker 2","brokers":[{"id":1,"address":"kafka-1:9092","is_up":true}],"topics":[{"topic":"wardent.http.access","error":"refused","lag":2,"behind_ms":3,"loses_in_ms":4,"sent":5,"sent_bytes":6,"lost":7,"dead":8,"partitions":[{"partition":0,"position":9,"end":10}]}]},"bans":[{"key":"198.51.100.7|web-2","value":null}],"bans_read":{"read":1,"part":0,"last":true},"usage":[{"node":"web-2","number":{"run":1,"seq":2},"unix_ms":9,"spent":[{"limit":"login/1","client":"198.51.100.7","spent":3}]}],"usage_taken":{"run":1,"seq":2}}"#;
        let told: Told = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&told).unwrap(), text);
        let answer = Answer {
            usage: told.usage.first().cloned(),
            wants_bans: true,
            next_read: 1,
            refused: Vec::new(),
        };
        assert_eq!(
            serde_json::to_string(&answer).unwrap(),
            r#"{"usage":{"node":"web-2","number":{"run":1,"seq":2},"unix_ms":9,"spent":[{"limit":"login/1","client":"198.51.100.7","spent":3}]},"wants_bans":true,"next_read":1}"#
        );
    }

    #[test]
    fn what_is_kept_of_a_report_is_bounded() {
        let mut report = Report {
            state: State::Away,
            since_unix_ms: 0,
            why: Some("é".repeat(1_000)),
            cluster_id: None,
            brokers: Vec::new(),
            topics: vec![Topic::default(); 1_000],
        };
        report.bound();
        assert_eq!(report.why.map(|why| why.len()), Some(500));
        assert_eq!(report.topics.len(), Report::TOPICS_MAX);
    }
}
