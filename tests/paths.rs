//! Group N: rules see the path the application would see; the application sees the bytes sent.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use support::{
    CLIENT, P, P_NOSECRET, message, p_from, rig,
    rig::Rig,
    wardent::{Setup, open_policy},
};

/// Whether a rule fires shows by its body bound: it refuses what the rest would take.
const RULES: &str = "routes:
  - name: admin
    match: {path: /admin/}
    body: 1KiB
  - name: exact
    match: {path: /exact}
    body: 1KiB
  - name: one
    match: {path: /one/*/end}
    body: 1KiB
  - name: rest
    match: {path: [/rest/**, /.env]}
    body: 1KiB
  - name: post-only
    match: {path: /method, methods: [POST]}
    body: 1KiB
  - name: spaced
    match: {path: \"/a b/\"}
    body: 1KiB
";

fn with_rules(rules: &str) -> Rig {
    Rig::with(|setup| setup.policy(open_policy(&[], rules)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The rule fired.
    Fires,
    /// No rule fired, and the origin got the target as it was sent.
    Passes,
    /// The path has no single meaning.
    Refused,
}
use Verdict::{Fires, Passes, Refused};

/// What becomes of a target; the bytes are any but those that end a target.
fn verdict(rig: &Rig, method: &str, target: &[u8]) -> Verdict {
    let id = message::latin1(target);
    let body = [b'x'; 1025];
    let sent = [
        method.as_bytes(),
        b" ",
        target,
        b" HTTP/1.1\r\n",
        P.as_bytes(),
        b"Content-Length: 1025\r\n\r\n",
        &body,
    ]
    .concat();
    let mark = rig.origin.mark();
    let response = rig.wardent.ask(&sent);
    rig.assert_invariants(&id, &sent, &mark);
    let seen: Vec<_> = rig
        .origin
        .requests_since(&mark)
        .into_iter()
        .filter(|request| !request.head.target.starts_with("/alive-"))
        .collect();
    match response.status {
        200 => {
            assert_eq!(seen.len(), 1, "{id}");
            assert_eq!(seen[0].head.target, id, "the target was altered");
            assert_eq!(seen[0].body, body, "{id}");
            Passes
        }
        413 => {
            rig::assert_refusal(&id, &response, &[413], "body_too_large");
            assert!(seen.is_empty(), "{id}: {seen:?}");
            Fires
        }
        _ => {
            rig::assert_refusal(&id, &response, &[400], "bad_request");
            assert!(seen.is_empty(), "{id}: {seen:?}");
            Refused
        }
    }
}

fn check(rig: &Rig, rows: &[(&str, &[u8], &[Verdict])]) {
    for (id, target, allowed) in rows {
        let got = verdict(rig, "POST", target);
        let target = message::latin1(target);
        assert!(
            allowed.contains(&got),
            "{id}: {target} gives {got:?}, expected {allowed:?}"
        );
    }
}

#[test]
fn a_rule_fires_for_every_spelling_of_its_path() {
    let rig = with_rules(RULES);
    check(
        &rig,
        &[
            ("N-00", b"/admin/", &[Fires]),
            ("N-00b", b"/admin/users?x=1", &[Fires]),
            ("N-01", b"/%61dmin/", &[Fires]),
            ("N-01b", b"/%61%64%6D%69%6e/", &[Fires]),
            ("N-01c", b"/admi%6e/users", &[Fires]),
            ("N-02", b"/x/../admin/", &[Fires, Refused]),
            ("N-02b", b"/x/%2e%2e/admin/", &[Fires, Refused]),
            ("N-02c", b"/./admin/", &[Fires, Refused]),
            ("N-02d", b"/x/.%2e/admin/", &[Fires, Refused]),
            ("N-02e", b"/x/%2E./admin/", &[Fires, Refused]),
            ("N-02f", b"/admin/./x", &[Fires, Refused]),
            ("N-03", b"/x/y/../../admin/", &[Fires, Refused]),
            ("N-03b", b"/exact/x/..", &[Fires, Refused, Passes]),
            ("N-04", b"//admin/", &[Fires, Refused]),
            ("N-04b", b"/admin//users", &[Fires, Refused]),
            ("N-04c", b"///admin/", &[Fires, Refused]),
            ("N-05", b"/%2e/admin/", &[Fires, Refused]),
            ("N-08d", b"/exact", &[Fires]),
            ("N-08e", b"/exact?x", &[Fires]),
            ("N-08f", b"/e%78act", &[Fires]),
            ("N-12a", b"/a%20b/c", &[Fires]),
            ("N-12b", b"/.env", &[Fires]),
            ("N-12c", b"/%2eenv", &[Fires]),
            ("N-12d", b"/.env?x=1", &[Fires]),
        ],
    );
}

#[test]
fn a_rule_fires_for_no_other_path() {
    let rig = with_rules(RULES);
    check(
        &rig,
        &[
            ("N-05b", b"/%2561dmin/", &[Passes, Refused]),
            ("N-06", b"/ADMIN/", &[Passes]),
            ("N-06b", b"/Exact", &[Passes]),
            ("N-08", b"/administrator", &[Passes]),
            ("N-08b", b"/admin", &[Passes]),
            ("N-08c", b"/exact/", &[Passes]),
            ("N-08g", b"/exact2", &[Passes]),
            ("N-08h", b"/x/admin/", &[Passes]),
            ("N-10", b"/%c0%afadmin/", &[Passes, Refused]),
            ("N-10b", b"/%c0%ae%c0%ae/admin/", &[Passes, Refused]),
            ("N-10c", b"/%ff%fe", &[Passes, Refused]),
            ("N-13", b"/public?next=/admin/", &[Passes]),
            ("N-13b", b"/public?/../admin/", &[Passes]),
            ("N-13c", b"/public%3f/../admin/x", &[Fires, Refused, Passes]),
            ("N-14", b"/admin;x=1/", &[Passes, Refused]),
        ],
    );
}

#[test]
fn a_star_is_one_segment_and_two_are_any_rest() {
    let rig = with_rules(RULES);
    check(
        &rig,
        &[
            ("N-15", b"/one/x/end", &[Fires]),
            ("N-15b", b"/one/x/y/end", &[Passes]),
            ("N-15c", b"/one/end", &[Passes]),
            ("N-15d", b"/one/x/end/", &[Passes]),
            ("N-15e", b"/one/x/ending", &[Passes]),
            ("N-15f", b"/rest/x", &[Fires]),
            ("N-15g", b"/rest/x/y/z", &[Fires]),
            ("N-15h", b"/resting", &[Passes]),
        ],
    );
}

#[test]
fn a_path_without_one_meaning_is_refused() {
    let rig = with_rules(RULES);
    check(
        &rig,
        &[
            ("N-09", b"/admin%2f", &[Refused]),
            ("N-09b", b"/x%2Fadmin/", &[Refused]),
            ("N-09c", b"/x/..%2fadmin/", &[Refused]),
            ("N-11", b"/a%00b%0d%0aX-Injected:1", &[Refused]),
            ("N-11b", b"/a%00", &[Refused]),
            ("N-12e", b"/%zz", &[Refused]),
            ("N-12f", b"/a%", &[Refused]),
            ("N-12g", b"/a%4", &[Refused]),
            ("N-12h", b"/a%%61", &[Refused]),
            ("N-12i", b"/a%u0041", &[Refused]),
            ("N-02g", b"/../a", &[Refused]),
            ("N-02h", b"/%2e%2e/a", &[Refused]),
            ("N-02i", b"/a/../../b", &[Refused]),
            ("N-02j", b"/..", &[Refused]),
            ("N-02k", b"/a/..//../..", &[Refused]),
        ],
    );
}

#[test]
fn n11_encoded_line_ends_never_come_out_decoded() {
    let rig = with_rules(RULES);
    let got = verdict(&rig, "POST", b"/a%0d%0aX-Injected:%201");
    assert!(matches!(got, Passes | Refused), "{got:?}");
    for request in rig.origin.requests() {
        assert!(!request.head.fields.has("x-injected"));
    }
}

#[test]
fn the_target_is_forwarded_as_it_was_sent() {
    let rig = with_rules(RULES);
    let rows: &[(&str, &[u8])] = &[
        ("N-16", b"/"),
        ("N-16b", b"/?"),
        ("N-16c", b"/a?"),
        ("N-16d", b"/a?b?c"),
        ("N-16e", b"/a%20b%7e~"),
        ("N-16f", b"/%7Euser"),
        ("N-16g", b"/a+b"),
        ("N-16h", b"/a;v=1"),
        ("N-16i", b"/a//b"),
        ("N-16j", b"/a/"),
        ("N-16k", b"/a?x=%2f%00%zz%"),
        ("N-16l", b"/a?x=../../b"),
        ("N-16m", b"/caf%C3%A9"),
        ("N-16n", b"/a:b@c!$&'()*,="),
        ("N-16o", b"/a?q=http://x/y"),
        ("N-16p", b"/%41?%41"),
        ("N-16q", b"/x/./y"),
        ("N-16r", b"/x/../y"),
    ];
    for (id, target) in rows {
        let got = verdict(&rig, "POST", target);
        let text = message::latin1(target);
        // `verdict` has compared what the origin saw.
        assert_eq!(got, Passes, "{id}: {text}");
    }
}

#[test]
fn unusual_bytes_in_a_target_pass_as_they_are_or_not_at_all() {
    let rig = with_rules(RULES);
    let rows: &[(&str, &[u8])] = &[
        ("N-17", b"/caf\xc3\xa9"),
        ("N-17b", b"/caf\xe9"),
        ("N-17c", b"/a|b"),
        ("N-17d", b"/a\"b"),
        ("N-17e", b"/a<b>"),
        ("N-17f", b"/a{b}"),
        ("N-17g", b"/a^b`c"),
        ("N-17h", b"/a[b]"),
        ("N-17i", b"/a?x=\xff"),
        ("N-17j", b"/a\\b"),
    ];
    check(
        &rig,
        &rows
            .iter()
            .map(|(id, target)| (*id, *target, &[Passes, Refused][..]))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn a_backslash_is_no_way_around_a_rule() {
    let rig = with_rules(RULES);
    check(
        &rig,
        &[
            ("N-18", b"/x\\..\\admin\\", &[Passes, Refused, Fires]),
            ("N-18b", b"/x/..%5cadmin/", &[Passes, Refused, Fires]),
            ("N-18c", b"/admin/%5c", &[Fires, Refused]),
        ],
    );
}

#[test]
fn a_route_can_be_for_some_methods_only() {
    let rig = with_rules(RULES);
    assert_eq!(verdict(&rig, "POST", b"/method"), Fires);
    assert_eq!(verdict(&rig, "PUT", b"/method"), Passes);
    assert_eq!(verdict(&rig, "post", b"/method"), Passes);
}

#[test]
fn the_first_route_that_matches_wins() {
    let rig = with_rules(
        "routes:
  - name: first
    match: {path: /a/free}
    body: 1MiB
  - name: second
    match: {path: /a/}
    body: 1KiB
",
    );
    assert_eq!(verdict(&rig, "POST", b"/a/free"), Passes);
    assert_eq!(verdict(&rig, "POST", b"/a/other"), Fires);
}

/// A route that lets strangers in: it must be asked for by its own name.
const OPEN_DOOR: &str = "routes:
  - name: hook
    match: {path: /webhooks/stripe}
    secret: skip
    bots: skip
  - name: files
    match: {path: /open/}
    secret: skip
";

#[test]
fn an_open_route_is_reached_by_its_own_name_only() {
    let rig = with_rules(OPEN_DOOR);
    let rows = [
        ("N-19", "/admin/../webhooks/stripe"),
        ("N-19b", "/webhooks/%73tripe"),
        ("N-19c", "//webhooks/stripe"),
        ("N-19d", "/webhooks//stripe"),
        ("N-19e", "/./webhooks/stripe"),
        ("N-19f", "/webhooks/x/%2e%2e/stripe"),
        ("N-19g", "/admin/../open/x"),
        ("N-19h", "/%6fpen/x"),
    ];
    for (id, target) in rows {
        for headers in [P_NOSECRET, P] {
            let sent = format!("GET {target} HTTP/1.1\r\n{headers}\r\n");
            rig.refused_politely(id, sent.as_bytes(), &[400], "bad_request");
        }
    }
}

#[test]
fn an_open_route_is_open() {
    let rig = with_rules(OPEN_DOOR);
    for target in ["/webhooks/stripe", "/webhooks/stripe?x=1", "/open/x/y"] {
        let sent = format!("GET {target} HTTP/1.1\r\n{P_NOSECRET}\r\n");
        let (seen, _) = rig.passed(target, sent.as_bytes());
        assert_eq!(seen.head.target, target);
    }
    for target in [
        "/webhooks/stripe/",
        "/webhooks/stripe2",
        "/Webhooks/stripe",
        "/open",
    ] {
        let sent = format!("GET {target} HTTP/1.1\r\n{P_NOSECRET}\r\n");
        rig.refused_politely(target, sent.as_bytes(), &[403], "bad_secret");
    }
}

#[test]
fn what_lies_below_an_open_prefix_may_be_spelled_as_it_likes() {
    let rig = with_rules(OPEN_DOOR);
    // The route is reached without normalisation too, so there is only one meaning.
    let sent = format!("GET /open/caf%C3%A9%20au%20lait HTTP/1.1\r\n{P_NOSECRET}\r\n");
    let (seen, _) = rig.passed("N-19i", sent.as_bytes());
    assert_eq!(seen.head.target, "/open/caf%C3%A9%20au%20lait");
}

#[test]
fn a_path_out_of_an_open_prefix_is_not_open() {
    let rig = with_rules(OPEN_DOOR);
    for target in [
        "/open/../admin/",
        "/open/%2e%2e/admin/",
        "/open/..;/admin/",
        "/open/..;/admin/../../x",
        "/open/%2e%2e%3b/admin/",
        "/open/../admin//../open/x",
        "/open/a/../b",
    ] {
        let sent = format!("GET {target} HTTP/1.1\r\n{P_NOSECRET}\r\n");
        let mark = rig.origin.mark();
        let response = rig.wardent.ask(&sent);
        assert!(
            matches!(response.status, 400 | 403),
            "N-20: {target} gives {}",
            response.status
        );
        rig.assert_nothing_passed(target, &mark);
    }
}

#[test]
fn n07_a_trap_is_sprung_by_every_spelling() {
    let policy = "mode: enforce
defaults:
  limit: {rate: 1000/s, burst: 1000}
routes:
  - name: trap
    match: {path: [/wp-login.php, \"/.git/**\"]}
    trap: true
";
    let rig = Rig::with(|setup: Setup| setup.policy(policy));
    let rows = [
        "/wp-login.php",
        "/%77p-login.php",
        "//wp-login.php",
        "/wp-login.php?x",
        "/.git/config",
        "/x/../.git/config",
    ];
    for (n, target) in rows.iter().enumerate() {
        // One asking is worth a ban, so every row is another client.
        let client = format!("198.51.100.{}", 100 + n);
        let sent = format!("GET {target} HTTP/1.1\r\n{}\r\n", p_from(&client));
        let response = rig.wardent.ask(sent);
        rig::assert_refusal(
            target,
            &response,
            &[403, 400],
            match response.status {
                400 => "bad_request",
                _ => "trap",
            },
        );
    }
    assert_eq!(rig.origin.bytes(), 0);
    let sent = format!("GET /wp-login HTTP/1.1\r\n{}\r\n", p_from("198.51.100.99"));
    assert_eq!(rig.wardent.ask(sent).status, 200);
    assert_ne!(CLIENT, "198.51.100.99");
}
