//! The schema registry, as its clients see it: Confluent's paths, codes and answers on the admin listener.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};
use support::{client::RawClient, message::Response, rig::Rig, wardent::Wardent};
use wardent::base::net::Address;

const V1: &str = "application/vnd.schemaregistry.v1+json";
const SUBJECT: &str = "orders-value";

fn token(wardent: &Wardent) -> String {
    let text = fs::read_to_string(wardent.dir().join("admin.token")).unwrap();
    text.trim().to_owned()
}

/// Asks over the listener, with these fields.
fn ask(wardent: &Wardent, method: &str, target: &str, fields: &str, body: &str) -> Response {
    let fields = format!("Content-Type: {V1}\r\n{fields}");
    ask_with(wardent, method, target, &fields, body)
}

/// Asks with these fields alone.
fn ask_with(wardent: &Wardent, method: &str, target: &str, fields: &str, body: &str) -> Response {
    let listener = Address::Tcp(wardent.admin());
    RawClient::connect(&listener).ask(format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

#[track_caller]
fn said(response: &Response) -> (u16, Value) {
    assert_eq!(response.header("content-type"), Some(V1), "{response:?}");
    let json = serde_json::from_slice(&response.body);
    (
        response.status,
        json.unwrap_or_else(|error| panic!("{error}: {response:?}")),
    )
}

/// Reads, without a token.
#[track_caller]
fn get(wardent: &Wardent, target: &str) -> (u16, Value) {
    said(&ask(wardent, "GET", target, "", ""))
}

/// Acts, with the token.
#[track_caller]
fn act(wardent: &Wardent, method: &str, target: &str, body: &Value) -> (u16, Value) {
    let fields = format!("Authorization: Bearer {}\r\n", token(wardent));
    let body = match body.is_null() {
        true => String::new(),
        false => body.to_string(),
    };
    said(&ask(wardent, method, target, &fields, &body))
}

fn record(fields: &[(&str, &str)]) -> Value {
    let fields = fields.iter().map(|(name, kind)| {
        let mut field = json!({"name": name, "type": kind});
        if *kind == "long" {
            field["default"] = json!(0);
        }
        field
    });
    let fields: Vec<_> = fields.collect();
    let schema = json!({"type": "record", "name": "Order", "fields": fields});
    json!({"schema": schema.to_string()})
}

#[test]
fn a_subject_grows_as_in_confluents_registry() {
    let rig = Rig::new();
    let wardent = &rig.wardent;
    let versions = format!("/subjects/{SUBJECT}/versions");
    let first = record(&[("a", "string")]);
    let second = record(&[("a", "string"), ("b", "long")]);
    let bad = record(&[("a", "string"), ("c", "string")]);
    assert_eq!(get(wardent, &versions).1["error_code"], 40_401);
    assert_eq!(
        act(wardent, "POST", &versions, &first),
        (200, json!({"id": 100}))
    );
    assert_eq!(
        act(wardent, "POST", &versions, &first),
        (200, json!({"id": 100}))
    );
    assert_eq!(
        act(wardent, "POST", &versions, &second),
        (200, json!({"id": 101}))
    );
    let (status, refused) = act(wardent, "POST", &versions, &bad);
    assert_eq!(
        (status, &refused["error_code"]),
        (409, &json!(409)),
        "{refused}"
    );
    assert_eq!(get(wardent, &versions), (200, json!([1, 2])));
    let latest = format!("{versions}/latest");
    let (_, shown) = get(wardent, &latest);
    assert_eq!(
        shown,
        json!({"subject": SUBJECT, "version": 2, "id": 101, "schema": second["schema"]})
    );
    let plain = ask(wardent, "GET", &format!("{latest}/schema"), "", "");
    assert_eq!(plain.body, second["schema"].as_str().unwrap().as_bytes());
}

#[test]
fn a_schema_is_found_by_what_it_says_and_by_its_id() {
    let rig = Rig::new();
    let wardent = &rig.wardent;
    let versions = format!("/subjects/{SUBJECT}/versions");
    let second = record(&[("a", "string"), ("b", "long")]);
    let bad = record(&[("a", "string"), ("c", "string")]);
    for schema in [&record(&[("a", "string")]), &second] {
        assert_eq!(act(wardent, "POST", &versions, schema).0, 200);
    }
    let (_, shown) = get(wardent, &format!("{versions}/latest"));
    let (_, found) = said(&ask(
        wardent,
        "POST",
        &format!("/subjects/{SUBJECT}?normalize=false"),
        "",
        &second.to_string(),
    ));
    assert_eq!(found, shown);
    let (_, none) = said(&ask(
        wardent,
        "POST",
        &format!("/subjects/{SUBJECT}"),
        "",
        &bad.to_string(),
    ));
    assert_eq!(none["error_code"], 40_403);
    assert_eq!(
        get(wardent, "/schemas/ids/101"),
        (200, json!({"schema": second["schema"]}))
    );
    assert_eq!(
        get(wardent, "/schemas/ids/101?fetchMaxId=true").1["maxId"],
        101
    );
    assert_eq!(
        get(wardent, "/schemas/ids/101/versions"),
        (200, json!([{"subject": SUBJECT, "version": 2}]))
    );
    assert_eq!(
        get(wardent, "/schemas/ids/101/subjects"),
        (200, json!([SUBJECT]))
    );
    assert_eq!(get(wardent, "/schemas/ids/4711").1["error_code"], 40_403);
    assert_eq!(
        get(wardent, "/schemas/types"),
        (200, json!(["AVRO", "JSON"]))
    );
}

#[test]
fn what_is_deleted_can_be_asked_for_until_it_is_deleted_for_good() {
    let rig = Rig::new();
    let wardent = &rig.wardent;
    let versions = format!("/subjects/{SUBJECT}/versions");
    for schema in [
        record(&[("a", "string")]),
        record(&[("a", "string"), ("b", "long")]),
    ] {
        assert_eq!(act(wardent, "POST", &versions, &schema).0, 200);
    }
    let one = format!("{versions}/1");
    let code = |target: &str| act(wardent, "DELETE", target, &Value::Null).1["error_code"].clone();
    assert_eq!(code(&format!("{one}?permanent=true")), 40_407);
    assert_eq!(act(wardent, "DELETE", &one, &Value::Null), (200, json!(1)));
    assert_eq!(code(&one), 40_406);
    assert_eq!(get(wardent, &one).1["error_code"], 40_402);
    assert_eq!(get(wardent, &format!("{one}?deleted=true")).0, 200);
    assert_eq!(code(&format!("{versions}/0")), 42_202);
    let subject = format!("/subjects/{SUBJECT}");
    assert_eq!(
        act(wardent, "DELETE", &subject, &Value::Null),
        (200, json!([2]))
    );
    assert_eq!(code(&subject), 40_404);
    let subjects = |query: &str| get(wardent, &format!("/subjects?subjectPrefix=o{query}")).1;
    assert_eq!(subjects(""), json!([]));
    assert_eq!(subjects("&deleted=true"), json!([SUBJECT]));
    let permanently = format!("{subject}?permanent=true");
    assert_eq!(
        act(wardent, "DELETE", &permanently, &Value::Null),
        (200, json!([1, 2]))
    );
    assert_eq!(subjects("&deleted=true"), json!([]));
}

#[test]
fn a_level_is_set_and_asked_about() {
    let rig = Rig::new();
    let wardent = &rig.wardent;
    let of_subject = format!("/config/{SUBJECT}");
    assert_eq!(
        get(wardent, "/config").1,
        json!({"compatibilityLevel": "BACKWARD"})
    );
    assert_eq!(get(wardent, &of_subject).1["error_code"], 40_408);
    let defaulted = get(wardent, &format!("{of_subject}?defaultToGlobal=true"));
    assert_eq!(defaulted.1, json!({"compatibilityLevel": "BACKWARD"}));
    let level = |level: &str| json!({"compatibility": level});
    let set = act(wardent, "PUT", &of_subject, &level("full_transitive"));
    assert_eq!(set, (200, level("FULL_TRANSITIVE")));
    assert_eq!(
        act(wardent, "PUT", "/config", &level("SOME")).1["error_code"],
        42_203
    );
    let versions = format!("/subjects/{SUBJECT}/versions");
    let first = record(&[("a", "long"), ("b", "string")]);
    assert_eq!(act(wardent, "POST", &versions, &first).0, 200);
    // Readers of the first would miss `b`.
    let second = record(&[("a", "long")]);
    let tried = |target: &str, schema: &Value| {
        let target = format!("/compatibility{target}");
        said(&ask(wardent, "POST", &target, "", &schema.to_string())).1
    };
    assert_eq!(tried(&versions, &second), json!({"is_compatible": false}));
    let why = tried(&format!("{versions}/latest?verbose=true"), &second);
    assert!(
        why["messages"][0].as_str().unwrap().contains("version 1"),
        "{why}"
    );
    let dropped = act(wardent, "DELETE", &of_subject, &Value::Null);
    assert_eq!(dropped.1, json!({"compatibilityLevel": "FULL_TRANSITIVE"}));
    assert_eq!(tried(&versions, &second), json!({"is_compatible": true}));
    assert_eq!(
        tried(&format!("{versions}/7"), &second)["error_code"],
        40_402
    );
    assert_eq!(get(wardent, "/mode").1, json!({"mode": "READWRITE"}));
    let mode = act(wardent, "PUT", "/mode", &json!({"mode": "READONLY"}));
    assert_eq!((mode.0, &mode.1["error_code"]), (422, &json!(42_205)));
}

#[test]
fn whoever_writes_shows_the_token_or_comes_by_the_socket() {
    let rig = Rig::new();
    let wardent = &rig.wardent;
    let path = wardent.dir().join("admin.token");
    let mode = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let versions = format!("/subjects/{SUBJECT}/versions");
    let schema = record(&[("a", "long")]).to_string();
    for (method, target, body) in [
        ("POST", versions.as_str(), schema.as_str()),
        ("DELETE", "/subjects/a", ""),
        ("DELETE", "/subjects/a/versions/1", ""),
        ("PUT", "/config", r#"{"compatibility": "NONE"}"#),
        ("PUT", "/config/a", r#"{"compatibility": "NONE"}"#),
        ("DELETE", "/config/a", ""),
        ("PUT", "/mode", r#"{"mode": "READONLY"}"#),
    ] {
        let refused = ask(wardent, method, target, "", body);
        assert_eq!(said(&refused).1["error_code"], 401, "{method} {target}");
        assert_eq!(
            refused.header("www-authenticate"),
            Some("Bearer realm=\"wardent\"")
        );
    }
    let wrong = "Authorization: Bearer 0123456789abcdef\r\n";
    assert_eq!(ask(wardent, "POST", &versions, wrong, &schema).status, 401);
    // Not even reading: whoever shows one thinks that it is the right one.
    assert_eq!(ask(wardent, "GET", "/subjects", wrong, "").status, 401);
    // As clients of Kafka send it.
    let basic = data_encoding::BASE64.encode(format!("wardent:{}", token(wardent)).as_bytes());
    let basic = format!("Authorization: Basic {basic}\r\n");
    assert_eq!(ask(wardent, "POST", &versions, &basic, &schema).status, 200);
    let (status, id) = wardent.act("POST", "/subjects/other/versions", &schema);
    assert_eq!((status, id), (200, json!({"id": 100})));
    // And for all other acts.
    let bearer = format!("Authorization: Bearer {}\r\n", token(wardent));
    let ban = r#"{"target": "198.51.100.7", "for": "1h"}"#;
    let banned = ask(wardent, "POST", "/api/v1/bans", &bearer, ban);
    assert_eq!(banned.status, 201);
    let banned: Value = serde_json::from_slice(&banned.body).unwrap();
    assert_eq!(banned["by"], "token");
    assert_eq!(
        ask(wardent, "POST", "/api/v1/reload", &bearer, "").status,
        200
    );
}

#[test]
fn wardents_own_schemas_are_there_and_its_own() {
    let rig = Rig::new();
    let wardent = &rig.wardent;
    let own = [
        "wardent.audit.event-value",
        "wardent.client.ban-value",
        "wardent.http.access-value",
    ];
    assert_eq!(get(wardent, "/subjects"), (200, json!(own)));
    for (id, subject) in [(1, own[2]), (2, own[1]), (3, own[0])] {
        let (_, shown) = get(wardent, &format!("/subjects/{subject}/versions/1"));
        assert_eq!(shown["id"], id);
        let (_, level) = get(wardent, &format!("/config/{subject}"));
        assert_eq!(level, json!({"compatibilityLevel": "BACKWARD_TRANSITIVE"}));
        let versions = format!("/subjects/{subject}/versions");
        let other = act(wardent, "POST", &versions, &record(&[("a", "long")]));
        assert_eq!(other.1["error_code"], 42_205);
    }
}

#[test]
fn it_is_all_there_after_a_start() {
    let rig = Rig::new();
    let mut wardent = rig.wardent;
    let versions = format!("/subjects/{SUBJECT}/versions");
    assert_eq!(
        act(&wardent, "POST", &versions, &record(&[("a", "long")])).0,
        200
    );
    let token_before = token(&wardent);
    wardent = wardent.again();
    assert_eq!(get(&wardent, &versions), (200, json!([1])));
    assert_eq!(token(&wardent), token_before);
}

#[test]
fn what_cannot_be_read_is_refused_in_its_own_words() {
    let rig = Rig::new();
    let wardent = &rig.wardent;
    let versions = format!("/subjects/{SUBJECT}/versions");
    let long = "x".repeat(300_000);
    let schema = |kind: &str, text: &str| json!({"schemaType": kind, "schema": text});
    let deep = "[".repeat(10_000);
    for (what, body, code) in [
        ("no Avro", schema("AVRO", r#"{"type": "nothing"}"#), 42_201),
        ("no JSON", schema("AVRO", "{"), 42_201),
        ("deep", schema("AVRO", &deep), 42_201),
        ("long", schema("JSON", &format!("\"{long}\"")), 42_209),
        ("protobuf", schema("PROTOBUF", "message A {}"), 42_201),
        ("another type", schema("XML", "<a/>"), 42_201),
        ("no schema", json!({"a": 1}), 42_201),
        (
            "references",
            json!({"schema": "\"long\"", "references": [{"name": "a", "subject": "b", "version": 1}]}),
            42_201,
        ),
    ] {
        let (status, refused) = act(wardent, "POST", &versions, &body);
        assert_eq!(
            (status, &refused["error_code"]),
            (422, &json!(code)),
            "{what}: {refused}"
        );
    }
    // What a page of another site may send without being asked.
    for fields in ["", "Content-Type: text/plain\r\n"] {
        let target = format!("/subjects/{SUBJECT}");
        let form = ask_with(wardent, "POST", &target, fields, "{}");
        assert_eq!(said(&form).1["error_code"], 415, "{fields}");
    }
    let put = ask(wardent, "PUT", "/subjects", "", "");
    assert_eq!((put.status, put.header("allow")), (405, Some("GET")));
    assert_eq!(get(wardent, "/schemas/nothing").0, 404);
    assert_eq!(get(wardent, "/subjects/%zz/versions").0, 400);
    let body = json!({"schema": "x".repeat(700_000)});
    assert_eq!(act(wardent, "POST", &versions, &body).0, 413);
}
