//! `wardent log groups`: who reads the log in groups, and how far they are behind.

use std::process::ExitCode;

use http::Method;

use super::{
    admin_cli::{Ended, ask, meaning, print_table, printable, span},
    cli::{Output, tell_json},
    log_reader::{Files, Reader},
};
use crate::{
    admin::groups::{Group, Groups, Lag},
    base::clock::Clock,
    kafka::groups_in,
};

/// Lists the groups.
pub(super) fn groups(reader: &Reader<'_>, output: Output) -> Result<ExitCode, Ended> {
    let groups = match reader {
        Reader::Running(running) => {
            meaning(&ask(running, Method::GET, "/api/v1/log/groups", None)?)?
        }
        Reader::Files(files) => of_files(files),
    };
    match output {
        Output::Json => tell_json(&groups),
        Output::Text => print(&groups),
    }
    Ok(ExitCode::SUCCESS)
}

fn of_files(files: &Files) -> Groups {
    let clock = Clock::system();
    let shown = groups_in(&files.partitions, &clock);
    let partition = |topic: &str, index| {
        let mut all = files.partitions.iter();
        all.find(|one| one.index() == index && one.topic().name == topic)
            .cloned()
    };
    Groups::of(&shown, partition, clock.unix_ms())
}

fn print(groups: &Groups) {
    const TITLES: [&str; 8] = [
        "GROUP",
        "STATE",
        "MEMBERS",
        "PARTITION",
        "COMMITTED",
        "END",
        "LAG",
        "BEHIND",
    ];
    let mut rows = vec![TITLES.map(str::to_owned).to_vec()];
    for group in &groups.groups {
        rows.push(total(group));
        rows.extend(group.partitions.iter().map(|lag| row(group, lag)));
    }
    print_table(&rows);
}

/// The group as a whole.
fn total(group: &Group) -> Vec<String> {
    let state = match group.state.as_str() {
        "PreparingRebalance" | "CompletingRebalance" => "rebalancing".to_owned(),
        state => state.to_ascii_lowercase(),
    };
    vec![
        printable(&group.group),
        state,
        group.members.len().to_string(),
        "all".to_owned(),
        String::new(),
        String::new(),
        group.lag_records.to_string(),
        behind(group.lag_records, group.lag_seconds),
    ]
}

fn row(group: &Group, lag: &Lag) -> Vec<String> {
    vec![
        printable(&group.group),
        String::new(),
        String::new(),
        format!("{}-{}", printable(&lag.topic), lag.partition),
        lag.committed.to_string(),
        lag.end
            .map_or_else(|| "gone".to_owned(), |end| end.to_string()),
        lag.lag_records.to_string(),
        behind(lag.lag_records, lag.lag_seconds),
    ]
}

/// How old the first record is that was not read; `?` where that is not known.
pub(super) fn behind(records: u64, seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return if records == 0 { "-" } else { "?" }.to_owned();
    };
    let age = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    span(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is_behind_is_told_in_words() {
        assert_eq!(behind(0, None), "-");
        assert_eq!(behind(7, None), "?");
        assert_eq!(behind(7, Some(0.5)), "1s");
        assert_eq!(behind(7, Some(3_700.0)), "1h 1m");
    }
}
