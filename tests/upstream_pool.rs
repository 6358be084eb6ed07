//! One safe retry on a dead pooled connection and no other; several servers share the work, the
//! sick one is left alone, the last one never.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    io,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use support::{
    P, get, get_nonce,
    origin::{self, Conn, Origin},
    post, rig,
    stream::Ending,
    time::{self, Gate},
    wardent::{Setup, Wardent},
};

/// Serves one request on each connection and dies of the next, having read it.
fn dies_of_the_second(conn: &mut Conn) -> io::Result<()> {
    let first = conn.request()?;
    conn.write(origin::echo(&first))?;
    conn.request()?;
    conn.close()
}

fn pooled(origin: &Origin) -> Wardent {
    Wardent::setup(origin).upstream("pool_idle: 10s").start()
}

fn count(origin: &Origin, target: &str) -> usize {
    let requests = origin.requests();
    let named = requests
        .iter()
        .filter(|request| request.head.target == target);
    named.count()
}

#[test]
fn a_get_on_a_dead_pooled_connection_is_asked_once_more() {
    for method in ["GET", "HEAD"] {
        let origin = Origin::scripted(dies_of_the_second);
        let wardent = pooled(&origin);
        assert_eq!(wardent.get("/first").status, 200);
        let sent = format!("{method} /second HTTP/1.1\r\n{P}X-Nonce: again\r\n\r\n");
        let response = wardent.ask(sent);
        assert_eq!(
            (response.status, response.nonce()),
            (200, "again"),
            "{method}"
        );
        assert!(count(&origin, "/second") <= 2, "{method}");
    }
}

#[test]
fn a_get_on_a_reset_pooled_connection_is_asked_once_more() {
    let origin = Origin::scripted(|conn| {
        let first = conn.request()?;
        conn.write(origin::echo(&first))?;
        conn.request()?;
        conn.reset()
    });
    let wardent = pooled(&origin);
    assert_eq!(wardent.get("/first").status, 200);
    assert_eq!(wardent.get("/second").status, 200);
}

#[test]
fn a_post_is_never_sent_twice() {
    for (id, request) in [
        ("with a body", post("/second", b"pay")),
        ("without", format!("POST /second HTTP/1.1\r\n{P}\r\n").into_bytes()),
        (
            "chunked",
            format!(
                "POST /second HTTP/1.1\r\n{P}Transfer-Encoding: chunked\r\n\r\n3\r\npay\r\n0\r\n\r\n"
            )
            .into_bytes(),
        ),
        (
            "PATCH",
            format!("PATCH /second HTTP/1.1\r\n{P}Content-Length: 3\r\n\r\npay").into_bytes(),
        ),
    ] {
        let origin = Origin::scripted(dies_of_the_second);
        let wardent = pooled(&origin);
        assert_eq!(wardent.get("/first").status, 200);
        let response = wardent.ask(request);
        // A pool that gives a POST a connection of its own does not meet the death.
        if response.status != 200 {
            rig::assert_refusal(id, &response, &[502], "upstream_broken");
        }
        assert_eq!(count(&origin, "/second"), 1, "{id}");
    }
}

#[test]
fn there_is_one_retry_and_no_second() {
    let served = Arc::new(AtomicBool::new(false));
    let once = Arc::clone(&served);
    let origin = Origin::scripted(move |conn| {
        if !once.swap(true, Ordering::AcqRel) {
            let first = conn.request()?;
            conn.write(origin::echo(&first))?;
        }
        conn.request()?;
        conn.close()
    });
    let wardent = pooled(&origin);
    assert_eq!(wardent.get("/first").status, 200);
    let response = wardent.get("/second");
    rig::assert_refusal("retry", &response, &[502], "upstream_broken");
    assert!(count(&origin, "/second") <= 2);
}

#[test]
fn a_fresh_connection_that_dies_is_no_reason_to_ask_again() {
    let origin = Origin::scripted(|conn| {
        conn.request()?;
        conn.close()
    });
    let wardent = pooled(&origin);
    let response = wardent.get("/a");
    rig::assert_refusal("fresh", &response, &[502], "upstream_broken");
    assert_eq!(count(&origin, "/a"), 1);
}

#[test]
fn a_pool_full_of_dead_connections_costs_one_retry() {
    let gate = Arc::new(Gate::default());
    let door = Arc::clone(&gate);
    let origin = Origin::scripted(move |conn| {
        let first = conn.request()?;
        if first.head.target == "/hold" {
            door.wait();
        }
        conn.write(origin::echo(&first))?;
        conn.request()?;
        conn.close()
    });
    let wardent = pooled(&origin);
    let mut clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = wardent.client();
            client.send(get("/hold"));
            client
        })
        .collect();
    origin.wait_for(4);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").status, 200);
    }
    // Four connections wait in the pool, and each dies of its next request.
    let response = wardent.ask(get_nonce("/a", "alive"));
    assert_eq!((response.status, response.nonce()), (200, "alive"));
}

#[test]
fn a_connection_the_server_has_closed_is_not_used_for_a_post() {
    let origin = Origin::scripted(|conn| {
        let request = conn.request()?;
        conn.write(origin::echo(&request))?;
        conn.half_close()
    });
    let wardent = pooled(&origin);
    for turn in 0..5 {
        let response = wardent.ask(post("/a", b"pay"));
        assert_eq!(response.status, 200, "turn {turn}");
        // Wardent has seen the end, and ended its side too.
        assert_eq!(origin.wait_ending(turn), Ending::Fin);
    }
    assert_eq!(count(&origin, "/a"), 5);
}

#[test]
fn an_answer_that_has_begun_is_never_begun_again() {
    let origin = Origin::scripted(|conn| {
        let first = conn.request()?;
        conn.write(origin::echo(&first))?;
        conn.request()?;
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
        conn.close()
    });
    let wardent = pooled(&origin);
    assert_eq!(wardent.get("/first").status, 200);
    let mut client = wardent.client();
    client.send(get("/second"));
    assert!(client.try_response("GET").is_err());
    assert_eq!(count(&origin, "/second"), 1);
}

fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_server_that_refuses_is_passed_over() {
    let origin = Origin::echo();
    let wardent = Setup::before(&[closed_port(), origin.server()]).start();
    let mut client = wardent.client();
    for turn in 0..50 {
        let nonce = format!("n{turn}");
        let request = if turn % 2 == 0 {
            get_nonce("/a", &nonce).into_bytes()
        } else {
            // Nothing was sent, so even a POST may go elsewhere.
            let head =
                format!("POST /a HTTP/1.1\r\n{P}X-Nonce: {nonce}\r\nContent-Length: 3\r\n\r\n");
            [head.as_bytes(), b"pay"].concat()
        };
        let response = client.ask(request);
        assert_eq!((response.status, response.nonce()), (200, &*nonce));
    }
    assert_eq!(origin.requests().len(), 50);
}

#[test]
fn work_goes_to_the_server_with_the_least_of_it() {
    let gate = Arc::new(Gate::default());
    let origins = [Origin::holding(&gate), Origin::holding(&gate)];
    let wardent = Setup::before(&[origins[0].server(), origins[1].server()]).start();
    let held = |origin: &Origin| count(origin, "/hold");
    let mut clients = Vec::new();
    // Held requests spread evenly, whoever gets the first.
    for n in 1..=4 {
        let mut client = wardent.client();
        client.send(get("/hold"));
        clients.push(client);
        time::eventually("the request is held", || {
            held(&origins[0]) + held(&origins[1]) == n
        });
    }
    assert_eq!((held(&origins[0]), held(&origins[1])), (2, 2));
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").status, 200);
    }
}

#[test]
fn a_busy_server_gets_nothing_while_another_is_free() {
    let gate = Arc::new(Gate::default());
    let origins = [Origin::holding(&gate), Origin::holding(&gate)];
    let wardent = Setup::before(&[origins[0].server(), origins[1].server()]).start();
    let mut client = wardent.client();
    client.send(get("/hold"));
    time::eventually("one is busy", || {
        origins.iter().any(|origin| count(origin, "/hold") == 1)
    });
    for _ in 0..10 {
        assert_eq!(wardent.get("/quick").status, 200);
    }
    for origin in &origins {
        let expected = if count(origin, "/hold") == 1 { 0 } else { 10 };
        assert_eq!(count(origin, "/quick"), expected);
    }
    gate.open();
    assert_eq!(client.response("GET").status, 200);
}

/// A server that hangs up on everybody while it is sick.
fn moody() -> (Origin, Arc<AtomicBool>) {
    let sick = Arc::new(AtomicBool::new(true));
    let own = Arc::clone(&sick);
    let origin = Origin::scripted(move |conn| {
        loop {
            let request = conn.request()?;
            if own.load(Ordering::Acquire) {
                return conn.close();
            }
            conn.write(origin::echo(&request))?;
        }
    });
    (origin, sick)
}

#[test]
fn a_sick_server_is_left_alone() {
    let (sick, _) = moody();
    let good = Origin::echo();
    let wardent = Setup::before(&[sick.server(), good.server()]).start();
    let mut failed = 0;
    for _ in 0..100 {
        match wardent.get("/a").status {
            200 => {}
            502 => failed += 1,
            other => panic!("{other}"),
        }
    }
    assert!(failed <= 20, "{failed} of 100 went to the sick server");
    // By now it is known, and nobody is sent there for a while.
    for turn in 0..20 {
        assert_eq!(wardent.get("/b").status, 200, "turn {turn}");
    }
}

#[test]
fn a_sick_server_that_is_well_again_comes_back() {
    let (sick, mood) = moody();
    let good = Origin::echo();
    let wardent = Setup::before(&[sick.server(), good.server()]).start();
    for _ in 0..50 {
        wardent.get("/a");
    }
    mood.store(false, Ordering::Release);
    let came_back = time::holds_within(Duration::from_secs(30), || {
        wardent.get("/b");
        time::pass(Duration::from_millis(50));
        count(&sick, "/b") > 3
    });
    assert!(came_back, "not asked again within 30 s");
}

#[test]
fn the_only_server_is_never_taken_out() {
    let (sick, mood) = moody();
    let wardent = Setup::before(&[sick.server()]).start();
    for _ in 0..50 {
        let response = wardent.get("/a");
        rig::assert_refusal("only", &response, &[502], "upstream_broken");
    }
    mood.store(false, Ordering::Release);
    // The very next request finds it well.
    assert_eq!(wardent.get("/b").status, 200);
}

#[test]
fn the_last_of_several_servers_is_never_taken_out() {
    let (first, first_mood) = moody();
    let (second, second_mood) = moody();
    let wardent = Setup::before(&[first.server(), second.server()]).start();
    for _ in 0..50 {
        assert!(matches!(wardent.get("/a").status, 502 | 503));
    }
    first_mood.store(false, Ordering::Release);
    second_mood.store(false, Ordering::Release);
    assert_eq!(wardent.get("/b").status, 200);
}

#[test]
fn a_server_whose_health_check_fails_gets_no_requests() {
    let healthy = Arc::new(AtomicBool::new(true));
    let asked = Arc::new(AtomicUsize::new(0));
    let (own, counter) = (Arc::clone(&healthy), Arc::clone(&asked));
    let moody = Origin::answering(move |request| {
        if request.head.target == "/healthz" {
            counter.fetch_add(1, Ordering::AcqRel);
            if !own.load(Ordering::Acquire) {
                return origin::answer("503 Service Unavailable", "", b"");
            }
        }
        origin::echo(request)
    });
    let steady = Origin::echo();
    let wardent = Setup::before(&[moody.server(), steady.server()])
        .upstream("health: {path: /healthz, interval: 100ms}")
        .start();
    time::eventually("health checks", || asked.load(Ordering::Acquire) > 2);
    healthy.store(false, Ordering::Release);
    time::eventually("the sick one is left alone", || {
        let before = count(&moody, "/a");
        for _ in 0..10 {
            assert_eq!(wardent.get("/a").status, 200);
        }
        count(&moody, "/a") == before
    });
    healthy.store(true, Ordering::Release);
    time::eventually("it comes back", || {
        let before = count(&moody, "/a");
        for _ in 0..10 {
            assert_eq!(wardent.get("/a").status, 200);
        }
        count(&moody, "/a") > before
    });
    let seen = moody.requests();
    let check = seen
        .iter()
        .find(|request| request.head.target == "/healthz")
        .unwrap();
    assert_eq!(check.head.method, "GET");
}

#[test]
fn the_only_server_is_asked_even_when_its_health_check_fails() {
    let origin = Origin::answering(|request| {
        if request.head.target == "/healthz" {
            return origin::answer("503 Service Unavailable", "", b"");
        }
        origin::echo(request)
    });
    let wardent = Wardent::setup(&origin)
        .upstream("health: {path: /healthz, interval: 50ms}")
        .start();
    time::eventually("several failed checks", || count(&origin, "/healthz") > 5);
    assert_eq!(wardent.get("/a").status, 200);
}
