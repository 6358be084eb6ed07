//! What is wrong with a file, told the way a compiler would: where, what, and what would be right.

use std::{fmt, path::Path};

use serde::Serialize;

/// Everything that was found wrong at once. Displays as one block per problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was found, in the order of the files.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, problem) in self.problems.iter().enumerate() {
            if nth > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

impl From<Problem> for Report {
    fn from(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
        }
    }
}

/// Whether a problem refuses the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used, but somebody should look.
    Warning,
}

/// One thing that is wrong, and where. Holds no secret and no byte that could move a cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether it refuses the file.
    pub severity: Severity,
    /// The file, as the user named it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters, from 1.
    pub column: usize,
    /// The path of the key, such as `routes[0].limit.rate`; empty for the file itself.
    pub key: String,
    /// What is wrong and what would be right, in one line.
    pub what: String,
    /// More advice, where there is some.
    pub help: Option<String>,
    /// The line itself, unless it may hold a secret.
    pub excerpt: Option<Excerpt>,
}

impl Problem {
    /// An error in a line, from 1, of a file that is no YAML and holds no secret.
    pub fn in_line(file: &Path, text: &str, line: usize, what: &dyn fmt::Display) -> Self {
        let own = text.lines().nth(line.saturating_sub(1));
        let own = own.filter(|own| !own.trim().is_empty());
        Self {
            severity: Severity::Error,
            file: shown(&file.display().to_string()),
            line,
            column: 1,
            key: String::new(),
            what: told(what),
            help: None,
            excerpt: own.map(|own| Excerpt::around(own, 1, own.chars().count())),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file, line, column, ..
        } = self;
        let warning = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        writeln!(f, "{file}:{line}:{column}: {warning}{}", self.what)?;
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        if let Some(excerpt) = &self.excerpt {
            let indent = " ".repeat(excerpt.caret);
            let carets = "^".repeat(excerpt.width);
            writeln!(f, "{gutter} |")?;
            writeln!(f, "{number} | {}", excerpt.text)?;
            writeln!(f, "{gutter} | {indent}{carets}")?;
        }
        match &self.help {
            Some(help) => writeln!(f, "{gutter} = help: {help}"),
            None => Ok(()),
        }
    }
}

/// The line a problem stands in, cut to what fits a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// The text, printable.
    pub text: String,
    /// How many characters stand before the first caret.
    pub caret: usize,
    /// How many carets there are; at least one.
    pub width: usize,
}

impl Excerpt {
    /// The part of `line` around `width` characters from `column` (from 1) on.
    pub(super) fn around(line: &str, column: usize, width: usize) -> Self {
        let chars: Vec<char> = line.trim_end().chars().map(one_column).collect();
        let start = column.saturating_sub(1).min(chars.len());
        let first = match start > COLUMNS / 2 {
            true => start - COLUMNS / 2,
            false => 0,
        };
        let shown: String = chars.iter().skip(first).take(COLUMNS).collect();
        let room = (first + COLUMNS).min(chars.len()).saturating_sub(start);
        let (before, after) = (first > 0, first + COLUMNS < chars.len());
        Self {
            text: format!("{}{shown}{}", dots(before), dots(after)),
            caret: start - first + usize::from(before),
            width: width.clamp(1, room.max(1)),
        }
    }

    /// The same line, ending where the carets end: what follows a mistyped key may be a secret.
    pub(super) fn cut_behind_caret(self) -> Self {
        let kept: String = self.text.chars().take(self.caret + self.width).collect();
        let cut = kept.len() < self.text.len();
        Self {
            text: format!("{kept}{}", if cut { ": …" } else { "" }),
            ..self
        }
    }
}

/// As much of a line as is shown.
const COLUMNS: usize = 100;

fn dots(cut: bool) -> &'static str {
    if cut { "…" } else { "" }
}

fn one_column(c: char) -> char {
    match c {
        '\t' => ' ',
        c if is_harmful(c) => '\u{fffd}',
        c => c,
    }
}

/// Text from a file as it may be shown: control and direction characters spelled out, long text cut.
pub(super) fn shown(text: &str) -> String {
    printable(text, 80)
}

/// A message about text from a file, made as harmless as the text itself has to be.
pub(super) fn told(message: &dyn fmt::Display) -> String {
    printable(&message.to_string(), 400)
}

fn printable(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    for (nth, c) in text.chars().enumerate() {
        match c {
            _ if nth == chars_max => {
                shown.push('…');
                break;
            }
            c if is_harmful(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// Control characters drive terminals; the bidirectional ones make text read as what it is not
/// (CVE-2021-42574).
fn is_harmful(c: char) -> bool {
    let turns_text =
        matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns_text || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_a_compilers() {
        let problem = Problem {
            severity: Severity::Error,
            file: "wardent.yaml".into(),
            line: 3,
            column: 11,
            key: "rate".into(),
            what: "rate: unknown unit `parsec` (use s, m, h, d)".into(),
            help: Some("write 10/s".into()),
            excerpt: Some(Excerpt::around("    rate: 10/parsec", 11, 9)),
        };
        let expected = "\
wardent.yaml:3:11: rate: unknown unit `parsec` (use s, m, h, d)
  |
3 |     rate: 10/parsec
  |           ^^^^^^^^^
  = help: write 10/s
";
        assert_eq!(problem.to_string(), expected);
    }

    #[test]
    fn a_long_line_is_cut_around_its_caret() {
        let line = format!("{}HERE{}", "a".repeat(5_000), "b".repeat(5_000));
        let excerpt = Excerpt::around(&line, 5_001, 4);
        assert_eq!(excerpt.text.chars().count(), COLUMNS + 2);
        let marked = excerpt.text.chars().skip(excerpt.caret);
        assert_eq!(marked.take(excerpt.width).collect::<String>(), "HERE");
    }

    #[test]
    fn a_caret_behind_the_end_still_shows() {
        let excerpt = Excerpt::around("ab", 99, 99);
        assert_eq!((excerpt.caret, excerpt.width), (2, 1));
    }

    #[test]
    fn hostile_text_cannot_drive_a_terminal() {
        assert_eq!(shown("a\u{1b}[31m\u{202e}b"), "a\\u{1b}[31m\\u{202e}b");
        assert_eq!(Excerpt::around("\ta\u{1b}", 1, 1).text, " a\u{fffd}");
    }
}
