//! What it costs to tell a bot from a person: time and allocations per user agent.
//!
//! `cargo bench --bench classify`

use std::net::{IpAddr, Ipv4Addr};

use divan::{AllocProfiler, Bencher, black_box};
use wardent::{
    bots::{Actions, Catalogue, Networks, Verifier},
    client::{Claim, Claims, Peer},
    guard::{
        bots::{Bots, From, People, look},
        chain::{Fields, Head},
    },
};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const USER_AGENTS: [(&str, &str); 5] = [
    (
        "Chrome on Windows",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
         Chrome/131.0.0.0 Safari/537.36",
    ),
    (
        "Safari on iPhone",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like \
         Gecko) Version/18.1 Mobile/15E148 Safari/604.1",
    ),
    (
        "Facebook in Android",
        "Mozilla/5.0 (Linux; Android 14; Pixel 8 Build/UQ1A.240205.002; wv) AppleWebKit/537.36 \
         (KHTML, like Gecko) Version/4.0 Chrome/121.0.6167.178 Mobile Safari/537.36 \
         [FB_IAB/FB4A;FBAV/452.0.0.44.109;]",
    ),
    (
        "listed bot",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; \
         +https://openai.com/gptbot)",
    ),
    (
        "unlisted bot",
        "Mozilla/5.0 (compatible; ZibbleBot/1.0; +https://zibble.example/bot)",
    ),
];

fn main() {
    divan::main();
}

#[divan::bench(args = USER_AGENTS.map(|(name, _)| name))]
fn classify(bencher: Bencher<'_, '_>, name: &str) {
    let found = USER_AGENTS.into_iter().find(|(own, _)| *own == name);
    let user_agent = found.map_or("", |(_, user_agent)| user_agent);
    let catalogue = Catalogue::shipped();
    bencher.bench(|| {
        catalogue
            .classify(black_box(user_agent.as_bytes()))
            .is_some()
    });
}

/// A request without further fields.
#[derive(Debug)]
struct Bare;

impl Fields for Bare {
    fn value(&self, _: &[u8], _: usize) -> Option<&[u8]> {
        None
    }
}

/// A request of which only the user agent matters.
fn head<'a>(peer: &'a Peer, user_agent: &'a [u8]) -> Head<'a> {
    Head {
        peer,
        method: b"GET",
        target: b"/",
        path: b"/",
        host: b"app.test",
        claims: Claims {
            identity: Claim::Absent,
            edge: Claim::Absent,
            connecting_ipv6: Claim::Absent,
        },
        secret: Claim::Absent,
        signature: Claim::Absent,
        user_agent: Claim::One(user_agent),
        fields: &Bare,
        content_length: None,
        now_unix_s: 0,
        now_ns: 0,
    }
}

/// What a request pays for being asked whether it is a bot's: by a person whom the worker remembers,
/// by one whom it has to read, and by a bot, which is read every time.
#[divan::bench(args = ["remembered person", "new person", "listed bot"])]
fn guard(bencher: Bencher<'_, '_>, who: &str) {
    let user_agent = if who == "listed bot" {
        USER_AGENTS[3].1
    } else {
        USER_AGENTS[0].1
    };
    let (verifier, _questions) = Verifier::new(Networks::shipped());
    let bots = Bots::new(Catalogue::shipped(), verifier);
    let (actions, people) = (Actions::default(), People::default());
    let ip = IpAddr::from(Ipv4Addr::new(198, 51, 100, 7));
    let peer = Peer::from(ip);
    let from = Some(From {
        ip,
        is_proven: true,
    });
    let mut user_agent = user_agent.as_bytes().to_vec();
    let mut nth = 0_u64;
    bencher.bench_local(|| {
        if who == "new person" {
            // The end of a version, so that nobody has been seen before.
            nth += 1;
            user_agent.truncate(user_agent.len() - 8);
            let digit = |place: u64| (nth >> (7 * place)).to_le_bytes()[0] | 0x80;
            user_agent.extend((0..8).map(digit));
        }
        let head = head(&peer, black_box(&user_agent));
        look(&bots, &people, &actions, &head, from).is_some()
    });
}

/// What a client would write to make this slow: as many half matches as fit into what is read.
#[divan::bench(args = ["a@", "http:/", "compatible; ", "aaaaaaaa.com", "mozilla/5.0 googlebot"])]
fn hostile(bencher: Bencher<'_, '_>, piece: &str) {
    let user_agent = piece.repeat(2_048 / piece.len());
    let catalogue = Catalogue::shipped();
    bencher.bench(|| {
        catalogue
            .classify(black_box(user_agent.as_bytes()))
            .is_some()
    });
}

#[divan::bench]
fn build_the_catalogue() -> bool {
    Catalogue::parse(include_str!("../../src/bots/catalogue.tsv")).is_ok()
}
