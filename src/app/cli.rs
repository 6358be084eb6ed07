//! The command line.
//!
//! Exit status: 0 done, 1 failed, 2 misused, 75 another process has the log, 78 bad configuration
//! (`EX_TEMPFAIL` and `EX_CONFIG` of sysexits.h).

use std::{
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use http::Method;
use serde::Serialize;
use serde_json::json;

use super::{
    StartError,
    bans_cli::{self, BansCommand},
    bots,
    bots_cli::{self, BotsCommand},
    client::Running,
    cluster_cli::{self, ClusterCommand},
    demo,
    doctor::{self, DoctorArguments},
    events_cli::{self, EventsCommand},
    explain_cli::{self, ExplainArguments},
    log_cli::{self, LogCommand},
    pages,
    paint::Paint,
    registry,
    replay_cli::{self, ReplayArguments},
    run,
    soak::{self, SoakArguments},
    status_cli,
    top_cli::{self, TopArguments},
};
use crate::{
    base::clock::Clock,
    config::{
        self, Loaded, Problem, Severity,
        nginx::{self, Nginx},
        secrets::Secrets,
        settings::{self, Lasting},
        wardent::Document,
    },
    event::ascii,
    secret::{Signed, Signer, generate},
    telemetry::log::Look,
};

/// A reverse proxy that limits rates, bans repeat offenders and never hangs silently.
#[derive(Debug, Parser)]
#[command(name = "wardent", version, about, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// The configuration.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/wardent/wardent.yaml"
    )]
    config: PathBuf,
    /// What results look like.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  wardent demo                                  try it, with everything built in
  wardent check --config config/wardent.yaml    look for mistakes before they cost anything
  wardent run --config /etc/wardent/wardent.yaml
  wardent reload                                put an edited policy and rotated keys in force
  wardent status                                whether all is well
  wardent top                                   who asks most, live
  wardent doctor                                what is wrong between nginx, wardent and the application
  wardent bans list                             who is banned, and for how long
  wardent explain --ip 198.51.100.7 --path /    what would become of a request, and why
  wardent events tail --verdict refused         who is refused, as it happens
  wardent replay --policy new.yaml              what a policy would have done with yesterday's requests";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Json,
    Human,
}

impl LogFormat {
    fn look(self) -> Look {
        match self {
            Self::Json => Look::Json,
            Self::Human => Look::Human,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve.
    #[command(
        after_help = "Example:\n  wardent run --config /etc/wardent/wardent.yaml\n
Signals:\n  SIGHUP reloads, SIGTERM and SIGINT drain, a second one stops at once."
    )]
    Run {
        /// What log and access lines look like: for people on a terminal, else JSON.
        #[arg(long, value_enum)]
        log_format: Option<LogFormat>,
    },
    /// Serve on built-in defaults, with a built-in origin, and show what to try.
    #[command(
        after_help = "Examples:\n  wardent demo\n  wardent demo --upstream http://127.0.0.1:8000"
    )]
    Demo {
        /// An application that is already there, instead of the built-in origin.
        #[arg(long, value_name = "URL")]
        upstream: Option<String>,
    },
    /// Say what is wrong with the configuration, and where; and what works against it in nginx's.
    #[command(after_help = "Examples:\n  wardent check --config config/wardent.yaml
  wardent check --nginx /etc/nginx/nginx.conf\n  wardent check --output json | jq '.problems[].what'\n
Exit status: 0 when it can be used, whatever is warned of; 78 when not.")]
    Check {
        /// The configuration of the nginx before it [default: /etc/nginx/nginx.conf, where there is one]
        #[arg(long, value_name = "FILE")]
        nginx: Option<PathBuf>,
    },
    /// Put the edited policy and the rotated keys in force in the running Wardent.
    #[command(after_help = "Example:\n  wardent reload && echo in force\n
Exit status: 0 when the new policy is in force, 1 when the old one stays.")]
    Reload,
    /// Say on one screen whether all is well.
    #[command(after_help = status_cli::EXAMPLES)]
    Status,
    /// Show who asks most, live.
    #[command(after_help = top_cli::EXAMPLES)]
    Top(TopArguments),
    /// Send marked requests through the whole chain, and say what is wrong between the hops.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(DoctorArguments),
    /// Say what a user agent is taken for, and which bots are known.
    #[command(
        subcommand,
        after_help = "Examples:\n  wardent bots classify < user-agents.txt\n  wardent bots list --output json"
    )]
    Bots(BotsCommand),
    /// See who is banned and why; ban and unban.
    #[command(
        subcommand,
        after_help = "Examples:\n  wardent bans list\n  wardent bans add 198.51.100.7 --for 1h --why 'scraping'"
    )]
    Bans(BansCommand),
    /// Say what became of a request, or would, guard by guard, and why.
    #[command(after_help = explain_cli::EXAMPLES, override_usage = explain_cli::USAGE)]
    Explain(ExplainArguments),
    /// Find events in the log, and watch them come.
    #[command(
        subcommand,
        after_help = "Examples:\n  wardent events tail --verdict refused\n  wardent events query --client 198.51.100.7 --since 1h"
    )]
    Events(EventsCommand),
    /// Say what another policy would have done with the requests that are in the log.
    #[command(after_help = replay_cli::EXAMPLES)]
    Replay(ReplayArguments),
    /// See what the log has, and whether it is sound.
    #[command(
        subcommand,
        after_help = "Examples:\n  wardent log topics\n  wardent log verify"
    )]
    Log(LogCommand),
    /// See how this node stands with the others.
    #[command(subcommand, after_help = cluster_cli::EXAMPLES)]
    Cluster(ClusterCommand),
    /// Carry the log to a Kafka cluster, and share bans and limits with its other nodes.
    #[command(
        after_help = "Example:\n  wardent mirror --config /etc/wardent/wardent.yaml\n
A process of its own, beside `wardent run`: docs/scale-out.md. SIGTERM and SIGINT end it; what is
under way arrives first."
    )]
    Mirror {
        /// What log lines look like: for people on a terminal, else JSON.
        #[arg(long, value_enum)]
        log_format: Option<LogFormat>,
    },
    /// Prove that this binary serves with this configuration, beside the one that runs.
    #[command(after_help = soak::EXAMPLES)]
    Soak(SoakArguments),
    /// Make keys, and sign requests with them.
    #[command(
        subcommand,
        after_help = "Examples:\n  wardent secret new\n  wardent secret sign --host www.example.org --target /"
    )]
    Secret(SecretCommand),
    /// Write completions for a shell to standard output.
    #[command(
        after_help = "Example:\n  wardent completions bash > /etc/bash_completion.d/wardent\n  wardent completions zsh > \"${fpath[1]}/_wardent\""
    )]
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages into a directory.
    #[command(after_help = "Example:\n  wardent man /usr/local/share/man/man1")]
    Man {
        /// Where they go; it must be there.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

/// The commands, as clap knows them.
pub(super) fn commands() -> clap::Command {
    Arguments::command()
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Print a new random key.
    #[command(after_help = "Example:\n  (umask 077; wardent secret new > /etc/wardent/secret)")]
    New,
    /// Print the signed form of the secret for one request; it is valid for 60 s.
    #[command(after_help = "Example:
  curl -H \"X-Wardent-Secret: $(wardent secret sign --target /admin/ --host www.example.org \\
      --ip 198.51.100.7)\" -H 'CF-Connecting-IP: 198.51.100.7' http://127.0.0.1:8080/admin/")]
    Sign {
        /// The key's id; the first of `secret.keys` when left out.
        #[arg(long)]
        id: Option<String>,
        /// The request's method.
        #[arg(long, default_value = "GET")]
        method: String,
        /// The request's `Host`, as it is sent.
        #[arg(long)]
        host: String,
        /// The request's target: path and query, as they are sent.
        #[arg(long)]
        target: String,
        /// The client's address, as the identity header names it.
        #[arg(long)]
        ip: Option<IpAddr>,
    },
}

/// The exit status of a bad configuration.
pub(super) const EX_CONFIG: u8 = 78;
const EX_TEMPFAIL: u8 = 75;

/// Does what the process's arguments say.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = arguments.output;
    let config = arguments.config.as_path();
    match arguments.command {
        Command::Run { log_format } => run::run(config, log_format.map(LogFormat::look)),
        Command::Mirror { log_format } => mirror(config, log_format.map(LogFormat::look)),
        Command::Demo { upstream } => match demo::run(upstream.as_deref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => start_failed(&error),
        },
        Command::Check { nginx } => check(config, nginx.as_deref(), output),
        Command::Doctor(arguments) => doctor::run(&arguments, config, output),
        Command::Top(arguments) => top_cli::run(&arguments, config, output),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { dir } => pages::man(&dir),
        Command::Reload => reload(config, output),
        Command::Status => status_cli::run(config, output),
        Command::Bots(command) => bots_cli::run(&command, output),
        Command::Bans(command) => bans_cli::run(&command, config, output),
        Command::Explain(arguments) => explain_cli::run(&arguments, config, output),
        Command::Events(command) => events_cli::run(&command, config, output),
        Command::Replay(arguments) => replay_cli::run(&arguments, config, output),
        Command::Log(command) => log_cli::run(&command, config, output),
        Command::Soak(arguments) => soak::run(&arguments, config, output),
        Command::Cluster(command) => cluster_cli::run(&command, config, output),
        Command::Secret(SecretCommand::New) => match generate() {
            Ok(key) => say(output, &key, || json!({"key": key})),
            Err(error) => fail(&format!("no randomness: {error}")),
        },
        Command::Secret(SecretCommand::Sign {
            id,
            method,
            host,
            target,
            ip,
        }) => {
            let request = Signed {
                method: method.as_bytes(),
                host: host.as_bytes(),
                target: target.as_bytes(),
                client_ip: ip,
            };
            match sign(config, id.as_deref(), &request) {
                Ok(value) => say(output, &value, || json!({"value": value})),
                Err(error) => start_failed(&error),
            }
        }
    }
}

#[cfg(feature = "cluster")]
fn mirror(config: &Path, look: Option<Look>) -> ExitCode {
    super::mirror_cli::run(config, look)
}

/// Not in this build; a supervisor need not try again.
#[cfg(not(feature = "cluster"))]
fn mirror(_config: &Path, _look: Option<Look>) -> ExitCode {
    complain("this wardent was built without it: cargo build --release --features cluster");
    ExitCode::from(EX_CONFIG)
}

/// Says why it did not start; a bad configuration has an exit status of its own.
pub(super) fn start_failed(error: &StartError) -> ExitCode {
    let words = error.to_string();
    complain(words.trim_end());
    match error {
        // With this status it is not started again by itself.
        StartError::Config(_) | StartError::Secrets(_) => ExitCode::from(EX_CONFIG),
        StartError::System(_) => ExitCode::FAILURE,
        StartError::Locked(_) => ExitCode::from(EX_TEMPFAIL),
    }
}

/// Says what is wrong with a configuration that is not used, as `wardent check` does.
pub(super) fn refused(problems: &[Problem], output: Output) -> ExitCode {
    match output {
        Output::Json => tell_json(&json!({"ok": false, "problems": problems})),
        Output::Text => problems
            .iter()
            .for_each(|problem| complain(problem.to_string().trim_end())),
    }
    ExitCode::from(EX_CONFIG)
}

fn check(config: &Path, nginx: Option<&Path>, output: Output) -> ExitCode {
    let result = config::load(config);
    let (problems, secrets) = match &result {
        Ok(loaded) => {
            let built = settings::policy(loaded, &mut Lasting::default(), 1);
            let bots = bots::Files::read(&loaded.wardent.bots);
            let bots = bots.err().map_or_else(Vec::new, |report| report.problems);
            let of_nginx = match before(nginx, loaded) {
                Ok(before) => before.map_or_else(Vec::new, |nginx| nginx.warnings(loaded)),
                Err(words) => return fail(&words),
            };
            let problems = [&loaded.notes, bots.as_slice(), &of_nginx].concat();
            let token = registry::token(&loaded.wardent).err();
            let secrets = built.err().or(token.map(|error| error.to_string()));
            (problems, secrets)
        }
        Err(report) => (report.problems.clone(), None),
    };
    let is_wrong = |problem: &Problem| problem.severity == Severity::Error;
    let is_ok = result.is_ok() && secrets.is_none() && !problems.iter().any(is_wrong);
    match output {
        Output::Json => {
            let words = json!({"ok": is_ok, "problems": problems, "secrets": secrets});
            tell_json(&words);
        }
        Output::Text => {
            let paint = Paint::of_errors();
            problems
                .iter()
                .for_each(|problem: &Problem| complain(&painted(problem, paint)));
            secrets.iter().for_each(|wrong| complain(wrong));
            if is_ok {
                tell(&format!("{}: can be used", config.display()));
            }
        }
    }
    if is_ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EX_CONFIG)
    }
}

/// The nginx before this Wardent: the one that is named, or the machine's own if that leads here.
///
/// # Errors
/// When the one that is named cannot be read, or does not lead here.
pub(super) fn before(named: Option<&Path>, loaded: &Loaded) -> Result<Option<Nginx>, String> {
    let path = named.unwrap_or(Path::new(nginx::USUAL));
    let read = Nginx::read(path, &loaded.wardent.listen);
    match (named, read) {
        (_, Ok(nginx)) if nginx.leads_to_wardent() => Ok(Some(nginx)),
        (Some(path), Ok(_)) => {
            let listen: Vec<_> = loaded
                .wardent
                .listen
                .iter()
                .map(ToString::to_string)
                .collect();
            Err(format!(
                "{}: no location leads to {}: `proxy_pass` to where `listen` is",
                path.display(),
                listen.join(" or ")
            ))
        }
        (Some(_), Err(error)) => Err(error),
        (None, _) => Ok(None),
    }
}

/// A problem as a compiler shows it, in colours on a terminal.
pub(super) fn painted(problem: &Problem, paint: Paint) -> String {
    let text = problem.to_string();
    let mut lines = text.trim_end().lines();
    let first = lines.next().unwrap_or_default();
    let first = match problem.severity {
        Severity::Warning => first.replacen("warning:", &paint.warning("warning:"), 1),
        Severity::Error => paint.bad(first),
    };
    let rest = lines.map(
        |line| match line.trim_start().starts_with("| ") && line.contains('^') {
            true => paint.strong(line),
            false => line.to_owned(),
        },
    );
    std::iter::once(first)
        .chain(rest)
        .collect::<Vec<_>>()
        .join("\n")
}

fn reload(config: &Path, output: Output) -> ExitCode {
    let socket = match config::load_wardent(config) {
        Ok(document) => document.admin.socket,
        Err(report) => return start_failed(&StartError::Config(report)),
    };
    let said = Running::behind(&socket)
        .and_then(|running| running.ask(Method::POST, "/api/v1/reload", None));
    match said {
        Ok(said) if said.is_ok => say(
            output,
            said.words.trim_end(),
            || json!({"ok": true, "said": said.words}),
        ),
        Ok(said) => {
            match output {
                Output::Json => tell_json(&json!({"ok": false, "said": said.words})),
                Output::Text => complain(said.words.trim_end()),
            }
            ExitCode::FAILURE
        }
        Err(error) => fail(&error),
    }
}

/// The signed form of the secret for one request.
///
/// # Errors
/// When there is no such key, or this user may not read it.
pub(super) fn sign(
    config: &Path,
    id: Option<&str>,
    request: &Signed<'_>,
) -> Result<String, StartError> {
    let signer = signer(&config::load_wardent(config)?, id)?;
    let mut signed = Vec::new();
    signer.write(request, Clock::system().unix_ms() / 1_000, &mut signed);
    Ok(String::from_utf8_lossy(&signed).into_owned())
}

/// Signs with the key called `id`, the first when none.
pub(super) fn signer(document: &Document, id: Option<&str>) -> Result<Signer, StartError> {
    let key = document
        .secret
        .keys
        .iter()
        .find(|key| id.is_none_or(|id| key.id.as_str() == id))
        .ok_or_else(|| {
            StartError::Secrets(match id {
                Some(id) => format!("secret.keys has no key `{id}`"),
                None => "secret.keys has no keys".to_owned(),
            })
        })?;
    let name = key.id.as_str();
    let value = Secrets::default()
        .get(name, &key.from, |value| {
            value.long_enough(name).map_err(|bad| bad.to_string())
        })
        .map_err(StartError::Secrets)?
        .value;
    Signer::new(name, value).map_err(|bad| StartError::Secrets(bad.to_string()))
}

/// Says a result, as text or as JSON.
fn say(output: Output, text: &str, json: impl FnOnce() -> serde_json::Value) -> ExitCode {
    match output {
        Output::Text => tell(text),
        Output::Json => tell_json(&json()),
    }
    ExitCode::SUCCESS
}

pub(super) fn fail(words: &str) -> ExitCode {
    complain(words);
    ExitCode::FAILURE
}

/// Writes a line of result. Who reads it may have gone: that is no fault.
pub(super) fn tell(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes a result as one line of JSON, in printable ASCII alone.
pub(super) fn tell_json(result: &impl Serialize) {
    let mut line = Vec::new();
    ascii::write_json(result, &mut line);
    tell(&String::from_utf8_lossy(&line));
}

/// Writes a line for the person behind the command.
pub(super) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
