//! What a replay found: counted while it runs, told when it has ended.

use std::collections::{HashMap, hash_map::Entry};

use foldhash::fast::RandomState;
use ipnet::IpNet;
use serde::Serialize;

use super::{
    Fate,
    engine::{Ban, Judged},
    reader::Reading,
    record::{Recorded, Shown, hash_of},
};
use crate::{
    client::{Client, ClientKey},
    event::time::Stamps,
    guard::verdict::Reason,
};

/// Clients that are counted one by one; more are counted as requests alone.
const CLIENTS_MAX: usize = 1_000_000;

/// Examples of one change, each of another client.
const EXAMPLES: usize = 3;

/// Clients and bans that are told.
const TOLD_MAX: usize = 20;

/// Requests of one ban that are told.
const REQUESTS_MAX: usize = 5;

/// How the candidate differs from the policy in force about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It would newly be refused.
    Refused,
    /// It would be let in.
    LetIn,
    /// It would be refused, were its route enforced: that is new.
    Observed,
    /// It would no longer be observed as one to refuse.
    Unobserved,
    /// It would be refused either way, now for another reason.
    OtherReason,
}

impl Kind {
    /// How two fates differ, for which reason; none where they do not.
    fn between(current: Fate, candidate: Fate) -> Option<(Self, Reason)> {
        match (current, candidate) {
            (Fate::Refused(before), Fate::Refused(reason)) if before == reason => None,
            (Fate::Refused(_), Fate::Refused(reason)) => Some((Self::OtherReason, reason)),
            (Fate::Passes | Fate::WouldBeRefused(_), Fate::Refused(reason)) => {
                Some((Self::Refused, reason))
            }
            (Fate::Refused(reason), Fate::Passes | Fate::WouldBeRefused(_)) => {
                Some((Self::LetIn, reason))
            }
            (Fate::WouldBeRefused(before), Fate::WouldBeRefused(reason)) if before == reason => {
                None
            }
            (Fate::Passes | Fate::WouldBeRefused(_), Fate::WouldBeRefused(reason)) => {
                Some((Self::Observed, reason))
            }
            (Fate::WouldBeRefused(reason), Fate::Passes) => Some((Self::Unobserved, reason)),
            (Fate::Passes, Fate::Passes) => None,
        }
    }
}

/// How many requests of one outcome there were, and would have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Total {
    /// `passed`, `observed` or `refused`.
    pub outcome: &'static str,
    /// Why, where there is a why.
    pub reason: Option<&'static str>,
    /// What happened.
    pub happened: u64,
    /// With the policy in force.
    pub current: u64,
    /// With the candidate.
    pub candidate: u64,
}

/// One way in which the candidate differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// How.
    pub change: Kind,
    /// For which reason.
    pub reason: &'static str,
    /// On which route.
    pub route: String,
    /// Requests.
    pub requests: u64,
    /// Clients that they are of.
    pub clients: u64,
    /// How many of the requests the application has served: with a status below 400.
    pub served: u64,
    /// Other requests of the same clients that the application has served.
    pub served_otherwise: u64,
    /// When the first came: RFC 3339.
    pub first: String,
    /// When the last came.
    pub last: String,
    /// Some of them, each of another client.
    pub examples: Vec<Example>,
}

/// One request, to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// Its id, for `wardent explain`.
    pub id: String,
    /// When it came.
    pub time: String,
    /// Whose it was; none for nobody's in particular.
    pub client: Option<String>,
    /// The method. As the client wrote it, as is the path.
    pub method: String,
    /// The path.
    pub path: String,
    /// What it was answered with.
    pub status: u16,
}

/// A client whose requests would fare otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PerClient {
    /// Who.
    pub client: String,
    /// Its requests.
    pub requests: u64,
    /// How many of them the application has served.
    pub served: u64,
    /// How many would newly be refused.
    pub refused: u64,
    /// How many of these the application has served.
    pub refused_served: u64,
    /// How many would be let in.
    pub let_in: u64,
}

/// A ban that one policy decides and the other does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Banned {
    /// Who.
    pub client: String,
    /// Since when.
    pub since: String,
    /// Until when.
    pub until: String,
    /// The last violation.
    pub why: String,
    /// Whether it would hold, or only be observed.
    pub enforced: bool,
    /// Bans of this client.
    pub times: u64,
    /// Requests of this client that the application has served.
    pub served: u64,
    /// The last requests that led to the first of them.
    pub requests: Vec<String>,
}

/// What the record cannot tell, and was taken as it was found then: how many requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// Refused then and let in now: what the application would have answered, and how long the body is.
    pub answer: u64,
    /// Refused then for their length: it is not recorded, and they are refused again.
    pub length: u64,
    /// Refused then by a ban that began before, or that an operator made.
    pub earlier_ban: u64,
    /// The candidate asks for a secret where the record does not show whether there was one.
    pub secret: u64,
    /// The candidate asks for a signature where none was asked for.
    pub signature: u64,
    /// Bots whose word the candidate asks to be proved, which takes the DNS.
    pub bot: u64,
}

/// All that a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether all was replayed that there is, and nobody ended it early.
    pub complete: bool,
    /// When the first request came; none where there was none.
    pub first: Option<String>,
    /// When the last came.
    pub last: Option<String>,
    /// Requests that are told of.
    pub requests: u64,
    /// Clients that they are of.
    pub clients: u64,
    /// What became of them, and would.
    pub totals: Vec<Total>,
    /// Requests of which the policy in force says otherwise than what happened: another one was in force, or
    /// it is [`Unknown`].
    pub otherwise_then: u64,
    /// Bans that began with the policy in force.
    pub bans_current: u64,
    /// Bans that began with the candidate.
    pub bans_candidate: u64,
    /// How the candidate differs, what matters most first.
    pub changes: Vec<Change>,
    /// The clients that it would concern most.
    pub most_concerned: Vec<PerClient>,
    /// Clients that would newly be banned: how many.
    pub newly_banned: u64,
    /// The first of them.
    pub newly_banned_first: Vec<Banned>,
    /// Clients that would no longer be banned: how many.
    pub no_longer_banned: u64,
    /// The first of them.
    pub no_longer_banned_first: Vec<Banned>,
    /// What the record cannot tell.
    pub unknown: Unknown,
    /// What was read.
    pub read: Reading,
}

/// Counts for one of three: what happened, the policy in force, the candidate.
#[derive(Debug, Clone, Copy, Default)]
struct Fates {
    passed: u64,
    observed: [u64; Reason::ALL.len()],
    refused: [u64; Reason::ALL.len()],
}

impl Fates {
    fn add(&mut self, fate: Fate) {
        let count = match fate {
            Fate::Passes => Some(&mut self.passed),
            Fate::WouldBeRefused(reason) => self.observed.get_mut(reason as usize),
            Fate::Refused(reason) => self.refused.get_mut(reason as usize),
        };
        if let Some(count) = count {
            *count += 1;
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    requests: u32,
    served: u32,
    refused: u32,
    refused_served: u32,
    let_in: u32,
}

#[derive(Debug, Default)]
struct Group {
    requests: u64,
    served: u64,
    first_ms: u64,
    last_ms: u64,
    clients: HashMap<ClientKey, u32, RandomState>,
    examples: Vec<Example>,
}

#[derive(Debug, Default)]
struct Bans {
    count: u64,
    /// How many, and the first of them, one that holds before one that is only observed.
    by_client: HashMap<ClientKey, (u64, Ban), RandomState>,
}

/// What is counted while a replay runs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) reading: Reading,
    requests: u64,
    otherwise_then: u64,
    first_ms: Option<u64>,
    last_ms: u64,
    happened: Fates,
    current: Fates,
    candidate: Fates,
    clients: HashMap<ClientKey, Counts, RandomState>,
    /// What events show of clients that are hashed.
    hashes: HashMap<ClientKey, String>,
    changes: HashMap<(Kind, Reason), HashMap<Box<str>, Group>>,
    bans_current: Bans,
    bans_candidate: Bans,
    unknown: Unknown,
    stamps: Stamps,
}

impl Tally {
    /// Takes note of one request and what both policies say of it.
    pub(super) fn add(&mut self, request: &Recorded, current: &Judged<'_>, candidate: &Judged<'_>) {
        self.requests += 1;
        self.otherwise_then += u64::from(request.then != current.fate);
        self.first_ms.get_or_insert(request.unix_ms);
        self.last_ms = self.last_ms.max(request.unix_ms);
        self.happened.add(request.then);
        self.current.add(current.fate);
        self.candidate.add(candidate.fate);
        let client = candidate.client.as_ref().and_then(Client::key);
        let change = Kind::between(current.fate, candidate.fate);
        let refused = u32::from(matches!(change, Some((Kind::Refused, _))));
        let let_in = u32::from(matches!(change, Some((Kind::LetIn, _))));
        let served = u32::from(request.is_served);
        if let Some(client) = client
            && (self.clients.len() < CLIENTS_MAX || self.clients.contains_key(&client))
        {
            let counts = self.clients.entry(client).or_default();
            if counts.requests == 0
                && let Shown::Hashed(ip) = request.client
                && let Some(hash) = hash_of(ip)
            {
                self.hashes.insert(client, hash);
            }
            counts.requests = counts.requests.saturating_add(1);
            counts.served = counts.served.saturating_add(served);
            counts.refused = counts.refused.saturating_add(refused);
            counts.refused_served = counts.refused_served.saturating_add(refused * served);
            counts.let_in = counts.let_in.saturating_add(let_in);
        }
        if let Some((kind, reason)) = change {
            let rules = match kind {
                Kind::LetIn | Kind::Unobserved => current.rules,
                Kind::Refused | Kind::Observed | Kind::OtherReason => candidate.rules,
            };
            let route = rules.map_or("", |rules| rules.route.as_str());
            self.note(request, client, (kind, reason), route);
        }
        self.note_unknown(request, current, candidate);
    }

    fn note(
        &mut self,
        request: &Recorded,
        client: Option<ClientKey>,
        change: (Kind, Reason),
        route: &str,
    ) {
        let groups = self.changes.entry(change).or_default();
        if !groups.contains_key(route) {
            groups.insert(route.into(), Group::default());
        }
        let client_name = client.map(|client| name(&self.hashes, client));
        let Some(group) = groups.get_mut(route) else {
            return;
        };
        if group.requests == 0 {
            group.first_ms = request.unix_ms;
        }
        group.requests += 1;
        group.served += u64::from(request.is_served);
        group.last_ms = group.last_ms.max(request.unix_ms);
        let mut is_new = group.examples.is_empty();
        if let Some(client) = client
            && (group.clients.len() < CLIENTS_MAX || group.clients.contains_key(&client))
        {
            let served = group.clients.entry(client).or_insert_with(|| {
                is_new = true;
                0
            });
            *served = served.saturating_add(u32::from(request.is_served));
        }
        if is_new && group.examples.len() < EXAMPLES {
            let text = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect();
            group.examples.push(Example {
                id: String::from_utf8_lossy(request.id.as_bytes()).into_owned(),
                time: rfc3339(&self.stamps, request.unix_ms),
                client: client_name,
                method: text(request.method()),
                path: text(request.path()),
                status: request.status,
            });
        }
    }

    fn note_unknown(&mut self, request: &Recorded, current: &Judged<'_>, candidate: &Judged<'_>) {
        let unknown = &mut self.unknown;
        let was = |reason| request.then == Fate::Refused(reason);
        let (Some(now), Some(then)) = (candidate.rules, current.rules) else {
            return;
        };
        unknown.answer += u64::from(!request.then.passes() && candidate.fate.passes());
        unknown.length += u64::from(
            was(Reason::BodyTooLarge) && candidate.fate == Fate::Refused(Reason::BodyTooLarge),
        );
        let is_banned = current.fate == Fate::Refused(Reason::Banned);
        unknown.earlier_ban += u64::from(was(Reason::Banned) && !is_banned);
        let is_asked_newly = now.needs_secret && !then.needs_secret;
        unknown.secret += u64::from(is_asked_newly && candidate.secret_is_assumed);
        let is_signed_newly = now.signature.is_some() && then.signature.is_none();
        unknown.signature += u64::from(is_signed_newly);
        unknown.bot += u64::from(candidate.is_unproved_bot);
    }

    /// Takes note of bans that began.
    pub(super) fn bans(
        &mut self,
        current: impl Iterator<Item = Ban>,
        candidate: impl Iterator<Item = Ban>,
        of: Option<IpNet>,
    ) {
        let is_of = |ban: &Ban| of.is_none_or(|of| of.contains(&ban.client.address()));
        for ban in current.filter(is_of) {
            self.bans_current.add(ban);
        }
        for ban in candidate.filter(is_of) {
            self.bans_candidate.add(ban);
        }
    }

    /// All that was found.
    pub(super) fn report(self, complete: bool) -> Report {
        let time = |unix_ms| rfc3339(&self.stamps, unix_ms);
        let (newly_banned, newly_banned_first) =
            self.banned(&self.bans_candidate, &self.bans_current);
        let (no_longer_banned, no_longer_banned_first) =
            self.banned(&self.bans_current, &self.bans_candidate);
        Report {
            complete,
            first: self.first_ms.map(time),
            last: self.first_ms.map(|_| time(self.last_ms)),
            requests: self.requests,
            clients: self.clients.len() as u64,
            totals: self.totals(),
            otherwise_then: self.otherwise_then,
            bans_current: self.bans_current.count,
            bans_candidate: self.bans_candidate.count,
            changes: self.told_changes(),
            most_concerned: self.most_concerned(),
            newly_banned,
            newly_banned_first,
            no_longer_banned,
            no_longer_banned_first,
            unknown: self.unknown,
            read: self.reading,
        }
    }

    fn totals(&self) -> Vec<Total> {
        let three = [&self.happened, &self.current, &self.candidate];
        let row = |outcome, reason: Option<Reason>, of: &dyn Fn(&Fates) -> u64| {
            let [happened, current, candidate] = three.map(of);
            Total {
                outcome,
                reason: reason.map(Reason::name),
                happened,
                current,
                candidate,
            }
        };
        let mut totals = vec![row("passed", None, &|fates| fates.passed)];
        for reason in Reason::ALL {
            let of = |counts: &[u64]| counts.get(reason as usize).copied().unwrap_or(0);
            totals.push(row("observed", Some(reason), &|fates| of(&fates.observed)));
            totals.push(row("refused", Some(reason), &|fates| of(&fates.refused)));
        }
        totals.retain(|row| row.reason.is_none() || row.happened + row.current + row.candidate > 0);
        totals.sort_by_key(|row| (row.outcome == "refused", row.outcome == "observed"));
        totals
    }

    fn told_changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (&(change, reason), groups) in &self.changes {
            for (route, group) in groups {
                let served_in_all = group.clients.iter().map(|(client, own)| {
                    let all = self.clients.get(client).map_or(0, |counts| counts.served);
                    u64::from(all.saturating_sub(*own))
                });
                changes.push(Change {
                    change,
                    reason: reason.name(),
                    route: route.to_string(),
                    requests: group.requests,
                    clients: group.clients.len() as u64,
                    served: group.served,
                    served_otherwise: served_in_all.sum(),
                    first: rfc3339(&self.stamps, group.first_ms),
                    last: rfc3339(&self.stamps, group.last_ms),
                    examples: group.examples.clone(),
                });
            }
        }
        changes.sort_by(|a, b| {
            let place = |of: &Change| (of.change, u64::MAX - of.requests);
            place(a)
                .cmp(&place(b))
                .then_with(|| (a.reason, &a.route).cmp(&(b.reason, &b.route)))
        });
        changes
    }

    fn most_concerned(&self) -> Vec<PerClient> {
        let mut concerned: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, counts)| counts.refused + counts.let_in > 0)
            .collect();
        // Whom the application serves, and who would be refused, comes first.
        concerned.sort_by_key(|(client, counts)| {
            let weight = (counts.refused_served, counts.refused, counts.let_in);
            (std::cmp::Reverse(weight), **client)
        });
        let told = concerned.into_iter().take(TOLD_MAX);
        told.map(|(client, counts)| PerClient {
            client: name(&self.hashes, *client),
            requests: counts.requests.into(),
            served: counts.served.into(),
            refused: counts.refused.into(),
            refused_served: counts.refused_served.into(),
            let_in: counts.let_in.into(),
        })
        .collect()
    }

    /// Clients that `own` bans and `other` does not, or only observes: how many, and the first of them.
    fn banned(&self, own: &Bans, other: &Bans) -> (u64, Vec<Banned>) {
        let is_as_banned = |client: &ClientKey, ban: &Ban| {
            let others = other.by_client.get(client);
            others.is_some_and(|(_, others)| others.enforced || !ban.enforced)
        };
        let mut only: Vec<_> = own
            .by_client
            .iter()
            .filter(|(client, (_, ban))| !is_as_banned(client, ban))
            .collect();
        only.sort_by_key(|(client, (_, ban))| (ban.since_unix_ms, **client));
        let count = only.len() as u64;
        let told = only
            .into_iter()
            .take(TOLD_MAX)
            .map(|(client, (times, ban))| {
                let served = self.clients.get(client).map_or(0, |counts| counts.served);
                let last = ban.requests.iter().rev().take(REQUESTS_MAX).rev();
                Banned {
                    client: name(&self.hashes, *client),
                    since: rfc3339(&self.stamps, ban.since_unix_ms),
                    until: rfc3339(&self.stamps, ban.until_unix_ms),
                    why: ban.why.clone(),
                    enforced: ban.enforced,
                    times: *times,
                    served: served.into(),
                    requests: last
                        .map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned())
                        .collect(),
                }
            });
        (count, told.collect())
    }
}

impl Bans {
    fn add(&mut self, ban: Ban) {
        self.count += 1;
        if self.by_client.len() >= CLIENTS_MAX && !self.by_client.contains_key(&ban.client) {
            return;
        }
        match self.by_client.entry(ban.client) {
            Entry::Vacant(entry) => {
                entry.insert((1, ban));
            }
            Entry::Occupied(mut entry) => {
                let (times, first) = entry.get_mut();
                *times += 1;
                if ban.enforced && !first.enforced {
                    *first = ban;
                }
            }
        }
    }
}

/// The client as its events show it.
fn name(hashes: &HashMap<ClientKey, String>, client: ClientKey) -> String {
    let hash = hashes.get(&client);
    hash.map_or_else(|| client.to_string(), String::clone)
}

fn rfc3339(stamps: &Stamps, unix_ms: u64) -> String {
    let mut text = Vec::new();
    stamps.write_rfc3339(unix_ms, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
