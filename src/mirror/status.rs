//! How the mirror is: kept for whoever asks, and told to the log when it changes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What the mirror is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It has begun, and has not reached both sides yet.
    Starting,
    /// Records flow, or would if there were any.
    Running,
    /// It tries again soon.
    Waiting(String),
}

/// One partition of a mirrored topic.
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
    /// Records that are to be mirrored yet.
    pub(super) fn lag(&self) -> u64 {
        u64::try_from(self.high.saturating_sub(self.done)).unwrap_or(0)
    }
}

/// One mirrored topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Topic {
    /// Why it is not mirrored for now.
    pub(super) refused: Option<String>,
    /// Its partitions, as far as they are known.
    pub(super) partitions: BTreeMap<i32, Partition>,
    /// Records that the cluster has acknowledged, since the start.
    pub(super) copied: u64,
    /// Records that became dead letters, since the start.
    pub(super) dead: u64,
    /// Records that the local log deleted before they were mirrored, since the start.
    pub(super) lost: u64,
    /// When the oldest record that is to be mirrored yet was written, in milliseconds since 1970.
    pub(super) oldest_ms: Option<i64>,
    /// What will be deleted before it is mirrored, if nothing changes.
    pub(super) alarm: Option<String>,
}

impl Topic {
    /// Records that are to be mirrored yet.
    pub(super) fn lag(&self) -> u64 {
        self.partitions.values().map(Partition::lag).sum()
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) state: State,
    /// Since when, in milliseconds since 1970.
    pub(super) since_ms: u64,
    pub(super) topics: BTreeMap<String, Topic>,
    /// Brokers that the cluster has told of.
    pub(super) brokers: Vec<i32>,
}

/// What is known, shared by the mirror's threads; each holds it for an assignment or a copy.
#[derive(Debug)]
pub(super) struct Status(Mutex<Told>);

impl Status {
    pub(super) fn new(topics: &[String], now_ms: u64) -> Self {
        let topic = |name: &String| (name.clone(), Topic::default());
        Self(Mutex::new(Told {
            state: State::Starting,
            since_ms: now_ms,
            topics: topics.iter().map(topic).collect(),
            brokers: Vec::new(),
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

    /// What it is doing from `now_ms` on.
    pub(super) fn set(&self, state: State, now_ms: u64) {
        let mut told = self.told();
        if told.state == state {
            return;
        }
        match &state {
            State::Starting => {}
            State::Running => tracing::info!("mirroring"),
            State::Waiting(why) => tracing::warn!("{why}; it is tried again"),
        }
        told.state = state;
        told.since_ms = now_ms;
    }

    /// Changes what is known of a topic, if it is mirrored.
    pub(super) fn of(&self, topic: &str, change: impl FnOnce(&mut Topic)) {
        if let Some(topic) = self.told().topics.get_mut(topic) {
            change(topic);
        }
    }

    /// Takes note of why a topic is not mirrored for now, or that it is again.
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

    /// The brokers that the cluster tells of.
    pub(super) fn set_brokers(&self, brokers: Vec<i32>) {
        self.told().brokers = brokers;
    }
}
