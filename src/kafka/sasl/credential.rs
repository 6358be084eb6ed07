//! What is kept of a password: salt, iterations and two keys, as RFC 5802 section 3 derives them.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256, Sha512};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// How often a password is hashed at least: RFC 7677 section 4, and what Kafka takes.
pub const ITERATIONS_MIN: u32 = 4_096;

/// And at most, as with Kafka: more would let whoever sets a password choose what a login costs.
pub const ITERATIONS_MAX: u32 = 16_384;

/// Bytes of a salt that Wardent chooses.
pub const SALT_BYTES: usize = 24;

/// Bytes of a salt that a client may choose.
pub const SALT_BYTES_MAX: usize = 64;

/// The hash of a SCRAM mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scram {
    /// SCRAM-SHA-256 (RFC 7677).
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl Scram {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// As SASL calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// The mechanism of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scram| scram.name() == name)
    }

    /// Its number in Kafka's protocol (KIP-554).
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }

    pub(crate) fn of_code(code: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|scram| scram.code() == code)
    }

    /// Bytes of a hash.
    pub fn hash_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// `H(bytes)`.
    fn hash(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    /// `HMAC(key, bytes)`.
    pub(in crate::kafka) fn mac(self, key: &[u8], bytes: &[u8]) -> Vec<u8> {
        Keyed::new(self, key).mac(bytes)
    }

    /// `Hi(password, salt, iterations)`: PBKDF2 with one block of output (RFC 5802 section 2.2).
    pub(in crate::kafka) fn salted(
        self,
        password: &[u8],
        salt: &[u8],
        iterations: u32,
    ) -> Zeroizing<Vec<u8>> {
        const FIRST_BLOCK: [u8; 4] = 1_u32.to_be_bytes();
        // Keyed once: the two blocks of the key are not hashed again in each round.
        let keyed = Keyed::new(self, password);
        let mut last = keyed.mac(&[salt, &FIRST_BLOCK].concat());
        let mut sum = Zeroizing::new(last.clone());
        for _ in 1..iterations {
            last = keyed.mac(&last);
            sum.iter_mut()
                .zip(&last)
                .for_each(|(sum, byte)| *sum ^= byte);
        }
        sum
    }
}

/// HMAC with its key.
enum Keyed {
    Sha256(Hmac<Sha256>),
    Sha512(Hmac<Sha512>),
}

impl Keyed {
    #[expect(
        clippy::expect_used,
        reason = "HMAC takes keys of any length (RFC 2104)"
    )]
    fn new(scram: Scram, key: &[u8]) -> Self {
        const ANY_LENGTH: &str = "a key of any length";
        match scram {
            Scram::Sha256 => Self::Sha256(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Scram::Sha512 => Self::Sha512(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
        }
    }

    fn mac(&self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256(keyed) => {
                let mac = keyed.clone().chain_update(bytes);
                mac.finalize().into_bytes().to_vec()
            }
            Self::Sha512(keyed) => {
                let mac = keyed.clone().chain_update(bytes);
                mac.finalize().into_bytes().to_vec()
            }
        }
    }
}

/// What is known of a password, and proves neither it nor its owner to anybody else.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Of which mechanism.
    pub scram: Scram,
    /// The salt.
    pub salt: Vec<u8>,
    /// How often it was hashed.
    pub iterations: u32,
    /// `H(ClientKey)`: what a client's proof is held against.
    pub stored_key: Vec<u8>,
    /// What the server proves itself with.
    pub server_key: Vec<u8>,
}

impl fmt::Debug for Credential {
    // With the server's key, anybody could play the server.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} rounds", self.scram.name(), self.iterations)
    }
}

impl Credential {
    /// What is kept of `password`.
    ///
    /// Kafka and its clients take a password's bytes as they are, without SASLprep.
    pub fn of_password(scram: Scram, password: &[u8], salt: Vec<u8>, iterations: u32) -> Self {
        let salted = scram.salted(password, &salt, iterations);
        Self::of_salted(scram, &salted, salt, iterations)
    }

    /// What is kept of a password that somebody else has salted.
    pub fn of_salted(scram: Scram, salted: &[u8], salt: Vec<u8>, iterations: u32) -> Self {
        let client_key = Zeroizing::new(scram.mac(salted, b"Client Key"));
        Self {
            scram,
            salt,
            iterations,
            stored_key: scram.hash(&client_key),
            server_key: scram.mac(salted, b"Server Key"),
        }
    }

    /// One with a fresh salt.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(scram: Scram, password: &[u8]) -> Result<Self, getrandom::Error> {
        let mut salt = vec![0; SALT_BYTES];
        getrandom::fill(&mut salt)?;
        Ok(Self::of_password(scram, password, salt, ITERATIONS_MIN))
    }

    /// Whether it is of this password. Takes some milliseconds.
    pub fn is_of(&self, password: &[u8]) -> bool {
        let salt = self.salt.clone();
        let other = Self::of_password(self.scram, password, salt, self.iterations);
        other.stored_key.ct_eq(&self.stored_key).into()
    }

    /// Whether `proof` proves to know the password, in the exchange of `auth_message`.
    pub(super) fn is_proven(&self, proof: &[u8], auth_message: &[u8]) -> bool {
        let signature = self.scram.mac(&self.stored_key, auth_message);
        if proof.len() != signature.len() {
            return false;
        }
        let client_key = proof.iter().zip(&signature).map(|(one, other)| one ^ other);
        let client_key = Zeroizing::new(client_key.collect::<Vec<u8>>());
        self.scram.hash(&client_key).ct_eq(&self.stored_key).into()
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    /// RFC 7677 section 3, whose exchange has this salt; the keys by Python's `hashlib.pbkdf2_hmac`
    /// and `hmac`.
    #[test]
    fn keys_are_those_that_another_implementation_derives() {
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let one = Credential::of_password(Scram::Sha256, b"pencil", salt.clone(), 4_096);
        assert_eq!(
            BASE64.encode(&one.stored_key),
            "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        );
        assert_eq!(
            BASE64.encode(&one.server_key),
            "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
        let one = Credential::of_password(Scram::Sha512, b"pencil", salt, 4_096);
        assert_eq!(BASE64.encode(&one.stored_key), STORED_512);
        assert_eq!(BASE64.encode(&one.server_key), SERVER_512);
    }

    const STORED_512: &str =
        "6AAub3065EYRmyFpM2RNwqK+eGnrkYuEWbXn19LsEmBqzu8QaCXNc1FwpnX9NhH2hK/60dzj9DoO5DvVkOHbvg==";
    const SERVER_512: &str =
        "jZHbYjC1aHh0/hKbxyBuGFjDrgjgKTT1esA7awWiKcRZ0o/0b1yWEebBeSVkkCFewf91nLDfKF24mvD5nmE6rA==";

    #[test]
    fn a_password_is_known_again_and_no_other() {
        let one = Credential::new(Scram::Sha256, "pässword".as_bytes()).unwrap();
        assert!(one.is_of("pässword".as_bytes()));
        assert!(!one.is_of(b"password") && !one.is_of(b""));
        let other = Credential::new(Scram::Sha256, "pässword".as_bytes()).unwrap();
        assert_ne!(one.salt, other.salt);
    }

    #[test]
    fn neither_keys_nor_salt_are_shown() {
        let one = Credential::of_salted(Scram::Sha512, b"x", vec![7; 3], 4_096);
        assert_eq!(format!("{one:?}"), "SCRAM-SHA-512 of 4096 rounds");
    }
}
