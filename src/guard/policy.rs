//! One generation of the policy, as the guards use it.

use std::sync::Arc;

use super::{limit::Limits, route::Routes, signature::Stripe, tally::Tally};
use crate::{
    base::network_set::NetworkSet,
    bots::Actions,
    client::{Protected, Trust},
    owner::Cause,
    secret::{Keyring, Signer},
};

/// All that decides about requests. Never changed: a reload makes a new one.
#[derive(Debug)]
pub struct Policy {
    /// Counts the reloads; the first is 1.
    pub generation: u64,
    /// Who may say who the client is.
    pub trust: Trust,
    /// The secret's keys; empty where none are configured.
    pub keyring: Keyring,
    /// Signs requests towards the application.
    pub signer: Option<Signer>,
    /// Who is always refused.
    pub denied: NetworkSet,
    /// Who is never limited, and who is never banned.
    pub protected: Protected,
    /// What a violation is worth.
    pub points: Points,
    /// The routes, in the order of the file.
    pub routes: Routes<Rules>,
    /// For what no route matches.
    pub defaults: Rules,
}

/// What holds on one route.
#[derive(Debug)]
pub struct Rules {
    /// The route's name; `defaults` where none matches.
    pub route: String,
    /// What became of its requests.
    pub tally: Arc<Tally>,
    /// Only requests with the secret pass.
    pub needs_secret: bool,
    /// The route skips the secret or the bots, which the defaults do not.
    pub is_exempt: bool,
    /// Whether refusals by deny, bans, bots, traps and limits refuse, or are only counted.
    pub enforces: bool,
    /// What is done with bots; none where they are not looked for.
    pub bots: Option<Actions>,
    /// Asking for it is a violation.
    pub is_trap: bool,
    /// How often each client may ask.
    pub limits: Limits,
    /// Answers of the application that count as violations: the status, and the points.
    pub penalize: Vec<(u16, u32)>,
    /// Bytes of a request's body at most.
    pub body_bytes_max: u64,
    /// Only webhooks with a valid signature pass.
    pub signature: Option<Stripe>,
}

/// What violations are worth, in points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Points {
    /// Over a limit.
    pub rate_limited: u32,
    /// A bot that is kept out.
    pub bot: u32,
    /// A body over its bound.
    pub body_too_large: u32,
    /// A trap.
    pub trap: u32,
}

impl Points {
    /// What a violation of this kind is worth. What the application's answers are worth, the route
    /// says.
    pub fn of(&self, cause: Cause) -> u32 {
        match cause {
            Cause::RateLimited => self.rate_limited,
            Cause::Bot => self.bot,
            Cause::BodyTooLarge => self.body_too_large,
            Cause::Trap => self.trap,
            Cause::Penalized => 0,
        }
    }
}

impl Rules {
    /// What an answer of this status is worth, in points.
    pub fn penalty(&self, status: u16) -> u32 {
        let found = self.penalize.iter().find(|(of, _)| *of == status);
        found.map_or(0, |&(_, points)| points)
    }
}

impl Policy {
    /// What holds on each route, and last where none matches.
    pub fn all_rules(&self) -> impl Iterator<Item = &Rules> {
        let routes = self.routes.iter().map(|route| &route.value);
        routes.chain([&self.defaults])
    }

    /// Whether a client must prove more than a trusted peer's word.
    pub fn asks_for_proof(&self) -> bool {
        !self.keyring.is_empty() || self.trust.edge.is_some()
    }
}
