//! `client_ip` and `secret`: who the client is, and what proves it.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::HeaderName;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use crate::config::{
    values::{Id, SecretFrom},
    words::{self, FromWord, Within, one, vocabulary},
};

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
        let v6 = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
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

fn prefix<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let Within::<32, 128>(bits) = one(deserializer)?;
    Ok(u8::try_from(bits.get()).unwrap_or(128))
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

fn secret_header() -> HeaderName {
    HeaderName::from_static("x-wardent-secret")
}
