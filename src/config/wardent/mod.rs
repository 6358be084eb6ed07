//! `wardent.yaml`: what is set once and read at start.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::base::net::{Address, Upstream};

use super::{
    check::check_wardent,
    report::{Problem, Report, shown},
    words::{self, FromWord, Within, one},
    yaml::{self, Source},
};

mod bots;
mod cluster;
mod identity;
mod services;
mod telemetry;
mod upstream;

pub use bots::*;
pub use cluster::*;
pub use identity::*;
pub use services::*;
pub use telemetry::*;
pub use upstream::*;

/// The whole file. Relative paths in it are already relative to its folder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Document {
    /// Where the proxy listens; sockets passed by systemd win. Never empty.
    #[serde(deserialize_with = "words::words")]
    pub listen: Vec<Address>,
    /// How many runtimes serve.
    #[serde(default, deserialize_with = "one")]
    pub workers: Workers,
    /// Whether HTTP/2 by prior knowledge is spoken on the listeners.
    #[serde(default, deserialize_with = "one")]
    pub http2: bool,
    /// How many client connections there may be at once.
    #[serde(default = "connections", deserialize_with = "one")]
    pub max_connections: NonZeroU32,
    /// How long an idle client connection is kept.
    #[serde(default = "keep_alive", deserialize_with = "one")]
    pub keep_alive: Duration,
    /// The application.
    pub upstream: UpstreamSection,
    /// Who the client is.
    #[serde(default)]
    pub client_ip: ClientIp,
    /// What proves that a request came the right way.
    #[serde(default, deserialize_with = "or_default")]
    pub secret: Secret,
    /// The policy's file.
    #[serde(default = "policy_file", deserialize_with = "one")]
    pub policy: PathBuf,
    /// What takes the place of what ships about bots.
    #[serde(default)]
    pub bots: Bots,
    /// How much is remembered at once.
    #[serde(default)]
    pub limits: Limits,
    /// The log and its Kafka listener.
    #[serde(default)]
    pub log: Log,
    /// Dashboard, API, metrics, health.
    #[serde(default)]
    pub admin: Admin,
    /// Other Wardents, where there are any.
    #[serde(default)]
    pub cluster: Option<Cluster>,
    /// Traces and the process's own log.
    #[serde(default)]
    pub telemetry: Telemetry,
}

/// How many runtimes serve, each on a thread of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Workers {
    /// One per core.
    #[default]
    Auto,
    /// So many, 1 to 1024.
    Count(NonZeroU32),
}

impl FromWord for Workers {
    const EXPECTED: &'static str = "`auto` or a whole number from 1 to 1024";

    fn from_word(word: &str) -> Result<Self, String> {
        if word == "auto" {
            return Ok(Self::Auto);
        }
        let refused = |_| format!("`{}` is neither `auto` nor from 1 to 1024", shown(word));
        let count = Within::<1, 1_024>::from_word(word).map_err(refused)?;
        Ok(Self::Count(count.0))
    }
}

/// How much is remembered at once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Limits {
    /// Clients whose limits are kept exactly.
    #[serde(deserialize_with = "one")]
    pub clients_max: NonZeroU32,
    /// Bans.
    #[serde(deserialize_with = "one")]
    pub bans_max: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        const MILLION: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();
        Self {
            clients_max: MILLION,
            bans_max: MILLION,
        }
    }
}

/// What may be written without a value: it is off until given.
const NULLABLE: &[&str] = &[
    "secret",
    "secret.upstream",
    "upstream.health",
    "client_ip.edge",
    "bots.catalogue",
    "bots.networks",
    "log.listen",
    "log.tls",
    "log.sasl",
    "admin.listen",
    "admin.token",
    "admin.tls",
    "cluster",
    "cluster.kafka.tls",
    "cluster.kafka.sasl",
    "cluster.kafka.replication",
    "cluster.local",
    "cluster.local.sasl",
    "telemetry.otlp",
    "telemetry.ping",
];

/// Reads the text of a `wardent.yaml` called `name`, whose relative paths start at `base`.
/// Returns what is worth knowing beside the document.
///
/// # Errors
/// When it is refused: everything that is wrong across keys is reported at once.
pub fn parse(text: &str, name: &str, base: &Path) -> Result<(Document, Vec<Problem>), Report> {
    let (document, source) = read(text, name, base)?;
    let problems = check_wardent(&document, &source);
    match problems.is_empty() {
        true => {
            let notes = super::notes::of_wardent(&document, &source);
            Ok((document, notes))
        }
        false => Err(Report { problems }),
    }
}

/// The document as far as single values go, and where they stand.
pub(super) fn read<'a>(
    text: &'a str,
    name: &'a str,
    base: &Path,
) -> Result<(Document, Source<'a>), Report> {
    let (mut document, source): (Document, _) = yaml::read(name, text, NULLABLE)?;
    document.resolve(base);
    Ok((document, source))
}

impl Document {
    /// Makes every relative path relative to `base`.
    fn resolve(&mut self, base: &Path) {
        let at = |path: &mut PathBuf| *path = base.join(&path);
        for address in self.listen.iter_mut().chain(&mut self.log.listen) {
            if let Address::Unix(path) = address {
                at(path);
            }
        }
        for server in &mut self.upstream.servers {
            if let Upstream::Unix(path) = server {
                at(path);
            }
        }
        for tls in self.log.tls.iter_mut().chain(&mut self.admin.tls) {
            at(&mut tls.cert);
            at(&mut tls.key);
        }
        at(&mut self.policy);
        self.bots.resolve(base);
        at(&mut self.log.dir);
        at(&mut self.admin.socket);
        if let Some(cluster) = &mut self.cluster {
            cluster.resolve(base);
        }
        let keys = self.secret.keys.iter_mut().map(|key| &mut key.from);
        let upstream = self
            .secret
            .upstream
            .iter_mut()
            .map(|upstream| &mut upstream.from);
        for from in keys.chain(upstream).chain(&mut self.admin.token) {
            from.resolve(base);
        }
    }
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn connections() -> NonZeroU32 {
    const CONNECTIONS: NonZeroU32 = NonZeroU32::new(20_000).unwrap();
    CONNECTIONS
}

/// Longer than nginx's 60 s, so that it is nginx who closes.
fn keep_alive() -> Duration {
    Duration::from_secs(75)
}

fn policy_file() -> PathBuf {
    PathBuf::from("policy.yaml")
}
