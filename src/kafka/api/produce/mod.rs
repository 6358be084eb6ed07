//! Produce (key 0): batches for partitions (KIP-98, KIP-467).
//!
//! Each is checked, offered to the log, and told of when the log says what became of it: for durable topics when
//! it is on disk, whether 1 or all acknowledgements are asked for, since there is one broker. Without
//! acknowledgement nothing is answered at all.
//!
//! Versions 0 to 2, with formats that nobody should send any more, are answered with `UNSUPPORTED_VERSION`; that
//! they are advertised keeps librdkafka from turning compression off (KAFKA-18659).

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    super::{
        auth::{Operation, Resource},
        broker::{Broker, Call},
        error::ErrorCode,
        quota::Flow,
        wire::{Malformed, Reader, Writer},
    },
    Named,
};
use crate::log::{
    Append, Appended, Batch, Damage, Demands, Fault, Header, NotAppended, Partition, Reason, Unfit,
};

/// The first version with batches of today's format.
const BATCHES_FROM: i16 = 3;
/// The first version in which a batch may be packed with zstd (KIP-110), and its number.
const ZSTD_FROM: i16 = 7;
const ZSTD: u8 = 4;

/// The number of no compression.
const PLAIN: u8 = 0;

/// What the batches of a request may be unpacked, in bytes: the one with which it is more is the last.
const UNPACKED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How far ahead a record's time may be (`message.timestamp.after.max.ms`), in milliseconds.
const AHEAD_MAX_MS: i64 = 3_600_000;

/// The least and the most that is waited for the log, whatever the client says.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Between looks whether the log's queue has room.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Batches for partitions.
#[derive(Debug)]
pub(super) struct Request {
    is_transactional: bool,
    acks: i16,
    wait: Duration,
    topics: Vec<Topic<Sent>>,
}

/// Partitions of a topic.
#[derive(Debug, PartialEq, Eq)]
struct Topic<P> {
    name: String,
    partitions: Vec<P>,
}

/// A batch for a partition.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    index: i32,
    records: Bytes,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let is_transactional = from.version() >= BATCHES_FROM && from.nullable_string()?.is_some();
        let acks = from.i16()?;
        let wait = u64::try_from(from.i32()?).unwrap_or(0);
        let topics = from.array(|from| {
            let name = from.string()?;
            let partitions = from.array(|from| {
                let index = from.i32()?;
                let records = from.records()?.unwrap_or_default();
                from.tags()?;
                Ok(Sent { index, records })
            })?;
            from.tags()?;
            Ok(Topic { name, partitions })
        })?;
        from.tags()?;
        Ok(Self {
            is_transactional,
            acks,
            wait: Duration::from_millis(wait).clamp(WAIT_MIN, WAIT_MAX),
            topics,
        })
    }
}

/// What became of the batches.
#[derive(Debug)]
pub(super) struct Response {
    topics: Vec<Topic<Told>>,
    throttle_ms: i32,
}

/// What became of one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    index: i32,
    outcome: Result<i64, Refused>,
    log_start: i64,
}

/// Why a batch is not in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    error: ErrorCode,
    why: Option<String>,
    /// Records that are wrong, by their number in the batch.
    records: Vec<u32>,
}

impl From<ErrorCode> for Refused {
    fn from(error: ErrorCode) -> Self {
        Self {
            error,
            why: None,
            records: Vec::new(),
        }
    }
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        to.array(&self.topics, |to, topic| {
            to.string(&topic.name);
            to.array(&topic.partitions, Told::write);
            to.tags();
        });
        if to.version() >= 1 {
            to.i32(self.throttle_ms);
        }
        to.tags();
    }
}

impl Told {
    fn write(to: &mut Writer, told: &Self) {
        let version = to.version();
        let refused = told.outcome.as_ref().err();
        to.i32(told.index);
        to.i16(refused.map_or(ErrorCode::None, |one| one.error).code());
        to.i64(told.outcome.as_ref().copied().unwrap_or(-1));
        if version >= 2 {
            // The time at which it was appended, which is not what counts.
            to.i64(-1);
        }
        if version >= 5 {
            to.i64(told.log_start);
        }
        if version >= 8 {
            let records = refused.map_or([].as_slice(), |one| &one.records);
            to.array(records, |to, index| {
                to.i32(i32::try_from(*index).unwrap_or(i32::MAX));
                to.nullable_string(None);
                to.tags();
            });
            to.nullable_string(refused.and_then(|one| one.why.as_deref()));
        }
        to.tags();
    }
}

fn ns_of(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}

/// How long may still be waited.
fn left(until_ns: u64, broker: &Broker) -> Duration {
    let now_ns = broker.clock.monotonic_ns();
    Duration::from_nanos(until_ns.saturating_sub(now_ns))
}

/// What the log will say of a batch.
type Coming = oneshot::Receiver<Result<Appended, NotAppended>>;

/// Batches that were offered to the log, and what is to be told of those that were not.
#[derive(Debug)]
pub(crate) struct Begun {
    topics: Vec<Topic<(i32, Result<Coming, Refused>)>>,
    until_ns: u64,
    throttle_ms: i32,
}

/// Checks the batches and offers them to the log, in their order. None where nothing is to be answered.
pub(super) async fn begin(request: Request, call: &Call<'_>) -> Option<Begun> {
    let until_ns = ns_of(request.wait).saturating_add(call.broker.clock.monotonic_ns());
    let batches = request.topics.iter().flat_map(|topic| &topic.partitions);
    let bytes = batches.map(|sent| sent.records.len()).sum();
    let mut named = Named::default();
    let mut unpacked_bytes = 0;
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for sent in topic.partitions {
            let stated = (request.acks, request.is_transactional);
            let offered = match demanded(&topic.name, &sent, stated, call) {
                _ if !named.is_new(&topic.name, sent.index) => {
                    Err(refused(ErrorCode::InvalidRequest, &"named twice"))
                }
                Ok(_) if unpacked_bytes > UNPACKED_BYTES_MAX => Err(refused(
                    ErrorCode::MessageTooLarge,
                    &"the request is too much when it is unpacked",
                )),
                Ok((partition, demands)) => {
                    match checked(&sent, demands, &mut unpacked_bytes, call).await {
                        Ok(batch) => offer(partition, batch, until_ns, call).await,
                        Err(refused) => Err(refused),
                    }
                }
                Err(refused) => Err(refused),
            };
            partitions.push((sent.index, offered));
        }
        topics.push(Topic {
            name: topic.name,
            partitions,
        });
    }
    let throttle_ms = call.throttle(Flow::Produce, bytes);
    (request.acks != 0).then_some(Begun {
        topics,
        until_ns,
        throttle_ms,
    })
}

impl Begun {
    /// What has become of the batches, as soon as the log says it of all.
    pub(super) async fn ended(self, broker: &Broker) -> Response {
        let mut told = Vec::new();
        for Topic { name, partitions } in self.topics {
            let mut of_topic = Vec::new();
            for (index, offered) in partitions {
                let outcome = match offered {
                    Ok(coming) => heard(coming, self.until_ns, broker).await,
                    Err(refused) => Err(refused),
                };
                let partition = u32::try_from(index).ok();
                let partition = partition.and_then(|index| broker.log.partition(&name, index));
                let partition = partition.filter(|_| outcome.is_ok());
                of_topic.push(Told {
                    index,
                    outcome,
                    log_start: partition.map_or(-1, |partition| partition.log_start_offset()),
                });
            }
            told.push(Topic {
                name,
                partitions: of_topic,
            });
        }
        Response {
            topics: told,
            throttle_ms: self.throttle_ms,
        }
    }
}

/// Where a batch goes, if it may, and what is demanded of it there.
fn demanded(
    topic: &str,
    sent: &Sent,
    (acks, is_transactional): (i16, bool),
    call: &Call<'_>,
) -> Result<(Arc<Partition>, Demands), Refused> {
    if call.version < BATCHES_FROM {
        return Err(ErrorCode::UnsupportedVersion.into());
    }
    if !(-1..=1).contains(&acks) {
        return Err(ErrorCode::InvalidRequiredAcks.into());
    }
    if !call.may(Operation::Write, Resource::Topic(topic)) {
        return Err(ErrorCode::TopicAuthorizationFailed.into());
    }
    let index = u32::try_from(sent.index).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    let partition = call.broker.log.partition(topic, index);
    let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if is_transactional {
        return Err(refused(
            ErrorCode::InvalidTxnState,
            &"transactions are not supported",
        ));
    }
    let config = partition.topic().config();
    if u32::try_from(sent.records.len()).map_or(true, |bytes| bytes > config.max_batch_bytes) {
        return Err(ErrorCode::MessageTooLarge.into());
    }
    let now_ms = i64::try_from(call.broker.clock.unix_ms()).unwrap_or(i64::MAX);
    let demands = Demands {
        keys: config.cleanup.compacts(),
        latest_ms: now_ms.saturating_add(AHEAD_MAX_MS),
    };
    Ok((partition, demands))
}

/// The batch, if it is one, and fits. Counts what it is unpacked, in bytes.
async fn checked(
    sent: &Sent,
    demands: Demands,
    unpacked_bytes: &mut usize,
    call: &Call<'_>,
) -> Result<Batch, Refused> {
    let codec = Header::read(&sent.records).map_or(PLAIN, |header| header.codec());
    if codec == ZSTD && call.version < ZSTD_FROM {
        return Err(ErrorCode::UnsupportedCompressionType.into());
    }
    let mut look = || {
        // Of its own: what is unpacked is not kept while the log is waited for.
        let mut scratch = Vec::new();
        let batch = Batch::received(sent.records.to_vec(), demands, &mut scratch);
        *unpacked_bytes += scratch.len();
        batch.map_err(unfit)
    };
    match codec {
        PLAIN => look(),
        _ => call.broker.in_turn(look).await,
    }
}

fn refused(error: ErrorCode, why: &dyn fmt::Display) -> Refused {
    Refused {
        why: Some(why.to_string()),
        ..error.into()
    }
}

/// What a client is told whose batch is not taken. What is not whole it may send again, what is wrong not.
fn unfit(unfit: Unfit) -> Refused {
    let error = match &unfit {
        Unfit::Damaged(Damage::TooShort | Damage::Crc) => ErrorCode::CorruptMessage,
        Unfit::Damaged(Damage::Compression(_)) => ErrorCode::UnsupportedCompressionType,
        Unfit::Damaged(
            Damage::Length(_)
            | Damage::Magic(_)
            | Damage::Offsets
            | Damage::Count
            | Damage::Packed
            | Damage::Record(_),
        )
        | Unfit::Claims(_)
        | Unfit::Records(Fault::NoKey, _) => ErrorCode::InvalidRecord,
        Unfit::Records(Fault::Late, _) => ErrorCode::InvalidTimestamp,
    };
    let mut told = refused(error, &unfit);
    if let Unfit::Records(_, records) = unfit {
        told.records = records;
    }
    told
}

/// Offers the batch to the log, as soon as that has room.
async fn offer(
    partition: Arc<Partition>,
    batch: Batch,
    until_ns: u64,
    call: &Call<'_>,
) -> Result<Coming, Refused> {
    let (tell, coming) = oneshot::channel();
    let mut append = Append {
        partition,
        batch,
        // Who asked may have gone.
        done: Box::new(move |result| drop(tell.send(result))),
    };
    loop {
        append = match call.broker.log.appends().offer(append) {
            Ok(()) => return Ok(coming),
            Err(back) => back,
        };
        if left(until_ns, call.broker).is_zero() {
            return Err(refused(
                ErrorCode::RequestTimedOut,
                &"too much waits for the disk",
            ));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The first offset of the batch, when the log says it.
async fn heard(coming: Coming, until_ns: u64, broker: &Broker) -> Result<i64, Refused> {
    match timeout(left(until_ns, broker), coming).await {
        Ok(Ok(Ok(appended))) => Ok(appended.base_offset),
        Ok(Ok(Err(not))) => {
            let error = match not.reason {
                Reason::DiskFull | Reason::Io | Reason::Offline | Reason::TooManySegments => {
                    ErrorCode::KafkaStorageError
                }
                Reason::Deleted => ErrorCode::UnknownTopicOrPartition,
                Reason::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
                Reason::Fenced => ErrorCode::InvalidProducerEpoch,
                Reason::TooLarge => ErrorCode::MessageTooLarge,
                Reason::Stopping => ErrorCode::NotLeaderOrFollower,
            };
            Err(refused(error, &not.reason))
        }
        Ok(Err(_)) => Err(ErrorCode::NotLeaderOrFollower.into()),
        Err(_) => Err(ErrorCode::RequestTimedOut.into()),
    }
}

#[cfg(test)]
mod tests;
