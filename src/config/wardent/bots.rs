//! `bots`: files that take the place of what Wardent ships about bots.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::words::{FromWord, one, optional};

/// What is known of bots; what is left out is what ships. Read again by every reload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Bots {
    /// Who they are.
    #[serde(deserialize_with = "optional")]
    pub catalogue: Option<PathBuf>,
    /// Which addresses are theirs.
    #[serde(deserialize_with = "optional")]
    pub networks: Option<PathBuf>,
    /// Which keys they sign with.
    pub keys: Vec<BotKeys>,
}

/// One operator's directory of keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping {origin: …, directory: …}")]
pub struct BotKeys {
    /// Whose it is.
    #[serde(deserialize_with = "one")]
    pub origin: Origin,
    /// The JSON Web Key Set, as the operator publishes it.
    #[serde(deserialize_with = "one")]
    pub directory: PathBuf,
}

/// An origin such as `https://chatgpt.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// The origin.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromWord for Origin {
    const EXPECTED: &'static str = "an origin such as https://chatgpt.com";

    fn from_word(word: &str) -> Result<Self, String> {
        let host = word.strip_prefix("https://").unwrap_or_default();
        let is_host = !host.is_empty() && !host.contains(['/', '?', '#', '"', '\\', ' ']);
        is_host
            .then(|| Self(word.to_owned()))
            .ok_or_else(|| format!("must be {}", Self::EXPECTED))
    }
}

impl Bots {
    /// Makes every relative path relative to `base`.
    pub(super) fn resolve(&mut self, base: &Path) {
        let directories = self.keys.iter_mut().map(|keys| &mut keys.directory);
        let files = self.catalogue.iter_mut().chain(&mut self.networks);
        for path in files.chain(directories) {
            *path = base.join(&path);
        }
    }
}
