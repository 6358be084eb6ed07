//! Events for a person at a terminal, a line each.
//!
//! What strangers wrote is shown as access lines show it: nothing but printable ASCII leaves here.

use serde_json::{Map, Value};

/// One event as one line.
pub(super) fn line(event: &Map<String, Value>) -> String {
    match event.get("event").and_then(Value::as_str) {
        Some("access") => access(event),
        Some("gap") => gap(event),
        Some("ban") => ban(event),
        Some("audit") => audit(event),
        Some("tombstone") => tombstone(event),
        _ => other(event),
    }
}

/// As the access line on standard output.
fn access(event: &Map<String, Value>) -> String {
    let field = |name| text(event, name);
    let reason = match event.get("reason") {
        Some(_) => {
            let is_observed = event.get("enforced") == Some(&Value::Bool(false));
            let only = if is_observed { "only observed: " } else { "" };
            format!(" ({only}{}: {})", field("reason"), field("why"))
        }
        None => String::new(),
    };
    let total_us = event.get("total_us").and_then(Value::as_u64).unwrap_or(0);
    format!(
        "{} {} {} {}{} {} {}{reason} {}.{:03} ms {}",
        field("time"),
        field("client"),
        field("method"),
        text_or(event, "host", ""),
        text_or(event, "path", ""),
        field("status"),
        field("verdict"),
        total_us / 1_000,
        total_us % 1_000,
        field("id"),
    )
}

fn gap(event: &Map<String, Value>) -> String {
    let field = |name| text(event, name);
    format!(
        "{} {} events were lost: {} to {} of lane {}, run {} ({})",
        field("time"),
        field("events"),
        field("from"),
        field("to"),
        field("lane"),
        field("run"),
        field("reason"),
    )
}

fn ban(event: &Map<String, Value>) -> String {
    let field = |name| text(event, name);
    format!(
        "{} {} {}, level {}, until {}, by {}{}",
        field("time"),
        field("target"),
        field("state"),
        field("level"),
        field("until"),
        field("by"),
        why(event),
    )
}

/// A record without a value, by which all that its key remembered is forgotten.
fn tombstone(event: &Map<String, Value>) -> String {
    format!("{} {} forgotten", text(event, "time"), text(event, "key"))
}

fn audit(event: &Map<String, Value>) -> String {
    let field = |name| text(event, name);
    let is_observed = event.get("enforced") == Some(&Value::Bool(false));
    let only = if is_observed { " (only observed)" } else { "" };
    format!(
        "{} {} {} by {}{only}{}",
        field("time"),
        field("what"),
        field("target"),
        field("actor"),
        why(event),
    )
}

/// What follows where a reason was given.
fn why(event: &Map<String, Value>) -> String {
    match text_or(event, "why", "").as_str() {
        "" => String::new(),
        why => format!(": {why}"),
    }
}

/// The moment, the kind, and then every field.
fn other(event: &Map<String, Value>) -> String {
    let mut line = format!("{} {}", text(event, "time"), text(event, "event"));
    for (name, value) in event {
        if !["time", "event", "v"].contains(&name.as_str()) {
            line.push_str(&format!(" {}={}", escaped(name), shown(value)));
        }
    }
    line
}

/// All fields of an event, but for the names in `but`.
pub(super) fn fields(event: &Map<String, Value>, but: &[&str]) -> Vec<[String; 2]> {
    let others = event
        .iter()
        .filter(|(name, _)| !but.contains(&name.as_str()));
    let pairs = others.map(|(name, value)| [escaped(name), shown(value)]);
    pairs.collect()
}

/// A field as it is shown; `-` where it is missing.
pub(super) fn text(event: &Map<String, Value>, name: &str) -> String {
    text_or(event, name, "-")
}

fn text_or(event: &Map<String, Value>, name: &str, missing: &str) -> String {
    event.get(name).map_or_else(|| missing.to_owned(), shown)
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            // JSON has escapes of its own; what is not ASCII has not.
            let told = value.to_string();
            told.chars()
                .map(|c| if is_plain(c) { c.to_string() } else { code(c) })
                .collect()
        }
    }
}

/// Text as events hold it.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if is_plain(c) => out.push(c),
            c => out.push_str(&code(c)),
        }
        out
    })
}

fn is_plain(c: char) -> bool {
    c == ' ' || c.is_ascii_graphic()
}

fn code(c: char) -> String {
    format!("\\u{:04x}", u32::from(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(event: &str) -> String {
        line(&serde_json::from_str(event).unwrap())
    }

    #[test]
    fn a_request_is_told_as_its_access_line() {
        let event = r#"{"event":"access","v":1,"time":"2026-11-21T10:00:01.042Z","id":"01KAJ0000000000000000000AA","client":"198.51.100.7","method":"GET","host":"app.test","path":"/up\u001b","status":413,"verdict":"refused","reason":"body_too_large","why":"the declared length is over the route's bound","total_us":1042}"#;
        assert_eq!(
            told(event),
            "2026-11-21T10:00:01.042Z 198.51.100.7 GET app.test/up\\u001b 413 refused \
             (body_too_large: the declared length is over the route's bound) 1.042 ms \
             01KAJ0000000000000000000AA"
        );
        let event = r#"{"event":"access","time":"t","method":"GET","status":0,"verdict":"aborted","reason":"bot","enforced":false,"total_us":5}"#;
        assert_eq!(
            told(event),
            "t - GET  0 aborted (only observed: bot: -) 0.005 ms -"
        );
    }

    #[test]
    fn a_gap_says_what_was_lost() {
        let event = r#"{"event":"gap","v":1,"time":"t","run":"00c0ffee","lane":1,"from":3,"to":5,"events":3,"reason":"lane_full"}"#;
        assert_eq!(
            told(event),
            "t 3 events were lost: 3 to 5 of lane 1, run 00c0ffee (lane_full)"
        );
    }

    #[test]
    fn a_ban_and_what_was_done_about_it_are_told_in_a_line() {
        let ban = r#"{"event":"ban","v":1,"time":"t","target":"198.51.100.7","state":"active","level":2,"until":"u","by":"policy","why":"trap"}"#;
        assert_eq!(
            told(ban),
            "t 198.51.100.7 active, level 2, until u, by policy: trap"
        );
        let audit = r#"{"event":"audit","v":1,"time":"t","what":"would_ban","actor":"policy","target":"198.51.100.7","why":"trap","enforced":false}"#;
        assert_eq!(
            told(audit),
            "t would_ban 198.51.100.7 by policy (only observed): trap"
        );
        let audit = r#"{"event":"audit","v":1,"time":"t","what":"unban","actor":"uid:0","target":"198.51.100.7","why":"","enforced":true}"#;
        assert_eq!(told(audit), "t unban 198.51.100.7 by uid:0");
        let tombstone = r#"{"event":"tombstone","v":1,"time":"t","key":"198.51.100.7"}"#;
        assert_eq!(told(tombstone), "t 198.51.100.7 forgotten");
    }

    #[test]
    fn other_events_show_all_they_hold() {
        let event = r#"{"event":"x","v":1,"time":"t","target":"198.51.100.7","level":2,"evidence":[{"path":"/é"}]}"#;
        assert_eq!(
            told(event),
            "t x evidence=[{\"path\":\"/\\u00e9\"}] level=2 target=198.51.100.7"
        );
    }

    #[test]
    fn nothing_a_stranger_wrote_moves_the_cursor() {
        let hostile = "\\u001b[2J\\u009b\\u202e\\r\\n\\u007f\u{85}\u{9b}é\\\"\\\\";
        for kind in ["access", "gap", "ban", "audit", "tombstone", "x\\u001b"] {
            let names = [
                "time", "client", "host", "path", "reason", "why", "id", "run", "z\\u009b",
            ];
            let fields: Vec<_> = names
                .iter()
                .map(|name| format!("\"{name}\":\"{hostile}\""))
                .collect();
            let event = format!(
                "{{\"event\":\"{kind}\",{},\"deep\":[\"{hostile}\"]}}",
                fields.join(",")
            );
            let told = told(&event);
            assert!(
                told.bytes().all(|byte| (0x20..=0x7e).contains(&byte)),
                "{told:?}"
            );
        }
    }
}
