//! `/api/v1/log/verify`: a look at every byte of the log, begun by whoever may act, shown to whoever may
//! read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};

use super::{
    api::{Query, Refused, Reply, say},
    server::{Door, Server},
};
use crate::{
    base::clock::Clock,
    sink::verify::{Progress, Subject, Verified, verify},
};

/// How far a look at every byte is, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Which: they are counted from the start.
    pub job: u64,
    /// How far it is.
    pub progress: Progress,
    /// What was found, when it is done.
    pub verified: Option<Verified>,
    /// Why it ended without that.
    pub error: Option<String>,
}

impl Verification {
    fn is_over(&self) -> bool {
        self.verified.is_some() || self.error.is_some()
    }
}

/// How long a question waits for it to be done.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// When nobody has asked for it for so long, it ends.
const FORGOTTEN_AFTER_NS: u64 = 15_000_000_000;

/// Bytes a second: a few hundredths of what memory gives, and a part of what a disk does.
const PACE: u64 = 128 * 1024 * 1024;

/// The last look at every byte; one is under way at once.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<Option<Job>>);

#[derive(Debug, Clone)]
struct Job {
    state: watch::Receiver<Verification>,
    /// When somebody asked for it, in nanoseconds of the monotonic clock. Written by questions, read by
    /// the job; relaxed, since it stands for itself.
    asked_ns: Arc<AtomicU64>,
}

impl Server {
    /// Begins a look at every byte, or joins the one under way; says how far it is, and what came of it.
    ///
    /// # Errors
    /// When none is under way, or this door is not for acts.
    pub(super) async fn verify(&self, request: Request<Incoming>, door: Door) -> Reply {
        let state = match *request.method() {
            Method::POST => {
                door.actor()?;
                self.begin_to_verify().await?
            }
            Method::GET | Method::HEAD => {
                let query = Query::read(request.uri().query(), &["job"])?;
                self.job(query.get("job")).await?
            }
            _ => {
                return Err(Refused::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "use POST to begin, GET to ask how far it is",
                ));
            }
        };
        let Job {
            mut state,
            asked_ns,
        } = state;
        // Late or not, what is known now is the answer.
        let _ = timeout(ANSWER_WITHIN, state.wait_for(Verification::is_over)).await;
        let clock = &self.view.shared.clock;
        asked_ns.store(clock.monotonic_ns(), Ordering::Relaxed);
        let now = state.borrow().clone();
        say(StatusCode::OK, &now)
    }

    async fn job(&self, number: Option<&str>) -> Result<Job, Refused> {
        let job = self.jobs.0.lock().await.clone();
        let is_asked =
            |job: &Job| number.is_none_or(|own| job.state.borrow().job.to_string() == own);
        job.filter(is_asked).ok_or_else(|| {
            Refused::new(
                StatusCode::NOT_FOUND,
                "no such look at the log is known any more: begin another with POST",
            )
        })
    }

    async fn begin_to_verify(&self) -> Result<Job, Refused> {
        let log = Arc::clone(&self.view.log.log);
        let mut last = self.jobs.0.lock().await;
        if let Some(job) = last.as_ref().filter(|job| !job.state.borrow().is_over()) {
            return Ok(job.clone());
        }
        let number = last.as_ref().map_or(1, |job| job.state.borrow().job + 1);
        let (told, state) = watch::channel(Verification {
            job: number,
            ..Verification::default()
        });
        let clock = self.view.shared.clock.clone();
        let job = Job {
            state,
            asked_ns: Arc::new(clock.monotonic_ns().into()),
        };
        let asked_ns = Arc::clone(&job.asked_ns);
        self.walks
            .begin(move || {
                let pace = &mut Pace::new(clock, asked_ns);
                let subject = Subject {
                    dir: log.dir(),
                    disk: &**log.disk(),
                    partitions: &log.partitions(),
                    is_running: true,
                };
                let verified = verify(subject, &mut |progress| {
                    told.send_modify(|state| state.progress = progress);
                    pace.goes_on(progress)
                });
                told.send_modify(|state| match verified {
                    Ok(Some(verified)) => state.verified = Some(verified),
                    Ok(None) => state.error = Some("nobody waited for it any more".to_owned()),
                    Err(error) => state.error = Some(format!("the log cannot be read: {error}")),
                });
            })
            .await?;
        *last = Some(job.clone());
        Ok(job)
    }
}

/// Lets a job go on at its pace, as long as somebody asks for it.
struct Pace {
    clock: Clock,
    began_ns: u64,
    asked_ns: Arc<AtomicU64>,
}

impl Pace {
    fn new(clock: Clock, asked_ns: Arc<AtomicU64>) -> Self {
        Self {
            began_ns: clock.monotonic_ns(),
            clock,
            asked_ns,
        }
    }

    fn goes_on(&mut self, progress: Progress) -> bool {
        let now_ns = self.clock.monotonic_ns();
        let due_ns = self.began_ns + progress.bytes.saturating_mul(1_000_000_000) / PACE;
        if due_ns > now_ns {
            std::thread::sleep(Duration::from_nanos(due_ns - now_ns));
        }
        now_ns.saturating_sub(self.asked_ns.load(Ordering::Relaxed)) < FORGOTTEN_AFTER_NS
    }
}
