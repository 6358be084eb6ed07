//! What the builder counts.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;

/// What the builder counts. Written by it alone, read by whoever shows it; all orderings are relaxed, since
/// each number stands for itself.
#[derive(Debug, Default)]
pub struct Counts {
    events: AtomicU64,
    batches: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    left: AtomicU64,
    backlog_bytes: AtomicU64,
    beat_ms: AtomicU64,
    /// Why the last batch was refused; none since one was written.
    trouble: ArcSwapOption<String>,
}

impl Counts {
    /// Records that are in the log, gaps among them.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Batches that are in the log.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Bytes of these batches.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How often a batch was not written, and offered again.
    pub fn refusals(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Events that were given up when the process ended.
    pub fn given_up(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Bytes of batches that are not yet written.
    pub fn backlog_bytes(&self) -> u64 {
        self.backlog_bytes.load(Ordering::Relaxed)
    }

    /// When it last took a turn, in milliseconds of the monotonic clock.
    pub fn beat_ms(&self) -> u64 {
        self.beat_ms.load(Ordering::Relaxed)
    }

    /// Why nothing is written now; none while all is well.
    pub fn trouble(&self) -> Option<Arc<String>> {
        self.trouble.load_full()
    }

    pub(super) fn written(&self, events: u32, bytes: usize) {
        self.events.fetch_add(events.into(), Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.trouble.load().is_some() {
            self.trouble.store(None);
            tracing::info!("access events are written again");
        }
    }

    pub(super) fn refused(&self, why: String) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if self.trouble.load().is_none() {
            tracing::warn!(why, "access events cannot be written; they wait");
        }
        self.trouble.store(Some(Arc::new(why)));
    }

    pub(super) fn left(&self, events: u64) {
        self.left.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn show(&self, backlog_bytes: usize, now_ms: u64) {
        self.backlog_bytes
            .store(backlog_bytes as u64, Ordering::Relaxed);
        self.beat_ms.store(now_ms, Ordering::Relaxed);
    }
}
