//! What is explained is what happens, and explaining it changes nothing.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use serde_json::{Value, json};
use support::{
    KEY, client::RawClient, message::Response, random::Random, rig::Rig, wardent::Wardent,
};
use wardent::base::net::Address;

/// Every guard has something to say. No count moves by itself, and no ban comes of what is asked.
const POLICY: &str = "mode: enforce
allow: [198.51.100.7/32, 203.0.113.7/32]
deny: [203.0.113.0/24, 2001:db8:d::/48]
defaults:
  limit: {rate: 1/h, burst: 3}
  body: 1KiB
routes:
  - {name: trap, match: {path: [/.env, \"/.git/**\"]}, trap: true}
  - {name: open, match: {path: /open/}, secret: skip, body: 2KiB}
  - {name: login, match: {path: /login, methods: [POST]}, limit: [{rate: 1/h, burst: 4}, {rate: 1/h, burst: 9}]}
  - {name: new, match: {path: /new/}, mode: observe, limit: {rate: 1/h, burst: 1}}
  - {name: spring, match: {path: /spring}, mode: observe, trap: true}
bans: {threshold: 1000000}
";

/// A question, and the request it is about.
struct Asked {
    question: Value,
    wire: String,
}

/// Clients: allowed, denied, banned, protected, impossible, and some like any other.
const IPS: &[&str] = &[
    "198.51.100.7",
    "198.51.100.8",
    "198.51.100.9",
    "203.0.113.7",
    "203.0.113.8",
    "192.0.2.1",
    "198.18.0.9",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:d::1",
    "::ffff:198.51.100.8",
    "2a06:98c0:3600::103",
    "127.0.0.1",
    "10.0.0.1",
];

/// Targets of every route, in all spellings, and some without a meaning.
const TARGETS: &[&str] = &[
    "/",
    "/a?b=c",
    "/.env",
    "/.%65nv",
    "/.git/config",
    "/x/../.env",
    "/open/",
    "/open/x",
    "/admin/../open/x",
    "/login",
    "//login",
    "/new/x",
    "/new/y",
    "/spring",
    "/a%2fb",
    "/%zz",
    "/../x",
    "no-slash",
];

/// Header lines; mostly none.
const LINES: &[&str] = &[
    "",
    "",
    "",
    "Content-Length: 0",
    "Content-Length: 1500",
    "Content-Length: 5000",
    "Content-Length: x",
    "Sec-Fetch-Site: cross-site",
    "X-Wardent-Secret: wrong",
    "CF-Connecting-IP: 192.0.2.77",
    "a_b: c",
];

/// One of these, by chance.
fn one<'a>(random: &mut Random, of: &[&'a str]) -> &'a str {
    of[random.below(of.len())]
}

fn any_request(random: &mut Random) -> Asked {
    let ip = one(random, IPS);
    let path = one(random, TARGETS);
    let method = one(random, &["GET", "GET", "POST", "POST", "TRACE"]);
    let header = one(random, LINES);
    let user_agent = one(random, &["wtest/1", "wtest/1", "", "GPTBot/1.2"]);
    let has_secret = !random.one_in(4);
    let mut fields =
        format!("Host: app.test\r\nUser-Agent: {user_agent}\r\nCF-Connecting-IP: {ip}\r\n");
    if has_secret {
        fields += &format!("X-Wardent-Secret: {KEY}\r\n");
    }
    let headers: Vec<_> = Some(header)
        .filter(|line| !line.is_empty())
        .into_iter()
        .collect();
    for line in &headers {
        fields += &format!("{line}\r\n");
    }
    // A second secret beside the first is no valid one, whatever it is taken for.
    let has_two = has_secret && header.starts_with("X-Wardent-Secret");
    let mut asked_headers = headers.clone();
    let own = format!("X-Wardent-Secret: {KEY}");
    if has_two {
        asked_headers.push(&own);
    }
    Asked {
        question: json!({
            "ip": ip,
            "path": path,
            "method": method,
            "host": "app.test",
            "user_agent": user_agent,
            "headers": asked_headers,
            "secret": if has_secret { "valid" } else { "none" },
        }),
        wire: format!("{method} {path} HTTP/1.1\r\n{fields}\r\n"),
    }
}

fn explain(wardent: &Wardent, question: &Value) -> Value {
    let (status, said) = wardent.act("POST", "/api/v1/explain", &question.to_string());
    assert_eq!(status, 200, "{question}: {said}");
    said
}

/// What is left of each limit.
fn left(told: &Value) -> Vec<Option<u64>> {
    let limits = told["limits"].as_array().map_or(&[][..], Vec::as_slice);
    limits
        .iter()
        .map(|limit| limit["remaining"].as_u64())
        .collect()
}

/// What is told must be what happened: the status and the reason, or that it passed.
fn assert_told(told: &Value, response: &Response, what: &str) {
    let end = &told["outcome"];
    let reason = response.header("x-wardent-reason");
    match end["verdict"].as_str().unwrap() {
        "refuses" => {
            assert_eq!(end["status"], response.status, "{what}: {told}");
            assert_eq!(end["reason"].as_str(), reason, "{what}: {told}");
        }
        _ => assert_eq!((response.status, reason), (200, None), "{what}: {told}"),
    }
    let guards = told["guards"].as_array();
    let refusing = guards.map(|guards| {
        let refusing = |guard: &&Value| guard["verdict"] == "refuses";
        guards.iter().filter(refusing).count()
    });
    if let Some(refusing) = refusing {
        assert_eq!(refusing, usize::from(reason.is_some()), "{what}: {told}");
    }
}

#[test]
fn what_is_explained_is_what_happens() {
    let rig = Rig::with(|setup| setup.policy(POLICY));
    rig.wardent.ban("192.0.2.1");
    rig.wardent.ban("198.18.0.0/16");
    let mut random = Random::seeded(7);
    let mut ends = std::collections::BTreeSet::new();
    for n in 0..600 {
        let Asked { question, wire } = any_request(&mut random);
        let told = explain(&rig.wardent, &question);
        let again = explain(&rig.wardent, &question);
        assert_eq!(left(&told), left(&again), "asking charged: {question}");
        let mut client = rig.wardent.client();
        client.send_anyway(&wire);
        // The declared body comes only where it is asked for.
        if wire.contains("Content-Length: 1500") {
            client.send_anyway([b'x'; 1500]);
        }
        let method = wire.split(' ').next().unwrap();
        assert_told(&told, &client.response(method), &format!("{n}: {wire:?}"));
        let end = &told["outcome"];
        ends.insert(format!("{} {}", end["verdict"], end["reason"]));
    }
    // Chance has met every guard.
    for reason in [
        "bad_request",
        "bad_secret",
        "bad_client_ip",
        "denied",
        "banned",
        "bot",
        "trap",
        "rate_limited",
        "body_too_large",
    ] {
        let end = format!("\"refuses\" \"{reason}\"");
        assert!(ends.contains(&end), "{end}: {ends:?}");
    }
    for end in [
        "\"would_refuse\" \"bot\"",
        "\"would_refuse\" \"trap\"",
        "\"would_refuse\" \"rate_limited\"",
    ] {
        assert!(ends.contains(end), "{end}: {ends:?}");
    }
}

#[test]
fn asking_charges_nothing_and_blames_nobody() {
    let policy = POLICY.replace("threshold: 1000000", "threshold: 10");
    let rig = Rig::with(|setup| setup.policy(policy));
    let trap = json!({"ip": "198.51.100.8", "path": "/.env"});
    let login = json!({"ip": "198.51.100.8", "path": "/login", "method": "POST"});
    for _ in 0..50 {
        assert_eq!(explain(&rig.wardent, &trap)["outcome"]["reason"], "trap");
        let told = explain(&rig.wardent, &login);
        assert_eq!(told["limits"][0]["remaining"], 4, "{told}");
    }
    assert_eq!(rig.wardent.bans().len(), 0);
    assert_eq!(rig.origin.bytes(), 0);
}

#[test]
fn the_counters_are_those_of_the_instant() {
    let rig = Rig::with(|setup| setup.policy(POLICY));
    let question = json!({"ip": "198.51.100.7", "path": "/login", "method": "POST"});
    let told = explain(&rig.wardent, &question);
    assert_eq!(told["client"], "198.51.100.7");
    let sees = |told: &Value, guard: &str| {
        let guards = told["guards"].as_array().unwrap();
        let found = guards.iter().find(|own| own["guard"] == guard).unwrap();
        (found["verdict"].clone(), found["saw"].clone())
    };
    assert_eq!(
        sees(&told, "deny and allow"),
        (
            json!("passes"),
            json!("allowed: never limited, never banned")
        )
    );
    assert_eq!(sees(&told, "limits").0, "not_asked");
    let question = json!({"ip": "198.51.100.8", "path": "//login", "method": "POST"});
    let login = "POST /login HTTP/1.1\r\n".to_owned()
        + &support::p_from("198.51.100.8")
        + "Content-Length: 0\r\n\r\n";
    for left in [4, 3, 2, 1, 0] {
        let told = explain(&rig.wardent, &question);
        let limits = &told["limits"];
        assert_eq!(limits[0]["remaining"], left, "{told}");
        assert_eq!(
            (&limits[0]["name"], &limits[1]["name"]),
            (&json!("login"), &json!("login-2"))
        );
        assert_eq!(
            sees(&told, "path and route").1,
            "reads as /login; login, enforced"
        );
        let expected = if left == 0 { 429 } else { 200 };
        assert_eq!(rig.wardent.ask(&login).status, expected);
    }
    let told = explain(&rig.wardent, &question);
    assert_eq!(
        told["blame"],
        json!({"cause": "rate_limited", "points": 1, "enforced": true})
    );
    assert_eq!(told["held"]["points"], 1, "{told}");
    rig.wardent.ban("198.51.100.8");
    let told = explain(&rig.wardent, &question);
    assert_eq!(told["outcome"]["reason"], "banned");
    let left_s = told["banned_for_s"].as_u64().unwrap();
    assert!((3_590..=3_600).contains(&left_s), "{left_s}");
}

#[test]
fn who_is_not_proven_is_told_so() {
    let rig = Rig::with(|setup| setup.policy(POLICY));
    let question = json!({"ip": "198.51.100.7", "path": "/open/", "secret": "none"});
    let told = explain(&rig.wardent, &question);
    assert_eq!(told["outcome"]["verdict"], "passes");
    assert_eq!(told["proven"], false);
    assert_eq!(told["limits"][0]["remaining"], 3);
    let question = json!({"ip": "198.51.100.7", "path": "/", "secret": "none"});
    assert_eq!(
        explain(&rig.wardent, &question)["outcome"]["reason"],
        "bad_secret"
    );
    let header = format!("X-Wardent-Secret: {KEY}");
    let question = json!({"ip": "198.51.100.7", "path": "/", "headers": [header]});
    assert_eq!(explain(&rig.wardent, &question)["proven"], true);
}

#[test]
fn the_edge_is_taken_to_match() {
    let rig = Rig::with(|setup| {
        setup
            .secret(&[])
            .client_ip("edge: {header: x-real-ip, networks: cloudflare}")
            .policy(POLICY.replace("secret: skip, ", ""))
    });
    let question = json!({"ip": "198.51.100.8", "path": "/"});
    let told = explain(&rig.wardent, &question);
    assert_eq!(
        (&told["outcome"]["verdict"], &told["proven"]),
        (&json!("passes"), &json!(true))
    );
}

#[test]
fn a_question_that_is_none_is_refused() {
    let rig = Rig::with(|setup| setup.policy(POLICY));
    for (question, expected) in [
        ("x", 400),
        ("{}", 422),
        (r#"{"ip": "x", "path": "/"}"#, 422),
        (r#"{"ip": "198.51.100.7", "path": "/", "body": 1}"#, 422),
        (
            r#"{"ip": "198.51.100.7", "path": "/", "headers": ["x"]}"#,
            422,
        ),
        (
            r#"{"ip": "198.51.100.7", "path": "/ HTTP/1.1\r\nA: b"}"#,
            422,
        ),
        (
            r#"{"ip": "198.51.100.7", "path": "/", "headers": ["a: b\r\nc: d"]}"#,
            422,
        ),
        (
            r#"{"ip": "198.51.100.7", "path": "/", "secret": "wrong"}"#,
            422,
        ),
    ] {
        let (status, said) = rig.wardent.act("POST", "/api/v1/explain", question);
        assert_eq!(status, expected, "{question}: {said}");
    }
    let (status, _) = rig.wardent.act("GET", "/api/v1/explain", "");
    assert_eq!(status, 405);
    let question = r#"{"ip": "198.51.100.7", "path": "/"}"#;
    let (status, _) = rig
        .wardent
        .ask_listener("POST", "/api/v1/explain", question);
    assert_eq!(status, 200, "whoever may read may ask");
    let listener = Address::Tcp(rig.wardent.admin());
    let elsewhere = "POST /api/v1/explain HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(RawClient::connect(&listener).ask(elsewhere).status, 421);
}

#[test]
fn the_command_line_explains() {
    let rig = Rig::with(|setup| setup.policy(POLICY));
    let wardent = &rig.wardent;
    let told = wardent.command(&["explain", "--ip", "198.51.100.8", "--path", "/.env"], "");
    assert_eq!(told.status, 0, "{told:?}");
    assert!(
        told.out.starts_with("refused with 403 trap: "),
        "{}",
        told.out
    );
    assert!(
        told.out
            .contains("held against the client: 10 points for trap"),
        "{}",
        told.out
    );
    let elsewhere = [
        "explain",
        "--ip",
        "198.51.100.8",
        "--path",
        "/.env",
        "--header",
        "Sec-Fetch-Site: cross-site",
        "--output",
        "json",
    ];
    let told = wardent.command(&elsewhere, "").json();
    assert_eq!(
        (&told["outcome"]["status"], &told["blame"]),
        (&json!(403), &Value::Null)
    );
    let escape = "/.git/\u{1b}[2J";
    let told = wardent.command(&["explain", "--ip", "198.51.100.8", "--path", escape], "");
    assert!(!told.out.contains('\u{1b}'), "{told:?}");
    let unknown = wardent.command(&["explain", "01ARYZ6S41TSV4RRFFQ69G5FAV"], "");
    assert_eq!(unknown.status, 1);
    assert!(unknown.err.contains("not in the log"), "{unknown:?}");
}
