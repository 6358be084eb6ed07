//! AlterConfigs (key 33): all that is set for a topic, anew (KIP-133). What is not named is set no more.

use super::{
    super::{
        auth::{Operation, Resource},
        broker::Call,
        error::ErrorCode,
        topics::{
            self,
            configs::{Refused, Set},
        },
        wire::{Malformed, Reader, Writer},
    },
    describe_configs::TOPIC,
};
use crate::log::TopicConfig;

/// What shall be set.
#[derive(Debug)]
pub(super) struct Request {
    resources: Vec<Wanted>,
    is_tried_only: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    kind: i8,
    name: String,
    configs: Vec<(String, Option<String>)>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let resources = from.array(|from| {
            let kind = from.i8()?;
            let name = from.string()?;
            let configs = from.array(|from| {
                let name = from.string()?;
                let value = from.nullable_string()?;
                from.tags()?;
                Ok((name, value))
            })?;
            from.tags()?;
            Ok(Wanted {
                kind,
                name,
                configs,
            })
        })?;
        let is_tried_only = from.bool()?;
        from.tags()?;
        Ok(Self {
            resources,
            is_tried_only,
        })
    }
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) resources: Vec<Told>,
}

/// What became of one resource.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) kind: i8,
    pub(super) name: String,
    pub(super) refused: Option<Refused>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.array(&self.resources, |to, told| {
            let refused = told.refused.as_ref();
            to.i16(
                refused
                    .map_or(ErrorCode::None, |refused| refused.code)
                    .code(),
            );
            to.nullable_string(refused.map(|refused| refused.why.as_str()));
            to.i8(told.kind);
            to.string(&told.name);
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let mut resources = Vec::new();
    for wanted in request.resources {
        let Wanted {
            kind,
            name,
            configs,
        } = wanted;
        let edit = move |_: Set, _: &TopicConfig| {
            let mut set = Set::default();
            for (name, value) in &configs {
                set.set(name, value.as_deref())?;
            }
            Ok(set)
        };
        let altered = alter((kind, &name), request.is_tried_only, edit, call).await;
        resources.push(Told {
            kind,
            name,
            refused: altered.err(),
        });
    }
    Response { resources }
}

/// Changes what is set for a topic; what others go by stands in Wardent's own configuration.
pub(super) async fn alter(
    (kind, name): (i8, &str),
    is_tried_only: bool,
    edit: impl FnOnce(Set, &TopicConfig) -> Result<Set, Refused> + 'static,
    call: &Call<'_>,
) -> Result<(), Refused> {
    if kind != TOPIC {
        let why =
            "only topics are configured by clients: what else there is stands in wardent.yaml";
        return Err(Refused::new(ErrorCode::InvalidRequest, why));
    }
    if !call.may(Operation::AlterConfigs, Resource::Topic(name)) {
        let why = "Authorization failed.";
        return Err(Refused::new(ErrorCode::TopicAuthorizationFailed, why));
    }
    topics::configure(call.broker, name, is_tried_only, edit).await
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            AlterConfigsRequest, AlterConfigsResponse,
            alter_configs_request::{AlterConfigsResource, AlterableConfig},
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{
        table::Key,
        topics::rig::{Rig, run},
        wire::oracle,
    };

    fn wanted(name: &str, configs: &[(&str, &str)]) -> Wanted {
        let configs = configs.iter();
        Wanted {
            kind: TOPIC,
            name: name.to_owned(),
            configs: configs
                .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
                .collect(),
        }
    }

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::AlterConfigs) {
            let text = StrBytes::from_static_str;
            let config = AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("5")));
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("orders"))
                .with_configs(vec![config]);
            let theirs = AlterConfigsRequest::default()
                .with_resources(vec![resource])
                .with_validate_only(true);
            let ours = oracle::read(Key::AlterConfigs, version, &theirs, Request::read);
            assert!(ours.is_tried_only);
            assert_eq!(ours.resources, [wanted("orders", &[("retention.ms", "5")])]);
        }
    }

    #[test]
    fn answers_are_written() {
        let response = Response {
            resources: vec![Told {
                kind: TOPIC,
                name: "orders".to_owned(),
                refused: Some(Refused::new(ErrorCode::InvalidConfig, "no")),
            }],
        };
        for version in oracle::versions(Key::AlterConfigs) {
            let write = |to: &mut Writer| response.write(to);
            let read: AlterConfigsResponse = oracle::written(Key::AlterConfigs, version, write);
            let told = &read.responses[0];
            assert_eq!((told.error_code, told.resource_type), (40, 2));
            assert_eq!(told.resource_name.as_str(), "orders");
            assert_eq!(told.error_message.as_deref(), Some("no"));
        }
    }

    #[test]
    fn what_is_not_named_is_set_no_more() {
        run(|rig: Rig| async move {
            let topic = rig.made("orders").await;
            let tried = |wanted, is_tried_only| {
                let request = Request {
                    resources: vec![wanted],
                    is_tried_only,
                };
                let rig = &rig;
                async move {
                    let told = answer(request, &rig.call(2)).await;
                    told.resources[0]
                        .refused
                        .as_ref()
                        .map(|refused| refused.code)
                }
            };
            let both = || {
                wanted(
                    "orders",
                    &[("retention.ms", "5"), ("max.message.bytes", "9")],
                )
            };
            assert_eq!(tried(both(), true).await, None);
            assert_eq!(topic.config().max_batch_bytes, 1_048_588);
            assert_eq!(tried(both(), false).await, None);
            assert_eq!(topic.config().max_batch_bytes, 9);
            let one = wanted("orders", &[("retention.ms", "6")]);
            assert_eq!(tried(one, false).await, None);
            let config = topic.config();
            assert_eq!(config.max_batch_bytes, 1_048_588);
            assert_eq!(config.retention, Some(std::time::Duration::from_millis(6)));
            let bad = wanted("orders", &[("retention.ms", "-5")]);
            assert_eq!(tried(bad, false).await, Some(ErrorCode::InvalidConfig));
            let unknown = tried(wanted("nobody", &[]), false).await;
            assert_eq!(unknown, Some(ErrorCode::UnknownTopicOrPartition));
            let own = tried(wanted("wardent.audit.event", &[]), false).await;
            assert_eq!(own, Some(ErrorCode::TopicAuthorizationFailed));
            let broker = Wanted {
                kind: 4,
                ..wanted("1", &[])
            };
            assert_eq!(tried(broker, false).await, Some(ErrorCode::InvalidRequest));
        });
    }
}
