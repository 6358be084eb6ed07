//! Kafka clients as the mirror wants them: what each side is asked by, and what librdkafka has to say.

use std::sync::Mutex;

use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, DeliveryResult, ProducerContext},
};

use super::{Delivery, Failure, Settings, Side, letters::Undelivered};
use crate::base::node::NodeName;

/// A consumer of either side.
pub(super) type Consumer = BaseConsumer<Teller>;
/// A producer to the cluster.
pub(super) type Producer = BaseProducer<Deliveries>;

/// Bytes of records that wait for their acknowledgement, all topics; what is read waits where there is no room.
pub(super) const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// The longest a transaction may be under way: it is given up by the cluster then.
pub(super) const TRANSACTION_MS: &str = "60000";

/// Passes what librdkafka says on to the log of this process.
#[derive(Debug)]
pub(super) struct Teller {
    side: &'static str,
}

impl ClientContext for Teller {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tell(self.side, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell_error(self.side, &error, reason);
    }
}

impl ConsumerContext for Teller {}

/// What librdkafka logs is for who looks into it: what matters comes as an error or by the report.
fn tell(side: &str, level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(side, facility, message);
        }
        RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning
        | RDKafkaLogLevel::Notice
        | RDKafkaLogLevel::Info
        | RDKafkaLogLevel::Debug => tracing::debug!(side, facility, message),
    }
}

fn tell_error(side: &str, error: &KafkaError, reason: &str) {
    tracing::info!(side, %error, reason, "Kafka");
}

/// What a record was, when its acknowledgement comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// Its partition's number in the reader.
    pub(super) of: usize,
    /// Its offset in the local log.
    pub(super) offset: i64,
    /// Its key and value, in bytes.
    pub(super) bytes: usize,
    /// When it was written, in milliseconds since 1970.
    pub(super) written_ms: Option<i64>,
}

/// What became of a record.
#[derive(Debug)]
pub(super) enum Delivered {
    /// The cluster has it.
    Acknowledged(Sent),
    /// It has not; the record comes along where it is the record's own fault.
    Failed(Sent, RDKafkaErrorCode, Option<Box<Undelivered>>),
}

/// Gathers what became of records until somebody asks.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    // Only one thread sends, polls and asks; the client wants its context to be shareable.
    delivered: Mutex<Vec<Delivered>>,
}

impl Deliveries {
    /// Takes what has come since; `room` is where it is put.
    pub(super) fn take(&self, room: &mut Vec<Delivered>) {
        room.clear();
        if let Ok(mut delivered) = self.delivered.lock() {
            std::mem::swap(&mut *delivered, room);
        }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tell("cluster", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell_error("cluster", &error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let told = match result {
            Ok(_) => Delivered::Acknowledged(*sent),
            Err((error, message)) => {
                let code = error.rdkafka_error_code();
                let code = code.unwrap_or(RDKafkaErrorCode::Unknown);
                let record = is_of_record(code).then(|| Undelivered::of(&message.detach()));
                Delivered::Failed(*sent, code, record.map(Box::new))
            }
        };
        if let Ok(mut delivered) = self.delivered.lock() {
            delivered.push(told);
        }
    }
}

/// Whether it is the record itself that will never be taken.
pub(super) fn is_of_record(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidRecord
    )
}

/// Whether a topic is refused, whatever the record.
pub(super) fn is_of_topic(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::PolicyViolation
    )
}

/// Whether what a consumer says ends what it does: otherwise the client sees to it itself.
pub(super) fn ends(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumptionFatal(_)
            | KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::OffsetOutOfRange
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::TopicAuthorizationFailed
            )
    )
}

/// What both sides are asked by.
fn base(side: &Side, node: &NodeName) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &side.bootstrap)
        .set("client.id", format!("wardent-mirror-{node}"))
        // Quickly at first, then no more than every ten seconds.
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "10000")
        .set("socket.keepalive.enable", "true")
        // Brokers move: a leader that is gone is looked for at once.
        .set("topic.metadata.refresh.interval.ms", "60000")
        .set("enable.metrics.push", "false")
        .set("log.connection.close", "false");
    let protocol = match (&side.tls, &side.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = &side.tls {
        for (name, path) in [
            ("ssl.ca.location", &tls.ca),
            ("ssl.certificate.location", &tls.cert),
            ("ssl.key.location", &tls.key),
        ] {
            if let Some(path) = path {
                config.set(name, path.to_string_lossy());
            }
        }
    }
    if let Some(sasl) = &side.sasl {
        config
            .set("sasl.mechanisms", &sasl.mechanism)
            .set("sasl.username", &sasl.username)
            .set("sasl.password", sasl.password.as_str());
    }
    config
}

/// A consumer that neither makes topics nor commits by itself.
fn consumer(side: &Side, node: &NodeName, group: Option<&str>) -> ClientConfig {
    let mut config = base(side, node);
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        // What was damaged on the way is not passed on.
        .set("check.crcs", "true");
    if let Some(group) = group {
        config.set("group.id", group);
    }
    config
}

/// Who reads the topics that are mirrored; `group` keeps how far it is.
///
/// # Errors
/// When the client refuses its settings.
pub(super) fn local(settings: &Settings, group: &str) -> Result<Consumer, Failure> {
    let mut config = consumer(&settings.local, &settings.node, Some(group));
    config
        // Many at once, where many come: 100 ms are no loss to who mirrors.
        .set("fetch.min.bytes", "65536")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "32768");
    create(&config, "local")
}

/// Who asks the local listener about topics, and reads no records.
///
/// # Errors
/// When the client refuses its settings.
pub(super) fn local_asker(settings: &Settings) -> Result<Consumer, Failure> {
    create(&consumer(&settings.local, &settings.node, None), "local")
}

/// Who asks the cluster about topics; `group` keeps how far this node is, where the cluster does that.
///
/// # Errors
/// When the client refuses its settings.
pub(super) fn cluster_asker(settings: &Settings, group: Option<&str>) -> Result<Consumer, Failure> {
    create(
        &consumer(&settings.cluster, &settings.node, group),
        "cluster",
    )
}

fn create(config: &ClientConfig, side: &'static str) -> Result<Consumer, Failure> {
    Consumer::from_config_and_context(config, Teller { side }).map_err(|error| refused(&error))
}

/// What a producer to the cluster goes by.
pub(super) fn producing(settings: &Settings) -> ClientConfig {
    let mut config = base(&settings.cluster, &settings.node);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        // A batch is cut by its bytes, and by the source's own longest record.
        .set("message.max.bytes", "16777216")
        .set("queue.buffering.max.messages", "1000000")
        .set(
            "queue.buffering.max.kbytes",
            (IN_FLIGHT_BYTES_MAX >> 10).to_string(),
        )
        // A topic that is not there is told of soon: it stops by itself, and the others go on.
        .set("topic.metadata.propagation.max.ms", "5000");
    match settings.delivery {
        // A record is never given up for its age: the log is the buffer, and it is patient.
        Delivery::AtLeastOnce => config.set("message.timeout.ms", "0"),
        Delivery::ExactlyOnce => config.set("transaction.timeout.ms", TRANSACTION_MS),
    };
    config
}

/// Who sends what is mirrored; `one_by_one`, each record in a batch of its own.
///
/// # Errors
/// When the client refuses its settings.
pub(super) fn producer(settings: &Settings, one_by_one: bool) -> Result<Producer, Failure> {
    let mut config = producing(settings);
    if one_by_one {
        config.set("batch.num.messages", "1").set("linger.ms", "0");
    }
    if settings.delivery == Delivery::ExactlyOnce {
        config.set(
            "transactional.id",
            format!("wardent-mirror.{}", settings.node),
        );
    }
    let made = Producer::from_config_and_context(&config, Deliveries::default());
    made.map_err(|error| refused(&error))
}

/// Looks at the settings as librdkafka does, without a connection.
///
/// # Errors
/// When it refuses them: a certificate that cannot be read, a mechanism that it does not know.
pub(super) fn check(settings: &Settings) -> Result<(), Failure> {
    local_asker(settings)?;
    cluster_asker(settings, None)?;
    producer(settings, false)?;
    Ok(())
}

fn refused(error: &KafkaError) -> Failure {
    Failure(error.to_string())
}

/// What a producer of the local listener goes by, for a record now and then.
pub(super) fn writing_locally(settings: &Settings) -> ClientConfig {
    let mut config = base(&settings.local, &settings.node);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("compression.type", "lz4")
        .set("message.max.bytes", "16777216")
        .set("message.timeout.ms", "10000");
    config
}

/// What who makes topics on the cluster goes by.
pub(super) fn asking(settings: &Settings) -> ClientConfig {
    base(&settings.cluster, &settings.node)
}

/// Who reads what this node decided, as soon as it can be read.
///
/// # Errors
/// When the client refuses its settings.
pub(super) fn local_at_once(settings: &Settings) -> Result<Consumer, Failure> {
    let config = consumer(&settings.local, &settings.node, Some(super::reader::GROUP));
    create(&at_once(config), "local")
}

/// Who hears what other nodes decided and spent, as soon as it can be heard.
///
/// # Errors
/// When the client refuses its settings.
pub(super) fn hearing(settings: &Settings) -> Result<Consumer, Failure> {
    // No group keeps where it is: a group's name is only what the client wants of who reads.
    let group = format!("{}.{}", super::reader::GROUP, settings.node);
    let config = consumer(&settings.cluster, &settings.node, Some(&group));
    create(&at_once(config), "cluster")
}

fn at_once(mut config: ClientConfig) -> ClientConfig {
    config
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "500")
        // One that was refused or found no leader is asked for again soon.
        .set("fetch.error.backoff.ms", "50")
        .set("queued.max.messages.kbytes", "4096");
    config
}

/// Who tells the cluster what this node decided.
///
/// # Errors
/// When the client refuses its settings.
pub(super) fn telling_bans(settings: &Settings) -> Result<Producer, Failure> {
    let mut config = base(&settings.cluster, &settings.node);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "0")
        .set("message.timeout.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.kbytes", "16384")
        .set("topic.metadata.propagation.max.ms", "5000");
    let made = Producer::from_config_and_context(&config, Deliveries::default());
    made.map_err(|error| refused(&error))
}

/// What who tells the cluster of usage goes by: an old word is worth nothing, and nothing is waited for.
pub(super) fn telling_usage(settings: &Settings) -> ClientConfig {
    let mut config = base(&settings.cluster, &settings.node);
    config
        .set("acks", "1")
        .set("compression.type", "lz4")
        .set("linger.ms", "0")
        .set("message.timeout.ms", "5000")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.kbytes", "4096");
    config
}
