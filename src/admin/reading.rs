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
pub(super) fn give_way() {
    let own = rustix::thread::gettid();
    // One that may not is as quick as the others.
    let _ = rustix::process::setpriority_process(Some(own), NICE);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    }

    #[test]
    fn a_third_walk_is_refused_until_one_has_ended() {
        let walks = Walks::new();
        runtime().block_on(async {
            let mut ends = Vec::new();
            for _ in 0..WALKS_MAX {
                let (end, ended) = mpsc::channel::<()>();
                walks
                    .begin(move || ended.iter().for_each(drop))
                    .await
                    .unwrap();
                ends.push(end);
            }
            let refused = walks.walk(|_| ()).await.unwrap_err();
            assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(refused.words.contains("try again"), "{}", refused.words);
            drop(ends.pop());
            assert_eq!(walks.walk(|_| 7).await, Ok(7));
        });
    }

    #[test]
    fn a_walk_is_told_when_nobody_waits_for_it_any_more() {
        let (tell, told) = mpsc::channel();
        runtime().block_on(async {
            let walks = Walks::new();
            let (begun, has_begun) = oneshot::channel();
            let walk = walks.walk(move |asked| {
                begun.send(()).unwrap();
                while !asked.is_gone() {
                    std::thread::yield_now();
                }
                tell.send(()).unwrap();
            });
            tokio::select! {
                _ = walk => unreachable!("it goes on as long as somebody waits"),
                begun = has_begun => begun.unwrap(),
            }
        });
        told.recv_timeout(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn a_panic_in_a_walk_is_an_answer() {
        let walks = Walks::new();
        runtime().block_on(async {
            let broken = walks
                .walk(|_| -> () { panic!("planted") })
                .await
                .unwrap_err();
            assert_eq!(broken.status, StatusCode::INTERNAL_SERVER_ERROR);
        });
    }
}
