//! What a guard may say, and the names under which it is told.

/// Why a request was not passed on. The names are public: they stand in `X-Wardent-Reason`, in
/// events and in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request has no single meaning, or HTTP does not allow it.
    BadRequest,
    /// A trusted peer named no client, more than one, or something that is none.
    BadClientIp,
    /// No secret, or a wrong one.
    BadSecret,
    /// The webhook's signature is missing, forged or stale.
    BadSignature,
    /// The policy denies the client's network.
    Denied,
    /// The client is banned, or its network.
    Banned,
    /// A bot that is kept out.
    Bot,
    /// Nobody has a reason to ask for this.
    Trap,
    /// The client asked too often.
    RateLimited,
    /// The body is longer than the route allows.
    BodyTooLarge,
    /// The upstream refuses connections.
    UpstreamUnreachable,
    /// The upstream's answer broke or was none.
    UpstreamBroken,
    /// The upstream was late, connecting or answering.
    UpstreamTimeout,
    /// No server of the upstream is healthy.
    UpstreamUnavailable,
    /// More than Wardent may hold.
    Overloaded,
    /// Wardent's own fault.
    Internal,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 16] = [
        Self::BadRequest,
        Self::BadClientIp,
        Self::BadSecret,
        Self::BadSignature,
        Self::Denied,
        Self::Banned,
        Self::Bot,
        Self::Trap,
        Self::RateLimited,
        Self::BodyTooLarge,
        Self::UpstreamUnreachable,
        Self::UpstreamBroken,
        Self::UpstreamTimeout,
        Self::UpstreamUnavailable,
        Self::Overloaded,
        Self::Internal,
    ];

    /// The reason's public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::BadClientIp => "bad_client_ip",
            Self::BadSecret => "bad_secret",
            Self::BadSignature => "bad_signature",
            Self::Denied => "denied",
            Self::Banned => "banned",
            Self::Bot => "bot",
            Self::Trap => "trap",
            Self::RateLimited => "rate_limited",
            Self::BodyTooLarge => "body_too_large",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamBroken => "upstream_broken",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
        }
    }

    /// The status a request refused for this reason is answered with.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::BadClientIp => 400,
            Self::BadSecret
            | Self::BadSignature
            | Self::Denied
            | Self::Banned
            | Self::Bot
            | Self::Trap => 403,
            Self::RateLimited => 429,
            Self::BodyTooLarge => 413,
            Self::Internal => 500,
            Self::UpstreamUnreachable | Self::UpstreamBroken => 502,
            Self::UpstreamUnavailable | Self::Overloaded => 503,
            Self::UpstreamTimeout => 504,
        }
    }
}

/// A request that is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The answer's status.
    pub status: u16,
    /// The reason's public name comes from here.
    pub reason: Reason,
    /// What exactly was wrong, for logs; never a client's own words.
    pub why: &'static str,
}

impl Refusal {
    /// A refusal with the status that `reason` usually has.
    pub fn new(reason: Reason, why: &'static str) -> Self {
        Self {
            status: reason.status(),
            reason,
            why,
        }
    }
}
