//! How the mirror is: kept for whoever asks, and told to the log when it changes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::event::{
    ban,
    exchange::{self, BANS, Report},
};

/// What the mirror is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Doing {
    /// It has begun, and has not reached both sides yet.
    Starting,
    /// Records flow, or would if there were any.
    Running,
    /// It tries again soon.
    Waiting(String),
}

/// One partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Partition {
    /// All before it is acknowledged by the cluster.
    pub(super) done: i64,
    /// The first record that the local log still has.
    pub(super) low: i64,
    /// The end of the local log, when it was last asked.
    pub(super) high: i64,
}

impl Partition {
    /// Records that are not acknowledged.
    fn lag(&self) -> u64 {
        u64::try_from(self.high.saturating_sub(self.done)).unwrap_or(0)
    }
}

/// One topic on its way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Topic {
    /// Why it does not go for now.
    pub(super) refused: Option<String>,
    /// Its partitions, as far as they are known.
    pub(super) partitions: BTreeMap<i32, Partition>,
    /// When the last record was written that was acknowledged, in milliseconds since 1970.
    pub(super) written_ms: Option<i64>,
    /// In how many milliseconds the local log deletes what is not acknowledged.
    pub(super) loses_in_ms: Option<u64>,
    /// Records, since the start: acknowledged; the bytes of their values; deleted here before they were; dead letters.
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) lost: u64,
    pub(super) dead: u64,
}

impl Topic {
    /// Records that are not acknowledged.
    pub(super) fn lag(&self) -> u64 {
        self.partitions.values().map(Partition::lag).sum()
    }

    fn report(&self, name: &str, now_ms: u64) -> exchange::Topic {
        let written_ms = self.written_ms.and_then(|ms| u64::try_from(ms).ok());
        let behind_ms = written_ms.map_or(0, |ms| now_ms.saturating_sub(ms));
        let lag = self.lag();
        let partitions = self.partitions.iter();
        exchange::Topic {
            topic: name.to_owned(),
            error: self.refused.clone(),
            lag,
            behind_ms: if lag == 0 { 0 } else { behind_ms },
            loses_in_ms: self.loses_in_ms,
            sent: self.sent,
            sent_bytes: self.sent_bytes,
            lost: self.lost,
            dead: self.dead,
            partitions: partitions
                .map(|(&partition, of)| exchange::Partition {
                    partition,
                    position: of.done,
                    end: of.high,
                })
                .collect(),
        }
    }
}

/// What is known of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cluster {
    pub(super) id: Option<String>,
    /// Its brokers: id, address, whether there is a connection.
    pub(super) brokers: Vec<(i32, String, bool)>,
}

impl Cluster {
    fn is_away(&self) -> bool {
        !self.brokers.iter().any(|&(_, _, is_up)| is_up)
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// What each of its parts does.
    parts: BTreeMap<&'static str, Doing>,
    /// How it stands, all in all, and since when in milliseconds since 1970.
    stands: (exchange::State, u64),
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) cluster: Cluster,
}

impl Told {
    /// How it stands, and what is wrong.
    fn judge(&self) -> (exchange::State, Option<String>) {
        let mut wrong = self.parts.values().filter_map(|doing| match doing {
            Doing::Waiting(why) => Some(why.clone()),
            Doing::Starting | Doing::Running => None,
        });
        let starts = self.parts.values().any(|doing| *doing == Doing::Starting);
        let refused = self.topics.iter().find_map(|(name, topic)| {
            let why = topic.refused.as_ref()?;
            Some(format!("{name}: {why}"))
        });
        let down = self.cluster.brokers.iter().find(|(_, _, is_up)| !is_up);
        let down = down.map(|(_, address, _)| format!("no connection to {address}"));
        let is_away = self.cluster.is_away();
        let why = wrong.next().or(refused).or_else(|| down.clone());
        let state = match &why {
            _ if is_away && starts => exchange::State::Starting,
            _ if is_away => exchange::State::Away,
            Some(_) => exchange::State::Degraded,
            None if starts => exchange::State::Starting,
            None => exchange::State::Connected,
        };
        (state, why)
    }

    /// What is told to the proxy.
    pub(super) fn report(&self, now_ms: u64) -> Report {
        let (state, why) = self.judge();
        let brokers = self.cluster.brokers.iter().cloned();
        let topics = self.topics.iter();
        Report {
            state,
            since_unix_ms: self.stands.1,
            why,
            cluster_id: self.cluster.id.clone(),
            brokers: brokers
                .map(|(id, address, is_up)| exchange::Broker { id, address, is_up })
                .collect(),
            topics: topics
                .map(|(name, topic)| topic.report(name, now_ms))
                .collect(),
        }
    }
}

/// What is known, shared by the mirror's threads; each holds it for an assignment or a copy.
#[derive(Debug)]
pub(super) struct Status(Mutex<Told>);

impl Status {
    /// Of these parts and topics, none of which has begun.
    pub(super) fn new(parts: &[&'static str], topics: &[String], now_ms: u64) -> Self {
        let topic = |name: &String| (name.clone(), Topic::default());
        Self(Mutex::new(Told {
            parts: parts.iter().map(|&part| (part, Doing::Starting)).collect(),
            stands: (exchange::State::Starting, now_ms),
            topics: topics.iter().map(topic).collect(),
            cluster: Cluster::default(),
        }))
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // What a thread leaves behind that panics is a whole value all the same.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now.
    pub(super) fn now(&self) -> Told {
        self.told().clone()
    }

    /// What one of its parts does from `now_ms` on.
    pub(super) fn set(&self, part: &'static str, doing: Doing, now_ms: u64) {
        let mut told = self.told();
        if told.parts.get(part) == Some(&doing) {
            return;
        }
        match &doing {
            Doing::Starting => {}
            Doing::Running => tracing::info!(part, "goes"),
            Doing::Waiting(why) => tracing::warn!(part, "{why}; it is tried again"),
        }
        told.parts.insert(part, doing);
        stamp(&mut told, now_ms);
    }

    /// Changes what is known of a topic, if it is one of the mirror's.
    pub(super) fn of(&self, topic: &str, change: impl FnOnce(&mut Topic)) {
        // What this node decided goes to the cluster under a name of its own.
        let topic = if topic == ban::TOPIC { BANS } else { topic };
        if let Some(topic) = self.told().topics.get_mut(topic) {
            change(topic);
        }
    }

    /// Takes note of why a topic does not go for now, or that it does again.
    pub(super) fn refuse(&self, name: &str, why: Option<String>) {
        self.of(name, |topic| {
            match (&topic.refused, &why) {
                (before, Some(why)) if before.as_ref() != Some(why) => {
                    tracing::error!(topic = name, "not mirrored: {why}");
                }
                (Some(_), None) => tracing::info!(topic = name, "mirrored again"),
                (_, _) => {}
            }
            topic.refused = why;
        });
    }

    /// What is known of the cluster at `now_ms`.
    pub(super) fn set_cluster(&self, cluster: Cluster, now_ms: u64) {
        let mut told = self.told();
        match (told.cluster.is_away(), cluster.is_away()) {
            (false, true) => tracing::warn!("the cluster is away"),
            (true, false) => tracing::info!(brokers = ?cluster.brokers, "the cluster is there"),
            (_, _) => {}
        }
        told.cluster = cluster;
        stamp(&mut told, now_ms);
    }
}

fn stamp(told: &mut Told, now_ms: u64) {
    let (state, _) = told.judge();
    if told.stands.0 != state {
        told.stands = (state, now_ms);
    }
}
