//! Who is banned, for what and by whom; and who never is.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;
use support::{
    P_NOIP, P_NOSECRET,
    client::RawClient,
    message::Response,
    origin::{self, Origin},
    p_from, rig,
    rig::Rig,
    time,
    wardent::{Setup, Wardent},
};
use wardent::base::net::Address;

const WHO: &str = "198.51.100.20";

/// Traps, a penalized login and a small upload; ten points are a ban.
const POLICY: &str = "mode: enforce
defaults:
  limit: {rate: 1000000/s, burst: 1000000}
routes:
  - {name: trap, match: {path: /trap}, trap: true}
  - {name: login, match: {path: /login}, penalize: {\"401\": 5}}
  - {name: small, match: {path: /small}, body: 1KiB}
  - {name: tight, match: {path: /tight}, limit: {rate: 1/h, burst: 1}}
  - {name: open, match: {path: /open/}, secret: skip, trap: true}
bans: {threshold: 10, window: 60s, duration: 10m}
";

fn rig() -> Rig {
    rig_with(|setup| setup)
}

/// The application knows nobody's password.
fn rig_with(change: impl FnOnce(Setup) -> Setup) -> Rig {
    let origin = Origin::answering(|request| match request.head.target.as_str() {
        "/login" => origin::answer("401 Unauthorized", "", b"who?"),
        _ => origin::echo(request),
    });
    Rig::around(origin, |setup| change(setup.policy(POLICY)))
}

fn from(client: &str, target: &str) -> String {
    with(client, target, "")
}

fn with(client: &str, target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{}{lines}\r\n", p_from(client))
}

/// Whom the bans in force are for.
fn banned(wardent: &Wardent) -> Vec<String> {
    let bans = wardent.bans();
    let targets = bans.iter().map(|ban| ban["target"].as_str().unwrap());
    targets.map(str::to_owned).collect()
}

fn asks(wardent: &Wardent, client: &str) -> Response {
    wardent.ask(from(client, "/"))
}

/// A ban binds at the next request after its cause, or a moment later.
fn assert_gets_banned(wardent: &Wardent, client: &str) {
    time::eventually("the ban binds", || asks(wardent, client).status == 403);
    rig::assert_refusal(client, &asks(wardent, client), &[403], "banned");
}

#[test]
fn l09_a_hundred_violations_at_once_are_one_ban_of_the_first_level() {
    let rig = rig_with(|setup| setup.workers(2));
    let start = Arc::new(Barrier::new(20));
    let threads: Vec<_> = (0..20)
        .map(|_| {
            let mut client = rig.wardent.client();
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                for _ in 0..5 {
                    assert_eq!(client.ask(from(WHO, "/trap")).status, 403);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_gets_banned(&rig.wardent, WHO);
    let bans = rig.wardent.bans();
    assert_eq!(bans.len(), 1);
    assert_eq!(
        (&bans[0]["level"], &bans[0]["by"]),
        (&json!(1), &json!("policy"))
    );
    let began = rig
        .wardent
        .metric("wardent_ban_changes_total{change=\"began\"");
    assert!((began - 1.0).abs() < f64::EPSILON, "{began}");
    assert_eq!(asks(&rig.wardent, "198.51.100.21").status, 200);
}

#[test]
fn l01_bans_acts_and_reloads_at_once_keep_nobody_waiting() {
    const ROUNDS: usize = 150;
    let rig = rig_with(|setup| setup.workers(2).policy(POLICY.replace("10m", "1s")));
    let wardent = &rig.wardent;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|n| {
                scope.spawn(move || {
                    // Every answer comes within the client's patience, or this thread panics.
                    let mut client = wardent.client();
                    let who = format!("198.51.100.{}", 20 + n % 4);
                    for round in 0..ROUNDS {
                        let target = ["/", "/trap", "/login", "/tight"][round % 4];
                        let status = client.ask(from(&who, target)).status;
                        assert!([200, 401, 403, 429].contains(&status), "{status}");
                    }
                })
            })
            .collect();
        let reloads = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                wardent.reload().unwrap();
            }
        });
        let acts = scope.spawn(|| {
            let mut n = 0;
            while !is_over.load(Ordering::Relaxed) {
                n += 1;
                wardent.ban("198.51.100.0/24");
                wardent.ban(&format!("198.51.100.{}", 20 + n % 4));
                wardent.act("DELETE", "/api/v1/bans?target=198.51.100.0/24", "");
                wardent.bans();
            }
        });
        let ends: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        reloads.join().unwrap();
        acts.join().unwrap();
        assert!(ends.iter().all(Result::is_ok), "{ends:?}");
    });
}

#[test]
fn l11_a_ban_ends_when_it_was_to_end_and_not_before() {
    let rig = rig();
    let begun = time::now();
    let body = json!({"target": WHO, "for": "700ms"}).to_string();
    assert_eq!(rig.wardent.act("POST", "/api/v1/bans", &body).0, 201);
    let banned_at = time::now();
    time::eventually("the ban is over", || asks(&rig.wardent, WHO).status == 200);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(700), "after {took:?}");
    // Late by what a busy machine takes to ask, and by nothing of the product's.
    assert!(banned_at.elapsed() < Duration::from_secs(3), "{took:?}");
    assert_eq!(banned(&rig.wardent), [""; 0]);
}

#[test]
fn what_is_refused_because_of_a_ban_makes_it_no_longer() {
    let rig = rig();
    rig.wardent.ask(from(WHO, "/trap"));
    assert_gets_banned(&rig.wardent, WHO);
    let before = rig.wardent.bans();
    for _ in 0..50 {
        rig::assert_refusal("", &rig.wardent.ask(from(WHO, "/trap")), &[403], "banned");
    }
    let after = rig.wardent.bans();
    assert_eq!(after[0]["level"], before[0]["level"]);
    assert!(after[0]["left_ms"].as_u64() <= before[0]["left_ms"].as_u64());
}

#[test]
fn a_flood_over_the_limit_is_banned() {
    let rig = rig();
    let mut client = rig.wardent.client();
    for _ in 0..11 {
        client.ask(from(WHO, "/tight"));
    }
    assert_gets_banned(&rig.wardent, WHO);
    assert_eq!(rig.wardent.bans()[0]["why"], "rate_limited");
}

#[test]
fn an_answer_of_the_applications_that_is_penalized_counts() {
    let rig = rig();
    for _ in 0..2 {
        let response = rig.wardent.ask(from(WHO, "/login"));
        assert_eq!(response.status, 401, "the application answers");
    }
    assert_gets_banned(&rig.wardent, WHO);
    assert_eq!(rig.wardent.bans()[0]["why"], "penalized");
}

#[test]
fn what_another_site_made_the_browser_ask_for_is_refused_and_not_blamed() {
    let rig = rig();
    for _ in 0..20 {
        let elsewhere = "Sec-Fetch-Site: cross-site\r\n";
        assert_eq!(rig.wardent.ask(with(WHO, "/login", elsewhere)).status, 401);
        let trapped = rig.wardent.ask(with(WHO, "/trap", elsewhere));
        rig::assert_refusal("", &trapped, &[403], "trap");
    }
    assert_eq!(banned(&rig.wardent), [""; 0]);
    rig.wardent
        .ask(with(WHO, "/trap", "Sec-Fetch-Site: same-origin\r\n"));
    assert_eq!(banned(&rig.wardent), [WHO]);
}

#[test]
fn bodies_over_the_bound_count_whether_declared_or_streamed() {
    for (client, framing) in [("198.51.100.31", true), ("198.51.100.32", false)] {
        let rig = rig();
        let body = [b'x'; 2048];
        let sent = if framing {
            let head = p_from(client) + "Content-Length: 2048\r\n\r\n";
            [b"POST /small HTTP/1.1\r\n", head.as_bytes(), &body].concat()
        } else {
            let head = p_from(client) + "Transfer-Encoding: chunked\r\n\r\n";
            let chunks = support::chunked(&body, &[512]);
            [b"POST /small HTTP/1.1\r\n", head.as_bytes(), &chunks].concat()
        };
        for _ in 0..10 {
            let mut asking = rig.wardent.client();
            asking.send_anyway(&sent);
            assert_eq!(asking.response("POST").status, 413);
        }
        assert_gets_banned(&rig.wardent, client);
        assert_eq!(rig.wardent.bans()[0]["why"], "body_too_large");
    }
}

#[test]
fn one_ipv6_client_is_banned_with_its_whole_64() {
    let rig = rig();
    rig.wardent.ask(from("2001:db8:1:2::7", "/trap"));
    assert_gets_banned(&rig.wardent, "2001:db8:1:2:ffff::1");
    assert_eq!(banned(&rig.wardent), ["2001:db8:1:2::/64"]);
    assert_eq!(asks(&rig.wardent, "2001:db8:1:3::7").status, 200);
}

#[test]
fn who_is_not_proven_is_never_banned() {
    let rig = rig();
    for _ in 0..20 {
        let claimed = format!("GET /open/x HTTP/1.1\r\n{P_NOSECRET}\r\n");
        rig::assert_refusal("", &rig.wardent.ask(claimed), &[403], "trap");
        let wrong = from(support::CLIENT, "/trap").replace("k1secret", "k1wrong!");
        rig::assert_refusal("", &rig.wardent.ask(wrong), &[403], "bad_secret");
    }
    assert_eq!(banned(&rig.wardent), [""; 0]);
    assert_eq!(asks(&rig.wardent, support::CLIENT).status, 200);
}

#[test]
fn loopback_trusted_peers_and_workers_are_never_banned() {
    let rig = rig_with(|setup| {
        setup
            .client_ip("header: x-real-ip")
            .trusted_peers("127.0.0.1/32, 192.0.2.0/24")
    });
    let asking =
        |client: &str| format!("GET /trap HTTP/1.1\r\n{P_NOIP}X-Real-IP: {client}\r\n\r\n");
    for _ in 0..20 {
        for client in ["192.0.2.9", "2a06:98c0:3600::103"] {
            rig::assert_refusal("", &rig.wardent.ask(asking(client)), &[403], "trap");
        }
        // Nobody trusts this peer, so it is its own address: loopback.
        let own = rig.wardent.stranger().ask(asking("198.51.100.20"));
        rig::assert_refusal("", &own, &[403], "trap");
    }
    assert_eq!(banned(&rig.wardent), [""; 0]);
    for (target, because) in [
        ("127.0.0.1", "it is loopback"),
        ("::1", "it is loopback"),
        ("::ffff:127.0.0.2", "it is loopback"),
        ("192.0.2.9", "it is in client_ip.trusted_peers"),
    ] {
        let body = json!({"target": target, "for": "1h"}).to_string();
        let (status, said) = rig.wardent.act("POST", "/api/v1/bans", &body);
        assert_eq!(status, 409, "{target}");
        let error = said["error"].as_str().unwrap();
        assert!(error.ends_with(because), "{error}");
    }
    // A ban of a network around them holds for the others in it.
    rig.wardent.ban("192.0.0.0/8");
    let plain = |client: &str| {
        let sent = format!("GET / HTTP/1.1\r\n{P_NOIP}X-Real-IP: {client}\r\n\r\n");
        rig.wardent.ask(sent).status
    };
    assert_eq!((plain("192.0.2.9"), plain("192.0.3.9")), (200, 403));
}

#[test]
fn nobody_is_never_banned() {
    let rig = rig_with(|setup| setup.client_ip("missing: peer"));
    let nobody = format!("GET /trap HTTP/1.1\r\n{P_NOIP}\r\n");
    for _ in 0..20 {
        rig::assert_refusal("", &rig.wardent.ask(&nobody), &[403], "trap");
    }
    assert_eq!(banned(&rig.wardent), [""; 0]);
}

#[test]
fn allow_wins_over_a_ban_that_is_in_force() {
    let rig = rig();
    rig.wardent.ban(WHO);
    rig.wardent.ban("198.51.100.0/24");
    assert_gets_banned(&rig.wardent, WHO);
    let allowed = format!("{POLICY}allow: [{WHO}/32]\ndeny: [198.51.0.0/16]\n");
    rig.wardent.write_policy(&allowed);
    rig.wardent.reload().unwrap();
    assert_eq!(asks(&rig.wardent, WHO).status, 200);
    let neighbour = asks(&rig.wardent, "198.51.100.21");
    rig::assert_refusal("", &neighbour, &[403], "denied");
    // It is still there, and holds again when nothing allows it.
    rig.wardent.write_policy(POLICY);
    rig.wardent.reload().unwrap();
    rig::assert_refusal("", &asks(&rig.wardent, WHO), &[403], "banned");
}

#[test]
fn bans_survive_a_reload() {
    let rig = rig();
    rig.wardent.ask(from(WHO, "/trap"));
    assert_gets_banned(&rig.wardent, WHO);
    for _ in 0..3 {
        rig.wardent.reload().unwrap();
        rig::assert_refusal("", &asks(&rig.wardent, WHO), &[403], "banned");
    }
    assert_eq!(banned(&rig.wardent), [WHO]);
}

#[test]
fn what_is_observed_bans_nobody_and_can_be_shown() {
    let policy = POLICY.replace("mode: enforce", "mode: observe");
    let rig = rig_with(|setup| setup.policy(policy));
    for _ in 0..20 {
        assert_eq!(rig.wardent.ask(from(WHO, "/trap")).status, 200);
    }
    assert_eq!(banned(&rig.wardent), [""; 0]);
    let (status, ban) = rig
        .wardent
        .act("GET", &format!("/api/v1/bans?target={WHO}"), "");
    assert_eq!((status, &ban["enforced"]), (200, &json!(false)));
    rig.wardent.write_policy(POLICY);
    rig.wardent.reload().unwrap();
    assert_eq!(asks(&rig.wardent, WHO).status, 200, "and never is enforced");
}

#[test]
fn a_body_refused_where_it_is_observed_bans_nobody() {
    let policy = POLICY.replace("mode: enforce", "mode: observe");
    let rig = rig_with(|setup| setup.policy(policy));
    let chunked = with(WHO, "/small", "Transfer-Encoding: chunked\r\n")
        + &format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800));
    let declared = with(WHO, "/small", "Content-Length: 2048\r\n");
    for _ in 0..10 {
        for sent in [&chunked, &declared] {
            assert_eq!(rig.wardent.ask(sent).status, 413);
        }
    }
    assert_eq!(banned(&rig.wardent), [""; 0]);
    let observed = "wardent_ban_changes_total{change=\"observed\"}";
    assert!(rig.wardent.metric(observed) > 0.0);
    rig.wardent.write_policy(POLICY);
    rig.wardent.reload().unwrap();
    assert_eq!(asks(&rig.wardent, WHO).status, 200);
}

#[test]
fn an_unban_frees_at_once_and_grace_keeps_free() {
    let rig = rig();
    rig.wardent.ask(from(WHO, "/trap"));
    assert_gets_banned(&rig.wardent, WHO);
    let target = format!("/api/v1/bans?target={WHO}&grace=10m");
    let (status, said) = rig.wardent.act("DELETE", &target, "");
    assert_eq!((status, &said["lifted"]["target"]), (200, &json!(WHO)));
    assert_eq!(asks(&rig.wardent, WHO).status, 200);
    for _ in 0..5 {
        rig::assert_refusal("", &rig.wardent.ask(from(WHO, "/trap")), &[403], "trap");
    }
    assert_eq!(banned(&rig.wardent), [""; 0]);
}

#[test]
fn networks_are_banned_and_freed_as_a_whole() {
    let rig = rig();
    rig.wardent.ban("203.0.113.0/24");
    rig.wardent.ban("2001:db8:7::/48");
    for client in ["203.0.113.9", "203.0.113.255", "2001:db8:7:1::1"] {
        rig::assert_refusal(client, &asks(&rig.wardent, client), &[403], "banned");
    }
    for client in ["203.0.112.255", "2001:db8:8::1"] {
        assert_eq!(asks(&rig.wardent, client).status, 200, "{client}");
    }
    let (status, said) = rig
        .wardent
        .act("DELETE", "/api/v1/bans?target=203.0.113.9", "");
    assert_eq!(status, 404);
    assert_eq!(
        said["error"],
        "203.0.113.9 is not banned itself: 203.0.113.0/24 is"
    );
    let (status, _) = rig
        .wardent
        .act("DELETE", "/api/v1/bans?target=203.0.113.0/24", "");
    assert_eq!(status, 200);
    assert_eq!(asks(&rig.wardent, "203.0.113.9").status, 200);
}

#[test]
fn a_ban_is_shown_with_the_requests_that_led_to_it() {
    let rig = rig();
    let first = rig.wardent.ask(from(WHO, "/login"));
    let second = rig.wardent.ask(from(
        WHO,
        "/login?\u{1b}<b>".replace('\u{1b}', "%1b").as_str(),
    ));
    rig.wardent.ask(from(WHO, "/trap"));
    assert_gets_banned(&rig.wardent, WHO);
    let (_, ban) = rig
        .wardent
        .ask_listener("GET", &format!("/api/v1/bans?target={WHO}"), "");
    let evidence = ban["evidence"].as_array().unwrap();
    let ids: Vec<_> = evidence.iter().map(|seen| seen["id"].as_str()).collect();
    assert_eq!(ids[0], first.header("x-request-id"));
    assert_eq!((second.status, evidence.len()), (200, 2));
    let points: Vec<_> = evidence.iter().map(|seen| &seen["points"]).collect();
    assert_eq!(points, [&json!(5), &json!(10)]);
    assert_eq!(evidence[1]["path"], "/trap");
    assert_eq!(evidence[1]["cause"], "trap");
    assert!(evidence[0]["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn acts_need_the_socket_or_the_token_and_say_who_did_it() {
    let rig = rig();
    let body = json!({"target": WHO, "for": "1h", "why": "<b>\u{1b}[2J"}).to_string();
    for (method, target, body) in [
        ("POST", "/api/v1/bans", body.as_str()),
        ("DELETE", "/api/v1/bans?target=198.51.100.20", ""),
    ] {
        let (status, said) = rig.wardent.ask_listener(method, target, body);
        assert_eq!(status, 401, "{said}");
    }
    assert_eq!(banned(&rig.wardent), [""; 0]);
    let (status, ban) = rig.wardent.act("POST", "/api/v1/bans", &body);
    assert_eq!(status, 201);
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(ban["by"], format!("uid:{uid}"));
    assert_eq!(ban["why"], "<b>\u{1b}[2J");
    let (status, listed) = rig.wardent.ask_listener("GET", "/api/v1/bans", "");
    assert_eq!((status, &listed["total"]), (200, &json!(1)));
}

#[test]
fn what_makes_no_sense_is_refused_and_bans_nobody() {
    let rig = rig();
    let ban = |target: &str, rest: &str| format!(r#"{{"target": "{target}", {rest}}}"#);
    let long = "x".repeat(100_000);
    let rows: [(&str, String, u16); 13] = [
        ("no JSON", "x".to_owned(), 400),
        ("half of it", r#"{"target": "198.51"#.to_owned(), 400),
        (
            "too long",
            ban(WHO, &format!(r#""for": "1h", "why": "{long}""#)),
            413,
        ),
        ("an unknown key", ban(WHO, r#""for": "1h", "ip": 1"#), 422),
        ("no time", ban(WHO, r#""why": "x""#), 422),
        ("no unit", ban(WHO, r#""for": "10""#), 422),
        ("nothing of it", ban(WHO, r#""for": "0s""#), 422),
        ("more than ever", ban(WHO, r#""for": "4000d""#), 422),
        ("a star", ban("*", r#""for": "1h""#), 422),
        (
            "other digits",
            ban("１９８.51.100.7", r#""for": "1h""#),
            422,
        ),
        ("everybody", ban("0.0.0.0/0", r#""for": "1h""#), 422),
        ("all of IPv6", ban("::/0", r#""for": "1h""#), 422),
        ("no object", "[]".to_owned(), 422),
    ];
    for (what, body, expected) in rows {
        let (status, said) = rig.wardent.act("POST", "/api/v1/bans", &body);
        assert_eq!(status, expected, "{what}: {said}");
        assert!(said["error"].is_string(), "{what}");
    }
    for (method, query, expected) in [
        ("GET", "?ip=198.51.100.20", 400),
        ("GET", "?target=198.51.100.20&target=198.51.100.21", 400),
        ("GET", "?target=198.51.100.20", 404),
        ("GET", "?limit=0", 422),
        ("GET", "?limit=100000", 422),
        ("GET", "?after=x", 422),
        ("DELETE", "", 400),
        ("DELETE", "?target=nobody", 422),
        ("DELETE", "?target=198.51.100.20", 404),
        ("PUT", "", 405),
    ] {
        let (status, said) = rig.wardent.act(method, &format!("/api/v1/bans{query}"), "");
        assert_eq!(status, expected, "{method} {query}: {said}");
    }
    assert_eq!(banned(&rig.wardent), [""; 0]);
}

#[test]
fn all_bans_are_found_page_by_page() {
    let rig = rig();
    for n in 0..25 {
        rig.wardent.ban(&format!("198.51.100.{n}"));
    }
    let mut after = String::new();
    let (mut seen, mut since) = (Vec::new(), Vec::new());
    loop {
        let target = format!("/api/v1/bans?limit=10{after}");
        let (status, page) = rig.wardent.ask_listener("GET", &target, "");
        assert_eq!((status, &page["total"]), (200, &json!(25)));
        let bans = page["bans"].as_array().unwrap().clone();
        seen.extend(bans.iter().map(|ban| ban["target"].to_string()));
        since.extend(bans.iter().map(|ban| ban["since"].to_string()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 25);
    assert!(since.is_sorted_by(|one, next| one >= next), "{since:?}");
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 25);
}

#[test]
fn the_command_line_bans_shows_and_frees() {
    let rig = rig();
    let wardent = &rig.wardent;
    let listed = wardent.command(&["bans", "list"], "");
    assert_eq!(
        (listed.status, listed.out.as_str()),
        (0, "nobody is banned\n")
    );
    let added = wardent.command(
        &["bans", "add", WHO, "--for", "1h", "--why", "a\u{1b}[2J"],
        "",
    );
    assert_eq!(added.status, 0, "{added:?}");
    rig::assert_refusal("", &asks(wardent, WHO), &[403], "banned");
    let listed = wardent.command(&["bans", "list"], "");
    assert!(
        listed.out.contains(WHO) && listed.out.contains("a\\u{1b}[2J"),
        "{listed:?}"
    );
    let shown = wardent.command(&["bans", "show", WHO, "--output", "json"], "");
    assert_eq!(shown.json()["target"], WHO);
    let removed = wardent.command(&["bans", "remove", WHO, "--grace", "10m"], "");
    assert_eq!(removed.status, 0, "{removed:?}");
    assert_eq!(asks(wardent, WHO).status, 200);
    let removed = wardent.command(&["bans", "remove", WHO], "");
    assert_eq!(removed.status, 1);
    assert_eq!(removed.err, "198.51.100.20 is not banned\n");
}

#[test]
fn the_command_line_says_what_is_misused_and_what_fails() {
    let rig = rig();
    let wardent = &rig.wardent;
    for misused in [
        &["bans"][..],
        &["bans", "show"],
        &["bans", "show", "nobody"],
        &["bans", "add", WHO],
        &["bans", "add", WHO, "--for", "10"],
        &["bans", "add", "198.51.100.0/33", "--for", "1h"],
        &["bans", "remove", WHO, "--grace", "x"],
        &["bans", "list", "--count", "0"],
        &["explain", "--ip", "x", "--path", "/"],
        &["explain", "--ip", WHO],
    ] {
        assert_eq!(wardent.command(misused, "").status, 2, "{misused:?}");
    }
    let failed = wardent.command(&["bans", "show", WHO, "--output", "json"], "");
    assert_eq!(failed.status, 1);
    assert_eq!(
        failed.json(),
        json!({"error": "198.51.100.20 is not banned"})
    );
    let wide = wardent.command(&["bans", "add", "0.0.0.0/1", "--for", "1h"], "");
    assert_eq!(wide.status, 1);
    assert!(wide.err.contains("large part of all addresses"), "{wide:?}");
    std::fs::write(wardent.dir().join("wardent.yaml"), "listen: nowhere\n").unwrap();
    assert_eq!(wardent.command(&["bans", "list"], "").status, 78);
}

#[test]
fn an_export_is_imported_with_what_is_left_of_its_time() {
    let from = rig();
    let bans = (0..1_050).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250));
    let bans: Vec<_> = bans
        .chain([WHO.to_owned(), "2001:db8:1::/64".to_owned()])
        .collect();
    let socket = Address::Unix(from.wardent.dir().join("admin.sock"));
    let mut operator = RawClient::connect(&socket);
    for target in &bans {
        let body = json!({"target": target, "for": "2h", "why": "seen"}).to_string();
        let head = format!(
            "POST /api/v1/bans HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        assert_eq!(operator.ask(head + &body).status, 201);
    }
    let exported = from.wardent.command(&["bans", "export"], "");
    assert_eq!(
        (exported.status, exported.out.lines().count()),
        (0, bans.len())
    );
    let lines: Vec<&str> = exported.out.lines().take(2).collect();
    let over = json!({"target": WHO, "until": "2001-01-01T00:00:00.000Z"});
    let input = format!("{}\n\nnonsense\n{}\n{over}\n", lines[0], lines[1]);
    let to = rig();
    let imported = to.wardent.command(&["bans", "import"], &input);
    assert_eq!(imported.status, 1);
    assert_eq!(imported.out, "2 imported, 1 over already, 1 wrong\n");
    assert!(imported.err.starts_with("line 3: "), "{}", imported.err);
    for ban in to.wardent.bans() {
        let left_ms = ban["left_ms"].as_u64().unwrap();
        assert!((1..=7_200_000).contains(&left_ms), "{ban}");
        assert_eq!(ban["why"], "seen");
    }
    let again = to.wardent.command(
        &["bans", "import", "--output", "json"],
        &format!("{}\n", lines[0]),
    );
    assert_eq!(again.json(), json!({"imported": 1, "over": 0, "wrong": []}));
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let rig = rig();
    let listener = Address::Tcp(rig.wardent.admin());
    for (path, allowed) in [
        ("/metrics", "GET, HEAD"),
        ("/livez", "GET, HEAD"),
        ("/api/v1/bans", "GET, POST, DELETE"),
        ("/api/v1/explain", "POST"),
        ("/api/v1/reload", "POST"),
    ] {
        let sent = format!("PATCH {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let response = RawClient::connect(&listener).ask(sent);
        assert_eq!(response.status, 405, "{path}");
        assert_eq!(response.header("allow"), Some(allowed), "{path}");
    }
}
