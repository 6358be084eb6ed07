//! `wardent soak`: proves that a Wardent serves with this configuration, before it is put in force and after.
//!
//! Beside the one that runs: on ports and with a log of its own, which end with it; monitor, collector and
//! cluster hear nothing of it. Its clients are addresses that no host has (RFC 5737).

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::Args;
use http::{Method, Uri};
use serde::Serialize;

use super::{
    Options, StartError,
    admin_cli::{Ended, ask},
    cli::{Output, complain, tell},
    client::Running,
    probe::{Probe, Question},
    start_with,
};
use crate::{
    base::{clock::Clock, net::Address, units::parse_duration},
    config::{self, wardent::Document},
    telemetry::log::{Log, Look},
};

/// From one question to the next.
const EVERY: Duration = Duration::from_millis(100);
/// Questions to the application for each look at `/readyz`.
const LOOK_EVERY: u64 = 5;
/// The watchdog sends canaries once a second: in this time they must have come back.
const TIME_MIN: Duration = Duration::from_secs(2);
/// When a canary last came back, in seconds since 1970.
const CANARY: &str = "wardent_canary_last_success_timestamp_seconds ";

#[derive(Debug, Args)]
pub(super) struct SoakArguments {
    /// How long.
    #[arg(long = "for", value_name = "DURATION", default_value = "5s", value_parser = time)]
    time: Duration,
    /// What to ask the application for, through Wardent [default: what `upstream.health` names].
    #[arg(long, value_name = "URL")]
    url: Option<Uri>,
    /// Soak the one that runs, instead of this binary beside it.
    #[arg(long)]
    running: bool,
    /// Where that one listens [default: the first of `listen`].
    #[arg(long, value_name = "ADDRESS", requires = "running")]
    at: Option<Address>,
}

pub(super) const EXAMPLES: &str = "Examples:
  wardent soak                                       this binary, beside the one that runs
  wardent soak --url https://www.example.org/about/  with a page that the application must answer
  wardent soak --running --for 2s                    the one that runs

Exit status: 0 sound, 1 not, 78 bad configuration.";

fn time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|error| error.to_string())?;
    match time >= TIME_MIN {
        true => Ok(time),
        false => Err(format!("at least {} s", TIME_MIN.as_secs())),
    }
}

/// What a soak found.
#[derive(Debug, Serialize)]
struct Found {
    ok: bool,
    /// What ended it early.
    trouble: Option<String>,
    /// Whether a canary came back through the listeners.
    canary: bool,
    /// The application's answers by status; none where it was not asked.
    answers: Option<BTreeMap<u16, u64>>,
}

/// Does it, and gives the exit status.
pub(super) fn run(arguments: &SoakArguments, config: &Path, output: Output) -> ExitCode {
    match soak(arguments, config) {
        Ok(found) => {
            say(&found, output);
            match found.ok {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(ended) => ended.told(output),
    }
}

fn soak(arguments: &SoakArguments, config: &Path) -> Result<Found, Ended> {
    let bad = |report| Ended::Config(StartError::Config(report));
    let document = config::load_wardent(config).map_err(bad)?;
    let question = Question::of(&document, arguments.url.as_ref())?;
    if arguments.running {
        let first = document.listen.first();
        let at = arguments
            .at
            .as_ref()
            .or(first)
            .ok_or("no `listen`".to_owned())?;
        return look(
            &Running::behind(&document.admin.socket)?,
            at,
            question.as_ref(),
            arguments.time,
        );
    }
    let _log = Log::start("warn", Look::fitting(&std::io::stderr()));
    let folder = tempfile::Builder::new().prefix("wardent-soak-").tempdir();
    let folder = folder.map_err(|error| format!("no directory of its own: {error}"))?;
    let options = Options {
        beside: Some(folder.path().to_owned()),
        ..Options::default()
    };
    let running = start_with(config, options).map_err(Ended::Config)?;
    let at = running
        .proxy()
        .first()
        .ok_or("it listens nowhere".to_owned())?;
    let socket = folder.path().join(SOCKET);
    look(
        &Running::behind(&socket)?,
        at,
        question.as_ref(),
        arguments.time,
    )
}

const SOCKET: &str = "admin.sock";

/// Gives `document` ports, a log and a socket of its own in `folder`, and nobody to tell anything.
pub(super) fn move_beside(document: &mut Document, folder: &Path) {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    for (index, address) in document.listen.iter_mut().enumerate() {
        *address = match address {
            Address::Tcp(_) => Address::Tcp(any),
            Address::Unix(_) => Address::Unix(folder.join(format!("http-{index}.sock"))),
        };
    }
    let Document {
        log,
        admin,
        telemetry,
        cluster,
        ..
    } = document;
    log.dir = folder.join("log");
    log.listen = log.listen.take().map(|_| Address::Tcp(any));
    log.advertised = None;
    admin.listen = admin.listen.map(|_| any);
    admin.socket = folder.join(SOCKET);
    telemetry.otlp = None;
    telemetry.ping = None;
    *cluster = None;
}

/// Watches `running` for `time`, or until something is wrong.
fn look(
    running: &Running<'_>,
    at: &Address,
    question: Option<&Question>,
    time: Duration,
) -> Result<Found, Ended> {
    let clock = Clock::system();
    let (begin_ns, begin_ms) = (clock.monotonic_ns(), clock.unix_ms());
    let mut answers = question.is_some().then(BTreeMap::new);
    let mut trouble = None;
    for turn in 0.. {
        let passed = Duration::from_nanos(clock.monotonic_ns() - begin_ns);
        if passed >= time || trouble.is_some() {
            break;
        }
        if turn % LOOK_EVERY == 0 {
            trouble = not_ready(running);
        }
        if let (Some(question), Some(answers), None) = (question, &mut answers, &trouble) {
            match (Probe {
                at,
                question,
                clock: &clock,
            })
            .send(turn)
            {
                Ok(status) => *answers.entry(status).or_default() += 1,
                Err(why) => trouble = Some(format!("{}: {why}", question.shown())),
            }
        }
        thread::sleep(EVERY.min(time.saturating_sub(passed)));
    }
    let canary = canary_since(running, begin_ms)?;
    if !canary && trouble.is_none() {
        trouble = Some("no canary came back through its listeners".to_owned());
    }
    Ok(Found {
        ok: trouble.is_none(),
        trouble,
        canary,
        answers,
    })
}

fn not_ready(running: &Running<'_>) -> Option<String> {
    let wrong = match running.ask(Method::GET, "/readyz", None) {
        Ok(said) if said.is_ok => return None,
        Ok(said) => said.words.trim_end().to_owned(),
        Err(error) => error,
    };
    Some(format!("not ready: {wrong}"))
}

/// Whether a canary came back since `begin_ms`, in milliseconds since 1970.
fn canary_since(running: &Running<'_>, begin_ms: u64) -> Result<bool, Ended> {
    let metrics = ask(running, Method::GET, "/metrics", None)?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(CANARY));
    let last_s = line.and_then(|number| number.parse::<f64>().ok());
    let last = last_s.map(Duration::from_secs_f64);
    Ok(last.is_some_and(|last| last >= Duration::from_millis(begin_ms)))
}

fn say(found: &Found, output: Output) {
    match output {
        Output::Json => tell(&serde_json::json!(found).to_string()),
        Output::Text => {
            if found.canary {
                tell("canaries     came back through the listeners");
            }
            tell(&format!("application  {}", application(found)));
            match &found.trouble {
                Some(why) => complain(why),
                None => tell("sound"),
            }
        }
    }
}

fn application(found: &Found) -> String {
    let Some(answers) = &found.answers else {
        return "not asked: give --url, or `upstream.health` in wardent.yaml".to_owned();
    };
    let counted = answers
        .iter()
        .map(|(status, count)| format!("{status} × {count}"));
    match answers.is_empty() {
        true => "did not answer".to_owned(),
        false => format!("answered {}", counted.collect::<Vec<_>>().join(", ")),
    }
}
