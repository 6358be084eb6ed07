//! Whether a bot's operator signed the request (Web Bot Auth): RFC 9421 with the tag `web-bot-auth`.
//!
//! The keys are the operator's directory, which the configuration names; it is never fetched from
//! where a request says, or every request could make Wardent call somebody. A key is known by its
//! thumbprint (RFC 7638), Ed25519 is the only algorithm. Both dialects are read: of
//! draft-meunier-web-bot-auth-architecture, where `Signature-Agent` is one string, and of
//! draft-ietf-webbotauth-httpsig-protocol, where it is a dictionary.
//!
//! Fails open: a request that is not signed, or wrongly, is like any other. Whoever stands between
//! may have changed it, and nothing is withheld from whoever does not sign. What a signature proves
//! holds for this request; nonces are not remembered, so within its hours it may be seen again.

use std::{collections::HashMap, fmt, sync::Arc};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use fields::{Component, Input};

mod fields;

/// The most keys of one operator.
const KEYS_MAX: usize = 64;

/// The longest a signature may hold, and how far ahead its maker's clock may be, in seconds.
const LIFETIME_MAX_S: u64 = 24 * 60 * 60;
const AHEAD_MAX_S: u64 = 60;

/// The longest of each of the three fields, in bytes.
const FIELD_MAX: usize = 4_096;

/// The keys of all operators, by thumbprint. Immutable once it is in use.
#[derive(Debug, Clone, Default)]
pub struct Keys(HashMap<Box<str>, Key>);

#[derive(Debug, Clone)]
struct Key {
    origin: Arc<str>,
    key: VerifyingKey,
}

/// Why a directory of keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysError {
    /// It is no origin such as `https://chatgpt.com`.
    Origin(String),
    /// It is no JSON Web Key Set (RFC 7517): in which line, and what the reader said.
    Json(usize, String),
    /// It has no Ed25519 key (`"kty": "OKP", "crv": "Ed25519"`, RFC 8037).
    NoKey,
    /// It has more keys than an operator needs.
    TooMany,
    /// An Ed25519 key that is none.
    BadKey(String),
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin(origin) => write!(
                f,
                "{origin:?} is no origin: write it as `https://example.org`"
            ),
            Self::Json(_, error) => write!(f, "no JSON Web Key Set: {error}"),
            Self::NoKey => f.write_str("no Ed25519 key in it"),
            Self::TooMany => write!(f, "more than {KEYS_MAX} keys"),
            Self::BadKey(x) => write!(f, "{x:?} is no Ed25519 key in base64url"),
        }
    }
}

impl std::error::Error for KeysError {}

impl KeysError {
    /// In which line of the directory, counted from one.
    pub fn line(&self) -> usize {
        match self {
            Self::Json(line, _) => (*line).max(1),
            Self::Origin(_) | Self::NoKey | Self::TooMany | Self::BadKey(_) => 1,
        }
    }
}

/// What of a request its signature may be about. A field that is there twice is not to be given.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The method.
    pub method: &'a str,
    /// The `Host`.
    pub authority: &'a str,
    /// Path and query, as they were sent.
    pub target: &'a str,
    /// `Signature-Agent`.
    pub agent: Option<&'a str>,
    /// `Signature-Input`.
    pub input: &'a str,
    /// `Signature`.
    pub signature: &'a str,
}

/// Why a signature proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// The fields cannot be read, or no signature among them is for web bot auth.
    Unreadable,
    /// Nobody's key that is configured.
    UnknownKey,
    /// Not valid now, or for too long.
    Expired,
    /// It does not cover what it must, or covers what is not known here.
    Uncovered,
    /// `Signature-Agent` names somebody else than the key's owner.
    OtherAgent,
    /// It does not fit the request.
    Wrong,
}

#[derive(Deserialize)]
struct Directory {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
}

impl Keys {
    /// Adds the Ed25519 keys of an operator's directory, as it is served at
    /// `/.well-known/http-message-signatures-directory`, and returns how many there are.
    ///
    /// # Errors
    /// When the origin or the directory cannot be used; then nothing is added.
    pub fn add(&mut self, origin: &str, directory: &str) -> Result<usize, KeysError> {
        let host = origin.strip_prefix("https://").unwrap_or_default();
        if host.is_empty()
            || host.contains(|c: char| !c.is_ascii_graphic() || "/?#\"\\".contains(c))
        {
            return Err(KeysError::Origin(origin.to_owned()));
        }
        let origin: Arc<str> = origin.into();
        let read: Result<Directory, _> = serde_json::from_str(directory);
        let read = read.map_err(|error| KeysError::Json(error.line(), error.to_string()))?;
        if read.keys.len() > KEYS_MAX {
            return Err(KeysError::TooMany);
        }
        let is_ed25519 = |jwk: &&Jwk| jwk.kty == "OKP" && jwk.crv.as_deref() == Some("Ed25519");
        let mut keys = HashMap::new();
        for jwk in read.keys.iter().filter(is_ed25519) {
            let x = jwk.x.as_deref().unwrap_or_default();
            let key = public_key(x).ok_or_else(|| KeysError::BadKey(x.to_owned()))?;
            let origin = Arc::clone(&origin);
            keys.insert(thumbprint(x), Key { origin, key });
        }
        if keys.is_empty() {
            return Err(KeysError::NoKey);
        }
        let count = keys.len();
        self.0.extend(keys);
        Ok(count)
    }

    /// Whether there is none, so that no request needs a look.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The origin of the operator that signed this request. Takes some 50 µs where the key is known.
    ///
    /// # Errors
    /// When nothing is proven, and why.
    pub fn signer(&self, request: &Signed<'_>, unix_s: u64) -> Result<&str, Unproven> {
        let fields = [request.input, request.signature];
        if fields
            .into_iter()
            .chain(request.agent)
            .any(|f| f.len() > FIELD_MAX)
        {
            return Err(Unproven::Unreadable);
        }
        let input = fields::web_bot_auth(request.input).ok_or(Unproven::Unreadable)?;
        let key = self.0.get(input.key_id).ok_or(Unproven::UnknownKey)?;
        is_valid(&input, unix_s)?;
        verify(key, &input, request)?;
        Ok(&key.origin)
    }
}

fn public_key(x: &str) -> Option<VerifyingKey> {
    let bytes = BASE64URL_NOPAD.decode(x.as_bytes()).ok()?;
    let bytes = <[u8; 32]>::try_from(bytes).ok()?;
    VerifyingKey::from_bytes(&bytes).ok()
}

/// The thumbprint of an Ed25519 key (RFC 8037 appendix A.3).
fn thumbprint(x: &str) -> Box<str> {
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    BASE64URL_NOPAD.encode(&Sha256::digest(canonical)).into()
}

fn is_valid(input: &Input<'_>, unix_s: u64) -> Result<(), Unproven> {
    let begun = input.created <= unix_s.saturating_add(AHEAD_MAX_S);
    let lasts = input.expires.saturating_sub(input.created) <= LIFETIME_MAX_S;
    if begun && lasts && unix_s < input.expires {
        Ok(())
    } else {
        Err(Unproven::Expired)
    }
}

fn verify(key: &Key, input: &Input<'_>, request: &Signed<'_>) -> Result<(), Unproven> {
    let covers = |name| input.components.iter().any(|own| own.name == name);
    // Without the authority, what was signed for one host would hold for every other.
    if !covers("@authority") || covers("signature-agent") != request.agent.is_some() {
        return Err(Unproven::Uncovered);
    }
    let base = base(key, input, request)?;
    let signature = fields::bytes(request.signature, input.label).ok_or(Unproven::Unreadable)?;
    let signature = BASE64.decode(signature.as_bytes()).ok();
    let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
    let signature = signature.ok_or(Unproven::Unreadable)?;
    let fits = key.key.verify_strict(base.as_bytes(), &signature);
    fits.map_err(|_| Unproven::Wrong)
}

/// What was signed (RFC 9421 section 2.5).
fn base(key: &Key, input: &Input<'_>, request: &Signed<'_>) -> Result<String, Unproven> {
    let mut base = String::new();
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((request.target, ""));
    for component in &input.components {
        let value = match component.name {
            "@method" => request.method.to_owned(),
            "@authority" => authority(request.authority),
            "@path" => path.to_owned(),
            "@query" => format!("?{query}"),
            "signature-agent" => agent(component, request.agent, &key.origin)?.to_owned(),
            _ => return Err(Unproven::Uncovered),
        };
        let is_plain = component.key.is_none() || component.name == "signature-agent";
        if !is_plain {
            return Err(Unproven::Uncovered);
        }
        base.extend([component.written, ": ", &value, "\n"]);
    }
    base.extend(["\"@signature-params\": ", input.written]);
    Ok(base)
}

/// The host in lower case, without the usual port (RFC 9421 section 2.2.3).
fn authority(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let bare = host.strip_suffix(":443");
    bare.map_or_else(|| host.clone(), ToOwned::to_owned)
}

/// The part of `Signature-Agent` that was signed, if it names this origin.
fn agent<'a>(
    component: &Component<'_>,
    field: Option<&'a str>,
    origin: &str,
) -> Result<&'a str, Unproven> {
    let field = field.map(str::trim).ok_or(Unproven::Uncovered)?;
    let named = fields::agent(field, component.key).ok_or(Unproven::Unreadable)?;
    if named.origin.trim_end_matches('/') != origin {
        return Err(Unproven::OtherAgent);
    }
    // Without a key, the whole field is the component, whichever its dialect.
    Ok(component.key.map_or(field, |_| named.written))
}

#[cfg(test)]
mod tests;
