//! The page Now: one glance says whether all is well.

use maud::{Markup, html};

use super::{
    chart::{Chart, Own},
    page::{Part, part},
    shell::{nothing, table},
    words,
};
use crate::admin::{
    bans,
    now::{Now, Series, ServerShown, Span},
};

/// Verdicts in the order in which they are drawn, with their colours of the style sheet.
const VERDICTS: [(&str, u8); 4] = [("passed", 1), ("refused", 2), ("failed", 3), ("aborted", 4)];

pub(super) fn parts(now: &Now) -> Vec<Part> {
    vec![
        part("state", "", state(now)),
        part("tiles", "", tiles(now)),
        part("charts", "", charts(&now.series)),
        part("reasons", "Refused, last 15 minutes", reasons(&now.quarter)),
        part("upstream", "Upstream", upstream(&now.upstream)),
        part("bans", "Newest bans", newest(now)),
    ]
}

fn state(now: &Now) -> Markup {
    html! {
        @if now.warnings.is_empty() {
            p.said role="status" { "All is well." }
        } @else {
            ul.said.warn role="status" { @for warning in &now.warnings { li { (warning) } } }
        }
    }
}

/// A number with its name.
pub(super) fn tile(name: &str, number: &str, unit: &str, more: &str) -> Markup {
    html! {
        div {
            dt { (name) }
            dd {
                span.number.long[number.len() > 10] { (number) } @if !unit.is_empty() { " " small { (unit) } }
                @if !more.is_empty() { span.more { (more) } }
            }
        }
    }
}

fn tiles(now: &Now) -> Markup {
    let minute = &now.minute;
    let refused = |span: &Span| span.verdicts.get("refused").copied().unwrap_or(0);
    let failed = minute.verdicts.get("failed").copied().unwrap_or(0);
    let sum = |counts: &std::collections::BTreeMap<String, u64>| counts.values().sum::<u64>();
    let observed = sum(&minute.would_be_refused);
    let would = match observed {
        0 => String::new(),
        observed => format!("{} more would be", words::count(observed)),
    };
    html! {
        dl.tiles {
            (tile("Requests", &words::decimal(now.ten_seconds.per_second), "/s",
                &format!("{} in the last minute", words::count(minute.requests))))
            (tile("Refused", &words::count(refused(minute)), "last minute", &would))
            (tile("Failed", &words::count(failed), "last minute", ""))
            (tile("p50 · p95 · p99, ms", &format!("{} · {} · {}", words::ms(minute.p50_ms), words::ms(minute.p95_ms),
                words::ms(minute.p99_ms)), "", "last minute"))
            (tile("Open", &words::count(now.connections), "connections",
                &format!("{} requests at the upstream", words::count(now.in_flight))))
            (tile("Banned", &words::count(now.bans_active), "", ""))
        }
    }
}

fn charts(series: &Series) -> Markup {
    let all = VERDICTS.iter().map(|&(name, colour)| Own {
        name,
        colour,
        values: series
            .per_second
            .get(name)
            .into_iter()
            .flatten()
            .copied()
            .map(Some)
            .collect(),
    });
    let traffic = Chart {
        title: "Requests a second by verdict",
        unit: "a second",
        step_s: series.step_s,
        all: all.collect(),
    };
    let quantiles = [
        ("p50", 1, &series.p50_ms),
        ("p95", 2, &series.p95_ms),
        ("p99", 3, &series.p99_ms),
    ];
    let all = quantiles.into_iter().map(|(name, colour, values)| Own {
        name,
        colour,
        values: values.clone(),
    });
    let latency = Chart {
        title: "Milliseconds from a request to the end of its answer",
        unit: "ms",
        step_s: series.step_s,
        all: all.collect(),
    };
    html! { div.charts { (traffic.stacked()) (latency.by_tens()) } }
}

fn reasons(quarter: &Span) -> Markup {
    let of = |counts: &std::collections::BTreeMap<String, u64>, reason: &str| {
        counts.get(reason).copied().unwrap_or(0)
    };
    let mut all: Vec<&String> = quarter
        .refused
        .keys()
        .chain(quarter.would_be_refused.keys())
        .collect();
    all.sort_by_key(|reason| std::cmp::Reverse(of(&quarter.refused, reason)));
    all.dedup();
    if all.is_empty() {
        return nothing("Nobody.");
    }
    let rows = html! {
        @for reason in all {
            tr {
                td { (words::plain(reason)) }
                td.n { (words::count(of(&quarter.refused, reason))) }
                td.n { (words::count(of(&quarter.would_be_refused, reason))) }
            }
        }
    };
    table(
        "Refused by reason",
        &["Reason", "Refused", "Observed only"],
        &rows,
    )
}

/// The servers, and whether they are well.
pub(super) fn upstream(servers: &[ServerShown]) -> Markup {
    let rows = html! {
        @for server in servers {
            tr {
                td.mono { (server.server) }
                td { (mark(server.healthy && server.in_rotation, match (server.in_rotation, server.healthy) {
                    (true, true) => "well",
                    (true, false) => "not healthy",
                    (false, _) => "out of rotation",
                })) }
                td.n { (words::count(server.in_flight)) }
            }
        }
    };
    table(
        "Servers of the upstream",
        &["Server", "State", "Requests now"],
        &rows,
    )
}

/// A mode by its word: to observe is nothing bad, and not what one stays with.
pub(super) fn mode(word: &str) -> Markup {
    html! { span.mark.good[word == "enforce"].mild[word != "enforce"] { (word) } }
}

/// A state by its word; the colour only repeats it.
pub(super) fn mark(is_well: bool, word: &str) -> Markup {
    html! { span.mark.good[is_well].ill[!is_well] { (word) } }
}

fn newest(now: &Now) -> Markup {
    if now.bans_newest.is_empty() {
        return nothing("Nobody is banned.");
    }
    let rows = html! { @for ban in &now.bans_newest { (row(ban)) } };
    html! {
        (table("Newest bans", &["Client", "Since", "For", "Why", "By"], &rows))
        p { a href="/bans" { "All " (words::count(now.bans_active)) " bans" } }
    }
}

fn row(ban: &bans::Shown) -> Markup {
    html! {
        tr {
            td { (words::client(&ban.target)) }
            td { (words::time(&ban.since)) }
            td { (words::span_ms(ban.left_ms)) " left" @if !ban.enforced { " (observed)" } }
            td.text { (ban.why) }
            td { (ban.by) }
        }
    }
}
