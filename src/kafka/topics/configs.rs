//! Kafka's configs of a topic, by name: what each is, where it comes from, and what may be set.
//!
//! All that Kafka's topics have are shown, so that tools find what they look for. Those that the log obeys
//! may be set; the others have one value here, and whoever sets another is told so rather than believed.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Serialize};

use super::super::error::ErrorCode;
use crate::log::{Cleanup, Flush, TopicConfig};

/// The longest message that a topic may take, in bytes: what a request may have.
const MESSAGE_BYTES_MAX: i64 = 16 * 1024 * 1024;

/// The smallest segment, in bytes (KIP-1030): each has files that are open.
const SEGMENT_BYTES_MIN: i64 = 1024 * 1024;

/// The youngest age at which a segment is closed, in milliseconds: likewise.
const SEGMENT_MS_MIN: i64 = 1_000;

/// The longest list that is looked into, in bytes.
const LIST_BYTES_MAX: usize = 1024;

/// How a topic that need not be safe at once is flushed, unless `flush.ms` says otherwise.
const FLUSHED_AFTER: Duration = Duration::from_secs(5);
const FLUSHED_BYTES: u64 = 8 * 1024 * 1024;

/// What was set of a topic's configs, by name; normalised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Set(pub(crate) BTreeMap<String, String>);

/// Why something is refused: Kafka's code, and words for who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    pub(crate) why: String,
}

impl Refused {
    pub(crate) fn new(code: ErrorCode, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { code, why }
    }
}

/// The type of a config's value, as Kafka numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Text,
    Int,
    Long,
    Double,
    List,
}

/// Where a value comes from, as Kafka numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Somebody set it for this topic.
    Topic,
    /// Wardent's own configuration.
    Broker,
    /// Nobody said anything.
    Default,
}

impl Kind {
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::Text => 2,
            Self::Int => 3,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }
}

impl Source {
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::Broker => 4,
            Self::Default => 5,
        }
    }
}

/// A config of a topic, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    /// What it is where nobody sets it.
    pub(crate) default: String,
    pub(crate) source: Source,
    pub(crate) kind: Kind,
    pub(crate) what: &'static str,
}

struct Config {
    name: &'static str,
    kind: Kind,
    what: &'static str,
    how: How,
}

enum How {
    /// The log goes by it.
    Obeyed(
        fn(&TopicConfig) -> String,
        /// Sets it, and says it as it is kept.
        fn(&mut TopicConfig, &str) -> Result<String, String>,
    ),
    /// It is so, and cannot be otherwise.
    Fixed(&'static str),
}

const ANY: RangeInclusive<i64> = 0..=i64::MAX;
const MAX: &str = "9223372036854775807";

fn number(text: &str, range: RangeInclusive<i64>) -> Result<i64, String> {
    let number: i64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    match range.contains(&number) {
        true => Ok(number),
        false => Err(format!(
            "{number} is not between {} and {}",
            range.start(),
            range.end()
        )),
    }
}

fn millis(duration: Duration) -> String {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    millis.to_string()
}

fn of_millis(number: i64) -> Duration {
    Duration::from_millis(number.unsigned_abs())
}

/// A number, or -1 for no bound.
fn bound(text: &str) -> Result<Option<i64>, String> {
    let number = number(text, -1..=i64::MAX)?;
    Ok((number >= 0).then_some(number))
}

fn bound_text(bound: Option<i64>) -> String {
    bound.unwrap_or(-1).to_string()
}

fn set_cleanup(config: &mut TopicConfig, text: &str) -> Result<String, String> {
    let mut wanted: Vec<_> = text.split(',').map(str::trim).collect();
    wanted.sort_unstable();
    wanted.dedup();
    config.cleanup = match wanted.as_slice() {
        ["delete"] => Cleanup::Delete,
        ["compact"] => Cleanup::Compact,
        ["compact", "delete"] => Cleanup::CompactDelete,
        _ => {
            return Err(format!(
                "{text:?} is neither \"delete\" nor \"compact\" nor \"compact,delete\""
            ));
        }
    };
    Ok(config.cleanup.name().to_owned())
}

fn set_flush_messages(config: &mut TopicConfig, text: &str) -> Result<String, String> {
    config.flush = match text {
        "1" => Flush::EachAppend,
        MAX => Flush::Lazily {
            age: FLUSHED_AFTER,
            bytes: FLUSHED_BYTES,
        },
        other => {
            return Err(format!(
                "{other:?} is neither 1, safe when it is acknowledged, nor {MAX}, safe some seconds later"
            ));
        }
    };
    Ok(text.to_owned())
}

fn set_flush_ms(config: &mut TopicConfig, text: &str) -> Result<String, String> {
    let stated = number(text, 1..=i64::MAX)?;
    if let Flush::Lazily { age, .. } = &mut config.flush {
        *age = of_millis(stated);
    }
    Ok(stated.to_string())
}

fn flush_ms(config: &TopicConfig) -> String {
    millis(match config.flush {
        Flush::Lazily { age, .. } => age,
        Flush::EachAppend => FLUSHED_AFTER,
    })
}

/// All of them, by name.
const CONFIGS: &[Config] = &[
    Config {
        name: "cleanup.policy",
        kind: Kind::List,
        what: "what becomes of old records: \"delete\" by age and size, \"compact\" to the last of each key, or both",
        how: How::Obeyed(|config| config.cleanup.name().to_owned(), set_cleanup),
    },
    fixed("compression.gzip.level", Kind::Int, "-1"),
    fixed("compression.lz4.level", Kind::Int, "9"),
    fixed("compression.type", Kind::Text, "producer"),
    fixed("compression.zstd.level", Kind::Int, "3"),
    Config {
        name: "delete.retention.ms",
        kind: Kind::Long,
        what: "how long a tombstone is kept after compaction saw it",
        how: How::Obeyed(
            |config| millis(config.delete_retention),
            |config, text| {
                let stated = number(text, ANY)?;
                config.delete_retention = of_millis(stated);
                Ok(stated.to_string())
            },
        ),
    },
    fixed("file.delete.delay.ms", Kind::Long, "0"),
    Config {
        name: "flush.messages",
        kind: Kind::Long,
        what: "1: what is acknowledged outlives a power cut; the largest number: it does some seconds later",
        how: How::Obeyed(
            |config| match config.flush {
                Flush::EachAppend => "1".to_owned(),
                Flush::Lazily { .. } => MAX.to_owned(),
            },
            set_flush_messages,
        ),
    },
    // After flush.messages: what that sets, this goes on with.
    Config {
        name: "flush.ms",
        kind: Kind::Long,
        what: "how long a record that is not flushed at once may be in memory only",
        how: How::Obeyed(flush_ms, set_flush_ms),
    },
    fixed("follower.replication.throttled.replicas", Kind::List, ""),
    fixed("index.interval.bytes", Kind::Int, "4096"),
    fixed("leader.replication.throttled.replicas", Kind::List, ""),
    fixed("local.retention.bytes", Kind::Long, "-2"),
    fixed("local.retention.ms", Kind::Long, "-2"),
    fixed("max.compaction.lag.ms", Kind::Long, "86400000"),
    Config {
        name: "max.message.bytes",
        kind: Kind::Int,
        what: "the longest batch of records that is taken",
        how: How::Obeyed(
            |config| config.max_batch_bytes.to_string(),
            |config, text| {
                let stated = number(text, 0..=MESSAGE_BYTES_MAX)?;
                config.max_batch_bytes = u32::try_from(stated).unwrap_or(u32::MAX);
                Ok(stated.to_string())
            },
        ),
    },
    fixed("message.timestamp.after.max.ms", Kind::Long, MAX),
    fixed("message.timestamp.before.max.ms", Kind::Long, MAX),
    fixed("message.timestamp.type", Kind::Text, "CreateTime"),
    fixed("min.cleanable.dirty.ratio", Kind::Double, "0.5"),
    fixed("min.compaction.lag.ms", Kind::Long, "0"),
    fixed("min.insync.replicas", Kind::Int, "1"),
    fixed("preallocate", Kind::Boolean, "false"),
    fixed("remote.log.copy.disable", Kind::Boolean, "false"),
    fixed("remote.log.delete.on.disable", Kind::Boolean, "false"),
    fixed("remote.storage.enable", Kind::Boolean, "false"),
    Config {
        name: "retention.bytes",
        kind: Kind::Long,
        what: "how many bytes one partition may have; -1: as many as there is room for",
        how: How::Obeyed(
            |config| {
                let bytes = config.retention_bytes;
                bound_text(bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
            },
            |config, text| {
                let stated = bound(text)?;
                config.retention_bytes = stated.map(i64::unsigned_abs);
                Ok(bound_text(stated))
            },
        ),
    },
    Config {
        name: "retention.ms",
        kind: Kind::Long,
        what: "how old a record may become; -1: as old as it likes",
        how: How::Obeyed(
            |config| config.retention.map_or_else(|| "-1".to_owned(), millis),
            |config, text| {
                let stated = bound(text)?;
                config.retention = stated.map(of_millis);
                Ok(bound_text(stated))
            },
        ),
    },
    Config {
        name: "segment.bytes",
        kind: Kind::Int,
        what: "the size at which a segment is closed; only closed segments go, or are compacted",
        how: How::Obeyed(
            |config| config.segment_bytes.to_string(),
            |config, text| {
                let stated = number(text, SEGMENT_BYTES_MIN..=i32::MAX.into())?;
                config.segment_bytes = stated.unsigned_abs();
                Ok(stated.to_string())
            },
        ),
    },
    fixed("segment.index.bytes", Kind::Int, "10485760"),
    fixed("segment.jitter.ms", Kind::Long, "0"),
    Config {
        name: "segment.ms",
        kind: Kind::Long,
        what: "the age at which a segment is closed; only closed segments go, or are compacted",
        how: How::Obeyed(
            |config| millis(config.segment_age),
            |config, text| {
                let stated = number(text, SEGMENT_MS_MIN..=i64::MAX)?;
                config.segment_age = of_millis(stated);
                Ok(stated.to_string())
            },
        ),
    },
    fixed("unclean.leader.election.enable", Kind::Boolean, "false"),
];

const fn fixed(name: &'static str, kind: Kind, value: &'static str) -> Config {
    Config {
        name,
        kind,
        what: "it has one value here",
        how: How::Fixed(value),
    }
}

fn config(name: &str) -> Result<&'static Config, Refused> {
    let found = CONFIGS.iter().find(|config| config.name == name);
    found.ok_or_else(|| {
        let why = format!("Unknown topic config name: {name}");
        Refused::new(ErrorCode::InvalidConfig, why)
    })
}

/// Whether two texts say the same, as values of that type.
fn is_same(kind: Kind, one: &str, other: &str) -> bool {
    match kind {
        Kind::Int | Kind::Long => one.parse::<i64>().ok() == other.parse().ok(),
        Kind::Double => one.parse::<f64>().ok() == other.parse().ok(),
        Kind::Boolean => one.eq_ignore_ascii_case(other),
        Kind::Text | Kind::List => one == other,
    }
}

impl Set {
    /// Sets a config; without a value, it is as it is where nobody sets it.
    ///
    /// # Errors
    /// When there is no such config, or it cannot be that.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), Refused> {
        let config = config(name)?;
        let Some(value) = value.map(str::trim) else {
            self.0.remove(name);
            return Ok(());
        };
        let invalid = |why: String| {
            let why = format!("Invalid value {value} for configuration {name}: {why}");
            Refused::new(ErrorCode::InvalidConfig, why)
        };
        let kept = match config.how {
            How::Obeyed(_, set) => set(&mut TopicConfig::default(), value).map_err(invalid)?,
            How::Fixed(own) if is_same(config.kind, own, value) => own.to_owned(),
            How::Fixed(own) => {
                return Err(invalid(format!("it is {own:?} here and nothing else")));
            }
        };
        self.0.insert(name.to_owned(), kept);
        Ok(())
    }

    /// Adds to a config that is a list, or takes away from it.
    ///
    /// # Errors
    /// When there is no such config, it is no list, or it cannot be what it would be then.
    pub(crate) fn set_list(
        &mut self,
        name: &str,
        value: &str,
        is_added: bool,
        base: &TopicConfig,
    ) -> Result<(), Refused> {
        let config = config(name)?;
        if config.kind != Kind::List || value.len() > LIST_BYTES_MAX {
            let why = format!("{name} is no list, or it would be too long");
            return Err(Refused::new(ErrorCode::InvalidConfig, why));
        }
        let default = match config.how {
            How::Obeyed(get, _) => get(base),
            How::Fixed(own) => own.to_owned(),
        };
        let now = self.0.get(name).unwrap_or(&default);
        let mut items: Vec<&str> = now.split(',').filter(|item| !item.is_empty()).collect();
        for item in value.split(',').map(str::trim) {
            items.retain(|own| *own != item);
            if is_added {
                items.push(item);
            }
        }
        let items = items.join(",");
        self.set(name, Some(&items))
    }

    /// How a topic is kept that would be kept so without it.
    pub(crate) fn applied_to(&self, base: &TopicConfig) -> TopicConfig {
        let mut kept = base.clone();
        for config in CONFIGS {
            if let (How::Obeyed(_, set), Some(value)) = (&config.how, self.0.get(config.name)) {
                // What was kept by another version, and is not understood, is not gone by.
                let _ = set(&mut kept, value);
            }
        }
        kept
    }

    /// All configs of a topic, by name. It would be kept as in `base`; topics of clients are by `default`.
    pub(crate) fn shown(&self, base: &TopicConfig, default: &TopicConfig) -> Vec<Shown> {
        let shown = |config: &Config| {
            let (own, default) = match config.how {
                How::Obeyed(get, _) => (get(base), get(default)),
                How::Fixed(own) => (own.to_owned(), own.to_owned()),
            };
            let (value, source) = match self.0.get(config.name) {
                Some(value) => (value.clone(), Source::Topic),
                None if own == default => (own, Source::Default),
                None => (own, Source::Broker),
            };
            Shown {
                name: config.name,
                value,
                default,
                source,
                kind: config.kind,
                what: config.what,
            }
        };
        CONFIGS.iter().map(shown).collect()
    }
}

/// What of a topic's configs is otherwise than in `default`.
pub(crate) fn differing(kept: &TopicConfig, default: &TopicConfig) -> Vec<(&'static str, String)> {
    let own = CONFIGS.iter().filter_map(|config| match config.how {
        How::Obeyed(get, _) => Some((config.name, get(kept), get(default))),
        How::Fixed(_) => None,
    });
    own.filter(|(_, own, default)| own != default)
        .map(|(name, own, _)| (name, own))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Result<Set, Refused> {
        let mut set = Set::default();
        for (name, value) in pairs {
            set.set(name, Some(value))?;
        }
        Ok(set)
    }

    #[test]
    fn they_are_by_name_and_each_default_can_be_set() {
        assert!(CONFIGS.is_sorted_by_key(|config| config.name));
        let base = TopicConfig::default();
        for shown in Set::default().shown(&base, &base) {
            let set = set(&[(shown.name, &shown.value)]).unwrap();
            assert_eq!(set.applied_to(&base), base, "{}", shown.name);
            assert_eq!(shown.source, Source::Default);
        }
    }

    #[test]
    fn what_is_set_is_gone_by_and_shown() {
        let set = set(&[
            ("cleanup.policy", "compact"),
            ("retention.ms", "-1"),
            ("retention.bytes", " 007 "),
            ("segment.bytes", "1048576"),
            ("segment.ms", "60000"),
            ("max.message.bytes", "2000"),
            ("delete.retention.ms", "5"),
            ("flush.ms", "250"),
            ("flush.messages", MAX),
            ("preallocate", "FALSE"),
            ("min.cleanable.dirty.ratio", "0.50"),
        ]);
        let set = set.unwrap();
        let default = TopicConfig::default();
        let base = TopicConfig {
            retention: Some(Duration::from_secs(9)),
            ..TopicConfig::default()
        };
        let kept = set.applied_to(&base);
        let expected = TopicConfig {
            cleanup: Cleanup::Compact,
            retention: None,
            retention_bytes: Some(7),
            segment_bytes: 1 << 20,
            segment_age: Duration::from_mins(1),
            flush: Flush::Lazily {
                age: Duration::from_millis(250),
                bytes: FLUSHED_BYTES,
            },
            max_batch_bytes: 2000,
            delete_retention: Duration::from_millis(5),
            is_expendable: false,
            is_reserved: false,
        };
        assert_eq!(kept, expected);
        let shown = set.shown(&base, &default);
        let of = |name: &str| shown.iter().find(|one| one.name == name).unwrap();
        assert_eq!(
            (
                of("retention.bytes").value.as_str(),
                of("retention.bytes").source
            ),
            ("7", Source::Topic)
        );
        let own = Set::default().shown(&base, &default);
        let retention = own.iter().find(|one| one.name == "retention.ms").unwrap();
        assert_eq!(
            (retention.value.as_str(), retention.source),
            ("9000", Source::Broker)
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_words() {
        let cases = [
            ("cleanup.policy", "compact,erase", "neither"),
            ("cleanup.policy", "", "neither"),
            ("retention.ms", "-2", "is not between -1"),
            ("retention.ms", "a", "is no number"),
            (
                "segment.bytes",
                "14",
                "is not between 1048576 and 2147483647",
            ),
            ("segment.ms", "1", "is not between 1000"),
            (
                "max.message.bytes",
                "16777217",
                "is not between 0 and 16777216",
            ),
            ("flush.messages", "1000", "neither 1"),
            ("compression.type", "zstd", "it is \"producer\" here"),
            ("min.insync.replicas", "2", "it is \"1\" here"),
            (
                "message.timestamp.type",
                "LogAppendTime",
                "it is \"CreateTime\" here",
            ),
            ("no.such", "1", "Unknown topic config name: no.such"),
        ];
        for (name, value, expected) in cases {
            let refused = set(&[(name, value)]).unwrap_err();
            assert_eq!(refused.code, ErrorCode::InvalidConfig);
            assert!(refused.why.contains(expected), "{name}: {}", refused.why);
        }
    }

    #[test]
    fn lists_are_added_to_and_taken_from() {
        let base = TopicConfig::default();
        let mut set = Set::default();
        set.set_list("cleanup.policy", "delete", true, &base)
            .unwrap();
        assert_eq!(set.0["cleanup.policy"], "delete");
        set.set_list("cleanup.policy", "compact", true, &base)
            .unwrap();
        assert_eq!(set.0["cleanup.policy"], "compact,delete");
        assert_eq!(set.applied_to(&base).cleanup, Cleanup::CompactDelete);
        set.set_list("cleanup.policy", "compact", false, &base)
            .unwrap();
        set.set_list("cleanup.policy", "delete", false, &base)
            .unwrap_err();
        set.set_list("retention.ms", "1", true, &base).unwrap_err();
        assert_eq!(set.applied_to(&base), base);
    }
}
