//! The atomics that workers and the keeper share. `tests/model` puts a scheduler's in their place, and
//! a cold lane of two slots.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Slots of the cold lane: 2 MiB of them. At a hundred thousand new clients a second whose requests
/// take up 50 ms each, one in fifty meets another.
pub(super) const SLOTS: usize = 1 << 18;
