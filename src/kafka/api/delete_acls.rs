//! DeleteAcls (key 31): lines of the access control list that are not to hold any more (KIP-140, KIP-290).

use super::{
    super::{
        auth::{Acl, Operation, Resource, acl::Filter},
        broker::Call,
        error::ErrorCode,
        wire::{Malformed, Reader, Writer},
    },
    describe_acls::{DISABLED, read_filter},
};

/// Which lines are meant; what cannot be meant is told why.
#[derive(Debug)]
pub(super) struct Request {
    filters: Vec<Result<Filter, &'static str>>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let filters = from.array(read_filter)?;
        from.tags()?;
        Ok(Self { filters })
    }
}

/// What each filter meant.
#[derive(Debug)]
pub(super) struct Response {
    results: Vec<Outcome>,
}

type Outcome = Result<Vec<Acl>, (ErrorCode, String)>;

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.array(&self.results, |to, result| {
            let (error, why, lines) = match result {
                Ok(lines) => (ErrorCode::None, None, lines.as_slice()),
                Err((error, why)) => (*error, Some(why.as_str()), [].as_slice()),
            };
            to.i16(error.code());
            to.nullable_string(why);
            to.array(lines, write_line);
            to.tags();
        });
        to.tags();
    }
}

fn write_line(to: &mut Writer, acl: &Acl) {
    to.i16(ErrorCode::None.code());
    to.nullable_string(None);
    to.i8(acl.resource.code());
    to.string(&acl.name);
    to.i8(acl.pattern.code());
    to.string(&acl.principal);
    to.string(&acl.host);
    to.i8(acl.operation.code());
    to.i8(acl.permission.code());
    to.tags();
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let access = &call.broker.access;
    let all = |error: ErrorCode, why: &str| Response {
        results: request
            .filters
            .iter()
            .map(|_| Err((error, why.to_owned())))
            .collect(),
    };
    if !access.asks() {
        return all(ErrorCode::SecurityDisabled, DISABLED);
    }
    if !call.may(Operation::Alter, Resource::Cluster) {
        let why = "it needs Alter on the cluster";
        return all(ErrorCode::ClusterAuthorizationFailed, why);
    }
    let meant = |filter: &Result<Filter, &str>| match filter {
        Ok(filter) => Ok(access.lines(filter)),
        Err(why) => Err((ErrorCode::InvalidRequest, (*why).to_owned())),
    };
    let mut results: Vec<Outcome> = request.filters.iter().map(meant).collect();
    let lines = || results.iter().flatten().flatten();
    let principals = lines().map(|acl| acl.principal.clone()).collect();
    let changes: Vec<_> = lines().map(|acl| (acl.key(), None)).collect();
    if !changes.is_empty()
        && let Err(not) = access.change(&call.actor(), &principals, changes).await
    {
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            *result = Err((ErrorCode::KafkaStorageError, not.to_string()));
        }
    }
    Response { results }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        DeleteAclsRequest, DeleteAclsResponse, delete_acls_request::DeleteAclsFilter,
    };

    use super::*;
    use crate::kafka::{auth::acl::tests::acl, table::Key, wire::oracle};

    #[test]
    fn every_version_is_read_and_written() {
        for version in oracle::versions(Key::DeleteAcls) {
            let filter = DeleteAclsFilter::default()
                .with_resource_type_filter(1)
                .with_pattern_type_filter(1)
                .with_operation(3)
                .with_permission_type(1);
            let wrong = filter.clone().with_operation(77);
            let theirs = DeleteAclsRequest::default().with_filters(vec![filter, wrong]);
            let ours = oracle::read(Key::DeleteAcls, version, &theirs, Request::read);
            let filter = ours.filters[0].clone().unwrap();
            assert_eq!(
                (filter.operation, filter.resource),
                (Some(Operation::Read), None)
            );
            assert_eq!(ours.filters[1], Err("unknown operation"));
            let answer = Response {
                results: vec![
                    Ok(vec![acl("me allow write topic prefixed a")]),
                    Err((ErrorCode::InvalidRequest, "no".to_owned())),
                ],
            };
            let told: DeleteAclsResponse =
                oracle::written(Key::DeleteAcls, version, |to| answer.write(to));
            assert_eq!(told.filter_results[1].error_code, 42);
            let [line] = told.filter_results[0].matching_acls.as_slice() else {
                panic!("{told:?}");
            };
            let codes = (
                line.resource_type,
                line.pattern_type,
                line.operation,
                line.permission_type,
            );
            assert_eq!(codes, (2, 4, 4, 3));
            assert_eq!(
                (line.resource_name.as_str(), line.principal.as_str()),
                ("a", "User:me")
            );
            assert_eq!((line.host.as_str(), line.error_code), ("*", 0));
        }
    }
}
