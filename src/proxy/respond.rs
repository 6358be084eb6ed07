//! The one place where a refusal or a failure becomes an answer.
//!
//! These answers are raw: a status line, a few fields, no body, so that nginx can put its own page
//! in their place.

use super::{
    compose::{date, field, status_line},
    deadline::Stage,
    record::Record,
};
use crate::{
    event::time::Stamps,
    guard::verdict::{Reason, Refusal},
};

/// Why a request got no answer of the upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A guard said no, to the head or to the body.
    Refused(Refusal),
    /// The client sent a body that is none, or too little of it.
    BadBody(&'static str),
    /// The client was late with its head or its body.
    ClientLate(Stage),
    /// The client has gone; nobody is there to be answered.
    ClientGone,
    /// No server took a connection.
    Unreachable,
    /// The upstream was late.
    UpstreamLate(Stage),
    /// The upstream broke off, or spoke something else than HTTP.
    UpstreamBroken(&'static str),
    /// No server is in rotation.
    Unavailable,
    /// Wardent holds as much as it may.
    Overloaded(&'static str),
    /// Wardent's own fault.
    Internal,
}

impl Failure {
    /// The answer to this failure; none when nobody is left to read it.
    pub(crate) fn refusal(self) -> Option<Refusal> {
        Some(match self {
            Self::Refused(refusal) => refusal,
            Self::BadBody(why) => Refusal::new(Reason::BadRequest, why),
            Self::ClientLate(_) => Refusal {
                status: 408,
                reason: Reason::BadRequest,
                why: "the client was too slow",
            },
            Self::ClientGone => return None,
            Self::Unreachable => {
                Refusal::new(Reason::UpstreamUnreachable, "no server took a connection")
            }
            Self::UpstreamLate(stage) => Refusal::new(Reason::UpstreamTimeout, stage.name()),
            Self::UpstreamBroken(why) => Refusal::new(Reason::UpstreamBroken, why),
            Self::Unavailable => Refusal::new(Reason::UpstreamUnavailable, "no server is healthy"),
            Self::Overloaded(why) => Refusal::new(Reason::Overloaded, why),
            Self::Internal => Refusal::new(Reason::Internal, "a fault in wardent"),
        })
    }
}

/// Appends the answer to a refused or failed request.
pub(crate) fn raw(
    refusal: &Refusal,
    record: &Record<'_>,
    stamps: &Stamps,
    closes: bool,
    out: &mut Vec<u8>,
) {
    status_line(refusal.status, phrase(refusal.status), out);
    out.extend_from_slice(b"Content-Length: 0\r\n");
    date(stamps, record.arrived_unix_ms(), out);
    field(b"X-Wardent-Reason", refusal.reason.name().as_bytes(), out);
    field(b"X-Request-ID", record.id.as_bytes(), out);
    if let Some((limits, spent)) = record.limits() {
        limits.write_fields(&spent, out);
    }
    if refusal.status == 405 {
        // RFC 9110 section 15.5.6 asks for the field; which methods there are, the upstream knows.
        out.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
    }
    if refusal.status == 429 || refusal.status == 503 || refusal.status == 403 {
        out.extend_from_slice(b"Cache-Control: no-store\r\n");
    }
    if closes {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer to a canary.
pub(crate) fn to_canary(record: &Record<'_>, stamps: &Stamps, out: &mut Vec<u8>) {
    status_line(204, phrase(204), out);
    date(stamps, record.arrived_unix_ms(), out);
    field(b"X-Request-ID", record.id.as_bytes(), out);
    out.extend_from_slice(b"Connection: close\r\n\r\n");
}

/// The phrases of RFC 9110 section 15.
fn phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default()
}
