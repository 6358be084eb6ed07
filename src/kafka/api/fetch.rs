//! Fetch (key 1): records, as they are stored (KIP-74, KIP-227, KIP-320).
//!
//! Batches leave as they came: whole, compressed, unread. The first is the one that holds the offset that is
//! asked for, from its beginning. Where less is there than is asked for, the answer waits for more, and
//! nothing waits with it: neither a thread nor the connection's memory.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{sleep, timeout};

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    quota::Flow,
    wire::{Malformed, Reader, Writer},
};
use crate::log::{Partition, ReadError};

/// Records of one answer, in bytes; less is taken where others hold much (Kafka's `fetch.max.bytes`).
const ANSWER_BYTES: [usize; 4] = [8 << 20, 1 << 20, 256 << 10, 64 << 10];

/// Between looks whether there is room, where others hold all of it.
const ROOM_AGAIN: Duration = Duration::from_millis(100);

/// The longest that is waited for more.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Records of partitions, from an offset on.
#[derive(Debug)]
pub(super) struct Request {
    max_wait: Duration,
    bytes_min: usize,
    bytes_max: usize,
    wants_committed: bool,
    session: Session,
    topics: Vec<Topic<Asked>>,
}

/// A fetch session (KIP-227); none are kept here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Session {
    id: i32,
    epoch: i32,
}

/// Partitions of a topic.
#[derive(Debug, PartialEq, Eq)]
struct Topic<P> {
    name: String,
    partitions: Vec<P>,
}

/// A partition that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    index: i32,
    epoch: i32,
    offset: i64,
    bytes_max: usize,
}

/// Bytes that a client names; none where it is below zero.
fn bytes(stated: i32) -> usize {
    usize::try_from(stated).unwrap_or(0)
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let version = from.version();
        let _replica = from.i32()?;
        let max_wait = u64::try_from(from.i32()?).unwrap_or(0);
        let bytes_min = bytes(from.i32()?);
        let bytes_max = bytes(from.i32()?);
        let isolation = from.i8()?;
        let session = match version {
            7.. => Session {
                id: from.i32()?,
                epoch: from.i32()?,
            },
            _ => Session { id: 0, epoch: -1 },
        };
        let topics = from.array(Self::topic)?;
        if version >= 7 {
            // Of no session is anything forgotten.
            from.array(|from| {
                from.string()?;
                from.array(Reader::i32)?;
                from.tags()
            })?;
        }
        if version >= 11 {
            let _rack = from.string()?;
        }
        from.tags()?;
        Ok(Self {
            max_wait: Duration::from_millis(max_wait).min(WAIT_MAX),
            bytes_min,
            bytes_max,
            wants_committed: isolation == 1,
            session,
            topics,
        })
    }

    fn topic(from: &mut Reader) -> Result<Topic<Asked>, Malformed> {
        let version = from.version();
        let name = from.string()?;
        let partitions = from.array(|from| {
            let index = from.i32()?;
            let epoch = match version {
                9.. => from.i32()?,
                _ => -1,
            };
            let offset = from.i64()?;
            if version >= 12 {
                let _last_fetched_epoch = from.i32()?;
            }
            if version >= 5 {
                let _log_start_of_a_replica = from.i64()?;
            }
            let bytes_max = bytes(from.i32()?);
            from.tags()?;
            Ok(Asked {
                index,
                epoch,
                offset,
                bytes_max,
            })
        })?;
        from.tags()?;
        Ok(Topic { name, partitions })
    }

    /// Nothing is remembered from one fetch to the next: each names all that it wants.
    fn check_session(&self) -> Result<(), ErrorCode> {
        match self.session {
            Session { epoch: -1 | 0, .. } => Ok(()),
            Session { id: 0, .. } => Err(ErrorCode::InvalidFetchSessionEpoch),
            _ => Err(ErrorCode::FetchSessionIdNotFound),
        }
    }
}

/// The records.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
    throttled_ms: i32,
    wants_committed: bool,
    topics: Vec<Topic<Told>>,
}

/// What is told of a partition.
#[derive(Debug)]
struct Told {
    index: i32,
    error: ErrorCode,
    high_watermark: i64,
    log_start: i64,
    records: Vec<u8>,
}

impl Told {
    fn refused(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error,
            high_watermark: -1,
            log_start: -1,
            records: Vec::new(),
        }
    }

    fn write(&self, to: &mut Writer, wants_committed: bool) {
        let version = to.version();
        to.i32(self.index);
        to.i16(self.error.code());
        to.i64(self.high_watermark);
        // The last stable offset: there are no transactions, so that all is.
        to.i64(self.high_watermark);
        if version >= 5 {
            to.i64(self.log_start);
        }
        let aborted: Option<&[()]> = wants_committed.then_some(&[]);
        to.nullable_array(aborted, |_, ()| {});
        if version >= 11 {
            // No replica to be preferred.
            to.i32(-1);
        }
        to.bytes(&self.records);
        to.tags();
    }
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        let version = to.version();
        to.i32(self.throttled_ms);
        if version >= 7 {
            to.i16(self.error.code());
            // No session.
            to.i32(0);
        }
        to.array(&self.topics, |to, topic| {
            to.string(&topic.name);
            to.array(&topic.partitions, |to, one| {
                one.write(to, self.wants_committed);
            });
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let mut response = Response {
        error: ErrorCode::None,
        throttled_ms: 0,
        wants_committed: request.wants_committed,
        topics: Vec::new(),
    };
    if let Err(error) = request.check_session() {
        response.error = error;
        return response;
    }
    let sources = sources(&request, call);
    let clock = &call.broker.clock;
    let began_ns = clock.monotonic_ns();
    let mut is_late = false;
    loop {
        let moved = Moves::of(&sources);
        let there = Measured::of(&request, &sources, request.bytes_max);
        let most = ANSWER_BYTES[0].min(request.bytes_max.max(1));
        let mut has_room = true;
        if there.bytes >= request.bytes_min.min(most) || there.has_error || is_late {
            let bytes_max = room(&request, &sources, call);
            has_room = bytes_max.is_some();
            let read = read(&request, &sources, bytes_max.unwrap_or(0));
            let wanted = request.bytes_min.min(bytes_max.unwrap_or(usize::MAX));
            if read.bytes >= wanted || read.has_error || is_late {
                call.session.answer.borrow_mut().shrink_to(read.bytes);
                response.throttled_ms = call.throttle(Flow::Fetch, read.bytes);
                response.topics = read.topics;
                return response;
            }
            // Who waits holds nothing.
            drop(read);
            call.session.answer.borrow_mut().shrink_to(0);
        }
        let waited = Duration::from_nanos(clock.monotonic_ns().saturating_sub(began_ns));
        let left = request.max_wait.saturating_sub(waited);
        is_late = match has_room {
            true => !moved.within(left).await,
            false => {
                sleep(left.min(ROOM_AGAIN)).await;
                left <= ROOM_AGAIN
            }
        };
    }
}

/// A partition to be read, or why it is not.
type Source = Result<Arc<Partition>, ErrorCode>;

/// The partitions in the request's order, flat.
fn sources(request: &Request, call: &Call<'_>) -> Vec<Source> {
    let mut seen = HashSet::new();
    let mut sources = Vec::new();
    for topic in &request.topics {
        let may = call.may(Operation::Read, Resource::Topic(&topic.name));
        for asked in &topic.partitions {
            let unknown = ErrorCode::UnknownTopicOrPartition;
            let source = u32::try_from(asked.index)
                .ok()
                .and_then(|index| call.broker.log.partition(&topic.name, index))
                .ok_or(unknown);
            let is_first = seen.insert((topic.name.as_str(), asked.index));
            sources.push(match source {
                _ if !may => Err(ErrorCode::TopicAuthorizationFailed),
                _ if !is_first => Err(ErrorCode::InvalidRequest),
                Ok(partition) => super::check_epoch(&partition, asked.epoch).map(|()| partition),
                unknown => unknown,
            });
        }
    }
    sources
}

/// What there is to be read.
#[derive(Debug, Clone, Copy)]
struct Measured {
    /// Of records, at the most.
    bytes: usize,
    /// An error is told at once.
    has_error: bool,
}

impl Measured {
    /// Looks, and reads nothing: who waits looks again whenever something comes.
    fn of(request: &Request, sources: &[Source], bytes_max: usize) -> Self {
        let mut measured = Self {
            bytes: 0,
            has_error: false,
        };
        let asked = request.topics.iter().flat_map(|topic| &topic.partitions);
        for (asked, source) in asked.zip(sources) {
            let left = bytes_max.saturating_sub(measured.bytes);
            match source {
                Ok(_) if left == 0 => {}
                Ok(partition) => match partition.measure(asked.offset, left.min(asked.bytes_max)) {
                    Ok(bytes) => measured.bytes += bytes,
                    Err(_) => measured.has_error = true,
                },
                Err(_) => measured.has_error = true,
            }
        }
        measured
    }
}

/// Takes room for what will be read, and says for how many bytes that may be asked: for as many as are asked for,
/// or fewer where others hold much. None where there is no room for one batch.
fn room(request: &Request, sources: &[Source], call: &Call<'_>) -> Option<usize> {
    let sizes = ANSWER_BYTES.map(|bytes| bytes.min(request.bytes_max.max(1)));
    let fits = |bytes_max: &usize| {
        let there = Measured::of(request, sources, *bytes_max);
        call.session.holds(there.bytes)
    };
    sizes.into_iter().chain([1]).find(fits)
}

/// What could be read.
struct Read {
    topics: Vec<Topic<Told>>,
    /// Of records.
    bytes: usize,
    /// An error is told at once.
    has_error: bool,
}

/// Reads what is there, the first partitions first.
fn read(request: &Request, sources: &[Source], bytes_max: usize) -> Read {
    let mut read = Read {
        topics: Vec::new(),
        bytes: 0,
        has_error: false,
    };
    let mut sources = sources.iter();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for (asked, source) in topic.partitions.iter().zip(&mut sources) {
            let told = match source {
                Ok(partition) => read_one(partition, *asked, bytes_max.saturating_sub(read.bytes)),
                Err(error) => Told::refused(asked.index, *error),
            };
            read.has_error |= told.error != ErrorCode::None;
            read.bytes += told.records.len();
            partitions.push(told);
        }
        read.topics.push(Topic {
            name: topic.name.clone(),
            partitions,
        });
    }
    read
}

fn read_one(partition: &Partition, asked: Asked, left: usize) -> Told {
    let read = match left {
        // Whether there is such an offset is told all the same.
        0 => partition.check(asked.offset).map(|()| Vec::new()),
        left => partition.read(asked.offset, left.min(asked.bytes_max)),
    };
    let (error, records) = match read {
        Ok(records) => (ErrorCode::None, records),
        Err(ReadError::OutOfRange { .. }) => (ErrorCode::OffsetOutOfRange, Vec::new()),
        Err(error) => (super::read_failed(partition, &error), Vec::new()),
    };
    Told {
        index: asked.index,
        error,
        high_watermark: partition.high_watermark(),
        log_start: partition.log_start_offset(),
        records,
    }
}

/// The high watermarks of partitions, as they were when they were looked at.
struct Moves(Vec<tokio::sync::watch::Receiver<i64>>);

impl Moves {
    /// From here on nothing that comes is missed.
    fn of(sources: &[Source]) -> Self {
        Self(
            sources
                .iter()
                .flatten()
                .map(|one| one.subscribe())
                .collect(),
        )
    }

    /// Waits until one of them moves; says whether it did in time.
    async fn within(mut self, wait: Duration) -> bool {
        let mut moves: FuturesUnordered<_> = self.0.iter_mut().map(|one| one.changed()).collect();
        if moves.is_empty() {
            return false;
        }
        timeout(wait, moves.next()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            BrokerId, FetchRequest, FetchResponse, TopicName,
            fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    fn name() -> TopicName {
        TopicName(StrBytes::from_static_str("orders"))
    }

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::Fetch) {
            let mut partition = FetchPartition::default()
                .with_partition(3)
                .with_fetch_offset(44)
                .with_partition_max_bytes(1000);
            if version >= 9 {
                partition = partition.with_current_leader_epoch(7);
            }
            let topic = FetchTopic::default()
                .with_topic(name())
                .with_partitions(vec![partition]);
            let mut theirs = FetchRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_max_wait_ms(500)
                .with_min_bytes(1)
                .with_max_bytes(2000)
                .with_isolation_level(1)
                .with_topics(vec![topic]);
            if version >= 7 {
                let forgotten = ForgottenTopic::default()
                    .with_topic(name())
                    .with_partitions(vec![1, 2]);
                theirs = theirs
                    .with_session_id(5)
                    .with_session_epoch(6)
                    .with_forgotten_topics_data(vec![forgotten]);
            }
            if version >= 11 {
                theirs = theirs.with_rack_id(StrBytes::from_static_str("a"));
            }
            let ours = oracle::read(Key::Fetch, version, &theirs, Request::read);
            assert_eq!(ours.max_wait, Duration::from_millis(500));
            assert_eq!((ours.bytes_min, ours.bytes_max), (1, 2000));
            assert!(ours.wants_committed);
            assert_eq!(ours.session.id, if version >= 7 { 5 } else { 0 });
            let asked = Asked {
                index: 3,
                epoch: if version >= 9 { 7 } else { -1 },
                offset: 44,
                bytes_max: 1000,
            };
            let topic = Topic {
                name: "orders".to_owned(),
                partitions: vec![asked],
            };
            assert_eq!(ours.topics, [topic]);
        }
    }

    #[test]
    fn answers_are_written() {
        let response = Response {
            throttled_ms: 250,
            error: ErrorCode::None,
            wants_committed: true,
            topics: vec![Topic {
                name: "orders".to_owned(),
                partitions: vec![Told {
                    index: 3,
                    error: ErrorCode::OffsetOutOfRange,
                    high_watermark: 50,
                    log_start: 2,
                    records: vec![1, 2, 3],
                }],
            }],
        };
        for version in oracle::versions(Key::Fetch) {
            let write = |to: &mut Writer| response.write(to);
            let read: FetchResponse = oracle::written(Key::Fetch, version, write);
            let partition = &read.responses[0].partitions[0];
            assert_eq!((partition.partition_index, partition.error_code), (3, 1));
            assert_eq!(
                (partition.high_watermark, partition.last_stable_offset),
                (50, 50)
            );
            assert_eq!(
                partition.log_start_offset,
                if version >= 5 { 2 } else { -1 }
            );
            assert_eq!(partition.records.as_deref(), Some([1, 2, 3].as_slice()));
            assert_eq!(partition.aborted_transactions, Some(vec![]));
            assert_eq!(read.throttle_time_ms, 250);
        }
    }
}
