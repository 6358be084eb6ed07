//! Promise 3: nothing that passes is altered, but for what the RFCs and the contract ask.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use support::{
    CLIENT, P, chunked, get, get_nonce,
    message::{self, Framing},
    noise,
    origin::{self, Conn, Origin},
    post, rig,
    rig::Rig,
    time::{self, Gate},
    wardent::{Setup, Wardent},
};

fn before(
    script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
) -> (Origin, Wardent) {
    let origin = Origin::scripted(script);
    let wardent = Wardent::before(&origin);
    (origin, wardent)
}

/// What a client gets when the application answers these bytes and closes.
fn answered(bytes: impl Into<Vec<u8>>, request: &str) -> message::Response {
    let bytes = bytes.into();
    let (_origin, wardent) = before(move |conn| {
        conn.request()?;
        conn.write(&bytes)?;
        conn.half_close()
    });
    wardent.ask(request)
}

#[test]
fn hop_by_hop_headers_of_a_request_end_here() {
    let rig = Rig::new();
    let sent = format!(
        "GET /a HTTP/1.1\r\n{P}Connection: keep-alive, X-Hop, x-other\r\nX-Hop: 1\r\nX-Other: 2\r\nX-Stays: 3\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nProxy: http://evil.test\r\nTE: gzip, trailers\r\nUpgrade: foo/1\r\n\r\n"
    );
    let (seen, _) = rig.passed("hop-by-hop", sent.as_bytes());
    let fields = &seen.head.fields;
    for name in [
        "x-hop",
        "x-other",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy",
        "upgrade",
    ] {
        assert!(!fields.has(name), "{name} reached the origin");
    }
    assert_eq!(fields.one("x-stays"), Some("3"));
    assert!(matches!(fields.one("te"), None | Some("trailers")));
    for token in fields.all("connection").join(",").split(',') {
        let token = token.trim().to_ascii_lowercase();
        assert!(
            matches!(token.as_str(), "" | "keep-alive" | "te"),
            "Connection: {token}"
        );
    }
}

#[test]
fn several_connection_lines_count_together() {
    let rig = Rig::new();
    let sent = format!(
        "GET /a HTTP/1.1\r\n{P}Connection: X-One\r\nConnection: ,X-Two ,\r\nX-One: 1\r\nX-Two: 2\r\n\r\n"
    );
    let (seen, _) = rig.passed("connection lines", sent.as_bytes());
    assert!(!seen.head.fields.has("x-one") && !seen.head.fields.has("x-two"));
}

#[test]
fn hop_by_hop_headers_of_an_answer_end_here() {
    let response = answered(
        "HTTP/1.1 200 OK\r\nConnection: X-Foo, close\r\nX-Foo: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nX-Stays: 2\r\nContent-Length: 2\r\n\r\nok",
        &get("/a"),
    );
    let fields = &response.head.fields;
    for name in ["x-foo", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!fields.has(name), "{name} reached the client");
    }
    assert_eq!(fields.one("x-stays"), Some("2"));
    assert!(!fields.lists("connection", "x-foo"));
    assert_eq!(response.body, b"ok");
}

#[test]
fn an_application_that_closes_does_not_close_the_client() {
    let origin = Origin::answering(|request| {
        let mut bytes = origin::echo(request);
        bytes.splice(17..17, *b"Connection: close\r\n");
        bytes
    });
    let wardent = Wardent::before(&origin);
    let mut client = wardent.client();
    for turn in 0..5 {
        let nonce = format!("n{turn}");
        assert_eq!(client.ask(get_nonce("/a", &nonce)).nonce(), nonce);
    }
}

#[test]
fn the_application_is_told_who_and_how() {
    let rig = Rig::new();
    let (seen, _) = rig.passed("told", get("/a").as_bytes());
    assert_eq!(seen.header("host"), Some("app.test"));
    assert_eq!(seen.header("x-forwarded-for"), Some(CLIENT));
    assert_eq!(seen.header("x-real-ip"), Some(CLIENT));
    assert_eq!(seen.header("x-forwarded-host"), Some("app.test"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert!(seen.header("via").unwrap().starts_with("1.1 "));
    assert!(!seen.header("x-request-id").unwrap().is_empty());
}

#[test]
fn via_is_added_to_what_was_there() {
    let rig = Rig::new();
    let sent = format!("GET /a HTTP/1.1\r\n{P}Via: 1.1 nginx\r\n\r\n");
    let (seen, _) = rig.passed("via", sent.as_bytes());
    let hops = seen.head.fields.all("via").join(", ");
    let hops: Vec<_> = hops.split(", ").collect();
    assert_eq!(hops.len(), 2, "{hops:?}");
    assert_eq!(hops[0], "1.1 nginx");
    assert!(hops[1].starts_with("1.1 "), "{hops:?}");
    let sent = format!("GET /a HTTP/1.0\r\n{P}\r\n");
    let (seen, _) = rig.passed("via 1.0", sent.as_bytes());
    assert!(seen.header("via").unwrap().starts_with("1.0 "));
}

#[test]
fn a_trusted_peer_may_say_the_scheme() {
    let rig = Rig::new();
    let sent = format!("GET /a HTTP/1.1\r\n{P}X-Forwarded-Proto: https\r\n\r\n");
    let (seen, _) = rig.passed("proto", sent.as_bytes());
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
}

#[test]
fn a_stranger_may_say_nothing() {
    let rig = Rig::new();
    let sent = format!(
        "GET /a HTTP/1.1\r\n{P}X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nX-Request-ID: chosen-by-a-stranger\r\nForwarded: for=203.0.113.9;host=evil.test\r\nX-Wardent-Reason: none\r\n\r\n"
    );
    let mark = rig.origin.mark();
    assert_eq!(rig.wardent.stranger().ask(&sent).status, 200);
    let seen = rig.origin.only_request();
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("app.test"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.2"));
    assert_eq!(seen.header("x-real-ip"), Some("127.0.0.2"));
    assert_ne!(seen.header("x-request-id"), Some("chosen-by-a-stranger"));
    let head = message::latin1(&seen.head.raw);
    assert!(!head.contains("evil.test"), "{head}");
    rig.assert_invariants_for("stranger", sent.as_bytes(), &mark, "127.0.0.2");
}

#[test]
fn doubled_forwarding_headers_become_one() {
    let rig = Rig::new();
    let sent = format!(
        "GET /a HTTP/1.1\r\n{P}X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\nX-Forwarded-Host: b.test\r\nX-Request-ID: one\r\nX-Request-ID: two\r\n\r\n"
    );
    let (seen, _) = rig.passed("doubled", sent.as_bytes());
    // `header` fails on two lines of a name.
    assert!(seen.header("x-forwarded-proto").is_some());
    assert!(seen.header("x-forwarded-host").is_some());
    assert!(seen.header("x-request-id").is_some());
}

#[test]
fn every_request_has_an_id_of_its_own() {
    let rig = Rig::with(|setup| setup.workers(2));
    for _ in 0..20 {
        assert_eq!(rig.wardent.get("/a").status, 200);
    }
    let ids: HashSet<_> = rig
        .origin
        .requests()
        .iter()
        .map(|request| request.header("x-request-id").unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 20);
}

#[test]
fn the_applications_answers_cannot_speak_for_wardent() {
    let response = answered(
        "HTTP/1.1 200 OK\r\nX-Wardent-Reason: banned\r\nx-wardent-secret: leaked\r\nX-Wardent-Anything: 1\r\nX-Warden: 2\r\nContent-Length: 0\r\n\r\n",
        &get("/a"),
    );
    let names = response.head.fields.names();
    assert!(
        !names.iter().any(|name| name.starts_with("x-wardent-")),
        "{names:?}"
    );
    assert_eq!(response.header("x-warden"), Some("2"));
}

const LINES: [&str; 8] = [
    "X-First: 1",
    "Cookie: a=b; c=d",
    "X-Twice: one",
    "x-lower: 2",
    "X-UPPER: 3",
    "X-Twice: two",
    "X-Empty:",
    "Accept: text/html, */*;q=0.1",
];

fn own(fields: &message::Fields, names: &[&str]) -> Vec<(String, String)> {
    let lines = fields.0.iter().cloned();
    lines
        .filter(|(name, _)| names.contains(&name.to_ascii_lowercase().as_str()))
        .collect()
}

#[test]
fn end_to_end_headers_reach_the_application_unaltered() {
    let rig = Rig::new();
    let sent = format!("GET /a HTTP/1.1\r\n{P}{}\r\n\r\n", LINES.join("\r\n"));
    let (seen, _) = rig.passed("lines", sent.as_bytes());
    let fields = &seen.head.fields;
    assert_eq!(fields.one("x-first"), Some("1"));
    assert_eq!(fields.one("cookie"), Some("a=b; c=d"));
    assert_eq!(fields.all("x-twice"), ["one", "two"]);
    assert_eq!(fields.one("x-empty"), Some(""));
    assert_eq!(fields.one("accept"), Some("text/html, */*;q=0.1"));
    assert_eq!(fields.one("user-agent"), Some("wtest/1"));
}

#[test]
fn end_to_end_headers_reach_the_client_unaltered() {
    let bytes = format!(
        "HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: Wed, 21 Oct 2026 07:28:00 GMT\r\nSet-Cookie: a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT\r\n{}\r\nSet-Cookie: b=2\r\nETag: \"x\"\r\nContent-Length: 0\r\n\r\n",
        LINES.join("\r\n")
    );
    let response = answered(bytes, &get("/a"));
    let fields = &response.head.fields;
    assert_eq!(fields.one("server"), Some("gunicorn"));
    assert_eq!(fields.one("date"), Some("Wed, 21 Oct 2026 07:28:00 GMT"));
    assert_eq!(
        fields.all("set-cookie"),
        ["a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2"]
    );
    assert_eq!(fields.all("x-twice"), ["one", "two"]);
    assert_eq!(fields.one("x-empty"), Some(""));
    assert_eq!(fields.one("etag"), Some("\"x\""));
}

#[test]
fn the_order_of_headers_stays() {
    let names = ["x-a", "x-c", "x-b", "x-e", "x-d"];
    let lines: String = names.iter().map(|name| format!("{name}: 1\r\n")).collect();
    let rig = Rig::new();
    let sent = format!("GET /a HTTP/1.1\r\n{P}Connection: x-hop\r\nx-hop: 1\r\n{lines}\r\n");
    let (seen, _) = rig.passed("order", sent.as_bytes());
    let order: Vec<_> = own(&seen.head.fields, &names);
    let order: Vec<_> = order.iter().map(|(name, _)| name.to_lowercase()).collect();
    assert_eq!(order, names);
    let bytes =
        format!("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\n{lines}Content-Length: 0\r\n\r\n");
    let response = answered(bytes, &get("/a"));
    let order: Vec<_> = own(&response.head.fields, &names);
    let order: Vec<_> = order.iter().map(|(name, _)| name.to_lowercase()).collect();
    assert_eq!(order, names);
}

#[test]
fn the_case_of_header_names_stays() {
    let lines = "X-CamelCase: 1\r\nx-lower: 2\r\nX-UPPER: 3\r\n";
    let names = ["x-camelcase", "x-lower", "x-upper"];
    let expected = ["X-CamelCase", "x-lower", "X-UPPER"];
    let rig = Rig::new();
    let sent = format!("GET /a HTTP/1.1\r\n{P}{lines}\r\n");
    let (seen, _) = rig.passed("case", sent.as_bytes());
    let got: Vec<_> = own(&seen.head.fields, &names);
    let got: Vec<_> = got.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(got, expected, "at the origin");
    let bytes = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 0\r\n\r\n");
    let response = answered(bytes, &get("/a"));
    let got: Vec<_> = own(&response.head.fields, &names);
    let got: Vec<_> = got.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(got, expected, "at the client");
}

#[test]
fn bytes_beyond_ascii_in_a_value_stay() {
    let rig = Rig::new();
    let value: Vec<u8> = (0x80..=0xff).chain(*b" a\tb").collect();
    let sent = [
        b"GET /a HTTP/1.1\r\n{P}X-Bytes: ",
        value.as_slice(),
        b"\r\n\r\n",
    ]
    .concat();
    let (seen, _) = rig.passed("bytes", &sent);
    assert_eq!(seen.header("x-bytes"), Some(&*message::latin1(&value)));
    let bytes = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Bytes: ",
        value.as_slice(),
        b"\r\n\r\n",
    ]
    .concat();
    let response = answered(bytes, &get("/a"));
    assert_eq!(response.header("x-bytes"), Some(&*message::latin1(&value)));
}

#[test]
fn every_method_passes() {
    let rig = Rig::new();
    for method in [
        "PROPFIND",
        "M-SEARCH",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "QUERY",
        "x!#$%&'*+-.^_`|~9",
    ] {
        let sent = format!("{method} /a HTTP/1.1\r\n{P}\r\n");
        let (seen, _) = rig.passed(method, sent.as_bytes());
        assert_eq!(seen.head.method, method);
    }
}

#[test]
fn every_status_passes() {
    let rows: &[(u16, &str)] = &[
        (200, "OK"),
        (201, "Created"),
        (206, "Partial Content"),
        (301, "Moved Permanently"),
        (400, "Bad Request"),
        (401, "Unauthorized"),
        (403, "Forbidden"),
        (413, "Content Too Large"),
        (418, "I'm a teapot"),
        (429, "Too Many Requests"),
        (500, "Internal Server Error"),
        (502, "Bad Gateway"),
        (503, "Service Unavailable"),
    ];
    let origin = Origin::answering(|request| {
        let status = request
            .head
            .target
            .trim_start_matches('/')
            .replace("%20", " ");
        origin::answer(
            &status,
            "X-From: app\r\nRetry-After: 7\r\n",
            b"said the app",
        )
    });
    let wardent = Wardent::before(&origin);
    let mut client = wardent.client();
    for (status, phrase) in rows {
        let target = format!("/{status} {phrase}").replace(' ', "%20");
        let response = client.ask(get(&target));
        assert_eq!(response.status, *status);
        assert_eq!(response.header("x-from"), Some("app"), "{status}");
        assert_eq!(response.header("retry-after"), Some("7"), "{status}");
        assert!(!response.head.fields.has("x-wardent-reason"), "{status}");
        assert_eq!(response.body, b"said the app", "{status}");
    }
}

#[test]
fn trailers_of_a_request_pass() {
    let rig = Rig::new();
    let sent = format!(
        "POST /a HTTP/1.1\r\n{P}Trailer: X-Check, X-More\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Check: abc\r\nX-More: def\r\n\r\n"
    );
    let (seen, _) = rig.passed("trailers", sent.as_bytes());
    assert_eq!(seen.body, b"hello");
    assert_eq!(seen.trailers.one("x-check"), Some("abc"));
    assert_eq!(seen.trailers.one("x-more"), Some("def"));
}

#[test]
fn trailers_of_an_answer_pass() {
    let request = format!("GET /a HTTP/1.1\r\n{P}TE: trailers\r\nConnection: TE\r\n\r\n");
    let response = answered(
        "HTTP/1.1 200 OK\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Check: abc\r\n\r\n",
        &request,
    );
    assert_eq!(response.body, b"hello");
    assert_eq!(response.trailers.one("x-check"), Some("abc"));
}

#[test]
fn trailers_of_an_answer_cannot_speak_for_wardent() {
    let request = format!("GET /a HTTP/1.1\r\n{P}TE: trailers\r\nConnection: TE\r\n\r\n");
    let response = answered(
        "HTTP/1.1 200 OK\r\nTrailer: X-Wardent-Reason\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Wardent-Reason: banned\r\n\r\n",
        &request,
    );
    assert_eq!(response.body, b"hello");
    assert!(!response.trailers.has("x-wardent-reason"));
}

#[test]
fn early_hints_pass_before_the_answer() {
    let (_origin, wardent) = before(|conn| {
        let request = conn.request()?;
        conn.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
        conn.write(origin::echo(&request))
    });
    let response = wardent.get("/a");
    assert_eq!(response.status, 200);
    assert_eq!(response.informational.len(), 1);
    let hints = &response.informational[0];
    assert_eq!(hints.status, 103);
    assert_eq!(hints.fields.one("link"), Some("</a.css>; rel=preload"));
}

#[test]
fn early_hints_do_not_wait_for_the_answer() {
    let gate = Arc::new(Gate::default());
    let door = Arc::clone(&gate);
    let (_origin, wardent) = before(move |conn| {
        let request = conn.request()?;
        conn.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
        door.wait();
        conn.write(origin::echo(&request))
    });
    let mut client = wardent.client();
    client.send(get("/a"));
    assert_eq!(client.response_head().status, 103);
    gate.open();
    assert_eq!(client.response("GET").status, 200);
}

#[test]
fn an_http10_client_gets_no_early_hints() {
    let (_origin, wardent) = before(|conn| {
        let request = conn.request()?;
        conn.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
        conn.write(origin::echo(&request))
    });
    let response = wardent.ask(format!("GET /a HTTP/1.0\r\n{P}\r\n"));
    assert_eq!(response.status, 200);
    assert!(response.informational.is_empty());
}

#[test]
fn an_application_may_answer_instead_of_asking_for_the_body() {
    let (_origin, wardent) = before(|conn| {
        conn.head()?;
        conn.write("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
    });
    let mut client = wardent.client();
    client.send(format!(
        "POST /a HTTP/1.1\r\n{P}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    ));
    let response = client.response("POST");
    assert_eq!(
        (response.status, response.body.as_slice()),
        (401, &b"no"[..])
    );
}

#[test]
fn an_answer_to_head_keeps_its_length_and_has_no_body() {
    let origin = Origin::answering(|request| match request.head.method.as_str() {
        "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n".to_vec(),
        _ => origin::echo(request),
    });
    let wardent = Wardent::before(&origin);
    let mut client = wardent.client();
    let response = client.ask(format!("HEAD /a HTTP/1.1\r\n{P}\r\n"));
    assert_eq!(response.header("content-length"), Some("1234"));
    assert_eq!(response.header("etag"), Some("\"x\""));
    assert!(!response.head.fields.has("transfer-encoding"));
    assert_eq!(client.ask(get_nonce("/b", "after")).nonce(), "after");
}

#[test]
fn an_answer_without_a_body_needs_no_framing() {
    for (status, lines) in [
        ("204 No Content", "X-A: 1\r\n"),
        ("304 Not Modified", "ETag: \"x\"\r\n"),
        ("205 Reset Content", "Content-Length: 0\r\n"),
    ] {
        let origin = Origin::answering(move |request| match request.head.target.as_str() {
            "/empty" => format!("HTTP/1.1 {status}\r\n{lines}\r\n").into_bytes(),
            _ => origin::echo(request),
        });
        let wardent = Wardent::before(&origin);
        let mut client = wardent.client();
        let response = client.ask(get("/empty"));
        assert_eq!(response.status.to_string(), status[..3]);
        assert!(!response.head.fields.has("transfer-encoding"), "{status}");
        if status.starts_with("204") {
            assert!(!response.head.fields.has("content-length"), "{status}");
        }
        let next = client.ask(get_nonce("/next", "next"));
        assert_eq!(next.nonce(), "next", "{status}");
    }
}

#[test]
fn a_not_modified_keeps_the_length_of_what_is_not_sent() {
    let response = answered(
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n",
        &get("/a"),
    );
    assert_eq!(response.status, 304);
    assert!(matches!(
        response.header("content-length"),
        None | Some("1234")
    ));
    assert!(response.body.is_empty());
}

#[test]
fn an_http10_client_is_served_in_its_own_words() {
    let origin = Origin::answering(|request| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = request.head.raw.clone();
        [head.as_bytes(), &chunked(&body, &[7])].concat()
    });
    let wardent = Wardent::before(&origin);
    let mut client = wardent.client();
    let response = client.ask(format!("GET /a HTTP/1.0\r\n{P}\r\n"));
    assert_eq!(response.status, 200);
    assert!(!response.head.fields.has("transfer-encoding"));
    client.assert_closed("HTTP/1.0");
    let seen = origin.only_request();
    assert_eq!(response.body, seen.head.raw);
    assert_eq!(seen.head.version, "HTTP/1.1");
}

#[test]
fn an_http10_client_may_send_a_body() {
    let rig = Rig::new();
    let (seen, _) = rig.passed(
        "1.0 body",
        b"POST /a HTTP/1.0\r\n{P}Content-Length: 5\r\n\r\nhello",
    );
    assert_eq!(seen.body, b"hello");
}

#[test]
fn an_http10_client_may_keep_its_connection() {
    let rig = Rig::new();
    let mut client = rig.wardent.client();
    let sent = format!("GET /a HTTP/1.0\r\n{P}Connection: keep-alive\r\nX-Nonce: one\r\n\r\n");
    let response = client.ask(&sent);
    assert_eq!(response.nonce(), "one");
    if response.head.fields.lists("connection", "keep-alive") {
        assert_eq!(client.ask(sent).nonce(), "one");
    } else {
        client.assert_closed("1.0 keep-alive");
    }
}

#[test]
fn a_client_that_asks_to_close_is_closed_and_the_pool_is_not() {
    let rig = Rig::with(|setup| setup.upstream("pool_idle: 10s"));
    for _ in 0..5 {
        let mut client = rig.wardent.client();
        let sent = format!("GET /a HTTP/1.1\r\n{P}Connection: close\r\n\r\n");
        let response = client.ask(sent);
        assert_eq!(response.status, 200);
        assert!(response.head.fields.lists("connection", "close"));
        client.assert_closed("close");
    }
    assert_eq!(rig.origin.connections(), 1);
}

#[test]
fn a_connection_serves_many_requests() {
    let rig = Rig::new();
    let mut client = rig.wardent.client();
    for turn in 0..200 {
        let nonce = format!("n{turn}");
        assert_eq!(client.ask(get_nonce("/a", &nonce)).nonce(), nonce);
    }
    assert_eq!(rig.origin.requests().len(), 200);
}

#[test]
fn an_idle_client_connection_ends_at_its_deadline() {
    let rig = Rig::with(|setup| setup.top("keep_alive: 300ms"));
    let mut client = rig.wardent.client();
    assert_eq!(client.ask(get("/a")).status, 200);
    let begun = time::now();
    client.assert_closed("keep_alive");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(250), "after {took:?}");
    assert!(took < Duration::from_secs(3), "after {took:?}");
}

#[test]
fn an_answer_streams_before_it_is_whole() {
    for (id, head, pieces) in [
        (
            "chunked",
            "Transfer-Encoding: chunked\r\n\r\n",
            ["3\r\none\r\n", "3\r\ntwo\r\n0\r\n\r\n"],
        ),
        ("length", "Content-Length: 6\r\n\r\n", ["one", "two"]),
        ("close", "\r\n", ["one", "two"]),
    ] {
        let gates = Arc::new((Gate::default(), Gate::default()));
        let doors = Arc::clone(&gates);
        let (_origin, wardent) = before(move |conn| {
            conn.request()?;
            conn.write(format!("HTTP/1.1 200 OK\r\n{head}"))?;
            doors.0.wait();
            conn.write(pieces[0])?;
            doors.1.wait();
            conn.write(pieces[1])?;
            conn.half_close()
        });
        let mut client = wardent.client();
        client.send(get("/a"));
        // The head comes before any of the body, and each piece before the next is written.
        let head = client.response_head();
        gates.0.open();
        if head.fields.has("transfer-encoding") {
            assert_eq!(client.chunk_bytes(3), b"one", "{id}");
            gates.1.open();
            assert_eq!(client.chunk_bytes(3), b"two", "{id}");
            assert!(client.chunk().unwrap().is_empty(), "{id}");
        } else {
            assert_eq!(client.exact(3), b"one", "{id}");
            gates.1.open();
            assert_eq!(client.exact(3), b"two", "{id}");
        }
    }
}

#[test]
fn a_request_streams_before_it_is_whole() {
    for chunks in [false, true] {
        let came = Arc::new(Gate::default());
        let seen = Arc::clone(&came);
        let (origin, wardent) = before(move |conn| {
            conn.head()?;
            if chunks {
                conn.chunk_bytes(5)?;
            } else {
                conn.exact(5)?;
            }
            seen.open();
            if chunks {
                conn.chunk_bytes(5)?;
            } else {
                conn.exact(5)?;
            }
            conn.write(origin::answer("200 OK", "", b"got it"))
        });
        let mut client = wardent.client();
        let framing = if chunks {
            "Transfer-Encoding: chunked"
        } else {
            "Content-Length: 10"
        };
        client.send(format!("POST /a HTTP/1.1\r\n{P}{framing}\r\n\r\n"));
        client.send(if chunks { "5\r\nhello\r\n" } else { "hello" });
        came.wait();
        client.send(if chunks {
            "5\r\nworld\r\n0\r\n\r\n"
        } else {
            "world"
        });
        assert_eq!(client.response("POST").body, b"got it");
        assert_eq!(origin.only_request().body, b"helloworld");
    }
}

#[test]
fn both_ways_stream_at_once() {
    let (_origin, wardent) = before(|conn| {
        conn.head()?;
        conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..5 {
            let heard = conn.chunk_bytes(4)?;
            conn.write(format!("4\r\n{}\r\n", message::latin1(&heard)))?;
        }
        conn.exact(5)?;
        conn.write("0\r\n\r\n")
    });
    let mut client = wardent.client();
    client.send(format!(
        "POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\n\r\n"
    ));
    assert_eq!(client.response_head().status, 200);
    for turn in 0..5 {
        let word = format!("say{turn}");
        client.send(format!("4\r\n{word}\r\n"));
        assert_eq!(client.chunk_bytes(4), word.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert!(client.chunk().unwrap().is_empty());
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let (_origin, wardent) = before(|conn| {
        conn.head()?;
        conn.write(
            "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
        )?;
        conn.half_close()
    });
    for run in 0..10 {
        let mut client = wardent.client();
        client.send(format!(
            "POST /a HTTP/1.1\r\n{P}Content-Length: 4000000\r\n\r\n"
        ));
        let piece = vec![b'x'; 40_000];
        for _ in 0..100 {
            if !client.send_anyway(&piece) {
                break;
            }
        }
        let response = client.response("POST");
        assert_eq!(response.status, 401, "run {run}");
        assert_eq!(response.body, b"no", "run {run}");
    }
}

#[test]
fn large_bodies_pass_both_ways_unaltered() {
    let body = noise(5_000_000);
    let answer = body.clone();
    let origin = Origin::answering(move |_| origin::answer("200 OK", "", &answer));
    let wardent = Wardent::before(&origin);
    let response = wardent.ask(post("/a", &body));
    assert!(response.body == body, "the answer was altered");
    assert!(
        origin.only_request().body == body,
        "the request was altered"
    );
}

#[test]
fn a_body_that_ends_with_the_connection_arrives_whole() {
    let body = noise(300_000);
    let bytes = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &body].concat();
    let response = answered(bytes, &get("/a"));
    assert!(response.body == body);
    assert!(matches!(
        response.framing,
        Framing::Chunked | Framing::UntilClose
    ));
}

#[test]
fn a_declared_length_stays_declared() {
    let rig = Rig::new();
    let (seen, response) = rig.passed("length", &post("/a", b"hello"));
    assert_eq!(seen.header("content-length"), Some("5"));
    assert!(matches!(response.framing, Framing::Length(_)));
    let sent =
        format!("POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let (seen, _) = rig.passed("chunked", sent.as_bytes());
    assert!(!seen.head.fields.has("content-length"));
}

#[test]
fn content_codings_and_ranges_are_not_wardents_business() {
    let rig = Rig::new();
    let sent = format!(
        "GET /a HTTP/1.1\r\n{P}Accept-Encoding: br, gzip\r\nRange: bytes=0-9\r\nIf-None-Match: \"x\"\r\nCache-Control: no-cache\r\nAuthorization: Bearer abc\r\nTraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n"
    );
    let (seen, _) = rig.passed("codings", sent.as_bytes());
    for (name, value) in [
        ("accept-encoding", "br, gzip"),
        ("range", "bytes=0-9"),
        ("if-none-match", "\"x\""),
        ("cache-control", "no-cache"),
        ("authorization", "Bearer abc"),
    ] {
        assert_eq!(seen.header(name), Some(value));
    }
    let trace = seen.header("traceparent").unwrap();
    assert!(trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
}

#[test]
fn every_worker_serves_alike() {
    let origin = Origin::echo();
    let wardent = Wardent::setup(&origin).workers(2).start();
    let threads: Vec<_> = (0..8)
        .map(|lane| {
            let address = wardent.address().clone();
            std::thread::spawn(move || {
                for turn in 0..25 {
                    let nonce = format!("l{lane}-{turn}");
                    let mut client = support::client::RawClient::connect(&address);
                    assert_eq!(client.ask(get_nonce("/a", &nonce)).nonce(), nonce);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn the_unix_listener_serves_alike() {
    let rig = Rig::with(Setup::unix_listener);
    let (seen, response) = rig.passed("unix", get_nonce("/a", "unix").as_bytes());
    assert_eq!(response.nonce(), "unix");
    rig::assert_clean("unix", &seen, CLIENT);
}
