//! How fast a replay is: requests in the log, from the page cache, judged again by two policies.
//!
//! `cargo bench --bench candidate`, or with another number of requests: `cargo bench --bench candidate -- 5000000`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a program to measure with: it tells figures, and stops loudly"
)]

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicBool, mpsc},
    time::Duration,
};

use wardent::{
    base::{
        clock::Clock,
        disk::{Disk, System},
    },
    bots::{Catalogue, Networks, Verifier},
    config::{self, secrets::Secrets, settings},
    event::{access, time::Stamps},
    guard::bots::Bots,
    log::{
        self, Append, Builder, Compression, Flush, Partition, Settings, TopicConfig, TopicSettings,
    },
    replay::{Mind, Plan, replay},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: u32 = 4;
const BATCH: u64 = 250;
const CLIENTS: u64 = 20_000;
const BEGIN_MS: u64 = 1_795_255_200_000;

const WARDENT: &str = "\
listen: [127.0.0.1:8080]
upstream: {servers: [127.0.0.1:8000]}
secret: {keys: [{id: bench, from: {file: secret}}]}
policy: policy.yaml
log: {dir: log}
";

const POLICY: &str = include_str!("../proxy/conf/policy.yaml");

const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
];

/// An event as real traffic makes them: ten a millisecond, of many clients, a few of which ask most; one in
/// twenty is a bot's that is kept out, one in fifty a login, one in a hundred too many.
fn event(number: u64, stamps: &Stamps, out: &mut Vec<u8>) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let unix_ms = BEGIN_MS + number / 10;
    let client = mixed % CLIENTS * (mixed >> 20 & 3) / 3;
    let address = format!("20.{}.{}.{}", client >> 16, client >> 8 & 255, client & 255);
    let mut time = Vec::new();
    stamps.write_rfc3339(unix_ms, &mut time);
    let time = String::from_utf8_lossy(&time);
    let (method, path) = match number % 50 {
        7 => ("POST", "/accounts/login/".to_owned()),
        _ => ("GET", format!("/articles/2026/{}/", mixed % 977)),
    };
    let (verdict, agent, bot) = match number % 100 {
        0 => (
            r#""status":429,"verdict":"refused","reason":"rate_limited","why":"over the limit","rule":"defaults""#,
            AGENTS[0],
            "",
        ),
        20 | 40 | 60 | 80 | 99 => (
            r#""status":403,"verdict":"refused","reason":"bot","why":"a bot of a category that is kept out""#,
            "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
            r#","bot":"AhrefsBot","bot_category":"seo""#,
        ),
        _ => (
            r#""status":200,"verdict":"passed""#,
            AGENTS[(mixed >> 9 & 3) as usize],
            "",
        ),
    };
    let text = format!(
        r#"{{"event":"access","v":1,"time":"{time}","id":"01KAJ{number:021}","run":"00c0ffee","lane":{lane},"seq":{seq},"client":"{address}","proven":true,"peer":"127.0.0.1","method":"{method}","host":"www.example.org","path":"{path}",{verdict},"route":"defaults","body_bytes_in":0,"bytes_out":{out},"total_us":{us},"connected_us":120,"answered_us":{us},"upstream":"127.0.0.1:8000","user_agent":"{agent}"{bot}}}"#,
        lane = number & 1,
        seq = number / 2 + 1,
        out = 1_000 + mixed % 9_000,
        us = 500 + mixed % 40_000,
    );
    out.extend_from_slice(text.as_bytes());
    unix_ms
}

/// Writes the events, and gives the partitions as a reader opens them.
fn written(dir: &Path, events: u64) -> Vec<Arc<Partition>> {
    let disk: Arc<dyn Disk> = Arc::new(System);
    let settings = Settings {
        dir: dir.to_owned(),
        disk_max: 1 << 40,
        ballast_bytes: 0,
        topics: vec![TopicSettings {
            name: access::TOPIC.to_owned(),
            partitions: PARTITIONS,
            config: TopicConfig {
                flush: Flush::Lazily {
                    age: Duration::from_secs(5),
                    bytes: u64::MAX,
                },
                ..TopicConfig::default()
            },
        }],
    };
    let opened = log::open(settings, Arc::clone(&disk), Clock::system()).unwrap();
    let log = Arc::clone(&opened.log);
    let running = log::start(opened.appender, opened.flusher, opened.changer).unwrap();
    let (mut builder, stamps, mut text) = (Builder::new(), Stamps::default(), Vec::new());
    for first in (0..events).step_by(BATCH as usize) {
        for number in first..first + BATCH {
            text.clear();
            let unix_ms = event(number, &stamps, &mut text);
            builder.push(
                unix_ms.cast_signed(),
                Some(b"198.51.100.7"),
                Some(&text),
                &[],
            );
        }
        let partition = first / BATCH % u64::from(PARTITIONS);
        let (told, done) = mpsc::channel::<()>();
        let append = Append {
            partition: Arc::clone(&log.partitions()[partition as usize]),
            batch: builder.finish(Compression::Lz4),
            done: Box::new(move |_| drop(told)),
        };
        log.appends().offer(append).map_err(drop).unwrap();
        // It is dropped when the batch is written.
        let _ = done.recv();
    }
    running.stop(Duration::from_secs(60));
    log::open_to_read(dir, &disk).unwrap()
}

fn mind(dir: &Path, policy: &str) -> Mind {
    fs::write(dir.join("policy.yaml"), policy).unwrap();
    fs::write(dir.join("wardent.yaml"), WARDENT).unwrap();
    let loaded = config::load(&dir.join("wardent.yaml")).unwrap();
    let mut lasting = settings::Lasting {
        secrets: Secrets::stand_ins().unwrap(),
        ..settings::Lasting::default()
    };
    let built = settings::policy(&loaded, &mut lasting, 1).unwrap();
    Mind {
        policy: built.policy,
        bans: built.bans,
        clients_max: 1_000_000,
        bans_max: 1_000_000,
    }
}

/// Nanoseconds of CPU that all threads of this process have had (proc(5), stat, in ticks of 10 ms).
fn cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap();
    let after = text.rsplit(')').next().unwrap();
    let mut fields = after.split_whitespace().skip(11);
    let mut ticks = || fields.next().unwrap().parse::<u64>().unwrap();
    (ticks() + ticks()) * 10_000_000
}

fn main() {
    let count = std::env::args().find_map(|argument| argument.parse().ok());
    let count: u64 = count.unwrap_or(2_000_000) / BATCH * BATCH;
    let dir = tempfile::tempdir().unwrap();
    let partitions = written(dir.path(), count);
    let candidate = POLICY.replace("rate: 20/s, burst: 40", "rate: 10/s, burst: 20");
    let candidate = candidate.replace("5/m, burst: 5", "3/m, burst: 3");
    let (verifier, _) = Verifier::new(Networks::shipped());
    let bots = Bots::new(Catalogue::shipped(), verifier);
    let is_over = AtomicBool::new(false);
    let plan = Plan {
        partitions: &partitions,
        since_ms: BEGIN_MS,
        until_ms: BEGIN_MS + count,
        of: None,
        bots: &bots,
        is_over: &is_over,
    };
    let clock = Clock::system();
    for _ in 0..5 {
        let (current, other) = (mind(dir.path(), POLICY), mind(dir.path(), &candidate));
        let (begin_ns, begin_cpu_ns) = (clock.monotonic_ns(), cpu_ns());
        let report = replay(&plan, current, other, &mut |_| {}).unwrap();
        let (wall, cpu) = (clock.monotonic_ns() - begin_ns, cpu_ns() - begin_cpu_ns);
        assert_eq!((report.requests, report.complete), (count, true));
        let changed: u64 = report.changes.iter().map(|change| change.requests).sum();
        println!(
            "{count} requests, {changed} of them judged otherwise: {:.0} a second, {:.0} ns of CPU each",
            count as f64 * 1e9 / wall as f64,
            cpu as f64 / count as f64,
        );
    }
}
