//! A client as it should be: what it knows it has from answers alone.

use bytes::Bytes;

use super::{super::ask::*, Dice, GROUP, PARTITIONS, REBALANCE_MS, SESSION_MS};
use crate::kafka::ErrorCode;

/// What it waits for, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Away,
    Joining(Ticket, u64),
    Joined,
    Syncing(Ticket, u64),
    Member,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) who: Who,
    pub(super) stage: Stage,
    pub(super) generation: i32,
    /// It stays away when it is away.
    pub(super) retires: bool,
    number: u64,
    needs_known_id: bool,
    session_ms: u64,
    rebalance_ms: u64,
    mind: u8,
    led: Vec<JoinedMember>,
    owned: Bytes,
}

impl Client {
    pub(super) fn new(number: u64, dice: &mut Dice) -> Self {
        let needs_known_id = dice.one_in(2);
        let is_static = needs_known_id && dice.one_in(2);
        Self {
            who: Who {
                member: String::new(),
                instance: is_static.then(|| format!("instance-{number}")),
            },
            stage: Stage::Away,
            generation: -1,
            retires: false,
            number,
            needs_known_id,
            session_ms: 3_000 + dice.below(SESSION_MS - 3_000),
            rebalance_ms: 3_000 + dice.below(REBALANCE_MS - 3_000),
            mind: 0,
            led: Vec::new(),
            owned: Bytes::new(),
        }
    }

    pub(super) fn join(&self) -> Join {
        let said = Bytes::copy_from_slice(&[self.mind]);
        let mut protocols = vec![
            ("range".to_owned(), said.clone()),
            ("sticky".to_owned(), said),
        ];
        if self.number.is_multiple_of(2) {
            protocols.reverse();
        }
        Join {
            group: GROUP.to_owned(),
            who: self.who.clone(),
            client_id: format!("client-{}", self.number),
            host: "/127.0.0.1".to_owned(),
            session_timeout_ms: i32::try_from(self.session_ms).unwrap(),
            rebalance_timeout_ms: i32::try_from(self.rebalance_ms).unwrap(),
            protocol_type: "consumer".to_owned(),
            protocols,
            needs_known_id: self.needs_known_id,
            can_skip_assignment: self.number.is_multiple_of(3),
        }
    }

    /// Where it leads, each partition goes to one of the members. The generation is part of it, so that an
    /// assignment of another one can be told.
    pub(super) fn sync(&self) -> Sync {
        let count = u8::try_from(self.led.len()).unwrap();
        let assigned = self.led.iter().zip(0..count).map(|(member, at)| {
            let own = (0..PARTITIONS).filter(|partition| partition % count == at);
            let generation = self.generation.to_be_bytes();
            let bytes = generation.into_iter().chain(own).collect();
            (member.who.member.clone(), bytes)
        });
        Sync {
            group: GROUP.to_owned(),
            generation: self.generation,
            who: self.who.clone(),
            protocol_type: Some("consumer".to_owned()),
            protocol: None,
            assignments: assigned.collect(),
        }
    }

    pub(super) fn beat(&self) -> Beat {
        Beat {
            group: GROUP.to_owned(),
            generation: self.generation,
            who: self.who.clone(),
        }
    }

    pub(super) fn commit(&self, unix_ms: i64) -> Commit {
        let of = TopicPartition {
            topic: "t".to_owned(),
            partition: 0,
        };
        let committed = Committed {
            offset: 7,
            leader_epoch: -1,
            metadata: String::new(),
            unix_ms,
        };
        Commit {
            group: GROUP.to_owned(),
            generation: self.generation,
            who: self.who.clone(),
            offsets: vec![(of, committed)],
        }
    }

    pub(super) fn waits_for(&self) -> Option<Ticket> {
        match self.stage {
            Stage::Joining(ticket, _) | Stage::Syncing(ticket, _) => Some(ticket),
            Stage::Away | Stage::Joined | Stage::Member => None,
        }
    }

    pub(super) fn owned(&self) -> &[u8] {
        if self.stage != Stage::Member {
            return &[];
        }
        self.owned.get(4..).unwrap_or_default()
    }

    /// Another process in its place, which knows the instance's name alone.
    pub(super) fn restart(&mut self) {
        self.who.member.clear();
        self.stage = Stage::Away;
        self.generation = -1;
        self.led.clear();
        self.owned = Bytes::new();
    }

    pub(super) fn change_mind(&mut self) {
        self.mind = self.mind.wrapping_add(1);
    }

    pub(super) fn joined(&mut self, joined: Joined) {
        self.stage = Stage::Away;
        if joined.error == ErrorCode::MemberIdRequired {
            self.who.member = joined.member;
        } else if joined.error == ErrorCode::None {
            self.who.member = joined.member;
            self.generation = joined.generation;
            self.led = match joined.skip_assignment {
                true => Vec::new(),
                false => joined.members,
            };
            self.stage = Stage::Joined;
        } else {
            self.refused(joined.error);
        }
    }

    pub(super) fn synced(&mut self, synced: Synced) {
        if synced.error == ErrorCode::None {
            self.stage = Stage::Member;
            self.owned = synced.assignment;
        } else {
            self.refused(synced.error);
        }
    }

    pub(super) fn heard(&mut self, code: ErrorCode) {
        if code != ErrorCode::None {
            self.refused(code);
        }
    }

    fn refused(&mut self, error: ErrorCode) {
        const AGAIN: [ErrorCode; 2] = [
            ErrorCode::RebalanceInProgress,
            ErrorCode::CoordinatorNotAvailable,
        ];
        const ANEW: [ErrorCode; 3] = [
            ErrorCode::UnknownMemberId,
            ErrorCode::IllegalGeneration,
            ErrorCode::FencedInstanceId,
        ];
        if AGAIN.contains(&error) {
            self.stage = Stage::Away;
        } else {
            assert!(ANEW.contains(&error), "{error:?}");
            self.restart();
        }
    }
}
