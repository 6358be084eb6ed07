//! What Kafka clients do: numbers for metrics, words for health.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use super::{groups::Groups, metrics::Encoder};
use crate::kafka::Counters;

/// The listener's thread goes round each second; after so long it is taken for stuck.
const STUCK_AFTER_MS: u64 = 10_000;

/// Whether clients are served, at `now_ms` of the monotonic clock. That they are not keeps no request from
/// being answered.
pub(super) fn detail(counters: &Counters, now_ms: u64) -> Value {
    json!({"state": state(counters, now_ms), "connections": counters.connections.get()})
}

/// `ok`, or `stalled` where the listener's thread has not gone round for too long.
pub(super) fn state(counters: &Counters, now_ms: u64) -> &'static str {
    let silent_ms = now_ms.saturating_sub(counters.beat_ms.get());
    match silent_ms > STUCK_AFTER_MS {
        true => "stalled",
        false => "ok",
    }
}

pub(super) fn encode(counters: &Counters, encoder: &mut Encoder<'_>) -> fmt::Result {
    encoder.gauge(
        "wardent_kafka_connections",
        "Kafka clients' connections that are open",
        counters.connections.get(),
    )?;
    encoder.counter(
        "wardent_kafka_connections_accepted",
        "Kafka clients' connections accepted",
        counters.accepted.get(),
    )?;
    encoder.counters(
        "wardent_kafka_connections_cut",
        "Kafka clients' connections cut off or turned away, by why",
        "reason",
        counters.cuts(),
    )?;
    encoder.counters(
        "wardent_kafka_requests",
        "Requests of Kafka clients by API",
        "api",
        counters.requests(),
    )?;
    encoder.counter(
        "wardent_kafka_received_bytes",
        "Bytes of Kafka clients' requests",
        counters.bytes_in.get(),
    )?;
    encoder.counter(
        "wardent_kafka_sent_bytes",
        "Bytes of answers to Kafka clients",
        counters.bytes_out.get(),
    )?;
    encoder.counter(
        "wardent_kafka_logins",
        "Kafka clients that have proven who they are",
        counters.logins.get(),
    )?;
    encoder.counter(
        "wardent_kafka_failed_logins",
        "Kafka clients that have not proven who they are",
        counters.failed_logins.get(),
    )?;
    encoder.seconds_counter(
        "wardent_kafka_throttled_seconds",
        "Time that Kafka clients were told to wait for their quotas",
        Duration::from_millis(counters.throttled_ms.get()),
    )
}

/// How far groups are behind, by group and topic: those that are furthest.
pub(super) fn encode_lag(groups: &Groups, encoder: &mut Encoder<'_>) -> fmt::Result {
    let series = groups.series();
    let labels = ["group", "topic"];
    let records = series.iter().map(|(group, topic, records, _)| {
        // More than four billion are shown as so many.
        let records = f64::from(u32::try_from(*records).unwrap_or(u32::MAX));
        ([*group, *topic], records)
    });
    encoder.pairs(
        "wardent_kafka_group_lag_records",
        "Records that a consumer group has before it, of the 200 furthest behind",
        labels,
        records,
    )?;
    let seconds = series
        .iter()
        .map(|(group, topic, _, seconds)| ([*group, *topic], *seconds));
    encoder.pairs(
        "wardent_kafka_group_lag_seconds",
        "Age of the first record that a consumer group has before it, of the 200 furthest behind",
        labels,
        seconds,
    )
}
