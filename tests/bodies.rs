//! Group B: a body within its bound arrives byte for byte, one beyond it is told so, whole and in
//! time, and the application never sees it end well.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    io::Write,
    thread::{self, JoinHandle},
    time::Duration,
};

use support::{
    P, chunked,
    client::RawClient,
    get_nonce,
    message::Response,
    noise,
    origin::{self, Origin},
    post, rig,
    rig::Rig,
    stream::Ending,
    time,
    wardent::open_policy,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A bound small enough to be crossed quickly.
fn small() -> Rig {
    Rig::with(|setup| setup.policy(open_policy(&["body: 64KiB"], "")))
}

fn chunked_head() -> String {
    format!("POST /up HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\n\r\n")
}

fn length_head(method: &str, len: usize) -> String {
    format!("{method} /up HTTP/1.1\r\n{P}Content-Length: {len}\r\n\r\n")
}

/// Sends a piece over and over from a thread of its own, until so much is sent or the peer is gone.
fn flood(client: &RawClient, piece: Vec<u8>, total: usize) -> JoinHandle<usize> {
    let mut writer = client.writer();
    thread::spawn(move || {
        let mut sent = 0;
        while sent < total && writer.write_all(&piece).is_ok() {
            sent += piece.len();
        }
        sent
    })
}

fn assert_413(id: &str, response: &Response) {
    rig::assert_refusal(id, response, &[413], "body_too_large");
}

#[test]
fn b01_a_declared_length_over_the_bound_is_refused_from_the_head() {
    let rig = Rig::new();
    for _ in 0..3 {
        let len = 10 * MIB + 1;
        let mark = rig.origin.mark();
        let mut client = rig.wardent.client();
        client.send(length_head("POST", len));
        let writer = flood(&client, vec![b'x'; 64 * KIB], len);
        assert_413("B-01", &client.response("POST"));
        client.assert_closed("B-01");
        writer.join().unwrap();
        rig.assert_nothing_passed("B-01", &mark);
    }
    rig::assert_alive("B-01", &rig.wardent);
}

#[test]
fn b01_the_answer_does_not_wait_for_the_body() {
    let rig = Rig::new();
    let mut client = rig.wardent.client();
    client.send(length_head("POST", 10 * MIB + 1));
    let begun = time::now();
    assert_413("B-01b", &client.response("POST"));
    client.assert_closed("B-01b");
    assert!(begun.elapsed() < Duration::from_secs(2), "B-01b: slow");
    assert_eq!(rig.origin.bytes(), 0);
}

#[test]
fn b01_the_answer_always_arrives_whole() {
    let rig = small();
    for run in 0..50 {
        let mut client = rig.wardent.client();
        client.send(length_head("POST", MIB));
        let writer = flood(&client, vec![b'x'; 16 * KIB], MIB);
        assert_413(&format!("B-01 run {run}"), &client.response("POST"));
        writer.join().unwrap();
    }
    rig::assert_alive("B-01", &rig.wardent);
}

#[test]
fn b02_a_body_of_exactly_the_bound_passes() {
    let rig = Rig::new();
    let body = noise(10 * MIB);
    let (seen, _) = rig.passed_as_it_is("B-02", &post("/up", &body));
    assert!(seen.body == body, "B-02: the body was altered");
    let sent = [chunked_head().as_bytes(), &chunked(&body, &[100_000])].concat();
    let (seen, _) = rig.passed_as_it_is("B-02b", &sent);
    assert!(seen.body == body, "B-02b: the body was altered");
}

#[test]
fn b03_chunks_beyond_the_bound_are_cut_and_the_upstream_request_aborted() {
    let rig = small();
    for (id, len, sizes) in [
        ("B-03", 64 * KIB + 1, &[8192][..]),
        ("B-03b", 64 * KIB + 1, &[64 * KIB, 1]),
        ("B-03c", 70 * KIB, &[70 * KIB]),
        ("B-03d", 64 * KIB + 1, &[1]),
    ] {
        let mark = rig.origin.mark();
        let sent = [chunked_head().as_bytes(), &chunked(&noise(len), sizes)].concat();
        let mut client = rig.wardent.client();
        client.send_anyway(sent);
        assert_413(id, &client.response("POST"));
        for request in rig.origin.requests_since(&mark) {
            rig.origin.wait_ending(request.connection);
        }
        for request in rig.origin.requests_since(&mark) {
            assert!(!request.complete, "{id}: it ended well upstream");
            assert!(request.body.len() <= 64 * KIB, "{id}: more than the bound");
        }
        rig::assert_alive(id, &rig.wardent);
    }
}

#[test]
fn b04_chunks_of_exactly_the_bound_pass_however_small() {
    let rig = small();
    let body = noise(64 * KIB);
    for (id, sizes) in [
        ("B-04", &[8192][..]),
        ("B-04b", &[1]),
        ("B-04c", &[64 * KIB]),
        ("B-04d", &[3, 1021, 65_536]),
    ] {
        let sent = [chunked_head().as_bytes(), &chunked(&body, sizes)].concat();
        let (seen, _) = rig.passed_as_it_is(id, &sent);
        assert!(seen.body == body, "{id}: the body was altered");
    }
}

#[test]
fn b05_a_body_that_stops_coming_is_cut_off() {
    let rig = Rig::with(|setup| setup.upstream("idle_timeout: 300ms"));
    for (id, head) in [
        ("B-05", length_head("POST", 100)),
        ("B-05b", format!("{}5\r\n", chunked_head())),
    ] {
        let mark = rig.origin.mark();
        let mut client = rig.wardent.client();
        let begun = time::now();
        client.send(format!("{head}x"));
        if let Ok(response) = client.try_response("POST") {
            rig::assert_refusal(id, &response, &[400, 408], "bad_request");
        }
        client.assert_closed(id);
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(250), "{id}: after {took:?}");
        assert!(took < Duration::from_secs(5), "{id}: after {took:?}");
        for request in rig.origin.requests_since(&mark) {
            rig.origin.wait_ending(request.connection);
            assert!(!request.complete, "{id}: it ended well upstream");
        }
        rig::assert_alive(id, &rig.wardent);
    }
}

#[test]
fn b06_a_slow_body_that_keeps_coming_is_not() {
    let rig = Rig::with(|setup| setup.upstream("idle_timeout: 400ms"));
    let mut client = rig.wardent.client();
    client.send(length_head("POST", 10));
    for byte in *b"0123456789" {
        time::pass(Duration::from_millis(80));
        client.send([byte]);
    }
    assert_eq!(client.response("POST").status, 200);
    assert_eq!(rig.origin.only_request().body, b"0123456789");
}

#[test]
fn b07_what_follows_a_body_is_the_next_request() {
    let rig = Rig::new();
    let mut client = rig.wardent.client();
    let second = get_nonce("/x", "second");
    client.send(format!("{}ok{second}", length_head("POST", 2)));
    assert_eq!(client.response("POST").status, 200);
    assert_eq!(client.response("GET").nonce(), "second");
    let seen = rig.origin.wait_for(2);
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].body, b"ok");

    // Without the secret, it meets the policy like any request.
    let mut client = rig.wardent.client();
    client.send(format!(
        "{}okGET /x HTTP/1.1\r\nHost: app.test\r\n\r\n",
        length_head("POST", 2)
    ));
    assert_eq!(client.response("POST").status, 200);
    rig::assert_refusal("B-07", &client.response("GET"), &[403], "bad_secret");
    assert_eq!(rig.origin.requests().len(), 3);
}

#[test]
fn b08_a_client_that_ignores_the_answer_still_finds_it() {
    let over_tcp = small();
    let over_unix = Rig::with(|setup| {
        let setup = setup.policy(open_policy(&["body: 64KiB"], ""));
        setup.unix_listener()
    });
    for (rig, runs, len) in [
        (&over_tcp, 10, 8 * MIB),
        (&over_tcp, 2, 100 * MIB),
        (&over_unix, 10, 8 * MIB),
        (&over_unix, 2, 100 * MIB),
    ] {
        for run in 0..runs {
            let id = format!("B-08 {len} run {run} {:?}", rig.wardent.address());
            let mut client = rig.wardent.client();
            client.send(length_head("POST", len));
            // Everything first, the answer only then: a reset would have thrown it away.
            let piece = vec![b'x'; MIB];
            for _ in 0..len / MIB {
                assert!(client.send_anyway(&piece), "{id}: it was cut off");
            }
            assert_413(&id, &client.response("POST"));
        }
        rig::assert_alive("B-08", &rig.wardent);
    }
}

#[test]
fn b08_a_rest_that_trickles_is_not_waited_for() {
    let rig = small();
    let mut client = rig.wardent.client();
    let head = length_head("POST", 1000).replace(support::KEY, "wrong");
    client.send(head);
    let response = client.response("POST");
    rig::assert_refusal("B-08d", &response, &[403], "bad_secret");
    // The rest is small enough to keep the connection for, but not at this pace.
    let mut writer = client.writer();
    let trickle = thread::spawn(move || {
        for _ in 0..40 {
            if writer.write_all(b"x").is_err() {
                return;
            }
            time::pass(Duration::from_millis(200));
        }
    });
    let begun = time::now();
    client.assert_closed("B-08d");
    assert!(begun.elapsed() < Duration::from_secs(9), "B-08d: slow");
    drop(client);
    trickle.join().unwrap();
}

#[test]
fn what_comes_behind_a_last_request_does_not_reset_its_answer() {
    let rig = Rig::new();
    for len in [1, 100, 20 * KIB, MIB] {
        let mut client = rig.wardent.client();
        let last = format!("GET /a HTTP/1.1\r\n{P}Connection: close\r\n\r\n");
        client.send_anyway([last.as_bytes(), &vec![b'x'; len]].concat());
        assert_eq!(client.response("GET").status, 200, "{len} bytes");
        let (bytes, ending) = client.ending();
        assert!(bytes.is_empty(), "{len} bytes");
        assert_eq!(ending, Some(Ending::Fin), "{len} bytes");
        // Nothing resets it while more of it comes: all is read until the client closes.
        for _ in 0..5 {
            time::pass(Duration::from_millis(10));
            assert!(client.send_anyway("x"), "{len} bytes: reset");
        }
    }
}

#[test]
fn b08_a_flood_behind_a_refusal_ends() {
    let rig = small();
    let mut client = rig.wardent.client();
    client.send(length_head("POST", 1 << 40));
    let writer = flood(&client, vec![b'x'; 64 * KIB], 512 * MIB);
    assert_413("B-08b", &client.response("POST"));
    client.assert_closed("B-08b");
    // Drained, or cut off: either way the client's thread comes to an end.
    time::eventually("the flood ends", || writer.is_finished());
    rig::assert_alive("B-08b", &rig.wardent);
}

#[test]
fn b08_a_refused_client_that_goes_silent_is_let_go() {
    let rig = small();
    let mut client = rig.wardent.client();
    client.send(length_head("POST", MIB));
    assert_413("B-08c", &client.response("POST"));
    client.assert_closed("B-08c");
    let mut writer = client.writer();
    // Silence for longer than Wardent drains (5 s), then bytes meet a closed socket.
    time::pass(Duration::from_millis(6500));
    time::eventually("the socket is closed on the other side", || {
        writer.write_all(b"x").is_err()
    });
}

#[test]
fn b09_chunks_without_end_are_refused_whole_while_they_come() {
    let rig = small();
    for run in 0..20 {
        let id = format!("B-09 run {run}");
        let mut client = rig.wardent.client();
        client.send(chunked_head());
        let piece = chunked(&noise(16 * KIB), &[16 * KIB]);
        let piece = piece[..piece.len() - 5].to_vec();
        let writer = flood(&client, piece, 4 * MIB);
        assert_413(&id, &client.response("POST"));
        writer.join().unwrap();
    }
    rig::assert_alive("B-09", &rig.wardent);
}

#[test]
fn b09_an_application_that_has_answered_keeps_the_last_word() {
    // Answers from the head alone, long before the bound is crossed.
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        conn.write(origin::answer("200 OK", "X-Early: yes\r\n", b"done"))?;
        conn.wait_for_close()
    });
    let rig = Rig::around(origin, |setup| {
        setup.policy(open_policy(&["body: 64KiB"], ""))
    });
    let mut client = rig.wardent.client();
    client.send(chunked_head());
    client.send("5\r\nhello\r\n");
    let response = client.response("POST");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("x-early"), Some("yes"));
    assert_eq!(response.body, b"done");
}

#[test]
fn b11_a_small_rest_may_be_drained_and_the_connection_kept() {
    let rig = small();
    let mut client = rig.wardent.client();
    let body = noise(65 * KIB);
    client.send_anyway(post("/up", &body));
    assert_413("B-11", &client.response("POST"));
    if client.send_anyway(get_nonce("/next", "next")) {
        // Kept or closed, but never answered from the leftovers.
        if let Ok(response) = client.try_response("GET") {
            assert_eq!((response.status, response.nonce()), (200, "next"));
        }
    }
    assert_eq!(rig.origin.fault(), None);
}

#[test]
fn b13_an_expectation_beyond_the_bound_is_refused_without_100() {
    let rig = small();
    let mut client = rig.wardent.client();
    client.send(format!(
        "POST /up HTTP/1.1\r\n{P}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        64 * KIB + 1
    ));
    let response = client.response("POST");
    assert_413("B-13", &response);
    assert!(response.informational.is_empty(), "B-13: it said go on");
    assert_eq!(rig.origin.bytes(), 0);
}

#[test]
fn b14_the_bound_holds_for_every_method() {
    let rig = Rig::new();
    for method in ["DELETE", "GET", "HEAD", "PUT", "PATCH", "OPTIONS", "PURGE"] {
        let len = 10 * MIB + 1;
        let mark = rig.origin.mark();
        let mut client = rig.wardent.client();
        client.send(length_head(method, len));
        let writer = flood(&client, vec![b'x'; 64 * KIB], len);
        assert_413(&format!("B-14 {method}"), &client.response(method));
        writer.join().unwrap();
        rig.assert_nothing_passed(method, &mark);
    }
}

#[test]
fn b14_a_small_body_of_any_method_passes() {
    let rig = Rig::new();
    for method in ["DELETE", "GET", "HEAD", "PUT", "PATCH", "OPTIONS", "PURGE"] {
        let sent = format!("{}hello", length_head(method, 5));
        let (seen, _) = rig.passed(&format!("B-14b {method}"), sent.as_bytes());
        assert_eq!(seen.body, b"hello", "{method}");
        assert_eq!(seen.head.method, method);
    }
}

#[test]
fn b14_an_empty_body_is_legal() {
    let rig = Rig::new();
    let (seen, _) = rig.passed("B-14c", format!("{}0\r\n\r\n", chunked_head()).as_bytes());
    assert!(seen.body.is_empty());
    let (seen, _) = rig.passed("B-14d", length_head("POST", 0).as_bytes());
    assert!(seen.body.is_empty());
    assert_eq!(seen.header("content-length"), Some("0"));
    let sent = format!("POST /up HTTP/1.1\r\n{P}\r\n");
    let (seen, _) = rig.passed("B-14e", sent.as_bytes());
    assert!(seen.body.is_empty());
}

#[test]
fn b15_a_routes_bound_replaces_the_default() {
    let rules = "routes:
  - name: large
    match: {path: /large}
    body: 1MiB
  - name: tiny
    match: {path: /tiny}
    body: 1KiB
";
    let rig = Rig::with(|setup| setup.policy(open_policy(&["body: 64KiB"], rules)));
    for (id, target, len, status) in [
        ("B-15", "/large", MIB, 200),
        ("B-15b", "/large", MIB + 1, 413),
        ("B-15c", "/tiny", KIB, 200),
        ("B-15d", "/tiny", KIB + 1, 413),
        ("B-15e", "/rest", 64 * KIB, 200),
        ("B-15f", "/rest", 64 * KIB + 1, 413),
    ] {
        let mut client = rig.wardent.client();
        client.send_anyway(post(target, &noise(len)));
        assert_eq!(client.response("POST").status, status, "{id}");
    }
}
