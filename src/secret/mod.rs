//! Shared secrets: read from where they are kept, compared in constant time, never shown.
//!
//! Pure apart from [`read`]. No value here has a `Debug` or `Display` of its bytes, and the bytes a
//! source gave are overwritten when dropped.

mod keyring;
mod signed;
mod source;

use std::fmt;

use zeroize::Zeroizing;

pub use keyring::{KEY_BYTES_MIN, Keyring};
pub(crate) use signed::{HmacSha256, digest_from_hex, keyed};
pub use signed::{Signed, Signer, TOLERANCE_S};
pub use source::{Problem, SECRET_BYTES_MAX, Source, SourceError, read};

/// The bytes of a secret: overwritten when dropped, never shown.
#[derive(Clone)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// The secret itself, for whoever computes with it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the secret can serve as the key called `id`.
    ///
    /// # Errors
    /// When it is shorter than [`KEY_BYTES_MIN`].
    pub fn long_enough(&self, id: &str) -> Result<(), BadKey> {
        if self.0.len() < KEY_BYTES_MIN {
            return Err(BadKey::TooShort {
                id: id.to_owned(),
                bytes: self.0.len(),
            });
        }
        Ok(())
    }
}

impl From<Vec<u8>> for SecretBytes {
    /// Takes the bytes over without copying them.
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why a key cannot be used. Names its id, never its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadKey {
    /// The key has fewer than [`KEY_BYTES_MIN`] bytes.
    TooShort {
        /// The key's id.
        id: String,
        /// How many bytes it has.
        bytes: usize,
    },
    /// The id is empty or holds something else than letters, digits, `_` and `-`.
    Id(String),
    /// Two keys have this id.
    Duplicate(String),
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { id, bytes } => {
                write!(
                    f,
                    "secret {id}: needs at least {KEY_BYTES_MIN} bytes, has {bytes}"
                )
            }
            Self::Id(id) => write!(
                f,
                "secret {id:?}: an id is one or more of the letters A-Z and a-z, digits, `_` and `-`"
            ),
            Self::Duplicate(id) => write!(
                f,
                "secret {id}: two keys have this id: give each its own, so that events name one"
            ),
        }
    }
}

impl std::error::Error for BadKey {}

/// A new secret for `wardent secret new`: 32 random bytes of the operating system, as 64 hex digits.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn generate() -> Result<String, getrandom::Error> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *bytes)?;
    let digits = signed::hex(&bytes);
    Ok(digits.iter().map(|&digit| char::from(digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_neither_bytes_nor_length() {
        let secret = SecretBytes::from(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?} {secret:#?}"), "[secret] [secret]");
    }

    #[test]
    fn a_short_secret_is_refused_by_id_and_length() {
        let refusal = SecretBytes::from(b"12345678".to_vec()).long_enough("k1");
        assert_eq!(
            refusal.unwrap_err().to_string(),
            "secret k1: needs at least 32 bytes, has 8"
        );
        assert!(SecretBytes::from(vec![b'x'; 31]).long_enough("k1").is_err());
        assert!(SecretBytes::from(vec![b'x'; 32]).long_enough("k1").is_ok());
    }

    #[test]
    fn generated_secrets_are_64_hex_digits_and_differ() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_eq!(one.len(), 64);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, two);
        assert_eq!(
            SecretBytes::from(one.into_bytes()).long_enough("new"),
            Ok(())
        );
    }
}
