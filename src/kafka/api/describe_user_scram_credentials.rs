//! DescribeUserScramCredentials (key 50): who can log in, and by which mechanism (KIP-554).

use std::collections::HashSet;

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    sasl::Credential,
    wire::{Malformed, Reader, Writer},
};

/// Who is meant; nobody stands for everybody.
#[derive(Debug)]
pub(super) struct Request {
    users: Vec<String>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let users = from.array(|from| {
            let name = from.string()?;
            from.tags()?;
            Ok(name)
        })?;
        from.tags()?;
        Ok(Self { users })
    }
}

/// What each can log in by.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
    users: Vec<User>,
}

#[derive(Debug)]
struct User {
    name: String,
    credentials: Result<Vec<Credential>, (ErrorCode, &'static str)>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.i16(self.error.code());
        to.nullable_string(None);
        to.array(&self.users, |to, user| {
            to.string(&user.name);
            let (error, why, credentials) = match &user.credentials {
                Ok(credentials) => (ErrorCode::None, None, credentials.as_slice()),
                Err((error, why)) => (*error, Some(*why), [].as_slice()),
            };
            to.i16(error.code());
            to.nullable_string(why);
            to.array(credentials, |to, credential| {
                to.i8(credential.scram.code());
                to.i32(i32::try_from(credential.iterations).unwrap_or(i32::MAX));
                to.tags();
            });
            to.tags();
        });
        to.tags();
    }
}

#[expect(clippy::unused_async, reason = "as all APIs are")]
pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let access = &call.broker.access;
    let is_allowed = access.asks() && call.may(Operation::Describe, Resource::Cluster);
    if !is_allowed {
        return Response {
            error: ErrorCode::ClusterAuthorizationFailed,
            users: Vec::new(),
        };
    }
    let names = match request.users.is_empty() {
        true => {
            let users = access.users().into_iter();
            let has_password = |name: &String| !access.credentials(name).is_empty();
            users.filter(has_password).collect()
        }
        false => request.users,
    };
    let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
    for name in &names {
        if !seen.insert(name.clone()) {
            twice.insert(name.clone());
        }
    }
    let user = |name: String| {
        let credentials = access.credentials(&name);
        let credentials = match (twice.contains(&name), credentials.is_empty()) {
            (true, _) => Err((ErrorCode::DuplicateResource, "named twice")),
            (false, true) => Err((ErrorCode::ResourceNotFound, "no such user")),
            (false, false) => Ok(credentials),
        };
        User { name, credentials }
    };
    let mut told = HashSet::new();
    let names = names.into_iter().filter(|name| told.insert(name.clone()));
    Response {
        error: ErrorCode::None,
        users: names.map(user).collect(),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
            describe_user_scram_credentials_request::UserName,
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{sasl::Scram, table::Key, wire::oracle};

    const KEY: Key = Key::DescribeUserScramCredentials;

    #[test]
    fn every_version_is_read_and_written() {
        for version in oracle::versions(KEY) {
            let me = UserName::default().with_name(StrBytes::from_static_str("me"));
            let theirs = DescribeUserScramCredentialsRequest::default().with_users(Some(vec![me]));
            assert_eq!(
                oracle::read(KEY, version, &theirs, Request::read).users,
                ["me"]
            );
            let theirs = DescribeUserScramCredentialsRequest::default().with_users(None);
            assert!(
                oracle::read(KEY, version, &theirs, Request::read)
                    .users
                    .is_empty()
            );
            let credential = Credential::of_salted(Scram::Sha512, b"x", vec![1], 8_192);
            let user = |name: &str, credentials| User {
                name: name.to_owned(),
                credentials,
            };
            let missing = (ErrorCode::ResourceNotFound, "no such user");
            let answer = Response {
                error: ErrorCode::None,
                users: vec![user("me", Ok(vec![credential])), user("you", Err(missing))],
            };
            let told: DescribeUserScramCredentialsResponse =
                oracle::written(KEY, version, |to| answer.write(to));
            assert_eq!(told.results[0].user.as_str(), "me");
            let info = &told.results[0].credential_infos[0];
            assert_eq!((info.mechanism, info.iterations), (2, 8_192));
            assert_eq!(told.results[1].error_code, 91);
        }
    }
}
