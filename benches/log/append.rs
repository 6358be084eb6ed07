//! From the lanes to the page cache, and from there to a reader: what events cost, and how late they are.
//!
//!     cargo bench --bench append                           # both below
//!     cargo bench --bench append -- throughput 5000000     # so many events as fast as they go in
//!     cargo bench --bench append -- throughput avro 5000000    # the same, with values that are Avro
//!     cargo bench --bench append -- latency 5000           # so many a second, and when each can be read
//!
//! The log is in `WARDENT_BENCH_DIR`, or in the system's directory of temporary files.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench that cannot be set up should stop loudly, and says what it measured"
)]

use std::{fs, path::Path, sync::Arc, thread, time::Duration};

use tempfile::TempDir;
use wardent::{
    base::{bell::Bell, clock::Clock, disk::System},
    config::settings,
    event::{
        access::{Access, Verdict},
        avro::{self, Codec},
        place::{Place, Run},
        privacy::AddressText,
        time::Stamps,
    },
    log::{self, Flush, Log, Partition, TopicConfig, TopicSettings, View},
    sink::{
        builder::{Builder, Counts, LogTopic},
        lane::{Lane, lane, lane_bytes},
    },
};

/// The threads between the lanes and the disk.
const THREADS: [&str; 3] = ["builder", "appender", "flusher"];

const LANES: usize = 2;
const PARTITIONS: u32 = 4;

/// Events that may be on their way at once: far fewer than the lanes have room for.
const ON_THEIR_WAY_MAX: u64 = 8_000;

/// How long the latency is measured.
const MEASURED_S: u64 = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = arguments.iter().find_map(|argument| argument.parse().ok());
    let has = |what: &str| arguments.iter().any(|argument| argument == what);
    if has("throughput") || !has("latency") {
        let codec = has("avro")
            .then(|| avro::of_topic(settings::ACCESS))
            .flatten();
        throughput(number.unwrap_or(5_000_000), codec);
    }
    if has("latency") || !has("throughput") {
        latency(number.unwrap_or(5_000));
    }
}

/// Fills the lanes as fast as they are drained.
fn throughput(events: u64, codec: Option<&'static Codec>) {
    let clock = Clock::system();
    let before_kib = resident_kib("VmRSS");
    let mut rig = Rig::new(&clock, codec);
    let mut writer = Writer::default();
    let mut raw_bytes = 0;
    let began_ns = clock.monotonic_ns();
    for number in 0..events {
        while number - rig.counts.events() > ON_THEIR_WAY_MAX {
            thread::sleep(Duration::from_micros(200));
        }
        raw_bytes += rig.tell(&mut writer, number, clock.unix_ms());
    }
    rig.wait_for(events);
    let wall_s = (clock.monotonic_ns() - began_ns) as f64 / 1e9;
    let busy_s = THREADS.map(busy_s);
    let grown_kib = resident_kib("VmHWM").saturating_sub(before_kib);
    let (stored, batches) = (rig.counts.bytes(), rig.counts.batches());
    let each = |whole: f64| whole / events as f64;
    let sum_s: f64 = busy_s.iter().sum();
    println!("{events} events of {} bytes", raw_bytes / events);
    println!(
        "  {:>9.0} events/s, beside the thread that makes them",
        1.0 / each(wall_s)
    );
    println!(
        "  {:>9.0} events/s for each core that works for the log",
        1.0 / each(sum_s)
    );
    for (name, seconds) in THREADS.iter().zip(busy_s) {
        println!("  {:>9.0} ns an event: {name}", each(seconds * 1e9));
    }
    let saved = 100.0 * (1.0 - stored as f64 / raw_bytes as f64);
    println!(
        "  {:>9.1} bytes an event on disk, {saved:.1} % saved",
        each(stored as f64)
    );
    println!("  {:>9.0} events a batch", events as f64 / batches as f64);
    println!(
        "  {:>9.1} MiB of memory more at the most",
        grown_kib as f64 / 1024.0
    );
    let dir = rig.close();
    let began_ns = clock.monotonic_ns();
    let again = log::open(settings_in(dir.path()), Arc::new(System), clock.clone()).unwrap();
    assert!(
        again.was_clean,
        "not closed in good order: {:?}",
        again.report
    );
    let opened_ms = (clock.monotonic_ns() - began_ns) as f64 / 1e6;
    println!("  {opened_ms:>9.1} ms to open it again");
}

/// Tells so many events a second, and has a reader see when it can read each.
fn latency(rate: u64) {
    let clock = Clock::system();
    let mut rig = Rig::new(&clock, None);
    let readers: Vec<_> = (0..PARTITIONS)
        .map(|index| {
            let partition = rig.log.partition(settings::ACCESS, index).unwrap();
            let clock = clock.clone();
            thread::spawn(move || read(&partition, &clock))
        })
        .collect();
    let mut writer = Writer::default();
    let began_ns = clock.monotonic_ns();
    let events = rate * MEASURED_S;
    for number in 0..events {
        let due_ns = began_ns + number * 1_000_000_000 / rate;
        while clock.monotonic_ns() < due_ns {
            thread::sleep(Duration::from_nanos(
                due_ns - clock.monotonic_ns().min(due_ns),
            ));
        }
        // The moment is told in the place of the request's duration, to the microsecond.
        writer.total_us = clock.monotonic_ns() / 1_000;
        rig.tell(&mut writer, number, clock.unix_ms());
    }
    rig.wait_for(events);
    rig.tell_end(&clock);
    let mut late_us: Vec<u64> = readers
        .into_iter()
        .flat_map(|reader| reader.join().unwrap())
        .collect();
    assert_eq!(late_us.len() as u64, events, "not every event was read");
    late_us.sort_unstable();
    let at = |permille: usize| late_us[(late_us.len() - 1) * permille / 1_000] as f64 / 1e3;
    println!("{rate} events/s, from a worker's call until a reader has the event");
    println!(
        "  p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, at the most {:.1} ms",
        at(500),
        at(990),
        at(999),
        at(1_000)
    );
    rig.close();
}

/// Reads a partition to the event that ends it; gives how late each was, in microseconds.
fn read(partition: &Partition, clock: &Clock) -> Vec<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (mut shown, mut next) = (partition.subscribe(), 0);
    let (mut late_us, mut scratch) = (Vec::new(), Vec::new());
    loop {
        let bytes = partition.read(next, 1 << 20).unwrap();
        let now_us = clock.monotonic_ns() / 1_000;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (batch, behind) = View::read(rest).unwrap();
            for record in batch.records(&mut scratch).unwrap() {
                let event: serde_json::Value =
                    serde_json::from_slice(record.unwrap().value.unwrap()).unwrap();
                match event["total_us"].as_u64().unwrap() {
                    0 => return late_us,
                    told_us => late_us.push(now_us - told_us),
                }
            }
            next = batch.last_offset() + 1;
            rest = behind;
        }
        if bytes.is_empty() {
            runtime.block_on(shown.changed()).unwrap();
        }
    }
}

/// A log with the threads before and behind it.
struct Rig {
    dir: TempDir,
    log: Arc<Log>,
    running: log::Running,
    lanes: Vec<Lane>,
    counts: Arc<Counts>,
    builder: thread::JoinHandle<()>,
}

impl Rig {
    fn new(clock: &Clock, codec: Option<&'static Codec>) -> Self {
        let dir = match std::env::var_os("WARDENT_BENCH_DIR") {
            Some(place) => tempfile::tempdir_in(place).unwrap(),
            None => tempfile::tempdir().unwrap(),
        };
        let opened = log::open(settings_in(dir.path()), Arc::new(System), clock.clone()).unwrap();
        let log = Arc::clone(&opened.log);
        let running = log::start(opened.appender, opened.flusher, opened.changer).unwrap();
        let bell = Arc::<Bell>::default();
        let lane = |number| lane(Run::new(7), number, lane_bytes(LANES), &bell);
        let (lanes, drains) = (0..).take(LANES).map(lane).unzip();
        let topic = Box::new(LogTopic::named(&log, settings::ACCESS).unwrap());
        let builder = Builder::new(drains, topic, bell, clock.clone()).with_codec(codec);
        Self {
            dir,
            log,
            running,
            lanes,
            counts: Arc::clone(builder.counts()),
            builder: builder.start().unwrap(),
        }
    }

    /// Tells one event; returns the bytes of its key and value.
    fn tell(&mut self, writer: &mut Writer, number: u64, unix_ms: u64) -> u64 {
        let lane = &mut self.lanes[usize::try_from(number).unwrap() % LANES];
        let client = client(number);
        let value = writer.event(lane.next(), number, &client, unix_ms);
        lane.tell(unix_ms, Some(client.as_bytes()), value);
        (client.as_bytes().len() + value.len()) as u64
    }

    /// Waits until so many events are in the log.
    fn wait_for(&self, events: u64) {
        while self.counts.events() < events {
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Tells every partition an event that is no request's, as the last.
    fn tell_end(&mut self, clock: &Clock) {
        let keys = (0_u32..).map(|number| number.to_string());
        for partition in 0..PARTITIONS {
            let key = keys
                .clone()
                .find(|key| log::partition_of(key.as_bytes(), PARTITIONS) == partition)
                .unwrap();
            self.lanes[0].tell(clock.unix_ms(), Some(key.as_bytes()), br#"{"total_us":0}"#);
        }
    }

    fn close(self) -> TempDir {
        drop(self.lanes);
        self.builder.join().unwrap();
        self.running.stop(Duration::from_secs(30));
        self.dir
    }
}

fn settings_in(dir: &Path) -> log::Settings {
    const MIB: u64 = 1 << 20;
    log::Settings {
        dir: dir.join("log"),
        disk_max: 8 << 30,
        ballast_bytes: 0,
        topics: vec![TopicSettings {
            name: settings::ACCESS.to_owned(),
            partitions: PARTITIONS,
            config: TopicConfig {
                segment_bytes: 64 * MIB,
                flush: Flush::Lazily {
                    age: Duration::from_secs(5),
                    bytes: 8 * MIB,
                },
                ..TopicConfig::default()
            },
        }],
    }
}

/// Makes events as a shop's traffic does: many clients, few browsers, some paths much more than others.
#[derive(Default)]
struct Writer {
    stamps: Stamps,
    value: Vec<u8>,
    path: String,
    /// What stands as the request's duration; 0 for one that is made up.
    total_us: u64,
}

impl Writer {
    fn event(&mut self, place: Place, number: u64, client: &AddressText, unix_ms: u64) -> &[u8] {
        const BROWSERS: [&[u8]; 4] = [
            b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
              Chrome/131.0.0.0 Safari/537.36",
            b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, \
              like Gecko) Version/18.1 Mobile/15E148 Safari/604.1",
            b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like \
              Gecko) Version/18.1 Safari/605.1.15",
        ];
        let chance = scrambled(number);
        // The product of two numbers is small more often than large.
        let popular = (chance & 15) * (chance >> 4 & 15);
        self.path.clear();
        self.path.push_str("/products/");
        self.path.push_str(&popular.to_string());
        let id = wardent::base::id::RequestIds::starting_at(u128::from(chance)).next(unix_ms);
        let total_us = match self.total_us {
            0 => 400 + chance % 30_000,
            told_us => told_us,
        };
        let peer = AddressText::whole([127, 0, 0, 1].into());
        let access = Access {
            place: Some(place),
            arrived_unix_ms: unix_ms,
            id: id.as_bytes(),
            client: Some(client),
            is_proven: true,
            peer: Some(&peer),
            edge: None,
            method: b"GET",
            host: b"shop.example",
            path: self.path.as_bytes(),
            is_cross_site: false,
            status: if chance.is_multiple_of(50) { 404 } else { 200 },
            verdict: Verdict::Passed,
            reason: None,
            is_observed: false,
            why: None,
            rule: None,
            route: "defaults",
            body_bytes_in: 0,
            bytes_out: 500 + chance % 60_000,
            total_us,
            body_us: None,
            connected_us: Some(chance % 90),
            answered_us: Some(total_us.saturating_sub(chance % 300)),
            upstream: Some("127.0.0.1:8000"),
            user_agent: BROWSERS[(chance >> 20) as usize % BROWSERS.len()],
            bot: None,
            country: Some([b"DE", b"FR", b"US", b"AT"][(chance >> 30) as usize % 4]),
            ray: None,
        };
        self.value.clear();
        access.write_json(&self.stamps, &mut self.value);
        &self.value
    }
}

/// One of ten thousand clients.
fn client(number: u64) -> AddressText {
    let [.., high, low] = (scrambled(number) % 10_000).to_be_bytes();
    AddressText::whole([198, 51, high, low].into())
}

/// A number that looks like chance, the same for the same one (splitmix64).
fn scrambled(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// How long the threads of this name have been on a processor.
fn busy_s(name: &str) -> f64 {
    let tasks = fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| task.unwrap().path());
    let named = tasks.filter(|task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    let ns = named.map(|task| {
        let stat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        let on_processor = stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        on_processor.unwrap_or(0)
    });
    ns.sum::<u64>() as f64 / 1e9
}

/// A line of this process's `status`, in KiB.
fn resident_kib(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|found| found.strip_prefix(line));
    let number = found.and_then(|found| found.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}
