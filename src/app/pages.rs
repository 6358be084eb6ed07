//! `wardent completions` and `wardent man`: what shells and `man` know of the commands, made of the commands.

use std::{path::Path, process::ExitCode};

use clap_complete::{Shell, generate};
use clap_mangen::generate_to;

use super::cli::{commands, fail, tell};

/// Writes completions to standard output.
pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    generate(shell, &mut commands(), "wardent", &mut script);
    tell(String::from_utf8_lossy(&script).trim_end());
    ExitCode::SUCCESS
}

/// Writes a page for each command.
pub(super) fn man(dir: &Path) -> ExitCode {
    match generate_to(commands(), dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{}: {error}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let dir = tempfile::tempdir().unwrap();
        generate_to(commands(), dir.path()).unwrap();
        for page in [
            "wardent",
            "wardent-bans-add",
            "wardent-log-topics",
            "wardent-doctor",
        ] {
            let text = fs::read_to_string(dir.path().join(format!("{page}.1"))).unwrap();
            assert!(
                text.contains(".SH NAME") && text.contains("Example"),
                "{page}: {text}"
            );
        }
    }

    #[test]
    fn every_command_that_does_something_shows_an_example() {
        fn look(command: &clap::Command, silent: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string);
            if !help.is_some_and(|help| help.contains("Example")) {
                silent.push(command.get_name().to_owned());
            }
            command
                .get_subcommands()
                .for_each(|inner| look(inner, silent));
        }
        let mut silent = Vec::new();
        look(&commands(), &mut silent);
        assert_eq!(silent, Vec::<String>::new());
    }
}
