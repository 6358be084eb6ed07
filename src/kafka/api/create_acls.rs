//! CreateAcls (key 30): new lines of the access control list (KIP-140, KIP-290).

use std::collections::BTreeSet;

use super::{
    super::{
        access::ACLS_MAX,
        auth::{Acl, Operation, PatternType, Permission, Resource, ResourceType},
        broker::Call,
        error::ErrorCode,
        wire::{Malformed, Reader, Writer},
    },
    describe_acls::DISABLED,
};

/// The lines; one that makes no sense is told why.
#[derive(Debug)]
pub(super) struct Request {
    lines: Vec<Result<Acl, String>>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let lines = from.array(read_line)?;
        from.tags()?;
        Ok(Self { lines })
    }
}

fn read_line(from: &mut Reader) -> Result<Result<Acl, String>, Malformed> {
    let resource = from.i8()?;
    let name = from.string()?;
    let pattern = from.i8()?;
    let (principal, host) = (from.string()?, from.string()?);
    let (operation, permission) = (from.i8()?, from.i8()?);
    from.tags()?;
    let line = || {
        let acl = Acl {
            resource: ResourceType::of_code(resource).ok_or("unknown resource type")?,
            pattern: PatternType::of_code(pattern).ok_or("unknown pattern type")?,
            name,
            principal,
            host,
            operation: Operation::of_code(operation).ok_or("unknown operation")?,
            permission: Permission::of_code(permission).ok_or("unknown permission")?,
        };
        acl.check().map(|()| acl)
    };
    Ok(line())
}

/// What became of each.
#[derive(Debug)]
pub(super) struct Response {
    results: Vec<Outcome>,
}

type Outcome = Result<(), (ErrorCode, String)>;

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.array(&self.results, |to, result| {
            let (error, why) = match result {
                Ok(()) => (ErrorCode::None, None),
                Err((error, why)) => (*error, Some(why.as_str())),
            };
            to.i16(error.code());
            to.nullable_string(why);
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let access = &call.broker.access;
    let all = |error: ErrorCode, why: &str| Response {
        results: request
            .lines
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
    if access.count_of_lines() + request.lines.len() > ACLS_MAX {
        let why = format!("there may be {ACLS_MAX} lines in all");
        return all(ErrorCode::PolicyViolation, &why);
    }
    let mut principals = BTreeSet::new();
    let mut changes = Vec::new();
    for acl in request.lines.iter().flatten() {
        principals.insert(acl.principal.clone());
        changes.push((acl.key(), serde_json::to_value(acl).ok()));
    }
    let kept = match changes.is_empty() {
        true => Ok(()),
        false => access.change(&call.actor(), &principals, changes).await,
    };
    let result = |line: Result<Acl, String>| match (line, &kept) {
        (Err(why), _) => Err((ErrorCode::InvalidRequest, why)),
        (Ok(_), Err(not)) => Err((ErrorCode::KafkaStorageError, not.to_string())),
        (Ok(_), Ok(())) => Ok(()),
    };
    Response {
        results: request.lines.into_iter().map(result).collect(),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{CreateAclsRequest, CreateAclsResponse, create_acls_request::AclCreation},
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{auth::acl::tests::acl, table::Key, wire::oracle};

    #[test]
    fn every_version_is_read_and_written() {
        let text = StrBytes::from_static_str;
        for version in oracle::versions(Key::CreateAcls) {
            let line = AclCreation::default()
                .with_resource_type(3)
                .with_resource_name(text("g"))
                .with_resource_pattern_type(4)
                .with_principal(text("User:me"))
                .with_host(text("*"))
                .with_operation(3)
                .with_permission_type(2);
            let wrong = line.clone().with_principal(text("me"));
            let unknown = line.clone().with_resource_type(6);
            let theirs = CreateAclsRequest::default().with_creations(vec![line, wrong, unknown]);
            let ours = oracle::read(Key::CreateAcls, version, &theirs, Request::read);
            assert_eq!(ours.lines[0], Ok(acl("me deny read group prefixed g")));
            assert!(ours.lines[1].is_err() && ours.lines[2].is_err());
            let answer = Response {
                results: vec![Ok(()), Err((ErrorCode::InvalidRequest, "no".to_owned()))],
            };
            let told: CreateAclsResponse =
                oracle::written(Key::CreateAcls, version, |to| answer.write(to));
            let told: Vec<_> = told
                .results
                .iter()
                .map(|one| (one.error_code, one.error_message.as_deref()))
                .collect();
            assert_eq!(told, [(0, None), (42, Some("no"))]);
        }
    }
}
