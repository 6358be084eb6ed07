//! The signed form of the secret: `v1=<key id>.<unix seconds>.<hex>`.
//!
//! hex is HMAC-SHA256 (RFC 2104) over `v1\n<seconds>\n<METHOD>\n<host>\n<target>\n<client ip>`.
//! A signature is bound to one request and to two minutes; it can be replayed within them.

use std::{fmt, net::IpAddr, str};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use super::{BadKey, SecretBytes, keyring::check_id};
use crate::base::ip_text::IpText;

/// How far a signature's time may lie from now, either way, in seconds.
pub const TOLERANCE_S: u64 = 60;

/// HMAC-SHA256, keyed once and cloned for each message.
pub(crate) type HmacSha256 = Hmac<Sha256>;

/// What a signature is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed<'a> {
    /// The method as sent, in upper case for the usual ones.
    pub method: &'a [u8],
    /// The host the request is for, as sent, with the port if it has one.
    pub host: &'a [u8],
    /// The request target as sent: path and query.
    pub target: &'a [u8],
    /// The client's whole address; none for nobody, which is signed as the empty string.
    pub client_ip: Option<IpAddr>,
}

impl Signed<'_> {
    /// The signature's 32 bytes. `seconds` is the time in decimal digits.
    fn mac(&self, keyed: &HmacSha256, seconds: &[u8]) -> [u8; 32] {
        let mut mac = keyed.clone();
        for part in [
            b"v1".as_slice(),
            seconds,
            self.method,
            self.host,
            self.target,
        ] {
            mac.update(part);
            mac.update(b"\n");
        }
        if let Some(ip) = self.client_ip {
            mac.update(IpText::of(ip).as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

/// The Mac of a key, before any message.
pub(crate) fn keyed(key: &SecretBytes) -> HmacSha256 {
    #[expect(
        clippy::expect_used,
        reason = "HMAC takes a key of any length (RFC 2104 section 2)"
    )]
    HmacSha256::new_from_slice(key.as_bytes()).expect("a key of any length")
}

/// A signature as presented, its form checked and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Presented<'a> {
    pub(super) id: &'a [u8],
    seconds: &'a [u8],
    unix_s: u64,
    mac: [u8; 32],
}

impl<'a> Presented<'a> {
    /// Reads `v1=<key id>.<unix seconds>.<hex>`: decimal digits without sign or leading zeros,
    /// 64 hex digits of either case, and nothing after them.
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let mut parts = value.strip_prefix(b"v1=")?.split(|&byte| byte == b'.');
        let (id, seconds, hex) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            id,
            seconds,
            unix_s: decimal(seconds)?,
            mac: digest_from_hex(hex)?,
        })
    }

    pub(super) fn is_fresh(&self, now_unix_s: u64) -> bool {
        self.unix_s.abs_diff(now_unix_s) <= TOLERANCE_S
    }

    /// Whether `keyed` made this signature for this request, in time that does not depend on it.
    pub(super) fn is_by(&self, keyed: &HmacSha256, request: &Signed<'_>) -> Choice {
        let expected = request.mac(keyed, self.seconds);
        expected.as_slice().ct_eq(self.mac.as_slice())
    }
}

/// Decimal digits without sign, leading zeros or anything else.
fn decimal(digits: &[u8]) -> Option<u64> {
    let canonical = match digits {
        [b'0'] => true,
        [b'0', ..] => false,
        digits => digits.iter().all(u8::is_ascii_digit),
    };
    let text = str::from_utf8(digits).ok().filter(|_| canonical)?;
    text.parse().ok()
}

/// The 32 bytes that exactly 64 hex digits of either case stand for.
pub(crate) fn digest_from_hex(digits: &[u8]) -> Option<[u8; 32]> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, &[high, low]) in digest.iter_mut().zip(pairs) {
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(digest)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// 32 bytes as 64 lower-case hex digits.
pub(super) fn hex(bytes: &[u8; 32]) -> [u8; 64] {
    let mut digits = [0; 64];
    let (pairs, _) = digits.as_chunks_mut::<2>();
    for ([high, low], byte) in pairs.iter_mut().zip(bytes) {
        *high = hex_digit(byte >> 4);
        *low = hex_digit(byte & 0xf);
    }
    digits
}

fn hex_digit(nibble: u8) -> u8 {
    let start = if nibble < 10 { b'0' } else { b'a' - 10 };
    start + nibble
}

/// Signs requests with one key: towards the application, and for `wardent secret sign`.
#[derive(Clone)]
pub struct Signer {
    id: Box<str>,
    keyed: HmacSha256,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.id)
    }
}

impl Signer {
    /// Signs with `key`, which the signature calls `id`.
    ///
    /// # Errors
    /// When the key is too short or the id is not one.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the secret is taken so that it is wiped once the Mac is keyed"
    )]
    pub fn new(id: &str, key: SecretBytes) -> Result<Self, BadKey> {
        check_id(id)?;
        key.long_enough(id)?;
        Ok(Self {
            id: id.into(),
            keyed: keyed(&key),
        })
    }

    /// Appends `v1=<key id>.<unix seconds>.<hex>`; allocates only where `out` has no room.
    pub fn write(&self, request: &Signed<'_>, now_unix_s: u64, out: &mut Vec<u8>) {
        let mut buffer = itoa::Buffer::new();
        let seconds = buffer.format(now_unix_s).as_bytes();
        let mac = request.mac(&self.keyed, seconds);
        out.extend_from_slice(b"v1=");
        out.extend_from_slice(self.id.as_bytes());
        out.push(b'.');
        out.extend_from_slice(seconds);
        out.push(b'.');
        out.extend_from_slice(&hex(&mac));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: Signed<'_> = Signed {
        method: b"GET",
        host: b"app.test",
        target: b"/whoami?x=1",
        client_ip: None,
    };

    fn key() -> SecretBytes {
        SecretBytes::from(b"0123456789abcdef0123456789abcdef".to_vec())
    }

    fn signed(request: &Signed<'_>, now_unix_s: u64) -> String {
        let mut out = Vec::new();
        let signer = Signer::new("2026-11", key()).unwrap();
        signer.write(request, now_unix_s, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_signature_is_what_openssl_computes() {
        // printf 'v1\n1700000000\nGET\napp.test\n/whoami?x=1\n198.51.100.7' |
        //     openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let request = Signed {
            client_ip: Some("198.51.100.7".parse().unwrap()),
            ..REQUEST
        };
        assert_eq!(
            signed(&request, 1_700_000_000),
            "v1=2026-11.1700000000.3100a6b1faa596165003b47364273eeb7d5d450fa372c75e3ece19f7104e8a0b"
        );
        let request = Signed {
            client_ip: Some("2001:DB8:0:0::1".parse().unwrap()),
            ..REQUEST
        };
        assert_eq!(
            signed(&request, 1_700_000_000),
            "v1=2026-11.1700000000.1197375a68fc4f0257c87766703f91050c3aa3d6cefe29d80096f27db23c6f94"
        );
        assert_eq!(
            signed(&REQUEST, 1_700_000_000),
            "v1=2026-11.1700000000.e74ade83463b4faddcf58436e4caab7e7c9e2c938fc8c69849202b527e880324"
        );
    }

    #[test]
    fn writing_appends() {
        let mut out = b"before ".to_vec();
        let signer = Signer::new("k", key()).unwrap();
        signer.write(&REQUEST, 0, &mut out);
        assert!(out.starts_with(b"before v1=k.0."));
    }

    #[test]
    fn a_signer_shows_its_id_only() {
        let signer = Signer::new("k1", key()).unwrap();
        assert_eq!(format!("{signer:?}"), "Signer(k1)");
    }

    #[test]
    fn a_signer_needs_a_long_key_and_a_plain_id() {
        let short = Signer::new("k1", SecretBytes::from(b"short".to_vec()));
        assert_eq!(
            short.unwrap_err().to_string(),
            "secret k1: needs at least 32 bytes, has 5"
        );
        assert!(matches!(Signer::new("k.1", key()), Err(BadKey::Id(_))));
    }

    #[test]
    fn numbers_with_two_spellings_are_refused() {
        for text in [
            "",
            "+1",
            "-1",
            "01",
            "00",
            "1 ",
            "0x1",
            "1e3",
            "18446744073709551616",
        ] {
            assert_eq!(decimal(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
    }

    #[test]
    fn only_64_hex_digits_are_a_digest() {
        assert!(digest_from_hex(&[b'a'; 64]).is_some());
        for wrong in [
            &[b'a'; 62][..],
            &[b'a'; 63],
            &[b'a'; 65],
            &[b'a'; 66],
            &[b'g'; 64],
            b"",
        ] {
            assert_eq!(digest_from_hex(wrong), None);
        }
    }

    #[test]
    fn a_signature_has_exactly_three_parts() {
        let hex = "a".repeat(64);
        assert!(Presented::parse(format!("v1=k.1.{hex}").as_bytes()).is_some());
        for wrong in [
            format!("v1=k.1.{hex}."),
            format!("v1=k.1.{hex}.x"),
            format!("v1=k.1.{hex} "),
            format!("v1=k.{hex}"),
            format!("v2=k.1.{hex}"),
            format!("V1=k.1.{hex}"),
            format!(" v1=k.1.{hex}"),
            "v1=".to_owned(),
            String::new(),
        ] {
            assert_eq!(Presented::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn hex_reads_back(bytes: [u8; 32]) {
            prop_assert_eq!(digest_from_hex(&hex(&bytes)), Some(bytes));
            prop_assert_eq!(digest_from_hex(&hex(&bytes).to_ascii_uppercase()), Some(bytes));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(value: Vec<u8>, seconds: Vec<u8>) {
            let _ = Presented::parse(&value);
            let _ = Presented::parse(&[b"v1=k.".as_slice(), &seconds, b".", &value].concat());
        }
    }
}
