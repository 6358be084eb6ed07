//! Whether a bot's address belongs to whom it names: by published networks, then by its host's name.
//!
//! The request path only looks: at a snapshot of the networks and at a snapshot of what the DNS has
//! answered so far. What is not known yet is asked for, off the path, through a bounded queue. One
//! task asks, and alone writes the answers.
//!
//! A host's name counts when the reverse lookup of its address gives a name in the operator's domain
//! and the lookup of that name gives the address back: whoever owns an address chooses its name, but
//! not what that name means.
//!
//! Fails open: where nothing can be proved now (no answer yet, queue full, DNS out of order, lists
//! missing or old), the standing is [`Standing::Unknown`], and the request is that of any client.
//! Nobody is an impostor for a lookup that failed.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    classify::Bot,
    networks::{Jump, Listing, Networks},
    resolver::{Failed, Resolve},
};
use crate::base::clock::Clock;

/// What a bot's word about itself is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It is who it says.
    Verified,
    /// It is not who it says.
    Impostor,
    /// Nothing is published to hold it against, or nothing can be proved now.
    Unknown,
}

impl Standing {
    /// Its name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Impostor => "impostor",
            Self::Unknown => "unknown",
        }
    }
}

/// Questions that wait. A full queue costs a verdict, never a request.
const QUESTIONS_MAX: usize = 1_024;

/// Addresses being looked up at once.
const IN_FLIGHT_MAX: usize = 32;

/// How long the lookups for one address may take together.
const DEADLINE: Duration = Duration::from_secs(5);

/// Addresses remembered. The answer that ends soonest makes room.
const ANSWERS_MAX: usize = 4_096;

/// Names of one address that are looked at; more are no host's.
const NAMES_MAX: usize = 4;

/// How often new answers come into force.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);

/// How long an answer holds, in nanoseconds: with a confirmed name, without one, and no answer.
const CONFIRMED_FOR_NS: u64 = 12 * 3_600 * SECOND_NS;
const REFUTED_FOR_NS: u64 = 3_600 * SECOND_NS;
const FAILED_FOR_NS: u64 = 60 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;

/// Says what a bot's word is worth. Never waits, never locks.
#[derive(Debug)]
pub struct Verifier {
    networks: ArcSwap<Networks>,
    told: Arc<Told>,
    questions: mpsc::Sender<IpAddr>,
}

/// What the asking task tells the request path.
#[derive(Debug, Default)]
struct Told {
    /// Written only by [`Questions::answer`].
    answers: ArcSwap<Answers>,
    asked: AtomicU64,
    queue_full: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
}

type Answers = HashMap<IpAddr, Answer>;

/// What the DNS says of one address.
#[derive(Debug, Clone)]
struct Answer {
    /// None where it did not answer.
    names: Option<Arc<[HostName]>>,
    /// From when a request for it asks again, while this still holds.
    ask_again_ns: u64,
    /// From when this does not hold any more.
    ends_ns: u64,
}

/// A name the reverse lookup gave, in lower case, without the last dot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostName {
    name: Box<str>,
    /// Whether the name's addresses have the one it is said to be of; none where nobody answered.
    is_confirmed: Option<bool>,
}

/// How much has been asked since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Questions that were put in the queue; many may be about one address.
    pub asked: u64,
    /// Questions that found the queue full.
    pub queue_full: u64,
    /// Addresses the DNS answered for, a "there is no name" included.
    pub answered: u64,
    /// Addresses it did not answer for in time, or answered with a failure.
    pub failed: u64,
    /// Addresses that are remembered.
    pub remembered: u64,
}

impl Verifier {
    /// A verifier, and the questions it will have; [`Questions::answer`] answers them.
    pub fn new(networks: Networks) -> (Self, Questions) {
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let told = Arc::new(Told::default());
        let verifier = Self {
            networks: ArcSwap::from_pointee(networks),
            told: Arc::clone(&told),
            questions,
        };
        let questions = Questions {
            asked,
            told,
            deadline: DEADLINE,
        };
        (verifier, questions)
    }

    /// Puts refreshed networks in force.
    ///
    /// # Errors
    /// When a list became several times as long or as short; the old networks stay.
    pub fn replace_networks(&self, networks: Networks) -> Result<(), Jump> {
        networks.may_replace(&self.networks.load())?;
        self.networks.store(Arc::new(networks));
        Ok(())
    }

    /// What this bot's word is worth, coming from this folded address.
    ///
    /// `now_ns` is monotonic, `unix_ms` the time of day, against which the lists' dates are held.
    ///
    /// - In one of its operator's networks: verified.
    /// - A confirmed host name in its operator's domains: verified. Networks may be incomplete.
    /// - Else, its operator's domains are known and the DNS has said no: an impostor.
    /// - Else, no domains are known, and all its operator's lists are here and fresh: an impostor.
    /// - Everything else is unknown. So is a private address: no operator's, and nobody's business.
    pub fn look(&self, ip: IpAddr, bot: &Bot<'_>, now_ns: u64, unix_ms: u64) -> Standing {
        let Some(entry) = bot.entry.filter(|entry| entry.is_verifiable()) else {
            return Standing::Unknown;
        };
        if is_private(ip) {
            return Standing::Unknown;
        }
        let listing = self.networks.load().listing(&entry.networks, ip, unix_ms);
        match listing {
            Listing::Listed => Standing::Verified,
            Listing::NotListed | Listing::CannotTell if !entry.domains.is_empty() => {
                self.by_name(ip, &entry.domains, now_ns)
            }
            Listing::NotListed => Standing::Impostor,
            Listing::CannotTell => Standing::Unknown,
        }
    }

    fn by_name(&self, ip: IpAddr, domains: &[Box<str>], now_ns: u64) -> Standing {
        let answers = self.told.answers.load();
        let answer = answers.get(&ip).filter(|answer| now_ns < answer.ends_ns);
        if answer.is_none_or(|answer| answer.ask_again_ns <= now_ns) {
            self.ask(ip);
        }
        let names = answer.and_then(|answer| answer.names.as_deref());
        names.map_or(Standing::Unknown, |names| standing(names, domains))
    }

    /// Queues the question, or counts it as lost: the next request asks again.
    fn ask(&self, ip: IpAddr) {
        let counter = match self.questions.try_send(ip) {
            Ok(()) => &self.told.asked,
            Err(_) => &self.told.queue_full,
        };
        // Relaxed: a figure for the operator, which orders nothing.
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How much has been asked since the start.
    pub fn figures(&self) -> Figures {
        let told = &self.told;
        // Acquire: pairs with `publish`; the counts of questions need no order.
        let of = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Figures {
            asked: of(&told.asked),
            queue_full: of(&told.queue_full),
            answered: of(&told.answered),
            failed: of(&told.failed),
            remembered: told.answers.load().len().try_into().unwrap_or(u64::MAX),
        }
    }
}

/// What these names of an address say of a bot whose host names end in these domains.
fn standing(names: &[HostName], domains: &[Box<str>]) -> Standing {
    let own = |host: &&HostName| domains.iter().any(|domain| ends_in(&host.name, domain));
    let own = names.iter().filter(own);
    own.fold(Standing::Impostor, |so_far, host| {
        match (so_far, host.is_confirmed) {
            (Standing::Verified, _) | (_, Some(true)) => Standing::Verified,
            (Standing::Unknown, _) | (_, None) => Standing::Unknown,
            (Standing::Impostor, Some(false)) => Standing::Impostor,
        }
    })
}

fn ends_in(name: &str, domain: &str) -> bool {
    let before = name.strip_suffix(domain);
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Addresses of private use (RFC 1918, RFC 4193), of a link or of the machine itself.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}

/// What the request path wants to know. Its task is the only writer of the answers.
#[derive(Debug)]
pub struct Questions {
    asked: mpsc::Receiver<IpAddr>,
    told: Arc<Told>,
    deadline: Duration,
}

impl Questions {
    /// Answers questions until the [`Verifier`] is gone. Needs a runtime with time, and nothing else.
    pub async fn answer(mut self, resolver: impl Resolve, clock: Clock) {
        let mut answers = Answers::new();
        let mut in_flight = HashSet::new();
        let mut lookups = FuturesUnordered::new();
        let mut news = News::default();
        let mut publish = interval(PUBLISH_EVERY);
        publish.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (resolver, deadline) = (&resolver, self.deadline);
        loop {
            tokio::select! {
                asked = self.asked.recv(), if in_flight.len() < IN_FLIGHT_MAX => {
                    let Some(ip) = asked else { return };
                    // The queue may hold one address many times.
                    if needs_asking(&answers, ip, clock.monotonic_ns()) && in_flight.insert(ip) {
                        lookups.push(async move {
                            (ip, timeout(deadline, host_names(resolver, ip)).await)
                        });
                    }
                }
                Some((ip, names)) = lookups.next() => {
                    in_flight.remove(&ip);
                    let names = names.unwrap_or(Err(Failed));
                    news.count(&names);
                    remember(&mut answers, ip, names, clock.monotonic_ns());
                }
                _ = publish.tick(), if news.is_any() => {
                    self.told.publish(&answers, std::mem::take(&mut news));
                }
            }
        }
    }
}

/// What has been learnt and is not published yet.
#[derive(Debug, Default, Clone, Copy)]
struct News {
    answered: u64,
    failed: u64,
}

impl News {
    fn count(&mut self, names: &Result<Arc<[HostName]>, Failed>) {
        match names {
            Ok(_) => self.answered += 1,
            Err(Failed) => self.failed += 1,
        }
    }

    const fn is_any(&self) -> bool {
        self.answered + self.failed > 0
    }
}

impl Told {
    /// Puts the answers in force, then counts them: whoever sees the figures sees the answers.
    fn publish(&self, answers: &Answers, news: News) {
        self.answers.store(Arc::new(answers.clone()));
        // Release: pairs with the loads of `figures`.
        self.answered.fetch_add(news.answered, Ordering::Release);
        self.failed.fetch_add(news.failed, Ordering::Release);
    }
}

fn needs_asking(answers: &Answers, ip: IpAddr, now_ns: u64) -> bool {
    let answer = answers.get(&ip);
    answer.is_none_or(|answer| answer.ask_again_ns <= now_ns)
}

/// The names of an address, and for each whether it leads back.
async fn host_names(resolver: &impl Resolve, ip: IpAddr) -> Result<Arc<[HostName]>, Failed> {
    let names = resolver.names(ip).await?;
    let mut hosts = Vec::new();
    for name in names.into_iter().take(NAMES_MAX) {
        let addresses = resolver.addresses(&name, ip).await;
        let name = name.trim_end_matches('.').to_ascii_lowercase().into();
        let is_confirmed = addresses.ok().map(|addresses| addresses.contains(&ip));
        hosts.push(HostName { name, is_confirmed });
    }
    Ok(hosts.into())
}

/// Notes an answer, and forgets others where there are too many.
fn remember(
    answers: &mut Answers,
    ip: IpAddr,
    names: Result<Arc<[HostName]>, Failed>,
    now_ns: u64,
) {
    let names = names.ok();
    let hosts = names.as_deref().unwrap_or_default();
    let (ask_again, ends) = if names.is_none() || hosts.iter().any(|h| h.is_confirmed.is_none()) {
        // A name that was confirmed stays so while its domain does not answer.
        let old = answers.get(&ip).filter(|old| now_ns < old.ends_ns);
        if let Some(old) = old.filter(|old| old.names.is_some()) {
            let ask_again_ns = now_ns.saturating_add(FAILED_FOR_NS);
            let kept = Answer {
                ask_again_ns,
                ..old.clone()
            };
            answers.insert(ip, kept);
            return;
        }
        (FAILED_FOR_NS, FAILED_FOR_NS)
    } else if hosts.iter().any(|host| host.is_confirmed == Some(true)) {
        (CONFIRMED_FOR_NS / 2, CONFIRMED_FOR_NS)
    } else {
        (REFUTED_FOR_NS / 2, REFUTED_FOR_NS)
    };
    let answer = Answer {
        names,
        ask_again_ns: now_ns.saturating_add(ask_again),
        ends_ns: now_ns.saturating_add(ends),
    };
    answers.insert(ip, answer);
    if answers.len() > ANSWERS_MAX {
        make_room(answers, ip, now_ns);
    }
}

/// Forgets what has ended, or else what ends soonest, but not what has just been learnt.
fn make_room(answers: &mut Answers, newest: IpAddr, now_ns: u64) {
    answers.retain(|_, answer| now_ns < answer.ends_ns);
    if answers.len() > ANSWERS_MAX {
        let others = answers.iter().filter(|(ip, _)| **ip != newest);
        let soonest = others
            .min_by_key(|(_, answer)| answer.ends_ns)
            .map(|(ip, _)| *ip);
        soonest.and_then(|ip| answers.remove(&ip));
    }
}

#[cfg(test)]
mod tests;
