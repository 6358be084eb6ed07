//! What every Prometheus client says of its process, from `/proc/self`, and which build this is.
//!
//! Names and meanings are those of Prometheus' own client libraries, so that dashboards know them. Of `/proc`
//! nothing else is read: a service may be shown no more (`ProcSubset=pid`).

use std::{fmt, fs, time::Duration};

use prometheus_client::metrics::MetricType;
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use super::metrics::Encoder;

/// Where the fields of `/proc/self/stat` stand, counted from the one after the command's name (proc(5) counts
/// that name as the second).
const UTIME: usize = 14 - 3;
const STIME: usize = 15 - 3;
const THREADS: usize = 20 - 3;
const RSS_PAGES: usize = 24 - 3;

/// Of a process that started at this moment, in Unix milliseconds.
pub(super) fn encode(encoder: &mut Encoder<'_>, started_unix_ms: u64) -> fmt::Result {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    encoder
        .descriptor("wardent_build", "Which Wardent this is", MetricType::Info)?
        .encode_info(&version)?;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let field = |nth| number_after_name(&stat, nth);
    if let (Some(user), Some(system)) = (field(UTIME), field(STIME)) {
        encoder.seconds_counter(
            "process_cpu_seconds",
            "Time that the process has had on processors, its own and the kernel's",
            of_ticks(user.saturating_add(system)),
        )?;
    }
    if let Some(pages) = field(RSS_PAGES) {
        encoder.gauge(
            "process_resident_memory_bytes",
            "Memory of the process that is in RAM",
            pages.saturating_mul(page_size() as u64),
        )?;
    }
    if let Some(threads) = field(THREADS) {
        encoder.gauge("process_threads", "Threads of the process", threads)?;
    }
    encoder.seconds(
        "process_start_time_seconds",
        "When the process started, since 1970",
        Duration::from_millis(started_unix_ms),
    )?;
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let open = open.count() as u64;
        encoder.gauge("process_open_fds", "Descriptors that are open", open)?;
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    encoder.gauge("process_max_fds", "Descriptors that may be open", most)
}

/// A number of `/proc/self/stat`, by its place after the command's name, which may hold anything.
fn number_after_name(stat: &str, nth: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_ascii_whitespace().nth(nth)?.parse().ok()
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1_000) / clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_moves_no_field() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 31 12 0 0 20 0 9 0 5000 1000 250";
        assert_eq!(number_after_name(stat, UTIME), Some(31));
        assert_eq!(number_after_name(stat, STIME), Some(12));
        assert_eq!(number_after_name(stat, THREADS), Some(9));
        assert_eq!(number_after_name(stat, RSS_PAGES), Some(250));
    }
}
