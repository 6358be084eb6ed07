//! The page Health, and `/api/v1/health`: whether all is well, and what would not be.

use std::sync::atomic::Ordering;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use maud::{Markup, html};
use serde::Serialize;
use serde_json::Value;

use super::{
    cluster::standing,
    now::{mark, tile, upstream},
    page::{Part, part},
    shell::table,
    words,
};
use crate::{
    admin::{
        View,
        api::{Query, Reply, say},
        cluster, health,
        now::{ServerShown, only_reading},
        server::Server,
        status::Enforcement,
    },
    event::time::Stamps,
};

/// Whether all is well.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct HealthShown {
    /// The moment, as RFC 3339 spells it.
    pub time: String,
    /// Whether nothing is stuck.
    pub is_live: bool,
    /// Whether traffic may come.
    pub is_ready: bool,
    /// What should be looked at.
    pub warnings: Vec<String>,
    /// What `/readyz` says.
    pub ready: Value,
    /// For how long each of those whom all depends on has not taken a turn, in milliseconds.
    pub silent: Vec<Silent>,
    /// The watchdog's requests through the real path.
    pub canaries: Canaries,
    /// The upstream's servers.
    pub upstream: Vec<ServerShown>,
}

/// Who takes turns, and how long ago the last one was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Silent {
    /// `worker 0`, `owner of bans`, …
    pub who: String,
    /// In milliseconds.
    pub silent_ms: u64,
    /// From when on it is taken for stuck.
    pub stuck_after_ms: u64,
}

/// What the watchdog sent, and heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Canaries {
    /// Requests that it sent.
    pub sent: u64,
    /// Those that were not answered in time.
    pub lost: u64,
    /// What the last one took, in microseconds.
    pub last_us: u64,
    /// Whether the alarm is raised.
    pub is_alarmed: bool,
    /// How often it was, since the start.
    pub alarms: u64,
}

impl View {
    /// How this node stands with the others, where there are some.
    pub(super) fn standing(&self) -> Option<cluster::Status> {
        let own = self.cluster.as_deref()?;
        Some(cluster::status(own, &self.owner.others))
    }

    /// Whether all is well.
    pub(super) fn health(&self) -> HealthShown {
        let now_ms = self.shared.clock.monotonic_ns() / 1_000_000;
        let ready = health::ready(self);
        let ago = |beat_ms: u64| now_ms.saturating_sub(beat_ms);
        let workers = self.workers.iter().enumerate();
        let workers = workers.map(|(nth, own)| (format!("worker {nth}"), ago(own.beat_ms.get())));
        let owner = (
            "owner of bans".to_owned(),
            ago(self.owner.beat_ms.load(Ordering::Relaxed)),
        );
        let publisher = self.auditor.numbers().beat_ms.load(Ordering::Relaxed);
        let publisher = ("publisher of bans".to_owned(), ago(publisher));
        let silent = workers
            .chain([owner, publisher])
            .map(|(who, silent_ms)| Silent {
                who,
                silent_ms,
                stuck_after_ms: health::STUCK_AFTER_MS,
            });
        let vitals = &self.vitals;
        HealthShown {
            time: Stamps::default().rfc3339(self.shared.clock.unix_ms()),
            is_live: health::live(self).is_well,
            is_ready: ready.is_well,
            warnings: self.warnings(Enforcement::of(&self.shared.policy.load())),
            ready: ready.detail,
            silent: silent.collect(),
            canaries: Canaries {
                sent: vitals.canaries.load(Ordering::Relaxed),
                lost: vitals.canaries_lost.load(Ordering::Relaxed),
                last_us: vitals.canary_us.load(Ordering::Relaxed),
                is_alarmed: vitals.is_alarmed.load(Ordering::Relaxed),
                alarms: vitals.alarms.load(Ordering::Relaxed),
            },
            upstream: self.servers(),
        }
    }
}

impl Server {
    /// Answers whether all is well: always with 200, since this is for people. `/livez` and `/readyz` are not.
    ///
    /// # Errors
    /// By any method but GET.
    pub(in crate::admin) fn health_answer(&self, request: &Request<Incoming>) -> Reply {
        only_reading(request)?;
        Query::read(request.uri().query(), &[])?;
        say(StatusCode::OK, &self.view.health())
    }
}

pub(super) fn parts(shown: &HealthShown, node: Option<&cluster::Status>) -> Vec<Part> {
    let mut parts = vec![
        part("state", "", state(shown)),
        part("turns", "Turns", turns(&shown.silent)),
        part("upstream", "Upstream", upstream(&shown.upstream)),
    ];
    parts.extend(node.map(|node| part("cluster", "Cluster", standing(node))));
    parts
}

fn state(shown: &HealthShown) -> Markup {
    let canaries = &shown.canaries;
    let milliseconds = std::time::Duration::from_micros(canaries.last_us).as_secs_f64() * 1_000.0;
    html! {
        @if !shown.warnings.is_empty() {
            ul.said.warn role="status" { @for warning in &shown.warnings { li { (warning) } } }
        }
        dl.tiles {
            div { dt { "Live" } dd { (mark(shown.is_live, if shown.is_live { "yes" } else { "no" })) } }
            div { dt { "Ready" } dd { (mark(shown.is_ready, if shown.is_ready { "yes" } else { "no" })) } }
            (tile("Watchdog's request", &words::decimal(milliseconds), "ms",
                &format!("{} sent, {} lost", words::count(canaries.sent), words::count(canaries.lost))))
            (tile("Alarms", &words::count(canaries.alarms), "since the start", ""))
        }
    }
}

fn turns(silent: &[Silent]) -> Markup {
    let rows = html! {
        @for own in silent {
            tr {
                th scope="row" { (own.who) }
                td { (mark(own.silent_ms < own.stuck_after_ms, if own.silent_ms < own.stuck_after_ms { "well" } else { "stuck" })) }
                td.n { (own.silent_ms) " ms" }
            }
        }
    };
    table("Last turns", &["Who", "State", "Last turn"], &rows)
}
