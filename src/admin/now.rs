//! `/api/v1/now`: the last quarter of an hour, by looks at the counters each second.
//!
//! Nobody is asked and nothing is charged: a look adds up what the workers have counted. Quantiles are read
//! off the buckets of `wardent_http_request_duration_seconds`, so they are as exact as these.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;

use super::{
    View,
    api::{Query, Refused, Reply, say},
    bans,
    server::Server,
    status::Enforcement,
};
use crate::{
    event::{access::Verdict, time::Stamps},
    guard::verdict::Reason,
    owner::{Act, Done},
    proxy::metrics::DURATION_BOUNDS_US,
};

/// Looks that are a second apart, for what is told of the last minute.
const SECONDS: usize = 61;

/// Seconds between two looks of the longer ring.
pub(super) const STEP_S: u64 = 5;

/// Looks that are [`STEP_S`] apart: those of a quarter of an hour, and the one before.
const STEPS: usize = 181;

/// Bans that are told of.
const NEWEST: usize = 5;

/// How old the list of the newest bans may become while bans change. To make it, the owner goes through all.
const NEWEST_AGE_MS: u64 = 2_000;

/// As [`NEWEST_AGE_MS`], where there are more than [`MANY_BANS`].
const NEWEST_AGE_OF_MANY_MS: u64 = 30_000;
const MANY_BANS: u64 = 20_000;

const BUCKETS: usize = DURATION_BOUNDS_US.len() + 1;

/// How it goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Now {
    /// The moment, as RFC 3339 spells it.
    pub time: String,
    /// The policy in force, as counted from the start.
    pub policy: u64,
    /// How much of it is enforced.
    pub enforcement: Enforcement,
    /// What should be looked at; nothing where all is well.
    pub warnings: Vec<String>,
    /// The last ten seconds.
    pub ten_seconds: Span,
    /// The last minute.
    pub minute: Span,
    /// The last quarter of an hour.
    pub quarter: Span,
    /// The last quarter of an hour, step by step.
    pub series: Series,
    /// Client connections that are open.
    pub connections: u64,
    /// Requests at the upstream.
    pub in_flight: u64,
    /// The upstream's servers.
    pub upstream: Vec<ServerShown>,
    /// Bans in force.
    pub bans_active: u64,
    /// The newest of them.
    pub bans_newest: Vec<bans::Shown>,
}

/// What came to its end in a span of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// How long it was, in seconds: less than its name says, soon after the start.
    pub seconds: f64,
    /// Finished requests.
    pub requests: u64,
    /// Finished requests a second.
    pub per_second: f64,
    /// Finished requests by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Refused and failed requests by reason; those that there are.
    pub refused: BTreeMap<String, u64>,
    /// Requests that passed only because their routes observe, by the reason to refuse them.
    pub would_be_refused: BTreeMap<String, u64>,
    /// So many of a hundred requests took at most as long, in milliseconds; none where there were none.
    pub p50_ms: Option<f64>,
    /// Likewise.
    pub p95_ms: Option<f64>,
    /// Likewise.
    pub p99_ms: Option<f64>,
    /// Bytes sent to clients.
    pub bytes_out: u64,
}

/// A span of time in steps, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Seconds of one step.
    pub step_s: u64,
    /// Requests a second, by verdict.
    pub per_second: BTreeMap<String, Vec<f64>>,
    /// Milliseconds; none where there were no requests.
    pub p50_ms: Vec<Option<f64>>,
    /// Likewise.
    pub p95_ms: Vec<Option<f64>>,
    /// Likewise.
    pub p99_ms: Vec<Option<f64>>,
}

/// A server of the upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerShown {
    /// As the configuration names it.
    pub server: String,
    /// Whether its last health checks were answered.
    pub healthy: bool,
    /// Whether requests are sent to it.
    pub in_rotation: bool,
    /// Requests at it now.
    pub in_flight: u64,
}

/// What counters said at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    monotonic_ms: u64,
    requests: [u64; Verdict::ALL.len()],
    refused: [u64; Reason::ALL.len()],
    observed: [u64; Reason::ALL.len()],
    durations: [u64; BUCKETS],
    bytes_out: u64,
}

impl Look {
    fn at(view: &View) -> Self {
        let mut look = Self {
            monotonic_ms: view.shared.clock.monotonic_ns() / 1_000_000,
            ..Self::default()
        };
        for worker in &view.workers {
            let sums: [(&mut [u64], _); 4] = [
                (&mut look.requests, &worker.requests[..]),
                (&mut look.refused, &worker.refusals[..]),
                (&mut look.observed, &worker.observations[..]),
                (&mut look.durations, &worker.durations[..]),
            ];
            for (sums, counts) in sums {
                for (sum, count) in sums.iter_mut().zip(counts) {
                    *sum += count.get();
                }
            }
            look.bytes_out += worker.bytes_out.get();
        }
        look
    }
}

/// What counters said lately. Written by one task of the admin side, read by others.
#[derive(Debug, Default)]
pub(super) struct Lately(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    seconds: VecDeque<Look>,
    steps: VecDeque<Look>,
    /// The newest bans, when they were asked for, and how many changes there had been.
    newest: (Vec<bans::Shown>, u64, u64),
}

impl Rings {
    fn remember(&mut self, look: Look) {
        if self.seconds.len() >= SECONDS {
            self.seconds.pop_front();
        }
        self.seconds.push_back(look);
        let since_step = self.steps.back().map_or(u64::MAX, |last| {
            look.monotonic_ms.saturating_sub(last.monotonic_ms)
        });
        // A look may come a little early.
        if since_step >= STEP_S * 1_000 - 500 {
            if self.steps.len() >= STEPS {
                self.steps.pop_front();
            }
            self.steps.push_back(look);
        }
    }

    /// The oldest look that is not longer ago than this.
    fn before(&self, now: &Look, within_s: u64) -> Look {
        let since_ms = now.monotonic_ms.saturating_sub(within_s * 1_000 + 500);
        let all = self.steps.iter().chain(&self.seconds);
        let recent = all.filter(|look| look.monotonic_ms >= since_ms);
        recent
            .min_by_key(|look| look.monotonic_ms)
            .copied()
            .unwrap_or(*now)
    }
}

impl Lately {
    fn rings(&self) -> std::sync::MutexGuard<'_, Rings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn since(now: u64, then: u64) -> u64 {
    now.saturating_sub(then)
}

fn each(now: &[u64], then: &[u64]) -> Vec<u64> {
    let both = now.iter().zip(then);
    both.map(|(&now, &then)| since(now, then)).collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts as people read them, far below 2^53"
)]
fn float(count: u64) -> f64 {
    count as f64
}

/// To three places: what is beyond them is noise, and long.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

impl Span {
    fn between(then: &Look, now: &Look) -> Self {
        let seconds = float(since(now.monotonic_ms, then.monotonic_ms)) / 1_000.0;
        let requests = each(&now.requests, &then.requests);
        let durations = each(&now.durations, &then.durations);
        let named = |now: &[u64], then: &[u64]| {
            let names = Reason::ALL
                .into_iter()
                .map(|reason| reason.name().to_owned());
            let all = names.zip(each(now, then));
            all.filter(|(_, count)| *count > 0).collect()
        };
        let all: u64 = requests.iter().sum();
        let names = Verdict::ALL.iter().map(|verdict| verdict.name().to_owned());
        Self {
            seconds: rounded(seconds),
            requests: all,
            per_second: per_second(all, seconds),
            verdicts: names.zip(requests).collect(),
            refused: named(&now.refused, &then.refused),
            would_be_refused: named(&now.observed, &then.observed),
            p50_ms: quantile_ms(&durations, 50),
            p95_ms: quantile_ms(&durations, 95),
            p99_ms: quantile_ms(&durations, 99),
            bytes_out: since(now.bytes_out, then.bytes_out),
        }
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds <= 0.0 {
        return 0.0;
    }
    rounded(float(count) / seconds)
}

/// So many `percent` of the durations were at most this long: within a bucket, they are taken for spread evenly.
fn quantile_ms(counts: &[u64], percent: u64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    let rank = (all * percent).div_ceil(100);
    let mut before = 0;
    let mut lower_us = 0;
    for (nth, &count) in counts.iter().enumerate() {
        // What is longer than all bounds is told as the last of them.
        let upper_us = DURATION_BOUNDS_US.get(nth).copied().unwrap_or(lower_us);
        if rank > 0 && before + count >= rank {
            let part = float(rank - before) / float(count);
            let us = float(lower_us) + float(upper_us - lower_us) * part;
            return Some(rounded(us / 1_000.0));
        }
        before += count;
        lower_us = upper_us;
    }
    None
}

impl Series {
    fn of(steps: &VecDeque<Look>) -> Self {
        let mut series = Self {
            step_s: STEP_S,
            ..Self::default()
        };
        for (then, now) in steps.iter().zip(steps.iter().skip(1)) {
            let seconds = float(since(now.monotonic_ms, then.monotonic_ms)) / 1_000.0;
            let counts = each(&now.requests, &then.requests);
            for (verdict, count) in Verdict::ALL.into_iter().zip(counts) {
                let own = series.per_second.entry(verdict.name().to_owned());
                own.or_default().push(per_second(count, seconds));
            }
            let durations = each(&now.durations, &then.durations);
            series.p50_ms.push(quantile_ms(&durations, 50));
            series.p95_ms.push(quantile_ms(&durations, 95));
            series.p99_ms.push(quantile_ms(&durations, 99));
        }
        series
    }
}

impl View {
    /// What an operator should look at.
    pub(super) fn warnings(&self, enforcement: Enforcement) -> Vec<String> {
        let now_ms = self.shared.clock.monotonic_ns() / 1_000_000;
        let mut warnings = Vec::new();
        if self.vitals.is_alarmed.load(Ordering::Relaxed) {
            warnings.push("something hangs: see Health".to_owned());
        }
        if !enforcement.any {
            warnings.push(
                "nothing is enforced yet: the policy observes, and refuses nobody for bans, bots, traps or limits"
                    .to_owned(),
            );
        }
        if self.reloads.last_failed() {
            warnings.push("the policy file was refused: the one before stays in force".to_owned());
        }
        for server in self.shared.upstream.servers() {
            if !server.is_in_rotation(now_ms) {
                warnings.push(format!("upstream {} is out of rotation", server.name()));
            } else if !server.is_healthy() {
                warnings.push(format!("upstream {} is not healthy", server.name()));
            }
        }
        if self.shared.clients.is_full() {
            warnings.push("limits.clients_max is reached: new clients share clocks".to_owned());
        }
        warnings.extend(self.log.reasons(now_ms, self.auditor.trouble()));
        warnings
    }

    /// The upstream's servers.
    pub(super) fn servers(&self) -> Vec<ServerShown> {
        let now_ms = self.shared.clock.monotonic_ns() / 1_000_000;
        let servers = self.shared.upstream.servers().iter();
        let shown = servers.map(|server| ServerShown {
            server: server.name().to_owned(),
            healthy: server.is_healthy(),
            in_rotation: server.is_in_rotation(now_ms),
            in_flight: u64::from(server.in_flight()),
        });
        shown.collect()
    }
}

impl Server {
    /// Looks at the counters once a second, until the task is dropped.
    pub async fn look_each_second(self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.dash.lately.rings().remember(Look::at(&self.view));
        }
    }

    /// How it goes.
    pub(super) async fn now(&self) -> Now {
        let view = &self.view;
        let mut now = {
            let look = Look::at(view);
            let rings = self.dash.lately.rings();
            let span = |within_s| Span::between(&rings.before(&look, within_s), &look);
            let enforcement = Enforcement::of(&view.shared.policy.load());
            Now {
                time: Stamps::default().rfc3339(view.shared.clock.unix_ms()),
                policy: view.shared.policy.load().generation,
                enforcement,
                warnings: view.warnings(enforcement),
                ten_seconds: span(10),
                minute: span(60),
                quarter: span(900),
                series: Series::of(&rings.steps),
                connections: view.workers.iter().map(|own| own.connections.get()).sum(),
                in_flight: view.shared.in_flight.held() as u64,
                upstream: view.servers(),
                bans_active: view.owner.active.load(Ordering::Relaxed),
                bans_newest: Vec::new(),
            }
        };
        now.bans_newest = self.newest_bans(now.bans_active).await;
        now
    }

    /// The newest bans; asked for anew only where some have changed, and not too often.
    async fn newest_bans(&self, active: u64) -> Vec<bans::Shown> {
        let owner = &self.view.owner;
        let changes = [&owner.began, &owner.expired, &owner.lifted];
        let changes = changes.iter().map(|own| own.load(Ordering::Relaxed)).sum();
        let now_ms = self.view.shared.clock.monotonic_ns() / 1_000_000;
        let (known, asked_ms, known_changes) = self.dash.lately.rings().newest.clone();
        let age_ms = if active > MANY_BANS {
            NEWEST_AGE_OF_MANY_MS
        } else {
            NEWEST_AGE_MS
        };
        let has_changed = changes != known_changes && now_ms.saturating_sub(asked_ms) >= age_ms;
        if asked_ms != 0 && !has_changed {
            return what_is_left(known, now_ms.saturating_sub(asked_ms));
        }
        let act = Act::List {
            after: None,
            count: NEWEST,
        };
        let Ok(Done::Listed(page)) = self.acts.ask(act).await else {
            return known;
        };
        let bans = page.bans.iter().map(|ban| self.shown(ban, false));
        let bans: Vec<_> = bans.collect();
        self.dash.lately.rings().newest = (bans.clone(), now_ms.max(1), changes);
        bans
    }

    /// Answers how it goes.
    ///
    /// # Errors
    /// By any method but GET.
    pub(super) async fn now_answer(&self, request: &Request<Incoming>) -> Reply {
        only_reading(request)?;
        Query::read(request.uri().query(), &[])?;
        say(StatusCode::OK, &self.now().await)
    }
}

/// The bans as they stand so much later.
fn what_is_left(bans: Vec<bans::Shown>, passed_ms: u64) -> Vec<bans::Shown> {
    let later = bans.into_iter().map(|ban| bans::Shown {
        left_ms: ban.left_ms.saturating_sub(passed_ms),
        ..ban
    });
    later.filter(|ban| ban.left_ms > 0).collect()
}

/// Refuses what is no reading.
///
/// # Errors
/// By any method but GET and HEAD.
pub(super) fn only_reading<T>(request: &Request<T>) -> Result<(), Refused> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Refused::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "use GET to read",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(second: u64) -> Look {
        let mut look = Look {
            monotonic_ms: second * 1_000,
            ..Look::default()
        };
        look.requests[0] = second * 7;
        look.durations[1] = second * 7;
        look
    }

    #[test]
    fn a_quarter_of_an_hour_is_remembered_and_no_more() {
        let mut rings = Rings::default();
        for second in 0..5_000 {
            rings.remember(look(second));
        }
        assert_eq!((rings.seconds.len(), rings.steps.len()), (SECONDS, STEPS));
        let now = look(4_999);
        for (within_s, at_least) in [(10, 10.0), (60, 60.0), (900, 895.0)] {
            let span = Span::between(&rings.before(&now, within_s), &now);
            let most = float(within_s) + 0.5;
            assert!((at_least..=most).contains(&span.seconds), "{span:?}");
            assert!((span.per_second - 7.0).abs() < 0.01, "{span:?}");
        }
        let series = Series::of(&rings.steps);
        assert_eq!(series.p50_ms.len(), 180);
        assert!(
            series.per_second["passed"]
                .iter()
                .all(|&each| (each - 7.0).abs() < 0.01)
        );
        assert!(series.per_second["failed"].iter().all(|&each| each == 0.0));
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        assert_eq!(quantile_ms(&[0; BUCKETS], 50), None);
        let mut counts = [0; BUCKETS];
        counts[1] = 100;
        assert_eq!(quantile_ms(&counts, 50), Some(0.75));
        assert_eq!(quantile_ms(&counts, 100), Some(1.0));
        counts[BUCKETS - 1] = 100;
        assert_eq!(quantile_ms(&counts, 99), Some(30_000.0));
        assert_eq!(quantile_ms(&counts, 50), Some(1.0));
    }

    #[test]
    fn nothing_came_before_the_start() {
        let rings = Rings::default();
        let span = Span::between(&rings.before(&look(9), 60), &look(9));
        assert_eq!((span.requests, span.per_second), (0, 0.0));
        assert_eq!(span.p99_ms, None);
    }
}
