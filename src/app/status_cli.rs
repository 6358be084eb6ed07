//! `wardent status`: on one screen, whether all is well.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use http::Method;

use super::{
    admin_cli::{ask, meaning, printable, span, with_running},
    cli::{Output, tell},
    groups_cli::behind,
    log_cli::bytes,
    paint::Paint,
    replay_text::{counted, grouped},
};
use crate::admin::{
    standing::{Consumers, LogShown, ServerShown},
    status::Status,
};

pub(super) const EXAMPLES: &str = "Examples:
  wardent status
  wardent status --output json | jq '.warnings[]'
  watch -c wardent status

Exit status: 0 when it runs, whatever it says; 1 when it does not.";

/// Reasons and groups that are named; more are counted.
const NAMED_MAX: usize = 5;

/// Does it, and gives the exit status.
pub(super) fn run(config: &Path, output: Output) -> ExitCode {
    with_running(config, output, |running| {
        let answer = ask(running, Method::GET, "/api/v1/status", None)?;
        match output {
            Output::Json => tell(&answer),
            Output::Text => lines(&meaning(&answer)?, Paint::of_output())
                .iter()
                .for_each(|line| tell(line)),
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The screen.
fn lines(status: &Status, paint: Paint) -> Vec<String> {
    let standing = &status.standing;
    let state = match standing.state.as_str() {
        "serving" => paint.good("serving"),
        "draining" => paint.warning("draining"),
        other => paint.bad(&printable(other)),
    };
    let mut lines = vec![format!(
        "{} {state}, up {}",
        paint.strong(&format!("wardent {}", printable(&standing.version))),
        span(standing.uptime_s.saturating_mul(1_000)),
    )];
    let mut tell = |name: &str, text: String| lines.push(format!("  {name:<13}{text}"));
    tell("policy", policy(status, paint));
    if let Some(error) = &standing.policy_load.error {
        let first = error.lines().next().unwrap_or_default();
        tell(
            "",
            paint.bad(&format!("a later edit was refused: {}", printable(first))),
        );
    }
    tell("now", rates(status));
    tell(since(status), verdicts(&status.requests));
    if !status.refused.is_empty() {
        tell("refused", reasons(&status.refused));
    }
    if !status.would_be_refused.is_empty() {
        let text = format!(
            "{} by what is only observed",
            reasons(&status.would_be_refused)
        );
        tell("would be", paint.warning(&text));
    }
    tell("bans", bans(status));
    for (nth, server) in standing.upstream.iter().enumerate() {
        tell(
            if nth == 0 { "upstream" } else { "" },
            upstream(server, paint),
        );
    }
    tell("log", log(&standing.log, paint));
    if let Some(consumers) = &standing.consumers {
        let told = groups(consumers);
        for (nth, line) in told.into_iter().enumerate() {
            tell(if nth == 0 { "consumers" } else { "" }, line);
        }
    }
    for warning in &standing.warnings {
        lines.push(format!(
            "{} {}",
            paint.warning("warning:"),
            printable(warning)
        ));
    }
    lines
}

fn policy(status: &Status, paint: Paint) -> String {
    let load = &status.standing.policy_load;
    let enforcement = &status.enforcement;
    let enforced = match (enforcement.any, enforcement.routes_observed) {
        (false, _) => paint.warning("nothing is enforced yet (mode: observe)"),
        (true, 0) => "all routes are enforced".to_owned(),
        (true, observed) => {
            let all = observed + enforcement.routes_enforced;
            paint.warning(&format!("{observed} of {all} routes are only observed"))
        }
    };
    let age = span(load.age_s.saturating_mul(1_000));
    format!("{}, in force for {age}; {enforced}", status.policy)
}

/// What the numbers of a day are called: they may be of less.
fn since(status: &Status) -> &'static str {
    match status.standing.uptime_s < 24 * 3_600 {
        true => "since start",
        false => "in 24h",
    }
}

fn rates(status: &Status) -> String {
    let rates = &status.rates;
    let per_s = |name: &str| rates.requests.get(name).copied().unwrap_or_default();
    let mut parts = vec![format!("{:.1} requests/s passed", per_s("passed"))];
    for name in ["refused", "failed", "aborted"] {
        parts.push(format!("{:.1} {name}", per_s(name)));
    }
    if rates.would_be_refused > 0.0 {
        parts.push(format!("{:.1} would be refused", rates.would_be_refused));
    }
    format!(
        "{}; {} in flight",
        parts.join(", "),
        status.standing.in_flight
    )
}

fn verdicts(requests: &BTreeMap<String, u64>) -> String {
    let order = ["passed", "refused", "failed", "aborted"];
    let parts = order.map(|name| {
        let count = requests.get(name).copied().unwrap_or_default();
        format!("{} {name}", grouped(count))
    });
    parts.join(", ")
}

/// The reasons with the most requests.
fn reasons(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let named = counts.iter().take(NAMED_MAX);
    let mut parts: Vec<_> = named
        .map(|(name, count)| format!("{} {}", grouped(**count), printable(name)))
        .collect();
    let rest = counts.iter().skip(NAMED_MAX).map(|(_, count)| **count);
    match rest.sum() {
        0 => {}
        rest => parts.push(format!("{} others", grouped(rest))),
    }
    parts.join(", ")
}

fn bans(status: &Status) -> String {
    let bans = &status.bans;
    let mut parts = vec![
        format!("{} in force", grouped(bans.active)),
        format!("{} began", grouped(bans.began)),
    ];
    if bans.would_have_begun > 0 {
        parts.push(format!(
            "{} would have begun",
            grouped(bans.would_have_begun)
        ));
    }
    parts.join(", ")
}

fn upstream(server: &ServerShown, paint: Paint) -> String {
    let state = match (server.in_rotation, server.healthy) {
        (true, true) => paint.good("healthy"),
        (true, false) => paint.bad("fails, and is the only one left"),
        (false, _) => paint.bad("fails, and gets no requests"),
    };
    format!(
        "{} {state}, {} in flight",
        printable(&server.server),
        server.in_flight
    )
}

fn log(log: &LogShown, paint: Paint) -> String {
    let state = match log.state.as_str() {
        "ok" => paint.good("ok"),
        other => paint.bad(&printable(other)),
    };
    let lost = match log.events_lost {
        0 => "no events lost".to_owned(),
        lost => paint.bad(&format!("{} lost", counted(lost, "event"))),
    };
    let waiting = match log.waiting_bytes {
        0 => String::new(),
        waiting => format!(", {} wait to be written", bytes(waiting)),
    };
    format!("{state}, {} on disk, {lost}{waiting}", bytes(log.bytes))
}

/// A line for each group that is named.
fn groups(consumers: &Consumers) -> Vec<String> {
    let mut lines = vec![format!(
        "{}, {}",
        counted(consumers.groups_total, "group"),
        counted(consumers.connections, "connection"),
    )];
    for group in consumers.groups.iter().take(NAMED_MAX) {
        let lag = match group.lag_records {
            0 => "has read all".to_owned(),
            records => format!(
                "{} behind, the oldest {} old",
                counted(records, "record"),
                behind(records, group.lag_seconds)
            ),
        };
        lines.push(format!("{} {lag}", printable(&group.group)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> serde_json::Value {
        json!({
            "version": "0.1.0", "state": "serving", "started": "2026-11-21T10:00:00.000Z",
            "uptime_s": 183_000,
            "policy_load": {"loaded": "2026-11-21T10:00:00.000Z", "age_s": 7_500, "error": null},
            "in_flight": 3, "connections": 40, "clients": 900,
            "upstream": [
                {"server": "127.0.0.1:8000", "healthy": true, "in_rotation": true, "in_flight": 3},
                {"server": "127.0.0.1:8001", "healthy": false, "in_rotation": false, "in_flight": 0}
            ],
            "log": {"state": "ok", "reasons": [], "bytes": 1_500_000, "events_lost": 0, "waiting_bytes": 0},
            "consumers": {"state": "ok", "connections": 2, "groups_total": 1, "groups": [
                {"group": "billing\u{9b}", "state": "Stable", "members": 2, "lag_records": 1_204, "lag_seconds": 30.2}
            ]},
            "warnings": ["127.0.0.1:8001 gets no requests: it fails"],
            "policy": 3,
            "enforcement": {"any": true, "routes_enforced": 4, "routes_observed": 0},
            "since": "2026-11-21T10:00:00.000Z",
            "requests": {"passed": 13_000_000, "refused": 1_210, "failed": 2, "aborted": 7},
            "refused": {"rate_limited": 1_000, "bot": 200, "trap": 5, "denied": 3, "banned": 1, "bad_secret": 1},
            "would_be_refused": {},
            "bans": {"active": 12, "began": 30, "would_have_begun": 0},
            "rates": {"window_s": 10.0, "would_be_refused": 0.0,
                "requests": {"passed": 152.3, "refused": 0.4, "failed": 0.0, "aborted": 0.0}},
        })
    }

    fn shown(status: serde_json::Value) -> String {
        lines(&serde_json::from_value(status).unwrap(), Paint::none()).join("\n")
    }

    #[test]
    fn all_that_matters_fits_a_screen() {
        let expected = "\
wardent 0.1.0 serving, up 2d 2h
  policy       3, in force for 2h 5m; all routes are enforced
  now          152.3 requests/s passed, 0.4 refused, 0.0 failed, 0.0 aborted; 3 in flight
  in 24h       13,000,000 passed, 1,210 refused, 2 failed, 7 aborted
  refused      1,000 rate_limited, 200 bot, 5 trap, 3 denied, 1 bad_secret, 1 others
  bans         12 in force, 30 began
  upstream     127.0.0.1:8000 healthy, 3 in flight
               127.0.0.1:8001 fails, and gets no requests, 0 in flight
  log          ok, 1.4 MiB on disk, no events lost
  consumers    1 group, 2 connections
               billing\\u{9b} 1,204 records behind, the oldest 31s old
warning: 127.0.0.1:8001 gets no requests: it fails";
        assert_eq!(shown(status()), expected);
    }

    #[test]
    fn what_is_only_observed_and_what_was_refused_is_said() {
        let mut status = status();
        status["enforcement"] = json!({"any": false, "routes_enforced": 0, "routes_observed": 4});
        status["would_be_refused"] = json!({"rate_limited": 12});
        status["bans"]["would_have_begun"] = json!(2);
        status["rates"]["would_be_refused"] = json!(1.5);
        status["policy_load"]["error"] = json!("policy.yaml:3:1: x\n  |\n");
        status["uptime_s"] = json!(60);
        let shown = shown(status);
        for line in [
            "  policy       3, in force for 2h 5m; nothing is enforced yet (mode: observe)",
            "               a later edit was refused: policy.yaml:3:1: x",
            "0.0 aborted, 1.5 would be refused; 3 in flight",
            "  since start  13,000,000 passed",
            "  would be     12 rate_limited by what is only observed",
            "  bans         12 in force, 30 began, 2 would have begun",
        ] {
            assert!(shown.contains(line), "{line}\n{shown}");
        }
    }
}
