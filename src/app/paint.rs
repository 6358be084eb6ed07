//! Colours, where a person looks: on a terminal that has them, and not where `NO_COLOR` asks for none
//! (<https://no-color.org>).

use std::{
    env,
    io::{IsTerminal, stderr, stdout},
};

use anstyle::{AnsiColor, Style};

/// Puts text in colours, or leaves it alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    is_on: bool,
}

impl Paint {
    /// For standard output.
    pub(super) fn of_output() -> Self {
        Self::where_it_is(stdout().is_terminal())
    }

    /// For standard error.
    pub(super) fn of_errors() -> Self {
        Self::where_it_is(stderr().is_terminal())
    }

    fn where_it_is(is_terminal: bool) -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            is_on: is_terminal && !is_dumb && !is_set("NO_COLOR"),
        }
    }

    /// One that leaves text alone.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { is_on: false }
    }

    /// What all is well with.
    pub(super) fn good(self, text: &str) -> String {
        self.with(AnsiColor::Green.on_default(), text)
    }

    /// What somebody should look at.
    pub(super) fn warning(self, text: &str) -> String {
        self.with(AnsiColor::Yellow.on_default().bold(), text)
    }

    /// What is wrong.
    pub(super) fn bad(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default().bold(), text)
    }

    /// What the eye should find.
    pub(super) fn strong(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    fn with(self, style: Style, text: &str) -> String {
        match self.is_on {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_painted_only_where_that_is_wanted() {
        let on = Paint { is_on: true };
        assert_eq!(on.bad("x"), "\u{1b}[1m\u{1b}[31mx\u{1b}[0m");
        assert_eq!(Paint::none().bad("x"), "x");
    }
}
