//! The topics that a log has at one moment.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use super::{meta::Id, partition::Partition, topic::Topic};

/// The topics and partitions of a log. It does not change; the log gives another when they do.
#[derive(Debug, Default)]
pub struct Topics {
    by_name: BTreeMap<String, Entry>,
    by_id: HashMap<Id, Arc<Topic>>,
    /// By topic and number.
    partitions: Vec<Arc<Partition>>,
}

#[derive(Debug)]
struct Entry {
    topic: Arc<Topic>,
    /// Which of the partitions.
    own: Range<usize>,
}

impl Topics {
    /// The topics of these partitions.
    pub(super) fn of(mut partitions: Vec<Arc<Partition>>) -> Self {
        partitions.sort_by(|a, b| {
            let (one, other) = (a.topic(), b.topic());
            (&one.name, a.index()).cmp(&(&other.name, b.index()))
        });
        let mut topics = Self::default();
        for (place, partition) in partitions.iter().enumerate() {
            let topic = partition.topic();
            let entry = topics.by_name.entry(topic.name.clone());
            let entry = entry.or_insert_with(|| Entry {
                topic: Arc::clone(topic),
                own: place..place,
            });
            entry.own.end = place + 1;
            topics.by_id.insert(topic.id, Arc::clone(topic));
        }
        Self {
            partitions,
            ..topics
        }
    }

    /// The same with these partitions besides.
    pub(super) fn with(&self, more: impl IntoIterator<Item = Arc<Partition>>) -> Self {
        Self::of(self.partitions.iter().cloned().chain(more).collect())
    }

    /// The same without a topic.
    pub(super) fn without(&self, topic: &Arc<Topic>) -> Self {
        let others = self.partitions.iter();
        let others = others.filter(|one| !Arc::ptr_eq(one.topic(), topic));
        Self::of(others.cloned().collect())
    }

    /// The topic of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name).map(|entry| &entry.topic)
    }

    /// The topic with this id.
    pub fn by_id(&self, id: &Id) -> Option<&Arc<Topic>> {
        self.by_id.get(id)
    }

    /// All topics, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.by_name.values().map(|entry| &entry.topic)
    }

    /// All partitions, by topic and number.
    pub fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }

    /// The partitions of a topic, by number; nothing where there is no such.
    pub fn partitions_of(&self, name: &str) -> &[Arc<Partition>] {
        let own = self.by_name.get(name).map(|entry| entry.own.clone());
        own.and_then(|own| self.partitions.get(own))
            .unwrap_or_default()
    }

    /// A partition; none where there is no such.
    pub fn partition(&self, name: &str, index: u32) -> Option<&Arc<Partition>> {
        self.partitions_of(name).get(usize::try_from(index).ok()?)
    }

    /// Whether this partition is one of these, and not another of the same name.
    pub(super) fn has(&self, partition: &Partition) -> bool {
        let own = self.partition(&partition.topic().name, partition.index());
        own.is_some_and(|own| own.number == partition.number)
    }
}
