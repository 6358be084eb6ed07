//! In which of two formats the metrics are told: OpenMetrics to who asks for it, as Prometheus does, else
//! Prometheus' older text format, which everything reads.
//!
//! They differ in how a family is called (the older one calls a counter by its sample's name, with `_total`),
//! in the types they know, and in the end mark.

use std::fmt::Write as _;

/// The content type of OpenMetrics.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of Prometheus' text format.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether an `Accept` field asks for OpenMetrics, and not less than for anything else.
///
/// Only what scrapers send is looked at: the media type, and a quality of zero.
pub fn wants_open_metrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_it = parts.next() == Some("application/openmetrics-text");
        is_it && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
    })
}

/// An OpenMetrics page in Prometheus' text format.
pub fn as_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut kind_of_last = "";
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some((name, help)) = after("# HELP ", line) {
            // The type, which decides on the name, stands on the next line.
            let kind = lines.peek().and_then(|next| after("# TYPE ", next));
            kind_of_last = kind.map_or("", |(_, kind)| kind);
            let suffix = suffix(kind_of_last);
            // Writing to memory does not fail.
            let _ = writeln!(text, "# HELP {name}{suffix} {help}");
        } else if let Some((name, kind)) = after("# TYPE ", line) {
            let kind = if kind == "info" { "gauge" } else { kind };
            let _ = writeln!(text, "# TYPE {name}{} {kind}", suffix(kind_of_last));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn after<'a>(mark: &str, line: &'a str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(mark)?.split_once(' ')
}

fn suffix(kind: &str) -> &'static str {
    match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_infos_are_called_as_their_samples_are() {
        let page = "# HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                    a_seconds_total 1.5\n# HELP b Which.\n# TYPE b info\nb_info{version=\"1\"} 1\n\
                    # HELP c Now.\n# TYPE c gauge\nc 2\n# EOF\n";
        let text = "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\n\
                    a_seconds_total 1.5\n# HELP b_info Which.\n# TYPE b_info gauge\nb_info{version=\"1\"} 1\n\
                    # HELP c Now.\n# TYPE c gauge\nc 2\n";
        assert_eq!(as_text(page), text);
    }

    #[test]
    fn who_asks_for_open_metrics_gets_it() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        ] {
            assert!(wants_open_metrics(accept), "{accept}");
        }
        for accept in ["", "*/*", "text/plain", "application/openmetrics-text;q=0"] {
            assert!(!wants_open_metrics(accept), "{accept}");
        }
    }
}
