//! Who may log in, as operators see and change it: `wardent log users`.

use std::{collections::BTreeSet, fmt, rc::Rc};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::{
    access::{self, Access, USERS_MAX, admin_key, is_user_name, user_key},
    auth::{Acl, Operation, PatternType, Permission, ResourceType, acl::ANY, is_wardents_alone},
    broker::Broker,
    sasl::{Credential, Scram},
};
use crate::log::topic::is_name;

/// Questions and acts that may wait; more are refused.
const WAITING_MAX: usize = 16;

/// Topics and groups of one user at most, as they are given in one act.
const RIGHTS_MAX: usize = 1_000;

/// What is asked or done.
#[derive(Debug)]
pub enum Act {
    /// Who is there?
    List,
    /// A new user.
    Add {
        /// Its name.
        name: String,
        /// What is kept of its password.
        credentials: Vec<Credential>,
        /// What it may do.
        rights: Rights,
    },
    /// Another password.
    Password {
        /// Whose.
        name: String,
        /// What is kept of it.
        credentials: Vec<Credential>,
    },
    /// A user that is not to be any more, with all its rights.
    Remove {
        /// Its name.
        name: String,
    },
}

/// What a user may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rights {
    /// The topics it may read; `orders*` are all that begin so.
    pub read: Vec<String>,
    /// The topics it may write to, and make.
    pub write: Vec<String>,
    /// How the names of the groups begin in which it may read.
    pub group: Vec<String>,
    /// Whether it may do everything.
    pub admin: bool,
}

/// A user, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// The mechanisms it can log in by.
    pub mechanisms: Vec<String>,
    /// Whether it may do everything.
    pub admin: bool,
    /// What else it may do.
    pub rights: Vec<String>,
}

/// Everybody, and whether anybody is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Whether clients have to log in.
    pub asked: bool,
    /// The users, by name.
    pub users: Vec<Shown>,
}

/// Why an act is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDone {
    /// There is such a user.
    Exists(String),
    /// There is none.
    Unknown(String),
    /// What is wanted makes no sense.
    Senseless(String),
    /// It is not on disk.
    NotKept(String),
    /// Too much waits.
    Busy,
    /// The listener is ending.
    Stopping,
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(name) => write!(
                f,
                "there is a user {name:?} (`wardent log users passwd` gives another password, `remove` makes room)"
            ),
            Self::Unknown(name) => write!(f, "there is no user {name:?}"),
            Self::Senseless(why) | Self::NotKept(why) => f.write_str(why),
            Self::Busy => f.write_str("too much waits: try again"),
            Self::Stopping => f.write_str("wardent is stopping"),
        }
    }
}

impl std::error::Error for NotDone {}

/// What comes of an act: everybody, of `List`; else the user as it stands, or as it stood.
pub type Outcome = Result<Listed, NotDone>;

#[derive(Debug)]
pub(crate) struct Wanted {
    act: Act,
    actor: String,
    answer: oneshot::Sender<Outcome>,
}

pub(crate) type Asked = mpsc::Receiver<Wanted>;

/// Asks the listener.
#[derive(Debug, Clone)]
pub struct UserActs(mpsc::Sender<Wanted>);

pub(crate) fn channel() -> (UserActs, Asked) {
    let (acts, asked) = mpsc::channel(WAITING_MAX);
    (UserActs(acts), asked)
}

impl UserActs {
    /// Has `act` done as `actor` wants it.
    ///
    /// # Errors
    /// When it is not done, with what would be right.
    pub async fn ask(&self, act: Act, actor: String) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let wanted = Wanted { act, actor, answer };
        self.0.try_send(wanted).map_err(|_| NotDone::Busy)?;
        answered.await.unwrap_or(Err(NotDone::Stopping))
    }
}

/// Does one act after the other, until nobody can ask any more.
pub(crate) async fn answer(mut asked: Asked, broker: Rc<Broker>) {
    while let Some(Wanted { act, actor, answer }) = asked.recv().await {
        let outcome = carry_out(act, &actor, &broker.access).await;
        // Who asked may have gone.
        let _ = answer.send(outcome);
    }
}

async fn carry_out(act: Act, actor: &str, access: &Rc<Access>) -> Outcome {
    match act {
        Act::List => Ok(listed(access, access.users())),
        Act::Add {
            name,
            credentials,
            rights,
        } => {
            let users = access.users();
            if users.contains(&name) {
                return Err(NotDone::Exists(name));
            }
            if users.len() >= USERS_MAX {
                return Err(NotDone::Senseless(format!(
                    "there may be {USERS_MAX} users"
                )));
            }
            let mut changes = passwords(access, &name, &credentials)?;
            for acl in lines(&name, &rights)? {
                changes.push((acl.key(), serde_json::to_value(&acl).ok()));
            }
            if rights.admin {
                changes.push((
                    admin_key(&name),
                    Some(Value::Object(serde_json::Map::new())),
                ));
            }
            change(access, actor, &name, changes).await?;
            Ok(listed(access, [name]))
        }
        Act::Password { name, credentials } => {
            if !access.users().contains(&name) {
                return Err(NotDone::Unknown(name));
            }
            let changes = passwords(access, &name, &credentials)?;
            change(access, actor, &name, changes).await?;
            Ok(listed(access, [name]))
        }
        Act::Remove { name } => {
            if !access.users().contains(&name) {
                return Err(NotDone::Unknown(name));
            }
            let before = listed(access, [name.clone()]);
            let lines = access.lines_of(&format!("User:{name}"));
            let lines = lines.iter().map(Acl::key);
            let credentials = Scram::ALL.map(|scram| user_key(&name, scram));
            let keys = lines.chain(credentials).chain([admin_key(&name)]);
            change(access, actor, &name, keys.map(|key| (key, None)).collect()).await?;
            Ok(before)
        }
    }
}

async fn change(
    access: &Rc<Access>,
    actor: &str,
    name: &str,
    changes: Vec<(String, Option<Value>)>,
) -> Result<(), NotDone> {
    let principals = BTreeSet::from([format!("User:{name}")]);
    let changed = access.change(actor, &principals, changes).await;
    changed.map_err(|not| NotDone::NotKept(not.to_string()))
}

/// Those credentials and no other: an old password must not go on by another mechanism.
fn passwords(
    access: &Access,
    name: &str,
    credentials: &[Credential],
) -> Result<Vec<(String, Option<Value>)>, NotDone> {
    if !is_user_name(name) {
        return Err(NotDone::Senseless(format!(
            "{name:?} is no name of a user: use 1 to 64 bytes, none of them `/`, `:` or `*`"
        )));
    }
    if credentials.is_empty() {
        return Err(NotDone::Senseless("a user has a password".to_owned()));
    }
    let old = access.credentials(name).into_iter().map(|old| old.scram);
    let old = old.filter(|old| credentials.iter().all(|new| new.scram != *old));
    let old = old.map(|scram| (user_key(name, scram), None));
    let new = credentials.iter();
    let new = new.map(|new| (user_key(name, new.scram), Some(access::written(new))));
    Ok(old.chain(new).collect())
}

/// The lines that say so.
fn lines(name: &str, rights: &Rights) -> Result<Vec<Acl>, NotDone> {
    let Rights {
        read, write, group, ..
    } = rights;
    if read.len() + write.len() + group.len() > RIGHTS_MAX {
        let why = format!("{RIGHTS_MAX} topics and groups at most");
        return Err(NotDone::Senseless(why));
    }
    let line = |resource, operation, (pattern, of): (PatternType, String)| Acl {
        resource,
        pattern,
        name: of,
        principal: format!("User:{name}"),
        host: ANY.to_owned(),
        operation,
        permission: Permission::Allow,
    };
    let mut lines = Vec::new();
    for topic in read {
        lines.push(line(ResourceType::Topic, Operation::Read, pattern(topic)?));
    }
    for topic in write {
        let of = pattern(topic)?;
        if of.0 == PatternType::Literal && is_wardents_alone(&of.1) {
            let why = format!("{topic} is written by Wardent alone");
            return Err(NotDone::Senseless(why));
        }
        for operation in [Operation::Write, Operation::Create] {
            lines.push(line(ResourceType::Topic, operation, of.clone()));
        }
    }
    for group in group {
        let of = match group.as_str() {
            "" => {
                return Err(NotDone::Senseless(
                    "a group has a name, or `*` for all".to_owned(),
                ));
            }
            ANY => (PatternType::Literal, ANY.to_owned()),
            prefix => (
                PatternType::Prefixed,
                prefix.trim_end_matches('*').to_owned(),
            ),
        };
        lines.push(line(ResourceType::Group, Operation::Read, of));
    }
    Ok(lines)
}

/// `orders` as it is, `orders*` as what begins so, `*` as all.
fn pattern(topic: &str) -> Result<(PatternType, String), NotDone> {
    let senseless = || {
        NotDone::Senseless(format!(
            "{topic:?} is no topic: use its name, `orders*` for all that begin so, or `*` for all"
        ))
    };
    match topic.strip_suffix('*') {
        Some("") => Ok((PatternType::Literal, ANY.to_owned())),
        Some(prefix) if is_name(prefix) => Ok((PatternType::Prefixed, prefix.to_owned())),
        None if is_name(topic) => Ok((PatternType::Literal, topic.to_owned())),
        _ => Err(senseless()),
    }
}

fn listed(access: &Access, users: impl IntoIterator<Item = String>) -> Listed {
    let shown = |name: String| Shown {
        mechanisms: access
            .credentials(&name)
            .iter()
            .map(|one| one.scram.name().to_owned())
            .collect(),
        admin: access.is_admin(&name),
        rights: access
            .lines_of(&format!("User:{name}"))
            .iter()
            .map(ToString::to_string)
            .collect(),
        name,
    };
    Listed {
        asked: access.asks(),
        users: users.into_iter().map(shown).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rights: &Rights) -> Result<Vec<String>, NotDone> {
        let lines = lines("me", rights)?;
        Ok(lines.iter().map(ToString::to_string).collect())
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn rights_are_the_lines_that_say_so() {
        let rights = Rights {
            read: words(&["wardent.http.access", "orders*", "*"]),
            write: words(&["orders"]),
            group: words(&["app-", "b*", "*"]),
            admin: false,
        };
        assert_eq!(
            told(&rights).unwrap(),
            [
                "allow read topic wardent.http.access",
                "allow read topic prefixed orders",
                "allow read topic *",
                "allow write topic orders",
                "allow create topic orders",
                "allow read group prefixed app-",
                "allow read group prefixed b",
                "allow read group *",
            ]
        );
    }

    #[test]
    fn rights_that_make_no_sense_are_refused() {
        for (read, write, group) in [
            (vec!["a b"], vec![], vec![]),
            (vec!["a*b"], vec![], vec![]),
            (vec![""], vec![], vec![]),
            (vec![], vec!["wardent.client.ban"], vec![]),
            (vec![], vec!["__consumer_offsets"], vec![]),
            (vec![], vec![], vec![""]),
        ] {
            let rights = Rights {
                read: words(&read),
                write: words(&write),
                group: words(&group),
                admin: false,
            };
            assert!(told(&rights).is_err(), "{rights:?}");
        }
    }
}
