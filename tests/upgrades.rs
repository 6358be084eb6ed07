//! Group W: a tunnel opens only when both sides asked for it, carries every byte, and ends; and a
//! stream of events is never held back.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    io::{self, Write},
    sync::Arc,
    thread,
    time::Duration,
};

use support::{
    P, P_NOSECRET,
    client::RawClient,
    get_nonce,
    message::{self, RequestHead},
    noise,
    origin::{self, Conn, Origin},
    random::Random,
    rig,
    stream::Ending,
    time::{self, Gate},
    wardent::Wardent,
};

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat\r\n";

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

fn opening() -> String {
    format!("GET /ws HTTP/1.1\r\n{P}{HANDSHAKE}\r\n")
}

/// Whether an application would open a websocket for this head.
fn asks(head: &RequestHead) -> bool {
    head.version == "HTTP/1.1"
        && head.fields.lists("connection", "upgrade")
        && head.fields.lists("upgrade", "websocket")
        && head.fields.has("sec-websocket-key")
        && head.fields.one("sec-websocket-version") == Some("13")
}

/// Opens a websocket for whoever asks well, and answers everybody else as usual.
fn websocket(
    then: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
) -> impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static {
    move |conn| {
        loop {
            let request = conn.request()?;
            if asks(&request.head) {
                conn.write(SWITCHING)?;
                return then(conn);
            }
            conn.write(origin::echo(&request))?;
        }
    }
}

/// Sends back what comes, until there is no more.
fn echo_bytes(conn: &mut Conn) -> io::Result<()> {
    loop {
        let bytes = conn.some()?;
        conn.write(bytes)?;
    }
}

fn open(wardent: &Wardent) -> RawClient {
    let mut client = wardent.client();
    client.send(opening());
    let head = client.response_head();
    assert_eq!(head.status, 101, "{head:?}");
    client
}

#[test]
fn w01_ten_thousand_messages_come_back() {
    let origin = Origin::scripted(websocket(echo_bytes));
    let wardent = Wardent::before(&origin);
    let mut client = open(&wardent);
    // One at a time, then many at once.
    for turn in 0..1000_u32 {
        let message = turn.to_be_bytes();
        client.send(message);
        assert_eq!(client.exact(4), message);
    }
    let mut random = Random::seeded(1);
    let all: Vec<u8> = (0..9000)
        .flat_map(|_| noise(1 + random.below(200)))
        .collect();
    let mut writer = client.writer();
    let sent = all.clone();
    let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
    assert!(client.exact(all.len()) == all, "bytes were altered");
    writing.join().unwrap();
}

#[test]
fn w01_the_handshake_passes_both_ways() {
    let origin = Origin::scripted(websocket(echo_bytes));
    let wardent = Wardent::before(&origin);
    let mut client = wardent.client();
    client.send(opening());
    let head = client.response_head();
    assert_eq!(head.status, 101);
    assert!(head.fields.lists("connection", "upgrade"), "{head:?}");
    assert_eq!(head.fields.one("upgrade"), Some("websocket"));
    assert_eq!(
        head.fields.one("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(head.fields.one("sec-websocket-protocol"), Some("chat"));
    assert!(!head.fields.has("content-length") && !head.fields.has("transfer-encoding"));
    let seen = &origin.wait_for_heads(1)[0];
    assert!(asks(&seen.head), "{:?}", seen.head);
    assert_eq!(seen.header("sec-websocket-protocol"), Some("chat"));
    rig::assert_clean("W-01", seen, support::CLIENT);
}

#[test]
fn w02_bytes_beside_the_handshake_are_not_lost() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        // The first frame in one piece with the head, the next at once.
        conn.write(format!("{SWITCHING}first"))?;
        conn.write("second")?;
        echo_bytes(conn)
    });
    let wardent = Wardent::before(&origin);
    let mut client = open(&wardent);
    assert_eq!(client.exact(11), b"firstsecond");
    client.send("third");
    assert_eq!(client.exact(5), b"third");
}

#[test]
fn w02_a_client_that_does_not_wait_for_101_loses_nothing_or_everything() {
    let origin = Origin::scripted(websocket(echo_bytes));
    let wardent = Wardent::before(&origin);
    let mut client = wardent.client();
    client.send(format!("{}hello", opening()));
    let head = client.response_head();
    if head.status != 101 {
        assert_eq!(head.status, 400);
        return;
    }
    client.half_close();
    let (bytes, _) = client.ending();
    assert!(
        bytes.is_empty() || bytes == b"hello",
        "{:?}",
        message::latin1(&bytes)
    );
}

#[test]
fn w03_a_bad_handshake_opens_nothing() {
    let rows = [
        (
            "W-03 no key",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "1.1",
        ),
        (
            "W-03 version 12",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "1.1",
        ),
        (
            "W-03 not in Connection",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "1.1",
        ),
        (
            "W-03 Connection alone",
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "1.1",
        ),
        ("W-03 HTTP/1.0", HANDSHAKE, "1.0"),
    ];
    for (id, lines, version) in rows {
        let origin = Origin::scripted(websocket(echo_bytes));
        let wardent = Wardent::before(&origin);
        let mut client = wardent.client();
        client.send(format!("GET /ws HTTP/{version}\r\n{P}{lines}\r\n"));
        let response = client.response("GET");
        assert!(matches!(response.status, 200 | 400), "{id}: {response:?}");
        for seen in origin.requests() {
            assert!(!asks(&seen.head), "{id}: {:?}", seen.head);
        }
        if id.ends_with("Connection") || version == "1.0" {
            for seen in origin.requests() {
                assert!(!seen.head.fields.has("upgrade"), "{id}: passed on");
            }
        }
        rig::assert_alive(id, &wardent);
    }
}

#[test]
fn w03_an_application_cannot_open_a_tunnel_nobody_asked_for() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.write(format!("{SWITCHING}GET /smuggled HTTP/1.1\r\n\r\n"))?;
        conn.wait_for_close()
    });
    let wardent = Wardent::before(&origin);
    for version in ["1.1", "1.0"] {
        let response = wardent.ask(format!("GET /a HTTP/{version}\r\n{P}\r\n"));
        rig::assert_refusal("W-03b", &response, &[502], "upstream_broken");
    }
}

#[test]
fn w04_a_refused_upgrade_is_an_ordinary_answer() {
    let origin = Origin::answering(|request| {
        if request.head.target == "/ws" {
            return origin::answer("403 Forbidden", "X-Nonce: no\r\n", b"not you");
        }
        origin::echo(request)
    });
    let wardent = Wardent::before(&origin);
    let mut client = wardent.client();
    let response = client.ask(opening());
    assert_eq!((response.status, response.nonce()), (403, "no"));
    assert_eq!(response.body, b"not you");
    let response = client.ask(get_nonce("/next", "next"));
    assert_eq!((response.status, response.nonce()), (200, "next"));
}

#[test]
fn w04_an_upgrade_needs_what_every_request_needs() {
    let origin = Origin::scripted(websocket(echo_bytes));
    let wardent = Wardent::before(&origin);
    let sent = format!("GET /ws HTTP/1.1\r\n{P_NOSECRET}{HANDSHAKE}\r\n");
    let response = wardent.ask(sent);
    rig::assert_refusal("W-04", &response, &[403], "bad_secret");
    assert_eq!(origin.bytes(), 0);
}

#[test]
fn w06_a_half_closed_tunnel_still_delivers() {
    let large = noise(1024 * 1024);
    let answer = large.clone();
    let origin = Origin::scripted(websocket(move |conn| {
        while conn.some().is_ok() {}
        conn.write(&answer)
    }));
    let wardent = Wardent::before(&origin);
    let mut client = open(&wardent);
    client.send("last words");
    client.half_close();
    let begun = time::now();
    let (bytes, ending) = client.ending();
    assert!(bytes == large, "W-06: {} bytes came", bytes.len());
    assert_eq!(ending, Some(Ending::Fin));
    assert!(begun.elapsed() < Duration::from_secs(5), "W-06: slow");
    assert_eq!(origin.wait_ending(0), Ending::Fin);
}

#[test]
fn w06_a_tunnel_half_closed_by_the_application_still_delivers() {
    let large = noise(1024 * 1024);
    let expected = large.clone();
    let origin = Origin::scripted(websocket(move |conn| {
        conn.write("bye")?;
        conn.half_close()?;
        let got = conn.exact(expected.len())?;
        assert!(got == expected);
        conn.wait_for_close()
    }));
    let wardent = Wardent::before(&origin);
    let mut client = open(&wardent);
    assert_eq!(client.exact(3), b"bye");
    client.send(&large);
    client.half_close();
    client.assert_closed("W-06b");
    origin.wait_ending(0);
    assert!(origin.wire(0).ends_with(&large), "W-06b: bytes were lost");
}

#[test]
fn w06_a_reset_ends_both_sides() {
    let gate = Arc::new(Gate::default());
    let door = Arc::clone(&gate);
    let origin = Origin::scripted(websocket(move |conn| {
        door.wait();
        conn.reset()
    }));
    let wardent = Wardent::before(&origin);
    let mut client = open(&wardent);
    gate.open();
    let begun = time::now();
    client.assert_closed("W-06c");
    assert!(begun.elapsed() < Duration::from_secs(5), "W-06c: slow");

    let origin = Origin::scripted(websocket(Conn::wait_for_close));
    let wardent = Wardent::before(&origin);
    open(&wardent).reset();
    let begun = time::now();
    origin.wait_ending(0);
    assert!(begun.elapsed() < Duration::from_secs(5), "W-06d: slow");
}

#[test]
fn w06_a_tunnel_holds_back_who_sends_too_much() {
    let origin = Origin::scripted(websocket(|conn| {
        let piece = noise(64 * 1024);
        for _ in 0..256 {
            conn.write(&piece)?;
        }
        Ok(())
    }));
    let wardent = Wardent::before(&origin);
    let mut client = wardent.client();
    client.receive_little();
    client.send(opening());
    assert_eq!(client.response_head().status, 101);
    // Nothing is read for a while, then everything, and nothing is missing.
    time::pass(Duration::from_millis(300));
    let (bytes, _) = client.ending();
    assert_eq!(bytes.len(), 256 * 64 * 1024);
}

#[test]
fn w08_a_silent_tunnel_ends_at_its_deadline() {
    let origin = Origin::scripted(websocket(Conn::wait_for_close));
    let wardent = Wardent::setup(&origin)
        .upstream("tunnel_idle: 300ms")
        .start();
    let mut client = open(&wardent);
    let begun = time::now();
    client.assert_closed("W-08");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(250), "W-08: after {took:?}");
    assert!(took < Duration::from_secs(5), "W-08: after {took:?}");
    origin.wait_ending(0);
}

#[test]
fn w08_a_tunnel_that_speaks_outlives_every_other_deadline() {
    let origin = Origin::scripted(websocket(echo_bytes));
    let wardent = Wardent::setup(&origin)
        .upstream("tunnel_idle: 500ms")
        .upstream("idle_timeout: 150ms")
        .upstream("response_timeout: 150ms")
        .top("keep_alive: 150ms")
        .start();
    let mut client = open(&wardent);
    for _ in 0..5 {
        time::pass(Duration::from_millis(200));
        client.send("ping");
        assert_eq!(client.exact(4), b"ping");
    }
}

#[test]
fn w09_http2_cannot_be_smuggled_through_an_upgrade() {
    let origin = Origin::scripted(|conn| {
        let request = conn.request()?;
        let h2c = request.head.fields.lists("upgrade", "h2c");
        if h2c && request.head.fields.lists("connection", "upgrade") {
            conn.write(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            )?;
            return conn.wait_for_close();
        }
        conn.write(origin::echo(&request))
    });
    let wardent = Wardent::before(&origin);
    for lines in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0, h2c\r\n",
    ] {
        let mut client = wardent.client();
        client.send(format!("GET /a HTTP/1.1\r\n{P}{lines}\r\n"));
        let head = client.response_head();
        assert_ne!(head.status, 101, "W-09: a tunnel around every guard");
    }
    for seen in origin.requests() {
        assert!(!seen.head.fields.has("http2-settings"), "{:?}", seen.head);
        assert!(!seen.head.fields.lists("upgrade", "h2c"), "{:?}", seen.head);
    }
}

#[test]
fn w05_tunnels_are_in_flight_like_any_request() {
    let origin = Origin::scripted(websocket(echo_bytes));
    let wardent = Wardent::setup(&origin).upstream("max_in_flight: 2").start();
    let first = open(&wardent);
    let _second = open(&wardent);
    let response = wardent.ask(opening());
    rig::assert_refusal("W-05b", &response, &[503], "overloaded");
    drop(first);
    time::eventually("there is room again", || {
        let mut client = wardent.client();
        client.send(opening());
        client.response_head().status == 101
    });
}

#[test]
fn w10_many_tunnels_live_beside_each_other() {
    let origin = Origin::scripted(websocket(echo_bytes));
    let wardent = Wardent::setup(&origin).workers(2).start();
    let mut clients: Vec<_> = (0..60).map(|_| open(&wardent)).collect();
    for turn in 0..5 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(format!("{turn:02}-{n:04}"));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.exact(7), format!("{turn:02}-{n:04}").as_bytes());
        }
    }
    rig::assert_alive("W-10", &wardent);
    drop(clients);
    for connection in 0..60 {
        origin.wait_ending(connection);
    }
}

#[test]
fn w07_every_event_comes_at_once() {
    let gates: Arc<Vec<Gate>> = Arc::new((0..10).map(|_| Gate::default()).collect());
    let doors = Arc::clone(&gates);
    let origin = Origin::scripted(move |conn| {
        conn.request()?;
        conn.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for (n, door) in doors.iter().enumerate() {
            let event = format!("data: {n:04}\n\n");
            conn.write(format!("{:x}\r\n{event}\r\n", event.len()))?;
            door.wait();
        }
        conn.write("0\r\n\r\n")
    });
    let wardent = Wardent::before(&origin);
    let mut client = wardent.client();
    client.send(get_nonce("/events", "sse"));
    let head = client.response_head();
    assert_eq!(head.fields.one("content-type"), Some("text/event-stream"));
    assert_eq!(head.fields.one("x-accel-buffering"), Some("no"));
    assert!(!head.fields.has("content-length"));
    for (n, gate) in gates.iter().enumerate() {
        let event = format!("data: {n:04}\n\n");
        // The origin goes on only after the client has the event.
        assert_eq!(client.chunk_bytes(event.len()), event.as_bytes());
        gate.open();
    }
    assert!(client.chunk().unwrap().is_empty());
}

#[test]
fn w07_events_may_come_for_longer_than_any_deadline() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
        for n in 0..10 {
            conn.listen_for(Duration::from_millis(100));
            conn.write(format!("data: {n}\n\n"))?;
        }
        Ok(())
    });
    let wardent = Wardent::setup(&origin)
        .upstream("idle_timeout: 400ms")
        .upstream("response_timeout: 400ms")
        .start();
    let response = wardent.get("/events");
    let body = message::latin1(&response.body);
    assert!(body.ends_with("data: 9\n\n"), "{body:?}");
}
