//! SCRAM, the server's side (RFC 5802, RFC 7677), as far as Kafka's clients speak it.
//!
//! Channel binding is not offered, so a client that asks for it is refused. Extensions of the first
//! message are passed over, as the RFC asks, but for `m`, which nobody may pass over, and Kafka's
//! `tokenauth`: there are no delegation tokens here.

use data_encoding::BASE64;

use super::credential::{Credential, Scram};

/// Bytes of a message of a client at most.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// Why a client's message is refused. None of it says whether a user exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is not what the mechanism asks for at this point.
    Malformed(&'static str),
    /// Who it says it is, it has not proven to be.
    NotProven,
}

/// The first message of a client, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct First {
    /// Whom the client says it is.
    pub(crate) user: String,
    nonce: String,
    gs2_header: String,
    bare: String,
}

impl First {
    /// Reads `n,[a=authzid],n=user,r=nonce[,extensions]`.
    pub(crate) fn read(message: &[u8]) -> Result<Self, Refused> {
        let text = text_of(message)?;
        let malformed = || Refused::Malformed("the first message of SCRAM");
        let (binding, rest) = text.split_once(',').ok_or_else(malformed)?;
        match binding {
            "n" | "y" => {}
            _ => return Err(Refused::Malformed("no channel binding is offered")),
        }
        let (authzid, bare) = rest.split_once(',').ok_or_else(malformed)?;
        let gs2_header = format!("{binding},{authzid},");
        let mut parts = bare.split(',');
        let mut field = |name: &str| parts.next().and_then(|part| part.strip_prefix(name));
        let user = field("n=").and_then(unescaped).ok_or_else(malformed)?;
        let nonce = field("r=").filter(|nonce| is_nonce(nonce));
        let nonce = nonce.ok_or_else(malformed)?.to_owned();
        if parts.any(|part| part == "tokenauth=true") {
            return Err(Refused::Malformed("there are no delegation tokens here"));
        }
        let acts_as = match authzid {
            "" => None,
            given => Some(
                given
                    .strip_prefix("a=")
                    .and_then(unescaped)
                    .ok_or_else(malformed)?,
            ),
        };
        if acts_as.is_some_and(|name| name != user) || user.is_empty() {
            return Err(Refused::Malformed("to act as somebody else is not offered"));
        }
        Ok(Self {
            user,
            nonce,
            gs2_header,
            bare: bare.to_owned(),
        })
    }

    /// The server's first message, and what is to be proven by the client's last. `nonce` is fresh.
    pub(crate) fn challenge(self, credential: Credential, nonce: &str) -> (Challenge, Vec<u8>) {
        let nonce = format!("{}{nonce}", self.nonce);
        let salt = BASE64.encode(&credential.salt);
        let message = format!("r={nonce},s={salt},i={}", credential.iterations);
        let challenge = Challenge {
            first_messages: format!("{},{message}", self.bare),
            user: self.user,
            nonce,
            gs2_header: self.gs2_header,
            credential,
        };
        (challenge, message.into_bytes())
    }
}

/// An exchange that waits for the client's proof.
#[derive(Debug)]
pub(crate) struct Challenge {
    user: String,
    nonce: String,
    gs2_header: String,
    first_messages: String,
    credential: Credential,
}

impl Challenge {
    /// Whom the client says it is.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// Reads `c=binding,r=nonce,p=proof` and gives the server's proof.
    pub(crate) fn prove(&self, message: &[u8]) -> Result<Vec<u8>, Refused> {
        let text = text_of(message)?;
        let malformed = || Refused::Malformed("the last message of SCRAM");
        let (unproven, proof) = text.rsplit_once(",p=").ok_or_else(malformed)?;
        let mut parts = unproven.split(',');
        let mut field = |name: &str| parts.next().and_then(|part| part.strip_prefix(name));
        let binding = field("c=").ok_or_else(malformed)?;
        let nonce = field("r=").ok_or_else(malformed)?;
        let binding = BASE64.decode(binding.as_bytes()).map_err(|_| malformed())?;
        let proof = BASE64.decode(proof.as_bytes()).map_err(|_| malformed())?;
        // librdkafka before 2.6.1 sends its own nonce twice, and Kafka looks at the end alone. The proof is
        // over what was sent, so nothing is lost by it.
        if binding != self.gs2_header.as_bytes() || !nonce.ends_with(&self.nonce) {
            return Err(malformed());
        }
        let auth_message = format!("{},{unproven}", self.first_messages);
        let Credential {
            scram, server_key, ..
        } = &self.credential;
        if !self.credential.is_proven(&proof, auth_message.as_bytes()) {
            return Err(Refused::NotProven);
        }
        let signature = scram.mac(server_key, auth_message.as_bytes());
        Ok(format!("v={}", BASE64.encode(&signature)).into_bytes())
    }
}

/// What a user that does not exist is challenged with: the same each time, and like any other's.
///
/// `key` is kept as long as users are, so that a restart does not tell who exists either.
pub(crate) fn of_nobody(scram: Scram, user: &str, key: &[u8]) -> Credential {
    use super::credential::{ITERATIONS_MIN, SALT_BYTES};
    let drawn =
        |what: &str| Scram::Sha512.mac(key, format!("{what}/{}/{user}", scram.name()).as_bytes());
    let cut = |mut bytes: Vec<u8>, to| {
        bytes.truncate(to);
        bytes
    };
    Credential {
        scram,
        salt: cut(drawn("salt"), SALT_BYTES),
        iterations: ITERATIONS_MIN,
        // No proof hashes to this: nobody knows a key that does.
        stored_key: cut(drawn("stored key"), scram.hash_bytes()),
        server_key: cut(drawn("server key"), scram.hash_bytes()),
    }
}

fn text_of(message: &[u8]) -> Result<&str, Refused> {
    let short = Some(message).filter(|message| message.len() <= MESSAGE_BYTES_MAX);
    let text = short.and_then(|message| str::from_utf8(message).ok());
    text.ok_or(Refused::Malformed("a message of SCRAM"))
}

/// Printable ASCII without a comma (RFC 5802 section 7).
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A name with `=2C` for a comma and `=3D` for an equals sign; none where another `=` stands in it.
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = match part.split_at_checked(2)? {
            ("2C", rest) => (',', rest),
            ("3D", rest) => ('=', rest),
            _ => return None,
        };
        out.push(sign);
        out.push_str(rest);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677 section 3.
    const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn pencil() -> Credential {
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Credential::of_password(Scram::Sha256, b"pencil", salt, 4_096)
    }

    #[test]
    fn the_exchange_of_rfc_7677_is_served() {
        let first = First::read(CLIENT_FIRST).unwrap();
        assert_eq!(first.user, "user");
        let (challenge, message) = first.challenge(pencil(), SERVER_NONCE);
        assert_eq!(
            message,
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
              s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(
            challenge.prove(CLIENT_FINAL).unwrap(),
            b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn no_bit_of_the_last_message_may_differ() {
        let (challenge, _) = First::read(CLIENT_FIRST)
            .unwrap()
            .challenge(pencil(), SERVER_NONCE);
        for at in 0..CLIENT_FINAL.len() {
            for bit in 0..8 {
                let mut message = CLIENT_FINAL.to_vec();
                message[at] ^= 1 << bit;
                assert!(challenge.prove(&message).is_err(), "bit {bit} of byte {at}");
            }
        }
        for short in 0..CLIENT_FINAL.len() {
            assert!(challenge.prove(&CLIENT_FINAL[..short]).is_err(), "{short}");
        }
    }

    #[test]
    fn a_client_may_say_its_own_nonce_twice() {
        let credential = pencil();
        let first = First::read(CLIENT_FIRST).unwrap();
        let (challenge, _) = first.challenge(credential.clone(), SERVER_NONCE);
        let unproven = format!("c=biws,r=rOprNGfwEbeRWgbNEkqO{}", challenge.nonce);
        let auth_message = format!("{},{unproven}", challenge.first_messages);
        let salted = Scram::Sha256.salted(b"pencil", &credential.salt, credential.iterations);
        let client_key = Scram::Sha256.mac(&salted, b"Client Key");
        let signature = Scram::Sha256.mac(&credential.stored_key, auth_message.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(one, other)| one ^ other)
            .collect();
        let message = format!("{unproven},p={}", BASE64.encode(&proof));
        challenge.prove(message.as_bytes()).unwrap();
        let other = message.replace("FIlj)hNlF$k0", "FIlj)hNlF$k1");
        assert_eq!(
            challenge.prove(other.as_bytes()),
            Err(Refused::Malformed("the last message of SCRAM"))
        );
    }

    #[test]
    fn names_and_extensions_are_read_as_kafkas_clients_write_them() {
        let first = First::read("n,,n=a=2Cb=3Dü,r=x,ext=1".as_bytes()).unwrap();
        assert_eq!(first.user, "a,b=ü");
        let first = First::read(b"y,a=me,n=me,r=x").unwrap();
        assert_eq!(
            (first.user.as_str(), first.gs2_header.as_str()),
            ("me", "y,a=me,")
        );
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        for message in [
            &b""[..],
            b"n",
            b"n,",
            b"n,,",
            b"p=tls-unique,,n=u,r=x",
            b"n,a=other,n=u,r=x",
            b"n,x,n=u,r=x",
            b"n,,m=ext,n=u,r=x",
            b"n,,n=u",
            b"n,,r=x,n=u",
            b"n,,n=,r=x",
            b"n,,n=u,r=",
            b"n,,n=u,r=a b",
            b"n,,n=a=2x,r=x",
            b"n,,n=a=,r=x",
            b"n,,n=u,r=x,tokenauth=true",
            b"n,,n=\xff,r=x",
        ] {
            assert!(First::read(message).is_err(), "{}", message.escape_ascii());
        }
        assert!(First::read(&[b"n,,n=u,r=".to_vec(), vec![b'x'; 4_096]].concat()).is_err());
    }

    #[test]
    fn nobody_is_challenged_like_anybody_and_always_alike() {
        let one = of_nobody(Scram::Sha512, "eve", b"key");
        assert_eq!(one, of_nobody(Scram::Sha512, "eve", b"key"));
        assert_ne!(one.salt, of_nobody(Scram::Sha512, "eva", b"key").salt);
        assert_ne!(one.salt, of_nobody(Scram::Sha512, "eve", b"another").salt);
        let real = Credential::new(Scram::Sha512, b"password").unwrap();
        assert_eq!(
            (one.salt.len(), one.iterations, one.stored_key.len()),
            (real.salt.len(), real.iterations, real.stored_key.len())
        );
    }
}
