//! Group I: who the client is, is said by a peer that may say it, and by nobody else.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use support::{
    CLIENT, P, P_NOIP,
    message::Request,
    origin::Origin,
    p_from, rig,
    rig::Rig,
    wardent::{Setup, Wardent, open_policy},
};

/// The address Wardent tells the application.
fn told(request: &Request) -> &str {
    let real_ip = request.header("x-real-ip").unwrap_or("(none)");
    assert_eq!(request.header("x-forwarded-for"), Some(real_ip));
    real_ip
}

/// Headers that only a trusted hop may set, forged.
const FORGED: &str = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nTrue-Client-IP: 203.0.113.9\r\n";

#[test]
fn i01_a_trusted_peer_says_who_the_client_is() {
    let rig = Rig::new();
    let (seen, _) = rig.passed("I-01", b"GET /whoami HTTP/1.1\r\n{P}\r\n");
    assert_eq!(told(&seen), CLIENT);
}

#[test]
fn i01_a_unix_peer_is_trusted() {
    let rig = Rig::with(Setup::unix_listener);
    let (seen, _) = rig.passed("I-01b", b"GET /whoami HTTP/1.1\r\n{P}\r\n");
    assert_eq!(told(&seen), CLIENT);
}

#[test]
fn i02_a_stranger_is_its_own_socket_address() {
    let rig = Rig::new();
    let sent = format!("GET /whoami HTTP/1.1\r\n{P}{FORGED}\r\n");
    let mark = rig.origin.mark();
    assert_eq!(rig.wardent.stranger().ask(&sent).status, 200);
    let seen = rig.origin.only_request();
    assert_eq!(told(&seen), "127.0.0.2");
    rig.assert_invariants_for("I-02", sent.as_bytes(), &mark, "127.0.0.2");
}

#[test]
fn i02_a_stranger_needs_no_header_to_be_itself() {
    let rig = Rig::new();
    let sent = format!("GET /whoami HTTP/1.1\r\n{P_NOIP}\r\n");
    assert_eq!(rig.wardent.stranger().ask(sent).status, 200);
    assert_eq!(told(&rig.origin.only_request()), "127.0.0.2");
}

#[test]
fn i02_a_strangers_word_denies_nobody_and_allows_nobody() {
    let policy = open_policy(&[], "deny: [203.0.113.0/24, 127.0.0.2/32]\n");
    let rig = Rig::with(|setup| setup.policy(policy));
    // Said by a trusted peer, the denied network is denied.
    let denied = format!("GET /a HTTP/1.1\r\n{}\r\n", p_from("203.0.113.9"));
    let response = rig.wardent.ask(&denied);
    rig::assert_refusal("I-02c", &response, &[403], "denied");
    // A stranger who names a good address stays the denied one that it is.
    let response = rig
        .wardent
        .stranger()
        .ask(format!("GET /a HTTP/1.1\r\n{P}\r\n"));
    rig::assert_refusal("I-02d", &response, &[403], "denied");
    assert_eq!(rig.origin.bytes(), 0);
}

#[test]
fn i02_a_stranger_cannot_get_another_denied() {
    let policy = open_policy(&[], "deny: [203.0.113.0/24]\n");
    let rig = Rig::with(|setup| setup.policy(policy));
    let forged = format!("GET /a HTTP/1.1\r\n{}\r\n", p_from("203.0.113.9"));
    assert_eq!(rig.wardent.stranger().ask(forged).status, 200);
    assert_eq!(told(&rig.origin.only_request()), "127.0.0.2");
}

#[test]
fn an_identity_that_is_not_one_is_refused() {
    let rig = Rig::new();
    let rows: &[(&str, &[u8])] = &[
        (
            "I-03",
            b"CF-Connecting-IP: 203.0.113.9\r\nCF-Connecting-IP: 198.51.100.7\r\n",
        ),
        (
            "I-05",
            b"CF-Connecting-IP: 198.51.100.7\r\ncf-connecting-ip: 198.51.100.7\r\n",
        ),
        ("I-04", b"CF-Connecting-IP: 203.0.113.9, 198.51.100.7\r\n"),
        ("I-04b", b"CF-Connecting-IP: 198.51.100.7,\r\n"),
        ("I-08", b""),
        ("I-10", b"CF-Connecting-IP: 999.1.1.1\r\n"),
        ("I-10b", b"CF-Connecting-IP: 1.2.3\r\n"),
        ("I-10c", b"CF-Connecting-IP: 0x7f.1\r\n"),
        ("I-10d", b"CF-Connecting-IP: 010.0.0.1\r\n"),
        ("I-10e", b"CF-Connecting-IP: 1.2.3.4:80\r\n"),
        ("I-10f", b"CF-Connecting-IP: [::1]\r\n"),
        ("I-10g", b"CF-Connecting-IP: [2001:db8::1]\r\n"),
        ("I-10h", b"CF-Connecting-IP: ::1%lo\r\n"),
        ("I-10i", b"CF-Connecting-IP: 2001:db8::1%eth0\r\n"),
        ("I-10j", b"CF-Connecting-IP: \r\n"),
        ("I-10k", b"CF-Connecting-IP:  \t \r\n"),
        ("I-10l", b"CF-Connecting-IP: 198.51.100.7 203.0.113.9\r\n"),
        ("I-10m", b"CF-Connecting-IP: 198.51.100.7/32\r\n"),
        ("I-10n", b"CF-Connecting-IP: 3325256711\r\n"),
        ("I-10o", b"CF-Connecting-IP: 198.51.100.07\r\n"),
        ("I-10p", b"CF-Connecting-IP: 1.2.3.4.5\r\n"),
        ("I-10q", b"CF-Connecting-IP: unknown\r\n"),
        ("I-10r", b"CF-Connecting-IP: 198.51.100.7\xc2\xa0\r\n"),
        ("I-10s", b"CF-Connecting-IP: \xef\xbc\x91.2.3.4\r\n"),
        ("I-10t", b"CF-Connecting-IP: 2001:db8::1::2\r\n"),
        ("I-10u", b"CF-Connecting-IP: 2001:db8:1:2:3:4:5:6:7\r\n"),
        ("I-10v", b"CF-Connecting-IP: for=198.51.100.7\r\n"),
        ("I-10w", b"CF-Connecting-IP: \"198.51.100.7\"\r\n"),
    ];
    let long = format!("CF-Connecting-IP: {}\r\n", "1".repeat(300));
    let long = ("I-10x", long.as_bytes());
    for (id, lines) in rows.iter().chain([&long]) {
        let sent = [b"GET /whoami HTTP/1.1\r\n{P-noip}", *lines, b"\r\n"].concat();
        rig.refused_politely(id, &sent, &[400], "bad_client_ip");
    }
}

#[test]
fn an_address_no_client_can_have_is_refused() {
    let rig = Rig::new();
    let rows = [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "::ffff:127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.254",
        "192.168.1.1",
        "169.254.1.1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "fe80::1",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
    ];
    for address in rows {
        let id = format!("I-13 {address}");
        let sent = format!("GET /whoami HTTP/1.1\r\n{}\r\n", p_from(address));
        rig.refused_politely(&id, sent.as_bytes(), &[400], "bad_client_ip");
    }
}

#[test]
fn i13_no_list_lets_a_claimed_loopback_in() {
    let policy = open_policy(&[], "allow: [127.0.0.0/8, 10.0.0.0/8]\n");
    let rig = Rig::with(|setup| setup.policy(policy));
    for address in ["127.0.0.1", "10.0.0.1"] {
        let sent = format!("GET /a HTTP/1.1\r\n{}\r\n", p_from(address));
        rig.refused_politely("I-13b", sent.as_bytes(), &[400], "bad_client_ip");
    }
}

#[test]
fn i11_one_address_has_one_spelling() {
    let rig = Rig::new();
    let rows = [
        ("I-11", "::ffff:198.51.100.7", "198.51.100.7"),
        ("I-11b", "::FFFF:C633:6407", "198.51.100.7"),
        ("I-11c", "2001:DB8::1", "2001:db8::1"),
        (
            "I-11d",
            "2001:0db8:0000:0000:0000:0000:0000:0001",
            "2001:db8::1",
        ),
        ("I-11e", "2001:db8:0:0:1::", "2001:db8:0:0:1::"),
        ("I-11f", "64:ff9b::c633:6407", "198.51.100.7"),
        ("I-11g", "\t198.51.100.7 \t", "198.51.100.7"),
        ("I-11h", "203.0.113.255", "203.0.113.255"),
        ("I-11i", "8.8.8.8", "8.8.8.8"),
        ("I-11j", "2606:4700::1111", "2606:4700::1111"),
    ];
    for (id, said, canonical) in rows {
        let mark = rig.origin.mark();
        let sent = format!("GET /whoami HTTP/1.1\r\n{P_NOIP}CF-Connecting-IP: {said}\r\n\r\n");
        assert_eq!(rig.wardent.ask(&sent).status, 200, "{id}");
        let seen = rig.origin.requests_since(&mark);
        assert_eq!(told(&seen[0]), canonical, "{id}");
    }
}

#[test]
fn i06_connection_cannot_strip_what_wardent_reads_or_sets() {
    let rig = Rig::new();
    let rows = [
        (
            "I-06",
            "close, CF-Connecting-IP, X-Forwarded-For, X-Real-IP",
        ),
        (
            "I-06b",
            "keep-alive, x-real-ip, x-request-id, via, x-forwarded-proto, x-forwarded-host",
        ),
        ("I-07", "host"),
        ("I-07b", "X-Wardent-Secret, CF-Connecting-IP"),
    ];
    for (id, list) in rows {
        let sent = format!("GET /whoami HTTP/1.1\r\n{P}Connection: {list}\r\n\r\n");
        let (seen, _) = rig.passed(id, sent.as_bytes());
        assert_eq!(told(&seen), CLIENT, "{id}");
        assert_eq!(seen.header("host"), Some("app.test"), "{id}");
        for name in [
            "x-request-id",
            "x-forwarded-proto",
            "x-forwarded-host",
            "via",
        ] {
            assert!(seen.head.fields.has(name), "{id}: {name} is gone");
        }
    }
}

#[test]
fn i07_connection_cannot_strip_the_framing() {
    let rig = Rig::new();
    let sent = format!(
        "POST /a HTTP/1.1\r\n{P}Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello"
    );
    let (seen, _) = rig.passed("I-07c", sent.as_bytes());
    assert_eq!(seen.body, b"hello");
    let sent = format!(
        "POST /a HTTP/1.1\r\n{P}Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    );
    let (seen, _) = rig.passed("I-07d", sent.as_bytes());
    assert_eq!(seen.body, b"hello");
}

#[test]
fn i14_the_application_gets_one_proven_address() {
    let rig = Rig::new();
    let sent = format!("GET /whoami HTTP/1.1\r\n{P}{FORGED}\r\n");
    let (seen, _) = rig.passed("I-14", sent.as_bytes());
    assert_eq!(told(&seen), CLIENT);
    for value in seen.head.fields.all("forwarded") {
        assert!(!value.contains("203.0.113.9"), "{value}");
    }
}

#[test]
fn i08_missing_peer_passes_and_claims_nobody() {
    let rig = Rig::with(|setup| setup.client_ip("missing: peer"));
    let sent = format!("GET /whoami HTTP/1.1\r\n{P_NOIP}{FORGED}\r\n");
    assert_eq!(rig.wardent.ask(sent).status, 200);
    let seen = rig.origin.only_request();
    let values = [
        seen.head.fields.all("x-forwarded-for"),
        seen.head.fields.all("x-real-ip"),
        seen.head.fields.all("forwarded"),
        seen.head.fields.all("true-client-ip"),
    ]
    .concat();
    for value in values {
        assert!(!value.contains("203.0.113.9"), "I-08b: {value}");
        assert!(!value.contains("10.0.0.1"), "I-08b: {value}");
    }
    // A garbled address is not a missing one.
    let garbled = format!("GET /a HTTP/1.1\r\n{P_NOIP}CF-Connecting-IP: x\r\n\r\n");
    let response = rig.wardent.ask(garbled);
    rig::assert_refusal("I-08c", &response, &[400], "bad_client_ip");
}

#[test]
fn i09_nobody_is_never_limited_as_a_client() {
    let policy = "mode: enforce\ndefaults:\n  limit: {rate: 1/h, burst: 1}\n";
    let rig = Rig::with(|setup| setup.client_ip("missing: peer").policy(policy));
    let sent = format!("GET /whoami HTTP/1.1\r\n{P_NOIP}\r\n");
    for turn in 0..20 {
        assert_eq!(rig.wardent.ask(&sent).status, 200, "I-09: turn {turn}");
    }
}

#[test]
fn i08_many_requests_without_identity_do_not_touch_the_peer() {
    let policy =
        "mode: enforce\nbans: {threshold: 2}\ndefaults:\n  limit: {rate: 1000/s, burst: 1000}\n";
    let rig = Rig::with(|setup| setup.policy(policy));
    let sent = format!("GET /whoami HTTP/1.1\r\n{P_NOIP}\r\n");
    for _ in 0..20 {
        let response = rig.wardent.ask(&sent);
        rig::assert_refusal("I-08d", &response, &[400], "bad_client_ip");
    }
    rig::assert_alive("I-08d", &rig.wardent);
}

/// A limit that a client meets at its fourth request.
const THREE_AN_HOUR: &str = "mode: enforce
bans: {threshold: 1000000}
defaults:
  limit: {rate: 1/h, burst: 3}
";

/// How many of the requests pass, each from the address given.
fn passing(wardent: &Wardent, addresses: impl Iterator<Item = String>) -> usize {
    addresses
        .filter(|address| {
            let sent = format!("GET /whoami HTTP/1.1\r\n{}\r\n", p_from(address));
            let response = wardent.ask(sent);
            if response.status != 200 {
                rig::assert_refusal(address, &response, &[429], "rate_limited");
            }
            response.status == 200
        })
        .count()
}

#[test]
fn i12_one_ipv6_client_is_one_64() {
    let rig = Rig::with(|setup| setup.policy(THREE_AN_HOUR));
    let same = (0..100).map(|n| format!("2001:db8:1:2::{n:x}"));
    assert_eq!(passing(&rig.wardent, same), 3);
    let other = (0..5).map(|n| format!("2001:db8:1:3::{n:x}"));
    assert_eq!(passing(&rig.wardent, other), 3);
}

#[test]
fn i12_the_prefix_of_a_client_can_be_chosen() {
    let rig = Rig::with(|setup| setup.client_ip("ipv6_prefix: 48").policy(THREE_AN_HOUR));
    let same = (0..20).map(|n| format!("2001:db8:1:{n:x}::1"));
    assert_eq!(passing(&rig.wardent, same), 3);
    let other = (0..5).map(|n| format!("2001:db8:2:{n:x}::1"));
    assert_eq!(passing(&rig.wardent, other), 3);
}

#[test]
fn i01_limits_go_by_the_client_and_not_by_the_peer() {
    let rig = Rig::with(|setup| setup.policy(THREE_AN_HOUR));
    let one = || (0..10).map(|_| "198.51.100.20".to_owned());
    assert_eq!(passing(&rig.wardent, one()), 3);
    let mapped = (0..5).map(|_| "::ffff:198.51.100.20".to_owned());
    assert_eq!(passing(&rig.wardent, mapped), 0);
    let another = (0..10).map(|_| "198.51.100.21".to_owned());
    assert_eq!(passing(&rig.wardent, another), 3);
}

#[test]
fn i15_the_identity_header_can_be_another() {
    let rig = Rig::with(|setup| setup.client_ip("header: x-real-ip"));
    let sent = format!(
        "GET /whoami HTTP/1.1\r\n{P_NOIP}X-Real-IP: {CLIENT}\r\nCF-Connecting-IP: 203.0.113.9\r\n\r\n"
    );
    assert_eq!(rig.wardent.ask(sent).status, 200);
    assert_eq!(told(&rig.origin.only_request()), CLIENT);
    let without = format!("GET /whoami HTTP/1.1\r\n{P}\r\n");
    let response = rig.wardent.ask(without);
    rig::assert_refusal("I-15", &response, &[400], "bad_client_ip");
}

fn behind_the_edge() -> Rig {
    Rig::with(|setup| setup.client_ip("edge: {header: x-real-ip, networks: cloudflare}"))
}

#[test]
fn i15_the_edge_is_believed_when_the_hop_before_is_its_own() {
    let rig = behind_the_edge();
    for (id, hop) in [("I-15b", "104.16.0.1"), ("I-15c", "2606:4700::1")] {
        let mark = rig.origin.mark();
        let sent = format!("GET /whoami HTTP/1.1\r\n{P}X-Real-IP: {hop}\r\n\r\n");
        assert_eq!(rig.wardent.ask(sent).status, 200, "{id}");
        assert_eq!(told(&rig.origin.requests_since(&mark)[0]), CLIENT, "{id}");
    }
}

#[test]
fn i15_an_edge_that_does_not_match_is_a_missing_header() {
    let rig = behind_the_edge();
    let rows = [
        ("I-15d", "X-Real-IP: 203.0.113.5\r\n"),
        ("I-15e", ""),
        (
            "I-15f",
            "X-Real-IP: 104.16.0.1\r\nX-Real-IP: 104.16.0.1\r\n",
        ),
        ("I-15g", "X-Real-IP: 104.16.0.1, 203.0.113.5\r\n"),
        ("I-15h", "X-Real-IP: x\r\n"),
    ];
    for (id, lines) in rows {
        let sent = format!("GET /whoami HTTP/1.1\r\n{P}{lines}\r\n");
        let response = rig.wardent.ask(sent);
        rig::assert_refusal(id, &response, &[400], "bad_client_ip");
    }
    assert_eq!(rig.origin.bytes(), 0);
}

#[test]
fn i16_the_trusted_peers_are_exactly_the_ones_named() {
    let origin = Origin::echo();
    let wardent = Wardent::setup(&origin)
        .trusted_peers("127.0.0.2/32")
        .start();
    let sent = format!("GET /whoami HTTP/1.1\r\n{P}\r\n");
    assert_eq!(wardent.client().ask(&sent).status, 200);
    assert_eq!(wardent.stranger().ask(&sent).status, 200);
    let seen: Vec<_> = origin
        .wait_for(2)
        .iter()
        .map(|request| told(request).to_owned())
        .collect();
    assert_eq!(seen, ["127.0.0.1", CLIENT]);
}
