//! Who may do what.
//!
//! Where nobody logs in, everybody may read everything, commit offsets, and write and administer topics of
//! their own; what is Wardent's is changed by Wardent alone.

use std::fmt;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Anybody, where nobody logs in.
    Anonymous,
    /// Who has logged in by this name.
    User(String),
}

impl fmt::Display for Principal {
    /// As Kafka tells it: `User:alice`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("User:ANONYMOUS"),
            Self::User(name) => write!(f, "User:{name}"),
        }
    }
}

/// What may be done with something (Kafka's `AclOperation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Read records, or join a group.
    Read,
    /// Write records.
    Write,
    /// Make it.
    Create,
    /// Remove it, or records of it.
    Delete,
    /// Change what it is.
    Alter,
    /// See that it is there.
    Describe,
    /// What brokers ask of each other.
    ClusterAction,
    /// See how it is configured.
    DescribeConfigs,
    /// Change how it is configured.
    AlterConfigs,
    /// Write as an idempotent producer.
    IdempotentWrite,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Write,
        Self::Create,
        Self::Delete,
        Self::Alter,
        Self::Describe,
        Self::ClusterAction,
        Self::DescribeConfigs,
        Self::AlterConfigs,
        Self::IdempotentWrite,
    ];

    /// Its number in Kafka's protocol.
    pub fn code(self) -> i8 {
        match self {
            Self::Read => 3,
            Self::Write => 4,
            Self::Create => 5,
            Self::Delete => 6,
            Self::Alter => 7,
            Self::Describe => 8,
            Self::ClusterAction => 9,
            Self::DescribeConfigs => 10,
            Self::AlterConfigs => 11,
            Self::IdempotentWrite => 12,
        }
    }
}

/// What something is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource<'a> {
    /// A topic, by name.
    Topic(&'a str),
    /// A consumer group, by name.
    Group(&'a str),
    /// This broker.
    Cluster,
    /// A transactional id.
    TransactionalId(&'a str),
}

impl Resource<'_> {
    /// What may be done with such a thing at all.
    pub(crate) fn operations(self) -> &'static [Operation] {
        use Operation as O;
        match self {
            Self::Topic(_) => &[
                O::Read,
                O::Write,
                O::Create,
                O::Delete,
                O::Alter,
                O::Describe,
                O::DescribeConfigs,
                O::AlterConfigs,
            ],
            Self::Group(_) => &[
                O::Read,
                O::Delete,
                O::Describe,
                O::DescribeConfigs,
                O::AlterConfigs,
            ],
            Self::Cluster => &[
                O::Create,
                O::Alter,
                O::Describe,
                O::ClusterAction,
                O::DescribeConfigs,
                O::AlterConfigs,
                O::IdempotentWrite,
            ],
            Self::TransactionalId(_) => &[O::Write, O::Describe],
        }
    }
}

/// Whether a topic is Wardent's own.
pub fn is_reserved(topic: &str) -> bool {
    topic.starts_with("wardent.") || topic.starts_with("__") || topic == "_schemas"
}

/// Whether no client ever writes to a topic, whatever else it may do.
pub(crate) fn is_wardents_alone(topic: &str) -> bool {
    is_reserved(topic) && topic != "_schemas"
}

/// Decides who may do what.
#[derive(Debug, Default)]
pub(crate) struct Authorizer {}

impl Authorizer {
    /// Whether `who` may do this with that.
    pub(crate) fn allows(
        &self,
        _who: &Principal,
        operation: Operation,
        resource: Resource<'_>,
    ) -> bool {
        match resource {
            Resource::Topic(topic) if is_reserved(topic) => matches!(
                operation,
                Operation::Read | Operation::Describe | Operation::DescribeConfigs
            ),
            Resource::Topic(_) | Resource::Group(_) => true,
            Resource::Cluster => matches!(
                operation,
                Operation::Create
                    | Operation::Describe
                    | Operation::DescribeConfigs
                    | Operation::IdempotentWrite
            ),
            Resource::TransactionalId(_) => false,
        }
    }

    /// What `who` may do with something, as the bits that Kafka tells it by.
    pub(crate) fn bits(&self, who: &Principal, resource: Resource<'_>) -> i32 {
        let operations = resource.operations().iter();
        let allowed = operations.filter(|operation| self.allows(who, **operation, resource));
        allowed.fold(0, |bits, operation| bits | 1 << operation.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wardents_is_read_by_all_and_written_by_none() {
        let authorizer = Authorizer::default();
        let may = |operation, topic| {
            authorizer.allows(&Principal::Anonymous, operation, Resource::Topic(topic))
        };
        for topic in ["wardent.http.access", "__consumer_offsets", "_schemas"] {
            assert!(may(Operation::Read, topic) && may(Operation::Describe, topic));
            for operation in [
                Operation::Write,
                Operation::Create,
                Operation::Delete,
                Operation::Alter,
                Operation::AlterConfigs,
            ] {
                assert!(!may(operation, topic), "{operation:?} {topic}");
            }
        }
        assert!(may(Operation::Write, "wardentish") && may(Operation::Delete, "_schemas2"));
    }

    #[test]
    fn bits_are_kafkas() {
        let authorizer = Authorizer::default();
        let bits = |resource| authorizer.bits(&Principal::Anonymous, resource);
        // Read, Describe, DescribeConfigs.
        assert_eq!(
            bits(Resource::Topic("wardent.audit.event")),
            1 << 3 | 1 << 8 | 1 << 10
        );
        assert_eq!(bits(Resource::Topic("mine")), 0b1101_1111_1000);
    }
}
