//! Which APIs are spoken, and in which versions. What ApiVersions tells is computed from this table, and
//! `docs/kafka-support.md` is held to it.

use super::wire::Shape;

/// When a connection may ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// At any time.
    Always,
    /// By who has logged in, where logging in is asked for.
    LoggedIn,
}

/// One API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Key,
    /// The versions that are advertised.
    pub(crate) oldest: i16,
    pub(crate) newest: i16,
    /// The first version that is served; those before it are answered with `UNSUPPORTED_VERSION`.
    pub(crate) served_from: i16,
    /// The first flexible version (KIP-482).
    pub(crate) flexible_from: i16,
    pub(crate) asked: Asked,
}

impl Row {
    const fn new(key: Key, versions: (i16, i16), flexible_from: i16) -> Self {
        let (oldest, newest) = versions;
        Self {
            key,
            oldest,
            newest,
            served_from: oldest,
            flexible_from,
            asked: Asked::LoggedIn,
        }
    }

    /// How that version looks.
    pub(crate) fn shape(&self, version: i16) -> Shape {
        Shape {
            version,
            is_flexible: version >= self.flexible_from,
        }
    }

    /// Whether that version is advertised.
    pub(crate) fn has(&self, version: i16) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}

macro_rules! apis {
    ($($name:ident = $key:literal: $versions:expr, flexible from $flexible:literal $(, $field:ident = $value:expr)*;)+) => {
        /// An API, by Kafka's name and key.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Key {
            $($name = $key,)+
        }

        impl Key {
            /// Its number.
            pub(crate) fn code(self) -> i16 {
                match self {
                    $(Self::$name => $key,)+
                }
            }

            /// Its name.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }

        /// All of them, by key.
        pub(crate) const APIS: &[Row] = &[$(Row {
            $($field: $value,)*
            ..Row::new(Key::$name, $versions, $flexible)
        },)+];
    };
}

apis! {
    Produce = 0: (0, 11), flexible from 9, served_from = 3;
    Fetch = 1: (4, 12), flexible from 12;
    ListOffsets = 2: (1, 7), flexible from 6;
    Metadata = 3: (0, 12), flexible from 9;
    OffsetCommit = 8: (2, 9), flexible from 8;
    OffsetFetch = 9: (1, 9), flexible from 6;
    FindCoordinator = 10: (0, 4), flexible from 3;
    JoinGroup = 11: (0, 9), flexible from 6;
    Heartbeat = 12: (0, 4), flexible from 4;
    LeaveGroup = 13: (0, 5), flexible from 4;
    SyncGroup = 14: (0, 5), flexible from 4;
    DescribeGroups = 15: (0, 6), flexible from 5;
    ListGroups = 16: (0, 5), flexible from 3;
    SaslHandshake = 17: (0, 1), flexible from 99, asked = Asked::Always;
    ApiVersions = 18: (0, 4), flexible from 3, asked = Asked::Always;
    CreateTopics = 19: (2, 7), flexible from 5;
    DeleteTopics = 20: (1, 6), flexible from 4;
    DeleteRecords = 21: (0, 2), flexible from 2;
    InitProducerId = 22: (0, 5), flexible from 2;
    OffsetForLeaderEpoch = 23: (2, 4), flexible from 4;
    DescribeAcls = 29: (1, 3), flexible from 2;
    CreateAcls = 30: (1, 3), flexible from 2;
    DeleteAcls = 31: (1, 3), flexible from 2;
    DescribeConfigs = 32: (1, 4), flexible from 4;
    AlterConfigs = 33: (0, 2), flexible from 2;
    DescribeLogDirs = 35: (1, 4), flexible from 2;
    SaslAuthenticate = 36: (0, 2), flexible from 2, asked = Asked::Always;
    CreatePartitions = 37: (0, 3), flexible from 2;
    DeleteGroups = 42: (0, 2), flexible from 2;
    ElectLeaders = 43: (0, 2), flexible from 2;
    IncrementalAlterConfigs = 44: (0, 1), flexible from 1;
    ListPartitionReassignments = 46: (0, 0), flexible from 0;
    OffsetDelete = 47: (0, 0), flexible from 1;
    DescribeClientQuotas = 48: (0, 1), flexible from 1;
    AlterClientQuotas = 49: (0, 1), flexible from 1;
    DescribeUserScramCredentials = 50: (0, 0), flexible from 0;
    AlterUserScramCredentials = 51: (0, 0), flexible from 0;
    DescribeCluster = 60: (0, 1), flexible from 0;
    DescribeProducers = 61: (0, 0), flexible from 0;
}

/// The API with that key; none where it is not spoken.
pub(crate) fn row(key: i16) -> Option<&'static Row> {
    APIS.iter().find(|row| row.key.code() == key)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ApiKey;

    use super::*;

    #[test]
    fn keys_names_and_shapes_are_kafkas() {
        for row in APIS {
            let key = row.key.code();
            let theirs = ApiKey::try_from(key).unwrap();
            assert_eq!(format!("{theirs:?}"), row.key.name());
            for version in row.served_from..=row.newest {
                let is_flexible = theirs.request_header_version(version) == 2;
                assert_eq!(
                    row.shape(version).is_flexible,
                    is_flexible,
                    "{row:?} {version}"
                );
            }
        }
        assert!(APIS.is_sorted_by_key(|row| row.key.code()));
    }

    #[test]
    fn the_page_has_the_table() {
        let page = include_str!("../../docs/kafka-support.md");
        let of_page: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
            .filter(|line| line.starts_with(|first: char| first.is_ascii_digit()))
            .collect();
        let line = |row: &Row| {
            let Row {
                key,
                oldest,
                newest,
                ..
            } = row;
            let versions = match oldest == newest {
                true => oldest.to_string(),
                false => format!("{oldest}-{newest}"),
            };
            format!("{} | {} | {versions}", key.code(), key.name())
        };
        assert_eq!(of_page, APIS.iter().map(line).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_advertised_holds_what_is_served() {
        for row in APIS {
            assert!(
                row.oldest <= row.served_from && row.served_from <= row.newest,
                "{row:?}"
            );
        }
    }
}
