//! DescribeConfigs (key 32): how topics are kept, and what the broker goes by (KIP-133, KIP-226).

use std::collections::HashSet;

use super::super::{
    auth::{Operation, Resource},
    broker::{Broker, Call, NODE_ID},
    error::ErrorCode,
    topics::{
        self,
        configs::{Kind, Refused, Source},
    },
    wire::{Malformed, Reader, Writer},
};

/// What has configs, as Kafka numbers it.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

/// Whose configs are asked for.
#[derive(Debug)]
pub(super) struct Request {
    resources: Vec<Asked>,
    with_synonyms: bool,
    with_words: bool,
}

/// One that has configs.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    kind: i8,
    name: String,
    /// Which of them; all where there is no list.
    configs: Option<Vec<String>>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let version = from.version();
        let resources = from.array(|from| {
            let kind = from.i8()?;
            let name = from.string()?;
            let configs = from.nullable_array(Reader::string)?;
            from.tags()?;
            Ok(Asked {
                kind,
                name,
                configs,
            })
        })?;
        let with_synonyms = from.bool()?;
        let with_words = version >= 3 && from.bool()?;
        from.tags()?;
        Ok(Self {
            resources,
            with_synonyms,
            with_words,
        })
    }
}

/// Configs of each.
#[derive(Debug)]
pub(super) struct Response {
    resources: Vec<(Asked, Result<Vec<Told>, Refused>)>,
    with_synonyms: bool,
    with_words: bool,
}

/// A config.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    name: &'static str,
    value: String,
    source: Source,
    kind: Kind,
    is_fixed: bool,
    what: &'static str,
    /// What it is, and what it would be else, by the name it has there.
    synonyms: Vec<(&'static str, String, Source)>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.array(&self.resources, |to, (asked, configs)| {
            let refused = configs.as_ref().err();
            to.i16(
                refused
                    .map_or(ErrorCode::None, |refused| refused.code)
                    .code(),
            );
            to.nullable_string(refused.map(|refused| refused.why.as_str()));
            to.i8(asked.kind);
            to.string(&asked.name);
            let configs = configs.as_ref().map_or(&[][..], Vec::as_slice);
            to.array(configs, |to, config| self.write_config(to, config));
            to.tags();
        });
        to.tags();
    }

    fn write_config(&self, to: &mut Writer, config: &Told) {
        to.string(config.name);
        to.nullable_string(Some(&config.value));
        to.bool(config.is_fixed);
        to.i8(config.source.code());
        // No secret.
        to.bool(false);
        let synonyms = match self.with_synonyms {
            true => config.synonyms.as_slice(),
            false => &[],
        };
        to.array(synonyms, |to, (name, value, source)| {
            to.string(name);
            to.nullable_string(Some(value));
            to.i8(source.code());
            to.tags();
        });
        if to.version() >= 3 {
            to.i8(config.kind.code());
            to.nullable_string(self.with_words.then_some(config.what));
        }
        to.tags();
    }
}

#[expect(clippy::unused_async, reason = "as all APIs are")]
pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let mut seen = HashSet::new();
    let told = request.resources.into_iter().map(|asked| {
        let configs = match asked.kind {
            // A few bytes each, and some kilobytes of answer.
            _ if !seen.insert((asked.kind, asked.name.clone())) => Err(Refused::new(
                ErrorCode::InvalidRequest,
                "it is asked for twice",
            )),
            TOPIC => of_topic(&asked.name, call),
            BROKER => of_broker(&asked.name, call),
            other => Err(Refused::new(
                ErrorCode::InvalidRequest,
                format!("there are no configs of resources of type {other} here"),
            )),
        };
        let wanted = |told: &Told| {
            let names = asked.configs.as_ref();
            names.is_none_or(|names| names.iter().any(|name| name == told.name))
        };
        let configs = configs.map(|all| all.into_iter().filter(wanted).collect());
        (asked, configs)
    });
    Response {
        resources: told.collect(),
        with_synonyms: request.with_synonyms,
        with_words: request.with_words,
    }
}

fn of_topic(name: &str, call: &Call<'_>) -> Result<Vec<Told>, Refused> {
    if !call.may(Operation::DescribeConfigs, Resource::Topic(name)) {
        let why = "Authorization failed.";
        return Err(Refused::new(ErrorCode::TopicAuthorizationFailed, why));
    }
    if call.broker.log.topics().get(name).is_none() {
        let why = "This server does not host this topic-partition.";
        return Err(Refused::new(ErrorCode::UnknownTopicOrPartition, why));
    }
    let set = topics::set_of(call.broker, name);
    let shown = topics::shown(call.broker, name, &set).into_iter();
    let told = shown.map(|config| {
        let mut synonyms = vec![(config.name, config.default, Source::Default)];
        if config.source != Source::Default {
            synonyms.insert(0, (config.name, config.value.clone(), config.source));
        }
        Told {
            name: config.name,
            value: config.value,
            source: config.source,
            kind: config.kind,
            // As Kafka tells it: whoever sets what cannot be otherwise is told why.
            is_fixed: false,
            what: config.what,
            synonyms,
        }
    });
    Ok(told.collect())
}

fn of_broker(name: &str, call: &Call<'_>) -> Result<Vec<Told>, Refused> {
    if !call.may(Operation::DescribeConfigs, Resource::Cluster) {
        let why = "Cluster authorization failed.";
        return Err(Refused::new(ErrorCode::ClusterAuthorizationFailed, why));
    }
    // The empty name is what all brokers go by that nobody set: nothing, here.
    match name {
        "" => Ok(Vec::new()),
        name if name == NODE_ID.to_string() => Ok(broker_configs(call.broker)),
        other => Err(Refused::new(
            ErrorCode::InvalidRequest,
            format!(
                "Unexpected broker id, expected {NODE_ID} or empty string, but received {other}"
            ),
        )),
    }
}

/// What tools look for in a broker. All of it stands in Wardent's own configuration, or in its code.
fn broker_configs(broker: &Broker) -> Vec<Told> {
    let default = broker.topics.default();
    let millis = |duration: Option<std::time::Duration>| {
        duration.map_or_else(
            || "-1".to_owned(),
            |duration| duration.as_millis().to_string(),
        )
    };
    let address = format!("{}:{}", broker.settings.host, broker.settings.port);
    let dir = broker.log.dir().display().to_string();
    let own = |name, kind, value: String| (name, kind, value, Source::Broker);
    let usual = |name, kind, value: &str| (name, kind, value.to_owned(), Source::Default);
    let configs = [
        own(
            "advertised.listeners",
            Kind::Text,
            format!("PLAINTEXT://{address}"),
        ),
        usual("auto.create.topics.enable", Kind::Boolean, "true"),
        own("broker.id", Kind::Int, NODE_ID.to_string()),
        usual("compression.type", Kind::Text, "producer"),
        usual("default.replication.factor", Kind::Int, "1"),
        usual("delete.topic.enable", Kind::Boolean, "true"),
        usual("log.cleaner.enable", Kind::Boolean, "true"),
        usual("log.cleanup.policy", Kind::List, "delete"),
        own("log.dirs", Kind::Text, dir),
        usual("log.flush.interval.messages", Kind::Long, "1"),
        usual("log.message.timestamp.type", Kind::Text, "CreateTime"),
        usual("log.retention.bytes", Kind::Long, "-1"),
        usual("log.retention.ms", Kind::Long, &millis(default.retention)),
        own(
            "log.segment.bytes",
            Kind::Int,
            default.segment_bytes.to_string(),
        ),
        usual(
            "message.max.bytes",
            Kind::Int,
            &default.max_batch_bytes.to_string(),
        ),
        usual("min.insync.replicas", Kind::Int, "1"),
        own("node.id", Kind::Int, NODE_ID.to_string()),
        usual("num.partitions", Kind::Int, &topics::PARTITIONS.to_string()),
        usual("offsets.topic.replication.factor", Kind::Int, "1"),
        usual("process.roles", Kind::List, "broker,controller"),
        usual("unclean.leader.election.enable", Kind::Boolean, "false"),
    ];
    let told = configs.map(|(name, kind, value, source)| Told {
        name,
        synonyms: vec![(name, value.clone(), source)],
        value,
        source,
        kind,
        is_fixed: true,
        what: "it is not set by clients",
    });
    told.into()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            DescribeConfigsRequest, DescribeConfigsResponse,
            describe_configs_request::DescribeConfigsResource,
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{
        table::Key,
        topics::rig::{Rig, run},
        wire::oracle,
    };

    fn asked(kind: i8, name: &str) -> Asked {
        Asked {
            kind,
            name: name.to_owned(),
            configs: None,
        }
    }

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::DescribeConfigs) {
            let text = StrBytes::from_static_str;
            let topic = DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("orders"));
            let resources = vec![
                topic.clone().with_configuration_keys(None),
                topic.with_configuration_keys(Some(vec![text("retention.ms")])),
            ];
            let theirs = DescribeConfigsRequest::default()
                .with_resources(resources)
                .with_include_synonyms(true)
                .with_include_documentation(version >= 3);
            let ours = oracle::read(Key::DescribeConfigs, version, &theirs, Request::read);
            assert!(ours.with_synonyms);
            assert_eq!(ours.with_words, version >= 3);
            let one = Asked {
                configs: Some(vec!["retention.ms".to_owned()]),
                ..asked(TOPIC, "orders")
            };
            assert_eq!(ours.resources, [asked(TOPIC, "orders"), one]);
        }
    }

    #[test]
    fn answers_are_written() {
        let told = || Told {
            name: "retention.ms",
            value: "5".to_owned(),
            source: Source::Topic,
            kind: Kind::Long,
            is_fixed: true,
            what: "how long",
            synonyms: vec![("retention.ms", "7".to_owned(), Source::Default)],
        };
        for with_more in [false, true] {
            let refused = Refused::new(ErrorCode::InvalidRequest, "no");
            let response = Response {
                resources: vec![
                    (asked(TOPIC, "orders"), Ok(vec![told()])),
                    (asked(9, "what"), Err(refused)),
                ],
                with_synonyms: with_more,
                with_words: with_more,
            };
            for version in oracle::versions(Key::DescribeConfigs) {
                let write = |to: &mut Writer| response.write(to);
                let read: DescribeConfigsResponse =
                    oracle::written(Key::DescribeConfigs, version, write);
                let config = &read.results[0].configs[0];
                assert_eq!(
                    (config.name.as_str(), config.value.as_deref()),
                    ("retention.ms", Some("5"))
                );
                assert!(config.read_only);
                assert_eq!(config.config_source, 1);
                assert_eq!(config.synonyms.len(), usize::from(with_more));
                if version >= 3 {
                    assert_eq!(config.config_type, 5);
                    assert_eq!(config.documentation.is_some(), with_more);
                }
                assert_eq!(read.results[1].error_code, 42);
                assert_eq!(read.results[1].resource_name.as_str(), "what");
            }
        }
    }

    #[test]
    fn topics_and_the_broker_tell_theirs() {
        run(|rig: Rig| async move {
            rig.made("orders").await;
            rig.made("more").await;
            let one = Asked {
                configs: Some(vec!["retention.ms".to_owned()]),
                ..asked(TOPIC, "more")
            };
            let request = Request {
                resources: vec![
                    asked(TOPIC, "orders"),
                    one,
                    asked(TOPIC, "orders"),
                    asked(TOPIC, "wardent.http.access"),
                    asked(TOPIC, "nobody"),
                    asked(BROKER, "1"),
                    asked(BROKER, ""),
                    asked(BROKER, "2"),
                    asked(8, "1"),
                ],
                with_synonyms: true,
                with_words: false,
            };
            let told = answer(request, &rig.call(4)).await.resources;
            let configs = |place: usize| told[place].1.as_ref().unwrap();
            let of = |place: usize, name: &str| {
                let found = configs(place).iter().find(|config| config.name == name);
                let found = found.unwrap();
                (found.value.clone(), found.source)
            };
            assert_eq!(
                of(0, "cleanup.policy"),
                ("delete".to_owned(), Source::Default)
            );
            assert_eq!(
                of(1, "retention.ms"),
                ("604800000".to_owned(), Source::Default)
            );
            assert_eq!(configs(1).len(), 1);
            assert_eq!(of(3, "retention.ms"), ("-1".to_owned(), Source::Broker));
            assert_eq!(of(5, "num.partitions").0, "4");
            assert!(configs(6).is_empty());
            let code = |place: usize| told[place].1.as_ref().unwrap_err().code;
            assert_eq!(code(2), ErrorCode::InvalidRequest);
            assert_eq!(code(4), ErrorCode::UnknownTopicOrPartition);
            assert_eq!(
                (code(7), code(8)),
                (ErrorCode::InvalidRequest, ErrorCode::InvalidRequest)
            );
        });
    }
}
