//! What the commands that ask the running Wardent have in common.

use std::{path::Path, process::ExitCode};

use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    StartError,
    cli::{Output, complain, fail, start_failed, tell, tell_json},
    client::Running,
};
use crate::config;

/// Why a command ends without its result, with the exit status that says so.
#[derive(Debug)]
pub(super) enum Ended {
    /// The configuration does not even say where to ask.
    Config(StartError),
    /// It was asked and did not do it, or could not be asked.
    Failed(String),
}

impl From<String> for Ended {
    fn from(words: String) -> Self {
        Self::Failed(words)
    }
}

impl Ended {
    /// Says why, and gives the exit status.
    pub(super) fn told(self, output: Output) -> ExitCode {
        match (self, output) {
            (Self::Config(error), _) => start_failed(&error),
            (Self::Failed(words), Output::Text) => fail(&words),
            (Self::Failed(words), Output::Json) => {
                tell_json(&json!({"error": words}));
                ExitCode::FAILURE
            }
        }
    }
}

/// Has `what` done by the Wardent that runs with this configuration.
pub(super) fn with_running(
    config: &Path,
    output: Output,
    what: impl FnOnce(&Running<'_>) -> Result<ExitCode, Ended>,
) -> ExitCode {
    let socket = match config::load_wardent(config) {
        Ok(document) => document.admin.socket,
        Err(report) => return Ended::Config(StartError::Config(report)).told(output),
    };
    Running::behind(&socket)
        .map_err(Ended::Failed)
        .and_then(|running| what(&running))
        .unwrap_or_else(|ended| ended.told(output))
}

/// Asks, and gives the answer as it came.
///
/// # Errors
/// When it was refused, with what the running Wardent says of it.
pub(super) fn ask(
    running: &Running<'_>,
    method: Method,
    target: &str,
    body: Option<&Value>,
) -> Result<String, String> {
    let said = running.ask(method, target, body.map(Value::to_string))?;
    match said.is_ok {
        true => Ok(said.words.trim_end().to_owned()),
        false => Err(said.error()),
    }
}

/// What an answer means.
///
/// # Errors
/// When it is not what was asked for: the one that runs is another version.
pub(super) fn meaning<T: DeserializeOwned>(answer: &str) -> Result<T, String> {
    serde_json::from_str(answer)
        .map_err(|error| format!("the running wardent answers something else: {error}"))
}

/// A value for a query, with all percent-encoded that could be read otherwise.
pub(super) fn encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// Text from a stranger, safe to show on a terminal: what does not print is escaped.
pub(super) fn printable(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric() {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
        out
    })
}

/// A span of time in its two largest units: `9m 12s`.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms.div_ceil(1_000);
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|&(_, length)| seconds >= length);
    let (mut rest, mut parts) = (seconds, Vec::new());
    for (unit, length) in units.iter().skip(first.unwrap_or(3)).take(2) {
        parts.push(format!("{}{unit}", rest / length));
        rest %= length;
    }
    parts.join(" ")
}

/// Prints rows as columns, each as wide as its widest cell; at once, since there may be very many.
pub(super) fn print_table(rows: &[Vec<String>]) {
    if !rows.is_empty() {
        tell(&table(rows).join("\n"));
    }
}

pub(super) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let padded: Vec<_> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Says what is wrong beside the result.
pub(super) fn warn(words: &str) {
    complain(words);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_two_units() {
        for (ms, told) in [
            (0, "0s"),
            (1, "1s"),
            (59_000, "59s"),
            (60_000, "1m 0s"),
            (552_000, "9m 12s"),
            (3_600_000, "1h 0m"),
            (90_061_000, "1d 1h"),
        ] {
            assert_eq!(span(ms), told);
        }
    }

    #[test]
    fn a_strangers_words_move_no_cursor() {
        assert_eq!(printable("/a\u{1b}[2J\u{202e}é"), "/a\\u{1b}[2J\\u{202e}é");
    }

    #[test]
    fn values_are_encoded_for_a_query() {
        assert_eq!(encoded("2001:db8::/64"), "2001%3Adb8%3A%3A%2F64");
        assert_eq!(encoded("a&b=ü"), "a%26b%3D%C3%BC");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let lines = table(&[row(["A", "B"]), row(["long", ""]), row(["é", "x"])]);
        assert_eq!(lines, ["A     B", "long", "é     x"]);
    }
}
