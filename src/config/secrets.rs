//! The values behind `from:`, kept so that a bad reload cannot take a good key away.

use std::collections::HashMap;

use super::values::SecretFrom;
use crate::secret::{SecretBytes, generate, read};

/// Secrets that have been read, by what they are for and where they come from.
#[derive(Debug, Default)]
pub struct Secrets {
    known: HashMap<(String, String), SecretBytes>,
    stand_in: Option<SecretBytes>,
}

/// A secret, and what the operator should know about where it came from.
#[derive(Debug)]
pub struct Found {
    /// The value.
    pub value: SecretBytes,
    /// That a new value was refused and the old one kept, and why.
    pub kept_because: Option<String>,
}

impl Secrets {
    /// No secrets: something random stands for each, and nothing is read. For a policy that is to judge
    /// what is over.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn stand_ins() -> Result<Self, String> {
        let value = generate().map_err(|error| format!("no randomness: {error}"))?;
        Ok(Self {
            known: HashMap::new(),
            stand_in: Some(value.into_bytes().into()),
        })
    }

    /// The secret of `what`, read anew if it comes from a file.
    ///
    /// A new value that cannot be read or that `check` refuses leaves the old one in force.
    /// Environment and systemd credentials do not change while a process runs.
    ///
    /// # Errors
    /// When there is no valid value and never was one.
    pub fn get(
        &mut self,
        what: &str,
        from: &SecretFrom,
        check: impl FnOnce(&SecretBytes) -> Result<(), String>,
    ) -> Result<Found, String> {
        if let Some(value) = &self.stand_in {
            return Ok(Found {
                value: value.clone(),
                kept_because: None,
            });
        }
        let source = from.source();
        let key = (what.to_owned(), source.to_string());
        let known = self.known.get(&key);
        if let (Some(known), SecretFrom::Env(_) | SecretFrom::Credential(_)) = (known, from) {
            return Ok(Found {
                value: known.clone(),
                kept_because: None,
            });
        }
        let fresh = read(&source)
            .map_err(|error| error.to_string())
            .and_then(|value| check(&value).map(|()| value));
        match (fresh, known) {
            (Ok(value), _) => {
                self.known.insert(key, value.clone());
                Ok(Found {
                    value,
                    kept_because: None,
                })
            }
            (Err(why), Some(known)) => Ok(Found {
                value: known.clone(),
                kept_because: Some(format!("{what}: {why}; the old value stays in force")),
            }),
            (Err(why), None) => Err(format!("{what}: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long_enough(value: &SecretBytes) -> Result<(), String> {
        value.long_enough("k1").map_err(|bad| bad.to_string())
    }

    #[test]
    fn a_bad_new_value_keeps_the_old_one_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let from = SecretFrom::File(file.clone());
        let mut secrets = Secrets::default();
        std::fs::write(&file, "short").unwrap();
        assert!(secrets.get("k1", &from, long_enough).is_err());
        std::fs::write(&file, "a".repeat(32)).unwrap();
        let found = secrets.get("k1", &from, long_enough).unwrap();
        assert!(found.kept_because.is_none());
        for bad in ["", "short"] {
            std::fs::write(&file, bad).unwrap();
            let found = secrets.get("k1", &from, long_enough).unwrap();
            assert_eq!(found.value.as_bytes(), "a".repeat(32).as_bytes());
            assert!(found.kept_because.unwrap().contains("stays in force"));
        }
        std::fs::write(&file, "b".repeat(32)).unwrap();
        let found = secrets.get("k1", &from, long_enough).unwrap();
        assert_eq!(found.value.as_bytes(), "b".repeat(32).as_bytes());
    }
}
