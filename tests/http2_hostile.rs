//! HTTP/2 frames that no honest client sends: what is bounded stays bounded, and others are served.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::sync::Arc;

use support::{
    CLIENT, KEY,
    h2::{
        self, CANCEL, CONTINUATION, END_HEADERS, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE,
        PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, RawH2, block, frame, good_fields,
    },
    origin::{self, Origin},
    rig::{self, Rig},
    time::Gate,
    wardent::Setup,
};

/// Streams of one connection at once, as the documentation says.
const STREAMS_MAX: usize = 128;

fn on(setup: Setup) -> Setup {
    setup.top("http2: true")
}

/// An origin that answers when the gate is open, except for `/alive-…`, which it answers at once.
fn gated(gate: &Arc<Gate>) -> Origin {
    let door = Arc::clone(gate);
    Origin::answering(move |request| {
        if !request.head.target.starts_with("/alive-") {
            door.wait();
        }
        origin::echo(request)
    })
}

#[test]
fn streams_that_are_opened_and_reset_in_a_hurry_crowd_nobody_out() {
    const AT_ONCE: usize = 100;
    let gate = Arc::new(Gate::default());
    let rig = Rig::around(gated(&gate), |setup| {
        on(setup).upstream("max_in_flight: 160")
    });
    let mut h2 = RawH2::connect(rig.wardent.address(), &[]);
    let mut streams = (1_u32..).step_by(2);
    for _ in 0..5 {
        let opened: Vec<_> = streams.by_ref().take(AT_ONCE).collect();
        let before = rig.origin.requests().len();
        for &stream in &opened {
            h2.ask(stream, &good_fields("/reset"));
        }
        // They have been accepted: the protocol's own guard against resets looks away by now.
        rig.origin.wait_for(before + AT_ONCE / 4);
        for stream in opened {
            h2.client
                .send(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
        }
        rig::assert_alive("accepted, then reset", &rig.wardent);
    }
    gate.open();
}

#[test]
fn a_client_that_only_resets_is_sent_away() {
    let gate = Arc::new(Gate::default());
    let rig = Rig::around(gated(&gate), on);
    let mut h2 = RawH2::connect(rig.wardent.address(), &[]);
    let head = block(&good_fields("/reset"));
    let mut hurry = Vec::new();
    for stream in (1..20_000).step_by(2) {
        hurry.extend_from_slice(&frame(HEADERS, h2::END_STREAM | END_HEADERS, stream, &head));
        hurry.extend_from_slice(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    h2.client.send_anyway(hurry);
    let (_, ending) = h2.client.ending();
    assert!(ending.is_some(), "the connection stayed open");
    rig::assert_alive("after rapid reset", &rig.wardent);
    gate.open();
}

#[test]
fn one_connection_has_so_many_requests_at_once_and_no_more() {
    let gate = Arc::new(Gate::default());
    let rig = Rig::around(gated(&gate), on);
    let mut h2 = RawH2::connect(rig.wardent.address(), &[]);
    let streams = u32::try_from(STREAMS_MAX).unwrap();
    for turn in 0..=streams {
        h2.ask(2 * turn + 1, &good_fields("/held"));
    }
    let refused = h2.until(RST_STREAM, 2 * streams + 1);
    assert_eq!(refused.code(), REFUSED_STREAM);
    rig.origin.wait_for(STREAMS_MAX);
    assert_eq!(rig.origin.requests().len(), STREAMS_MAX);
    rig::assert_alive("full connection", &rig.wardent);
    gate.open();
    for _ in 0..STREAMS_MAX {
        while h2.next().unwrap().kind != HEADERS {}
    }
}

#[test]
fn heads_without_an_end_are_cut_off() {
    let rig = Rig::with(on);
    let mut h2 = RawH2::connect(rig.wardent.address(), &[]);
    h2.client
        .send(frame(HEADERS, 0, 1, &block(&good_fields("/flood"))));
    let field = block(&[("x-flood", &"a".repeat(8_000))]);
    let taken = (0..10_000)
        .take_while(|_| h2.client.send_anyway(frame(CONTINUATION, 0, 1, &field)))
        .count();
    assert!(taken < 10_000, "80 MB of one head were taken");
    let mut empty = RawH2::connect(rig.wardent.address(), &[]);
    empty
        .client
        .send(frame(HEADERS, 0, 1, &block(&good_fields("/flood"))));
    let taken = (0..1_000_000)
        .take_while(|_| empty.client.send_anyway(frame(CONTINUATION, 0, 1, b"")))
        .count();
    assert!(taken < 1_000_000, "a million empty frames were taken");
    assert_eq!(rig.origin.requests().len(), 0);
    rig::assert_alive("CONTINUATION flood", &rig.wardent);
}

#[test]
fn an_authority_beside_another_host_is_refused() {
    let rig = Rig::with(on);
    let mut h2 = RawH2::connect(rig.wardent.address(), &[]);
    let with = |more: &[(&'static str, &'static str)]| [&good_fields("/host"), more].concat();
    h2.ask(1, &with(&[("host", "evil.test")]));
    assert_eq!(status(&h2.until(HEADERS, 1)), 400);
    h2.ask(3, &with(&[("host", "app.test"), ("host", "evil.test")]));
    assert_eq!(status(&h2.until(HEADERS, 3)), 400);
    assert_eq!(rig.origin.requests().len(), 0);
    h2.ask(5, &with(&[("host", "app.test")]));
    assert_eq!(status(&h2.until(HEADERS, 5)), 200);
    let only_host: Vec<_> = with(&[("host", "app.test")])
        .into_iter()
        .filter(|(name, _)| *name != ":authority")
        .collect();
    h2.ask(7, &only_host);
    assert_eq!(status(&h2.until(HEADERS, 7)), 200);
    for request in rig.origin.requests() {
        assert_eq!(request.head.fields.all("host"), ["app.test"]);
    }
}

#[test]
fn fields_of_a_connection_have_no_place_in_a_stream() {
    let rig = Rig::with(on);
    let rows = [
        ("connection", "x-wardent-secret"),
        ("connection", "close"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("X-Upper", "1"),
        ("x bad", "1"),
        ("x-split", "1\r\nx-smuggled: 1"),
        (":method", "POST"),
        (":path", "/twice"),
        (":unknown", "1"),
    ];
    for (name, value) in rows {
        let mut h2 = RawH2::connect(rig.wardent.address(), &[]);
        let mut fields = good_fields("/bad");
        fields.push((name, value));
        h2.ask(1, &fields);
        let answer = h2.next().unwrap();
        match answer.kind {
            RST_STREAM => assert_eq!(answer.code(), PROTOCOL_ERROR, "{name}: {value}"),
            GOAWAY => assert_ne!(answer.payload[7], 0, "{name}: {value}"),
            kind => panic!("{name}: {value}: a frame of kind {kind}: {answer:?}"),
        }
    }
    assert_eq!(rig.origin.requests().len(), 0);
    rig::assert_alive("connection fields", &rig.wardent);
}

#[test]
fn targets_and_names_are_judged_as_in_http_1() {
    let rig = Rig::with(on);
    let mut h2 = RawH2::connect(rig.wardent.address(), &[]);
    let rows: &[(&str, Option<(&str, &str)>)] = &[
        ("/a%2fb", None),
        ("/a%00", None),
        ("/../a", None),
        ("/ok", Some(("x_real_ip", "192.0.2.1"))),
        ("/ok", Some(("x-wardent-secret", KEY))),
    ];
    let mut stream = 1;
    for (path, more) in rows {
        let mut fields = good_fields(path);
        fields.extend(*more);
        h2.ask(stream, &fields);
        let answer = h2.until(HEADERS, stream);
        assert!([400, 403].contains(&status(&answer)), "{path} {more:?}");
        stream += 2;
    }
    assert_eq!(rig.origin.requests().len(), 0);
    let mut fields = good_fields("/ok");
    fields.extend([
        ("x-forwarded-for", "192.0.2.1"),
        ("x-wardent-reason", "mine"),
    ]);
    h2.ask(stream, &fields);
    assert_eq!(status(&h2.until(HEADERS, stream)), 200);
    rig::assert_clean("forged", &rig.origin.requests()[0], CLIENT);
}

#[test]
fn an_answer_that_is_never_taken_does_not_stay() {
    let rig = Rig::with(|setup| on(setup).upstream("idle_timeout: 500ms"));
    let mut h2 = RawH2::connect(rig.wardent.address(), &[(INITIAL_WINDOW_SIZE, 0)]);
    h2.ask(1, &good_fields("/taken-never"));
    assert_eq!(status(&h2.until(HEADERS, 1)), 200);
    let (_, ending) = h2.client.ending();
    assert!(ending.is_some(), "the connection stayed open");
}

#[test]
fn a_preface_that_does_not_come_to_its_end_is_no_http_2() {
    let rig = Rig::with(on);
    let template = b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n";
    rig.refused("half a preface", template, &[400], "bad_request");
}

/// The status of an answer's `HEADERS`, which hyper writes first: indexed, or as a literal of three digits.
fn status(headers: &h2::Raw) -> u16 {
    let block = &headers.payload;
    match block[0] {
        0x88 => 200,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        // A literal whose name is `:status` in the static table (RFC 7541 appendix A): the digits
        // are Huffman-coded in two bytes or plain in three.
        0x48 if block[1] == 3 => std::str::from_utf8(&block[2..5]).unwrap().parse().unwrap(),
        0x48 => huffman_digits(&block[2..2 + usize::from(block[1] & 0x7f)]),
        other => panic!("no status: {other:#x} in {block:?}"),
    }
}

/// Three digits in HPACK's Huffman code (RFC 7541 appendix B).
fn huffman_digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let five = (0..5).fold(0, |code, _| code << 1 | bits.next().unwrap());
        let digit = match five {
            0..=2 => five,
            // 3 to 9 have six bits, from 0x19 on.
            _ => (five << 1 | bits.next().unwrap()) - 0x19 + 3,
        };
        number = number * 10 + digit;
    }
    number
}
