//! `/api/v1/log/groups`: who reads the log in groups, and how far they are behind.
//!
//! It is told from what the groups' owner showed a moment ago; nothing waits for it.

use std::{collections::BTreeMap, sync::Arc};

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::{
    api::{Query, Refused, Reply, say},
    server::Server,
};
use crate::{
    kafka::{GroupShown, GroupsShown},
    log::Partition,
};

/// Pairs of group and topic that metrics show, those with the most before them first.
pub(super) const SERIES_MAX: usize = 200;

/// All groups.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Groups {
    /// By name.
    pub groups: Vec<Group>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub group: String,
    /// As Kafka calls it: `Stable`, `Empty`, `PreparingRebalance`, …
    pub state: String,
    /// Its generation.
    pub generation: i32,
    /// How its members assign; empty where they have not agreed.
    pub protocol: String,
    /// Its members, the oldest first.
    pub members: Vec<Member>,
    /// Where it has committed, by topic and number.
    pub partitions: Vec<Lag>,
    /// Records before it, in all partitions.
    pub lag_records: u64,
    /// The age of the oldest of these records, in seconds.
    pub lag_seconds: Option<f64>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub member: String,
    /// `group.instance.id`, where it is a static one.
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it comes from.
    pub host: String,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The next offset that it wants to read.
    pub committed: i64,
    /// When it said so, in Unix milliseconds.
    pub committed_unix_ms: i64,
    /// The first offset that cannot be read yet; none where there is no such partition any more.
    pub end: Option<i64>,
    /// Records before it.
    pub lag_records: u64,
    /// The age of the first of these records, in seconds and to a batch; none where there are none, or it is not
    /// known yet.
    pub lag_seconds: Option<f64>,
}

impl Groups {
    /// How far these groups are in these partitions, at that time.
    pub fn of(
        shown: &GroupsShown,
        partition: impl Fn(&str, u32) -> Option<Arc<Partition>>,
        now_ms: u64,
    ) -> Self {
        let find = |topic: &str, index: i32| partition(topic, u32::try_from(index).ok()?);
        let groups = shown.groups.iter().map(|one| group(one, &find, now_ms));
        Self {
            groups: groups.collect(),
        }
    }

    /// Records and seconds behind, by group and topic: not more than [`SERIES_MAX`].
    pub(super) fn series(&self) -> Vec<(&str, &str, u64, f64)> {
        let mut sums = BTreeMap::<(&str, &str), (u64, f64)>::new();
        for group in &self.groups {
            for lag in &group.partitions {
                let sum = sums.entry((&group.group, &lag.topic)).or_default();
                sum.0 = sum.0.saturating_add(lag.lag_records);
                sum.1 = sum.1.max(lag.lag_seconds.unwrap_or(0.0));
            }
        }
        let flat = |((group, topic), (records, seconds))| (group, topic, records, seconds);
        let mut series: Vec<_> = sums.into_iter().map(flat).collect();
        series.sort_by_key(|(_, _, records, _)| std::cmp::Reverse(*records));
        series.truncate(SERIES_MAX);
        series
    }
}

fn group(
    shown: &GroupShown,
    find: &impl Fn(&str, i32) -> Option<Arc<Partition>>,
    now_ms: u64,
) -> Group {
    let members = shown.members.iter().map(|member| Member {
        member: member.id.clone(),
        instance: member.instance.clone(),
        client_id: member.client_id.clone(),
        host: member.host.clone(),
    });
    let partitions = shown.offsets.iter().map(|own| {
        let partition = find(&own.topic, own.partition);
        let records = partition.as_ref().map_or(0, |partition| {
            // What retention took is not before it any more.
            let next = own.offset.max(partition.log_start_offset());
            u64::try_from(partition.high_watermark() - next).unwrap_or(0)
        });
        Lag {
            topic: own.topic.clone(),
            partition: own.partition,
            committed: own.offset,
            committed_unix_ms: own.committed_unix_ms,
            end: partition.map(|partition| partition.high_watermark()),
            lag_records: records,
            lag_seconds: own.first_unix_ms.map(|first_ms| age(first_ms, now_ms)),
        }
    });
    let partitions: Vec<_> = partitions.collect();
    let records = partitions.iter().map(|lag| lag.lag_records);
    let ages = partitions.iter().filter_map(|lag| lag.lag_seconds);
    Group {
        group: shown.name.clone(),
        state: shown.state.to_owned(),
        generation: shown.generation,
        protocol: shown.protocol.clone(),
        members: members.collect(),
        lag_records: records.fold(0, u64::saturating_add),
        lag_seconds: ages.reduce(f64::max),
        partitions,
    }
}

/// Seconds since then, to the millisecond.
fn age(first_ms: i64, now_ms: u64) -> f64 {
    let age_ms = u64::try_from(first_ms).map_or(0, |first_ms| now_ms.saturating_sub(first_ms));
    std::time::Duration::from_millis(age_ms).as_secs_f64()
}

impl Server {
    /// Shows the groups.
    ///
    /// # Errors
    /// By any method but GET, and where no Kafka clients are served.
    pub(super) fn groups(&self, request: &Request<Incoming>) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "use GET to read",
            ));
        }
        Query::read(request.uri().query(), &[])?;
        say(StatusCode::OK, &self.view.groups())
    }
}

impl super::View {
    /// The groups as they are now; none where no Kafka clients are served.
    pub(super) fn groups(&self) -> Groups {
        let Some(counters) = &self.kafka else {
            return Groups::default();
        };
        let log = &self.log.log;
        let partition = |topic: &str, index| log.partition(topic, index);
        Groups::of(
            &counters.groups.load(),
            partition,
            self.shared.clock.unix_ms(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(topic: &str, records: u64, seconds: f64) -> Lag {
        Lag {
            topic: topic.to_owned(),
            partition: 0,
            committed: 0,
            committed_unix_ms: 0,
            end: None,
            lag_records: records,
            lag_seconds: Some(seconds),
        }
    }

    fn group(name: &str, partitions: Vec<Lag>) -> Group {
        Group {
            group: name.to_owned(),
            state: "Stable".to_owned(),
            generation: 1,
            protocol: "range".to_owned(),
            members: Vec::new(),
            partitions,
            lag_records: 0,
            lag_seconds: None,
        }
    }

    #[test]
    fn series_are_of_topics_and_bounded_and_those_furthest_behind_stay() {
        let groups = vec![
            group(
                "a",
                vec![lag("t", 1, 2.0), lag("t", 3, 1.0), lag("u", 0, 0.0)],
            ),
            group("b", vec![lag("t", 9, 4.0)]),
        ];
        let shown = Groups { groups };
        let expected = vec![("b", "t", 9, 4.0), ("a", "t", 4, 2.0), ("a", "u", 0, 0.0)];
        assert_eq!(shown.series(), expected);
        let many = (0..300_u16)
            .map(|number| group(&number.to_string(), vec![lag("t", number.into(), 0.0)]));
        let many = Groups {
            groups: many.collect(),
        };
        let series = many.series();
        assert_eq!(
            (series.len(), series[0].0, series[199].0),
            (SERIES_MAX, "299", "100")
        );
    }
}
