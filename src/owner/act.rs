//! What operators have the owner do, and what they may ask it.

use std::{
    cmp::Reverse,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::{
    ban::{Ban, Target},
    facts::Facts,
    memory::Trouble,
    others::{Decision, Hearing, SpentElsewhere},
};
use crate::{client::ClientKey, event::exchange::Part};

/// Acts that may wait; more are refused, none is lost.
const WAITING_MAX: usize = 512;

/// How long an act may take, until it is on disk.
const WITHIN: Duration = Duration::from_secs(10);

/// One thing an operator wants.
#[derive(Debug)]
pub enum Act {
    /// Ban somebody.
    Ban {
        /// Whom.
        target: Target,
        /// How long.
        duration: Duration,
        /// Why, for whoever asks later.
        why: String,
        /// Who says so.
        actor: String,
    },
    /// Lift a ban and forget what led to it.
    Unban {
        /// Whose.
        target: Target,
        /// How long nothing counts afterwards.
        grace: Duration,
        /// Who says so.
        actor: String,
    },
    /// Show the ban that holds for this target: its own, or that of a network around it.
    Show(Target),
    /// Show bans in force: those decided last come first.
    List {
        /// Where the page before ended; none for the first.
        after: Option<Place>,
        /// How many at most.
        count: usize,
    },
    /// Show what is held against a client.
    Weigh(ClientKey),
    /// Hear what other nodes decided, and what clients spent there.
    Hear {
        /// What, in no order.
        decisions: Vec<Decision>,
        /// Which part this is of a reading of all that the cluster has; none for news.
        part: Option<Part>,
        /// What clients spent.
        spent: Vec<SpentElsewhere>,
    },
}

/// What came of an act.
#[derive(Debug)]
pub enum Done {
    /// The ban that is in force now.
    Banned(Ban),
    /// The ban that was in force until now.
    Lifted(Ban),
    /// There was no ban to lift; nothing counts for the time of grace.
    Spared,
    /// The ban asked for.
    Shown(Ban),
    /// Bans in force.
    Listed(Page),
    /// What is held against the client.
    Weighed(Standing),
    /// What came of other nodes' decisions. They are in force; a start before they are on disk hears them
    /// again.
    Heard(Hearing),
}

/// A part of all bans in force.
#[derive(Debug)]
pub struct Page {
    /// Those decided last come first, without their evidence.
    pub bans: Vec<Ban>,
    /// How many bans there are in all.
    pub total: usize,
    /// Where the next page begins, if there is one.
    pub next: Option<Place>,
}

/// A ban's place in the list of all. It stays where it is while others come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    since_unix_ms: Reverse<u64>,
    target: Target,
}

impl Place {
    /// The place of the ban of `target` that began at `since_unix_ms`.
    pub fn new(since_unix_ms: u64, target: Target) -> Self {
        Self {
            since_unix_ms: Reverse(since_unix_ms),
            target,
        }
    }

    /// When the ban began, in milliseconds since 1970.
    pub fn since_unix_ms(&self) -> u64 {
        self.since_unix_ms.0
    }

    /// Whom it is for.
    pub fn target(&self) -> Target {
        self.target
    }

    fn of(ban: &Ban) -> Self {
        Self::new(ban.since_unix_ms, ban.target)
    }
}

/// What is held against one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Points within the window that count towards a ban.
    pub points: u64,
    /// Points within the window that would, were the policy enforced.
    pub points_observed: u64,
    /// Points that are a ban.
    pub threshold: u32,
    /// Bans that make the next one longer.
    pub level: u32,
    /// Whether nothing counts for now.
    pub has_grace: bool,
}

/// Why an act was not done; `Display` says it to who wanted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDone {
    /// There is no such ban.
    NotBanned {
        /// Whose.
        target: Target,
        /// The banned network around it, if there is one.
        network: Option<Target>,
    },
    /// Nothing bans this client.
    Protected {
        /// Which.
        target: Target,
        /// Why.
        because: &'static str,
    },
    /// The book of bans is full.
    Full,
    /// It is in force, and not on disk yet.
    NotKept {
        /// Why not.
        why: String,
    },
    /// The owner did not get to it in time.
    Silent,
    /// Too many acts wait already.
    Busy,
    /// Wardent is stopping.
    Stopping,
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBanned {
                target,
                network: None,
            } => write!(f, "{target} is not banned"),
            Self::NotBanned {
                target,
                network: Some(network),
            } => write!(f, "{target} is not banned itself: {network} is"),
            Self::Protected { target, because } => {
                write!(f, "{target} cannot be banned: {because}")
            }
            Self::Full => f.write_str("limits.bans_max is reached: lift other bans first"),
            Self::NotKept { why } => write!(
                f,
                "it is in force, but not on disk yet: {why}; it is written as soon as that can be"
            ),
            Self::Silent => write!(
                f,
                "the owner of bans did not answer within {} s",
                WITHIN.as_secs()
            ),
            Self::Busy => f.write_str("too many acts wait already: try again"),
            Self::Stopping => f.write_str("wardent is stopping"),
        }
    }
}

impl std::error::Error for NotDone {}

/// Who waits for what comes of an act.
#[derive(Debug)]
pub(super) struct Answer {
    sender: oneshot::Sender<Result<Done, NotDone>>,
    /// Whether it is done already, and only has to reach the disk.
    is_decided: Arc<AtomicBool>,
}

impl Answer {
    pub(super) fn give(self, result: Result<Done, NotDone>) {
        // Who asked may have gone.
        let _ = self.sender.send(result);
    }

    pub(super) fn is_decided(&self) {
        // Relaxed: it is looked at long after.
        self.is_decided.store(true, Ordering::Relaxed);
    }
}

pub(super) type Asked = (Act, Answer);

/// An act that is under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) answered: oneshot::Receiver<Result<Done, NotDone>>,
    is_decided: Arc<AtomicBool>,
}

/// The asking end of the acts' queue.
#[derive(Debug, Clone)]
pub struct Acts {
    queue: SyncSender<Asked>,
    facts: Arc<Facts>,
    trouble: Arc<Trouble>,
}

impl Acts {
    pub(super) fn pair(facts: &Arc<Facts>, trouble: Arc<Trouble>) -> (Self, Receiver<Asked>) {
        let (queue, asked) = sync_channel(WAITING_MAX);
        let acts = Self {
            queue,
            facts: Arc::clone(facts),
            trouble,
        };
        (acts, asked)
    }

    /// Has the owner do something, and says what came of it: once it is on disk, where it has to be.
    ///
    /// # Errors
    /// When it cannot be done; when it is done and not on disk within 10 s.
    pub async fn ask(&self, act: Act) -> Result<Done, NotDone> {
        let UnderWay {
            answered,
            is_decided,
        } = self.begin(act)?;
        let result = timeout(WITHIN, answered).await;
        let is_decided = is_decided.load(Ordering::Relaxed);
        match result {
            Ok(Ok(result)) => result,
            Ok(Err(_)) if is_decided => Err(NotDone::NotKept {
                why: NotDone::Stopping.to_string(),
            }),
            Ok(Err(_)) => Err(NotDone::Stopping),
            Err(_) if is_decided => Err(NotDone::NotKept {
                why: self.trouble(),
            }),
            Err(_) => Err(NotDone::Silent),
        }
    }

    /// Puts an act where the owner finds it.
    ///
    /// # Errors
    /// When too many wait there already.
    pub(super) fn begin(&self, act: Act) -> Result<UnderWay, NotDone> {
        let (sender, answered) = oneshot::channel();
        let is_decided = Arc::<AtomicBool>::default();
        let answer = Answer {
            sender,
            is_decided: Arc::clone(&is_decided),
        };
        self.queue
            .try_send((act, answer))
            .map_err(|error| match error {
                TrySendError::Full(_) => NotDone::Busy,
                TrySendError::Disconnected(_) => NotDone::Stopping,
            })?;
        self.facts.wake();
        Ok(UnderWay {
            answered,
            is_decided,
        })
    }

    fn trouble(&self) -> String {
        let words = self.trouble.words();
        words.map_or_else(
            || format!("the disk took longer than {} s", WITHIN.as_secs()),
            |words| words.to_string(),
        )
    }
}

/// A page of `bans`: the first `count` after a place, those decided last first.
pub(super) fn page<'a>(
    bans: impl Iterator<Item = &'a Ban>,
    after: Option<Place>,
    count: usize,
) -> Page {
    let mut total = 0;
    let counted = bans.inspect(|_| total += 1);
    let mut rest: Vec<&Ban> = counted
        .filter(|ban| after.is_none_or(|after| Place::of(ban) > after))
        .collect();
    let has_more = rest.len() > count;
    if has_more {
        // Only the page is sorted: of a million bans, it is a small part.
        rest.select_nth_unstable_by_key(count, |ban| Place::of(ban));
        rest.truncate(count);
    }
    rest.sort_unstable_by_key(|ban| Place::of(ban));
    let bans: Vec<Ban> = rest.into_iter().map(Ban::without_evidence).collect();
    Page {
        next: bans.last().filter(|_| has_more).map(Place::of),
        bans,
        total,
    }
}
