//! The key a client's limits and bans are kept under.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::peer::fold;

/// A client: one IPv4 address, or one IPv6 network of the configured prefix.
///
/// Interface identifiers are 64 bits (RFC 4291 section 2.5.1) and hosts change them at will
/// (RFC 8981), so a key finer than a /64 would let one host fill the table.
///
/// 24 bytes, compared and hashed as three integers. Displayed as `198.51.100.7` or
/// `2001:db8:1:2::/64`, which [`FromStr`] reads back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey {
    /// The network's upper half; zero for IPv4.
    high: u64,
    /// The network's lower half; `::ffff:a.b.c.d`'s for IPv4. No folded IPv6 address begins so.
    low: u64,
    /// Of the address as displayed: 32 for IPv4.
    prefix: u8,
    /// Whether somebody only says to be this client.
    by_hearsay: bool,
}

/// What stands above an IPv4 address in the lower half of its IPv4-mapped form.
const MAPPED: u64 = 0xffff;

impl ClientKey {
    /// The key of the client at `ip`, folded first; a prefix above 128 is taken as 128.
    pub fn new(ip: IpAddr, ipv6_prefix: u8) -> Self {
        match fold(ip) {
            IpAddr::V4(v4) => Self {
                high: 0,
                low: MAPPED << 32 | u64::from(v4.to_bits()),
                prefix: 32,
                by_hearsay: false,
            },
            IpAddr::V6(v6) => Self::masked(v6, ipv6_prefix.min(128)),
        }
    }

    fn masked(v6: Ipv6Addr, prefix: u8) -> Self {
        let host_bits = 128_u32.saturating_sub(prefix.into());
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        let bits = v6.to_bits() & mask;
        let [
            h0,
            h1,
            h2,
            h3,
            h4,
            h5,
            h6,
            h7,
            l0,
            l1,
            l2,
            l3,
            l4,
            l5,
            l6,
            l7,
        ] = bits.to_be_bytes();
        Self {
            high: u64::from_be_bytes([h0, h1, h2, h3, h4, h5, h6, h7]),
            low: u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
            prefix,
            by_hearsay: false,
        }
    }

    /// The key of all who say to be this client and do not prove it: another one, so that whatever
    /// they do costs the client nothing. It is for limits alone, and displayed as the client's.
    pub fn by_hearsay(self) -> Self {
        Self {
            by_hearsay: true,
            ..self
        }
    }

    /// Every address that has this key: one IPv4 address (`/32`) or the IPv6 network.
    pub fn network(&self) -> IpNet {
        match self.address() {
            IpAddr::V4(v4) => IpNet::V4(Ipv4Net::from(v4)),
            IpAddr::V6(v6) => Ipv6Net::new(v6, self.prefix)
                .unwrap_or_else(|_| Ipv6Net::from(v6))
                .into(),
        }
    }

    /// The client's address, or the first one of its IPv6 network.
    pub fn address(&self) -> IpAddr {
        if self.high == 0 && self.low >> 32 == MAPPED {
            let [_, _, _, _, a, b, c, d] = self.low.to_be_bytes();
            return Ipv4Addr::new(a, b, c, d).into();
        }
        Ipv6Addr::from_bits(u128::from(self.high) << 64 | u128::from(self.low)).into()
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(v6) => write!(f, "{v6}/{}", self.prefix),
        }
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({self})")
    }
}

/// A text that is not a client key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadClientKey;

impl fmt::Display for BadClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a client: write an IPv4 address or an IPv6 network, as in `198.51.100.7` or `2001:db8:1:2::/64`",
        )
    }
}

impl std::error::Error for BadClientKey {}

impl FromStr for ClientKey {
    type Err = BadClientKey;

    /// Reads back what `Display` wrote.
    ///
    /// # Errors
    /// For anything else: an IPv6 address without its prefix, a network with host bits set,
    /// an IPv4 network, an IPv4 address in IPv6 clothes.
    fn from_str(text: &str) -> Result<Self, BadClientKey> {
        let Ok(network) = text.parse::<Ipv6Net>() else {
            let v4 = text.parse::<Ipv4Addr>().map_err(|_| BadClientKey)?;
            return Ok(Self::new(v4.into(), 128));
        };
        let (first, prefix) = (network.network(), network.prefix_len());
        // `64:ff9b::/64` is a client, `64:ff9b::/96` holds nothing but IPv4 ones.
        let all_folded = prefix >= 96 && fold(first.into()).is_ipv4();
        if network.addr() != first || all_folded {
            return Err(BadClientKey);
        }
        Ok(Self::masked(first, prefix))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn key(text: &str, prefix: u8) -> ClientKey {
        ClientKey::new(text.parse().unwrap(), prefix)
    }

    #[test]
    fn an_ipv4_client_is_its_whole_address() {
        assert_eq!(key("198.51.100.7", 64).to_string(), "198.51.100.7");
        assert_ne!(key("198.51.100.7", 64), key("198.51.100.8", 64));
        assert_eq!(key("198.51.100.7", 64), key("198.51.100.7", 48));
    }

    #[test]
    fn a_thousand_addresses_of_one_64_share_one_key() {
        let keys: HashSet<_> = (0..1_000)
            .map(|n| key(&format!("2001:db8:1:2::{n:x}"), 64))
            .collect();
        assert_eq!(keys.len(), 1);
        assert_eq!(
            keys.into_iter().next().unwrap().to_string(),
            "2001:db8:1:2::/64"
        );
    }

    #[test]
    fn the_next_64_is_another_client() {
        assert_ne!(key("2001:db8:1:2::1", 64), key("2001:db8:1:3::1", 64));
        assert_eq!(key("2001:db8:1:2::1", 48), key("2001:db8:1:3::1", 48));
    }

    #[test]
    fn mapped_and_nat64_forms_have_the_ipv4_addresses_key() {
        let plain = key("198.51.100.7", 64);
        assert_eq!(key("::ffff:198.51.100.7", 64), plain);
        assert_eq!(key("64:ff9b::198.51.100.7", 64), plain);
    }

    #[test]
    fn the_extreme_prefixes_do_not_overflow() {
        assert_eq!(key("2001:db8::1", 0).to_string(), "::/0");
        assert_eq!(key("2001:db8::1", 128).to_string(), "2001:db8::1/128");
        assert_eq!(key("2001:db8::1", 255), key("2001:db8::1", 128));
    }

    #[test]
    fn keys_of_two_prefixes_are_two_keys() {
        assert_ne!(key("2001:db8::", 64), key("2001:db8::", 48));
    }

    #[test]
    fn an_ipv6_network_around_the_nat64_addresses_reads_back() {
        for text in ["64:ff9b::1:0:0:1", "::1:0:0:0"] {
            let around = key(text, 64);
            assert_eq!(around.to_string().parse(), Ok(around));
        }
    }

    #[test]
    fn who_only_says_to_be_a_client_has_another_key() {
        let own = key("198.51.100.7", 64);
        assert_ne!(own.by_hearsay(), own);
        assert_eq!(own.by_hearsay(), own.by_hearsay().by_hearsay());
    }

    #[test]
    fn the_network_of_a_key_is_all_its_addresses() {
        assert_eq!(
            key("198.51.100.7", 64).network(),
            "198.51.100.7/32".parse().unwrap()
        );
        assert_eq!(
            key("2001:db8::9", 64).network(),
            "2001:db8::/64".parse().unwrap()
        );
    }

    #[test]
    fn a_key_fits_in_three_words() {
        assert_eq!(size_of::<ClientKey>(), 24);
    }

    #[test]
    fn texts_that_display_never_writes_are_refused() {
        for text in [
            "",
            "198.51.100.7/32",
            "198.51.100.0/24",
            "198.51.100.007",
            "2001:db8::1",
            "2001:db8::1/64",
            "::ffff:198.51.100.7/128",
            "64:ff9b::1/128",
            "[2001:db8::]/64",
            " 198.51.100.7",
        ] {
            assert_eq!(text.parse::<ClientKey>(), Err(BadClientKey), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_displayed_key_reads_back_as_itself(bits: u128, prefix in 0_u8..=128) {
            let key = ClientKey::new(Ipv6Addr::from_bits(bits).into(), prefix);
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }

        #[test]
        fn a_displayed_ipv4_key_reads_back_as_itself(bits: u32) {
            let key = ClientKey::new(Ipv4Addr::from_bits(bits).into(), 64);
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }

        #[test]
        fn the_network_holds_the_address_the_key_was_made_from(bits: u128, prefix in 0_u8..=128) {
            let ip = fold(Ipv6Addr::from_bits(bits).into());
            prop_assert!(ClientKey::new(ip, prefix).network().contains(&ip));
        }
    }
}
