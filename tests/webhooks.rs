//! Group T: a webhook passes byte for byte, a forged one not at all, and none is ever told "200"
//! by anybody but the application.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{net::TcpListener, time::Duration};

use support::{
    chunked, message,
    message::Request,
    noise,
    origin::Origin,
    rig,
    rig::Rig,
    sign, time,
    wardent::{Setup, Wardent, open_policy},
};

/// What Stripe sends of itself; the address is Cloudflare's word, the secret is not there.
const STRIPE: &str = "Host: app.test\r\nUser-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\nCF-Connecting-IP: 198.51.100.7\r\nContent-Type: application/json; charset=utf-8\r\n";

const SECRET: &str = "whsec_thirty-two-bytes-of-a-stripe-secret";
const OLD_SECRET: &str = "whsec_the-one-that-is-being-rolled-away";

const BODY: &[u8] = b"{ \"id\" : \"evt_\\u00e9\" }\n";

fn route(more: &str) -> String {
    open_policy(
        &[],
        &format!(
            "routes:
  - name: stripe
    match: {{path: /webhooks/stripe, methods: [POST]}}
    secret: skip
    bots: skip
    limit: {{rate: 100000/s, burst: 100000}}
    body: 1MiB
{more}"
        ),
    )
}

fn passing_through() -> Rig {
    Rig::with(|setup| setup.policy(route("")))
}

const SIGNATURE: &str = "    signature: {scheme: stripe, secrets: [{file: new.whsec}, {file: old.whsec}], tolerance: 5m}\n";

fn checked(setup: Setup) -> Setup {
    setup
        .file("new.whsec", SECRET)
        .file("old.whsec", format!("{OLD_SECRET}\n"))
        .policy(route(SIGNATURE))
}

fn webhook(lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /webhooks/stripe HTTP/1.1\r\n{STRIPE}{lines}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn signed(value: &str, body: &[u8]) -> Vec<u8> {
    webhook(&format!("Stripe-Signature: {value}\r\n"), body)
}

fn assert_untouched(id: &str, seen: &Request, body: &[u8]) {
    assert!(seen.complete, "{id}");
    assert!(seen.body == body, "{id}: the body was altered");
    assert_eq!(seen.head.target, "/webhooks/stripe", "{id}");
    assert_eq!(
        seen.header("content-type"),
        Some("application/json; charset=utf-8"),
        "{id}"
    );
    assert_eq!(
        seen.header("user-agent"),
        Some("Stripe/1.0 (+https://stripe.com/docs/webhooks)"),
        "{id}"
    );
}

#[test]
fn t01_body_and_signature_pass_byte_for_byte() {
    let rig = passing_through();
    let value = "t=1700000000,v1=aa,v1=bb,v0=cc";
    assert_eq!(BODY.len(), 24);
    let (seen, _) = rig.passed("T-01", &signed(value, BODY));
    assert_untouched("T-01", &seen, BODY);
    assert_eq!(seen.header("stripe-signature"), Some(value));
}

#[test]
fn t01_bytes_that_are_no_text_pass_too() {
    let rig = passing_through();
    let mut body = noise(5000);
    body.extend_from_slice(b"\r\n0\r\n\r\n\0\xff\xfeGET /x HTTP/1.1\r\n\r\n");
    let (seen, _) = rig.passed("T-01b", &webhook("", &body));
    assert_untouched("T-01b", &seen, &body);
    let (seen, _) = rig.passed("T-01c", &webhook("", b""));
    assert_untouched("T-01c", &seen, b"");
}

#[test]
fn t02_two_hundred_webhooks_pass_without_secret_or_limit() {
    // The defaults would stop all of this: a tight limit, a needed secret, a blocked bot.
    let policy = "mode: enforce
defaults:
  limit: {rate: 1/h, burst: 1}
  bots: {http-library: block, unknown: block}
routes:
  - name: stripe
    match: {path: /webhooks/stripe, methods: [POST]}
    secret: skip
    bots: skip
    limit: {rate: 10000/s, burst: 10000}
    body: 1MiB
";
    let origin = Origin::echo();
    let wardent = Wardent::setup(&origin).policy(policy).start();
    let mut client = wardent.client();
    for turn in 0..200 {
        let response = client.ask(webhook("", BODY));
        assert_eq!(response.status, 200, "T-02: webhook {turn}");
    }
    assert_eq!(origin.wait_for(200).len(), 200);
    // The size still counts.
    let response = wardent.ask(webhook("", &vec![b'x'; 1_048_577]));
    rig::assert_refusal("T-02b", &response, &[413], "body_too_large");
    // And other methods meet the defaults.
    let sent = format!("GET /webhooks/stripe HTTP/1.1\r\n{STRIPE}\r\n");
    let response = wardent.ask(sent);
    rig::assert_refusal("T-02c", &response, &[403], "bad_secret");
}

#[test]
fn whoever_signs_is_asked_for_no_more_than_the_signature() {
    // Stripe's user agent says that it is a bot, of a category that is kept out here.
    let policy = route(SIGNATURE).replace("bots: skip", "bots: {unknown: block}");
    let rig = Rig::with(|setup| checked(setup).policy(policy));
    let value = sign::stripe(SECRET, time::unix_seconds(), BODY);
    let (seen, _) = rig.passed("signed", &signed(&value, BODY));
    assert_untouched("signed", &seen, BODY);
    rig.refused_politely("unsigned", &webhook("", BODY), &[403], "bad_signature");
}

#[test]
fn t03_a_valid_signature_passes() {
    let rig = Rig::with(checked);
    let now = time::unix_seconds();
    let v1 = sign::stripe_v1(SECRET, now, BODY);
    let old = sign::stripe_v1(OLD_SECRET, now, BODY);
    let wrong = "0".repeat(64);
    let rows = [
        ("T-03", sign::stripe(SECRET, now, BODY)),
        ("T-03b", sign::stripe(OLD_SECRET, now, BODY)),
        ("T-03c", format!("t={now},v1={wrong},v1={v1},v0={wrong}")),
        ("T-03d", format!("t={now},v1={v1},v1={wrong}")),
        ("T-03e", format!("t={now},v0={wrong},v1={old}")),
        ("T-03f", sign::stripe(SECRET, now - 280, BODY)),
        // As Stripe's own library: only the past can be stale.
        ("T-03g", sign::stripe(SECRET, now + 600, BODY)),
    ];
    for (id, value) in rows {
        let (seen, _) = rig.passed(id, &signed(&value, BODY));
        assert_untouched(id, &seen, BODY);
        assert_eq!(
            seen.header("stripe-signature"),
            Some(value.as_str()),
            "{id}"
        );
    }
}

#[test]
fn t04_any_other_signature_is_refused_before_the_application() {
    let rig = Rig::with(checked);
    let now = time::unix_seconds();
    let v1 = sign::stripe_v1(SECRET, now, BODY);
    let rows = [
        ("T-04", String::new()),
        ("T-04b", "Stripe-Signature: \r\n".to_owned()),
        ("T-04c", format!("Stripe-Signature: t={now}\r\n")),
        ("T-04d", format!("Stripe-Signature: v1={v1}\r\n")),
        ("T-04e", format!("Stripe-Signature: t={now},v0={v1}\r\n")),
        (
            "T-04f",
            format!("Stripe-Signature: t={now},v1={}\r\n", &v1[..63]),
        ),
        ("T-04g", format!("Stripe-Signature: t={now},v1={v1}0\r\n")),
        (
            "T-04h",
            format!("Stripe-Signature: t={},v1={v1}\r\n", now - 1),
        ),
        ("T-04i", format!("Stripe-Signature: t=x,v1={v1}\r\n")),
        ("T-04j", format!("Stripe-Signature: t=-1,v1={v1}\r\n")),
        (
            "T-04k",
            format!(
                "Stripe-Signature: {}\r\n",
                sign::stripe("whsec_other", now, BODY)
            ),
        ),
        (
            "T-04l",
            // The whole string is the key, not what follows its prefix.
            format!(
                "Stripe-Signature: {}\r\n",
                sign::stripe(&SECRET[6..], now, BODY)
            ),
        ),
        (
            "T-04m",
            format!("Stripe-Signature: {}\r\n", sign::stripe(SECRET, now, b"{}")),
        ),
        (
            "T-04n",
            format!(
                "Stripe-Signature: {}\r\n",
                sign::stripe(SECRET, now - 400, BODY)
            ),
        ),
        (
            "T-04o",
            format!("Stripe-Signature: t={now},v1={}\r\n", "g".repeat(64)),
        ),
        ("T-04p", "Stripe-Signature: nonsense\r\n".to_owned()),
        ("T-04q", format!("Stripe-Signature: t={now};v1={v1}\r\n")),
    ];
    for (id, lines) in rows {
        rig.refused_politely(id, &webhook(&lines, BODY), &[403], "bad_signature");
    }
}

#[test]
fn t04_a_body_changed_on_the_way_is_refused() {
    let rig = Rig::with(checked);
    let now = time::unix_seconds();
    let value = sign::stripe(SECRET, now, BODY);
    for (id, body) in [
        ("T-04r", &BODY[..BODY.len() - 1]),
        ("T-04s", b"{\"id\":\"evt_\\u00e9\"}\n"),
        ("T-04t", b""),
    ] {
        rig.refused_politely(id, &signed(&value, body), &[403], "bad_signature");
    }
}

#[test]
fn t04_two_signature_headers_are_not_one() {
    let rig = Rig::with(checked);
    let now = time::unix_seconds();
    let good = sign::stripe(SECRET, now, BODY);
    let lines = format!("Stripe-Signature: {good}\r\nStripe-Signature: t={now},v1=00\r\n");
    let response = rig.wardent.ask(webhook(&lines, BODY));
    assert!(
        matches!(response.status, 200 | 400 | 403),
        "T-04u: {response:?}"
    );
    if response.status == 200 {
        let seen = rig.origin.only_request();
        assert_eq!(seen.head.fields.all("stripe-signature").len(), 2);
    } else {
        assert_eq!(rig.origin.bytes(), 0);
    }
}

#[test]
fn t03_a_secret_may_come_from_the_environment() {
    // Any variable that is there will do: no test may change the environment of all.
    let secret = std::env::var("PATH").unwrap();
    let more = "    signature: {scheme: stripe, secrets: [{env: PATH}]}\n";
    let rig = Rig::with(|setup| setup.policy(route(more)));
    let now = time::unix_seconds();
    rig.passed("T-03h", &signed(&sign::stripe(&secret, now, BODY), BODY));
    let forged = signed(&sign::stripe(SECRET, now, BODY), BODY);
    rig.refused_politely("T-03i", &forged, &[403], "bad_signature");
}

#[test]
fn t03_the_tolerance_can_be_chosen() {
    let more = "    signature: {scheme: stripe, secrets: [{file: new.whsec}], tolerance: 1h}\n";
    let rig = Rig::with(|setup| setup.file("new.whsec", SECRET).policy(route(more)));
    let now = time::unix_seconds();
    rig.passed(
        "T-03j",
        &signed(&sign::stripe(SECRET, now - 3000, BODY), BODY),
    );
    let stale = signed(&sign::stripe(SECRET, now - 3700, BODY), BODY);
    rig.refused_politely("T-03k", &stale, &[403], "bad_signature");
}

#[test]
fn t06_a_signed_body_reaches_the_application_only_when_it_is_proven() {
    let rig = Rig::with(checked);
    let now = time::unix_seconds();
    let body = noise(200_000);
    let sent = signed(&sign::stripe(SECRET, now, &body), &body);
    let mark = rig.origin.mark();
    let mut client = rig.wardent.client();
    let (most, last) = sent.split_at(sent.len() - 1);
    client.send(most);
    assert!(client.stays_quiet(Duration::from_millis(100)));
    rig.assert_nothing_passed("T-06", &mark);
    client.send(last);
    assert_eq!(client.response("POST").status, 200);
    assert_untouched("T-06", &rig.origin.only_request(), &body);
}

#[test]
fn t06_a_signed_body_over_the_bound_is_refused() {
    let rig = Rig::with(checked);
    let now = time::unix_seconds();
    let body = noise(1_048_577);
    let value = sign::stripe(SECRET, now, &body);
    let mark = rig.origin.mark();
    let response = rig.wardent.ask(signed(&value, &body));
    rig::assert_refusal("T-06b", &response, &[413], "body_too_large");
    let head = format!(
        "POST /webhooks/stripe HTTP/1.1\r\n{STRIPE}Stripe-Signature: {value}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let mut client = rig.wardent.client();
    client.send_anyway([head.as_bytes(), &chunked(&body, &[65_536])].concat());
    let response = client.response("POST");
    rig::assert_refusal("T-06c", &response, &[413], "body_too_large");
    rig.assert_nothing_passed("T-06", &mark);
}

#[test]
fn t06_a_signed_body_that_trickles_holds_no_memory_for_long() {
    let rig = Rig::with(|setup| checked(setup).upstream("idle_timeout: 400ms"));
    let body = noise(1000);
    let sent = signed(&sign::stripe(SECRET, time::unix_seconds(), &body), &body);
    let mut client = rig.wardent.client();
    let (most, rest) = sent.split_at(sent.len() - 900);
    client.send(most);
    let begun = time::now();
    for byte in rest {
        if !client.send_anyway([*byte]) || !client.stays_quiet(Duration::from_millis(50)) {
            break;
        }
    }
    rig::assert_refusal("T-06f", &client.response("POST"), &[408], "bad_request");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "T-06f: bytes bought time"
    );
    assert_eq!(rig.origin.bytes(), 0);
}

#[test]
fn t06_a_signed_body_that_never_ends_is_refused() {
    let rig = Rig::with(|setup| checked(setup).upstream("idle_timeout: 300ms"));
    let now = time::unix_seconds();
    let sent = signed(&sign::stripe(SECRET, now, BODY), BODY);
    let mut client = rig.wardent.client();
    client.send(&sent[..sent.len() - 5]);
    if let Ok(response) = client.try_response("POST") {
        rig::assert_refusal("T-06d", &response, &[400, 408], "bad_request");
    }
    client.assert_closed("T-06d");
    assert_eq!(rig.origin.bytes(), 0);
}

/// A body and how it is sent.
struct Shape {
    id: String,
    lines: &'static str,
    body: Vec<u8>,
    /// The sizes of the chunks; none where the length is declared.
    sizes: &'static [usize],
}

/// Compressed, chunked in many ways, and as large as it may be.
fn shapes() -> Vec<Shape> {
    let shape = |id: &str, lines, len, sizes| Shape {
        id: format!("T-07 {id}"),
        lines,
        body: noise(len),
        sizes,
    };
    vec![
        shape("gzip", "Content-Encoding: gzip\r\n", 2048, &[]),
        shape("chunks of 1", "", 20_000, &[1]),
        shape("chunks of 7", "", 20_000, &[7]),
        shape("chunks of 8192", "", 20_000, &[8192]),
        shape("1 MiB", "", 1_048_576, &[]),
        shape("1 MiB in chunks", "", 1_048_576, &[1, 8191, 100_000]),
    ]
}

fn t07(rig: &Rig, sign_it: bool) {
    for shape in shapes() {
        let Shape {
            id, body, sizes, ..
        } = shape;
        let mut lines = shape.lines.to_owned();
        if sign_it {
            let value = sign::stripe(SECRET, time::unix_seconds(), &body);
            lines += &format!("Stripe-Signature: {value}\r\n");
        }
        let sent = if sizes.is_empty() {
            webhook(&lines, &body)
        } else {
            let head = format!(
                "POST /webhooks/stripe HTTP/1.1\r\n{STRIPE}{lines}Transfer-Encoding: chunked\r\n\r\n"
            );
            [head.as_bytes(), &chunked(&body, sizes)].concat()
        };
        let (seen, _) = rig.passed(&id, &sent);
        assert_untouched(&id, &seen, &body);
        assert_eq!(
            seen.head.fields.has("content-encoding"),
            lines.contains("gzip"),
            "{id}"
        );
    }
}

#[test]
fn t07_the_shape_of_a_body_changes_nothing() {
    t07(&passing_through(), false);
}

#[test]
fn t07_the_shape_of_a_signed_body_changes_nothing() {
    t07(&Rig::with(checked), true);
}

/// A Wardent before an address, with and without the check of signatures.
fn both_ways(server: &str) -> [Wardent; 2] {
    let base = || {
        let setup = Setup::before(&[server.to_owned()]);
        setup.upstream("response_timeout: 300ms")
    };
    [base().policy(route("")).start(), checked(base()).start()]
}

fn good_webhook() -> Vec<u8> {
    let value = sign::stripe(SECRET, time::unix_seconds(), BODY);
    signed(&value, BODY)
}

#[test]
fn t05_an_application_that_is_down_never_becomes_a_200() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    for wardent in both_ways(&address) {
        let begun = time::now();
        let response = wardent.ask(good_webhook());
        rig::assert_refusal("T-05", &response, &[502], "upstream_unreachable");
        assert!(begun.elapsed() < Duration::from_secs(1), "T-05: slow");
    }
}

#[test]
fn t05_a_webhook_is_never_sent_twice() {
    // Answers the first request of a connection, and dies of every later one.
    let origin = Origin::scripted(|conn| {
        let first = conn.request()?;
        conn.write(support::origin::echo(&first))?;
        conn.request()?;
        conn.close()
    });
    for wardent in both_ways(&origin.server()) {
        let before = origin.requests().len();
        assert_eq!(wardent.ask(good_webhook()).status, 200);
        let response = wardent.ask(good_webhook());
        // A pool that does not reuse connections for a POST does not meet the death at all.
        if response.status != 200 {
            rig::assert_refusal("T-05b", &response, &[502], "upstream_broken");
        }
        rig::assert_alive("T-05b", &wardent);
        let posts = origin.requests()[before..]
            .iter()
            .filter(|request| request.head.method == "POST")
            .count();
        assert_eq!(posts, 2, "T-05b: a webhook was repeated");
    }
}

#[test]
fn t05_a_silent_application_is_a_504() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.wait_for_close()
    });
    for wardent in both_ways(&origin.server()) {
        let response = wardent.ask(good_webhook());
        rig::assert_refusal("T-05c", &response, &[504], "upstream_timeout");
    }
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn t05_the_applications_own_errors_pass_as_they_are() {
    let origin = Origin::answering(|request| {
        let status = match request.header("x-want") {
            Some("400") => "400 Bad Request",
            _ => "500 Internal Server Error",
        };
        support::origin::answer(status, "X-From: django\r\n", b"no such event")
    });
    for wardent in both_ways(&origin.server()) {
        for (want, status) in [("400", 400), ("500", 500)] {
            let value = sign::stripe(SECRET, time::unix_seconds(), BODY);
            let lines = format!("Stripe-Signature: {value}\r\nX-Want: {want}\r\n");
            let response = wardent.ask(webhook(&lines, BODY));
            assert_eq!(response.status, status);
            assert_eq!(response.header("x-from"), Some("django"));
            assert_eq!(message::latin1(&response.body), "no such event");
        }
    }
}
