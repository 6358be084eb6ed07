//! What the headers claim, and which of it is an address that a client can have.

use std::{fmt, net::IpAddr, str};

use super::peer::fold;

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

    /// The one address the field holds, folded; none when there is none, or no single one.
    pub fn single_address(&self) -> Option<IpAddr> {
        self.address().ok().flatten()
    }

    /// The one address the field holds, folded; none when it is absent or empty.
    ///
    /// # Errors
    /// When the field stands there more than once, or is not one plain address.
    pub(super) fn address(&self) -> Result<Option<IpAddr>, BadClientIp> {
        let value = match self {
            Self::Absent => return Ok(None),
            Self::Several => return Err(BadClientIp::Several),
            Self::One(value) => trimmed(value),
        };
        if value.is_empty() {
            return Ok(None);
        }
        // Rust's parser takes no ports, brackets, zones, octal or leading zeros in IPv4.
        let text = str::from_utf8(value).map_err(|_| BadClientIp::NotAnAddress)?;
        let ip = text.parse().map_err(|_| BadClientIp::NotAnAddress)?;
        Ok(Some(fold(ip)))
    }
}

/// What a request's headers say about who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims<'a> {
    /// The field [`Trust::header`](super::Trust::header) names.
    pub identity: Claim<'a>,
    /// The field [`Edge::header`](super::Edge::header) names.
    pub edge: Claim<'a>,
    /// `CF-Connecting-IPv6`, which Cloudflare sends beside a Pseudo IPv4 address.
    pub connecting_ipv6: Claim<'a>,
}

impl Claims<'_> {
    /// The address the identity header names; none when it is absent or empty. `header` is its name.
    ///
    /// A Pseudo IPv4 address (240.0.0.0/4,
    /// <https://developers.cloudflare.com/network/pseudo-ipv4/>) gives way to the one valid
    /// `CF-Connecting-IPv6` beside it.
    ///
    /// # Errors
    /// When it names more than one address, none that can be read, or one that no client can have:
    /// unspecified, loopback, link-local, multicast, broadcast and 0.0.0.0/8 always; private
    /// networks (RFC 1918, RFC 4193) where the header is `cf-connecting-ip`, because Cloudflare
    /// names only public addresses while other headers may serve internal sites.
    pub(super) fn client(&self, header: &str) -> Result<Option<IpAddr>, BadClientIp> {
        let Some(named) = self.identity.address()? else {
            return Ok(None);
        };
        let ip = self.behind_pseudo_ipv4(named);
        let from_cloudflare = || header == "cf-connecting-ip";
        if is_never_a_client(ip) || (is_private(ip) && from_cloudflare()) {
            return Err(BadClientIp::NotPublic);
        }
        Ok(Some(ip))
    }

    fn behind_pseudo_ipv4(&self, named: IpAddr) -> IpAddr {
        let pseudo = matches!(named, IpAddr::V4(v4) if v4.to_bits() >> 28 == 0xf);
        if !pseudo {
            return named;
        }
        match self.connecting_ipv6.address() {
            Ok(Some(real)) if real.is_ipv6() => real,
            Ok(_) | Err(_) => named,
        }
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLOUDFLARES: &str = "cf-connecting-ip";

    const SILENT: Claims<'_> = Claims {
        identity: Claim::Absent,
        edge: Claim::Absent,
        connecting_ipv6: Claim::Absent,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn saying(value: &str) -> Claims<'_> {
        Claims {
            identity: Claim::One(value.as_bytes()),
            ..SILENT
        }
    }

    fn client_of(claims: &Claims<'_>) -> Result<Option<IpAddr>, BadClientIp> {
        claims.client(CLOUDFLARES)
    }

    #[test]
    fn a_claim_counts_field_lines() {
        assert_eq!(Claim::of([]), Claim::Absent);
        assert_eq!(Claim::of([b"a".as_slice()]), Claim::One(b"a"));
        assert_eq!(Claim::of([b"a".as_slice(), b"a"]), Claim::Several);
        assert_eq!(Claim::of([b"".as_slice(), b"a"]), Claim::Several);
    }

    #[test]
    fn garbage_is_no_address() {
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
            let client = client_of(&saying(text));
            assert_eq!(client, Err(BadClientIp::NotAnAddress), "{text:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_no_address() {
        let claims = Claims {
            identity: Claim::One(b"198.51.100.7\xff"),
            ..SILENT
        };
        assert_eq!(client_of(&claims), Err(BadClientIp::NotAnAddress));
    }

    #[test]
    fn spaces_and_tabs_around_the_address_do_not_count() {
        assert_eq!(
            client_of(&saying(" \t198.51.100.7\t ")),
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
            assert_eq!(client_of(&saying(text)), Ok(Some(ip("198.51.100.7"))));
        }
    }

    #[test]
    fn addresses_no_client_can_have_are_refused_behind_every_header() {
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
            for header in [CLOUDFLARES, "x-real-ip"] {
                let client = saying(text).client(header);
                assert_eq!(client, Err(BadClientIp::NotPublic), "{text}");
            }
        }
    }

    #[test]
    fn private_addresses_are_refused_only_from_cloudflares_header() {
        for text in [
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "fc00::1",
            "fd00::1",
        ] {
            let from_cloudflare = client_of(&saying(text));
            assert_eq!(from_cloudflare, Err(BadClientIp::NotPublic), "{text}");
            assert_eq!(saying(text).client("x-real-ip"), Ok(Some(ip(text))));
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
            assert_eq!(client_of(&saying(text)), Ok(Some(ip(text))));
        }
    }

    #[test]
    fn a_pseudo_ipv4_address_gives_way_to_the_ipv6_address_beside_it() {
        let claims = Claims {
            connecting_ipv6: Claim::One(b" 2001:db8::7 "),
            ..saying("250.1.2.3")
        };
        assert_eq!(client_of(&claims), Ok(Some(ip("2001:db8::7"))));
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
            assert_eq!(client_of(&claims), Ok(Some(ip("240.0.0.1"))), "{beside:?}");
        }
    }

    #[test]
    fn a_real_address_does_not_give_way_to_an_ipv6_address_beside_it() {
        for text in ["198.51.100.7", "2001:db8::1"] {
            let claims = Claims {
                connecting_ipv6: Claim::One(b"2001:db8::7"),
                ..saying(text)
            };
            assert_eq!(client_of(&claims), Ok(Some(ip(text))));
        }
    }

    #[test]
    fn the_address_behind_a_pseudo_one_is_judged_too() {
        let claims = Claims {
            connecting_ipv6: Claim::One(b"::1"),
            ..saying("250.1.2.3")
        };
        assert_eq!(client_of(&claims), Err(BadClientIp::NotPublic));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_name_a_client_that_cannot_be(value: Vec<u8>) {
            let claims = Claims { identity: Claim::One(&value), ..SILENT };
            if let Ok(Some(ip)) = client_of(&claims) {
                prop_assert!(!ip.is_loopback() && !ip.is_unspecified());
            }
        }

        #[test]
        fn every_public_address_is_read_as_written(bits: u32) {
            let v4 = std::net::Ipv4Addr::from_bits(bits);
            prop_assume!(!is_never_a_client(v4.into()) && !v4.is_private());
            prop_assert_eq!(client_of(&saying(&v4.to_string())), Ok(Some(v4.into())));
        }
    }
}
