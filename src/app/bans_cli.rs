//! `wardent bans`: who is banned and why, and what an operator does about it.

use std::{
    io::{BufRead, Read as _},
    path::Path,
    process::ExitCode,
};

use clap::Subcommand;
use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::{
    admin_cli::{Ended, ask, encoded, meaning, print_table, printable, span, warn, with_running},
    cli::{Output, tell, tell_json},
    client::Running,
};
use crate::{
    admin::bans::{AT_ONCE, Imported, Lifted, Listed, PAGE_MAX, Shown, Wrong},
    base::{clock::Clock, units::parse_duration},
    event::time::from_rfc3339,
    owner::Target,
};

const API: &str = "/api/v1/bans";
const IMPORT: &str = "/api/v1/bans/import";

/// Bytes of an imported line at most.
const LINE_BYTES_MAX: u64 = 16 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum BansCommand {
    /// List the bans in force: those decided last come first.
    #[command(
        after_help = "Examples:\n  wardent bans list\n  wardent bans list --count 1000 --output json"
    )]
    List {
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
    },
    /// Show one ban, with the requests that led to it.
    #[command(after_help = "Example:\n  wardent bans show 198.51.100.7\n
Exit status: 0 when there is such a ban, 1 when not.")]
    Show {
        /// Whose: an address or a network.
        #[arg(value_parser = target)]
        client: String,
    },
    /// Ban a client or a network; a ban that is there already gives way to this one.
    #[command(
        after_help = "Examples:\n  wardent bans add 198.51.100.7 --for 1h --why 'scraping'
  wardent bans add 203.0.113.0/24 --for 7d --why 'ticket 4711'"
    )]
    Add {
        /// An address or a network.
        #[arg(value_parser = target)]
        client: String,
        /// How long.
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        duration: String,
        /// Why, for whoever asks later.
        #[arg(long, default_value = "")]
        why: String,
        /// Ban even a network that is a large part of all addresses.
        #[arg(long)]
        force: bool,
    },
    /// Lift a ban and forget what led to it.
    #[command(
        after_help = "Examples:\n  wardent bans remove 198.51.100.7\n  wardent bans remove 198.51.100.7 --grace 10m\n
Exit status: 0 when it is free now, 1 when it was not banned."
    )]
    Remove {
        /// Whose: an address or a network.
        #[arg(value_parser = target)]
        client: String,
        /// How long nothing counts against it afterwards.
        #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
        grace: String,
    },
    /// Write all bans in force to standard output, one JSON object a line.
    #[command(after_help = "Example:\n  wardent bans export > bans.jsonl")]
    Export,
    /// Ban who stands in the lines of standard input, for what is left of their time.
    #[command(after_help = "Example:\n  wardent bans import < bans.jsonl\n
Exit status: 0 when all lines are in force or over, 1 when one is not.")]
    Import,
}

/// Checks what clap cannot: a slip is told before anything is asked.
fn target(text: &str) -> Result<String, String> {
    // Which prefix an IPv6 client has, the running one knows.
    Target::parse(text, 64).map(|_| text.to_owned())
}

fn duration(text: &str) -> Result<String, String> {
    let parsed = parse_duration(text).map_err(|error| error.to_string());
    parsed.map(|_| text.to_owned())
}

/// Does it, and gives the exit status.
pub(super) fn run(command: &BansCommand, config: &Path, output: Output) -> ExitCode {
    with_running(config, output, |running| match command {
        BansCommand::List { count } => list(running, *count as usize, output),
        BansCommand::Show { client } => show(running, client, output),
        BansCommand::Add {
            client,
            duration,
            why,
            force,
        } => {
            let wanted = json!({"target": client, "for": duration, "why": why, "force": force});
            let answer = ask(running, Method::POST, API, Some(&wanted))?;
            say(output, &answer, |ban: &Shown| {
                tell(&format!("{} is banned for {}", ban.target, left(ban)));
            })
        }
        BansCommand::Remove { client, grace } => remove(running, client, grace, output),
        BansCommand::Export => export(running),
        BansCommand::Import => import(running, std::io::stdin().lock(), output),
    })
}

/// Prints an answer: as it came, or as `print` tells it.
fn say<T: serde::de::DeserializeOwned>(
    output: Output,
    answer: &str,
    print: impl FnOnce(&T),
) -> Result<ExitCode, Ended> {
    match output {
        Output::Json => tell(answer),
        Output::Text => print(&meaning(answer)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn page(running: &Running<'_>, count: usize, after: Option<&str>) -> Result<Listed, String> {
    let after = after.map_or(String::new(), |after| format!("&after={}", encoded(after)));
    let target = format!("{API}?limit={}{after}", count.min(PAGE_MAX));
    meaning(&ask(running, Method::GET, &target, None)?)
}

fn list(running: &Running<'_>, count: usize, output: Output) -> Result<ExitCode, Ended> {
    let mut listed = page(running, count, None)?;
    while let Some(next) = listed.next.take()
        && listed.bans.len() < count
    {
        let more = page(running, count - listed.bans.len(), Some(&next))?;
        listed.bans.extend(more.bans);
        listed.next = more.next;
    }
    let Listed { bans, total, .. } = listed;
    if output == Output::Json {
        tell_json(&json!({"bans": bans, "total": total}));
        return Ok(ExitCode::SUCCESS);
    }
    if bans.is_empty() {
        tell("nobody is banned");
        return Ok(ExitCode::SUCCESS);
    }
    let titles = ["CLIENT", "LEFT", "UNTIL", "LEVEL", "BY", "WHY"].map(str::to_owned);
    let row = |ban: &Shown| {
        vec![
            ban.target.clone(),
            left(ban),
            ban.until.clone(),
            ban.level.to_string(),
            printable(&ban.by),
            printable(&ban.why),
        ]
    };
    let rows: Vec<_> = [titles.to_vec()]
        .into_iter()
        .chain(bans.iter().map(row))
        .collect();
    print_table(&rows);
    if total > bans.len() {
        tell(&format!("{} of {total}: --count shows more", bans.len()));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(running: &Running<'_>, client: &str, output: Output) -> Result<ExitCode, Ended> {
    let target = format!("{API}?target={}", encoded(client));
    let answer = ask(running, Method::GET, &target, None)?;
    say(output, &answer, |ban: &Shown| {
        let is = if ban.enforced { "is" } else { "would be" };
        tell(&format!(
            "{} {is} banned for {} more, until {}",
            ban.target,
            left(ban),
            ban.until
        ));
        tell(&format!(
            "{}, by {}, level {}, since {}",
            printable(&ban.why),
            printable(&ban.by),
            ban.level,
            ban.since
        ));
        let evidence = ban.evidence.as_deref().unwrap_or_default();
        if evidence.is_empty() {
            return;
        }
        let titles = ["TIME", "CAUSE", "POINTS", "REQUEST", "PATH"].map(str::to_owned);
        let rows = evidence.iter().map(|seen| {
            vec![
                seen.time.clone(),
                seen.cause.clone(),
                seen.points.to_string(),
                seen.id.clone(),
                printable(&seen.path),
            ]
        });
        let rows: Vec<_> = [titles.to_vec()].into_iter().chain(rows).collect();
        print_table(&rows);
    })
}

fn remove(
    running: &Running<'_>,
    client: &str,
    grace: &str,
    output: Output,
) -> Result<ExitCode, Ended> {
    let target = format!("{API}?target={}&grace={grace}", encoded(client));
    let answer = ask(running, Method::DELETE, &target, None)?;
    say(output, &answer, |done: &Lifted| {
        let free = match &done.lifted {
            Some(ban) => format!("{} is free, {} before its time", ban.target, left(ban)),
            None => format!("{client} was not banned"),
        };
        match done.grace_ms {
            0 => tell(&free),
            ms => tell(&format!("{free}; nothing counts for {}", span(ms))),
        }
    })
}

fn export(running: &Running<'_>) -> Result<ExitCode, Ended> {
    let mut after = None;
    loop {
        let listed = page(running, PAGE_MAX, after.as_deref())?;
        for ban in &listed.bans {
            tell_json(ban);
        }
        after = listed.next;
        if after.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// One line of an export; what else stands in it is not needed.
#[derive(Debug, Deserialize)]
struct Exported {
    target: String,
    until: String,
    #[serde(default)]
    why: String,
}

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// A ban as the running Wardent takes it.
    Ban(serde_json::Value),
    /// Its time is over.
    Over,
    /// It says nothing.
    Blank,
}

/// What a line asks for at `now_unix_ms`.
///
/// # Errors
/// When it is no ban.
fn read_line(line: &[u8], now_unix_ms: u64) -> Result<Line, String> {
    if line.trim_ascii().is_empty() {
        return Ok(Line::Blank);
    }
    let ban: Exported = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let until_unix_ms =
        from_rfc3339(&ban.until).ok_or("`until` is no moment such as 2026-11-21T10:00:00.000Z")?;
    let left_ms = until_unix_ms.saturating_sub(now_unix_ms);
    if left_ms == 0 {
        return Ok(Line::Over);
    }
    let duration = format!("{left_ms}ms");
    // It was in force: no network in it is a slip.
    Ok(Line::Ban(
        json!({"target": ban.target, "for": duration, "why": ban.why, "force": true}),
    ))
}

/// Lines of one question: as many as wait for the disk together, and not too long.
const BATCH: usize = AT_ONCE;
const BATCH_BYTES: usize = 32 * 1024;

/// How far an import is.
#[derive(Debug, Default)]
struct Importing {
    /// Read and not asked for yet, by their lines.
    batch: Vec<(u64, serde_json::Value)>,
    bytes: usize,
    imported: usize,
    over: usize,
    /// Lines that are not imported, and why.
    wrong: Vec<(u64, String)>,
}

impl Importing {
    /// Takes a line; asks for the batch where it is full.
    fn take(&mut self, number: u64, line: &[u8], running: &Running<'_>, now_unix_ms: u64) {
        match read_line(line, now_unix_ms) {
            Ok(Line::Ban(wanted)) => {
                self.batch.push((number, wanted));
                self.bytes += line.len();
                if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES {
                    self.ask(running);
                }
            }
            Ok(Line::Over) => self.over += 1,
            Ok(Line::Blank) => {}
            Err(error) => self.wrong.push((number, error)),
        }
    }

    /// Asks for what was read.
    fn ask(&mut self, running: &Running<'_>) {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if batch.is_empty() {
            return;
        }
        let (numbers, bans): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let many = json!({"bans": bans});
        let answer = ask(running, Method::POST, IMPORT, Some(&many));
        match answer.and_then(|answer| meaning::<Imported>(&answer)) {
            Ok(Imported { imported, wrong }) => {
                self.imported += imported;
                let line = |wrong: Wrong| numbers.get(wrong.index).map(|&n| (n, wrong.error));
                self.wrong.extend(wrong.into_iter().filter_map(line));
            }
            Err(error) => {
                let all = numbers.into_iter().map(|number| (number, error.clone()));
                self.wrong.extend(all);
            }
        }
    }
}

fn import(
    running: &Running<'_>,
    mut input: impl BufRead,
    output: Output,
) -> Result<ExitCode, Ended> {
    let clock = Clock::system();
    let mut importing = Importing::default();
    for number in 1.. {
        let mut line = Vec::new();
        let length = (&mut input)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(|error| format!("standard input: {error}"))?;
        if length == 0 {
            break;
        }
        if length as u64 == LINE_BYTES_MAX {
            importing.ask(running);
            return Err(Ended::Failed(format!("line {number}: too long")));
        }
        importing.take(number, &line, running, clock.unix_ms());
    }
    importing.ask(running);
    let Importing {
        imported,
        over,
        mut wrong,
        ..
    } = importing;
    wrong.sort_unstable_by_key(|&(number, _)| number);
    let is_ok = wrong.is_empty();
    match output {
        Output::Json => {
            let wrong = wrong.into_iter();
            let wrong: Vec<_> = wrong
                .map(|(number, error)| json!({"line": number, "error": error}))
                .collect();
            let told = json!({"imported": imported, "over": over, "wrong": wrong});
            tell_json(&told);
        }
        Output::Text => {
            for (number, error) in &wrong {
                warn(&format!("line {number}: {}", printable(error)));
            }
            tell(&format!(
                "{imported} imported, {over} over already, {} wrong",
                wrong.len()
            ));
        }
    }
    Ok(if is_ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn left(ban: &Shown) -> String {
    span(ban.left_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_255_200_000;

    fn read(line: &str) -> Result<Line, String> {
        read_line(line.as_bytes(), NOW)
    }

    #[test]
    fn an_exported_line_is_a_ban_for_what_is_left() {
        let line =
            r#"{"target":"198.51.100.7","until":"2026-11-21T10:10:00.000Z","why":"x","level":3}"#;
        let wanted =
            json!({"target": "198.51.100.7", "for": "600000ms", "why": "x", "force": true});
        assert_eq!(read(line), Ok(Line::Ban(wanted)));
    }

    #[test]
    fn what_is_over_or_blank_is_no_error() {
        let line = r#"{"target":"198.51.100.7","until":"2026-11-21T10:00:00.000Z"}"#;
        assert_eq!(read(line), Ok(Line::Over));
        assert_eq!(read(" \r\n"), Ok(Line::Blank));
    }

    #[test]
    fn what_is_no_ban_is_an_error() {
        for line in [
            "x",
            "{}",
            r#"{"target":"198.51.100.7"}"#,
            r#"{"target":"198.51.100.7","until":"tomorrow"}"#,
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
