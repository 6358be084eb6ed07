//! Dead letters: records that the cluster will never take, kept in the local log for whoever looks.
//!
//! They go to a topic that any client of the local listener may write, with their own key, value and headers,
//! and behind them those that Kafka Connect tells such records by (KIP-298).

use std::{sync::Mutex, time::Duration};

use rdkafka::{
    ClientContext, Message as _,
    config::FromClientConfigAndContext as _,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders, OwnedMessage},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext},
};

use super::{Failure, Settings, client};

/// The topic.
pub(super) const TOPIC: &str = "mirror.dead.letter";

/// How long a letter may take to be on disk.
const KEPT_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a letter's key and value at most: its value is left out where they would be more.
const LETTER_BYTES_MAX: usize = 8 << 20;

/// A record that was not delivered, as it was sent.
#[derive(Debug)]
pub(super) struct Undelivered {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
    timestamp_ms: Option<i64>,
}

impl Undelivered {
    pub(super) fn of(message: &OwnedMessage) -> Self {
        let headers = message.headers().cloned();
        Self {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
            timestamp_ms: message.timestamp().to_millis(),
        }
    }
}

/// Where a record stands in the local log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// What became of the letter that was put last.
#[derive(Debug, Default)]
struct Last(Mutex<Option<Result<(), KafkaError>>>);

impl ClientContext for Last {}

impl ProducerContext for Last {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Ok(mut last) = self.0.lock() {
            *last = Some(
                result
                    .as_ref()
                    .map(drop)
                    .map_err(|(error, _)| error.clone()),
            );
        }
    }
}

/// Puts a letter there, and returns when it is on disk.
///
/// # Errors
/// When it is not, in time: the record is not to be passed over then.
pub(super) fn put(
    settings: &Settings,
    place: Place<'_>,
    code: RDKafkaErrorCode,
    record: &Undelivered,
) -> Result<(), Failure> {
    let not_kept = |what: String| {
        Failure(format!(
            "{} [{}] offset {} can never be delivered ({code}), and its dead letter is not kept: {what}",
            place.topic, place.partition, place.offset
        ))
    };
    let config = client::writing_locally(settings);
    let made = BaseProducer::from_config_and_context(&config, Last::default());
    let producer: BaseProducer<Last> = made.map_err(|error| not_kept(error.to_string()))?;
    let bytes = |part: Option<&Vec<u8>>| part.map_or(0, Vec::len);
    let is_whole = bytes(record.key.as_ref()) + bytes(record.value.as_ref()) <= LETTER_BYTES_MAX;
    let mut letter = BaseRecord::with_opaque_to(TOPIC, ()).headers(told(place, code, record));
    letter.key = record.key.as_deref();
    letter.payload = record.value.as_deref().filter(|_| is_whole);
    letter.timestamp = record.timestamp_ms;
    let sent = producer.send::<[u8], [u8]>(letter);
    sent.map_err(|(error, _)| not_kept(error.to_string()))?;
    let flushed = producer.flush(KEPT_WITHIN);
    flushed.map_err(|error| not_kept(error.to_string()))?;
    let last = producer.client().context().0.lock();
    match last.ok().and_then(|mut last| last.take()) {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(not_kept(error.to_string())),
        None => Err(not_kept("nothing was heard of it".to_owned())),
    }
}

fn told(place: Place<'_>, code: RDKafkaErrorCode, record: &Undelivered) -> OwnedHeaders {
    let numbers = [
        place.partition.to_string(),
        place.offset.to_string(),
        record.value.as_ref().map_or(0, Vec::len).to_string(),
    ];
    let [partition, offset, value_bytes] = &numbers;
    let problem = format!("{code:?}");
    let message = code.to_string();
    let told = [
        ("__connect.errors.topic", place.topic),
        ("__connect.errors.partition", partition),
        ("__connect.errors.offset", offset),
        ("__connect.errors.connector.name", "wardent-mirror"),
        ("__connect.errors.task.id", "0"),
        ("__connect.errors.stage", "KAFKA_PRODUCE"),
        ("__connect.errors.class.name", "wardent::mirror::copy"),
        ("__connect.errors.exception.class.name", &problem),
        ("__connect.errors.exception.message", &message),
        ("__connect.errors.exception.stacktrace", ""),
        ("wardent.value.bytes", value_bytes),
    ];
    told.into_iter()
        .fold(record.headers.clone(), |headers, (key, value)| {
            let value = Some(value);
            headers.insert(Header { key, value })
        })
}
