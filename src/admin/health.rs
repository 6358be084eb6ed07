//! Is it alive, is it ready: computed from numbers that the workers publish, never from asking them.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::View;
use crate::proxy::listener::Phase;

/// Who has not ticked for so long is taken for stuck; workers tick every 50 ms, the owner of bans every
/// 10 ms, its publisher every 100 ms.
pub(super) const STUCK_AFTER_MS: u64 = 5_000;

/// What a health endpoint says.
#[derive(Debug)]
pub struct Health {
    /// Whether all is well.
    pub is_well: bool,
    /// The details, for people and programs.
    pub detail: Value,
}

/// Whether only a restart could help: something is stuck, or requests no longer come through.
pub fn live(view: &View) -> Health {
    let now_ms = view.shared.clock.monotonic_ns() / 1_000_000;
    let silent_ms: Vec<u64> = view
        .workers
        .iter()
        .map(|worker| now_ms.saturating_sub(worker.beat_ms.get()))
        .collect();
    let owner_silent_ms = now_ms.saturating_sub(view.owner.beat_ms.load(Ordering::Relaxed));
    let publisher_ms = view.auditor.numbers().beat_ms.load(Ordering::Relaxed);
    let publisher_silent_ms = now_ms.saturating_sub(publisher_ms);
    let is_alarmed = view.vitals.is_alarmed.load(Ordering::Relaxed);
    let mut all_silent_ms = silent_ms
        .iter()
        .chain([&owner_silent_ms, &publisher_silent_ms]);
    let is_well = !is_alarmed && all_silent_ms.all(|&silent| silent < STUCK_AFTER_MS);
    Health {
        is_well,
        detail: json!({
            "status": if is_well { "live" } else { "stalled" },
            "worker_silent_ms": silent_ms,
            "owner_silent_ms": owner_silent_ms,
            "publisher_silent_ms": publisher_silent_ms,
            "canary_us": view.vitals.canary_us.load(Ordering::Relaxed),
        }),
    }
}

/// Whether traffic may come: it serves, and no worker is stuck. An upstream that is down does not
/// count: nobody else would answer better. Nor does a cluster that is away: each node goes on by itself.
pub fn ready(view: &View) -> Health {
    let phase = *view.phase.borrow();
    let live = live(view);
    let now_ms = view.shared.clock.monotonic_ns() / 1_000_000;
    let is_well = live.is_well && phase == Phase::Serving;
    let servers: Vec<Value> = view
        .shared
        .upstream
        .servers()
        .iter()
        .map(|server| {
            json!({
                "server": server.name(),
                "healthy": server.is_healthy(),
                "in_rotation": server.is_in_rotation(now_ms),
                "in_flight": server.in_flight(),
            })
        })
        .collect();
    Health {
        is_well,
        detail: json!({
            "status": match (phase, live.is_well) {
                (Phase::Serving, true) => "ready",
                (Phase::Serving, false) => "stalled",
                (Phase::Draining | Phase::Stopping, _) => "draining",
            },
            "policy_generation": view.shared.policy.load().generation,
            "last_reload_failed": view.reloads.last_failed(),
            "upstream": servers,
            "log": view.log.detail(now_ms, view.auditor.trouble()),
            "cluster": view.cluster.as_ref().map(|cluster| super::cluster::detail(cluster)),
            "kafka": view.kafka.as_ref().map(|counters| super::kafka::detail(counters, now_ms)),
        }),
    }
}
