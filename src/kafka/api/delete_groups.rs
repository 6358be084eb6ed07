//! DeleteGroups (key 42): groups without members go, and all that they have committed (KIP-229).

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    wire::{Malformed, Reader, Writer},
};

/// Groups.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    groups: Vec<String>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let groups = from.array(Reader::string)?;
        from.tags()?;
        Ok(Self { groups })
    }
}

/// What became of them.
#[derive(Debug)]
pub(super) struct Response {
    groups: Vec<(String, ErrorCode)>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.array(&self.groups, |to, (group, error)| {
            to.string(group);
            to.i16(error.code());
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let error = match call.may(Operation::Delete, Resource::Group(&group)) {
            true => call.broker.groups.delete(group.clone()).await,
            false => ErrorCode::GroupAuthorizationFailed,
        };
        groups.push((group, error));
    }
    Response { groups }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId},
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read_and_answers_written() {
        for version in oracle::versions(Key::DeleteGroups) {
            let group = GroupId(StrBytes::from_static_str("g"));
            let theirs = DeleteGroupsRequest::default().with_groups_names(vec![group]);
            let ours = oracle::read(Key::DeleteGroups, version, &theirs, Request::read);
            assert_eq!(ours.groups, ["g"]);
            let response = Response {
                groups: vec![("g".to_owned(), ErrorCode::NonEmptyGroup)],
            };
            let write = |to: &mut Writer| response.write(to);
            let read: DeleteGroupsResponse = oracle::written(Key::DeleteGroups, version, write);
            assert_eq!(
                (
                    read.results[0].group_id.as_str(),
                    read.results[0].error_code
                ),
                ("g", 68)
            );
        }
    }
}
