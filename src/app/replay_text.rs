//! What a replay found, for people.

use super::admin_cli::{printable, table};
use crate::replay::{Banned, Change, Kind, PerClient, Reading, Report, Total};

/// Changes of which the table tells; of more, the rest is in the JSON.
const CHANGES: usize = 20;

/// Clients and bans of each list.
const CLIENTS: usize = 5;

/// The lines, the most important first.
pub(super) fn lines(report: &Report, since: &str, until: &str) -> Vec<String> {
    if report.requests == 0 {
        return notes(report);
    }
    let first = report.first.as_deref().unwrap_or(since);
    let last = report.last.as_deref().unwrap_or(until);
    let mut lines = vec![
        verdict(report),
        String::new(),
        format!(
            "{} of {}, {first} to {last}",
            counted(report.requests, "request"),
            counted(report.clients, "client"),
        ),
        String::new(),
    ];
    lines.extend(totals(report));
    let changes: Vec<_> = report.changes.iter().take(CHANGES).collect();
    if !changes.is_empty() {
        lines.push(String::new());
        lines.extend(aligned(changes_table(&changes), &[3, 4, 5, 6]));
        if report.changes.len() > CHANGES {
            let more = report.changes.len() - CHANGES;
            lines.push(format!(
                "and {more} smaller changes: --output json tells them all"
            ));
        }
        lines.push(String::new());
        lines.push("Examples, for `wardent explain`:".to_owned());
        lines.extend(table(&examples(&changes)));
    }
    let concerned: Vec<_> = report.most_concerned.iter().take(CLIENTS).collect();
    if !concerned.is_empty() {
        lines.push(String::new());
        lines.push("Whom it would concern most:".to_owned());
        lines.extend(aligned(clients(&concerned), &[1, 2, 3, 4, 5]));
    }
    for (what, count, first) in [
        (
            "would newly be banned",
            report.newly_banned,
            &report.newly_banned_first,
        ),
        (
            "would no longer be banned",
            report.no_longer_banned,
            &report.no_longer_banned_first,
        ),
    ] {
        if count > 0 {
            lines.push(String::new());
            lines.push(format!("{} {what}:", counted(count, "client")));
            lines.extend(aligned(bans(first), &[4]));
        }
    }
    let mut notes = notes(report);
    if report.otherwise_then > 0 {
        notes.insert(
            0,
            format!(
                "note: of {} the policy now says otherwise than what happened: it was another then, or see below",
                counted(report.otherwise_then, "request")
            ),
        );
    }
    if !notes.is_empty() {
        lines.push(String::new());
        lines.extend(notes);
    }
    lines
}

/// The whole of it in a sentence.
fn verdict(report: &Report) -> String {
    let of = |kind: Kind| {
        let own = report.changes.iter().filter(|change| change.change == kind);
        own.map(|change| change.requests).sum::<u64>()
    };
    let mut parts = Vec::new();
    for (kind, what) in [
        (Kind::Refused, "would newly be refused"),
        (Kind::LetIn, "would be let in"),
        (Kind::Observed, "would newly be observed as ones to refuse"),
        (
            Kind::Unobserved,
            "would no longer be observed as ones to refuse",
        ),
        (Kind::OtherReason, "would be refused for another reason"),
    ] {
        if of(kind) > 0 {
            parts.push(format!("{} {what}", grouped(of(kind))));
        }
        if let (Kind::Refused, Some(last)) = (kind, parts.last_mut()) {
            let own = report.changes.iter().filter(|change| change.change == kind);
            let served = own.map(|change| change.served).sum();
            *last += &format!(", {} of which the application has served", grouped(served));
        }
    }
    if parts.is_empty() && report.newly_banned + report.no_longer_banned == 0 {
        return "Nothing would change.".to_owned();
    }
    if report.newly_banned > 0 {
        let who = counted(report.newly_banned, "client");
        parts.push(format!("{who} would newly be banned"));
    }
    if report.no_longer_banned > 0 {
        let who = counted(report.no_longer_banned, "client");
        parts.push(format!("{who} would no longer be banned"));
    }
    format!(
        "Of {}: {}.",
        counted(report.requests, "request"),
        parts.join("; ")
    )
}

fn totals(report: &Report) -> Vec<String> {
    let row = |cells: [String; 4]| cells.to_vec();
    let mut rows = vec![row(
        ["", "HAPPENED", "POLICY NOW", "CANDIDATE"].map(str::to_owned)
    )];
    for Total {
        outcome,
        reason,
        happened,
        current,
        candidate,
    } in &report.totals
    {
        let what = match (*outcome, reason) {
            ("observed", Some(reason)) => format!("only observed: {reason}"),
            (outcome, Some(reason)) => format!("{outcome}: {reason}"),
            (outcome, None) => outcome.to_owned(),
        };
        let numbers = [happened, current, candidate].map(|&number| grouped(number));
        let [happened, current, candidate] = numbers;
        rows.push(row([what, happened, current, candidate]));
    }
    rows.push(row([
        "bans that began".to_owned(),
        "-".to_owned(),
        grouped(report.bans_current),
        grouped(report.bans_candidate),
    ]));
    aligned(rows, &[1, 2, 3])
}

fn changes_table(changes: &[&Change]) -> Vec<Vec<String>> {
    let head = [
        "CHANGE",
        "REASON",
        "ROUTE",
        "REQUESTS",
        "SERVED THEN",
        "CLIENTS",
        "SERVED ELSE",
        "FIRST",
        "LAST",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for change in changes {
        rows.push(vec![
            word(change.change, change.reason).to_owned(),
            change.reason.to_owned(),
            printable(&change.route),
            grouped(change.requests),
            grouped(change.served),
            grouped(change.clients),
            grouped(change.served_otherwise),
            short(&change.first),
            short(&change.last),
        ]);
    }
    rows
}

/// What a change is called.
fn word(change: Kind, reason: &str) -> &'static str {
    match (change, reason) {
        (Kind::Refused, "rate_limited") => "newly limited",
        (Kind::Refused, "banned") => "newly banned",
        (Kind::Refused, _) => "newly refused",
        (Kind::LetIn, _) => "let in",
        (Kind::Observed, _) => "newly observed",
        (Kind::Unobserved, _) => "not observed",
        (Kind::OtherReason, _) => "refused still",
    }
}

fn examples(changes: &[&Change]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for change in changes {
        for example in &change.examples {
            rows.push(vec![
                format!("  {}", word(change.change, change.reason)),
                example.id.clone(),
                example.client.clone().unwrap_or_else(|| "-".to_owned()),
                format!(
                    "{} {}",
                    printable(&example.method),
                    printable(&example.path)
                ),
                format!("then {}", example.status),
            ]);
        }
    }
    rows
}

fn clients(concerned: &[&PerClient]) -> Vec<Vec<String>> {
    let head = [
        "  CLIENT",
        "REQUESTS",
        "SERVED",
        "NEWLY REFUSED",
        "OF THESE SERVED",
        "LET IN",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for client in concerned {
        rows.push(vec![
            format!("  {}", client.client),
            grouped(client.requests),
            grouped(client.served),
            grouped(client.refused),
            grouped(client.refused_served),
            grouped(client.let_in),
        ]);
    }
    rows
}

fn bans(first: &[Banned]) -> Vec<Vec<String>> {
    let head = ["  CLIENT", "SINCE", "UNTIL", "WHY", "SERVED", "REQUEST"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for ban in first.iter().take(CLIENTS) {
        let only = if ban.enforced { "" } else { ", only observed" };
        rows.push(vec![
            format!("  {}", ban.client),
            short(&ban.since),
            short(&ban.until),
            format!("{}{only}", printable(&ban.why)),
            grouped(ban.served),
            ban.requests.last().cloned().unwrap_or_default(),
        ]);
    }
    rows
}

/// What one has to know to judge the numbers.
fn notes(report: &Report) -> Vec<String> {
    let (unknown, read) = (&report.unknown, &report.read);
    let told = [
        (
            unknown.earlier_ban,
            "refused then by a ban that began before, or that an operator made: a replay begins without bans",
        ),
        (
            unknown.answer,
            "refused then and let in now: what the application would have answered, and how long their bodies are, nobody knows; nothing is held against anybody for it",
        ),
        (
            unknown.length,
            "too long then: how long is not recorded, so they are too long again",
        ),
        (
            unknown.secret,
            "of which the record does not show whether they held the secret that is asked for now: taken to have held it",
        ),
        (
            unknown.signature,
            "of which the record does not show whether they were signed, as is asked for now: taken to have been",
        ),
        (
            unknown.bot,
            "of bots that are to be proved now: the DNS was not asked then, so they count as unknown",
        ),
        (
            read.truncated,
            "with a network in place of the client (ip_privacy: truncate): taken as they were",
        ),
        (
            read.hashed,
            "with a hash in place of the client (ip_privacy: hash): another client each day, in no network of allow or deny",
        ),
        (
            read.cut,
            "with a path or user agent of 512 bytes, as much as an event keeps: judged by that",
        ),
        (
            read.late,
            "that took so long that later ones were judged before them",
        ),
        (
            read.lost,
            "that never got into the log (gaps): not replayed",
        ),
    ];
    let noted = told.into_iter().filter(|(count, _)| *count > 0);
    let notes = noted.map(|(count, words)| format!("note: {} {words}", counted(count, "request")));
    notes.chain(notes_of_log(read)).collect()
}

/// What the log had beside requests.
fn notes_of_log(read: &Reading) -> Vec<String> {
    let mut notes = Vec::new();
    for (count, what) in [
        (
            read.unreadable,
            "record that is no event was passed over: `wardent log verify` tells where",
        ),
        (
            read.damaged,
            "damaged batch was passed over: `wardent log verify` tells where",
        ),
        (read.gone, "event went by retention before it was read"),
    ] {
        if count > 0 {
            notes.push(format!("note: {} times: a {what}", grouped(count)));
        }
    }
    if read.runs > 1 {
        notes.push(format!(
            "note: wardent was started {} times meanwhile, and each start gives everybody the whole burst; a replay does not",
            read.runs - 1
        ));
    }
    notes
}

/// `1 request`, `1,203 requests`.
pub(super) fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(count))
}

/// A number as people read it: `12,300,000`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A moment without its milliseconds: `2026-11-21T10:00:01Z`.
fn short(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

/// A table with the cells of some columns at their right ends, as numbers stand.
fn aligned(rows: Vec<Vec<String>>, right: &[usize]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row: &Vec<String>| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = right
        .iter()
        .map(|&column| (column, width(column)))
        .collect();
    let mut rows = rows;
    for row in &mut rows {
        for &(column, width) in &widths {
            if let Some(cell) = row.get_mut(column) {
                *cell = format!("{cell:>width$}");
            }
        }
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, told) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(grouped(number), told);
        }
        assert_eq!(counted(1, "client"), "1 client");
        assert_eq!(counted(2, "client"), "2 clients");
    }
}
