//! `wardent cluster`: how this node stands with the others.

use std::{path::Path, process::ExitCode};

use clap::Subcommand;
use http::Method;

use super::{
    admin_cli::{Ended, ask, meaning, print_table, printable, span, with_running},
    cli::{Output, tell},
};
use crate::{
    admin::cluster::{Bans, CONNECTED, Limits, RefusedBans, Status},
    event::exchange::Report,
};

/// What to ask.
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show whether the mirror reaches the cluster, how far behind it is, and what nodes share.
    #[command(after_help = EXAMPLES)]
    Status,
}

pub(super) const EXAMPLES: &str = "Examples:
  wardent cluster status
  wardent cluster status --output json

Exit status: 0 when the mirror is connected, 1 when it is not.";

/// Asks the running Wardent.
pub(super) fn run(command: &ClusterCommand, config: &Path, output: Output) -> ExitCode {
    match command {
        ClusterCommand::Status => with_running(config, output, |running| {
            let answer = ask(running, Method::GET, "/api/v1/cluster", None)?;
            let status: Status = meaning(&answer)?;
            match output {
                Output::Json => tell(&answer),
                Output::Text => print(&status),
            }
            Ok::<_, Ended>(match status.state.as_str() {
                CONNECTED => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            })
        }),
    }
}

fn print(status: &Status) {
    tell(&format!("node     {}", status.node));
    let why = status.why.as_deref().map(printable);
    match why {
        Some(why) => tell(&format!("mirror   {}: {why}", status.state)),
        None => tell(&format!("mirror   {}", status.state)),
    }
    if let Some(report) = &status.mirror {
        tell(&format!("brokers  {}", brokers(report)));
    }
    if let Some(bans) = &status.bans {
        tell(&format!("bans     {}", of_bans(bans)));
    }
    if let Some(limits) = &status.limits {
        tell(&format!("limits   {}", of_limits(limits)));
    }
    let topics = status.mirror.iter().flat_map(|report| &report.topics);
    let mut rows = vec![
        ["TOPIC", "LAG", "BEHIND", "SENT", "LOST", "STATE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(topics.map(|topic| {
        let behind = match topic.lag {
            0 => "-".to_owned(),
            _ => span(topic.behind_ms),
        };
        let state = match (&topic.error, topic.loses_in_ms) {
            (Some(error), _) => format!("stopped: {}", printable(error)),
            (None, Some(ms)) => format!("loses records in {}", span(ms)),
            (None, None) => "follows".to_owned(),
        };
        vec![
            printable(&topic.topic),
            topic.lag.to_string(),
            behind,
            topic.sent.to_string(),
            topic.lost.to_string(),
            state,
        ]
    }));
    if rows.len() > 1 {
        tell("");
        print_table(&rows);
    }
}

fn brokers(report: &Report) -> String {
    let up = report.brokers.iter().filter(|broker| broker.is_up);
    let of = format!("{} of {} connected", up.count(), report.brokers.len());
    let down = report.brokers.iter().filter(|broker| !broker.is_up);
    let down: Vec<_> = down.map(|broker| printable(&broker.address)).collect();
    match down.is_empty() {
        true => of,
        false => format!("{of}; not {}", down.join(", ")),
    }
}

fn of_bans(bans: &Bans) -> String {
    let RefusedBans {
        ahead,
        protected,
        full,
        unreadable,
    } = bans.refused;
    let mut words = format!(
        "{} taken from other nodes, {} lifted",
        bans.taken, bans.withdrawn
    );
    let refused = [
        (ahead, "ahead of this clock"),
        (protected, "about who is never banned"),
        (full, "for want of room"),
        (unreadable, "not understood"),
    ];
    let refused = refused.into_iter().filter(|(count, _)| *count > 0);
    let refused: Vec<_> = refused
        .map(|(count, why)| format!("{count} {why}"))
        .collect();
    if !refused.is_empty() {
        words += &format!("; refused: {}", refused.join(", "));
    }
    if bans.readings == 0 {
        words += "; what the cluster has was not read yet";
    }
    words
}

fn of_limits(limits: &Limits) -> String {
    let Limits {
        told,
        lost,
        heard,
        unknown,
        ..
    } = limits;
    let mut words = format!("{told} requests told to other nodes, {heard} heard of");
    if *lost > 0 {
        words += &format!("; {lost} told to nobody");
    }
    if *unknown > 0 {
        words += &format!("; {unknown} of limits that are not known here");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::exchange::{Broker, State};

    #[test]
    fn brokers_that_are_missing_are_named() {
        let broker = |id, is_up| Broker {
            id,
            address: format!("kafka-{id}:9092"),
            is_up,
        };
        let mut report = Report {
            state: State::Degraded,
            since_unix_ms: 0,
            why: None,
            cluster_id: None,
            brokers: vec![broker(1, true), broker(2, true)],
            topics: Vec::new(),
        };
        assert_eq!(brokers(&report), "2 of 2 connected");
        report.brokers.push(broker(3, false));
        assert_eq!(brokers(&report), "2 of 3 connected; not kafka-3:9092");
    }

    #[test]
    fn what_was_refused_is_told_by_why() {
        let bans = Bans {
            taken: 7,
            known: 1,
            older: 0,
            refused: RefusedBans {
                ahead: 2,
                protected: 0,
                full: 0,
                unreadable: 1,
            },
            withdrawn: 3,
            readings: 0,
            clock_ahead_ms: 0,
        };
        assert_eq!(
            of_bans(&bans),
            "7 taken from other nodes, 3 lifted; refused: 2 ahead of this clock, 1 not understood; \
             what the cluster has was not read yet"
        );
    }
}
