//! `/api/v1/log/users`: who may log in to the Kafka listener and what they may do, for whoever may act.

use std::collections::BTreeMap;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    api::{Query, Refused, Reply, read, say},
    server::{Door, Server},
};
use crate::kafka::{
    self,
    sasl::{
        Credential, Scram,
        credential::{ITERATIONS_MAX, ITERATIONS_MIN, SALT_BYTES_MAX},
    },
    users::{Act, NotDone, Rights},
};

/// A user that is wanted, or its other password.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToBe {
    /// Its name.
    pub name: String,
    /// What is kept of its password, by mechanism: `salt`, `stored_key`, `server_key`, `iterations`. The
    /// password itself is not sent.
    pub credentials: BTreeMap<String, Value>,
    /// What it may do; of a new user only.
    #[serde(default)]
    pub rights: Rights,
}

impl ToBe {
    fn credentials(&self) -> Result<Vec<Credential>, Refused> {
        let read = |(mechanism, value): (&String, &Value)| {
            let scram = Scram::of_name(mechanism).ok_or_else(|| {
                let [one, other] = Scram::ALL.map(Scram::name);
                let what = format!("`credentials`: {mechanism:?} is neither {one} nor {other}");
                Refused::senseless(what)
            })?;
            kafka::read_credential(scram, value).ok_or_else(|| {
                Refused::senseless(format!(
                    "`credentials`: {mechanism} needs `salt` (1 to {SALT_BYTES_MAX} bytes), `stored_key` and \
                     `server_key` in base 64, and `iterations` from {ITERATIONS_MIN} to {ITERATIONS_MAX}"
                ))
            })
        };
        self.credentials.iter().map(read).collect()
    }
}

impl Server {
    pub(super) async fn kafka_users(&self, request: Request<Incoming>, door: Door) -> Reply {
        // Names of users are nothing for everybody on this machine.
        let actor = door.actor()?;
        let (act, status) = match *request.method() {
            Method::GET | Method::HEAD => (Act::List, StatusCode::OK),
            Method::POST => {
                let to_be: ToBe = read(request).await?;
                let act = Act::Add {
                    credentials: to_be.credentials()?,
                    name: to_be.name,
                    rights: to_be.rights,
                };
                (act, StatusCode::CREATED)
            }
            Method::PUT => {
                let to_be: ToBe = read(request).await?;
                if to_be.rights != Rights::default() {
                    let what = "PUT gives another password, and nothing else";
                    return Err(Refused::senseless(what));
                }
                let act = Act::Password {
                    credentials: to_be.credentials()?,
                    name: to_be.name,
                };
                (act, StatusCode::OK)
            }
            Method::DELETE => {
                let query = Query::read(request.uri().query(), &["name"])?;
                let name = query
                    .get("name")
                    .ok_or_else(|| Refused::unreadable("which `name`?"))?;
                let act = Act::Remove {
                    name: name.to_owned(),
                };
                (act, StatusCode::OK)
            }
            _ => {
                return Err(Refused::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "use GET to list, POST to add, PUT for another password, DELETE to remove",
                ));
            }
        };
        let users = self.view.kafka_users.as_ref().ok_or_else(|| {
            let what = "`log.listen` is null: there is no listener that users could log in to";
            Refused::new(StatusCode::CONFLICT, what)
        })?;
        let listed = users.ask(act, actor).await?;
        say(status, &listed)
    }
}

impl From<NotDone> for Refused {
    fn from(not_done: NotDone) -> Self {
        let status = match not_done {
            NotDone::Unknown(_) => StatusCode::NOT_FOUND,
            NotDone::Exists(_) => StatusCode::CONFLICT,
            NotDone::Senseless(_) => StatusCode::UNPROCESSABLE_ENTITY,
            NotDone::NotKept(_) | NotDone::Busy | NotDone::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, not_done.to_string())
    }
}
