//! Who asks most is known while somebody looks, by client, path, reason and more.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use serde_json::Value;
use support::{p_from, rig::Rig, time::eventually, wardent::Wardent};

fn get(client: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{}\r\n", p_from(client))
}

/// The ranking over the listener, which is for whoever may read.
#[track_caller]
fn top(wardent: &Wardent, query: &str) -> Value {
    let (status, top) = wardent.ask_listener("GET", &format!("/api/v1/top{query}"), "");
    assert_eq!(status, 200, "{top}");
    top
}

/// Keys and requests of the rows.
fn rows(top: &Value) -> Vec<(String, u64)> {
    let rows = top["rows"].as_array().unwrap().iter();
    let row = |row: &Value| {
        let requests = row["requests"].as_u64().unwrap();
        (row["key"].as_str().unwrap().to_owned(), requests)
    };
    rows.map(row).collect()
}

#[test]
fn who_asks_most_is_told_with_what_became_of_it() {
    let policy = "\
defaults: {bots: {http-library: allow}, limit: {rate: 1/m, burst: 3}}
bans: {threshold: 1000, window: 60s, duration: 10m}
";
    let rig = Rig::with(|setup| setup.policy(policy));
    let wardent = &rig.wardent;
    for _ in 0..5 {
        wardent.ask(get("198.51.100.7", "/a"));
    }
    wardent.ask(get("203.0.113.9", "/b\u{9b}"));
    eventually("all six are told", || {
        top(wardent, "")["rows"].as_array().unwrap().len() == 2
    });
    let by_client = top(wardent, "?window=5m");
    let expected = [
        ("198.51.100.7".to_owned(), 5),
        ("203.0.113.9".to_owned(), 1),
    ];
    assert_eq!(rows(&by_client), expected);
    let first = &by_client["rows"][0];
    assert_eq!(first["refused"], 2, "{first}");
    assert_eq!(first["rate_limited"], 2, "{first}");
    assert!(first["p99_ms"].as_f64().unwrap() >= first["p50_ms"].as_f64().unwrap());
    assert_eq!(by_client["share"], 1.0);
    let reasons = top(wardent, "?by=reason");
    assert_eq!(rows(&reasons), [("rate_limited".to_owned(), 2)]);
    let paths = top(wardent, "?by=path&limit=1");
    assert_eq!(rows(&paths), [("/a".to_owned(), 5)]);
}

#[test]
fn a_question_without_a_meaning_is_refused() {
    let rig = Rig::new();
    for (query, status) in [("?by=x", 422), ("?x=1", 400), ("?window=1h", 422)] {
        let (got, said) = rig
            .wardent
            .ask_listener("GET", &format!("/api/v1/top{query}"), "");
        assert_eq!(got, status, "{query}: {said}");
    }
    let (got, _) = rig.wardent.ask_listener("POST", "/api/v1/top", "");
    assert_eq!(got, 405);
}
