//! LeaveGroup (key 13): members leave, or an administrator has static ones leave (KIP-345).

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    group::{Leave, Who},
    wire::{Malformed, Reader, Writer},
};

/// Who leaves.
#[derive(Debug)]
pub(super) struct Request(Leave);

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let version = from.version();
        let group = from.string()?;
        let members = if version <= 2 {
            let member = from.string()?;
            vec![Who {
                member,
                instance: None,
            }]
        } else {
            from.array(|from| {
                let who = Who {
                    member: from.string()?,
                    instance: from.nullable_string()?,
                };
                if version >= 5 {
                    let _reason = from.nullable_string()?;
                }
                from.tags()?;
                Ok(who)
            })?
        };
        from.tags()?;
        Ok(Self(Leave { group, members }))
    }
}

/// Who has left.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
    members: Vec<(Who, ErrorCode)>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        let version = to.version();
        if version >= 1 {
            // Throttle time.
            to.i32(0);
        }
        if version >= 3 {
            to.i16(self.error.code());
            to.array(&self.members, |to, (who, error)| {
                to.string(&who.member);
                to.nullable_string(who.instance.as_deref());
                to.i16(error.code());
                to.tags();
            });
        } else {
            let own = self.members.first().map(|(_, error)| *error);
            let error = self.error.or(own.unwrap_or(ErrorCode::None));
            to.i16(error.code());
        }
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let Request(leave) = request;
    let members = leave.members.clone();
    let (error, codes) = match call.may(Operation::Read, Resource::Group(&leave.group)) {
        true => call.broker.groups.leave(leave).await,
        false => (ErrorCode::GroupAuthorizationFailed, Vec::new()),
    };
    Response {
        error,
        members: members.into_iter().zip(codes).collect(),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            GroupId, LeaveGroupRequest, LeaveGroupResponse, leave_group_request::MemberIdentity,
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read_and_answers_written() {
        for version in oracle::versions(Key::LeaveGroup) {
            let text = StrBytes::from_static_str;
            let mut theirs = LeaveGroupRequest::default().with_group_id(GroupId(text("g")));
            if version >= 3 {
                let mut member = MemberIdentity::default()
                    .with_member_id(text("m"))
                    .with_group_instance_id(Some(text("i")));
                if version >= 5 {
                    member = member.with_reason(Some(text("why")));
                }
                theirs = theirs.with_members(vec![member]);
            } else {
                theirs = theirs.with_member_id(text("m"));
            }
            let Request(ours) = oracle::read(Key::LeaveGroup, version, &theirs, Request::read);
            let who = Who {
                member: "m".to_owned(),
                instance: (version >= 3).then(|| "i".to_owned()),
            };
            let members = vec![who.clone()];
            let group = "g".to_owned();
            assert_eq!(ours, Leave { group, members });
            let response = Response {
                error: ErrorCode::None,
                members: vec![(who, ErrorCode::UnknownMemberId)],
            };
            let write = |to: &mut Writer| response.write(to);
            let read: LeaveGroupResponse = oracle::written(Key::LeaveGroup, version, write);
            if version >= 3 {
                assert_eq!((read.error_code, read.members[0].error_code), (0, 25));
            } else {
                assert_eq!(read.error_code, 25);
            }
        }
    }
}
