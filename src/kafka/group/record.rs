//! The records of `__consumer_offsets`, in Kafka's own format, so that tools that read that topic can.
//!
//! Schemas: `OffsetCommitKey` 0 and 1, `OffsetCommitValue` 0 to 3, `GroupMetadataKey` 2 and `GroupMetadataValue`
//! 0 to 3 of Kafka's group-coordinator. Written are key 1 with value 3 and key 2 with value 3, the newest that
//! are not flexible: Burrow 1.2 knows no later ones.

use bytes::Bytes;

use super::ask::{Committed, TopicPartition};
use crate::kafka::wire::{Malformed, Reader, Shape, Writer};

/// None of the versions that are spoken here is flexible.
const SHAPE: Shape = Shape {
    version: 3,
    is_flexible: false,
};
const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const VALUE: i16 = 3;

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Offset(String, TopicPartition),
    Group(String),
}

/// A group as it was when its leader had assigned, or when its last member had left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GroupValue {
    pub(super) protocol_type: String,
    pub(super) generation: i32,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    /// Since when it is in this state, in Unix milliseconds; -1 where that is not known.
    pub(super) since_unix_ms: i64,
    pub(super) members: Vec<MemberValue>,
}

/// A member of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MemberValue {
    pub(super) id: String,
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) host: String,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) subscription: Bytes,
    pub(super) assignment: Bytes,
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), SHAPE);
    write(&mut writer);
    writer.into_bytes()
}

/// The key of a committed offset.
pub(super) fn offset_key(group: &str, of: &TopicPartition) -> Vec<u8> {
    written(|to| {
        to.i16(OFFSET_KEY);
        to.string(group);
        to.string(&of.topic);
        to.i32(of.partition);
    })
}

/// The value of a committed offset.
pub(super) fn offset_value(committed: &Committed) -> Vec<u8> {
    written(|to| {
        to.i16(VALUE);
        to.i64(committed.offset);
        to.i32(committed.leader_epoch);
        to.string(&committed.metadata);
        to.i64(committed.unix_ms);
    })
}

/// The key of a group.
pub(super) fn group_key(group: &str) -> Vec<u8> {
    written(|to| {
        to.i16(GROUP_KEY);
        to.string(group);
    })
}

/// The value of a group.
pub(super) fn group_value(group: &GroupValue) -> Vec<u8> {
    written(|to| {
        to.i16(VALUE);
        to.string(&group.protocol_type);
        to.i32(group.generation);
        to.nullable_string(group.protocol.as_deref());
        to.nullable_string(group.leader.as_deref());
        to.i64(group.since_unix_ms);
        to.array(&group.members, |to, member| {
            to.string(&member.id);
            to.nullable_string(member.instance.as_deref());
            to.string(&member.client_id);
            to.string(&member.host);
            to.i32(member.rebalance_timeout_ms);
            to.i32(member.session_timeout_ms);
            to.bytes(&member.subscription);
            to.bytes(&member.assignment);
        });
    })
}

/// Reads a key; none of a kind that is not known here, which is passed over.
///
/// # Errors
/// When it is of a known kind, and cut off.
pub(super) fn read_key(bytes: &[u8]) -> Result<Option<Key>, Malformed> {
    let mut from = Reader::new(Bytes::copy_from_slice(bytes), SHAPE);
    let key = match from.i16()? {
        0 | OFFSET_KEY => {
            let group = from.string()?;
            let topic = from.string()?;
            let partition = from.i32()?;
            Key::Offset(group, TopicPartition { topic, partition })
        }
        GROUP_KEY => Key::Group(from.string()?),
        _ => return Ok(None),
    };
    from.end()?;
    Ok(Some(key))
}

/// Reads the value of a committed offset.
///
/// # Errors
/// When it is of a version that is not known here, or cut off.
pub(super) fn read_offset(bytes: &[u8]) -> Result<Committed, Malformed> {
    let mut from = Reader::new(Bytes::copy_from_slice(bytes), SHAPE);
    let version = from.i16()?;
    if !(0..=VALUE).contains(&version) {
        return Err(Malformed("an offset of another version"));
    }
    let offset = from.i64()?;
    let leader_epoch = if version >= 3 { from.i32()? } else { -1 };
    let metadata = from.string()?;
    let unix_ms = from.i64()?;
    if version == 1 {
        let _expires = from.i64()?;
    }
    from.end()?;
    Ok(Committed {
        offset,
        leader_epoch,
        metadata,
        unix_ms,
    })
}

/// Reads the value of a group.
///
/// # Errors
/// When it is of a version that is not known here, or cut off.
pub(super) fn read_group(bytes: &[u8]) -> Result<GroupValue, Malformed> {
    let mut from = Reader::new(Bytes::copy_from_slice(bytes), SHAPE);
    let version = from.i16()?;
    if !(0..=VALUE).contains(&version) {
        return Err(Malformed("a group of another version"));
    }
    let group = GroupValue {
        protocol_type: from.string()?,
        generation: from.i32()?,
        protocol: from.nullable_string()?,
        leader: from.nullable_string()?,
        since_unix_ms: if version >= 2 { from.i64()? } else { -1 },
        members: from.array(|from| read_member(from, version))?,
    };
    from.end()?;
    Ok(group)
}

fn read_member(from: &mut Reader, version: i16) -> Result<MemberValue, Malformed> {
    let id = from.string()?;
    let instance = if version >= 3 {
        from.nullable_string()?
    } else {
        None
    };
    let (client_id, host) = (from.string()?, from.string()?);
    let rebalance_timeout_ms = if version >= 1 {
        Some(from.i32()?)
    } else {
        None
    };
    let session_timeout_ms = from.i32()?;
    Ok(MemberValue {
        id,
        instance,
        client_id,
        host,
        rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription: from.bytes()?,
        assignment: from.bytes()?,
    })
}

/// The partition that a group's records go to: Java's `String.hashCode`, without its sign, of so many.
pub(crate) fn partition_of(group: &str, partitions: u32) -> u32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    (hash.cast_unsigned() & 0x7fff_ffff) % partitions.max(1)
}

/// The topics that a consumer subscribes to (`ConsumerProtocolSubscription`); none where its metadata is not
/// that of a consumer.
pub(super) fn subscribed_topics(metadata: &Bytes) -> Option<Vec<String>> {
    let mut from = Reader::new(metadata.clone(), SHAPE);
    let version = from.i16().ok()?;
    (version >= 0).then(|| from.array(Reader::string).ok())?
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut as _, BytesMut};
    use kafka_protocol::{
        messages::ConsumerProtocolSubscription,
        protocol::{Encodable as _, StrBytes},
    };

    use super::*;

    fn of(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: topic.to_owned(),
            partition,
        }
    }

    #[test]
    fn offsets_are_written_as_kafka_writes_them() {
        // Version, "g", "t", 1; version, offset 7, epoch -1, "m", a time.
        let key = b"\0\x01\0\x01g\0\x01t\0\0\0\x01";
        let value = b"\0\x03\0\0\0\0\0\0\0\x07\xff\xff\xff\xff\0\x01m\0\0\0\0\0\0\x01\x2c";
        let committed = Committed {
            offset: 7,
            leader_epoch: -1,
            metadata: "m".to_owned(),
            unix_ms: 300,
        };
        assert_eq!(offset_key("g", &of("t", 1)), key);
        assert_eq!(offset_value(&committed), value);
        let read = Key::Offset("g".to_owned(), of("t", 1));
        assert_eq!(read_key(key).unwrap(), Some(read));
        assert_eq!(read_offset(value).unwrap(), committed);
    }

    #[test]
    fn older_offsets_are_read() {
        for (version, tail) in [(0, 0), (1, 8), (2, 0)] {
            let mut bytes = BytesMut::new();
            bytes.put_i16(version);
            bytes.put_i64(9);
            bytes.put_slice(b"\0\x01m");
            bytes.put_i64(11);
            bytes.put_bytes(0, tail);
            let read = read_offset(&bytes).unwrap();
            assert_eq!((read.offset, read.leader_epoch, read.unix_ms), (9, -1, 11));
        }
    }

    #[test]
    fn a_group_comes_back() {
        let group = GroupValue {
            protocol_type: "consumer".to_owned(),
            generation: 3,
            protocol: Some("range".to_owned()),
            leader: Some("m1".to_owned()),
            since_unix_ms: 1_795_000_000_000,
            members: vec![MemberValue {
                id: "m1".to_owned(),
                instance: Some("i".to_owned()),
                client_id: "c".to_owned(),
                host: "/127.0.0.1".to_owned(),
                rebalance_timeout_ms: 300_000,
                session_timeout_ms: 10_000,
                subscription: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b"ass"),
            }],
        };
        assert_eq!(read_group(&group_value(&group)).unwrap(), group);
        assert_eq!(
            read_key(&group_key("g")).unwrap(),
            Some(Key::Group("g".to_owned()))
        );
    }

    #[test]
    fn what_a_later_kafka_writes_is_passed_over_or_refused() {
        // A record of the new protocol's groups (KIP-848).
        assert_eq!(read_key(b"\0\x03\0\x01g").unwrap(), None);
        read_offset(b"\0\x04\0\0\0\0\0\0\0\x07").unwrap_err();
        read_group(b"\0\x04").unwrap_err();
        read_key(b"\0\x01\0\x05g").unwrap_err();
    }

    #[test]
    fn groups_are_spread_as_java_spreads_them() {
        // `"connect-cluster".hashCode()` and others, by Java: abc 96354, "polygenelubricants" i32::MIN.
        assert_eq!(partition_of("abc", 50), 96_354 % 50);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert_eq!(partition_of("", 4), 0);
        assert_eq!(partition_of("hello", 4), 99_162_322 % 4);
    }

    #[test]
    fn what_a_consumer_subscribes_to_is_read_and_nothing_else() {
        let mut bytes = BytesMut::new();
        let mut theirs = ConsumerProtocolSubscription::default();
        theirs.topics = vec![
            StrBytes::from_static_str("a"),
            StrBytes::from_static_str("b"),
        ];
        bytes.put_i16(1);
        theirs.encode(&mut bytes, 1).unwrap();
        assert_eq!(
            subscribed_topics(&bytes.freeze()).unwrap(),
            ["a".to_owned(), "b".to_owned()]
        );
        assert_eq!(subscribed_topics(&Bytes::from_static(b"\0")), None);
        assert_eq!(subscribed_topics(&Bytes::new()), None);
    }
}
