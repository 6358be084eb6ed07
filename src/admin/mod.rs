//! Metrics, health and acts, for operators and their programs.
//!
//! It runs on a runtime of its own and reads what the workers publish, so that a slow reader costs
//! no request, and a sick worker can be seen from here.

mod api;
pub mod bans;
pub mod cluster;
mod dash;
mod events;
pub mod explain;
pub mod exposition;
pub mod groups;
pub mod health;
mod kafka;
pub mod kafka_users;
mod live;
pub mod log;
pub mod metrics;
pub mod now;
mod openapi;
pub mod ping;
mod process;
mod reading;
mod registry;
pub mod server;
pub mod standing;
pub mod status;
pub mod token;
pub mod top;
pub mod topics;
pub mod traces;
pub mod verify;
pub mod watchdog;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use log::LogView;
use traces::Exported;
use watchdog::Vitals;

use crate::{
    cluster::Cluster,
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
    /// This node's side of the cluster, where there is one.
    pub cluster: Option<Arc<Cluster>>,
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
    told: ArcSwap<Told>,
}

/// What the last load told, in words for the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Why the file was refused, where it was.
    pub refused: Option<String>,
    /// What is worth knowing about the policy in force.
    pub notes: Vec<String>,
}

impl Reloads {
    /// Those of a process whose first policy took effect at this moment.
    pub fn begun(unix_ms: u64) -> Arc<Self> {
        let reloads = Self::default();
        reloads.succeeded(unix_ms);
        Arc::new(reloads)
    }

    /// Takes note of what is worth knowing about the policy in force.
    pub fn noted(&self, notes: Vec<String>) {
        self.told.store(Arc::new(Told {
            refused: None,
            notes,
        }));
    }

    /// What the last load told.
    pub fn told(&self) -> Arc<Told> {
        self.told.load_full()
    }

    /// Takes note of a reload that took effect.
    pub fn succeeded(&self, unix_ms: u64) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        self.last_failed.store(0, Ordering::Relaxed);
        self.last_success_unix_ms.store(unix_ms, Ordering::Relaxed);
        self.noted(self.told.load().notes.clone());
    }

    /// Takes note of a reload that was refused, and why.
    pub fn failed(&self, report: &str) {
        self.told.store(Arc::new(Told {
            refused: Some(report.trim_end().to_owned()),
            notes: self.told.load().notes.clone(),
        }));
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.last_failed.store(1, Ordering::Relaxed);
    }

    /// Why the last reload was refused, if it was.
    pub fn error(&self) -> Option<String> {
        self.told.load().refused.clone()
    }

    /// When the policy in force got so, in milliseconds since 1970.
    pub fn last_success_unix_ms(&self) -> u64 {
        self.last_success_unix_ms.load(Ordering::Relaxed)
    }

    /// Whether the last reload was refused.
    pub fn last_failed(&self) -> bool {
        self.last_failed.load(Ordering::Relaxed) != 0
    }
}

/// What came of an act: words for the operator.
pub type ActResult = Result<String, String>;

/// What is wanted of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// To read it again.
    Reload,
    /// To write a mode into its file, and read that.
    Switch(Switch),
}

/// A route's way between observe and enforce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Which; none for all that say nothing themselves.
    pub route: Option<String>,
    /// Whether it enforces from now on.
    pub enforces: bool,
}

/// A reload that somebody waits for.
#[derive(Debug)]
pub struct WantedReload {
    /// What is wanted.
    pub wanted: Wanted,
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
        self.ask(actor, Wanted::Reload).await
    }

    /// Does what `actor` wants of the policy, and says what came of it.
    ///
    /// # Errors
    /// The report of what is wrong, when it is not done.
    pub async fn ask(&self, actor: &str, wanted: Wanted) -> ActResult {
        let (answer, answered) = oneshot::channel();
        let wanted = WantedReload {
            wanted,
            actor: actor.to_owned(),
            answer,
        };
        self.0
            .try_send(wanted)
            .map_err(|_| "too many reloads wait already: try again".to_owned())?;
        answered
            .await
            .unwrap_or_else(|_| Err("wardent is stopping".to_owned()))
    }
}
