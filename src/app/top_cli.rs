//! `wardent top`: who asks most, live on a terminal, once elsewhere.

use std::{
    io::IsTerminal as _,
    path::Path,
    process::ExitCode,
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use clap::{Args, ValueEnum};
use http::Method;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use serde_json::json;

use super::{
    admin_cli::{Ended, ask, encoded, meaning, printable, table, with_running},
    cli::{Output, tell},
    client::Running,
    explain_cli,
    top_screen::{Screen, Sort, Wanted, cells},
};
use crate::{
    admin::{
        status::Status,
        top::{By, Top},
    },
    base::clock::Clock,
};

pub(super) const EXAMPLES: &str = "Examples:
  wardent top                                  live: ? shows the keys
  wardent top --by path --sort refused
  wardent top --by bot --window 5m --once      once, as a table
  wardent top --output json | jq '.rows[0]'

Without a terminal it shows the ranking once. Nothing is counted while nobody looks.";

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long keys are waited for before the screen looks whether something came.
const KEYS_WITHIN: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct TopArguments {
    /// What requests are told apart by.
    #[arg(long, value_enum, default_value_t = ByWord::Client)]
    by: ByWord,
    /// How far back it looks, 5m at most.
    #[arg(long, default_value = "60s")]
    window: String,
    /// What comes first.
    #[arg(long, value_enum, default_value_t = SortWord::Requests)]
    sort: SortWord,
    /// Rows at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=200))]
    limit: u8,
    /// For how long the key `b` bans.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    ban_for: String,
    /// Show it once, on a terminal too.
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ByWord {
    Client,
    Route,
    Path,
    Reason,
    Bot,
    UserAgent,
}

impl From<ByWord> for By {
    fn from(word: ByWord) -> Self {
        match word {
            ByWord::Client => Self::Client,
            ByWord::Route => Self::Route,
            ByWord::Path => Self::Path,
            ByWord::Reason => Self::Reason,
            ByWord::Bot => Self::Bot,
            ByWord::UserAgent => Self::UserAgent,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SortWord {
    Requests,
    Refused,
    Bytes,
    P99,
}

impl From<SortWord> for Sort {
    fn from(word: SortWord) -> Self {
        match word {
            SortWord::Requests => Self::Requests,
            SortWord::Refused => Self::Refused,
            SortWord::Bytes => Self::Bytes,
            SortWord::P99 => Self::Slowest,
        }
    }
}

/// Does it, and gives the exit status.
pub(super) fn run(arguments: &TopArguments, config: &Path, output: Output) -> ExitCode {
    with_running(config, output, |running| {
        let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        if arguments.once || output == Output::Json || !is_terminal {
            return once(arguments, running, output);
        }
        // Asked before the screen is taken: who does not run is said as ever.
        let first = ranking(
            running,
            arguments.by.into(),
            &arguments.window,
            arguments.limit,
        )?;
        live(arguments, running, first)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// # Errors
/// When the running Wardent cannot be asked, or does not take the question.
fn ranking(running: &Running<'_>, by: By, window: &str, limit: u8) -> Result<Top, String> {
    meaning(&ask(
        running,
        Method::GET,
        &target(by, window, limit),
        None,
    )?)
}

fn target(by: By, window: &str, limit: u8) -> String {
    let window = encoded(window);
    format!("/api/v1/top?by={}&window={window}&limit={limit}", by.word())
}

fn once(
    arguments: &TopArguments,
    running: &Running<'_>,
    output: Output,
) -> Result<ExitCode, Ended> {
    let (by, window) = (By::from(arguments.by), arguments.window.as_str());
    if output == Output::Json {
        tell(&ask(
            running,
            Method::GET,
            &target(by, window, arguments.limit),
            None,
        )?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut top = ranking(running, by, window, arguments.limit)?;
    if top.rows.is_empty() {
        tell("no requests in this time");
        return Ok(ExitCode::SUCCESS);
    }
    Sort::from(arguments.sort).put_in_order(&mut top.rows);
    let titles = [
        "REQUESTS", "REFUSED", "OBSERVED", "LIMITED", "BANNED", "FAILED", "BYTES", "P50", "P99",
    ];
    let key = by.word().to_uppercase().replace('_', " ");
    let mut rows = vec![titles.map(str::to_owned).into_iter().chain([key]).collect()];
    let row = |row| {
        cells(row)
            .into_iter()
            .chain([printable(&row.key)])
            .collect()
    };
    rows.extend(top.rows.iter().map(row));
    table(&rows).iter().for_each(|line| tell(line));
    if top.share < 1.0 {
        tell(&format!(
            "estimates: {:.0} % of all requests were looked at",
            top.share * 100.0
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// What the screen asks of who talks to Wardent.
enum Asked {
    Ranking(By, String),
    Ban(String),
    Explain(String),
}

/// What comes of it.
enum Told {
    Ranking(Top),
    Headline(String),
    Message(String),
    Page(Vec<String>),
}

/// # Errors
/// When the terminal cannot be used.
fn live(arguments: &TopArguments, running: &Running<'_>, first: Top) -> Result<(), String> {
    let in_words = |error: std::io::Error| format!("the terminal: {error}");
    let mut terminal = ratatui::try_init().map_err(in_words)?;
    let mut screen = Screen::new(
        arguments.by.into(),
        arguments.window.clone(),
        arguments.sort.into(),
        arguments.ban_for.clone(),
    );
    screen.show(first);
    let (asks, asked) = channel();
    let (tells, told) = channel();
    // Another thread asks, so that a Wardent that does not answer leaves the keys alive.
    let shown = std::thread::scope(|scope| {
        scope.spawn(|| answer(arguments, running, asked, &tells));
        watch(&mut terminal, &mut screen, asks, &told)
    });
    ratatui::try_restore().map_err(in_words)?;
    shown.map_err(in_words)
}

/// Draws, takes keys and asks, until it is told to quit.
fn watch(
    terminal: &mut DefaultTerminal,
    screen: &mut Screen,
    asks: Sender<Asked>,
    told: &Receiver<Told>,
) -> std::io::Result<()> {
    let clock = Clock::system();
    let mut looked_ns = None;
    loop {
        let now_ns = clock.monotonic_ns();
        let is_due = looked_ns.is_none_or(|then: u64| {
            Duration::from_nanos(now_ns.saturating_sub(then)) >= LOOK_EVERY
        });
        let mut wanted = is_due.then_some(Wanted::Refresh);
        for told in told.try_iter() {
            match told {
                Told::Ranking(top) => screen.show(top),
                Told::Headline(line) => screen.headline(line),
                Told::Message(words) => screen.say(words),
                Told::Page(lines) => screen.read("explain", lines),
            }
        }
        terminal.draw(|frame| screen.draw(frame))?;
        if event::poll(KEYS_WITHIN)?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let is_interrupt =
                key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            wanted = match is_interrupt {
                true => Some(Wanted::Quit),
                false => screen.key(key.code).or(wanted),
            };
        }
        let ask = match wanted {
            None => continue,
            Some(Wanted::Quit) => return Ok(()),
            Some(Wanted::Refresh) => {
                looked_ns = Some(now_ns);
                Asked::Ranking(screen.by, screen.window.clone())
            }
            Some(Wanted::Ban(client)) => Asked::Ban(client),
            Some(Wanted::Explain(client)) => Asked::Explain(client),
        };
        if asks.send(ask).is_err() {
            return Ok(());
        }
    }
}

/// Asks the running Wardent for what the screen wants, until that is gone.
fn answer(
    arguments: &TopArguments,
    running: &Running<'_>,
    asked: Receiver<Asked>,
    tells: &Sender<Told>,
) {
    while let Ok(mut next) = asked.recv() {
        // Of rankings that wait, the last is wanted.
        let mut acts = Vec::new();
        for more in std::iter::from_fn(|| asked.try_recv().ok()) {
            match std::mem::replace(&mut next, more) {
                Asked::Ranking(..) => {}
                act @ (Asked::Ban(_) | Asked::Explain(_)) => acts.push(act),
            }
        }
        acts.push(next);
        for ask in acts {
            for told in done(arguments, running, ask) {
                if tells.send(told).is_err() {
                    return;
                }
            }
        }
    }
}

fn done(arguments: &TopArguments, running: &Running<'_>, asked: Asked) -> Vec<Told> {
    match asked {
        Asked::Ranking(by, window) => {
            let status = ask(running, Method::GET, "/api/v1/status", None)
                .and_then(|answer| meaning::<Status>(&answer));
            let headline = status.map(|status| Told::Headline(headline(&status)));
            let top = ranking(running, by, &window, arguments.limit).map(Told::Ranking);
            [headline, top]
                .map(|told| told.unwrap_or_else(Told::Message))
                .into()
        }
        Asked::Ban(client) => {
            let wanted = json!({
                "target": client, "for": arguments.ban_for, "why": "by hand, from wardent top",
            });
            let done = ask(running, Method::POST, "/api/v1/bans", Some(&wanted));
            let words = match done {
                Ok(_) => format!(
                    "{client} is banned for {}; `wardent bans remove {client}` lifts it",
                    arguments.ban_for
                ),
                Err(error) => error,
            };
            vec![Told::Message(words)]
        }
        Asked::Explain(client) => {
            let wanted = json!({"ip": client, "path": "/"});
            let explained = ask(running, Method::POST, "/api/v1/explain", Some(&wanted))
                .and_then(|answer| meaning(&answer));
            vec![match explained {
                Ok(explained) => {
                    let mut lines = vec![format!("GET / by {}", printable(&client))];
                    lines.extend(explain_cli::lines(&explained));
                    Told::Page(lines)
                }
                Err(error) => Told::Message(error),
            }]
        }
    }
}

fn headline(status: &Status) -> String {
    let rate = |name: &str| status.rates.requests.get(name).copied().unwrap_or_default();
    let observed = match status.enforcement.any {
        true => "",
        false => "; nothing is enforced yet",
    };
    let warnings = match status.standing.warnings.len() {
        0 => String::new(),
        count => format!("; {count} warnings (wardent status)"),
    };
    format!(
        "wardent {}: {:.1}/s passed, {:.1}/s refused, {:.1}/s failed, {} bans{observed}{warnings}",
        printable(&status.standing.state),
        rate("passed"),
        rate("refused"),
        rate("failed"),
        status.bans.active,
    )
}
