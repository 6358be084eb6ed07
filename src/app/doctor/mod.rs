//! `wardent doctor`: marked requests through the whole chain, and what is wrong between the hops.
//!
//! A request through nginx never holds the secret, as no stranger's does: what becomes of it says whether a
//! stranger is told from a visitor. Which requests came to Wardent, and as what, is read from its log.

mod hops;
mod probe;

use std::{path::Path, path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use self::hops::Chain;
use super::{
    cli::{Output, before, fail, painted, refused, tell, tell_json},
    paint::Paint,
};
use crate::config::{self, Problem};

pub(super) const EXAMPLES: &str = "Examples:
  wardent doctor                               the nginx on this machine, wardent, the application
  wardent doctor --nginx ./nginx.conf
  wardent doctor --url https://www.example.com   from further out, through the CDN
  wardent doctor --output json | jq '.findings[] | select(.state != \"ok\")'

It asks for paths below /.well-known/wardent-doctor/, and sends to webhooks what they must refuse.
Exit status: 0 when nothing is wrong, whatever is warned of; 1 when something is; 78 for a bad configuration.";

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// Where the chain begins, as visitors call it [default: the nginx on this machine]
    #[arg(long)]
    url: Option<String>,
    /// The configuration of the nginx before it [default: /etc/nginx/nginx.conf, where there is one]
    #[arg(long, value_name = "FILE")]
    nginx: Option<PathBuf>,
}

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Somebody should look.
    Warning,
    /// It does not do what it should.
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// `configuration`, `application`, `wardent` or `nginx`.
    hop: &'static str,
    state: State,
    /// What was found.
    what: String,
    /// What would be right.
    fix: Option<String>,
    /// Where it stands, when it stands in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

impl Finding {
    fn ok(hop: &'static str, what: impl Into<String>) -> Self {
        Self {
            hop,
            state: State::Ok,
            what: what.into(),
            fix: None,
            problem: None,
        }
    }

    fn warning(hop: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            state: State::Warning,
            fix: Some(fix.into()),
            ..Self::ok(hop, what)
        }
    }

    fn wrong(hop: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            state: State::Wrong,
            ..Self::warning(hop, what, fix)
        }
    }

    fn of(hop: &'static str, problem: Problem) -> Self {
        Self {
            state: State::Warning,
            fix: problem.help.clone(),
            problem: Some(problem.clone()),
            ..Self::ok(hop, problem.what)
        }
    }
}

/// Does it, and gives the exit status.
pub(super) fn run(arguments: &DoctorArguments, config: &Path, output: Output) -> ExitCode {
    let loaded = match config::load(config) {
        Ok(loaded) => loaded,
        Err(report) => return refused(&report.problems, output),
    };
    let nginx = match before(arguments.nginx.as_deref(), &loaded) {
        Ok(nginx) => nginx,
        Err(words) => return fail(&words),
    };
    let mut findings: Vec<_> = loaded
        .notes
        .iter()
        .map(|problem| Finding::of("configuration", problem.clone()))
        .collect();
    if let Some(nginx) = &nginx {
        let warnings = nginx.warnings(&loaded).into_iter();
        findings.extend(warnings.map(|problem| Finding::of("nginx", problem)));
    }
    let chain = match Chain::new(config, &loaded, nginx.as_ref(), arguments.url.as_deref()) {
        Ok(chain) => chain,
        Err(words) => return fail(&words),
    };
    findings.extend(chain.look());
    let is_ok = findings.iter().all(|one| one.state != State::Wrong);
    match output {
        Output::Json => tell_json(&json!({"ok": is_ok, "findings": findings})),
        Output::Text => print(&findings),
    }
    match is_ok {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn print(findings: &[Finding]) {
    let paint = Paint::of_output();
    for finding in findings {
        if let Some(problem) = &finding.problem {
            tell(&painted(problem, paint));
            continue;
        }
        let mark = match finding.state {
            State::Ok => paint.good("ok     "),
            State::Warning => paint.warning("warning"),
            State::Wrong => paint.bad("wrong  "),
        };
        tell(&format!("{mark}  {:<14}{}", finding.hop, finding.what));
        if let Some(fix) = &finding.fix {
            tell(&format!("         {:<14}= help: {fix}", ""));
        }
    }
    let count = |state| findings.iter().filter(|one| one.state == state).count();
    let (wrong, warnings) = (count(State::Wrong), count(State::Warning));
    tell(&match (wrong, warnings) {
        (0, 0) => paint.good("all is well"),
        (wrong, warnings) => format!("{wrong} wrong, {warnings} to look at"),
    });
}
