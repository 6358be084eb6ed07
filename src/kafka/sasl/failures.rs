//! Failed logins, by address: whoever guesses passwords gets to guess few.

use std::{collections::HashMap, net::IpAddr, time::Duration};

/// Failures an address may have at once.
pub(crate) const BURST: u64 = 10;

/// How long until one of them is forgiven: 6 s.
const FORGIVEN_AFTER_NS: u64 = 6_000_000_000;

/// How long the answer to a failed login is held back.
pub(crate) const HELD_BACK: Duration = Duration::from_secs(1);

/// Addresses that are remembered; beyond them, the one that is forgiven soonest is forgotten.
pub(crate) const ADDRESSES_MAX: usize = 4_096;

/// Who failed lately, and when all of it is forgiven, on the monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Failures(HashMap<IpAddr, u64>);

impl Failures {
    /// How long this address has to wait before it may try again, if it has to.
    pub(crate) fn wait(&self, address: IpAddr, now_ns: u64) -> Option<Duration> {
        let forgiven_ns = *self.0.get(&place(address))?;
        let debt_ns = forgiven_ns.saturating_sub(now_ns);
        let over_ns = debt_ns.saturating_sub((BURST - 1) * FORGIVEN_AFTER_NS);
        (over_ns > 0).then(|| Duration::from_nanos(over_ns))
    }

    /// Takes note of a failure.
    pub(crate) fn note(&mut self, address: IpAddr, now_ns: u64) {
        let address = place(address);
        if !self.0.contains_key(&address) && self.0.len() >= ADDRESSES_MAX {
            self.0.retain(|_, forgiven_ns| *forgiven_ns > now_ns);
            let soonest = self.0.iter().min_by_key(|(_, forgiven_ns)| **forgiven_ns);
            let soonest = soonest.map(|(address, _)| *address);
            if let Some(soonest) = soonest.filter(|_| self.0.len() >= ADDRESSES_MAX) {
                self.0.remove(&soonest);
            }
        }
        let forgiven_ns = self.0.entry(address).or_default();
        let from_ns = (*forgiven_ns).max(now_ns);
        // It never owes more than a burst: who waits that long may try again.
        *forgiven_ns = (from_ns + FORGIVEN_AFTER_NS).min(now_ns + BURST * FORGIVEN_AFTER_NS);
    }
}

impl Failures {
    /// Takes back one that was none.
    pub(crate) fn forgive(&mut self, address: IpAddr) {
        if let Some(forgiven_ns) = self.0.get_mut(&place(address)) {
            *forgiven_ns = forgiven_ns.saturating_sub(FORGIVEN_AFTER_NS);
        }
    }
}

/// One IPv6 host is a whole /64: it changes the rest at will (RFC 8981).
pub(crate) fn place(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const SECOND: u64 = 1_000_000_000;
    const FORGIVEN_AFTER: Duration = Duration::from_nanos(FORGIVEN_AFTER_NS);

    #[test]
    fn ten_failures_are_free_then_one_in_six_seconds() {
        let mut failures = Failures::default();
        for _ in 0..BURST {
            assert_eq!(failures.wait(A, SECOND), None);
            failures.note(A, SECOND);
        }
        assert_eq!(failures.wait(A, SECOND), Some(FORGIVEN_AFTER));
        assert_eq!(failures.wait(A, 4 * SECOND), Some(Duration::from_secs(3)));
        assert_eq!(failures.wait(A, 7 * SECOND), None);
        failures.note(A, 7 * SECOND);
        assert_eq!(failures.wait(A, 7 * SECOND), Some(FORGIVEN_AFTER));
        failures.forgive(A);
        assert_eq!(failures.wait(A, 7 * SECOND), None);
        failures.note(A, 7 * SECOND);
        assert_eq!(failures.wait("192.0.2.1".parse().unwrap(), SECOND), None);
    }

    #[test]
    fn an_ipv6_host_is_its_whole_network() {
        let mut failures = Failures::default();
        for low in 0..BURST {
            failures.note(format!("2001:db8::{low}").parse().unwrap(), 0);
        }
        assert!(
            failures
                .wait("2001:db8::ffff".parse().unwrap(), 0)
                .is_some()
        );
        assert!(
            failures
                .wait("2001:db8:0:1::".parse().unwrap(), 0)
                .is_none()
        );
        let mapped = "::ffff:127.0.0.1".parse().unwrap();
        (0..BURST).for_each(|_| failures.note(mapped, 0));
        assert!(failures.wait(A, 0).is_some());
    }

    #[test]
    fn memory_is_bounded_and_the_worst_are_remembered() {
        let mut failures = Failures::default();
        (0..BURST).for_each(|_| failures.note(A, 0));
        let strangers = (0..).take(2 * ADDRESSES_MAX);
        for number in strangers {
            failures.note(
                IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number)),
                0,
            );
        }
        assert_eq!(failures.0.len(), ADDRESSES_MAX);
        assert!(failures.wait(A, 0).is_some());
    }
}
