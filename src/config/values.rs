//! The small values of both documents: names, sources of secrets, headers, methods, status codes.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use http::{HeaderName, Method, StatusCode};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::{
    report::shown,
    words::{FromWord, Word, advice, number, one, refusal},
};
use crate::secret::Source;

/// A name that fits into a header, a metric and a file name: `[A-Za-z0-9_-]+`, 64 bytes at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

impl Id {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromWord for Id {
    const EXPECTED: &'static str = "a name";

    fn from_word(word: &str) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        match (1..=64).contains(&word.len()) && word.bytes().all(allowed) {
            true => Ok(Self(word.to_owned())),
            false => Err(format!(
                "`{}` is not a name (use 1 to 64 of A-Z, a-z, 0-9, _ and -)",
                shown(word)
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one(deserializer)
    }
}

/// Where a secret comes from; never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// The bytes of a file, without the trailing newline.
    File(PathBuf),
    /// The value of an environment variable.
    Env(String),
    /// A credential that systemd passes (`LoadCredential=`).
    Credential(String),
}

impl SecretFrom {
    /// Where it is to be read.
    pub fn source(&self) -> Source {
        match self {
            Self::File(path) => Source::File(path.clone()),
            Self::Env(name) => Source::Env(name.clone()),
            Self::Credential(name) => Source::Credential(name.clone()),
        }
    }

    /// Makes a relative path relative to `base`.
    pub(super) fn resolve(&mut self, base: &Path) {
        match self {
            Self::File(path) => *path = base.join(&path),
            Self::Env(_) | Self::Credential(_) => {}
        }
    }
}

impl<'de> Deserialize<'de> for SecretFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SecretFromVisitor)
    }
}

struct SecretFromVisitor;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum SecretFromKey {
    File,
    Env,
    Credential,
}

impl<'de> Visitor<'de> for SecretFromVisitor {
    type Value = SecretFrom;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one of {file: …}, {env: …} and {credential: …}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut keys: A) -> Result<SecretFrom, A::Error> {
        const ONE: &str = "give exactly one of `file`, `env` and `credential`";
        let key = keys.next_key()?.ok_or_else(|| refusal(ONE))?;
        let from = match key {
            SecretFromKey::File => keys.next_value().map(|Word(path)| SecretFrom::File(path)),
            SecretFromKey::Env => keys
                .next_value()
                .map(|Word(Name(env))| SecretFrom::Env(env)),
            SecretFromKey::Credential => {
                let credential = keys.next_value();
                credential.map(|Word(Name(name))| SecretFrom::Credential(name))
            }
        }?;
        match keys.next_key::<SecretFromKey>()? {
            Some(_) => Err(refusal(ONE)),
            None => Ok(from),
        }
    }
}

/// What both the environment and systemd can call something.
struct Name(String);

impl FromWord for Name {
    const EXPECTED: &'static str = "a name";

    fn from_word(word: &str) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'=' && byte != b'/';
        match (1..=255).contains(&word.len()) && word.bytes().all(allowed) {
            true => Ok(Self(word.to_owned())),
            false => Err("the name is empty, or has spaces, `=` or `/` in it".to_owned()),
        }
    }
}

impl FromWord for HeaderName {
    const EXPECTED: &'static str = "the name of a header";

    /// Refuses what one hop says to the next: these never carry an identity.
    fn from_word(word: &str) -> Result<Self, String> {
        const FRAMING: [&str; 10] = [
            "connection",
            "content-length",
            "host",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "via",
        ];
        let name = Self::from_bytes(word.as_bytes());
        let name = name.map_err(|_| format!("`{}` is not the name of a header", shown(word)))?;
        match FRAMING.contains(&name.as_str()) {
            true => Err(format!(
                "`{name}` has a meaning of its own in HTTP (use another header)"
            )),
            false => Ok(name),
        }
    }
}

impl FromWord for Method {
    const EXPECTED: &'static str = "a method such as POST";

    /// Knows the methods in use: a mistyped one would silently match nothing.
    fn from_word(word: &str) -> Result<Self, String> {
        const KNOWN: [&str; 20] = [
            "GET",
            "HEAD",
            "POST",
            "PUT",
            "PATCH",
            "DELETE",
            "OPTIONS",
            "TRACE",
            "PROPFIND",
            "PROPPATCH",
            "MKCOL",
            "COPY",
            "MOVE",
            "LOCK",
            "UNLOCK",
            "REPORT",
            "SEARCH",
            "PURGE",
            "QUERY",
            "MKCALENDAR",
        ];
        let upper = word.to_uppercase();
        let known = KNOWN
            .contains(&word)
            .then(|| Self::from_bytes(word.as_bytes()));
        match known {
            Some(Ok(method)) => Ok(method),
            _ if KNOWN.contains(&upper.as_str()) => Err(format!(
                "`{}` is written in capitals (use {upper})",
                shown(word)
            )),
            _ => {
                let near = KNOWN
                    .iter()
                    .find(|name| strsim::osa_distance(name, &upper) == 1);
                let names = near.map_or(&KNOWN[..6], std::slice::from_ref);
                Err(format!(
                    "`{}` is not a method ({})",
                    shown(word),
                    advice(&upper, names)
                ))
            }
        }
    }
}

impl FromWord for StatusCode {
    const EXPECTED: &'static str = "a status code";

    /// Takes the final ones: an interim answer is no verdict of the application.
    fn from_word(word: &str) -> Result<Self, String> {
        let code = number(word, 200, 599)?;
        let code = u16::try_from(code).ok();
        let status = code.and_then(|code| Self::from_u16(code).ok());
        status.ok_or_else(|| "not a status code (use 200 to 599)".to_owned())
    }
}
