//! Networks that are banned as a whole.

use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::gcra::Ticks;

/// Banned networks and when their bans end. Never changed: the owner makes a new one.
#[derive(Debug, Clone, Default)]
pub struct BannedNetworks {
    /// Under each network, the latest end of its own ban and of those of the networks around it.
    ends: JointPrefixMap<IpNet, Ticks>,
}

impl BannedNetworks {
    /// When the ban of this address ends, in ticks; zero for none.
    #[inline]
    pub fn banned_until(&self, ip: IpAddr) -> Ticks {
        if self.ends.is_empty() {
            return 0;
        }
        let longest = self.ends.get_lpm(&IpNet::from(ip));
        longest.map_or(0, |(_, &end)| end)
    }
}

impl FromIterator<(IpNet, Ticks)> for BannedNetworks {
    fn from_iter<T: IntoIterator<Item = (IpNet, Ticks)>>(bans: T) -> Self {
        let mut bans: Vec<_> = bans
            .into_iter()
            .map(|(net, end)| (net.trunc(), end))
            .collect();
        // The wider ones first, so that each finds those around it.
        bans.sort_unstable_by_key(|(network, _)| network.prefix_len());
        let mut ends = JointPrefixMap::<IpNet, Ticks>::new();
        for (network, end) in bans {
            let around = ends.get_lpm(&network).map_or(0, |(_, &end)| end);
            ends.insert(network, end.max(around));
        }
        Self { ends }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banned(bans: &[(&str, Ticks)]) -> BannedNetworks {
        let parse = |(network, end): &(&str, Ticks)| (network.parse().unwrap(), *end);
        bans.iter().map(parse).collect()
    }

    fn until(banned: &BannedNetworks, ip: &str) -> Ticks {
        banned.banned_until(ip.parse().unwrap())
    }

    #[test]
    fn an_address_is_banned_with_its_network() {
        let banned = banned(&[("203.0.113.0/24", 9), ("2001:db8::/32", 7)]);
        assert_eq!(until(&banned, "203.0.113.200"), 9);
        assert_eq!(until(&banned, "203.0.114.1"), 0);
        assert_eq!(until(&banned, "2001:db8:ffff::1"), 7);
        assert_eq!(until(&banned, "2001:db9::1"), 0);
    }

    #[test]
    fn of_nested_bans_the_latest_end_counts() {
        let nested = banned(&[("10.1.0.0/16", 5), ("10.0.0.0/8", 9), ("10.1.2.0/24", 20)]);
        assert_eq!(until(&nested, "10.1.9.9"), 9);
        assert_eq!(until(&nested, "10.1.2.9"), 20);
        assert_eq!(until(&nested, "10.9.9.9"), 9);
    }

    #[test]
    fn host_bits_do_not_matter() {
        assert_eq!(until(&banned(&[("203.0.113.77/24", 9)]), "203.0.113.1"), 9);
    }
}
