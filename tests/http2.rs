//! HTTP/2 by prior knowledge: a stream meets what an HTTP/1.1 request meets, and loses nothing.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Frame};
use support::{
    CLIENT,
    h2::{
        DATA, GOAWAY, RawH2, bytes_of, connect, field, get, good, good_fields, run, streamed, whole,
    },
    noise,
    origin::{self, Origin},
    rig::{self, Rig},
    time::Gate,
    wardent::{Setup, open_policy},
};

const WINDOW: u32 = 1 << 20;

fn on(setup: Setup) -> Setup {
    setup.top("http2: true").upstream("pool_idle: 10s")
}

#[test]
fn requests_and_answers_are_those_of_http_1() {
    let rig = Rig::with(on);
    run(async {
        let (mut h2, _end) = connect(rig.wardent.address(), WINDOW).await;
        let request = good("GET", "/a%20b/?x=%2f").header("x-nonce", "n1");
        let answer = h2
            .send_request(request.body(whole("")).unwrap())
            .await
            .unwrap();
        assert_eq!(
            (answer.status().as_u16(), field(&answer, "x-nonce")),
            (200, "n1")
        );
        assert_eq!(answer.version(), Version::HTTP_2);
        for gone in ["connection", "transfer-encoding", "keep-alive"] {
            assert_eq!(field(&answer, gone), "", "{gone}");
        }
        assert!(!field(&answer, "x-request-id").is_empty());
        let body = noise(300_000);
        let request = good("PUT", "/put").body(whole(body.clone())).unwrap();
        assert_eq!(h2.send_request(request).await.unwrap().status(), 200);
        let seen = rig.origin.requests();
        assert_eq!(seen[0].head.method, "GET");
        assert_eq!(seen[0].head.target, "/a%20b/?x=%2f");
        assert_eq!(seen[0].header("host"), Some("app.test"));
        assert!(seen[1].body == body, "the body was altered");
        for request in &seen {
            rig::assert_clean("h2", request, CLIENT);
        }
    });
    assert_eq!(rig.origin.fault(), None);
    // The same listener still speaks HTTP/1.1.
    rig::assert_alive("beside HTTP/2", &rig.wardent);
}

#[test]
fn a_listener_that_was_not_asked_speaks_no_http_2() {
    let rig = Rig::new();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    rig.refused("preface", preface, &[400], "bad_request");
}

#[test]
fn cookies_that_were_split_are_one_again() {
    let rig = Rig::with(on);
    run(async {
        let (mut h2, _end) = connect(rig.wardent.address(), WINDOW).await;
        let request = good("GET", "/")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        h2.send_request(request.body(whole("")).unwrap())
            .await
            .unwrap();
    });
    assert_eq!(rig.origin.requests()[0].header("cookie"), Some("a=1; b=2"));
}

#[test]
fn both_directions_stream_at_once() {
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..3 {
            let piece = conn.chunk_bytes(4)?;
            conn.write([b"4\r\n", piece.as_slice(), b"\r\n"].concat())?;
        }
        conn.write("0\r\n\r\n")
    });
    let rig = Rig::around(origin, on);
    run(async {
        let (mut h2, _end) = connect(rig.wardent.address(), WINDOW).await;
        let (pieces, body) = streamed();
        let answer = h2
            .send_request(good("POST", "/").body(body).unwrap())
            .await
            .unwrap();
        let mut echoed = answer.into_body();
        for piece in ["ping", "pong", "last"] {
            pieces.send(Frame::data(Bytes::from(piece))).await.unwrap();
            let frame = echoed.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }
        drop(pieces);
        let rest = echoed.collect().await.unwrap().to_bytes();
        assert_eq!(rest, "", "more than was sent");
    });
}

#[test]
fn trailers_pass_both_ways() {
    let origin = Origin::answering(|_| {
        let head = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}2\r\nok\r\n0\r\nX-Sum: back\r\n\r\n").into_bytes()
    });
    let rig = Rig::around(origin, on);
    run(async {
        let (mut h2, _end) = connect(rig.wardent.address(), WINDOW).await;
        let (pieces, body) = streamed();
        let request = good("POST", "/")
            .header("trailer", "x-sum")
            .header("te", "trailers");
        let answering = h2.send_request(request.body(body).unwrap());
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "forth".parse().unwrap());
        let sending = async {
            pieces.send(Frame::data(Bytes::from("data"))).await.unwrap();
            pieces.send(Frame::trailers(trailers)).await.unwrap();
            drop(pieces);
        };
        let (answer, ()) = tokio::join!(answering, sending);
        let answer = answer.unwrap().into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["x-sum"], "back");
        assert_eq!(answer.to_bytes(), "ok");
    });
    let seen = rig.origin.requests().remove(0);
    assert_eq!(seen.body, b"data");
    assert_eq!(seen.trailers.one("x-sum"), Some("forth"));
}

#[test]
fn a_body_over_the_bound_is_refused_whole() {
    let policy = open_policy(&["body: 64KiB"], "");
    let rig = Rig::with(|setup| on(setup).policy(policy));
    run(async {
        let (mut h2, _end) = connect(rig.wardent.address(), WINDOW).await;
        let declared = good("POST", "/declared").header("content-length", "1000000");
        let (_unsent, body) = streamed();
        let answer = h2.send_request(declared.body(body).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 413);
        assert_eq!(field(&answer, "x-wardent-reason"), "body_too_large");

        let (pieces, body) = streamed();
        let answering = h2.send_request(good("POST", "/streaming").body(body).unwrap());
        let sending = async {
            // Until Wardent wants no more of it, or far beyond the bound.
            for _ in 0..64 {
                let piece = Frame::data(Bytes::from(vec![b'x'; 16 * 1024]));
                if pieces.send(piece).await.is_err() {
                    break;
                }
            }
        };
        let (answer, ()) = tokio::join!(answering, sending);
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 413);
        assert_eq!(field(&answer, "x-wardent-reason"), "body_too_large");
        drop(pieces);

        let answer = h2.send_request(get("/next")).await.unwrap();
        assert_eq!(answer.status(), 200, "the connection serves on");
    });
    let seen = rig.origin.requests();
    assert!(
        seen.iter()
            .all(|request| request.head.target != "/declared")
    );
    assert!(seen.iter().all(|request| request.body.len() <= 64 * 1024));
}

#[test]
fn heads_are_bounded_as_they_are_in_http_1() {
    let rig = Rig::with(on);
    run(async {
        let (mut h2, _end) = connect(rig.wardent.address(), WINDOW).await;
        let large = good("GET", "/large").header("x-large", "a".repeat(40_000));
        let answer = h2
            .send_request(large.body(whole("")).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert!(bytes_of(answer).await.len() > 40_000);
        let long = good("GET", "/long").header("x-long", "a".repeat(70_000));
        let answer = h2
            .send_request(long.body(whole("")).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status(), 431);
        assert_eq!(field(&answer, "x-wardent-reason"), "bad_request");
        let longer = good("GET", "/longer").header("x-longer", "a".repeat(200_000));
        if let Ok(answer) = h2.send_request(longer.body(whole("")).unwrap()).await {
            assert_eq!(answer.status(), 431);
        }
    });
    assert_eq!(rig.origin.requests().len(), 1);
    rig::assert_alive("long heads", &rig.wardent);
}

#[test]
fn an_answer_may_have_as_many_fields_as_in_http_1() {
    let origin = Origin::answering(|_| {
        let cookies: String = (0..500)
            .map(|n| format!("Set-Cookie: c{n}=1\r\n"))
            .collect();
        origin::answer("200 OK", &cookies, b"ok")
    });
    let rig = Rig::around(origin, on);
    run(async {
        let (mut h2, _end) = connect(rig.wardent.address(), WINDOW).await;
        let answer = h2.send_request(get("/")).await.unwrap();
        assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 500);
        assert_eq!(bytes_of(answer).await, "ok");
    });
}

#[test]
fn the_secret_and_the_identity_are_judged() {
    let rig = Rig::with(on);
    run(async {
        let (mut h2, _end) = connect(rig.wardent.address(), WINDOW).await;
        let rows: &[(&str, &str, &str, u16, &str)] = &[
            ("no secret", "x-other", "1", 403, "bad_secret"),
            (
                "a wrong one",
                "x-wardent-secret",
                "wrong",
                403,
                "bad_secret",
            ),
        ];
        for (id, name, value, status, reason) in rows {
            let request = http::Request::get("http://app.test/")
                .header("cf-connecting-ip", CLIENT)
                .header(*name, *value);
            let answer = h2
                .send_request(request.body(whole("")).unwrap())
                .await
                .unwrap();
            assert_eq!(answer.status(), *status, "{id}");
            assert_eq!(field(&answer, "x-wardent-reason"), *reason, "{id}");
            assert!(!field(&answer, "x-request-id").is_empty(), "{id}");
        }
        let twice = good("GET", "/").header("cf-connecting-ip", "192.0.2.1");
        let answer = h2
            .send_request(twice.body(whole("")).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status(), 400);
        assert_eq!(field(&answer, "x-wardent-reason"), "bad_client_ip");
        let connect = good("CONNECT", "")
            .uri("app.test:443")
            .body(whole(""))
            .unwrap();
        let answer = h2.send_request(connect).await.unwrap();
        assert_eq!(answer.status(), 405);
    });
    assert_eq!(rig.origin.requests().len(), 0);
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let rig = Rig::with(on);
    run(async {
        let (h2, _end) = connect(rig.wardent.address(), WINDOW).await;
        let asking: Vec<_> = (0..400)
            .map(|n| {
                let mut h2 = h2.clone();
                tokio::spawn(async move {
                    let nonce = format!("n{n}");
                    let request = good("GET", "/").header("x-nonce", &nonce);
                    h2.ready().await.unwrap();
                    let answer = h2
                        .send_request(request.body(whole("")).unwrap())
                        .await
                        .unwrap();
                    assert_eq!(
                        (answer.status().as_u16(), field(&answer, "x-nonce")),
                        (200, &*nonce)
                    );
                    assert!(!bytes_of(answer).await.is_empty());
                })
            })
            .collect();
        for asked in asking {
            asked.await.unwrap();
        }
    });
    assert_eq!(rig.origin.requests().len(), 400);
}

#[test]
fn a_client_that_does_not_read_holds_back_its_own_stream_only() {
    let body = Arc::new(noise(3_000_000));
    let sent = Arc::clone(&body);
    let origin = Origin::answering(move |request| {
        if request.head.target == "/large" {
            return origin::answer("200 OK", "", &sent);
        }
        origin::echo(request)
    });
    let rig = Rig::around(origin, on);
    run(async {
        let (mut h2, _end) = connect(rig.wardent.address(), 16 * 1024).await;
        let large = h2.send_request(get("/large")).await.unwrap();
        assert_eq!(large.status(), 200);
        for _ in 0..20 {
            let answer = h2.send_request(get("/small")).await.unwrap();
            assert_eq!(answer.status(), 200);
            bytes_of(answer).await;
        }
        assert!(bytes_of(large).await == *body, "the body was altered");
    });
}

#[test]
fn a_client_that_goes_away_ends_its_request() {
    let origin = Origin::scripted(|conn| {
        let head = conn.head()?;
        if head.target == "/next" {
            return conn.write(origin::answer("200 OK", "", b"ok"));
        }
        conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")?;
        conn.wait_for_close()
    });
    let rig = Rig::around(origin, on);
    run(async {
        let (mut h2, _end) = connect(rig.wardent.address(), WINDOW).await;
        let mut answer = h2.send_request(get("/endless")).await.unwrap();
        let first = answer.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "ok");
        drop(answer);
        let (pieces, body) = streamed();
        let half = h2
            .send_request(good("POST", "/half").body(body).unwrap())
            .await
            .unwrap();
        pieces.send(Frame::data(Bytes::from("half"))).await.unwrap();
        drop(half);
        drop(pieces);
        let next = h2.send_request(get("/next")).await.unwrap();
        assert_eq!(next.status(), 200);
        // While the connection still serves.
        for connection in 0..2 {
            while !rig.origin.has_ended(connection) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
}

#[test]
fn half_an_answer_is_not_taken_for_a_whole_one() {
    let origin = Origin::scripted(|conn| {
        conn.head()?;
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
        conn.close()
    });
    let rig = Rig::around(origin, on);
    run(async {
        let (mut h2, _end) = connect(rig.wardent.address(), WINDOW).await;
        let answer = h2.send_request(get("/")).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(
            answer.into_body().collect().await.is_err(),
            "it looked whole"
        );
    });
}

#[test]
fn a_drain_says_goodbye_and_lets_answers_end() {
    let gate = Arc::new(Gate::default());
    let door = Arc::clone(&gate);
    let origin = Origin::answering(move |_| {
        door.wait();
        origin::answer("200 OK", "", b"in the end")
    });
    let rig = Rig::around(origin, on);
    let mut h2 = RawH2::connect(rig.wardent.address(), &[]);
    h2.ask(1, &good_fields("/last"));
    rig.origin.wait_for(1);
    rig.wardent.drain();
    let goodbye = h2.until(GOAWAY, 0);
    assert_eq!(goodbye.payload[4..8], [0; 4], "no error");
    gate.open();
    let rest = h2.rest();
    let answer = rest.iter().find(|raw| raw.kind == DATA).unwrap();
    assert_eq!((answer.stream, &*answer.payload), (1, &b"in the end"[..]));
    rig.wardent.wait();
}

#[test]
fn an_idle_connection_ends_after_keep_alive() {
    let rig = Rig::with(|setup| on(setup).top("keep_alive: 1s"));
    run(async {
        let (mut h2, end) = connect(rig.wardent.address(), WINDOW).await;
        bytes_of(h2.send_request(get("/")).await.unwrap()).await;
        end.await.unwrap().unwrap();
    });
}
