//! DescribeLogDirs (key 35): what partitions take of the disk (KIP-113, KIP-827). There is one directory.

use std::collections::{HashMap, HashSet};

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    wire::{Malformed, Reader, Writer},
};

/// Nobody says how much.
const UNKNOWN: i64 = -1;

/// Partitions that are asked for; all of them where there is no list.
#[derive(Debug)]
pub(super) struct Request {
    topics: Option<Vec<(String, Vec<i32>)>>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let topics = from.nullable_array(|from| {
            let name = from.string()?;
            let partitions = from.array(Reader::i32)?;
            from.tags()?;
            Ok((name, partitions))
        })?;
        from.tags()?;
        Ok(Self { topics })
    }
}

/// The one directory.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
    dir: String,
    /// Partitions with their bytes, by topic.
    topics: Vec<(String, Vec<(i32, i64)>)>,
    free_bytes: i64,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        let version = to.version();
        // Throttle time.
        to.i32(0);
        if version >= 3 {
            to.i16(self.error.code());
        }
        let is_refused = self.error != ErrorCode::None;
        let dirs: &[()] = if is_refused { &[] } else { &[()] };
        to.array(dirs, |to, ()| {
            to.i16(ErrorCode::None.code());
            to.string(&self.dir);
            to.array(&self.topics, |to, (name, partitions)| {
                to.string(name);
                to.array(partitions, |to, (index, bytes)| {
                    to.i32(*index);
                    to.i64(*bytes);
                    // Nothing lags behind, and nothing is being moved.
                    to.i64(0);
                    to.bool(false);
                    to.tags();
                });
                to.tags();
            });
            if version >= 4 {
                to.i64(UNKNOWN);
                to.i64(self.free_bytes);
            }
            to.tags();
        });
        to.tags();
    }
}

#[expect(clippy::unused_async, reason = "as all APIs are")]
pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let log = &call.broker.log;
    let mut response = Response {
        error: ErrorCode::None,
        dir: log.dir().display().to_string(),
        topics: Vec::new(),
        free_bytes: UNKNOWN,
    };
    if !call.may(Operation::Describe, Resource::Cluster) {
        response.error = ErrorCode::ClusterAuthorizationFailed;
        return response;
    }
    let free = log.disk().free_bytes(log.dir()).ok();
    response.free_bytes = free.map_or(UNKNOWN, |free| i64::try_from(free).unwrap_or(i64::MAX));
    let asked = request.topics.map(|topics| {
        let mut asked = HashMap::<String, HashSet<i32>>::new();
        for (name, partitions) in topics {
            asked.entry(name).or_default().extend(partitions);
        }
        asked
    });
    for partition in log.topics().partitions() {
        let name = &partition.topic().name;
        let index = i32::try_from(partition.index()).unwrap_or(i32::MAX);
        let is_asked = |asked: &HashMap<String, HashSet<i32>>| {
            asked.get(name).is_some_and(|own| own.contains(&index))
        };
        if !asked.as_ref().is_none_or(is_asked) {
            continue;
        }
        if response.topics.last().is_none_or(|(last, _)| last != name) {
            response.topics.push((name.clone(), Vec::new()));
        }
        if let Some((_, partitions)) = response.topics.last_mut() {
            let bytes = i64::try_from(partition.size_bytes()).unwrap_or(i64::MAX);
            partitions.push((index, bytes));
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName,
            describe_log_dirs_request::DescribableLogDirTopic,
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
        for version in oracle::versions(Key::DescribeLogDirs) {
            let topic = DescribableLogDirTopic::default()
                .with_topic(TopicName(StrBytes::from_static_str("orders")))
                .with_partitions(vec![0, 3]);
            let theirs = DescribeLogDirsRequest::default().with_topics(Some(vec![topic]));
            let ours = oracle::read(Key::DescribeLogDirs, version, &theirs, Request::read);
            assert_eq!(ours.topics, Some(vec![("orders".to_owned(), vec![0, 3])]));
            let all = DescribeLogDirsRequest::default().with_topics(None);
            let ours = oracle::read(Key::DescribeLogDirs, version, &all, Request::read);
            assert_eq!(ours.topics, None);
        }
    }

    #[test]
    fn partitions_tell_their_bytes() {
        run(|rig: Rig| async move {
            rig.made("orders").await;
            rig.append("orders", 10).await;
            for version in oracle::versions(Key::DescribeLogDirs) {
                let one = vec![("orders".to_owned(), vec![0, 7])];
                let request = Request { topics: Some(one) };
                let told = answer(request, &rig.call(version)).await;
                let write = |to: &mut Writer| told.write(to);
                let read: DescribeLogDirsResponse =
                    oracle::written(Key::DescribeLogDirs, version, write);
                let [dir] = read.results.as_slice() else {
                    panic!("{read:?}")
                };
                assert_eq!(dir.log_dir.as_str(), rig.log().dir().to_str().unwrap());
                assert_eq!(dir.topics.len(), 1);
                let [partition] = dir.topics[0].partitions.as_slice() else {
                    panic!("{dir:?}")
                };
                assert!(partition.partition_index == 0 && partition.partition_size > 0);
                assert_eq!(dir.usable_bytes > 0, version >= 4);
            }
            let all = answer(Request { topics: None }, &rig.call(4)).await;
            let count: usize = all
                .topics
                .iter()
                .map(|(_, partitions)| partitions.len())
                .sum();
            assert_eq!(count, rig.log().topics().partitions().len());
        });
    }
}
