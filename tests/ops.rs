//! What ships for Prometheus and Grafana speaks of what there is: metrics, and chapters of the runbook.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{collections::BTreeSet, fs, path::Path};

use regex_lite::Regex;
use serde_json::Value;

const ALERTS: &str = "ops/prometheus/alerts.yaml";
const ALERTS_TEST: &str = "ops/prometheus/alerts_test.yaml";
const DASHBOARD: &str = "ops/grafana/wardent.json";

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap()
}

/// All that a pattern's first group finds.
fn found(pattern: &str, text: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).unwrap();
    let all = pattern.captures_iter(text);
    all.map(|found| found[1].to_owned()).collect()
}

/// The names of all families and samples.
fn metrics() -> BTreeSet<String> {
    let page = support::metrics::of_a_node();
    let families = found(r"(?m)^# TYPE ([a-z_]+) ", &page);
    &families | &found(r"(?m)^([a-z_]+)[{ ]", &page)
}

#[test]
fn alerts_and_the_dashboard_ask_for_metrics_that_there_are() {
    let there_are = metrics();
    let is_known = |name: &String| there_are.contains(name);
    for path in [ALERTS, ALERTS_TEST, DASHBOARD, "docs/runbook.md"] {
        let asked = found(r"\b((?:wardent|process)_[a-z0-9_]+)", &text(path));
        assert!(!asked.is_empty(), "{path} asks for nothing");
        let unknown: Vec<_> = asked.iter().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
}

#[test]
fn every_alert_has_its_chapter_its_link_and_its_test() {
    let rules = text(ALERTS);
    let alerts = found(r"(?m)^ +- alert: (\w+)$", &rules);
    let chapters = found(r"(?m)^### (\w+)$", &text("docs/runbook.md"));
    assert_eq!(alerts, chapters, "left: alerts, right: the runbook");
    let links = found(r"runbook_url: docs/runbook\.md#(\w+)", &rules);
    let lower: BTreeSet<_> = alerts.iter().map(|name| name.to_lowercase()).collect();
    assert_eq!(links, lower, "left: links, right: alerts");
    let tested = found(r"(?m)^  - name: (\w+)$", &text(ALERTS_TEST));
    assert_eq!(alerts, tested, "left: alerts, right: tests");
    for (nth, rule) in rules.split("- alert: ").enumerate().skip(1) {
        for part in ["severity: ", "summary: ", "description: ", "runbook_url: "] {
            assert!(rule.contains(part), "alert {nth} has no {part}");
        }
    }
}

/// Every chapter says how urgent it is as the alert does, what to look at and what to do.
#[test]
fn every_chapter_says_how_urgent_it_is_and_what_to_do() {
    let rules = text(ALERTS);
    let runbook = text("docs/runbook.md");
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.split('\n').next().unwrap();
        let severity = found(r"severity: (\w+)", rule).pop_first().unwrap();
        let (_, chapter) = runbook.split_once(&format!("### {name}\n")).unwrap();
        let chapter = chapter.split("\n#").next().unwrap();
        if severity == "none" {
            continue;
        }
        assert!(chapter.contains(&format!("*{severity}.*")), "{name}");
        for part in ["**Look at**", "**do**"] {
            assert!(
                chapter.to_lowercase().contains(&part.to_lowercase()),
                "{name}: {part}"
            );
        }
    }
}

/// All strings of a JSON value.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        Value::Object(fields) => fields.values().flat_map(strings).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => vec![],
    }
}

#[test]
fn the_dashboard_goes_from_cluster_to_route_and_needs_nothing_from_outside() {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["datasource", "cluster", "instance", "route"]);
    let outside = strings(&dashboard);
    let outside: Vec<_> = outside.iter().filter(|text| text.contains("://")).collect();
    assert!(outside.is_empty(), "{outside:?}");
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is taken"
        );
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} is too wide");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} stands on another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap();
            assert!(expr.contains("cluster=~\"$cluster\""), "{title}: {expr}");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

#[test]
fn the_page_of_what_ships_names_every_file() {
    let page = text("ops/README.md");
    for folder in ["alertmanager", "grafana", "prometheus"] {
        for file in fs::read_dir(Path::new("ops").join(folder)).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(
                page.contains(&format!("({folder}/{name})")),
                "{folder}/{name}"
            );
        }
    }
}
