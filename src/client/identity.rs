//! From the peer, its headers and the configured trust to the client.
//!
//! Guarantees: an untrusted peer is its own socket address whatever it says; of two answers none is
//! picked; no form of an address is read that another program might read differently. The caller
//! reads the headers before `Connection` is honoured, and before anything else is decided.

use std::{fmt, net::IpAddr, str};

use super::{
    edge::Edge,
    key::ClientKey,
    peer::{Peer, TrustedPeers, fold},
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

/// What one header field said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim<'a> {
    /// No such field.
    Absent,
    /// One field line, its value as received.
    One(&'a [u8]),
    /// More than one field line, whatever they say.
    Several,
}

impl<'a> Claim<'a> {
    /// The claim of all field lines of one name.
    pub fn of(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(only), None) => Self::One(only),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

/// What a request's headers say about who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims<'a> {
    /// The field [`Trust::header`] names.
    pub identity: Claim<'a>,
    /// The field [`Edge::header`] names.
    pub edge: Claim<'a>,
    /// `CF-Connecting-IPv6`, which Cloudflare sends beside a Pseudo IPv4 address.
    pub connecting_ipv6: Claim<'a>,
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

/// Why a trusted peer's request has no client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BadClientIp {
    /// The header is absent or empty.
    Missing,
    /// The header stands there more than once.
    Several,
    /// The header is not one plain address.
    NotAnAddress,
    /// The address is one that no client on the other side can have.
    NotPublic,
    /// The hop before the peer is not of the edge's networks.
    EdgeMismatch,
}

impl BadClientIp {
    /// What is wrong and what would be right, in a sentence.
    pub fn why(self) -> &'static str {
        match self {
            Self::Missing => {
                "a trusted peer sent no client address: let it set the header named by `client_ip.header`"
            }
            Self::Several => {
                "the client address header stands more than once: let the peer replace it, not add to it"
            }
            Self::NotAnAddress => {
                "the client address header is not one plain IP address: no port, brackets, zone or list"
            }
            Self::NotPublic => {
                "the client address header names an address that no client can have from there"
            }
            Self::EdgeMismatch => {
                "the hop before the peer is not in `client_ip.edge.networks`: its word about the client does not count"
            }
        }
    }
}

impl fmt::Display for BadClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl std::error::Error for BadClientIp {}

/// Finds out whose request this is. Allocates nothing.
///
/// An untrusted peer is its own socket address; an untrusted unix peer has none and is nobody.
/// A trusted peer's header must hold exactly one address in a plain textual form, between optional
/// spaces and tabs. Twice or garbage is an error even under [`Missing::Peer`]: else whoever reaches
/// the peer could opt out of limits. An edge that does not match is a missing header.
///
/// A Pseudo IPv4 address (240.0.0.0/4,
/// <https://developers.cloudflare.com/network/pseudo-ipv4/>) gives way to the one valid
/// `CF-Connecting-IPv6` beside it.
///
/// # Errors
/// When a trusted peer names no client ([`Missing::Reject`] only), more than one, none that can be
/// read, or one that cannot be: unspecified, loopback, link-local, multicast, broadcast and
/// 0.0.0.0/8 always; private networks (RFC 1918, RFC 4193) where the header is `cf-connecting-ip`,
/// because Cloudflare names only public addresses while other headers may serve internal sites.
pub fn identify(peer: &Peer, claims: &Claims<'_>, trust: &Trust) -> Result<Client, BadClientIp> {
    if !trust.trusted.trusts(peer) {
        return Ok(by_socket(peer, trust.ipv6_prefix));
    }
    // Before the edge: garbage stays an error where a mismatch only makes the request nobody's.
    let claimed = claimed_client(claims, trust)?;
    let edge_matched = trust
        .edge
        .as_ref()
        .map(|edge| edge_matches(edge, &claims.edge));
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

fn edge_matches(edge: &Edge, claim: &Claim<'_>) -> bool {
    matches!(read(claim), Ok(Some(ip)) if edge.networks.contains(ip))
}

/// The address the identity header names; none when it is absent or empty.
fn claimed_client(claims: &Claims<'_>, trust: &Trust) -> Result<Option<IpAddr>, BadClientIp> {
    let Some(named) = read(&claims.identity)? else {
        return Ok(None);
    };
    let ip = behind_pseudo_ipv4(named, &claims.connecting_ipv6);
    let cloudflare = || trust.header == "cf-connecting-ip";
    if is_never_a_client(ip) || (is_private(ip) && cloudflare()) {
        return Err(BadClientIp::NotPublic);
    }
    Ok(Some(ip))
}

fn behind_pseudo_ipv4(named: IpAddr, connecting_ipv6: &Claim<'_>) -> IpAddr {
    let pseudo = matches!(named, IpAddr::V4(v4) if v4.to_bits() >> 28 == 0xf);
    if !pseudo {
        return named;
    }
    match read(connecting_ipv6) {
        Ok(Some(real)) if real.is_ipv6() => real,
        Ok(_) | Err(_) => named,
    }
}

/// The one address a field holds, folded; none when the field is absent or empty.
fn read(claim: &Claim<'_>) -> Result<Option<IpAddr>, BadClientIp> {
    let value = match claim {
        Claim::Absent => return Ok(None),
        Claim::Several => return Err(BadClientIp::Several),
        Claim::One(value) => trimmed(value),
    };
    if value.is_empty() {
        return Ok(None);
    }
    // Rust's parser takes no ports, brackets, zones, octal or leading zeros in IPv4.
    let text = str::from_utf8(value).map_err(|_| BadClientIp::NotAnAddress)?;
    let ip = text.parse().map_err(|_| BadClientIp::NotAnAddress)?;
    Ok(Some(fold(ip)))
}

/// Without the optional white space around a field value (RFC 9110 section 5.6.3).
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is_never_a_client(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            // 0.0.0.0/8 means "this network" and is no one's address (RFC 6890 section 2.2.2).
            first == 0
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
        }
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::edge::EdgeNetworks;
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
            edge: Claim::Absent,
            connecting_ipv6: Claim::Absent,
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
        let long = "1".repeat(300);
        for text in [
            "999.1.1.1",
            "1.2.3",
            "0x7f.1",
            "010.0.0.1",
            "198.51.100.07",
            "198.51.100.7:80",
            "[2001:db8::1]",
            "[2001:db8::1]:80",
            "2001:db8::1%lo",
            "203.0.113.9, 198.51.100.7",
            "203.0.113.9 198.51.100.7",
            "198.51.100.7/32",
            "198.51.100.7\0",
            "\u{a0}198.51.100.7",
            "3325256711",
            "unknown",
            "-",
            &long,
        ] {
            for trust in [trust(), nothing_but_peer(), trust_with_edge(Missing::Peer)] {
                let client = client_of(&saying(text), &trust);
                assert_eq!(client, Err(BadClientIp::NotAnAddress), "{text:?}");
            }
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_no_address() {
        let claims = Claims {
            identity: Claim::One(b"198.51.100.7\xff"),
            ..SILENT
        };
        assert_eq!(client_of(&claims, &trust()), Err(BadClientIp::NotAnAddress));
    }

    #[test]
    fn spaces_and_tabs_around_the_address_do_not_count() {
        assert_eq!(
            client_of(&saying(" \t198.51.100.7\t "), &trust()),
            Ok(Some(ip("198.51.100.7")))
        );
    }

    #[test]
    fn embedded_ipv4_addresses_are_the_ipv4_client() {
        for text in [
            "::ffff:198.51.100.7",
            "::FFFF:c633:6407",
            "64:ff9b::198.51.100.7",
        ] {
            assert_eq!(
                client_of(&saying(text), &trust()),
                Ok(Some(ip("198.51.100.7")))
            );
        }
    }

    #[test]
    fn addresses_no_client_can_have_are_refused_behind_every_header() {
        let internal = Trust {
            header: "x-real-ip".to_owned(),
            ..trust()
        };
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "127.0.0.1",
            "127.255.255.254",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "febf::1",
            "224.0.0.1",
            "239.255.255.255",
            "ff02::1",
            "255.255.255.255",
        ] {
            for trust in [&trust(), &internal, &nothing_but_peer()] {
                let client = client_of(&saying(text), trust);
                assert_eq!(client, Err(BadClientIp::NotPublic), "{text}");
            }
        }
    }

    #[test]
    fn private_addresses_are_refused_only_from_cloudflares_header() {
        let internal = Trust {
            header: "x-real-ip".to_owned(),
            ..trust()
        };
        for text in [
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "fc00::1",
            "fd00::1",
        ] {
            let from_cloudflare = client_of(&saying(text), &trust());
            assert_eq!(from_cloudflare, Err(BadClientIp::NotPublic), "{text}");
            assert_eq!(client_of(&saying(text), &internal), Ok(Some(ip(text))));
        }
    }

    #[test]
    fn shared_and_documentation_networks_are_accepted() {
        for text in [
            "100.64.0.1",
            "192.0.2.1",
            "203.0.113.9",
            "2001:db8::1",
            "172.32.0.1",
            "fec0::1",
        ] {
            assert_eq!(client_of(&saying(text), &trust()), Ok(Some(ip(text))));
        }
    }

    #[test]
    fn a_pseudo_ipv4_address_gives_way_to_the_ipv6_address_beside_it() {
        let claims = Claims {
            connecting_ipv6: Claim::One(b" 2001:db8::7 "),
            ..saying("250.1.2.3")
        };
        assert_eq!(client_of(&claims, &trust()), Ok(Some(ip("2001:db8::7"))));
    }

    #[test]
    fn a_pseudo_ipv4_address_stands_where_no_single_ipv6_address_is_beside_it() {
        for beside in [
            Claim::Absent,
            Claim::Several,
            Claim::One(b""),
            Claim::One(b"rubbish"),
            Claim::One(b"198.51.100.7"),
            Claim::One(b"::ffff:198.51.100.7"),
        ] {
            let claims = Claims {
                connecting_ipv6: beside,
                ..saying("240.0.0.1")
            };
            assert_eq!(
                client_of(&claims, &trust()),
                Ok(Some(ip("240.0.0.1"))),
                "{beside:?}"
            );
        }
    }

    #[test]
    fn a_real_address_does_not_give_way_to_an_ipv6_address_beside_it() {
        for text in ["198.51.100.7", "2001:db8::1"] {
            let claims = Claims {
                connecting_ipv6: Claim::One(b"2001:db8::7"),
                ..saying(text)
            };
            assert_eq!(client_of(&claims, &trust()), Ok(Some(ip(text))));
        }
    }

    #[test]
    fn the_address_behind_a_pseudo_one_is_judged_too() {
        let claims = Claims {
            connecting_ipv6: Claim::One(b"::1"),
            ..saying("250.1.2.3")
        };
        assert_eq!(client_of(&claims, &trust()), Err(BadClientIp::NotPublic));
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

    #[test]
    fn a_claim_counts_field_lines() {
        assert_eq!(Claim::of([]), Claim::Absent);
        assert_eq!(Claim::of([b"a".as_slice()]), Claim::One(b"a"));
        assert_eq!(Claim::of([b"a".as_slice(), b"a"]), Claim::Several);
        assert_eq!(Claim::of([b"".as_slice(), b"a"]), Claim::Several);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_name_a_client_that_cannot_be(value: Vec<u8>) {
            let claims = Claims { identity: Claim::One(&value), ..SILENT };
            if let Ok(Some(ip)) = client_of(&claims, &trust()) {
                prop_assert!(!ip.is_loopback() && !ip.is_unspecified());
            }
        }

        #[test]
        fn every_public_address_is_read_as_written(bits: u32) {
            let v4 = std::net::Ipv4Addr::from_bits(bits);
            prop_assume!(!is_never_a_client(v4.into()) && !v4.is_private());
            prop_assert_eq!(client_of(&saying(&v4.to_string()), &trust()), Ok(Some(v4.into())));
        }
    }
}
