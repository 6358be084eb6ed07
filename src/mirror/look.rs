//! Looks from outside how far behind the mirror is, and tells the log.

use std::time::Duration;

use rdkafka::consumer::Consumer as _;

use super::{
    Ending, Failure, Settings,
    client::{self, Consumer},
    status::Status,
    target::ASKED_WITHIN,
};
use crate::base::clock::Clock;

const EVERY: Duration = Duration::from_secs(2);
/// How often the log is told how it goes.
const TOLD_EVERY: u64 = 60_000_000_000;

/// Looks until the end.
pub(super) fn run(settings: &Settings, status: &Status, clock: &Clock, ending: &Ending) {
    let mut told_ns = clock.monotonic_ns();
    let mut askers = None;
    while !ending.has_begun() {
        if askers.is_none() {
            askers = askers_of(settings).ok();
        }
        if let Some((local, cluster)) = &askers {
            look(local, cluster, status);
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

fn look(local: &Consumer, cluster: &Consumer, status: &Status) {
    // Serves what the clients have to say; no records come.
    for asker in [local, cluster] {
        while asker.poll(Duration::ZERO).is_some() {}
    }
    let told = status.now();
    for (name, topic) in &told.topics {
        for &number in topic.partitions.keys() {
            if let Ok((low, high)) = local.fetch_watermarks(name, number, ASKED_WITHIN) {
                status.of(name, |topic| {
                    let partition = topic.partitions.entry(number).or_default();
                    (partition.low, partition.high) = (low, high);
                });
            }
        }
    }
    let first = told.topics.keys().next();
    let seen = first.and_then(|topic| cluster.fetch_metadata(Some(topic), ASKED_WITHIN).ok());
    let brokers = seen.map(|seen| seen.brokers().iter().map(|broker| broker.id()).collect());
    status.set_brokers(brokers.unwrap_or_default());
}

fn tell(status: &Status) {
    let told = status.now();
    for (name, topic) in &told.topics {
        let (copied, lag) = (topic.copied, topic.lag());
        tracing::info!(topic = name, copied, lag, "since the start");
    }
}
