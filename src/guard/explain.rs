//! What each guard would say of a request, and why: the same judgement, asked as if.
//!
//! The verdicts are those of [`chain`](super::chain), which is asked here and not retold. Beside each
//! stands what the guard goes by, also where it was not asked. Nothing is charged and nobody blamed.

use std::net::IpAddr;

use super::{
    chain::{Ask, Head, Judgement, Known, holds_secret, judge_as},
    path,
    policy::Policy,
    verdict::Reason,
};
use crate::{
    bots::Standing,
    client::{Claim, Who},
    limit::{Clients, Ticks, seconds, ticks},
    owner::Cause,
};

/// What would become of a request.
#[derive(Debug)]
pub struct Explanation<'p> {
    /// The judgement as a whole.
    pub judgement: Judgement<'p>,
    /// What each guard saw and said, in their order.
    pub findings: Vec<Finding>,
    /// What the client has left of its route's limits.
    pub meters: Vec<Meter>,
    /// How long the ban in force goes on, rounded up to seconds; none where there is none.
    pub banned_for_s: Option<u64>,
}

/// What one guard saw and said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub guard: Guard,
    /// What it said.
    pub verdict: Verdict,
    /// What it goes by. May hold a client's own words.
    pub saw: String,
}

/// What a client has left of one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    /// The limit's name, as answers tell it.
    pub name: String,
    /// How many requests are admitted at once.
    pub burst: u32,
    /// How many would be now.
    pub remaining: u32,
    /// Until all would be again, in seconds, rounded up.
    pub full_in_s: u64,
    /// Until one would be, in seconds, rounded up; zero where one is now.
    pub wait_s: u64,
}

/// What a guard said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The request may pass.
    Passes,
    /// The request is refused.
    Refuses,
    /// The request would be refused, were its route enforced.
    WouldRefuse,
    /// It was decided before.
    NotAsked,
}

impl Verdict {
    /// The verdict's public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::Refuses => "refuses",
            Self::WouldRefuse => "would_refuse",
            Self::NotAsked => "not_asked",
        }
    }
}

/// The guards, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// The path's one meaning, and its route.
    Path,
    /// The secret.
    Secret,
    /// Who the client is.
    Identity,
    /// The networks written down by hand.
    Networks,
    /// The ban.
    Ban,
    /// Bots that are kept out.
    Bots,
    /// Traps.
    Trap,
    /// The limits.
    Limits,
    /// The declared length of the body.
    Body,
    /// The webhook's signature.
    Signature,
}

impl Guard {
    /// All of them, in their order.
    pub const ALL: [Self; 10] = [
        Self::Path,
        Self::Secret,
        Self::Identity,
        Self::Networks,
        Self::Ban,
        Self::Bots,
        Self::Trap,
        Self::Limits,
        Self::Body,
        Self::Signature,
    ];

    /// The guard's public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Path => "path and route",
            Self::Secret => "secret",
            Self::Identity => "client",
            Self::Networks => "deny and allow",
            Self::Ban => "ban",
            Self::Bots => "bots",
            Self::Trap => "trap",
            Self::Limits => "limits",
            Self::Body => "body",
            Self::Signature => "signature",
        }
    }

    /// The guard that refuses for this reason; none where none does.
    fn behind(reason: Reason) -> Option<Self> {
        match reason {
            Reason::BadRequest => Some(Self::Path),
            Reason::BadSecret => Some(Self::Secret),
            Reason::BadClientIp => Some(Self::Identity),
            Reason::Denied => Some(Self::Networks),
            Reason::Banned => Some(Self::Ban),
            Reason::Bot => Some(Self::Bots),
            Reason::Trap => Some(Self::Trap),
            Reason::RateLimited => Some(Self::Limits),
            Reason::BodyTooLarge => Some(Self::Body),
            Reason::BadSignature => Some(Self::Signature),
            Reason::UpstreamUnreachable
            | Reason::UpstreamBroken
            | Reason::UpstreamTimeout
            | Reason::UpstreamUnavailable
            | Reason::Overloaded
            | Reason::Internal => None,
        }
    }

    /// Whether it is about what the client has done, so that a route may only observe it.
    fn is_about_conduct(self) -> bool {
        (Self::Networks..=Self::Limits).contains(&self)
    }
}

/// Asks all guards about a request as if it had come; `has_secret` takes it to hold a valid secret.
pub fn explain<'p>(
    policy: &'p Policy,
    known: Known<'_>,
    head: &Head<'_>,
    has_secret: bool,
) -> Explanation<'p> {
    let mut scratch = Vec::new();
    let ask = Ask::AsIf { has_secret };
    let judgement = judge_as(ask, policy, known, head, &mut scratch);
    let sight = Sight {
        policy,
        clients: known.clients,
        head,
        judgement: &judgement,
        has_secret,
    };
    let findings = Guard::ALL.map(|guard| Finding {
        guard,
        verdict: sight.verdict(guard),
        saw: sight.saw(guard),
    });
    let (meters, banned_for_s) = (sight.meters(), sight.ban_left().map(seconds));
    Explanation {
        findings: findings.into(),
        meters,
        banned_for_s,
        judgement,
    }
}

/// All that the guards go by.
#[derive(Clone, Copy)]
struct Sight<'a> {
    policy: &'a Policy,
    clients: &'a Clients,
    head: &'a Head<'a>,
    judgement: &'a Judgement<'a>,
    has_secret: bool,
}

impl Sight<'_> {
    fn verdict(&self, guard: Guard) -> Verdict {
        let judgement = self.judgement;
        let refused = judgement.verdict.err().map(|refusal| refusal.reason);
        let refused = refused.and_then(Guard::behind);
        let observed = judgement.observed.map(|refusal| refusal.reason);
        let observed = observed.and_then(Guard::behind);
        let is_settled = guard.is_about_conduct()
            && (observed.is_some_and(|observed| guard > observed)
                || (self.is_allowed() && guard > Guard::Networks));
        if refused == Some(guard) {
            Verdict::Refuses
        } else if observed == Some(guard) {
            Verdict::WouldRefuse
        } else if is_settled || refused.is_some_and(|refused| guard > refused) {
            Verdict::NotAsked
        } else {
            Verdict::Passes
        }
    }

    fn saw(&self, guard: Guard) -> String {
        match guard {
            Guard::Path => self.path(),
            Guard::Secret => self.secret(),
            Guard::Identity => self.identity(),
            Guard::Networks => self.networks().to_owned(),
            Guard::Ban => self.ban(),
            Guard::Bots => self.bots(),
            Guard::Trap => self.trap(),
            Guard::Limits => self.limits(),
            Guard::Body => self.body(),
            Guard::Signature => self.signature().to_owned(),
        }
    }

    fn ip(&self) -> Option<IpAddr> {
        self.judgement.client.as_ref()?.ip()
    }

    fn is_allowed(&self) -> bool {
        let allows = |ip| self.policy.protected.is_allowed(ip);
        self.judgement.is_proven && self.ip().is_some_and(allows)
    }

    fn path(&self) -> String {
        let rules = self.judgement.rules;
        let holds = if rules.enforces {
            "enforced"
        } else {
            "observed"
        };
        let mut scratch = Vec::new();
        match path::normalise(self.head.path, &mut scratch) {
            Err(_) if self.head.path != b"*" => "no single meaning".to_owned(),
            Ok(meaning) if meaning.changed => format!(
                "reads as {}; {}, {holds}",
                String::from_utf8_lossy(meaning.path),
                rules.route
            ),
            Ok(_) | Err(_) => format!("{}, {holds}", rules.route),
        }
    }

    fn secret(&self) -> String {
        let client = self.judgement.client.as_ref();
        let asked = match (
            self.judgement.rules.needs_secret,
            self.policy.keyring.is_empty(),
        ) {
            (true, _) => "asked for",
            (false, false) => "not asked for here",
            (false, true) => "no keys are configured",
        };
        let presented = match self.head.secret {
            Claim::Several => "more than one is there",
            Claim::One(_) | Claim::Absent if self.has_secret => "taken to be valid",
            Claim::Absent => "none is there",
            Claim::One(_) if holds_secret(self.policy, self.head, client) => "a valid one is there",
            Claim::One(_) => "a wrong one is there",
        };
        format!("{asked}; {presented}")
    }

    fn identity(&self) -> String {
        let Some(client) = &self.judgement.client else {
            return "no client that could be believed".to_owned();
        };
        let Some(ip) = client.ip() else {
            return "nobody in particular: never limited as a client, never banned".to_owned();
        };
        let by = if client.by_header {
            "named by a trusted peer"
        } else {
            "the peer's own address"
        };
        let proof = if self.judgement.is_proven {
            "proven"
        } else {
            "not proven: limited, never blamed"
        };
        format!("{ip}, {by}, {proof}")
    }

    fn networks(&self) -> &'static str {
        let policy = self.policy;
        match self.ip() {
            None => "no address to look for",
            Some(_) if self.is_allowed() => "allowed: never limited, never banned",
            Some(ip) if policy.denied.contains(ip) => "denied",
            Some(ip) if policy.protected.is_allowed(ip) => "allowed, were it proven",
            Some(_) => "neither denied nor allowed",
        }
    }

    /// What is left of the ban that the client's cell or network holds, whether it counts or not.
    fn ban_left(&self) -> Option<Ticks> {
        let client = self.judgement.client.as_ref()?;
        let Who::Known { ip, key } = client.who else {
            return None;
        };
        let until = self.clients.banned_until(&self.clients.see(key), ip);
        until
            .checked_sub(ticks(self.head.now_ns))
            .filter(|&left| left > 0)
    }

    fn ban(&self) -> String {
        let why_not = self.ip().and_then(|ip| self.policy.protected.why(ip));
        match (self.ban_left(), why_not) {
            (None, None) => "none in force".to_owned(),
            (None, Some(because)) => format!("none ever holds: {because}"),
            (Some(left), None) => format!("in force for {} s more", seconds(left)),
            (Some(left), Some(because)) => {
                format!("one of {} s more does not hold: {because}", seconds(left))
            }
        }
    }

    fn bots(&self) -> String {
        let judgement = self.judgement;
        let Some(actions) = &judgement.rules.bots else {
            return "not looked for here".to_owned();
        };
        let Some(bot) = &judgement.bot else {
            return "may be a person".to_owned();
        };
        let name = String::from_utf8_lossy(bot.name.as_bytes());
        let standing = match bot.standing {
            None => "",
            Some(Standing::Verified) => ", verified",
            Some(Standing::Impostor) => ", an impostor",
            Some(Standing::Unknown) => ", not provable now",
        };
        let own = actions.of(bot.category);
        let here = match bot.action {
            action if action == own => String::new(),
            action => format!("; here: {}", action.word()),
        };
        format!("{name}, {}: {}{standing}{here}", bot.category, own.word())
    }

    fn trap(&self) -> String {
        if self.judgement.rules.is_trap {
            let points = self.policy.points.of(Cause::Trap);
            format!("a trap, worth {points} points")
        } else {
            "no trap".to_owned()
        }
    }

    fn meters(&self) -> Vec<Meter> {
        let Some(key) = self.judgement.payer() else {
            return Vec::new();
        };
        let now = ticks(self.head.now_ns);
        let named = self.judgement.rules.limits.named();
        let meters = named.map(|(name, limit)| {
            let seen = self.clients.look(key, std::slice::from_ref(limit), now);
            Meter {
                name: name.to_owned(),
                burst: limit.quota.burst(),
                remaining: seen.remaining,
                full_in_s: seconds(seen.full_in),
                wait_s: seconds(seen.wait),
            }
        });
        meters.collect()
    }

    fn limits(&self) -> String {
        let told = self.meters().into_iter().map(|meter| {
            let next = match meter.wait_s {
                0 => String::new(),
                wait_s => format!(", the next in {wait_s} s"),
            };
            format!(
                "{}: {} of {} left{next}",
                meter.name, meter.remaining, meter.burst
            )
        });
        let told: Vec<_> = told.collect();
        if told.is_empty() {
            return "none".to_owned();
        }
        let whose = match self.judgement.herd() {
            Some(_) => "of all its bot's requests: ",
            None => "",
        };
        format!("{whose}{}", told.join("; "))
    }

    fn body(&self) -> String {
        let bound = self.judgement.rules.body_bytes_max;
        match self.head.content_length {
            Some(length) => format!("{length} bytes declared, {bound} allowed"),
            None => format!("no length declared, {bound} bytes allowed"),
        }
    }

    fn signature(&self) -> &'static str {
        match (&self.judgement.rules.signature, &self.head.signature) {
            (None, _) => "not asked for",
            (Some(_), Claim::Absent) => "none is there",
            (Some(_), Claim::Several) => "more than one is there",
            (Some(_), Claim::One(_)) => "one is there; the body decides whether it is valid",
        }
    }
}
