//! What would become of a request that nobody has sent.
//!
//! It is written as it would come over the wire and read as any other, so that what is explained is
//! what would happen. Nothing is charged, nobody is blamed, nothing is passed on.

use std::net::IpAddr;

use super::{
    head::{BadHead, RequestHead},
    pipeline,
    worker::Shared,
};
use crate::{
    client::{Peer, Trust, fold},
    guard::{
        blame::counts,
        bots::People,
        chain::Known,
        explain::{Explanation, explain},
        policy::Policy,
    },
    owner::Cause,
};

/// A request that might come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The client's address, as the hop before would name it.
    pub ip: IpAddr,
    /// The method.
    pub method: String,
    /// The target: path and query.
    pub target: String,
    /// The host.
    pub host: String,
    /// The user agent; none for no such field.
    pub user_agent: Option<String>,
    /// Further fields: names and values.
    pub fields: Vec<(String, String)>,
    /// Whether it is taken to hold a valid secret.
    pub has_secret: bool,
}

/// What would become of it.
#[derive(Debug)]
pub enum Outcome<'p> {
    /// It is no request that may be passed on, so no guard is asked.
    Unreadable {
        /// The answer's status.
        status: u16,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The guards were asked.
    Judged {
        /// What they said.
        explanation: Box<Explanation<'p>>,
        /// What would be held against its client: how many points, and what for.
        blame: Option<(Cause, u32)>,
    },
}

/// A question that could not come over the wire as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenLine;

/// Says what would become of a request under `policy`.
///
/// It comes from a trusted peer, where there is one, over a matching edge, where one is asked for;
/// else from the client itself.
///
/// # Errors
/// When a part of it has a line break, so that it would be another request, or more than one.
pub fn outcome<'p>(
    shared: &Shared,
    policy: &'p Policy,
    question: &Question,
) -> Result<Outcome<'p>, BrokenLine> {
    let peer = peer(&policy.trust, question.ip);
    let wire = written(shared, policy, question, &peer).ok_or(BrokenLine)?;
    let mut head = RequestHead::default();
    match head.parse(&wire, &shared.settings.names) {
        Ok(Some(_)) => {}
        Ok(None) => return Err(BrokenLine),
        Err(BadHead { status, why }) => return Ok(Outcome::Unreadable { status, why }),
    }
    let now_unix_s = shared.clock.unix_ms() / 1_000;
    let asked = pipeline::asked(&head, &peer, now_unix_s, shared.clock.monotonic_ns());
    let people = People::default();
    let known = Known {
        clients: &shared.clients,
        bots: &shared.bots,
        people: &people,
        spending: None,
    };
    let explanation = explain(policy, known, &asked, question.has_secret);
    let judgement = &explanation.judgement;
    let blame = judgement
        .violation
        .filter(|_| judgement.may_be_blamed)
        .map(|cause| (cause, policy.points.of(cause)))
        .filter(|&(cause, points)| counts(cause, points, head.is_cross_site()));
    Ok(Outcome::Judged {
        explanation: Box::new(explanation),
        blame,
    })
}

/// Who would bring a request of the client at `ip`.
fn peer(trust: &Trust, ip: IpAddr) -> Peer {
    match trust.trusted.networks.first() {
        Some(network) => Peer::Ip(fold(network.addr())),
        None if trust.trusted.unix => Peer::Unix,
        None => Peer::from(ip),
    }
}

/// The head as it would come; none when a part of it breaks its line.
fn written(shared: &Shared, policy: &Policy, question: &Question, peer: &Peer) -> Option<Vec<u8>> {
    let mut lines = vec![format!("{} {} HTTP/1.1", question.method, question.target)];
    let mut field = |name: &str, value: &str| lines.push(format!("{name}: {value}"));
    field("host", &question.host);
    if let Some(user_agent) = &question.user_agent {
        field("user-agent", user_agent);
    }
    if policy.trust.trusted.trusts(peer) {
        field(&shared.settings.names.client_ip, &question.ip.to_string());
        if let Some(edge) = &policy.trust.edge
            && let Some(hop) = edge.networks.first()
        {
            field(&edge.header, &hop.to_string());
        }
    }
    for (name, value) in &question.fields {
        field(name, value);
    }
    let is_broken = |line: &String| line.is_empty() || line.contains(['\r', '\n']);
    if lines.iter().any(is_broken) {
        return None;
    }
    Some((lines.join("\r\n") + "\r\n\r\n").into_bytes())
}
