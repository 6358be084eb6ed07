//! `log`, `admin` and `telemetry`: what is served beside the proxy.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    base::net::{Address, HostPort},
    config::{
        values::SecretFrom,
        words::{self, FromWord, Within, one, optional, size, vocabulary},
    },
};

/// The log of events and its Kafka listener.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Log {
    /// Where its files are.
    #[serde(deserialize_with = "one")]
    pub dir: PathBuf,
    /// Where the Kafka protocol is spoken, if anywhere.
    #[serde(deserialize_with = "optional")]
    pub listen: Option<Address>,
    /// What clients are told to connect to; `None` is what `listen` says.
    #[serde(deserialize_with = "optional")]
    pub advertised: Option<HostPort>,
    /// All of it, in bytes.
    #[serde(deserialize_with = "size")]
    pub disk_max: u64,
    /// The topic of requests.
    pub access: Access,
    /// Topics of events whose values are Avro, and not JSON.
    #[serde(deserialize_with = "words::list")]
    pub avro: Vec<EventTopic>,
    /// What is left of an address in it.
    #[serde(deserialize_with = "one")]
    pub ip_privacy: IpPrivacy,
    /// The listener's certificate.
    pub tls: Option<Tls>,
    /// How its clients prove who they are.
    pub sasl: Option<Sasl>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/var/lib/wardent/log"),
            listen: Some(Address::Tcp(loopback(9_092))),
            advertised: None,
            disk_max: 8 << 30,
            access: Access::default(),
            avro: Vec::new(),
            ip_privacy: IpPrivacy::Full,
            tls: None,
            sasl: None,
        }
    }
}

/// How the topic of requests is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Access {
    /// Its partitions, 1 to 1024.
    #[serde(deserialize_with = "partitions")]
    pub partitions: NonZeroU32,
    /// How long an event is kept.
    #[serde(deserialize_with = "one")]
    pub retention: Duration,
    /// How many bytes of them are kept.
    #[serde(deserialize_with = "size")]
    pub retention_size: u64,
}

impl Default for Access {
    fn default() -> Self {
        const FOUR: NonZeroU32 = NonZeroU32::new(4).unwrap();
        Self {
            partitions: FOUR,
            retention: Duration::from_secs(7 * 86_400),
            retention_size: 4 << 30,
        }
    }
}

vocabulary! {
    /// A topic of Wardent's own events.
    EventTopic {
        /// Finished requests.
        Access = "wardent.http.access",
        /// The state of each ban.
        Ban = "wardent.client.ban",
        /// Bans with their evidence, reloads, administrative acts.
        Audit = "wardent.audit.event",
    }
}

vocabulary! {
    /// What is left of a client's address in the topics of requests and acts.
    IpPrivacy {
        /// All of it.
        Full = "full",
        /// Its network.
        Truncate = "truncate",
        /// A keyed hash.
        Hash = "hash",
    }
}

/// A certificate and its key, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping {cert: …, key: …}")]
pub struct Tls {
    /// The chain, own certificate first.
    #[serde(deserialize_with = "one")]
    pub cert: PathBuf,
    /// The private key.
    #[serde(deserialize_with = "one")]
    pub key: PathBuf,
}

/// How Kafka clients prove who they are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping {mechanisms: […]}")]
pub struct Sasl {
    /// The mechanisms offered; never empty.
    #[serde(deserialize_with = "words::words")]
    pub mechanisms: Vec<Mechanism>,
}

vocabulary! {
    /// A SASL mechanism.
    Mechanism {
        /// A name and a password as they are (RFC 4616); only inside TLS.
        Plain = "PLAIN",
        /// RFC 5802 with SHA-256 (RFC 7677).
        ScramSha256 = "SCRAM-SHA-256",
        /// RFC 5802 with SHA-512.
        ScramSha512 = "SCRAM-SHA-512",
    }
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Admin {
    /// Where dashboard, API, metrics and health are, if anywhere.
    #[serde(deserialize_with = "optional")]
    pub listen: Option<SocketAddr>,
    /// What the command line uses.
    #[serde(deserialize_with = "one")]
    pub socket: PathBuf,
    /// Where the token for acts is; `None` makes one beside the log.
    pub token: Option<SecretFrom>,
    /// The listener's certificate.
    pub tls: Option<Tls>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: Some(loopback(9_901)),
            socket: PathBuf::from("/run/wardent/admin.sock"),
            token: None,
            tls: None,
        }
    }
}

/// Traces and the process's own log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Telemetry {
    /// The collector traces go to.
    #[serde(deserialize_with = "optional")]
    pub otlp: Option<OtlpUrl>,
    /// How much the process says.
    #[serde(deserialize_with = "one")]
    pub log: LogLevel,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp: None,
            log: LogLevel::Info,
        }
    }
}

/// The `http://` or `https://` address of a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpUrl(http::Uri);

impl OtlpUrl {
    /// The address.
    pub fn uri(&self) -> &http::Uri {
        &self.0
    }
}

impl FromWord for OtlpUrl {
    const EXPECTED: &'static str = "an address such as http://127.0.0.1:4318";

    // The address is not repeated: a password may stand in it.
    fn from_word(word: &str) -> Result<Self, String> {
        let uri = word.parse::<http::Uri>().ok();
        let is_web = |uri: &http::Uri| matches!(uri.scheme_str(), Some("http" | "https"));
        let uri = uri.filter(|uri| is_web(uri) && uri.host().is_some());
        uri.map(Self)
            .ok_or_else(|| format!("must be {}", Self::EXPECTED))
    }
}

vocabulary! {
    /// How much the process says about itself.
    LogLevel {
        /// What an operator must act on.
        Error = "error",
        /// And what an operator should look at.
        Warn = "warn",
        /// And what happens.
        Info = "info",
        /// And why.
        Debug = "debug",
        /// And every step.
        Trace = "trace",
    }
}

fn partitions<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    one(deserializer).map(|Within::<1, 1_024>(count)| count)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
