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
    act::{Act, Acts, Asked, Done, NotDone, Standing, page},
    book::{Ban, Book, Full, Target},
    facts::{Cause, Facts, Violation},
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

/// What happened to a ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It began.
    Began,
    /// It came to its end.
    Expired,
    /// Somebody lifted it.
    Lifted,
}

impl Change {
    /// The change's public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Began => "ban",
            Self::Expired => "expire",
            Self::Lifted => "unban",
        }
    }
}

/// Where changes of bans are told.
pub trait Publish: Send + 'static {
    /// Tells one change, without waiting. `actor` is who lifted it.
    fn tell(&mut self, change: Change, ban: &Ban, actor: Option<&str>);
}

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
    /// Bans in force.
    pub active: AtomicU64,
    /// Clients whose points are being counted.
    pub tallies: AtomicU64,
    /// The owner's last turn, in milliseconds of the monotonic clock.
    pub beat_ms: AtomicU64,
}

fn count(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

/// One client's points: those that were enforced, and those that were only observed.
#[derive(Debug, Default)]
struct Points {
    enforced: Tally,
    observed: Tally,
}

/// The one who decides about bans.
pub struct Owner {
    keeper: Keeper,
    policy: Arc<ArcSwap<BanPolicy>>,
    clock: Clock,
    facts: Arc<Facts>,
    asked: Receiver<Asked>,
    publisher: Box<dyn Publish>,
    numbers: Arc<Numbers>,
    points: IndexMap<ClientKey, Points>,
    next: usize,
    book: Book,
    /// What would be banned, were everything enforced. Never enforced itself.
    would_be: Book,
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
        let (acts, asked) = Acts::pair(&facts);
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
        let policy = self.policy.load_full();
        let mut heard = 0;
        while heard < HEARD
            && let Some(violation) = self.facts.next()
        {
            self.hear(violation, &policy);
            heard += 1;
        }
        while let Ok((act, answer)) = self.asked.try_recv() {
            // Who asked may have gone.
            let _ = answer.send(self.act(act, &policy));
            heard += 1;
        }
        let now_ns = self.clock.monotonic_ns();
        let sights = self.keeper.take_sights(now_ns);
        self.sweep(&policy, now_ns);
        self.numbers
            .beat_ms
            .store(now_ns / 1_000_000, Ordering::Relaxed);
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
        let result = book.ban_for(target, evidence, policy, &self.clock);
        self.begin(result);
    }

    /// Puts a ban in force that the book has taken.
    fn begin(&mut self, result: Result<Ban, Full>) -> Option<Ban> {
        let Ok(ban) = result else {
            count(&self.numbers.refused);
            return None;
        };
        if ban.enforced {
            self.enforce(&ban.target, ban.until_ns);
            count(&self.numbers.began);
        } else {
            count(&self.numbers.observed);
        }
        self.publisher.tell(Change::Began, &ban, None);
        Some(ban)
    }

    /// Sets the end of a ban where the workers see it.
    fn enforce(&mut self, target: &Target, until_ns: u64) {
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

    fn enforce_networks(&mut self) {
        let now_ns = self.clock.monotonic_ns();
        let networks = self.book.bans(now_ns).filter_map(|ban| match ban.target {
            Target::Network(network) => Some((network, ticks(ban.until_ns).saturating_add(1))),
            Target::Client(_) => None,
        });
        self.keeper.ban_networks(networks.collect());
    }

    fn act(&mut self, act: Act, policy: &BanPolicy) -> Result<Done, NotDone> {
        let now_ns = self.clock.monotonic_ns();
        match act {
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
                    return Err(NotDone::Protected { target, because });
                }
                let result = self.book.ban_by(&actor, target, duration, why, &self.clock);
                self.begin(result).map(Done::Banned).ok_or(NotDone::Full)
            }
            Act::Unban {
                target,
                grace,
                actor,
            } => {
                if let Target::Client(client) = target {
                    self.points.swap_remove(&client);
                }
                let lifted = self.book.lift(&target, grace, now_ns);
                let Some(ban) = lifted else {
                    return self.spare(target, grace, now_ns);
                };
                match target {
                    Target::Client(client) => self.keeper.ban_until(client, 0, now_ns),
                    Target::Network(_) => self.enforce_networks(),
                }
                count(&self.numbers.lifted);
                self.publisher.tell(Change::Lifted, &ban, Some(&actor));
                Ok(Done::Lifted(ban))
            }
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
        }
    }

    /// Keeps somebody free who is not banned.
    fn spare(&mut self, target: Target, grace: Duration, now_ns: u64) -> Result<Done, NotDone> {
        if grace.is_zero() {
            return Err(self.not_banned(target, now_ns));
        }
        self.book
            .spare(target, grace, now_ns)
            .map(|()| Done::Spared)
            .map_err(|Full| NotDone::Full)
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
        for ban in self.book.sweep(policy, now_ns) {
            count(&self.numbers.expired);
            self.publisher.tell(Change::Expired, &ban, None);
        }
        if had_networks && !self.book.has_networks() {
            self.enforce_networks();
        }
        self.would_be.sweep(policy, now_ns);
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
        let numbers = &self.numbers;
        numbers
            .active
            .store(self.book.active() as u64, Ordering::Relaxed);
        numbers
            .tallies
            .store(self.points.len() as u64, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
