//! How a thread sleeps until there is something to do.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

/// The bell of one thread. Ringing costs a system call only while the thread sleeps.
#[derive(Debug, Default)]
pub(super) struct Bell {
    sleeper: OnceLock<Thread>,
    sleeps: AtomicBool,
}

impl Bell {
    /// The calling thread is the one that is woken. Without one, ringing does nothing.
    pub(super) fn is_heard_here(&self) {
        // A second call changes nothing: a thread hears its bell for life.
        let _ = self.sleeper.set(thread::current());
    }

    /// Wakes the thread. What it should see is written before.
    pub(super) fn ring(&self) {
        // SeqCst, here and in `nap`: either the sleeper sees what was written, or the ringer sees that it
        // sleeps.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.sleeps.load(Ordering::SeqCst)
            && self.sleeps.swap(false, Ordering::SeqCst)
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
        }
    }

    /// Sleeps for `max` at the most, and not at all if there `is_work`.
    pub(super) fn nap(&self, max: Duration, is_work: impl FnOnce() -> bool) {
        self.sleeps.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        if !is_work() {
            thread::park_timeout(max);
        }
        self.sleeps.store(false, Ordering::SeqCst);
    }
}
