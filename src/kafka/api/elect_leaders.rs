//! ElectLeaders (key 43): who leads partitions: this broker, so nothing changes (KIP-183, KIP-460).

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    wire::{Malformed, Reader, Writer},
};

/// Partitions whose leaders are to be elected; all of them where there is no list.
#[derive(Debug)]
pub(super) struct Request {
    topics: Option<Vec<(String, Vec<i32>)>>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        if from.version() >= 1 {
            // Whether a leader must be in sync: this one always is.
            let _kind = from.i8()?;
        }
        let topics = from.nullable_array(|from| {
            let name = from.string()?;
            let partitions = from.array(Reader::i32)?;
            from.tags()?;
            Ok((name, partitions))
        })?;
        let _within = from.i32()?;
        from.tags()?;
        Ok(Self { topics })
    }
}

/// What became of them. Of all, only those are told that were not led as they should be: none.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
    topics: Vec<(String, Vec<(i32, ErrorCode)>)>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        if to.version() >= 1 {
            to.i16(self.error.code());
        }
        to.array(&self.topics, |to, (name, partitions)| {
            to.string(name);
            to.array(partitions, |to, (index, error)| {
                to.i32(*index);
                to.i16(error.code());
                let is_led = *error == ErrorCode::ElectionNotNeeded;
                to.nullable_string(is_led.then_some("Leader election not needed."));
                to.tags();
            });
            to.tags();
        });
        to.tags();
    }
}

#[expect(clippy::unused_async, reason = "as all APIs are")]
pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    // As in Kafka, though nothing is altered by it: which partitions there are is told. Where nobody is asked
    // who it is, everybody sees them anyway.
    let operation = match call.broker.access.asks() {
        true => Operation::Alter,
        false => Operation::Describe,
    };
    let may = call.may(operation, Resource::Cluster);
    let all = call.broker.log.topics();
    let led = |name: &str, index: i32| match u32::try_from(index) {
        _ if !may => ErrorCode::ClusterAuthorizationFailed,
        Ok(index) if all.partition(name, index).is_some() => ErrorCode::ElectionNotNeeded,
        _ => ErrorCode::UnknownTopicOrPartition,
    };
    let topics = request.topics.unwrap_or_default().into_iter();
    let topics = topics.map(|(name, partitions)| {
        let partitions = partitions.into_iter();
        let told = partitions.map(|index| (index, led(&name, index))).collect();
        (name, told)
    });
    Response {
        error: match may {
            true => ErrorCode::None,
            false => ErrorCode::ClusterAuthorizationFailed,
        },
        topics: topics.collect(),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            ElectLeadersRequest, ElectLeadersResponse, TopicName,
            elect_leaders_request::TopicPartitions,
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
    fn every_partition_has_its_leader() {
        run(|rig: Rig| async move {
            rig.made("orders").await;
            for version in oracle::versions(Key::ElectLeaders) {
                let topic = TopicPartitions::default()
                    .with_topic(TopicName(StrBytes::from_static_str("orders")))
                    .with_partitions(vec![0, 9]);
                let theirs = ElectLeadersRequest::default()
                    .with_topic_partitions(Some(vec![topic]))
                    .with_timeout_ms(5);
                let ours = oracle::read(Key::ElectLeaders, version, &theirs, Request::read);
                let told = answer(ours, &rig.call(version)).await;
                let write = |to: &mut Writer| told.write(to);
                let read: ElectLeadersResponse = oracle::written(Key::ElectLeaders, version, write);
                assert_eq!(read.error_code, 0);
                let [topic] = read.replica_election_results.as_slice() else {
                    panic!("{read:?}")
                };
                let told = topic.partition_result.iter();
                let told: Vec<_> = told.map(|one| (one.partition_id, one.error_code)).collect();
                assert_eq!(told, [(0, 84), (9, 3)]);
                let all = ElectLeadersRequest::default().with_topic_partitions(None);
                let ours = oracle::read(Key::ElectLeaders, version, &all, Request::read);
                let told = answer(ours, &rig.call(version)).await;
                assert!(told.topics.is_empty());
            }
        });
    }
}
