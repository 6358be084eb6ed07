//! `/api/v1/status`: whether anything is enforced, and what the last 24 hours came to.
//!
//! Counters know only the time since the start. One look every ten minutes remembers where they stood, so
//! that the difference to a day ago can be told; a restart begins anew, and the answer says from when.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;

use super::{
    View,
    api::{Query, Refused, Reply, say},
    server::Server,
    standing::Standing,
};
use crate::{
    event::{access::Verdict, time::Stamps},
    guard::{policy::Policy, verdict::Reason},
};

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// The time that is told of, in milliseconds.
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// Looks that are remembered: those of a day, and the one before.
const LOOKS_MAX: usize = 145;

/// From one recent look to the next, and how many are remembered.
const RECENT_EVERY: Duration = Duration::from_secs(1);
const RECENT_MAX: usize = 10;

/// How it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The process, for one glance.
    #[serde(flatten)]
    pub standing: Standing,
    /// The policy in force, as counted from the start.
    pub policy: u64,
    /// How much of it is enforced.
    pub enforcement: Enforcement,
    /// From when on the rest is counted: 24 hours ago, to ten minutes, or the start. RFC 3339.
    pub since: String,
    /// Finished requests by verdict.
    pub requests: BTreeMap<String, u64>,
    /// Refused and failed requests by reason; those that there are.
    pub refused: BTreeMap<String, u64>,
    /// Requests that passed only because their routes observe, by the reason to refuse them.
    pub would_be_refused: BTreeMap<String, u64>,
    /// Bans.
    pub bans: BansShown,
    /// Requests a second.
    pub rates: Rates,
}

/// Requests a second in the last ten seconds, or since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Over how many seconds.
    pub window_s: f64,
    /// Finished requests by verdict.
    pub requests: BTreeMap<String, f64>,
    /// Requests that passed only because their routes observe.
    pub would_be_refused: f64,
}

/// How much of the policy is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcement {
    /// Whether anything is: if not, deny, bans, bots, traps and limits refuse nobody.
    pub any: bool,
    /// Routes that are, what no route matches counted as one.
    pub routes_enforced: u64,
    /// Routes that only observe, likewise.
    pub routes_observed: u64,
}

/// Bans that began, and are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BansShown {
    /// In force now.
    pub active: u64,
    /// Began.
    pub began: u64,
    /// Would have begun, had what is observed been enforced.
    pub would_have_begun: u64,
}

/// What counters said at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    unix_ms: u64,
    requests: [u64; Verdict::ALL.len()],
    refused: [u64; Reason::ALL.len()],
    observed: [u64; Reason::ALL.len()],
    began: u64,
    would_have_begun: u64,
}

/// What counters said in the last day, and each second of late. Written and read by tasks of the admin side
/// alone.
#[derive(Debug)]
pub(super) struct Looks(Mutex<Remembered>);

#[derive(Debug)]
struct Remembered {
    day: VecDeque<Look>,
    /// Each with its moment of the monotonic clock.
    recent: VecDeque<(u64, Look)>,
}

impl Looks {
    /// From `unix_ms` on, when all were zero.
    pub(super) fn since(unix_ms: u64) -> Arc<Self> {
        let first = Look {
            unix_ms,
            ..Look::default()
        };
        Arc::new(Self(Mutex::new(Remembered {
            day: VecDeque::from([first]),
            recent: VecDeque::new(),
        })))
    }

    fn remember(&self, look: Look) {
        let looks = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).day;
        if looks.len() >= LOOKS_MAX {
            looks.pop_front();
        }
        looks.push_back(look);
    }

    fn remember_recent(&self, at_ns: u64, look: Look) {
        let looks = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).recent;
        if looks.len() >= RECENT_MAX {
            looks.pop_front();
        }
        looks.push_back((at_ns, look));
    }

    /// What came in a second, from the oldest of the recent looks to this one.
    fn rates(&self, now_ns: u64, now: &Look) -> Rates {
        let looks = &self.0.lock().unwrap_or_else(PoisonError::into_inner).recent;
        let Some((then_ns, then)) = looks.front() else {
            return Rates::default();
        };
        let window = Duration::from_nanos(now_ns.saturating_sub(*then_ns)).as_secs_f64();
        let per_s = |count: u64| match window > 0.0 {
            true => hundredths(f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / window),
            false => 0.0,
        };
        let names = Verdict::ALL.into_iter().map(Verdict::name);
        let requests = between(names, &then.requests, &now.requests);
        let sum = |observed: &[u64]| observed.iter().sum::<u64>();
        Rates {
            window_s: hundredths(window),
            requests: requests.map(|(name, count)| (name, per_s(count))).collect(),
            would_be_refused: per_s(sum(&now.observed).saturating_sub(sum(&then.observed))),
        }
    }

    /// The oldest look of the last day.
    fn a_day_before(&self, unix_ms: u64) -> Look {
        let looks = &self.0.lock().unwrap_or_else(PoisonError::into_inner).day;
        let then_ms = unix_ms.saturating_sub(DAY_MS);
        let within = looks.iter().find(|look| look.unix_ms >= then_ms);
        within.or(looks.back()).copied().unwrap_or_default()
    }
}

impl Look {
    fn at(view: &View) -> Self {
        let mut look = Self {
            unix_ms: view.shared.clock.unix_ms(),
            began: load(&view.owner.began),
            would_have_begun: load(&view.owner.observed),
            ..Self::default()
        };
        for worker in &view.workers {
            add(
                &mut look.requests,
                worker.requests.iter().map(|own| own.get()),
            );
            add(
                &mut look.refused,
                worker.refusals.iter().map(|own| own.get()),
            );
            add(
                &mut look.observed,
                worker.observations.iter().map(|own| own.get()),
            );
        }
        look
    }
}

fn load(number: &std::sync::atomic::AtomicU64) -> u64 {
    number.load(std::sync::atomic::Ordering::Relaxed)
}

fn add(sums: &mut [u64], more: impl Iterator<Item = u64>) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

/// What came between two looks, by name.
fn between<'a>(
    names: impl Iterator<Item = &'a str>,
    before: &[u64],
    after: &[u64],
) -> impl Iterator<Item = (String, u64)> {
    let counts = before.iter().zip(after);
    let counts = counts.map(|(before, after)| after.saturating_sub(*before));
    names.map(str::to_owned).zip(counts)
}

impl Enforcement {
    /// How much of this policy is enforced.
    pub(super) fn of(policy: &Policy) -> Self {
        let (enforced, observed): (Vec<_>, Vec<_>) =
            policy.all_rules().partition(|rules| rules.enforces);
        Self {
            any: !enforced.is_empty(),
            routes_enforced: enforced.len() as u64,
            routes_observed: observed.len() as u64,
        }
    }
}

impl Status {
    fn of(view: &View, looks: &Looks) -> Self {
        let now = Look::at(view);
        let then = looks.a_day_before(now.unix_ms);
        let policy = view.shared.policy.load();
        let reasons = || Reason::ALL.into_iter().map(Reason::name);
        let is_some = |(_, count): &(String, u64)| *count > 0;
        Self {
            standing: Standing::of(view),
            rates: looks.rates(view.shared.clock.monotonic_ns(), &now),
            policy: policy.generation,
            enforcement: Enforcement::of(&policy),
            since: stamp(then.unix_ms),
            requests: between(
                Verdict::ALL.into_iter().map(Verdict::name),
                &then.requests,
                &now.requests,
            )
            .collect(),
            refused: between(reasons(), &then.refused, &now.refused)
                .filter(is_some)
                .collect(),
            would_be_refused: between(reasons(), &then.observed, &now.observed)
                .filter(is_some)
                .collect(),
            bans: BansShown {
                active: load(&view.owner.active),
                began: now.began.saturating_sub(then.began),
                would_have_begun: now.would_have_begun.saturating_sub(then.would_have_begun),
            },
        }
    }
}

/// A moment as answers tell it. RFC 3339.
pub(super) fn stamp(unix_ms: u64) -> String {
    let mut text = Vec::new();
    Stamps::default().write_rfc3339(unix_ms, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

impl Server {
    /// Looks at the counters each second, until the task is dropped.
    pub async fn remember_counters(self) {
        let clock = self.view.shared.clock.clone();
        let mut remembered_ns = clock.monotonic_ns();
        let mut ticks = tokio::time::interval(RECENT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (now_ns, look) = (clock.monotonic_ns(), Look::at(&self.view));
            self.looks.remember_recent(now_ns, look);
            if Duration::from_nanos(now_ns.saturating_sub(remembered_ns)) >= LOOK_EVERY {
                self.looks.remember(look);
                remembered_ns = now_ns;
            }
        }
    }

    /// How it stands.
    pub(super) fn status(&self, request: &Request<Incoming>) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let words = "another method, please";
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, words));
        }
        Query::read(request.uri().query(), &[])?;
        say(StatusCode::OK, &Status::of(&self.view, &self.looks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(unix_ms: u64) -> Look {
        Look {
            unix_ms,
            ..Look::default()
        }
    }

    #[test]
    fn a_day_is_told_of_and_no_more_is_remembered() {
        let looks = Looks::since(1_000);
        assert_eq!(looks.a_day_before(2_000).unix_ms, 1_000);
        let every_ms = 600_000;
        for nth in 1..=400 {
            looks.remember(look(1_000 + nth * every_ms));
        }
        let now = 1_000 + 400 * every_ms + 5;
        let then = looks.a_day_before(now).unix_ms;
        assert!(
            (now - DAY_MS..now - DAY_MS + every_ms).contains(&then),
            "{then}"
        );
        assert_eq!(looks.0.lock().unwrap().day.len(), LOOKS_MAX);
        // A clock that went far ahead leaves the last look.
        assert_eq!(looks.a_day_before(now * 9).unix_ms, 1_000 + 400 * every_ms);
    }

    #[test]
    fn rates_are_of_the_last_ten_seconds() {
        let looks = Looks::since(0);
        let mut now = look(0);
        assert_eq!(looks.rates(1, &now), Rates::default());
        for second in 0..30_u64 {
            now.requests[0] = second * 7;
            now.observed[1] = second;
            looks.remember_recent(second * 1_000_000_000, now);
        }
        now.requests[0] += 7;
        let rates = looks.rates(30_000_000_000, &now);
        assert_eq!((rates.window_s, rates.requests["passed"]), (10.0, 7.0));
        assert_eq!(
            (rates.requests["refused"], rates.would_be_refused),
            (0.0, 0.9)
        );
    }

    #[test]
    fn what_came_between_is_told_by_name() {
        let told: Vec<_> = between(["a", "b"].into_iter(), &[1, 5], &[3, 5]).collect();
        assert_eq!(told, [("a".to_owned(), 2), ("b".to_owned(), 0)]);
    }
}
