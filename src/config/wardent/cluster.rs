//! `cluster`: other Wardents, and the Kafka cluster that they share.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    base::{net::HostPort, node::NodeName, units::parse_size},
    config::{
        report::{shown, told},
        values::SecretFrom,
        words::{self, FromWord, Within, one, optional, vocabulary},
    },
};

use super::Mechanism;

/// The cluster that this Wardent is a node of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a mapping {node: …, kafka: {bootstrap: …}}"
)]
pub struct Cluster {
    /// What this node is called; no other node is called so.
    #[serde(deserialize_with = "one")]
    pub node: NodeName,
    /// The Kafka cluster.
    pub kafka: ClusterKafka,
    /// How the mirror gets in at this Wardent's own Kafka listener, where that asks who comes.
    #[serde(default)]
    pub local: Option<ClusterLocal>,
    /// What nodes share.
    #[serde(default = "all_shares", deserialize_with = "words::list")]
    pub share: Vec<Shared>,
    /// Topics of the log that are copied to the cluster, under their own names.
    #[serde(default = "mirrored", deserialize_with = "words::list")]
    pub mirror: Vec<TopicName>,
    /// How often a copied event may stand in the cluster.
    #[serde(default = "at_least_once", deserialize_with = "one")]
    pub delivery: Delivery,
    /// How fast is copied what piled up while the cluster could not be reached.
    #[serde(default = "catch_up", deserialize_with = "one")]
    pub catch_up: ByteRate,
}

/// Where the Kafka cluster is, and how one gets in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping {bootstrap: […]}")]
pub struct ClusterKafka {
    /// Some of its brokers; never empty.
    #[serde(deserialize_with = "words::words")]
    pub bootstrap: Vec<HostPort>,
    /// How its certificate is checked, and what is shown to it; plain text where none.
    #[serde(default)]
    pub tls: Option<ClusterTls>,
    /// How this node proves who it is.
    #[serde(default)]
    pub sasl: Option<ClusterSasl>,
    /// Of topics that are made for want of them, 1 to 32; `None` leaves it to the cluster.
    #[serde(default, deserialize_with = "replication")]
    pub replication: Option<NonZeroU32>,
}

/// The mirror at this Wardent's own Kafka listener.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping {sasl: {…}}")]
pub struct ClusterLocal {
    /// Who signs the listener's certificate; `None` asks those whom the system trusts.
    #[serde(deserialize_with = "optional")]
    pub ca: Option<PathBuf>,
    /// As whom it logs in.
    pub sasl: Option<ClusterSasl>,
}

/// TLS towards the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping {ca: …}")]
pub struct ClusterTls {
    /// Who signs its certificates; `None` asks those whom the system trusts.
    #[serde(deserialize_with = "optional")]
    pub ca: Option<PathBuf>,
    /// The certificate of this node, where the cluster asks for one.
    #[serde(deserialize_with = "optional")]
    pub cert: Option<PathBuf>,
    /// Its private key.
    #[serde(deserialize_with = "optional")]
    pub key: Option<PathBuf>,
}

/// SASL towards the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a mapping {mechanism: …, username: …, password: {file: …}}"
)]
pub struct ClusterSasl {
    /// How.
    #[serde(deserialize_with = "one")]
    pub mechanism: Mechanism,
    /// As whom.
    #[serde(deserialize_with = "one")]
    pub username: UserName,
    /// Where the password is.
    pub password: SecretFrom,
}

vocabulary! {
    /// Something that nodes share.
    Shared {
        /// Who is banned on one of them is banned on all.
        Bans = "bans",
        /// Limits with `scope: cluster` count what was asked of all nodes.
        Limits = "limits",
    }
}

vocabulary! {
    /// How often a copied event may stand in the cluster.
    Delivery {
        /// Once, or after a crash more often.
        AtLeastOnce = "at-least-once",
        /// Once, by Kafka's transactions.
        ExactlyOnce = "exactly-once",
    }
}

/// The name of a topic, as Kafka allows it: 1 to 249 of `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicName(String);

impl TopicName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromWord for TopicName {
    const EXPECTED: &'static str = "the name of a topic";

    fn from_word(word: &str) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_name = (1..=249).contains(&word.len()) && word.bytes().all(allowed);
        match is_name && word != "." && word != ".." {
            true => Ok(Self(word.to_owned())),
            false => Err(format!(
                "`{}` is not the name of a topic (use 1 to 249 of A-Z, a-z, 0-9, `.`, `_` and `-`)",
                shown(word)
            )),
        }
    }
}

/// The name of a user at another's door: anything that can be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName(String);

impl UserName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromWord for UserName {
    const EXPECTED: &'static str = "a user's name";

    fn from_word(word: &str) -> Result<Self, String> {
        let is_name = (1..=255).contains(&word.len()) && !word.contains(char::is_control);
        match is_name {
            true => Ok(Self(word.to_owned())),
            false => Err("the user's name is empty or longer than 255 bytes".to_owned()),
        }
    }
}

/// So many bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRate {
    /// Bytes a second; never 0.
    pub per_second: u64,
}

impl FromWord for ByteRate {
    const EXPECTED: &'static str = "a rate such as 20MiB/s";

    fn from_word(word: &str) -> Result<Self, String> {
        let size = word.strip_suffix("/s");
        let size = size.ok_or_else(|| format!("`{}` is not {}", shown(word), Self::EXPECTED))?;
        match parse_size(size).map_err(|error| told(&error))? {
            0 => Err("must be more than 0".to_owned()),
            per_second => Ok(Self { per_second }),
        }
    }
}

impl FromWord for NodeName {
    const EXPECTED: &'static str = "a node's name";

    fn from_word(word: &str) -> Result<Self, String> {
        word.parse()
            .map_err(|error| format!("`{}` is {error}", shown(word)))
    }
}

impl Cluster {
    /// Whether nodes share this.
    pub fn shares(&self, what: Shared) -> bool {
        self.share.contains(&what)
    }

    /// Makes every relative path relative to `base`.
    pub(super) fn resolve(&mut self, base: &Path) {
        let files = self.kafka.tls.iter_mut().flat_map(|tls| {
            let files = [&mut tls.ca, &mut tls.cert, &mut tls.key];
            files.into_iter().flatten()
        });
        let own = self.local.iter_mut().flat_map(|local| &mut local.ca);
        for path in files.chain(own) {
            *path = base.join(&path);
        }
        let local = self.local.iter_mut().flat_map(|local| &mut local.sasl);
        for sasl in self.kafka.sasl.iter_mut().chain(local) {
            sasl.password.resolve(base);
        }
    }
}

fn all_shares() -> Vec<Shared> {
    Shared::ALL.to_vec()
}

fn mirrored() -> Vec<TopicName> {
    let topics = [crate::event::access::TOPIC, crate::event::audit::TOPIC];
    topics.map(|topic| TopicName(topic.to_owned())).into()
}

fn at_least_once() -> Delivery {
    Delivery::AtLeastOnce
}

fn catch_up() -> ByteRate {
    ByteRate {
        per_second: 20 << 20,
    }
}

fn replication<'de, D>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let replication: Option<Within<1, 32>> = optional(deserializer)?;
    Ok(replication.map(|Within(count)| count))
}
