//! The life of one request.
//!
//! Read [`pipeline`] first: it tells the story. [`connection`] is what comes before and after it,
//! [`exchange`] the dialogue with the upstream, [`respond`] what is answered when there is none.
//! Every worker is one thread with a runtime of its own ([`worker`], [`listener`]).

mod answer;
mod body;
mod buffer;
pub mod canary;
mod chunked;
mod compose;
mod connection;
mod deadline;
mod exchange;
pub mod explain;
#[cfg(test)]
mod fuzz;
mod head;
mod http2;
mod linger;
pub mod listener;
pub mod metrics;
mod names;
mod pipeline;
mod record;
mod respond;
mod socket;
pub mod trace;
mod tunnel;
pub mod upstream;
mod webhook;
pub mod worker;

use std::time::Duration;

pub use names::ConfiguredNames;

/// What the operator set for the proxy, once at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The header fields that the configuration names.
    pub names: ConfiguredNames,
    /// How long an idle client connection is kept.
    pub keep_alive: Duration,
    /// Whether HTTP/2 by prior knowledge is served beside HTTP/1.1.
    pub http2: bool,
    /// What holds towards the servers.
    pub upstream: UpstreamSettings,
}

/// What holds towards the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// From the request's end to the whole head of its answer.
    pub response_timeout: Duration,
    /// Between two bytes of a body, either way.
    pub idle_timeout: Duration,
    /// How long an idle connection to a server is kept.
    pub pool_idle: Duration,
    /// How long a tunnel may be silent.
    pub tunnel_idle: Duration,
}

/// What a client's connection does after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// Serves the next request.
    KeepAlive,
    /// Ends; the client knows, or has nothing more to say.
    Close,
    /// Ends, once the client has stopped sending.
    Linger,
    /// Ends with a reset: a part of an answer must not be taken for all of it, or nobody is left.
    Break,
}
