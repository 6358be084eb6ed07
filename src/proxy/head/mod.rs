//! The head of a request, judged strictly (RFC 9112).
//!
//! `httparse` finds the tokens; what may come of them is decided here. Whatever could be read in
//! two ways by two programs is refused, so that the application behind cannot read it otherwise.

use std::{mem::MaybeUninit, ops::Range};

use memchr::memchr;

use super::{
    body::Framing,
    names::{ConfiguredNames, Name, tokens},
};
use crate::{client::Claim, guard::chain::Fields};

/// Bytes of a head at most, the request line among them.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a request target at most.
const TARGET_BYTES_MAX: usize = 32 * 1024;
/// Fields of a request at most.
const FIELDS_MAX: usize = 100;
/// Bytes of empty lines before a request line at most (RFC 9112 section 2.2 asks for one line).
const EMPTY_LINES_BYTES_MAX: usize = 8;

/// A piece of a head: where its bytes stand.
type Span = Range<u32>;

#[derive(Debug, Clone)]
pub(crate) struct Field {
    name: Span,
    value: Span,
    pub(crate) meaning: Name,
}

/// A whole request head. Its memory is used again for the next one.
#[derive(Debug, Default)]
pub(crate) struct RequestHead {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    method: Span,
    /// As it came, but without scheme and authority if it had them.
    target: Span,
    host: Span,
    user_agent: Span,
    user_agents: usize,
    country: Span,
    ray: Span,
    pub(crate) is_http_1_0: bool,
    pub(crate) framing: Framing,
    pub(crate) wants_close: bool,
    pub(crate) wants_keep_alive: bool,
    pub(crate) expects_continue: bool,
    /// `Connection` named fields beyond the usual, or itself came more than once.
    pub(crate) connection_names_fields: bool,
    pub(crate) takes_trailers: bool,
    /// There are `X-Wardent-*` fields, which nobody but Wardent has a use for.
    pub(crate) has_wardent_fields: bool,
    /// A switch of protocols that may be passed on.
    pub(crate) upgrade: Upgrade,
}

/// A request's wish to leave HTTP.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrade {
    #[default]
    No,
    Yes,
}

/// Why a head is refused, as a status code, and in words for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadHead {
    pub(crate) status: u16,
    pub(crate) why: &'static str,
}

const fn bad(why: &'static str) -> BadHead {
    BadHead { status: 400, why }
}

impl Fields for RequestHead {
    fn value(&self, name: &[u8], nth: usize) -> Option<&[u8]> {
        let of_name = |(own, _, _): &(&[u8], &[u8], Name)| own.eq_ignore_ascii_case(name);
        self.fields()
            .filter(of_name)
            .map(|(_, value, _)| value)
            .nth(nth)
    }
}

impl RequestHead {
    pub(crate) fn method(&self) -> &[u8] {
        self.text(&self.method)
    }

    /// The target in origin form, or `*`.
    pub(crate) fn target(&self) -> &[u8] {
        self.text(&self.target)
    }

    /// The target without its query.
    pub(crate) fn path(&self) -> &[u8] {
        let target = self.target();
        let end = memchr(b'?', target).unwrap_or(target.len());
        target.get(..end).unwrap_or(target)
    }

    pub(crate) fn host(&self) -> &[u8] {
        self.text(&self.host)
    }

    /// The user agent; the last of several, and empty where there is none.
    pub(crate) fn user_agent(&self) -> &[u8] {
        self.text(&self.user_agent)
    }

    /// As [`RequestHead::user_agent`], for who must know whether it is the only one.
    pub(crate) fn claimed_user_agent(&self) -> Claim<'_> {
        match self.user_agents {
            0 => Claim::Absent,
            1 => Claim::One(self.user_agent()),
            _ => Claim::Several,
        }
    }

    /// Where Cloudflare places the client: `DE`, or `T1` for Tor; none where it is not told so
    /// (<https://developers.cloudflare.com/fundamentals/reference/http-headers/#cf-ipcountry>).
    pub(crate) fn country(&self) -> Option<&[u8]> {
        let country = self.text(&self.country);
        let is_code = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        (country.len() == 2 && country.iter().all(is_code)).then_some(country)
    }

    /// Cloudflare's id of the request: hexadecimal digits and the data centre.
    pub(crate) fn ray(&self) -> Option<&[u8]> {
        const RAY_BYTES_MAX: usize = 40;
        let ray = self.text(&self.ray);
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let is_ray = (1..=RAY_BYTES_MAX).contains(&ray.len()) && ray.iter().all(is_plain);
        is_ray.then_some(ray)
    }

    /// Whether the client wants its connection to end with the answer.
    pub(crate) fn closes(&self) -> bool {
        self.wants_close || (self.is_http_1_0 && !self.wants_keep_alive)
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// Methods that may be sent again when nothing is known of the first try (RFC 9110 section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(
            self.method(),
            b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE"
        )
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8], Name)> {
        self.fields.iter().map(|field| {
            (
                self.text(&field.name),
                self.text(&field.value),
                field.meaning,
            )
        })
    }

    /// Whether a browser says that another site made it send this (Fetch Metadata,
    /// <https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header>).
    pub(crate) fn is_cross_site(&self) -> bool {
        self.fields().any(|(name, value, _)| {
            name.eq_ignore_ascii_case(b"sec-fetch-site") && value == b"cross-site"
        })
    }

    /// The values of all fields that mean `meaning`.
    pub(crate) fn values(&self, meaning: Name) -> impl Iterator<Item = &[u8]> {
        self.fields
            .iter()
            .filter(move |field| field.meaning == meaning)
            .map(|field| self.text(&field.value))
    }

    /// The whole head, as it came.
    pub(crate) fn as_it_came(&self) -> &[u8] {
        &self.bytes
    }

    fn text(&self, span: &Span) -> &[u8] {
        self.bytes
            .get(span.start as usize..span.end as usize)
            .unwrap_or_default()
    }

    /// Forgets the last request, and gives memory back that few requests need.
    pub(crate) fn clear(&mut self) {
        const KEPT_BYTES: usize = 4 * 1024;
        let mut bytes = std::mem::take(&mut self.bytes);
        let mut fields = std::mem::take(&mut self.fields);
        bytes.clear();
        bytes.shrink_to(KEPT_BYTES);
        fields.clear();
        *self = Self {
            bytes,
            fields,
            ..Self::default()
        };
    }

    /// Forgets the last request and gives all memory back.
    pub(crate) fn release(&mut self) {
        *self = Self::default();
    }

    /// Takes a head from the front of `input`: how long it was, or `None` when it is not whole yet.
    ///
    /// # Errors
    /// When no bytes that could follow would make this a request that may be passed on.
    pub(crate) fn parse(
        &mut self,
        input: &[u8],
        names: &ConfiguredNames,
    ) -> Result<Option<usize>, BadHead> {
        self.clear();
        let empty_lines = input
            .iter()
            .take_while(|&&byte| byte == b'\r' || byte == b'\n')
            .take(EMPTY_LINES_BYTES_MAX + 1)
            .count();
        if empty_lines > EMPTY_LINES_BYTES_MAX {
            return Err(bad("empty lines instead of a request"));
        }
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let length = match request.parse_with_uninit_headers(input, &mut fields) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return too_long_already(input),
            Err(error) => return Err(unreadable(error)),
        };
        if length > HEAD_BYTES_MAX {
            return too_long_already(input);
        }
        let head = input.get(..length).unwrap_or_default();
        if !every_line_ends_in_crlf(head) {
            return Err(bad("a line that ends without a carriage return"));
        }
        self.bytes.extend_from_slice(head);
        let (Some(method), Some(target), Some(version)) =
            (request.method, request.path, request.version)
        else {
            return Err(bad("no request line"));
        };
        self.method = span(head, method.as_bytes());
        self.target = span(head, target.as_bytes());
        self.is_http_1_0 = version == 0;
        let mut reading = Reading::default();
        for field in request.headers.iter() {
            let name = field.name.as_bytes();
            if has_underscore(name) {
                return Err(bad("a field name with an underscore"));
            }
            let meaning = names.of_request(name);
            reading.take(self, head, meaning, field.value)?;
            self.fields.push(Field {
                name: span(head, name),
                value: span(head, field.value),
                meaning,
            });
        }
        reading.conclude(self)?;
        Ok(Some(length))
    }
}

/// What is gathered from the fields of one head before it is judged as a whole.
#[derive(Debug, Default)]
struct Reading {
    hosts: usize,
    lengths: usize,
    length: u64,
    codings: usize,
    upgrades: usize,
    connection_upgrade: bool,
    websocket: bool,
    websocket_key: bool,
    websocket_version: bool,
    upgrade_allowed: bool,
}

impl Reading {
    #[inline]
    fn take(
        &mut self,
        into: &mut RequestHead,
        head: &[u8],
        meaning: Name,
        value: &[u8],
    ) -> Result<(), BadHead> {
        match meaning {
            Name::Host => {
                self.hosts += 1;
                into.host = span(head, value);
            }
            Name::UserAgent => {
                into.user_agents += 1;
                into.user_agent = span(head, value);
            }
            Name::ContentLength => {
                self.lengths += 1;
                self.length = content_length(value).ok_or(bad("a bad Content-Length"))?;
            }
            Name::TransferEncoding => {
                self.codings += 1;
                transfer_coding(value)?;
            }
            Name::Connection => self.take_connection(into, value),
            Name::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(BadHead {
                        status: 417,
                        why: "an expectation other than 100-continue",
                    });
                }
                into.expects_continue = true;
            }
            Name::Te => {
                into.takes_trailers = tokens(value).any(|t| t.eq_ignore_ascii_case(b"trailers"));
            }
            Name::Upgrade => {
                self.upgrades += 1;
                self.websocket = value.eq_ignore_ascii_case(b"websocket");
                self.upgrade_allowed = may_be_passed_on(value);
            }
            Name::SecWebSocketKey => self.websocket_key = !value.is_empty(),
            Name::Wardent => into.has_wardent_fields = true,
            Name::Country => into.country = span(head, value),
            Name::Ray => into.ray = span(head, value),
            Name::SecWebSocketVersion => self.websocket_version = value == b"13",
            Name::Other
            | Name::HopByHop
            | Name::Date
            | Name::Identity
            | Name::ForwardedHost
            | Name::ForwardedProto
            | Name::OwnIdentity
            | Name::StripeSignature
            | Name::TraceParent
            | Name::TraceState
            | Name::ClientIp
            | Name::Edge
            | Name::ConnectingIpv6
            | Name::Secret => {}
        }
        Ok(())
    }

    fn take_connection(&mut self, into: &mut RequestHead, value: &[u8]) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                into.wants_close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                into.wants_keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.connection_upgrade = true;
            } else {
                into.connection_names_fields = true;
            }
        }
    }

    fn conclude(self, head: &mut RequestHead) -> Result<(), BadHead> {
        match head.method() {
            b"CONNECT" | b"TRACE" => {
                return Err(BadHead {
                    status: 405,
                    why: "a method that no origin behind a proxy serves",
                });
            }
            _ => {}
        }
        if self.hosts != 1 {
            return Err(bad("no Host, or more than one"));
        }
        if !is_host(head.host()) {
            return Err(bad("a bad Host"));
        }
        head.framing = match (self.lengths, self.codings) {
            (0, 0) => Framing::None,
            (1, 0) => Framing::Length(self.length),
            (0, 1) if !head.is_http_1_0 => Framing::Chunked,
            (0, 1) => return Err(bad("Transfer-Encoding in HTTP/1.0")),
            _ => return Err(bad("more than one framing")),
        };
        let websocket_whole =
            head.method() == b"GET" && self.websocket_key && self.websocket_version;
        if self.upgrades == 1
            && self.connection_upgrade
            && self.upgrade_allowed
            && !head.is_http_1_0
            && head.framing == Framing::None
            && (websocket_whole || !self.websocket)
        {
            head.upgrade = Upgrade::Yes;
        }
        to_origin_form(head)
    }
}

/// Protocols that HTTP/1.1 may be left for. Not HTTP/2: its frames would pass unjudged.
fn may_be_passed_on(protocol: &[u8]) -> bool {
    let is_token = !protocol.is_empty()
        && protocol
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte));
    let lower = protocol.to_ascii_lowercase();
    is_token
        && !lower.starts_with(b"h2")
        && !lower.starts_with(b"http")
        && !lower.starts_with(b"tls")
}

/// Takes scheme and authority off a target that has them (RFC 9112 section 3.2.2).
fn to_origin_form(head: &mut RequestHead) -> Result<(), BadHead> {
    let target = head.target();
    if target.len() > TARGET_BYTES_MAX {
        return Err(BadHead {
            status: 414,
            why: "a target that is too long",
        });
    }
    if memchr(b'#', target).is_some() {
        return Err(bad("a fragment in the target"));
    }
    match target.first() {
        Some(b'/') => return Ok(()),
        Some(b'*') if target.len() == 1 && head.method() == b"OPTIONS" => return Ok(()),
        _ => {}
    }
    let scheme = [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
        .ok_or(bad("a target that is neither a path nor a URL"))?;
    let rest = target.get(scheme.len()..).unwrap_or_default();
    let slash = memchr(b'/', rest).ok_or(bad("a URL without a path"))?;
    let authority = rest.get(..slash).unwrap_or_default();
    if !authority.eq_ignore_ascii_case(head.host()) {
        return Err(bad("a URL for another host than Host names"));
    }
    let skipped = u32::try_from(scheme.len() + slash).unwrap_or(u32::MAX);
    head.target.start = head.target.start.saturating_add(skipped);
    Ok(())
}

/// The characters of `host[:port]` (RFC 9110 section 7.2); nothing that ends a host elsewhere.
fn is_host(host: &[u8]) -> bool {
    !host.is_empty()
        && host.len() <= 261
        && host
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || b".-_~:[]%".contains(&byte))
}

/// Digits and nothing else (RFC 9110 section 8.6).
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Only `chunked` can be undone here without changing the body.
fn transfer_coding(value: &[u8]) -> Result<(), BadHead> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let known: [&[u8]; 7] = [
        b"chunked",
        b"gzip",
        b"x-gzip",
        b"deflate",
        b"compress",
        b"x-compress",
        b"identity",
    ];
    let codings_only = tokens(value).count() > 0
        && tokens(value).all(|t| known.iter().any(|k| t.eq_ignore_ascii_case(k)));
    Err(if codings_only {
        BadHead {
            status: 501,
            why: "a Transfer-Encoding other than chunked",
        }
    } else {
        bad("a bad Transfer-Encoding")
    })
}

fn too_long_already(input: &[u8]) -> Result<Option<usize>, BadHead> {
    if input.len() < HEAD_BYTES_MAX {
        return Ok(None);
    }
    let first_line = memchr(
        b'\n',
        input.get(EMPTY_LINES_BYTES_MAX..).unwrap_or_default(),
    );
    Err(
        if first_line.is_none_or(|length| length > TARGET_BYTES_MAX) {
            BadHead {
                status: 414,
                why: "a request line that is too long",
            }
        } else {
            BadHead {
                status: 431,
                why: "a head that is too long",
            }
        },
    )
}

fn unreadable(error: httparse::Error) -> BadHead {
    match error {
        httparse::Error::TooManyHeaders => BadHead {
            status: 431,
            why: "too many fields",
        },
        httparse::Error::HeaderName => bad("a bad field name"),
        httparse::Error::HeaderValue => bad("a bad field value"),
        httparse::Error::NewLine => bad("a bad line end"),
        httparse::Error::Status => bad("a bad status"),
        httparse::Error::Token => bad("a bad request line"),
        httparse::Error::Version => bad("not HTTP/1.1 or HTTP/1.0"),
    }
}

/// Compares eight bytes at once: names are too short for a general search to pay.
fn has_underscore(name: &[u8]) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let (eights, rest) = name.as_chunks();
    let in_eights = eights.iter().any(|&eight| {
        // Has a zero byte where there was an underscore; what follows finds one.
        let zeroed = u64::from_ne_bytes(eight) ^ (EACH * u64::from(b'_'));
        zeroed.wrapping_sub(EACH) & !zeroed & (EACH << 7) != 0
    });
    in_eights || rest.contains(&b'_')
}

fn every_line_ends_in_crlf(head: &[u8]) -> bool {
    // Without an early end, which the compiler turns into vector instructions.
    let pairs = head.iter().zip(head.get(1..).unwrap_or_default());
    let any_bare = pairs.fold(head.first() == Some(&b'\n'), |any, (&before, &byte)| {
        any | ((byte == b'\n') & (before != b'\r'))
    });
    !any_bare
}

/// Where `part` stands in `whole`, of which it is a piece.
fn span(whole: &[u8], part: &[u8]) -> Span {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    at(start)..at(start + part.len())
}

#[cfg(test)]
mod tests;
