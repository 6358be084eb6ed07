//! `/api/v1/top`: who asks most, and for what, while somebody looks.
//!
//! The first question begins a thread that follows the log and answers; it ends when nobody has asked for
//! [`ASKED_WITHIN`]. What it holds is bounded, and so is what it looks at in a second.

mod follow;
mod samples;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use follow::{Follower, REMEMBERED_MS};
pub use samples::{By, Row};

use super::{
    api::{Query, Refused, Reply, say},
    reading::give_way,
    server::Server,
};
use crate::{
    base::{clock::Clock, units::parse_duration},
    log::Log,
};

/// It goes on for so long after the last question.
const ASKED_WITHIN: Duration = Duration::from_secs(15);

/// From one look at the log to the next.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Questions that wait for their answer; more are refused.
const WAITING_MAX: usize = 32;

/// Rows of an answer, unless asked otherwise, and at most.
const ROWS: usize = 50;
const ROWS_MAX: usize = 200;

/// The time that is told of, unless asked otherwise.
const WINDOW: &str = "60s";
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// Who asks most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// What requests are told apart by.
    pub by: String,
    /// The time that was asked for, in seconds.
    pub window_s: u64,
    /// The rows tell of requests that ended after this moment: later than was asked for where it is not
    /// known any more, or not yet. RFC 3339.
    pub since: String,
    /// And before this one.
    pub until: String,
    /// Requests that were looked at.
    pub events: u64,
    /// Which part of all requests these are, from 0 to 1. The numbers of the rows are told for all.
    pub share: f64,
    /// Those with the most requests come first.
    pub rows: Vec<Row>,
}

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ask {
    by: By,
    window: Duration,
    limit: usize,
}

#[derive(Debug)]
struct Waiting {
    ask: Ask,
    answer: oneshot::Sender<Top>,
}

/// The way to the thread that follows the log. Locked for as long as it takes to hand a question over.
#[derive(Debug)]
pub(super) struct Following(Mutex<SyncSender<Waiting>>);

impl Default for Following {
    /// The way to nobody: the first who asks finds that the thread has ended.
    fn default() -> Self {
        Self(Mutex::new(sync_channel(0).0))
    }
}

impl Following {
    /// Hands a question over, and begins to follow the log where nobody does.
    ///
    /// # Errors
    /// When enough others wait, or no thread can be had.
    fn hand_over(
        &self,
        ask: Ask,
        log: &Arc<Log>,
        clock: &Clock,
    ) -> Result<oneshot::Receiver<Top>, Refused> {
        let (answer, answered) = oneshot::channel();
        let mut way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = match way.try_send(Waiting { ask, answer }) {
            Ok(()) => return Ok(answered),
            Err(TrySendError::Full(_)) => return Err(busy()),
            Err(TrySendError::Disconnected(waiting)) => waiting,
        };
        *way = begin(Arc::clone(log), clock.clone())?;
        way.try_send(waiting).map_err(|_| busy())?;
        Ok(answered)
    }
}

fn busy() -> Refused {
    Refused::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "enough others ask for the top: try again in a moment",
    )
}

/// Begins to follow the log, on a thread that lets all others go first.
///
/// # Errors
/// When no thread can be had.
fn begin(log: Arc<Log>, clock: Clock) -> Result<SyncSender<Waiting>, Refused> {
    let (way, questions) = sync_channel(WAITING_MAX);
    let thread = std::thread::Builder::new().name("top".to_owned());
    let begun = thread.spawn(move || {
        give_way();
        follow(&log, &clock, &questions);
    });
    begun.map(|_| way).map_err(|error| {
        let words = format!("no thread to follow the log: {error}");
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, words)
    })
}

/// Follows and answers until nobody asks any more.
fn follow(log: &Log, clock: &Clock, questions: &Receiver<Waiting>) {
    let mut follower = Follower::new();
    let look =
        |follower: &mut Follower| follower.follow(log, clock.unix_ms(), clock.monotonic_ns());
    look(&mut follower);
    let mut looked_ns = clock.monotonic_ns();
    let mut asked_ns = looked_ns;
    loop {
        let now_ns = clock.monotonic_ns();
        let since = |then_ns: u64| Duration::from_nanos(now_ns.saturating_sub(then_ns));
        if since(asked_ns) >= ASKED_WITHIN {
            return;
        }
        match questions.recv_timeout(LOOK_EVERY.saturating_sub(since(looked_ns))) {
            Ok(Waiting { ask, answer }) => {
                asked_ns = clock.monotonic_ns();
                let window_ms = u64::try_from(ask.window.as_millis()).unwrap_or(REMEMBERED_MS);
                // Who asked may have gone.
                let _ = answer.send(follower.top(ask.by, window_ms, ask.limit, clock.unix_ms()));
            }
            Err(RecvTimeoutError::Timeout) => {
                look(&mut follower);
                looked_ns = clock.monotonic_ns();
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Ask {
    /// # Errors
    /// When a parameter says nothing.
    fn read(query: &Query) -> Result<Self, Refused> {
        let by = match query.get("by") {
            None => By::Client,
            Some(word) => By::parse(word).ok_or_else(|| {
                let words = By::ALL.map(By::word).join(", ");
                Refused::senseless(format!("`by`: there are {words}"))
            })?,
        };
        let window = query.get("window").unwrap_or(WINDOW);
        let window_max = Duration::from_millis(REMEMBERED_MS);
        let window = match parse_duration(window) {
            Ok(window) if (WINDOW_MIN..=window_max).contains(&window) => window,
            Ok(_) => return Err(Refused::senseless("`window`: from 1s to 5m")),
            Err(error) => return Err(Refused::senseless(format!("`window`: {error}"))),
        };
        let limit = match query.get("limit").map(str::parse) {
            None => ROWS,
            Some(Ok(limit)) if (1..=ROWS_MAX).contains(&limit) => limit,
            Some(_) => {
                let words = format!("`limit`: write a whole number from 1 to {ROWS_MAX}");
                return Err(Refused::senseless(words));
            }
        };
        Ok(Self { by, window, limit })
    }
}

impl Server {
    /// Who asks most.
    ///
    /// # Errors
    /// When the question cannot be read or makes no sense, or too many ask.
    pub(super) async fn top(&self, request: &Request<Incoming>) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "use GET: requests are only counted here",
            ));
        }
        let query = Query::read(request.uri().query(), &["by", "window", "limit"])?;
        say(StatusCode::OK, &self.top_of(&query).await?)
    }

    /// Who asks most, by `by`, `window` and `limit`.
    ///
    /// # Errors
    /// When that makes no sense, or too many ask.
    pub(super) async fn top_of(&self, query: &Query) -> Result<Top, Refused> {
        let ask = Ask::read(query)?;
        let (log, clock) = (&self.view.log.log, &self.view.shared.clock);
        // Twice: the thread may end between the question and its answer.
        for _ in 0..2 {
            if let Ok(top) = self.following.hand_over(ask, log, clock)?.await {
                return Ok(top);
            }
        }
        Err(busy())
    }
}

#[cfg(test)]
mod tests;
