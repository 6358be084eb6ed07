//! Records of the topic `_schemas`, as Confluent's registry writes and reads them.
//!
//! Keys are compared byte by byte when the topic is compacted, so their members stand in Confluent's
//! order. What another registry says of a version beyond what is known here is kept as it is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{level::Level, schema::Kind};

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "keytype", rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Key {
    /// A version of a subject.
    Schema {
        subject: String,
        version: u32,
        magic: u8,
    },
    /// The compatibility level of a subject; without one, of all that have none of their own.
    Config { subject: Option<String>, magic: u8 },
    /// Whether a subject, or all, may be written.
    Mode { subject: Option<String>, magic: u8 },
    /// That all versions of a subject up to one are deleted.
    DeleteSubject { subject: String, magic: u8 },
    /// Nothing.
    Noop { magic: u8 },
    /// Of registries that keep more than this one.
    #[serde(rename = "CONTEXT", alias = "CLEAR_SUBJECT")]
    Elsewhere {},
}

impl Key {
    pub(super) fn schema(subject: &str, version: u32) -> Self {
        Self::Schema {
            subject: subject.to_owned(),
            version,
            magic: 1,
        }
    }

    pub(super) fn config(subject: Option<&str>) -> Self {
        Self::Config {
            subject: subject.map(str::to_owned),
            magic: 0,
        }
    }
}

/// What is said of a version of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SchemaValue {
    pub(super) subject: String,
    pub(super) version: u32,
    pub(super) id: u32,
    #[serde(
        rename = "schemaType",
        default,
        skip_serializing_if = "is_avro",
        deserialize_with = "kind"
    )]
    pub(super) kind: Kind,
    pub(super) schema: String,
    #[serde(default)]
    pub(super) deleted: bool,
    /// What else another registry says of it.
    #[serde(flatten)]
    pub(super) more: Map<String, Value>,
}

fn is_avro(kind: &Kind) -> bool {
    *kind == Kind::Avro
}

fn kind<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ConfigValue {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(rename = "compatibilityLevel")]
    level: Option<Level>,
}

#[derive(Debug, Deserialize)]
struct ModeValue {
    mode: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DeleteValue {
    subject: String,
    version: u32,
}

/// A record, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// A version is there.
    Version(SchemaValue),
    /// A version is no more.
    Gone { subject: String, version: u32 },
    /// A level is set, or no more.
    Level {
        subject: Option<String>,
        level: Option<Level>,
    },
    /// A mode is set, or no more.
    Mode {
        subject: Option<String>,
        mode: Option<String>,
    },
    /// Versions up to this one are deleted.
    Deleted { subject: String, up_to: u32 },
    /// Nothing that matters here.
    Nothing,
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Self, String> {
        let key = serde_json::from_slice(key.ok_or("it has no key")?);
        let key: Key = key.map_err(|error| format!("its key: {error}"))?;
        let bad = |error: serde_json::Error| format!("its value: {error}");
        Ok(match (key, value) {
            (
                Key::Schema {
                    subject, version, ..
                },
                None,
            ) => Self::Gone { subject, version },
            (
                Key::Schema {
                    subject, version, ..
                },
                Some(value),
            ) => {
                let value: SchemaValue = serde_json::from_slice(value).map_err(bad)?;
                if (&value.subject, value.version) != (&subject, version) {
                    return Err("its value is of another version than its key".to_owned());
                }
                Self::Version(value)
            }
            (Key::Config { subject, .. }, value) => {
                let value: Option<ConfigValue> =
                    value.map(serde_json::from_slice).transpose().map_err(bad)?;
                let level = value.and_then(|value| value.level);
                Self::Level { subject, level }
            }
            (Key::Mode { subject, .. }, value) => {
                let value: Option<ModeValue> =
                    value.map(serde_json::from_slice).transpose().map_err(bad)?;
                let mode = value.map(|value| value.mode);
                Self::Mode { subject, mode }
            }
            (Key::DeleteSubject { subject, .. }, Some(value)) => {
                let value: DeleteValue = serde_json::from_slice(value).map_err(bad)?;
                Self::Deleted {
                    subject,
                    up_to: value.version,
                }
            }
            (Key::DeleteSubject { .. } | Key::Noop { .. } | Key::Elsewhere {}, _) => Self::Nothing,
        })
    }

    /// The record's key and value, to be appended.
    pub(super) fn write(&self) -> Result<(Vec<u8>, Option<Vec<u8>>), serde_json::Error> {
        let (key, value) = match self {
            Self::Version(value) => (
                Key::schema(&value.subject, value.version),
                Some(serde_json::to_vec(value)?),
            ),
            Self::Gone { subject, version } => (Key::schema(subject, *version), None),
            Self::Level { subject, level } => {
                let value = level.map(|level| ConfigValue {
                    subject: subject.clone(),
                    level: Some(level),
                });
                let value = value.as_ref().map(serde_json::to_vec).transpose()?;
                (Key::config(subject.as_deref()), value)
            }
            Self::Mode { subject, mode } => {
                let subject = subject.clone();
                let value = mode.as_ref().map(|mode| serde_json::json!({"mode": mode}));
                let value = value.as_ref().map(serde_json::to_vec).transpose()?;
                (Key::Mode { subject, magic: 0 }, value)
            }
            Self::Deleted { subject, up_to } => {
                let value = DeleteValue {
                    subject: subject.clone(),
                    version: *up_to,
                };
                let subject = subject.clone();
                let key = Key::DeleteSubject { subject, magic: 0 };
                (key, Some(serde_json::to_vec(&value)?))
            }
            Self::Nothing => (Key::Noop { magic: 0 }, None),
        };
        Ok((serde_json::to_vec(&key)?, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(record: &Record) -> (String, Option<String>) {
        let (key, value) = record.write().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(key), value.map(text))
    }

    #[track_caller]
    fn both_ways(key: &str, value: Option<&str>) -> Record {
        let record = Record::read(Some(key.as_bytes()), value.map(str::as_bytes)).unwrap();
        assert_eq!(text(&record), (key.to_owned(), value.map(str::to_owned)));
        record
    }

    #[test]
    fn records_are_confluents_own() {
        let schema = r#"{"keytype":"SCHEMA","subject":"a-value","version":1,"magic":1}"#;
        let value =
            r#"{"subject":"a-value","version":1,"id":100,"schema":"\"long\"","deleted":false}"#;
        both_ways(schema, Some(value));
        both_ways(schema, None);
        both_ways(
            schema,
            Some(
                r#"{"subject":"a-value","version":1,"id":100,"schemaType":"JSON","schema":"{}","deleted":true}"#,
            ),
        );
        let config = r#"{"keytype":"CONFIG","subject":"a-value","magic":0}"#;
        let full = r#"{"subject":"a-value","compatibilityLevel":"FULL_TRANSITIVE"}"#;
        both_ways(config, Some(full));
        both_ways(config, None);
        let global = r#"{"keytype":"CONFIG","subject":null,"magic":0}"#;
        both_ways(global, Some(r#"{"compatibilityLevel":"NONE"}"#));
        both_ways(
            r#"{"keytype":"DELETE_SUBJECT","subject":"a-value","magic":0}"#,
            Some(r#"{"subject":"a-value","version":2}"#),
        );
        both_ways(r#"{"keytype":"NOOP","magic":0}"#, None);
        both_ways(
            r#"{"keytype":"MODE","subject":null,"magic":0}"#,
            Some(r#"{"mode":"READONLY"}"#),
        );
    }

    #[test]
    fn what_another_registry_says_besides_stays() {
        let key = r#"{"keytype":"SCHEMA","subject":"s","version":2,"magic":1}"#;
        let value = r#"{"subject":"s","version":2,"id":7,"schema":"\"int\"","deleted":false,"guid":"g","references":[{"name":"n","subject":"o","version":1}]}"#;
        both_ways(key, Some(value));
        let null = value.replace(r#""id":7"#, r#""id":7,"schemaType":null"#);
        let read = Record::read(Some(key.as_bytes()), Some(null.as_bytes())).unwrap();
        assert!(matches!(read, Record::Version(version) if version.kind == Kind::Avro));
    }

    #[test]
    fn what_is_no_record_says_why() {
        for (key, value) in [
            (None, None),
            (Some("x"), None),
            (Some(r#"{"keytype":"OTHER","magic":0}"#), None),
            (
                Some(r#"{"keytype":"SCHEMA","subject":"s","version":-1,"magic":1}"#),
                None,
            ),
            (
                Some(r#"{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}"#),
                Some(r#"{"subject":"s","version":2,"id":7,"schema":"","deleted":false}"#),
            ),
            (
                Some(r#"{"keytype":"CONFIG","subject":"s","magic":0}"#),
                Some(""),
            ),
        ] {
            let read = Record::read(key.map(str::as_bytes), value.map(str::as_bytes));
            assert!(read.is_err(), "{key:?} {value:?}");
        }
        let elsewhere = br#"{"keytype":"CONTEXT","tenant":"t","context":".","magic":0}"#;
        assert_eq!(Record::read(Some(elsewhere), None), Ok(Record::Nothing));
    }
}
