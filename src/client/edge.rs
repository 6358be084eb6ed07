//! The networks the hop before the trusted peer must come from for its word to count.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::peer::fold;
use crate::base::network_set::NetworkSet;

/// The address all Cloudflare Workers' subrequests share, whoever's Worker it is.
///
/// Never banned: <https://developers.cloudflare.com/fundamentals/reference/http-headers/#cf-connecting-ip-in-worker-subrequests>.
pub const CLOUDFLARE_WORKERS: Ipv6Addr = Ipv6Addr::new(0x2a06, 0x98c0, 0x3600, 0, 0, 0, 0, 0x0103);

const CLOUDFLARE: &str = include_str!("cloudflare.txt");

/// Where the address of the hop before stands, and which addresses may stand there (`client_ip.edge`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The header in which the trusted peer names its own peer, in lower case (`x-real-ip`).
    pub header: String,
    /// The networks that peer must be in.
    pub networks: EdgeNetworks,
}

/// The networks the hop before may come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeNetworks(NetworkSet);

impl EdgeNetworks {
    /// The networks of the shipped list, <https://www.cloudflare.com/ips/>.
    pub fn cloudflare() -> Self {
        shipped().collect()
    }

    /// The shipped list and the operator's own networks.
    pub fn cloudflare_and(own: impl IntoIterator<Item = IpNet>) -> Self {
        shipped().chain(own).collect()
    }

    /// The first address there is; none where there is no network.
    pub fn first(&self) -> Option<IpAddr> {
        self.0.first()
    }

    /// Whether one of the networks holds this address, folded first.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(fold(ip))
    }
}

impl FromIterator<IpNet> for EdgeNetworks {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        Self(networks.into_iter().collect())
    }
}

/// A line that does not parse is skipped; a test proves that there is none.
fn shipped() -> impl Iterator<Item = IpNet> {
    shipped_lines().filter_map(|line| line.parse().ok())
}

fn shipped_lines() -> impl Iterator<Item = &'static str> {
    CLOUDFLARE.lines().filter(|line| !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> EdgeNetworks {
        texts
            .iter()
            .map(|text| text.parse::<IpNet>().unwrap())
            .collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_line_of_the_shipped_list_is_a_network_without_host_bits() {
        for line in shipped_lines() {
            let network: IpNet = line.parse().unwrap();
            assert_eq!(network, network.trunc(), "{line}");
        }
        assert_eq!(shipped_lines().count(), 22);
        assert_eq!(shipped().count(), 22);
    }

    #[test]
    fn cloudflare_holds_its_own_first_and_last_addresses_and_not_their_neighbours() {
        let cloudflare = EdgeNetworks::cloudflare();
        for inside in [
            "173.245.48.0",
            "173.245.63.255",
            "104.16.0.0",
            "104.27.255.255",
            "::ffff:104.16.0.1",
            "2400:cb00::",
            "2a06:98c7:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert!(cloudflare.contains(ip(inside)), "{inside}");
        }
        for outside in [
            "173.245.47.255",
            "173.245.64.0",
            "104.28.0.0",
            "0.0.0.0",
            "255.255.255.255",
            "::",
            "2a06:98c8::",
            "127.0.0.1",
        ] {
            assert!(!cloudflare.contains(ip(outside)), "{outside}");
        }
    }

    #[test]
    fn the_address_workers_share_is_cloudflares() {
        assert!(EdgeNetworks::cloudflare().contains(CLOUDFLARE_WORKERS.into()));
        assert_eq!(CLOUDFLARE_WORKERS.to_string(), "2a06:98c0:3600::103");
    }

    #[test]
    fn own_networks_are_added_to_the_shipped_list() {
        let both = EdgeNetworks::cloudflare_and(["192.0.2.0/24".parse().unwrap()]);
        assert!(both.contains(ip("192.0.2.9")));
        assert!(both.contains(ip("104.16.0.1")));
        assert!(!EdgeNetworks::cloudflare().contains(ip("192.0.2.9")));
    }

    #[test]
    fn all_of_ipv6_holds_no_ipv4_address() {
        let all = networks(&["::/0"]);
        assert!(all.contains(ip("2001:db8::1")));
        assert!(!all.contains(ip("198.51.100.7")));
        assert!(!all.contains(ip("::ffff:198.51.100.7")));
    }

    #[test]
    fn a_network_inside_another_does_not_shorten_it() {
        let nested = networks(&["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/24"]);
        assert!(nested.contains(ip("10.200.0.1")));
        assert!(!nested.contains(ip("11.0.0.0")));
    }

    #[test]
    fn an_empty_set_holds_nothing() {
        assert!(!EdgeNetworks::default().contains(ip("104.16.0.1")));
    }

    proptest! {
        #[test]
        fn the_lookup_agrees_with_asking_every_network(
            nets in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..20),
            probes in prop::collection::vec(any::<u32>(), 50),
        ) {
            let nets: Vec<IpNet> = nets
                .into_iter()
                .map(|(bits, prefix)| IpNet::new(std::net::Ipv4Addr::from_bits(bits).into(), prefix).unwrap())
                .collect();
            let set: EdgeNetworks = nets.iter().copied().collect();
            let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
            let random = probes.into_iter().map(|bits| std::net::Ipv4Addr::from_bits(bits).into());
            for probe in edges.chain(random) {
                prop_assert_eq!(set.contains(probe), nets.iter().any(|net| net.contains(&probe)));
            }
        }
    }
}
