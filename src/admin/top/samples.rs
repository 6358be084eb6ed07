//! The requests that were looked at, and what they come to by client, by path or by whatever is asked for.
//!
//! Memory is bounded by [`HELD_MAX`] requests and [`TEXT_BYTES_MAX`] for each of their texts.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::event::{
    access::Verdict,
    flat::{self, Value},
    time::Stamps,
};

/// Requests that are remembered at most.
pub(super) const HELD_MAX: usize = 32_768;

/// Bytes of a remembered text; what is longer is cut.
const TEXT_BYTES_MAX: usize = 200;

/// The weight of a request that stands for itself alone.
pub(super) const ONE: u64 = 1_000_000;

/// What stands where a request has no such text.
const NONE: &str = "-";

/// What requests are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Whose it was.
    Client,
    /// The policy's route.
    Route,
    /// The path, as it came.
    Path,
    /// Why it was refused or failed, or would have been; other requests are in no row.
    Reason,
    /// The bot it was taken for; other requests are in no row.
    Bot,
    /// The user agent.
    UserAgent,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Client,
        Self::Route,
        Self::Path,
        Self::Reason,
        Self::Bot,
        Self::UserAgent,
    ];

    /// The word for it in the API and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Route => "route",
            Self::Path => "path",
            Self::Reason => "reason",
            Self::Bot => "bot",
            Self::UserAgent => "user_agent",
        }
    }

    /// What this word means.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.word() == word)
    }
}

/// One line of the ranking. Where not all requests were looked at, its numbers are estimates.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which client, path and so on; `-` where the request had none.
    pub key: String,
    /// Requests.
    pub requests: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Those that passed only because their route observes.
    pub observed: u64,
    /// Those that were refused for their rate.
    pub rate_limited: u64,
    /// Those that were refused because of a ban.
    pub banned_hits: u64,
    /// Those that Wardent or the application failed.
    pub failed: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Half of the requests took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer, likewise.
    pub p99_ms: f64,
    /// When the last one ended. RFC 3339.
    pub last: String,
}

/// One request that was looked at.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// When it ended, in milliseconds since 1970.
    pub(super) ended_ms: u64,
    /// How many requests it stands for, in millionths.
    pub(super) weight: u64,
    /// By client, route, path, reason, bot and user agent; none where it has none.
    texts: [Option<Arc<str>>; By::ALL.len()],
    verdict: Verdict,
    is_observed: bool,
    bytes_out: u64,
    total_us: u64,
}

/// The requests that were looked at, oldest first.
#[derive(Debug, Default)]
pub(super) struct Samples {
    held: VecDeque<Sample>,
    /// Each text once.
    texts: HashSet<Arc<str>>,
    /// Texts after those were dropped that nobody had any more.
    texts_in_use: usize,
    /// Nothing before this moment is known any more.
    pub(super) since_ms: u64,
}

impl Samples {
    /// Reads an event that came at `arrived_ms`; none where it is no request.
    pub(super) fn read(&mut self, event: &[u8], arrived_ms: u64, now_ms: u64) -> Option<Sample> {
        let mut is_access = false;
        let mut verdict = None;
        let (mut is_observed, mut bytes_out, mut total_us) = (false, 0, 0);
        let mut texts: [Option<Arc<str>>; By::ALL.len()] = Default::default();
        flat::read(event, |name, value| {
            let mut keep = |by: By| {
                if let Some(text) = texts.get_mut(by as usize) {
                    *text = self.text(value);
                }
            };
            match name {
                b"event" => is_access = value.own_text() == Some(b"access"),
                b"client" => keep(By::Client),
                b"route" => keep(By::Route),
                b"path" => keep(By::Path),
                b"reason" => keep(By::Reason),
                b"bot" => keep(By::Bot),
                b"user_agent" => keep(By::UserAgent),
                b"verdict" => verdict = value.own_text().and_then(verdict_of),
                b"enforced" => is_observed = value == Value::Plain(b"false"),
                b"bytes_out" => bytes_out = value.number()?,
                b"total_us" => total_us = value.number()?,
                _ => {}
            }
            Some(())
        })?;
        is_access.then_some(())?;
        Some(Sample {
            ended_ms: arrived_ms.saturating_add(total_us / 1_000).min(now_ms),
            weight: ONE,
            texts,
            verdict: verdict?,
            is_observed,
            bytes_out,
            total_us,
        })
    }

    /// The text of a field, kept once; none where it is empty.
    fn text(&mut self, value: Value<'_>) -> Option<Arc<str>> {
        let mut bytes = Vec::new();
        if !value.append_to(&mut bytes) || bytes.is_empty() {
            return None;
        }
        bytes.truncate(TEXT_BYTES_MAX);
        // As events tell it: a byte that is no printable ASCII is the character of its number.
        let text: String = bytes.into_iter().map(char::from).collect();
        if let Some(kept) = self.texts.get(text.as_str()) {
            return Some(Arc::clone(kept));
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        Some(text)
    }

    /// Remembers one; where there are enough, the oldest is forgotten.
    pub(super) fn push(&mut self, sample: Sample) {
        if self.held.len() >= HELD_MAX
            && let Some(oldest) = self.held.pop_front()
        {
            self.since_ms = self.since_ms.max(oldest.ended_ms);
        }
        self.held.push_back(sample);
    }

    /// Forgets what ended before `since_ms`, and texts that nobody has any more.
    pub(super) fn forget_before(&mut self, since_ms: u64) {
        let old = self
            .held
            .iter()
            .take_while(|sample| sample.ended_ms < since_ms);
        let old = old.count();
        self.held.drain(..old);
        if self.texts.len() > 2 * self.texts_in_use {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.texts_in_use = self.texts.len();
        }
    }

    /// The rows with the most requests of those that ended after `since_ms`, and how many requests were
    /// looked at.
    pub(super) fn rows(&self, by: By, since_ms: u64, limit: usize) -> (Vec<Row>, u64) {
        let mut sums: HashMap<&str, Sum> = HashMap::new();
        let mut looked_at = 0;
        for sample in self.held.iter().filter(|one| one.ended_ms > since_ms) {
            looked_at += 1;
            let text = sample.texts.get(by as usize).and_then(Option::as_deref);
            let key = match (text, by) {
                (Some(text), _) => text,
                (None, By::Reason | By::Bot) => continue,
                (None, By::Client | By::Route | By::Path | By::UserAgent) => NONE,
            };
            sums.entry(key).or_default().add(sample);
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        // By key as well, so that rows with the same numbers keep their places.
        sums.sort_unstable_by(|(a, x), (b, y)| y.requests.cmp(&x.requests).then(a.cmp(b)));
        let rows = sums.into_iter().take(limit);
        let rows = rows.map(|(key, sum)| sum.row(key)).collect();
        (rows, looked_at)
    }
}

fn verdict_of(name: &[u8]) -> Option<Verdict> {
    let mut all = Verdict::ALL.into_iter();
    all.find(|verdict| verdict.name().as_bytes() == name)
}

/// What the requests of one row come to; counts in millionths.
#[derive(Debug, Default)]
struct Sum {
    requests: u64,
    refused: u64,
    observed: u64,
    rate_limited: u64,
    banned_hits: u64,
    failed: u64,
    bytes_out: u64,
    /// How long each took, and how many it stands for.
    took: Vec<(u64, u64)>,
    last_ms: u64,
}

impl Sum {
    fn add(&mut self, sample: &Sample) {
        let weight = sample.weight;
        let reason = sample.texts.get(By::Reason as usize);
        let reason = reason.and_then(Option::as_deref);
        self.requests += weight;
        match sample.verdict {
            Verdict::Refused => {
                self.refused += weight;
                match reason {
                    Some("rate_limited") => self.rate_limited += weight,
                    Some("banned") => self.banned_hits += weight,
                    _ => {}
                }
            }
            Verdict::Failed => self.failed += weight,
            Verdict::Passed | Verdict::Aborted => {}
        }
        if sample.is_observed {
            self.observed += weight;
        }
        let bytes = sample.bytes_out.saturating_mul(weight) / ONE;
        self.bytes_out = self.bytes_out.saturating_add(bytes);
        self.took.push((sample.total_us, weight));
        self.last_ms = self.last_ms.max(sample.ended_ms);
    }

    fn row(mut self, key: &str) -> Row {
        self.took.sort_unstable();
        let whole = |millionths: u64| (millionths + ONE / 2) / ONE;
        let mut last = Vec::new();
        Stamps::default().write_rfc3339(self.last_ms, &mut last);
        Row {
            key: key.to_owned(),
            requests: whole(self.requests),
            refused: whole(self.refused),
            observed: whole(self.observed),
            rate_limited: whole(self.rate_limited),
            banned_hits: whole(self.banned_hits),
            failed: whole(self.failed),
            bytes_out: self.bytes_out,
            p50_ms: ms(quantile(&self.took, self.requests, 500)),
            p99_ms: ms(quantile(&self.took, self.requests, 990)),
            last: String::from_utf8_lossy(&last).into_owned(),
        }
    }
}

/// Microseconds as milliseconds.
fn ms(us: u64) -> f64 {
    f64::from(u32::try_from(us).unwrap_or(u32::MAX)) / 1_000.0
}

/// What so many of a thousand took no longer than; `took` is in order, and comes to `all`.
fn quantile(took: &[(u64, u64)], all: u64, permille: u64) -> u64 {
    let wanted = all.saturating_mul(permille).div_ceil(1_000);
    let mut seen = 0;
    for (us, weight) in took {
        seen += weight;
        if seen >= wanted {
            return *us;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(client: &str, more: &str) -> String {
        format!(
            r#"{{"event":"access","v":1,"time":"t","client":"{client}","method":"GET","path":"/a\u009b","status":200,{more},"route":"","bytes_out":100,"total_us":2000,"user_agent":""}}"#
        )
    }

    fn take(samples: &mut Samples, event: &str, arrived_ms: u64, weight: u64) {
        let sample = samples.read(event.as_bytes(), arrived_ms, 1_000_000);
        let mut sample = sample.unwrap();
        sample.weight = weight;
        samples.push(sample);
    }

    const PASSED: &str = r#""verdict":"passed""#;
    const LIMITED: &str = r#""verdict":"refused","reason":"rate_limited""#;

    #[test]
    fn who_asks_most_comes_first_with_all_that_became_of_it() {
        let mut samples = Samples::default();
        take(&mut samples, &event("198.51.100.7", PASSED), 1_000, ONE);
        for _ in 0..3 {
            take(&mut samples, &event("203.0.113.9", LIMITED), 2_000, ONE);
        }
        let banned = r#""verdict":"refused","reason":"banned""#;
        take(&mut samples, &event("203.0.113.9", banned), 2_000, ONE);
        let observed = r#""verdict":"passed","reason":"bot","enforced":false"#;
        take(&mut samples, &event("203.0.113.9", observed), 2_500, ONE);
        let (rows, looked_at) = samples.rows(By::Client, 0, 10);
        assert_eq!(looked_at, 6);
        let expected = Row {
            key: "203.0.113.9".to_owned(),
            requests: 5,
            refused: 4,
            observed: 1,
            rate_limited: 3,
            banned_hits: 1,
            failed: 0,
            bytes_out: 500,
            p50_ms: 2.0,
            p99_ms: 2.0,
            last: "1970-01-01T00:00:02.502Z".to_owned(),
        };
        assert_eq!(rows[0], expected);
        assert_eq!(
            (rows[1].key.as_str(), rows[1].requests),
            ("198.51.100.7", 1)
        );
        let reasons = samples.rows(By::Reason, 0, 2).0;
        let keys: Vec<_> = reasons.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["rate_limited", "banned"]);
        assert_eq!(samples.rows(By::Path, 0, 9).0[0].key, "/a\u{9b}");
        assert_eq!(samples.rows(By::UserAgent, 0, 9).0[0].key, NONE);
        assert!(samples.rows(By::Bot, 0, 9).0.is_empty());
        let later = samples.rows(By::Client, 2_002, 10);
        assert_eq!((later.0.len(), later.1), (1, 1));
    }

    #[test]
    fn a_request_stands_for_those_that_were_passed_over() {
        let mut samples = Samples::default();
        take(
            &mut samples,
            &event("198.51.100.7", PASSED),
            1_000,
            ONE * 3 / 2,
        );
        take(
            &mut samples,
            &event("198.51.100.7", LIMITED),
            1_000,
            ONE * 3 / 2,
        );
        let (rows, looked_at) = samples.rows(By::Client, 0, 10);
        assert_eq!(looked_at, 2);
        assert_eq!((rows[0].requests, rows[0].refused), (3, 2));
        assert_eq!(rows[0].bytes_out, 300);
    }

    #[test]
    fn half_took_no_longer_than_the_median() {
        let took: Vec<_> = (1..=100).map(|us| (us, 1_000)).collect();
        assert_eq!(quantile(&took, 100_000, 500), 50);
        assert_eq!(quantile(&took, 100_000, 990), 99);
        assert_eq!(quantile(&[(7, 1)], 1, 500), 7);
        assert_eq!(quantile(&[], 0, 990), 0);
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let mut samples = Samples::default();
        for number in 0..HELD_MAX as u64 + 10 {
            let text = event(&number.to_string(), PASSED);
            take(&mut samples, &text, number * 10, ONE);
        }
        assert_eq!(samples.held.len(), HELD_MAX);
        assert_eq!(samples.since_ms, 9 * 10 + 2);
        samples.forget_before(u64::MAX);
        assert!(samples.held.is_empty() && samples.texts.is_empty());
    }

    #[test]
    fn what_is_no_request_is_none() {
        let mut samples = Samples::default();
        for text in [
            "x",
            "{}",
            r#"{"event":"gap","v":1,"events":3}"#,
            r#"{"event":"access","verdict":"new"}"#,
        ] {
            assert!(samples.read(text.as_bytes(), 0, 0).is_none(), "{text}");
        }
        let long = event(&"x".repeat(400), PASSED);
        take(&mut samples, &long, 0, ONE);
        assert_eq!(
            samples.rows(By::Client, 0, 1).0[0].key.len(),
            TEXT_BYTES_MAX
        );
    }
}
