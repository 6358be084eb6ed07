//! The guards in their order.
//!
//! 1. Path and route: they say which rules hold, and a path with two meanings has no rules.
//! 2. The secret: without it, all else the request says is hearsay.
//! 3. The client's identity, which the next guards go by.
//! 4. The declared body size and the signature's presence: they cost nothing and spare the upstream.
//!
//! Every guard fails closed: what cannot be judged is refused.

use super::{
    path,
    policy::{Policy, Rules},
    verdict::{Reason, Refusal},
};
use crate::{
    client::{Claim, Claims, Client, Peer, identify},
    secret::Signed,
};

/// What the guards see of a request.
#[derive(Debug)]
pub struct Head<'a> {
    /// The other end of the socket.
    pub peer: &'a Peer,
    /// The method, as it came.
    pub method: &'a [u8],
    /// The target in origin form.
    pub target: &'a [u8],
    /// The target without its query.
    pub path: &'a [u8],
    /// The host, as it came.
    pub host: &'a [u8],
    /// What the identity fields say.
    pub claims: Claims<'a>,
    /// What the secret's field says.
    pub secret: Claim<'a>,
    /// What the webhook signature's field says.
    pub signature: Claim<'a>,
    /// The declared length of the body.
    pub content_length: Option<u64>,
    /// Seconds since 1970.
    pub now_unix_s: u64,
}

/// What the guards found, refused or not.
#[derive(Debug)]
pub struct Judgement<'p> {
    /// The rules of the route that matched.
    pub rules: &'p Rules,
    /// Who is calling, where that is known.
    pub client: Option<Client>,
    /// Whether the client's identity is beyond doubt, so that it may be blamed.
    pub is_proven: bool,
    /// Whether the request may pass.
    pub verdict: Result<(), Refusal>,
}

/// Asks all guards about one request. `scratch` is memory for the normalised path.
pub fn judge<'p>(policy: &'p Policy, head: &Head<'_>, scratch: &mut Vec<u8>) -> Judgement<'p> {
    let identity = identify(head.peer, &head.claims, &policy.trust);
    let client = identity.as_ref().ok().copied();
    let secret_is_valid = holds_secret(policy, head, client.as_ref());
    let (rules, route_verdict) = match find_rules(policy, head, scratch) {
        Ok(rules) => (rules, Ok(())),
        Err(refusal) => (&policy.defaults, Err(refusal)),
    };
    let verdict = route_verdict
        .and_then(|()| check_secret(rules, head, secret_is_valid))
        .and_then(|()| match identity {
            Ok(_) => Ok(()),
            Err(bad) => Err(Refusal::new(Reason::BadClientIp, bad.why())),
        })
        .and_then(|()| check_length(rules, head))
        .and_then(|()| check_signature_is_there(rules, head));
    let is_proven =
        client.is_some_and(|client| client.is_proven(secret_is_valid, policy.asks_for_proof()));
    Judgement {
        rules,
        client,
        is_proven,
        verdict,
    }
}

fn find_rules<'p>(
    policy: &'p Policy,
    head: &Head<'_>,
    scratch: &mut Vec<u8>,
) -> Result<&'p Rules, Refusal> {
    if head.path == b"*" {
        return Ok(&policy.defaults);
    }
    let meaning = path::normalise(head.path, scratch)
        .map_err(|bad| Refusal::new(Reason::BadRequest, bad.why()))?;
    let Some(route) = policy.routes.find_route(head.method, meaning.path) else {
        return Ok(&policy.defaults);
    };
    // With dots, a program that merges no slashes, or removes no dots, may end up elsewhere:
    // `/open/../admin//../open/x` is `/admin/open/x` to RFC 3986 section 5.2.4.
    let is_detour = route.value.is_exempt
        && meaning.changed
        && (meaning.had_dots
            || policy
                .routes
                .only_by_normalisation(head.method, head.path, route));
    if is_detour {
        return Err(Refusal::new(
            Reason::BadRequest,
            "a detour to a route that skips guards",
        ));
    }
    Ok(&route.value)
}

fn holds_secret(policy: &Policy, head: &Head<'_>, client: Option<&Client>) -> bool {
    let Claim::One(presented) = head.secret else {
        return false;
    };
    if policy.keyring.is_empty() {
        return false;
    }
    let signed = Signed {
        method: head.method,
        host: head.host,
        target: head.target,
        client_ip: client.and_then(Client::ip),
    };
    policy
        .keyring
        .verify(presented, &signed, head.now_unix_s)
        .is_some()
}

fn check_secret(rules: &Rules, head: &Head<'_>, is_valid: bool) -> Result<(), Refusal> {
    if matches!(head.secret, Claim::Several) {
        return Err(Refusal::new(Reason::BadSecret, "more than one secret"));
    }
    if rules.needs_secret && !is_valid {
        return Err(Refusal::new(Reason::BadSecret, "no secret, or a wrong one"));
    }
    Ok(())
}

fn check_length(rules: &Rules, head: &Head<'_>) -> Result<(), Refusal> {
    match head.content_length {
        Some(length) if length > rules.body_bytes_max => Err(Refusal::new(
            Reason::BodyTooLarge,
            "the declared length is over the route's bound",
        )),
        _ => Ok(()),
    }
}

fn check_signature_is_there(rules: &Rules, head: &Head<'_>) -> Result<(), Refusal> {
    match (&rules.signature, &head.signature) {
        (None, _) | (Some(_), Claim::One(_)) => Ok(()),
        (Some(_), Claim::Absent) => Err(Refusal::new(Reason::BadSignature, "no signature")),
        (Some(_), Claim::Several) => Err(Refusal::new(
            Reason::BadSignature,
            "more than one signature",
        )),
    }
}
