//! SyncGroup (key 14): a member asks for its assignment; the leader brings everybody's (KIP-62, KIP-559).

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    group::{Sync, Synced, Who},
    wire::{Malformed, Reader, Writer},
};

/// Who asks, and what it brings.
#[derive(Debug)]
pub(super) struct Request(Sync);

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let version = from.version();
        let group = from.string()?;
        let generation = from.i32()?;
        let member = from.string()?;
        let instance = if version >= 3 {
            from.nullable_string()?
        } else {
            None
        };
        let (mut protocol_type, mut protocol) = (None, None);
        if version >= 5 {
            protocol_type = from.nullable_string()?;
            protocol = from.nullable_string()?;
        }
        let assignments = from.array(|from| {
            let assignment = (from.string()?, from.bytes()?);
            from.tags()?;
            Ok(assignment)
        })?;
        from.tags()?;
        Ok(Self(Sync {
            group,
            generation,
            who: Who { member, instance },
            protocol_type,
            protocol,
            assignments,
        }))
    }
}

/// What it is to work on.
#[derive(Debug)]
pub(super) struct Response(Synced);

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        let (version, synced) = (to.version(), &self.0);
        if version >= 1 {
            // Throttle time.
            to.i32(0);
        }
        to.i16(synced.error.code());
        if version >= 5 {
            to.nullable_string(synced.protocol_type.as_deref());
            to.nullable_string(synced.protocol.as_deref());
        }
        to.bytes(&synced.assignment);
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let Request(sync) = request;
    let synced = match call.may(Operation::Read, Resource::Group(&sync.group)) {
        true => call.broker.groups.sync(sync).await,
        false => Synced::refused(ErrorCode::GroupAuthorizationFailed),
    };
    Response(synced)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::{
        messages::{
            GroupId, SyncGroupRequest, SyncGroupResponse,
            sync_group_request::SyncGroupRequestAssignment,
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::SyncGroup) {
            let text = StrBytes::from_static_str;
            let assignment = SyncGroupRequestAssignment::default()
                .with_member_id(text("m"))
                .with_assignment(Bytes::from_static(b"work"));
            let mut theirs = SyncGroupRequest::default()
                .with_group_id(GroupId(text("g")))
                .with_generation_id(7)
                .with_member_id(text("m"))
                .with_assignments(vec![assignment]);
            if version >= 3 {
                theirs = theirs.with_group_instance_id(Some(text("i")));
            }
            if version >= 5 {
                theirs = theirs
                    .with_protocol_type(Some(text("consumer")))
                    .with_protocol_name(Some(text("range")));
            }
            let Request(ours) = oracle::read(Key::SyncGroup, version, &theirs, Request::read);
            let since = |from: i16, text: &str| (version >= from).then(|| text.to_owned());
            let expected = Sync {
                group: "g".to_owned(),
                generation: 7,
                who: Who {
                    member: "m".to_owned(),
                    instance: since(3, "i"),
                },
                protocol_type: since(5, "consumer"),
                protocol: since(5, "range"),
                assignments: vec![("m".to_owned(), Bytes::from_static(b"work"))],
            };
            assert_eq!(ours, expected);
        }
    }

    #[test]
    fn answers_are_written() {
        let synced = Synced {
            error: ErrorCode::None,
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("range".to_owned()),
            assignment: Bytes::from_static(b"work"),
        };
        for version in oracle::versions(Key::SyncGroup) {
            let write = |to: &mut Writer| Response(synced.clone()).write(to);
            let read: SyncGroupResponse = oracle::written(Key::SyncGroup, version, write);
            assert_eq!((read.error_code, read.assignment), (0, "work".into()));
            assert_eq!(read.protocol_name.is_some(), version >= 5);
        }
    }
}
