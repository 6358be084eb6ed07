//! How many bytes a client may send and fetch in a second; more makes it wait (KIP-13, KIP-219, KIP-546).
//!
//! Whoever is over its quota is answered at once, is told for how long it is not listened to, and is not
//! listened to for so long. Nobody else waits for it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// How much of a second's bytes may come at once.
const BURST_NS: u64 = 1_000_000_000;

/// The longest that anybody is not listened to at a time.
pub const THROTTLED_AT_MOST: Duration = Duration::from_secs(30);

const THROTTLED_AT_MOST_NS: u64 = 30_000_000_000;

/// Clients whose bytes are counted each for itself, in all and of one user; beyond these, they share one count.
pub const CLOCKS_MAX: usize = 10_000;
const CLOCKS_MAX_PER_USER: usize = 1_000;

/// Whose quota it is: a user's, a client id's, or both together.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entity {
    /// The user, where it is about users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Whom>,
    /// The client id, where it is about client ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Whom>,
}

/// One, or each that has no quota of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whom {
    /// Each without a quota of its own.
    Default,
    /// This one.
    Named(String),
}

impl Whom {
    fn part(&self) -> String {
        match self {
            Self::Default => "default".to_owned(),
            Self::Named(name) => format!("={}", name.replace('%', "%25").replace('/', "%2F")),
        }
    }
}

impl fmt::Display for Entity {
    /// `user=alice`, `user=* client-id=app`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |kind: &str, whom: &Option<Whom>| match whom {
            None => String::new(),
            Some(Whom::Default) => format!("{kind}=*"),
            Some(Whom::Named(name)) => format!("{kind}={name}"),
        };
        let (user, client_id) = (part("user", &self.user), part("client-id", &self.client_id));
        let between = if user.is_empty() || client_id.is_empty() {
            ""
        } else {
            " "
        };
        write!(f, "{user}{between}{client_id}")
    }
}

impl Entity {
    /// Where its quota is kept.
    pub(crate) fn key(&self) -> String {
        let part = |whom: &Option<Whom>| whom.as_ref().map_or_else(String::new, Whom::part);
        format!("quota/{}/{}", part(&self.user), part(&self.client_id))
    }
}

/// Bytes a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Of what is produced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer_byte_rate: Option<f64>,
    /// Of what is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_byte_rate: Option<f64>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flow {
    /// To the log.
    Produce,
    /// From it.
    Fetch,
}

impl Rates {
    /// Of this direction.
    pub(crate) fn of(&self, flow: Flow) -> Option<f64> {
        match flow {
            Flow::Produce => self.producer_byte_rate,
            Flow::Fetch => self.consumer_byte_rate,
        }
    }

    /// The rate of Kafka's name for it; none where nothing is kept of that name.
    pub(crate) fn named(&mut self, key: &str) -> Option<&mut Option<f64>> {
        match key {
            "producer_byte_rate" => Some(&mut self.producer_byte_rate),
            "consumer_byte_rate" => Some(&mut self.consumer_byte_rate),
            _ => None,
        }
    }

    /// Those that are given, by Kafka's names.
    pub(crate) fn given(&self) -> Vec<(&'static str, f64)> {
        let produced = self
            .producer_byte_rate
            .map(|rate| ("producer_byte_rate", rate));
        let consumed = self
            .consumer_byte_rate
            .map(|rate| ("consumer_byte_rate", rate));
        produced.into_iter().chain(consumed).collect()
    }
}

/// Whose bytes are counted together: a user and a client id, as far as the quota tells them apart. A hash with a
/// key that nobody knows stands for each: names are as long as their owners like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Counted {
    flow: Flow,
    user: Option<u64>,
    client: Option<u64>,
}

/// Until when what was sent has been paid for, in nanoseconds of the monotonic clock; and whose it is.
#[derive(Debug, Clone, Copy)]
struct Clock {
    paid_ns: u64,
    owner: u64,
}

/// The quotas, and how far ahead of them each client is.
#[derive(Debug, Default)]
pub struct Quotas {
    rates: BTreeMap<Entity, Rates>,
    clocks: HashMap<Counted, Clock>,
    names: RandomState,
}

impl Quotas {
    /// With these rates.
    pub fn new(rates: impl IntoIterator<Item = (Entity, Rates)>) -> Self {
        Self {
            rates: rates.into_iter().collect(),
            clocks: HashMap::new(),
            names: RandomState::new(),
        }
    }

    /// Every quota, in order.
    pub fn all(&self) -> impl Iterator<Item = (&Entity, &Rates)> {
        self.rates.iter()
    }

    /// The quota of exactly this entity.
    pub fn get(&self, entity: &Entity) -> Option<&Rates> {
        self.rates.get(entity)
    }

    /// Sets a quota, or removes it.
    pub fn set(&mut self, entity: Entity, rates: Option<Rates>) {
        match rates {
            Some(rates) => self.rates.insert(entity, rates),
            None => self.rates.remove(&entity),
        };
    }

    /// Counts `bytes` of a client, and says for how long it is not to be listened to.
    pub fn charge(
        &mut self,
        flow: Flow,
        user: &str,
        client_id: &str,
        bytes: usize,
        now_ns: u64,
    ) -> Duration {
        if self.rates.is_empty() {
            return Duration::ZERO;
        }
        let Some((rate, counted)) = self.rate_of(flow, user, client_id) else {
            return Duration::ZERO;
        };
        #[expect(clippy::cast_precision_loss, reason = "a frame has 16 MiB at most")]
        let seconds = bytes as f64 / rate;
        let cost = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let cost_ns = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        let owner = self.names.hash_one(user);
        let counted = self.clock(counted, owner, now_ns);
        if bytes == 0 && !self.clocks.contains_key(&counted) {
            return Duration::ZERO;
        }
        let clock = self.clocks.entry(counted);
        let Clock { paid_ns, .. } = clock.or_insert(Clock { paid_ns: 0, owner });
        // What is owed is bounded: nobody is shut out for longer than it is told.
        let owed_ns = (*paid_ns).max(now_ns) - now_ns;
        let owed_ns = owed_ns
            .saturating_add(cost_ns)
            .min(BURST_NS + THROTTLED_AT_MOST_NS);
        *paid_ns = now_ns.saturating_add(owed_ns);
        Duration::from_nanos(owed_ns.saturating_sub(BURST_NS))
    }

    /// By which clock it is counted: its own, or, where there are too many, one that is shared.
    fn clock(&mut self, counted: Counted, owner: u64, now_ns: u64) -> Counted {
        if self.clocks.contains_key(&counted) {
            return counted;
        }
        if self.is_crowded(owner) {
            self.clocks.retain(|_, clock| clock.paid_ns > now_ns);
        }
        let is_full = self.clocks.len() >= CLOCKS_MAX;
        match self.is_crowded(owner) {
            false => counted,
            true => Counted {
                user: counted.user.filter(|_| !is_full),
                client: None,
                ..counted
            },
        }
    }

    /// Whether there are as many clocks as may be, in all or of this owner.
    fn is_crowded(&self, owner: u64) -> bool {
        let own = self.clocks.values().filter(|clock| clock.owner == owner);
        self.clocks.len() >= CLOCKS_MAX || own.count() >= CLOCKS_MAX_PER_USER
    }

    /// The quota that holds, and who shares it: the most special one, in Kafka's order.
    fn rate_of(&self, flow: Flow, user: &str, client_id: &str) -> Option<(f64, Counted)> {
        let named = |name: &str| Some(Whom::Named(name.to_owned()));
        let default = || Some(Whom::Default);
        let order = [
            (named(user), named(client_id)),
            (named(user), default()),
            (named(user), None),
            (default(), named(client_id)),
            (default(), default()),
            (default(), None),
            (None, named(client_id)),
            (None, default()),
        ];
        order.into_iter().find_map(|(of_user, of_client)| {
            let entity = Entity {
                user: of_user,
                client_id: of_client,
            };
            let rate = self.rates.get(&entity)?.of(flow)?;
            let counted = Counted {
                flow,
                user: entity.user.map(|_| self.names.hash_one(user)),
                client: entity.client_id.map(|_| self.names.hash_one(client_id)),
            };
            Some((rate, counted))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn named(name: &str) -> Option<Whom> {
        Some(Whom::Named(name.to_owned()))
    }

    fn entity(user: Option<Whom>, client_id: Option<Whom>) -> Entity {
        Entity { user, client_id }
    }

    fn fetching(rate: f64) -> Rates {
        Rates {
            consumer_byte_rate: Some(rate),
            ..Rates::default()
        }
    }

    #[test]
    fn over_its_quota_a_client_waits_as_long_as_its_bytes_are_worth() {
        let mut quotas = Quotas::new([(entity(named("me"), None), fetching(1_000.0))]);
        let mut fetch = |bytes, now| quotas.charge(Flow::Fetch, "me", "c", bytes, now);
        assert_eq!(fetch(1_000, 0), Duration::ZERO);
        assert_eq!(fetch(500, 0), Duration::from_millis(500));
        assert_eq!(fetch(0, SECOND / 2), Duration::ZERO);
        assert_eq!(fetch(1_000, SECOND / 2), Duration::from_secs(1));
        assert_eq!(fetch(1_000, 100 * SECOND), Duration::ZERO);
        assert_eq!(fetch(1 << 24, 100 * SECOND), THROTTLED_AT_MOST);
        assert_eq!(fetch(0, 131 * SECOND), Duration::ZERO);
    }

    #[test]
    fn over_time_a_client_gets_its_rate() {
        let mut quotas = Quotas::new([(entity(None, named("c")), fetching(10_000.0))]);
        let (mut now, mut fetched) = (0, 0);
        while now < 100 * SECOND {
            fetched += 4_096;
            let wait = quotas.charge(Flow::Fetch, "me", "c", 4_096, now);
            now += u64::try_from(wait.as_nanos()).unwrap() + 1_000;
        }
        assert!((1_000_000..1_020_000).contains(&fetched), "{fetched}");
    }

    #[test]
    fn the_most_special_quota_holds() {
        let order = [
            entity(named("me"), named("c")),
            entity(named("me"), Some(Whom::Default)),
            entity(named("me"), None),
            entity(Some(Whom::Default), named("c")),
            entity(Some(Whom::Default), Some(Whom::Default)),
            entity(Some(Whom::Default), None),
            entity(None, named("c")),
            entity(None, Some(Whom::Default)),
        ];
        let rates = (1..).map(|nth| fetching(f64::from(nth)));
        let mut quotas = Quotas::new(order.iter().cloned().zip(rates));
        for (nth, entity) in order.iter().enumerate() {
            let (rate, _) = quotas.rate_of(Flow::Fetch, "me", "c").unwrap();
            assert_eq!(rate, nth as f64 + 1.0, "{entity:?}");
            assert!(quotas.rate_of(Flow::Produce, "me", "c").is_none());
            quotas.set(entity.clone(), None);
        }
        assert!(quotas.rate_of(Flow::Fetch, "me", "c").is_none());
    }

    #[test]
    fn a_default_is_each_ones_own() {
        let each = entity(Some(Whom::Default), None);
        let mut quotas = Quotas::new([(each, fetching(1.0))]);
        assert_eq!(
            quotas.charge(Flow::Fetch, "a", "1", 2, 0),
            Duration::from_secs(1)
        );
        assert_eq!(quotas.charge(Flow::Fetch, "b", "1", 1, 0), Duration::ZERO);
        // All of a user's clients together.
        assert_eq!(
            quotas.charge(Flow::Fetch, "b", "2", 1, 0),
            Duration::from_secs(1)
        );
        assert_eq!(quotas.charge(Flow::Produce, "a", "1", 2, 0), Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded() {
        let each = entity(Some(Whom::Default), Some(Whom::Default));
        let mut quotas = Quotas::new([(each, fetching(1.0))]);
        let long = "x".repeat(32_767);
        quotas.charge(Flow::Fetch, "me", &long, 0, 0);
        assert_eq!(quotas.clocks.len(), 0);
        for client in 0..2 * CLOCKS_MAX_PER_USER {
            quotas.charge(Flow::Fetch, "me", &client.to_string(), 10, 0);
        }
        assert_eq!(quotas.clocks.len(), CLOCKS_MAX_PER_USER + 1);
        // Others have their own still.
        assert_eq!(quotas.charge(Flow::Fetch, "you", "a", 1, 0), Duration::ZERO);
        for user in 0..2 * CLOCKS_MAX {
            quotas.charge(Flow::Fetch, &user.to_string(), "a", 10, 0);
        }
        assert!(quotas.clocks.len() <= CLOCKS_MAX + 1);
        // Whoever comes now shares the count of all that found no room.
        assert!(quotas.charge(Flow::Fetch, "me", "new", 0, 0) > Duration::ZERO);
        assert_eq!(
            quotas.charge(Flow::Fetch, "me", "new", 0, 40 * SECOND),
            Duration::ZERO
        );
    }

    #[test]
    fn keys_differ_as_the_entities_do() {
        let keys = [
            entity(named("default"), None).key(),
            entity(Some(Whom::Default), None).key(),
            entity(None, Some(Whom::Default)).key(),
            entity(named("a/b"), named("")).key(),
            entity(named("a"), named("b")).key(),
        ];
        let unlike: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(unlike.len(), keys.len(), "{keys:?}");
    }

    #[test]
    fn an_entity_is_kept_as_json_and_read_again() {
        let one = entity(named("me"), Some(Whom::Default));
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(
            json,
            "{\"user\":{\"named\":\"me\"},\"client_id\":\"default\"}"
        );
        assert_eq!(serde_json::from_str::<Entity>(&json).unwrap(), one);
    }
}
