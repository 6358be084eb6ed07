//! Valid requests in any order, shape and cut: the origin sees exactly what was sent, and every
//! client gets its own answers.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{collections::HashMap, sync::Arc, thread};

use support::{P, chunked, message::Request, random::Random, rig::Rig};

/// How many sequences are tried.
const SEEDS: u64 = 300;

/// A request as the model knows it.
#[derive(Debug, Clone)]
struct Planned {
    method: &'static str,
    target: String,
    nonce: String,
    body: Vec<u8>,
    wire: Vec<u8>,
}

fn body(random: &mut Random) -> Vec<u8> {
    let bound = [1, 2, 64, 5000, 40_000][random.below(5)];
    let len = random.below(bound);
    (0..len).map(|_| random.byte()).collect()
}

fn target(random: &mut Random) -> String {
    let parts = [
        "/",
        "/a",
        "/a/b/",
        "/caf%C3%A9",
        "/x?y=1&z=%2f",
        "/a//b",
        "/%7euser",
        "/a;b=c",
    ];
    parts[random.below(parts.len())].to_owned()
}

fn plan(seed: u64, turn: usize, random: &mut Random) -> Planned {
    let nonce = format!("s{seed}-{turn}");
    let method = ["GET", "HEAD", "POST", "PUT", "POST", "DELETE"][random.below(6)];
    let target = target(random);
    let mut head = format!("{method} {target} HTTP/1.1\r\n{P}X-Nonce: {nonce}\r\n");
    for n in 0..random.below(4) {
        head += &format!("X-Extra-{n}: {}\r\n", random.next());
    }
    let body = match method {
        "GET" | "HEAD" => Vec::new(),
        _ => body(random),
    };
    let wire = if method == "GET" || method == "HEAD" {
        format!("{head}\r\n").into_bytes()
    } else if random.one_in(2) {
        let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), &body].concat()
    } else {
        let head = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        let sizes: Vec<_> = (0..4).map(|_| 1 + random.below(9000)).collect();
        [head.as_bytes(), &chunked(&body, &sizes)].concat()
    };
    Planned {
        method,
        target,
        nonce,
        body,
        wire,
    }
}

/// Sends bytes cut at random places.
fn send_in_pieces(client: &mut support::client::RawClient, bytes: &[u8], random: &mut Random) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = if random.one_in(3) { 20 } else { rest.len() };
        let len = 1 + random.below(most.min(rest.len()));
        client.send(&rest[..len]);
        rest = &rest[len..];
    }
}

/// Plays one sequence on one connection, and gives what was planned.
fn play(rig: &Rig, seed: u64) -> Vec<Planned> {
    let mut random = Random::seeded(seed);
    let turns = 1 + random.below(6);
    let planned: Vec<_> = (0..turns)
        .map(|turn| plan(seed, turn, &mut random))
        .collect();
    let mut client = rig.wardent.client();
    let mut unanswered = Vec::new();
    for request in &planned {
        send_in_pieces(&mut client, &request.wire, &mut random);
        unanswered.push(request);
        // Pipelined as far as the dice want it.
        if random.one_in(2) {
            settle(&mut client, seed, &mut unanswered);
        }
    }
    settle(&mut client, seed, &mut unanswered);
    planned
}

fn settle(client: &mut support::client::RawClient, seed: u64, unanswered: &mut Vec<&Planned>) {
    for request in unanswered.drain(..) {
        let response = client
            .try_response(request.method)
            .unwrap_or_else(|error| panic!("seed {seed}, {}: {error}", request.nonce));
        assert_eq!(response.status, 200, "seed {seed}: {request:?}");
        assert_eq!(response.nonce(), request.nonce, "seed {seed}");
        assert_eq!(
            response.body.is_empty(),
            request.method == "HEAD",
            "seed {seed}: {}",
            request.nonce
        );
    }
}

fn compare(seen: Vec<Request>, planned: &[Planned]) {
    assert_eq!(seen.len(), planned.len(), "requests at the origin");
    let mut seen: HashMap<String, Request> = seen
        .into_iter()
        .map(|request| (request.header("x-nonce").unwrap().to_owned(), request))
        .collect();
    for plan in planned {
        let id = &plan.nonce;
        let request = seen
            .remove(id)
            .unwrap_or_else(|| panic!("{id} was not seen, or twice"));
        assert_eq!(request.head.method, plan.method, "{id}");
        assert_eq!(request.head.target, plan.target, "{id}");
        assert!(request.complete, "{id}: unfinished");
        assert!(request.body == plan.body, "{id}: the body was altered");
        support::rig::assert_clean(id, &request, support::CLIENT);
    }
}

#[test]
fn every_sequence_arrives_as_it_was_sent() {
    let rig = Rig::with(|setup| setup.upstream("pool_idle: 10s"));
    let planned: Vec<_> = (0..SEEDS).flat_map(|seed| play(&rig, seed)).collect();
    assert_eq!(rig.origin.fault(), None);
    compare(rig.origin.requests(), &planned);
}

#[test]
fn every_sequence_arrives_beside_all_others() {
    let rig = Arc::new(Rig::with(|setup| {
        setup.upstream("pool_idle: 10s").workers(2)
    }));
    let threads: Vec<_> = (0..6)
        .map(|lane| {
            let rig = Arc::clone(&rig);
            thread::spawn(move || {
                let seeds = (1000 + lane * 25)..(1025 + lane * 25);
                seeds.flat_map(|seed| play(&rig, seed)).collect::<Vec<_>>()
            })
        })
        .collect();
    let planned: Vec<_> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(rig.origin.fault(), None);
    compare(rig.origin.requests(), &planned);
}
