//! How far a group is: offsets that were committed, and are on disk.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ask::{Commit, Committed, Effect, Now, Ticket, TopicPartition},
    classic::{Group, State},
    record,
    writes::{Turn, What},
};
use crate::kafka::ErrorCode;

/// The longest metadata of an offset, in bytes (`offset.metadata.max.bytes`).
pub(crate) const METADATA_BYTES_MAX: usize = 4096;

/// How long the offsets of a group without members are kept (`offsets.retention.minutes`).
pub(crate) const RETENTION_MS: i64 = 7 * 24 * 3_600_000;

/// The protocol type of consumers, whose subscriptions are known.
const CONSUMER: &str = "consumer";

/// The offsets of one group.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    by: BTreeMap<TopicPartition, Committed>,
    bytes: usize,
}

impl Offsets {
    pub(super) fn is_empty(&self) -> bool {
        self.by.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.by.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, of: &TopicPartition) -> Option<&Committed> {
        self.by.get(of)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &Committed)> {
        self.by.iter()
    }

    pub(super) fn put(&mut self, of: TopicPartition, committed: Committed) {
        self.remove(&of);
        self.bytes += bytes_of(&of, &committed);
        self.by.insert(of, committed);
    }

    pub(super) fn remove(&mut self, of: &TopicPartition) {
        if let Some(committed) = self.by.remove(of) {
            self.bytes -= bytes_of(of, &committed);
        }
    }
}

fn bytes_of(of: &TopicPartition, committed: &Committed) -> usize {
    // With what a map and an allocation add.
    of.topic.len() + committed.metadata.len() + 160
}

impl Group {
    /// Keeps how far the group is. `room` is how many offsets more there is room for.
    pub(super) fn commit(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        commit: Commit,
        room: usize,
    ) {
        if let Err(error) = self.may_commit(&commit, turn.now.ms) {
            let codes = vec![error; commit.offsets.len()];
            return turn.effects.push(Effect::Answered(ticket, codes));
        }
        let mut room = room;
        let mut codes = Vec::with_capacity(commit.offsets.len());
        let mut offsets = Vec::new();
        for (of, committed) in commit.offsets {
            let is_new = self.offsets.get(&of).is_none();
            let code = if committed.metadata.len() > METADATA_BYTES_MAX {
                ErrorCode::OffsetMetadataTooLarge
            } else if is_new && room == 0 {
                ErrorCode::InvalidCommitOffsetSize
            } else {
                room -= usize::from(is_new);
                offsets.push((of, committed));
                ErrorCode::None
            };
            codes.push(code);
        }
        if offsets.is_empty() {
            return turn.effects.push(Effect::Answered(ticket, codes));
        }
        let record = |(of, committed): &(TopicPartition, Committed)| {
            let key = record::offset_key(&self.name, of);
            (key, Some(record::offset_value(committed)))
        };
        let records = offsets.iter().map(record).collect();
        let what = What::Committed {
            ticket: Some(ticket),
            offsets,
            codes,
        };
        if let Err(What::Committed { codes, .. }) = turn.write(&self.name, records, what) {
            let codes = failed(&codes, ErrorCode::CoordinatorNotAvailable);
            turn.effects.push(Effect::Answered(ticket, codes));
        }
    }

    /// Whether who commits may: a member in its generation, or, where there are no members, anybody who says
    /// to be none.
    fn may_commit(&mut self, commit: &Commit, now_ms: u64) -> Result<(), ErrorCode> {
        if matches!(self.state, State::Dead { .. }) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        if commit.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        let is_anybody =
            commit.generation < 0 && commit.who.member.is_empty() && commit.who.instance.is_none();
        if is_anybody {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_in(&commit.who, commit.generation)?;
        if matches!(self.state, State::Completing { .. }) {
            return Err(ErrorCode::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(&commit.who.member) {
            member.touch(now_ms);
        }
        Ok(())
    }

    /// Forgets offsets, but not of topics that its consumers read.
    pub(super) fn forget(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        offsets: Vec<TopicPartition>,
    ) {
        let is_consumers = self.protocol_type.as_deref() == Some(CONSUMER);
        let error = match self.state {
            State::Dead { .. } => Some(ErrorCode::GroupIdNotFound),
            State::Empty => None,
            _ if is_consumers => None,
            State::Preparing { .. } | State::Completing { .. } | State::Stable { .. } => {
                Some(ErrorCode::NonEmptyGroup)
            }
        };
        if let Some(error) = error {
            let codes = vec![error; offsets.len()];
            return turn.effects.push(Effect::Answered(ticket, codes));
        }
        let subscribed = self.subscribed();
        let reads = |of: &TopicPartition| match &subscribed {
            _ if self.members.is_empty() => false,
            Some(topics) => topics.contains(&of.topic),
            // What is not known may be read.
            None => true,
        };
        let code = |of: &TopicPartition| match reads(of) {
            true => ErrorCode::GroupSubscribedToTopic,
            false => ErrorCode::None,
        };
        let codes: Vec<_> = offsets.iter().map(code).collect();
        let there = |of: &TopicPartition| !reads(of) && self.offsets.get(of).is_some();
        let there: Vec<_> = offsets.into_iter().filter(there).collect();
        if there.is_empty() {
            return turn.effects.push(Effect::Answered(ticket, codes));
        }
        if let Some(codes) = self.drop_offsets(turn, Some(ticket), there, codes) {
            turn.effects.push(Effect::Answered(ticket, codes));
        }
    }

    /// Forgets how far the group is in a topic that is gone. Says whether there is room to write that now.
    pub(super) fn forget_topic(&self, turn: &mut Turn<'_>, topic: &str) -> bool {
        let known = self.offsets.iter().map(|(of, _)| of);
        let mut gone: BTreeSet<_> = known.filter(|of| of.topic == topic).cloned().collect();
        // What is on its way to the disk comes before.
        for write in turn.writes.of(&self.name) {
            if let What::Committed { offsets, .. } = &write.what {
                let of = offsets.iter().map(|(of, _)| of);
                gone.extend(of.filter(|of| of.topic == topic).cloned());
            }
        }
        let gone: Vec<_> = gone.into_iter().collect();
        gone.is_empty() || self.drop_offsets(turn, None, gone, Vec::new()).is_none()
    }

    /// Writes tombstones for offsets; says what to answer where that cannot be done now.
    fn drop_offsets(
        &self,
        turn: &mut Turn<'_>,
        ticket: Option<Ticket>,
        offsets: Vec<TopicPartition>,
        codes: Vec<ErrorCode>,
    ) -> Option<Vec<ErrorCode>> {
        let tombstone = |of| (record::offset_key(&self.name, of), None);
        let records = offsets.iter().map(tombstone).collect();
        let what = What::Forgotten {
            ticket,
            offsets,
            codes,
        };
        match turn.write(&self.name, records, what) {
            Err(What::Forgotten { codes, .. }) => {
                Some(failed(&codes, ErrorCode::CoordinatorNotAvailable))
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// The topics that its consumers subscribe to; none where that is not known of each of them.
    fn subscribed(&self) -> Option<BTreeSet<String>> {
        let protocol = self.protocol.as_deref()?;
        let mut all = BTreeSet::new();
        for member in self.members.values() {
            all.extend(record::subscribed_topics(&member.metadata(protocol))?);
        }
        Some(all)
    }

    /// Forgets what nobody has asked for in a long time: of a group without members everything, of consumers
    /// what they do not subscribe to any more.
    pub(super) fn expire(&self, turn: &mut Turn<'_>) {
        let expired = self.expired(turn.now);
        // What is just being committed is not old.
        let is_busy = turn.writes.of(&self.name).next().is_some();
        if expired.is_empty() || is_busy {
            return;
        }
        let codes = Vec::new();
        // What has no room now is found again by the next sweep.
        let _ = self.drop_offsets(turn, None, expired, codes);
    }

    fn expired(&self, now: Now) -> Vec<TopicPartition> {
        let is_old = |since: i64| now.unix_ms.saturating_sub(since) >= RETENTION_MS;
        let old = |base: &dyn Fn(&TopicPartition, &Committed) -> bool| {
            let old = self
                .offsets
                .iter()
                .filter(|(of, committed)| base(of, committed));
            old.map(|(of, _)| of.clone()).collect()
        };
        match (self.state, self.protocol_type.as_deref()) {
            (State::Empty, Some(_)) => {
                let since = self.since_unix_ms;
                old(&|_, committed| is_old(since.max(committed.unix_ms)))
            }
            (State::Empty, None) => old(&|_, committed| is_old(committed.unix_ms)),
            (State::Stable { .. }, Some(CONSUMER)) => match self.subscribed() {
                None => Vec::new(),
                Some(topics) => {
                    old(&|of, committed| !topics.contains(&of.topic) && is_old(committed.unix_ms))
                }
            },
            _ => Vec::new(),
        }
    }
}

/// The same codes, where what was to be written is not.
pub(super) fn failed(codes: &[ErrorCode], error: ErrorCode) -> Vec<ErrorCode> {
    codes.iter().map(|code| code.or(error)).collect()
}
