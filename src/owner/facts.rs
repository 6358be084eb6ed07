//! What workers tell the owner.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::{
    base::{bell::Bell, id::RequestId},
    client::ClientKey,
};

/// Violations that may wait for the owner; more are counted and dropped. Who goes on violating is
/// heard later.
const VIOLATIONS_MAX: usize = 16 * 1024;

/// What somebody did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Asked more often than allowed.
    RateLimited,
    /// Is a bot that is kept out.
    Bot,
    /// Sent a longer body than allowed.
    BodyTooLarge,
    /// Asked for what nobody has a reason to ask for.
    Trap,
    /// Got an answer of the application's that counts, such as 401 to a login.
    Penalized,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 5] = [
        Self::RateLimited,
        Self::Bot,
        Self::BodyTooLarge,
        Self::Trap,
        Self::Penalized,
    ];

    /// The cause's public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Bot => "bot",
            Self::BodyTooLarge => "body_too_large",
            Self::Trap => "trap",
            Self::Penalized => "penalized",
        }
    }
}

/// The beginning of a text, held in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excerpt {
    bytes: [u8; Self::BYTES],
    len: u8,
}

impl Excerpt {
    const BYTES: usize = 64;

    /// The first 64 bytes.
    pub fn of(text: &[u8]) -> Self {
        let mut bytes = [0; Self::BYTES];
        let len = text.len().min(Self::BYTES);
        for (to, from) in bytes.iter_mut().zip(text) {
            *to = *from;
        }
        Self {
            bytes,
            len: u8::try_from(len).unwrap_or(0),
        }
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }
}

/// One request that is held against its client, whose identity is proven.
#[derive(Debug, Clone, Copy)]
pub struct Violation {
    /// Who.
    pub client: ClientKey,
    /// What for.
    pub cause: Cause,
    /// How much it counts.
    pub points: u32,
    /// Whether its route enforces: else it counts towards no ban that holds.
    pub enforced: bool,
    /// Which request.
    pub request: RequestId,
    /// When it came, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What it asked for.
    pub path: Excerpt,
}

/// The way from the workers to the owner: bounded, and never a wait.
#[derive(Debug)]
pub struct Facts {
    violations: ArrayQueue<Violation>,
    /// Written by workers.
    dropped: AtomicU64,
    /// Wakes the owner.
    bell: Bell,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            violations: ArrayQueue::new(VIOLATIONS_MAX),
            dropped: AtomicU64::new(0),
            bell: Bell::default(),
        }
    }
}

impl Facts {
    /// Tells the owner, or counts it as dropped.
    pub fn tell(&self, violation: Violation) {
        if self.violations.push(violation).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.wake();
    }

    /// Violations that found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Violations that wait.
    pub fn waiting(&self) -> usize {
        self.violations.len()
    }

    pub(super) fn wake(&self) {
        self.bell.ring();
    }

    pub(super) fn next(&self) -> Option<Violation> {
        self.violations.pop()
    }

    /// Called once, on the owner's thread.
    pub(super) fn is_heard_here(&self) {
        self.bell.is_heard_here();
    }

    /// Sleeps until somebody wakes the owner, `within` at most, unless something waits already.
    pub(super) fn nap(&self, within: std::time::Duration, waits: impl FnOnce() -> bool) {
        self.bell
            .nap(within, || !self.violations.is_empty() || waits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_the_beginning() {
        assert_eq!(Excerpt::of(b"/login").as_bytes(), b"/login");
        assert_eq!(Excerpt::of(&[b'a'; 500]).as_bytes(), [b'a'; 64]);
        assert_eq!(Excerpt::of(b"").as_bytes(), b"");
    }
}
