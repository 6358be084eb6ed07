//! Wardent in front of the echo origin, and what must hold after every case.

use super::{
    CLIENT,
    client::{RawClient, method_of},
    expand, get_nonce,
    message::{self, Framing, Request, Response},
    origin::{Mark, Origin},
    wardent::{Setup, Wardent},
};

/// The reasons Wardent may give.
const REASONS: [&str; 16] = [
    "bad_request",
    "bad_client_ip",
    "bad_secret",
    "bad_signature",
    "denied",
    "banned",
    "bot",
    "trap",
    "rate_limited",
    "body_too_large",
    "upstream_unreachable",
    "upstream_broken",
    "upstream_timeout",
    "upstream_unavailable",
    "overloaded",
    "internal",
];

/// An origin and the Wardent before it.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) origin: Origin,
    pub(crate) wardent: Wardent,
}

impl Rig {
    /// The echo origin behind a Wardent with nothing special.
    pub(crate) fn new() -> Self {
        Self::with(|setup| setup)
    }

    /// The echo origin behind a Wardent with some settings changed.
    pub(crate) fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        Self::around(Origin::echo(), change)
    }

    /// A given origin behind a Wardent with some settings changed.
    pub(crate) fn around(origin: Origin, change: impl FnOnce(Setup) -> Setup) -> Self {
        let wardent = change(Wardent::setup(&origin)).start();
        Self { origin, wardent }
    }

    /// Plays a case whose first request must be refused: no byte of it reaches the origin, the
    /// answer is raw, and the connection ends.
    pub(crate) fn refused(
        &self,
        id: &str,
        template: &[u8],
        statuses: &[u16],
        reason: &str,
    ) -> Response {
        let sent = expand(template);
        let mark = self.origin.mark();
        let mut client = self.wardent.client();
        client.send_anyway(&sent);
        let response = client
            .try_response(&method_of(&sent))
            .unwrap_or_else(|error| panic!("{id}: no answer: {error}"));
        assert_refusal(id, &response, statuses, reason);
        client.assert_closed(id);
        self.assert_nothing_passed(id, &mark);
        self.assert_invariants(id, &sent, &mark);
        response
    }

    /// Plays a case whose request must be refused and whose connection may go on.
    pub(crate) fn refused_politely(
        &self,
        id: &str,
        template: &[u8],
        statuses: &[u16],
        reason: &str,
    ) -> Response {
        let sent = expand(template);
        let mark = self.origin.mark();
        let response = self.wardent.ask(&sent);
        assert_refusal(id, &response, statuses, reason);
        self.assert_nothing_passed(id, &mark);
        self.assert_invariants(id, &sent, &mark);
        response
    }

    /// Plays a case that must pass, and gives what the origin saw and what the client got.
    pub(crate) fn passed(&self, id: &str, template: &[u8]) -> (Request, Response) {
        self.passed_as_it_is(id, &expand(template))
    }

    /// The same, with the bytes given: in a large random body, `{P}` stands for itself.
    pub(crate) fn passed_as_it_is(&self, id: &str, sent: &[u8]) -> (Request, Response) {
        let mark = self.origin.mark();
        let response = self.wardent.ask(sent);
        let shown = &sent[..sent.len().min(4096)];
        assert_eq!(
            response.status,
            200,
            "{id}: {:?} to {:?}",
            message::latin1(&response.head.raw),
            message::latin1(shown)
        );
        let mut seen = self.origin.requests_since(&mark);
        assert_eq!(seen.len(), 1, "{id}: requests at the origin: {seen:?}");
        assert!(seen[0].complete, "{id}: the body did not reach its end");
        self.assert_invariants(id, sent, &mark);
        (seen.remove(0), response)
    }

    /// UP0: the origin saw zero bytes.
    pub(crate) fn assert_nothing_passed(&self, id: &str, mark: &Mark) {
        let seen = self.origin.requests_since(mark);
        let bytes = self.origin.bytes_since(mark);
        assert_eq!(bytes, 0, "{id}: the origin saw {seen:?}");
    }

    /// What holds after every case, whoever the client was.
    ///
    /// (i) the origin saw no request that a strict parser does not find; (ii) no request had two
    /// framings or two Hosts; (iii) no name with `_`, no identity and no secret of the client's
    /// making; (iv) Wardent still serves; (vi) the answer is the asker's own.
    pub(crate) fn assert_invariants(&self, id: &str, sent: &[u8], mark: &Mark) {
        self.assert_invariants_for(id, sent, mark, CLIENT);
    }

    /// The same, for a client known by another address.
    pub(crate) fn assert_invariants_for(&self, id: &str, sent: &[u8], mark: &Mark, client: &str) {
        assert_alive(id, &self.wardent);
        let fault = self.origin.fault();
        assert_eq!(fault, None, "{id}: the origin was sent what is no HTTP");
        let seen = self.origin.requests_since(mark);
        let seen: Vec<_> = seen
            .iter()
            .filter(|request| !request.head.target.starts_with("/alive-"))
            .collect();
        let allowed = message::requests_in(sent).requests.len();
        assert!(
            seen.len() <= allowed,
            "{id}: a strict parser finds {allowed} requests, the origin saw {seen:?}"
        );
        for request in seen {
            assert_clean(id, request, client);
        }
    }
}

/// (iv) and (vi): a good request on a fresh connection gets its own answer.
pub(crate) fn assert_alive(id: &str, wardent: &Wardent) {
    let nonce: String = id
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let response = wardent.ask(get_nonce(&format!("/alive-{nonce}"), &nonce));
    assert_eq!(response.status, 200, "{id}: the follow-up request failed");
    assert_eq!(response.nonce(), nonce, "{id}: another client's answer");
}

/// (ii) and (iii) of one request at the origin.
pub(crate) fn assert_clean(id: &str, request: &Request, client: &str) {
    let fields = &request.head.fields;
    let framings = fields.all("content-length").len() + fields.all("transfer-encoding").len();
    assert!(framings <= 1, "{id}: two framings in {fields:?}");
    assert_eq!(fields.all("host").len(), 1, "{id}: Hosts in {fields:?}");
    let names = [fields.names(), request.trailers.names()].concat();
    for name in &names {
        assert!(!name.contains('_'), "{id}: `{name}` reached the origin");
        assert!(
            !name.starts_with("x-wardent-"),
            "{id}: `{name}` reached the origin"
        );
    }
    for name in ["x-forwarded-for", "x-real-ip"] {
        assert_eq!(fields.all(name), [client], "{id}: {name} at the origin");
    }
    for name in ["cf-connecting-ip", "true-client-ip", "forwarded"] {
        for value in fields.all(name) {
            assert!(
                value.contains(client),
                "{id}: `{name}: {value}` reached the origin"
            );
        }
    }
    for name in request.trailers.names() {
        let reserved = [
            "host",
            "content-length",
            "transfer-encoding",
            "x-forwarded-for",
            "x-real-ip",
            "cf-connecting-ip",
            "forwarded",
            "true-client-ip",
        ];
        assert!(
            !reserved.contains(&name.as_str()),
            "{id}: trailer `{name}` reached the origin"
        );
    }
}

/// A refusal is raw: a status line, no body, the reason and the id of the decision.
pub(crate) fn assert_refusal(id: &str, response: &Response, statuses: &[u16], reason: &str) {
    let head = message::latin1(&response.head.raw);
    assert!(
        statuses.contains(&response.status),
        "{id}: expected {statuses:?}, got {head:?}"
    );
    assert!(response.body.is_empty(), "{id}: a refusal with a body");
    assert_eq!(
        response.header("content-length"),
        Some("0"),
        "{id}: the length of a refusal: {head:?}"
    );
    assert!(
        matches!(response.framing, Framing::Length(0) | Framing::None),
        "{id}: {head:?}"
    );
    assert!(REASONS.contains(&reason), "{id}: `{reason}` is no reason");
    assert_eq!(
        response.header("x-wardent-reason"),
        Some(reason),
        "{id}: the reason of {head:?}"
    );
    let request_id = response.header("x-request-id").unwrap_or_default();
    assert!(!request_id.is_empty(), "{id}: no X-Request-ID in {head:?}");
}

/// Sends a case on a connection of its own and gives everything that came back, read strictly.
pub(crate) fn play(mut client: RawClient, sent: &[u8]) -> (Vec<Response>, RawClient) {
    client.send_anyway(sent);
    let mut responses = Vec::new();
    while let Ok(response) = client.try_response(&method_of(sent)) {
        responses.push(response);
    }
    (responses, client)
}
