//! Looks from outside how far behind the mirror is, and tells the log.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{consumer::Consumer as _, metadata::MetadataBroker};

use super::{
    Ending, Failure, Settings,
    client::{self, Consumer},
    status::{Cluster, Status},
    target::ASKED_WITHIN,
};
use crate::{
    base::clock::Clock,
    event::{ban, exchange::BANS},
};

const EVERY: Duration = Duration::from_secs(2);
/// How often the log is told how it goes.
const TOLD_EVERY: u64 = 60_000_000_000;

/// Looks until the end.
pub(super) fn run(settings: &Settings, status: &Status, clock: &Clock, ending: &Ending) {
    let mut told_ns = clock.monotonic_ns();
    let (mut askers, mut seen) = (None, Seen::new());
    while !ending.has_begun() {
        if askers.is_none() {
            askers = askers_of(settings).ok();
        }
        if let Some((local, cluster)) = &askers {
            look(local, cluster, &mut seen, status, clock.unix_ms());
        }
        if clock.monotonic_ns().saturating_sub(told_ns) >= TOLD_EVERY {
            told_ns = clock.monotonic_ns();
            tell(status);
        }
        ending.wait(EVERY, clock);
    }
}

fn askers_of(settings: &Settings) -> Result<(Consumer, Consumer), Failure> {
    Ok((
        client::local_asker(settings)?,
        client::cluster_asker(settings, None)?,
    ))
}

/// The brokers that the cluster has told of in this run, by id.
type Seen = BTreeMap<i32, String>;

fn look(local: &Consumer, cluster: &Consumer, seen: &mut Seen, status: &Status, now_ms: u64) {
    // Serves what the clients have to say; no records come.
    for asker in [local, cluster] {
        while asker.poll(Duration::ZERO).is_some() {}
    }
    let told = status.now();
    for (name, topic) in &told.topics {
        let name = if name == BANS { ban::TOPIC } else { name };
        for &number in topic.partitions.keys() {
            if let Ok((low, high)) = local.fetch_watermarks(name, number, ASKED_WITHIN) {
                status.of(name, |topic| {
                    let partition = topic.partitions.entry(number).or_default();
                    (partition.low, partition.high) = (low, high);
                });
            }
        }
    }
    // Some topic has to be named, or all of the cluster's would be told.
    let topic = told.topics.keys().next().map_or(BANS, String::as_str);
    let answer = cluster.fetch_metadata(Some(topic), ASKED_WITHIN);
    let there: Seen = answer.map_or_else(
        |_| Seen::new(),
        |answer| {
            let address = |broker: &MetadataBroker| format!("{}:{}", broker.host(), broker.port());
            let brokers = answer.brokers().iter();
            brokers
                .map(|broker| (broker.id(), address(broker)))
                .collect()
        },
    );
    let is_up = |id: &i32| there.contains_key(id);
    seen.extend(there.iter().map(|(&id, address)| (id, address.clone())));
    let brokers = seen
        .iter()
        .map(|(id, address)| (*id, address.clone(), is_up(id)));
    let cluster = Cluster {
        id: cluster.client().fetch_cluster_id(Duration::ZERO),
        brokers: brokers.collect(),
    };
    status.set_cluster(cluster, now_ms);
}

fn tell(status: &Status) {
    let told = status.now();
    for (name, topic) in &told.topics {
        let (sent, lag) = (topic.sent, topic.lag());
        tracing::info!(topic = name, sent, lag, "mirrored");
    }
}
