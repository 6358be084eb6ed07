//! Wakes a thread that sleeps because it has nothing to do.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
    time::Duration,
};

/// Rung by whoever brings work, heard by the one thread that does it. Nobody waits at it.
#[derive(Debug, Default)]
pub struct Bell {
    /// Set by the sleeper before it sleeps, taken back by whoever wakes it.
    sleeps: AtomicBool,
    sleeper: OnceLock<Thread>,
}

impl Bell {
    /// Wakes the thread, if it sleeps. Called after the work was put where the thread looks for it.
    pub fn ring(&self) {
        // SeqCst, here and in `nap`: either this sees that the thread sleeps, or the thread sees what
        // there is to do.
        if self.sleeps.load(Ordering::SeqCst)
            && self.sleeps.swap(false, Ordering::SeqCst)
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
        }
    }

    /// Called once, on the thread that will sleep.
    pub fn is_heard_here(&self) {
        // A second thread would find the place taken; there is none.
        let _ = self.sleeper.set(std::thread::current());
    }

    /// Sleeps until somebody rings, `within` at most, unless there is something to do already.
    pub fn nap(&self, within: Duration, has_work: impl FnOnce() -> bool) {
        self.sleeps.store(true, Ordering::SeqCst);
        if !has_work() {
            std::thread::park_timeout(within);
        }
        self.sleeps.store(false, Ordering::SeqCst);
    }
}
