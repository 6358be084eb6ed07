//! Tells the cluster what this node decided about bans, as it reads in the local log.

use std::time::Duration;

use rdkafka::{
    Message as _,
    consumer::CommitMode,
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
    producer::{BaseRecord, Producer as _},
};

use super::{
    Ending, Failure, PAUSE_MAX, PAUSE_MIN, REFUSED, Settings,
    client::{self, Delivered, Producer, Sent},
    nanos, others,
    reader::{self, Arrived, Reader},
    status::{Doing, Status},
    target,
};
use crate::{
    base::{clock::Clock, node::NodeName},
    event::{
        ban::{BanState, TOPIC},
        exchange::{BANS, ban_key},
    },
};

/// What this is called where it is told how it goes.
pub(super) const PART: &str = "decisions";

/// How often what is acknowledged is committed.
const COMMIT: Duration = Duration::from_millis(250);
/// How often also what has been committed before.
const COMMIT_ALL: Duration = Duration::from_secs(600);
/// How long nothing may come before it is looked at what was acknowledged.
const IDLE: Duration = Duration::from_millis(20);
/// How long what is under way is waited for at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// Tells until the end.
pub(super) fn run(settings: &Settings, status: &Status, clock: &Clock, ending: &Ending) {
    let mut pause = PAUSE_MIN;
    while !ending.has_begun() {
        let begin_ns = clock.monotonic_ns();
        if let Err(failure) = tell(settings, status, clock, ending) {
            status.set(PART, Doing::Waiting(failure.0), clock.unix_ms());
            if clock.monotonic_ns().saturating_sub(begin_ns) > nanos(PAUSE_MAX) {
                pause = PAUSE_MIN;
            }
            ending.wait(pause, clock);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

fn tell(
    settings: &Settings,
    status: &Status,
    clock: &Clock,
    ending: &Ending,
) -> Result<(), Failure> {
    let cluster = client::cluster_asker(settings, None)?;
    let wanted: Vec<_> = others::wanted(settings)
        .into_iter()
        .filter(|topic| topic.name == BANS)
        .collect();
    let prepared = target::prepare(settings, &cluster, &wanted)?;
    status.refuse(BANS, prepared.refused.get(BANS).cloned());
    if let Some(why) = prepared.refused.get(BANS) {
        status.set(PART, Doing::Waiting(why.clone()), clock.unix_ms());
        ending.wait(REFUSED, clock);
        return Ok(());
    }
    let local = client::local_asker(settings)?;
    let there = target::partitions(&local, TOPIC)?;
    let count = there.map_err(|code| Failure(format!("the local listener: {TOPIC}: {code}")))?;
    let topics = [(TOPIC.to_owned(), count)];
    let consumer = client::local_at_once(settings)?;
    // A topic that was not there knows nothing of what was decided before.
    let from_start = prepared.made.contains(BANS);
    let reader = Reader::open(consumer, &topics, None, from_start, status)?;
    let now_ns = clock.monotonic_ns();
    let mut teller = Teller {
        producer: client::telling_bans(settings)?,
        node: &settings.node,
        reader,
        status,
        commit_ns: now_ns,
        commit_all_ns: now_ns,
    };
    status.set(PART, Doing::Running, clock.unix_ms());
    while !ending.has_begun() {
        teller.take_some(ending)?;
        teller.settle(Duration::ZERO)?;
        teller.commit_now_and_then(clock.monotonic_ns())?;
    }
    let until_ns = clock.monotonic_ns().saturating_add(nanos(FLUSH));
    while teller.reader.is_under_way() && clock.monotonic_ns() < until_ns {
        teller.settle(super::NAP)?;
    }
    teller.reader.commit(CommitMode::Sync, false, status)
}

/// Records that are sent before it is looked at what was acknowledged.
const STRIDE: usize = 64;

struct Teller<'a> {
    producer: Producer,
    node: &'a NodeName,
    reader: Reader,
    status: &'a Status,
    /// When it was last committed, by the monotonic clock.
    commit_ns: u64,
    commit_all_ns: u64,
}

impl Teller<'_> {
    fn take_some(&mut self, ending: &Ending) -> Result<(), Failure> {
        // Acknowledgements are not waited for while nothing is under way, and soon otherwise.
        let mut idle = match self.reader.is_under_way() {
            false => super::NAP,
            true => IDLE,
        };
        for _ in 0..STRIDE {
            let Some(said) = self.reader.consumer.poll(idle) else {
                return Ok(());
            };
            idle = Duration::ZERO;
            match said {
                Err(error) => reader::judge(&error)?,
                Ok(message) => {
                    let Some(of) = self.reader.new_at(&message) else {
                        continue;
                    };
                    let (offset, record) = (message.offset(), told(&message, self.node));
                    let bytes = message.payload_len() + message.key_len();
                    let sent = Sent {
                        of,
                        offset,
                        bytes,
                        written_ms: message.timestamp().to_millis(),
                    };
                    let is_sent = match &record {
                        None => false,
                        Some((key, value)) => match self.send(key, *value, sent, ending)? {
                            true => true,
                            false => return Ok(()),
                        },
                    };
                    if let Some(partition) = self.reader.partitions.get_mut(of) {
                        match is_sent {
                            true => partition.position.sent(offset, bytes),
                            false => partition.position.passed(offset),
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Hands a record to the client. False where the mirror ends before there is room.
    fn send(
        &self,
        key: &str,
        value: Option<&[u8]>,
        sent: Sent,
        ending: &Ending,
    ) -> Result<bool, Failure> {
        let mut record = BaseRecord::with_opaque_to(BANS, Box::new(sent)).key(key);
        record.payload = value;
        record.timestamp = sent.written_ms;
        loop {
            record = match self.producer.send::<str, [u8]>(record) {
                Ok(()) => return Ok(true),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => back,
                Err((error, _)) => return Err(Failure(format!("the cluster: {error}"))),
            };
            if ending.has_begun() {
                return Ok(false);
            }
            self.producer.poll(IDLE);
        }
    }

    fn settle(&mut self, span: Duration) -> Result<(), Failure> {
        self.producer.poll(span);
        let (mut delivered, mut arrived) = (Vec::new(), Arrived::default());
        self.producer.client().context().take(&mut delivered);
        for told in delivered {
            match told {
                Delivered::Acknowledged(sent) => {
                    if let Some(partition) = self.reader.partitions.get_mut(sent.of) {
                        partition.position.acknowledged(sent.offset, sent.bytes);
                        arrived.add(&sent);
                    }
                }
                Delivered::Failed(_, code, _) => {
                    return Err(Failure(format!("the cluster: {BANS}: {code}")));
                }
            }
        }
        self.reader.count(0, &arrived, self.status);
        Ok(())
    }

    fn commit_now_and_then(&mut self, now_ns: u64) -> Result<(), Failure> {
        if now_ns.saturating_sub(self.commit_ns) < nanos(COMMIT) {
            return Ok(());
        }
        self.commit_ns = now_ns;
        let also_known = now_ns.saturating_sub(self.commit_all_ns) >= nanos(COMMIT_ALL);
        if also_known {
            self.commit_all_ns = now_ns;
        }
        self.reader
            .commit(CommitMode::Async, also_known, self.status)
    }
}

/// What the cluster is to know of a record: key and value, where it is this node's own decision.
///
/// A record without a value says that nothing is remembered any more, which only this node's own record on the
/// cluster has to follow.
fn told<'a>(
    message: &'a BorrowedMessage<'_>,
    node: &NodeName,
) -> Option<(String, Option<&'a [u8]>)> {
    let target = std::str::from_utf8(message.key()?).ok()?;
    record_of(target, message.payload(), node)
}

fn record_of<'a>(
    target: &str,
    value: Option<&'a [u8]>,
    node: &NodeName,
) -> Option<(String, Option<&'a [u8]>)> {
    let key = ban_key(target, node.as_str());
    let Some(value) = value else {
        return Some((key, None));
    };
    // One that cannot be read was told of as a dead letter by who keeps bans.
    let state = BanState::read(value).ok()?;
    let is_own = state.node.is_none_or(|by| by == node.as_str());
    is_own.then_some((key, Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_node_decided_goes_to_the_cluster() {
        let node: NodeName = "web-1".parse().unwrap();
        let value = |node: &str| {
            format!(
                "{{\"event\":\"ban\",\"v\":1,\"time\":\"2026-11-21T10:00:01.042Z\",\"target\":\"198.51.100.7\",\
                 \"kind\":\"client\",\"state\":\"banned\",\"level\":1,\"why\":\"trap\",\"by\":\"policy\"{node}}}"
            )
        };
        let goes = |value: Option<&str>| {
            let value = value.map(str::as_bytes);
            record_of("198.51.100.7", value, &node).map(|(key, _)| key)
        };
        let key = Some("198.51.100.7|web-1".to_owned());
        assert_eq!(
            goes(Some(&value(",\"node\":\"web-1\",\"hlc\":\"5-0\""))),
            key
        );
        // From before there was a cluster.
        assert_eq!(goes(Some(&value(""))), key);
        assert_eq!(goes(None), key);
        assert_eq!(
            goes(Some(&value(",\"node\":\"web-2\",\"hlc\":\"5-0\""))),
            None
        );
        assert_eq!(goes(Some("{}")), None);
    }
}
