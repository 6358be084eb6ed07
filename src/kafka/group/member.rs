//! A member of a group, and how it votes.

use bytes::Bytes;

use super::ask::{Join, Ticket, Who};

/// How long a new member's join may wait: what of it is left behind by a client that went away and tries
/// again goes after that (KAFKA-7610).
pub(super) const NEW_MEMBER_MS: u64 = 5 * 60_000;

/// Nobody joins and syncs faster than this.
const REBALANCE_MS_MIN: u64 = 1_000;

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) who: Who,
    pub(super) client_id: String,
    pub(super) host: String,
    pub(super) session_timeout_ms: u64,
    pub(super) rebalance_timeout_ms: u64,
    /// By preference: names, and what the member says of itself.
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// Waits for the next generation.
    pub(super) joining: Option<Ticket>,
    /// Waits for its assignment.
    pub(super) syncing: Option<Ticket>,
    pub(super) can_skip_assignment: bool,
    /// It was never part of a generation.
    pub(super) is_new: bool,
    /// It was told its id: it can come back with it.
    pub(super) knows_id: bool,
    /// It has not asked for its assignment of this generation yet.
    pub(super) owes_sync: bool,
    /// When its session ends, unless it waits for an answer.
    pub(super) due_ms: u64,
}

impl Member {
    pub(super) fn new(id: String, join: &Join, knows_id: bool) -> Self {
        let mut member = Self {
            who: Who {
                member: id,
                instance: join.who.instance.clone(),
            },
            client_id: join.client_id.clone(),
            host: join.host.clone(),
            session_timeout_ms: 0,
            rebalance_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            joining: None,
            syncing: None,
            can_skip_assignment: false,
            is_new: true,
            knows_id,
            owes_sync: false,
            due_ms: 0,
        };
        member.say(join);
        member
    }

    /// Takes over what it says of itself now.
    pub(super) fn say(&mut self, join: &Join) {
        self.session_timeout_ms = millis(join.session_timeout_ms);
        self.rebalance_timeout_ms = millis(join.rebalance_timeout_ms).max(REBALANCE_MS_MIN);
        // Copied, so that no member keeps the whole request.
        let copied =
            |(name, bytes): &(String, Bytes)| (name.clone(), Bytes::copy_from_slice(bytes));
        self.protocols = join.protocols.iter().map(copied).collect();
        self.can_skip_assignment = join.can_skip_assignment;
    }

    /// Whether it said the same before.
    pub(super) fn says(&self, join: &Join) -> bool {
        self.protocols == join.protocols
    }

    pub(super) fn speaks(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// What it says of itself to those who speak this protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let of_it = self.protocols.iter().find(|(name, _)| name == protocol);
        of_it.map_or_else(Bytes::new, |(_, bytes)| bytes.clone())
    }

    /// It lives: its session begins anew.
    pub(super) fn touch(&mut self, now_ms: u64) {
        self.due_ms = now_ms.saturating_add(self.session_timeout_ms);
    }

    /// Whether its session may end. Who waits for an answer cannot be heard meanwhile; but for new members,
    /// nobody would know of those whose clients went away.
    pub(super) fn can_expire(&self) -> bool {
        self.is_new || (self.joining.is_none() && self.syncing.is_none())
    }

    /// Bytes that it takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        let protocols = self.protocols.iter();
        let protocols: usize = protocols
            .map(|(name, bytes)| name.len() + bytes.len() + 64)
            .sum();
        let names = self.who.member.len() + self.client_id.len() + self.host.len();
        let instance = self.who.instance.as_ref().map_or(0, String::len);
        size_of::<Self>() + names + 2 * instance + protocols + self.assignment.len()
    }
}

/// A timeout as clients give it; below zero is none.
fn millis(given: i32) -> u64 {
    u64::try_from(given).unwrap_or(0)
}

/// The protocol that most members prefer among those that all of them speak; the one that the oldest member
/// prefers where several are preferred alike.
pub(super) fn choose<'a>(members: &(impl Iterator<Item = &'a Member> + Clone)) -> Option<String> {
    let common = |name: &str| members.clone().all(|member| member.speaks(name));
    let mut votes: Vec<(&str, u32)> = Vec::new();
    for member in members.clone() {
        let preferred = member.protocols.iter().map(|(name, _)| name.as_str());
        let Some(vote) = preferred.into_iter().find(|name| common(name)) else {
            continue;
        };
        match votes.iter_mut().find(|(name, _)| *name == vote) {
            Some((_, count)) => *count += 1,
            None => votes.push((vote, 1)),
        }
    }
    let most = votes.iter().map(|(_, count)| *count).max()?;
    let chosen = votes.iter().find(|(_, count)| *count == most)?;
    Some(chosen.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(protocols: &[&str]) -> Member {
        let protocols = protocols
            .iter()
            .map(|name| ((*name).to_owned(), Bytes::new()));
        let join = Join {
            protocols: protocols.collect(),
            ..Join::default()
        };
        Member::new("m".to_owned(), &join, true)
    }

    #[test]
    fn the_protocol_is_the_one_most_prefer_of_those_all_speak() {
        let members = [
            member(&["sticky", "range"]),
            member(&["range", "sticky"]),
            member(&["roundrobin", "sticky", "range"]),
        ];
        assert_eq!(choose(&members.iter()).as_deref(), Some("sticky"));
        let members = [member(&["a", "b"]), member(&["b", "a"])];
        assert_eq!(choose(&members.iter()).as_deref(), Some("a"));
        let members = [member(&["a"]), member(&["b"])];
        assert_eq!(choose(&members.iter()), None);
    }
}
