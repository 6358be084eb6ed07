//! Wardent without its sockets: one policy, its table of clients and its owner of bans, at the time at which
//! each request came.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

use arc_swap::ArcSwap;

use super::{
    Fate,
    record::{Recorded, Shown},
};
use crate::{
    base::{clock::Clock, id::RequestId},
    bots::Standing,
    client::{Claim, Claims, Client, ClientKey},
    guard::{
        blame::Blame,
        bots::{Bots, People},
        chain::{Fields, Found, Head, Judgement, Known, judge_again},
        policy::{Policy, Rules},
        verdict::Reason,
    },
    limit::{Clients, Keeper},
    owner::{BanPolicy, Cause, Change, Owner, Publish, Target, Told, Trouble, Violation},
};

/// Requests from one housekeeping of the owner to the next. It changes no verdict, only what is remembered
/// without need.
const TURN_EVERY: u64 = 1_024;

/// Clients meet in the cold lane alike in both engines and in every replay of the same events.
const SEED: u64 = 0x7761_7264_656e_7431;

/// One policy, and the bounds of the Wardent that goes by it.
#[derive(Debug)]
pub struct Mind {
    /// The policy. Its secrets may be anything: none is looked at.
    pub policy: Policy,
    /// When and how long clients are banned.
    pub bans: BanPolicy,
    /// Clients that are remembered at once.
    pub clients_max: usize,
    /// Bans that are remembered at once.
    pub bans_max: usize,
}

/// A ban that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub client: ClientKey,
    /// Whether it held, or would have.
    pub enforced: bool,
    /// When, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Until when, likewise.
    pub until_unix_ms: u64,
    /// The how-manieth it is.
    pub level: u32,
    /// The last violation that led to it.
    pub why: String,
    /// The requests that led to it, oldest first.
    pub requests: Vec<RequestId>,
}

/// What an engine said of one request.
#[derive(Debug)]
pub struct Judged<'p> {
    /// What would have become of it.
    pub fate: Fate,
    /// The rules it was judged by; none where it was not.
    pub rules: Option<&'p Rules>,
    /// Whose it was.
    pub client: Option<Client>,
    /// Whether its bot's word was to be proved, and could not be.
    pub is_unproved_bot: bool,
    /// Whether it is only taken to have held a valid secret, since it was not refused.
    pub secret_is_assumed: bool,
}

/// A Wardent that judges what was.
pub struct Engine {
    policy: Arc<Policy>,
    owner: Owner,
    clients: Arc<Clients>,
    clock: Clock,
    /// What the application's answers will count for, the next first.
    due: BinaryHeap<Reverse<Due>>,
    /// An address of the edge, for events that do not show the one there was.
    edge: Option<String>,
    began: Receiver<Ban>,
    people: People,
    judged: u64,
    scratch: Vec<u8>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// A violation that is told when the application has answered.
#[derive(Debug)]
struct Due {
    unix_ms: u64,
    violation: Violation,
}

impl Due {
    fn place(&self) -> (u64, &[u8]) {
        (self.unix_ms, self.violation.request.as_bytes())
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

/// Where the owner tells what began; everything else is nobody's business here.
struct Herald(Sender<Ban>);

/// A record has no other fields than those that have a place of their own.
#[derive(Debug)]
struct NoFields;

impl Fields for NoFields {
    fn value(&self, _: &[u8], _: usize) -> Option<&[u8]> {
        None
    }
}

impl Engine {
    /// An engine whose time begins at `unix_ms`.
    pub fn new(mind: Mind, unix_ms: u64) -> Self {
        let clock = Clock::manual(unix_ms);
        // So that a moment which is past can be told from none.
        clock.advance_ms(1);
        clock.set_unix_ms(unix_ms);
        let keeper = Keeper::of(Clients::seeded(SEED), mind.clients_max);
        let clients = Arc::clone(keeper.clients());
        let (sender, began) = channel();
        let bans = Arc::new(ArcSwap::from_pointee(mind.bans));
        let (owner, _) = Owner::new(
            keeper,
            mind.bans_max,
            bans,
            clock.clone(),
            Box::new(Herald(sender)),
        );
        let edge = mind.policy.trust.edge.as_ref();
        let edge = edge.and_then(|edge| edge.networks.first());
        Self {
            edge: edge.map(|ip| ip.to_string()),
            policy: Arc::new(mind.policy),
            owner,
            clients,
            clock,
            due: BinaryHeap::new(),
            began,
            people: People::default(),
            judged: 0,
            scratch: Vec::new(),
        }
    }

    /// The policy.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Bans that began since this was asked last.
    pub fn began(&self) -> impl Iterator<Item = Ban> {
        self.began.try_iter()
    }

    /// Judges a request; one that came before the one judged last is judged at that one's time.
    ///
    /// Where the event does not show whose it was, or it was no request that a guard could judge, what
    /// became of it stays what it was.
    pub fn judge<'p>(&mut self, policy: &'p Policy, bots: &Bots, request: &Recorded) -> Judged<'p> {
        self.go_on_until(request.unix_ms);
        if !request.was_judged || request.client == Shown::Truncated {
            return Judged {
                fate: request.then,
                rules: None,
                client: None,
                is_unproved_bot: false,
                secret_is_assumed: false,
            };
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let known = Known {
            clients: &self.clients,
            bots,
            people: &self.people,
            spending: None,
        };
        let (head, found) = asked(
            policy,
            request,
            self.edge.as_deref(),
            self.clock.monotonic_ns(),
        );
        let secret_is_valid = found.secret_is_valid;
        let judgement = judge_again(policy, known, &head, found, &mut scratch);
        let fate = fate(&judgement, request);
        self.hold_against_its_client(&judgement, request, fate);
        self.scratch = scratch;
        self.judged += 1;
        if self.judged.is_multiple_of(TURN_EVERY) {
            self.owner.turn();
        } else if self.owner.facts().waiting() > 0 || self.clients.has_sights() {
            self.owner.listen();
        }
        let was_asked = request.bot().is_some_and(|told| told.standing.is_some());
        let standing = judgement.bot.and_then(|bot| bot.standing);
        Judged {
            fate,
            rules: Some(judgement.rules),
            client: judgement.client,
            secret_is_assumed: secret_is_valid && !shows_secret(policy, request),
            is_unproved_bot: standing == Some(Standing::Unknown) && !was_asked,
        }
    }

    /// Moves time on, and counts what the application's answers are worth that came meanwhile.
    fn go_on_until(&mut self, unix_ms: u64) {
        while let Some(Reverse(next)) = self.due.peek()
            && next.unix_ms <= unix_ms
            && let Some(Reverse(due)) = self.due.pop()
        {
            self.set_clock(due.unix_ms);
            self.owner.facts().tell(due.violation);
            self.owner.listen();
        }
        self.set_clock(unix_ms);
    }

    fn set_clock(&self, unix_ms: u64) {
        let passed = unix_ms.saturating_sub(self.clock.unix_ms());
        if passed > 0 {
            self.clock.advance_ms(passed);
        }
    }

    /// As the pipeline does it: what the guards found, and what the application's answer says.
    fn hold_against_its_client(
        &mut self,
        judgement: &Judgement<'_>,
        request: &Recorded,
        fate: Fate,
    ) {
        let blame = Blame {
            rules: judgement.rules,
            client: judgement.client,
            may_be_blamed: judgement.may_be_blamed,
            is_cross_site: request.is_cross_site,
            request: request.id,
            unix_ms: request.unix_ms,
            path: request.path(),
        };
        if let Some(cause) = judgement.violation
            && let Some(violation) = blame.violation(cause, self.policy.points.of(cause))
        {
            self.owner.facts().tell(violation);
        }
        let Some(answered_us) = request.answered_us.filter(|_| fate.passes()) else {
            return;
        };
        let points = judgement.rules.penalty(request.status);
        if let Some(violation) = blame.violation(Cause::Penalized, points) {
            let now_ms = self.clock.unix_ms();
            self.due.push(Reverse(Due {
                unix_ms: now_ms.saturating_add(answered_us / 1_000),
                violation,
            }));
        }
    }
}

/// What the guards are told of a request: what its head said, and what was found of it then.
fn asked<'a>(
    policy: &Policy,
    request: &'a Recorded,
    edge: Option<&'a str>,
    now_ns: u64,
) -> (Head<'a>, Found<'a>) {
    let was_refused_for = |reason| request.then == Fate::Refused(reason);
    let one = |text: &'a [u8]| match text {
        [] => Claim::Absent,
        text => Claim::One(text),
    };
    let identity = match request.client {
        // Whatever was wrong with it.
        _ if was_refused_for(Reason::BadClientIp) => Claim::Several,
        Shown::Nobody | Shown::Truncated => Claim::Absent,
        Shown::Whole(_) | Shown::Hashed(_) => one(request.client_text()),
    };
    let head = Head {
        peer: &request.peer,
        method: request.method(),
        target: request.path(),
        path: request.path(),
        host: b"",
        claims: Claims {
            identity,
            edge: one(match (request.client, edge) {
                (Shown::Hashed(_), Some(edge)) if request.is_proven => edge.as_bytes(),
                _ => request.edge_text(),
            }),
            connecting_ipv6: Claim::Absent,
        },
        secret: match request.has_several_secrets {
            true => Claim::Several,
            false => Claim::Absent,
        },
        signature: match was_refused_for(Reason::BadSignature) {
            true => Claim::Absent,
            false => Claim::One(b""),
        },
        user_agent: one(request.user_agent()),
        fields: &NoFields,
        content_length: match was_refused_for(Reason::BodyTooLarge) {
            true => Some(u64::MAX),
            false => request.body_bytes,
        },
        now_unix_s: request.unix_ms / 1_000,
        now_ns,
    };
    let found = Found {
        secret_is_valid: if was_refused_for(Reason::BadSecret) {
            false
        } else if is_named(policy, request) && !policy.keyring.is_empty() {
            request.is_proven
        } else {
            true
        },
        bot: request.bot(),
    };
    (head, found)
}

/// Whether a header named the client, so that the secret has to prove it, or the edge.
fn is_named(policy: &Policy, request: &Recorded) -> bool {
    let is_known = matches!(request.client, Shown::Whole(_) | Shown::Hashed(_));
    is_known && policy.trust.trusted.trusts(&request.peer)
}

/// Whether the event shows that the request held a valid secret: nothing else can have proven its client.
fn shows_secret(policy: &Policy, request: &Recorded) -> bool {
    let is_proof = !policy.keyring.is_empty() && policy.trust.edge.is_none();
    is_proof && request.is_proven && is_named(policy, request)
}

fn fate(judgement: &Judgement<'_>, request: &Recorded) -> Fate {
    match (judgement.verdict, judgement.observed) {
        (Err(refusal), _) => Fate::Refused(refusal.reason),
        (Ok(()), _) if request.is_broken => request.then,
        (Ok(()), Some(refusal)) => Fate::WouldBeRefused(refusal.reason),
        (Ok(()), None) => Fate::Passes,
    }
}

impl Publish for Herald {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn tell(&mut self, told: Box<Told>) -> Result<(), Box<Told>> {
        let (Change::Began, Target::Client(client), Some(after)) =
            (told.change, told.target, &told.after)
        else {
            return Ok(());
        };
        let ban = Ban {
            client,
            enforced: told.enforced,
            since_unix_ms: after.since_unix_ms,
            until_unix_ms: after.until_unix_ms,
            level: after.level,
            why: after.why.clone(),
            requests: told.evidence.iter().map(|seen| seen.request).collect(),
        };
        // Whoever asked has gone.
        let _ = self.0.send(ban);
        Ok(())
    }

    fn trouble(&self) -> Arc<Trouble> {
        Arc::default()
    }
}
