//! The heads that Wardent writes: the request towards the upstream, the answer towards the client.
//!
//! Fields keep their order, their case and their number; what ends at this hop is left out, what
//! Wardent says itself comes last.

use std::ops::Range;

use super::{
    answer::AnswerHead,
    body::Framing,
    chunked,
    head::{RequestHead, Upgrade},
    names::{Name, tokens, well_known},
    trace::Trace,
};
use crate::{
    base::{id::RequestId, ip_text::IpText},
    client::Client,
    event::time::Stamps,
    guard::{bots::Seen, limit::Limits},
    limit::Spent,
    secret::{Signed, Signer},
    telemetry::trace_context::TRACEPARENT,
};

/// What Wardent says of a request to the upstream.
#[derive(Debug)]
pub(crate) struct Towards<'a> {
    pub(crate) client: &'a Client,
    pub(crate) id: &'a RequestId,
    /// `secret.upstream`: the field's name and who signs.
    pub(crate) signer: Option<(&'a str, &'a Signer)>,
    /// The bot that the application is told of.
    pub(crate) tag: Option<Seen>,
    pub(crate) now_unix_s: u64,
    /// The trace that it is sent in, where Wardent takes part in it.
    pub(crate) trace: Option<Trace>,
}

/// Appends the request's head for the upstream, up to and with its empty line.
pub(crate) fn request(head: &RequestHead, towards: &Towards<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method());
    out.push(b' ');
    out.extend_from_slice(head.target());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    field(b"Host", head.host(), out);
    let trusted = towards.client.peer_trusted;
    let mut lines = Lines::of(head.as_it_came());
    for (name, value, meaning) in head.fields() {
        let passes = passes(meaning, name, trusted) && traces_pass(meaning, towards.trace);
        if passes && !is_named_by_connection(head, name, meaning) {
            lines.pass(name, value, out);
        }
    }
    lines.end(out);
    identity(head, towards, out);
    field(b"X-Request-ID", towards.id.as_bytes(), out);
    out.extend_from_slice(if head.is_http_1_0 {
        b"Via: 1.0 wardent\r\n".as_slice()
    } else {
        b"Via: 1.1 wardent\r\n"
    });
    if let Some(trace) = towards.trace {
        field(TRACEPARENT, &trace.upstream.value(), out);
    }
    if let Some(bot) = &towards.tag {
        out.extend_from_slice(b"X-Wardent-Bot: ");
        bot.write_tag(out);
        out.extend_from_slice(b"\r\n");
    }
    if let Some((name, signer)) = towards.signer {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        let signed = Signed {
            method: head.method(),
            host: head.host(),
            target: head.target(),
            client_ip: towards.client.ip(),
        };
        signer.write(&signed, towards.now_unix_s, out);
        out.extend_from_slice(b"\r\n");
    }
    if head.upgrade == Upgrade::Yes {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
    } else if head.takes_trailers {
        out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a client's field goes on to the upstream.
#[inline]
fn passes(meaning: Name, name: &[u8], trusted: bool) -> bool {
    match meaning {
        Name::Other
        | Name::ContentLength
        | Name::TransferEncoding
        | Name::Date
        | Name::UserAgent
        | Name::SecWebSocketKey
        | Name::SecWebSocketVersion
        | Name::StripeSignature
        | Name::TraceParent
        | Name::TraceState => true,
        // Written first, whatever its place was.
        Name::Host => false,
        Name::Connection | Name::HopByHop | Name::Te => false,
        // `100 Continue` has been said by Wardent.
        Name::Expect => false,
        // Only with `Connection: Upgrade`, which the head's judge decided on.
        Name::Upgrade => true,
        Name::Identity | Name::Country | Name::Ray | Name::ConnectingIpv6 => trusted,
        Name::ClientIp | Name::Edge => trusted && well_known(name) != Name::OwnIdentity,
        Name::ForwardedHost | Name::ForwardedProto | Name::OwnIdentity => false,
        Name::Secret | Name::Wardent => false,
    }
}

/// Whether a field about the trace goes on: all do where Wardent takes no part, and what a believed peer says of
/// its trace where it does.
#[inline]
fn traces_pass(meaning: Name, trace: Option<Trace>) -> bool {
    if meaning == Name::TraceParent {
        return trace.is_none();
    }
    meaning != Name::TraceState || trace.is_none_or(|trace| trace.continues())
}

/// Whether the client's `Connection` fields name `name`, and may.
fn is_named_by_connection(head: &RequestHead, name: &[u8], meaning: Name) -> bool {
    if meaning == Name::Upgrade {
        return head.upgrade == Upgrade::No;
    }
    // Identity and framing are not the client's to take away, nor a signature over the body.
    head.connection_names_fields
        && matches!(meaning, Name::Other | Name::TraceParent | Name::TraceState)
        && head
            .values(Name::Connection)
            .flat_map(tokens)
            .any(|token| token.eq_ignore_ascii_case(name))
}

/// Who is calling, over what, and to which host, as far as that can be believed.
fn identity(head: &RequestHead, towards: &Towards<'_>, out: &mut Vec<u8>) {
    if let Some(ip) = towards.client.ip().map(IpText::of) {
        field(b"X-Forwarded-For", ip.as_bytes(), out);
        field(b"X-Real-IP", ip.as_bytes(), out);
    }
    let said = |meaning| {
        let mut values = head.values(meaning);
        let first = values.next().filter(|_| towards.client.peer_trusted)?;
        values.next().is_none().then_some(first)
    };
    let proto = match said(Name::ForwardedProto) {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => b"https".as_slice(),
        _ => b"http",
    };
    field(b"X-Forwarded-Proto", proto, out);
    let host = said(Name::ForwardedHost).filter(|host| !host.is_empty());
    field(b"X-Forwarded-Host", host.unwrap_or(head.host()), out);
}

/// How an answer's body is framed towards the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outward {
    /// As its head says: a length, or no body.
    AsIs,
    /// In chunks of Wardent's own.
    Chunked,
    /// Until the connection's end; HTTP/1.0 knows no chunks.
    UntilClose,
}

/// What Wardent says of an answer to the client.
#[derive(Debug)]
pub(crate) struct Back<'a> {
    pub(crate) id: &'a RequestId,
    pub(crate) stamps: &'a Stamps,
    pub(crate) now_unix_ms: u64,
    /// What the client's limits leave it, where that is told.
    pub(crate) limits: Option<(&'a Limits, Spent)>,
    pub(crate) to_http_1_0: bool,
    /// The client's connection ends after this answer.
    pub(crate) closes: bool,
}

/// Appends the answer's head for the client; says how its body must be framed.
///
/// `came` is the head as it came, of which `response` is made.
pub(crate) fn answer(
    head: &AnswerHead,
    came: &[u8],
    response: &httparse::Response<'_, '_>,
    back: &Back<'_>,
    out: &mut Vec<u8>,
) -> Outward {
    let outward = match head.framing {
        Framing::None | Framing::Length(_) => Outward::AsIs,
        Framing::Chunked | Framing::UntilClose if back.to_http_1_0 => Outward::UntilClose,
        Framing::Chunked | Framing::UntilClose => Outward::Chunked,
    };
    status_line(head.status, response.reason.unwrap_or_default(), out);
    let mut lines = Lines::of(came);
    for header in response.headers.iter() {
        let name = header.name.as_bytes();
        let goes_back =
            || goes_back(well_known(name), head.status) && !is_named(head, response, name);
        if head.all_go_back || goes_back() {
            lines.pass(name, header.value, out);
        }
    }
    lines.end(out);
    if outward == Outward::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if head.status == 101 {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
    }
    if head.status >= 200 {
        if !head.has_date {
            date(back.stamps, back.now_unix_ms, out);
        }
        field(b"X-Request-ID", back.id.as_bytes(), out);
        if let Some((limits, spent)) = &back.limits {
            limits.write_fields(spent, out);
        }
        if back.closes {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if back.to_http_1_0 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
    outward
}

/// Whether a field of the upstream's goes on to the client, unless `Connection` names it.
#[inline]
pub(crate) fn goes_back(meaning: Name, status: u16) -> bool {
    match meaning {
        Name::Connection | Name::HopByHop | Name::TransferEncoding | Name::Wardent => false,
        // 1xx and 204 have no length (RFC 9110 section 8.6).
        Name::ContentLength => status >= 200 && status != 204,
        Name::Upgrade => status == 101 || status == 426,
        Name::Other
        | Name::Date
        | Name::Expect
        | Name::Host
        | Name::Identity
        | Name::Country
        | Name::Ray
        | Name::ForwardedHost
        | Name::ForwardedProto
        | Name::OwnIdentity
        | Name::Te
        | Name::UserAgent
        | Name::SecWebSocketKey
        | Name::SecWebSocketVersion
        | Name::StripeSignature
        | Name::TraceParent
        | Name::TraceState
        | Name::ClientIp
        | Name::Edge
        | Name::ConnectingIpv6
        | Name::Secret => true,
    }
}

fn is_named(head: &AnswerHead, response: &httparse::Response<'_, '_>, name: &[u8]) -> bool {
    const NEVER: [&[u8]; 3] = [b"content-length", b"date", b"set-cookie"];
    head.connection_names_fields
        && !NEVER.iter().any(|never| name.eq_ignore_ascii_case(never))
        && response
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("connection"))
            .flat_map(|header| tokens(header.value))
            .any(|token| token.eq_ignore_ascii_case(name))
}

/// Passes fields on, as many at once as stand together and are written as Wardent would write them.
struct Lines<'a> {
    /// The head that they stand in.
    came: &'a [u8],
    /// Lines of `came` that are still to be copied.
    pending: Range<usize>,
}

impl<'a> Lines<'a> {
    fn of(came: &'a [u8]) -> Self {
        Self {
            came,
            pending: 0..0,
        }
    }

    /// Appends the field, of which `name` and `value` are pieces of `came`, now or at the end.
    #[inline]
    fn pass(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        match self.line(name, value) {
            Some(line) if line.start == self.pending.end => self.pending.end = line.end,
            Some(line) => {
                self.copy(out);
                self.pending = line;
            }
            None => {
                self.copy(out);
                field(name, value, out);
            }
        }
    }

    /// Where the field stands, if one space and a line end are all that was put around its value.
    #[inline]
    fn line(&self, name: &[u8], value: &[u8]) -> Option<Range<usize>> {
        let at = |part: &[u8]| (part.as_ptr() as usize).checked_sub(self.came.as_ptr() as usize);
        let (name_at, value_at) = (at(name)?, at(value)?);
        let (name_end, value_end) = (name_at + name.len(), value_at + value.len());
        let between = self.came.get(name_end..value_at)?;
        let after = self.came.get(value_end..value_end + 2)?;
        (between == b": " && after == b"\r\n").then_some(name_at..value_end + 2)
    }

    fn copy(&mut self, out: &mut Vec<u8>) {
        let lines = std::mem::take(&mut self.pending);
        out.extend_from_slice(self.came.get(lines).unwrap_or_default());
    }

    /// Appends what has not been copied yet.
    fn end(mut self, out: &mut Vec<u8>) {
        self.copy(out);
    }
}

/// Appends the end of a chunked body: the last chunk, the trailers that may pass, the empty line.
pub(crate) fn end_of_chunks(trailers: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    // The section was checked when it was read.
    let _ = chunked::fields_of(trailers, |name, value| {
        if may_be_trailer(name) {
            field(name, value, out);
        }
    });
    out.extend_from_slice(b"\r\n");
}

/// Trailers never say what a head must have said (RFC 9110 section 6.5.1).
fn may_be_trailer(name: &[u8]) -> bool {
    const HEAD_ONLY: [&[u8]; 10] = [
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"location",
        b"set-cookie",
        b"trailer",
        b"www-authenticate",
    ];
    well_known(name) == Name::Other
        && !name.contains(&b'_')
        && !HEAD_ONLY
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
}

pub(crate) fn status_line(status: u16, phrase: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(phrase.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[inline]
pub(crate) fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn date(stamps: &Stamps, now_unix_ms: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Date: ");
    stamps.write_http_date(now_unix_ms, out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_order_and_are_written_one_way() {
        let came = b"A: 1\r\nB: 2\r\nC:3\r\nLeft-Out: x\r\nD:  4 \r\nE:\r\nF: 6\nG: 7\r\n\r\n";
        let mut fields = [httparse::EMPTY_HEADER; 10];
        let (_, fields) = httparse::parse_headers(came, &mut fields).unwrap().unwrap();
        let mut out = Vec::new();
        let mut lines = Lines::of(came);
        for field in fields.iter().filter(|field| field.name != "Left-Out") {
            lines.pass(field.name.as_bytes(), field.value, &mut out);
        }
        lines.end(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: \r\nF: 6\r\nG: 7\r\n"
        );
    }
}
