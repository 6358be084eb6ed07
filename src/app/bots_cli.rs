//! `wardent bots`: what a user agent is taken for, and which bots are known.

use std::{
    io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Subcommand;
use serde_json::json;

use super::{
    bots,
    cli::{EX_CONFIG, Output, complain},
};
use crate::bots::{Bot, Catalogue, Entry};

#[derive(Debug, Subcommand)]
pub(super) enum BotsCommand {
    /// Say what each user agent is taken for: standard input, one a line.
    #[command(after_help = "Example:\n  echo 'GPTBot/1.2' | wardent bots classify\n
Prints the category, a tab and the name; `human` where it may be a person.")]
    Classify {
        /// A catalogue instead of the one inside the binary.
        #[arg(long, value_name = "FILE")]
        catalogue: Option<PathBuf>,
    },
    /// List the known bots.
    #[command(after_help = "Example:\n  wardent bots list | grep search-engine\n
Prints category, name, and what a claim to the name can be held against.")]
    List {
        /// A catalogue instead of the one inside the binary.
        #[arg(long, value_name = "FILE")]
        catalogue: Option<PathBuf>,
    },
}

pub(super) fn run(command: &BotsCommand, output: Output) -> ExitCode {
    let (BotsCommand::Classify { catalogue: file } | BotsCommand::List { catalogue: file }) =
        command;
    let catalogue = match file
        .as_deref()
        .map_or_else(|| Ok(Catalogue::shipped()), bots::catalogue)
    {
        Ok(catalogue) => catalogue,
        Err(report) => {
            complain(report.to_string().trim_end());
            return ExitCode::from(EX_CONFIG);
        }
    };
    let out = BufWriter::new(io::stdout().lock());
    let done = match command {
        BotsCommand::Classify { .. } => {
            let input = BufReader::with_capacity(INPUT_BUFFER, io::stdin().lock());
            classify(&catalogue, input, out, output)
        }
        BotsCommand::List { .. } => list(catalogue.entries(), out, output),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads the result has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("standard input or output failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

const INPUT_BUFFER: usize = 64 * 1_024;

/// How much of a line is kept, in bytes: more than a catalogue reads of a user agent.
const LINE_MAX: usize = 4_096;

/// Answers line by line; whoever asks one question and waits gets its answer.
fn classify<R: io::Read>(
    catalogue: &Catalogue,
    mut input: BufReader<R>,
    mut out: impl Write,
    output: Output,
) -> io::Result<()> {
    let mut line = Vec::new();
    while next_line(&mut input, &mut line)? {
        let bot = catalogue.classify(&line);
        match output {
            Output::Text => match bot {
                Some(Bot { name, category, .. }) => writeln!(out, "{category}\t{name}")?,
                None => writeln!(out, "human")?,
            },
            Output::Json => {
                let said = json!({
                    "category": bot.map_or("human", |bot| bot.category.word()),
                    "name": bot.map(|bot| bot.name),
                    "listed": bot.is_some_and(|bot| bot.entry.is_some()),
                });
                writeln!(out, "{said}")?;
            }
        }
        if input.buffer().is_empty() {
            out.flush()?;
        }
    }
    out.flush()
}

/// Reads a line of any bytes, of which the first [`LINE_MAX`] are kept; false at the end.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut has_begun = false;
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(has_begun);
        }
        has_begun = true;
        let end = memchr::memchr(b'\n', available);
        let piece = available.get(..end.unwrap_or(available.len()));
        let room = LINE_MAX - line.len();
        line.extend(piece.unwrap_or_default().iter().take(room));
        let used = end.map_or(available.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

fn list(entries: &[Entry], mut out: impl Write, output: Output) -> io::Result<()> {
    match output {
        Output::Text => {
            for entry in entries {
                let proofs = proofs(entry).join(",");
                writeln!(out, "{:<18}{:<22}{}", entry.category, proofs, entry.name)?;
            }
        }
        Output::Json => {
            let bot = |entry: &Entry| {
                json!({
                    "category": entry.category.word(),
                    "name": entry.name,
                    "tokens": entry.tokens.iter().map(|t| &t.text).collect::<Vec<_>>(),
                    "networks": entry.networks,
                    "dns": entry.domains,
                    "signature": entry.signers,
                })
            };
            let bots: Vec<_> = entries.iter().map(bot).collect();
            writeln!(out, "{}", json!(bots))?;
        }
    }
    out.flush()
}

/// What a claim to be this bot can be held against.
fn proofs(entry: &Entry) -> Vec<&'static str> {
    let all = [
        ("networks", !entry.networks.is_empty()),
        ("dns", !entry.domains.is_empty()),
        ("signature", !entry.signers.is_empty()),
    ];
    let own: Vec<_> = all.iter().filter(|(_, is_there)| *is_there).collect();
    if own.is_empty() {
        return vec!["-"];
    }
    own.into_iter().map(|(word, _)| *word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(input: &[u8], output: Output) -> String {
        let mut out = Vec::new();
        let input = BufReader::with_capacity(8, input);
        classify(&Catalogue::shipped(), input, &mut out, output).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_gets_one_line() {
        let input = b"GPTBot/1.2\nMozilla/5.0 (Windows NT 10.0) Firefox/130.0\n\nZibblebot";
        assert_eq!(
            said(input, Output::Text),
            "ai-training\tGPTBot\nhuman\nunknown\tno user agent\nunknown\tZibblebot\n"
        );
        assert_eq!(said(b"", Output::Text), "");
    }

    #[test]
    fn lines_of_any_bytes_and_of_any_length_are_read() {
        let mut input = b"\xff\xfeGPTBot\r\n".to_vec();
        input.extend([b'x'; 3 * LINE_MAX]);
        input.extend(b"\nGPTBot\n");
        assert_eq!(
            said(&input, Output::Text),
            "ai-training\tGPTBot\nunknown\toverlong user agent\nai-training\tGPTBot\n"
        );
    }

    #[test]
    fn json_tells_people_and_unlisted_bots_apart_from_listed_ones() {
        assert_eq!(
            said(b"GPTBot\nAndroid\n", Output::Json),
            "{\"category\":\"ai-training\",\"listed\":true,\"name\":\"GPTBot\"}\n\
             {\"category\":\"human\",\"listed\":false,\"name\":null}\n"
        );
    }

    #[test]
    fn the_list_says_what_a_claim_is_held_against() {
        let catalogue = Catalogue::parse("seo\tFoo\nsearch-engine\tBar\tdns=bar.example").unwrap();
        let mut out = Vec::new();
        list(catalogue.entries(), &mut out, Output::Text).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "seo               -                     Foo\n\
             search-engine     dns                   Bar\n"
        );
    }
}
