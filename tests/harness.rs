//! The stage itself: a strict parser that is strict, an origin and a client that tell the truth.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{io, time::Duration};

use support::{
    P, chunked,
    client::RawClient,
    expand, get_nonce,
    message::{self, Framing, Wire},
    noise,
    origin::{self, Origin},
    post,
    stream::Ending,
    time::Gate,
    wardent::work_dir,
};

#[test]
fn the_strict_parser_finds_what_is_there_and_no_more() {
    let rows: &[(&str, &[u8], usize, bool)] = &[
        ("one", b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", 1, false),
        ("two", b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", 2, false),
        ("body", b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 1, false),
        ("chunks", b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nX: y\r\n\r\n", 1, false),
        ("no host", b"GET /a HTTP/1.1\r\n\r\n", 0, true),
        ("two hosts", b"GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 0, true),
        ("bare LF", b"GET /a HTTP/1.1\nHost: a\n\n", 0, true),
        ("fold", b"GET /a HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 0, true),
        ("both", b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1, true),
        ("chunk size", b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n", 1, true),
        ("unfinished", b"GET /a HTTP/1.1\r\nHost: a\r\n", 0, false),
    ];
    for (id, bytes, count, faulty) in rows {
        let found = message::requests_in(bytes);
        assert_eq!(found.requests.len(), *count, "{id}: {found:?}");
        assert_eq!(found.fault.is_some(), *faulty, "{id}: {found:?}");
    }
}

/// A name, a response, the method it answers, and what a strict parser makes of it.
type Row = (
    &'static str,
    &'static [u8],
    &'static str,
    Framing,
    &'static [u8],
);

#[test]
fn the_strict_parser_knows_where_a_response_ends() {
    let rows: &[Row] = &[
        ("length", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP", "GET", Framing::Length(2), b"ok"),
        ("head", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HEAD", Framing::None, b""),
        ("204", b"HTTP/1.1 204 No Content\r\n\r\n", "GET", Framing::None, b""),
        ("close", b"HTTP/1.0 200 OK\r\n\r\nabc", "GET", Framing::UntilClose, b"abc"),
        ("after 103", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "GET", Framing::Chunked, b"x"),
    ];
    for (id, bytes, method, framing, body) in rows {
        let response = Wire::new(*bytes).response(method).unwrap();
        assert_eq!(response.framing, *framing, "{id}");
        assert_eq!(response.body, *body, "{id}");
    }
    let cut = Wire::new(&b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"[..]).response("GET");
    assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn the_origin_echoes_and_records() {
    let origin = Origin::echo();
    let mut client = RawClient::connect(origin.address());
    let response = client.ask(get_nonce("/a", "n1"));
    assert_eq!((response.status, response.nonce()), (200, "n1"));
    let body = noise(70_000);
    let head = format!("PUT /b HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\n\r\n");
    client.ask([head.as_bytes(), &chunked(&body, &[1, 7, 8192])].concat());
    client.ask(post("/c", &body));
    let requests = origin.wait_for(3);
    assert_eq!(requests[1].body, body);
    assert_eq!(requests[2].body, body);
    assert_eq!(origin.connections(), 1);
    client.half_close();
    client.assert_closed("the end");
    assert_eq!(origin.wait_ending(0), Ending::Fin);
}

#[test]
fn the_origin_serves_a_unix_socket() {
    let dir = work_dir();
    let origin = Origin::unix(&dir.path().join("o.sock"), |conn| conn.serve(&origin::echo));
    let mut client = RawClient::connect(origin.address());
    assert_eq!(client.ask(get_nonce("/a", "n1")).nonce(), "n1");
}

#[test]
fn scripts_wait_at_gates_and_resets_are_seen() {
    let gate = std::sync::Arc::new(Gate::default());
    let door = std::sync::Arc::clone(&gate);
    let origin = Origin::scripted(move |conn| {
        conn.head()?;
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
        door.wait();
        conn.reset()
    });
    let mut client = RawClient::connect(origin.address());
    client.send(expand(b"GET /a HTTP/1.1\r\n{P}\r\n"));
    assert_eq!(client.response_head().status, 200);
    assert_eq!(client.exact(5), b"hello");
    assert!(client.stays_quiet(Duration::from_millis(20)));
    gate.open();
    assert_eq!(client.ending(), (Vec::new(), Some(Ending::Reset)));
    let client = RawClient::connect(origin.address());
    origin.wait_connections(2);
    client.reset();
    assert_eq!(origin.wait_ending(1), Ending::Reset);
}
