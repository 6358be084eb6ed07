//! Kafka's error codes: how an answer says what was wrong.

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)+) => {
        /// A code of an answer, by Kafka's name and number.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $code,)+
        }

        impl ErrorCode {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name,)+];

            /// The other one, where all is well by this one.
            pub(crate) fn or(self, other: Self) -> Self {
                if self == Self::None { other } else { self }
            }

            /// Its number.
            pub fn code(self) -> i16 {
                match self {
                    $(Self::$name => $code,)+
                }
            }
        }
    };
}

error_codes! {
    /// Wardent's own fault.
    UnknownServerError = -1,
    /// All is well.
    None = 0,
    /// There is no such offset, or not any more.
    OffsetOutOfRange = 1,
    /// The records are not whole, or not as their checksum says.
    CorruptMessage = 2,
    /// No such topic or partition, or nobody who asks may know of it.
    UnknownTopicOrPartition = 3,
    /// The topic is being made.
    LeaderNotAvailable = 5,
    /// The partition went away.
    NotLeaderOrFollower = 6,
    /// It was not done in the time that the request gave.
    RequestTimedOut = 7,
    /// Longer than `max.message.bytes`.
    MessageTooLarge = 10,
    /// A committed offset's metadata is longer than 4 KiB.
    OffsetMetadataTooLarge = 12,
    /// Groups are being read from the log.
    CoordinatorLoadInProgress = 14,
    /// No coordinator, for now.
    CoordinatorNotAvailable = 15,
    /// Another broker's group.
    NotCoordinator = 16,
    /// No name of a topic.
    InvalidTopicException = 17,
    /// `acks` is neither 0, 1 nor -1.
    InvalidRequiredAcks = 21,
    /// Of another generation of the group.
    IllegalGeneration = 22,
    /// The group's members have another protocol.
    InconsistentGroupProtocol = 23,
    /// No name of a group.
    InvalidGroupId = 24,
    /// Not a member, or not any more.
    UnknownMemberId = 25,
    /// Shorter or longer than a session may be.
    InvalidSessionTimeout = 26,
    /// The group rebalances: join again.
    RebalanceInProgress = 27,
    /// More offsets than there is room for.
    InvalidCommitOffsetSize = 28,
    /// May not do this with the topic.
    TopicAuthorizationFailed = 29,
    /// May not do this with the group.
    GroupAuthorizationFailed = 30,
    /// May not do this.
    ClusterAuthorizationFailed = 31,
    /// A record's time is out of bounds.
    InvalidTimestamp = 32,
    /// No such mechanism here.
    UnsupportedSaslMechanism = 33,
    /// Not now: log in first, or only once.
    IllegalSaslState = 34,
    /// Not spoken in this version.
    UnsupportedVersion = 35,
    /// There is a topic of that name.
    TopicAlreadyExists = 36,
    /// Not so many partitions.
    InvalidPartitions = 37,
    /// There is one broker only.
    InvalidReplicationFactor = 38,
    /// There is one broker only.
    InvalidReplicaAssignment = 39,
    /// Not a value of that configuration.
    InvalidConfig = 40,
    /// Another broker decides that.
    NotController = 41,
    /// It cannot be meant so.
    InvalidRequest = 42,
    /// The log's format does not have that.
    UnsupportedForMessageFormat = 43,
    /// Against a bound.
    PolicyViolation = 44,
    /// A record before this one is missing.
    OutOfOrderSequenceNumber = 45,
    /// Another producer took this one's place.
    InvalidProducerEpoch = 47,
    /// Not in this state of a transaction.
    InvalidTxnState = 48,
    /// The transactional id has no such producer.
    InvalidProducerIdMapping = 49,
    /// May not use that transactional id.
    TransactionalIdAuthorizationFailed = 53,
    /// Users and their rights come with SASL.
    SecurityDisabled = 54,
    /// Not tried, since something else of the request failed.
    OperationNotAttempted = 55,
    /// The disk failed or is full.
    KafkaStorageError = 56,
    /// No such directory.
    LogDirNotFound = 57,
    /// Not that user, or not that password.
    SaslAuthenticationFailed = 58,
    /// Nothing is known of that producer.
    UnknownProducerId = 59,
    /// The group has members.
    NonEmptyGroup = 68,
    /// No such group.
    GroupIdNotFound = 69,
    /// Fetch sessions are not kept.
    FetchSessionIdNotFound = 70,
    /// Not of this fetch session.
    InvalidFetchSessionEpoch = 71,
    /// Of an earlier leader: ask anew where it is.
    FencedLeaderEpoch = 74,
    /// Of a leader that is not known here.
    UnknownLeaderEpoch = 75,
    /// Not compressed in a way that is read here.
    UnsupportedCompressionType = 76,
    /// Join again with this member id.
    MemberIdRequired = 79,
    /// The partition has the leader that it should have.
    PreferredLeaderNotAvailable = 80,
    /// The group has as many members as it may have.
    GroupMaxSizeReached = 81,
    /// Another member took this one's place.
    FencedInstanceId = 82,
    /// The partition has no other leader.
    EligibleLeadersNotAvailable = 83,
    /// The partition has a leader.
    ElectionNotNeeded = 84,
    /// Nothing is being moved.
    NoReassignmentInProgress = 85,
    /// The group reads that topic.
    GroupSubscribedToTopic = 86,
    /// A record is not as the topic wants it.
    InvalidRecord = 87,
    /// More than the quota.
    ThrottlingQuotaExceeded = 89,
    /// A newer producer has its transactional id.
    ProducerFenced = 90,
    /// No such user.
    ResourceNotFound = 91,
    /// Named twice.
    DuplicateResource = 92,
    /// Not a credential that is taken.
    UnacceptableCredential = 93,
    /// No topic of that id.
    UnknownTopicId = 100,
    /// The topic of that name has another id.
    InconsistentTopicId = 103,
    /// No such transactional id.
    TransactionalIdNotFound = 105,
    /// Asks for controllers where brokers answer.
    MismatchedEndpointType = 114,
    /// Neither brokers nor controllers.
    UnsupportedEndpointType = 115,
}

#[cfg(test)]
mod tests {
    use kafka_protocol::ResponseError;

    use super::*;

    /// In Kafka's spelling: `OFFSET_OUT_OF_RANGE` as `OffsetOutOfRange`.
    #[test]
    fn numbers_and_names_are_kafkas() {
        for code in ErrorCode::ALL
            .iter()
            .filter(|code| **code != ErrorCode::None)
        {
            let theirs = ResponseError::try_from_code(code.code()).unwrap();
            assert_eq!(format!("{code:?}"), format!("{theirs:?}"));
        }
    }
}
