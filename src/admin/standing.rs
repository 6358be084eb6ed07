//! How the process stands, for one glance: what is in force, who is served, what troubles it.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::{View, health, status::stamp};
use crate::proxy::listener::Phase;

/// Consumer groups that are named, those furthest behind first.
const GROUPS_MAX: usize = 10;

/// How the process stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Wardent's own version.
    pub version: String,
    /// `serving`, `draining`, or `stalled`: something in it hangs.
    pub state: String,
    /// When it was started. RFC 3339.
    pub started: String,
    /// For how long it has been running, in seconds.
    pub uptime_s: u64,
    /// How the policy got in force.
    pub policy_load: PolicyLoad,
    /// Requests at the upstream now.
    pub in_flight: u64,
    /// Client connections open now.
    pub connections: u64,
    /// Clients whose limits are kept.
    pub clients: u64,
    /// The application's servers.
    pub upstream: Vec<ServerShown>,
    /// The log.
    pub log: LogShown,
    /// Who reads the log; none where no Kafka clients are served.
    pub consumers: Option<Consumers>,
    /// What somebody should look at, in words.
    pub warnings: Vec<String>,
}

/// How the policy got in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLoad {
    /// When it did. RFC 3339.
    pub loaded: String,
    /// How long ago that was, in seconds.
    pub age_s: u64,
    /// Why what came later is not in force, if something did: the report, as `wardent check` has it.
    pub error: Option<String>,
}

/// One of the application's servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerShown {
    /// Its address.
    pub server: String,
    /// Whether it answers its health checks, where it has any.
    pub healthy: bool,
    /// Whether it gets requests.
    pub in_rotation: bool,
    /// Requests that it has now.
    pub in_flight: u32,
}

/// The log, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogShown {
    /// `ok` or `degraded`.
    pub state: String,
    /// What troubles it, in words.
    pub reasons: Vec<String>,
    /// Bytes of all topics on disk.
    pub bytes: u64,
    /// Events that are lost since the start.
    pub events_lost: u64,
    /// Bytes of events that wait to be written.
    pub waiting_bytes: u64,
}

/// Who reads the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consumers {
    /// `ok` or `stalled`.
    pub state: String,
    /// Connections of Kafka clients.
    pub connections: u64,
    /// Consumer groups, in all.
    pub groups_total: u64,
    /// Up to ten of them, those furthest behind first.
    pub groups: Vec<GroupLag>,
}

/// How far a consumer group is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupLag {
    /// Its name.
    pub group: String,
    /// As Kafka calls it.
    pub state: String,
    /// Members.
    pub members: u64,
    /// Records before it.
    pub lag_records: u64,
    /// The age of the oldest of these, in seconds, where it is known.
    pub lag_seconds: Option<f64>,
}

impl Standing {
    /// As it is now.
    pub(super) fn of(view: &View) -> Self {
        let clock = &view.shared.clock;
        let (unix_ms, now_ms) = (clock.unix_ms(), clock.monotonic_ns() / 1_000_000);
        let loaded_ms = view.reloads.last_success_unix_ms();
        let mut standing = Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: state_of(view).to_owned(),
            started: stamp(unix_ms.saturating_sub(now_ms)),
            uptime_s: now_ms / 1_000,
            policy_load: PolicyLoad {
                loaded: stamp(loaded_ms),
                age_s: unix_ms.saturating_sub(loaded_ms) / 1_000,
                error: view.reloads.error(),
            },
            in_flight: view.shared.in_flight.held() as u64,
            connections: view.workers.iter().map(|one| one.connections.get()).sum(),
            clients: view.shared.clients.cells(),
            upstream: servers(view, now_ms),
            log: log(view, now_ms),
            consumers: consumers(view, now_ms),
            warnings: Vec::new(),
        };
        standing.warnings = standing.warnings(view);
        standing
    }

    fn warnings(&self, view: &View) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.state == "stalled" {
            warnings.push("something hangs: /livez says what".to_owned());
        }
        if self.policy_load.error.is_some() {
            warnings.push("an edit was refused, an older policy is in force".to_owned());
        }
        for server in &self.upstream {
            if !server.in_rotation {
                warnings.push(format!("{} gets no requests: it fails", server.server));
            } else if !server.healthy {
                warnings.push(format!("{} fails, and is the only one left", server.server));
            }
        }
        let reasons = self.log.reasons.iter();
        warnings.extend(reasons.map(|reason| format!("the log: {reason}")));
        if let Some(consumers) = &self.consumers
            && consumers.state != "ok"
        {
            warnings.push("Kafka clients get no answers".to_owned());
        }
        let counted = [
            (self.log.events_lost, "events are lost since the start"),
            (
                view.owner.refused.load(Ordering::Relaxed),
                "bans found no room since the start: raise `limits.bans_max`",
            ),
            (
                view.workers.iter().map(|one| one.panics.get()).sum(),
                "panics were caught since the start: please report them",
            ),
            (
                view.workers.iter().map(|one| one.turned_away.get()).sum(),
                "connections were turned away since the start: raise `max_connections`",
            ),
        ];
        let counted = counted.into_iter().filter(|(count, _)| *count > 0);
        warnings.extend(counted.map(|(count, what)| format!("{count} {what}")));
        if view.shared.clients.is_full() {
            let words =
                "limits are kept for as many clients as `limits.clients_max` has: others share";
            warnings.push(words.to_owned());
        }
        warnings
    }
}

fn state_of(view: &View) -> &'static str {
    match *view.phase.borrow() {
        Phase::Draining | Phase::Stopping => "draining",
        Phase::Serving if health::live(view).is_well => "serving",
        Phase::Serving => "stalled",
    }
}

fn servers(view: &View, now_ms: u64) -> Vec<ServerShown> {
    let servers = view.shared.upstream.servers().iter();
    servers
        .map(|server| ServerShown {
            server: server.name().to_owned(),
            healthy: server.is_healthy(),
            in_rotation: server.is_in_rotation(now_ms),
            in_flight: server.in_flight(),
        })
        .collect()
}

fn log(view: &View, now_ms: u64) -> LogShown {
    let reasons = view.log.reasons(now_ms, view.auditor.trouble());
    let partitions = view.log.log.partitions();
    LogShown {
        state: if reasons.is_empty() { "ok" } else { "degraded" }.to_owned(),
        reasons,
        bytes: partitions.iter().map(|one| one.size_bytes()).sum(),
        events_lost: view.log.events_lost(),
        waiting_bytes: view.log.builder.backlog_bytes(),
    }
}

fn consumers(view: &View, now_ms: u64) -> Option<Consumers> {
    let counters = view.kafka.as_ref()?;
    let mut groups = view.groups().groups;
    groups.sort_by_key(|group| std::cmp::Reverse(group.lag_records));
    let shown = groups.iter().take(GROUPS_MAX).map(|group| GroupLag {
        group: group.group.clone(),
        state: group.state.clone(),
        members: group.members.len() as u64,
        lag_records: group.lag_records,
        lag_seconds: group.lag_seconds,
    });
    Some(Consumers {
        state: super::kafka::state(counters, now_ms).to_owned(),
        connections: counters.connections.get(),
        groups_total: groups.len() as u64,
        groups: shown.collect(),
    })
}
