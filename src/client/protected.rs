//! Whom nothing ever bans.

use std::net::IpAddr;

use super::{edge::CLOUDFLARE_WORKERS, peer::fold};
use crate::base::network_set::NetworkSet;

/// The addresses that no ban holds for, whoever decided it and when.
///
/// A ban of loopback or of a trusted peer would shut everybody out, and behind the address of
/// Cloudflare's Workers stands whoever runs one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protected {
    /// `allow` of the policy: neither limited nor banned.
    pub allowed: NetworkSet,
    /// The networks of `client_ip.trusted_peers`.
    pub trusted_peers: NetworkSet,
}

impl Protected {
    /// Whether the policy names this address as one that nothing is held against.
    #[inline]
    pub fn is_allowed(&self, ip: IpAddr) -> bool {
        self.allowed.contains(ip)
    }

    /// Why no ban holds for this address, if none does.
    pub fn why(&self, ip: IpAddr) -> Option<&'static str> {
        let ip = fold(ip);
        if ip.is_loopback() {
            Some("it is loopback")
        } else if ip == IpAddr::V6(CLOUDFLARE_WORKERS) {
            Some("it is the address that all Cloudflare Workers share")
        } else if self.trusted_peers.contains(ip) {
            Some("it is in client_ip.trusted_peers")
        } else if self.is_allowed(ip) {
            Some("the policy allows it")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_never_be_banned() {
        let networks = |text: &str| [text.parse().unwrap()].into_iter().collect();
        let protected = Protected {
            allowed: networks("198.51.100.7/32"),
            trusted_peers: networks("10.0.0.0/8"),
        };
        for (ip, is_protected) in [
            ("127.0.0.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.1.2.3", true),
            ("198.51.100.7", true),
            ("2a06:98c0:3600::103", true),
            ("2a06:98c0:3600::104", false),
            ("198.51.100.8", false),
        ] {
            let why = protected.why(ip.parse().unwrap());
            assert_eq!(why.is_some(), is_protected, "{ip}: {why:?}");
        }
    }
}
