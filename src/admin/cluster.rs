//! `/api/v1/cluster`: how this node stands with the others; and the exchange with the mirror.

use std::{fmt, sync::atomic::Ordering, time::Duration};

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    api::{Query, Refused, Reply, read_up_to, say},
    metrics::Encoder,
    server::{Door, Server},
};
use crate::{
    cluster::{Cluster, Heard, SILENT_MS},
    event::exchange::{BYTES_MAX, Report, State, Told, Topic},
    owner::{Act, Done, NotDone, OtherNumbers},
};

/// How this node stands with the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What this node is called.
    pub node: String,
    /// In a word: what the mirror says, or `silent` where it says nothing.
    pub state: String,
    /// What is wrong, where something is.
    pub why: Option<String>,
    /// How long nothing was heard of the mirror, in milliseconds; none where nothing ever was.
    pub silent_ms: Option<u64>,
    /// What the mirror said last.
    pub mirror: Option<Report>,
    /// What nodes decide of bans; none where bans are not shared.
    pub bans: Option<Bans>,
    /// What clients spend; none where limits are not shared.
    pub limits: Option<Limits>,
}

/// What was heard of other nodes' bans since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bans {
    /// Decisions that came into force.
    pub taken: u64,
    /// Those that were known.
    pub known: u64,
    /// Those that a later one had overtaken.
    pub older: u64,
    /// Those refused, by why.
    pub refused: RefusedBans,
    /// Those that no node says any more.
    pub withdrawn: u64,
    /// How often all that the cluster has was read.
    pub readings: u64,
    /// How far the clock of all nodes is ahead of this one's, in milliseconds.
    pub clock_ahead_ms: u64,
}

/// Decisions that were refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedBans {
    /// Too far ahead of this node's clock.
    pub ahead: u64,
    /// About whom nothing bans.
    pub protected: u64,
    /// `limits.bans_max` was reached.
    pub full: u64,
    /// Not understood.
    pub unreadable: u64,
}

/// What clients spent of limits that count for all nodes, in requests since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Here; others were told.
    pub told: u64,
    /// Here; no other node will be told.
    pub lost: u64,
    /// Elsewhere; it counts here.
    pub heard: u64,
    /// Elsewhere, of limits or by clients that are not known here.
    pub unknown: u64,
    /// Batches that came twice or too late.
    pub late: u64,
    /// Clients and limits that wait to be told.
    pub waiting: u64,
}

/// What the state is called where the mirror reaches the cluster.
pub const CONNECTED: &str = "connected";

/// What the state is called where nothing is heard of the mirror.
const SILENT: &str = "silent";

impl Server {
    /// Says how this node stands with the others.
    pub(super) fn cluster(&self, request: &Request<Incoming>) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "use GET: it is for reading",
            ));
        }
        Query::read(request.uri().query(), &[])?;
        let status = status(self.own_side()?, &self.view.owner.others);
        say(StatusCode::OK, &status)
    }

    /// Hears what the mirror brings, and answers what other nodes are to know.
    pub(super) async fn exchange(&self, request: Request<Incoming>, door: Door) -> Reply {
        if *request.method() != Method::POST {
            let words = "use POST: it is the mirror's";
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, words));
        }
        // Whoever has the token may ban; to speak for other nodes is another thing.
        let Door::Socket(_) = door else {
            let words = "the mirror comes through the admin socket alone";
            return Err(Refused::new(StatusCode::FORBIDDEN, words));
        };
        let cluster = self.own_side()?;
        let told: Told = read_up_to(request, BYTES_MAX).await?;
        let mut state = cluster.state().await;
        let policy = self.view.shared.policy.load_full();
        state.renew(&policy);
        let heard = cluster.hear(told, &mut state, policy.trust.ipv6_prefix);
        let mut inbox = heard.map_err(|too_much| {
            Refused::new(StatusCode::PAYLOAD_TOO_LARGE, too_much.to_string())
        })?;
        let act = Act::Hear {
            decisions: std::mem::take(&mut inbox.decisions),
            part: inbox.part,
            spent: std::mem::take(&mut inbox.spent),
        };
        match self.acts.ask(act).await {
            Ok(Done::Heard(hearing)) => {
                let answer = cluster.answer(inbox, hearing, &mut state);
                say(StatusCode::OK, &answer)
            }
            Ok(_) => Err(Refused::confused()),
            Err(not_done) => {
                if not_done == NotDone::Busy {
                    cluster.not_done(&inbox, &mut state);
                }
                Err(not_done.into())
            }
        }
    }

    fn own_side(&self) -> Result<&Cluster, Refused> {
        self.view.cluster.as_deref().ok_or_else(|| {
            let words = "this Wardent is in no cluster: `cluster` in wardent.yaml puts it into one";
            Refused::new(StatusCode::NOT_FOUND, words)
        })
    }
}

/// What the mirror said last, if it is not silent since.
fn heard(cluster: &Cluster) -> Option<std::sync::Arc<Heard>> {
    let is_there = cluster.silent_ms().is_some_and(|silent| silent < SILENT_MS);
    cluster.heard().filter(|_| is_there)
}

/// The state in a word, and what is wrong, where something is.
fn standing(cluster: &Cluster) -> (&'static str, Option<String>) {
    match (heard(cluster), cluster.silent_ms()) {
        (Some(heard), _) => (heard.report.state.name(), heard.report.why.clone()),
        (None, Some(silent_ms)) if silent_ms < SILENT_MS => (State::Starting.name(), None),
        (None, Some(silent_ms)) => {
            let seconds = silent_ms / 1_000;
            let why =
                format!("nothing was heard of wardent-mirror for {seconds} s: is it running?");
            (SILENT, Some(why))
        }
        (None, None) => {
            let why = "nothing was heard of wardent-mirror since the start: is it running?";
            (SILENT, Some(why.to_owned()))
        }
    }
}

pub(super) fn status(cluster: &Cluster, others: &OtherNumbers) -> Status {
    let (state, why) = standing(cluster);
    let numbers = cluster.numbers();
    let get = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    Status {
        node: cluster.node().to_string(),
        state: state.to_owned(),
        why,
        silent_ms: cluster.silent_ms(),
        mirror: cluster.heard().map(|heard| heard.report.clone()),
        bans: cluster.shares_bans().then(|| Bans {
            taken: get(&others.taken),
            known: get(&others.known),
            older: get(&others.older),
            refused: RefusedBans {
                ahead: get(&others.ahead),
                protected: get(&others.protected),
                full: get(&others.full),
                unreadable: get(&numbers.unreadable),
            },
            withdrawn: get(&others.withdrawn),
            readings: get(&others.readings),
            clock_ahead_ms: get(&others.clock_ahead_ms),
        }),
        limits: cluster.shares_limits().then(|| Limits {
            told: get(&numbers.spent_told),
            lost: cluster.spent_lost(),
            heard: get(&numbers.spent_heard),
            unknown: get(&numbers.spent_unknown),
            late: get(&numbers.usage_late),
            waiting: get(&numbers.carried),
        }),
    }
}

/// How it stands, for `/readyz`: a cluster that is away keeps no request from being answered.
pub(super) fn detail(cluster: &Cluster) -> Value {
    let (state, why) = standing(cluster);
    let heard = cluster.heard();
    let topics = heard.iter().flat_map(|heard| &heard.report.topics);
    let (lag, behind_ms) = topics.fold((0_u64, 0_u64), |(lag, behind_ms), topic| {
        (
            lag.saturating_add(topic.lag),
            behind_ms.max(topic.behind_ms),
        )
    });
    json!({
        "node": cluster.node().as_str(),
        "state": state,
        "why": why,
        "lag_records": lag,
        "behind_ms": behind_ms,
    })
}

/// The numbers for `/metrics`.
pub(super) fn encode(
    cluster: &Cluster,
    others: &OtherNumbers,
    encoder: &mut Encoder<'_>,
) -> fmt::Result {
    let numbers = cluster.numbers();
    let get = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    let (state, _) = standing(cluster);
    let states = State::ALL.map(State::name).into_iter().chain([SILENT]);
    encoder.gauges(
        "wardent_cluster_state",
        "How the mirror stands with the cluster: 1 for the state that holds",
        "state",
        states.map(|name| (name, u64::from(name == state))),
    )?;
    encoder.counter(
        "wardent_cluster_exchanges",
        "Exchanges with the mirror",
        get(&numbers.exchanges),
    )?;
    if let Some(silent_ms) = cluster.silent_ms() {
        encoder.seconds(
            "wardent_cluster_mirror_silent_seconds",
            "How long nothing has been heard of the mirror",
            Duration::from_millis(silent_ms),
        )?;
    }
    let bans = [
        ("taken", &others.taken),
        ("known", &others.known),
        ("older", &others.older),
        ("ahead", &others.ahead),
        ("protected", &others.protected),
        ("full", &others.full),
        ("unreadable", &numbers.unreadable),
        ("withdrawn", &others.withdrawn),
    ];
    encoder.counters(
        "wardent_cluster_bans",
        "Other nodes' decisions about bans, by what became of them",
        "outcome",
        bans.map(|(name, number)| (name, get(number))).into_iter(),
    )?;
    encoder.seconds(
        "wardent_cluster_clock_ahead_seconds",
        "How far the clock of all nodes is ahead of this one's",
        Duration::from_millis(get(&others.clock_ahead_ms)),
    )?;
    let spent = [
        ("told", get(&numbers.spent_told)),
        ("lost", cluster.spent_lost()),
        ("heard", get(&numbers.spent_heard)),
        ("unknown", get(&numbers.spent_unknown)),
    ];
    encoder.counters(
        "wardent_cluster_spent",
        "Admitted requests that count for all nodes: told to others, told to nobody, heard of from others, heard of and not known here",
        "outcome",
        spent.into_iter(),
    )?;
    encoder.counter(
        "wardent_cluster_usage_late",
        "Batches of other nodes' usage that came twice or too late",
        get(&numbers.usage_late),
    )?;
    match cluster.heard() {
        Some(heard) => encode_report(&heard.report, encoder),
        None => Ok(()),
    }
}

/// What the mirror says, which may be old.
fn encode_report(report: &Report, encoder: &mut Encoder<'_>) -> fmt::Result {
    let up = report.brokers.iter().filter(|broker| broker.is_up).count() as u64;
    let known = report.brokers.len() as u64;
    encoder.gauges(
        "wardent_cluster_brokers",
        "Brokers of the cluster that are known, and those there is a connection to",
        "of",
        [("known", known), ("connected", up)].into_iter(),
    )?;
    let topics = || report.topics.iter();
    let each = |of: fn(&Topic) -> u64| topics().map(move |topic| (topic.topic.as_str(), of(topic)));
    encoder.gauges(
        "wardent_cluster_lag_records",
        "Records that the cluster has not acknowledged, by topic",
        "topic",
        each(|topic| topic.lag),
    )?;
    let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
    encoder.seconds_by(
        "wardent_cluster_lag_seconds",
        "How long the oldest record waits that the cluster has not acknowledged, by topic",
        "topic",
        topics().map(|topic| (topic.topic.as_str(), seconds(topic.behind_ms))),
    )?;
    encoder.seconds_by(
        "wardent_cluster_loses_in_seconds",
        "How long until retention takes records that the cluster has not acknowledged, by topic",
        "topic",
        topics().filter_map(|topic| Some((topic.topic.as_str(), seconds(topic.loses_in_ms?)))),
    )?;
    encoder.gauges(
        "wardent_cluster_topic_stopped",
        "Whether nothing of a topic is sent any more",
        "topic",
        each(|topic| topic.error.is_some().into()),
    )?;
    encoder.counters(
        "wardent_cluster_sent",
        "Records that the cluster has acknowledged, by topic",
        "topic",
        each(|topic| topic.sent),
    )?;
    encoder.counters(
        "wardent_cluster_sent_bytes",
        "Bytes of these records' values",
        "topic",
        each(|topic| topic.sent_bytes),
    )?;
    encoder.counters(
        "wardent_cluster_lost",
        "Records that were gone before they could be sent, by topic",
        "topic",
        each(|topic| topic.lost),
    )?;
    encoder.counters(
        "wardent_cluster_dead",
        "Records that can never be delivered, by topic",
        "topic",
        each(|topic| topic.dead),
    )
}
