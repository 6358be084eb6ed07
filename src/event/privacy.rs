//! What events show of an address (`log.ip_privacy`).
//!
//! Bans know whole addresses whatever stands here: a client cannot be refused by a part of its address.

use std::{
    fmt,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ipnet::IpNet;
use sha2::Sha256;

use crate::base::ip_text::IpText;

/// Leading bits of an IPv4 address that [`Privacy::Truncate`] leaves.
const V4_PREFIX: u8 = 24;
/// Leading bits of an IPv6 address that [`Privacy::Truncate`] leaves.
const V6_PREFIX: u8 = 48;

/// What is left of an address in events.
#[derive(Debug, Clone, Default)]
pub enum Privacy {
    /// All of it.
    #[default]
    Full,
    /// Its network: an IPv4 /24 or an IPv6 /48.
    Truncate,
    /// A keyed hash, the same for the same address until the salt changes.
    Hash(Arc<Salted>),
}

/// The key of [`Privacy::Hash`]. Written by whoever keeps the salt; read by every event.
pub struct Salted(ArcSwap<HmacSha256>);

type HmacSha256 = Hmac<Sha256>;

/// Bytes of a salt.
pub const SALT_BYTES: usize = 32;

impl Salted {
    /// Hashes with `salt`.
    pub fn with(salt: &[u8; SALT_BYTES]) -> Self {
        Self(ArcSwap::from_pointee(keyed(salt)))
    }

    /// Hashes with another salt from now on; what was hashed before can no longer be matched.
    pub fn change(&self, salt: &[u8; SALT_BYTES]) {
        self.0.store(Arc::new(keyed(salt)));
    }

    /// The first eight bytes of HMAC-SHA256 over `what`.
    fn hash(&self, what: &[u8]) -> [u8; 8] {
        let mut mac = HmacSha256::clone(&self.0.load());
        mac.update(what);
        let [a, b, c, d, e, f, g, h, ..] = mac.finalize().into_bytes().0;
        [a, b, c, d, e, f, g, h]
    }
}

impl fmt::Debug for Salted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salted")
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn keyed(salt: &[u8; SALT_BYTES]) -> HmacSha256 {
    HmacSha256::new_from_slice(salt).expect("a key of any length")
}

impl Privacy {
    /// What is shown of the address of one client.
    #[inline]
    pub fn of(&self, ip: IpAddr) -> AddressText {
        match self {
            Self::Full => AddressText::whole(ip),
            Self::Truncate => AddressText::network(network_of(ip)),
            Self::Hash(salted) => AddressText::hash(salted.hash(&octets(ip))),
        }
    }

    /// What is shown of a network, such as the target of a ban: all of it where it is no narrower than
    /// what [`Privacy::Truncate`] leaves. One address as a network is shown as that address.
    pub fn of_network(&self, network: IpNet) -> AddressText {
        let ip = network.network();
        if network.prefix_len() == network.max_prefix_len() {
            return self.of(ip);
        }
        let is_wide = network.prefix_len() <= prefix_of(ip);
        match self {
            Self::Full => AddressText::network(network),
            Self::Truncate | Self::Hash(_) if is_wide => AddressText::network(network),
            Self::Truncate => AddressText::network(network_of(ip)),
            Self::Hash(salted) => {
                let octets = octets(ip);
                let what = [octets.as_slice(), &[network.prefix_len()]].concat();
                AddressText::hash(salted.hash(&what))
            }
        }
    }

    /// Whether addresses are shown as they are.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full)
    }
}

fn prefix_of(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => V4_PREFIX,
        IpAddr::V6(_) => V6_PREFIX,
    }
}

fn network_of(ip: IpAddr) -> IpNet {
    let whole = IpNet::from(ip);
    IpNet::new(ip, prefix_of(ip)).map_or(whole, |network| network.trunc())
}

/// IPv4 addresses in their IPv4-mapped form, so that all are 16 bytes.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4).octets(),
        IpAddr::V6(v6) => Ipv6Addr::octets(&v6),
    }
}

/// What is shown of an address: ASCII in which nothing needs escaping.
#[derive(Clone, Copy)]
pub struct AddressText {
    text: [u8; Self::BYTES_MAX],
    length: u8,
}

impl AddressText {
    /// The longest are like `ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/127`.
    const BYTES_MAX: usize = 43;

    /// The whole address.
    #[inline]
    pub fn whole(ip: IpAddr) -> Self {
        Self::copied(IpText::of(ip).as_bytes())
    }

    fn network(network: IpNet) -> Self {
        Self::written(|text| write!(text, "{network}"))
    }

    fn hash(hash: [u8; 8]) -> Self {
        Self::written(|text| write!(text, "h:{:016x}", u64::from_be_bytes(hash)))
    }

    #[inline]
    fn copied(from: &[u8]) -> Self {
        let mut text = [0; Self::BYTES_MAX];
        let Some(begin) = text.get_mut(..from.len()) else {
            return Self { text, length: 0 };
        };
        begin.copy_from_slice(from);
        let length = u8::try_from(from.len()).unwrap_or(0);
        Self { text, length }
    }

    fn written(write: impl FnOnce(&mut &mut [u8]) -> std::io::Result<()>) -> Self {
        let mut text = [0; Self::BYTES_MAX];
        let mut rest = text.as_mut_slice();
        // There is room for the longest, so that this does not fail.
        let _ = write(&mut rest);
        let left = rest.len();
        let length = u8::try_from(Self::BYTES_MAX - left).unwrap_or(0);
        Self { text, length }
    }

    /// The text, in ASCII.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..self.length.into()).unwrap_or_default()
    }
}

impl fmt::Display for AddressText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(self.as_bytes()).unwrap_or_default())
    }
}

impl fmt::Debug for AddressText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(privacy: &Privacy, ip: &str) -> String {
        privacy.of(ip.parse().unwrap()).to_string()
    }

    fn of_network(privacy: &Privacy, network: &str) -> String {
        privacy.of_network(network.parse().unwrap()).to_string()
    }

    fn hashed(salt: u8) -> Privacy {
        Privacy::Hash(Arc::new(Salted::with(&[salt; SALT_BYTES])))
    }

    #[test]
    fn all_or_a_network_or_a_hash_is_left_of_an_address() {
        assert_eq!(of(&Privacy::Full, "198.51.100.7"), "198.51.100.7");
        assert_eq!(of(&Privacy::Full, "2001:db8:1:2::7"), "2001:db8:1:2::7");
        assert_eq!(of(&Privacy::Truncate, "198.51.100.7"), "198.51.100.0/24");
        assert_eq!(of(&Privacy::Truncate, "2001:db8:1:2::7"), "2001:db8:1::/48");
        // printf '\0\0\0\0\0\0\0\0\0\0\377\377\306\063\144\007' |
        //     openssl dgst -sha256 -mac HMAC -macopt hexkey:$(printf '01%.0s' $(seq 32))
        assert_eq!(of(&hashed(1), "198.51.100.7"), "h:877a82bb92703034");
    }

    #[test]
    fn a_hash_is_of_one_address_and_one_salt() {
        let privacy = hashed(1);
        let before = of(&privacy, "198.51.100.7");
        assert_eq!(before, of(&privacy, "198.51.100.7"));
        assert_ne!(before, of(&privacy, "198.51.100.8"));
        let Privacy::Hash(salted) = &privacy else {
            unreachable!()
        };
        salted.change(&[2; SALT_BYTES]);
        assert_ne!(before, of(&privacy, "198.51.100.7"));
    }

    #[test]
    fn a_network_shows_no_more_than_its_addresses() {
        assert_eq!(
            of_network(&Privacy::Full, "2001:db8:1:2::/64"),
            "2001:db8:1:2::/64"
        );
        assert_eq!(
            of_network(&Privacy::Truncate, "2001:db8:1:2::/64"),
            "2001:db8:1::/48"
        );
        for privacy in [Privacy::Full, Privacy::Truncate, hashed(1)] {
            assert_eq!(of_network(&privacy, "203.0.0.0/16"), "203.0.0.0/16");
            assert_eq!(
                of_network(&privacy, "198.51.100.7/32"),
                of(&privacy, "198.51.100.7")
            );
        }
        assert!(of_network(&hashed(1), "198.51.100.0/25").starts_with("h:"));
    }

    #[test]
    fn the_longest_have_room() {
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(of(&Privacy::Full, longest), longest);
        let network = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127";
        assert_eq!(of_network(&Privacy::Full, network), network);
    }
}
