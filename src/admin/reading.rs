//! Long walks over the log, away from the thread that answers: on threads of their own, few at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

use super::api::Refused;

/// Walks at once. More would take from requests what they read.
const WALKS_MAX: usize = 2;

/// How long a question waits for its turn.
const TURN_WITHIN: Duration = Duration::from_millis(500);

/// The nice value of a walk: requests come first.
const NICE: i32 = 10;

/// Lets walks begin.
#[derive(Debug, Clone)]
pub(super) struct Walks(Arc<Semaphore>);

/// Whether anybody still waits for a walk.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// Whether nobody does.
    pub(super) fn is_gone(&self) -> bool {
        // Relaxed: it stands for itself.
        self.0.load(Ordering::Relaxed)
    }

    /// Says that nobody does any more.
    pub(super) fn leave(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whoever waits; dropped when the question is.
struct Waiting(Asked);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Walks {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(WALKS_MAX)))
    }

    /// Does `walk` on a thread of its own, and waits for what comes of it. It should end soon when
    /// nobody waits any more.
    ///
    /// # Errors
    /// When there are walks enough already, or no thread can be had.
    pub(super) async fn walk<T: Send + 'static>(
        &self,
        walk: impl FnOnce(&Asked) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (told, result) = oneshot::channel();
        let asked = Asked::default();
        let waiting = Waiting(asked.clone());
        self.begin(move || {
            // Who asked may have gone.
            let _ = told.send(walk(&asked));
        })
        .await?;
        let result = result.await;
        drop(waiting);
        result.map_err(|_| {
            Refused::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "reading the log broke off",
            )
        })
    }

    /// Begins `walk` on a thread of its own.
    ///
    /// # Errors
    /// When there are walks enough already, or no thread can be had.
    pub(super) async fn begin(&self, walk: impl FnOnce() + Send + 'static) -> Result<(), Refused> {
        let turn = timeout(TURN_WITHIN, Arc::clone(&self.0).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Refused::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the log is being read by others: try again in a moment",
            ));
        };
        let thread = std::thread::Builder::new().name("reader".to_owned());
        let begun = thread.spawn(move || {
            give_way();
            walk();
            drop(turn);
        });
        begun.map(drop).map_err(|error| {
            let words = format!("no thread to read the log: {error}");
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, words)
        })
    }
}

/// Lets all other threads go first. On Linux the nice value is a thread's own (setpriority(2)).
fn give_way() {
    let own = rustix::thread::gettid();
    // One that may not is as quick as the others.
    let _ = rustix::process::setpriority_process(Some(own), NICE);
}
