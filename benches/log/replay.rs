//! How long a start waits for its bans: a million of them, read back from the log into the owner's book
//! and the table of clients.
//!
//! `cargo bench --bench replay`, or with another number of bans: `cargo bench --bench replay -- 100000`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot be set up should stop loudly, and says what it measured"
)]

use std::{fs, net::Ipv4Addr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use wardent::{
    base::clock::Clock,
    client::Protected,
    event::{
        ban::{BanState, Kind, State},
        time::Stamps,
    },
    limit::Keeper,
    log::{Builder, Compression},
    owner::{BanPolicy, Owner, Publish, Told, Trouble},
    sink::bans::{Replayed, replay},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of records in one batch, as a flood of bans makes them.
const BATCH_BYTES: usize = 256 * 1024;

/// Nothing is told here.
struct Nobody;

impl Publish for Nobody {
    fn room(&self) -> usize {
        0
    }

    fn tell(&mut self, told: Box<Told>) -> Result<(), Box<Told>> {
        Err(told)
    }

    fn trouble(&self) -> Arc<Trouble> {
        Arc::default()
    }
}

fn main() {
    let count = std::env::args().find_map(|argument| argument.parse().ok());
    let count: u32 = count.unwrap_or(1_000_000);
    let clock = Clock::system();
    let batches = batches(count, clock.unix_ms());
    let bytes: usize = batches.iter().map(Vec::len).sum();
    for _ in 0..5 {
        let (begin_ns, begin_cpu_ns) = (clock.monotonic_ns(), cpu_ns());
        let mut owner = owner(count, &clock);
        let (mut replayed, mut scratch) = (Replayed::default(), Vec::new());
        let mut restoring = owner.restore();
        restoring.expect(count as usize);
        for batch in &batches {
            replay(batch, 64, &mut scratch, &mut restoring, &mut replayed);
        }
        let read_ns = clock.monotonic_ns();
        let restored = restoring.finish();
        let (end_ns, end_cpu_ns) = (clock.monotonic_ns(), cpu_ns());
        assert_eq!(restored.bans, count as usize);
        assert_eq!(replayed.records, u64::from(count));
        println!(
            "{count} bans of {bytes} bytes: {} ms ({} ms of CPU), of which {} ms to read and {} ms to enforce",
            (end_ns - begin_ns) / 1_000_000,
            (end_cpu_ns - begin_cpu_ns) / 1_000_000,
            (read_ns - begin_ns) / 1_000_000,
            (end_ns - read_ns) / 1_000_000,
        );
    }
}

/// How long this thread has run on a CPU, as the kernel says it: on a busy machine that is the measure.
fn cpu_ns() -> u64 {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let first = schedule.split(' ').next().unwrap();
    first.parse().unwrap()
}

fn owner(bans_max: u32, clock: &Clock) -> Owner {
    let policy = BanPolicy {
        threshold: 10,
        window: Duration::from_secs(60),
        duration: Duration::from_secs(600),
        factor: 2,
        max: Duration::from_secs(7 * 86_400),
        forget: Duration::from_secs(30 * 86_400),
        protected: Protected::default(),
    };
    let (owner, _) = Owner::new(
        Keeper::new(1_000_000),
        bans_max as usize,
        Arc::new(ArcSwap::from_pointee(policy)),
        clock.clone(),
        Box::new(Nobody),
    );
    owner
}

/// The log of so many bans, each with a request of its own.
fn batches(count: u32, now_unix_ms: u64) -> Vec<Vec<u8>> {
    let (mut builder, mut batches) = (Builder::new(), Vec::new());
    let (stamps, mut value) = (Stamps::default(), Vec::new());
    for nth in 0..count {
        // Each address once, in an order that no table likes.
        let client = Ipv4Addr::from(nth.wrapping_mul(2_654_435_761)).to_string();
        let since_unix_ms = now_unix_ms - u64::from(nth % 60_000);
        let state = BanState {
            unix_ms: since_unix_ms,
            target: client.as_str().into(),
            kind: Kind::Client,
            state: State::Banned,
            level: 1 + nth % 3,
            since_unix_ms: Some(since_unix_ms),
            until_unix_ms: Some(since_unix_ms + 3_600_000),
            ended_unix_ms: None,
            grace_until_unix_ms: None,
            why: "rate_limited".into(),
            by: "policy".into(),
            request: Some(format!("01M7ZF3V{:018X}", u64::from(nth) << 20 | 0x5_a5a5).into()),
            node: None,
            hlc: None,
        };
        value.clear();
        state.write(&stamps, &mut value);
        let timestamp_ms = i64::try_from(since_unix_ms).unwrap();
        builder.push(timestamp_ms, Some(client.as_bytes()), Some(&value), &[]);
        if builder.raw_bytes() >= BATCH_BYTES || nth + 1 == count {
            let batch = builder.finish(Compression::Lz4);
            batches.push(batch.bytes().to_vec());
        }
    }
    batches
}
