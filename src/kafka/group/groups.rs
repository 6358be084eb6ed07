//! The way of the APIs to the owner of all groups.

use std::{cell::Cell, rc::Rc};

use tokio::sync::{mpsc, oneshot};

use super::{
    ask::{Beat, Commit, Committed, Join, Joined, Leave, Sync, Synced, Ticket, TopicPartition},
    owner::{Act, Gone, Owner, Waiter},
    shown::{Described, Listed},
};
use crate::kafka::ErrorCode;

/// What a group has committed; none where nothing is.
pub(crate) type Fetched = Vec<(TopicPartition, Option<Committed>)>;

/// Asks the owner of all groups, and waits for what it says.
///
/// Who waits for a generation or for an assignment and is dropped is let go: its member is waited for no more.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    asks: mpsc::Sender<Act>,
    gone: Rc<Gone>,
    tickets: Rc<Cell<u64>>,
}

/// Somebody who waits. Dropped before the answer, it is told.
struct Waits<'a> {
    gone: &'a Gone,
    group: String,
    ticket: Ticket,
    is_answered: bool,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.gone.tell(std::mem::take(&mut self.group), self.ticket);
        }
    }
}

impl Groups {
    pub(super) fn new(asks: mpsc::Sender<Act>, gone: Rc<Gone>, tickets: Rc<Cell<u64>>) -> Self {
        Self {
            asks,
            gone,
            tickets,
        }
    }

    fn ticket(&self) -> Ticket {
        self.tickets.set(self.tickets.get() + 1);
        Ticket(self.tickets.get())
    }

    /// Has the owner do something, and waits for what it tells. None where it has ended.
    async fn ask<T: 'static>(
        &self,
        act: impl FnOnce(&mut Owner, oneshot::Sender<T>) + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        let act: Act = Box::new(move |owner| {
            // Nothing is begun for who went away before it was its turn.
            if !tell.is_closed() {
                act(owner, tell);
            }
        });
        self.asks.send(act).await.ok()?;
        told.await.ok()
    }

    /// The same, for what is answered at once.
    async fn look<T: 'static>(&self, look: impl FnOnce(&mut Owner) -> T + 'static) -> Option<T> {
        self.ask(|owner, tell: oneshot::Sender<T>| {
            // Who asked may be gone.
            let _ = tell.send(look(owner));
        })
        .await
    }

    fn waits(&self, group: &str, ticket: Ticket) -> Waits<'_> {
        Waits {
            gone: &self.gone,
            group: group.to_owned(),
            ticket,
            is_answered: false,
        }
    }

    /// Joins a group. It takes until its next generation.
    pub(crate) async fn join(&self, join: Join) -> Joined {
        let ticket = self.ticket();
        let mut waits = self.waits(&join.group, ticket);
        let member = join.who.member.clone();
        let act = move |owner: &mut Owner, tell: oneshot::Sender<Joined>| {
            if owner.is_loading() {
                let error = ErrorCode::CoordinatorLoadInProgress;
                let _ = tell.send(Joined::refused(&join.who.member, error));
                return;
            }
            owner.waiting.insert(ticket, Waiter::Join(tell));
            let now = owner.now();
            owner.coordinator.join(now, ticket, &join);
        };
        let joined = self.ask(act).await;
        waits.is_answered = true;
        joined.unwrap_or_else(|| Joined::refused(&member, ErrorCode::CoordinatorNotAvailable))
    }

    /// Asks for a member's assignment. It takes until the leader has assigned.
    pub(crate) async fn sync(&self, sync: Sync) -> Synced {
        let ticket = self.ticket();
        let mut waits = self.waits(&sync.group, ticket);
        let act = move |owner: &mut Owner, tell: oneshot::Sender<Synced>| {
            if owner.is_loading() {
                // It has to join again: nobody knows yet what it was assigned.
                let _ = tell.send(Synced::refused(ErrorCode::RebalanceInProgress));
                return;
            }
            owner.waiting.insert(ticket, Waiter::Sync(tell));
            let now = owner.now();
            owner.coordinator.sync(now, ticket, &sync);
        };
        let synced = self.ask(act).await;
        waits.is_answered = true;
        synced.unwrap_or_else(|| Synced::refused(ErrorCode::CoordinatorNotAvailable))
    }

    /// A member lives.
    pub(crate) async fn heartbeat(&self, beat: Beat) -> ErrorCode {
        let act = move |owner: &mut Owner| match owner.is_loading() {
            // Nothing speaks against it yet.
            true => ErrorCode::None,
            false => {
                let now = owner.now();
                owner.coordinator.heartbeat(now, &beat)
            }
        };
        let code = self.look(act).await;
        code.unwrap_or(ErrorCode::CoordinatorNotAvailable)
    }

    /// Members leave.
    pub(crate) async fn leave(&self, leave: Leave) -> (ErrorCode, Vec<ErrorCode>) {
        let act = move |owner: &mut Owner| match owner.is_loading() {
            true => (ErrorCode::CoordinatorLoadInProgress, Vec::new()),
            false => {
                let now = owner.now();
                owner.coordinator.leave(now, &leave)
            }
        };
        let left = self.look(act).await;
        left.unwrap_or((ErrorCode::CoordinatorNotAvailable, Vec::new()))
    }

    /// Commits offsets: a code for each of them, when they are on disk.
    pub(crate) async fn commit(&self, commit: Commit) -> Vec<ErrorCode> {
        let (ticket, count) = (self.ticket(), commit.offsets.len());
        let act = move |owner: &mut Owner, tell: oneshot::Sender<Vec<ErrorCode>>| {
            if owner.is_loading() {
                let _ = tell.send(vec![ErrorCode::CoordinatorLoadInProgress; count]);
                return;
            }
            owner.waiting.insert(ticket, Waiter::Codes(tell));
            let now = owner.now();
            owner.coordinator.commit(now, ticket, commit);
        };
        let codes = self.ask(act).await;
        codes.unwrap_or_else(|| vec![ErrorCode::CoordinatorNotAvailable; count])
    }

    /// How far a group is in these partitions, or wherever it has said.
    ///
    /// # Errors
    /// While groups are being read.
    pub(crate) async fn fetch(
        &self,
        group: String,
        of: Option<Vec<TopicPartition>>,
    ) -> Result<Fetched, ErrorCode> {
        let act = move |owner: &mut Owner| {
            if owner.is_loading() {
                return Err(ErrorCode::CoordinatorLoadInProgress);
            }
            let groups = &owner.coordinator;
            let Some(of) = of else {
                let all = groups.all_committed(&group);
                return Ok(all
                    .map(|(of, one)| (of.clone(), Some(one.clone())))
                    .collect());
            };
            let committed = |of: TopicPartition| {
                let committed = groups.committed(&group, &of).cloned();
                (of, committed)
            };
            Ok(of.into_iter().map(committed).collect())
        };
        let fetched = self.look(act).await;
        fetched.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable))
    }

    /// All groups.
    ///
    /// # Errors
    /// While groups are being read.
    pub(crate) async fn list(&self) -> Result<Vec<Listed>, ErrorCode> {
        let act = |owner: &mut Owner| match owner.is_loading() {
            true => Err(ErrorCode::CoordinatorLoadInProgress),
            false => Ok(Listed::all(&owner.coordinator)),
        };
        let listed = self.look(act).await;
        listed.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable))
    }

    /// A group, and its members; none where there is no such group.
    ///
    /// # Errors
    /// While groups are being read.
    pub(crate) async fn describe(&self, group: String) -> Result<Option<Described>, ErrorCode> {
        let act = move |owner: &mut Owner| match owner.is_loading() {
            true => Err(ErrorCode::CoordinatorLoadInProgress),
            false => Ok(Described::of(&owner.coordinator, &group)),
        };
        let described = self.look(act).await;
        described.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable))
    }

    /// Deletes a group without members, with all that it has committed.
    pub(crate) async fn delete(&self, group: String) -> ErrorCode {
        let ticket = self.ticket();
        let act = move |owner: &mut Owner, tell: oneshot::Sender<Vec<ErrorCode>>| {
            if owner.is_loading() {
                let _ = tell.send(vec![ErrorCode::CoordinatorLoadInProgress]);
                return;
            }
            owner.waiting.insert(ticket, Waiter::Codes(tell));
            let now = owner.now();
            owner.coordinator.delete(now, ticket, &group);
        };
        let codes = self.ask(act).await.unwrap_or_default();
        let code = codes.first().copied();
        code.unwrap_or(ErrorCode::CoordinatorNotAvailable)
    }

    /// Forgets how far all groups are in a topic that was deleted. Says whether that is on its way to the disk, or
    /// will be when groups were read; else it is to be asked again.
    pub(crate) async fn forget_topic(&self, topic: &str) -> bool {
        let topic = topic.to_owned();
        let act = move |owner: &mut Owner| match owner.is_loading() {
            true => true,
            false => {
                let now = owner.now();
                owner.coordinator.forget_topic(now, &topic)
            }
        };
        self.look(act).await.unwrap_or(true)
    }

    /// Forgets what a group has committed of these partitions: a code for each.
    ///
    /// # Errors
    /// With the code for all of it.
    pub(crate) async fn forget(
        &self,
        group: String,
        of: Vec<TopicPartition>,
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        let ticket = self.ticket();
        let act = move |owner: &mut Owner, tell: oneshot::Sender<Vec<ErrorCode>>| {
            if owner.is_loading() {
                let _ = tell.send(vec![ErrorCode::CoordinatorLoadInProgress]);
                return;
            }
            let now = owner.now();
            let error = owner.coordinator.forget(now, ticket, &group, of);
            if error == ErrorCode::None {
                owner.waiting.insert(ticket, Waiter::Codes(tell));
            } else {
                let _ = tell.send(vec![error]);
            }
        };
        let codes = self.ask(act).await;
        let codes = codes.ok_or(ErrorCode::CoordinatorNotAvailable)?;
        match codes.first() {
            Some(
                error @ (ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::InvalidGroupId
                | ErrorCode::GroupIdNotFound
                | ErrorCode::NonEmptyGroup),
            ) => Err(*error),
            Some(_) | None => Ok(codes),
        }
    }
}
