//! DescribeClientQuotas (key 48): how many bytes a second clients may send and fetch (KIP-546).

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    quota::{Entity, Rates, Whom},
    wire::{Malformed, Reader, Writer},
};

/// Whose quotas are meant.
#[derive(Debug)]
pub(super) struct Request {
    /// By type of entity.
    parts: Vec<(String, Meant)>,
    /// Whether an entity with other types is not meant.
    is_strict: bool,
}

/// Which of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meant {
    Exactly(Whom),
    Any,
    Unknown,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let parts = from.array(|from| {
            let kind = from.string()?;
            let (code, name) = (from.i8()?, from.nullable_string()?);
            from.tags()?;
            let meant = match (code, name) {
                (0, Some(name)) => Meant::Exactly(Whom::Named(name)),
                (1, None) => Meant::Exactly(Whom::Default),
                (2, None) => Meant::Any,
                _ => Meant::Unknown,
            };
            Ok((kind, meant))
        })?;
        let is_strict = from.bool()?;
        from.tags()?;
        Ok(Self { parts, is_strict })
    }
}

/// The quotas.
#[derive(Debug)]
pub(super) struct Response {
    outcome: Result<Vec<(Entity, Rates)>, (ErrorCode, &'static str)>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        let (error, why, quotas) = match &self.outcome {
            Ok(quotas) => (ErrorCode::None, None, Some(quotas.as_slice())),
            Err((error, why)) => (*error, Some(*why), None),
        };
        to.i16(error.code());
        to.nullable_string(why);
        to.nullable_array(quotas, |to, (entity, rates)| {
            write_entity(to, entity);
            to.array(&rates.given(), |to, (name, rate)| {
                to.string(name);
                to.f64(*rate);
                to.tags();
            });
            to.tags();
        });
        to.tags();
    }
}

/// An entity, as `AlterClientQuotas` writes it too.
pub(super) fn write_entity(to: &mut Writer, entity: &Entity) {
    let part = |kind, whom: &Option<Whom>| whom.clone().map(|whom| (kind, whom));
    let user = part("user", &entity.user).into_iter();
    let parts: Vec<_> = user.chain(part("client-id", &entity.client_id)).collect();
    to.array(&parts, |to, (kind, whom)| {
        to.string(kind);
        to.nullable_string(match whom {
            Whom::Default => None,
            Whom::Named(name) => Some(name),
        });
        to.tags();
    });
}

#[expect(clippy::unused_async, reason = "as all APIs are")]
pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    if !call.may(Operation::DescribeConfigs, Resource::Cluster) {
        let refused = (
            ErrorCode::ClusterAuthorizationFailed,
            "it needs DescribeConfigs on the cluster",
        );
        return Response {
            outcome: Err(refused),
        };
    }
    let outcome = meant(&request).map(|fits| {
        let quotas = call.broker.access.quotas.borrow();
        let all = quotas.all().filter(|(entity, _)| fits(entity));
        all.map(|(entity, rates)| (entity.clone(), *rates))
            .collect()
    });
    let outcome = outcome.map_err(|why| (ErrorCode::InvalidRequest, why));
    Response { outcome }
}

/// Whether an entity is meant.
fn meant(request: &Request) -> Result<impl Fn(&Entity) -> bool, &'static str> {
    let (mut user, mut client_id, mut nobody) = (None, None, false);
    for (kind, meant) in &request.parts {
        let part = match kind.as_str() {
            "user" => &mut user,
            "client-id" => &mut client_id,
            // There are no quotas of addresses.
            "ip" => {
                nobody = true;
                continue;
            }
            _ => return Err("an entity is a user, a client-id or an ip"),
        };
        if part.replace(meant.clone()).is_some() {
            return Err("a type of entity stands twice");
        }
        if *meant == Meant::Unknown {
            return Err("it is matched by a name, as the default, or any");
        }
    }
    let is_strict = request.is_strict;
    let fits = move |wanted: &Option<Meant>, is: &Option<Whom>| match (wanted, is) {
        (None, None) => true,
        (None, Some(_)) => !is_strict,
        (Some(_), None) => false,
        (Some(Meant::Exactly(wanted)), Some(is)) => wanted == is,
        (Some(Meant::Any | Meant::Unknown), Some(_)) => true,
    };
    Ok(move |entity: &Entity| {
        !nobody && fits(&user, &entity.user) && fits(&client_id, &entity.client_id)
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            DescribeClientQuotasRequest, DescribeClientQuotasResponse,
            describe_client_quotas_request::ComponentData,
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    const KEY: Key = Key::DescribeClientQuotas;

    fn me_and_any() -> Entity {
        Entity {
            user: Some(Whom::Named("me".to_owned())),
            client_id: Some(Whom::Default),
        }
    }

    #[test]
    fn every_version_is_read_and_written() {
        for version in oracle::versions(KEY) {
            let part = |kind, code, name: Option<&'static str>| {
                ComponentData::default()
                    .with_entity_type(StrBytes::from_static_str(kind))
                    .with_match_type(code)
                    .with_match(name.map(StrBytes::from_static_str))
            };
            let theirs = DescribeClientQuotasRequest::default()
                .with_components(vec![
                    part("user", 0, Some("me")),
                    part("client-id", 2, None),
                ])
                .with_strict(true);
            let ours = oracle::read(KEY, version, &theirs, Request::read);
            let me = Meant::Exactly(Whom::Named("me".to_owned()));
            let parts = [
                ("user".to_owned(), me),
                ("client-id".to_owned(), Meant::Any),
            ];
            assert_eq!((ours.parts, ours.is_strict), (parts.to_vec(), true));
            let rates = Rates {
                producer_byte_rate: Some(1_024.0),
                consumer_byte_rate: Some(0.5),
            };
            let answer = Response {
                outcome: Ok(vec![(me_and_any(), rates)]),
            };
            let told: DescribeClientQuotasResponse =
                oracle::written(KEY, version, |to| answer.write(to));
            let entry = &told.entries.as_ref().unwrap()[0];
            let parts = entry.entity.iter();
            let parts: Vec<_> = parts
                .map(|part| (part.entity_type.as_str(), part.entity_name.as_deref()))
                .collect();
            assert_eq!(parts, [("user", Some("me")), ("client-id", None)]);
            let values = entry.values.iter();
            let values: Vec<_> = values.map(|one| (one.key.as_str(), one.value)).collect();
            assert_eq!(
                values,
                [("producer_byte_rate", 1_024.0), ("consumer_byte_rate", 0.5)]
            );
            let answer = Response {
                outcome: Err((ErrorCode::InvalidRequest, "no")),
            };
            let told: DescribeClientQuotasResponse =
                oracle::written(KEY, version, |to| answer.write(to));
            assert_eq!((told.error_code, told.entries), (42, None));
        }
    }

    #[test]
    fn entities_are_meant_as_in_kafka() {
        let asks = |parts: &[(&str, Meant)], is_strict| {
            let parts = parts
                .iter()
                .map(|(kind, meant)| ((*kind).to_owned(), meant.clone()));
            let request = Request {
                parts: parts.collect(),
                is_strict,
            };
            meant(&request).map(|fits| fits(&me_and_any()))
        };
        let me = Meant::Exactly(Whom::Named("me".to_owned()));
        let default = Meant::Exactly(Whom::Default);
        assert_eq!(asks(&[], false), Ok(true));
        assert_eq!(asks(&[], true), Ok(false));
        assert_eq!(asks(&[("user", me.clone())], false), Ok(true));
        assert_eq!(asks(&[("user", me.clone())], true), Ok(false));
        assert_eq!(asks(&[("user", default.clone())], false), Ok(false));
        assert_eq!(
            asks(&[("user", me.clone()), ("client-id", default)], true),
            Ok(true)
        );
        assert_eq!(asks(&[("ip", Meant::Any)], false), Ok(false));
        assert!(asks(&[("user", me.clone()), ("user", me)], false).is_err());
        assert!(asks(&[("group", Meant::Any)], false).is_err());
        assert!(asks(&[("user", Meant::Unknown)], false).is_err());
    }
}
