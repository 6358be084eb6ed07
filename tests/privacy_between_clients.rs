//! Never a byte of one client's answer to another, whatever dies, overflows or comes too late.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use support::{
    P, chunked,
    client::{RawClient, method_of},
    get, get_nonce,
    message::{self, Request},
    origin::{self, Conn, Origin},
    random::Random,
    rig,
    time::Gate,
    wardent::Wardent,
};

/// What belongs to the first client alone.
const PRIVATE: &str = "private-of-the-first";

fn before(
    script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
) -> (Origin, Wardent) {
    let origin = Origin::scripted(script);
    let wardent = Wardent::setup(&origin)
        .upstream("pool_idle: 10s")
        .upstream("response_timeout: 400ms")
        .start();
    (origin, wardent)
}

/// An answer of the application that holds what only the first client may see.
fn private_answer() -> Vec<u8> {
    origin::answer(
        "200 OK",
        &format!("X-Private: {PRIVATE}\r\n"),
        PRIVATE.as_bytes(),
    )
}

/// Asks often, as other clients, and finds only what is one's own.
fn others_are_safe(id: &str, wardent: &Wardent) {
    for turn in 0..5 {
        let nonce = format!("other-{turn}");
        let mut client = wardent.client();
        client.send(get_nonce("/other", &nonce));
        let response = client
            .try_response("GET")
            .unwrap_or_else(|error| panic!("{id}: {error}"));
        let text = message::latin1(&[response.head.raw.clone(), response.body.clone()].concat());
        assert!(!text.contains(PRIVATE), "{id}: {text}");
        if response.status == 200 {
            assert_eq!(response.nonce(), nonce, "{id}: {text}");
        } else {
            let reason = response.header("x-wardent-reason").unwrap_or_default();
            assert_eq!((response.status, reason), (502, "upstream_broken"), "{id}");
        }
        assert!(
            client.stays_quiet(Duration::from_millis(5)),
            "{id}: bytes after the answer"
        );
    }
}

/// Answers `/first` by the script and everything else as usual, on the same connection.
fn on_first(
    script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
) -> impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static {
    move |conn| {
        loop {
            let request = conn.request()?;
            if request.head.target == "/first" {
                script(conn)?;
            } else {
                conn.write(origin::echo(&request))?;
            }
        }
    }
}

/// Answers `/first` with the bytes given and everything else as usual, on the same connection.
fn first_gets(bytes: Vec<u8>) -> impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static {
    on_first(move |conn| conn.write(&bytes))
}

#[test]
fn bytes_beyond_an_answer_are_nobodys() {
    let stray = format!(
        "HTTP/1.1 200 OK\r\nX-Nonce: {PRIVATE}\r\nContent-Length: {}\r\n\r\n{PRIVATE}",
        PRIVATE.len()
    );
    let rows = [
        (
            "length",
            "GET",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{stray}"),
        ),
        (
            "chunked",
            "GET",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{stray}"
            ),
        ),
        (
            "204",
            "GET",
            format!("HTTP/1.1 204 No Content\r\n\r\n{stray}"),
        ),
        (
            "204 with a length",
            "GET",
            format!(
                "HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{stray}",
                stray.len()
            ),
        ),
        (
            "304",
            "GET",
            format!("HTTP/1.1 304 Not Modified\r\n\r\n{stray}"),
        ),
        (
            "304 with a length",
            "GET",
            format!(
                "HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{stray}",
                stray.len()
            ),
        ),
        (
            "HEAD",
            "HEAD",
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{stray}",
                stray.len()
            ),
        ),
        (
            "HEAD chunked",
            "HEAD",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{stray}"),
        ),
        (
            "too short a length",
            "GET",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok{PRIVATE}"),
        ),
    ];
    for (id, method, bytes) in rows {
        let (_origin, wardent) = before(first_gets(bytes.into_bytes()));
        let mut client = wardent.client();
        client.send(format!("{method} /first HTTP/1.1\r\n{P}\r\n"));
        drop(client.try_response(method));
        others_are_safe(id, &wardent);
    }
}

#[test]
fn an_answer_nobody_asked_for_is_nobodys() {
    let gate = Arc::new(Gate::default());
    let door = Arc::clone(&gate);
    let sent = Arc::new(Gate::default());
    let told = Arc::clone(&sent);
    let (origin, wardent) = before(move |conn| {
        let request = conn.request()?;
        conn.write(origin::echo(&request))?;
        if conn.number() == 0 {
            door.wait();
            conn.write(private_answer())?;
            told.open();
        }
        conn.serve(&origin::echo)
    });
    assert_eq!(wardent.get("/first").status, 200);
    gate.open();
    sent.wait();
    others_are_safe("unsolicited", &wardent);
    // The connection that spoke out of turn is given up.
    origin.wait_ending(0);
}

#[test]
fn a_late_answer_is_nobodys() {
    let gate = Arc::new(Gate::default());
    let door = Arc::clone(&gate);
    let (_origin, wardent) = before(on_first(move |conn| {
        door.wait();
        conn.write(private_answer())
    }));
    let response = wardent.get("/first");
    rig::assert_refusal("late", &response, &[504], "upstream_timeout");
    gate.open();
    others_are_safe("late", &wardent);
}

#[test]
fn the_answer_to_a_client_that_left_is_nobodys() {
    for resets in [true, false] {
        let gate = Arc::new(Gate::default());
        let door = Arc::clone(&gate);
        let (origin, wardent) = before(on_first(move |conn| {
            door.wait();
            conn.write(private_answer())
        }));
        let mut client = wardent.client();
        client.send(get("/first"));
        origin.wait_for(1);
        if resets {
            client.reset();
        } else {
            drop(client);
        }
        gate.open();
        others_are_safe("left", &wardent);
    }
}

#[test]
fn the_rest_of_an_answer_its_client_did_not_wait_for_is_nobodys() {
    for resets in [true, false] {
        let gate = Arc::new(Gate::default());
        let door = Arc::clone(&gate);
        let (_origin, wardent) = before(on_first(move |conn| {
            conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\nbegun")?;
            door.wait();
            conn.write(PRIVATE.repeat(500))
        }));
        let mut client = wardent.client();
        client.send(get("/first"));
        assert_eq!(client.response_head().status, 200);
        assert_eq!(client.exact(5), b"begun");
        if resets {
            client.reset();
        } else {
            drop(client);
        }
        gate.open();
        others_are_safe("the rest", &wardent);
    }
}

#[test]
fn the_rest_of_a_body_answered_early_is_no_request_of_another() {
    for (id, lines) in [
        ("length", "Content-Length: 1000\r\n\r\nhello"),
        (
            "chunked",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ),
    ] {
        // Answers a POST from its head, then reads on as if the next request came.
        let (origin, wardent) = before(|conn| {
            loop {
                let head = conn.head()?;
                if head.method == "POST" {
                    conn.write(origin::answer("200 OK", "X-Nonce: early\r\n", b"early"))?;
                    conn.body(&head)?;
                } else {
                    let request = Request {
                        head,
                        ..Request::default()
                    };
                    conn.write(origin::echo(&request))?;
                }
            }
        });
        let mut client = wardent.client();
        client.send(format!("POST /first HTTP/1.1\r\n{P}{lines}"));
        let response = client.response("POST");
        assert_eq!(response.nonce(), "early", "{id}");
        others_are_safe(id, &wardent);
        // The first client goes on, or goes away: nobody else notices.
        client.send_anyway(get_nonce("/smuggled", "smuggled"));
        others_are_safe(id, &wardent);
        drop(client);
        others_are_safe(id, &wardent);
        for request in origin.requests() {
            assert_ne!(request.head.target, "/smuggled", "{id}");
        }
        assert_eq!(origin.fault(), None, "{id}");
    }
}

#[test]
fn a_body_cut_short_is_not_filled_up_with_the_next_request() {
    let (origin, wardent) = before(|conn| conn.serve(&origin::echo));
    for resets in [true, false] {
        for lines in [
            "Content-Length: 1000\r\n\r\nhello",
            "Transfer-Encoding: chunked\r\n\r\n3e8\r\nhello",
        ] {
            let heads = origin.requests().len();
            let mut client = wardent.client();
            client.send(format!("POST /first HTTP/1.1\r\n{P}{lines}"));
            origin.wait_for_heads(heads + 1);
            if resets {
                client.reset();
            } else {
                drop(client);
            }
            others_are_safe("cut short", &wardent);
        }
    }
    for request in origin.requests() {
        if request.head.target == "/first" {
            assert!(!request.complete);
            assert!(request.body.len() <= 5, "filled up: {:?}", request.body);
        }
    }
}

#[test]
fn informational_answers_shift_nothing() {
    let (_origin, wardent) = before(|conn| {
        loop {
            let request = conn.request()?;
            conn.write("HTTP/1.1 100 Continue\r\n\r\n")?;
            conn.write("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")?;
            conn.write(origin::echo(&request))?;
            conn.write("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
    });
    others_are_safe("1xx", &wardent);
}

#[test]
fn a_tunnel_is_never_given_to_another() {
    let (_origin, wardent) = before(|conn| {
        loop {
            let request = conn.request()?;
            if request.head.fields.has("upgrade") {
                conn.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
                conn.write(PRIVATE)?;
                loop {
                    conn.some()?;
                    conn.write(private_answer())?;
                }
            }
            conn.write(origin::echo(&request))?;
        }
    });
    for resets in [true, false] {
        let mut client = wardent.client();
        client.send(format!(
            "GET /ws HTTP/1.1\r\n{P}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        assert_eq!(client.response_head().status, 101);
        assert_eq!(client.exact(PRIVATE.len()), PRIVATE.as_bytes());
        if resets {
            client.reset();
        } else {
            drop(client);
        }
        others_are_safe("tunnel", &wardent);
    }
}

#[test]
fn a_broken_answer_is_not_continued_by_the_next() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\nhello",
    ] {
        let (_origin, wardent) = before(on_first(move |conn| {
            conn.write(bytes)?;
            conn.close()
        }));
        let mut client = wardent.client();
        client.send(get("/first"));
        drop(client.try_response("GET"));
        others_are_safe(bytes, &wardent);
        // The first client's own connection does not go on as if nothing had happened.
        if client.send_anyway(get_nonce("/again", "again"))
            && let Ok(response) = client.try_response("GET")
        {
            assert_eq!(response.nonce(), "again", "{bytes}");
        }
    }
}

#[test]
fn pipelined_answers_stay_with_their_connection() {
    let (_origin, wardent) = before(|conn| conn.serve(&origin::echo));
    let mut clients: Vec<_> = (0..20).map(|_| wardent.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let all: String = (0..10)
            .map(|turn| get_nonce("/a", &format!("c{n}-{turn}")))
            .collect();
        client.send(all);
    }
    for (n, client) in clients.iter_mut().enumerate().rev() {
        for turn in 0..10 {
            assert_eq!(client.response("GET").nonce(), format!("c{n}-{turn}"));
        }
    }
}

/// An application with moods: whole answers, broken ones, stray bytes, hang-ups, early answers.
fn erratic(conn: &mut Conn, turn: &AtomicUsize) -> io::Result<()> {
    loop {
        let head = conn.head()?;
        let mood = turn.fetch_add(1, Ordering::AcqRel) % 11;
        let nonce = head.fields.one("x-nonce").unwrap_or("none").to_owned();
        let own = format!("X-Nonce: {nonce}\r\n");
        if mood == 3 {
            conn.write(origin::answer("200 OK", &own, nonce.as_bytes()))?;
            conn.body(&head)?;
            continue;
        }
        conn.body(&head)?;
        let body = if head.method == "HEAD" { "" } else { &nonce };
        let whole = format!(
            "HTTP/1.1 200 OK\r\n{own}Content-Length: {}\r\n\r\n{body}",
            nonce.len()
        );
        match mood {
            1 => conn.write(format!(
                "{whole}HTTP/1.1 200 OK\r\nX-Nonce: stray-{nonce}\r\nContent-Length: 0\r\n\r\n"
            ))?,
            5 if head.method != "HEAD" => {
                conn.write(format!(
                    "HTTP/1.1 200 OK\r\n{own}Content-Length: 999\r\n\r\n{body}"
                ))?;
                return conn.close();
            }
            6 => return conn.close(),
            7 if head.method != "HEAD" => {
                let chunks = chunked(nonce.as_bytes(), &[3]);
                let head = format!("HTTP/1.1 200 OK\r\n{own}Transfer-Encoding: chunked\r\n\r\n");
                conn.write([head.as_bytes(), &chunks].concat())?;
            }
            8 => {
                conn.write(&whole)?;
                return conn.reset();
            }
            9 => {
                conn.listen_for(Duration::from_millis(1));
                conn.write(whole)?;
            }
            _ => conn.write(whole)?,
        }
    }
}

fn erratic_request(random: &mut Random, nonce: &str) -> Vec<u8> {
    let lines = format!("{P}X-Nonce: {nonce}\r\n");
    match random.below(4) {
        0 => format!("GET /a HTTP/1.1\r\n{lines}\r\n").into_bytes(),
        1 => format!("HEAD /a HTTP/1.1\r\n{lines}\r\n").into_bytes(),
        2 => {
            let body = vec![b'x'; random.below(20_000)];
            let head = format!(
                "POST /a HTTP/1.1\r\n{lines}Content-Length: {}\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), &body].concat()
        }
        _ => {
            let body = vec![b'x'; random.below(20_000)];
            let head = format!("PUT /a HTTP/1.1\r\n{lines}Transfer-Encoding: chunked\r\n\r\n");
            [head.as_bytes(), &chunked(&body, &[1 + random.below(5000)])].concat()
        }
    }
}

/// A client with moods of its own; whatever it reads must be its own.
fn erratic_client(wardent: &Wardent, lane: u64) {
    let mut random = Random::seeded(lane);
    let mut client: Option<RawClient> = None;
    for turn in 0..60 {
        let nonce = format!("lane{lane}-turn{turn}");
        let request = erratic_request(&mut random, &nonce);
        let mut own = client.take().unwrap_or_else(|| wardent.client());
        match random.below(8) {
            // Goes away in the middle of its request, or right after it.
            0 => {
                own.send_anyway(&request[..random.below(request.len())]);
                own.reset();
                continue;
            }
            1 => {
                own.send_anyway(&request);
                continue;
            }
            _ => {}
        }
        if !own.send_anyway(&request) {
            continue;
        }
        let Ok(response) = own.try_response(&method_of(&request)) else {
            continue;
        };
        if response.status == 200 {
            assert_eq!(response.nonce(), nonce, "another client's answer");
            let body = message::latin1(&response.body);
            assert!(body == nonce || body.is_empty(), "{nonce} got {body:?}");
            client = Some(own);
        } else {
            assert!(
                matches!(response.status, 502..=504),
                "{nonce}: {}",
                response.status
            );
        }
    }
}

#[test]
fn no_interleaving_of_moods_mixes_two_clients() {
    for workers in [1, 2] {
        let turn = AtomicUsize::new(0);
        let origin = Origin::scripted(move |conn| erratic(conn, &turn));
        let wardent = Wardent::setup(&origin)
            .upstream("pool_idle: 10s")
            .workers(workers)
            .start();
        thread::scope(|scope| {
            for lane in 0..8 {
                let wardent = &wardent;
                scope.spawn(move || erratic_client(wardent, lane));
            }
        });
        assert_eq!(origin.fault(), None);
        for request in origin.requests() {
            if request.complete {
                rig::assert_clean("moods", &request, support::CLIENT);
            }
        }
    }
}
