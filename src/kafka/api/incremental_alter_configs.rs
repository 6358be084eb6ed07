//! IncrementalAlterConfigs (key 44): some of what is set for a topic (KIP-339). What is not named stays.

use std::collections::HashSet;

use super::{
    super::{
        broker::Call,
        error::ErrorCode,
        topics::configs::{Refused, Set},
        wire::{Malformed, Reader},
    },
    alter_configs::{self, Told},
};
use crate::log::TopicConfig;

pub(super) use alter_configs::Response;

/// What is done to a config, as Kafka numbers it.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// What shall be set, or be so no more.
#[derive(Debug)]
pub(super) struct Request {
    resources: Vec<Wanted>,
    is_tried_only: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    kind: i8,
    name: String,
    edits: Vec<Edit>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit {
    name: String,
    what: i8,
    value: Option<String>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let resources = from.array(|from| {
            let kind = from.i8()?;
            let name = from.string()?;
            let edits = from.array(|from| {
                let name = from.string()?;
                let what = from.i8()?;
                let value = from.nullable_string()?;
                from.tags()?;
                Ok(Edit { name, what, value })
            })?;
            from.tags()?;
            Ok(Wanted { kind, name, edits })
        })?;
        let is_tried_only = from.bool()?;
        from.tags()?;
        Ok(Self {
            resources,
            is_tried_only,
        })
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let mut resources = Vec::new();
    for Wanted { kind, name, edits } in request.resources {
        let edit = move |set, base: &TopicConfig| edited(set, base, &edits);
        let own = (kind, name.as_str());
        let altered = alter_configs::alter(own, request.is_tried_only, edit, call).await;
        resources.push(Told {
            kind,
            name,
            refused: altered.err(),
        });
    }
    Response { resources }
}

fn edited(mut set: Set, base: &TopicConfig, edits: &[Edit]) -> Result<Set, Refused> {
    let mut seen = HashSet::new();
    for Edit { name, what, value } in edits {
        let invalid = |why: &str| {
            let why = format!("{name}: {why}");
            Err(Refused::new(ErrorCode::InvalidRequest, why))
        };
        if !seen.insert(name) {
            return invalid("it is named twice");
        }
        match (*what, value) {
            (DELETE, _) => set.set(name, None)?,
            (SET | APPEND | SUBTRACT, None) => return invalid("it is to be set, and to nothing"),
            (SET, Some(value)) => set.set(name, Some(value))?,
            (APPEND | SUBTRACT, Some(value)) => {
                set.set_list(name, value, *what == APPEND, base)?;
            }
            _ => return invalid("that cannot be done to a config"),
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
            incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{
        table::Key,
        topics::{
            self,
            rig::{Rig, run},
        },
        wire::{Writer, oracle},
    };

    fn edit(name: &str, what: i8, value: Option<&str>) -> Edit {
        Edit {
            name: name.to_owned(),
            what,
            value: value.map(str::to_owned),
        }
    }

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::IncrementalAlterConfigs) {
            let text = StrBytes::from_static_str;
            let config = AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_config_operation(1)
                .with_value(None);
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("orders"))
                .with_configs(vec![config]);
            let theirs = IncrementalAlterConfigsRequest::default()
                .with_resources(vec![resource])
                .with_validate_only(true);
            let key = Key::IncrementalAlterConfigs;
            let ours = oracle::read(key, version, &theirs, Request::read);
            assert!(ours.is_tried_only);
            let wanted = Wanted {
                kind: 2,
                name: "orders".to_owned(),
                edits: vec![edit("retention.ms", DELETE, None)],
            };
            assert_eq!(ours.resources, [wanted]);
        }
    }

    #[test]
    fn answers_are_written() {
        let response = Response {
            resources: vec![Told {
                kind: 2,
                name: "orders".to_owned(),
                refused: None,
            }],
        };
        for version in oracle::versions(Key::IncrementalAlterConfigs) {
            let write = |to: &mut Writer| response.write(to);
            let read: IncrementalAlterConfigsResponse =
                oracle::written(Key::IncrementalAlterConfigs, version, write);
            let told = &read.responses[0];
            assert_eq!((told.error_code, told.resource_type), (0, 2));
            assert_eq!(told.resource_name.as_str(), "orders");
        }
    }

    #[test]
    fn what_is_not_named_stays_and_all_of_it_outlives_a_restart() {
        run(|rig: Rig| async move {
            let topic = rig.made("orders").await;
            let tries = [
                (vec![edit("retention.ms", SET, Some("5"))], None),
                (vec![edit("max.message.bytes", SET, Some("9"))], None),
                (vec![edit("cleanup.policy", APPEND, Some("delete"))], None),
                (
                    vec![edit("retention.ms", APPEND, Some("5"))],
                    Some(ErrorCode::InvalidConfig),
                ),
                (
                    vec![edit("retention.ms", 7, Some("5"))],
                    Some(ErrorCode::InvalidRequest),
                ),
                (
                    vec![edit("retention.ms", SET, None)],
                    Some(ErrorCode::InvalidRequest),
                ),
                (
                    vec![
                        edit("segment.ms", SET, Some("5000")),
                        edit("segment.ms", DELETE, None),
                    ],
                    Some(ErrorCode::InvalidRequest),
                ),
                (vec![edit("max.message.bytes", DELETE, None)], None),
            ];
            for (edits, expected) in tries {
                let request = Request {
                    resources: vec![Wanted {
                        kind: 2,
                        name: "orders".to_owned(),
                        edits,
                    }],
                    is_tried_only: false,
                };
                let told = answer(request, &rig.call(1)).await;
                let code = told.resources[0]
                    .refused
                    .as_ref()
                    .map(|refused| refused.code);
                assert_eq!(code, expected, "{told:?}");
            }
            let config = topic.config();
            assert_eq!(config.retention, Some(std::time::Duration::from_millis(5)));
            assert_eq!(config.max_batch_bytes, 1_048_588);
            rig.begin_anew("orders").await;
            let again = rig.log().topics().get("orders").unwrap().config();
            assert_eq!(*again, *config);
            assert_eq!(topics::set_of(rig.call(1).broker, "orders").0.len(), 2);
        });
    }
}
