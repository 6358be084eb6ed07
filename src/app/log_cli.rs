//! `wardent log`: what the log has, and whether it is sound.

use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::Subcommand;
use http::Method;

use super::{
    admin_cli::{Ended, ask, meaning, print_table, printable, span},
    cli::{Output, tell, tell_json},
    client::Running,
    groups_cli,
    log_reader::{Files, Reader, document},
    users_cli::{self, UsersCommand},
};
use crate::{
    admin::{
        topics::{Kept, PartitionShown, TopicShown, Topics},
        verify::Verification,
    },
    sink::verify::{Progress, Subject, Verified, verify},
};

#[derive(Debug, Subcommand)]
pub(super) enum LogCommand {
    /// List the topics and their partitions.
    #[command(after_help = "Example:\n  wardent log topics
\nOffsets are those of Kafka: events from FIRST to below END can be read. CONFIGS is what
Kafka's tools would set for a topic that is to be kept like this one.")]
    Topics,
    /// List the groups that read the log, and how far they are behind.
    #[command(
        after_help = "Examples:\n  wardent log groups\n  wardent log groups --output json
\nCOMMITTED is the next offset that a group wants to read, LAG how many records are before it, and BEHIND how old
the first of them is."
    )]
    Groups,
    /// Look at every byte: checksums, offsets, indexes, and that no access event is missing.
    #[command(
        after_help = "Examples:\n  wardent log verify\n  wardent log verify --output json\n
Exit status: 0 when all is sound, 1 when not; then it says what is wrong, and where.
It changes nothing, and gives way to requests while wardent runs."
    )]
    Verify,
    /// See and change who may log in to the Kafka listener, and what they may do.
    #[command(
        subcommand,
        after_help = "Examples:\n  wardent log users list
  wardent log users add reader --read wardent.http.access --group reader-"
    )]
    Users(UsersCommand),
}

/// Does it, and gives the exit status.
pub(super) fn run(command: &LogCommand, config: &Path, output: Output) -> ExitCode {
    match command {
        LogCommand::Topics => with_reader(config, output, topics),
        LogCommand::Groups => with_reader(config, output, groups_cli::groups),
        LogCommand::Verify => with_reader(config, output, verified),
        LogCommand::Users(command) => users_cli::run(command, config, output),
    }
}

fn with_reader(
    config: &Path,
    output: Output,
    what: fn(&Reader<'_>, Output) -> Result<ExitCode, Ended>,
) -> ExitCode {
    let done = document(config).and_then(|document| {
        let reader = Reader::open(&document)?;
        what(&reader, output)
    });
    done.unwrap_or_else(|ended| ended.told(output))
}

fn topics(reader: &Reader<'_>, output: Output) -> Result<ExitCode, Ended> {
    let topics = match reader {
        Reader::Running(running) => {
            meaning(&ask(running, Method::GET, "/api/v1/log/topics", None)?)?
        }
        Reader::Files(files) => Topics::of_files(&files.partitions),
    };
    match output {
        Output::Json => tell_json(&topics),
        Output::Text => print_topics(&topics),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_topics(topics: &Topics) {
    const TITLES: [&str; 9] = [
        "TOPIC",
        "PARTITION",
        "FIRST",
        "END",
        "BYTES",
        "SEGMENTS",
        "KEPT",
        "SAFE",
        "CONFIGS",
    ];
    let mut rows = vec![TITLES.map(str::to_owned).to_vec()];
    for topic in &topics.topics {
        let first = rows.len();
        let row = |partition| row(topic, partition);
        rows.extend(topic.partitions.iter().map(row));
        // Once for all of its partitions.
        if let (Some(row), Some(kept)) = (rows.get_mut(first), &topic.kept) {
            let configs = kept.configs.iter();
            let configs = configs.map(|(name, value)| format!("{name}={value}"));
            row.push(configs.collect::<Vec<_>>().join(" "));
        }
    }
    print_table(&rows);
}

fn row(topic: &TopicShown, partition: &PartitionShown) -> Vec<String> {
    let kept = topic.kept.as_ref();
    let safe = match (partition.offline, kept) {
        (true, _) => "offline: takes nothing",
        (false, Some(kept)) if kept.durable => "on disk",
        (false, Some(_)) => "within seconds",
        (false, None) => "-",
    };
    vec![
        printable(&topic.name),
        partition.partition.to_string(),
        partition.log_start_offset.to_string(),
        partition.high_watermark.to_string(),
        bytes(partition.bytes),
        partition.segments.to_string(),
        kept.map_or_else(|| "-".to_owned(), keeping),
        safe.to_owned(),
    ]
}

fn keeping(kept: &Kept) -> String {
    let age = kept.retention_ms.map(span);
    let size = kept.retention_bytes.map(bytes);
    let bounds: Vec<_> = [age, size].into_iter().flatten().collect();
    match (kept.cleanup.as_str(), bounds.as_slice()) {
        ("compact", []) => "last of each key".to_owned(),
        ("compact", bounds) => format!("last of each key, {}", bounds.join(", ")),
        (_, []) => "all".to_owned(),
        (_, bounds) => bounds.join(", "),
    }
}

/// Bytes in their largest unit: `1.4 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let (mut tenths, mut unit) = (count * 10 / 1_024, "KiB");
    for next in UNITS.into_iter().skip(1) {
        if tenths < 10_240 {
            break;
        }
        (tenths, unit) = (tenths / 1_024, next);
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

fn verified(reader: &Reader<'_>, output: Output) -> Result<ExitCode, Ended> {
    let mut meter = Meter::new();
    let verified = match reader {
        Reader::Running(running) => ask_to_verify(running, &mut meter),
        Reader::Files(files) => verify_files(files, &mut meter),
    };
    meter.clear();
    let verified = verified?;
    match output {
        Output::Json => tell_json(&verified),
        Output::Text => print_verified(&verified),
    }
    Ok(match verified.is_sound() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn ask_to_verify(running: &Running<'_>, meter: &mut Meter) -> Result<Verified, String> {
    const API: &str = "/api/v1/log/verify";
    let mut state: Verification = meaning(&ask(running, Method::POST, API, None)?)?;
    loop {
        if let Some(verified) = state.verified {
            return Ok(verified);
        }
        if let Some(error) = state.error {
            return Err(error);
        }
        meter.show(state.progress);
        let target = format!("{API}?job={}", state.job);
        state = meaning(&ask(running, Method::GET, &target, None)?)?;
    }
}

fn verify_files(files: &Files, meter: &mut Meter) -> Result<Verified, String> {
    let subject = Subject {
        dir: &files.dir,
        disk: &*files.disk,
        partitions: &files.partitions,
        is_running: false,
    };
    let verified = verify(subject, &mut |progress| {
        meter.show(progress);
        true
    });
    let verified = verified.map_err(|error| format!("{}: {error}", files.dir.display()))?;
    verified.ok_or_else(|| "it was broken off".to_owned())
}

fn print_verified(verified: &Verified) {
    for finding in &verified.findings {
        let at = finding
            .position
            .map(|position| format!(" at byte {position}"));
        tell(&format!(
            "{}{}: {}",
            printable(&finding.file),
            at.unwrap_or_default(),
            printable(&finding.what)
        ));
    }
    let unnamed = verified.wrong - verified.findings.len() as u64;
    if unnamed > 0 {
        tell(&format!("wrong besides, and not named: {unnamed}"));
    }
    let access = &verified.access;
    for hole in &access.holes {
        tell(&format!(
            "missing: access events {} to {} of lane {}, run {}",
            hole.from,
            hole.to,
            hole.lane,
            printable(&hole.run)
        ));
    }
    tell(&format!(
        "partitions: {}, segments: {}, {}; sound batches: {}, of {} records; wrong: {}",
        verified.partitions,
        verified.segments,
        bytes(verified.bytes),
        verified.batches,
        verified.records,
        verified.wrong
    ));
    if verified.torn_bytes > 0 {
        tell(&format!(
            "at the ends of partitions no whole batches: {}; the next start takes that off",
            bytes(verified.torn_bytes)
        ));
    }
    tell(&format!(
        "access events: {}, of {} lanes; told as lost: {}, missing: {}, there twice: {}",
        access.events, access.lanes, access.told_lost, access.missing, access.repeated
    ));
    if access.missing_at_end > 0 {
        tell(&format!(
            "not there of the last seconds of a run: {}; on their way, or lost when the process was killed",
            access.missing_at_end
        ));
    }
    if access.is_unproven {
        tell("whether access events are missing is not known: they stand too far out of order");
    }
}

/// How far it is, for a person who waits.
struct Meter {
    is_shown: bool,
    percent: u64,
}

impl Meter {
    fn new() -> Self {
        Self {
            is_shown: std::io::stderr().is_terminal(),
            percent: u64::MAX,
        }
    }

    fn show(&mut self, progress: Progress) {
        let percent = progress.bytes.saturating_mul(100) / progress.of.max(1);
        if self.is_shown && percent != self.percent {
            self.percent = percent;
            let _ = write!(std::io::stderr(), "\r{percent} % of {}", bytes(progress.of));
        }
    }

    /// Leaves the line to the result.
    fn clear(&self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_their_largest_unit() {
        for (count, told) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_535, "1.4 KiB"),
            (64 << 20, "64.0 MiB"),
            (3 << 40, "3.0 TiB"),
            (5 << 50, "5120.0 TiB"),
        ] {
            assert_eq!(bytes(count), told);
        }
    }

    #[test]
    fn keeping_is_told_in_words() {
        let kept = |cleanup: &str, age: Option<u64>, size| {
            keeping(&Kept {
                configs: std::collections::BTreeMap::new(),
                durable: false,
                cleanup: cleanup.to_owned(),
                retention_ms: age,
                retention_bytes: size,
            })
        };
        assert_eq!(kept("delete", None, None), "all");
        assert_eq!(
            kept("delete", Some(7 * 86_400_000), Some(1 << 30)),
            "7d 0h, 1.0 GiB"
        );
        assert_eq!(kept("compact", None, None), "last of each key");
    }
}
