//! AlterClientQuotas (key 49): how many bytes a second clients may send and fetch from now on (KIP-546).
//!
//! Quotas of processor time (`request_percentage`), of topics made and of addresses are not kept, and asking
//! for one says so.

use std::rc::Rc;

use super::{
    super::{
        access::{Access, QUOTAS_MAX},
        auth::{Operation, Resource, acl::NAME_BYTES_MAX},
        broker::Call,
        error::ErrorCode,
        quota::{Entity, Rates, Whom},
        wire::{Malformed, Reader, Writer},
    },
    describe_client_quotas::write_entity,
};

/// What is to change.
#[derive(Debug)]
pub(super) struct Request {
    changes: Vec<Change>,
    /// Whether only to say what would be.
    is_trial: bool,
}

#[derive(Debug)]
struct Change {
    parts: Parts,
    /// By Kafka's names; none removes it.
    rates: Vec<(String, Option<f64>)>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let changes = from.array(|from| {
            let parts = from.array(|from| {
                let part = (from.string()?, from.nullable_string()?);
                from.tags()?;
                Ok(part)
            })?;
            let rates = from.array(|from| {
                let (name, rate) = (from.string()?, from.f64()?);
                let is_removed = from.bool()?;
                from.tags()?;
                Ok((name, (!is_removed).then_some(rate)))
            })?;
            from.tags()?;
            Ok(Change { parts, rates })
        })?;
        let is_trial = from.bool()?;
        from.tags()?;
        Ok(Self { changes, is_trial })
    }
}

/// What became of each.
#[derive(Debug)]
pub(super) struct Response {
    results: Vec<(Parts, Outcome)>,
}

/// An entity as it is named: its types, and who of each.
type Parts = Vec<(String, Option<String>)>;

type Outcome = Result<Entity, (ErrorCode, String)>;

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.array(&self.results, |to, (parts, outcome)| {
            let (error, why) = match outcome {
                Ok(_) => (ErrorCode::None, None),
                Err((error, why)) => (*error, Some(why.as_str())),
            };
            to.i16(error.code());
            to.nullable_string(why);
            match outcome {
                Ok(entity) => write_entity(to, entity),
                // As it was named.
                Err(_) => to.array(parts, |to, (kind, name)| {
                    to.string(kind);
                    to.nullable_string(name.as_deref());
                    to.tags();
                }),
            }
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let access = &call.broker.access;
    let is_allowed = call.may(Operation::AlterConfigs, Resource::Cluster);
    let mut results = Vec::new();
    for change in request.changes {
        let outcome = match is_allowed {
            true => carry_out(access, &call.actor(), &change, request.is_trial).await,
            false => Err((
                ErrorCode::ClusterAuthorizationFailed,
                "it needs AlterConfigs on the cluster".to_owned(),
            )),
        };
        results.push((change.parts, outcome));
    }
    Response { results }
}

async fn carry_out(access: &Rc<Access>, actor: &str, change: &Change, is_trial: bool) -> Outcome {
    let invalid = |why: &str| (ErrorCode::InvalidRequest, why.to_owned());
    let entity = entity(&change.parts).map_err(invalid)?;
    let kept = access.quotas.borrow().get(&entity).copied();
    let rates = changed(kept.unwrap_or_default(), &change.rates);
    let rates = rates.map_err(|why| (ErrorCode::InvalidRequest, why))?;
    let rates = Some(rates).filter(|rates| *rates != Rates::default());
    let is_new = kept.is_none() && rates.is_some();
    if is_new && access.quotas.borrow().all().count() >= QUOTAS_MAX {
        let why = format!("there may be {QUOTAS_MAX} quotas");
        return Err((ErrorCode::PolicyViolation, why));
    }
    if !is_trial && rates != kept {
        let changed = access.change_quota(actor, &entity, rates).await;
        changed.map_err(|not| (ErrorCode::KafkaStorageError, not.to_string()))?;
    }
    Ok(entity)
}

/// Whose quota it is.
fn entity(parts: &[(String, Option<String>)]) -> Result<Entity, &'static str> {
    let mut entity = Entity::default();
    for (kind, name) in parts {
        let part = match kind.as_str() {
            "user" => &mut entity.user,
            "client-id" => &mut entity.client_id,
            "ip" => return Err("there are no quotas of addresses here"),
            _ => return Err("an entity is a user or a client-id"),
        };
        let whom = match name {
            None => Whom::Default,
            Some(name) if name.len() > NAME_BYTES_MAX => return Err("the name is too long"),
            Some(name) => Whom::Named(name.clone()),
        };
        if part.replace(whom).is_some() {
            return Err("a type of entity stands twice");
        }
    }
    match entity == Entity::default() {
        true => Err("an entity is a user, a client-id or both"),
        false => Ok(entity),
    }
}

/// `rates` with the changes that are wanted.
fn changed(mut rates: Rates, wanted: &[(String, Option<f64>)]) -> Result<Rates, String> {
    for (name, wanted) in wanted {
        let rate = rates.named(name).ok_or_else(|| {
            format!(
                "{name:?} is not kept here: there are producer_byte_rate and consumer_byte_rate"
            )
        })?;
        if wanted.is_some_and(|wanted| !wanted.is_finite() || wanted <= 0.0) {
            return Err(format!("{name} is a number above 0"));
        }
        *rate = *wanted;
    }
    Ok(rates)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            AlterClientQuotasRequest, AlterClientQuotasResponse,
            alter_client_quotas_request::{EntityData, EntryData, OpData},
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    const KEY: Key = Key::AlterClientQuotas;

    #[test]
    fn every_version_is_read_and_written() {
        let text = StrBytes::from_static_str;
        for version in oracle::versions(KEY) {
            let part = |kind, name: Option<&'static str>| {
                EntityData::default()
                    .with_entity_type(text(kind))
                    .with_entity_name(name.map(text))
            };
            let set = OpData::default()
                .with_key(text("consumer_byte_rate"))
                .with_value(10.0);
            let remove = OpData::default()
                .with_key(text("producer_byte_rate"))
                .with_remove(true);
            let entry = EntryData::default()
                .with_entity(vec![part("user", None), part("client-id", Some("c"))])
                .with_ops(vec![set, remove]);
            let theirs = AlterClientQuotasRequest::default()
                .with_entries(vec![entry])
                .with_validate_only(true);
            let ours = oracle::read(KEY, version, &theirs, Request::read);
            assert!(ours.is_trial);
            let [change] = ours.changes.as_slice() else {
                panic!("{ours:?}");
            };
            let entity = entity(&change.parts).unwrap();
            assert_eq!(entity.to_string(), "user=* client-id=c");
            let before = Rates {
                producer_byte_rate: Some(1.0),
                consumer_byte_rate: None,
            };
            let after = changed(before, &change.rates).unwrap();
            assert_eq!(
                (after.producer_byte_rate, after.consumer_byte_rate),
                (None, Some(10.0))
            );
            let refused = (ErrorCode::InvalidRequest, "no".to_owned());
            let parts = vec![("ip".to_owned(), None)];
            let answer = Response {
                results: vec![(vec![], Ok(entity)), (parts, Err(refused))],
            };
            let told: AlterClientQuotasResponse =
                oracle::written(KEY, version, |to| answer.write(to));
            assert_eq!(told.entries[0].error_code, 0);
            assert_eq!(told.entries[0].entity[1].entity_name.as_deref(), Some("c"));
            assert_eq!(told.entries[1].error_code, 42);
            assert_eq!(told.entries[1].entity[0].entity_type.as_str(), "ip");
        }
    }

    #[test]
    fn what_is_not_kept_is_refused() {
        let part = |kind: &str| (kind.to_owned(), Some("x".to_owned()));
        for parts in [
            vec![],
            vec![part("ip")],
            vec![part("group")],
            vec![part("user"), part("user")],
        ] {
            assert!(entity(&parts).is_err(), "{parts:?}");
        }
        let refused =
            |name: &str, rate| changed(Rates::default(), &[(name.to_owned(), rate)]).unwrap_err();
        assert!(refused("request_percentage", Some(50.0)).contains("not kept here"));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(
                refused("consumer_byte_rate", Some(rate)),
                "consumer_byte_rate is a number above 0"
            );
        }
    }
}
