//! Wires everything together: bind, spawn, serve, drain.

mod admin_cli;
mod bans;
mod bans_cli;
mod bots;
mod bots_cli;
pub mod cli;
mod client;
mod cluster_cli;
mod demo;
mod doctor;
mod event_text;
mod events_cli;
mod explain_cli;
mod groups_cli;
mod kafka;
mod log;
mod log_cli;
mod log_reader;
#[cfg(feature = "cluster")]
mod mirror_cli;
mod pages;
mod paint;
mod probe;
mod registry;
mod reload;
mod replay_cli;
mod replay_text;
mod run;
mod soak;
mod sockets;
mod status_cli;
mod telemetry;
mod tls;
mod top_cli;
mod top_screen;
mod users_cli;

use std::{
    fmt,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{
    admin::{
        Reloader, Reloads, View,
        log::LogView,
        server::Server,
        token::Token,
        watchdog::{self, Watchdog},
    },
    base::{clock::Clock, disk::Disk, net::Address},
    bots::verify::Questions,
    config::{
        self, Loaded, Report,
        settings::{self, Built, Lasting},
        wardent::Document,
        watch::Watch,
    },
    event::privacy::Privacy,
    guard::{bots::Bots, policy::Policy},
    kafka::tls::Tls,
    owner::BanPolicy,
    proxy::{
        canary::Canary,
        listener::{self, Listener, Phase, WorkerThread},
        upstream::health::{self, HealthCheck},
        worker::{Bound, HELD_BYTES_MAX, LineSink, Outlets, Shared},
    },
    sink::lines::Lines,
};
use bans::{BanThreads, Bans};
use kafka::Kafka;
use log::OpenLog;
use registry::own_token;
use reload::{InForce, Reloading};
use sockets::Sockets;
use telemetry::Told;
use tls::Certificates;

/// Why Wardent could not start, in words for the operator.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is refused.
    Config(Report),
    /// A secret that the configuration names cannot be had.
    Secrets(String),
    /// The system does not give what the configuration asks for.
    System(String),
    /// Another process has the log.
    Locked(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(report) => report.fmt(f),
            Self::Secrets(what) | Self::System(what) | Self::Locked(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for StartError {}

impl From<Report> for StartError {
    fn from(report: Report) -> Self {
        Self::Config(report)
    }
}

/// How a Wardent is started, beside its configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Where access lines go; nowhere when none.
    pub lines: Option<LineSink>,
    /// Takes the sockets that systemd passed to this process.
    pub takes_passed_sockets: bool,
    /// Ends the process when something in it hangs, so that its supervisor starts it again.
    pub aborts_when_hung: bool,
    /// Where the log's files are; the machine's own file system when none.
    pub disk: Option<Arc<dyn Disk>>,
    /// Serves beside another Wardent of this configuration: on ports of its own, with its log and its socket
    /// in this directory.
    pub beside: Option<PathBuf>,
}

/// A Wardent that serves, inside this process. Dropping it stops it at once.
#[derive(Debug)]
pub struct Running {
    proxy: Vec<Address>,
    admin: Option<SocketAddr>,
    phase: watch::Sender<Phase>,
    workers: Vec<JoinHandle<std::io::Result<()>>>,
    /// Ends the admin thread.
    ended: watch::Sender<bool>,
    bans: Option<BanThreads>,
    kafka: Kafka,
    log: OpenLog,
    watchdog: Option<Watchdog>,
    admin_thread: Option<JoinHandle<()>>,
    reloader: Reloader,
    /// What `check` would say beside errors.
    pub notes: Vec<String>,
    own_unix_paths: Vec<PathBuf>,
}

/// How long the workers may take to show a first sign of life.
const STARTED_WITHIN: Duration = Duration::from_secs(10);

/// Starts everything `wardent run --config FILE` starts, and returns when it serves.
///
/// # Errors
/// When the configuration is refused, or an address, file or directory it names cannot be used.
pub fn start(config: &Path) -> Result<Running, StartError> {
    start_with(config, Options::default())
}

/// As [`start`], with `options`.
///
/// # Errors
/// As [`start`].
pub fn start_with(config: &Path, options: Options) -> Result<Running, StartError> {
    let prepared = Prepared::from(config, options.beside.as_deref())?;
    let (loaded, built) = (prepared.loaded, prepared.built);
    let document = &loaded.wardent;
    let Ground {
        clock,
        mut log,
        bans,
        remembered,
        shared,
        questions,
    } = Ground::of(document, built.policy, built.bans, options.disk)?;
    let token = prepared.token.or_else(|| own_token(&document.log.dir));
    let mut sockets = Sockets::bind(document, options.takes_passed_sockets)?;
    let admin = sockets.admin_address();
    let (proxy, own_unix_paths) = (sockets.proxy_addresses(), sockets.own_unix_paths());
    let (phase, phase_of_workers) = watch::channel(Phase::Serving);
    let lines = options.lines;
    let watched = watched(document, &sockets, options.aborts_when_hung);
    let listeners = sockets.take_listeners_of_workers()?;
    let (served, auditor) = (sockets.take_kafka(), &remembered.auditor);
    let kafka = Kafka::start(
        served,
        document,
        prepared.certificates.of_log(),
        auditor,
        &log,
        &clock,
    )?;
    let (outlets, log_view) = log.outlets(listeners.len(), lines.as_ref())?;
    let workers = start_workers(&shared, listeners, outlets, &phase_of_workers)?;
    let reloads = Reloads::begun(clock.unix_ms());
    let stage = (phase_of_workers, lines.map(|sink| sink.lines));
    let counted = (&remembered, &kafka);
    let view = view(&shared, &workers, stage, log_view, counted, &reloads);
    let threads = remembered.start(&clock)?;
    wait_for_first_ticks(&view)?;
    let watchdog = start_watchdog(&view, watched)?;
    let (reloader, asked) = Reloader::pair();
    let notes = notes(&loaded, built.notes);
    reloads.noted(notes.clone());
    let (ended, until_ended) = watch::channel(false);
    let in_force = InForce::new(&shared, bans, threads.auditor(), prepared.certificates);
    let (lasting, watch) = (prepared.lasting, prepared.watch);
    let side = Side {
        told: Told::of(&loaded.wardent.telemetry, &view),
        server: Server::new(view, reloader.clone(), threads.acts(), token),
        admin_tls: in_force.certificates.of_admin(),
        sockets,
        health: health_check(&loaded),
        questions,
        shared,
        reloading: Reloading::new(config, loaded, lasting, in_force, reloads, watch),
        asked,
        until_ended,
    };
    Ok(Running {
        proxy,
        admin,
        phase,
        workers: workers.into_iter().map(|worker| worker.thread).collect(),
        ended,
        bans: Some(threads),
        kafka,
        log,
        watchdog: Some(watchdog),
        admin_thread: Some(side.start()?),
        reloader,
        notes,
        own_unix_paths,
    })
}

/// What the admin side reads.
fn view(
    shared: &Arc<Shared>,
    workers: &[WorkerThread],
    (phase, lines): (watch::Receiver<Phase>, Option<Lines>),
    log: LogView,
    (remembered, kafka): (&Bans, &Kafka),
    reloads: &Arc<Reloads>,
) -> Arc<View> {
    let since_start_ms = shared.clock.monotonic_ns() / 1_000_000;
    Arc::new(View {
        shared: Arc::clone(shared),
        started_unix_ms: shared.clock.unix_ms().saturating_sub(since_start_ms),
        workers: workers.iter().map(|w| Arc::clone(&w.metrics)).collect(),
        phase,
        lines,
        log,
        vitals: Arc::default(),
        owner: Arc::clone(remembered.owner.numbers()),
        auditor: remembered.auditor.clone(),
        reloads: Arc::clone(reloads),
        cluster: remembered.cluster.clone(),
        kafka: kafka.counters(),
        kafka_users: kafka.users(),
        exported: Arc::default(),
    })
}

/// What an operator should know though all is right.
fn notes(loaded: &Loaded, of_secrets: Vec<String>) -> Vec<String> {
    let notes = loaded.notes.iter().map(ToString::to_string);
    notes.chain(of_secrets).collect()
}

/// What is read and built before anything is started.
struct Prepared {
    watch: Watch,
    loaded: Loaded,
    certificates: Certificates,
    token: Option<Token>,
    lasting: Lasting,
    built: Built,
}

impl Prepared {
    fn from(config: &Path, beside: Option<&Path>) -> Result<Self, StartError> {
        // Watched from before it is read: an edit in between is seen as one.
        let policy_file = config::load_wardent(config)?.policy;
        let watch = Watch::new(&policy_file);
        let mut loaded = config::load(config)?;
        if let Some(folder) = beside {
            soak::move_beside(&mut loaded.wardent, folder);
        }
        let mut lasting = Lasting::default();
        let built = settings::policy(&loaded, &mut lasting, 1).map_err(StartError::Secrets)?;
        Ok(Self {
            certificates: Certificates::open(&loaded.wardent)?,
            token: registry::token(&loaded.wardent)?,
            watch,
            loaded,
            lasting,
            built,
        })
    }
}

/// What is there before anything is served: the log, what it remembers, and what all workers share.
struct Ground {
    clock: Clock,
    log: OpenLog,
    bans: Arc<ArcSwap<BanPolicy>>,
    remembered: Bans,
    shared: Arc<Shared>,
    questions: Questions,
}

impl Ground {
    fn of(
        document: &Document,
        policy: Policy,
        bans: BanPolicy,
        disk: Option<Arc<dyn Disk>>,
    ) -> Result<Self, StartError> {
        let clock = Clock::system();
        let log = OpenLog::open(&document.log, disk, &clock)?;
        let bans = Arc::new(ArcSwap::from_pointee(bans));
        let remembered = Bans::bring_back(document, &bans, &log, &clock)?;
        let (bots, questions) = bots::begin(&document.bots)?;
        let privacy = log.privacy().clone();
        let shared = shared(document, policy, bots, &remembered, privacy, &clock)?;
        Ok(Self {
            clock,
            log,
            bans,
            remembered,
            shared: Arc::new(shared),
            questions,
        })
    }
}

/// What all workers share.
fn shared(
    document: &Document,
    policy: Policy,
    bots: Bots,
    remembered: &Bans,
    privacy: Privacy,
    clock: &Clock,
) -> Result<Shared, StartError> {
    let owner = &remembered.owner;
    let canary = Canary::new(document.client_ip.header.as_str())
        .map_err(|error| StartError::System(format!("no randomness: {error}")))?;
    Ok(Shared {
        settings: settings::proxy(document),
        policy: ArcSwap::from_pointee(policy),
        clients: Arc::clone(owner.clients()),
        spendings: remembered.spendings.clone(),
        facts: Arc::clone(owner.facts()),
        bots,
        tracer: telemetry::tracer(&document.telemetry),
        canary,
        upstream: Arc::new(settings::upstream(document).map_err(StartError::System)?),
        privacy,
        clock: clock.clone(),
        connections: Bound::new(document.max_connections.get() as usize),
        in_flight: Bound::new(document.upstream.max_in_flight.get() as usize),
        held_bytes: Bound::new(HELD_BYTES_MAX),
    })
}

/// What the watchdog looks at, and what it may do.
fn watched(document: &Document, sockets: &Sockets, aborts: bool) -> watchdog::Settings {
    watchdog::Settings {
        addresses: sockets.proxy_addresses(),
        shares_sockets: sockets.are_shared(),
        aborts,
        report_dir: report_dir(&document.log.dir),
    }
}

fn start_watchdog(view: &Arc<View>, settings: watchdog::Settings) -> Result<Watchdog, StartError> {
    Watchdog::start(Arc::clone(view), settings, run::tell_watchdog)
        .map_err(|error| StartError::System(format!("cannot start a thread: {error}")))
}

fn start_workers(
    shared: &Arc<Shared>,
    listeners: Vec<Vec<Listener>>,
    outlets: Vec<Outlets>,
    phase: &watch::Receiver<Phase>,
) -> Result<Vec<WorkerThread>, StartError> {
    let start = |(index, (listeners, outlets))| {
        let shared = Arc::clone(shared);
        listener::start(index, shared, listeners, outlets, phase.clone())
            .map_err(|error| StartError::System(format!("cannot start a worker: {error}")))
    };
    let workers = listeners.into_iter().zip(outlets);
    workers.enumerate().map(start).collect()
}

/// Returns when every worker has ticked, so that whoever connects is served.
fn wait_for_first_ticks(view: &View) -> Result<(), StartError> {
    let begin_ns = view.shared.clock.monotonic_ns();
    let within_ns = u64::try_from(STARTED_WITHIN.as_nanos()).unwrap_or(u64::MAX);
    while !view.workers.iter().all(|worker| worker.beat_ms.get() > 0) {
        if view.shared.clock.monotonic_ns() - begin_ns > within_ns {
            return Err(StartError::System(
                "a worker did not start within 10 s".to_owned(),
            ));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Beside the log, which is where this user may write.
fn report_dir(log_dir: &Path) -> PathBuf {
    let beside = log_dir.parent().filter(|folder| folder.is_dir());
    beside.map_or_else(std::env::temp_dir, Path::to_path_buf)
}

fn health_check(loaded: &Loaded) -> Option<HealthCheck> {
    let health = loaded.wardent.upstream.health.as_ref()?;
    Some(HealthCheck {
        path: health.path.as_str().to_owned(),
        interval: health.interval,
    })
}

/// Threads for what would keep the admin thread: two for schemas, and some to spare.
const ADMIN_BLOCKING_MAX: usize = 4;

/// What runs beside the workers, on one thread with a runtime of its own.
struct Side {
    server: Server,
    admin_tls: Option<Tls>,
    sockets: Sockets,
    health: Option<HealthCheck>,
    told: Told,
    questions: Questions,
    shared: Arc<Shared>,
    reloading: Reloading,
    asked: reload::Asked,
    until_ended: watch::Receiver<bool>,
}

impl Side {
    fn start(self) -> Result<JoinHandle<()>, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(ADMIN_BLOCKING_MAX)
            .build()
            .map_err(|error| StartError::System(format!("cannot start a runtime: {error}")))?;
        std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || runtime.block_on(self.run()))
            .map_err(|error| StartError::System(format!("cannot start a thread: {error}")))
    }

    async fn run(mut self) {
        tokio::spawn(self.server.clone().remember_counters());
        tokio::spawn(self.server.clone().look_each_second());
        if let Some(listener) = self.sockets.take_admin_listener() {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    tokio::spawn(self.server.clone().serve_listener(listener, self.admin_tls));
                }
                Err(error) => tracing::error!(%error, "the admin listener cannot be used"),
            }
        }
        if let Some(socket) = self.sockets.take_admin_socket() {
            match tokio::net::UnixListener::from_std(socket) {
                Ok(socket) => {
                    tokio::spawn(self.server.serve_socket(socket));
                }
                Err(error) => tracing::error!(%error, "the admin socket cannot be used"),
            }
        }
        if let Some(check) = self.health {
            tokio::spawn(health::watch(Arc::clone(&self.shared.upstream), check));
        }
        tokio::spawn(bots::answer(self.questions, self.shared.clock.clone()));
        let exporting = self.told.start(&self.until_ended);
        tokio::select! {
            () = self.reloading.run(self.asked) => {}
            _ = self.until_ended.wait_for(|ended| *ended) => {}
        }
        if let Some(exporting) = exporting {
            // It ends within a second, or has ended in a panic that was told.
            let _ = exporting.await;
        }
    }
}

impl Running {
    /// The addresses the proxy listens on, in the order of `listen`, with the ports the system picked.
    pub fn proxy(&self) -> &[Address] {
        &self.proxy
    }

    /// The address of the admin listener.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Where the Kafka protocol is spoken, with the port the system picked.
    pub fn kafka(&self) -> Option<&Address> {
        self.kafka.address.as_ref()
    }

    /// Reads the policy again, as `wardent reload` does. Not for use inside a runtime.
    ///
    /// # Errors
    /// The report of what is wrong with the files, when they are refused.
    pub fn reload(&self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(self.reloader.reload("wardent")).map(drop)
    }

    /// Begins to drain, as SIGTERM does, and returns at once.
    pub fn drain(&self) {
        self.phase.send_if_modified(|phase| {
            let begins = *phase == Phase::Serving;
            if begins {
                *phase = Phase::Draining;
            }
            begins
        });
    }

    /// Ends what a drain has left, and returns at once.
    pub fn stop(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// Waits until the drain has ended.
    pub fn wait(mut self) {
        self.join();
    }

    fn join(&mut self) {
        for worker in self.workers.drain(..) {
            match worker.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a worker could not serve"),
                Err(_) => tracing::error!("a worker ended in a panic"),
            }
        }
        self.ended.send_replace(true);
        if let Some(admin) = self.admin_thread.take() {
            // It has ended either way.
            let _ = admin.join();
        }
        self.watchdog = None;
        self.kafka.end();
        self.bans = None;
        self.log.close();
        for path in self.own_unix_paths.drain(..) {
            // Somebody may have tidied up already.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        self.join();
    }
}

/// Lets the group of this process use the socket at `path`, and nobody else.
fn restrict_to_group(path: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
}

/// Starts the access lines on standard output.
fn start_lines(
    format: crate::event::access::Format,
) -> std::io::Result<(LineSink, JoinHandle<()>)> {
    let (lines, writer) = Lines::start(std::io::stdout())?;
    Ok((LineSink { lines, format }, writer))
}
