//! DescribeGroups (key 15): groups, their members and what those work on.

use std::collections::HashSet;

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    group::Described,
    wire::{Malformed, Reader, Writer},
};

/// What stands for rights that were not asked for.
const NOT_ASKED: i32 = i32::MIN;

/// Groups.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    groups: Vec<String>,
    wants_rights: bool,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let groups = from.array(Reader::string)?;
        let wants_rights = from.version() >= 3 && from.bool()?;
        from.tags()?;
        Ok(Self {
            groups,
            wants_rights,
        })
    }
}

/// What there is of them.
#[derive(Debug)]
pub(super) struct Response {
    groups: Vec<Told>,
}

#[derive(Debug)]
struct Told {
    error: ErrorCode,
    group: String,
    described: Described,
    rights: i32,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        if to.version() >= 1 {
            // Throttle time.
            to.i32(0);
        }
        to.array(&self.groups, Told::write);
        to.tags();
    }
}

impl Told {
    fn write(to: &mut Writer, told: &Self) {
        let (version, described) = (to.version(), &told.described);
        // Only since version 6 it is an error that there is no such group (KIP-1043).
        let is_missing = told.error == ErrorCode::GroupIdNotFound;
        let error = if is_missing && version < 6 {
            ErrorCode::None
        } else {
            told.error
        };
        to.i16(error.code());
        if version >= 6 {
            let message = is_missing.then(|| format!("Group {} not found.", told.group));
            to.nullable_string(message.as_deref());
        }
        to.string(&told.group);
        to.string(described.state);
        to.string(&described.protocol_type);
        to.string(&described.protocol);
        to.array(&described.members, |to, member| {
            to.string(&member.id);
            if version >= 4 {
                to.nullable_string(member.instance.as_deref());
            }
            to.string(&member.client_id);
            to.string(&member.host);
            to.bytes(&member.metadata);
            to.bytes(&member.assignment);
            to.tags();
        });
        if version >= 3 {
            to.i32(told.rights);
        }
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let mut seen = HashSet::new();
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let found = match call.may(Operation::Describe, Resource::Group(&group)) {
            _ if !seen.insert(group.clone()) => Err(ErrorCode::InvalidRequest),
            true => {
                call.broker
                    .groups
                    .describe(group.clone(), call.session)
                    .await
            }
            false => Err(ErrorCode::GroupAuthorizationFailed),
        };
        let wants_rights = request.wants_rights && found.is_ok();
        let rights = match wants_rights {
            true => call.bits(Resource::Group(&group)),
            false => NOT_ASKED,
        };
        let (error, described) = match found {
            Ok(Some(described)) => (ErrorCode::None, described),
            Ok(None) => (ErrorCode::GroupIdNotFound, Described::dead()),
            Err(error) => (error, Described::unknown()),
        };
        groups.push(Told {
            error,
            group,
            described,
            rights,
        });
    }
    Response { groups }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::{
        messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId},
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{group::DescribedMember, table::Key, wire::oracle};

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::DescribeGroups) {
            let group = GroupId(StrBytes::from_static_str("g"));
            let mut theirs = DescribeGroupsRequest::default().with_groups(vec![group]);
            if version >= 3 {
                theirs = theirs.with_include_authorized_operations(true);
            }
            let ours = oracle::read(Key::DescribeGroups, version, &theirs, Request::read);
            let expected = Request {
                groups: vec!["g".to_owned()],
                wants_rights: version >= 3,
            };
            assert_eq!(ours, expected);
        }
    }

    #[test]
    fn answers_are_written() {
        let member = DescribedMember {
            id: "m".to_owned(),
            instance: Some("i".to_owned()),
            client_id: "c".to_owned(),
            host: "/127.0.0.1".to_owned(),
            metadata: Bytes::from_static(b"meta"),
            assignment: Bytes::from_static(b"work"),
        };
        let described = Described {
            state: "Stable",
            protocol_type: "consumer".to_owned(),
            protocol: "range".to_owned(),
            members: vec![member],
        };
        let told = |error, described| Told {
            error,
            group: "g".to_owned(),
            described,
            rights: 8,
        };
        let response = Response {
            groups: vec![
                told(ErrorCode::None, described),
                told(ErrorCode::GroupIdNotFound, Described::dead()),
            ],
        };
        for version in oracle::versions(Key::DescribeGroups) {
            let write = |to: &mut Writer| response.write(to);
            let read: DescribeGroupsResponse = oracle::written(Key::DescribeGroups, version, write);
            let (group, dead) = (&read.groups[0], &read.groups[1]);
            assert_eq!(
                (group.error_code, group.group_state.as_str()),
                (0, "Stable")
            );
            assert_eq!(group.protocol_data.as_str(), "range");
            assert_eq!(group.members[0].member_metadata, "meta");
            assert_eq!(group.members[0].member_assignment, "work");
            assert_eq!(group.members[0].group_instance_id.is_some(), version >= 4);
            assert_eq!(
                group.authorized_operations,
                if version >= 3 { 8 } else { NOT_ASKED }
            );
            assert_eq!(dead.group_state.as_str(), "Dead");
            assert_eq!(dead.error_code, if version >= 6 { 69 } else { 0 });
        }
    }
}
