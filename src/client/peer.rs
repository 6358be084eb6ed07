//! The other end of the socket, and whether it may say who the client is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The other end of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A TCP peer; the address is folded already, see [`fold`].
    Ip(IpAddr),
    /// A process on the other end of a unix socket.
    Unix,
}

impl From<IpAddr> for Peer {
    /// The peer behind a TCP socket, its address folded.
    fn from(ip: IpAddr) -> Self {
        Self::Ip(fold(ip))
    }
}

impl Peer {
    /// The peer's address; a unix socket has none.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Unix => None,
        }
    }
}

/// The IPv4 address inside an IPv6 one, where there is one; any other address as it is.
///
/// Folds `::ffff:0:0/96` (IPv4-mapped, RFC 4291 section 2.5.5.2: what a dual-stack socket reports)
/// and `64:ff9b::/96` (NAT64, RFC 6052 section 2.1), so that no client has two keys. The deprecated
/// IPv4-compatible form (`::a.b.c.d`) is left alone: it would turn `::1` into an IPv4 address.
pub fn fold(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => embedded_ipv4(v6).map_or(ip, IpAddr::V4),
    }
}

fn embedded_ipv4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

/// The peers whose word about the client's address counts (`client_ip.trusted_peers`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedPeers {
    /// Networks whose addresses are trusted; compared with folded addresses, so IPv4 stands as IPv4.
    pub networks: Vec<IpNet>,
    /// Whether whoever may open the unix socket is trusted.
    pub unix: bool,
}

impl TrustedPeers {
    /// Whether this peer may say who the client is.
    pub fn trusts(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Ip(ip) => self.networks.iter().any(|network| network.contains(ip)),
            Peer::Unix => self.unix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn mapped_and_nat64_addresses_are_the_ipv4_address_inside() {
        assert_eq!(fold(ip("::ffff:198.51.100.7")), ip("198.51.100.7"));
        assert_eq!(fold(ip("64:ff9b::c633:6407")), ip("198.51.100.7"));
    }

    #[test]
    fn neighbours_of_the_embedding_networks_stay_ipv6() {
        for text in [
            "::1",
            "::198.51.100.7",
            "64:ff9b:1::c633:6407",
            "::fffe:1:2",
        ] {
            assert_eq!(fold(ip(text)), ip(text), "{text}");
        }
    }

    #[test]
    fn a_peer_made_from_a_mapped_address_is_folded() {
        assert_eq!(
            Peer::from(ip("::ffff:127.0.0.1")),
            Peer::Ip(ip("127.0.0.1"))
        );
    }

    #[test]
    fn only_listed_networks_are_trusted() {
        let trusted = TrustedPeers {
            networks: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            unix: false,
        };
        for (text, expected) in [
            ("127.0.0.1", true),
            ("127.255.255.255", true),
            ("128.0.0.0", false),
            ("::ffff:127.0.0.1", true),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(trusted.trusts(&Peer::from(ip(text))), expected, "{text}");
        }
    }

    #[test]
    fn a_unix_peer_is_trusted_only_where_unix_is_listed() {
        let everything = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let mut trusted = TrustedPeers {
            networks: everything,
            unix: false,
        };
        assert!(!trusted.trusts(&Peer::Unix));
        trusted.unix = true;
        assert!(trusted.trusts(&Peer::Unix));
    }

    #[test]
    fn nobody_is_trusted_by_default() {
        assert!(!TrustedPeers::default().trusts(&Peer::Unix));
        assert!(!TrustedPeers::default().trusts(&Peer::Ip(ip("127.0.0.1"))));
    }
}
