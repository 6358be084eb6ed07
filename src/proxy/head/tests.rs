//! Heads, whole and broken, and what becomes of them.

use super::*;

fn names() -> ConfiguredNames {
    ConfiguredNames {
        client_ip: "cf-connecting-ip".to_owned(),
        secret: "x-wardent-secret".to_owned(),
        ..ConfiguredNames::default()
    }
}

fn parse(text: &[u8]) -> Result<RequestHead, u16> {
    let mut head = RequestHead::default();
    match head.parse(text, &names()) {
        Ok(Some(length)) => {
            assert!(length <= text.len());
            Ok(head)
        }
        Ok(None) => Err(0),
        Err(error) => Err(error.status),
    }
}

#[test]
fn an_underscore_is_seen_wherever_it_stands() {
    for length in 1..40 {
        let name = "`^".repeat(20)[..length].to_owned();
        assert!(!has_underscore(name.as_bytes()), "{name}");
        for place in 0..length {
            let mut name = name.clone();
            name.replace_range(place..=place, "_");
            assert!(has_underscore(name.as_bytes()), "{name}");
        }
    }
}

fn with(line: &str, fields: &str) -> Result<RequestHead, u16> {
    parse(format!("{line} HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n").as_bytes())
}

#[test]
fn a_plain_request_is_read_as_it_stands() {
    let head = with("GET /a?b=c", "User-Agent: x\r\nAccept: */*\r\n").unwrap();
    assert_eq!(head.method(), b"GET");
    assert_eq!(head.target(), b"/a?b=c");
    assert_eq!(head.path(), b"/a");
    assert_eq!(head.host(), b"app.test");
    assert_eq!(head.user_agent(), b"x");
    assert_eq!(head.framing, Framing::None);
    assert_eq!(head.fields().count(), 3);
}

#[test]
fn two_readings_of_the_length_are_refused() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding:\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
    ] {
        assert_eq!(with("POST /", fields).err(), Some(400), "{fields:?}");
    }
    assert_eq!(
        with("POST /", "Transfer-Encoding: gzip, chunked\r\n").err(),
        Some(501)
    );
    assert_eq!(
        with("POST /", "Transfer-Encoding: identity\r\n").err(),
        Some(501)
    );
    let chunked = with("POST /", "Transfer-Encoding: Chunked\t\r\n").unwrap();
    assert_eq!(chunked.framing, Framing::Chunked);
}

#[test]
fn hosts_and_targets_have_one_meaning() {
    assert_eq!(with("GET /", "Host: b.test\r\n").err(), Some(400));
    assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n").err(), Some(400));
    assert_eq!(
        parse(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n").err(),
        Some(400)
    );
    assert_eq!(
        parse(b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n").err(),
        Some(400)
    );
    assert_eq!(with("GET http://evil.test/a", "").err(), Some(400));
    assert_eq!(with("GET a", "").err(), Some(400));
    assert_eq!(with("GET /a#b", "").err(), Some(400));
    assert_eq!(with("GET *", "").err(), Some(400));
    assert_eq!(with("OPTIONS *", "").unwrap().target(), b"*");
    assert_eq!(
        with("GET HTTP://APP.test/a?b", "").unwrap().target(),
        b"/a?b"
    );
    assert_eq!(with("CONNECT app.test:443", "").err(), Some(405));
    assert_eq!(with("TRACE /", "").err(), Some(405));
}

#[test]
fn lines_end_as_they_must() {
    assert_eq!(parse(b"GET / HTTP/1.1\nHost: a\n\n").err(), Some(400));
    assert_eq!(
        parse(b"GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n").err(),
        Some(400)
    );
    assert!(parse(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    assert_eq!(parse(&b"\r\n".repeat(50_000)).err(), Some(400));
}

#[test]
fn names_and_sizes_are_bounded() {
    assert_eq!(with("GET /", "X_Real_IP: 1\r\n").err(), Some(400));
    assert_eq!(with("GET /", &"X: y\r\n".repeat(100)).err(), Some(431));
    assert_eq!(
        with("GET /", &format!("X: {}\r\n", "a".repeat(70_000))).err(),
        Some(431)
    );
    assert_eq!(
        with(&format!("GET /{}", "a".repeat(65_534)), "").err(),
        Some(414)
    );
    assert_eq!(
        with(&format!("GET /{}", "a".repeat(40_000)), "").err(),
        Some(414)
    );
    assert!(with(&format!("GET /{}", "a".repeat(8_000)), "").is_ok());
}

#[test]
fn only_a_whole_handshake_is_an_upgrade() {
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n";
    assert_eq!(with("GET /", handshake).unwrap().upgrade, Upgrade::Yes);
    assert_eq!(with("POST /", handshake).unwrap().upgrade, Upgrade::No);
    for left_out in ["Connection: Upgrade\r\n", "Sec-WebSocket-Key: a\r\n"] {
        let fields = handshake.replace(left_out, "");
        assert_eq!(with("GET /", &fields).unwrap().upgrade, Upgrade::No);
    }
    let old = handshake.replace("13", "12");
    assert_eq!(with("GET /", &old).unwrap().upgrade, Upgrade::No);
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n";
    assert_eq!(with("GET /", h2c).unwrap().upgrade, Upgrade::No);
}

#[test]
fn half_a_head_is_no_error_yet() {
    let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for end in 0..whole.len() {
        assert_eq!(parse(whole.get(..end).unwrap()).err(), Some(0));
    }
}
