//! DescribeAcls (key 29): the lines of the access control list that are meant (KIP-140, KIP-290).

use super::super::{
    auth::{Acl, Operation, Resource, acl::Filter},
    broker::Call,
    error::ErrorCode,
    wire::{Malformed, Reader, Writer},
};

/// Which lines are meant; what cannot be meant is told why.
#[derive(Debug)]
pub(super) struct Request {
    filter: Result<Filter, &'static str>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let filter = read_filter(from)?;
        Ok(Self { filter })
    }
}

/// A filter, which `DeleteAcls` has too.
pub(super) fn read_filter(from: &mut Reader) -> Result<Result<Filter, &'static str>, Malformed> {
    let resource = from.i8()?;
    let name = from.nullable_string()?;
    let pattern = from.i8()?;
    let principal = from.nullable_string()?;
    let host = from.nullable_string()?;
    let (operation, permission) = (from.i8()?, from.i8()?);
    from.tags()?;
    let codes = (resource, pattern, operation, permission);
    Ok(Filter::of_codes(codes, name, principal, host))
}

/// The lines.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
    why: Option<&'static str>,
    /// In order.
    lines: Vec<Acl>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.i16(self.error.code());
        to.nullable_string(self.why);
        let is_same = |one: &Acl, other: &Acl| {
            (one.resource, one.pattern, &one.name) == (other.resource, other.pattern, &other.name)
        };
        let resources: Vec<_> = self.lines.chunk_by(is_same).collect();
        to.array(&resources, |to, lines| {
            let Some(first) = lines.first() else { return };
            to.i8(first.resource.code());
            to.string(&first.name);
            to.i8(first.pattern.code());
            to.array(lines, |to, acl| {
                to.string(&acl.principal);
                to.string(&acl.host);
                to.i8(acl.operation.code());
                to.i8(acl.permission.code());
                to.tags();
            });
            to.tags();
        });
        to.tags();
    }
}

/// What is told where nobody is asked who it is, as brokers without an authorizer do.
pub(super) const DISABLED: &str = "log.sasl is not set: nobody is asked who it is";

#[expect(clippy::unused_async, reason = "as all APIs are")]
pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let access = &call.broker.access;
    let refused = |error, why| Response {
        error,
        why: Some(why),
        lines: Vec::new(),
    };
    if !access.asks() {
        return refused(ErrorCode::SecurityDisabled, DISABLED);
    }
    if !call.may(Operation::Describe, Resource::Cluster) {
        return refused(
            ErrorCode::ClusterAuthorizationFailed,
            "it needs Describe on the cluster",
        );
    }
    match request.filter {
        Ok(filter) => Response {
            error: ErrorCode::None,
            why: None,
            lines: access.lines(&filter),
        },
        Err(why) => refused(ErrorCode::InvalidRequest, why),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{DescribeAclsRequest, DescribeAclsResponse},
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{
        auth::acl::{PatternFilter, tests::acl},
        table::Key,
        wire::oracle,
    };

    #[test]
    fn every_version_is_read() {
        let text = |text| Some(StrBytes::from_static_str(text));
        for version in oracle::versions(Key::DescribeAcls) {
            let theirs = DescribeAclsRequest::default()
                .with_resource_type_filter(2)
                .with_resource_name_filter(text("orders"))
                .with_pattern_type_filter(2)
                .with_principal_filter(text("User:me"))
                .with_host_filter(None)
                .with_operation(1)
                .with_permission_type(3);
            let ours = oracle::read(Key::DescribeAcls, version, &theirs, Request::read);
            let filter = ours.filter.unwrap();
            assert_eq!(filter.name.as_deref(), Some("orders"));
            assert_eq!(filter.pattern, PatternFilter::Match);
            assert_eq!(filter.principal.as_deref(), Some("User:me"));
            assert_eq!((filter.host, filter.operation), (None, None));
            let theirs = theirs.with_permission_type(9);
            let ours = oracle::read(Key::DescribeAcls, version, &theirs, Request::read);
            assert!(ours.filter.is_err());
        }
    }

    #[test]
    fn every_version_is_written() {
        let answer = Response {
            error: ErrorCode::None,
            why: None,
            lines: vec![
                acl("me allow read topic literal a"),
                acl("you deny write topic literal a 192.0.2.1"),
                acl("me allow all group prefixed g"),
            ],
        };
        for version in oracle::versions(Key::DescribeAcls) {
            let told: DescribeAclsResponse =
                oracle::written(Key::DescribeAcls, version, |to| answer.write(to));
            let shown: Vec<_> = told
                .resources
                .iter()
                .flat_map(|resource| {
                    resource.acls.iter().map(move |acl| {
                        format!(
                            "{} {} {} {} {} {} {}",
                            resource.resource_type,
                            resource.resource_name.as_str(),
                            resource.pattern_type,
                            acl.principal.as_str(),
                            acl.host.as_str(),
                            acl.operation,
                            acl.permission_type
                        )
                    })
                })
                .collect();
            assert_eq!(told.resources.len(), 2);
            assert_eq!(
                shown,
                [
                    "2 a 3 User:me * 3 3",
                    "2 a 3 User:you 192.0.2.1 4 2",
                    "3 g 4 User:me * 2 3"
                ]
            );
        }
    }
}
