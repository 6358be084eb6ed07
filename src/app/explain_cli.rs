//! `wardent explain`: what became of a request, or would, and why.

use std::{net::IpAddr, path::Path, process::ExitCode};

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    admin_cli::{Ended, ask, meaning, print_table, printable, span, table, with_running},
    cli::{Output, tell},
    event_text::{fields, text},
    events_cli::{Stopped, find_decision},
    log_reader::{Reader, document},
};
use crate::admin::explain::{Explained, Judged};

#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// A decision that was made: the `X-Request-ID` of an answer.
    #[arg(value_name = "REQUEST ID", conflicts_with_all = [
        "ip", "path", "method", "host", "user_agent", "headers", "secret",
    ])]
    request: Option<String>,
    /// The client's address.
    #[arg(long, required_unless_present = "request")]
    ip: Option<IpAddr>,
    /// The path, and the query if it has one.
    #[arg(long, required_unless_present = "request")]
    path: Option<String>,
    /// The method.
    #[arg(long, default_value = "GET")]
    method: String,
    /// The host.
    #[arg(long, default_value = "localhost")]
    host: String,
    /// The user agent.
    #[arg(long)]
    user_agent: Option<String>,
    /// A further header field; may be given again.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<String>,
    /// Whether the request holds a valid secret [default: valid, unless a header gives one]
    #[arg(long)]
    secret: Option<Secret>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Secret {
    Valid,
    None,
}

pub(super) const USAGE: &str = "wardent explain <REQUEST ID>
       wardent explain --ip <IP> --path <PATH> [OPTIONS]";

pub(super) const EXAMPLES: &str = "Examples:
  wardent explain --ip 198.51.100.7 --path /accounts/login/ --method POST
  wardent explain --ip 2001:db8::1 --path /.env --header 'Sec-Fetch-Site: cross-site'
  wardent explain --ip 198.51.100.7 --path /upload --header 'Content-Length: 20000000'
  wardent explain 01KAJ0000000000000000000AA

Nothing is charged, nobody is blamed, nothing is passed on.";

fn header(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((name, _)) if !name.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("write it as `Name: value`".to_owned()),
    }
}

/// Does it, and gives the exit status.
pub(super) fn run(arguments: &ExplainArguments, config: &Path, output: Output) -> ExitCode {
    if let Some(id) = &arguments.request {
        return explain_decision(id, config, output);
    }
    with_running(config, output, |running| {
        let mut asked = json!({
            "ip": arguments.ip,
            "path": arguments.path,
            "method": arguments.method,
            "host": arguments.host,
            "user_agent": arguments.user_agent,
            "headers": arguments.headers,
        });
        if let (Some(secret), Some(asked)) = (arguments.secret, asked.as_object_mut()) {
            let word = match secret {
                Secret::Valid => "valid",
                Secret::None => "none",
            };
            asked.insert("secret".to_owned(), word.into());
        }
        let answer = ask(running, Method::POST, "/api/v1/explain", Some(&asked))?;
        match output {
            Output::Json => tell(&answer),
            Output::Text => print(&meaning(&answer)?),
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Tells what became of a request, from its event.
fn explain_decision(id: &str, config: &Path, output: Output) -> ExitCode {
    let found = document(config)
        .map_err(Stopped::from)
        .and_then(|document| {
            let reader = Reader::open(&document)?;
            find_decision(&reader, id)
        });
    match found {
        Ok(Some(event)) => {
            match output {
                Output::Json => tell(&event),
                Output::Text => print_decision(&event),
            }
            ExitCode::SUCCESS
        }
        Ok(None) => {
            let words = format!(
                "{}: not in the log: it is still under way, retention took it, or it was not decided here",
                printable(id)
            );
            Ended::Failed(words).told(output)
        }
        Err(stopped) => stopped.told(output),
    }
}

fn print_decision(event: &str) {
    let event: Map<String, Value> = serde_json::from_str(event).unwrap_or_default();
    let field = |name| text(&event, name);
    let cause = || format!("{}: {}", field("reason"), field("why"));
    let is_observed = event.get("enforced") == Some(&Value::Bool(false));
    tell(&match (field("verdict").as_str(), is_observed) {
        ("passed", false) => format!("passed on; the application answered {}", field("status")),
        ("refused", _) => format!("refused with {} {}", field("status"), cause()),
        ("failed", false) => format!("failed with {} {}", field("status"), cause()),
        ("aborted", false) => "given up by the client".to_owned(),
        (verdict, _) => format!(
            "{verdict} with {}; were its route enforced, refused: {}",
            field("status"),
            cause()
        ),
    });
    const TOLD: [&str; 7] = [
        "event", "v", "verdict", "status", "reason", "why", "enforced",
    ];
    let rows: Vec<_> = fields(&event, &TOLD).into_iter().map(Vec::from).collect();
    print_table(&rows);
}

fn print(explained: &Explained) {
    lines(explained).iter().for_each(|line| tell(line));
}

/// What is told of it, a line each.
pub(super) fn lines(explained: &Explained) -> Vec<String> {
    let outcome = &explained.outcome;
    let refusal = || {
        let status = outcome.status.unwrap_or_default();
        let reason = outcome.reason.as_deref().unwrap_or_default();
        let why = outcome.why.as_deref().unwrap_or_default();
        format!("{status} {reason}: {why}")
    };
    let mut lines = vec![match outcome.verdict.as_str() {
        "passes" => "passed on to the application".to_owned(),
        "refuses" => format!("refused with {}", refusal()),
        _ => format!(
            "passed on; were its route enforced, refused with {}",
            refusal()
        ),
    }];
    if let Some(judged) = &explained.judged {
        lines.extend(lines_of(judged, explained.policy));
    }
    lines
}

fn lines_of(judged: &Judged, policy: u64) -> Vec<String> {
    let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![row(["GUARD", "VERDICT", "SAW"])];
    for guard in &judged.guards {
        let verdict = guard.verdict.replace('_', " ");
        rows.push(row([&guard.guard, &verdict, &printable(&guard.saw)]));
    }
    let mut lines = table(&rows);
    for limit in &judged.limits {
        lines.push(format!(
            "limit {}: {} of {} left, all again in {}",
            limit.name,
            limit.remaining,
            limit.burst,
            span(limit.full_in_s.saturating_mul(1_000))
        ));
    }
    if let Some(blame) = &judged.blame {
        let only = if blame.enforced {
            ""
        } else {
            ", only observed"
        };
        lines.push(format!(
            "held against the client: {} points for {}{only}",
            blame.points, blame.cause
        ));
    }
    if let Some(held) = &judged.held {
        let grace = if held.has_grace {
            "; nothing counts for now"
        } else {
            ""
        };
        lines.push(format!(
            "held already: {} of {} points, {} earlier bans{grace}",
            held.points, held.threshold, held.level
        ));
    }
    lines.push(format!(
        "decided by policy {policy}, as counted from the start"
    ));
    lines
}
