//! Requests that the watchdog sends through the real path, to prove that it can be walked.
//!
//! A canary meets everything that a request meets up to where the upstream would be asked: listener,
//! parser, identity, guards, the table of clients, the way an answer takes. There it turns round,
//! whatever the guards said. It is no traffic: it stands in no event and in no count of requests,
//! and nobody is blamed for it.

use subtle::ConstantTimeEq as _;

use super::{head::RequestHead, names::Name};

const FIELD: &str = "X-Wardent-Canary";

/// The word by which a canary of this process is known; nobody else can know it.
#[derive(Debug)]
pub struct Canary {
    word: String,
    identity_field: String,
}

impl Canary {
    /// Canaries with a word of their own. `identity_field` is `client_ip.header`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(identity_field: &str) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self {
            word: format!("{:032x}", u128::from_ne_bytes(bytes)),
            identity_field: identity_field.to_owned(),
        })
    }

    /// The `nth` canary's request. Its client is one of 256 addresses that no host has (RFC 5737),
    /// so that the looks at the table go round.
    pub fn request(&self, nth: u64) -> Vec<u8> {
        let Self {
            word,
            identity_field,
        } = self;
        let host = nth % 256;
        format!(
            "GET / HTTP/1.1\r\nHost: wardent\r\n{identity_field}: 192.0.2.{host}\r\n\
             {FIELD}: {word}\r\nConnection: close\r\n\r\n"
        )
        .into_bytes()
    }

    /// Whether a request is one of them.
    #[inline]
    pub(crate) fn is(&self, head: &RequestHead) -> bool {
        head.has_wardent_fields
            && head.fields().any(|(name, value, meaning)| {
                meaning == Name::Wardent
                    && name.eq_ignore_ascii_case(FIELD.as_bytes())
                    && bool::from(value.ct_eq(self.word.as_bytes()))
            })
    }
}
