//! One server: where it is, how loaded, and whether it is in rotation.

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

/// Where a server listens; names have been resolved before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// The path of a unix socket, looked up anew for each connection.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Failures in a row that eject a server.
const FAILURES_BEFORE_EJECTION: u32 = 3;
/// How long an ejected server is left alone, in milliseconds.
const EJECTION_MS: u64 = 10_000;

/// One server of the upstream.
///
/// All orderings are relaxed: each value stands for itself, and a worker that sees an old one only
/// asks a server once more than it had to.
#[derive(Debug)]
pub struct Server {
    target: Target,
    name: String,
    /// Written by the health checker alone.
    healthy: AtomicBool,
    /// Written by any worker whose request succeeds or fails.
    failures: AtomicU32,
    /// On the workers' clock; zero when it is not ejected. Written by any worker.
    ejected_until_ms: AtomicU64,
    in_flight: AtomicU32,
}

impl Server {
    /// A server that is taken for healthy until a check says otherwise.
    pub fn new(target: Target) -> Self {
        Self {
            name: target.to_string(),
            target,
            healthy: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
        }
    }

    /// Where it listens.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its address as the configuration spells it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Requests that it is answering now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether the health checker holds it for healthy.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Whether it is asked, at `now_ms` on the workers' clock.
    pub fn is_in_rotation(&self, now_ms: u64) -> bool {
        self.is_healthy() && self.ejected_until_ms.load(Ordering::Relaxed) <= now_ms
    }

    pub(super) fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    pub(super) fn note_failure(&self, now_ms: u64, may_eject: bool) {
        let failures = self
            .failures
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        if failures >= FAILURES_BEFORE_EJECTION && may_eject {
            let until_ms = now_ms.saturating_add(EJECTION_MS);
            if self.ejected_until_ms.swap(until_ms, Ordering::Relaxed) <= now_ms {
                tracing::warn!(server = %self.name, failures, "upstream server ejected for 10 s");
            }
        }
    }

    pub(crate) fn note_success(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.ejected_until_ms.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a request in, until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// A request that a server is answering.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Server>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
