//! One generation of the policy, as the guards use it.

use super::{route::Routes, signature::Stripe};
use crate::{
    client::Trust,
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
    /// Only requests with the secret pass.
    pub needs_secret: bool,
    /// The route skips the secret or the bots, which the defaults do not.
    pub is_exempt: bool,
    /// Bytes of a request's body at most.
    pub body_bytes_max: u64,
    /// Only webhooks with a valid signature pass.
    pub signature: Option<Stripe>,
}

impl Policy {
    /// Whether a client must prove more than a trusted peer's word (PRODUCT: proven identity).
    pub fn asks_for_proof(&self) -> bool {
        !self.keyring.is_empty() || self.trust.edge.is_some()
    }
}
