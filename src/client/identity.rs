//! From the peer, its headers and the configured trust to the client.
//!
//! Guarantees: an untrusted peer is its own socket address whatever it says; of two answers none is
//! picked; no form of an address is read that another program might read differently. The caller
//! reads the headers before `Connection` is honoured, and before anything else is decided.

use std::net::IpAddr;

use super::{
    claim::{BadClientIp, Claims},
    edge::Edge,
    key::ClientKey,
    peer::{Peer, TrustedPeers},
};

/// Whose word about the client counts, and where it stands (`client_ip`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The header that names the client, in lower case.
    pub header: String,
    /// The peers that may say it.
    pub trusted: TrustedPeers,
    /// The networks the hop before a trusted peer must come from, where that is asked for.
    pub edge: Option<Edge>,
    /// What a trusted peer's request without the header is.
    pub missing: Missing,
    /// How many leading bits of an IPv6 address make a client.
    pub ipv6_prefix: u8,
}

/// What becomes of a trusted peer's request that names no client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is refused.
    Reject,
    /// It is nobody's: forwarded, never limited as a client, never banned.
    Peer,
}

/// Whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// One client.
    Known {
        /// The whole address, folded.
        ip: IpAddr,
        /// What its limits and bans are kept under.
        key: ClientKey,
    },
    /// Nobody in particular: never limited as a client, never banned.
    Nobody,
}

/// Whose request it is, and what vouches for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Whose request it is.
    pub who: Who,
    /// Whether the peer may say who the client is.
    pub peer_trusted: bool,
    /// Whether an edge is configured and the hop before came from it.
    pub edge_matched: bool,
    /// Whether a header named the client, rather than the socket.
    pub by_header: bool,
}

impl Client {
    /// Whether the client may be blamed, banned and allow-listed.
    ///
    /// The socket address of an untrusted peer needs no proof. An address from a header is proven by
    /// this request's valid secret or a matching edge; only where neither keys nor an edge are
    /// configured (`proof_configured` is false) does the trusted peer's word suffice. Nobody is
    /// never proven.
    pub fn is_proven(&self, secret_valid: bool, proof_configured: bool) -> bool {
        match self.who {
            Who::Nobody => false,
            Who::Known { .. } if !self.by_header => true,
            Who::Known { .. } => secret_valid || self.edge_matched || !proof_configured,
        }
    }

    /// The client's address, unless it is nobody.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.who {
            Who::Known { ip, .. } => Some(ip),
            Who::Nobody => None,
        }
    }

    /// The key of the client's limits and bans, unless it is nobody.
    pub fn key(&self) -> Option<ClientKey> {
        match self.who {
            Who::Known { key, .. } => Some(key),
            Who::Nobody => None,
        }
    }
}

/// Finds out whose request this is. Allocates nothing.
///
/// An untrusted peer is its own socket address; an untrusted unix peer has none and is nobody.
/// A trusted peer's header must hold exactly one address in a plain textual form, between optional
/// spaces and tabs. Twice or garbage is an error even under [`Missing::Peer`]: else whoever reaches
/// the peer could opt out of limits. An edge that does not match is a missing header.
///
/// # Errors
/// When a trusted peer names no client ([`Missing::Reject`] only), or none that counts (see
/// [`Claims::client`]).
pub fn identify(peer: &Peer, claims: &Claims<'_>, trust: &Trust) -> Result<Client, BadClientIp> {
    if !trust.trusted.trusts(peer) {
        return Ok(by_socket(peer, trust.ipv6_prefix));
    }
    // Before the edge: garbage stays an error where a mismatch only makes the request nobody's.
    let claimed = claims.client(&trust.header)?;
    let edge_matched = trust.edge.as_ref().map(|edge| edge_matches(edge, claims));
    let who = match (claimed, edge_matched) {
        (Some(ip), None | Some(true)) => known(ip, trust.ipv6_prefix),
        (None, None | Some(true)) => missing(trust.missing, BadClientIp::Missing)?,
        (_, Some(false)) => missing(trust.missing, BadClientIp::EdgeMismatch)?,
    };
    Ok(Client {
        who,
        peer_trusted: true,
        edge_matched: edge_matched == Some(true),
        by_header: matches!(who, Who::Known { .. }),
    })
}

fn by_socket(peer: &Peer, ipv6_prefix: u8) -> Client {
    let who = match peer {
        Peer::Ip(ip) => known(*ip, ipv6_prefix),
        Peer::Unix => Who::Nobody,
    };
    Client {
        who,
        peer_trusted: false,
        edge_matched: false,
        by_header: false,
    }
}

fn known(ip: IpAddr, ipv6_prefix: u8) -> Who {
    let key = ClientKey::new(ip, ipv6_prefix);
    Who::Known { ip, key }
}

fn missing(missing: Missing, error: BadClientIp) -> Result<Who, BadClientIp> {
    match missing {
        Missing::Reject => Err(error),
        Missing::Peer => Ok(Who::Nobody),
    }
}

fn edge_matches(edge: &Edge, claims: &Claims<'_>) -> bool {
    matches!(claims.edge.address(), Ok(Some(ip)) if edge.networks.contains(ip))
}

#[cfg(test)]
mod tests {
    use super::super::{claim::Claim, edge::EdgeNetworks};
    use super::*;

    const NGINX: &str = "127.0.0.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn peer(text: &str) -> Peer {
        Peer::from(ip(text))
    }

    fn trust() -> Trust {
        Trust {
            header: "cf-connecting-ip".to_owned(),
            trusted: TrustedPeers {
                networks: vec!["127.0.0.1/32".parse().unwrap()],
                unix: true,
            },
            edge: None,
            missing: Missing::Reject,
            ipv6_prefix: 64,
        }
    }

    fn trust_with_edge(missing: Missing) -> Trust {
        Trust {
            edge: Some(Edge {
                header: "x-real-ip".to_owned(),
                networks: EdgeNetworks::cloudflare(),
            }),
            missing,
            ..trust()
        }
    }

    fn saying(value: &str) -> Claims<'_> {
        Claims {
            identity: Claim::One(value.as_bytes()),
            ..SILENT
        }
    }

    const SILENT: Claims<'_> = Claims {
        identity: Claim::Absent,
        edge: Claim::Absent,
        connecting_ipv6: Claim::Absent,
    };

    const TWICE: Claims<'_> = Claims {
        identity: Claim::Several,
        ..SILENT
    };

    fn client_of(claims: &Claims<'_>, trust: &Trust) -> Result<Option<IpAddr>, BadClientIp> {
        identify(&peer(NGINX), claims, trust).map(|client| client.ip())
    }

    fn nothing_but_peer() -> Trust {
        Trust {
            missing: Missing::Peer,
            ..trust()
        }
    }

    #[test]
    fn a_trusted_peer_names_the_client() {
        let client = identify(&peer(NGINX), &saying("198.51.100.7"), &trust()).unwrap();
        assert_eq!(client.ip(), Some(ip("198.51.100.7")));
        assert_eq!(client.key(), Some(ClientKey::new(ip("198.51.100.7"), 64)));
        assert!(client.peer_trusted && client.by_header && !client.edge_matched);
        let over_unix = identify(&Peer::Unix, &saying("198.51.100.7"), &trust()).unwrap();
        assert_eq!(over_unix, client);
    }

    #[test]
    fn an_untrusted_peer_is_its_own_socket_address_whatever_it_says() {
        for claims in [saying("198.51.100.7"), saying("rubbish"), SILENT, TWICE] {
            for trust in [
                trust(),
                nothing_but_peer(),
                trust_with_edge(Missing::Reject),
            ] {
                let client = identify(&peer("127.0.0.2"), &claims, &trust).unwrap();
                assert_eq!(client.ip(), Some(ip("127.0.0.2")));
                assert!(!client.peer_trusted && !client.by_header && !client.edge_matched);
            }
        }
    }

    #[test]
    fn an_untrusted_unix_peer_is_nobody() {
        let mut trust = trust();
        trust.trusted.unix = false;
        let client = identify(&Peer::Unix, &saying("198.51.100.7"), &trust).unwrap();
        assert_eq!(client.who, Who::Nobody);
    }

    #[test]
    fn an_untrusted_peers_edge_header_proves_nothing() {
        let claims = Claims {
            edge: Claim::One(b"104.16.0.1"),
            ..saying("198.51.100.7")
        };
        let client = identify(
            &peer("192.0.2.1"),
            &claims,
            &trust_with_edge(Missing::Reject),
        );
        assert!(!client.unwrap().edge_matched);
    }

    #[test]
    fn a_missing_or_empty_header_is_refused_or_nobody_as_configured() {
        for claims in [SILENT, saying(""), saying(" \t ")] {
            assert_eq!(client_of(&claims, &trust()), Err(BadClientIp::Missing));
            let nobody = identify(&peer(NGINX), &claims, &nothing_but_peer()).unwrap();
            assert_eq!(nobody.who, Who::Nobody);
            assert!(nobody.peer_trusted && !nobody.by_header);
        }
    }

    #[test]
    fn two_headers_are_an_error_even_where_none_would_be_allowed() {
        assert_eq!(client_of(&TWICE, &trust()), Err(BadClientIp::Several));
        assert_eq!(
            client_of(&TWICE, &nothing_but_peer()),
            Err(BadClientIp::Several)
        );
    }

    #[test]
    fn garbage_is_an_error_even_where_nothing_would_be_allowed() {
        for (text, why) in [
            ("unknown", BadClientIp::NotAnAddress),
            ("127.0.0.1", BadClientIp::NotPublic),
        ] {
            for trust in [trust(), nothing_but_peer(), trust_with_edge(Missing::Peer)] {
                assert_eq!(client_of(&saying(text), &trust), Err(why), "{text}");
            }
        }
    }

    #[test]
    fn a_matching_edge_lets_the_header_count() {
        for edge in [
            "104.16.0.1",
            " 104.16.0.1 ",
            "::ffff:104.16.0.1",
            "2606:4700::1",
        ] {
            let claims = Claims {
                edge: Claim::One(edge.as_bytes()),
                ..saying("198.51.100.7")
            };
            let client =
                identify(&peer(NGINX), &claims, &trust_with_edge(Missing::Reject)).unwrap();
            assert_eq!(client.ip(), Some(ip("198.51.100.7")));
            assert!(client.edge_matched);
        }
    }

    #[test]
    fn an_edge_that_does_not_match_is_a_missing_header() {
        for edge in [
            Claim::Absent,
            Claim::Several,
            Claim::One(b""),
            Claim::One(b"rubbish"),
            Claim::One(b"104.16.0.1, 104.16.0.1"),
            Claim::One(b"198.51.100.9"),
        ] {
            for identity in [Claim::One(b"198.51.100.7".as_slice()), Claim::Absent] {
                let claims = Claims {
                    identity,
                    edge,
                    ..SILENT
                };
                let refused = identify(&peer(NGINX), &claims, &trust_with_edge(Missing::Reject));
                assert_eq!(refused, Err(BadClientIp::EdgeMismatch), "{edge:?}");
                let nobody =
                    identify(&peer(NGINX), &claims, &trust_with_edge(Missing::Peer)).unwrap();
                assert_eq!(nobody.who, Who::Nobody);
                assert!(!nobody.edge_matched && !nobody.by_header);
            }
        }
    }

    #[test]
    fn a_matching_edge_without_the_header_is_still_missing() {
        let claims = Claims {
            edge: Claim::One(b"104.16.0.1"),
            ..SILENT
        };
        let client = client_of(&claims, &trust_with_edge(Missing::Reject));
        assert_eq!(client, Err(BadClientIp::Missing));
    }

    #[test]
    fn ipv6_clients_share_the_key_of_their_prefix_and_keep_their_address() {
        let one = identify(&peer(NGINX), &saying("2001:db8:1:2::1"), &trust()).unwrap();
        let two = identify(&peer(NGINX), &saying("2001:db8:1:2::2"), &trust()).unwrap();
        assert_eq!(one.key(), two.key());
        assert_ne!(one.ip(), two.ip());
    }

    #[test]
    fn a_header_is_proven_by_a_secret_or_where_no_proof_is_configured() {
        let client = identify(&peer(NGINX), &saying("198.51.100.7"), &trust()).unwrap();
        assert!(client.is_proven(true, true));
        assert!(!client.is_proven(false, true));
        assert!(client.is_proven(false, false));
    }

    #[test]
    fn a_header_is_proven_by_a_matching_edge() {
        let claims = Claims {
            edge: Claim::One(b"104.16.0.1"),
            ..saying("198.51.100.7")
        };
        let client = identify(&peer(NGINX), &claims, &trust_with_edge(Missing::Reject)).unwrap();
        assert!(client.is_proven(false, true));
    }

    #[test]
    fn the_own_socket_address_needs_no_proof() {
        let client = identify(&peer("192.0.2.1"), &SILENT, &trust()).unwrap();
        assert!(client.is_proven(false, true));
    }

    #[test]
    fn nobody_is_never_proven() {
        let nobody = identify(&peer(NGINX), &SILENT, &nothing_but_peer()).unwrap();
        assert!(!nobody.is_proven(true, true) && !nobody.is_proven(true, false));
    }
}
