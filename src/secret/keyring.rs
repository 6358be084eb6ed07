//! All keys that are valid now, and the question whether one of them was presented.
//!
//! Guarantees: the time an answer takes depends on what was presented and on how long the keys are,
//! never on which key matches or how much of one matches. Key ids and lengths are no secrets.

use std::fmt;

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::{
    BadKey, SecretBytes,
    signed::{HmacSha256, Presented, Signed, keyed},
};

/// The fewest bytes a key may have: as many as SHA-256 gives (RFC 2104 section 3).
pub const KEY_BYTES_MIN: usize = 32;

/// Several keys at once, so that they can be rotated.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Box<[Key]>,
}

#[derive(Clone)]
struct Key {
    id: Box<str>,
    plain: SecretBytes,
    keyed: HmacSha256,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring")?;
        f.debug_list().entries(self.ids()).finish()
    }
}

impl Keyring {
    /// The ring of these keys. None is fine: such a ring verifies nothing.
    ///
    /// # Errors
    /// When an id is not one or stands twice, or a key is too short.
    pub fn new(keys: Vec<(String, SecretBytes)>) -> Result<Self, BadKey> {
        let mut ring: Vec<Key> = Vec::with_capacity(keys.len());
        for (id, secret) in keys {
            check_id(&id)?;
            secret.long_enough(&id)?;
            if ring.iter().any(|key| *key.id == *id) {
                return Err(BadKey::Duplicate(id));
            }
            ring.push(Key {
                id: id.into(),
                keyed: keyed(&secret),
                plain: secret,
            });
        }
        Ok(Self { keys: ring.into() })
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys' ids, in the order given.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| &*key.id)
    }

    /// The id of the key that `presented` is, or that signed this request within the last or next
    /// [`TOLERANCE_S`](super::TOLERANCE_S); none when neither holds. Allocates nothing.
    ///
    /// `presented` is the header's value without white space around it.
    pub fn verify(&self, presented: &[u8], request: &Signed<'_>, now_unix_s: u64) -> Option<&str> {
        let plain = self.plain(presented);
        let signed = self.signed(presented, request, now_unix_s);
        plain.or(signed).map(|key| &*key.id)
    }

    /// Compares with every key, also after one has matched.
    fn plain(&self, presented: &[u8]) -> Option<&Key> {
        let (mut any, mut at) = (Choice::from(0), 0_u64);
        for (index, key) in (0_u64..).zip(&self.keys) {
            let same = key.is(presented);
            at.conditional_assign(&index, same);
            any |= same;
        }
        let index = usize::try_from(at).ok().filter(|_| any.into())?;
        self.keys.get(index)
    }

    /// Computes one signature, also where no key has the id.
    fn signed(&self, presented: &[u8], request: &Signed<'_>, now_unix_s: u64) -> Option<&Key> {
        let presented = Presented::parse(presented)?;
        if !presented.is_fresh(now_unix_s) {
            return None;
        }
        let named = |key: &&Key| key.id.as_bytes() == presented.id;
        let named = self.keys.iter().find(named);
        let decoy = self.keys.first()?;
        let valid = presented.is_by(&named.unwrap_or(decoy).keyed, request);
        named.filter(|_| valid.into())
    }
}

impl Key {
    /// Whether `presented` is this key, after as much work for a wrong value as for the right one.
    fn is(&self, presented: &[u8]) -> Choice {
        let key = self.plain.as_bytes();
        let has_its_length = presented.len() == key.len();
        let compared = if has_its_length { presented } else { key };
        same_bytes(compared, key) & Choice::from(u8::from(has_its_length))
    }
}

/// Whether two texts of one length are the same, in time that depends on their length alone; eight
/// bytes at once, as it is asked with every request.
fn same_bytes(left: &[u8], right: &[u8]) -> Choice {
    let (left, left_rest) = left.as_chunks();
    let (right, right_rest) = right.as_chunks();
    let eights = left.iter().zip(right);
    eights.fold(left_rest.ct_eq(right_rest), |same, (&left, &right)| {
        same & u64::from_ne_bytes(left).ct_eq(&u64::from_ne_bytes(right))
    })
}

/// An id is one or more of `[A-Za-z0-9_-]`: no dot, which ends it in a signature.
pub(super) fn check_id(id: &str) -> Result<(), BadKey> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if id.is_empty() || !id.bytes().all(allowed) {
        return Err(BadKey::Id(id.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Signer, *};

    const NOW: u64 = 1_700_000_000;
    const OLD: &str = "old-old-old-old-old-old-old-old-";
    const NEW: &str = "new-new-new-new-new-new-new-new-new-new-new";

    fn secret(text: &str) -> SecretBytes {
        SecretBytes::from(text.as_bytes().to_vec())
    }

    fn ring(keys: &[(&str, &str)]) -> Result<Keyring, BadKey> {
        let keys = keys.iter().map(|(id, key)| ((*id).to_owned(), secret(key)));
        Keyring::new(keys.collect())
    }

    fn two() -> Keyring {
        ring(&[("k2", NEW), ("k1", OLD)]).unwrap()
    }

    fn request() -> Signed<'static> {
        Signed {
            method: b"GET",
            host: b"app.test",
            target: b"/s?q",
            client_ip: Some("198.51.100.7".parse().unwrap()),
        }
    }

    fn signature(id: &str, key: &str, request: &Signed<'_>, now_unix_s: u64) -> Vec<u8> {
        let mut out = Vec::new();
        Signer::new(id, secret(key))
            .unwrap()
            .write(request, now_unix_s, &mut out);
        out
    }

    #[test]
    fn each_plain_key_is_known_by_its_id() {
        assert_eq!(two().verify(OLD.as_bytes(), &request(), NOW), Some("k1"));
        assert_eq!(two().verify(NEW.as_bytes(), &request(), NOW), Some("k2"));
    }

    #[test]
    fn a_removed_key_is_no_longer_known() {
        let rotated = ring(&[("k2", NEW)]).unwrap();
        assert_eq!(rotated.verify(OLD.as_bytes(), &request(), NOW), None);
        let old = signature("k1", OLD, &request(), NOW);
        assert_eq!(rotated.verify(&old, &request(), NOW), None);
    }

    #[test]
    fn nothing_but_the_whole_key_passes() {
        let longer = format!("{OLD}x");
        for wrong in [
            "",
            " ",
            "x",
            &OLD[1..],
            &OLD[..31],
            &longer,
            &OLD.to_uppercase(),
            "v1=",
        ] {
            assert_eq!(
                two().verify(wrong.as_bytes(), &request(), NOW),
                None,
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn one_other_byte_makes_another_key() {
        for place in 0..NEW.len() {
            let mut other = NEW.as_bytes().to_vec();
            other[place] ^= 1;
            assert_eq!(two().verify(&other, &request(), NOW), None, "{place}");
        }
    }

    #[test]
    fn an_empty_ring_knows_nothing() {
        let none = Keyring::new(Vec::new()).unwrap();
        assert!(none.is_empty() && !two().is_empty());
        for presented in [b"".to_vec(), signature("k1", OLD, &request(), NOW)] {
            assert_eq!(none.verify(&presented, &request(), NOW), None);
        }
    }

    #[test]
    fn each_key_may_sign() {
        for (id, key) in [("k1", OLD), ("k2", NEW)] {
            let presented = signature(id, key, &request(), NOW);
            assert_eq!(two().verify(&presented, &request(), NOW), Some(id));
        }
    }

    #[test]
    fn upper_case_hex_is_the_same_signature() {
        let mut presented = signature("k1", OLD, &request(), NOW);
        let hex = presented.len() - 64;
        presented[hex..].make_ascii_uppercase();
        assert_eq!(two().verify(&presented, &request(), NOW), Some("k1"));
    }

    #[test]
    fn a_signature_under_another_keys_id_is_refused() {
        let presented = signature("k1", NEW, &request(), NOW);
        assert_eq!(two().verify(&presented, &request(), NOW), None);
    }

    #[test]
    fn an_unknown_id_is_refused_even_with_the_first_keys_signature() {
        let presented = signature("k3", NEW, &request(), NOW);
        assert_eq!(two().verify(&presented, &request(), NOW), None);
    }

    #[test]
    fn a_signature_is_valid_for_sixty_seconds_either_way() {
        let presented = signature("k1", OLD, &request(), NOW);
        for (now, expected) in [
            (NOW - 61, None),
            (NOW - 60, Some("k1")),
            (NOW + 60, Some("k1")),
            (NOW + 61, None),
            (0, None),
            (u64::MAX, None),
        ] {
            assert_eq!(two().verify(&presented, &request(), now), expected, "{now}");
        }
    }

    #[test]
    fn a_signature_is_for_one_method_host_target_and_client() {
        let presented = signature("k1", OLD, &request(), NOW);
        for other in [
            Signed {
                method: b"POST",
                ..request()
            },
            Signed {
                host: b"app.test:80",
                ..request()
            },
            Signed {
                target: b"/s",
                ..request()
            },
            Signed {
                client_ip: Some("198.51.100.8".parse().unwrap()),
                ..request()
            },
            Signed {
                client_ip: None,
                ..request()
            },
        ] {
            assert_eq!(two().verify(&presented, &other, NOW), None, "{other:?}");
        }
    }

    #[test]
    fn the_time_in_a_signature_cannot_be_moved() {
        let presented = String::from_utf8(signature("k1", OLD, &request(), NOW)).unwrap();
        let moved = presented.replace("1700000000", "1700000001");
        assert_eq!(two().verify(moved.as_bytes(), &request(), NOW), None);
    }

    #[test]
    fn a_signature_for_nobody_is_for_nobody() {
        let nobody = Signed {
            client_ip: None,
            ..request()
        };
        let presented = signature("k1", OLD, &nobody, NOW);
        assert_eq!(two().verify(&presented, &nobody, NOW), Some("k1"));
        assert_eq!(two().verify(&presented, &request(), NOW), None);
    }

    #[test]
    fn a_plain_key_that_looks_signed_is_still_a_plain_key() {
        let plain = format!("v1=k1.{NOW}.{}", "0".repeat(64));
        let ring = ring(&[("odd", &plain), ("k1", OLD)]).unwrap();
        assert_eq!(ring.verify(plain.as_bytes(), &request(), NOW), Some("odd"));
        let signed = signature("k1", OLD, &request(), NOW);
        assert_eq!(ring.verify(&signed, &request(), NOW), Some("k1"));
    }

    #[test]
    fn ids_are_plain_and_stand_once() {
        for id in ["", "k 1", "k.1", "k\n", "ключ", "k/1"] {
            assert_eq!(ring(&[(id, OLD)]).unwrap_err(), BadKey::Id(id.to_owned()));
        }
        let twice = ring(&[("k1", OLD), ("k1", NEW)]);
        assert_eq!(twice.unwrap_err(), BadKey::Duplicate("k1".to_owned()));
        assert!(ring(&[("2026-11_A", OLD)]).is_ok());
    }

    #[test]
    fn a_short_key_spoils_the_ring() {
        let refusal = ring(&[("k1", OLD), ("k2", "12345678")]).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "secret k2: needs at least 32 bytes, has 8"
        );
    }

    #[test]
    fn a_ring_shows_its_ids_only() {
        assert_eq!(two().ids().collect::<Vec<_>>(), ["k2", "k1"]);
        assert_eq!(format!("{:?}", two()), r#"Keyring["k2", "k1"]"#);
    }

    proptest! {
        #[test]
        fn what_a_signer_writes_its_ring_verifies(
            method in "[A-Z]{1,9}",
            host: Vec<u8>,
            target: Vec<u8>,
            v6: Option<u128>,
            now: u64,
        ) {
            let request = Signed {
                method: method.as_bytes(),
                host: &host,
                target: &target,
                client_ip: v6.map(|bits| std::net::Ipv6Addr::from_bits(bits).into()),
            };
            let presented = signature("k1", OLD, &request, now);
            let ring = two();
            prop_assert_eq!(ring.verify(&presented, &request, now), Some("k1"));
        }

        #[test]
        fn one_changed_byte_spoils_a_signature(at in 0_usize..80, xor in 1_u8..) {
            let mut presented = signature("k1", OLD, &request(), NOW);
            presented[at] ^= xor;
            // The hex digits' case is no change.
            prop_assume!(!presented.eq_ignore_ascii_case(&signature("k1", OLD, &request(), NOW)));
            let ring = two();
            prop_assert_eq!(ring.verify(&presented, &request(), NOW), None);
        }
    }
}
