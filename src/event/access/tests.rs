//! What is written is what the schema describes, whatever clients wrote.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::event::{
    place::{Gap, Run},
    privacy::Privacy,
};

const SCHEMA: &str = include_str!("../../../docs/schemas/wardent.http.access.v1.json");

fn address(text: &str) -> AddressText {
    Privacy::Full.of(text.parse().unwrap())
}

/// With nothing but what every event has.
fn least<'a>() -> Access<'a> {
    Access {
        place: None,
        arrived_unix_ms: 1_795_255_201_042,
        id: b"01KAJ0000000000000000000AA",
        client: None,
        is_proven: false,
        peer: None,
        edge: None,
        method: b"",
        host: b"",
        path: b"",
        is_cross_site: false,
        status: 0,
        verdict: Verdict::Aborted,
        reason: None,
        is_observed: false,
        why: None,
        rule: None,
        route: "",
        body_bytes_in: 0,
        bytes_out: 0,
        total_us: 0,
        body_us: None,
        connected_us: None,
        answered_us: None,
        upstream: None,
        user_agent: b"",
        bot: None,
        country: None,
        ray: None,
    }
}

/// With everything that an event can have.
fn most<'a>(client: &'a AddressText, text: &'a [u8]) -> Access<'a> {
    Access {
        place: Some(Place {
            run: Run::new(0xc0ffee),
            lane: 3,
            seq: u64::MAX >> 11,
        }),
        client: Some(client),
        is_proven: true,
        peer: Some(client),
        edge: Some(client),
        method: b"GET",
        host: text,
        path: text,
        is_cross_site: true,
        status: 429,
        verdict: Verdict::Refused,
        reason: Some("rate_limited"),
        is_observed: true,
        why: Some("over the limit"),
        rule: Some("login"),
        route: "login",
        body_bytes_in: 1,
        bytes_out: 120,
        total_us: 1_042,
        body_us: Some(10),
        connected_us: Some(20),
        answered_us: Some(30),
        upstream: Some("127.0.0.1:8000"),
        user_agent: text,
        bot: Some(SeenBot {
            name: text,
            category: "http-library",
            standing: Some("verified"),
        }),
        country: Some(b"DE"),
        ray: Some(b"8f1c2d3e4f5a6b7c-FRA"),
        ..least()
    }
}

fn json_of(access: &Access<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    access.write_json(&Stamps::default(), &mut out);
    out
}

fn fields_of(bytes: &[u8]) -> BTreeSet<String> {
    let line: Value = serde_json::from_slice(bytes).unwrap();
    line.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn a_line_is_json_whatever_the_client_wrote() {
    let hostile = b"a\"b\\c\x1b[2J\xff\xe2\x80\xa8<img>";
    let client = address("198.51.100.7");
    let out = json_of(&most(&client, hostile));
    let line: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(line["status"], 429);
    assert_eq!(line["client"], "198.51.100.7");
    for field in ["host", "path", "user_agent", "bot"] {
        assert!(line[field].as_str().unwrap().starts_with("a\"b\\c\u{1b}"));
    }
    assert!(out.is_ascii());
    assert!(!out.contains(&0x1b));
}

#[test]
fn long_text_is_cut() {
    let (client, long) = (address("198.51.100.7"), vec![b'a'; 100_000]);
    assert!(json_of(&most(&client, &long)).len() < 3_000);
    let (client, long) = (address("198.51.100.7"), vec![0xff; 100_000]);
    assert!(json_of(&most(&client, &long)).len() < 16 * 1024);
}

#[test]
fn the_schema_describes_every_field_and_no_other() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let described = |name: &str| {
        let properties = schema["$defs"][name]["properties"].as_object().unwrap();
        let fields: BTreeSet<_> = properties.keys().cloned().collect();
        let silent = |field: &&String| !properties[*field]["description"].is_string();
        assert_eq!(fields.iter().find(silent), None, "not described");
        fields
    };
    let required = |name: &str| {
        let names = schema["$defs"][name]["required"].as_array().unwrap();
        let names = names.iter().map(|name| name.as_str().unwrap().to_owned());
        names.collect::<BTreeSet<_>>()
    };
    let client = address("198.51.100.7");
    assert_eq!(
        fields_of(&json_of(&most(&client, b"x"))),
        described("access")
    );
    let place = most(&client, b"x").place;
    let mut gap = Vec::new();
    let lost = Gap {
        first: place.unwrap(),
        last_seq: u64::MAX >> 11,
        unix_ms: 0,
    };
    lost.write(&Stamps::default(), &mut gap);
    assert_eq!(fields_of(&gap), described("gap"));
    assert_eq!(fields_of(&gap), required("gap"));
    let least = Access { place, ..least() };
    assert_eq!(fields_of(&json_of(&least)), required("access"));
}

#[test]
fn the_schema_names_every_verdict() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let named = &schema["$defs"]["access"]["properties"]["verdict"]["enum"];
    let verdicts: Vec<_> = Verdict::ALL.iter().map(|verdict| verdict.name()).collect();
    assert_eq!(*named, serde_json::json!(verdicts));
}

#[test]
fn a_person_can_read_the_other_form() {
    let client = address("198.51.100.7");
    let access = Access {
        path: b"/up\x1b",
        host: b"app.test",
        status: 413,
        reason: Some("body_too_large"),
        why: Some("the declared length is over the route's bound"),
        is_observed: false,
        ..most(&client, b"")
    };
    let mut out = Vec::new();
    access.write_human(&Stamps::default(), &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "2026-11-21T10:00:01.042Z 198.51.100.7 GET app.test/up\\u001b 413 refused \
         (body_too_large: the declared length is over the route's bound) 1.042 ms \
         01KAJ0000000000000000000AA"
    );
}
