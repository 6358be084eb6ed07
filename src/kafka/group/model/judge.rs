//! What must hold, told by requests and answers alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;

use super::super::ask::*;
use crate::kafka::ErrorCode;

/// One generation, as its members were told of it.
#[derive(Debug, Default)]
struct Generation {
    leader: Option<String>,
    protocol: Option<String>,
    /// Those who were told that they are in it.
    told: BTreeSet<String>,
    /// Whom the leader was told of.
    listed: BTreeSet<String>,
    /// What leaders asked to assign.
    asked: Vec<HashMap<String, Bytes>>,
    /// Who owns a partition: an instance, or a member.
    owners: BTreeMap<u8, String>,
}

#[derive(Debug, Default)]
pub(super) struct Judge {
    /// No more faults.
    pub(super) is_calm: bool,
    pub(super) assigned: u64,
    pub(super) replaced: u64,
    generations: BTreeMap<i32, Generation>,
    /// The id that an instance was given last, and those before it.
    instances: HashMap<String, (String, HashSet<String>)>,
    let_go: HashSet<Ticket>,
    state: &'static str,
    since_ms: u64,
}

impl Judge {
    pub(super) fn generations(&self) -> u64 {
        self.generations.len() as u64
    }

    pub(super) fn let_go(&mut self, ticket: Ticket) {
        self.let_go.insert(ticket);
    }

    pub(super) fn was_let_go(&self, ticket: Ticket) -> bool {
        self.let_go.contains(&ticket)
    }

    fn newest(&self) -> i32 {
        self.generations.keys().next_back().copied().unwrap_or(0)
    }

    pub(super) fn is_in(&mut self, state: &'static str, now_ms: u64) {
        if self.state != state {
            (self.state, self.since_ms) = (state, now_ms);
        }
    }

    pub(super) fn assert_no_rebalance_lasts(&self, now_ms: u64, most_ms: u64) {
        let lasts = now_ms - self.since_ms;
        let is_under_way = self.state.ends_with("Rebalance");
        assert!(
            !is_under_way || lasts <= most_ms,
            "{} for {lasts} ms",
            self.state
        );
    }

    pub(super) fn joined(&mut self, joined: &Joined) {
        if joined.error != ErrorCode::None {
            assert!(joined.members.is_empty());
            return;
        }
        assert!(
            joined.generation >= self.newest(),
            "generations go back: {joined:?}"
        );
        let generation = self.generations.entry(joined.generation).or_default();
        let protocol = joined.protocol.clone();
        assert!(protocol.is_some(), "{joined:?}");
        assert_eq!(
            generation.protocol.get_or_insert(protocol.clone().unwrap()),
            &protocol.unwrap()
        );
        let is_first = !joined.members.is_empty();
        if is_first {
            assert_eq!(joined.leader, joined.member);
            generation.listed = joined
                .members
                .iter()
                .map(|one| one.who.member.clone())
                .collect();
            assert!(generation.listed.contains(&joined.member));
            for one in &joined.members {
                if let Some(instance) = &one.who.instance {
                    let known = self.instances.entry(instance.clone()).or_default();
                    if known.0 != one.who.member {
                        let old = std::mem::replace(&mut known.0, one.who.member.clone());
                        self.replaced += u64::from(!old.is_empty());
                        known.1.insert(old);
                    }
                }
            }
        }
        if let Some(instance) = instance_of(&joined.member) {
            let known = self.instances.entry(instance).or_default();
            if known.0 != joined.member {
                let old = std::mem::replace(&mut known.0, joined.member.clone());
                self.replaced += u64::from(!old.is_empty());
                known.1.insert(old);
            }
        }
        // A static member may lead under two ids: it is told of the one before it, so that it does not assign.
        let leader = generation
            .leader
            .get_or_insert_with(|| joined.leader.clone());
        let is_same = *leader == joined.leader
            || (instance_of(leader).is_some()
                && instance_of(leader) == instance_of(&joined.leader));
        assert!(is_same, "two leaders: {joined:?}, {leader}");
        generation.told.insert(joined.member.clone());
    }

    pub(super) fn asks_to_sync(&mut self, sync: &Sync) {
        if !sync.assignments.is_empty() {
            let asked = sync.assignments.iter().cloned().collect();
            let generation = self.generations.entry(sync.generation).or_default();
            generation.asked.push(asked);
        }
    }

    pub(super) fn synced(&mut self, who: &Who, number: i32, synced: &Synced) {
        if synced.error != ErrorCode::None {
            return;
        }
        let generation = self
            .generations
            .get_mut(&number)
            .expect("a generation that was told of");
        assert!(
            generation.told.contains(&who.member),
            "{who:?} was never told"
        );
        let bytes = &synced.assignment;
        let owner = who.instance.clone().unwrap_or_else(|| who.member.clone());
        let ids: Vec<&String> = match &who.instance {
            None => vec![&who.member],
            Some(instance) => {
                let (id, before) = &self.instances[instance];
                before.iter().chain([id]).collect()
            }
        };
        let was_asked = generation.asked.iter().any(|asked| {
            ids.iter()
                .any(|id| asked.get(*id).unwrap_or(&Bytes::new()) == bytes)
        });
        assert!(
            was_asked,
            "nobody assigned {bytes:?} to {who:?} in {number}"
        );
        for partition in bytes.iter().skip(4) {
            let before = generation
                .owners
                .entry(*partition)
                .or_insert_with(|| owner.clone());
            assert_eq!(*before, owner, "two own {partition} in {number}");
        }
        self.assigned += 1;
    }

    pub(super) fn heard(&self, beat: &Beat, code: ErrorCode) {
        if code != ErrorCode::None {
            return;
        }
        assert!(beat.generation >= self.newest(), "{beat:?} is late");
        if let Some(instance) = &beat.who.instance {
            assert_eq!(
                beat.who.member, self.instances[instance].0,
                "{beat:?} is fenced"
            );
        }
    }
}

/// Ids of static members begin with their instances' names.
fn instance_of(member: &str) -> Option<String> {
    let name = member.strip_prefix("instance-")?;
    let (number, _) = name.split_once('-')?;
    Some(format!("instance-{number}"))
}
