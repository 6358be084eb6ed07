//! `wardent.yaml`: what is set once and read at start.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use http::HeaderName;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use crate::base::net::{Address, HostPort, Upstream};

use super::{
    check::check_wardent,
    report::{Problem, Report, shown},
    values::{Id, SecretFrom},
    words::{self, FromWord, Within, one, optional, size, vocabulary},
    yaml::{self, Source},
};

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
    /// How much is remembered at once.
    #[serde(default)]
    pub limits: Limits,
    /// The log and its Kafka listener.
    #[serde(default)]
    pub log: Log,
    /// Dashboard, API, metrics, health.
    #[serde(default)]
    pub admin: Admin,
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

/// The application behind Wardent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct UpstreamSection {
    /// Its servers; several are balanced. Never empty.
    #[serde(deserialize_with = "words::words")]
    pub servers: Vec<Upstream>,
    /// What is asked of each server, where it is asked at all.
    #[serde(default)]
    pub health: Option<Health>,
    /// How long connecting may take.
    #[serde(default = "connect_timeout", deserialize_with = "one")]
    pub connect_timeout: Duration,
    /// How long the response head may take.
    #[serde(default = "minute", deserialize_with = "one")]
    pub response_timeout: Duration,
    /// How long a body may be silent.
    #[serde(default = "minute", deserialize_with = "one")]
    pub idle_timeout: Duration,
    /// How long an idle pooled connection is used again.
    #[serde(default = "pool_idle", deserialize_with = "one")]
    pub pool_idle: Duration,
    /// How long an upgraded connection may be silent.
    #[serde(default = "tunnel_idle", deserialize_with = "one")]
    pub tunnel_idle: Duration,
    /// How many requests may be on their way at once; more are refused.
    #[serde(default = "in_flight", deserialize_with = "one")]
    pub max_in_flight: NonZeroU32,
}

/// An active health check.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Health {
    /// What is asked for.
    #[serde(deserialize_with = "one")]
    pub path: HealthPath,
    /// How often.
    #[serde(default = "health_interval", deserialize_with = "one")]
    pub interval: Duration,
}

/// A request target in origin form, as it goes onto the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPath(String);

impl HealthPath {
    /// The target.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromWord for HealthPath {
    const EXPECTED: &'static str = "a path such as /healthz";

    fn from_word(word: &str) -> Result<Self, String> {
        let is_target = word
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        match word.starts_with('/') && is_target {
            true => Ok(Self(word.to_owned())),
            false => Err(format!(
                "`{}` is not a path to ask for (use one such as /healthz, percent-encoded)",
                shown(word)
            )),
        }
    }
}

/// Where the client's address is read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct ClientIp {
    /// The header that says it.
    #[serde(deserialize_with = "one")]
    pub header: HeaderName,
    /// Who may say it.
    #[serde(deserialize_with = "words::list")]
    pub trusted_peers: Vec<Peer>,
    /// Which hop before the peer makes it true.
    pub edge: Option<Edge>,
    /// What a trusted peer's silence means.
    #[serde(deserialize_with = "one")]
    pub missing: Missing,
    /// How many bits of an IPv6 address are one client, 32 to 128.
    #[serde(deserialize_with = "prefix")]
    pub ipv6_prefix: u8,
}

impl Default for ClientIp {
    fn default() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let v6 = Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128);
        Self {
            header: HeaderName::from_static("cf-connecting-ip"),
            trusted_peers: vec![
                Peer::Network(v4.into()),
                Peer::Network(v6.into()),
                Peer::Unix,
            ],
            edge: None,
            missing: Missing::Reject,
            ipv6_prefix: 64,
        }
    }
}

/// A direct neighbour that is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Whoever connects from here.
    Network(IpNet),
    /// Whoever connects through a unix socket.
    Unix,
}

impl FromWord for Peer {
    const EXPECTED: &'static str = "a network such as 10.0.0.0/8, or `unix`";

    fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "unix" => Ok(Self::Unix),
            network => IpNet::from_word(network).map(Self::Network),
        }
    }
}

/// The hop before the peer, and who it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Edge {
    /// The header in which the peer says who came to it.
    #[serde(deserialize_with = "one")]
    pub header: HeaderName,
    /// Who that has to be.
    #[serde(deserialize_with = "edge_networks")]
    pub networks: EdgeNetworks,
}

/// The networks of an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EdgeNetworks {
    /// The ranges Cloudflare publishes, as built in.
    Cloudflare,
    /// These; never empty.
    Listed(Vec<IpNet>),
}

vocabulary! {
    /// What it means that a trusted peer names no client.
    Missing {
        /// The request is refused with 400.
        Reject = "reject",
        /// The request is nobody's: forwarded, never limited as a client.
        Peer = "peer",
    }
}

/// The secret that requests must carry, and the one Wardent carries itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Secret {
    /// The header that holds it.
    #[serde(deserialize_with = "one")]
    pub header: HeaderName,
    /// The keys that are valid, all at once; none means that no request proves anything.
    pub keys: Vec<Key>,
    /// What the application can check.
    pub upstream: Option<SecretUpstream>,
}

impl Default for Secret {
    fn default() -> Self {
        Self {
            header: secret_header(),
            keys: Vec::new(),
            upstream: None,
        }
    }
}

/// A valid key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping {id: …, from: …}")]
pub struct Key {
    /// What `v1=<key id>.…` calls it.
    pub id: Id,
    /// Where it is read.
    pub from: SecretFrom,
}

/// The key Wardent signs with towards the application.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct SecretUpstream {
    /// The header that holds the signature.
    #[serde(default = "secret_header", deserialize_with = "one")]
    pub header: HeaderName,
    /// What the signature calls the key.
    pub id: Id,
    /// Where it is read.
    pub from: SecretFrom,
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

/// What may be written without a value: it is off until given.
const NULLABLE: &[&str] = &[
    "secret",
    "secret.upstream",
    "upstream.health",
    "client_ip.edge",
    "log.listen",
    "log.tls",
    "log.sasl",
    "admin.listen",
    "admin.token",
    "admin.tls",
    "telemetry.otlp",
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
        true => Ok((document, super::notes::of_wardent(&source))),
        false => Err(Report { problems }),
    }
}

/// The document as far as single values go, and where they stand.
pub(super) fn read<'a>(
    text: &'a str,
    name: &'a str,
    base: &Path,
) -> Result<(Document, Source<'a>), Problem> {
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
        at(&mut self.log.dir);
        at(&mut self.admin.socket);
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

fn prefix<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let Within::<32, 128>(bits) = one(deserializer)?;
    Ok(u8::try_from(bits.get()).unwrap_or(128))
}

fn partitions<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    one(deserializer).map(|Within::<1, 1_024>(count)| count)
}

fn edge_networks<'de, D>(deserializer: D) -> Result<EdgeNetworks, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let named: Vec<Named> = words::words(deserializer)?;
    match named.as_slice() {
        [Named(None)] => Ok(EdgeNetworks::Cloudflare),
        several => {
            let networks: Option<Vec<_>> = several.iter().map(|Named(network)| *network).collect();
            let mixed = || words::refusal("`cloudflare` stands alone (or list the networks)");
            networks.map(EdgeNetworks::Listed).ok_or_else(mixed)
        }
    }
}

/// A network, or none for the built-in list.
struct Named(Option<IpNet>);

impl FromWord for Named {
    const EXPECTED: &'static str = "`cloudflare`, or networks such as 10.0.0.0/8";

    fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "cloudflare" => Ok(Self(None)),
            network => IpNet::from_word(network).map(|network| Self(Some(network))),
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn connections() -> NonZeroU32 {
    const CONNECTIONS: NonZeroU32 = NonZeroU32::new(20_000).unwrap();
    CONNECTIONS
}

fn in_flight() -> NonZeroU32 {
    const IN_FLIGHT: NonZeroU32 = NonZeroU32::new(1_024).unwrap();
    IN_FLIGHT
}

/// Longer than nginx's 60 s, so that it is nginx who closes.
fn keep_alive() -> Duration {
    Duration::from_secs(75)
}

fn connect_timeout() -> Duration {
    Duration::from_secs(2)
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

/// Below gunicorn's keep-alive of 2 s, so that it is Wardent who closes.
fn pool_idle() -> Duration {
    Duration::from_secs(1)
}

fn tunnel_idle() -> Duration {
    Duration::from_secs(3_600)
}

fn health_interval() -> Duration {
    Duration::from_secs(2)
}

fn secret_header() -> HeaderName {
    HeaderName::from_static("x-wardent-secret")
}

fn policy_file() -> PathBuf {
    PathBuf::from("policy.yaml")
}
