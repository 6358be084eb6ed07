//! How members come together in a generation and learn their assignments.
//!
//! Every wait in here has an end: a join ends with the slowest member's rebalance timeout, a generation whose
//! members do not ask for their assignments with the same, a silent member with its session, an id that was
//! given and not used with that too, and a write with [`super::writes::WRITE_TIMEOUT_MS`].

use std::collections::HashMap;

use bytes::Bytes;

use super::{
    ask::{Beat, Effect, Join, Joined, JoinedMember, Sync, Synced, Ticket, Who, WriteId},
    classic::{First, Group, State},
    member::{Member, NEW_MEMBER_MS},
    record,
    writes::{NotKept, Turn, What},
};
use crate::kafka::ErrorCode;

/// How long the first rebalance of a group waits for more members (`group.initial.rebalance.delay.ms`).
pub(crate) const FIRST_DELAY_MS: u64 = 250;

/// Bytes of assignments that a leader may bring: what the topic in which they are kept takes at once.
const ASSIGNMENTS_BYTES_MAX: usize = 1024 * 1024;

/// How long the completion is put off when nobody at all came, and static members may still come back.
const NOBODY_CAME_MS: u64 = 1_000;

impl Group {
    /// A member joins. `new_id` is the id that it is given if it has none.
    pub(super) fn join(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        join: &Join,
        new_id: String,
    ) {
        let id = join.who.member.clone();
        let error = if matches!(self.state, State::Dead { .. }) {
            ErrorCode::CoordinatorNotAvailable
        } else if !self.has_room_for(&id) && self.replaced_by(join).is_none() {
            ErrorCode::GroupMaxSizeReached
        } else if !self.fits(join) {
            ErrorCode::InconsistentGroupProtocol
        } else {
            match id.is_empty() {
                true => self.join_anew(turn, ticket, join, new_id),
                false => self.join_again(turn, ticket, join),
            }
            return self.try_complete(turn);
        };
        refuse(turn, ticket, &id, error);
    }

    /// The static member whose place is taken.
    fn replaced_by(&self, join: &Join) -> Option<&String> {
        let instance = join.who.instance.as_ref()?;
        join.who
            .member
            .is_empty()
            .then(|| self.static_member(instance))?
    }

    fn join_anew(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: &Join, new_id: String) {
        if let Some(old) = self.replaced_by(join).cloned() {
            return self.replace_static(turn, ticket, join, &old, &new_id);
        }
        if join.needs_known_id && join.who.instance.is_none() {
            let session_ms = u64::try_from(join.session_timeout_ms).unwrap_or(0);
            refuse(turn, ticket, &new_id, ErrorCode::MemberIdRequired);
            self.pending.insert(new_id, turn.now.ms + session_ms);
            return;
        }
        self.add(turn, ticket, join, new_id, join.who.instance.is_some());
    }

    fn join_again(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: &Join) {
        let id = &join.who.member;
        if join.who.instance.is_none() && self.pending.contains_key(id) {
            return self.add(turn, ticket, join, id.clone(), true);
        }
        if let Err(error) = self.check(&join.who) {
            return refuse(turn, ticket, id, error);
        }
        let says_the_same = self.members.get(id).is_some_and(|member| member.says(join));
        // A member that says the same has missed its answer: it is still in the generation. A leader that
        // joins again wants to assign anew.
        let has_missed = match self.state {
            State::Completing { .. } => says_the_same,
            State::Stable { .. } => says_the_same && !self.leads(id),
            State::Preparing { .. } => false,
            State::Empty | State::Dead { .. } => {
                return refuse(turn, ticket, id, ErrorCode::UnknownMemberId);
            }
        };
        if has_missed {
            if let Some(member) = self.members.get_mut(id) {
                member.touch(turn.now.ms);
            }
            let joined = self.joined(id, false);
            return turn.effects.push(Effect::Joined(ticket, joined));
        }
        self.wait_to_join(turn, ticket, join, id);
        self.prepare_if_it_can(turn);
    }

    fn add(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        join: &Join,
        id: String,
        knows_id: bool,
    ) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        let mut member = Member::new(id, join, knows_id);
        member.joining = Some(ticket);
        member.due_ms = turn.now.ms + NEW_MEMBER_MS;
        self.put(member);
        if let State::Preparing {
            first: Some(first), ..
        } = &mut self.state
        {
            first.has_newcomer = true;
        }
        self.prepare_if_it_can(turn);
    }

    /// The same instance comes with a new id: the old one is fenced, and where nothing else would change,
    /// nobody needs to rebalance.
    fn replace_static(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        join: &Join,
        old: &str,
        new: &str,
    ) {
        if let Some(member) = self.members.get_mut(old) {
            let syncing = member.syncing.take();
            if let Some(joining) = member.joining.take() {
                refuse(turn, joining, old, ErrorCode::FencedInstanceId);
            }
            answer_sync(turn, syncing, || {
                Synced::refused(ErrorCode::FencedInstanceId)
            });
            member.touch(turn.now.ms);
        }
        let leader_before = self.leader.clone().unwrap_or_default();
        self.replace(old, new);
        self.wait_to_join(turn, ticket, join, new);
        match self.state {
            State::Stable { .. } if self.protocol == self.choose() => {
                let value = self.value(|member| member.assignment.clone());
                let what = What::Replaced {
                    ticket,
                    member: new.to_owned(),
                    leader_before,
                };
                if let Err(what) = self.keep(turn, &value, what) {
                    self.failed(turn, what, NotKept::NotNow);
                }
            }
            State::Stable { .. } | State::Completing { .. } => self.prepare(turn),
            State::Preparing { .. } | State::Empty | State::Dead { .. } => {}
        }
    }

    /// It waits for the next generation. Who waited before it in its name is let go.
    fn wait_to_join(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: &Join, id: &str) {
        let Some(member) = self.members.get_mut(id) else {
            return refuse(turn, ticket, id, ErrorCode::UnknownMemberId);
        };
        member.say(join);
        if member.is_new {
            member.due_ms = turn.now.ms + NEW_MEMBER_MS;
        }
        if let Some(before) = member.joining.replace(ticket) {
            refuse(turn, before, id, ErrorCode::RebalanceInProgress);
        }
    }

    /// The answer to a member that is in the generation.
    fn joined(&self, id: &str, skip_assignment: bool) -> Joined {
        let members: Vec<JoinedMember> = match self.leads(id) {
            true => self.told(),
            false => Vec::new(),
        };
        Joined {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment,
            member: id.to_owned(),
            members,
        }
    }

    fn prepare_if_it_can(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            State::Empty | State::Stable { .. } | State::Completing { .. } => self.prepare(turn),
            State::Preparing { .. } | State::Dead { .. } => {}
        }
    }

    /// Begins a rebalance: who waits for an assignment is to join again.
    fn prepare(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.state, State::Completing { .. }) {
            self.refuse_syncs(turn, ErrorCode::RebalanceInProgress);
        }
        let timeout_ms = self.rebalance_timeout_ms();
        let is_first = self.state == State::Empty;
        let wait_ms = if is_first { FIRST_DELAY_MS } else { timeout_ms };
        self.state = State::Preparing {
            until_ms: turn.now.ms + wait_ms,
            first: is_first.then(|| First {
                left_ms: timeout_ms.saturating_sub(FIRST_DELAY_MS),
                has_newcomer: false,
            }),
        };
        self.try_complete(turn);
    }

    /// Completes the rebalance if nobody has to be waited for any more.
    pub(super) fn try_complete(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.state, State::Preparing { first: None, .. }) && self.have_all_joined() {
            self.complete(turn);
        }
    }

    /// Who did not come is no member any more; but static members have their sessions to come back.
    fn complete(&mut self, turn: &mut Turn<'_>) {
        let is_away = |member: &Member| member.joining.is_none() && member.who.instance.is_none();
        let away = self.members.values().filter(|member| is_away(member));
        for id in away
            .map(|member| member.who.member.clone())
            .collect::<Vec<_>>()
        {
            self.take(&id);
        }
        if self.members.is_empty() {
            return self.become_empty(turn);
        }
        if !self.elect() {
            let wait_ms = self.rebalance_timeout_ms().max(NOBODY_CAME_MS);
            self.state = State::Preparing {
                until_ms: turn.now.ms + wait_ms,
                first: None,
            };
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.choose();
        self.state = State::Completing {
            until_ms: turn.now.ms + self.rebalance_timeout_ms(),
            write: None,
        };
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            let joined = self.joined(&id, false);
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.owes_sync = true;
            member.assignment = Bytes::new();
            if let Some(ticket) = member.joining.take() {
                member.is_new = false;
                member.knows_id = true;
                member.touch(turn.now.ms);
                turn.effects.push(Effect::Joined(ticket, joined));
            }
        }
    }

    /// Whether there is somebody to lead: the leader so far if it came, or else the oldest who did.
    fn elect(&mut self) -> bool {
        let came = |id: &String| {
            self.members
                .get(id)
                .is_some_and(|one| one.joining.is_some())
        };
        if self.leader.as_ref().is_some_and(came) {
            return true;
        }
        let elected = self.members.keys().find(|id| came(id)).cloned();
        if elected.is_some() {
            self.leader = elected;
            return true;
        }
        false
    }

    fn become_empty(&mut self, turn: &mut Turn<'_>) {
        let had_members = self.leader.is_some() || self.generation > 0;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = None;
        self.leader = None;
        self.state = State::Empty;
        self.since_unix_ms = turn.now.unix_ms;
        let value = self.value(|_| Bytes::new());
        // Where it cannot be written, the group comes back at the next start with members that are gone, and
        // their sessions end.
        if had_members {
            let _ = self.keep(turn, &value, What::Noted);
        }
    }

    fn keep(
        &self,
        turn: &mut Turn<'_>,
        value: &record::GroupValue,
        what: What,
    ) -> Result<WriteId, What> {
        let record = (
            record::group_key(&self.name),
            Some(record::group_value(value)),
        );
        turn.write(&self.name, vec![record], what)
    }

    /// A member asks for its assignment; the leader brings all of them, and everybody waits until they are on
    /// disk.
    pub(super) fn sync(&mut self, turn: &mut Turn<'_>, ticket: Ticket, sync: &Sync) {
        let refused = match self.check_sync(sync) {
            Err(error) => Some(error),
            Ok(()) => match self.state {
                State::Empty => Some(ErrorCode::UnknownMemberId),
                State::Dead { .. } => Some(ErrorCode::CoordinatorNotAvailable),
                State::Preparing { .. } => Some(ErrorCode::RebalanceInProgress),
                State::Completing { .. } | State::Stable { .. } => None,
            },
        };
        if let Some(error) = refused {
            return turn
                .effects
                .push(Effect::Synced(ticket, Synced::refused(error)));
        }
        let id = &sync.who.member;
        let is_stable = matches!(self.state, State::Stable { .. });
        if let Some(member) = self.members.get_mut(id) {
            member.owes_sync = false;
            member.touch(turn.now.ms);
            if !is_stable {
                let before = member.syncing.replace(ticket);
                answer_sync(turn, before, || {
                    Synced::refused(ErrorCode::RebalanceInProgress)
                });
            }
        }
        if is_stable {
            self.end_wait_for_syncs();
            let synced = self.synced(id);
            turn.effects.push(Effect::Synced(ticket, synced));
        } else if self.leads(id) {
            self.assign(turn, sync);
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), ErrorCode> {
        self.check_in(&sync.who, sync.generation)?;
        let is_other = |said: &Option<String>, own: &Option<String>| said.is_some() && said != own;
        let has_other = is_other(&sync.protocol_type, &self.protocol_type)
            || is_other(&sync.protocol, &self.protocol);
        let bytes: usize = sync.assignments.iter().map(|(_, one)| one.len()).sum();
        match (has_other, bytes > ASSIGNMENTS_BYTES_MAX) {
            (true, _) => Err(ErrorCode::InconsistentGroupProtocol),
            // As Kafka says it of a group that is too large to be written.
            (false, true) => Err(ErrorCode::UnknownServerError),
            (false, false) => Ok(()),
        }
    }

    /// Has the leader's assignments kept. Who got none gets an empty one; who is no member, nothing.
    fn assign(&mut self, turn: &mut Turn<'_>, sync: &Sync) {
        let is_member = |(id, _): &&(String, Bytes)| self.members.contains_key(id);
        let brought = sync.assignments.iter().filter(is_member);
        let brought = brought.map(|(id, bytes)| (id.clone(), Bytes::copy_from_slice(bytes)));
        let assignments: HashMap<String, Bytes> = brought.collect();
        let of = |member: &Member| {
            assignments
                .get(&member.who.member)
                .cloned()
                .unwrap_or_default()
        };
        let value = self.value(of);
        let what = What::Assigned {
            generation: self.generation,
            assignments,
        };
        match self.keep(turn, &value, what) {
            Err(what) => self.failed(turn, what, NotKept::NotNow),
            Ok(id) => {
                if let State::Completing { write, .. } = &mut self.state {
                    *write = Some(id);
                }
            }
        }
    }

    /// What was written is on disk.
    pub(super) fn kept(&mut self, turn: &mut Turn<'_>, id: WriteId, what: What) {
        match what {
            What::Assigned {
                generation,
                assignments,
            } => self.assigned(turn, id, generation, &assignments),
            What::Replaced {
                ticket,
                member,
                leader_before,
            } => self.replaced(turn, ticket, &member, &leader_before),
            What::Noted
            | What::Committed { .. }
            | What::Forgotten { .. }
            | What::Deleted { .. } => {}
        }
    }

    fn assigned(
        &mut self,
        turn: &mut Turn<'_>,
        id: WriteId,
        generation: i32,
        assignments: &HashMap<String, Bytes>,
    ) {
        // The group may have gone on while the disk was busy.
        let is_waited_for =
            matches!(self.state, State::Completing { write: Some(own), .. } if own == id);
        let State::Completing { until_ms, .. } = self.state else {
            return;
        };
        if !is_waited_for || generation != self.generation {
            return;
        }
        self.state = State::Stable {
            until_ms: Some(until_ms),
        };
        for member in self.members.values_mut() {
            member.assignment = assignments
                .get(&member.who.member)
                .cloned()
                .unwrap_or_default();
        }
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            let synced = self.synced(&id);
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            if let Some(ticket) = member.syncing.take() {
                member.touch(turn.now.ms);
                turn.effects.push(Effect::Synced(ticket, synced));
            }
        }
        self.end_wait_for_syncs();
    }

    fn replaced(&mut self, turn: &mut Turn<'_>, ticket: Ticket, id: &str, leader_before: &str) {
        let is_leader = self.leads(id);
        let waits = |member: &&mut Member| member.joining == Some(ticket);
        let is_stable = matches!(self.state, State::Stable { .. });
        let Some(member) = self.members.get_mut(id).filter(waits).filter(|_| is_stable) else {
            return;
        };
        member.joining = None;
        member.is_new = false;
        member.touch(turn.now.ms);
        let can_skip = member.can_skip_assignment;
        let mut joined = self.joined(id, can_skip && is_leader);
        if !can_skip {
            // Told that it does not lead, it will not assign what a stable group would not pass on.
            joined.members = Vec::new();
            leader_before.clone_into(&mut joined.leader);
        }
        turn.effects.push(Effect::Joined(ticket, joined));
    }

    fn end_wait_for_syncs(&mut self) {
        let all_came = self.members.values().all(|member| !member.owes_sync);
        if let State::Stable { until_ms } = &mut self.state
            && all_came
        {
            *until_ms = None;
        }
    }

    fn synced(&self, id: &str) -> Synced {
        Synced {
            error: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self
                .members
                .get(id)
                .map_or_else(Bytes::new, |one| one.assignment.clone()),
        }
    }

    /// What was written is not on disk, or not in time.
    pub(super) fn failed(&mut self, turn: &mut Turn<'_>, what: What, why: NotKept) {
        let error = match why {
            NotKept::TooLarge => ErrorCode::UnknownServerError,
            NotKept::NotNow => ErrorCode::CoordinatorNotAvailable,
        };
        match what {
            What::Assigned { generation, .. } => {
                let is_waited_for = matches!(self.state, State::Completing { .. });
                if is_waited_for && generation == self.generation {
                    self.refuse_syncs(turn, error);
                    self.prepare(turn);
                }
            }
            What::Replaced { ticket, member, .. } => {
                let waits = |one: &&mut Member| one.joining == Some(ticket);
                let is_stable = matches!(self.state, State::Stable { .. });
                let member = self.members.get_mut(&member).filter(waits);
                if let Some(member) = member.filter(|_| is_stable) {
                    member.joining = None;
                    member.touch(turn.now.ms);
                    refuse(turn, ticket, "", error);
                }
            }
            What::Noted
            | What::Committed { .. }
            | What::Forgotten { .. }
            | What::Deleted { .. } => {}
        }
    }

    fn refuse_syncs(&mut self, turn: &mut Turn<'_>, error: ErrorCode) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            let syncing = member.syncing.take();
            if syncing.is_some() {
                member.touch(turn.now.ms);
            }
            answer_sync(turn, syncing, || Synced::refused(error));
        }
    }

    /// A member lives.
    pub(super) fn heartbeat(&mut self, now_ms: u64, beat: &Beat) -> ErrorCode {
        if matches!(self.state, State::Dead { .. }) {
            return ErrorCode::CoordinatorNotAvailable;
        }
        if let Err(error) = self.check_in(&beat.who, beat.generation) {
            return error;
        }
        if let Some(member) = self.members.get_mut(&beat.who.member)
            && !member.is_new
        {
            member.touch(now_ms);
        }
        match self.state {
            State::Empty => ErrorCode::UnknownMemberId,
            State::Preparing { .. } => ErrorCode::RebalanceInProgress,
            State::Completing { .. } | State::Stable { .. } => ErrorCode::None,
            State::Dead { .. } => ErrorCode::CoordinatorNotAvailable,
        }
    }

    /// A member leaves, or is made to: an instance may be named alone.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_>, who: &Who) -> ErrorCode {
        let id = match (who.member.is_empty(), &who.instance) {
            (true, Some(instance)) => self.static_member(instance).cloned(),
            (true, None) => None,
            (false, _) => {
                if self.pending.remove(&who.member).is_some() {
                    self.try_complete(turn);
                    return ErrorCode::None;
                }
                if let Err(error) = self.check(who) {
                    return error;
                }
                Some(who.member.clone())
            }
        };
        let Some(id) = id else {
            return ErrorCode::UnknownMemberId;
        };
        self.remove(turn, &id);
        ErrorCode::None
    }

    /// Takes a member out, and has the others rebalance.
    fn remove(&mut self, turn: &mut Turn<'_>, id: &str) {
        let Some(member) = self.take(id) else {
            return;
        };
        if let Some(ticket) = member.joining {
            refuse(turn, ticket, "", ErrorCode::UnknownMemberId);
        }
        answer_sync(turn, member.syncing, || {
            Synced::refused(ErrorCode::UnknownMemberId)
        });
        match self.state {
            State::Stable { .. } | State::Completing { .. } => self.prepare(turn),
            State::Preparing { .. } => self.try_complete(turn),
            State::Empty | State::Dead { .. } => {}
        }
    }

    /// Who waited for this answer is gone. A member that knows its id may come back within its session.
    pub(super) fn let_go(&mut self, turn: &mut Turn<'_>, ticket: Ticket) {
        let waits = |one: &&mut Member| one.joining == Some(ticket) || one.syncing == Some(ticket);
        let Some(member) = self.members.values_mut().find(waits) else {
            return;
        };
        if member.joining == Some(ticket) {
            member.joining = None;
        } else {
            member.syncing = None;
        }
        if !member.knows_id {
            let id = member.who.member.clone();
            return self.remove(turn, &id);
        }
        member.touch(turn.now.ms);
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        let now_ms = turn.now.ms;
        self.pending.retain(|_, due_ms| *due_ms > now_ms);
        let silent = |member: &&Member| member.can_expire() && member.due_ms <= now_ms;
        let silent = self.members.values().filter(silent);
        for id in silent.map(|one| one.who.member.clone()).collect::<Vec<_>>() {
            self.remove(turn, &id);
        }
        self.try_complete(turn);
        match self.state {
            State::Preparing { until_ms, first } if until_ms <= now_ms => match first {
                Some(first) if first.has_newcomer && first.left_ms > 0 => {
                    let wait_ms = first.left_ms.min(FIRST_DELAY_MS);
                    self.state = State::Preparing {
                        until_ms: now_ms + wait_ms,
                        first: Some(First {
                            left_ms: first.left_ms - wait_ms,
                            has_newcomer: false,
                        }),
                    };
                }
                Some(_) | None => self.complete(turn),
            },
            State::Completing { until_ms, .. } if until_ms <= now_ms => self.end_sync(turn),
            State::Stable {
                until_ms: Some(until_ms),
            } if until_ms <= now_ms => self.end_sync(turn),
            State::Preparing { .. }
            | State::Completing { .. }
            | State::Stable { .. }
            | State::Empty
            | State::Dead { .. } => {}
        }
    }

    /// Who has not asked for its assignment by now is no member any more.
    fn end_sync(&mut self, turn: &mut Turn<'_>) {
        let owing = self.members.values().filter(|member| member.owes_sync);
        let owing: Vec<_> = owing.map(|one| one.who.member.clone()).collect();
        for id in &owing {
            if let Some(member) = self.take(id)
                && let Some(ticket) = member.joining
            {
                refuse(turn, ticket, "", ErrorCode::UnknownMemberId);
            }
        }
        match &mut self.state {
            State::Completing { .. } | State::Stable { .. } if !owing.is_empty() => {
                self.prepare(turn);
            }
            // Only the disk is waited for, and that has a deadline of its own.
            State::Completing { until_ms, .. } => *until_ms = u64::MAX,
            State::Stable { until_ms } => *until_ms = None,
            State::Preparing { .. } | State::Empty | State::Dead { .. } => {}
        }
    }
}

fn refuse(turn: &mut Turn<'_>, ticket: Ticket, id: &str, error: ErrorCode) {
    let joined = Joined::refused(id, error);
    turn.effects.push(Effect::Joined(ticket, joined));
}

fn answer_sync(turn: &mut Turn<'_>, ticket: Option<Ticket>, synced: impl FnOnce() -> Synced) {
    if let Some(ticket) = ticket {
        turn.effects.push(Effect::Synced(ticket, synced()));
    }
}
