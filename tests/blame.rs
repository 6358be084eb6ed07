//! Group F: what is held against a client is its own, was enforced, and is nobody else's doing.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use support::{P_NOSECRET, p_from, rig::Rig, time};

const CULPRIT: &str = "198.51.100.20";
const VICTIM: &str = "198.51.100.7";

fn from(client: &str, method: &str, target: &str, length: usize) -> String {
    let p = p_from(client);
    format!("{method} {target} HTTP/1.1\r\n{p}Content-Length: {length}\r\n\r\n")
}

/// What the client at `ip` gets on a route that enforces.
fn strict(rig: &Rig, ip: &str) -> u16 {
    rig.wardent.ask(from(ip, "GET", "/strict/", 0)).status
}

#[test]
fn a_body_that_is_too_large_for_a_route_that_observes_bans_nobody() {
    let rig = Rig::with(|setup| {
        setup.policy(
            "mode: observe
bans: {threshold: 2, points: {body_too_large: 1}}
defaults: {body: 1KiB, limit: {rate: 1000000/s, burst: 1000000}}
routes:
  - {name: strict, match: {path: /strict/}, mode: enforce}
",
        )
    });
    for _ in 0..4 {
        let declared = rig.wardent.ask(from(VICTIM, "POST", "/open/", 2048));
        assert_eq!(declared.status, 413);
        let mut streaming = rig.wardent.client();
        let head = p_from(VICTIM);
        streaming.send_anyway(format!(
            "POST /open/ HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n800\r\n{}\r\n",
            "x".repeat(0x800)
        ));
        assert_eq!(streaming.response("POST").status, 413);
    }
    // Once somebody is banned who came later, all that came before has been heard.
    for _ in 0..2 {
        rig.wardent.ask(from(CULPRIT, "POST", "/strict/", 2048));
    }
    time::eventually("the culprit is banned", || strict(&rig, CULPRIT) == 403);
    assert_eq!(strict(&rig, VICTIM), 200);
}

#[test]
fn whoever_only_says_to_be_a_client_spends_nothing_of_what_that_client_may_ask() {
    let rig = Rig::with(|setup| {
        setup.policy(
            "mode: enforce
bans: {threshold: 3, points: {rate_limited: 1}}
defaults: {limit: {rate: 1/h, burst: 3}}
routes:
  - {name: hook, match: {path: /hook/}, secret: skip}
",
        )
    });
    let unproven = format!("GET /hook/ HTTP/1.1\r\n{P_NOSECRET}\r\n");
    let statuses: Vec<_> = (0..9).map(|_| rig.wardent.ask(&unproven).status).collect();
    assert_eq!(statuses[..3], [200; 3], "it has a burst of its own");
    assert_eq!(statuses[3..], [429; 6], "it is limited all the same");
    for target in ["/a", "/hook/", "/b"] {
        let answer = rig.wardent.ask(from(VICTIM, "GET", target, 0));
        assert_eq!(answer.status, 200, "{target}");
    }
}
