//! One ban, and whom it is for.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::{facts::Violation, memory::Stamp};
use crate::{
    base::{id::RequestId, net::folded},
    client::ClientKey,
};

/// Whom a ban is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// One client.
    Client(ClientKey),
    /// All of a network.
    Network(IpNet),
}

impl Target {
    /// What an operator means by `text`: the client at an address, or a network.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str, ipv6_prefix: u8) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Client(ClientKey::new(ip, ipv6_prefix)));
        }
        let network = IpNet::from_str(text).map_err(|_| {
            format!(
                "`{text}` is neither an address nor a network: write 198.51.100.7, 2001:db8::1 or 203.0.113.0/24"
            )
        })?;
        let network = folded(network.trunc());
        let client = ClientKey::new(network.addr(), ipv6_prefix);
        Ok(if client.network() == network {
            Self::Client(client)
        } else {
            Self::Network(network)
        })
    }

    /// The first address that it holds for.
    pub fn network(&self) -> IpNet {
        match self {
            Self::Client(client) => client.network(),
            Self::Network(network) => *network,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => client.fmt(f),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// Who decided a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// The policy, by the client's violations.
    ByPolicy,
    /// An operator.
    By(String),
}

/// One ban.
#[derive(Debug, Clone)]
pub struct Ban {
    /// Whom it is for.
    pub target: Target,
    /// When it began, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// When it ends by the wall clock of its beginning, in milliseconds since 1970.
    pub until_unix_ms: u64,
    /// When it ends, in nanoseconds of the monotonic clock.
    pub until_ns: u64,
    /// The how-manieth it is, beginning with 1.
    pub level: u32,
    /// Who decided it.
    pub decided: Decided,
    /// Why, in a word or a sentence.
    pub why: String,
    /// Whether it holds, or would if the policy were enforced.
    pub enforced: bool,
    /// The last request that led to it.
    pub request: Option<RequestId>,
    /// The violations that led to it, oldest first. Those of a ban from before the start are in the
    /// log alone.
    pub evidence: Vec<Violation>,
    /// Which node decided it and when, where there are several.
    pub stamp: Stamp,
}

impl Ban {
    /// The ban, and nothing of what led to it.
    pub fn without_evidence(&self) -> Self {
        Self {
            evidence: Vec::new(),
            why: self.why.clone(),
            decided: self.decided.clone(),
            stamp: self.stamp.clone(),
            ..*self
        }
    }
}
