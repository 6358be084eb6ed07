//! Notices a hang from outside, through the real path, and ends it.
//!
//! A thread of its own with blocking sockets: it shares neither a runtime nor a lock with what it
//! watches. Once a second it sends canaries through the real listeners until every worker has
//! answered one, and looks at the clocks that workers and the owner of bans set with every turn. What
//! has not shown itself for 5 s raises the alarm, which `/livez`, metrics and log tell; after 10 s a
//! report is written and the process aborts, so that systemd starts it again. systemd hears that
//! all is well only when it is.
//!
//! Not every address can be reached from here: a firewall may forbid it, a passed socket may have no
//! path. Canaries are missed only where one has come back before.
//!
//! A gap between two of its own moments means that the whole process stood still: everybody gets a new
//! start.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::View;
use crate::{
    base::{abort::AbortOnPanic, net::Address},
    proxy::{
        listener::Phase,
        metrics::{WorkerMetrics, stage_names},
    },
};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// What has been silent for so long raises the alarm.
const ALARM_AFTER_MS: u64 = 5_000;
/// What has been silent for so long ends the process.
const ABORT_AFTER_MS: u64 = 10_000;
/// Two of its moments further apart than this mean that the whole process stood still; a look with all its
/// canaries takes less.
const GAP_MS: u64 = 3_000;
/// One canary's whole way.
const CANARY_WITHIN: Duration = Duration::from_millis(250);
/// All canaries of one look.
const CANARIES_WITHIN_MS: u64 = 1_000;
/// Canaries of one look for each worker. The kernel deals them out at random, so that a worker is
/// left out by chance once in ten million looks.
const CANARIES_PER_WORKER: usize = 16;
/// Canaries under way at once. One for each worker: where all are slow but alive, one after the other
/// would not meet every worker in time.
const FLOCK_MAX: usize = 64;
/// An address from which no canary came back after so many is told.
const TRIES_IN_VAIN: u32 = 5;
/// A report that cannot be written in this time is not waited for.
const REPORT_WITHIN: Duration = Duration::from_secs(2);

/// What the watchdog found last. Written by it alone; relaxed, since each number stands for itself.
#[derive(Debug, Default)]
pub struct Vitals {
    /// Whether something is silent.
    pub is_alarmed: AtomicBool,
    /// Alarms so far.
    pub alarms: AtomicU64,
    /// Canaries sent.
    pub canaries: AtomicU64,
    /// Canaries that were not answered in time.
    pub canaries_lost: AtomicU64,
    /// The last canary's whole way, in microseconds.
    pub canary_us: AtomicU64,
    /// When a canary was last answered, in milliseconds since 1970.
    pub canary_unix_ms: AtomicU64,
    /// The same on the monotonic clock, in milliseconds.
    pub canary_ms: AtomicU64,
    /// When a look last found all well, on the monotonic clock, in milliseconds.
    pub well_ms: AtomicU64,
    /// Pings that the monitor answered. Written by who sends them, as the next is.
    pub pings_answered: AtomicU64,
    /// Pings that it did not.
    pub pings_failed: AtomicU64,
    /// When an earlier process left the last report of a hang, in milliseconds since 1970; zero for never.
    pub last_hang_unix_ms: AtomicU64,
}

/// How a watchdog is set up.
#[derive(Debug)]
pub struct Settings {
    /// Where the proxy listens.
    pub addresses: Vec<Address>,
    /// Whether the workers share their sockets, so that a canary may always meet the same one.
    pub shares_sockets: bool,
    /// Whether a hang ends the process; the alarm is raised either way.
    pub aborts: bool,
    /// Where a report is left.
    pub report_dir: PathBuf,
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the watch over what `view` shows. `well` is called after each look at which all was
    /// well.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        view: Arc<View>,
        settings: Settings,
        well: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let ended = Arc::<AtomicBool>::default();
        let until = Arc::clone(&ended);
        let thread = thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                let _abort = AbortOnPanic("watchdog");
                let mut watch = Watch::new(view, settings);
                while !until.load(Ordering::Relaxed) {
                    if watch.look() {
                        well();
                    }
                    thread::park_timeout(LOOK);
                }
            })?;
        Ok(Self {
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Its panic would have been its end; there is nothing else to do about it here.
            let _ = thread.join();
        }
    }
}

/// The state of the watch, between two looks.
#[derive(Debug)]
struct Watch {
    view: Arc<View>,
    settings: Settings,
    /// When everybody got a new start, in milliseconds of the monotonic clock.
    fresh_ms: u64,
    /// The last moment at which it was seen to run, by the same clock.
    noted_ms: u64,
    /// When canaries could last not be expected to come back, by the same clock.
    no_canaries_ms: u64,
    ways: Vec<Way>,
    sent: u64,
}

/// A way that canaries may take.
#[derive(Debug)]
struct Way {
    to: Address,
    /// Whether one has ever come back.
    is_open: bool,
    /// Canaries that did not come back before the first that did.
    in_vain: u32,
}

/// A canary under way.
#[derive(Debug)]
struct Flight {
    /// Its way's place in the list.
    way: usize,
    began_ns: u64,
    socket: Socket,
}

impl Watch {
    fn new(view: Arc<View>, settings: Settings) -> Self {
        let now_ms = now_ms(&view);
        let last_hang_ms = last_report_ms(&settings.report_dir).unwrap_or(0);
        let vitals = &view.vitals;
        vitals
            .last_hang_unix_ms
            .store(last_hang_ms, Ordering::Relaxed);
        let ways = settings.addresses.iter().map(|address| Way {
            to: address.clone(),
            is_open: false,
            in_vain: 0,
        });
        Self {
            ways: ways.collect(),
            view,
            settings,
            fresh_ms: now_ms,
            noted_ms: now_ms,
            no_canaries_ms: now_ms,
            sent: 0,
        }
    }

    /// Looks once; says whether all is well.
    fn look(&mut self) -> bool {
        let begin_ms = self.note_moment();
        let serves = *self.view.phase.borrow() == Phase::Serving;
        if serves {
            self.send_canaries(begin_ms);
            self.try_new_way();
        }
        // The process may have stood still while the canaries flew.
        let now_ms = self.note_moment();
        // All connections taken is a legal state, and says nothing about a hang; nor does the moment at
        // which they no longer are.
        let expects_canaries = serves
            && self.ways.iter().any(|way| way.is_open)
            && !self.view.shared.connections.is_taken();
        if !expects_canaries {
            self.no_canaries_ms = now_ms;
        }
        let silent = self.silent(now_ms, expects_canaries);
        let longest_ms = silent.iter().map(|(_, ms)| *ms).max().unwrap_or(0);
        let vitals = &self.view.vitals;
        let is_alarmed = longest_ms >= ALARM_AFTER_MS;
        if is_alarmed && !vitals.is_alarmed.swap(true, Ordering::Relaxed) {
            vitals.alarms.fetch_add(1, Ordering::Relaxed);
            tracing::error!(?silent, "something hangs: see /livez");
        } else if !is_alarmed && vitals.is_alarmed.swap(false, Ordering::Relaxed) {
            tracing::warn!("what hung goes on");
        }
        if !is_alarmed {
            vitals.well_ms.store(now_ms, Ordering::Relaxed);
        }
        if longest_ms >= ABORT_AFTER_MS && self.settings.aborts {
            self.abort(&silent);
        }
        !is_alarmed
    }

    /// The time; everybody gets a new start when the last moment is long ago.
    fn note_moment(&mut self) -> u64 {
        let now_ms = now_ms(&self.view);
        if now_ms.saturating_sub(self.noted_ms) > GAP_MS {
            self.fresh_ms = now_ms;
        }
        self.noted_ms = now_ms;
        now_ms
    }

    /// Everybody who should have shown a sign of life, and for how many milliseconds it has not.
    fn silent(&self, now_ms: u64, expects_canaries: bool) -> Vec<(String, u64)> {
        let since = |last_ms: u64| now_ms.saturating_sub(last_ms.max(self.fresh_ms));
        let workers = &self.view.workers;
        let last_canary_ms = workers.iter().map(|worker| worker.canary_ms.get()).max();
        let mut silent: Vec<_> = Vec::new();
        for (index, worker) in workers.iter().enumerate() {
            silent.push((format!("worker-{index} tick"), since(worker.beat_ms.get())));
            if expects_canaries {
                let answered_ms = if self.settings.shares_sockets {
                    last_canary_ms.unwrap_or(0)
                } else {
                    worker.canary_ms.get()
                };
                let last_ms = answered_ms.max(self.no_canaries_ms);
                silent.push((format!("worker-{index} canary"), since(last_ms)));
            }
        }
        let owner_ms = self.view.owner.beat_ms.load(Ordering::Relaxed);
        silent.push(("owner".to_owned(), since(owner_ms)));
        let publisher = self.view.auditor.numbers();
        let publisher_ms = publisher.beat_ms.load(Ordering::Relaxed);
        silent.push(("publisher".to_owned(), since(publisher_ms)));
        silent
    }

    /// Sends canaries on the open ways until each worker has answered one since `begin_ms`.
    fn send_canaries(&mut self, begin_ms: u64) {
        let open = self.ways.iter().enumerate().filter(|(_, way)| way.is_open);
        let open: Vec<usize> = open.map(|(index, _)| index).collect();
        let mut turns = open.iter().copied().cycle();
        for _ in 0..CANARIES_PER_WORKER {
            let mut flock = Vec::new();
            for way in turns.by_ref().take(self.view.workers.len().min(FLOCK_MAX)) {
                if self.is_late(begin_ms) {
                    break;
                }
                flock.extend(self.launch(way));
            }
            for flight in &flock {
                self.land(flight);
            }
            if self.is_late(begin_ms) || self.have_answered_since(begin_ms) {
                return;
            }
        }
    }

    /// Sends one canary on a way on which none has come back yet: the one that was tried least.
    fn try_new_way(&mut self) {
        let closed = self.ways.iter().enumerate().filter(|(_, way)| !way.is_open);
        let Some((index, _)) = closed.min_by_key(|(_, way)| way.in_vain) else {
            return;
        };
        if let Some(flight) = self.launch(index) {
            self.land(&flight);
        }
        if let Some(way) = self.ways.get_mut(index).filter(|way| !way.is_open) {
            way.in_vain = way.in_vain.saturating_add(1);
            if way.in_vain == TRIES_IN_VAIN {
                tracing::warn!(
                    address = %way.to,
                    "the watchdog finds no way to this address: it will not notice when requests to it hang"
                );
            }
        }
    }

    fn is_late(&self, begin_ms: u64) -> bool {
        now_ms(&self.view).saturating_sub(begin_ms) > CANARIES_WITHIN_MS
    }

    fn have_answered_since(&self, begin_ms: u64) -> bool {
        let answered = |worker: &Arc<WorkerMetrics>| worker.canary_ms.get() >= begin_ms;
        let workers = &self.view.workers;
        if self.settings.shares_sockets {
            workers.iter().any(answered)
        } else {
            workers.iter().all(answered)
        }
    }

    /// Sends one canary on its way; none when there is no connection to be had.
    fn launch(&mut self, way: usize) -> Option<Flight> {
        let request = self.view.shared.canary.request(self.sent);
        self.sent += 1;
        let vitals = &self.view.vitals;
        vitals.canaries.fetch_add(1, Ordering::Relaxed);
        let began_ns = self.view.shared.clock.monotonic_ns();
        match launch(&self.ways.get(way)?.to, &request) {
            Ok(socket) => Some(Flight {
                way,
                began_ns,
                socket,
            }),
            Err(_) => {
                vitals.canaries_lost.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Waits for a canary's answer.
    fn land(&mut self, flight: &Flight) {
        let clock = &self.view.shared.clock;
        let vitals = &self.view.vitals;
        let flown_ns = || clock.monotonic_ns().saturating_sub(flight.began_ns);
        let left = CANARY_WITHIN.saturating_sub(Duration::from_nanos(flown_ns()));
        if land(&flight.socket, left).is_err() {
            vitals.canaries_lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        vitals
            .canary_us
            .store(flown_ns() / 1_000, Ordering::Relaxed);
        vitals
            .canary_unix_ms
            .store(clock.unix_ms(), Ordering::Relaxed);
        vitals
            .canary_ms
            .store(now_ms(&self.view), Ordering::Relaxed);
        if let Some(way) = self.ways.get_mut(flight.way) {
            way.is_open = true;
        }
    }

    /// Writes a report and ends the process.
    fn abort(&self, silent: &[(String, u64)]) -> ! {
        let report = self.report(silent);
        let file = self
            .settings
            .report_dir
            .join(format!("hang-{}.txt", self.view.shared.clock.unix_ms()));
        // On a thread of its own: a disk or a pipe that hangs must not keep the hang alive.
        let (written, is_written) = mpsc::channel();
        let _ = thread::Builder::new().spawn(move || {
            let _ = io::stderr().write_all(report.as_bytes());
            let _ = fs::write(&file, report);
            let _ = written.send(());
        });
        let _ = is_written.recv_timeout(REPORT_WITHIN);
        std::process::abort()
    }

    fn report(&self, silent: &[(String, u64)]) -> String {
        let mut report = String::from("wardent hangs and ends itself\n\nsilent for, in ms:\n");
        // Writing to memory does not fail.
        for (who, ms) in silent {
            let _ = writeln!(report, "  {who}: {ms}");
        }
        for (index, worker) in self.view.workers.iter().enumerate() {
            let _ = write!(
                report,
                "worker-{index}: {} connections; waits:",
                worker.connections.get()
            );
            for (stage, count) in stage_names().zip(&worker.waiting) {
                let _ = write!(report, " {stage}={}", count.get());
            }
            report.push('\n');
        }
        let shared = &self.view.shared;
        let _ = writeln!(
            report,
            "at the upstream: {}; violations waiting: {}\n\nthreads:",
            shared.in_flight.held(),
            shared.facts.waiting(),
        );
        for task in fs::read_dir("/proc/self/task")
            .into_iter()
            .flatten()
            .flatten()
        {
            let read = |name: &str| {
                let text = fs::read_to_string(task.path().join(name)).unwrap_or_default();
                text.trim().to_owned()
            };
            // The state is the first word after the name in brackets (proc(5)).
            let stat = read("stat");
            let state = stat
                .rsplit(") ")
                .next()
                .and_then(|rest| rest.chars().next());
            let _ = writeln!(
                report,
                "  {} {}: state {}, waits in {}, system call {}",
                task.file_name().to_string_lossy(),
                read("comm"),
                state.unwrap_or('?'),
                read("wchan"),
                read("syscall"),
            );
        }
        report
    }
}

/// When the last report in `dir` was left, in milliseconds since 1970.
fn last_report_ms(dir: &Path) -> Option<u64> {
    let files = fs::read_dir(dir).ok()?.flatten();
    let stamps = files.filter_map(|file| {
        let name = file.file_name();
        let stamp = name.to_str()?.strip_prefix("hang-")?.strip_suffix(".txt")?;
        stamp.parse().ok()
    });
    stamps.max()
}

fn now_ms(view: &View) -> u64 {
    view.shared.clock.monotonic_ns() / 1_000_000
}

/// Sends one canary to `address`.
fn launch(address: &Address, request: &[u8]) -> io::Result<Socket> {
    let mut socket = match address {
        Address::Tcp(address) => {
            TcpStream::connect_timeout(&reachable(*address), CANARY_WITHIN)?.into()
        }
        Address::Unix(path) => connect_unix(path)?,
    };
    socket.set_write_timeout(Some(CANARY_WITHIN))?;
    socket.write_all(request)?;
    Ok(socket)
}

/// Waits for a canary's answer, `within` at most; one that is there already is always seen.
fn land(mut socket: &Socket, within: Duration) -> io::Result<()> {
    let mut begin = [0; 12];
    socket.set_read_timeout(Some(within.max(Duration::from_millis(1))))?;
    socket.read_exact(&mut begin)?;
    if begin.starts_with(b"HTTP/1.1 204") {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Connects to a unix socket, or fails at once: a connect that blocks waits for room in the backlog
/// as long as it takes.
fn connect_unix(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// What listens on all addresses is reached by the loopback one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        // As it stands: with the scope that a link-local one needs (RFC 4007 section 11).
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_is_found_among_other_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last_report_ms(dir.path()), None);
        for name in [
            "hang-1700.txt",
            "hang-1600.txt",
            "hang-x.txt",
            "hang-9",
            "log",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(last_report_ms(dir.path()), Some(1_700));
        assert_eq!(last_report_ms(&dir.path().join("none")), None);
    }
}
