//! The guards in their order.
//!
//! 1. Path and route: they say which rules hold, and a path with two meanings has no rules.
//! 2. The secret: without it, all else the request says is hearsay.
//! 3. The client's identity, which the next guards go by.
//! 4. Deny and allow: what is written by hand comes before what was found out.
//! 5. The ban, so that a banned client costs no more than this, and is not blamed again.
//! 6. Bots and traps, which need no count.
//! 7. The limits, which charge: whoever was refused before has spent nothing.
//! 8. The declared body size and the signature's presence: they spare the upstream.
//!
//! Guards fail closed: what cannot be judged is refused. The ban alone fails open, for the moment in
//! which its cell cannot be read ([`Clients::banned_until`]).
//!
//! Where a route only observes, guards 4 to 7 let pass what they would have refused; the first of
//! them that would have is told, and those after it are not asked.

use super::{
    bots::{self, Bots, From, People, Seen, Told},
    path,
    policy::{Policy, Rules},
    verdict::{Reason, Refusal},
};
use crate::{
    client::{Claim, Claims, Client, ClientKey, Peer, Who, identify},
    limit::{Clients, Spent, spending::Spending, ticks},
    owner::Cause,
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
    /// The client's own word for what it is.
    pub user_agent: Claim<'a>,
    /// All other fields, for the few guards that look at one.
    pub fields: &'a dyn Fields,
    /// The declared length of the body.
    pub content_length: Option<u64>,
    /// Seconds since 1970.
    pub now_unix_s: u64,
    /// Nanoseconds of the monotonic clock.
    pub now_ns: u64,
}

/// The fields of a head, by name.
pub trait Fields: std::fmt::Debug {
    /// The value of the field of this name, in lower case, that comes after `nth` others of it.
    fn value(&self, name: &[u8], nth: usize) -> Option<&[u8]>;

    /// What the fields of this name say; `name` is in lower case.
    fn claim(&self, name: &[u8]) -> Claim<'_> {
        Claim::of((0..2).map_while(|nth| self.value(name, nth)))
    }
}

/// Why a request is refused that reaches a route without guards only by normalisation.
pub const DETOUR: &str = "a detour to a route that skips guards";

/// Why a request is refused that holds more than one secret.
pub const SEVERAL_SECRETS: &str = "more than one secret";

/// What is known beside the policy.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Who may ask how much more, and who is banned.
    pub clients: &'a Clients,
    /// Who is a bot.
    pub bots: &'a Bots,
    /// Who has lately been taken for a person.
    pub people: &'a People,
    /// Where is noted what other nodes are to count as well, if there are any.
    pub spending: Option<&'a Spending>,
}

/// What the guards found, refused or not.
#[derive(Debug)]
pub struct Judgement<'p> {
    /// The rules of the route that matched.
    pub rules: &'p Rules,
    /// Who is calling, where that is known.
    pub client: Option<Client>,
    /// Whether the client's identity is beyond doubt.
    pub is_proven: bool,
    /// Whether the client may be blamed: it is proven, and nothing protects it.
    pub may_be_blamed: bool,
    /// Whether the request may pass.
    pub verdict: Result<(), Refusal>,
    /// Why it would not have passed, had its route been enforced.
    pub observed: Option<Refusal>,
    /// The bot that sent it, where bots are looked for and it is one.
    pub bot: Option<Seen>,
    /// What it left of the client's limits.
    pub spent: Option<Spent>,
    /// What it is held against its client for.
    pub violation: Option<Cause>,
}

/// Asks all guards about one request. `scratch` is memory for the normalised path.
pub fn judge<'p>(
    policy: &'p Policy,
    known: Known<'_>,
    head: &Head<'_>,
    scratch: &mut Vec<u8>,
) -> Judgement<'p> {
    judge_as(Ask::InEarnest, policy, known, head, scratch)
}

/// Asks all guards once more about a request that came before and of which a record is left: as
/// [`judge`], with what its head no longer tells taken from what was `found` then.
pub fn judge_again<'p>(
    policy: &'p Policy,
    known: Known<'_>,
    head: &Head<'_>,
    found: Found<'_>,
    scratch: &mut Vec<u8>,
) -> Judgement<'p> {
    judge_as(Ask::Again(found), policy, known, head, scratch)
}

/// What was found of a request when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// Whether it held a valid secret.
    pub secret_is_valid: bool,
    /// The bot that it was taken for.
    pub bot: Option<Told<'a>>,
}

/// How the guards are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask<'a> {
    /// About a request that is there: it is charged to its client.
    InEarnest,
    /// About one that might be: nothing is charged.
    AsIf {
        /// It is taken to hold a valid secret, whatever it holds.
        has_secret: bool,
    },
    /// About one that was there: it is charged to its client once more.
    Again(Found<'a>),
}

impl Ask<'_> {
    /// Whether the secret is valid; none where the head has to say.
    fn secret_is_valid(self) -> Option<bool> {
        match self {
            Self::InEarnest | Self::AsIf { has_secret: false } => None,
            Self::AsIf { has_secret: true } => Some(true),
            Self::Again(found) => Some(found.secret_is_valid),
        }
    }
}

/// As [`judge`], in earnest or as if.
pub(super) fn judge_as<'p>(
    ask: Ask<'_>,
    policy: &'p Policy,
    known: Known<'_>,
    head: &Head<'_>,
    scratch: &mut Vec<u8>,
) -> Judgement<'p> {
    let identity = identify(head.peer, &head.claims, &policy.trust);
    let client = identity.as_ref().ok().copied();
    let secret_is_valid = ask
        .secret_is_valid()
        .unwrap_or_else(|| holds_secret(policy, head, client.as_ref()));
    let (rules, route_verdict) = match find_rules(policy, head, scratch) {
        Ok(rules) => (rules, Ok(())),
        Err(refusal) => (&policy.defaults, Err(refusal)),
    };
    let is_proven =
        client.is_some_and(|client| client.is_proven(secret_is_valid, policy.asks_for_proof()));
    let mut judgement = Judgement {
        rules,
        client,
        is_proven,
        may_be_blamed: is_proven && may_be_banned(policy, client.as_ref()),
        verdict: Ok(()),
        observed: None,
        bot: None,
        spent: None,
        violation: None,
    };
    judgement.verdict = route_verdict
        .and_then(|()| check_secret(rules, head, secret_is_valid))
        .and_then(|()| match identity {
            Ok(_) => Ok(()),
            Err(bad) => Err(Refusal::new(Reason::BadClientIp, bad.why())),
        })
        .and_then(|()| judgement.check_conduct(ask, policy, known, head))
        .and_then(|()| {
            check_length(rules, head)
                .inspect_err(|_| judgement.violation = Some(Cause::BodyTooLarge))
        })
        .and_then(|()| check_signature_is_there(rules, head));
    judgement
}

impl Judgement<'_> {
    /// What the client has done so far, and whether it may go on: guards 4 to 7.
    fn check_conduct(
        &mut self,
        ask: Ask<'_>,
        policy: &Policy,
        known: Known<'_>,
        head: &Head<'_>,
    ) -> Result<(), Refusal> {
        let Err(refusal) = self.find_fault(ask, policy, known, head) else {
            return Ok(());
        };
        if self.rules.enforces {
            return Err(refusal);
        }
        self.observed = Some(refusal);
        Ok(())
    }

    fn find_fault(
        &mut self,
        ask: Ask<'_>,
        policy: &Policy,
        known: Known<'_>,
        head: &Head<'_>,
    ) -> Result<(), Refusal> {
        let who = self.client.map(|client| client.who);
        let mut seen = None;
        if let Some(Who::Known { ip, key }) = who {
            if self.is_proven && policy.protected.is_allowed(ip) {
                return Ok(());
            }
            if policy.denied.contains(ip) {
                return Err(Refusal::new(
                    Reason::Denied,
                    "the policy denies its network",
                ));
            }
            let seen = seen.insert(known.clients.see(key));
            let is_banned = known.clients.banned_until(seen, ip) > ticks(head.now_ns);
            if is_banned && policy.protected.why(ip).is_none() {
                return Err(Refusal::new(Reason::Banned, "a ban is in force"));
            }
        }
        if let Some(actions) = &self.rules.bots {
            let from = self.client.as_ref().and_then(Client::ip).map(|ip| From {
                ip,
                is_proven: self.is_proven,
            });
            self.bot = match ask {
                Ask::Again(Found {
                    bot: Some(told), ..
                }) => Some(bots::look_again(known.bots, actions, head, from, told)),
                Ask::InEarnest | Ask::AsIf { .. } | Ask::Again(Found { bot: None, .. }) => {
                    bots::look(known.bots, known.people, actions, head, from)
                }
            };
            if let Some(refusal) = self.bot.as_ref().and_then(Seen::refusal) {
                self.violation = Some(Cause::Bot);
                return Err(refusal);
            }
        }
        if self.rules.is_trap {
            self.violation = Some(Cause::Trap);
            return Err(Refusal::new(
                Reason::Trap,
                "nobody has a reason to ask for this",
            ));
        }
        if let Some(key) = self.payer() {
            let limits = self.rules.limits.as_slice();
            self.spent = match ask {
                Ask::InEarnest | Ask::Again(_) => {
                    let seen = seen.filter(|seen| seen.client() == key);
                    let seen = seen.unwrap_or_else(|| known.clients.see(key));
                    known.clients.spend(seen, limits, head.now_ns)
                }
                Ask::AsIf { .. } if limits.is_empty() => None,
                Ask::AsIf { .. } => Some(known.clients.look(key, limits, ticks(head.now_ns))),
            };
            if self.rules.limits.has_shared()
                && ask == Ask::InEarnest
                && let Some(spending) = known.spending
                && self.spent.is_some_and(|spent| spent.admitted)
                // Of what somebody only says to be, or many are together, other nodes know nothing.
                && self.is_proven
                && self.herd().is_none()
            {
                spending.note(key, limits, head.now_ns);
            }
            if let Some(spent) = &self.spent
                && !spent.admitted
            {
                let is_own = !spent.is_shared && self.herd().is_none();
                self.violation = is_own.then_some(Cause::RateLimited);
                return Err(Refusal::new(Reason::RateLimited, "over the limit"));
            }
        }
        Ok(())
    }

    /// Whose limits the request is charged to; none for nobody in particular.
    ///
    /// Hearsay has clocks of its own: whoever reaches the origin around the CDN could otherwise use
    /// up what another client may ask, and have that one blamed for asking more.
    pub(super) fn payer(&self) -> Option<ClientKey> {
        let own = || self.client.as_ref().and_then(Client::key);
        let key = self.herd().or_else(own)?;
        Some(if self.is_proven {
            key
        } else {
            key.by_hearsay()
        })
    }

    /// What the limits of all requests of this bot are kept under, if it is limited as one client.
    pub(super) fn herd(&self) -> Option<ClientKey> {
        self.bot.as_ref().and_then(Seen::herd)
    }
}

fn may_be_banned(policy: &Policy, client: Option<&Client>) -> bool {
    let ip = client.and_then(Client::ip);
    ip.is_some_and(|ip| policy.protected.why(ip).is_none())
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
        return Err(Refusal::new(Reason::BadRequest, DETOUR));
    }
    Ok(&route.value)
}

pub(super) fn holds_secret(policy: &Policy, head: &Head<'_>, client: Option<&Client>) -> bool {
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
        return Err(Refusal::new(Reason::BadSecret, SEVERAL_SECRETS));
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
