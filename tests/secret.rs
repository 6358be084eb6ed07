//! Group S: only who knows a key gets in, and nobody learns a key from Wardent.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use support::{
    CLIENT, KEY, KEY_2, P, P_NOSECRET, get, message,
    origin::Origin,
    rig,
    rig::Rig,
    sign::Signed,
    time,
    wardent::{OPEN_POLICY, Setup, Wardent, open_policy, write_private},
};

/// A good request but for its secret lines.
fn with_secret(lines: &str) -> String {
    format!("GET /s HTTP/1.1\r\n{P_NOSECRET}{lines}\r\n")
}

fn header(value: &str) -> String {
    format!("X-Wardent-Secret: {value}\r\n")
}

#[test]
fn s01_the_right_secret_opens_and_goes_no_further() {
    let rig = Rig::new();
    let (seen, response) = rig.passed("S-01", b"GET /s HTTP/1.1\r\n{P}\r\n");
    assert!(!seen.head.fields.has("x-wardent-secret"));
    let wire = message::latin1(&rig.origin.wire(seen.connection));
    assert!(!wire.contains(KEY));
    assert!(!message::latin1(&response.head.raw).contains(KEY));
}

#[test]
fn s02_missing_empty_and_wrong_are_told_the_same() {
    let rig = Rig::new();
    let rows = [
        ("S-02", String::new()),
        ("S-02b", header("")),
        ("S-02c", header("wrong-secret-of-thirty-two-bytes")),
        ("S-02d", header(" \t ")),
        ("S-03", header(&KEY[..31])),
        ("S-03b", header(&format!("{KEY}x"))),
        ("S-03c", header(&KEY.to_uppercase())),
        ("S-03d", header(&KEY.repeat(100))),
        ("S-03e", header(&format!("\"{KEY}\""))),
        ("S-03f", header(&format!("Bearer {KEY}"))),
        ("S-03g", header(&format!("k1={KEY}"))),
        ("S-03h", header("v1=")),
        ("S-03i", header("x")),
    ];
    let mut told = Vec::new();
    for (id, lines) in rows {
        let sent = with_secret(&lines);
        let response = rig.refused_politely(id, sent.as_bytes(), &[403], "bad_secret");
        let fields = response.head.fields.0.into_iter();
        let fields: Vec<_> = fields
            .filter(|(name, _)| !["date", "x-request-id"].contains(&name.to_lowercase().as_str()))
            .collect();
        told.push((id, fields));
    }
    for (id, fields) in &told {
        assert_eq!(*fields, told[0].1, "{id} is told more than {}", told[0].0);
    }
}

#[test]
fn s02_bytes_beyond_ascii_are_a_wrong_secret() {
    let rig = Rig::new();
    let sent = [
        b"GET /s HTTP/1.1\r\n{P-nosecret}X-Wardent-Secret: ",
        &[0xff; 32][..],
        b"\r\n\r\n",
    ]
    .concat();
    rig.refused_politely("S-02e", &sent, &[400, 403], "bad_secret");
}

#[test]
fn s04_two_secrets_are_refused_even_when_both_are_right() {
    let rig = Rig::with(|setup| {
        setup
            .file("k2.key", KEY_2)
            .secret(&["keys: [{id: k1, from: {file: k1.key}}, {id: k2, from: {file: k2.key}}]"])
    });
    for (id, first, second) in [
        ("S-04", KEY, KEY),
        ("S-04b", KEY, KEY_2),
        ("S-04c", KEY, "wrong"),
        ("S-04d", "wrong", KEY),
    ] {
        let sent = with_secret(&format!("{}{}", header(first), header(second)));
        let mark = rig.origin.mark();
        let response = rig.wardent.ask(&sent);
        assert!(matches!(response.status, 400 | 403), "{id}: {response:?}");
        let reason = response.header("x-wardent-reason");
        assert!(
            matches!(reason, Some("bad_request" | "bad_secret")),
            "{id}: {reason:?}"
        );
        rig.assert_nothing_passed(id, &mark);
    }
    // A list of both in one line is no key either.
    let sent = with_secret(&header(&format!("{KEY}, {KEY_2}")));
    rig.refused_politely("S-04e", sent.as_bytes(), &[400, 403], "bad_secret");
}

#[test]
fn s05_connection_cannot_strip_the_secret_before_it_is_read() {
    let rig = Rig::new();
    let sent = format!("GET /s HTTP/1.1\r\n{P}Connection: X-Wardent-Secret\r\n\r\n");
    rig.passed("S-05", sent.as_bytes());
    let sent = with_secret("Connection: X-Wardent-Secret\r\n");
    rig.refused_politely("S-05b", sent.as_bytes(), &[403], "bad_secret");
}

/// Wardent shows the application a signature of its own.
fn signing(setup: Setup) -> Setup {
    setup.file("up.key", KEY_2).secret(&[
        "keys: [{id: k1, from: {file: k1.key}}]",
        "upstream: {header: x-wardent-secret, id: app, from: {file: up.key}}",
    ])
}

/// Checks the one secret header the application got against what it must speak of.
fn assert_signed(id: &str, request: &message::Request, client_ip: &str) {
    let value = request.header("x-wardent-secret").unwrap_or_default();
    let seconds = value.split('.').nth(1).unwrap_or_default();
    let seconds: i64 = seconds.parse().unwrap_or_default();
    assert!((time::unix_seconds() - seconds).abs() < 60, "{id}: {value}");
    let expected = Signed {
        id: "app",
        key: KEY_2,
        seconds,
        method: &request.head.method,
        host: request.header("host").unwrap(),
        target: &request.head.target,
        client_ip,
    };
    assert_eq!(value, expected.value(), "{id}");
}

#[test]
fn s05_the_application_can_check_that_a_request_came_through() {
    let rig = Rig::with(signing);
    let rows = [
        ("S-05c", format!("GET /s?x=%20 HTTP/1.1\r\n{P}\r\n")),
        (
            "S-05d",
            format!("GET /s HTTP/1.1\r\n{P}Connection: close, X-Wardent-Secret\r\n\r\n"),
        ),
        (
            "S-05e",
            format!("DELETE /s HTTP/1.1\r\n{P}Connection: x-wardent-secret\r\n\r\n"),
        ),
    ];
    for (id, sent) in rows {
        let mark = rig.origin.mark();
        assert_eq!(rig.wardent.ask(&sent).status, 200, "{id}");
        assert_signed(id, &rig.origin.requests_since(&mark)[0], CLIENT);
    }
    let mark = rig.origin.mark();
    let stranger = rig.wardent.stranger().ask(get("/s"));
    assert_eq!(stranger.status, 200);
    assert_signed("S-05f", &rig.origin.requests_since(&mark)[0], "127.0.0.2");
    let mark = rig.origin.mark();
    let sent = format!(
        "GET /s HTTP/1.1\r\n{}\r\n",
        support::p_from("2001:DB8:0::1")
    );
    assert_eq!(rig.wardent.ask(sent).status, 200);
    assert_signed("S-05g", &rig.origin.requests_since(&mark)[0], "2001:db8::1");
}

#[test]
fn s05_a_refused_request_gets_no_signature() {
    let rig = Rig::with(signing);
    let sent = with_secret(&header(KEY_2));
    let response = rig.wardent.ask(sent);
    rig::assert_refusal("S-05h", &response, &[403], "bad_secret");
    assert_eq!(rig.origin.bytes(), 0);
}

const BOTH_KEYS: &str = "keys: [{id: k2, from: {file: k2.key}}, {id: k1, from: {file: k1.key}}]";

fn status_with(wardent: &Wardent, key: &str) -> u16 {
    wardent.ask(with_secret(&header(key))).status
}

#[test]
fn s06_two_keys_at_once_let_a_rotation_pass() {
    let origin = Origin::echo();
    let setup = Wardent::setup(&origin).file("k2.key", KEY_2);
    let wardent = setup.secret(&[BOTH_KEYS]).start();
    assert_eq!(status_with(&wardent, KEY), 200);
    assert_eq!(status_with(&wardent, KEY_2), 200);
}

#[test]
fn s06_a_key_taken_out_of_the_list_is_dead_after_a_reload() {
    let origin = Origin::echo();
    let setup = Wardent::setup(&origin).file("k2.key", KEY_2);
    let wardent = setup.secret(&[BOTH_KEYS]).start();
    let config = wardent.dir().join("wardent.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace(BOTH_KEYS, "keys: [{id: k2, from: {file: k2.key}}]");
    fs::write(&config, text).unwrap();
    wardent.reload().unwrap();
    time::eventually("the old key is refused", || {
        status_with(&wardent, KEY) == 403
    });
    assert_eq!(status_with(&wardent, KEY_2), 200);
}

#[test]
fn s07_a_keys_file_is_read_again_on_reload() {
    let origin = Origin::echo();
    let wardent = Wardent::before(&origin);
    assert_eq!(status_with(&wardent, KEY_2), 403);
    write_private(&wardent.dir().join("k1.key"), KEY_2.as_bytes());
    wardent.reload().unwrap();
    time::eventually("the new key opens", || status_with(&wardent, KEY_2) == 200);
    assert_eq!(status_with(&wardent, KEY), 403);
}

#[test]
fn s08_a_key_that_becomes_useless_keeps_its_old_value() {
    let origin = Origin::echo();
    let wardent = Wardent::before(&origin);
    let file = wardent.dir().join("k1.key");
    for useless in [&b""[..], b"\n", b"short"] {
        write_private(&file, useless);
        // Whether the reload as a whole is a failure is told in the report; the key stays.
        drop(wardent.reload());
        assert_eq!(status_with(&wardent, KEY), 200, "{useless:?}");
        assert_eq!(status_with(&wardent, ""), 403, "{useless:?}");
        assert_eq!(status_with(&wardent, "short"), 403, "{useless:?}");
    }
    fs::remove_file(&file).unwrap();
    drop(wardent.reload());
    assert_eq!(status_with(&wardent, KEY), 200, "the file is gone");
}

#[test]
fn s01_a_trailing_newline_is_no_part_of_a_key() {
    let rig = Rig::with(|setup| setup.file("k1.key", format!("{KEY}\n")));
    rig.passed("S-01b", b"GET /s HTTP/1.1\r\n{P}\r\n");
}

#[test]
fn s09_a_key_that_protects_nothing_is_refused_at_the_start() {
    for (id, bytes) in [("S-09", &b""[..]), ("S-09b", b"\n"), ("S-09c", b"8 bytes!")] {
        let origin = Origin::echo();
        let setup = Wardent::setup(&origin).file("k1.key", bytes);
        let report = setup.try_start().err().unwrap_or_default();
        assert!(report.contains("k1"), "{id}: the report is {report:?}");
        assert!(!report.contains("8 bytes!"), "{id}: {report:?}");
    }
}

#[test]
fn s09_a_key_without_a_file_is_refused_at_the_start() {
    let origin = Origin::echo();
    let setup = Wardent::setup(&origin).secret(&["keys: [{id: k1, from: {file: missing.key}}]"]);
    let report = setup.try_start().err().unwrap_or_default();
    assert!(report.contains("missing.key"), "{report:?}");
}

#[test]
fn s09_ids_are_plain_words() {
    let origin = Origin::echo();
    for (id, is_one) in [("2026-11_A", true), ("a.b", false), ("a b", false)] {
        let keys = format!("keys: [{{id: \"{id}\", from: {{file: k1.key}}}}]");
        let started = Wardent::setup(&origin).secret(&[&keys]).try_start();
        assert_eq!(started.is_ok(), is_one, "{id}");
        let report = started.err().unwrap_or_default();
        if !is_one {
            assert!(report.contains("id: this value is not a name"), "{report}");
            // Somebody may have put the secret itself there.
            assert!(!report.contains(id), "{report}");
        }
    }
}

#[test]
fn s09_a_secret_cannot_be_required_without_keys() {
    let origin = Origin::echo();
    let policy = open_policy(&["secret: require"], "");
    let setup = Wardent::setup(&origin).secret(&[]).policy(policy);
    assert!(setup.try_start().is_err());
}

#[test]
fn without_keys_no_secret_is_asked_for_and_none_is_passed_on() {
    let rig = Rig::with(|setup| setup.secret(&[]));
    let (seen, _) = rig.passed("S-13", with_secret("").as_bytes());
    assert!(!seen.head.fields.has("x-wardent-secret"));
    let (seen, _) = rig.passed("S-13b", with_secret(&header("anything")).as_bytes());
    assert!(!seen.head.fields.has("x-wardent-secret"));
}

#[test]
fn a_route_that_skips_the_secret_still_strips_it() {
    let policy = open_policy(
        &[],
        "routes:\n  - name: open\n    match: {path: /s}\n    secret: skip\n",
    );
    let rig = Rig::with(|setup| setup.policy(policy));
    for (id, lines) in [
        ("S-13c", String::new()),
        ("S-13d", header(KEY)),
        ("S-13e", header("wrong")),
    ] {
        let (seen, _) = rig.passed(id, with_secret(&lines).as_bytes());
        assert!(!seen.head.fields.has("x-wardent-secret"), "{id}");
    }
}

#[test]
fn the_secret_header_can_have_another_name() {
    let rig = Rig::with(|setup| {
        setup.secret(&["header: x-door", "keys: [{id: k1, from: {file: k1.key}}]"])
    });
    let sent = with_secret(&format!("X-Door: {KEY}\r\n"));
    assert_eq!(rig.wardent.ask(sent).status, 200);
    assert!(!rig.origin.only_request().head.fields.has("x-door"));
    // What was the header's name before opens nothing now.
    let response = rig.wardent.ask(with_secret(&header(KEY)));
    rig::assert_refusal("S-14b", &response, &[403], "bad_secret");
    assert_eq!(rig.origin.requests().len(), 1);
}

fn signed() -> Signed<'static> {
    Signed {
        id: "k1",
        key: KEY,
        seconds: time::unix_seconds(),
        method: "GET",
        host: "app.test",
        target: "/s",
        client_ip: CLIENT,
    }
}

#[test]
fn s11_a_signature_opens_for_the_request_it_speaks_of() {
    let rig = Rig::new();
    let now = time::unix_seconds();
    for (id, seconds) in [("S-11", now), ("S-11b", now - 50), ("S-11c", now + 50)] {
        let value = Signed {
            seconds,
            ..signed()
        }
        .value();
        let (seen, _) = rig.passed(id, with_secret(&header(&value)).as_bytes());
        assert!(!seen.head.fields.has("x-wardent-secret"), "{id}");
    }
    let value = Signed {
        method: "POST",
        target: "/s?x=%2f",
        ..signed()
    }
    .value();
    let sent = format!(
        "POST /s?x=%2f HTTP/1.1\r\n{P_NOSECRET}X-Wardent-Secret: {value}\r\nContent-Length: 2\r\n\r\nhi"
    );
    rig.passed("S-11d", sent.as_bytes());
}

#[test]
fn s11_the_signed_address_is_the_canonical_one() {
    let rig = Rig::new();
    let value = Signed {
        client_ip: "2001:db8::1",
        ..signed()
    }
    .value();
    let sent = format!(
        "GET /s HTTP/1.1\r\nHost: app.test\r\nCF-Connecting-IP: 2001:DB8:0:0::1\r\nX-Wardent-Secret: {value}\r\n\r\n"
    );
    assert_eq!(rig.wardent.ask(sent).status, 200);
}

fn all_wrong(rows: &[(&str, String)]) {
    let rig = Rig::new();
    for (id, value) in rows {
        let sent = with_secret(&header(value));
        rig.refused_politely(id, sent.as_bytes(), &[403], "bad_secret");
    }
}

#[test]
fn s11_a_signature_opens_for_nothing_else() {
    let now = time::unix_seconds();
    let good = signed();
    let of = |signed: Signed<'_>| signed.value();
    all_wrong(&[
        (
            "S-11e",
            of(Signed {
                seconds: now - 70,
                ..good
            }),
        ),
        (
            "S-11f",
            of(Signed {
                seconds: now + 70,
                ..good
            }),
        ),
        (
            "S-11g",
            of(Signed {
                method: "POST",
                ..good
            }),
        ),
        (
            "S-11h",
            of(Signed {
                method: "get",
                ..good
            }),
        ),
        (
            "S-11i",
            of(Signed {
                host: "evil.test",
                ..good
            }),
        ),
        (
            "S-11j",
            of(Signed {
                target: "/t",
                ..good
            }),
        ),
        (
            "S-11k",
            of(Signed {
                target: "/s?x",
                ..good
            }),
        ),
        (
            "S-11l",
            of(Signed {
                client_ip: "198.51.100.8",
                ..good
            }),
        ),
        ("S-11m", of(Signed { key: KEY_2, ..good })),
        ("S-11n", of(Signed { id: "k9", ..good })),
        ("S-11o", of(Signed { id: "", ..good })),
    ]);
}

#[test]
fn s11_what_only_looks_like_a_signature_opens_nothing() {
    let now = time::unix_seconds();
    let hex = signed().hex();
    all_wrong(&[
        ("S-11p", format!("v1=k1.{now}.{}", &hex[..63])),
        ("S-11q", format!("v1=k1.{now}.{hex}0")),
        ("S-11r", format!("v1=k1.{now}.")),
        ("S-11s", format!("v1=k1..{hex}")),
        ("S-11t", format!("v1=k1.{now}")),
        ("S-11u", format!("v1=k1.+{now}.{hex}")),
        ("S-11v", format!("v1=k1.{now}.{hex}.{hex}")),
        ("S-11w", format!("v2=k1.{now}.{hex}")),
        ("S-11x", format!("v1=k1.99999999999999999999.{hex}")),
        ("S-11y", format!("v1=k1.{now}.{}", "z".repeat(64))),
        ("S-11z", format!("v1=k1.{now}.{}", "0".repeat(64))),
    ]);
}

/// Everything Wardent has written below a directory, but for the keys themselves.
fn written(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(written(&path));
        } else if path.is_file() && path.extension().is_none_or(|ext| ext != "key") {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found
}

fn admin_says(wardent: &Wardent, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(wardent.admin()).unwrap();
    stream.set_read_timeout(Some(time::PATIENCE)).unwrap();
    let host = wardent.admin();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut bytes = Vec::new();
    drop(stream.read_to_end(&mut bytes));
    bytes
}

#[test]
fn s10_a_secret_is_written_nowhere() {
    let wrong = "wrong-secret-of-thirty-two-bytes";
    let origin = Origin::echo();
    let wardent = signing(Wardent::setup(&origin))
        .top("telemetry: {log: debug}")
        .start();
    for _ in 0..5 {
        assert_eq!(status_with(&wardent, KEY), 200);
        assert_eq!(status_with(&wardent, wrong), 403);
    }
    drop(wardent.reload());
    let hex = |key: &str| -> String { key.bytes().map(|byte| format!("{byte:02x}")).collect() };
    let mut places = vec![
        ("/metrics".to_owned(), admin_says(&wardent, "/metrics")),
        ("/".to_owned(), admin_says(&wardent, "/")),
    ];
    let dir = wardent.dir().to_owned();
    wardent.drain();
    // Wait for the log to be whole before it is searched.
    time::eventually("the log settles", || {
        let first = written(&dir);
        time::pass(Duration::from_millis(50));
        first == written(&dir)
    });
    places.extend(written(&dir));
    for (place, bytes) in places {
        let text = message::latin1(&bytes);
        for key in [KEY, KEY_2, wrong] {
            assert!(!text.contains(key), "S-10: {place} holds a secret");
            assert!(!text.contains(&hex(key)), "S-10: {place} holds a secret");
        }
    }
}

#[test]
fn s12_wrong_secrets_earn_the_claimed_address_nothing() {
    let policy = OPEN_POLICY.replace("1000000}\ndefaults", "3}\ndefaults");
    assert_ne!(policy, OPEN_POLICY);
    let rig = Rig::with(|setup| setup.policy(policy));
    for n in 0..100 {
        let sent = with_secret(&header(&format!("wrong-secret-number-{n}-of-some-length")));
        let response = rig.wardent.ask(sent);
        rig::assert_refusal("S-12", &response, &[403], "bad_secret");
    }
    rig::assert_alive("S-12", &rig.wardent);
}

#[test]
fn the_secret_is_asked_before_the_identity() {
    let rig = Rig::new();
    rig.refused_politely(
        "S-15",
        b"GET /s HTTP/1.1\r\nHost: app.test\r\n\r\n",
        &[403],
        "bad_secret",
    );
}

#[test]
fn many_clients_may_try_secrets_at_once() {
    let rig = Arc::new(Rig::with(|setup| setup.workers(2)));
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let rig = Arc::clone(&rig);
            std::thread::spawn(move || {
                for turn in 0..20 {
                    let right = (n + turn) % 2 == 0;
                    let key = if right { KEY } else { KEY_2 };
                    let status = status_with(&rig.wardent, key);
                    assert_eq!(status, if right { 200 } else { 403 });
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(rig.origin.requests().len(), 80);
}
