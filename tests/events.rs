//! Every finished request is a record in the log, as the schema describes it, and none is missing.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    collections::BTreeMap, fs, io::Write as _, net::TcpStream, os::unix::fs::PermissionsExt as _,
    path::Path,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{
    CLIENT, KEY, P, P_NOIP, P_NOSECRET, get,
    origin::Origin,
    p_from, post,
    records::{self, Found},
    rig::Rig,
    schema::Schema,
    time,
    wardent::{Setup, Wardent, open_policy},
};
use wardent::log::partition_of;

const TOPIC: &str = "wardent.http.access";

/// All records of a log of the access topic, each as its schema describes it.
#[track_caller]
fn records(dir: &Path) -> Vec<Found> {
    let schema = Schema::named("wardent.http.access.v1");
    let found = records::of_topic(&dir.join("log"), TOPIC);
    for record in &found {
        let faults = schema.faults(&record.json());
        assert!(faults.is_empty(), "{}: {faults:#?}", record.text);
    }
    found
}

/// The one event of a request for this path.
#[track_caller]
fn event_of(events: &[Value], path: &str) -> Value {
    let of_path: Vec<_> = events
        .iter()
        .filter(|event| event["path"] == path)
        .collect();
    assert_eq!(of_path.len(), 1, "{path}: {of_path:#?}");
    of_path[0].clone()
}

fn events(found: &[Found]) -> Vec<Value> {
    found.iter().map(Found::json).collect()
}

/// Each run's and lane's numbers are without a hole, from 1 on.
#[track_caller]
fn assert_complete(events: &[Value]) {
    let mut lanes = BTreeMap::<_, Vec<_>>::new();
    for event in events {
        let lane = (event["run"].to_string(), event["lane"].as_u64().unwrap());
        let number = |name: &str| event[name].as_u64();
        let from = number("seq").or(number("from")).unwrap();
        let to = number("seq").or(number("to")).unwrap();
        lanes.entry(lane).or_default().push((from, to));
    }
    for (lane, mut numbers) in lanes {
        numbers.sort_unstable();
        let mut next = 1;
        for (from, to) in numbers {
            assert_eq!(from, next, "{lane:?}");
            next = to + 1;
        }
    }
}

#[test]
fn a_request_is_told_with_all_that_is_known_of_it() {
    let rig = Rig::with(|setup| setup.client_ip("edge: {header: x-real-ip, networks: cloudflare}"));
    let fields = "CF-IPCountry: DE\r\nCF-Ray: 8f1c2d3e4f5a6b7c-FRA\r\nX-Real-IP: 104.16.0.1\r\n\
                  Cookie: sessionid=crumbs\r\nAuthorization: Bearer crumbs\r\n";
    let head = format!("POST /a/b?q=crumbs HTTP/1.1\r\n{P}{fields}Content-Length: 5\r\n\r\n");
    let answer = rig.wardent.ask(format!("{head}crumb"));
    assert_eq!(answer.status, 200);
    let home = rig.wardent.end();
    let found = records(home.path());
    let [record] = &found[..] else {
        panic!("{found:#?}")
    };
    assert_eq!(record.key, CLIENT);
    assert_eq!(record.partition, partition_of(CLIENT.as_bytes(), 4));
    let event = record.json();
    for (field, value) in [
        ("client", json!(CLIENT)),
        ("proven", json!(true)),
        ("peer", json!("127.0.0.1")),
        ("edge", json!("104.16.0.1")),
        ("method", json!("POST")),
        ("host", json!("app.test")),
        ("path", json!("/a/b")),
        ("status", json!(200)),
        ("verdict", json!("passed")),
        ("route", json!("defaults")),
        ("body_bytes_in", json!(5)),
        ("user_agent", json!("wtest/1")),
        ("country", json!("DE")),
        ("ray", json!("8f1c2d3e4f5a6b7c-FRA")),
        ("seq", json!(1)),
        ("lane", json!(0)),
        ("id", json!(answer.header("x-request-id").unwrap())),
        ("upstream", json!(rig.origin.server())),
    ] {
        assert_eq!(event[field], value, "{field}: {event:#}");
    }
    let time = wardent::event::time::from_rfc3339(event["time"].as_str().unwrap()).unwrap();
    assert_eq!(i64::try_from(time), Ok(record.timestamp_ms));
    let us = |name: &str| {
        event[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {event:#}"))
    };
    assert!(us("connected_us") <= us("answered_us"));
    assert!(us("body_us") <= us("total_us") && us("answered_us") <= us("total_us"));
    assert!(us("bytes_out") > 0);
    for secret in ["crumb", KEY] {
        assert!(!record.text.contains(secret), "{}", record.text);
    }
}

const GUARDED: &str = "deny: [203.0.113.0/24]
routes:
  - {name: trap, match: {path: /.env}, trap: true}
  - {name: once, match: {path: /once}, limit: {rate: 1/h, burst: 1}}
  - {name: seen, match: {path: /seen}, mode: observe, limit: {rate: 1/h, burst: 1}}
  - {name: small, match: {path: /small}, body: 10B}
";

#[test]
fn every_verdict_and_reason_is_told_as_the_schema_describes() {
    let rig = Rig::with(|setup| setup.policy(open_policy(&[], GUARDED)));
    let long = "/".to_owned() + &"x".repeat(20_000);
    let with_head = |path: &str, head: &str| format!("GET {path} HTTP/1.1\r\n{head}\r\n");
    let denied = p_from("203.0.113.9");
    let bot = P.replace("wtest/1", "GPTBot/1.2");
    let hostile = P.replace("wtest/1", "\"\\\t<script>é\u{2028}");
    let asked = [
        ("/passed", with_head("/passed", P), "passed", ""),
        (
            "/no-secret",
            with_head("/no-secret", P_NOSECRET),
            "refused",
            "bad_secret",
        ),
        (
            "/nobody",
            with_head("/nobody", P_NOIP),
            "refused",
            "bad_client_ip",
        ),
        (
            "/denied",
            with_head("/denied", &denied),
            "refused",
            "denied",
        ),
        ("/.env", with_head("/.env", P), "refused", "trap"),
        ("/bot", with_head("/bot", &bot), "refused", "bot"),
        ("/%zz", with_head("/%zz", P), "refused", "bad_request"),
        ("/a\"b<c>", with_head("/a\"b<c>", &hostile), "passed", ""),
        (&long[..512], with_head(&long, P), "passed", ""),
        (
            "",
            "GET / HTTP/1.1\r\nbad\r\n\r\n".to_owned(),
            "refused",
            "bad_request",
        ),
    ];
    for (_, request, _, _) in &asked {
        rig.wardent.ask(request);
    }
    let home = rig.wardent.end();
    let found = records(home.path());
    let events = events(&found);
    assert_complete(&events);
    assert_eq!(events.len(), asked.len());
    for (path, _, verdict, reason) in asked {
        let event = event_of(&events, path);
        assert_eq!(event["verdict"], verdict, "{event:#}");
        assert_eq!(event["reason"].as_str().unwrap_or(""), reason, "{event:#}");
    }
    let bot = event_of(&events, "/bot");
    assert_eq!(bot["bot_category"], "ai-training");
    assert_eq!(event_of(&events, "/no-secret")["proven"], false);
    let unread = found.iter().find(|record| record.json()["path"] == "");
    assert_eq!(unread.unwrap().key, "127.0.0.1");
}

#[test]
fn what_only_would_have_been_refused_and_what_was_names_its_limit() {
    let rig = Rig::with(|setup| setup.policy(open_policy(&[], GUARDED)));
    for path in ["/once", "/seen"] {
        rig.wardent.get(path);
        rig.wardent.get(path);
    }
    rig.wardent.ask(post("/small", b"eleven byte"));
    let home = rig.wardent.end();
    let events = events(&records(home.path()));
    let of = |path: &str, field: &str| -> Vec<Value> {
        let of_path = events.iter().filter(|event| event["path"] == path);
        of_path.map(|event| event[field].clone()).collect()
    };
    assert_eq!(of("/once", "rule"), [Value::Null, json!("once")]);
    assert_eq!(of("/once", "status"), [json!(200), json!(429)]);
    assert_eq!(of("/once", "enforced"), [Value::Null, Value::Null]);
    assert_eq!(of("/seen", "rule"), [Value::Null, json!("seen")]);
    assert_eq!(of("/seen", "enforced"), [Value::Null, json!(false)]);
    assert_eq!(of("/seen", "verdict"), [json!("passed"), json!("passed")]);
    assert_eq!(of("/small", "reason"), [json!("body_too_large")]);
    assert_eq!(of("/small", "body_us"), [Value::Null]);
}

#[test]
fn a_client_that_goes_away_is_told() {
    let rig = Rig::new();
    let mut gone = rig.wardent.client();
    gone.send(format!(
        "POST /gone HTTP/1.1\r\n{P}Content-Length: 1000\r\n\r\nhalf"
    ));
    rig.origin.wait_for_heads(1);
    gone.reset();
    time::eventually("the client's going away is seen", || {
        rig.wardent
            .metric("wardent_http_requests_total{verdict=\"aborted\"}")
            == 1.0
    });
    let home = rig.wardent.end();
    let event = event_of(&events(&records(home.path())), "/gone");
    assert_eq!(event["verdict"], "aborted");
    assert_eq!(
        (&event["status"], &event["reason"]),
        (&json!(0), &Value::Null)
    );
}

#[test]
fn an_upstream_that_is_down_is_told() {
    let setup = Setup::before(&["127.0.0.1:1".to_owned()]);
    let wardent = setup.start();
    assert_eq!(wardent.get("/down").status, 502);
    let home = wardent.end();
    let event = event_of(&events(&records(home.path())), "/down");
    assert_eq!(event["verdict"], "failed");
    assert_eq!(event["reason"], "upstream_unreachable");
    assert_eq!(event["answered_us"], Value::Null);
}

#[test]
fn who_is_not_proven_is_placed_nowhere() {
    let rig = Rig::with(|setup| setup.policy(open_policy(&["secret: skip"], "")));
    let fields = "CF-IPCountry: DE\r\nCF-Ray: 8f1c2d3e4f5a6b7c-FRA\r\nX-Real-IP: 104.16.0.1\r\n";
    rig.wardent
        .ask(format!("GET /hearsay HTTP/1.1\r\n{P_NOSECRET}{fields}\r\n"));
    let mut stranger = rig.wardent.stranger();
    stranger.ask(format!("GET /stranger HTTP/1.1\r\n{P}{fields}\r\n"));
    let home = rig.wardent.end();
    let events = events(&records(home.path()));
    for path in ["/hearsay", "/stranger"] {
        let event = event_of(&events, path);
        for field in ["country", "ray", "edge"] {
            assert_eq!(event[field], Value::Null, "{event:#}");
        }
    }
    assert_eq!(event_of(&events, "/stranger")["client"], "127.0.0.2");
}

#[test]
fn all_events_of_several_workers_and_lives_are_there() {
    const REQUESTS: usize = 300;
    let origin = Origin::echo();
    let setup = Wardent::setup(&origin).workers(2);
    let mut wardent = setup.start();
    for life in 0..2 {
        for _ in 0..REQUESTS {
            assert_eq!(wardent.get("/").status, 200, "life {life}");
        }
        if life == 0 {
            wardent = wardent.again();
        }
    }
    let home = wardent.end();
    let found = records(home.path());
    let events = events(&found);
    assert_eq!(events.len(), 2 * REQUESTS);
    assert_complete(&events);
    let mut runs: Vec<_> = events
        .iter()
        .map(|event| event["run"].to_string())
        .collect();
    runs.sort_unstable();
    runs.dedup();
    assert_eq!(runs.len(), 2);
    let offsets: Vec<_> = found.iter().map(|record| record.offset).collect();
    assert!(
        offsets.iter().copied().eq((0..).take(2 * REQUESTS)),
        "one client, one partition"
    );
}

#[test]
fn the_partitions_are_as_many_as_are_configured() {
    let rig = Rig::with(|setup| setup.log("access: {partitions: 2}"));
    for client in 1..40 {
        let head = p_from(&format!("198.51.100.{client}"));
        rig.wardent.ask(format!("GET / HTTP/1.1\r\n{head}\r\n"));
    }
    let home = rig.wardent.end();
    let found = records(home.path());
    assert_eq!(found.len(), 39);
    for record in &found {
        assert_eq!(record.partition, partition_of(record.key.as_bytes(), 2));
    }
    assert!(!home.path().join(format!("log/{TOPIC}-2")).exists());
}

#[test]
fn ip_privacy_leaves_no_whole_address_in_key_or_value() {
    for (privacy, begins) in [("truncate", "198.51.100.0/24"), ("hash", "h:")] {
        let rig = Rig::with(|setup| setup.log(&format!("ip_privacy: {privacy}")));
        rig.wardent.get("/client");
        let stranger = get("/stranger").replace(KEY, "wrong");
        rig.wardent.stranger().ask(stranger);
        let home = rig.wardent.end();
        let found = records(home.path());
        assert_eq!(found.len(), 2);
        for record in &found {
            for address in [CLIENT, "127.0.0.2"] {
                assert!(!record.key.contains(address), "{record:#?}");
                assert!(!record.text.contains(address), "{record:#?}");
            }
        }
        let event = event_of(&events(&found), "/client");
        assert!(
            event["client"].as_str().unwrap().starts_with(begins),
            "{event:#}"
        );
        assert_eq!(
            event["peer"], "127.0.0.1",
            "a trusted peer is the operator's own"
        );
        let salt = fs::metadata(home.path().join("ip-privacy.salt"));
        match privacy {
            "hash" => assert_eq!(salt.unwrap().permissions().mode() & 0o777, 0o600),
            _ => assert!(salt.is_err()),
        }
    }
}

#[test]
fn events_outlive_a_kill() {
    let origin = Origin::echo();
    let mut process = Wardent::setup(&origin).spawn();
    let mut client = process.client();
    for _ in 0..50 {
        assert_eq!(client.ask(get("/")).status, 200);
    }
    let path = process.dir().to_owned();
    time::eventually("the events are written", || records(&path).len() == 50);
    process.signal(Signal::KILL);
    process.wait_exit(time::PATIENCE).unwrap();
    let events = events(&records(&path));
    assert_eq!(events.len(), 50);
    assert_complete(&events);
}

#[test]
fn one_process_has_the_log() {
    let rig = Rig::new();
    let dir = rig.wardent.dir().join("log");
    let second = Wardent::setup(&rig.origin).log_dir(&dir);
    let refused = second.try_start().unwrap_err();
    let pid = std::process::id();
    let words = format!("log dir {} is locked by pid {pid}", dir.display());
    assert!(refused.contains(&words), "{refused}");
    assert_eq!(rig.wardent.get("/").status, 200);
}

#[test]
fn the_log_is_seen_in_metrics_and_health() {
    let rig = Rig::new();
    for _ in 0..3 {
        rig.wardent.get("/");
    }
    time::eventually("three events are written", || {
        rig.wardent.metric("wardent_events_written_total") == 3.0
    });
    assert_eq!(rig.wardent.metric("wardent_events_total"), 3.0);
    assert_eq!(
        rig.wardent
            .metric("wardent_events_lost_total{reason=\"lane_full\"}"),
        0.0
    );
    assert!(rig.wardent.metric("wardent_log_bytes") > 0.0);
    let (status, ready) = rig.wardent.ask_listener("GET", "/readyz", "");
    assert_eq!(status, 200);
    assert_eq!(ready["log"], json!({"state": "ok", "reasons": []}));
}

#[test]
fn who_waits_for_events_leaves_room_for_others() {
    let rig = Rig::new();
    let status = |target: &str| rig.wardent.ask_listener("GET", target, "").0;
    let begin = || {
        let mut waits = TcpStream::connect(rig.wardent.admin()).unwrap();
        let target = "/api/v1/events?order=oldest&wait=20s";
        write!(waits, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        waits
    };
    let mut waits: Vec<_> = (0..32).map(|_| begin()).collect();
    let another = "/api/v1/events?order=oldest&wait=100ms";
    time::eventually("all places are taken", || {
        let (_, said) = rig.wardent.ask_listener("GET", another, "");
        let is_taken = said.to_string().contains("enough others wait");
        if !is_taken {
            // Who came when too many were reading at once was refused, and has no place.
            waits.push(begin());
        }
        is_taken
    });
    assert_eq!(status("/livez"), 200);
    assert_eq!(status("/api/v1/events?order=oldest"), 200);
    drop(waits);
    time::eventually("there are places again", || status(another) == 200);
}
