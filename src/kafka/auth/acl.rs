//! Access control lists, as Kafka has them (KIP-11, KIP-290): who may do what, to what, from where.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Gives an enum Kafka's numbers and names.
macro_rules! coded {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $case:ident = $code:literal $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $case,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$case,)+];

            /// Its number in Kafka's protocol.
            pub(crate) fn code(self) -> i8 {
                match self { $(Self::$case => $code,)+ }
            }

            /// What this number of Kafka's protocol stands for.
            pub(crate) fn of_code(code: i8) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.code() == code)
            }

            /// As Kafka's tools call it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$case => $word,)+ }
            }
        }
    };
}

coded! {
    /// What is done.
    Operation {
        /// Anything.
        All = 2 "all",
        /// Reading records; of a group, being a member and committing offsets.
        Read = 3 "read",
        /// Writing records.
        Write = 4 "write",
        /// Making topics.
        Create = 5 "create",
        /// Removing.
        Delete = 6 "delete",
        /// Changing.
        Alter = 7 "alter",
        /// Seeing that it is there, and how it stands.
        Describe = 8 "describe",
        /// What brokers do among each other.
        ClusterAction = 9 "cluster-action",
        /// Seeing how it is configured.
        DescribeConfigs = 10 "describe-configs",
        /// Configuring it.
        AlterConfigs = 11 "alter-configs",
        /// Writing without duplicates.
        IdempotentWrite = 12 "idempotent-write",
    }
}

coded! {
    /// What kind of thing it is done to.
    ResourceType {
        /// A topic.
        Topic = 2 "topic",
        /// A consumer group.
        Group = 3 "group",
        /// All of it; its name is `kafka-cluster`.
        Cluster = 4 "cluster",
        /// A transactional id.
        TransactionalId = 5 "transactional-id",
        /// A user.
        User = 7 "user",
    }
}

coded! {
    /// How a resource's name is meant.
    PatternType {
        /// As it is; `*` means all.
        Literal = 3 "literal",
        /// As the beginning of names.
        Prefixed = 4 "prefixed",
    }
}

coded! {
    /// Whether it may.
    Permission {
        /// It may not, whatever else is written.
        Deny = 2 "deny",
        /// It may.
        Allow = 3 "allow",
    }
}

/// The name of the one cluster.
pub(crate) const CLUSTER: &str = "kafka-cluster";

/// Every name, every host.
pub(crate) const ANY: &str = "*";

/// Everybody.
pub(crate) const EVERYBODY: &str = "User:*";

/// Bytes of a name at most.
pub(crate) const NAME_BYTES_MAX: usize = 512;

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Acl {
    /// The kind of thing.
    pub resource: ResourceType,
    /// How `name` is meant.
    pub pattern: PatternType,
    /// Its name.
    pub name: String,
    /// Who, as `User:NAME`.
    pub principal: String,
    /// From which address, or `*`.
    pub host: String,
    /// What.
    pub operation: Operation,
    /// Whether it may.
    pub permission: Permission,
}

impl Acl {
    /// Where it is kept: two that differ in anything have different keys.
    pub(crate) fn key(&self) -> String {
        let parts = [
            self.resource.name(),
            self.pattern.name(),
            &self.name,
            &self.principal,
            &self.host,
            self.operation.name(),
            self.permission.name(),
        ];
        let parts = parts.map(|part| part.replace('%', "%25").replace('/', "%2F"));
        format!("acl/{}", parts.join("/"))
    }

    /// Whether it speaks of this resource.
    pub(crate) fn is_about(&self, resource: ResourceType, name: &str) -> bool {
        self.resource == resource
            && match self.pattern {
                PatternType::Literal => self.name == name || self.name == ANY,
                PatternType::Prefixed => name.starts_with(&self.name),
            }
    }

    /// Whether whatever `other` is about, this one is, too.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.resource == other.resource
            && match (self.pattern, other.pattern) {
                (PatternType::Literal, _) if self.name == ANY => true,
                (PatternType::Literal, PatternType::Literal) => self.name == other.name,
                (PatternType::Literal, PatternType::Prefixed) => false,
                (PatternType::Prefixed, _) => other.name.starts_with(&self.name),
            }
    }

    /// What would be right, where it makes no sense.
    ///
    /// # Errors
    /// When Kafka would refuse it, in its words as far as they help.
    pub(crate) fn check(&self) -> Result<(), String> {
        let principal = self.principal.strip_prefix("User:");
        if principal.is_none_or(str::is_empty) {
            return Err("a principal is `User:` and a name".to_owned());
        }
        if self.resource == ResourceType::Cluster && self.name != CLUSTER {
            return Err(format!("the cluster's only name is {CLUSTER}"));
        }
        if self.name.is_empty() {
            return Err("a resource has a name, or `*` for all".to_owned());
        }
        let is_host = self.host == ANY || self.host.parse::<std::net::IpAddr>().is_ok();
        if !is_host {
            return Err("a host is an IP address, or `*` for all".to_owned());
        }
        let longest = self.name.len().max(self.principal.len());
        match longest <= NAME_BYTES_MAX {
            true => Ok(()),
            false => Err(format!("a name has {NAME_BYTES_MAX} bytes at most")),
        }
    }
}

impl fmt::Display for Acl {
    /// `allow read topic orders`, `deny all group prefixed app- from 192.0.2.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (permission, operation) = (self.permission.name(), self.operation.name());
        let pattern = match self.pattern {
            PatternType::Literal => "",
            PatternType::Prefixed => "prefixed ",
        };
        let resource = self.resource.name();
        write!(
            f,
            "{permission} {operation} {resource} {pattern}{}",
            self.name
        )?;
        match self.host.as_str() {
            ANY => Ok(()),
            host => write!(f, " from {host}"),
        }
    }
}

/// Which lines are meant; what is none, is any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) resource: Option<ResourceType>,
    pub(crate) name: Option<String>,
    pub(crate) pattern: PatternFilter,
    pub(crate) principal: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) operation: Option<Operation>,
    pub(crate) permission: Option<Permission>,
}

/// How a filter's name is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatternFilter {
    /// Lines of this name, however they mean it.
    Any,
    /// Lines that are about what has this name.
    Match,
    /// Lines of this name and type.
    Exactly(PatternType),
}

impl Filter {
    /// Reads Kafka's numbers: 1 is any of them.
    ///
    /// # Errors
    /// What is not known.
    pub(crate) fn of_codes(
        (resource, pattern, operation, permission): (i8, i8, i8, i8),
        name: Option<String>,
        principal: Option<String>,
        host: Option<String>,
    ) -> Result<Self, &'static str> {
        const ANY: i8 = 1;
        const MATCH: i8 = 2;
        fn or_any<T>(code: i8, of_code: fn(i8) -> Option<T>) -> Option<Option<T>> {
            match code {
                ANY => Some(None),
                code => of_code(code).map(Some),
            }
        }
        Ok(Self {
            resource: or_any(resource, ResourceType::of_code).ok_or("unknown resource type")?,
            name,
            pattern: match pattern {
                ANY => PatternFilter::Any,
                MATCH => PatternFilter::Match,
                code => PatternType::of_code(code)
                    .map(PatternFilter::Exactly)
                    .ok_or("unknown pattern type")?,
            },
            principal,
            host,
            operation: or_any(operation, Operation::of_code).ok_or("unknown operation")?,
            permission: or_any(permission, Permission::of_code).ok_or("unknown permission")?,
        })
    }

    /// Whether it means this line.
    pub(crate) fn means(&self, acl: &Acl) -> bool {
        fn fits<T: PartialEq + ?Sized>(wanted: Option<&T>, is: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == is)
        }
        let pattern = match self.pattern {
            PatternFilter::Any | PatternFilter::Match => true,
            PatternFilter::Exactly(pattern) => pattern == acl.pattern,
        };
        let name = self.name.as_deref();
        let name = match self.pattern {
            PatternFilter::Match => name.is_none_or(|name| acl.is_about(acl.resource, name)),
            PatternFilter::Any | PatternFilter::Exactly(_) => fits(name, &acl.name),
        };
        fits(self.resource.as_ref(), &acl.resource)
            && pattern
            && name
            && fits(self.principal.as_deref(), &acl.principal)
            && fits(self.host.as_deref(), &acl.host)
            && fits(self.operation.as_ref(), &acl.operation)
            && fits(self.permission.as_ref(), &acl.permission)
    }
}

#[cfg(test)]
pub(in crate::kafka) mod tests {
    use super::*;

    /// `User:me may read topic/literal NAME`, and so on, in the words of the enums.
    pub(in crate::kafka) fn acl(line: &str) -> Acl {
        let words: Vec<_> = line.split(' ').collect();
        let one = |json: &str| format!("\"{json}\"");
        let word = |at: usize| one(words[at]);
        Acl {
            principal: format!("User:{}", words[0]),
            permission: serde_json::from_str(&word(1)).unwrap(),
            operation: serde_json::from_str(&word(2)).unwrap(),
            resource: serde_json::from_str(&word(3)).unwrap(),
            pattern: serde_json::from_str(&word(4)).unwrap(),
            name: words[5].to_owned(),
            host: words.get(6).unwrap_or(&"*").to_string(),
        }
    }

    #[test]
    fn keys_differ_as_the_lines_do() {
        let one = acl("me allow read topic literal a");
        assert_eq!(one.key(), "acl/topic/literal/a/User:me/*/read/allow");
        let two = acl("me allow read group literal a/User:me");
        let three = Acl {
            name: "a".to_owned(),
            principal: "User:me/User:me".to_owned(),
            ..two.clone()
        };
        assert_ne!(two.key(), three.key());
    }

    #[test]
    fn a_line_is_kept_as_json_and_read_again() {
        let one = acl("me deny describe-configs cluster literal kafka-cluster 192.0.2.1");
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(
            json,
            "{\"resource\":\"cluster\",\"pattern\":\"literal\",\"name\":\"kafka-cluster\",\
             \"principal\":\"User:me\",\"host\":\"192.0.2.1\",\"operation\":\"describe-configs\",\
             \"permission\":\"deny\"}"
        );
        assert_eq!(serde_json::from_str::<Acl>(&json).unwrap(), one);
    }

    #[test]
    fn numbers_are_those_of_kafka() {
        let operations: Vec<_> = Operation::ALL.iter().map(|one| one.code()).collect();
        assert_eq!(operations, (2..=12).collect::<Vec<i8>>());
        let resources = ResourceType::ALL.iter().map(|one| one.code());
        assert_eq!(resources.collect::<Vec<_>>(), [2, 3, 4, 5, 7]);
        assert_eq!(PatternType::of_code(4), Some(PatternType::Prefixed));
        assert_eq!(Permission::of_code(2), Some(Permission::Deny));
        assert_eq!(Operation::of_code(1), None);
    }

    #[test]
    fn a_senseless_line_is_refused() {
        let good = acl("me allow read topic literal a");
        assert_eq!(good.check(), Ok(()));
        let bad = |change: fn(&mut Acl)| {
            let mut acl = good.clone();
            change(&mut acl);
            assert!(acl.check().is_err(), "{acl:?}");
        };
        bad(|acl| acl.principal = "me".to_owned());
        bad(|acl| acl.principal = "User:".to_owned());
        bad(|acl| acl.name.clear());
        bad(|acl| acl.name = "x".repeat(513));
        bad(|acl| acl.host = "example.org".to_owned());
        bad(|acl| acl.resource = ResourceType::Cluster);
    }

    #[test]
    fn filters_mean_what_kafkas_mean() {
        let filter = |pattern, name: Option<&str>| {
            let name = name.map(str::to_owned);
            Filter::of_codes((1, pattern, 1, 1), name, None, None).unwrap()
        };
        let literal = acl("me allow read topic literal orders");
        let prefixed = acl("me allow read topic prefixed ord");
        let all = acl("me allow read topic literal *");
        let meant = |filter: &Filter| [&literal, &prefixed, &all].map(|acl| filter.means(acl));
        assert_eq!(meant(&filter(1, None)), [true; 3]);
        assert_eq!(meant(&filter(1, Some("orders"))), [true, false, false]);
        assert_eq!(meant(&filter(2, Some("orders"))), [true; 3]);
        assert_eq!(meant(&filter(2, Some("or"))), [false, false, true]);
        assert_eq!(meant(&filter(3, Some("orders"))), [true, false, false]);
        assert_eq!(meant(&filter(4, None)), [false, true, false]);
        assert_eq!(meant(&filter(4, Some("ord"))), [false, true, false]);
        let of = |codes| Filter::of_codes(codes, None, None, None);
        assert!(of((2, 1, 3, 3)).unwrap().means(&literal));
        assert!(!of((3, 1, 1, 1)).unwrap().means(&literal));
        assert!(!of((1, 1, 4, 1)).unwrap().means(&literal));
        assert!(!of((1, 1, 1, 2)).unwrap().means(&literal));
        assert_eq!(of((9, 1, 1, 1)), Err("unknown resource type"));
        let me = Filter {
            principal: Some("User:you".to_owned()),
            ..filter(1, None)
        };
        assert!(!me.means(&literal));
    }
}
