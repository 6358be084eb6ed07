//! Which clients are bots, which of them are who they say, and what may be done with each kind.
//!
//! A [`Catalogue`] reads a user agent and names the bot; a [`Verifier`] says whether its address
//! belongs to whom it names, and [`signature::Keys`]
//! whether its operator signed the request. None of them refuses anybody: what follows is the policy's, as [`Actions`].
//! A user agent is what the client chose to write. It is believed when it says "bot", and proves
//! nothing when it says "browser".

pub mod catalogue;
pub mod category;
mod classify;
pub mod networks;
pub mod resolver;
pub mod signature;
pub mod verify;
mod words;

pub use catalogue::{Catalogue, CatalogueError, Entry};
pub use category::{Action, Actions, Category};
pub use classify::Bot;
pub use networks::{Networks, NetworksError};
pub use verify::{Standing, Verifier};

/// Where a certificate authority looks for the answer to an HTTP-01 challenge (RFC 8555 section 8.3).
const ACME_CHALLENGE: &str = "/.well-known/acme-challenge/";

/// Whether a request for this normalised path passes whatever bot it is.
///
/// The answer to a certificate authority's challenge: whoever blocks its validation servers, which
/// publish no addresses, loses the certificate. Only one token of base64url may follow, so that
/// nothing else of an application hides behind the prefix.
pub fn always_passes(path: &str) -> bool {
    let is_token = |token: &str| {
        let mut bytes = token.bytes();
        !token.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    path.strip_prefix(ACME_CHALLENGE).is_some_and(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_challenge_always_passes() {
        assert!(always_passes(
            "/.well-known/acme-challenge/evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
        ));
    }

    #[test]
    fn nothing_else_passes_by_its_path() {
        for path in [
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/a/b",
            "/.well-known/acme-challenge/../admin",
            "/.well-known/acme-challenge",
            "/.well-known/security.txt",
            "/x/.well-known/acme-challenge/a",
        ] {
            assert!(!always_passes(path), "{path}");
        }
    }
}
