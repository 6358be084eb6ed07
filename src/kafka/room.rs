//! Room in memory that all connections share, so that none of them, nor all together, takes more than there is.
//!
//! A request takes room by its length, and by what it names; an answer by its length. A little of each is free,
//! so that small ones never wait: the number of connections bounds those.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Bytes of requests in progress, all connections together.
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of answers that are not yet sent, all connections together.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a request, and of an answer, that need no room.
pub(crate) const FREE_BYTES: usize = 64 * 1024;

/// How long somebody waits for room that others have.
const WITHIN: Duration = Duration::from_secs(10);

/// Answers that are made and wait for room.
const ANSWERS_WAITING_MAX: usize = 4;

/// Others hold so much that there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// All the room there is.
#[derive(Debug)]
pub(crate) struct Rooms {
    requests: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            requests: Arc::new(Semaphore::new(REQUEST_BYTES_MAX)),
            answers: Arc::new(Semaphore::new(ANSWER_BYTES_MAX)),
            waiting: Semaphore::new(ANSWERS_WAITING_MAX),
        }
    }
}

impl Rooms {
    /// For a request; it takes nothing yet.
    pub(crate) fn request(&self) -> Part {
        Part::of(&self.requests)
    }

    /// For an answer; it takes nothing yet.
    pub(crate) fn answer(&self) -> Part {
        Part::of(&self.answers)
    }

    /// Room that answers do not take, in bytes.
    #[cfg(test)]
    pub(crate) fn free_for_answers(&self) -> usize {
        self.answers.available_permits()
    }

    /// Has `part` hold that much, for an answer that is already made.
    ///
    /// # Errors
    /// When there is no room in time, or too many wait for it already.
    pub(crate) async fn hold_made(&self, part: &mut Part, bytes: usize) -> Result<(), NoRoom> {
        if part.try_hold(bytes) {
            return Ok(());
        }
        let _one = self.waiting.try_acquire().map_err(|_| NoRoom)?;
        part.hold(bytes).await
    }
}

/// Room that somebody has.
#[derive(Debug)]
pub(crate) struct Part {
    of: Arc<Semaphore>,
    bytes: usize,
    /// For what is not free.
    held: Option<OwnedSemaphorePermit>,
}

impl Part {
    fn of(room: &Arc<Semaphore>) -> Self {
        Self {
            of: Arc::clone(room),
            bytes: 0,
            held: None,
        }
    }

    /// How many bytes it is for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn held(&self) -> usize {
        self.held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// What is wanting for so many bytes.
    fn wanting(&self, bytes: usize) -> u32 {
        let wanting = bytes.saturating_sub(FREE_BYTES).saturating_sub(self.held());
        u32::try_from(wanting).unwrap_or(u32::MAX)
    }

    fn add(&mut self, more: OwnedSemaphorePermit, bytes: usize) {
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        self.bytes = self.bytes.max(bytes);
    }

    /// Holds that many bytes in all, if there is room at once. What it has it keeps in any case.
    pub(crate) fn try_hold(&mut self, bytes: usize) -> bool {
        let wanting = self.wanting(bytes);
        let Ok(more) = Arc::clone(&self.of).try_acquire_many_owned(wanting) else {
            return false;
        };
        self.add(more, bytes);
        true
    }

    /// Holds that many bytes in all, as soon as there is room.
    ///
    /// # Errors
    /// When there is none in time.
    pub(crate) async fn hold(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let more = Arc::clone(&self.of).acquire_many_owned(self.wanting(bytes));
        match timeout(WITHIN, more).await {
            Ok(Ok(more)) => {
                self.add(more, bytes);
                Ok(())
            }
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(NoRoom),
        }
    }

    /// Gives back what is beyond that many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        self.bytes = self.bytes.min(bytes);
        let surplus = self.held().saturating_sub(bytes.saturating_sub(FREE_BYTES));
        if let Some(held) = &mut self.held {
            drop(held.split(surplus));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_little_is_free_and_what_is_given_back_is_there_again() {
        let rooms = Rooms::default();
        let mut all = rooms.answer();
        assert!(all.try_hold(ANSWER_BYTES_MAX + FREE_BYTES));
        let mut small = rooms.answer();
        assert!(small.try_hold(FREE_BYTES));
        assert!(!small.try_hold(FREE_BYTES + 1));
        assert_eq!(small.bytes(), FREE_BYTES);
        all.shrink_to(ANSWER_BYTES_MAX);
        assert!(small.try_hold(2 * FREE_BYTES));
        assert!(!small.try_hold(2 * FREE_BYTES + 1));
        // What one has already is not taken twice.
        assert!(small.try_hold(2 * FREE_BYTES));
        drop(all);
        assert!(small.try_hold(ANSWER_BYTES_MAX));
        drop(small);
        assert_eq!(rooms.answers.available_permits(), ANSWER_BYTES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_when_there_is_no_room_and_few_wait() {
        let rooms = Rooms::default();
        let mut all = rooms.answer();
        assert!(all.try_hold(ANSWER_BYTES_MAX + FREE_BYTES));
        let waits = |_| async {
            let mut part = rooms.answer();
            rooms.hold_made(&mut part, 2 * FREE_BYTES).await
        };
        let mut waiting: Vec<_> = (0..ANSWERS_WAITING_MAX)
            .map(|one| Box::pin(waits(one)))
            .collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        assert_eq!(waits(0).await, Err(NoRoom));
        all.shrink_to(ANSWER_BYTES_MAX - FREE_BYTES);
        let mut outcomes = Vec::new();
        for one in waiting {
            outcomes.push(one.await);
        }
        assert_eq!(outcomes, [Ok(()); ANSWERS_WAITING_MAX]);
    }
}
