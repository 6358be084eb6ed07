//! `wardent events`: what happened, found in the log and as it happens.

use std::{path::Path, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    admin_cli::{Ended, encoded, meaning, warn},
    cli::{Output, complain, tell, tell_json},
    client::{Running, Said},
    event_text::line,
    log_reader::{Reader, document},
};
use crate::{
    base::clock::Clock,
    event::time::Stamps,
    sink::query::{
        ask::{Ask, Found, PAGE_MAX},
        tally::Tally,
        when::moment,
    },
};

/// The exit status of a command that cannot be meant.
const EX_MISUSED: u8 = 2;

/// How long one question of `tail` waits for what is not there yet.
const WAIT: &str = "10s";

/// From a Wardent that is gone to the next try.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// From a page that it had no turn for to the next try.
const TURN_AFTER: Duration = Duration::from_millis(200);

/// How often it is asked for a page while others read the log.
const TRIES: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum EventsCommand {
    /// Show events as they come, after the last few.
    #[command(
        after_help = "Examples:\n  wardent events tail\n  wardent events tail --verdict refused -n 50
  wardent events tail --topic ban --output json | jq .\n
It ends with Ctrl-C. When wardent does not run, it shows the last few and ends."
    )]
    Tail {
        #[command(flatten)]
        which: Which,
        /// How many of those that are there already.
        #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10)]
        count: usize,
    },
    /// Find events: those told last come first.
    #[command(after_help = "Examples:
  wardent events query --client 198.51.100.7 --since 1h
  wardent events query --verdict refused --reason rate_limited --path '/accounts/**' --since 24h
  wardent events query --status 5xx --since 2026-11-21T10:00:00Z --until 2026-11-21T11:00:00Z
  wardent events query --topic audit --since 7d --limit 0 --output json > audit.jsonl\n
Exit status: 0, whether there are any or not.")]
    Query {
        #[command(flatten)]
        which: Which,
        /// How many at most; 0 for all.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Show those told first first.
        #[arg(long)]
        oldest_first: bool,
    },
}

/// Which events. What it says is read where the events are, by the names that the API has, too.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Which {
    /// What kind: access, ban or audit [default: access]
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Not before: how long ago (`24h`), or when (`2026-11-21T10:00:00Z`).
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Before: likewise.
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Whose: an address, a network, or a hash (`h:…`) as an event shows it.
    #[arg(long, value_name = "CLIENT")]
    client: Option<String>,
    /// What became of the request: passed, refused, failed or aborted.
    #[arg(long)]
    verdict: Option<String>,
    /// Why, as in `X-Wardent-Reason`.
    #[arg(long)]
    reason: Option<String>,
    /// The policy's route.
    #[arg(long)]
    route: Option<String>,
    /// The answer's status, or its class: `403`, `5xx`.
    #[arg(long)]
    status: Option<String>,
    /// The method.
    #[arg(long)]
    method: Option<String>,
    /// The path, as the policy writes it: exact, `/a/` for all below, `*` one segment, `**` any rest.
    #[arg(long, value_name = "PATTERN")]
    path: Option<String>,
    /// The host.
    #[arg(long)]
    host: Option<String>,
    /// One decision: the `X-Request-ID` of its answer.
    #[arg(long)]
    id: Option<String>,
}

impl Which {
    /// The event of one decision.
    pub(super) fn decision(id: &str) -> Self {
        Self {
            id: Some(id.to_owned()),
            ..Self::default()
        }
    }

    /// Names and values, with spans of time as moments: they stay the same from page to page.
    fn parameters(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        let at = |when: &Option<String>| {
            when.as_ref().map(|text| match moment(text, now_ms) {
                Ok(unix_ms) => rfc3339(unix_ms),
                // Reading it again says what is wrong.
                Err(_) => text.clone(),
            })
        };
        let all = [
            ("topic", self.topic.clone()),
            ("since", at(&self.since)),
            ("until", at(&self.until)),
            ("client", self.client.clone()),
            ("verdict", self.verdict.clone()),
            ("reason", self.reason.clone()),
            ("route", self.route.clone()),
            ("status", self.status.clone()),
            ("method", self.method.clone()),
            ("path", self.path.clone()),
            ("host", self.host.clone()),
            ("id", self.id.clone()),
        ];
        let given = all.into_iter();
        given
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

pub(super) fn rfc3339(unix_ms: u64) -> String {
    let mut text = Vec::new();
    Stamps::default().write_rfc3339(unix_ms, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Does it, and gives the exit status.
pub(super) fn run(command: &EventsCommand, config: &Path, output: Output) -> ExitCode {
    let done = match command {
        EventsCommand::Tail { which, count } => tail(which, *count, config, output),
        EventsCommand::Query {
            which,
            limit,
            oldest_first,
        } => {
            let limit = if *limit == 0 { usize::MAX } else { *limit };
            query(which, limit, *oldest_first, config, output)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(stopped) => stopped.told(output),
    }
}

/// Why there are no events.
pub(super) enum Stopped {
    /// The command cannot be meant.
    Misused(String),
    Ended(Ended),
}

impl Stopped {
    /// Says why, and gives the exit status.
    pub(super) fn told(self, output: Output) -> ExitCode {
        match self {
            Self::Misused(words) => {
                match output {
                    Output::Text => complain(&format!("error: {words}")),
                    Output::Json => tell_json(&json!({"error": words})),
                }
                ExitCode::from(EX_MISUSED)
            }
            Self::Ended(ended) => ended.told(output),
        }
    }
}

impl From<String> for Stopped {
    fn from(words: String) -> Self {
        Self::Ended(Ended::Failed(words))
    }
}

impl From<Ended> for Stopped {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// Questions about the same events, page after page.
pub(super) struct Question {
    parameters: Vec<(&'static str, String)>,
    now_ms: u64,
}

impl Question {
    /// Checks what is asked before anything is read.
    ///
    /// # Errors
    /// When it cannot be meant.
    pub(super) fn new(which: &Which) -> Result<Self, Stopped> {
        let now_ms = Clock::system().unix_ms();
        let parameters = which.parameters(now_ms);
        let question = Self { parameters, now_ms };
        question.ask(&[])?;
        Ok(question)
    }

    fn ask(&self, more: &[(&'static str, String)]) -> Result<Ask, Stopped> {
        let get = |name: &str| {
            let mut all = self.parameters.iter().chain(more);
            let found = all.find(|(own, _)| *own == name);
            found.map(|(_, value)| value.as_str())
        };
        // The flags have the names of the parameters.
        Ask::read(get, self.now_ms).map_err(|bad| Stopped::Misused(bad.to_string()))
    }

    /// One page.
    ///
    /// # Errors
    /// When the log cannot be read, or the one that was asked does not answer so.
    pub(super) fn page(
        &self,
        reader: &Reader<'_>,
        more: &[(&'static str, String)],
    ) -> Result<Found, Stopped> {
        match reader {
            Reader::Running(running) => {
                let mut said = self.said(running, more)?;
                for _ in 1..TRIES {
                    if !said.is_busy {
                        break;
                    }
                    std::thread::sleep(TURN_AFTER);
                    said = self.said(running, more)?;
                }
                Ok(self.meant(&said)?)
            }
            Reader::Files(files) => {
                let ask = self.ask(more)?;
                let partitions = ask.partitions(&files.partitions);
                let found = ask.answer(&partitions, &mut || false);
                Ok(found.map_err(|error| error.to_string())?)
            }
        }
    }

    /// # Errors
    /// When the running Wardent cannot be asked.
    fn said(&self, running: &Running<'_>, more: &[(&'static str, String)]) -> Result<Said, String> {
        let all = self.parameters.iter().chain(more);
        let pairs: Vec<_> = all
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let target = format!("/api/v1/events?{}", pairs.join("&"));
        running.ask(Method::GET, &target, None)
    }

    /// What an answer holds.
    ///
    /// # Errors
    /// When it was none.
    fn meant(&self, said: &Said) -> Result<Found, String> {
        if said.is_ok {
            return meaning(&said.words);
        }
        Err(said.error())
    }
}

fn query(
    which: &Which,
    limit: usize,
    oldest_first: bool,
    config: &Path,
    output: Output,
) -> Result<(), Stopped> {
    let question = Question::new(which)?;
    let document = document(config)?;
    let reader = Reader::open(&document)?;
    let order = if oldest_first { "oldest" } else { "newest" };
    let (mut left, mut after, mut tally) = (limit, String::new(), Tally::default());
    while left > 0 {
        let more = [
            ("order", order.to_owned()),
            ("limit", left.min(PAGE_MAX).to_string()),
            ("after", after),
        ];
        let found = question.page(&reader, &more)?;
        left = left.saturating_sub(found.events.len());
        show(&found, output, false);
        tally.add(&found.tally);
        if found.is_end {
            break;
        }
        after = found.next;
    }
    tally.notes().iter().for_each(|note| warn(note));
    Ok(())
}

fn tail(which: &Which, count: usize, config: &Path, output: Output) -> Result<(), Stopped> {
    let question = Question::new(which)?;
    let document = document(config)?;
    let reader = Reader::open(&document)?;
    let mut after = show_last(&question, &reader, count, output)?;
    let Reader::Running(running) = &reader else {
        return Ok(());
    };
    let mut is_gone = false;
    loop {
        let more = [
            ("order", "oldest".to_owned()),
            ("limit", PAGE_MAX.to_string()),
            ("after", after.clone()),
            ("wait", WAIT.to_owned()),
        ];
        match question.said(running, &more) {
            Ok(said) if said.is_busy => std::thread::sleep(AGAIN_AFTER),
            Ok(said) => {
                is_gone = false;
                let found = question.meant(&said)?;
                show(&found, output, false);
                found.tally.notes().iter().for_each(|note| warn(note));
                after = found.next;
            }
            Err(error) => {
                if !is_gone {
                    warn(&format!("{error}\nwaiting for it to come back"));
                }
                is_gone = true;
                std::thread::sleep(AGAIN_AFTER);
            }
        }
    }
}

/// Shows the last `count` events, oldest first, and gives the place behind them.
fn show_last(
    question: &Question,
    reader: &Reader<'_>,
    count: usize,
    output: Output,
) -> Result<String, Stopped> {
    let (mut after, mut tail) = (String::new(), None);
    let mut last = Found::default();
    loop {
        let left = count.saturating_sub(last.events.len());
        let more = [
            ("order", "newest".to_owned()),
            // Of none it is asked, too, where the end is.
            ("limit", left.clamp(1, PAGE_MAX).to_string()),
            ("after", after),
        ];
        let found = question.page(reader, &more)?;
        tail = tail.or(Some(found.tail));
        last.events.extend(found.events.into_iter().take(left));
        last.tally.add(&found.tally);
        if found.is_end || last.events.len() >= count {
            break;
        }
        after = found.next;
    }
    show(&last, output, true);
    last.tally.notes().iter().for_each(|note| warn(note));
    Ok(tail.unwrap_or_default())
}

fn show(found: &Found, output: Output, is_backwards: bool) {
    let print = |event: &str| match output {
        Output::Json => tell(event),
        Output::Text => {
            let fields: Map<String, Value> = serde_json::from_str(event).unwrap_or_default();
            tell(&line(&fields));
        }
    };
    let events = found.events.iter().map(|event| event.get());
    match is_backwards {
        true => events.rev().for_each(print),
        false => events.for_each(print),
    }
}

/// The event of a decision; none where it is not in the log.
///
/// # Errors
/// When the id is none, or the log cannot be read.
pub(super) fn find_decision(reader: &Reader<'_>, id: &str) -> Result<Option<String>, Stopped> {
    let question = Question::new(&Which::decision(id))?;
    let mut after = String::new();
    loop {
        let more = [
            ("order", "oldest".to_owned()),
            ("limit", "1".to_owned()),
            ("after", after),
        ];
        let found = question.page(reader, &more)?;
        if let Some(event) = found.events.first() {
            return Ok(Some(event.get().to_owned()));
        }
        if found.is_end {
            return Ok(None);
        }
        after = found.next;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        os::unix::net::UnixListener,
    };

    use super::*;

    #[test]
    fn a_page_is_asked_for_again_while_others_read_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answers = [
            ("503 Busy", r#"{"error":"try again"}"#.to_owned()),
            ("200 OK", serde_json::to_string(&Found::default()).unwrap()),
        ];
        let serving = std::thread::spawn(move || {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let head = BufReader::new(&stream).lines();
                head.map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .for_each(drop);
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                )
                .unwrap();
            }
        });
        let reader = Reader::Running(Running::behind(&socket).unwrap());
        let Ok(question) = Question::new(&Which::default()) else {
            unreachable!("it asks for nothing special")
        };
        assert!(question.page(&reader, &[]).is_ok());
        serving.join().unwrap();
    }
}
