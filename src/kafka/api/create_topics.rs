//! CreateTopics (key 19): new topics, each for itself (KIP-4, KIP-525).

use std::{collections::HashMap, time::Duration};

use super::super::{
    auth::{Operation, Resource},
    broker::{Call, NODE_ID},
    error::ErrorCode,
    topics::{
        self, New, PARTITIONS,
        configs::{Refused, Set, Shown},
    },
    wire::{Malformed, Reader, Uuid, Writer},
};

/// Whoever asks leaves it to the broker.
const UP_TO_YOU: i32 = -1;

/// Topics that are to be made.
#[derive(Debug)]
pub(super) struct Request {
    topics: Vec<Wanted>,
    within: Duration,
    is_tried_only: bool,
}

/// A topic that is to be made.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    partitions: i32,
    copies: i16,
    /// Which brokers have each partition.
    assigned: Vec<(i32, Vec<i32>)>,
    configs: Vec<(String, Option<String>)>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let topics = from.array(Wanted::read)?;
        let within = super::millis(from.i32()?);
        let is_tried_only = from.bool()?;
        from.tags()?;
        Ok(Self {
            topics,
            within,
            is_tried_only,
        })
    }
}

impl Wanted {
    fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let name = from.string()?;
        let partitions = from.i32()?;
        let copies = from.i16()?;
        let assigned = from.array(|from| {
            let index = from.i32()?;
            let brokers = from.array(Reader::i32)?;
            from.tags()?;
            Ok((index, brokers))
        })?;
        let configs = from.array(|from| {
            let name = from.string()?;
            let value = from.nullable_string()?;
            from.tags()?;
            Ok((name, value))
        })?;
        from.tags()?;
        Ok(Self {
            name,
            partitions,
            copies,
            assigned,
            configs,
        })
    }

    /// What is to be made.
    fn meant(&self) -> Result<New, Refused> {
        let invalid = |code, why: &str| Err(Refused::new(code, why));
        let mut partitions = self.partitions;
        if !self.assigned.is_empty() {
            if self.partitions != UP_TO_YOU || self.copies != -1 {
                return invalid(
                    ErrorCode::InvalidRequest,
                    "where brokers are assigned, partitions and copies are both -1",
                );
            }
            partitions = i32::try_from(self.assigned.len()).unwrap_or(i32::MAX);
            let mut indexes: Vec<_> = self.assigned.iter().map(|(index, _)| *index).collect();
            indexes.sort_unstable();
            if !indexes.into_iter().eq(0..partitions) {
                return invalid(
                    ErrorCode::InvalidReplicaAssignment,
                    "partitions are assigned from 0 on, each once",
                );
            }
            if self
                .assigned
                .iter()
                .any(|(_, brokers)| *brokers != [NODE_ID])
            {
                return invalid(
                    ErrorCode::InvalidReplicaAssignment,
                    "there is one broker, with the id 1",
                );
            }
        } else if !matches!(self.copies, -1 | 1) {
            return invalid(
                ErrorCode::InvalidReplicationFactor,
                "there is one broker: the replication factor is 1",
            );
        }
        let partitions = match partitions {
            UP_TO_YOU => PARTITIONS,
            stated => u32::try_from(stated).unwrap_or(0),
        };
        let mut set = Set::default();
        for (name, value) in &self.configs {
            set.set(name, value.as_deref())?;
        }
        Ok(New {
            name: self.name.clone(),
            partitions,
            set,
        })
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
    name: String,
    made: Result<Made, Refused>,
}

/// A topic as it was made, or would be.
#[derive(Debug)]
struct Made {
    id: Uuid,
    partitions: u32,
    /// None where who asks may not see them.
    configs: Option<Vec<Shown>>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.array(&self.topics, Told::write);
        to.tags();
    }
}

impl Told {
    fn write(to: &mut Writer, told: &Self) {
        let version = to.version();
        to.string(&told.name);
        let made = told.made.as_ref();
        if version >= 7 {
            to.uuid(&made.map_or(Uuid::default(), |made| made.id));
        }
        let refused = made.err();
        to.i16(
            refused
                .map_or(ErrorCode::None, |refused| refused.code)
                .code(),
        );
        to.nullable_string(refused.map(|refused| refused.why.as_str()));
        if version < 5 {
            return to.tags();
        }
        let seen = made
            .ok()
            .and_then(|made| Some((made, made.configs.as_ref()?)));
        let partitions = seen.map(|(made, _)| i32::try_from(made.partitions).unwrap_or(i32::MAX));
        to.i32(partitions.unwrap_or(-1));
        to.i16(if seen.is_some() { 1 } else { -1 });
        let configs = seen.map_or(&[][..], |(_, configs)| configs);
        to.array(configs, |to, config| {
            to.string(config.name);
            to.nullable_string(Some(&config.value));
            // Whether it can only be read.
            to.bool(false);
            to.i8(config.source.code());
            // No secret.
            to.bool(false);
            to.tags();
        });
        if made.is_ok() && seen.is_none() {
            // One tagged field, 0, of two bytes: why the configs are not told.
            for number in [1, 0, 2] {
                to.varint(number);
            }
            return to.i16(ErrorCode::TopicAuthorizationFailed.code());
        }
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let mut times = HashMap::<&str, u32>::new();
    for topic in &request.topics {
        *times.entry(&topic.name).or_default() += 1;
    }
    let mut topics = Vec::new();
    for wanted in &request.topics {
        // What is there more than once is told once.
        let made = match times.remove(wanted.name.as_str()) {
            None => continue,
            Some(1) => make(wanted, &request, call).await,
            Some(_) => Err(Refused::new(
                ErrorCode::InvalidRequest,
                "Duplicate topic name.",
            )),
        };
        topics.push(Told {
            name: wanted.name.clone(),
            made,
        });
    }
    Response { topics }
}

async fn make(wanted: &Wanted, request: &Request, call: &Call<'_>) -> Result<Made, Refused> {
    let broker = call.broker;
    let name = &wanted.name;
    if !topics::may_create(call, name) {
        let why = "Authorization failed.";
        return Err(Refused::new(ErrorCode::TopicAuthorizationFailed, why));
    }
    let new = wanted.meant()?;
    let (partitions, set) = (new.partitions, new.set.clone());
    let id = if request.is_tried_only {
        topics::check(broker, &new)?;
        Uuid::default()
    } else {
        topics::create(broker, new, request.within).await?.id
    };
    let may_see = call.may(Operation::DescribeConfigs, Resource::Topic(name));
    Ok(Made {
        id,
        partitions,
        configs: may_see.then(|| topics::shown(broker, name, &set)),
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            BrokerId, CreateTopicsRequest, CreateTopicsResponse, TopicName,
            create_topics_request::{
                CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
            },
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{
        table::Key,
        topics::rig::{Rig, run},
        wire::oracle,
    };

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::CreateTopics) {
            let assigned = CreatableReplicaAssignment::default()
                .with_partition_index(2)
                .with_broker_ids(vec![BrokerId(1)]);
            let config = CreatableTopicConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("5")));
            let topic = CreatableTopic::default()
                .with_name(TopicName(text("orders")))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_assignments(vec![assigned])
                .with_configs(vec![config]);
            let theirs = CreateTopicsRequest::default()
                .with_topics(vec![topic])
                .with_timeout_ms(7000)
                .with_validate_only(true);
            let ours = oracle::read(Key::CreateTopics, version, &theirs, Request::read);
            assert_eq!(ours.within, Duration::from_secs(7));
            assert!(ours.is_tried_only);
            let wanted = Wanted {
                name: "orders".to_owned(),
                partitions: -1,
                copies: -1,
                assigned: vec![(2, vec![1])],
                configs: vec![("retention.ms".to_owned(), Some("5".to_owned()))],
            };
            assert_eq!(ours.topics, [wanted]);
        }
    }

    #[test]
    fn answers_are_written() {
        let base = crate::log::TopicConfig::default();
        let shown = Set::default().shown(&base, &base);
        let made = |configs| {
            Ok(Made {
                id: [7; 16],
                partitions: 3,
                configs,
            })
        };
        let refused = Err(Refused::new(ErrorCode::TopicAlreadyExists, "it is there"));
        let told = |name: &str, made| Told {
            name: name.to_owned(),
            made,
        };
        let response = Response {
            topics: vec![
                told("seen", made(Some(shown.clone()))),
                told("unseen", made(None)),
                told("refused", refused),
            ],
        };
        for version in oracle::versions(Key::CreateTopics) {
            let write = |to: &mut Writer| response.write(to);
            let read: CreateTopicsResponse = oracle::written(Key::CreateTopics, version, write);
            let [seen, unseen, refused] = read.topics.as_slice() else {
                panic!("{read:?}")
            };
            assert_eq!((seen.error_code, refused.error_code), (0, 36));
            assert_eq!(refused.error_message.as_deref(), Some("it is there"));
            assert_eq!(seen.topic_id.as_bytes() == &[7; 16], version >= 7);
            if version >= 5 {
                assert_eq!((seen.num_partitions, seen.replication_factor), (3, 1));
                let configs = seen.configs.as_ref().unwrap();
                assert_eq!(configs.len(), shown.len());
                assert_eq!(configs[0].name.as_str(), "cleanup.policy");
                assert_eq!(configs[0].config_source, 5);
                assert_eq!(unseen.topic_config_error_code, 29);
                assert_eq!((unseen.num_partitions, refused.num_partitions), (-1, -1));
            }
        }
    }

    fn wanted(name: &str) -> Wanted {
        Wanted {
            name: name.to_owned(),
            partitions: -1,
            copies: -1,
            assigned: Vec::new(),
            configs: Vec::new(),
        }
    }

    /// One that can be made, and others.
    fn many() -> Vec<Wanted> {
        let config = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        vec![
            Wanted {
                partitions: 2,
                copies: 1,
                configs: vec![config("cleanup.policy", "compact")],
                ..wanted("a.b")
            },
            wanted("a_b"),
            wanted("a b"),
            wanted("twice"),
            wanted("twice"),
            wanted("wardent.mine"),
            Wanted {
                copies: 3,
                ..wanted("copies")
            },
            Wanted {
                partitions: 0,
                ..wanted("none")
            },
            Wanted {
                assigned: vec![(0, vec![2])],
                ..wanted("elsewhere")
            },
            Wanted {
                configs: vec![config("min.insync.replicas", "2")],
                ..wanted("insync")
            },
            Wanted {
                assigned: vec![(1, vec![1]), (0, vec![1])],
                ..wanted("assigned")
            },
        ]
    }

    #[test]
    fn topics_are_made_or_refused_each_for_itself() {
        run(|rig: Rig| async move {
            let request = |topics, is_tried_only| Request {
                topics,
                within: Duration::ZERO,
                is_tried_only,
            };
            let told = answer(request(many(), false), &rig.call(7)).await;
            let codes = told.topics.iter().map(|told| {
                let code = told
                    .made
                    .as_ref()
                    .map_or_else(|refused| refused.code, |_| ErrorCode::None);
                (told.name.as_str(), code)
            });
            let expected = [
                ("a.b", ErrorCode::None),
                ("a_b", ErrorCode::InvalidTopicException),
                ("a b", ErrorCode::InvalidTopicException),
                ("twice", ErrorCode::InvalidRequest),
                ("wardent.mine", ErrorCode::TopicAuthorizationFailed),
                ("copies", ErrorCode::InvalidReplicationFactor),
                ("none", ErrorCode::InvalidPartitions),
                ("elsewhere", ErrorCode::InvalidReplicaAssignment),
                ("insync", ErrorCode::InvalidConfig),
                ("assigned", ErrorCode::None),
            ];
            assert_eq!(codes.collect::<Vec<_>>(), expected);
            let topics = rig.log().topics();
            let made = topics.get("a.b").unwrap();
            assert_eq!(made.partitions(), 2);
            assert_eq!(made.config().cleanup, crate::log::Cleanup::Compact);
            assert_eq!(topics.get("assigned").unwrap().partitions(), 2);
            let again = answer(
                request(vec![wanted("a.b"), wanted("new")], true),
                &rig.call(7),
            )
            .await;
            assert_eq!(
                again.topics[0].made.as_ref().unwrap_err().code,
                ErrorCode::TopicAlreadyExists
            );
            assert_eq!(
                again.topics[1].made.as_ref().unwrap().partitions,
                PARTITIONS
            );
            assert!(rig.log().topics().get("new").is_none());
        });
    }
}
