//! What operators have the owner do, and what they may ask it.

use std::{
    sync::Arc,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    book::{Ban, Target},
    facts::Facts,
};

/// Acts that may wait; more are refused, none is lost.
const WAITING_MAX: usize = 64;

/// Bans of one answer.
const LISTED_MAX: usize = 10_000;

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
    /// Show one ban.
    Show(Target),
    /// Show the bans in force: those decided last come first.
    List,
}

/// What came of an act.
#[derive(Debug)]
pub enum Done {
    /// The ban that is in force now.
    Banned(Ban),
    /// The ban that was in force until now.
    Lifted(Ban),
    /// The ban asked for.
    Shown(Ban),
    /// Bans in force, and how many there are in all.
    Listed(Vec<Ban>, usize),
}

/// Why an act was not done, in words for who wanted it.
pub type NotDone = String;

pub(super) type Asked = (Act, oneshot::Sender<Result<Done, NotDone>>);

/// The asking end of the acts' queue.
#[derive(Debug, Clone)]
pub struct Acts {
    queue: SyncSender<Asked>,
    facts: Arc<Facts>,
}

impl Acts {
    pub(super) fn pair(facts: &Arc<Facts>) -> (Self, Receiver<Asked>) {
        let (queue, asked) = sync_channel(WAITING_MAX);
        let acts = Self {
            queue,
            facts: Arc::clone(facts),
        };
        (acts, asked)
    }

    /// Has the owner do something, and says what came of it.
    ///
    /// # Errors
    /// When it cannot be done, in words for who wanted it.
    pub async fn ask(&self, act: Act) -> Result<Done, NotDone> {
        let (answer, answered) = oneshot::channel();
        self.queue
            .try_send((act, answer))
            .map_err(|_| "too many acts wait already: try again".to_owned())?;
        self.facts.wake();
        answered
            .await
            .unwrap_or_else(|_| Err("wardent is stopping".to_owned()))
    }
}

/// The latest bans first, and no more than fit one answer.
pub(super) fn listed<'a>(bans: impl Iterator<Item = &'a Ban>) -> Done {
    let mut all: Vec<&Ban> = bans.collect();
    let count = all.len();
    all.sort_unstable_by_key(|ban| (std::cmp::Reverse(ban.since_unix_ms), ban.target));
    let listed = all.into_iter().take(LISTED_MAX).cloned().collect();
    Done::Listed(listed, count)
}
