//! JoinGroup (key 11): a consumer wants to be part of its group's next generation (KIP-62, KIP-345, KIP-394).

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    group::{Join, Joined, Who},
    wire::{Malformed, Reader, Writer},
};

/// Who joins, and what it can do.
#[derive(Debug)]
pub(super) struct Request(Join);

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let version = from.version();
        let group = from.string()?;
        let session_timeout_ms = from.i32()?;
        let rebalance_timeout_ms = if version >= 1 {
            from.i32()?
        } else {
            session_timeout_ms
        };
        let member = from.string()?;
        let instance = if version >= 5 {
            from.nullable_string()?
        } else {
            None
        };
        let protocol_type = from.string()?;
        let protocols = from.array(|from| {
            let protocol = (from.string()?, from.bytes()?);
            from.tags()?;
            Ok(protocol)
        })?;
        if version >= 8 {
            let _reason = from.nullable_string()?;
        }
        from.tags()?;
        Ok(Self(Join {
            group,
            who: Who { member, instance },
            client_id: String::new(),
            host: String::new(),
            session_timeout_ms,
            rebalance_timeout_ms,
            protocol_type,
            protocols,
            needs_known_id: version >= 4,
            can_skip_assignment: version >= 9,
        }))
    }
}

/// The generation that it is part of.
#[derive(Debug)]
pub(super) struct Response(Joined);

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        let (version, joined) = (to.version(), &self.0);
        if version >= 2 {
            // Throttle time.
            to.i32(0);
        }
        to.i16(joined.error.code());
        to.i32(joined.generation);
        if version >= 7 {
            to.nullable_string(joined.protocol_type.as_deref());
            to.nullable_string(joined.protocol.as_deref());
        } else {
            to.string(joined.protocol.as_deref().unwrap_or_default());
        }
        to.string(&joined.leader);
        if version >= 9 {
            to.bool(joined.skip_assignment);
        }
        to.string(&joined.member);
        to.array(&joined.members, |to, member| {
            to.string(&member.who.member);
            if version >= 5 {
                to.nullable_string(member.who.instance.as_deref());
            }
            to.bytes(&member.metadata);
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let Request(mut join) = request;
    if !call.may(Operation::Read, Resource::Group(&join.group)) {
        let error = ErrorCode::GroupAuthorizationFailed;
        return Response(Joined::refused(&join.who.member, error));
    }
    join.client_id.clone_from(&call.session.client_id.borrow());
    join.host = call
        .session
        .peer
        .map_or_else(|| "/".to_owned(), |peer| format!("/{peer}"));
    Response(call.broker.groups.join(join).await)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::{
        messages::{
            GroupId, JoinGroupRequest, JoinGroupResponse,
            join_group_request::JoinGroupRequestProtocol,
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{group::JoinedMember, table::Key, wire::oracle};

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::JoinGroup) {
            let text = StrBytes::from_static_str;
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(b"meta"));
            let mut theirs = JoinGroupRequest::default()
                .with_group_id(GroupId(text("g")))
                .with_session_timeout_ms(10_000)
                .with_member_id(text("m"))
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol]);
            if version >= 1 {
                theirs = theirs.with_rebalance_timeout_ms(20_000);
            }
            if version >= 5 {
                theirs = theirs.with_group_instance_id(Some(text("i")));
            }
            if version >= 8 {
                theirs = theirs.with_reason(Some(text("why")));
            }
            let Request(ours) = oracle::read(Key::JoinGroup, version, &theirs, Request::read);
            let expected = Join {
                group: "g".to_owned(),
                who: Who {
                    member: "m".to_owned(),
                    instance: (version >= 5).then(|| "i".to_owned()),
                },
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: if version >= 1 { 20_000 } else { 10_000 },
                protocol_type: "consumer".to_owned(),
                protocols: vec![("range".to_owned(), Bytes::from_static(b"meta"))],
                needs_known_id: version >= 4,
                can_skip_assignment: version >= 9,
                ..Join::default()
            };
            assert_eq!(ours, expected);
        }
    }

    #[test]
    fn answers_are_written() {
        let member = JoinedMember {
            who: Who {
                member: "m".to_owned(),
                instance: Some("i".to_owned()),
            },
            metadata: Bytes::from_static(b"meta"),
        };
        let joined = Joined {
            error: ErrorCode::None,
            generation: 7,
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("range".to_owned()),
            leader: "m".to_owned(),
            skip_assignment: true,
            member: "m2".to_owned(),
            members: vec![member],
        };
        for version in oracle::versions(Key::JoinGroup) {
            let write = |to: &mut Writer| Response(joined.clone()).write(to);
            let read: JoinGroupResponse = oracle::written(Key::JoinGroup, version, write);
            assert_eq!((read.error_code, read.generation_id), (0, 7));
            assert_eq!((read.leader.as_str(), read.member_id.as_str()), ("m", "m2"));
            assert_eq!(read.protocol_name.unwrap().as_str(), "range");
            assert_eq!(read.protocol_type.is_some(), version >= 7);
            assert_eq!(read.skip_assignment, version >= 9);
            assert_eq!(read.members[0].metadata, "meta");
            assert_eq!(read.members[0].group_instance_id.is_some(), version >= 5);
            // In older versions what is not there is empty, and not null.
            let refused = Joined::refused("m", ErrorCode::UnknownMemberId);
            let write = |to: &mut Writer| Response(refused).write(to);
            let read: JoinGroupResponse = oracle::written(Key::JoinGroup, version, write);
            assert_eq!((read.error_code, read.generation_id), (25, -1));
        }
    }
}
