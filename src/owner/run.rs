//! The owner's thread: hears, counts, decides, publishes, sweeps.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::Receiver,
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use indexmap::IndexMap;

use super::{
    BanPolicy,
    act::{Act, Acts, Answer, Asked, Done, NotDone, Standing, page},
    ban::{Ban, Target},
    book::{Book, Full, Now},
    facts::{Cause, Facts, Violation},
    memory::{Change, Memory, Publish, Receipt, Told},
    others::{OtherNumbers, Seat},
    tally::Tally,
};
use crate::{
    base::{abort::AbortOnPanic, clock::Clock},
    client::ClientKey,
    limit::{Clients, Keeper, ticks},
};

/// How long the owner sleeps when nothing wakes it. First sights do not: their clients are served
/// from the cold lane meanwhile.
const NAP: Duration = Duration::from_millis(10);

/// Violations heard before anything else gets a turn.
const HEARD: usize = 4096;

/// Clients whose points are counted at once. Those of more are counted as untallied.
const TALLIES_MAX: usize = 100_000;

/// Tallies looked at in one go.
const SLICE: usize = 1024;

/// What the owner counts. Written by the owner alone; relaxed, since each number stands for itself.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Violations heard, in the order of [`Cause::ALL`].
    pub violations: [AtomicU64; Cause::ALL.len()],
    /// Bans that began.
    pub began: AtomicU64,
    /// Bans that would have begun, had the policy been enforced.
    pub observed: AtomicU64,
    /// Bans that came to their end.
    pub expired: AtomicU64,
    /// Bans that were lifted.
    pub lifted: AtomicU64,
    /// Bans for which the book had no room.
    pub refused: AtomicU64,
    /// Violations of more clients than are tallied at once.
    pub untallied: AtomicU64,
    /// Changes that found no room where they are told; they are told again.
    pub deferred: AtomicU64,
    /// Clients and networks whose last change is not told yet.
    pub untold: AtomicU64,
    /// Bans in force.
    pub active: AtomicU64,
    /// Clients whose points are being counted.
    pub tallies: AtomicU64,
    /// The owner's last turn, in milliseconds of the monotonic clock.
    pub beat_ms: AtomicU64,
    /// What other nodes decide.
    pub others: OtherNumbers,
}

pub(super) fn count(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

/// One client's points: those that were enforced, and those that were only observed.
#[derive(Debug, Default)]
pub(super) struct Points {
    enforced: Tally,
    observed: Tally,
}

/// The one who decides about bans.
pub struct Owner {
    pub(super) keeper: Keeper,
    policy: Arc<ArcSwap<BanPolicy>>,
    pub(super) clock: Clock,
    facts: Arc<Facts>,
    asked: Receiver<Asked>,
    publisher: Box<dyn Publish>,
    pub(super) numbers: Arc<Numbers>,
    pub(super) points: IndexMap<ClientKey, Points>,
    next: usize,
    pub(super) book: Book,
    /// What would be banned, were everything enforced. Never enforced itself.
    would_be: Book,
    /// This node's place among others, where there are any.
    pub(super) seat: Option<Seat>,
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner")
            .field("book", &self.book)
            .finish_non_exhaustive()
    }
}

impl Owner {
    /// An owner of `keeper`'s table with `bans_max` bans, and the queues that lead to it.
    pub fn new(
        keeper: Keeper,
        bans_max: usize,
        policy: Arc<ArcSwap<BanPolicy>>,
        clock: Clock,
        publisher: Box<dyn Publish>,
    ) -> (Self, Acts) {
        let facts = Arc::<Facts>::default();
        let (acts, asked) = Acts::pair(&facts, publisher.trouble());
        let owner = Self {
            keeper,
            policy,
            clock,
            facts,
            asked,
            publisher,
            numbers: Arc::default(),
            points: IndexMap::new(),
            next: 0,
            book: Book::new(bans_max),
            would_be: Book::new(bans_max),
            seat: None,
        };
        (owner, acts)
    }

    /// The table of clients, which this owner writes.
    pub fn clients(&self) -> &Arc<Clients> {
        self.keeper.clients()
    }

    /// Where workers tell what they saw.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// What the owner counts.
    pub fn numbers(&self) -> &Arc<Numbers> {
        &self.numbers
    }

    /// All that is remembered of a target.
    pub fn memory(&self, target: &Target) -> Option<Memory> {
        self.book.memory(target)
    }

    /// Takes back what the log remembers. For the time before the first request.
    pub fn restore(&mut self) -> Restoring<'_> {
        let now = Now::of(&self.clock);
        Restoring { owner: self, now }
    }

    /// Works on a thread of its own until `ended`.
    ///
    /// A panic there aborts the process: without its owner Wardent would go on serving and never ban
    /// again, and nobody would notice.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(mut self, ended: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("owner".to_owned())
            .spawn(move || {
                let _abort = AbortOnPanic("owner");
                self.facts.is_heard_here();
                while !ended.load(Ordering::Relaxed) {
                    if !self.turn() {
                        let sights = Arc::clone(self.keeper.clients());
                        self.facts.nap(NAP, || sights.has_sights());
                    }
                }
            })
    }

    /// One turn; says whether there may be more to do at once.
    pub fn turn(&mut self) -> bool {
        let has_heard = self.listen();
        let policy = self.policy.load_full();
        let now_ns = self.clock.monotonic_ns();
        self.sweep(&policy, now_ns);
        self.numbers
            .beat_ms
            .store(now_ns / 1_000_000, Ordering::Relaxed);
        has_heard
    }

    /// A turn without its housekeeping: hears what waits, does what is asked, makes cells for who is new.
    pub fn listen(&mut self) -> bool {
        let policy = self.policy.load_full();
        let mut heard = 0;
        while heard < HEARD
            && let Some(violation) = self.facts.next()
        {
            self.hear(violation, &policy);
            heard += 1;
        }
        while let Ok((act, answer)) = self.asked.try_recv() {
            self.act(act, answer, &policy);
            heard += 1;
        }
        let sights = self.keeper.take_sights(self.clock.monotonic_ns());
        heard + sights > 0
    }

    fn hear(&mut self, violation: Violation, policy: &BanPolicy) {
        if let Some(number) = self.numbers.violations.get(violation.cause as usize) {
            count(number);
        }
        let now_ns = self.clock.monotonic_ns();
        let target = Target::Client(violation.client);
        let book = if violation.enforced {
            &self.book
        } else {
            &self.would_be
        };
        let is_settled = violation.points == 0
            || book.get(&target, now_ns).is_some()
            || self.book.has_grace(&target, now_ns);
        if is_settled {
            return;
        }
        if self.points.len() >= TALLIES_MAX && !self.points.contains_key(&violation.client) {
            count(&self.numbers.untallied);
            return;
        }
        let points = self.points.entry(violation.client).or_default();
        let tally = if violation.enforced {
            &mut points.enforced
        } else {
            &mut points.observed
        };
        let window_ms = millis(policy.window);
        if tally.add(violation, now_ns / 1_000_000, window_ms) < policy.threshold.into() {
            return;
        }
        let evidence = std::mem::take(tally).into_evidence();
        let book = if violation.enforced {
            &mut self.book
        } else {
            &mut self.would_be
        };
        let before = book.memory(&target);
        let result = book.ban_for(target, evidence, policy, &self.clock);
        // One that the book has no room for is counted, and nobody waits for it.
        if let Ok(ban) = self.begin(result) {
            self.tell_begin(ban, before, None);
        }
    }

    /// Puts a ban in force that the book has taken.
    fn begin(&mut self, result: Result<Ban, Full>) -> Result<Ban, Full> {
        let Ok(mut ban) = result else {
            count(&self.numbers.refused);
            return result;
        };
        if ban.enforced {
            ban.stamp = self.sign(&ban.target);
            self.enforce(&ban.target, ban.until_ns);
            count(&self.numbers.began);
        } else {
            count(&self.numbers.observed);
        }
        Ok(ban)
    }

    fn tell_begin(&mut self, ban: Ban, before: Option<Memory>, receipt: Option<Receipt>) {
        let book = if ban.enforced {
            &self.book
        } else {
            &self.would_be
        };
        let told = Told {
            unix_ms: ban.since_unix_ms,
            change: Change::Began,
            target: ban.target,
            enforced: ban.enforced,
            before,
            after: book.memory(&ban.target),
            evidence: ban.evidence,
            receipt,
            elsewhere: None,
        };
        self.tell(told);
    }

    /// Tells a change; one that finds no room is told again by the sweep, if it holds.
    pub(super) fn tell(&mut self, told: Told) {
        let (target, enforced) = (told.target, told.enforced);
        let refused = self.publisher.tell(Box::new(told)).err();
        let is_told = refused.is_none();
        if let Some(told) = refused {
            count(&self.numbers.deferred);
            if let Some(receipt) = told.receipt {
                receipt.not_kept("too many changes wait to be written already");
            }
        }
        let book = match enforced {
            true => &mut self.book,
            false => &mut self.would_be,
        };
        book.set_told(&target, is_told);
    }

    /// Sets the end of a ban where the workers see it.
    pub(super) fn enforce(&mut self, target: &Target, until_ns: u64) {
        match target {
            Target::Client(client) => {
                let now_ns = self.clock.monotonic_ns();
                // Up to the next tick: a ban is never shorter than decided.
                self.keeper
                    .ban_until(*client, ticks(until_ns).saturating_add(1), now_ns);
            }
            Target::Network(_) => self.enforce_networks(),
        }
    }

    pub(super) fn enforce_networks(&mut self) {
        let now_ns = self.clock.monotonic_ns();
        let networks = self.book.bans(now_ns).filter_map(|ban| match ban.target {
            Target::Network(network) => Some((network, ticks(ban.until_ns).saturating_add(1))),
            Target::Client(_) => None,
        });
        self.keeper.ban_networks(networks.collect());
    }

    /// Does what an operator wants. What changes something is answered when it is on disk.
    fn act(&mut self, act: Act, answer: Answer, policy: &BanPolicy) {
        let now_ns = self.clock.monotonic_ns();
        let result = match act {
            Act::Ban {
                target,
                duration,
                why,
                actor,
            } => {
                let network = target.network();
                if let Some(because) = policy.protected.why(network.addr())
                    && matches!(target, Target::Client(_))
                {
                    Err(NotDone::Protected { target, because })
                } else {
                    let before = self.book.memory(&target);
                    let result = self.book.ban_by(&actor, target, duration, why, &self.clock);
                    match self.begin(result) {
                        Ok(ban) => {
                            let receipt = Receipt::new(answer, Ok(Done::Banned(ban.clone())));
                            return self.tell_begin(ban, before, Some(receipt));
                        }
                        Err(Full) => Err(NotDone::Full),
                    }
                }
            }
            Act::Unban {
                target,
                grace,
                actor,
            } => return self.unban(target, grace, &actor, answer),
            Act::Show(target) => self
                .book
                .get(&target, now_ns)
                .or_else(|| self.book.around(&target, now_ns))
                .or_else(|| self.would_be.get(&target, now_ns))
                .cloned()
                .map(Done::Shown)
                .ok_or_else(|| self.not_banned(target, now_ns)),
            Act::List { after, count } => {
                Ok(Done::Listed(page(self.book.bans(now_ns), after, count)))
            }
            Act::Weigh(client) => Ok(Done::Weighed(self.weigh(client, policy, now_ns))),
            Act::Hear {
                decisions,
                part,
                spent,
            } => {
                self.hear_spent(&spent);
                Ok(Done::Heard(self.hear_others(decisions, part, policy)))
            }
        };
        answer.give(result);
    }

    fn unban(&mut self, target: Target, grace: Duration, actor: &str, answer: Answer) {
        let now = Now::of(&self.clock);
        if let Target::Client(client) = target {
            self.points.swap_remove(&client);
        }
        // One whose time is over is not lifted.
        if let Some(expired) = self.book.settle(&target, now) {
            self.expired(expired);
        }
        let before = self.book.memory(&target);
        let lifted = self.book.lift(&target, grace, actor, &self.clock);
        let change = match lifted {
            Some(_) => Change::Lifted,
            None => Change::Spared,
        };
        let result = match lifted {
            Some(ban) => {
                match target {
                    Target::Client(client) => self.keeper.ban_until(client, 0, now.ns),
                    Target::Network(_) => self.enforce_networks(),
                }
                count(&self.numbers.lifted);
                Ok(Done::Lifted(ban))
            }
            None if grace.is_zero() => Err(self.not_banned(target, now.ns)),
            None => {
                let spared = self.book.spare(target, grace, actor, &self.clock);
                spared.map(|()| Done::Spared).map_err(|Full| NotDone::Full)
            }
        };
        if before == self.book.memory(&target) {
            return answer.give(result);
        }
        self.sign(&target);
        let after = self.book.memory(&target);
        self.tell(Told {
            unix_ms: now.unix_ms,
            change,
            target,
            enforced: true,
            before,
            after,
            evidence: Vec::new(),
            receipt: Some(Receipt::new(answer, result)),
            elsewhere: None,
        });
    }

    fn expired(&mut self, told: Told) {
        count(&self.numbers.expired);
        self.tell(told);
    }

    fn not_banned(&self, target: Target, now_ns: u64) -> NotDone {
        let network = self.book.around(&target, now_ns);
        NotDone::NotBanned {
            target,
            network: network.map(|ban| ban.target),
        }
    }

    fn weigh(&mut self, client: ClientKey, policy: &BanPolicy, now_ns: u64) -> Standing {
        let then_ms = (now_ns / 1_000_000).saturating_sub(millis(policy.window));
        let mut points = self.points.get_mut(&client);
        if let Some(points) = &mut points {
            points.enforced.forget_before(then_ms);
            points.observed.forget_before(then_ms);
        }
        let target = Target::Client(client);
        Standing {
            points: points.as_ref().map_or(0, |points| points.enforced.points()),
            points_observed: points.as_ref().map_or(0, |points| points.observed.points()),
            threshold: policy.threshold,
            level: self.book.level(&target, policy, now_ns),
            has_grace: self.book.has_grace(&target, now_ns),
        }
    }

    /// Housekeeping, a slice at a time.
    fn sweep(&mut self, policy: &BanPolicy, now_ns: u64) {
        self.keeper.sweep(now_ns);
        let had_networks = self.book.has_networks();
        let now = Now {
            ns: now_ns,
            unix_ms: self.clock.unix_ms(),
        };
        for told in self.book.sweep(policy, now, self.publisher.room()) {
            // What is told once more has been counted.
            if told.change == Change::Expired && told.before.is_some() {
                self.expired(told);
            } else {
                self.tell(told);
            }
        }
        if had_networks && !self.book.has_networks() {
            self.enforce_networks();
        }
        // Of what would be banned only the beginning is told, later where there was no room.
        let mut room = self.publisher.room();
        for told in self.would_be.sweep(policy, now, usize::MAX) {
            if told.change == Change::Began && room > 0 {
                room -= 1;
                self.tell(told);
            }
        }
        let then_ms = (now_ns / 1_000_000).saturating_sub(millis(policy.window));
        for _ in 0..SLICE.min(self.points.len()) {
            if self.next >= self.points.len() {
                self.next = 0;
            }
            let Some((_, points)) = self.points.get_index_mut(self.next) else {
                break;
            };
            points.enforced.forget_before(then_ms);
            points.observed.forget_before(then_ms);
            if points.enforced.is_empty() && points.observed.is_empty() {
                self.points.swap_remove_index(self.next);
            } else {
                self.next += 1;
            }
        }
        self.tell_clock(now);
        let numbers = &self.numbers;
        numbers
            .active
            .store(self.book.active() as u64, Ordering::Relaxed);
        numbers
            .untold
            .store(self.book.untold() as u64, Ordering::Relaxed);
        numbers
            .tallies
            .store(self.points.len() as u64, Ordering::Relaxed);
    }
}

/// The way of bans back from the log, record by record in the log's order.
#[derive(Debug)]
pub struct Restoring<'a> {
    owner: &'a mut Owner,
    now: Now,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Bans in force.
    pub bans: usize,
    /// Clients and networks of whom something is remembered, those with a ban included.
    pub remembered: usize,
    /// Clients and networks for whom the book had no room.
    pub left_out: usize,
}

impl Restoring<'_> {
    /// Makes ready for so many records.
    pub fn expect(&mut self, records: usize) {
        self.owner.book.reserve(records);
    }

    /// What was remembered of a target at `told_unix_ms`; it replaces what came before.
    pub fn remember(&mut self, target: Target, mut memory: Memory, told_unix_ms: u64) {
        self.owner.resume(&mut memory, told_unix_ms);
        self.owner
            .book
            .restore(target, memory, told_unix_ms, self.now);
    }

    /// Nothing is remembered of a target.
    pub fn forget(&mut self, target: &Target) {
        self.owner.book.forget(target);
    }

    /// Puts the bans in force that have time left. Others expire with the first sweeps.
    pub fn finish(self) -> Restored {
        let Self { owner, now } = self;
        let left_out = owner.book.trim(now.ns);
        let mut bans = 0;
        for ban in owner.book.bans(now.ns) {
            bans += 1;
            if let Target::Client(client) = ban.target {
                let until = ticks(ban.until_ns).saturating_add(1);
                owner.keeper.ban_until(client, until, now.ns);
            }
        }
        owner.enforce_networks();
        Restored {
            bans,
            remembered: owner.book.len(),
            left_out,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
