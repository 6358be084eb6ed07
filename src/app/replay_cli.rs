//! `wardent replay`: what another policy would have done with the requests that are in the log.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Args;
use serde_json::json;

use super::{
    StartError,
    admin_cli::{Ended, warn},
    bots,
    cli::{Output, refused, tell, tell_json},
    events_cli::{Stopped, rfc3339},
    log_reader::{Files, document},
    replay_text,
};
use crate::{
    base::clock::Clock,
    config::{
        self, Loaded, LoadedPolicy, Problem,
        policy::Mode,
        secrets::Secrets,
        settings::{self, Lasting},
        wardent::Document,
    },
    owner::Target,
    replay::{Mind, Plan, Progress, Report, replay},
    sink::query::when::moment,
};

#[derive(Debug, Args)]
pub(super) struct ReplayArguments {
    /// The policy to try.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Requests from then on: how long ago (`24h`), or when (`2026-11-21T10:00:00Z`).
    #[arg(long, value_name = "WHEN", default_value = "24h")]
    since: String,
    /// Requests before: likewise [default: now]
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Tell of one client alone, or of a network; all requests are judged.
    #[arg(long, value_name = "CLIENT")]
    client: Option<String>,
    /// Take the policy as if it enforced everything, though it says `mode: observe`.
    #[arg(long)]
    enforce: bool,
}

pub(super) const EXAMPLES: &str = "Examples:
  wardent replay --policy new.yaml
  wardent replay --policy new.yaml --since 7d --output json | jq .changes
  wardent replay --policy /etc/wardent/policy.yaml --enforce
  wardent replay --policy new.yaml --client 198.51.100.7 --since 1h

Nothing is changed, nobody is blamed. Ctrl-C ends it with what was replayed so far.

Exit status: 0 when all was replayed; 1 when there was nothing, or not all; 78 when a policy cannot be used.";

/// How often the progress is told, in milliseconds, and from when on.
const TOLD_EVERY_MS: u64 = 200;
const TOLD_AFTER_MS: u64 = 1_000;

/// Why there is no replay.
enum Not {
    Stopped(Stopped),
    Refused(Vec<Problem>),
}

impl<E: Into<Stopped>> From<E> for Not {
    fn from(stopped: E) -> Self {
        Self::Stopped(stopped.into())
    }
}

/// Does it, and gives the exit status.
pub(super) fn run(arguments: &ReplayArguments, config: &Path, output: Output) -> ExitCode {
    match try_run(arguments, config, output) {
        Ok(status) => status,
        Err(Not::Stopped(stopped)) => stopped.told(output),
        Err(Not::Refused(problems)) => refused(&problems, output),
    }
}

fn try_run(arguments: &ReplayArguments, config: &Path, output: Output) -> Result<ExitCode, Not> {
    let document = document(config)?;
    let clock = Clock::system();
    let (since_ms, until_ms) = times(arguments, clock.unix_ms())?;
    let of = match &arguments.client {
        None => None,
        Some(text) => {
            let target = Target::parse(text, document.client_ip.ipv6_prefix);
            Some(target.map_err(Stopped::Misused)?.network())
        }
    };
    let (candidate, current) = policies(arguments, &document, output)?;
    let sha256 = [&current, &candidate].map(|policy| policy.sha256.clone());
    let current = mind(&document, current)?;
    let candidate = mind(&document, candidate)?;
    let (bots, _) = bots::begin(&document.bots).map_err(|report| Not::Refused(report.problems))?;
    let files = Files::open(&document.log.dir)?;
    let is_access = |one: &&Arc<_>| crate::log::Partition::topic(one).name == settings::ACCESS;
    let partitions: Vec<_> = files.partitions.iter().filter(is_access).cloned().collect();
    let is_over = Arc::new(AtomicBool::new(false));
    end_at_ctrl_c(&is_over);
    let plan = Plan {
        partitions: &partitions,
        since_ms,
        until_ms,
        of,
        bots: &bots,
        is_over: &is_over,
    };
    let mut teller = Teller::new(&clock);
    let report = replay(&plan, current, candidate, &mut |progress| {
        teller.tell(progress);
    });
    teller.end();
    let report = report.map_err(|error| error.to_string())?;
    let [current_sha256, candidate_sha256] = sha256;
    let (since, until) = (rfc3339(since_ms), rfc3339(until_ms));
    match output {
        Output::Json => {
            let mut told = json!({
                "since": since,
                "until": until,
                "current": {"file": document.policy, "sha256": current_sha256},
                "candidate": {
                    "file": arguments.policy,
                    "sha256": candidate_sha256,
                    "enforce": arguments.enforce,
                },
            });
            if let (Some(told), Ok(serde_json::Value::Object(found))) =
                (told.as_object_mut(), serde_json::to_value(&report))
            {
                told.extend(found);
            }
            tell_json(&told);
        }
        Output::Text => {
            for line in replay_text::lines(&report, &since, &until) {
                tell(&line);
            }
        }
    }
    Ok(status(&report, &since, &until))
}

fn status(report: &Report, since: &str, until: &str) -> ExitCode {
    if !report.complete {
        warn("ended early: this is what was replayed until then");
    } else if report.requests == 0 {
        warn(&format!(
            "no requests between {since} and {until}: nothing was replayed"
        ));
    } else {
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// From when on, and until before when.
fn times(arguments: &ReplayArguments, now_ms: u64) -> Result<(u64, u64), Stopped> {
    let at = |name: &str, text: &str| {
        moment(text, now_ms).map_err(|error| Stopped::Misused(format!("`{name}`: {error}")))
    };
    let since_ms = at("since", &arguments.since)?;
    let until_ms = match &arguments.until {
        Some(text) => at("until", text)?,
        None => now_ms,
    };
    if since_ms >= until_ms {
        return Err(Stopped::Misused("`until`: is not after `since`".to_owned()));
    }
    Ok((since_ms, until_ms))
}

/// The candidate and the policy in force, both read from their files; what is wrong in both at once.
fn policies(
    arguments: &ReplayArguments,
    document: &Document,
    output: Output,
) -> Result<(LoadedPolicy, LoadedPolicy), Not> {
    let candidate = config::load_policy(&arguments.policy, document);
    let current = config::load_policy(&document.policy, document);
    match (candidate, current) {
        (Ok(mut candidate), Ok(current)) => {
            if output == Output::Text {
                candidate
                    .notes
                    .iter()
                    .for_each(|note| warn(note.to_string().trim_end()));
            }
            if arguments.enforce {
                candidate.policy.mode = Mode::Enforce;
                for route in &mut candidate.policy.routes {
                    route.mode = None;
                }
            }
            Ok((candidate, current))
        }
        (candidate, current) => {
            let is_one_file = arguments.policy == document.policy;
            let current = current.err().filter(|_| !is_one_file || candidate.is_ok());
            let reports = candidate.err().into_iter().chain(current);
            Err(Not::Refused(
                reports.flat_map(|report| report.problems).collect(),
            ))
        }
    }
}

/// What an engine goes by. No secret is read: what they proved stands in the events.
fn mind(document: &Document, policy: LoadedPolicy) -> Result<Mind, Not> {
    let loaded = Loaded {
        wardent: document.clone(),
        policy: policy.policy,
        policy_sha256: policy.sha256,
        notes: Vec::new(),
    };
    let mut lasting = Lasting {
        secrets: Secrets::stand_ins()?,
        ..Lasting::default()
    };
    let built = settings::policy(&loaded, &mut lasting, 1)
        .map_err(|wrong| Ended::Config(StartError::Secrets(wrong)))?;
    Ok(Mind {
        policy: built.policy,
        bans: built.bans,
        clients_max: document.limits.clients_max.get() as usize,
        bans_max: document.limits.bans_max.get() as usize,
    })
}

/// At the first Ctrl-C it ends with what there is, at the second at once.
fn end_at_ctrl_c(is_over: &Arc<AtomicBool>) {
    let is_over = Arc::clone(is_over);
    let wait = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                is_over.store(true, Ordering::Relaxed);
                // The status of a shell for a command that SIGINT has ended.
                let _ = tokio::signal::ctrl_c().await;
                std::process::exit(130);
            }
        });
    };
    // Without it, Ctrl-C ends it at once.
    let _ = std::thread::Builder::new()
        .name("ctrl-c".to_owned())
        .spawn(wait);
}

/// Says on a terminal how far it is.
struct Teller<'a> {
    clock: &'a Clock,
    begin_ms: u64,
    told_ms: Option<u64>,
    is_terminal: bool,
}

impl<'a> Teller<'a> {
    fn new(clock: &'a Clock) -> Self {
        Self {
            clock,
            begin_ms: clock.monotonic_ns() / 1_000_000,
            told_ms: None,
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn tell(&mut self, progress: Progress) {
        let now_ms = self.clock.monotonic_ns() / 1_000_000;
        let next_ms = match self.told_ms {
            Some(told_ms) => told_ms + TOLD_EVERY_MS,
            None => self.begin_ms + TOLD_AFTER_MS,
        };
        if !self.is_terminal || now_ms < next_ms {
            return;
        }
        self.told_ms = Some(now_ms);
        let line = format!(
            "\r\u{1b}[Kreplaying: {} %, {} requests, up to {}",
            progress.reading.permille / 10,
            replay_text::grouped(progress.judged),
            rfc3339(progress.unix_ms)
        );
        // Nobody needs it.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn end(&self) {
        if self.told_ms.is_some() {
            let _ = std::io::stderr().write_all("\r\u{1b}[K".as_bytes());
        }
    }
}
