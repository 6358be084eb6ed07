//! The way of the APIs to the owner of all groups.

use std::{cell::Cell, rc::Rc};

use tokio::sync::{mpsc, oneshot};

use super::{
    ask::{Beat, Commit, Committed, Join, Joined, Leave, Sync, Synced, Ticket, TopicPartition},
    coordinator::Coordinator,
    owner::{Act, Gone, Owner, Waiter},
    shown::{Described, Listed},
};
use crate::kafka::{ErrorCode, broker::Session};

/// What a group has committed, topic by topic and partition by partition; none where nothing is.
pub(crate) type Fetched = Vec<(String, Vec<(i32, Option<Committed>)>)>;

/// What an offset takes in an answer, beside its metadata.
const OFFSET_BYTES: usize = 32;

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

    /// How far a group is in these partitions of topics, or wherever it has said. It is held by the session's
    /// answer.
    ///
    /// # Errors
    /// While groups are being read, or when there is no room for it.
    pub(crate) async fn fetch(
        &self,
        group: String,
        of: Option<Vec<(String, Vec<i32>)>>,
        session: &Rc<Session>,
    ) -> Result<Fetched, ErrorCode> {
        let session = Rc::clone(session);
        let act = move |owner: &mut Owner| {
            if owner.is_loading() {
                return Err(ErrorCode::CoordinatorLoadInProgress);
            }
            let groups = &owner.coordinator;
            let fetched = match of {
                None => all_of(groups, &group),
                Some(of) => some_of(groups, &group, of),
            };
            let partitions = fetched.iter().flat_map(|(_, partitions)| partitions);
            let metadata = partitions.map(|(_, committed)| {
                let committed = committed.as_ref();
                OFFSET_BYTES + committed.map_or(0, |committed| committed.metadata.len())
            });
            held(&session, metadata.sum(), fetched)
        };
        let fetched = self.look(act).await;
        fetched.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable))
    }

    /// All groups. They are held by the session's answer.
    ///
    /// # Errors
    /// While groups are being read, or when there is no room for them.
    pub(crate) async fn list(&self, session: &Rc<Session>) -> Result<Vec<Listed>, ErrorCode> {
        let session = Rc::clone(session);
        let act = move |owner: &mut Owner| {
            if owner.is_loading() {
                return Err(ErrorCode::CoordinatorLoadInProgress);
            }
            let listed = Listed::all(&owner.coordinator);
            let names = listed.iter();
            let names = names.map(|one| one.group.len() + one.protocol_type.len());
            held(&session, names.sum(), listed)
        };
        let listed = self.look(act).await;
        listed.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable))
    }

    /// A group, and its members; none where there is no such group. They are held by the session's answer.
    ///
    /// # Errors
    /// While groups are being read, or when there is no room for them.
    pub(crate) async fn describe(
        &self,
        group: String,
        session: &Rc<Session>,
    ) -> Result<Option<Described>, ErrorCode> {
        let session = Rc::clone(session);
        let act = move |owner: &mut Owner| {
            if owner.is_loading() {
                return Err(ErrorCode::CoordinatorLoadInProgress);
            }
            let described = Described::of(&owner.coordinator, &group);
            let members = described.iter().flat_map(|described| &described.members);
            let bytes = members.map(|member| {
                let instance = member.instance.as_ref().map_or(0, String::len);
                let said = member.metadata.len() + member.assignment.len();
                said + instance + member.id.len() + member.client_id.len() + member.host.len()
            });
            held(&session, bytes.sum(), described)
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

/// What is found, where the session's answer may hold so much. It is asked where it is found: of what is too
/// much for now nothing waits for anybody.
fn held<T>(session: &Session, bytes: usize, found: T) -> Result<T, ErrorCode> {
    match session.holds(bytes) {
        true => Ok(found),
        // Clients come again.
        false => Err(ErrorCode::CoordinatorLoadInProgress),
    }
}

/// All that a group has committed.
fn all_of(groups: &Coordinator, group: &str) -> Fetched {
    let mut all = Fetched::new();
    for (of, one) in groups.all_committed(group) {
        let committed = (of.partition, Some(one.clone()));
        match all.last_mut() {
            Some((topic, partitions)) if *topic == of.topic => partitions.push(committed),
            _ => all.push((of.topic.clone(), vec![committed])),
        }
    }
    all
}

/// What a group has committed there. A topic's name is there once, however many partitions are named.
fn some_of(groups: &Coordinator, group: &str, of: Vec<(String, Vec<i32>)>) -> Fetched {
    let topics = of.into_iter().map(|(topic, partitions)| {
        let mut of = TopicPartition {
            topic,
            partition: 0,
        };
        let committed = partitions.into_iter().map(|partition| {
            of.partition = partition;
            (partition, groups.committed(group, &of).cloned())
        });
        let committed = committed.collect();
        (of.topic, committed)
    });
    topics.collect()
}
