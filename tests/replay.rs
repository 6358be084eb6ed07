//! A replay says of recorded requests what a live Wardent said, and of a candidate what one would.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use support::{
    origin::{self, Origin},
    p_from,
    random::Random,
    rig::Rig,
    time,
    wardent::Wardent,
};

/// Everything that a policy can hold against somebody. No limit earns anything back in the time of a test.
const POLICY: &str = "mode: enforce
deny: [203.0.113.0/24]
allow: [198.51.100.1/32]
defaults:
  limit: {rate: 1/h, burst: 30}
  body: 1KiB
routes:
  - {name: login, match: {path: /login, methods: [POST]}, limit: {rate: 1/h, burst: 6}, penalize: {\"401\": 1}}
  - {name: trap, match: {path: [\"/.env\", \"/.git/**\"]}, trap: true}
  - {name: seen, match: {path: /seen}, mode: observe, limit: [{rate: 1/h, burst: 2}, {rate: 1/d, burst: 3}]}
  - {name: hook, match: {path: /hook/}, secret: skip, bots: skip, limit: {rate: 1/h, burst: 5}}
bans:
  threshold: 6
  duration: 1h
  points: {trap: 3}
";

const BOT: &str = "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)";

/// The application refuses every login.
fn origin() -> Origin {
    Origin::answering(|request| {
        let is_login = request.head.target.starts_with("/login");
        let status = if is_login {
            "401 Unauthorized"
        } else {
            "200 OK"
        };
        origin::answer(status, "", b"")
    })
}

fn rig(policy: &str) -> Rig {
    Rig::around(origin(), |setup| setup.policy(policy))
}

/// A request of one of a few clients for something that the policy may mind.
fn any_request(random: &mut Random) -> String {
    let clients = [
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.3",
        "203.0.113.9",
        "2001:db8::1",
        "2001:db8::2",
        "2001:db8:0:1::1",
    ];
    let mut fields = p_from(clients[random.below(clients.len())]);
    match random.below(20) {
        0 => fields = fields.replace("X-Wardent-Secret", "X-Other"),
        1 => fields = fields.replace("CF-Connecting-IP", "X-Other"),
        2 => fields += "CF-Connecting-IP: 198.51.100.2\r\n",
        3 | 4 => fields = fields.replace("wtest/1", BOT),
        5 | 6 => fields += "Sec-Fetch-Site: cross-site\r\n",
        7 => fields += "X-Wardent-Secret: another\r\n",
        _ => {}
    }
    let paths = [
        "/",
        "/a",
        "/a%2Fb",
        "/seen",
        "/seen",
        "/.env",
        "/.git/x",
        "/hook/x",
        "/x/../hook/x",
        "/b?q=1",
    ];
    let path = paths[random.below(paths.len())];
    match random.below(6) {
        0 => format!("POST /login HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n"),
        1 => {
            let length = [10, 1_024, 1_025][random.below(3)];
            let body = "b".repeat(length);
            format!("POST {path} HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
        }
        _ => format!("GET {path} HTTP/1.1\r\n{fields}\r\n"),
    }
}

/// Runs `wardent replay` on what stands in this directory.
fn replay(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wardent"))
        .arg("replay")
        .args(arguments)
        .arg("--config")
        .arg(dir.join("wardent.yaml"))
        .current_dir(dir)
        .output()
        .unwrap()
}

fn report(dir: &Path, arguments: &[&str]) -> Value {
    let output = replay(dir, &[arguments, &["--output", "json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_replay_with_the_same_policy_says_of_each_request_what_happened() {
    let (mut statuses, mut reasons) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..4 {
        // Without bans, more of them get as far as the limits.
        let policy = match seed % 2 {
            0 => POLICY.to_owned(),
            _ => POLICY.replace("threshold: 6", "threshold: 1000"),
        };
        let rig = rig(&policy);
        let mut random = Random::seeded(seed);
        for _ in 0..250 {
            let request = any_request(&mut random);
            statuses.insert(rig.wardent.ask(&request).status);
            // What it is held against its client for has been heard by then.
            rig.wardent.bans();
        }
        let home = rig.wardent.end();
        let told = report(home.path(), &["--policy", "policy.yaml"]);
        assert_eq!(told["requests"], 250, "{seed}: {told:#}");
        assert_eq!(told["otherwise_then"], 0, "{seed}: {told:#}");
        assert_eq!(told["changes"], json!([]), "{seed}");
        for row in told["totals"].as_array().unwrap() {
            assert_eq!(row["happened"], row["current"], "{seed}: {told:#}");
            assert_eq!(row["happened"], row["candidate"], "{seed}: {told:#}");
            let reason = row["reason"].as_str().unwrap_or("none");
            reasons.insert(format!("{} {reason}", row["outcome"].as_str().unwrap()));
        }
    }
    assert_eq!(statuses, BTreeSet::from([200, 400, 401, 403, 413, 429]));
    for what in [
        "passed none",
        "refused bad_request",
        "refused bad_client_ip",
        "refused bad_secret",
        "refused denied",
        "refused banned",
        "refused bot",
        "refused trap",
        "refused rate_limited",
        "refused body_too_large",
        "observed banned",
        "observed rate_limited",
    ] {
        assert!(reasons.contains(what), "no `{what}` in {reasons:?}");
    }
}

/// Twelve pages of one client, of which the policy minds none.
fn twelve_pages(wardent: &Wardent) {
    for _ in 0..12 {
        assert_eq!(wardent.get("/a").status, 200);
    }
}

#[test]
fn a_running_one_is_replayed_and_not_disturbed() {
    let rig = rig("defaults: {limit: {rate: 1000/s, burst: 1000}}\n");
    twelve_pages(&rig.wardent);
    let dir = rig.wardent.dir();
    fs::write(
        dir.join("new.yaml"),
        "defaults: {limit: {rate: 1/h, burst: 5}}\n",
    )
    .unwrap();
    time::eventually("all events are in the log", || {
        let output = replay(dir, &["--policy", "new.yaml", "--output", "json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        told["requests"] == 12
    });
    let told = report(dir, &["--policy", "new.yaml", "--since", "1h"]);
    let change = &told["changes"][0];
    assert_eq!(
        (&change["change"], &change["reason"]),
        (&json!("refused"), &json!("rate_limited"))
    );
    assert_eq!(
        (&change["requests"], &change["served"]),
        (&json!(7), &json!(7))
    );
    // Of nobody else anything is told.
    let other = replay(dir, &["--policy", "new.yaml", "--client", "203.0.113.9"]);
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    let own = report(
        dir,
        &["--policy", "new.yaml", "--client", "198.51.100.0/24"],
    );
    assert_eq!(own["changes"], told["changes"]);
    // The example can be explained.
    let id = change["examples"][0]["id"].as_str().unwrap();
    assert_eq!(rig.wardent.command(&["explain", id], "").status, 0);
    assert_eq!(rig.wardent.get("/a").status, 200);
}

#[test]
fn what_is_observed_can_be_tried_as_if_it_were_enforced() {
    let rig =
        rig("mode: observe\ndefaults: {limit: {rate: 1/h, burst: 5}}\nbans: {threshold: 4}\n");
    twelve_pages(&rig.wardent);
    let (status, told) = rig.wardent.ask_listener("GET", "/api/v1/status", "");
    assert_eq!(status, 200);
    assert_eq!(
        told["enforcement"],
        json!({"any": false, "routes_enforced": 0, "routes_observed": 1})
    );
    assert_eq!(told["would_be_refused"], json!({"rate_limited": 7}));
    assert_eq!(
        (&told["refused"], &told["requests"]["passed"]),
        (&json!({}), &json!(12))
    );
    time::eventually("the ban that would be is counted", || {
        let (_, told) = rig.wardent.ask_listener("GET", "/api/v1/status", "");
        told["bans"] == json!({"active": 0, "began": 0, "would_have_begun": 1})
    });
    let home = rig.wardent.end();
    let as_it_is = report(home.path(), &["--policy", "policy.yaml"]);
    assert_eq!(
        (&as_it_is["changes"], &as_it_is["otherwise_then"]),
        (&json!([]), &json!(0))
    );
    let enforced = report(home.path(), &["--policy", "policy.yaml", "--enforce"]);
    let changes: Vec<_> = enforced["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            (
                change["reason"].as_str().unwrap(),
                change["requests"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(changes, [("rate_limited", 4), ("banned", 3)]);
    assert_eq!(enforced["newly_banned"], 1);
}

#[test]
fn a_policy_that_cannot_be_used_is_told_as_check_tells_it() {
    let rig = rig(POLICY);
    let dir = rig.wardent.dir();
    fs::write(
        dir.join("new.yaml"),
        "defaults: {limit: {rate: 20 per s}}\n",
    )
    .unwrap();
    let output = replay(dir, &["--policy", "new.yaml"]);
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(78), 0),
        "{output:?}"
    );
    fs::copy(dir.join("new.yaml"), dir.join("policy.yaml")).unwrap();
    let checked = rig.wardent.command(&["check"], "");
    assert_eq!(checked.status, 78);
    let with_name = told.replace("new.yaml", &dir.join("policy.yaml").display().to_string());
    assert!(
        with_name.contains(checked.err.trim()),
        "{with_name}\n{checked:?}"
    );
    let output = replay(dir, &["--policy", "new.yaml", "--output", "json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &told["ok"]),
        (Some(78), &json!(false))
    );
}

#[test]
fn what_cannot_be_meant_and_what_is_not_there_is_told() {
    let rig = rig(POLICY);
    let dir = rig.wardent.dir();
    for (arguments, status, words) in [
        (&["--since", "soon"][..], 2, "`since`: "),
        (
            &["--since", "1h", "--until", "2h"],
            2,
            "`until`: is not after `since`",
        ),
        (&["--client", "me"], 2, "neither an address nor a network"),
        (&["--since", "1h"], 1, "no requests between"),
    ] {
        let output = replay(dir, &[&["--policy", "policy.yaml"], arguments].concat());
        let told = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert!(told.contains(words), "{told}");
    }
}
