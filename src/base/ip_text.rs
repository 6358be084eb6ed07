//! Addresses as they are written for others, on every request and so without an allocation.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// An address in its canonical form (RFC 5952 for IPv6).
#[derive(Debug, Clone, Copy)]
pub struct IpText {
    text: [u8; BYTES_MAX],
    length: usize,
}

/// The longest are like `ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff`.
const BYTES_MAX: usize = 39;

impl IpText {
    /// The text of `ip`.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    fn of_v4(v4: Ipv4Addr) -> Self {
        let mut text = [0; BYTES_MAX];
        let mut rest = text.iter_mut();
        let mut put = |byte| {
            if let Some(next) = rest.next() {
                *next = byte;
            }
        };
        for (place, octet) in v4.octets().into_iter().enumerate() {
            if place > 0 {
                put(b'.');
            }
            if octet >= 100 {
                put(b'0' + octet / 100);
            }
            if octet >= 10 {
                put(b'0' + octet / 10 % 10);
            }
            put(b'0' + octet % 10);
        }
        let length = BYTES_MAX - rest.len();
        Self { text, length }
    }

    fn of_v6(v6: Ipv6Addr) -> Self {
        let mut text = [0; BYTES_MAX];
        let mut rest = text.as_mut_slice();
        // There is room for the longest, so that this does not fail.
        let _ = write!(rest, "{v6}");
        let length = BYTES_MAX - rest.len();
        Self { text, length }
    }

    /// The text, in ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_are_written_as_the_standard_library_does(ip: IpAddr) {
            let (own, theirs) = (IpText::of(ip), ip.to_string());
            prop_assert_eq!(own.as_bytes(), theirs.as_bytes());
        }
    }

    #[test]
    fn the_longest_have_room() {
        for text in [
            "255.255.255.255",
            "0.0.0.0",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "::",
        ] {
            assert_eq!(
                IpText::of(text.parse().unwrap()).as_bytes(),
                text.as_bytes()
            );
        }
    }
}
