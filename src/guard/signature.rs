//! Stripe's webhook signatures: whether a body was signed by one of the route's secrets, lately.
//!
//! Source: <https://docs.stripe.com/webhooks#verify-manually>, and Stripe's own libraries where that
//! page is silent: a time in the future is not refused, signatures of unknown schemes and broken `v1`
//! are passed over. Reads no body by itself and changes none.

use std::{fmt, str, time::Duration};

use hmac::Mac;
use subtle::{Choice, ConstantTimeEq};

use crate::secret::{HmacSha256, SecretBytes, digest_from_hex, keyed};

/// The most `v1` signatures of one header; Stripe sends one for each secret that is valid.
pub const SIGNATURES_MAX: usize = 16;

/// The check of one route: `signature: {scheme: stripe, …}`.
#[derive(Clone)]
pub struct Stripe {
    keyed: Box<[HmacSha256]>,
    tolerance: Duration,
}

impl fmt::Debug for Stripe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stripe")
            .field("secrets", &self.keyed.len())
            .field("tolerance", &self.tolerance)
            .finish()
    }
}

/// Why secrets cannot check signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSecrets {
    /// There is none.
    None,
    /// One is empty: anybody could sign with it.
    Empty,
}

impl fmt::Display for BadSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "a signature needs a secret: list the endpoint's `whsec_…`",
            Self::Empty => "a signature's secret is empty: write the endpoint's whole `whsec_…`",
        })
    }
}

impl std::error::Error for BadSecrets {}

/// Why a request is not proven to be Stripe's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BadSignature {
    /// There is no `Stripe-Signature` header.
    Missing,
    /// The header is not a list of `name=value`, or has not exactly one time in plain digits.
    Malformed,
    /// The header has no well-formed `v1` signature.
    NoSignature,
    /// The header has more than [`SIGNATURES_MAX`] `v1` signatures.
    TooMany,
    /// The time is further back than the tolerance.
    Stale,
    /// No secret made any of the signatures for this body.
    Mismatch,
}

impl BadSignature {
    /// What is wrong and what would be right, in a sentence.
    pub fn why(self) -> &'static str {
        match self {
            Self::Missing => "there is no Stripe-Signature header",
            Self::Malformed => "the Stripe-Signature header is not a list with one time `t=`",
            Self::NoSignature => "the Stripe-Signature header has no `v1=` of 64 hex digits",
            Self::TooMany => "the Stripe-Signature header has more than 16 `v1=`",
            Self::Stale => "the signature is older than the tolerance: compare the clocks",
            Self::Mismatch => {
                "no secret signed this body: compare the endpoint's secret, and see that nothing before changes the body"
            }
        }
    }
}

impl fmt::Display for BadSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl std::error::Error for BadSignature {}

/// What a `Stripe-Signature` header claims, its form and its age checked.
///
/// Made from the head, so that a request without a chance is refused before its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed<'a> {
    /// The time's digits as signed.
    seconds: &'a [u8],
    signatures: [[u8; 32]; SIGNATURES_MAX],
    count: usize,
}

impl Stripe {
    /// A check with these secrets, each the whole `whsec_…` string, and this tolerance.
    ///
    /// # Errors
    /// When there is no secret or one is empty.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the secrets are taken so that they are wiped once the Macs are keyed"
    )]
    pub fn new(secrets: Vec<SecretBytes>, tolerance: Duration) -> Result<Self, BadSecrets> {
        if secrets.is_empty() {
            return Err(BadSecrets::None);
        }
        if secrets.iter().any(|secret| secret.as_bytes().is_empty()) {
            return Err(BadSecrets::Empty);
        }
        Ok(Self {
            keyed: secrets.iter().map(keyed).collect(),
            tolerance,
        })
    }

    /// Whether one of the secrets signed `body`, no longer ago than the tolerance.
    ///
    /// `header` is the one `Stripe-Signature` value, none when absent; a request with several is for
    /// the caller to refuse. `body` comes in the pieces it was received in. Allocates nothing.
    ///
    /// # Errors
    /// When it is not; see [`BadSignature`].
    pub fn verify(
        &self,
        header: Option<&[u8]>,
        body: &[impl AsRef<[u8]>],
        now_unix_s: u64,
    ) -> Result<(), BadSignature> {
        let claimed = self.claimed(header, now_unix_s)?;
        self.check(&claimed, body)
    }

    /// Judges the header alone: its form, and the age of what it claims.
    ///
    /// # Errors
    /// Whatever [`verify`](Self::verify) refuses but [`BadSignature::Mismatch`].
    pub fn claimed<'a>(
        &self,
        header: Option<&'a [u8]>,
        now_unix_s: u64,
    ) -> Result<Claimed<'a>, BadSignature> {
        let claimed = Claimed::parse(header.ok_or(BadSignature::Missing)?)?;
        let unix_s = plain_decimal(claimed.seconds).ok_or(BadSignature::Malformed)?;
        // A time in the future has the age zero.
        let age = Duration::from_secs(now_unix_s.saturating_sub(unix_s));
        if age > self.tolerance {
            return Err(BadSignature::Stale);
        }
        Ok(claimed)
    }

    /// Whether one of the secrets made one of the claimed signatures for `body`.
    ///
    /// Every secret is tried with every signature, also after one has matched.
    ///
    /// # Errors
    /// [`BadSignature::Mismatch`] when none did.
    pub fn check(
        &self,
        claimed: &Claimed<'_>,
        body: &[impl AsRef<[u8]>],
    ) -> Result<(), BadSignature> {
        let mut any = Choice::from(0);
        for keyed in &self.keyed {
            let mut mac = keyed.clone();
            mac.update(claimed.seconds);
            mac.update(b".");
            for piece in body {
                mac.update(piece.as_ref());
            }
            let expected: [u8; 32] = mac.finalize().into_bytes().into();
            for signature in claimed.signatures.iter().take(claimed.count) {
                any |= expected.as_slice().ct_eq(signature.as_slice());
            }
        }
        if any.into() {
            return Ok(());
        }
        Err(BadSignature::Mismatch)
    }
}

impl<'a> Claimed<'a> {
    /// Reads `t=…,v1=…,v1=…,v0=…`; white space around an item does not count, as in Stripe's
    /// Ruby library.
    fn parse(header: &'a [u8]) -> Result<Self, BadSignature> {
        let (mut seconds, mut count) = (None, 0);
        let mut signatures = [[0; 32]; SIGNATURES_MAX];
        for item in header.split(|&byte| byte == b',') {
            let item = item.trim_ascii();
            let equals = memchr::memchr(b'=', item).ok_or(BadSignature::Malformed)?;
            match item.split_at(equals) {
                (b"t", value) if seconds.is_none() => seconds = value.get(1..),
                // Two times: which of them was signed is nobody's guess.
                (b"t", _) => return Err(BadSignature::Malformed),
                (b"v1", value) => {
                    let Some(signature) = value.get(1..).and_then(digest_from_hex) else {
                        continue;
                    };
                    *signatures.get_mut(count).ok_or(BadSignature::TooMany)? = signature;
                    count += 1;
                }
                _ => {}
            }
        }
        let seconds = seconds.ok_or(BadSignature::Malformed)?;
        if count == 0 {
            return Err(BadSignature::NoSignature);
        }
        Ok(Self {
            seconds,
            signatures,
            count,
        })
    }
}

/// Digits without sign or leading zeros, so that the text signed is the number meant.
fn plain_decimal(digits: &[u8]) -> Option<u64> {
    let plain = digits.iter().all(u8::is_ascii_digit) && !matches!(digits, [b'0', _, ..]);
    let text = str::from_utf8(digits).ok().filter(|_| plain)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &[u8] = b"{ \"id\" : \"evt_\\u00e9\" }\n";
    const NOW: u64 = 1_700_000_000;
    const SECRET: &str = "whsec_test_secret";
    const OTHER: &str = "whsec_other_secret";
    /// `printf '1700000000.{ "id" : "evt_\\u00e9" }\n' | openssl dgst -sha256 -hmac whsec_test_secret`
    const BY_OPENSSL: &str = "86857a84c5544df6363a15f0f09b53ae070f447b4aad97624fe2b8b93be396e5";

    fn secret(text: &str) -> SecretBytes {
        SecretBytes::from(text.as_bytes().to_vec())
    }

    fn stripe(secrets: &[&str]) -> Stripe {
        let secrets = secrets.iter().map(|text| secret(text)).collect();
        Stripe::new(secrets, Duration::from_secs(300)).unwrap()
    }

    fn signature(key: &str, seconds: u64, body: &[u8]) -> String {
        let mut mac = keyed(&secret(key));
        mac.update(format!("{seconds}.").as_bytes());
        mac.update(body);
        let bytes = mac.finalize().into_bytes();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn signed_at(seconds: u64) -> String {
        format!("t={seconds},v1={}", signature(SECRET, seconds, BODY))
    }

    fn judged(header: &str) -> Result<(), BadSignature> {
        stripe(&[SECRET]).verify(Some(header.as_bytes()), &[BODY], NOW)
    }

    #[test]
    fn what_openssl_signed_passes() {
        assert_eq!(judged(&format!("t=1700000000,v1={BY_OPENSSL}")), Ok(()));
    }

    #[test]
    fn any_matching_v1_is_enough_and_other_schemes_are_ignored() {
        let good = signature(SECRET, NOW, BODY);
        let bad = signature(OTHER, NOW, BODY);
        for header in [
            format!("t={NOW},v1={good},v0={bad}"),
            format!("t={NOW},v1={bad},v1={good}"),
            format!("t={NOW},v1={good},v1={bad}"),
            format!("v1={good},t={NOW}"),
            format!("t={NOW}, v1={good}"),
            format!("t={NOW},v1=aa,v1=zz,v1={good},v2=x=y,x="),
            format!("t={NOW},v1={}", good.to_uppercase()),
        ] {
            assert_eq!(judged(&header), Ok(()), "{header}");
        }
    }

    #[test]
    fn a_right_signature_of_another_scheme_proves_nothing() {
        let good = signature(SECRET, NOW, BODY);
        assert_eq!(
            judged(&format!("t={NOW},v0={good}")),
            Err(BadSignature::NoSignature)
        );
        assert_eq!(
            judged(&format!("t={NOW},V1={good}")),
            Err(BadSignature::NoSignature)
        );
    }

    #[test]
    fn any_secret_of_the_route_may_have_signed() {
        for order in [[SECRET, OTHER], [OTHER, SECRET]] {
            let header = signed_at(NOW);
            let judged = stripe(&order).verify(Some(header.as_bytes()), &[BODY], NOW);
            assert_eq!(judged, Ok(()));
        }
        let header = signed_at(NOW);
        let judged = stripe(&[OTHER]).verify(Some(header.as_bytes()), &[BODY], NOW);
        assert_eq!(judged, Err(BadSignature::Mismatch));
    }

    #[test]
    fn one_changed_byte_of_the_body_is_a_mismatch() {
        let header = signed_at(NOW);
        let stripe = stripe(&[SECRET]);
        for body in [
            &BODY[1..],
            &BODY[..BODY.len() - 1],
            b"",
            b"{\"id\":\"evt_\\u00e9\"}",
        ] {
            let judged = stripe.verify(Some(header.as_bytes()), &[body], NOW);
            assert_eq!(judged, Err(BadSignature::Mismatch));
        }
    }

    #[test]
    fn the_signed_time_cannot_be_moved() {
        let moved = signed_at(NOW).replace("1700000000", "1700000001");
        assert_eq!(judged(&moved), Err(BadSignature::Mismatch));
    }

    #[test]
    fn a_signature_lives_exactly_as_long_as_the_tolerance() {
        assert_eq!(judged(&signed_at(NOW - 300)), Ok(()));
        assert_eq!(judged(&signed_at(NOW - 301)), Err(BadSignature::Stale));
        assert_eq!(judged(&signed_at(0)), Err(BadSignature::Stale));
    }

    #[test]
    fn a_time_in_the_future_is_not_refused() {
        assert_eq!(judged(&signed_at(NOW + 86_400)), Ok(()));
        assert_eq!(judged(&signed_at(u64::MAX)), Ok(()));
    }

    #[test]
    fn a_missing_or_empty_header_is_refused() {
        let absent = stripe(&[SECRET]).verify(None, &[BODY], NOW);
        assert_eq!(absent, Err(BadSignature::Missing));
        assert_eq!(judged(""), Err(BadSignature::Malformed));
    }

    #[test]
    fn a_header_that_is_no_list_with_one_plain_time_is_malformed() {
        let good = signature(SECRET, NOW, BODY);
        for header in [
            format!("v1={good}"),
            format!("t={NOW},v1={good},"),
            format!("t={NOW},v1={good},v0"),
            format!("t={NOW},t={NOW},v1={good}"),
            format!("t=,v1={good}"),
            format!("t=+{NOW},v1={good}"),
            format!("t=0{NOW},v1={good}"),
            format!("t=-1,v1={good}"),
            format!("t={NOW}.0,v1={good}"),
            format!("t=99999999999999999999,v1={good}"),
        ] {
            assert_eq!(judged(&header), Err(BadSignature::Malformed), "{header}");
        }
    }

    #[test]
    fn sixteen_signatures_are_tried_and_more_are_refused() {
        let bad = format!(",v1={}", signature(OTHER, NOW, BODY));
        let good = format!(",v1={}", signature(SECRET, NOW, BODY));
        let sixteen = format!("t={NOW}{}{good}", bad.repeat(15));
        assert_eq!(judged(&sixteen), Ok(()));
        assert_eq!(
            judged(&format!("{sixteen}{bad}")),
            Err(BadSignature::TooMany)
        );
    }

    #[test]
    fn unused_places_for_signatures_match_nothing() {
        let claimed = Claimed {
            seconds: b"1700000000",
            signatures: [[0; 32]; SIGNATURES_MAX],
            count: 0,
        };
        let judged = stripe(&[SECRET]).check(&claimed, &[BODY]);
        assert_eq!(judged, Err(BadSignature::Mismatch));
    }

    #[test]
    fn secrets_must_be_there_and_not_empty() {
        let tolerance = Duration::from_secs(300);
        let none = Stripe::new(Vec::new(), tolerance).unwrap_err();
        assert_eq!(none, BadSecrets::None);
        let empty = Stripe::new(vec![secret(SECRET), secret("")], tolerance);
        assert_eq!(empty.unwrap_err(), BadSecrets::Empty);
    }

    #[test]
    fn a_check_shows_no_secret() {
        assert_eq!(
            format!("{:?}", stripe(&[SECRET])),
            "Stripe { secrets: 1, tolerance: 300s }"
        );
    }

    proptest! {
        #[test]
        fn the_pieces_of_a_body_do_not_matter(body: Vec<u8>, piece in 1_usize..9) {
            let header = format!("t={NOW},v1={}", signature(SECRET, NOW, &body));
            let pieces: Vec<&[u8]> = body.chunks(piece).collect();
            prop_assert_eq!(stripe(&[SECRET]).verify(Some(header.as_bytes()), &pieces, NOW), Ok(()));
        }

        #[test]
        fn no_header_makes_it_panic_or_passes(header: Vec<u8>, text in "(t=|v1=|,|=|[0-9]|a{64}){0,20}") {
            for header in [header.as_slice(), text.as_bytes()] {
                prop_assert!(stripe(&[SECRET]).verify(Some(header), &[BODY], NOW).is_err());
            }
        }
    }
}
