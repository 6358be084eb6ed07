//! ListGroups (key 16): which groups there are, by state and kind if asked for (KIP-518, KIP-848).

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    group::Listed,
    wire::{Malformed, Reader, Writer},
};

/// The one kind of groups that there is here.
const CLASSIC: &str = "classic";

/// States and kinds; none of them for all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    states: Vec<String>,
    kinds: Vec<String>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let mut request = Self::default();
        if from.version() >= 4 {
            request.states = from.array(Reader::string)?;
        }
        if from.version() >= 5 {
            request.kinds = from.array(Reader::string)?;
        }
        from.tags()?;
        Ok(request)
    }

    fn wants(&self, group: &Listed) -> bool {
        let has = |names: &[String], own: &str| {
            names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(own))
        };
        has(&self.states, group.state) && has(&self.kinds, CLASSIC)
    }
}

/// The groups.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
    groups: Vec<Listed>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        let version = to.version();
        if version >= 1 {
            // Throttle time.
            to.i32(0);
        }
        to.i16(self.error.code());
        to.array(&self.groups, |to, group| {
            to.string(&group.group);
            to.string(&group.protocol_type);
            if version >= 4 {
                to.string(group.state);
            }
            if version >= 5 {
                to.string(CLASSIC);
            }
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let (error, mut groups) = match call.broker.groups.list(call.session).await {
        Ok(groups) => (ErrorCode::None, groups),
        Err(error) => (error, Vec::new()),
    };
    // Who may see the cluster sees all of its groups.
    let may_all = call.may(Operation::Describe, Resource::Cluster);
    let may = |group: &str| may_all || call.may(Operation::Describe, Resource::Group(group));
    groups.retain(|group| request.wants(group) && may(&group.group));
    Response { error, groups }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{ListGroupsRequest, ListGroupsResponse},
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read_and_answers_written() {
        let group = Listed {
            group: "g".to_owned(),
            protocol_type: "consumer".to_owned(),
            state: "Stable",
        };
        let response = Response {
            error: ErrorCode::None,
            groups: vec![group.clone()],
        };
        for version in oracle::versions(Key::ListGroups) {
            let text = |text| vec![StrBytes::from_static_str(text)];
            let mut theirs = ListGroupsRequest::default();
            if version >= 4 {
                theirs = theirs.with_states_filter(text("stable"));
            }
            if version >= 5 {
                theirs = theirs.with_types_filter(text("consumer"));
            }
            let ours = oracle::read(Key::ListGroups, version, &theirs, Request::read);
            assert_eq!(ours.wants(&group), version <= 4);
            let write = |to: &mut Writer| response.write(to);
            let read: ListGroupsResponse = oracle::written(Key::ListGroups, version, write);
            let told = &read.groups[0];
            assert_eq!(
                (told.group_id.as_str(), told.protocol_type.as_str()),
                ("g", "consumer")
            );
            assert_eq!(
                told.group_state.as_str(),
                if version >= 4 { "Stable" } else { "" }
            );
            assert_eq!(
                told.group_type.as_str(),
                if version >= 5 { "classic" } else { "" }
            );
        }
    }
}
