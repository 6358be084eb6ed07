//! DeleteTopics (key 20): topics that go, by name or by id (KIP-4, KIP-516).

use std::{collections::HashMap, time::Duration};

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    topics::{self, configs::Refused},
    wire::{Malformed, Reader, Uuid, Writer},
};

/// Topics that are to go.
#[derive(Debug)]
pub(super) struct Request {
    topics: Vec<Named>,
    within: Duration,
}

/// A topic: by name, or by id where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Named {
    name: Option<String>,
    id: Uuid,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let topics = match from.version() {
            6.. => from.array(|from| {
                let name = from.nullable_string()?;
                let id = from.uuid()?;
                from.tags()?;
                Ok(Named { name, id })
            })?,
            _ => from.array(|from| {
                let name = Some(from.string()?);
                let id = Uuid::default();
                Ok(Named { name, id })
            })?,
        };
        let within = super::millis(from.i32()?);
        from.tags()?;
        Ok(Self { topics, within })
    }
}

/// What became of them.
#[derive(Debug)]
pub(super) struct Response {
    topics: Vec<Told>,
}

/// What became of one.
#[derive(Debug)]
struct Told {
    topic: Named,
    refused: Option<Refused>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        let version = to.version();
        // Throttle time.
        to.i32(0);
        to.array(&self.topics, |to, told| {
            let name = told.topic.name.as_deref();
            match version {
                6.. => {
                    to.nullable_string(name);
                    to.uuid(&told.topic.id);
                }
                _ => to.string(name.unwrap_or_default()),
            }
            let refused = told.refused.as_ref();
            to.i16(
                refused
                    .map_or(ErrorCode::None, |refused| refused.code)
                    .code(),
            );
            if version >= 5 {
                to.nullable_string(refused.map(|refused| refused.why.as_str()));
            }
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let mut times = HashMap::<Named, u32>::new();
    for topic in &request.topics {
        *times.entry(topic.clone()).or_default() += 1;
    }
    let mut told = Vec::new();
    for topic in request.topics {
        told.push(match times.remove(&topic) {
            // What is there more than once is told once.
            None => continue,
            Some(1) => delete(topic, request.within, call).await,
            Some(_) => Told {
                topic,
                refused: Some(Refused::new(
                    ErrorCode::InvalidRequest,
                    "the topic is named twice",
                )),
            },
        });
    }
    Response { topics: told }
}

async fn delete(topic: Named, within: Duration, call: &Call<'_>) -> Told {
    match deleted(&topic, within, call).await {
        Ok(topic) => Told {
            topic,
            refused: None,
        },
        Err(refused) => Told {
            topic,
            refused: Some(refused),
        },
    }
}

async fn deleted(topic: &Named, within: Duration, call: &Call<'_>) -> Result<Named, Refused> {
    let refused = |code, why: &str| Err(Refused::new(code, why));
    let topics = call.broker.log.topics();
    let name = match &topic.name {
        Some(_) if topic.id != Uuid::default() => {
            return refused(
                ErrorCode::InvalidRequest,
                "a topic is named by its name or by its id, not by both",
            );
        }
        Some(name) => name.clone(),
        None => match topics.by_id(&topic.id) {
            Some(topic) if call.may(Operation::Describe, Resource::Topic(&topic.name)) => {
                topic.name.clone()
            }
            _ => {
                return refused(ErrorCode::UnknownTopicId, "there is no topic with this id");
            }
        },
    };
    if !call.may(Operation::Delete, Resource::Topic(&name)) {
        return refused(ErrorCode::TopicAuthorizationFailed, "Authorization failed.");
    }
    let gone = topics::delete(call.broker, name, within).await?;
    Ok(Named {
        name: Some(gone.name.clone()),
        id: gone.id,
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
            delete_topics_request::DeleteTopicState,
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{
        table::Key,
        topics::rig::{Rig, run},
        wire::oracle,
    };

    fn named(name: &str) -> Named {
        Named {
            name: Some(name.to_owned()),
            id: Uuid::default(),
        }
    }

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::DeleteTopics) {
            let name = TopicName(StrBytes::from_static_str("orders"));
            let mut theirs = DeleteTopicsRequest::default().with_timeout_ms(-1);
            if version >= 6 {
                theirs = theirs.with_topics(vec![
                    DeleteTopicState::default().with_name(Some(name)),
                    DeleteTopicState::default()
                        .with_name(None)
                        .with_topic_id("07070707-0707-0707-0707-070707070707".parse().unwrap()),
                ]);
            } else {
                theirs = theirs.with_topic_names(vec![name]);
            }
            let ours = oracle::read(Key::DeleteTopics, version, &theirs, Request::read);
            assert_eq!(ours.within, Duration::ZERO);
            let by_id = Named {
                name: None,
                id: [7; 16],
            };
            let expected = [named("orders"), by_id];
            let count = if version >= 6 { 2 } else { 1 };
            assert_eq!(ours.topics, expected[..count]);
        }
    }

    #[test]
    fn answers_are_written() {
        let response = Response {
            topics: vec![Told {
                topic: Named {
                    name: Some("orders".to_owned()),
                    id: [7; 16],
                },
                refused: Some(Refused::new(ErrorCode::UnknownTopicOrPartition, "no")),
            }],
        };
        for version in oracle::versions(Key::DeleteTopics) {
            let write = |to: &mut Writer| response.write(to);
            let read: DeleteTopicsResponse = oracle::written(Key::DeleteTopics, version, write);
            let told = &read.responses[0];
            assert_eq!(told.name.as_ref().unwrap().as_str(), "orders");
            assert_eq!(told.error_code, 3);
            assert_eq!(told.topic_id.as_bytes() == &[7; 16], version >= 6);
            assert_eq!(told.error_message.is_some(), version >= 5);
        }
    }

    #[test]
    fn topics_go_by_name_and_by_id() {
        run(|rig: Rig| async move {
            let first = rig.made("first").await;
            let second = rig.made("second").await;
            let topics = vec![
                named("first"),
                Named {
                    name: None,
                    id: second.id,
                },
                named("nobody"),
                Named {
                    name: None,
                    id: [9; 16],
                },
                Named {
                    id: [9; 16],
                    ..named("both")
                },
                named("wardent.audit.event"),
            ];
            let request = Request {
                topics,
                within: Duration::ZERO,
            };
            let told = answer(request, &rig.call(6)).await.topics;
            let codes = told
                .iter()
                .map(|told| told.refused.as_ref().map(|refused| refused.code));
            let expected = [
                None,
                None,
                Some(ErrorCode::UnknownTopicOrPartition),
                Some(ErrorCode::UnknownTopicId),
                Some(ErrorCode::InvalidRequest),
                Some(ErrorCode::TopicAuthorizationFailed),
            ];
            assert_eq!(codes.collect::<Vec<_>>(), expected);
            assert_eq!(told[0].topic.id, first.id);
            assert_eq!(told[1].topic.name.as_deref(), Some("second"));
            assert!(rig.log().topics().get("first").is_none());
        });
    }
}
