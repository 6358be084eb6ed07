//! Group U: whatever the application does, the client gets a true answer or a clear end, in time.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    fs,
    io::{self, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use support::{
    get, get_nonce,
    message::{Framing, response_framing},
    noise,
    origin::{self, Conn, Origin},
    post, rig,
    rig::Rig,
    stream::Ending,
    time::{self, Gate},
    wardent::{Setup, Wardent, open_policy, work_dir},
};

/// Deadlines short enough for a test.
fn short(setup: Setup) -> Setup {
    setup
        .upstream("connect_timeout: 300ms")
        .upstream("response_timeout: 300ms")
        .upstream("idle_timeout: 400ms")
}

fn before(
    script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
) -> (Origin, Wardent) {
    before_with(&[], script)
}

/// The same, with more lines under the policy's `defaults`.
fn before_with(
    defaults: &[&str],
    script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
) -> (Origin, Wardent) {
    let origin = Origin::scripted(script);
    let setup = Wardent::setup(&origin).policy(open_policy(defaults, ""));
    (origin, short(setup).start())
}

fn assert_took(id: &str, begun: Instant, least: u64, most: u64) {
    let took = begun.elapsed();
    let range = Duration::from_millis(least)..Duration::from_millis(most);
    assert!(range.contains(&took), "{id}: took {took:?}");
}

/// A port nobody listens on.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn u01_a_refused_connection_is_told_at_once() {
    let wardent = short(Setup::before(&[closed_port()])).start();
    for request in [get("/a").into_bytes(), post("/a", b"hello")] {
        let begun = time::now();
        let response = wardent.ask(request);
        rig::assert_refusal("U-01", &response, &[502], "upstream_unreachable");
        assert_took("U-01", begun, 0, 1000);
    }
}

#[test]
fn u01_a_client_connection_outlives_the_refusal() {
    let wardent = short(Setup::before(&[closed_port()])).start();
    let mut client = wardent.client();
    for _ in 0..3 {
        assert_eq!(client.ask(get("/a")).status, 502);
    }
}

#[test]
fn u02_a_connection_that_is_never_made_is_given_up() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    // Fill the queue until the kernel lets nobody in.
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue takes everybody");
    }
    let wardent = short(Setup::before(&[address.to_string()])).start();
    let begun = time::now();
    let response = wardent.get("/a");
    rig::assert_refusal("U-02", &response, &[504], "upstream_timeout");
    assert_took("U-02", begun, 250, 1500);
}

#[test]
fn u03_a_silent_application_is_given_up() {
    let (origin, wardent) = before(|conn| {
        conn.request()?;
        conn.wait_for_close()
    });
    for request in [get("/a").into_bytes(), post("/a", b"hello")] {
        let begun = time::now();
        let response = wardent.ask(request);
        rig::assert_refusal("U-03", &response, &[504], "upstream_timeout");
        assert_took("U-03", begun, 250, 2000);
    }
    // A request that may have been acted on is not repeated, and its connection is not used again.
    assert_eq!(origin.wait_for_heads(2).len(), 2);
    origin.wait_ending(0);
    origin.wait_ending(1);
}

#[test]
fn u04_a_head_that_trickles_is_given_up_as_a_whole() {
    let (_origin, wardent) = before(|conn| {
        conn.request()?;
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" {
            conn.write([*byte])?;
            conn.listen_for(Duration::from_millis(50));
        }
        Ok(())
    });
    let begun = time::now();
    let response = wardent.get("/a");
    rig::assert_refusal("U-04", &response, &[504], "upstream_timeout");
    assert_took("U-04", begun, 250, 1500);
}

#[test]
fn a_body_that_breaks_off_never_looks_whole() {
    let bad_coding = ["U-06d", "U-06e", "U-06f"];
    let rows: &[(&str, &str, bool)] = &[
        ("U-05", "Content-Length: 100\r\n\r\nhello", false),
        ("U-05b", "Content-Length: 100\r\n\r\nhello", true),
        (
            "U-06",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            false,
        ),
        (
            "U-06b",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            true,
        ),
        (
            "U-06c",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
            false,
        ),
        (
            "U-06d",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nz\r\n",
            false,
        ),
        (
            "U-06e",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0x5\r\nhello\r\n0\r\n\r\n",
            false,
        ),
        (
            "U-06f",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello world\r\n0\r\n\r\n",
            false,
        ),
        ("U-06g", "\r\nhello", true),
    ];
    for &(id, rest, resets) in rows {
        let gate = Arc::new(Gate::default());
        let door = Arc::clone(&gate);
        let (_origin, wardent) = before(move |conn| {
            conn.request()?;
            conn.write(format!("HTTP/1.1 200 OK\r\n{rest}"))?;
            if resets {
                door.wait();
                return conn.reset();
            }
            conn.half_close()
        });
        let mut client = wardent.client();
        client.send(get("/a"));
        let head = client.response_head();
        if head.status == 502 && bad_coding.contains(&id) {
            // It was broken before anything of it had been passed on.
            assert_eq!(head.fields.one("x-wardent-reason"), Some("upstream_broken"));
            continue;
        }
        assert_eq!(head.status, 200, "{id}");
        if resets {
            gate.open();
        }
        let mut body = Vec::new();
        let framing = response_framing("GET", &head).unwrap();
        let outcome = client.body(framing, &mut body);
        assert_ne!(framing, Framing::UntilClose, "{id}");
        assert!(outcome.is_err(), "{id}: the client took it for whole");
        // What there was of it has come, and its missing end tells the rest.
        if !resets {
            assert_eq!(body, b"hello", "{id}");
        }
    }
}

#[test]
fn a_body_that_only_its_end_ends_breaks_off_with_a_reset() {
    for rest in [
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhel",
    ] {
        let (_origin, wardent) = before(move |conn| {
            conn.request()?;
            conn.write(format!("HTTP/1.1 200 OK\r\n{rest}"))?;
            conn.half_close()
        });
        let mut client = wardent.client();
        client.send(format!("GET /a HTTP/1.0\r\n{}\r\n", support::P));
        let (_, ending) = client.ending();
        assert_eq!(ending, Some(Ending::Reset), "{rest:?}");
    }
}

#[test]
fn u07_an_application_that_hangs_up_is_told_as_broken() {
    let rows: &[(&str, &str, bool)] = &[
        ("U-07", "", false),
        ("U-07b", "", true),
        ("U-07c", "HTTP/1.1 200 OK\r\nConte", false),
        ("U-07d", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", true),
    ];
    for &(id, bytes, resets) in rows {
        let (origin, wardent) = before(move |conn| {
            conn.request()?;
            conn.write(bytes)?;
            if resets { conn.reset() } else { conn.close() }
        });
        let begun = time::now();
        let response = wardent.ask(post("/a", b"hello"));
        rig::assert_refusal(id, &response, &[502], "upstream_broken");
        assert_took(id, begun, 0, 2000);
        assert_eq!(origin.requests().len(), 1, "{id}: a POST was repeated");
        let response = wardent.get("/a");
        rig::assert_refusal(id, &response, &[502], "upstream_broken");
    }
}

#[test]
fn u07_a_connection_closed_before_the_request_is_read_is_broken() {
    let (_origin, wardent) = before(Conn::close);
    for request in [get("/a").into_bytes(), post("/a", b"hello")] {
        let response = wardent.ask(request);
        rig::assert_refusal("U-07e", &response, &[502], "upstream_broken");
    }
}

#[test]
fn u08_informational_responses_come_before_the_one_that_counts() {
    let (_origin, wardent) = before(|conn| {
        let request = conn.request()?;
        conn.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
        conn.write("HTTP/1.1 100 Continue\r\n\r\n")?;
        conn.write(origin::echo(&request))
    });
    let response = wardent.ask(get_nonce("/a", "after"));
    assert_eq!((response.status, response.nonce()), (200, "after"));
    for head in &response.informational {
        assert!(matches!(head.status, 100 | 103), "{head:?}");
    }
}

#[test]
fn u08_informational_responses_without_end_are_cut() {
    let (_origin, wardent) = before(|conn| {
        conn.request()?;
        loop {
            conn.write("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
    });
    let begun = time::now();
    let response = wardent.get("/a");
    let reason = match response.status {
        504 => "upstream_timeout",
        _ => "upstream_broken",
    };
    rig::assert_refusal("U-08b", &response, &[502, 504], reason);
    assert_took("U-08b", begun, 0, 3000);
}

#[test]
fn u09_a_body_that_stops_coming_is_cut_off() {
    for (id, rest) in [
        ("U-09", "Content-Length: 100\r\n\r\nhello"),
        ("U-09b", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ] {
        let (origin, wardent) = before(move |conn| {
            conn.request()?;
            conn.write(format!("HTTP/1.1 200 OK\r\n{rest}"))?;
            conn.wait_for_close()
        });
        let mut client = wardent.client();
        let begun = time::now();
        client.send(get("/a"));
        let head = client.response_head();
        let mut body = Vec::new();
        let framing = response_framing("GET", &head).unwrap();
        assert!(client.body(framing, &mut body).is_err(), "{id}");
        assert_eq!(body, b"hello", "{id}");
        assert_took(id, begun, 300, 3000);
        origin.wait_ending(0);
    }
}

#[test]
fn u04_an_application_that_takes_no_body_is_given_up() {
    let (_origin, wardent) = before_with(&["body: 64MiB"], |conn| {
        conn.head()?;
        // It neither reads on nor answers nor goes away.
        time::pass(Duration::from_secs(5));
        Ok(())
    });
    let mut client = wardent.client();
    let body = vec![b'x'; 1 << 20];
    client.send(format!(
        "POST /a HTTP/1.1\r\n{}Content-Length: {}\r\n\r\n",
        support::P,
        64 * body.len()
    ));
    let mut writer = client.writer();
    let begun = time::now();
    let writing = thread::spawn(move || {
        // More than all buffers between hold.
        for _ in 0..64 {
            if writer.write_all(&body).is_err() {
                return;
            }
        }
    });
    let response = client.response("POST");
    rig::assert_refusal("U-04b", &response, &[504], "upstream_timeout");
    assert_took("U-04b", begun, 350, 4000);
    writing.join().unwrap();
}

#[test]
fn u09_a_slow_body_that_keeps_coming_is_not() {
    let (_origin, wardent) = before(|conn| {
        conn.request()?;
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")?;
        for byte in b"0123456789" {
            conn.listen_for(Duration::from_millis(80));
            conn.write([*byte])?;
        }
        Ok(())
    });
    // In all it takes longer than every deadline; no single wait does.
    assert_eq!(wardent.get("/a").body, b"0123456789");
}

const HEADS_THAT_ARE_NONE: &[(&str, &[u8])] = &[
    ("U-10", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    ("U-10b", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("U-10c", b"HTTP/1.1 200 OK\r\nX-A: v\x00w\r\nContent-Length: 5\r\n\r\nhello"),
    ("U-10e", b"HTTP/3.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("U-10f", b"ICY 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("U-10g", b"HTTP/1.1 99 Low\r\nContent-Length: 5\r\n\r\nhello"),
    ("U-10h", b"HTTP/1.1 1000 High\r\nContent-Length: 5\r\n\r\nhello"),
    ("U-10i", b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"),
    ("U-10j", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"),
    ("U-10k", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello"),
    ("U-10l", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello"),
    ("U-10m", b"HTTP/1.1 200 OK\r\nX A: 1\r\nContent-Length: 5\r\n\r\nhello"),
    ("U-10n", b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 5\r\n\r\nhello"),
    ("U-10o", b"\x15\x03\x03\x00\x02\x02\x28 this is TLS, not HTTP\r\n\r\n"),
    ("U-10p", b"HTTP/1.1 2x0 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("U-10q", b"hello world, this is no HTTP\r\n\r\n"),
    ("U-10r", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\n\r\nhello"),
    ("U-15", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
];

#[test]
fn u10_an_answer_that_is_no_http_is_told_as_broken() {
    let turn = Arc::new(AtomicUsize::new(0));
    let row = Arc::clone(&turn);
    let (origin, wardent) = before(move |conn| {
        conn.request()?;
        let (_, bytes) = HEADS_THAT_ARE_NONE[row.load(Ordering::Acquire)];
        conn.write(bytes)
    });
    for (n, (id, _)) in HEADS_THAT_ARE_NONE.iter().enumerate() {
        turn.store(n, Ordering::Release);
        let response = wardent.ask(post("/a", b"hello"));
        rig::assert_refusal(id, &response, &[502], "upstream_broken");
        // Its connection is of no more use.
        assert_eq!(origin.connections(), n + 1, "{id}");
        origin.wait_ending(n);
    }
}

#[test]
fn u10_a_head_too_large_is_told_as_broken() {
    let (_origin, wardent) = before(|conn| {
        conn.request()?;
        let long = "a".repeat(600_000);
        conn.write(format!(
            "HTTP/1.1 200 OK\r\nX-A: {long}\r\nContent-Length: 0\r\n\r\n"
        ))
    });
    let response = wardent.get("/a");
    rig::assert_refusal("U-10d", &response, &[502], "upstream_broken");
}

#[test]
fn u10_unusual_answers_that_are_http_pass() {
    let rows: &[(&str, &str, u16, &str)] = &[
        (
            "U-10s",
            "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
            200,
            "hello",
        ),
        (
            "U-10t",
            "HTTP/1.1 299 Odd But Legal\r\nContent-Length: 5\r\n\r\nhello",
            299,
            "hello",
        ),
        (
            "U-10u",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            200,
            "hello",
        ),
        (
            "U-10v",
            "HTTP/1.1 599 Far\r\nContent-Length: 5\r\n\r\nhello",
            599,
            "hello",
        ),
        ("U-10w", "HTTP/1.1 200 OK\r\n\r\nhello", 200, "hello"),
        ("U-10x", "HTTP/1.0 200 OK\r\n\r\nhello", 200, "hello"),
        (
            "U-10y",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
            200,
            "hello",
        ),
        (
            "U-10z",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            200,
            "hello",
        ),
    ];
    for &(id, bytes, status, body) in rows {
        let (_origin, wardent) = before(move |conn| {
            conn.request()?;
            conn.write(bytes)?;
            conn.half_close()
        });
        let response = wardent.get("/a");
        assert_eq!(response.status, status, "{id}");
        assert_eq!(response.body, body.as_bytes(), "{id}");
    }
}

#[test]
fn u12_a_response_without_a_body_has_none() {
    let rows = [
        ("U-12", "HEAD", "200 OK"),
        ("U-12b", "GET", "204 No Content"),
        ("U-12c", "GET", "304 Not Modified"),
        ("U-12d", "HEAD", "404 Not Found"),
    ];
    for (id, method, status) in rows {
        let origin = Origin::answering(move |request| {
            if request.head.target == "/odd" {
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\nhello");
                return head.into_bytes();
            }
            origin::echo(request)
        });
        let wardent = short(Wardent::setup(&origin)).start();
        let mut client = wardent.client();
        for turn in 0..3 {
            let nonce = format!("n{turn}");
            client.send(format!("{method} /odd HTTP/1.1\r\n{}\r\n", support::P));
            let response = client.response(method);
            assert_eq!(response.status.to_string(), status[..3], "{id}");
            assert!(response.body.is_empty(), "{id}");
            let next = client.ask(get_nonce("/next", &nonce));
            assert_eq!((next.status, next.nonce()), (200, nonce.as_str()), "{id}");
        }
    }
}

#[test]
fn u14_an_application_that_only_hangs_up_causes_no_storm() {
    let (origin, wardent) = before(Conn::close);
    let mut client = wardent.client();
    for _ in 0..50 {
        assert_eq!(client.ask(get("/a")).status, 502);
    }
    // A fresh connection that dies is no dead pooled one, so nothing was repeated more than once.
    let connections = origin.connections();
    assert!(connections <= 100, "U-14: {connections} connections for 50");
}

#[test]
fn u16_set_cookie_lines_stay_apart_and_in_order() {
    let cookies: String = (0..200)
        .map(|n| format!("Set-Cookie: c{n}=v, x; Expires=Wed, 21 Oct 2026 07:28:00 GMT\r\n"))
        .collect();
    let origin = Origin::answering(move |_| origin::answer("200 OK", &cookies, b"hello"));
    let wardent = Wardent::before(&origin);
    let response = wardent.get("/a");
    assert_eq!(response.status, 200);
    let seen = response.head.fields.all("set-cookie");
    assert_eq!(seen.len(), 200);
    for (n, cookie) in seen.iter().enumerate() {
        assert!(cookie.starts_with(&format!("c{n}=v, x;")), "{n}: {cookie}");
    }
}

#[test]
fn u17_a_client_that_does_not_read_holds_the_application_back() {
    const TOTAL: usize = 64 * 1024 * 1024;
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let origin = Origin::scripted(move |conn| {
        conn.request()?;
        conn.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n"
        ))?;
        let piece = noise(64 * 1024);
        for _ in 0..TOTAL / piece.len() {
            conn.write(&piece)?;
            counter.fetch_add(piece.len(), Ordering::Release);
        }
        Ok(())
    });
    let wardent = Wardent::before(&origin);
    let mut client = wardent.client();
    client.receive_little();
    client.send(get("/large"));
    assert_eq!(client.response_head().status, 200);
    // The origin's writing comes to rest, far from the end.
    let mut last = 0;
    time::eventually("the application is held back", || {
        let before = std::mem::replace(&mut last, written.load(Ordering::Acquire));
        time::pass(Duration::from_millis(200));
        before == last && last > 0
    });
    assert!(last < TOTAL / 2, "U-17: {last} bytes are somewhere");
    // Others are served meanwhile, and the rest still comes, unharmed.
    let mut body = Vec::new();
    client.body(Framing::Length(TOTAL), &mut body).unwrap();
    let piece = noise(64 * 1024);
    assert!(body.chunks(piece.len()).all(|chunk| chunk == piece));
}

#[test]
fn u18_a_client_that_goes_away_takes_its_request_with_it() {
    for (id, resets) in [("U-18", true), ("U-18b", false)] {
        let origin = Origin::scripted(|conn| {
            conn.request()?;
            conn.wait_for_close()
        });
        let wardent = Wardent::before(&origin);
        let mut client = wardent.client();
        client.send(get("/slow"));
        origin.wait_for(1);
        let begun = time::now();
        if resets {
            client.reset();
        } else {
            drop(client);
        }
        origin.wait_ending(0);
        assert_took(id, begun, 0, 2000);
    }
}

#[test]
fn u18_a_client_that_goes_away_while_the_body_comes_ends_it_upstream() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            conn.write("5\r\nhello\r\n")?;
            conn.listen_for(Duration::from_millis(10));
        }
    });
    let wardent = Wardent::before(&origin);
    let mut client = wardent.client();
    client.send(get("/endless"));
    assert_eq!(client.response_head().status, 200);
    assert_eq!(client.chunk_bytes(5)[..5], *b"hello");
    client.reset();
    origin.wait_ending(0);
}

#[test]
fn u18_a_client_that_closed_only_its_writing_half_gets_a_quick_answer() {
    let origin = Origin::scripted(|conn| {
        let request = conn.request()?;
        // Long enough for the client's end to be seen first.
        conn.listen_for(Duration::from_millis(20));
        conn.write(origin::echo(&request))
    });
    let wardent = Wardent::before(&origin);
    // On a busy machine, an answer may come too late for the client's grace; not ten in a row.
    let answered = (0..10).any(|turn| {
        let mut client = wardent.client();
        client.send(get_nonce("/a", &format!("n{turn}")));
        client.half_close();
        client.try_response("GET").is_ok_and(|response| {
            assert_eq!(response.nonce(), format!("n{turn}"));
            true
        })
    });
    assert!(answered, "U-18d: nobody was answered");
}

#[test]
fn u18_an_abort_is_no_fault_of_the_application() {
    // Two aborts in a row must not take the only server out, nor count against the client.
    let policy =
        "mode: enforce\nbans: {threshold: 2}\ndefaults:\n  limit: {rate: 1000/s, burst: 1000}\n";
    let origin = Origin::scripted(|conn| {
        loop {
            let request = conn.request()?;
            if request.head.target == "/slow" {
                return conn.wait_for_close();
            }
            conn.write(origin::echo(&request))?;
        }
    });
    let wardent = Wardent::setup(&origin).policy(policy).start();
    for turn in 0..10 {
        let mut client = wardent.client();
        client.send(get("/slow"));
        origin.wait_for_heads(turn + 1);
        client.reset();
    }
    rig::assert_alive("U-18c", &wardent);
}

#[test]
fn u19_a_unix_socket_that_is_made_again_is_found_again() {
    let dir = work_dir();
    let path = dir.path().join("gunicorn.sock");
    let first = Origin::unix(&path, |conn| conn.serve(&origin::echo));
    let wardent = short(Wardent::setup(&first)).start();
    assert_eq!(wardent.get("/a").status, 200);
    drop(first);
    fs::remove_file(&path).unwrap();
    time::eventually("the socket is missed", || wardent.get("/b").status != 200);
    let response = wardent.get("/b");
    rig::assert_refusal("U-19", &response, &[502], "upstream_unreachable");
    let second = Origin::unix(&path, |conn| conn.serve(&origin::echo));
    assert_eq!(wardent.get("/c").status, 200);
    assert_eq!(second.only_request().head.target, "/c");
}

#[test]
fn u11_bytes_after_an_answer_spoil_the_connection_and_nothing_else() {
    let origin = Origin::scripted(|conn| {
        loop {
            let request = conn.request()?;
            let mut bytes = origin::echo(&request);
            bytes.extend_from_slice(
                b"HTTP/1.1 200 OK\r\nX-Nonce: stray\r\nContent-Length: 0\r\n\r\n",
            );
            conn.write(bytes)?;
        }
    });
    let wardent = short(Wardent::setup(&origin)).start();
    let mut client = wardent.client();
    for turn in 0..10 {
        let nonce = format!("n{turn}");
        let response = client.ask(get_nonce("/a", &nonce));
        // A stray byte may cost an answer; it never becomes one.
        if response.status == 200 {
            assert_eq!(response.nonce(), nonce, "U-11: turn {turn}");
        } else {
            rig::assert_refusal("U-11", &response, &[502], "upstream_broken");
        }
    }
}

#[test]
fn u13_a_pooled_connection_ends_before_the_server_would_end_it() {
    let origin = Origin::echo();
    let wardent = Wardent::setup(&origin).upstream("pool_idle: 300ms").start();
    assert_eq!(wardent.get("/a").status, 200);
    let begun = time::now();
    assert_eq!(origin.wait_ending(0), Ending::Fin);
    assert_took("U-13", begun, 0, 3000);
}

#[test]
fn u20_connections_are_reused() {
    let rig = Rig::with(|setup| setup.upstream("pool_idle: 10s"));
    for _ in 0..20 {
        assert_eq!(rig.wardent.get("/a").status, 200);
    }
    assert_eq!(rig.origin.connections(), 1);
}

#[test]
fn u21_the_application_sees_no_more_than_may_be_in_flight() {
    let gate = Arc::new(Gate::default());
    let origin = Origin::holding(&gate);
    let wardent = Wardent::setup(&origin)
        .upstream("max_in_flight: 2")
        .policy(open_policy(&[], ""))
        .start();
    let mut held: Vec<_> = (0..2)
        .map(|n| {
            let mut client = wardent.client();
            client.send(get_nonce("/hold", &format!("h{n}")));
            client
        })
        .collect();
    origin.wait_for(2);
    let begun = time::now();
    let response = wardent.get("/more");
    rig::assert_refusal("U-21", &response, &[503], "overloaded");
    assert_took("U-21", begun, 0, 1000);
    gate.open();
    for (n, client) in held.iter_mut().enumerate() {
        assert_eq!(client.response("GET").nonce(), format!("h{n}"));
    }
    rig::assert_alive("U-21", &wardent);
}
