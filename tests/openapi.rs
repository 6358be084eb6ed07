//! The document that describes the API says what is served, and nothing else.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use support::{rig::Rig, schema::Schema, time::eventually};

/// What is asked of paths that need it.
fn parameters(path: &str) -> &'static str {
    match path {
        "/api/v1/client" => "?target=203.0.113.9",
        _ => "",
    }
}

/// Answers that are no JSON.
const STREAMS: [&str; 1] = ["/api/v1/live"];

#[test]
fn every_answer_is_as_the_document_describes_it() {
    let rig = Rig::new();
    rig.wardent.get("/");
    rig.wardent.ban("203.0.113.9");
    let read = |target: &str| rig.wardent.ask_listener("GET", target, "");
    eventually("the request is in the log", || {
        let (_, found) = read("/api/v1/events");
        found["events"]
            .as_array()
            .is_some_and(|events| !events.is_empty())
    });
    let (_, document) = read("/api/v1/openapi.json");
    let paths = document["paths"].as_object().unwrap();
    let mut looked_at = 0;
    for (path, methods) in paths {
        if methods.get("get").is_none() || STREAMS.contains(&path.as_str()) {
            continue;
        }
        let (status, answer) = read(&format!("{path}{}", parameters(path)));
        assert_eq!(status, 200, "{path}: {answer}");
        let pointer = format!(
            "/paths/{}/get/responses/200/content/application~1json/schema",
            path.replace('/', "~1")
        );
        let schema = Schema::within(&document, &pointer);
        let faults = schema.faults(&answer);
        assert!(faults.is_empty(), "{path}: {faults:#?}");
        looked_at += 1;
    }
    assert!(looked_at > 10, "{looked_at}");
}

#[test]
fn every_path_takes_the_methods_that_the_document_tells() {
    let rig = Rig::new();
    let (_, document) = rig.wardent.ask_listener("GET", "/api/v1/openapi.json", "");
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "delete", "put"] {
            let asked = method.to_uppercase();
            if STREAMS.contains(&path.as_str()) && method == "get" {
                continue;
            }
            let status = rig.wardent.status_of(&asked, path);
            let is_told = methods.get(method).is_some();
            assert_eq!(status != 405, is_told, "{asked} {path}: {status}");
            let is_act = methods[method].get("security").is_some();
            assert_eq!(status == 401, is_told && is_act, "{asked} {path}: {status}");
        }
    }
    let (status, words) = rig.wardent.ask_listener("GET", "/api/v1/none", "");
    assert_eq!(status, 404);
    let told = words["error"].as_str().unwrap();
    let is_described = |path: &&str| document["paths"].get(*path).is_some();
    // What Kafka's users are and what `log verify` does is told in docs/kafka-security.md and docs/log.md.
    let of_others = ["/api/v1/log/users", "/api/v1/log/verify"];
    let named: Vec<&str> = told
        .split([' ', ',', ':'])
        .filter(|word| word.starts_with("/api/"))
        .collect();
    assert!(named.len() > 10, "{told}");
    for path in named.iter().filter(|path| !of_others.contains(path)) {
        assert!(is_described(path), "{path} is not described");
    }
}
