//! Group P: a request has one meaning or none, and what has none never reaches the application.
//!
//! Ids are those of the case catalogue; a letter after the number marks a sibling of a case.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::time::Duration;

use support::{
    P, P_NOHOST, client::RawClient, expand, get_nonce, message, noise, origin::Mark, rig, rig::Rig,
    time,
};

/// A case: its id, its bytes, and the statuses that refuse it.
type Row = (&'static str, &'static [u8], &'static [u16]);

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";

fn all_refused(rows: &[Row]) {
    let rig = Rig::new();
    for (id, template, statuses) in rows {
        rig.refused(id, template, statuses, "bad_request");
    }
}

const CONTENT_LENGTHS: &[Row] = &[
    (
        "P-03",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        &[400],
    ),
    (
        "P-03b",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 6\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello!",
        &[400],
    ),
    (
        "P-05",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 5, 5\r\n\r\nhello",
        &[400],
    ),
    (
        "P-06",
        b"GET /a HTTP/1.1\r\n{P}Content-Length: +3\r\n\r\nabc",
        &[400],
    ),
    (
        "P-07",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 1_0\r\n\r\n0123456789",
        &[400],
    ),
    (
        "P-07b",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: -1\r\n\r\n",
        &[400],
    ),
    (
        "P-07c",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 0x5\r\n\r\nhello",
        &[400],
    ),
    (
        "P-07d",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 5 5\r\n\r\nhello",
        &[400],
    ),
    (
        "P-07e",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 5;\r\n\r\nhello",
        &[400],
    ),
    (
        "P-07f",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: \r\n\r\nhello",
        &[400],
    ),
    (
        "P-07g",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: \xb2\r\n\r\nhi",
        &[400],
    ),
    (
        "P-07h",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 5.0\r\n\r\nhello",
        &[400],
    ),
    (
        "P-08",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 18446744073709551616\r\n\r\nx",
        &[400, 413],
    ),
    (
        "P-08b",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 99999999999999999999999999\r\n\r\nx",
        &[400, 413],
    ),
];

#[test]
fn a_content_length_that_is_no_single_number_is_refused() {
    let rig = Rig::new();
    for (id, template, statuses) in CONTENT_LENGTHS {
        let reason = |status| match status {
            413 => "body_too_large",
            _ => "bad_request",
        };
        let sent = expand(template);
        let mark = rig.origin.mark();
        let mut client = rig.wardent.client();
        client.send_anyway(&sent);
        let response = client.response("POST");
        rig::assert_refusal(id, &response, statuses, reason(response.status));
        client.assert_closed(id);
        rig.assert_nothing_passed(id, &mark);
        rig.assert_invariants(id, &sent, &mark);
    }
}

#[test]
fn p04_a_repeated_equal_content_length_is_refused_or_made_one() {
    let rig = Rig::new();
    let sent =
        expand(b"POST /a HTTP/1.1\r\n{P}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello");
    let mark = rig.origin.mark();
    let response = rig.wardent.ask(&sent);
    if response.status == 200 {
        let seen = rig.origin.only_request();
        assert_eq!(seen.body, b"hello");
        assert_eq!(seen.head.fields.all("content-length"), ["5"]);
        rig::assert_clean("P-04", &seen, support::CLIENT);
    } else {
        rig::assert_refusal("P-04", &response, &[400], "bad_request");
        rig.assert_nothing_passed("P-04", &mark);
    }
}

#[test]
fn p07_leading_zeros_are_a_number() {
    let rig = Rig::new();
    let (seen, _) = rig.passed(
        "P-07z",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 005\r\n\r\nhello",
    );
    assert_eq!(seen.body, b"hello");
}

const TWO_FRAMINGS: &[Row] = &[
    (
        "P-01",
        b"POST /cl-te HTTP/1.1\r\n{P}Content-Length: 47\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n",
        &[400],
    ),
    (
        "P-02",
        b"POST /te-cl HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2b\r\nGET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "P-02b",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "P-02c",
        b"GET /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\nX-A: 1\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "P-02d",
        b"POST /a HTTP/1.1\r\n{P}content-length: 5\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "P-02e",
        b"POST /a HTTP/1.1\r\n{P}Connection: Content-Length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "P-02f",
        b"POST /a HTTP/1.1\r\n{P}Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello",
        &[400, 501],
    ),
];

#[test]
fn a_request_framed_twice_is_refused() {
    all_refused(TWO_FRAMINGS);
}

const TRANSFER_ENCODINGS: &[Row] = &[
    (
        "P-10",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-10b",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-10c",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-11",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-11b",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: identity\r\n\r\nhello",
        &[400, 501],
    ),
    (
        "P-11c",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: \r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-11d",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-12",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        &[501],
    ),
    (
        "P-12b",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-12c",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-13",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-14",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-14b",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-14c",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-14d",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-14e",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked\x85\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-14f",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "P-15",
        b"POST /a HTTP/1.0\r\n{P}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
];

#[test]
fn a_transfer_encoding_that_is_not_chunked_alone_is_refused() {
    all_refused(TRANSFER_ENCODINGS);
}

#[test]
fn p14_white_space_around_chunked_is_legal() {
    let rig = Rig::new();
    for (id, line) in [
        ("P-14y", "Transfer-Encoding: chunked\t"),
        ("P-14z", "transfer-encoding:\t Chunked"),
    ] {
        let sent = format!("POST /a HTTP/1.1\r\n{P}{line}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let (seen, _) = rig.passed(id, sent.as_bytes());
        assert_eq!(seen.body, b"hello", "{id}");
    }
}

const HEADER_LINES: &[Row] = &[
    (
        "P-16",
        b"POST /a HTTP/1.1\r\n{P}Content-Length : 5\r\n\r\nhello",
        &[400],
    ),
    (
        "P-16b",
        b"POST /a HTTP/1.1\r\n{P}Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "P-17",
        b"POST /a HTTP/1.1\r\n{P}X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "P-17b",
        b"GET /a HTTP/1.1\r\n{P}X-A: b\r\n\tc\r\n\r\n",
        &[400],
    ),
    (
        "P-17c",
        b"GET /a HTTP/1.1\r\n Host: app.test\r\n{P}\r\n",
        &[400],
    ),
    ("P-18", b"GET /a HTTP/1.1\r\n{P}X-A\r\n\r\n", &[400]),
    ("P-18b", b"GET /a HTTP/1.1\r\n{P}: x\r\n\r\n", &[400]),
    ("P-18c", b"GET /a HTTP/1.1\r\n{P}X A: x\r\n\r\n", &[400]),
    ("P-18d", b"GET /a HTTP/1.1\r\n{P}X(A): x\r\n\r\n", &[400]),
    (
        "P-18e",
        b"GET /a HTTP/1.1\r\n{P}X\xc3\xa9: x\r\n\r\n",
        &[400],
    ),
    (
        "P-19",
        b"GET /a HTTP/1.1\nHost: app.test\nX-A: 1\n\n",
        &[400],
    ),
    (
        "P-19b",
        b"GET /a HTTP/1.1\r\n{P}X-A: 1\nX-B: 2\r\n\r\n",
        &[400],
    ),
    ("P-19c", b"GET /a HTTP/1.1\r\n{P}X-A: 1\r\n\n", &[400]),
    ("P-19d", b"GET /a HTTP/1.1\n{P}\r\n", &[400]),
    (
        "P-19e",
        b"POST /a HTTP/1.1\r\n{P}X-A: 1\nContent-Length: 5\r\n\r\nhello",
        &[400],
    ),
    ("P-20", b"GET /a HTTP/1.1\r\n{P}X-A: v\rw\r\n\r\n", &[400]),
    ("P-20b", b"GET /a HTTP/1.1\r\n{P}X-\rA: v\r\n\r\n", &[400]),
    (
        "P-20c",
        b"GET /a HTTP/1.1\r\n{P}X-A: v\rTransfer-Encoding: chunked\r\n\r\n",
        &[400],
    ),
    ("P-21", b"GET /a HTTP/1.1\r\n{P}X-A: v\x00w\r\n\r\n", &[400]),
    ("P-21b", b"GET /a HTTP/1.1\r\n{P}X\x00-A: v\r\n\r\n", &[400]),
    ("P-21c", b"GET /a\x00b HTTP/1.1\r\n{P}\r\n", &[400]),
    (
        "P-21d",
        b"GET /a HTTP/1.1\r\n{P}X-A: v\x07w\r\n\r\n",
        &[400],
    ),
    (
        "P-21e",
        b"GET /a HTTP/1.1\r\n{P}X-A: v\x7fw\r\n\r\n",
        &[400],
    ),
    (
        "P-21f",
        b"GET /a HTTP/1.1\r\n{P}X-A: \x1b[2J\r\n\r\n",
        &[400],
    ),
];

#[test]
fn a_header_line_that_is_not_exactly_one_is_refused() {
    all_refused(HEADER_LINES);
}

const UNDERSCORED: &[Row] = &[
    ("P-58", b"GET /a HTTP/1.1\r\n{P}X_Foo: 1\r\n\r\n", &[400]),
    (
        "P-58b",
        b"POST /a HTTP/1.1\r\n{P}Content_Length: 5\r\n\r\n",
        &[400],
    ),
    (
        "P-58c",
        b"POST /a HTTP/1.1\r\n{P}Transfer_Encoding: chunked\r\n\r\n",
        &[400],
    ),
    (
        "P-58d",
        b"GET /a HTTP/1.1\r\n{P}CF_Connecting_IP: 203.0.113.9\r\n\r\n",
        &[400],
    ),
    (
        "P-58e",
        b"GET /a HTTP/1.1\r\n{P}X-Forwarded_For: 203.0.113.9\r\n\r\n",
        &[400],
    ),
    (
        "P-58f",
        b"GET /a HTTP/1.1\r\n{P}X_Wardent_Secret: k1secret-thirty-two-bytes-long-0\r\n\r\n",
        &[400],
    ),
];

#[test]
fn a_header_name_with_an_underscore_is_refused() {
    all_refused(UNDERSCORED);
}

const REQUEST_LINES: &[Row] = &[
    ("P-22", b"G=\":<>(e),[T];?\" /a HTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-22b", b" GET /a HTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-22c", b"G\x01T /a HTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-23", b"GET /a HTTP/1.2\r\n{P}\r\n", &[400, 505]),
    ("P-23b", b"GET /a HTTP/2.0\r\n{P}\r\n", &[400, 505]),
    ("P-23c", b"GET /a HTTP/0.9\r\n{P}\r\n", &[400, 505]),
    ("P-23d", b"GET /a http/1.1\r\n{P}\r\n", &[400, 505]),
    ("P-23e", b"GET /a\r\n{P}\r\n", &[400, 505]),
    ("P-23f", b"GET  /a HTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-23g", b"GET /a  HTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-23h", b"GET\t/a\tHTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-23i", b"GET /a HTTP/1.1 \r\n{P}\r\n", &[400]),
    ("P-23j", b"GET /a HTTP/1.1x\r\n{P}\r\n", &[400, 505]),
    ("P-23k", b"GET /a b HTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-23l", b"GET HTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-42", b"GET * HTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-42b", b"GET admin HTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-42c", b"GET app.test:80 HTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-42d", b"GET ?x=1 HTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-42e", b"GET /a#b HTTP/1.1\r\n{P}\r\n", &[400]),
    ("P-42f", b"GET /a\x7f HTTP/1.1\r\n{P}\r\n", &[400]),
    (
        "P-41",
        b"GET http://evil.test/admin HTTP/1.1\r\n{P}\r\n",
        &[400],
    ),
    (
        "P-41b",
        b"GET http://app.test@evil.test/admin HTTP/1.1\r\n{P}\r\n",
        &[400],
    ),
    (
        "P-41c",
        b"GET http://user:pass@app.test/admin HTTP/1.1\r\n{P}\r\n",
        &[400],
    ),
    (
        "P-41d",
        b"GET http://app.test:8081/admin HTTP/1.1\r\n{P}\r\n",
        &[400],
    ),
    ("P-41e", b"GET http:///admin HTTP/1.1\r\n{P}\r\n", &[400]),
    (
        "P-41f",
        b"GET gopher://app.test/a HTTP/1.1\r\n{P}\r\n",
        &[400],
    ),
];

#[test]
fn a_request_line_without_one_meaning_is_refused() {
    all_refused(REQUEST_LINES);
}

#[test]
fn p41_an_absolute_target_that_agrees_with_host_has_the_meaning_of_its_path() {
    let rig = Rig::new();
    let sent = format!("GET http://app.test/admin?x=1 HTTP/1.1\r\n{P}\r\n");
    let mark = rig.origin.mark();
    let response = rig.wardent.ask(&sent);
    if response.status == 200 {
        let seen = rig.origin.only_request();
        assert_eq!(seen.head.target, "/admin?x=1");
        assert_eq!(seen.header("host"), Some("app.test"));
    } else {
        rig::assert_refusal("P-41g", &response, &[400], "bad_request");
        rig.assert_nothing_passed("P-41g", &mark);
    }
    rig.assert_invariants("P-41g", sent.as_bytes(), &mark);
}

#[test]
fn p42_options_asterisk_is_passed_as_it_is_or_refused() {
    let rig = Rig::new();
    let sent = format!("OPTIONS * HTTP/1.1\r\n{P}\r\n");
    let mark = rig.origin.mark();
    let response = rig.wardent.ask(&sent);
    if response.status == 200 {
        assert_eq!(rig.origin.only_request().head.target, "*");
    } else {
        rig::assert_refusal("P-42g", &response, &[400], "bad_request");
        rig.assert_nothing_passed("P-42g", &mark);
    }
}

const HOSTS: &[Row] = &[
    ("P-39", b"GET /a HTTP/1.1\r\nX-A: 1\r\n\r\n", &[400]),
    ("P-39b", b"GET /a HTTP/1.1\r\n{P-nohost}\r\n", &[400]),
    (
        "P-40",
        b"GET /a HTTP/1.1\r\n{P}Host: app.test\r\n\r\n",
        &[400],
    ),
    (
        "P-40b",
        b"GET /a HTTP/1.1\r\n{P}Host: evil.test\r\n\r\n",
        &[400],
    ),
    (
        "P-40c",
        b"GET /a HTTP/1.1\r\n{P-nohost}Host: app.test, evil.test\r\n\r\n",
        &[400],
    ),
    (
        "P-40d",
        b"GET /a HTTP/1.1\r\n{P-nohost}Host: app.test/evil\r\n\r\n",
        &[400],
    ),
    (
        "P-40e",
        b"GET /a HTTP/1.1\r\n{P-nohost}Host: user@app.test\r\n\r\n",
        &[400],
    ),
    (
        "P-40f",
        b"GET /a HTTP/1.1\r\n{P-nohost}Host: app.test evil.test\r\n\r\n",
        &[400],
    ),
    (
        "P-40g",
        b"GET /a HTTP/1.1\r\n{P-nohost}Host: app.test\x00\r\n\r\n",
        &[400],
    ),
    (
        "P-40h",
        b"GET /a HTTP/1.0\r\n{P}Host: evil.test\r\n\r\n",
        &[400],
    ),
];

#[test]
fn a_request_has_exactly_one_host() {
    all_refused(HOSTS);
}

/// A refusal of a body that is broken on the way: 400, and an upstream request that never ends well.
fn broken_on_the_way(rig: &Rig, id: &str, body: &[u8], statuses: &[u16]) {
    let head = format!("POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\n\r\n");
    let sent = [head.as_bytes(), body].concat();
    let mark = rig.origin.mark();
    let mut client = rig.wardent.client();
    client.send_anyway(&sent);
    let response = client
        .try_response("POST")
        .unwrap_or_else(|error| panic!("{id}: no answer: {error}"));
    let reason = match response.status {
        413 => "body_too_large",
        _ => "bad_request",
    };
    rig::assert_refusal(id, &response, statuses, reason);
    client.assert_closed(id);
    assert_aborted(rig, id, &mark);
    rig.assert_invariants(id, &sent, &mark);
}

/// Whatever reached the origin since the mark was cut off before its end, connection and all.
fn assert_aborted(rig: &Rig, id: &str, mark: &Mark) {
    for request in rig.origin.requests_since(mark) {
        rig.origin.wait_ending(request.connection);
    }
    for request in rig.origin.requests_since(mark) {
        assert!(!request.complete, "{id}: ended well: {request:?}");
    }
}

const CHUNKS: &[Row] = &[
    ("P-24", b"0x5\r\nhello\r\n0\r\n\r\n", &[400]),
    ("P-24b", b"+5\r\nhello\r\n0\r\n\r\n", &[400]),
    ("P-24c", b"-5\r\nhello\r\n0\r\n\r\n", &[400]),
    ("P-24d", b"5_0\r\nhello\r\n0\r\n\r\n", &[400]),
    ("P-24e", b" 5\r\nhello\r\n0\r\n\r\n", &[400]),
    ("P-24f", b"g\r\nhello\r\n0\r\n\r\n", &[400]),
    ("P-24g", b"\r\nhello\r\n0\r\n\r\n", &[400]),
    ("P-24h", b";x\r\nhello\r\n0\r\n\r\n", &[400]),
    (
        "P-25",
        b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        &[400, 413],
    ),
    (
        "P-25b",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        &[400, 413],
    ),
    ("P-26", b"5\r\nhelloX\r\n0\r\n\r\n", &[400]),
    ("P-26b", b"5\r\nhello0\r\n\r\n", &[400]),
    ("P-26c", b"5\r\nhello\n0\r\n\r\n", &[400]),
    ("P-26d", b"5\nhello\r\n0\r\n\r\n", &[400]),
    ("P-26e", b"5\rhello\r\n0\r\n\r\n", &[400]),
    ("P-29", b"5;a\nb\r\nhello\r\n0\r\n\r\n", &[400]),
    ("P-30", b"0\n\r\n", &[400]),
    ("P-30b", b"5\r\nhello\r\n0\n\r\n", &[400]),
    ("P-30c", b"5\r\nhello\r\n0\r\n\n", &[400]),
    ("P-34c", b"0\r\nX-A\r\n\r\n", &[400]),
    ("P-34d", b"0\r\nX-A : 1\r\n\r\n", &[400]),
    ("P-34e", b"0\r\n X-A: 1\r\n\r\n", &[400]),
];

#[test]
fn a_chunk_that_is_none_aborts_the_upstream_request() {
    let rig = Rig::new();
    for (id, body, statuses) in CHUNKS {
        broken_on_the_way(&rig, id, body, statuses);
    }
}

#[test]
fn p28_a_flood_of_chunk_extension_is_cut() {
    let rig = Rig::new();
    let body = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000));
    broken_on_the_way(&rig, "P-28", body.as_bytes(), &[400, 413]);
}

#[test]
fn p28_a_chunk_extension_is_never_forwarded() {
    let rig = Rig::new();
    let sent = format!(
        "POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\n\r\n5;sneaky=\"extension\"\r\nhello\r\n0;sneaky\r\n\r\n"
    );
    let (seen, _) = rig.passed("P-28b", sent.as_bytes());
    assert_eq!(seen.body, b"hello");
    let wire = message::latin1(&rig.origin.wire(seen.connection));
    assert!(!wire.contains("sneaky"), "{wire:?}");
}

#[test]
fn p34_a_flood_of_trailers_is_cut() {
    let rig = Rig::new();
    let flood = format!("0\r\n{}\r\n", "X: y\r\n".repeat(5000));
    broken_on_the_way(&rig, "P-34", flood.as_bytes(), &[400, 413, 431]);
    let long = format!("0\r\nX-A: {}\r\n\r\n", "a".repeat(70_000));
    broken_on_the_way(&rig, "P-34b", long.as_bytes(), &[400, 413, 431]);
}

#[test]
fn p34_trailers_cannot_say_what_only_headers_may() {
    let rig = Rig::new();
    let sent = format!(
        "POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\nHost: evil.test\r\nX-Wardent-Secret: stolen\r\nCF-Connecting-IP: 203.0.113.9\r\nX-Forwarded-For: 203.0.113.9\r\nX_Real_IP: 203.0.113.9\r\n\r\n"
    );
    let mark = rig.origin.mark();
    let response = rig.wardent.ask(&sent);
    assert!(matches!(response.status, 200 | 400), "{response:?}");
    if response.status == 400 {
        assert_aborted(&rig, "P-34f", &mark);
    }
    rig.assert_invariants("P-34f", sent.as_bytes(), &mark);
}

#[test]
fn p27_endless_blanks_after_a_chunk_size_are_cut() {
    let rig = Rig::with(|setup| {
        setup
            .policy(support::wardent::open_policy(&["body: 64KiB"], ""))
            .upstream("idle_timeout: 1s")
    });
    let mark = rig.origin.mark();
    let mut client = rig.wardent.client();
    client.send(format!(
        "POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\n\r\n5"
    ));
    let blanks = vec![b' '; 64 * 1024];
    let begun = time::now();
    // 16 MiB of nothing, or until Wardent has had enough.
    let swallowed = (0..256).all(|_| client.send_anyway(&blanks));
    if swallowed {
        client.send_anyway("\r\nhello\r\n0\r\n\r\n");
    }
    if let Ok(response) = client.try_response("POST") {
        assert!(
            matches!(response.status, 400 | 408 | 413),
            "P-27: {response:?}"
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "P-27: slow");
    assert_aborted(&rig, "P-27", &mark);
    rig::assert_alive("P-27", &rig.wardent);
}

#[test]
fn a_body_cut_short_never_ends_well_upstream() {
    let rig = Rig::new();
    let rows: &[(&str, &str)] = &[
        ("P-32", "Content-Length: 10\r\n\r\nhello"),
        ("P-31", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("P-31b", "Transfer-Encoding: chunked\r\n\r\n5\r\nhel"),
        (
            "P-31c",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        ),
        (
            "P-31d",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: 1\r\n",
        ),
        ("P-31e", "Transfer-Encoding: chunked\r\n\r\n"),
    ];
    for (id, rest) in rows {
        for resets in [false, true] {
            let mark = rig.origin.mark();
            let mut client = rig.wardent.client();
            client.send(format!("POST /a HTTP/1.1\r\n{P}{rest}"));
            if resets {
                // What was sent must have come through before the reset overtakes it.
                time::eventually("the head at the origin", || {
                    !rig.origin.requests_since(&mark).is_empty()
                });
                client.reset();
            } else {
                client.half_close();
                if let Ok(response) = client.try_response("POST") {
                    rig::assert_refusal(id, &response, &[400, 408], "bad_request");
                }
            }
            assert_aborted(&rig, id, &mark);
            rig::assert_alive(id, &rig.wardent);
        }
    }
}

#[test]
fn a_body_of_any_method_stays_a_body() {
    let rig = Rig::new();
    let rows = [
        ("P-35", "GET"),
        ("P-36", "HEAD"),
        ("P-36b", "DELETE"),
        ("P-36c", "OPTIONS"),
        ("P-36d", "POST"),
    ];
    for (id, method) in rows {
        let sent = format!(
            "{method} /a HTTP/1.1\r\n{P}Content-Length: {}\r\n\r\n{SMUGGLED}",
            SMUGGLED.len()
        );
        let mark = rig.origin.mark();
        let mut client = rig.wardent.client();
        client.send(&sent);
        let response = client.response(method);
        if response.status == 200 {
            let seen = rig.origin.requests_since(&mark);
            assert_eq!(seen.len(), 1, "{id}: {seen:?}");
            assert_eq!(seen[0].body, SMUGGLED.as_bytes(), "{id}");
            assert!(client.stays_quiet(Duration::from_millis(20)), "{id}");
        } else {
            rig::assert_refusal(id, &response, &[400], "bad_request");
            rig.assert_nothing_passed(id, &mark);
        }
        rig.assert_invariants(id, sent.as_bytes(), &mark);
    }
}

#[test]
fn p37_pipelined_requests_are_answered_in_their_order() {
    let rig = Rig::new();
    let mut client = rig.wardent.client();
    let sent: String = ["1", "2", "3"]
        .map(|nonce| get_nonce(&format!("/{nonce}"), nonce))
        .concat();
    client.send(&sent);
    for nonce in ["1", "2", "3"] {
        assert_eq!(client.response("GET").nonce(), nonce);
    }
    let seen = rig.origin.wait_for(3);
    assert_eq!(seen.len(), 3);
    for request in &seen {
        rig::assert_clean("P-37", request, support::CLIENT);
    }
}

#[test]
fn p38_what_follows_a_bad_request_is_never_read_as_one() {
    let rig = Rig::new();
    let mut client = rig.wardent.client();
    client.send(format!(
        "{}GET /2 HTTP/1.1\r\n{P}Content-Length: x\r\n\r\n{}",
        get_nonce("/1", "one"),
        get_nonce("/3", "three")
    ));
    assert_eq!(client.response("GET").nonce(), "one");
    let refusal = client.response("GET");
    rig::assert_refusal("P-38", &refusal, &[400], "bad_request");
    client.assert_closed("P-38");
    let seen = rig.origin.only_request();
    assert_eq!(seen.head.target, "/1");
}

#[test]
fn p43_connect_opens_no_tunnel() {
    let rig = Rig::new();
    for (id, target) in [
        ("P-43", "app.test:443"),
        ("P-43b", "/a"),
        ("P-43c", "http://app.test/"),
    ] {
        let sent = format!("CONNECT {target} HTTP/1.1\r\n{P}\r\n{SMUGGLED}");
        rig.refused(id, sent.as_bytes(), &[400, 405], "bad_request");
    }
}

#[test]
fn p44_trace_echoes_nothing() {
    let rig = Rig::new();
    let response = rig.refused_politely(
        "P-44",
        b"TRACE /a HTTP/1.1\r\n{P}Cookie: s=1\r\n\r\n",
        &[405],
        "bad_request",
    );
    let head = message::latin1(&response.head.raw);
    assert!(!head.contains("s=1"), "{head:?}");
}

#[test]
fn p46_bytes_after_an_upgrade_request_wait_for_the_answer() {
    let rig = Rig::new();
    let upgrade = format!(
        "GET /a HTTP/1.1\r\n{P}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Nonce: first\r\n\r\n"
    );
    let mut client = rig.wardent.client();
    client.send(format!("{upgrade}{SMUGGLED}"));
    assert_eq!(client.response("GET").nonce(), "first");
    // The bytes behind it were a request of their own, without secret or identity.
    if let Ok(second) = client.try_response("GET") {
        rig::assert_refusal("P-46", &second, &[403], "bad_secret");
    }
    let seen = rig.origin.only_request();
    assert_eq!(seen.head.target, "/a");

    let mut client = rig.wardent.client();
    client.send(format!("{upgrade}{}", get_nonce("/second", "second")));
    assert_eq!(client.response("GET").nonce(), "first");
    if let Ok(second) = client.try_response("GET") {
        assert_eq!(second.nonce(), "second", "P-46b");
    }
    assert_eq!(rig.origin.fault(), None);
}

#[test]
fn p48_the_http2_preface_is_not_http1() {
    let rig = Rig::new();
    let sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let mark = rig.origin.mark();
    let mut client = rig.wardent.client();
    client.send(sent);
    // hyper closes without a word here; an answer must be a refusal.
    if let Ok(response) = client.try_response("PRI") {
        rig::assert_refusal("P-48", &response, &[400, 505], "bad_request");
    }
    client.assert_closed("P-48");
    rig.assert_nothing_passed("P-48", &mark);
    rig::assert_alive("P-48", &rig.wardent);
}

#[test]
fn p49_garbage_is_turned_away_at_once() {
    let rig = Rig::new();
    let hello = [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        &noise(508),
    ]
    .concat();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("P-49", hello),
        ("P-49b", [&b"\x00\xff\xfe"[..], &noise(997)].concat()),
        ("P-49c", b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00".to_vec()),
        ("P-49d", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("P-49e", b"\r\n\r\n\x00\x01\x02".to_vec()),
    ];
    for (id, sent) in rows {
        let begun = time::now();
        let mark = rig.origin.mark();
        let mut client = rig.wardent.client();
        client.send(&sent);
        if let Ok(response) = client.try_response("GET") {
            rig::assert_refusal(id, &response, &[400, 505], "bad_request");
        }
        client.assert_closed(id);
        assert!(begun.elapsed() < Duration::from_secs(2), "{id}: slow");
        rig.assert_nothing_passed(id, &mark);
        rig::assert_alive(id, &rig.wardent);
    }
}

#[test]
fn a_head_too_large_is_refused_by_its_name() {
    let rig = Rig::new();
    let many: String = (0..101).map(|n| format!("X-{n}: 1\r\n")).collect();
    let rows = [
        (
            "P-50",
            format!("GET /a HTTP/1.1\r\n{P}{many}\r\n"),
            &[431][..],
        ),
        (
            "P-51",
            format!("GET /a HTTP/1.1\r\n{P}X-A: {}\r\n\r\n", "a".repeat(70_000)),
            &[431],
        ),
        (
            "P-51b",
            format!("GET /a HTTP/1.1\r\n{P}{}: 1\r\n\r\n", "a".repeat(70_000)),
            &[400, 431],
        ),
        (
            "P-52",
            format!("GET /{} HTTP/1.1\r\n{P}\r\n", "a".repeat(65_534)),
            &[414, 431],
        ),
        (
            "P-52b",
            format!("{} /a HTTP/1.1\r\n{P}\r\n", "A".repeat(70_000)),
            &[400, 414, 431, 501],
        ),
    ];
    for (id, sent, statuses) in rows {
        rig.refused(id, sent.as_bytes(), statuses, "bad_request");
    }
}

#[test]
fn a_large_head_within_reason_passes() {
    let rig = Rig::new();
    let many: String = (0..80).map(|n| format!("X-{n}: 1\r\n")).collect();
    rig.passed(
        "P-50b",
        format!("GET /a HTTP/1.1\r\n{P}{many}\r\n").as_bytes(),
    );
    let cookie = "a".repeat(12_000);
    let (seen, _) = rig.passed(
        "P-51c",
        format!("GET /a HTTP/1.1\r\n{P}Cookie: {cookie}\r\n\r\n").as_bytes(),
    );
    assert_eq!(seen.header("cookie"), Some(cookie.as_str()));
    let target = format!("/{}", "a".repeat(7_999));
    let (seen, _) = rig.passed(
        "P-52c",
        format!("GET {target} HTTP/1.1\r\n{P}\r\n").as_bytes(),
    );
    assert_eq!(seen.head.target, target);
}

#[test]
fn p53_a_few_empty_lines_before_a_request_are_forgiven() {
    let rig = Rig::new();
    rig.passed(
        "P-53",
        format!("\r\n\r\nGET /a HTTP/1.1\r\n{P}\r\n").as_bytes(),
    );
}

#[test]
fn p53_empty_lines_without_end_are_not() {
    let rig = Rig::new();
    let mark = rig.origin.mark();
    let mut client = rig.wardent.client();
    client.send_anyway("\r\n".repeat(50_000));
    client.send_anyway(format!("GET /a HTTP/1.1\r\n{P}\r\n"));
    if let Ok(response) = client.try_response("GET") {
        rig::assert_refusal("P-53b", &response, &[400, 431], "bad_request");
    }
    client.assert_closed("P-53b");
    rig.assert_nothing_passed("P-53b", &mark);
    rig::assert_alive("P-53b", &rig.wardent);
}

/// Sends an expectation, waits for the word, sends the body.
fn expect_continue(rig: &Rig, id: &str) -> (message::Response, Vec<message::ResponseHead>) {
    let mut client = rig.wardent.client();
    client.send(format!(
        "POST /a HTTP/1.1\r\n{P}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    ));
    let go_on = client.response_head();
    assert_eq!(go_on.status, 100, "{id}");
    assert!(go_on.fields.0.is_empty(), "{id}: {go_on:?}");
    client.send("hello");
    let response = client.response("POST");
    (response, vec![go_on])
}

#[test]
fn p54_an_expectation_is_met_before_the_body() {
    let rig = Rig::new();
    let (response, _) = expect_continue(&rig, "P-54");
    assert_eq!(response.status, 200);
    assert!(response.informational.is_empty(), "P-54: a second 100");
    assert_eq!(rig.origin.only_request().body, b"hello");
}

#[test]
fn p54_an_http10_client_gets_no_100() {
    let rig = Rig::new();
    let mut client = rig.wardent.client();
    client.send(format!(
        "POST /a HTTP/1.0\r\n{P}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
    ));
    let response = client.response("POST");
    assert_eq!(response.status, 200);
    assert!(response.informational.is_empty(), "P-54b");
}

#[test]
fn p55_an_unknown_expectation_is_refused_or_passed() {
    let rig = Rig::new();
    let sent = format!("GET /a HTTP/1.1\r\n{P}Expect: the-moon\r\n\r\n");
    let response = rig.wardent.ask(&sent);
    assert!(matches!(response.status, 200 | 400 | 417), "{response:?}");
    rig::assert_alive("P-55", &rig.wardent);
}

#[test]
fn p56_a_client_that_does_not_wait_for_100_is_served() {
    let rig = Rig::new();
    let (seen, _) = rig.passed(
        "P-56",
        b"POST /a HTTP/1.1\r\n{P}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    );
    assert_eq!(seen.body, b"hello");
}

#[test]
fn p57_a_compressed_body_is_never_opened() {
    let rig = Rig::new();
    let bomb = noise(10_240);
    let head = format!(
        "POST /a HTTP/1.1\r\n{P}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        bomb.len()
    );
    let (seen, _) = rig.passed("P-57", &[head.as_bytes(), &bomb].concat());
    assert_eq!(seen.body, bomb);
    assert_eq!(seen.header("content-encoding"), Some("gzip"));
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let rig = Rig::new();
    let mut client = rig.wardent.client();
    for byte in get_nonce("/slow", "bytewise").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response("GET").nonce(), "bytewise");
}

#[test]
fn an_unfinished_head_at_the_end_of_a_connection_is_no_request() {
    let rig = Rig::new();
    let whole = format!("GET /a HTTP/1.1\r\n{P}\r\n");
    for len in [1, 3, 5, 10, 17, whole.len() - 1] {
        let id = format!("P-59 after {len} bytes");
        let mark = rig.origin.mark();
        let mut client = rig.wardent.client();
        client.send(&whole[..len]);
        client.half_close();
        if let Ok(response) = client.try_response("GET") {
            rig::assert_refusal(&id, &response, &[400, 408], "bad_request");
        }
        client.assert_closed(&id);
        rig.assert_nothing_passed(&id, &mark);
    }
    rig::assert_alive("P-59", &rig.wardent);
}

#[test]
fn refusals_are_the_same_through_a_unix_socket() {
    let rig = Rig::with(support::wardent::Setup::unix_listener);
    for (id, template, statuses) in TWO_FRAMINGS {
        rig.refused(id, template, statuses, "bad_request");
    }
    let mut client = RawClient::connect(rig.wardent.address());
    let response = client.ask(format!("GET /a HTTP/1.1\r\n{P_NOHOST}\r\n"));
    rig::assert_refusal("P-39c", &response, &[400], "bad_request");
}
