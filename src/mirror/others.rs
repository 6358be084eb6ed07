//! Hears what other nodes decided and what their clients spent, from the cluster's topics.
//!
//! Bans are read from the beginning of their topic, and then as they come; usage from where it ends. Whatever
//! goes wrong, bans are read from the beginning again: the proxy knows what it has.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::SyncSender,
    },
};

use rdkafka::{
    Message as _, TopicPartitionList, consumer::Consumer as _, error::KafkaError,
    message::BorrowedMessage, topic_partition_list::Offset,
};

use super::{
    Ending, Failure, PAUSE_MAX, PAUSE_MIN, Settings,
    client::{self, Consumer},
    nanos,
    status::{Doing, Status},
    target::{self, ASKED_WITHIN, Wanted},
};
use crate::{
    base::clock::Clock,
    event::exchange::{BANS, BanRecord, USAGE, Usage, read_ban_key},
};

/// What this is called where it is told how it goes.
pub(super) const PART: &str = "others";

/// Something that was heard.
#[derive(Debug, PartialEq)]
pub(super) enum News {
    /// All bans are read from the beginning.
    Begins,
    /// Another node's ban.
    Ban(BanRecord),
    /// What was there when the reading began has been read.
    Ends,
    /// What another node's clients spent.
    Usage(Usage),
}

/// How often bans are wanted from the beginning: the proxy asks, this answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish(Arc<AtomicU64>);

impl Wish {
    /// Asks for another reading.
    pub(super) fn again(&self) {
        // Relaxed: the number alone is handed over.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The cluster's own topics as they are made where they are missing.
pub(super) fn wanted(settings: &Settings) -> Vec<Wanted<'static>> {
    let bans = settings.shares_bans.then(|| Wanted {
        name: BANS,
        partitions: 1,
        configs: vec![
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.2"),
            ("segment.ms", "3600000"),
        ],
    });
    let usage = settings.shares_limits.then(|| Wanted {
        name: USAGE,
        partitions: 1,
        configs: vec![
            ("cleanup.policy", "delete"),
            ("retention.ms", "600000"),
            ("segment.ms", "300000"),
        ],
    });
    bans.into_iter().chain(usage).collect()
}

/// Hears until the end; `news` go to who exchanges them.
pub(super) fn run(
    settings: &Settings,
    status: &Status,
    clock: &Clock,
    ending: &Ending,
    news: &SyncSender<News>,
    wish: &Wish,
) {
    let mut pause = PAUSE_MIN;
    while !ending.has_begun() {
        let begin_ns = clock.monotonic_ns();
        if let Err(failure) = hear(settings, status, clock, ending, news, wish) {
            status.set(PART, Doing::Waiting(failure.0), clock.unix_ms());
            if clock.monotonic_ns().saturating_sub(begin_ns) > nanos(PAUSE_MAX) {
                pause = PAUSE_MIN;
            }
            ending.wait(pause, clock);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

fn hear(
    settings: &Settings,
    status: &Status,
    clock: &Clock,
    ending: &Ending,
    news: &SyncSender<News>,
    wish: &Wish,
) -> Result<(), Failure> {
    let consumer = client::hearing(settings)?;
    let wanted = wanted(settings);
    let prepared = target::prepare(settings, &consumer, &wanted)?;
    for topic in &wanted {
        status.refuse(topic.name, prepared.refused.get(topic.name).cloned());
    }
    let mut topics = BTreeMap::new();
    for topic in &wanted {
        if !prepared.refused.contains_key(topic.name) {
            let count = target::partitions(&consumer, topic.name)?;
            topics.insert(topic.name, count.unwrap_or(0).max(1));
        }
    }
    if topics.is_empty() {
        let why = prepared.refused.into_iter().next();
        let why = why.map_or(String::new(), |(topic, why)| format!("{topic}: {why}"));
        return Err(Failure(format!("the cluster: {why}")));
    }
    let until_all_again = prepared_again(clock, topics.len() < wanted.len());
    let mut heard = wish.count();
    let mut reading = assign(&consumer, &topics)?;
    status.set(PART, Doing::Running, clock.unix_ms());
    // Nobody hears it any more where the mirror ends.
    let tell = |what| news.send(what).map_err(|_| Failure("it ends".to_owned()));
    if topics.contains_key(BANS) {
        tell(News::Begins)?;
    }
    while !ending.has_begun() {
        match consumer.poll(super::NAP) {
            None => {}
            Some(Err(error)) if client::ends(&error) => return Err(says(&error)),
            Some(Err(error)) => tracing::debug!(%error, "the cluster"),
            Some(Ok(message)) => {
                if let Some(what) = read(&message, settings) {
                    tell(what)?;
                }
                if message.topic() == BANS {
                    reading.passed(message.partition(), message.offset());
                }
            }
        }
        if reading.ends_now() {
            tell(News::Ends)?;
        }
        if wish.count() != heard && topics.contains_key(BANS) && reading.is_over {
            heard = wish.count();
            reading = assign(&consumer, &topics)?;
            tell(News::Begins)?;
        }
        if until_all_again.is_some_and(|until_ns| clock.monotonic_ns() > until_ns) {
            return Ok(());
        }
    }
    Ok(())
}

/// When it is tried again to hear all there is, where a topic was refused.
fn prepared_again(clock: &Clock, is_refused: bool) -> Option<u64> {
    let until_ns = clock.monotonic_ns().saturating_add(nanos(super::REFUSED));
    is_refused.then_some(until_ns)
}

/// A reading of all bans: how far each partition has to come.
#[derive(Debug, Default)]
struct Reading {
    ends: BTreeMap<i32, i64>,
    is_over: bool,
}

impl Reading {
    fn passed(&mut self, partition: i32, offset: i64) {
        if self
            .ends
            .get(&partition)
            .is_some_and(|&end| offset + 1 >= end)
        {
            self.ends.remove(&partition);
        }
    }

    /// True once: when all of it has been read.
    fn ends_now(&mut self) -> bool {
        let ends = !self.is_over && self.ends.is_empty();
        self.is_over |= ends;
        ends
    }
}

/// Begins to read: bans from the beginning, usage at its end.
fn assign(consumer: &Consumer, topics: &BTreeMap<&str, usize>) -> Result<Reading, Failure> {
    let mut list = TopicPartitionList::new();
    let mut reading = Reading {
        is_over: !topics.contains_key(BANS),
        ..Reading::default()
    };
    for (&name, &count) in topics {
        for partition in 0..i32::try_from(count).unwrap_or(i32::MAX) {
            let (low, high) = consumer
                .fetch_watermarks(name, partition, ASKED_WITHIN)
                .map_err(|error| says(&error))?;
            let begin = if name == BANS { low } else { high };
            if name == BANS && low < high {
                reading.ends.insert(partition, high);
            }
            list.add_partition_offset(name, partition, Offset::Offset(begin))
                .map_err(|error| says(&error))?;
        }
    }
    consumer.assign(&list).map_err(|error| says(&error))?;
    Ok(reading)
}

/// What a record says that matters here: of another node, and not that something is forgotten, which each node
/// does by itself.
fn read(message: &BorrowedMessage<'_>, settings: &Settings) -> Option<News> {
    let value = std::str::from_utf8(message.payload()?).ok()?;
    if message.topic() == USAGE {
        let usage: Usage = serde_json::from_str(value).ok()?;
        return (usage.node != settings.node).then_some(News::Usage(usage));
    }
    let key = std::str::from_utf8(message.key()?).ok()?;
    let (_, node) = read_ban_key(key)?;
    (node != settings.node).then(|| {
        News::Ban(BanRecord {
            key: key.to_owned(),
            value: Some(value.to_owned()),
        })
    })
}

fn says(error: &KafkaError) -> Failure {
    Failure(format!("the cluster: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_over_when_each_partition_has_come_to_where_it_ended_at_its_beginning() {
        let mut reading = Reading {
            ends: [(0, 5), (1, 2)].into(),
            is_over: false,
        };
        reading.passed(0, 3);
        reading.passed(1, 1);
        assert!(!reading.ends_now());
        // The last record may have been compacted away: one behind it does as well.
        reading.passed(0, 9);
        assert!(reading.ends_now());
        assert!(!reading.ends_now());
    }
}
