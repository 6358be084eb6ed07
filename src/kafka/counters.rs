//! What the listener counts and shows: written on its thread, read by whoever watches.

use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::{
    group::GroupsShown,
    room::NoRoom,
    table::{APIS, Key},
    wire::Malformed,
};

/// A number that only its writer changes.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Why a connection was ended, or not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cut {
    /// There are as many connections as there may be, in all or from that address.
    TooMany,
    /// A request longer than one may be, or with a length below what a request has.
    FrameLength,
    /// What came is no request.
    Malformed,
    /// An API or a version that is not spoken.
    Unsupported,
    /// It asked before it had logged in.
    NotLoggedIn,
    /// It did not log in, or not in time.
    Login,
    /// It began a request and did not end it in time.
    SlowRequest,
    /// It did not take its answer in time.
    SlowAnswer,
    /// Nothing came for ten minutes.
    Idle,
    /// What others hold left no memory for its request.
    NoMemory,
    /// The TLS handshake failed or took too long.
    Tls,
}

impl From<Malformed> for Cut {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<NoRoom> for Cut {
    fn from(_: NoRoom) -> Self {
        Self::NoMemory
    }
}

impl Cut {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::TooMany,
        Self::FrameLength,
        Self::Malformed,
        Self::Unsupported,
        Self::NotLoggedIn,
        Self::Login,
        Self::SlowRequest,
        Self::SlowAnswer,
        Self::Idle,
        Self::NoMemory,
        Self::Tls,
    ];

    /// Its public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::FrameLength => "frame_length",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::NotLoggedIn => "not_logged_in",
            Self::Login => "login",
            Self::SlowRequest => "slow_request",
            Self::SlowAnswer => "slow_answer",
            Self::Idle => "idle",
            Self::NoMemory => "no_memory",
            Self::Tls => "tls",
        }
    }
}

/// What the listener has seen since it was started.
#[derive(Debug)]
pub struct Counters {
    /// Connections that are open.
    pub connections: Count,
    /// Connections that were taken.
    pub accepted: Count,
    /// Bytes of requests.
    pub bytes_in: Count,
    /// Bytes of answers.
    pub bytes_out: Count,
    /// Clients that have proven who they are.
    pub logins: Count,
    /// Clients that have not.
    pub failed_logins: Count,
    /// Milliseconds that connections were told to wait for their quotas.
    pub throttled_ms: Count,
    /// When the listener's thread last went round, in monotonic milliseconds.
    pub beat_ms: Count,
    /// All groups, as they were a moment ago.
    pub groups: ArcSwap<GroupsShown>,
    cuts: [Count; Cut::ALL.len()],
    /// By the API's place in the table.
    requests: Vec<Count>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            connections: Count::default(),
            accepted: Count::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
            logins: Count::default(),
            failed_logins: Count::default(),
            throttled_ms: Count::default(),
            beat_ms: Count::default(),
            groups: ArcSwap::default(),
            cuts: Default::default(),
            requests: APIS.iter().map(|_| Count::default()).collect(),
        }
    }
}

impl Counters {
    pub(crate) fn cut(&self, why: Cut) {
        let mut counts = Cut::ALL.iter().zip(&self.cuts);
        if let Some((_, count)) = counts.find(|(cut, _)| **cut == why) {
            count.add(1);
        }
    }

    pub(crate) fn requested(&self, key: Key) {
        let mut counts = APIS.iter().zip(&self.requests);
        if let Some((_, count)) = counts.find(|(row, _)| row.key == key) {
            count.add(1);
        }
    }

    /// Connections that were ended or not taken, by why.
    pub fn cuts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Cut::ALL
            .iter()
            .zip(&self.cuts)
            .map(|(cut, count)| (cut.name(), count.get()))
    }

    /// Requests by API.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        APIS.iter()
            .zip(&self.requests)
            .map(|(row, count)| (row.key.name(), count.get()))
    }
}
