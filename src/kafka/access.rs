//! Users, their rights and their quotas: what was decided of them, and who may change it.
//!
//! All of it stands in `__wardent_metadata`, so that it outlives a restart and is changed while it runs:
//!
//! ```text
//! user/<name>/<mechanism>   {"salt", "stored_key", "server_key", "iterations"}; never a password
//! admin/<name>              {}: may do everything
//! acl/<…>                   a line of an access control list
//! quota/<user>/<client id>  bytes a second
//! nobody                    {"secret"}: what users that do not exist are made of
//! ```

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt,
    rc::Rc,
    sync::Arc,
};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{
    auth::{Acl, Authorizer, acl::Filter},
    meta::{Changes, Meta, NotKept},
    quota::{Entity, Quotas, Rates},
    sasl::{
        Credential, Mechanism, Scram, Users,
        credential::{ITERATIONS_MAX, ITERATIONS_MIN, SALT_BYTES_MAX},
        failures::Failures,
    },
};

/// Users at most.
pub(crate) const USERS_MAX: usize = 1_000;

/// Lines of access control lists at most.
pub(crate) const ACLS_MAX: usize = 10_000;

/// Quotas at most.
pub(crate) const QUOTAS_MAX: usize = 1_000;

/// Bytes of a user's name at most.
pub(crate) const USER_BYTES_MAX: usize = 64;

/// Lines about one principal that the audit tells, before and after a change.
const RIGHTS_TOLD: usize = 100;

const NOBODY: &str = "nobody";

/// How clients prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sasl {
    /// The mechanisms that are offered.
    pub mechanisms: Vec<Mechanism>,
}

/// A change of users, rights or quotas, for the audit.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// Who did it: an operator (`uid:0`) or a principal (`User:root`).
    pub actor: String,
    /// Whom it is about: a principal, or whose quota it is.
    pub target: String,
    /// How it stood before; without a value there was nothing.
    pub before: Option<Value>,
    /// How it stands.
    pub after: Option<Value>,
}

/// Where changes are accounted for.
#[derive(Clone)]
pub struct Teller(pub Arc<dyn Fn(Account) + Send + Sync>);

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}

/// Users, rights and quotas, as they are in force.
#[derive(Debug)]
pub(crate) struct Access {
    sasl: Option<Sasl>,
    meta: Meta,
    tell: Option<Teller>,
    authorizer: RefCell<Rc<Authorizer>>,
    pub(crate) quotas: RefCell<Quotas>,
    pub(crate) failures: RefCell<Failures>,
    /// Passwords that are compared at once: that is work for a processor.
    pub(crate) comparing: Arc<Semaphore>,
    secret_of_nobody: Cell<[u8; 32]>,
}

/// What is kept of a password, as it stands in the log.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    salt: String,
    stored_key: String,
    server_key: String,
    iterations: u32,
}

impl Kept {
    fn read(self, scram: Scram) -> Option<Credential> {
        let bytes = |text: &str| BASE64.decode(text.as_bytes()).ok();
        let key = |text| bytes(text).filter(|key| key.len() == scram.hash_bytes());
        let is_salt = |salt: &Vec<u8>| (1..=SALT_BYTES_MAX).contains(&salt.len());
        let rounds = ITERATIONS_MIN..=ITERATIONS_MAX;
        Some(Credential {
            scram,
            salt: bytes(&self.salt).filter(is_salt)?,
            iterations: Some(self.iterations).filter(|own| rounds.contains(own))?,
            stored_key: key(&self.stored_key)?,
            server_key: key(&self.server_key)?,
        })
    }
}

/// What is kept of a password, as it stands in the log and in questions to the admin socket.
pub fn written(credential: &Credential) -> Value {
    json!({
        "salt": BASE64.encode(&credential.salt),
        "stored_key": BASE64.encode(&credential.stored_key),
        "server_key": BASE64.encode(&credential.server_key),
        "iterations": credential.iterations,
    })
}

/// The other way round; none where it is not whole, or beyond what Kafka takes.
pub fn read(scram: Scram, value: &Value) -> Option<Credential> {
    let kept: Kept = serde_json::from_value(value.clone()).ok()?;
    kept.read(scram)
}

/// Whether a user may be called so: what can be told apart in a line of a log, and in a key.
pub fn is_user_name(name: &str) -> bool {
    let is_allowed = |c: char| !c.is_control() && !matches!(c, '/' | ':' | '*');
    (1..=USER_BYTES_MAX).contains(&name.len())
        && name.trim() == name
        && name.chars().all(is_allowed)
}

pub(crate) fn user_key(user: &str, scram: Scram) -> String {
    format!("user/{user}/{}", scram.name())
}

pub(crate) fn admin_key(user: &str) -> String {
    format!("admin/{user}")
}

impl Access {
    /// As it was decided until now. Without `sasl`, nobody is asked who it is.
    pub(crate) fn load(meta: &Meta, sasl: Option<Sasl>, tell: Option<Teller>) -> Self {
        let access = Self {
            sasl,
            meta: meta.clone(),
            tell,
            authorizer: RefCell::default(),
            quotas: RefCell::new(Quotas::new(quotas(meta))),
            failures: RefCell::default(),
            comparing: Arc::new(Semaphore::new(1)),
            secret_of_nobody: Cell::default(),
        };
        access.renew();
        access
    }

    /// Brings back what users that do not exist are made of, or makes it.
    pub(crate) async fn begin(&self) {
        let kept = self.meta.get(NOBODY);
        let kept = kept.as_ref().and_then(|kept| kept.get("secret")?.as_str());
        let kept = kept.and_then(|secret| BASE64.decode(secret.as_bytes()).ok());
        if let Some(secret) = kept.and_then(|secret| secret.try_into().ok()) {
            self.secret_of_nobody.set(secret);
            return;
        }
        let mut secret = [0; 32];
        if let Err(error) = getrandom::fill(&mut secret) {
            tracing::error!(%error, "no randomness: who asks can tell which users exist");
        }
        self.secret_of_nobody.set(secret);
        if self.sasl.is_some() {
            let value = json!({"secret": BASE64.encode(&secret)});
            if let Err(error) = self.meta.put(NOBODY, Some(value)).await {
                tracing::warn!(%error, "after a restart, who asks can tell which users exist");
            }
        }
    }

    /// Whether clients have to say who they are.
    pub(crate) fn asks(&self) -> bool {
        self.sasl.is_some()
    }

    /// The mechanisms that are offered over such a connection.
    pub(crate) fn mechanisms(&self, is_tls: bool) -> impl Iterator<Item = Mechanism> {
        let mechanisms = self.sasl.iter().flat_map(|sasl| &sasl.mechanisms);
        mechanisms
            .copied()
            .filter(move |mechanism| is_tls || *mechanism != Mechanism::Plain)
    }

    /// Who may do what, at this moment.
    pub(crate) fn authorizer(&self) -> Rc<Authorizer> {
        Rc::clone(&self.authorizer.borrow())
    }

    /// Every user there is, in order: who has a password, or may do everything.
    pub(crate) fn users(&self) -> BTreeSet<String> {
        let credentials = self.meta.with_prefix("user/").into_iter();
        let admins = self.meta.with_prefix("admin/").into_iter();
        let with_password = |(key, _): (String, _)| {
            let (name, _) = key.strip_prefix("user/")?.split_once('/')?;
            Some(name.to_owned())
        };
        let admin = |(key, _): (String, _)| Some(key.strip_prefix("admin/")?.to_owned());
        let with_password = credentials.filter_map(with_password);
        with_password.chain(admins.filter_map(admin)).collect()
    }

    /// What is kept of a user's passwords.
    pub(crate) fn credentials(&self, user: &str) -> Vec<Credential> {
        let of = |scram| self.credential(user, scram);
        Scram::ALL.into_iter().filter_map(of).collect()
    }

    /// Whether this user may do everything.
    pub(crate) fn is_admin(&self, user: &str) -> bool {
        self.meta.get(&admin_key(user)).is_some()
    }

    /// The lines about this principal.
    pub(crate) fn lines_of(&self, principal: &str) -> Vec<Acl> {
        let acls = acls(&self.meta);
        acls.into_iter()
            .filter(|acl| acl.principal == principal)
            .collect()
    }

    /// The lines that are meant, also where nobody is asked who it is.
    pub(crate) fn lines(&self, filter: &Filter) -> Vec<Acl> {
        let mut acls = acls(&self.meta);
        acls.retain(|acl| filter.means(acl));
        acls.sort();
        acls
    }

    /// How many lines there are.
    pub(crate) fn count_of_lines(&self) -> usize {
        self.meta.with_prefix("acl/").len()
    }

    /// How a user or another principal stands, for the audit.
    pub(crate) fn standing(&self, principal: &str) -> Option<Value> {
        let user = principal.strip_prefix("User:").unwrap_or(principal);
        let credentials = self.credentials(user);
        let lines = self.lines_of(principal);
        let is_admin = self.is_admin(user);
        if credentials.is_empty() && lines.is_empty() && !is_admin {
            return None;
        }
        let mechanisms: Vec<_> = credentials.iter().map(|one| one.scram.name()).collect();
        let mut rights: Vec<_> = lines.iter().map(ToString::to_string).collect();
        if rights.len() > RIGHTS_TOLD {
            rights.truncate(RIGHTS_TOLD);
            rights.push(format!("and {} more", lines.len() - RIGHTS_TOLD));
        }
        Some(json!({"mechanisms": mechanisms, "admin": is_admin, "rights": rights}))
    }

    /// Changes what is decided of principals, all of it or nothing, and accounts for it, also where who asked
    /// goes away.
    ///
    /// # Errors
    /// When it is not kept.
    pub(crate) async fn change(
        self: &Rc<Self>,
        actor: &str,
        principals: &BTreeSet<String>,
        changes: Changes,
    ) -> Result<(), NotKept> {
        let (own, actor, principals) = (Rc::clone(self), actor.to_owned(), principals.clone());
        let around = move |apply: &mut dyn FnMut()| {
            let before: Vec<_> = principals.iter().map(|one| own.standing(one)).collect();
            apply();
            own.renew();
            for (principal, before) in principals.iter().zip(before) {
                let after = own.standing(principal);
                own.account(&actor, principal, before, after);
            }
        };
        self.meta.put_all_around(changes, around).await
    }

    /// Changes a quota, or removes it, and accounts for it, also where who asked goes away.
    ///
    /// # Errors
    /// When it is not kept.
    pub(crate) async fn change_quota(
        self: &Rc<Self>,
        actor: &str,
        entity: &Entity,
        rates: Option<Rates>,
    ) -> Result<(), NotKept> {
        let value = rates.map(|rates| json!({"entity": entity, "rates": rates}));
        let changes = vec![(entity.key(), value)];
        let (own, actor, entity) = (Rc::clone(self), actor.to_owned(), entity.clone());
        let around = move |apply: &mut dyn FnMut()| {
            let shown = |rates: &Rates| json!({"quota": rates});
            let before = own.quotas.borrow().get(&entity).map(shown);
            apply();
            own.quotas.borrow_mut().set(entity.clone(), rates);
            let after = rates.as_ref().map(shown);
            own.account(&actor, &entity.to_string(), before, after);
        };
        self.meta.put_all_around(changes, around).await
    }

    fn account(&self, actor: &str, target: &str, before: Option<Value>, after: Option<Value>) {
        tracing::info!(
            actor,
            about = target,
            "users, rights or quotas of Kafka's clients were changed"
        );
        if let Some(tell) = &self.tell {
            tell.0(Account {
                actor: actor.to_owned(),
                target: target.to_owned(),
                before,
                after,
            });
        }
    }

    fn renew(&self) {
        let authorizer = match self.sasl {
            Some(_) => {
                let admins = self.meta.with_prefix("admin/").into_iter();
                let admins =
                    admins.filter_map(|(key, _)| key.strip_prefix("admin/").map(str::to_owned));
                Authorizer::asking(admins, acls(&self.meta))
            }
            None => Authorizer::open(),
        };
        *self.authorizer.borrow_mut() = Rc::new(authorizer);
    }
}

fn acls(meta: &Meta) -> Vec<Acl> {
    let lines = meta.with_prefix("acl/").into_iter();
    let read = |(key, value)| match serde_json::from_value(value) {
        Ok(acl) => Some(acl),
        Err(error) => {
            tracing::error!(key, %error, "a line of the access control list cannot be read");
            None
        }
    };
    lines.filter_map(read).collect()
}

fn quotas(meta: &Meta) -> Vec<(Entity, Rates)> {
    #[derive(Deserialize)]
    struct Kept {
        entity: Entity,
        rates: Rates,
    }
    let quotas = meta.with_prefix("quota/").into_iter();
    let read = |(key, value)| match serde_json::from_value::<Kept>(value) {
        Ok(kept) => Some((kept.entity, kept.rates)),
        Err(error) => {
            tracing::error!(key, %error, "a quota cannot be read");
            None
        }
    };
    quotas.filter_map(read).collect()
}

impl Users for Access {
    fn credential(&self, user: &str, scram: Scram) -> Option<Credential> {
        let value = self.meta.get(&user_key(user, scram))?;
        read(scram, &value)
    }

    fn secret_of_nobody(&self) -> [u8; 32] {
        self.secret_of_nobody.get()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use futures_util::FutureExt as _;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::kafka::{
        auth::{Operation, Principal, Resource, acl::tests::acl},
        broker::Security,
        quota::Whom,
        rig::with_secured_broker,
    };

    #[test]
    fn what_was_asked_for_is_accounted_for_and_in_force_though_who_asked_has_gone() {
        let told: Arc<Mutex<Vec<Account>>> = Arc::default();
        let tell = {
            let told = Arc::clone(&told);
            Teller(Arc::new(move |account| told.lock().unwrap().push(account)))
        };
        let security = Security {
            tls: None,
            sasl: Some(Sasl {
                mechanisms: vec![Mechanism::Scram(Scram::Sha512)],
            }),
            tell: Some(tell),
        };
        with_secured_broker(&[("orders", 1)], security, async |rig| {
            let access = &rig.broker.access;
            let acl = acl("me allow read topic literal orders");
            let changes = vec![(acl.key(), Some(serde_json::to_value(&acl).unwrap()))];
            let principals = [acl.principal.clone()].into();
            let change = access.change("User:root", &principals, changes);
            assert!(change.now_or_never().is_none());
            let entity = Entity {
                user: None,
                client_id: Some(Whom::Default),
            };
            let rates = Rates {
                producer_byte_rate: Some(1.0),
                ..Rates::default()
            };
            let change = access.change_quota("User:root", &entity, Some(rates));
            assert!(change.now_or_never().is_none());
            let done = async {
                while told.lock().unwrap().len() < 2 {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(60), done).await.unwrap();
            let me = Principal::User("me".to_owned());
            let orders = Resource::Topic("orders");
            assert!(access.authorizer().may(&me, None, Operation::Read, orders));
            assert_eq!(access.quotas.borrow().get(&entity), Some(&rates));
            let told = told.lock().unwrap();
            assert!(
                told.iter()
                    .all(|told| told.before.is_none() && told.after.is_some())
            );
        });
    }

    #[test]
    fn what_is_kept_of_a_password_is_what_kafka_takes() {
        let scram = Scram::Sha256;
        let good = Credential::of_password(scram, b"pencil", vec![7; 24], ITERATIONS_MIN);
        assert!(read(scram, &written(&good)).is_some());
        let with = |name: &str, value: Value| {
            let mut kept = written(&good);
            kept[name] = value;
            read(scram, &kept)
        };
        for (rounds, is_fine) in [
            (0, false),
            (ITERATIONS_MIN - 1, false),
            (ITERATIONS_MAX, true),
            (ITERATIONS_MAX + 1, false),
            (u32::MAX, false),
        ] {
            let taken = with("iterations", rounds.into());
            assert_eq!(taken.is_some(), is_fine, "{rounds}");
        }
        for (bytes, is_fine) in [(0, false), (1, true), (64, true), (65, false)] {
            let salt = BASE64.encode(&vec![7; bytes]);
            assert_eq!(with("salt", salt.into()).is_some(), is_fine, "{bytes}");
        }
        assert!(with("stored_key", "AAAA".into()).is_none());
    }
}
