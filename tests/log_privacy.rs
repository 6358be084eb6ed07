//! What must never be told is in no record of any topic, on no line, and in no word of Wardent's own.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use rustix::process::Signal;
use support::{
    CLIENT, KEY, P, P_NOSECRET, client::method_of, get, origin::Origin, process::Process, records,
    time, wardent::Setup, wardent::Wardent,
};

const POLICY: &str = "mode: enforce
defaults: {limit: {rate: 1000000/s, burst: 1000000}}
routes: [{name: trap, match: {path: /trap}, trap: true}]
bans: {threshold: 10}
";

const TOPICS: [&str; 3] = [
    "wardent.http.access",
    "wardent.client.ban",
    "wardent.audit.event",
];

/// What a process has told in its life: keys and values of each topic, and its standard output and error.
struct Told {
    topics: [String; 3],
    output: String,
}

/// Plays `requests` to a process, each on a connection of its own, and ends it.
fn told(change: impl FnOnce(Setup) -> Setup, requests: &[String]) -> Told {
    let origin = Origin::echo();
    let mut process: Process = change(Wardent::setup(&origin).policy(POLICY)).spawn();
    for request in requests {
        let mut client = process.client();
        client.send_anyway(request.as_bytes());
        client.try_response(&method_of(request.as_bytes())).unwrap();
    }
    process.signal(Signal::TERM);
    process.wait_exit(time::PATIENCE).unwrap();
    let log = process.dir().join("log");
    let topics = TOPICS.map(|topic| {
        let found = records::of_topic(&log, topic);
        found
            .iter()
            .map(|record| format!("{} {}\n", record.key, record.text))
            .collect()
    });
    let output = process.said();
    Told { topics, output }
}

#[test]
fn secrets_cookies_and_queries_are_told_nowhere() {
    let carried = "Cookie: id=crumbs\r\nAuthorization: Bearer crumbs\r\nReferer: http://a.test/?crumbs\r\n\
                   X-Wardent-Other: crumbs\r\n\r\n";
    let mut requests: Vec<_> = [
        "/a?crumbs",
        "/a?b?crumbs",
        "/a?%63=crumbs#crumbs",
        "/a#crumbs",
        "?crumbs",
        "//a?crumbs",
        "/a/..%2f?crumbs",
        "/a b?crumbs",
        "http://app.test/a?crumbs",
        "http://app.test?crumbs",
        "http://crumbs@app.test/a",
        "http://app.test/a#crumbs",
        "/trap?crumbs",
    ]
    .iter()
    .map(|target| format!("GET {target} HTTP/1.1\r\n{P}{carried}"))
    .collect();
    let wrong = "X-Wardent-Secret: crumbs-thirty-two-bytes-long-000\r\n";
    for head in [
        format!("GET / HTTP/1.1\r\n{P_NOSECRET}{wrong}{carried}"),
        format!("GET / HTTP/1.1\r\n{P}{wrong}{carried}"),
        format!("GET / HTTP/1.1\r\nHost: app.test/?crumbs\r\nX-Wardent-Secret: {KEY}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: app.test\r\nX-Wardent-Secret : {KEY}\r\n\r\n"),
        format!("{KEY} crumbs\r\n\r\n"),
    ] {
        requests.push(head);
    }
    let told = told(|setup| setup, &requests);
    let [access, bans, audit] = &told.topics;
    assert_eq!(access.lines().count(), requests.len(), "{access}");
    assert!(bans.contains(CLIENT) && audit.contains("\"/trap\""));
    for text in told.topics.iter().chain([&told.output]) {
        for never in ["crumbs", KEY, "k1secret"] {
            assert!(!text.contains(never), "{never}: {text}");
        }
    }
}

#[test]
fn ip_privacy_leaves_no_whole_address_in_any_record_or_line_but_bans() {
    const V6: &str = "2001:db8:1:2::7";
    let requests: Vec<_> = [CLIENT, V6]
        .iter()
        .flat_map(|client| ["/", "/trap", "/banned"].map(|path| (client, path)))
        .map(|(client, path)| get(path).replace(CLIENT, client))
        .collect();
    for privacy in ["truncate", "hash"] {
        let told = told(
            |setup| setup.log(&format!("ip_privacy: {privacy}")),
            &requests,
        );
        let [access, bans, audit] = &told.topics;
        assert_eq!(access.lines().count(), requests.len());
        assert!(bans.contains(CLIENT) && bans.contains("2001:db8:1:2::/64"));
        assert_eq!(audit.matches("\"what\":\"ban\"").count(), 2, "{audit}");
        assert!(told.output.contains("\"/banned\""), "{}", told.output);
        for text in [access, audit, &told.output] {
            for never in [CLIENT, "2001:db8:1:2"] {
                assert!(!text.contains(never), "{privacy} {never}: {text}");
            }
        }
    }
}
