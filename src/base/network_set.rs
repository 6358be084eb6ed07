//! A set of networks in which a lookup is a binary search.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Networks, as sorted ranges that neither overlap nor touch.
///
/// IPv4 and IPv6 are kept apart, so that `::/0` means every IPv6 address and no IPv4 one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSet {
    v4: Box<[Range]>,
    v6: Box<[Range]>,
}

/// First and last address, both included.
type Range = (u128, u128);

impl NetworkSet {
    /// The first address there is; none where there is no network.
    pub fn first(&self) -> Option<IpAddr> {
        let v4 = self.v4.first().and_then(|&(first, _)| {
            let bits = u32::try_from(first).ok()?;
            Some(Ipv4Addr::from_bits(bits).into())
        });
        v4.or_else(|| {
            let &(first, _) = self.v6.first()?;
            Some(Ipv6Addr::from_bits(first).into())
        })
    }

    /// Whether one of the networks holds this address, which is taken as it is: fold it first.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(v4) => holds(&self.v4, v4.to_bits().into()),
            IpAddr::V6(v6) => holds(&self.v6, v6.to_bits()),
        }
    }
}

impl FromIterator<IpNet> for NetworkSet {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((
                    net.network().to_bits().into(),
                    net.broadcast().to_bits().into(),
                )),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self {
            v4: merged(v4),
            v6: merged(v6),
        }
    }
}

fn merged(mut ranges: Vec<Range>) -> Box<[Range]> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let joins = next.0 <= kept.1.saturating_add(1);
        if joins {
            kept.1 = kept.1.max(next.1);
        }
        joins
    });
    ranges.into()
}

fn holds(ranges: &[Range], address: u128) -> bool {
    let above = ranges.partition_point(|&(first, _)| first <= address);
    let candidate = above.checked_sub(1).and_then(|index| ranges.get(index));
    candidate.is_some_and(|&(_, last)| address <= last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(texts: &[&str]) -> NetworkSet {
        texts
            .iter()
            .map(|text| text.parse::<IpNet>().unwrap())
            .collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn first_and_last_address_are_inside_and_their_neighbours_are_not() {
        let networks = set(&["198.51.100.0/25", "2001:db8::/33"]);
        for inside in [
            "198.51.100.0",
            "198.51.100.127",
            "2001:db8::",
            "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert!(networks.contains(ip(inside)), "{inside}");
        }
        for outside in [
            "198.51.99.255",
            "198.51.100.128",
            "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db8:8000::",
        ] {
            assert!(!networks.contains(ip(outside)), "{outside}");
        }
    }

    #[test]
    fn the_first_address_is_one_of_its_own() {
        for networks in [&["10.0.0.0/8", "2001:db8::/32"][..], &["2001:db8::/32"]] {
            let networks = set(networks);
            assert!(networks.contains(networks.first().unwrap()));
        }
        assert_eq!(set(&[]).first(), None);
    }

    #[test]
    fn the_whole_of_one_family_says_nothing_of_the_other() {
        assert!(!set(&["::/0"]).contains(ip("198.51.100.7")));
        assert!(!set(&["0.0.0.0/0"]).contains(ip("2001:db8::1")));
        assert!(set(&["::/0"]).contains(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")));
    }

    proptest! {
        #[test]
        fn a_set_holds_what_one_of_its_networks_holds(
            networks: Vec<(u32, u8)>,
            address: u32,
        ) {
            let networks: Vec<IpNet> = networks
                .into_iter()
                .map(|(bits, prefix)| IpNet::new(IpAddr::from(bits.to_be_bytes()), prefix % 33).unwrap())
                .collect();
            let set: NetworkSet = networks.iter().copied().collect();
            let ip = IpAddr::from(address.to_be_bytes());
            prop_assert_eq!(set.contains(ip), networks.iter().any(|net| net.contains(&ip)));
        }
    }
}
