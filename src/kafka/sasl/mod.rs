//! How clients prove who they are: SCRAM-SHA-256, SCRAM-SHA-512, and PLAIN inside TLS.
//!
//! It knows no sockets and no clock: a [`Login`] is handed a client's message and says what to answer.

pub mod credential;
pub(crate) mod failures;
mod plain;
mod scram;

use data_encoding::BASE64;

pub use credential::{Credential, Scram};
use scram::{Challenge, First};

/// How a client may prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// A name and a password, as they are (RFC 4616).
    Plain,
    /// Without the password (RFC 5802).
    Scram(Scram),
}

impl Mechanism {
    /// As SASL calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(scram) => scram.name(),
        }
    }
}

/// What is known of users.
pub(crate) trait Users {
    /// What is kept of a user's password, for this mechanism.
    fn credential(&self, user: &str, scram: Scram) -> Option<Credential>;

    /// What users that do not exist are made of; the same after a restart.
    fn secret_of_nobody(&self) -> [u8; 32];
}

/// A client that has chosen a mechanism and has not proven who it is.
#[derive(Debug)]
pub(crate) struct Login {
    mechanism: Mechanism,
    /// Of SCRAM, after the client's first message.
    challenge: Option<Challenge>,
}

/// What comes of a client's message.
#[derive(Debug)]
pub(crate) enum Step {
    /// Another message is awaited; this is what to answer.
    GoOn(Login, Vec<u8>),
    /// The client is this user; this is what to answer.
    Proven(String, Vec<u8>),
    /// The password of a user is to be compared: that takes milliseconds, so it is done elsewhere.
    Compare(Comparison),
    /// It is not who it says; whom it said it is, as far as that could be read.
    Refused(Option<String>),
}

/// A password that is to be compared with what is kept of it.
pub(crate) struct Comparison {
    said: plain::Said,
    kept: Credential,
}

impl std::fmt::Debug for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the password of {:?}", self.said.user)
    }
}

impl Comparison {
    /// The user, if the password is right. Takes some milliseconds.
    pub(crate) fn done(self) -> Step {
        match self.kept.is_of(&self.said.password) {
            true => Step::Proven(self.said.user, Vec::new()),
            false => Step::Refused(Some(self.said.user)),
        }
    }
}

impl Login {
    /// One by this mechanism.
    pub(crate) fn by(mechanism: Mechanism) -> Self {
        Self {
            mechanism,
            challenge: None,
        }
    }

    /// Goes on with a client's message.
    ///
    /// A user that does not exist is told from others by nothing: it gets a challenge, and its password is
    /// compared. `nonce` is fresh randomness.
    pub(crate) fn step(self, message: &[u8], users: &impl Users, nonce: [u8; 18]) -> Step {
        let kept = |user: &str, scram: Scram| {
            let nobody = || scram::of_nobody(scram, user, &users.secret_of_nobody());
            users.credential(user, scram).unwrap_or_else(nobody)
        };
        match (self.mechanism, self.challenge) {
            (Mechanism::Plain, _) => match plain::read(message) {
                Some(said) => {
                    let of = |scram| users.credential(&said.user, scram);
                    let kept = Scram::ALL.into_iter().rev().find_map(of);
                    let kept = kept.unwrap_or_else(|| kept_of_nobody(&said.user, users));
                    Step::Compare(Comparison { said, kept })
                }
                None => Step::Refused(None),
            },
            (Mechanism::Scram(scram), None) => match First::read(message) {
                Ok(first) => {
                    let credential = kept(&first.user, scram);
                    let (challenge, answer) = first.challenge(credential, &BASE64.encode(&nonce));
                    let login = Self {
                        mechanism: self.mechanism,
                        challenge: Some(challenge),
                    };
                    Step::GoOn(login, answer)
                }
                Err(_) => Step::Refused(None),
            },
            (Mechanism::Scram(_), Some(challenge)) => {
                let user = challenge.user().to_owned();
                match challenge.prove(message) {
                    Ok(answer) => Step::Proven(user, answer),
                    Err(_) => Step::Refused(Some(user)),
                }
            }
        }
    }
}

/// Of the mechanism that Wardent's own command line keeps passwords for, so that a comparison takes as long.
fn kept_of_nobody(user: &str, users: &impl Users) -> Credential {
    scram::of_nobody(Scram::Sha512, user, &users.secret_of_nobody())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    struct Known(HashMap<(String, Scram), Credential>);

    impl Users for Known {
        fn credential(&self, user: &str, scram: Scram) -> Option<Credential> {
            self.0.get(&(user.to_owned(), scram)).cloned()
        }

        fn secret_of_nobody(&self) -> [u8; 32] {
            [7; 32]
        }
    }

    fn known() -> Known {
        let of = |scram| Credential::new(scram, b"secret").unwrap();
        let all = Scram::ALL.map(|scram| (("me".to_owned(), scram), of(scram)));
        Known(all.into_iter().collect())
    }

    fn plain(message: &[u8]) -> Step {
        match Login::by(Mechanism::Plain).step(message, &known(), [0; 18]) {
            Step::Compare(comparison) => comparison.done(),
            step @ (Step::GoOn(..) | Step::Proven(..) | Step::Refused(_)) => step,
        }
    }

    #[test]
    fn plain_is_proven_by_the_password_alone() {
        assert!(matches!(plain(b"\0me\0secret"), Step::Proven(user, _) if user == "me"));
        for message in [&b"\0me\0Secret"[..], b"\0you\0secret", b"\0me", b""] {
            assert!(matches!(plain(message), Step::Refused(_)), "{message:?}");
        }
    }

    #[test]
    fn who_does_not_exist_fails_when_it_is_to_prove_itself() {
        for scram in Scram::ALL {
            for user in ["me", "nobody"] {
                let login = Login::by(Mechanism::Scram(scram));
                let first = format!("n,,n={user},r=abc");
                let Step::GoOn(login, answer) = login.step(first.as_bytes(), &known(), [9; 18])
                else {
                    panic!("no challenge for {user}");
                };
                let answer = String::from_utf8(answer).unwrap();
                assert!(answer.starts_with("r=abcCQkJ") && answer.ends_with(",i=4096"));
                let nonce = answer.split(',').next().unwrap();
                let proof = BASE64.encode(&vec![0; scram.hash_bytes()]);
                let last = format!("c=biws,{nonce},p={proof}");
                let step = login.step(last.as_bytes(), &known(), [0; 18]);
                assert!(matches!(step, Step::Refused(Some(who)) if who == user));
            }
        }
    }
}
