//! Wakes one thread that sleeps, and costs those who would nothing while it is awake.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering, fence},
    },
    thread::Thread,
    time::Duration,
};

/// The bell of one thread. Whoever has something for it leaves that, and rings.
#[derive(Debug, Default)]
pub struct Bell {
    /// Set by the sleeper before it sleeps, taken back by whoever wakes it.
    sleeps: AtomicBool,
    sleeper: OnceLock<Thread>,
}

impl Bell {
    /// Wakes the sleeper if it sleeps. One load and one fence where it does not.
    #[inline]
    pub fn ring(&self) {
        // With the one in `nap`: either this sees that the other sleeps, or the other sees what was left
        // for it before.
        fence(Ordering::SeqCst);
        if self.sleeps.load(Ordering::Relaxed) && self.sleeps.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Wakes the sleeper, also from a nap in which it does not want to hear the bell.
    pub fn wake(&self) {
        if let Some(sleeper) = self.sleeper.get() {
            sleeper.unpark();
        }
    }

    /// Called once, on the thread that will sleep.
    pub fn is_heard_here(&self) {
        // A second sleeper would find the place taken; there is none.
        let _ = self.sleeper.set(std::thread::current());
    }

    /// Sleeps until somebody rings, `within` at most, unless something waits already.
    pub fn nap(&self, within: Duration, waits: impl FnOnce() -> bool) {
        self.sleeps.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !waits() {
            std::thread::park_timeout(within);
        }
        self.sleeps.store(false, Ordering::SeqCst);
    }

    /// Sleeps `within`, whoever rings; [`Bell::wake`] alone ends it before.
    pub fn doze(&self, within: Duration) {
        std::thread::park_timeout(within);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, atomic::AtomicU64},
        thread,
    };

    use super::super::clock::Clock;
    use super::*;

    #[test]
    fn nothing_that_was_left_before_the_bell_is_slept_over() {
        const ROUNDS: u64 = 5_000;
        const PATIENCE_NS: u64 = 10_000_000_000;
        let bell = Arc::new(Bell::default());
        let (left, taken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let sleeper = thread::spawn({
            let (bell, left, taken) = (Arc::clone(&bell), Arc::clone(&left), Arc::clone(&taken));
            move || {
                bell.is_heard_here();
                let mut last = 0;
                while last < ROUNDS {
                    let waits = || left.load(Ordering::Relaxed) > last;
                    bell.nap(Duration::from_secs(600), waits);
                    last = left.load(Ordering::Relaxed);
                    taken.store(last, Ordering::Relaxed);
                }
            }
        });
        let clock = Clock::system();
        for number in 1..=ROUNDS {
            left.store(number, Ordering::Relaxed);
            bell.ring();
            let begin_ns = clock.monotonic_ns();
            while taken.load(Ordering::Relaxed) < number {
                let waited_ns = clock.monotonic_ns() - begin_ns;
                assert!(waited_ns < PATIENCE_NS, "{number} was slept over");
                thread::yield_now();
            }
        }
        sleeper.join().unwrap();
    }
}
