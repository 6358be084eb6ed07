//! Groups X and M in short: what is scarce runs out in an orderly way, and comes back.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use ::wardent::base::net::Address;
use support::{
    P,
    client::RawClient,
    get, get_nonce, noise,
    origin::{self, Origin},
    post, rig,
    rig::Rig,
    time::{self, Gate},
    wardent::{Wardent, open_policy},
};

#[test]
fn x01_a_process_without_descriptors_waits_and_recovers() {
    let origin = Origin::echo();
    let process = Wardent::setup(&origin)
        .upstream("pool_idle: 60s")
        .spawn_through("ulimit -n 160; exec \"$@\"");
    let mut good = process.client();
    assert_eq!(good.ask(get("/a")).status, 200);
    let crowd: Vec<_> = (0..300)
        .map_while(|_| RawClient::try_connect(process.address()).ok())
        .collect();
    assert!(crowd.len() > 160);
    // Who is in, is served; and the rest is not waited for with a spinning core.
    assert_eq!(good.ask(get("/a")).status, 200);
    let ticks = process.cpu_ticks();
    time::pass(Duration::from_secs(1));
    let used = process.cpu_ticks() - ticks;
    assert!(used < 50, "X-01: {used} of 100 ticks for nothing");
    assert_eq!(good.ask(get("/a")).status, 200);
    drop(crowd);
    time::eventually("it recovers", || {
        RawClient::try_connect(process.address())
            .is_ok_and(|mut client| client.ask(get("/b")).status == 200)
    });
}

#[test]
fn x03_silent_connections_are_let_go_and_starve_nobody() {
    let rig = Rig::with(|setup| setup.workers(2));
    let whole = format!("GET /a HTTP/1.1\r\n{P}\r\n");
    let begun = time::now();
    let mut silent: Vec<_> = (0..400)
        .map(|n| {
            let mut client = rig.wardent.client();
            client.patience(Duration::from_secs(20));
            // Some say nothing, some begin and stop.
            client.send(&whole[..[0, 1, 20, whole.len() - 2][n % 4]]);
            client
        })
        .collect();
    for turn in 0..20 {
        rig::assert_alive(&format!("X-03 {turn}"), &rig.wardent);
    }
    for client in &mut silent {
        let (bytes, ending) = client.ending();
        let text = support::message::latin1(&bytes);
        assert!(
            bytes.is_empty() || text.starts_with("HTTP/1.1 408 "),
            "X-03: {text}"
        );
        assert!(ending.is_some(), "X-03: kept for ever");
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(8), "X-03: after {took:?}");
    assert!(took < Duration::from_secs(16), "X-03: after {took:?}");
    assert_eq!(rig.origin.fault(), None);
}

#[test]
fn x04_a_head_that_trickles_is_cut_off_as_a_whole() {
    let rig = Rig::new();
    let mut client = rig.wardent.client();
    let begun = time::now();
    let whole = format!("GET /a HTTP/1.1\r\n{P}X-A: {}\r\n\r\n", "a".repeat(1000));
    let mut writer = client.writer();
    let enough = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&enough);
    let trickle = thread::spawn(move || {
        for byte in whole.bytes() {
            if stop.load(Ordering::Acquire) || writer.write_all(&[byte]).is_err() {
                return;
            }
            time::pass(Duration::from_millis(100));
        }
    });
    client.patience(Duration::from_secs(20));
    if let Ok(response) = client.try_response("GET") {
        rig::assert_refusal("X-04", &response, &[400, 408], "bad_request");
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(8), "X-04: after {took:?}");
    assert!(took < Duration::from_secs(16), "X-04: after {took:?}");
    enough.store(true, Ordering::Release);
    trickle.join().unwrap();
    assert_eq!(rig.origin.bytes(), 0);
}

#[test]
fn x03_more_connections_than_may_be_are_turned_away_not_left_hanging() {
    let rig = Rig::with(|setup| setup.top("max_connections: 20"));
    let crowd: Vec<_> = (0..20)
        .map(|n| {
            let mut client = rig.wardent.client();
            let nonce = format!("c{n}");
            assert_eq!(client.ask(get_nonce("/a", &nonce)).nonce(), nonce);
            client
        })
        .collect();
    let mut late = rig.wardent.client();
    late.patience(Duration::from_secs(3));
    late.send_anyway(get_nonce("/late", "late"));
    // Turned away with a word, or closed, or served in the place of an idle one.
    match late.try_response("GET") {
        Ok(response) if response.status == 200 => assert_eq!(response.nonce(), "late"),
        Ok(response) => rig::assert_refusal("X-03b", &response, &[503], "overloaded"),
        Err(error) => assert!(!support::stream::is_timeout(&error), "X-03b: it hangs"),
    }
    drop(late);
    drop(crowd);
    time::eventually("there is room again", || {
        let mut client = rig.wardent.client();
        client.send_anyway(get("/b"));
        client
            .try_response("GET")
            .is_ok_and(|response| response.status == 200)
    });
}

/// One request of twenty kinds, the good and the broken.
fn mixed(process: &support::process::Process, turn: usize) {
    let mut client = process.client();
    let large = noise(100_000);
    match turn % 20 {
        0 => client.send_anyway("GET /a HT"),
        1 => client.send_anyway(get("/a")),
        2 => client.send_anyway(format!(
            "POST /a HTTP/1.1\r\n{P}Content-Length: 100\r\n\r\nx"
        )),
        3 => client.send_anyway(&post("/a", &large)[..50_000]),
        4 => client.send_anyway("\x16\x03\x01\x02\x00"),
        5 => client.send_anyway(format!("GET /hang-up HTTP/1.1\r\n{P}\r\n")),
        6 => client.send_anyway(format!(
            "POST /a HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\n\r\n5\r\nhel"
        )),
        7 => client.send_anyway(format!("GET /a HTTP/1.1\r\n{P}Content-Length: x\r\n\r\n")),
        _ => true,
    };
    match turn % 20 {
        // Gone without a word.
        0..=7 => {}
        8 | 9 => drop(client.ask(post("/a", &large))),
        10 => drop(client.ask(get("/hang-up"))),
        11 => {
            for _ in 0..5 {
                client.ask(get("/a"));
            }
        }
        12 => drop(client.ask(format!("GET /a HTTP/1.0\r\n{P}\r\n"))),
        13 => drop(client.ask("GET /a HTTP/1.1\r\nHost: a\r\n\r\n")),
        14 => drop(client.ask(format!("HEAD /a HTTP/1.1\r\n{P}\r\n"))),
        _ => drop(client.ask(get("/a"))),
    }
}

#[test]
fn x05_nothing_is_left_behind() {
    let origin = Origin::scripted(|conn| {
        loop {
            let request = conn.request()?;
            if request.head.target == "/hang-up" {
                return conn.close();
            }
            conn.write(origin::echo(&request))?;
        }
    });
    let process = Wardent::setup(&origin).upstream("pool_idle: 200ms").spawn();
    for turn in 0..40 {
        mixed(&process, turn);
    }
    let settled = |process: &support::process::Process| {
        let mut last = usize::MAX;
        time::eventually("descriptors settle", || {
            time::pass(Duration::from_millis(300));
            let now = process.descriptors();
            let steady = now == last;
            last = now;
            steady
        });
        last
    };
    let before = settled(&process);
    let threads = process.threads();
    let memory = process.resident_kib();
    for turn in 0..1000 {
        mixed(&process, turn);
    }
    time::eventually("every descriptor is given back", || {
        process.descriptors() <= before + 2
    });
    assert!(process.threads() <= threads, "X-05: threads were left");
    let grown = process.resident_kib().saturating_sub(memory);
    assert!(grown < 16 * 1024, "X-05: {grown} KiB more after 1000");
    process.assert_alive();
}

#[test]
fn x07_an_output_nobody_reads_holds_nobody_up() {
    let origin = Origin::echo();
    // Both outputs are pipes that nobody reads; debug fills them many times over.
    let process = Wardent::setup(&origin)
        .top("telemetry: {log: debug}")
        .spawn();
    let mut client = process.client();
    let begun = time::now();
    for turn in 0..3000 {
        let nonce = format!("n{turn}");
        assert_eq!(client.ask(get_nonce("/a", &nonce)).nonce(), nonce);
        if turn % 10 == 0 {
            assert_eq!(process.client().ask("GET /a HTTP/1.1\r\n\r\n").status, 400);
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn strangers_on_the_admin_listener_keep_no_operator_waiting() {
    let rig = Rig::new();
    let listener = Address::Tcp(rig.wardent.admin());
    let socket = Address::Unix(rig.wardent.dir().join("admin.sock"));
    let _crowd: Vec<_> = (0..150).map(|_| RawClient::connect(&listener)).collect();
    for _ in 0..3 {
        let mut operator = RawClient::connect(&socket);
        // Those that say nothing are let go after 5 s.
        operator.patience(Duration::from_secs(3));
        let answer = operator.ask("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(answer.status, 200);
    }
}

#[test]
fn x09_a_burst_of_connections_is_taken() {
    let rig = Rig::with(|setup| setup.workers(2));
    let address = rig.wardent.address().clone();
    let mut crowd: Vec<_> = (0..1000)
        .map(|n| RawClient::try_connect(&address).unwrap_or_else(|error| panic!("{n}: {error}")))
        .collect();
    for (n, client) in crowd.iter_mut().enumerate() {
        client.send(get_nonce("/a", &format!("b{n}")));
    }
    for (n, client) in crowd.iter_mut().enumerate() {
        assert_eq!(client.response("GET").nonce(), format!("b{n}"));
    }
}

#[test]
fn m07_a_connection_costs_little() {
    let origin = Origin::echo();
    let process = Wardent::setup(&origin).spawn();
    process.assert_alive();
    let before = process.resident_kib();
    let idle: Vec<_> = (0..500)
        .map(|_| {
            let mut client = process.client();
            assert_eq!(client.ask(get("/a")).status, 200);
            client
        })
        .collect();
    let each = process.resident_kib().saturating_sub(before) / idle.len();
    assert!(each <= 48, "M-07: {each} KiB for an idle connection");

    let before = process.resident_kib();
    let partial = format!("GET /a HTTP/1.1\r\n{P}X-A: {}", "a".repeat(30_000));
    let begun: Vec<_> = (0..200)
        .map(|_| {
            let mut client = process.client();
            client.send(&partial);
            client
        })
        .collect();
    process.assert_alive();
    let each = process.resident_kib().saturating_sub(before) / begun.len();
    assert!(each <= 160, "M-07: {each} KiB for a head of 30 KB begun");
    drop(begun);
    drop(idle);
    process.assert_alive();
}

#[test]
fn m08_memory_does_not_grow_with_bodies() {
    let gate = Arc::new(Gate::default());
    let door = Arc::clone(&gate);
    let origin = Origin::scripted(move |conn| {
        let mut head = conn.head()?;
        while head.target != "/up" {
            let request = support::message::Request {
                head,
                ..Default::default()
            };
            conn.write(origin::echo(&request))?;
            head = conn.head()?;
        }
        // Takes nothing of the body until the test has looked.
        door.wait();
        conn.body(&head)?;
        conn.write(origin::answer("200 OK", "", b"done"))
    });
    let process = Wardent::setup(&origin)
        .policy(open_policy(&["body: 1GiB"], ""))
        .spawn();
    process.assert_alive();
    let before = process.resident_kib();
    let len = 64 * 1024 * 1024;
    let mut client = process.client();
    client.send(format!(
        "POST /up HTTP/1.1\r\n{P}Content-Length: {len}\r\n\r\n"
    ));
    let mut writer = client.writer();
    let writing = thread::spawn(move || {
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..len / piece.len() {
            writer.write_all(&piece).unwrap();
        }
    });
    let mut peak = 0;
    for _ in 0..10 {
        time::pass(Duration::from_millis(50));
        peak = peak.max(process.resident_kib());
    }
    let grown = peak.saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for a body nobody takes");
    assert!(!writing.is_finished(), "where did 64 MiB go?");
    gate.open();
    assert_eq!(client.response("POST").body, b"done");
    writing.join().unwrap();
}

#[test]
fn m08_a_flood_behind_a_413_is_not_kept() {
    let origin = Origin::echo();
    let process = Wardent::setup(&origin)
        .policy(open_policy(&["body: 64KiB"], ""))
        .spawn();
    process.assert_alive();
    let before = process.resident_kib();
    let mut client = process.client();
    client.send(format!(
        "POST /up HTTP/1.1\r\n{P}Content-Length: 1000000000\r\n\r\n"
    ));
    let piece = vec![b'x'; 64 * 1024];
    for _ in 0..1000 {
        if !client.send_anyway(&piece) {
            break;
        }
    }
    let grown = process.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for bytes thrown away");
    process.assert_alive();
}
