//! The one door through which time enters.
//!
//! Deadlines and durations use the monotonic clock; stamps that leave the process use the wall
//! clock. A step of the wall clock therefore moves stamps, and never a deadline.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Tells the time; a clone tells the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System { start: Instant },
    Manual(Arc<Hands>),
}

#[derive(Debug)]
struct Hands {
    monotonic_ns: AtomicU64,
    unix_ms: AtomicU64,
}

impl Clock {
    /// The machine's clocks; monotonic time starts at zero now.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn system() -> Self {
        Self(Source::System {
            start: Instant::now(),
        })
    }

    /// A clock that stands still until a test moves it, at `unix_ms` and monotonic zero.
    pub fn manual(unix_ms: u64) -> Self {
        Self(Source::Manual(Arc::new(Hands {
            monotonic_ns: AtomicU64::new(0),
            unix_ms: AtomicU64::new(unix_ms),
        })))
    }

    /// Moves a manual clock, both hands alike; a system clock stays what it is.
    pub fn advance_ms(&self, ms: u64) {
        if let Source::Manual(hands) = &self.0 {
            // Relaxed: a test moves the hands on the thread that reads them, or joins in between.
            hands.unix_ms.fetch_add(ms, Ordering::Relaxed);
            hands
                .monotonic_ns
                .fetch_add(ms.saturating_mul(1_000_000), Ordering::Relaxed);
        }
    }

    /// Sets a manual clock's wall hand alone, as a step of the machine's time does.
    pub fn set_unix_ms(&self, unix_ms: u64) {
        if let Source::Manual(hands) = &self.0 {
            hands.unix_ms.store(unix_ms, Ordering::Relaxed);
        }
    }

    /// Nanoseconds since the clock was made; never goes back.
    #[inline]
    pub fn monotonic_ns(&self) -> u64 {
        match &self.0 {
            Source::System { start } => {
                u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
            }
            Source::Manual(hands) => hands.monotonic_ns.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z; zero before it.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn unix_ms(&self) -> u64 {
        match &self.0 {
            Source::System { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                }),
            Source::Manual(hands) => hands.unix_ms.load(Ordering::Relaxed),
        }
    }
}
