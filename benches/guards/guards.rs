//! What the guards cost, and what a flood of strangers costs them. Commands and figures: README.md.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a program to measure with: it tells figures, and stops loudly"
)]

use std::{
    env, fs,
    hint::black_box,
    net::Ipv6Addr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use house::House;
use wardent::{
    base::clock::Clock,
    client::ClientKey,
    guard::bots::People,
    limit::{ClockIds, Keeper, Limit, Quota},
};

mod house;

/// What Wardent runs on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIENTS: u32 = 1_000_000;
/// Requests of each thread.
const CALLS: u64 = 2_000_000;

const SECOND_NS: u64 = 1_000_000_000;

fn main() {
    let arguments: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let number = |nth: usize, default: u64| {
        let given = arguments.get(nth);
        given.map_or(default, |text| text.parse().unwrap())
    };
    match arguments.first().map(String::as_str) {
        None | Some("judge") => judge(number(1, CLIENTS.into()) as u32),
        Some("flood") => flood(number(1, 10_000_000)),
        Some("sweep") => sweep(number(1, CLIENTS.into()) as u32),
        Some("once") => once(number(1, 1_000)),
        Some(other) => println!("no such command: {other}"),
    }
}

/// Nanoseconds that this thread has run, without those in which others did (proc(5), schedstat).
fn thread_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// The resident set, in bytes.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

/// The whole chain about clients picked all over the table, by one to eight threads.
fn judge(clients: u32) {
    let mut house = House::new(clients as usize);
    house.fill(clients, 1);
    println!("{} cells", house.keeper.clients().cells());
    // In the order in which they ask, so that reading them costs no more than a head that has just come.
    // The step is prime to their number: all come, none twice in a round.
    let order = (0..u64::from(clients)).map(|nth| (nth * 618_041 % u64::from(clients)) as u32);
    let addresses: Vec<_> = order
        .map(|n| {
            let text = house::address(n);
            let mut bytes = [b' '; 16];
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            bytes
        })
        .collect();
    for threads in [1_u32, 2, 8] {
        // Everybody has earned the whole burst again, and goes on earning what it spends.
        let begin_ns = u64::from(threads) * 1_000_000 * SECOND_NS;
        let step_ns = SECOND_NS / 20 * u64::from(threads) / u64::from(clients);
        let cpu_ns: u64 = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|nth| {
                    let (house, addresses) = (&house, &addresses);
                    scope.spawn(move || {
                        let (people, mut scratch) = (People::default(), Vec::with_capacity(1024));
                        let begin_cpu_ns = thread_cpu_ns();
                        let from = addresses.len() / threads as usize * nth as usize;
                        let all = addresses.iter().cycle().skip(from);
                        for (address, call) in all.zip(0..CALLS) {
                            let now_ns = begin_ns + call * step_ns;
                            black_box(house.judge(&people, address, now_ns, &mut scratch));
                        }
                        thread_cpu_ns() - begin_cpu_ns
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .sum()
        });
        let per_call = cpu_ns as f64 / (CALLS * u64::from(threads)) as f64;
        println!("{threads} threads: {per_call:.0} ns of CPU per request");
    }
}

/// The same for callgrind, which counts a life with so many requests.
fn once(calls: u64) {
    let mut house = House::new(1_000);
    house.fill(1_000, 1);
    let addresses: Vec<String> = (0..1_000).map(house::address).collect();
    let (people, mut scratch) = (People::default(), Vec::with_capacity(1024));
    for address in addresses.iter().cycle().take(calls as usize) {
        let judged = house.judge(&people, address.as_bytes(), SECOND_NS, &mut scratch);
        black_box(&judged);
    }
}

fn limit() -> Limit {
    Limit {
        quota: Quota::new("20/s".parse().unwrap(), 40),
        clock: ClockIds::default().clock("defaults", 0).unwrap(),
    }
}

/// The `n`th stranger: an IPv6 network of its own.
fn stranger(n: u64) -> ClientKey {
    let bits = 0x2001_0db8_u128 << 96 | u128::from(n) << 64;
    ClientKey::new(Ipv6Addr::from_bits(bits).into(), 64)
}

fn known(n: u32) -> ClientKey {
    ClientKey::new(house::ip(n).into(), 64)
}

/// A table of a million, then a hundred thousand strangers a second, each with one request, and a hundred
/// known clients that ask twice as often as they may.
fn flood(strangers: u64) {
    let limit = [limit()];
    let empty = resident();
    let mut keeper = Keeper::new(CLIENTS as usize);
    let clients = keeper.clients().clone();
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let tell = |name: &str| {
        let taken = resident() - empty;
        println!("{name}: {} cells, {:.1} MiB", clients.cells(), mib(taken));
        taken
    };
    let mut next = 0;
    while !clients.is_full() {
        clients.spend(clients.see(stranger(next)), &limit, next);
        keeper.take_sights(next);
        next += 1;
    }
    let full = tell("full");
    println!("{:.0} bytes a cell", full as f64 / f64::from(CLIENTS));
    let (mut asked, mut admitted, mut most) = (0_u64, 0_u64, 0);
    let begin_ns = 60 * SECOND_NS;
    for n in 0..strangers {
        let now_ns = begin_ns + n * 10_000;
        clients.spend(clients.see(stranger(next + n)), &limit, now_ns);
        // Forty a second for each of a hundred.
        if n % 25 == 0 {
            let passes = clients.spend(clients.see(known((n / 25 % 100) as u32)), &limit, now_ns);
            asked += 1;
            admitted += u64::from(passes.unwrap().admitted);
        }
        if n % 1_000 == 999 {
            keeper.take_sights(now_ns);
            keeper.sweep(now_ns);
        }
        if (n + 1) % 1_000_000 == 0 {
            most = tell(&format!("{:>4} million strangers", (n + 1) / 1_000_000)).max(most);
        }
    }
    println!("at most {:.3} of the full table", most as f64 / full as f64);
    let due = 100.0 * (40.0 + 20.0 * strangers as f64 / 100_000.0);
    println!("known clients: {asked} asked, {admitted} admitted, {due:.0} were due");
}

/// How long a charge takes while a million cells are swept, beside a baseline without.
fn sweep(strangers: u32) {
    let limit = [limit()];
    let mut keeper = Keeper::new(2 * strangers as usize);
    let clients = keeper.clients().clone();
    for n in 0..u64::from(strangers) {
        clients.spend(clients.see(stranger(n)), &limit, 1);
        if n % 1024 == 0 {
            keeper.take_sights(1);
        }
    }
    while keeper.take_sights(1) > 0 {}
    println!("{} cells", clients.cells());
    // What is left after the sweeps: those that have asked by then.
    let later_ns = 3_600 * SECOND_NS;
    let busy = 10_000;
    for n in 0..busy {
        clients.spend(clients.see(known(n)), &limit, later_ns);
        keeper.take_sights(later_ns);
    }
    let clock = Clock::system();
    let measure = |name: &str, goes_on: &dyn Fn(usize) -> bool| {
        let mut took_ns = Vec::with_capacity(20_000_000);
        while goes_on(took_ns.len()) && took_ns.len() < took_ns.capacity() {
            let who = known((took_ns.len() * 7_919 % busy as usize) as u32);
            let begin_ns = clock.monotonic_ns();
            black_box(clients.spend(clients.see(who), &limit, later_ns));
            took_ns.push(clock.monotonic_ns() - begin_ns);
        }
        took_ns.sort_unstable();
        let at = |share: f64| took_ns[((took_ns.len() - 1) as f64 * share) as usize];
        println!(
            "{name}: {} charges, p50 {} ns, p99 {} ns, p99.9 {} ns; {} saw no cell",
            took_ns.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            clients.contended()
        );
    };
    measure("baseline", &|done| done < 2_000_000);
    let is_swept = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let begin_ns = clock.monotonic_ns();
            while clients.cells() > u64::from(busy) {
                keeper.sweep(later_ns);
            }
            let ms = (clock.monotonic_ns() - begin_ns) / 1_000_000;
            println!("a million cells swept in {ms} ms, one slice after the other");
            is_swept.store(true, Ordering::Relaxed);
        });
        measure("while swept", &|_| !is_swept.load(Ordering::Relaxed));
    });
    println!("{} cells left", clients.cells());
}
