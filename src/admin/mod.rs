//! Metrics, health and acts, for operators and their programs.
//!
//! It runs on a runtime of its own and reads what the workers publish, so that a slow reader costs
//! no request, and a sick worker can be seen from here.

mod api;
pub mod bans;
mod events;
pub mod explain;
pub mod exposition;
pub mod groups;
pub mod health;
mod kafka;
pub mod kafka_users;
pub mod log;
pub mod metrics;
pub mod ping;
mod process;
mod reading;
mod registry;
pub mod server;
pub mod status;
pub mod token;
pub mod topics;
pub mod traces;
pub mod verify;
pub mod watchdog;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{mpsc, oneshot, watch};

use log::LogView;
use traces::Exported;
use watchdog::Vitals;

use crate::{
    kafka::{Counters, users::UserActs},
    owner::Numbers,
    proxy::{listener::Phase, metrics::WorkerMetrics, worker::Shared},
    sink::{lines::Lines, publisher::Auditor},
};

/// What the admin side reads.
#[derive(Debug)]
pub struct View {
    /// What the workers share.
    pub shared: Arc<Shared>,
    /// When this process started, in Unix milliseconds.
    pub started_unix_ms: u64,
    /// Each worker's numbers.
    pub workers: Vec<Arc<WorkerMetrics>>,
    /// How far the process is from its end.
    pub phase: watch::Receiver<Phase>,
    /// The event lines, where they are written.
    pub lines: Option<Lines>,
    /// The log, and what became of events.
    pub log: LogView,
    /// What the watchdog found last.
    pub vitals: Arc<Vitals>,
    /// What the owner of bans counts.
    pub owner: Arc<Numbers>,
    /// The publisher's numbers, and what troubles it.
    pub auditor: Auditor,
    /// How reloads went.
    pub reloads: Arc<Reloads>,
    /// What the Kafka listener counts, where there is one.
    pub kafka: Option<Arc<Counters>>,
    /// What became of spans.
    pub exported: Arc<Exported>,
    /// Who is asked about Kafka's users, if clients are served.
    pub kafka_users: Option<UserActs>,
}

/// How reloads went. Written by the reloader alone; all orderings are relaxed, since each number
/// stands for itself.
#[derive(Debug, Default)]
pub struct Reloads {
    succeeded: AtomicU64,
    failed: AtomicU64,
    last_failed: AtomicU64,
    last_success_unix_ms: AtomicU64,
}

impl Reloads {
    /// Those of a process whose first policy took effect at this moment.
    pub fn begun(unix_ms: u64) -> Arc<Self> {
        let reloads = Self::default();
        reloads.succeeded(unix_ms);
        Arc::new(reloads)
    }

    /// Takes note of a reload that took effect.
    pub fn succeeded(&self, unix_ms: u64) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        self.last_failed.store(0, Ordering::Relaxed);
        self.last_success_unix_ms.store(unix_ms, Ordering::Relaxed);
    }

    /// Takes note of a reload that was refused.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.last_failed.store(1, Ordering::Relaxed);
    }

    /// Whether the last reload was refused.
    pub fn last_failed(&self) -> bool {
        self.last_failed.load(Ordering::Relaxed) != 0
    }
}

/// What came of an act: words for the operator.
pub type ActResult = Result<String, String>;

/// A reload that somebody waits for.
#[derive(Debug)]
pub struct WantedReload {
    /// Who wants it: an operator (`uid:0`), or `signal`.
    pub actor: String,
    /// Who waits for what comes of it.
    pub answer: oneshot::Sender<ActResult>,
}

/// Asks for a reload.
#[derive(Debug, Clone)]
pub struct Reloader(mpsc::Sender<WantedReload>);

/// Acts that may wait for the reloader; more are refused.
const WAITING_MAX: usize = 16;

impl Reloader {
    /// The asking end, and the end that answers.
    pub fn pair() -> (Self, mpsc::Receiver<WantedReload>) {
        let (asks, answers) = mpsc::channel(WAITING_MAX);
        (Self(asks), answers)
    }

    /// Reloads as `actor` wants it, and says what came of it.
    ///
    /// # Errors
    /// The report of what is wrong, when the files were refused.
    pub async fn reload(&self, actor: &str) -> ActResult {
        let (answer, answered) = oneshot::channel();
        let actor = actor.to_owned();
        self.0
            .try_send(WantedReload { actor, answer })
            .map_err(|_| "too many reloads wait already: try again".to_owned())?;
        answered
            .await
            .unwrap_or_else(|_| Err("wardent is stopping".to_owned()))
    }
}
