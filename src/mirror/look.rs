//! Looks from outside how far behind the mirror is, what the cluster is made of, and what will be lost.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    TopicPartitionList, consumer::Consumer as _, metadata::MetadataBroker,
    topic_partition_list::Offset,
};

use super::{
    Ending, Failure, Settings,
    client::{self, Consumer},
    door::Door,
    overtake::{AGES, Before, Kept, left_ms, moment},
    status::{Cluster, Status},
    target::ASKED_WITHIN,
};
use crate::{
    admin::topics::{TopicShown, Topics},
    base::clock::Clock,
    event::{ban, exchange::BANS},
};

const EVERY: Duration = Duration::from_secs(2);
/// How often the log is told how it goes.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Over how long growth is measured, and how often it is looked what will be lost.
const GROWTH: Duration = Duration::from_secs(30);
/// What will be lost within this time is an alarm in the log.
const ALARM_MS: u64 = 3_600_000;

/// Looks until the end.
pub(super) fn run(settings: &Settings, status: &Status, clock: &Clock, ending: &Ending) {
    let mut told_ns = clock.monotonic_ns();
    let mut looker = None;
    while !ending.has_begun() {
        if looker.is_none() {
            looker = Looker::new(settings, status, clock).ok();
        }
        if let Some(looker) = &mut looker {
            looker.look();
        }
        let now_ns = clock.monotonic_ns();
        if now_ns.saturating_sub(told_ns) >= super::nanos(TOLD_EVERY) {
            told_ns = now_ns;
            tell(status);
        }
        ending.wait(EVERY, clock);
    }
}

struct Looker<'a> {
    settings: &'a Settings,
    status: &'a Status,
    clock: &'a Clock,
    local: Consumer,
    cluster: Consumer,
    door: Door,
    /// The brokers that the cluster has told of in this run, by id.
    seen: BTreeMap<i32, String>,
    /// Partitions as they were when growth was last measured, and when that was.
    before: BTreeMap<(String, i32), Kept>,
    before_ns: u64,
}

impl<'a> Looker<'a> {
    fn new(settings: &'a Settings, status: &'a Status, clock: &'a Clock) -> Result<Self, Failure> {
        Ok(Self {
            settings,
            status,
            clock,
            local: client::local_asker(settings)?,
            cluster: client::cluster_asker(settings, None)?,
            door: Door::to(settings.socket.clone())?,
            seen: BTreeMap::new(),
            before: BTreeMap::new(),
            before_ns: clock.monotonic_ns(),
        })
    }

    fn look(&mut self) {
        // Serves what the clients have to say; no records come.
        for asker in [&self.local, &self.cluster] {
            while asker.poll(Duration::ZERO).is_some() {}
        }
        // A Wardent that is away keeps its numbers: the exchange says that it is.
        if let Ok(Topics { topics }) = self.door.get("/api/v1/log/topics") {
            self.look_at_log(&topics);
        }
        self.look_at_cluster();
    }

    fn look_at_log(&mut self, topics: &[TopicShown]) {
        let all: u64 = topics.iter().map(bytes_of).sum();
        let span_ns = self.clock.monotonic_ns().saturating_sub(self.before_ns);
        let is_time = span_ns >= super::nanos(GROWTH);
        let told = self.status.now();
        let mut after = BTreeMap::new();
        for (name, topic) in &told.topics {
            let name = if name == BANS { ban::TOPIC } else { name };
            let Some(shown) = topics.iter().find(|shown| shown.name == name) else {
                continue;
            };
            let rest = self
                .settings
                .disk_max
                .saturating_sub(all.saturating_sub(bytes_of(shown)));
            let count = u64::try_from(shown.partitions.len()).unwrap_or(1).max(1);
            let bytes_max = shown.kept.as_ref().and_then(|kept| kept.retention_bytes);
            let bytes_max = bytes_max.unwrap_or(u64::MAX).min(rest / count);
            let mut loses_in_ms = None;
            for partition in &shown.partitions {
                let number = i32::try_from(partition.partition).unwrap_or(i32::MAX);
                let (low, high) = (partition.log_start_offset, partition.high_watermark);
                let Some(known) = topic.partitions.get(&number) else {
                    continue;
                };
                self.status.of(name, |topic| {
                    let entry = topic.partitions.entry(number).or_default();
                    (entry.low, entry.high) = (low, high);
                });
                let kept = Kept {
                    low,
                    high,
                    done: known.done,
                    bytes: partition.bytes,
                    bytes_max,
                };
                let key = (name.to_owned(), number);
                if is_time && !is_compacted(shown) {
                    let by_size = self.before.get(&key).and_then(|&before| {
                        let span = Duration::from_nanos(span_ns);
                        kept.loses_by_size_in_ms(&Before { kept: before, span })
                    });
                    let by_age = self.loses_by_age_in_ms(shown, number, &kept);
                    let sooner = [loses_in_ms, by_size, by_age].into_iter().flatten().min();
                    loses_in_ms = sooner;
                }
                after.insert(key, kept);
            }
            if is_time {
                self.alarm(name, topic.loses_in_ms, loses_in_ms);
            }
        }
        if is_time || self.before.is_empty() {
            self.before = after;
            self.before_ns = self.clock.monotonic_ns();
        }
    }

    /// In how many milliseconds at most a record of a partition is too old that is not mirrored.
    fn loses_by_age_in_ms(&self, shown: &TopicShown, number: i32, kept: &Kept) -> Option<u64> {
        let retention_ms = shown.kept.as_ref()?.retention_ms?;
        if kept.done >= kept.high {
            return None;
        }
        AGES.into_iter().find_map(|sixteenths| {
            let moment = moment(sixteenths, retention_ms, self.clock.unix_ms());
            let moment = i64::try_from(moment).ok()?;
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&shown.name, number, Offset::Offset(moment))
                .ok()?;
            let found = self.local.offsets_for_times(list, ASKED_WITHIN).ok()?;
            let is_older = match found.find_partition(&shown.name, number)?.offset() {
                Offset::Offset(first_younger) => kept.done < first_younger,
                // All of it is older.
                Offset::End => true,
                Offset::Beginning | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => {
                    false
                }
            };
            is_older.then(|| left_ms(sixteenths, retention_ms))
        })
    }

    fn alarm(&self, name: &str, before: Option<u64>, now: Option<u64>) {
        let is_soon = |ms: Option<u64>| ms.is_some_and(|ms| ms < ALARM_MS);
        match (is_soon(before), is_soon(now)) {
            (false, true) => tracing::error!(
                topic = name,
                loses_in_ms = now,
                "the log will delete what is not mirrored: bring the cluster back, or give the log more room"
            ),
            (true, false) => tracing::info!(topic = name, "nothing will be lost"),
            (_, _) => {}
        }
        self.status.of(name, |topic| topic.loses_in_ms = now);
    }

    fn look_at_cluster(&mut self) {
        let told = self.status.now();
        // Some topic has to be named, or all of the cluster's would be told.
        let topic = told.topics.keys().next().map_or(BANS, String::as_str);
        let answer = self.cluster.fetch_metadata(Some(topic), ASKED_WITHIN);
        let there: BTreeMap<i32, String> = answer.map_or_else(
            |_| BTreeMap::new(),
            |answer| {
                let brokers = answer.brokers().iter();
                brokers
                    .map(|broker| (broker.id(), address(broker)))
                    .collect()
            },
        );
        let is_up = |id: &i32| there.contains_key(id);
        let met = there.iter().map(|(&id, address)| (id, address.clone()));
        self.seen.extend(met);
        let brokers = self.seen.iter();
        let brokers = brokers.map(|(id, address)| (*id, address.clone(), is_up(id)));
        let cluster = Cluster {
            id: self.cluster.client().fetch_cluster_id(Duration::ZERO),
            brokers: brokers.collect(),
        };
        self.status.set_cluster(cluster, self.clock.unix_ms());
    }
}

fn address(broker: &MetadataBroker) -> String {
    format!("{}:{}", broker.host(), broker.port())
}

fn bytes_of(topic: &TopicShown) -> u64 {
    topic
        .partitions
        .iter()
        .map(|partition| partition.bytes)
        .sum()
}

/// Whether nothing of a topic goes but what newer records have made old.
fn is_compacted(topic: &TopicShown) -> bool {
    topic
        .kept
        .as_ref()
        .is_some_and(|kept| kept.cleanup == "compact")
}

fn tell(status: &Status) {
    let told = status.now();
    for (name, topic) in &told.topics {
        let (sent, lag) = (topic.sent, topic.lag());
        tracing::info!(topic = name, sent, lag, "mirrored");
    }
}
