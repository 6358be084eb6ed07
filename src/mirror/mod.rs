//! `wardent mirror`: what the local log has, carried to a Kafka cluster, in a process of its own.
//!
//! It knows two doors of its Wardent: the Kafka listener, as any client does, and the admin socket. Whatever
//! becomes of the cluster or of this process, no request notices. Records are read in order, sent with
//! their keys, partitions and timestamps, and their place in the log is committed when the cluster has
//! acknowledged them, or, exactly once, in the same transaction as they are.

mod client;
mod copy;
mod decisions;
mod door;
mod exchange;
mod letters;
mod look;
mod others;
mod overtake;
mod pace;
mod position;
mod reader;
mod status;
mod target;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use zeroize::Zeroizing;

use crate::{
    base::{clock::Clock, node::NodeName},
    event::exchange::{BANS, USAGE},
};
use others::Wish;
use status::Status;

/// What a mirror goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node's name in the cluster.
    pub node: NodeName,
    /// The local listener.
    pub local: Side,
    /// The cluster.
    pub cluster: Side,
    /// How many replicas topics have that the mirror makes; none: as the cluster has it.
    pub replication: Option<u16>,
    /// The topics that are mirrored.
    pub topics: Vec<String>,
    /// How often a record may come after a crash.
    pub delivery: Delivery,
    /// Bytes of keys and values a second, at most.
    pub catch_up: u64,
    /// Whether bans are shared.
    pub shares_bans: bool,
    /// Whether limits are.
    pub shares_limits: bool,
    /// How many bytes the local log may have.
    pub disk_max: u64,
    /// The admin socket of the local Wardent.
    pub socket: PathBuf,
}

/// How to reach one of the two.
#[derive(Debug, Clone)]
pub struct Side {
    /// `host:port`, some of them, with commas between.
    pub bootstrap: String,
    /// Whether it is spoken to inside TLS, and how.
    pub tls: Option<Tls>,
    /// Who the mirror says it is.
    pub sasl: Option<Sasl>,
}

/// Files in PEM; the system's authorities where none is given.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Who vouches for the brokers.
    pub ca: Option<PathBuf>,
    /// The mirror's own certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// A name and its password.
#[derive(Clone)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`.
    pub mechanism: String,
    /// The name.
    pub username: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mechanism,
            username,
            password: _,
        } = self;
        f.debug_struct("Sasl")
            .field("mechanism", mechanism)
            .field("username", username)
            .finish_non_exhaustive()
    }
}

/// How often a record may come after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Once or more: what was not yet committed comes again.
    AtLeastOnce,
    /// Once, for consumers that read what is committed.
    ExactlyOnce,
}

/// Why a mirror cannot start, or a try of it came to its end; in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Whether the mirror is to end.
#[derive(Debug, Clone, Default)]
pub struct Ending(Arc<AtomicBool>);

impl Ending {
    /// Tells everybody to finish.
    pub fn begin(&self) {
        // Relaxed: it is a wish, looked at again and again; nothing else is handed over by it.
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits for `span`, or until the end begins.
    fn wait(&self, span: Duration, clock: &Clock) {
        let until_ns = clock.monotonic_ns().saturating_add(nanos(span));
        while !self.has_begun() {
            let left_ns = until_ns.saturating_sub(clock.monotonic_ns());
            if left_ns == 0 {
                return;
            }
            std::thread::sleep(Duration::from_nanos(left_ns).min(NAP));
        }
    }
}

/// How long anybody sleeps without looking whether it is to end.
const NAP: Duration = Duration::from_millis(100);
/// Between two tries of anything.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Until a topic is tried again that was refused.
const REFUSED: Duration = Duration::from_secs(30);

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A mirror that runs.
#[derive(Debug)]
pub struct Mirror {
    ending: Ending,
    threads: Vec<JoinHandle<()>>,
}

impl Mirror {
    /// Starts it. It goes on until it is told to end, whatever becomes of either side.
    ///
    /// # Errors
    /// When the settings are none that a Kafka client takes, or the system gives no thread.
    pub fn start(settings: Settings) -> Result<Self, Failure> {
        client::check(&settings)?;
        let ending = Ending::default();
        let clock = Clock::system();
        let settings = Arc::new(settings);
        let (parts, topics) = of(&settings);
        let status = Arc::new(Status::new(&parts, &topics, clock.unix_ms()));
        let with = With {
            settings,
            status,
            clock,
            ending: ending.clone(),
        };
        let mut threads = vec![with.spawn("look", look::run)?];
        let (news, heard) = mpsc::sync_channel(NEWS_MAX);
        let wish = Wish::default();
        let asked = wish.clone();
        threads.push(
            with.spawn("exchange", move |settings, status, clock, ending| {
                exchange::run(settings, status, clock, ending, &heard, &asked);
            })?,
        );
        if parts.contains(&copy::PART) {
            threads.push(with.spawn("copy", copy::run)?);
        }
        if parts.contains(&decisions::PART) {
            threads.push(with.spawn("decisions", decisions::run)?);
        }
        if parts.contains(&others::PART) {
            threads.push(
                with.spawn("others", move |settings, status, clock, ending| {
                    others::run(settings, status, clock, ending, &news, &wish);
                })?,
            );
        }
        Ok(Self { ending, threads })
    }

    /// Tells it to end: what is under way is waited for, and where it is, committed.
    pub fn end(&self) {
        self.ending.begin();
    }

    /// Waits until it has ended. True where it did so in order.
    pub fn wait(self) -> bool {
        let ended = self.threads.into_iter().map(JoinHandle::join);
        ended.filter(Result::is_err).count() == 0
    }

    /// Whether one of its threads has ended, as none does by itself.
    pub fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

/// What was heard of other nodes and waits to be told to the proxy; who hears waits where it is full.
const NEWS_MAX: usize = 1_024;

/// What there is to do, and which topics are concerned.
fn of(settings: &Settings) -> (Vec<&'static str>, Vec<String>) {
    let mut topics = settings.topics.clone();
    let mut parts = vec![exchange::PART];
    if !topics.is_empty() {
        parts.push(copy::PART);
    }
    if settings.shares_bans {
        parts.push(decisions::PART);
        topics.push(BANS.to_owned());
    }
    if settings.shares_limits {
        topics.push(USAGE.to_owned());
    }
    if settings.shares_bans || settings.shares_limits {
        parts.push(others::PART);
    }
    (parts, topics)
}

/// What every thread has.
#[derive(Debug)]
struct With {
    settings: Arc<Settings>,
    status: Arc<Status>,
    clock: Clock,
    ending: Ending,
}

impl With {
    fn spawn(
        &self,
        name: &str,
        work: impl FnOnce(&Settings, &Status, &Clock, &Ending) + Send + 'static,
    ) -> Result<JoinHandle<()>, Failure> {
        let (settings, status) = (Arc::clone(&self.settings), Arc::clone(&self.status));
        let (clock, ending) = (self.clock.clone(), self.ending.clone());
        let thread = std::thread::Builder::new().name(name.to_owned());
        let started = thread.spawn(move || work(&settings, &status, &clock, &ending));
        started.map_err(|error| Failure(format!("cannot start a thread: {error}")))
    }
}
