//! What one machine of a cluster is called.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The name of a node: 1 to 64 of `A-Z a-z 0-9 . _ -`.
///
/// So it fits into a Kafka key, an id of a transaction, a metric's label and an actor's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotNodeName;

impl fmt::Display for NotNodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a node's name (use 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`)")
    }
}

impl std::error::Error for NotNodeName {}

impl FromStr for NodeName {
    type Err = NotNodeName;

    fn from_str(text: &str) -> Result<Self, NotNodeName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            true => Ok(Self(text.into())),
            false => Err(NotNodeName),
        }
    }
}

impl Serialize for NodeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NodeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_wherever_it_is_written() {
        for name in ["web-1", "a", "eu.west_2", &"x".repeat(64)] {
            assert_eq!(name.parse::<NodeName>().unwrap().as_str(), name);
        }
        for name in ["", "web 1", "web|1", "é", &"x".repeat(65)] {
            assert_eq!(name.parse::<NodeName>(), Err(NotNodeName), "{name}");
        }
    }
}
