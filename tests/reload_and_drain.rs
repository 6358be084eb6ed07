//! Group R: an edit binds whole or not at all, and neither a reload nor a stop costs a request.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    fs,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;
use support::{
    P,
    client::RawClient,
    get, get_nonce, noise,
    origin::{self, Origin},
    p_from, post, rig,
    rig::Rig,
    time::{self, Gate},
    wardent::{Wardent, open_policy},
};

/// A policy known by what it bounds.
fn bounded(size: &str) -> String {
    open_policy(&[&format!("body: {size}")], "")
}

/// What becomes of 2 KiB: 200 under the wide policy, 413 under the narrow one.
fn probe(wardent: &Wardent) -> u16 {
    let mut client = wardent.client();
    client.send_anyway(post("/probe", &[b'x'; 2048]));
    client.response("POST").status
}

const NARROW: u16 = 413;
const WIDE: u16 = 200;

fn narrow() -> Rig {
    Rig::with(|setup| setup.policy(bounded("1KiB")))
}

#[test]
fn a_reload_binds_at_once() {
    let rig = narrow();
    assert_eq!(probe(&rig.wardent), NARROW);
    rig.wardent.write_policy(&bounded("1MiB"));
    rig.wardent.reload().unwrap();
    assert_eq!(probe(&rig.wardent), WIDE);
    rig.wardent.write_policy(&bounded("1KiB"));
    rig.wardent.reload().unwrap();
    assert_eq!(probe(&rig.wardent), NARROW);
}

#[test]
fn an_edit_binds_by_itself() {
    let rig = narrow();
    let begun = time::now();
    rig.wardent.write_policy(&bounded("1MiB"));
    time::eventually("the edit binds", || probe(&rig.wardent) == WIDE);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "after {took:?}");
    // Also when the file is written in place.
    let begun = time::now();
    fs::write(rig.wardent.dir().join("policy.yaml"), bounded("1KiB")).unwrap();
    time::eventually("the second edit binds", || probe(&rig.wardent) == NARROW);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "after {took:?}");
}

#[test]
fn r02_a_half_written_file_is_no_policy() {
    let rig = narrow();
    let text = bounded("1MiB");
    let path = rig.wardent.dir().join("policy.yaml");
    let mut file = fs::File::create(&path).unwrap();
    let piece = text.len().div_ceil(10);
    for part in text.as_bytes().chunks(piece) {
        file.write_all(part).unwrap();
        file.sync_all().unwrap();
        time::pass(Duration::from_millis(50));
        assert!(matches!(probe(&rig.wardent), NARROW | WIDE), "R-02");
    }
    drop(file);
    time::eventually("the whole policy binds", || probe(&rig.wardent) == WIDE);
}

const INVALID: &[(&str, &str)] = &[
    ("R-03 no YAML", "mode: enforce\n  body: [\n"),
    ("R-03 unknown key", "mode: enforce\nlimts: []\n"),
    (
        "R-03 unknown unit",
        "mode: enforce\ndefaults:\n  limit: {rate: 10/parsec, burst: 5}\n",
    ),
    ("R-03 wrong type", "mode: enforce\nroutes: 5\n"),
    ("R-03 bad network", "mode: enforce\ndeny: [10.0.0.1/33]\n"),
    ("R-03 bad mode", "mode: sometimes\n"),
    (
        "R-03 bad size",
        "mode: enforce\ndefaults:\n  body: 10 parsecs\n",
    ),
    ("R-03 a tab", "mode: enforce\ndefaults:\n\tbody: 1KiB\n"),
    ("R-03 two documents", "mode: enforce\n---\nmode: observe\n"),
    ("R-03 a key twice", "mode: enforce\nmode: observe\n"),
];

#[test]
fn r03_an_invalid_policy_changes_nothing_and_says_where() {
    let rig = narrow();
    for (id, text) in INVALID {
        rig.wardent.write_policy(text);
        let report = rig.wardent.reload().expect_err(id);
        assert!(report.contains("policy.yaml"), "{id}: {report}");
        let places: Vec<_> = report.split(':').collect();
        let numbers = places.iter().filter(|part| {
            let part = part.trim();
            !part.is_empty() && part.chars().all(|c| c.is_ascii_digit())
        });
        assert!(numbers.count() >= 2, "{id}: no line and column: {report}");
        assert_eq!(probe(&rig.wardent), NARROW, "{id}");
    }
    rig.wardent.write_policy(&bounded("1MiB"));
    rig.wardent.reload().unwrap();
    assert_eq!(probe(&rig.wardent), WIDE);
}

#[test]
fn r03_an_empty_policy_is_an_error() {
    let rig = narrow();
    for text in ["", "\n\n", "# nothing\n", "---\n", "null\n"] {
        rig.wardent.write_policy(text);
        assert!(rig.wardent.reload().is_err(), "{text:?}");
        assert_eq!(probe(&rig.wardent), NARROW, "{text:?}");
    }
    fs::remove_file(rig.wardent.dir().join("policy.yaml")).unwrap();
    assert!(rig.wardent.reload().is_err());
    assert_eq!(probe(&rig.wardent), NARROW);
}

#[test]
fn r03_an_invalid_edit_changes_nothing_by_itself() {
    let rig = narrow();
    rig.wardent.write_policy("mode: enforce\nlimts: []\n");
    // Longer than an edit takes to bind.
    let until = time::now() + Duration::from_millis(1500);
    while time::now() < until {
        assert_eq!(probe(&rig.wardent), NARROW);
    }
}

#[test]
fn r03_an_invalid_policy_is_no_start() {
    let origin = Origin::echo();
    let setup = Wardent::setup(&origin).policy("mode: enforce\nlimts: []\n");
    let report = setup.try_start().err().unwrap_or_default();
    assert!(report.contains("policy.yaml:2:1"), "{report:?}");
    assert!(report.contains("limts"), "{report:?}");
}

#[test]
fn r01_reloads_under_load_cost_no_request() {
    let rig = Rig::with(|setup| setup.workers(2).policy(bounded("1KiB")));
    let stop = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    thread::scope(|scope| {
        for lane in 0..4 {
            let (rig, stop, asked) = (&rig, &stop, &asked);
            scope.spawn(move || {
                let mut client = rig.wardent.client();
                let mut turn = 0;
                while !stop.load(Ordering::Acquire) {
                    let nonce = format!("l{lane}-{turn}");
                    assert_eq!(client.ask(get_nonce("/a", &nonce)).nonce(), nonce);
                    // A whole generation decides: one status or the other, never a third.
                    if turn % 10 == 0 {
                        assert!(matches!(probe(&rig.wardent), NARROW | WIDE));
                    }
                    turn += 1;
                    asked.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        for turn in 0..40 {
            let size = if turn % 2 == 0 { "1MiB" } else { "1KiB" };
            rig.wardent.write_policy(&bounded(size));
            rig.wardent.reload().unwrap();
            let expected = if turn % 2 == 0 { WIDE } else { NARROW };
            assert_eq!(probe(&rig.wardent), expected, "turn {turn}");
            time::pass(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Release);
    });
    assert!(asked.load(Ordering::Acquire) > 50);
}

#[test]
fn a_reload_reads_again_what_is_known_of_bots() {
    let rig = Rig::with(|setup| setup.policy(open_policy(&[], "")).file("bots.tsv", ""));
    let sent = get("/a").replace("wtest/1", "Zebrazine/1.0");
    assert_eq!(rig.wardent.ask(&sent).status, 200);
    let own = |name: &str| rig.wardent.dir().join(name);
    let config = fs::read_to_string(own("wardent.yaml")).unwrap();
    fs::write(own("bots.tsv"), "seo\tZebrazine\n").unwrap();
    fs::write(
        own("wardent.yaml"),
        config + "bots: {catalogue: bots.tsv}\n",
    )
    .unwrap();
    rig.wardent.reload().unwrap();
    let response = rig.wardent.ask(&sent);
    rig::assert_refusal("bots", &response, &[403], "bot");
    // A file that is wrong changes nothing.
    fs::write(own("bots.tsv"), "seos\tZebrazine\n").unwrap();
    let report = rig.wardent.reload().unwrap_err();
    assert!(report.contains("bots.tsv:1:1: "), "{report}");
    assert_eq!(rig.wardent.ask(&sent).status, 403);
}

#[test]
fn r09_a_storm_of_reloads_passes() {
    let rig = narrow();
    let begun = time::now();
    for _ in 0..200 {
        rig.wardent.reload().unwrap();
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "200 reloads took {took:?}");
    rig::assert_alive("R-09", &rig.wardent);
}

#[test]
fn a_reload_touches_no_connection() {
    let rig = narrow();
    let mut client = rig.wardent.client();
    for turn in 0..10 {
        let nonce = format!("n{turn}");
        assert_eq!(client.ask(get_nonce("/a", &nonce)).nonce(), nonce);
        rig.wardent.reload().unwrap();
    }
}

#[test]
fn a_reload_touches_no_request_in_flight() {
    let (origin, gate) = holding();
    let rig = Rig::around(origin, |setup| setup.policy(bounded("1MiB")));
    let mut client = rig.wardent.client();
    client.send(get_nonce("/hold", "held"));
    let mut upload = rig.wardent.client();
    upload.send(format!(
        "POST /up HTTP/1.1\r\n{P}X-Nonce: up\r\nContent-Length: 2048\r\n\r\n"
    ));
    upload.send([b'x'; 1024]);
    rig.origin.wait_for_heads(2);
    rig.wardent.write_policy(&bounded("1KiB"));
    rig.wardent.reload().unwrap();
    // One snapshot decides the whole request: the upload keeps the bound it began under.
    upload.send([b'x'; 1024]);
    assert_eq!(upload.response("POST").status, 200);
    gate.open();
    assert_eq!(client.response("GET").nonce(), "held");
}

#[test]
fn r10_limits_survive_a_reload() {
    let policy =
        "mode: enforce\nbans: {threshold: 1000}\ndefaults:\n  limit: {rate: 1/h, burst: 3}\n";
    let rig = Rig::with(|setup| setup.policy(policy));
    let sent = format!("GET /a HTTP/1.1\r\n{}\r\n", p_from("198.51.100.30"));
    for _ in 0..3 {
        assert_eq!(rig.wardent.ask(&sent).status, 200);
    }
    for _ in 0..3 {
        rig.wardent.reload().unwrap();
        let response = rig.wardent.ask(&sent);
        rig::assert_refusal("R-10", &response, &[429], "rate_limited");
        let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
        assert!((3000..=3600).contains(&wait), "Retry-After: {wait}");
    }
}

/// An origin that holds `/hold` until the gate opens.
fn holding() -> (Origin, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let origin = Origin::holding(&gate);
    (origin, gate)
}

/// A drain lets nobody new in: no connection, or one that ends without an answer.
fn assert_shut(address: &wardent::base::net::Address) {
    time::eventually("nobody new gets in", || {
        let Ok(mut client) = RawClient::try_connect(address) else {
            return true;
        };
        client.send_anyway(get("/new"));
        match client.try_response("GET") {
            Ok(response) => response.status == 503,
            Err(_) => true,
        }
    });
}

#[test]
fn r05_a_drain_finishes_what_is_in_flight() {
    let (origin, gate) = holding();
    let wardent = Wardent::setup(&origin).workers(2).start();
    let address = wardent.address().clone();
    let mut held: Vec<_> = (0..20)
        .map(|n| {
            let mut client = wardent.client();
            client.send(get_nonce("/hold", &format!("h{n}")));
            client
        })
        .collect();
    let mut idle: Vec<_> = (0..5)
        .map(|_| {
            let mut client = wardent.client();
            assert_eq!(client.ask(get("/a")).status, 200);
            client
        })
        .collect();
    origin.wait_for(25);
    wardent.drain();
    for client in &mut idle {
        client.assert_closed("R-05: idle");
    }
    assert_shut(&address);
    gate.open();
    for (n, client) in held.iter_mut().enumerate() {
        let response = client.response("GET");
        assert_eq!(response.nonce(), format!("h{n}"));
        assert!(
            response.head.fields.lists("connection", "close"),
            "R-05: {:?}",
            response.head
        );
        client.assert_closed("R-05");
    }
    let begun = time::now();
    wardent.wait();
    assert!(begun.elapsed() < Duration::from_secs(5), "R-05: slow");
}

#[test]
fn r05_a_worker_that_has_drained_is_not_taken_for_stuck_while_another_drains() {
    let (origin, gate) = holding();
    let wardent = Wardent::setup(&origin).workers(2).start();
    let mut held = wardent.client();
    held.send(get("/hold"));
    origin.wait_for(1);
    let admin = wardent::base::net::Address::Tcp(wardent.admin());
    let is_live = || {
        let ask = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        RawClient::connect(&admin).ask(ask).status == 200
    };
    wardent.drain();
    // The alarm comes after 5 s of silence, and the end of the process after 10.
    let stuck = time::holds_within(Duration::from_secs(7), || !is_live());
    assert!(!stuck, "R-05: a drain under way is taken for a hang");
    gate.open();
    assert_eq!(held.response("GET").status, 200);
    wardent.wait();
}

#[test]
fn r05_a_drain_finishes_uploads_and_streams() {
    let gate = Arc::new(Gate::default());
    let door = Arc::clone(&gate);
    let body = noise(200_000);
    let answer = body.clone();
    let origin = Origin::scripted(move |conn| {
        let head = conn.head()?;
        if head.method == "POST" {
            conn.body(&head)?;
            return conn.write(origin::answer("200 OK", "", b"uploaded"));
        }
        if head.target != "/stream" {
            // Whoever slipped in before the door was shut.
            return conn.write(origin::answer("200 OK", "", b""));
        }
        let (first, rest) = answer.split_at(1000);
        conn.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        ))?;
        conn.write(first)?;
        door.wait();
        conn.write(rest)
    });
    let wardent = Wardent::before(&origin);
    let mut upload = wardent.client();
    upload.send(format!(
        "POST /up HTTP/1.1\r\n{P}Content-Length: {}\r\n\r\n",
        body.len()
    ));
    upload.send(&body[..1000]);
    let mut stream = wardent.client();
    stream.send(get("/stream"));
    assert_eq!(stream.response_head().status, 200);
    origin.wait_for_heads(2);
    wardent.drain();
    assert_shut(wardent.address());
    upload.send(&body[1000..]);
    let response = upload.response("POST");
    assert_eq!(response.body, b"uploaded");
    gate.open();
    assert!(stream.exact(body.len()) == body);
    wardent.wait();
}

#[test]
fn r05_who_has_connected_before_a_drain_is_answered() {
    let origin = Origin::echo();
    for round in 0..10 {
        let setup = Wardent::setup(&origin).workers(2);
        let setup = match round % 2 {
            0 => setup,
            _ => setup.unix_listener(),
        };
        let wardent = setup.start();
        let mut clients: Vec<_> = (0..50).map(|_| wardent.client()).collect();
        wardent.drain();
        for (n, client) in clients.iter_mut().enumerate() {
            let response = client.ask(get_nonce("/a", &format!("c{n}")));
            assert_eq!(response.nonce(), format!("c{n}"), "R-05e: round {round}");
        }
        drop(clients);
        wardent.wait();
    }
}

#[test]
fn r05_a_drain_with_nothing_to_do_is_quick() {
    let rig = Rig::new();
    let mut client = rig.wardent.client();
    assert_eq!(client.ask(get("/a")).status, 200);
    let begun = time::now();
    rig.wardent.drain();
    rig.wardent.wait();
    assert!(begun.elapsed() < Duration::from_secs(3));
    client.assert_closed("R-05b");
}

#[test]
fn r05_a_connection_that_never_spoke_does_not_hold_a_drain() {
    let rig = Rig::new();
    let mut silent = rig.wardent.client();
    let mut begun_only = rig.wardent.client();
    begun_only.send("GET /a HT");
    rig::assert_alive("R-05c", &rig.wardent);
    let begun = time::now();
    rig.wardent.drain();
    rig.wardent.wait();
    assert!(begun.elapsed() < Duration::from_secs(12));
    silent.assert_closed("R-05c");
    let (_, ending) = begun_only.ending();
    assert!(ending.is_some());
}

#[test]
fn r05_a_refused_client_that_stays_does_not_hold_a_drain() {
    let rig = Rig::with(|setup| setup.policy(bounded("1KiB")));
    let mut clients: Vec<_> = (0..2).map(|_| rig.wardent.client()).collect();
    for client in &mut clients {
        client.send(format!(
            "POST /up HTTP/1.1\r\n{P}Content-Length: 1000000\r\n\r\n"
        ));
        assert_eq!(client.response("POST").status, 413);
    }
    // One is silent, the other goes on sending.
    let mut writer = clients[0].writer();
    let sending = thread::spawn(move || {
        while writer.write_all(b"x").is_ok() {
            time::pass(Duration::from_millis(20));
        }
    });
    let begun = time::now();
    rig.wardent.drain();
    rig.wardent.wait();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "R-05d: after {took:?}");
    sending.join().unwrap();
}

#[test]
fn dropping_it_stops_it() {
    let (origin, gate) = holding();
    let wardent = Wardent::before(&origin);
    let address = wardent.address().clone();
    let mut client = wardent.client();
    client.send(get("/hold"));
    origin.wait_for(1);
    let begun = time::now();
    drop(wardent);
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(client.try_response("GET").is_err());
    gate.open();
    time::eventually("nobody listens", || {
        RawClient::try_connect(&address).is_err()
    });
}

#[test]
fn one_can_be_started_after_another() {
    let origin = Origin::echo();
    for _ in 0..3 {
        let wardent = Wardent::before(&origin);
        rig::assert_alive("again", &wardent);
        wardent.drain();
        wardent.wait();
    }
}

#[test]
fn r05_sigterm_drains_the_process_and_ends_it_well() {
    let (origin, gate) = holding();
    let mut process = Wardent::setup(&origin).spawn();
    let mut client = process.client();
    client.send(get_nonce("/hold", "held"));
    origin.wait_for(1);
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(Duration::from_millis(300)), None);
    gate.open();
    assert_eq!(client.response("GET").nonce(), "held");
    let status = process.wait_exit(time::PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", process.said());
}

#[test]
fn r07_a_second_signal_ends_the_process_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let (origin, _gate) = holding();
        let mut process = Wardent::setup(&origin).spawn();
        let mut client = process.client();
        client.send(get("/hold"));
        origin.wait_for(1);
        process.signal(Signal::TERM);
        assert_eq!(process.wait_exit(Duration::from_millis(300)), None);
        process.signal(second);
        let status = process.wait_exit(Duration::from_secs(3));
        assert!(status.is_some(), "R-07: it went on draining");
    }
}

#[test]
fn r09_a_storm_of_sighups_passes() {
    let origin = Origin::echo();
    let mut process = Wardent::setup(&origin).policy(bounded("1KiB")).spawn();
    fs::write(process.dir().join("policy.yaml"), bounded("1MiB")).unwrap();
    for _ in 0..200 {
        process.signal(Signal::HUP);
    }
    time::eventually("the edit binds", || {
        let mut client = process.client();
        client.send_anyway(post("/probe", &[b'x'; 2048]));
        client.response("POST").status == WIDE
    });
    process.assert_alive();
    assert_eq!(process.wait_exit(Duration::ZERO), None);
}

#[test]
fn w05_a_drain_ends_tunnels_by_its_deadline() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )?;
        conn.wait_for_close()
    });
    let wardent = Wardent::before(&origin);
    let mut clients: Vec<_> = (0..50)
        .map(|_| {
            let mut client = wardent.client();
            client.patience(Duration::from_secs(45));
            client.send(format!(
                "GET /ws HTTP/1.1\r\n{P}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ));
            assert_eq!(client.response_head().status, 101);
            client
        })
        .collect();
    let begun = time::now();
    wardent.drain();
    for client in &mut clients {
        client.assert_closed("W-05");
    }
    wardent.wait();
    assert!(begun.elapsed() < Duration::from_secs(45));
}
