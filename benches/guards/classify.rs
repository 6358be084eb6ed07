//! What it costs to tell a bot from a person: time and allocations per user agent.
//!
//! `cargo bench --bench classify`

use divan::{AllocProfiler, Bencher, black_box};
use wardent::bots::Catalogue;

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
