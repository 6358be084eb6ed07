//! From text to typed documents. The only file that names the YAML crate.
//!
//! A document is read twice: once into an [`Index`] that knows where everything stands and refuses
//! what is no configuration at all, once by serde into valid types. An error of the second reading
//! carries its location; the first one says which key that is.

use serde::de::DeserializeOwned;

use super::{
    index::{Fault, Index, Place, Position, generic, joined, may_hold_secret},
    report::{Excerpt, Problem, Report, Severity, shown, told},
    words::{OURS, advice},
};

/// The most a file may hold. A policy of ten thousand routes is smaller.
pub(in crate::config) const FILE_MAX: usize = 4 << 20;

/// A file's text and where everything in it stands.
#[derive(Debug)]
pub(super) struct Source<'a> {
    name: &'a str,
    text: &'a str,
    index: Index,
}

/// Reads `text` as a `T`; `name` is the file as the user named it, and the keys in `nullable`
/// (`[]` for every item of a list) may be written without a value.
pub(super) fn read<'a, T: DeserializeOwned>(
    name: &'a str,
    text: &'a str,
    nullable: &[&str],
) -> Result<(T, Source<'a>), Report> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let refuse = |fault: Fault| Report::from(problem(name, text, &fault.place, &fault.what));
    refuse_what_is_no_text(text).map_err(refuse)?;
    let index = Index::of(text).map_err(refuse)?;
    let nothing = || refuse(fault_at(1, 1, 1, "the file is empty".to_owned()));
    let index = index.ok_or_else(nothing)?;
    let source = Source { name, text, index };
    source.refuse_nulls(nullable)?;
    let document =
        serde_yaml::from_str(text).map_err(|error| Report::from(source.explain(&error)))?;
    Ok((document, source))
}

/// The text of a file called `name`, or which byte is none.
pub(super) fn decode(name: &str, bytes: Vec<u8>) -> Result<String, Report> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(unlocated(name, "the file is UTF-16 (save it as UTF-8)"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        let before = text.get(..valid).unwrap_or_default();
        let line = before.split('\n').count();
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        let what = "this byte is not UTF-8 (save the file as UTF-8)";
        let fault = fault_at(line, column, 1, what.to_owned());
        problem(name, &text, &fault.place, what).into()
    })
}

/// A problem of the file as a whole.
pub(super) fn unlocated(name: &str, what: &str) -> Report {
    let fault = fault_at(1, 1, 1, what.to_owned());
    problem(name, "", &fault.place, &fault.what).into()
}

/// What a YAML parser would accept or describe in riddles.
fn refuse_what_is_no_text(text: &str) -> Result<(), Fault> {
    if text.len() > FILE_MAX {
        return Err(fault_at(
            1,
            1,
            1,
            format!("the file is larger than {} MiB", FILE_MAX >> 20),
        ));
    }
    for (nth, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let blanks = line.len() - line.trim_start_matches([' ', '\t']).len();
        let tab = line
            .find('\t')
            .filter(|tab| *tab < blanks && blanks < line.len());
        if let Some(tab) = tab {
            let what = "tab characters are not allowed for indentation (use spaces)";
            return Err(fault_at(nth + 1, tab + 1, 1, what.to_owned()));
        }
        let bad = line.chars().enumerate().find(|(_, c)| is_no_text(*c));
        if let Some((column, c)) = bad {
            let what = format!("the character `{}` is not allowed", c.escape_default());
            return Err(fault_at(nth + 1, column + 1, 1, what));
        }
    }
    Ok(())
}

/// Control characters, and the line breaks that YAML 1.1 knows and 1.2 does not.
fn is_no_text(c: char) -> bool {
    (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn fault_at(line: usize, column: usize, width: usize, what: String) -> Fault {
    let start = Position { line, column };
    let end = Position {
        line,
        column: column + width,
    };
    let path = String::new();
    Fault {
        place: Place {
            path,
            start,
            end,
            is_key: false,
        },
        what,
    }
}

impl<'a> Source<'a> {
    /// An error at the value of `path`, or at the nearest key that is written.
    pub(super) fn error(&self, path: &str, what: impl AsRef<str>) -> Problem {
        problem(
            self.name,
            self.text,
            &self.index.nearest(path),
            what.as_ref(),
        )
    }

    /// A warning at a place the index gave.
    pub(super) fn warning(&self, place: &Place, what: impl AsRef<str>) -> Problem {
        Problem {
            severity: Severity::Warning,
            ..problem(self.name, self.text, place, what.as_ref())
        }
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    fn refuse_nulls(&self, nullable: &[&str]) -> Result<(), Report> {
        let refused = |place: &Place| !nullable.contains(&generic(&place.path).as_str());
        match self.index.nulls().iter().find(|place| refused(place)) {
            Some(place) => {
                let what = match may_hold_secret(&place.path) {
                    true => "a key has no value (give one, or leave it out)".to_owned(),
                    false => format!("`{}` has no value (give one, or leave it out)", place.path),
                };
                let place = place.clone().discreet();
                Err(problem(self.name, self.text, &place, &what).into())
            }
            None => Ok(()),
        }
    }

    /// Turns serde's error into plain words at the exact place.
    fn explain(&self, error: &serde_yaml::Error) -> Problem {
        let location = error.location();
        let start = location.map_or((1, 1), |at| (at.line().max(1), at.column().max(1)));
        let start = Position {
            line: start.0,
            column: start.1,
        };
        let message = error.to_string();
        let message = strip_location(&message);
        let key_is_unknown = message.contains("unknown field `") && !message.contains(OURS);
        let place = self.index.at(start, key_is_unknown).unwrap_or(Place {
            path: String::new(),
            start,
            end: start,
            is_key: false,
        });
        let about = if place.is_key {
            place.parent()
        } else {
            &place.path
        };
        let last = about.rsplit('.').next().unwrap_or_default();
        let of_key = |what: &str| match last {
            "" => what.to_owned(),
            last => format!("{last}: {what}"),
        };
        if let Some((_, ours)) = message.split_once(OURS) {
            let value = self.index.scalar(&place.path);
            let what = without_secret(&place.path, value, ours);
            return problem(self.name, self.text, &place, &of_key(&what));
        }
        if let Some((_, unknown)) = message.split_once("unknown field `") {
            let what = unknown_key(&place.path, unknown);
            let problem = problem(self.name, self.text, &place.discreet(), &what);
            let excerpt = problem.excerpt.map(Excerpt::cut_behind_caret);
            return Problem { excerpt, ..problem };
        }
        if let Some((_, missing)) = message.split_once("missing field `") {
            let key = missing.split('`').next().unwrap_or_default();
            let what = format!("`{}` is missing", joined(&place.path, key));
            return problem(self.name, self.text, &place, &what);
        }
        let what = match message.split_once("invalid type: ") {
            Some((_, mistaken)) => of_key(&wrong_shape(mistaken)),
            None => format!("not readable: {}", shown(message)),
        };
        problem(self.name, self.text, &place, &what)
    }
}

/// The message without the ` at line 3 column 7` that the crate appends.
fn strip_location(message: &str) -> &str {
    match message.rsplit_once(" at line ") {
        Some((message, _)) => message,
        None => message,
    }
}

/// From ``limts`, expected one of `limit`, `rate` `` (serde's own words).
fn unknown_key(path: &str, serdes: &str) -> String {
    let (key, expected) = serdes.rsplit_once("`, expected ").unwrap_or((serdes, ""));
    let allowed: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let advice = advice(key, &allowed);
    match may_hold_secret(path) && !advice.starts_with("did") {
        true => format!("unknown key, not shown as it may be a secret ({advice})"),
        false => format!("unknown key `{}` ({advice})", shown(key)),
    }
}

/// From `map, expected a duration` (serde's own words). What stood there is not repeated.
fn wrong_shape(serdes: &str) -> String {
    let (found, expected) = serdes.rsplit_once(", expected ").unwrap_or((serdes, ""));
    let found = match found.split(' ').next().unwrap_or_default() {
        "map" => "a mapping",
        "sequence" => "a list",
        "unit" | "none" | "Option" => "nothing",
        _ => "a single value",
    };
    let expected = match expected {
        "a sequence" => "a list",
        "a map" => "a mapping",
        ours => ours,
    };
    format!("expected {expected}, found {found}")
}

/// The message without the text it is about, where that may be a secret.
fn without_secret(path: &str, value: Option<&str>, message: &str) -> String {
    match value {
        Some(value) if may_hold_secret(path) => {
            message.replace(&format!("`{}`", shown(value)), "this value")
        }
        Some(_) | None => message.to_owned(),
    }
}

/// A line that is not shown because a secret may stand in it, though the problem is not about one.
fn line_may_hold_secret(line: &str) -> bool {
    let line = line.to_lowercase();
    // `@`: a URL may have a password before it.
    let words = [
        "secret", "token", "whsec_", "keys", "from:", "key:", "otlp", "ping", "@",
    ];
    words.iter().any(|word| line.contains(word))
}

fn problem(name: &str, text: &str, place: &Place, what: &str) -> Problem {
    let Place {
        path, start, end, ..
    } = place;
    let mut start = *start;
    let mut line = text.lines().nth(start.line - 1).unwrap_or_default();
    // What is missing at the end of a file is told where the last line ends.
    if let (true, Some(last)) = (line.is_empty(), text.trim_end().lines().last()) {
        let lines = text.trim_end().lines().count();
        if start.line > lines {
            line = last;
            start = Position {
                line: lines,
                column: last.chars().count() + 1,
            };
        }
    }
    let width = match start.line == end.line {
        true => end.column.saturating_sub(start.column),
        false => line
            .trim_end()
            .chars()
            .count()
            .saturating_sub(start.column - 1),
    };
    let hidden = line.is_empty() || may_hold_secret(path) || line_may_hold_secret(line);
    Problem {
        severity: Severity::Error,
        file: shown(name),
        line: start.line,
        column: start.column,
        key: path.clone(),
        what: told(&what),
        help: None,
        excerpt: (!hidden).then(|| Excerpt::around(line, start.column, width)),
    }
}
