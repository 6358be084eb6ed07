//! AlterUserScramCredentials (key 51): who can log in, with which password (KIP-554). The password itself is
//! not sent: the client has salted and hashed it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;

use super::super::{
    access::{self, Access, USERS_MAX, is_user_name},
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    sasl::{
        Credential, Scram, Users as _,
        credential::{ITERATIONS_MAX, ITERATIONS_MIN, SALT_BYTES_MAX},
    },
    wire::{Malformed, Reader, Writer},
};

/// What is to be removed, and what set.
#[derive(Debug)]
pub(super) struct Request {
    wanted: Vec<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    user: String,
    mechanism: i8,
    /// None removes it.
    password: Option<Salted>,
}

struct Salted {
    iterations: i32,
    salt: Bytes,
    password: Bytes,
}

impl std::fmt::Debug for Salted {
    // It is as good as the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "salted in {} rounds", self.iterations)
    }
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let mut wanted = from.array(|from| {
            let (user, mechanism) = (from.string()?, from.i8()?);
            from.tags()?;
            Ok(Wanted {
                user,
                mechanism,
                password: None,
            })
        })?;
        wanted.extend(from.array(|from| {
            let (user, mechanism) = (from.string()?, from.i8()?);
            let salted = Salted {
                iterations: from.i32()?,
                salt: from.bytes()?,
                password: from.bytes()?,
            };
            from.tags()?;
            Ok(Wanted {
                user,
                mechanism,
                password: Some(salted),
            })
        })?);
        from.tags()?;
        Ok(Self { wanted })
    }
}

/// What became of each user.
#[derive(Debug)]
pub(super) struct Response {
    users: BTreeMap<String, Outcome>,
}

type Outcome = Result<(), (ErrorCode, String)>;

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        let users: Vec<_> = self.users.iter().collect();
        to.array(&users, |to, (user, outcome)| {
            let (error, why) = match outcome {
                Ok(()) => (ErrorCode::None, None),
                Err((error, why)) => (*error, Some(why.as_str())),
            };
            to.string(user);
            to.i16(error.code());
            to.nullable_string(why);
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let access = &call.broker.access;
    let mut users: BTreeMap<String, Outcome> = BTreeMap::new();
    let is_allowed = access.asks() && call.may(Operation::Alter, Resource::Cluster);
    if !is_allowed {
        let refused = || {
            (
                ErrorCode::ClusterAuthorizationFailed,
                "it needs Alter on the cluster".to_owned(),
            )
        };
        users.extend(
            request
                .wanted
                .into_iter()
                .map(|one| (one.user, Err(refused()))),
        );
        return Response { users };
    }
    let mut seen = BTreeSet::new();
    let mut changes: BTreeMap<String, Vec<(String, Option<Value>)>> = BTreeMap::new();
    for wanted in request.wanted {
        let outcome = users.entry(wanted.user.clone()).or_insert(Ok(()));
        if !seen.insert((wanted.user.clone(), wanted.mechanism)) {
            *outcome = Err((ErrorCode::DuplicateResource, "named twice".to_owned()));
        }
        if outcome.is_ok() {
            match change(access, &wanted) {
                Ok(change) => changes.entry(wanted.user).or_default().push(change),
                Err(refused) => *outcome = Err(refused),
            }
        }
    }
    let known = access.users();
    let mut count = known.len();
    for (user, outcome) in &mut users {
        let Some(mut changes) = changes.remove(user).filter(|_| outcome.is_ok()) else {
            continue;
        };
        let has_password = Scram::ALL.into_iter().any(|scram| {
            let key = access::user_key(user, scram);
            let changed = changes.iter().find(|(changed, _)| *changed == key);
            match changed {
                Some((_, value)) => value.is_some(),
                None => access.credential(user, scram).is_some(),
            }
        });
        if !has_password {
            // It is removed: whoever gets its name one day is not to be what it was.
            changes.push((access::admin_key(user), None));
        }
        count += usize::from(!known.contains(user));
        if count > USERS_MAX {
            *outcome = Err((
                ErrorCode::PolicyViolation,
                format!("there may be {USERS_MAX} users"),
            ));
            continue;
        }
        let principals = BTreeSet::from([format!("User:{user}")]);
        if let Err(not) = access.change(&call.actor(), &principals, changes).await {
            *outcome = Err((ErrorCode::KafkaStorageError, not.to_string()));
        }
    }
    Response { users }
}

/// What is to be kept, or why not.
fn change(
    access: &Access,
    wanted: &Wanted,
) -> Result<(String, Option<Value>), (ErrorCode, String)> {
    let unacceptable = |why: &str| (ErrorCode::UnacceptableCredential, why.to_owned());
    let scram = Scram::of_code(wanted.mechanism);
    let scram = scram.ok_or_else(|| {
        (
            ErrorCode::UnsupportedSaslMechanism,
            "no such mechanism".to_owned(),
        )
    })?;
    let key = access::user_key(&wanted.user, scram);
    let Some(salted) = &wanted.password else {
        let kept = access.credential(&wanted.user, scram);
        let missing = || (ErrorCode::ResourceNotFound, "no such credential".to_owned());
        return kept.map(|_| (key, None)).ok_or_else(missing);
    };
    if !is_user_name(&wanted.user) {
        return Err(unacceptable(
            "a name has 1 to 64 bytes, none of them `/`, `:` or `*`",
        ));
    }
    let rounds = u32::try_from(salted.iterations).ok();
    let rounds = rounds.filter(|rounds| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(rounds));
    let iterations = rounds.ok_or_else(|| unacceptable("4096 to 16384 iterations"))?;
    if salted.salt.is_empty() || salted.salt.len() > SALT_BYTES_MAX {
        return Err(unacceptable("a salt has 1 to 64 bytes"));
    }
    if salted.password.len() != scram.hash_bytes() {
        return Err(unacceptable(
            "the salted password is not as long as the hash",
        ));
    }
    let credential =
        Credential::of_salted(scram, &salted.password, salted.salt.to_vec(), iterations);
    Ok((key, Some(access::written(&credential))))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
            alter_user_scram_credentials_request::{
                ScramCredentialDeletion, ScramCredentialUpsertion,
            },
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    const KEY: Key = Key::AlterUserScramCredentials;

    #[test]
    fn every_version_is_read_and_written() {
        let text = StrBytes::from_static_str;
        for version in oracle::versions(KEY) {
            let set = ScramCredentialUpsertion::default()
                .with_name(text("me"))
                .with_mechanism(2)
                .with_iterations(4_096)
                .with_salt(Bytes::from_static(b"salt"))
                .with_salted_password(Bytes::from_static(b"hash"));
            let remove = ScramCredentialDeletion::default()
                .with_name(text("you"))
                .with_mechanism(1);
            let theirs = AlterUserScramCredentialsRequest::default()
                .with_deletions(vec![remove])
                .with_upsertions(vec![set]);
            let ours = oracle::read(KEY, version, &theirs, Request::read);
            let [removed, set] = ours.wanted.as_slice() else {
                panic!("{ours:?}");
            };
            assert_eq!((removed.user.as_str(), removed.mechanism), ("you", 1));
            assert!(removed.password.is_none());
            let salted = set.password.as_ref().unwrap();
            assert_eq!(
                (set.user.as_str(), set.mechanism, salted.iterations),
                ("me", 2, 4_096)
            );
            assert_eq!(
                (&salted.salt[..], &salted.password[..]),
                (&b"salt"[..], &b"hash"[..])
            );
            let refused = (ErrorCode::UnacceptableCredential, "no".to_owned());
            let answer = Response {
                users: [("me".to_owned(), Ok(())), ("you".to_owned(), Err(refused))].into(),
            };
            let told: AlterUserScramCredentialsResponse =
                oracle::written(KEY, version, |to| answer.write(to));
            let told: Vec<_> = told
                .results
                .iter()
                .map(|one| {
                    (
                        one.user.as_str(),
                        one.error_code,
                        one.error_message.as_deref(),
                    )
                })
                .collect();
            assert_eq!(told, [("me", 0, None), ("you", 93, Some("no"))]);
        }
    }
}
