//! A soak tells whether a Wardent serves with a configuration, and leaves the one that runs alone.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use support::{
    origin::{Origin, answer},
    wardent::{Setup, Wardent},
};

/// An application that has a page for health checks and one that is broken.
fn origin() -> Origin {
    Origin::answering(|request| match request.head.target.as_str() {
        "/healthz" => answer("204 No Content", "", b""),
        "/early" => [
            &b"HTTP/1.1 103 Early Hints\r\n\r\n"[..],
            &answer("200 OK", "", b""),
        ]
        .concat(),
        "/broken" => answer("500 Internal Server Error", "", b""),
        _ => answer("200 OK", "", b"ok"),
    })
}

fn setup(origin: &Origin) -> Setup {
    Wardent::setup(origin).upstream("health: {path: /healthz}")
}

fn soak(config: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wardent"))
        .args(["soak", "--for", "2s", "--output", "json"])
        .args(more)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap()
}

fn found(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_sound_one_is_found_sound_beside_the_one_that_runs() {
    let origin = origin();
    let mut running = setup(&origin).spawn();
    let log_before = running.dir().join("log").read_dir().unwrap().count();
    let output = soak(&running.dir().join("wardent.yaml"), &[]);
    let found = found(&output);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(found["ok"], true);
    assert_eq!(found["canary"], true);
    assert!(found["answers"]["204"].as_u64().unwrap() > 5, "{found}");
    running.assert_alive();
    assert_eq!(
        running.dir().join("log").read_dir().unwrap().count(),
        log_before
    );
    // The one that runs has heard nothing of it.
    assert!(
        !running.said().contains("192.0.2."),
        "its access lines name the soak's clients"
    );
}

#[test]
fn the_one_that_runs_is_asked_through_its_own_listener() {
    let origin = origin();
    let mut running = setup(&origin).spawn();
    let config = running.dir().join("wardent.yaml");
    let output = soak(
        &config,
        &["--running", "--url", "https://www.example.org/early?x=%20"],
    );
    assert!(output.status.success(), "{output:?}");
    assert!(
        found(&output)["answers"]["200"].as_u64().unwrap() > 5,
        "{output:?}"
    );
    let asked = origin.requests();
    let asked = asked
        .iter()
        .find(|request| request.head.target.starts_with("/early"))
        .unwrap();
    assert_eq!(asked.head.target, "/early?x=%20");
    assert_eq!(asked.header("host"), Some("www.example.org"));
    assert_eq!(asked.header("x-forwarded-proto"), Some("https"));
    assert!(running.said().contains("192.0.2."));
}

#[test]
fn an_application_that_is_broken_is_told() {
    let origin = origin();
    let setup = setup(&origin);
    let broken = soak(&setup.write(), &["--url", "http://www.example.org/broken"]);
    assert_eq!(broken.status.code(), Some(1));
    let trouble = found(&broken)["trouble"].to_string();
    assert!(
        trouble.contains("the application answered 500"),
        "{trouble}"
    );
    assert!(
        trouble.contains("http://www.example.org/broken"),
        "{trouble}"
    );
}

#[test]
fn an_application_that_is_not_there_is_told() {
    let setup = Setup::before(&["127.0.0.1:9".to_owned()]).upstream("health: {path: /healthz}");
    let config = setup.write();
    let output = soak(&config, &[]);
    assert_eq!(output.status.code(), Some(1));
    let trouble = found(&output)["trouble"].to_string();
    assert!(trouble.contains("upstream_unreachable"), "{trouble}");
}

#[test]
fn where_nobody_says_what_to_ask_for_the_application_is_not_asked() {
    let origin = origin();
    let setup = Wardent::setup(&origin);
    let output = soak(&setup.write(), &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(found(&output)["answers"], Value::Null);
    assert!(origin.requests().is_empty());
}

#[test]
fn where_none_runs_there_is_none_to_soak() {
    let origin = origin();
    let setup = setup(&origin);
    let output = soak(&setup.write(), &["--running"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_configuration_that_is_refused_has_its_own_status() {
    let origin = origin();
    let setup = setup(&origin).top("no_such_key: 1");
    let output = soak(&setup.write(), &[]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
}

#[test]
fn a_time_too_short_for_a_canary_is_misuse() {
    let origin = origin();
    let setup = setup(&origin);
    let output = soak(&setup.write(), &["--for", "1s"]);
    assert_eq!(output.status.code(), Some(2));
}
