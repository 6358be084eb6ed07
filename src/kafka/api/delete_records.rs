//! DeleteRecords (key 21): lets partitions begin later (KIP-107).

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::timeout};

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    topics,
    wire::{Malformed, Reader, Writer},
};
use crate::log::{Command, NotDone, Partition};

/// All that is shown.
const ALL: i64 = -1;

/// Up to where records go.
#[derive(Debug)]
pub(super) struct Request {
    topics: Vec<(String, Vec<Asked>)>,
    within: Duration,
}

/// A partition, and the first offset that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    index: i32,
    offset: i64,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let topics = from.array(|from| {
            let name = from.string()?;
            let partitions = from.array(|from| {
                let index = from.i32()?;
                let offset = from.i64()?;
                from.tags()?;
                Ok(Asked { index, offset })
            })?;
            from.tags()?;
            Ok((name, partitions))
        })?;
        let within = super::millis(from.i32()?);
        from.tags()?;
        Ok(Self { topics, within })
    }
}

/// Where partitions begin now.
#[derive(Debug)]
pub(super) struct Response {
    topics: Vec<(String, Vec<Told>)>,
}

/// Where a partition begins now.
#[derive(Debug)]
struct Told {
    index: i32,
    begins: Result<i64, ErrorCode>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.array(&self.topics, |to, (name, partitions)| {
            to.string(name);
            to.array(partitions, |to, told| {
                to.i32(told.index);
                to.i64(told.begins.unwrap_or(-1));
                to.i16(told.begins.err().unwrap_or(ErrorCode::None).code());
                to.tags();
            });
            to.tags();
        });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let within = topics::within(request.within);
    let mut topics = Vec::new();
    for (name, asked) in request.topics {
        let may = call.may(Operation::Delete, Resource::Topic(&name));
        let mut partitions = Vec::new();
        for one in asked {
            let begins = match may {
                true => delete(&name, one, within, call).await,
                false => Err(ErrorCode::TopicAuthorizationFailed),
            };
            partitions.push(Told {
                index: one.index,
                begins,
            });
        }
        topics.push((name, partitions));
    }
    Response { topics }
}

async fn delete(
    topic: &str,
    asked: Asked,
    within: Duration,
    call: &Call<'_>,
) -> Result<i64, ErrorCode> {
    let index = u32::try_from(asked.index).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    let partition = call.broker.log.partition(topic, index);
    let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if !partition.topic().config().cleanup.deletes() {
        return Err(ErrorCode::PolicyViolation);
    }
    let end = partition.high_watermark();
    let offset = match asked.offset {
        ALL => end,
        stated => stated,
    };
    if !(0..=end).contains(&offset) {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    if offset > partition.log_start_offset() {
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |result| {
            // Who asked may have gone.
            let _ = tell.send(result);
        });
        let command = Command::DeleteBelow(Arc::clone(&partition), offset);
        let asked = call.broker.log.ask(command, done);
        asked.map_err(|_| ErrorCode::RequestTimedOut)?;
        match timeout(within, told).await {
            Ok(Ok(result)) => result.map_err(|not| why(&partition, &not))?,
            Ok(Err(_)) => return Err(ErrorCode::NotLeaderOrFollower),
            Err(_) => return Err(ErrorCode::RequestTimedOut),
        }
    }
    Ok(partition.log_start_offset())
}

fn why(partition: &Partition, not: &NotDone) -> ErrorCode {
    match not {
        NotDone::Deleted => ErrorCode::UnknownTopicOrPartition,
        NotDone::Stopping => ErrorCode::NotLeaderOrFollower,
        NotDone::Offline | NotDone::NoRun => ErrorCode::KafkaStorageError,
        NotDone::Io(error) => {
            tracing::warn!("deleting records of {} failed: {error}", partition.name());
            ErrorCode::KafkaStorageError
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            DeleteRecordsRequest, DeleteRecordsResponse, TopicName,
            delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{
        table::Key,
        topics::rig::{Rig, run},
        wire::oracle,
    };

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::DeleteRecords) {
            let partition = DeleteRecordsPartition::default()
                .with_partition_index(3)
                .with_offset(44);
            let topic = DeleteRecordsTopic::default()
                .with_name(TopicName(StrBytes::from_static_str("orders")))
                .with_partitions(vec![partition]);
            let theirs = DeleteRecordsRequest::default()
                .with_topics(vec![topic])
                .with_timeout_ms(70);
            let ours = oracle::read(Key::DeleteRecords, version, &theirs, Request::read);
            assert_eq!(ours.within, Duration::from_millis(70));
            let asked = Asked {
                index: 3,
                offset: 44,
            };
            assert_eq!(ours.topics, [("orders".to_owned(), vec![asked])]);
        }
    }

    #[test]
    fn answers_are_written() {
        let told = |index, begins| Told { index, begins };
        let response = Response {
            topics: vec![(
                "orders".to_owned(),
                vec![told(0, Ok(7)), told(1, Err(ErrorCode::OffsetOutOfRange))],
            )],
        };
        for version in oracle::versions(Key::DeleteRecords) {
            let write = |to: &mut Writer| response.write(to);
            let read: DeleteRecordsResponse = oracle::written(Key::DeleteRecords, version, write);
            let told = read.topics[0].partitions.iter();
            let told: Vec<_> = told
                .map(|one| (one.low_watermark, one.error_code))
                .collect();
            assert_eq!(told, [(7, 0), (-1, 1)]);
        }
    }

    #[test]
    fn partitions_begin_where_they_are_told_to_and_never_earlier() {
        run(|rig: Rig| async move {
            rig.made("orders").await;
            rig.append("orders", 10).await;
            let tries = [
                (0, 4, Ok(4)),
                (0, 2, Ok(4)),
                (0, 11, Err(ErrorCode::OffsetOutOfRange)),
                (0, -2, Err(ErrorCode::OffsetOutOfRange)),
                (0, ALL, Ok(10)),
                (1, ALL, Ok(0)),
                (9, 0, Err(ErrorCode::UnknownTopicOrPartition)),
            ];
            for (index, offset, expected) in tries {
                let asked = Asked { index, offset };
                let request = Request {
                    topics: vec![("orders".to_owned(), vec![asked])],
                    within: Duration::ZERO,
                };
                let told = answer(request, &rig.call(2)).await;
                assert_eq!(told.topics[0].1[0].begins, expected, "{asked:?}");
            }
            let asked = Asked {
                index: 0,
                offset: ALL,
            };
            let all = |topic: &str| (topic.to_owned(), vec![asked]);
            let request = Request {
                topics: vec![all("wardent.audit.event"), all("nobody")],
                within: Duration::ZERO,
            };
            let told = answer(request, &rig.call(2)).await;
            let codes: Vec<_> = told.topics.iter().map(|one| one.1[0].begins).collect();
            let expected = [
                Err(ErrorCode::TopicAuthorizationFailed),
                Err(ErrorCode::UnknownTopicOrPartition),
            ];
            assert_eq!(codes, expected);
        });
    }
}
