//! The scheduler's atomics in place of the system's.

pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Slots of the cold lane: one for each limit that a test uses, so that clients meet in it.
pub(super) const SLOTS: usize = 4;
