//! The page Log: which topics there are, who reads them and how far behind, and the disk.

use maud::{Markup, html};

use super::{
    now::tile,
    page::{Part, part},
    shell::{nothing, table},
    words,
};
use crate::{
    admin::{
        View,
        groups::{Group, Groups},
        topics::{TopicShown, Topics},
    },
    sink::lane::LaneCounts,
};

pub(super) fn parts(view: &View) -> Vec<Part> {
    let topics = Topics::of_log(&view.log.log);
    vec![
        part("state", "", state(view, &topics)),
        part("topics", "Topics", topic_table(&topics.topics)),
        part("groups", "Consumer groups", group_table(&view.groups())),
    ]
}

fn bytes_of(topic: &TopicShown) -> u64 {
    topic
        .partitions
        .iter()
        .map(|partition| partition.bytes)
        .sum()
}

fn state(view: &View, topics: &Topics) -> Markup {
    let now_ms = view.shared.clock.monotonic_ns() / 1_000_000;
    let reasons = view.log.reasons(now_ms, view.auditor.trouble());
    let lanes = view.log.lanes.iter();
    let lost: u64 = lanes.map(|lane| LaneCounts::lost(lane)).sum();
    let sync_ms = std::time::Duration::from_nanos(view.log.log.health().sync_last_ns.get());
    html! {
        @if !reasons.is_empty() { ul.said.warn role="status" { @for reason in &reasons { li { (reason) } } } }
        dl.tiles {
            (tile("On disk", &words::bytes(topics.topics.iter().map(bytes_of).sum()), "", ""))
            (tile("Events written", &words::count(view.log.builder.events()), "", ""))
            (tile("Events lost", &words::count(lost), "", if lost == 0 { "" } else { "no room on their way" }))
            (tile("Last sync", &words::decimal(sync_ms.as_secs_f64() * 1_000.0), "ms", ""))
        }
    }
}

fn topic_table(topics: &[TopicShown]) -> Markup {
    let rows = html! {
        @for topic in topics {
            @let records = topic.partitions.iter().map(|own| own.high_watermark - own.log_start_offset);
            @let offline = topic.partitions.iter().filter(|own| own.offline).count();
            tr {
                th scope="row" { (topic.name) }
                td.n { (topic.partitions.len()) @if offline > 0 { " (" (offline) " offline)" } }
                td.n { (words::count(u64::try_from(records.sum::<i64>()).unwrap_or(0))) }
                td.n { (words::bytes(bytes_of(topic))) }
                @if let Some(kept) = &topic.kept {
                    td { (kept.cleanup) @if kept.durable { ", durable" } }
                    td { (keeping(kept.retention_ms, kept.retention_bytes)) }
                } @else { td {} td {} }
            }
        }
    };
    let heads = [
        "Topic",
        "Partitions",
        "Records",
        "On disk",
        "Cleanup",
        "Kept",
    ];
    table("Topics", &heads, &rows)
}

fn keeping(age_ms: Option<u64>, bytes: Option<u64>) -> String {
    let age = age_ms.map(words::span_ms);
    let size = bytes.map(|bytes| format!("{} a partition", words::bytes(bytes)));
    match (age, size) {
        (None, None) => "for ever".to_owned(),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(age), Some(size)) => format!("{age}, {size}"),
    }
}

fn group_table(groups: &Groups) -> Markup {
    if groups.groups.is_empty() {
        return nothing("No group has read the log yet.");
    }
    let rows = html! {
        @for group in &groups.groups {
            tr {
                th scope="row" { (group.group) }
                td { (group.state) }
                td.n { (group.members.len()) }
                td.n { (words::count(group.lag_records)) }
                td.n { (group.lag_seconds.map_or_else(String::new, |age| format!("{} s", words::decimal(age)))) }
                td { (partitions(group)) }
            }
        }
    };
    table(
        "Consumer groups",
        &[
            "Group",
            "State",
            "Members",
            "Behind",
            "Oldest",
            "Partitions",
        ],
        &rows,
    )
}

fn partitions(group: &Group) -> Markup {
    html! {
        details {
            summary { (group.partitions.len()) }
            @for lag in &group.partitions {
                div { (lag.topic) "-" (lag.partition) ": " (lag.committed) ", " (words::count(lag.lag_records)) " behind" }
            }
        }
    }
}
