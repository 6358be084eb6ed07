//! Carries topics over: reads them here, sends them there, commits what was acknowledged.
//!
//! It goes in tries. A try begins with what the sides have committed, and ends when something stands in its way,
//! or when what is mirrored changes; the next begins at what is committed by then. At least once, the place in
//! the local log is committed behind the acknowledgements. Exactly once, records and the place go to the cluster
//! in one transaction: the cluster's own group of this node keeps it, so it can be neither ahead nor behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rdkafka::{
    Message as _,
    consumer::{CommitMode, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _},
};

use super::{
    Delivery, Ending, Failure, PAUSE_MAX, PAUSE_MIN, REFUSED, Settings,
    client::{self, Consumer, Delivered, Producer, Sent},
    letters::{self, Place, Undelivered},
    nanos,
    pace::Pace,
    reader::{self, Arrived, Reader},
    status::{Doing, Status},
    target::{self, ASKED_WITHIN, Wanted},
};
use crate::base::clock::Clock;

/// Carries over until the end.
pub(super) fn run(settings: &Settings, status: &Status, clock: &Clock, ending: &Ending) {
    let mut copier = Copier {
        settings,
        status,
        clock,
        ending,
        pace: Pace::new(settings.catch_up),
        refused: BTreeMap::new(),
        buried: BTreeSet::new(),
        careful_until_ns: 0,
    };
    let mut pause = PAUSE_MIN;
    while !ending.has_begun() {
        let begin_ns = clock.monotonic_ns();
        if let Err(failure) = copier.carry() {
            status.set(PART, Doing::Waiting(failure.0), clock.unix_ms());
            let lasted_ns = clock.monotonic_ns().saturating_sub(begin_ns);
            if lasted_ns > nanos(PAUSE_MAX) {
                pause = PAUSE_MIN;
            }
            ending.wait(pause, clock);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// What this is called where it is told how it goes.
pub(super) const PART: &str = "topics";

/// How long records go one by one, after one of a batch was refused with all of it.
const CAREFUL: Duration = Duration::from_secs(10);
/// How often it is looked at what there is to mirror.
const LOOK: Duration = Duration::from_secs(10);
/// How often what is acknowledged is committed.
const COMMIT: Duration = Duration::from_millis(250);
/// How often also what has been committed before: a listener forgets a group that says nothing for days.
const COMMIT_ALL: Duration = Duration::from_secs(600);
/// How long nothing may come before it is looked at what else is to be done.
const IDLE: Duration = Duration::from_millis(20);
/// Records that are sent before it is looked at what was acknowledged.
const STRIDE: usize = 64;
/// How long what is under way is waited for at the end.
const FLUSH: Duration = Duration::from_secs(10);
/// How long a transaction takes records, and how many bytes of them.
const TRANSACTION: Duration = Duration::from_millis(250);
const TRANSACTION_BYTES: usize = 16 << 20;
/// For what a transaction asks of the cluster.
const TRANSACTED_WITHIN: Duration = Duration::from_secs(30);

struct Copier<'a> {
    settings: &'a Settings,
    status: &'a Status,
    clock: &'a Clock,
    ending: &'a Ending,
    pace: Pace,
    /// Topics that the cluster refuses, and when each is tried again, by the monotonic clock.
    refused: BTreeMap<String, u64>,
    /// Until when each record goes in a batch of its own: the cluster refused one of a batch with all of it.
    careful_until_ns: u64,
    /// Records that are dead letters, and are passed over: topic, partition, offset.
    buried: BTreeSet<(String, i32, i64)>,
}

impl Copier<'_> {
    /// One try. Returns when the mirror ends, or what is mirrored has changed.
    fn carry(&mut self) -> Result<(), Failure> {
        let mut try_ = self.begin()?;
        self.status.set(PART, Doing::Running, self.clock.unix_ms());
        match self.settings.delivery {
            Delivery::AtLeastOnce => try_.carry(self),
            Delivery::ExactlyOnce => try_.carry_in_transactions(self),
        }
    }

    /// Whether a record that is refused is so for itself, and not for others in its batch.
    fn is_careful(&self) -> bool {
        self.now_ns() < self.careful_until_ns
    }

    fn now_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }

    fn begin(&mut self) -> Result<Try, Failure> {
        let local = client::local_asker(self.settings)?;
        let group = format!("{}.{}", reader::GROUP, self.settings.node);
        let cluster = client::cluster_asker(self.settings, Some(&group))?;
        let there = self.there(&local)?;
        let wanted: Vec<_> = there.iter().map(wanted).collect();
        let prepared = target::prepare(self.settings, &cluster, &wanted)?;
        for (topic, why) in &prepared.refused {
            self.refuse(topic, why);
        }
        let topics: Vec<_> = there
            .iter()
            .filter(|(name, _)| !prepared.refused.contains_key(name))
            .cloned()
            .collect();
        for (name, _) in &topics {
            self.refused.remove(name);
            self.status.refuse(name, None);
        }
        let is_careful = self.is_careful();
        let producer = client::producer(self.settings, is_careful)?;
        let elsewhere = match self.settings.delivery {
            Delivery::AtLeastOnce => None,
            Delivery::ExactlyOnce => {
                // Whatever a mirror of this name left half done is undone here, and what it committed is seen.
                let begun = producer.init_transactions(TRANSACTED_WITHIN);
                begun.map_err(|error| cluster_says(&error))?;
                let asked = cluster.committed_offsets(reader::listed(&topics), ASKED_WITHIN);
                Some(asked.map_err(|error| cluster_says(&error))?)
            }
        };
        let consumer = client::local(self.settings, reader::GROUP)?;
        let reader = Reader::open(consumer, &topics, elsewhere.as_ref(), false, self.status)?;
        Ok(Try {
            known: there,
            local,
            cluster,
            producer,
            reader,
            delivered: Vec::new(),
            has_refused: false,
            stuck: BTreeSet::new(),
            is_careful,
            is_in_transaction: false,
            commit_ns: self.now_ns(),
            commit_all_ns: self.now_ns(),
            look_ns: self.now_ns(),
        })
    }

    /// The topics that are to be mirrored and are there, with their partitions, without those that wait for
    /// being tried again.
    fn there(&self, local: &Consumer) -> Result<Vec<(String, usize)>, Failure> {
        let now_ns = self.now_ns();
        let mut there = Vec::new();
        for name in &self.settings.topics {
            if self.refused.get(name).is_some_and(|&until| until > now_ns) {
                continue;
            }
            match target::partitions(local, name) {
                Ok(Ok(count)) if count > 0 => there.push((name.clone(), count)),
                Ok(Ok(_)) => {}
                Ok(Err(code)) => {
                    let why = format!("the local listener refuses it: {code}");
                    self.status.refuse(name, Some(why));
                }
                Err(failure) => return Err(Failure(format!("the local listener: {failure}"))),
            }
        }
        Ok(there)
    }

    fn has_buried(&self, message: &BorrowedMessage<'_>) -> bool {
        // Hardly ever is there one, and then no name is copied.
        !self.buried.is_empty()
            && self.buried.contains(&(
                message.topic().to_owned(),
                message.partition(),
                message.offset(),
            ))
    }

    /// Makes a dead letter of a record, once.
    fn bury(
        &mut self,
        place: Place<'_>,
        code: RDKafkaErrorCode,
        record: &Undelivered,
    ) -> Result<(), Failure> {
        let known = (place.topic.to_owned(), place.partition, place.offset);
        if self.buried.contains(&known) {
            return Ok(());
        }
        letters::put(self.settings, place, code, record)?;
        let (topic, partition, offset) = (place.topic, place.partition, place.offset);
        tracing::error!(topic, partition, offset, %code, "can never be delivered: a dead letter");
        self.status.of(topic, |topic| topic.dead += 1);
        if self.settings.delivery == Delivery::ExactlyOnce {
            // The transaction is undone, and the next try is to pass over it.
            self.buried.insert(known);
        }
        Ok(())
    }

    fn refuse(&mut self, topic: &str, why: &str) {
        let until_ns = self.now_ns().saturating_add(nanos(REFUSED));
        self.refused.insert(topic.to_owned(), until_ns);
        self.status.refuse(topic, Some(why.to_owned()));
    }
}

/// As it is made on the cluster: for as long as the cluster keeps what nobody said anything of.
fn wanted((name, partitions): &(String, usize)) -> Wanted<'_> {
    Wanted {
        name,
        partitions: *partitions,
        configs: Vec::new(),
    }
}

/// One try, as long as nothing is in its way.
struct Try {
    /// What there was to mirror when it began.
    known: Vec<(String, usize)>,
    local: Consumer,
    /// The cluster's, whose group keeps the place of what is sent exactly once.
    cluster: Consumer,
    producer: Producer,
    reader: Reader,
    /// Room for what became of records.
    delivered: Vec<Delivered>,
    /// The cluster has refused something: the next try goes about it in another way.
    has_refused: bool,
    /// Partitions with a record that was not taken.
    stuck: BTreeSet<usize>,
    /// Each record goes in a batch of its own.
    is_careful: bool,
    is_in_transaction: bool,
    /// When it was last committed, by the monotonic clock, as all moments here.
    commit_ns: u64,
    commit_all_ns: u64,
    look_ns: u64,
}

impl Try {
    /// At least once.
    fn carry(&mut self, copier: &mut Copier<'_>) -> Result<(), Failure> {
        while !copier.ending.has_begun() && !self.has_changed(copier)? {
            for _ in 0..STRIDE {
                if !self.take_one(copier)? {
                    break;
                }
            }
            self.settle(Duration::ZERO, copier)?;
            self.reader.hold_and_go_on()?;
            self.commit_now_and_then(copier)?;
        }
        self.finish(copier)
    }

    /// What is under way arrives, if that does not take long, and is committed.
    fn finish(&mut self, copier: &mut Copier<'_>) -> Result<(), Failure> {
        let until_ns = copier.now_ns().saturating_add(nanos(FLUSH));
        while self.is_under_way() && copier.now_ns() < until_ns {
            self.settle(super::NAP, copier)?;
        }
        self.reader.commit(CommitMode::Sync, false, copier.status)
    }

    /// Whether acknowledgements are to come, but for partitions where one will not.
    fn is_under_way(&self) -> bool {
        let partitions = self.reader.partitions.iter().enumerate();
        let mut taken = partitions.filter(|(of, _)| !self.stuck.contains(of));
        taken.any(|(_, partition)| partition.position.is_under_way())
    }

    /// Whether there is something else to mirror than when the try began.
    fn has_changed(&mut self, copier: &Copier<'_>) -> Result<bool, Failure> {
        if self.has_refused || self.is_careful && !copier.is_careful() {
            return Ok(true);
        }
        let now_ns = copier.now_ns();
        if now_ns.saturating_sub(self.look_ns) < nanos(LOOK) {
            return Ok(false);
        }
        self.look_ns = now_ns;
        while self.local.poll(Duration::ZERO).is_some() {}
        while self.cluster.poll(Duration::ZERO).is_some() {}
        // A listener that does not answer now changes nothing: what is read says so too.
        let there = copier.there(&self.local);
        Ok(there.is_ok_and(|there| there != self.known))
    }

    /// Reads a record and sends it. False where none came.
    fn take_one(&mut self, copier: &mut Copier<'_>) -> Result<bool, Failure> {
        let wait = copier.pace.wait(copier.now_ns());
        if !wait.is_zero() {
            self.settle(wait.min(super::NAP), copier)?;
            return Ok(false);
        }
        match self.reader.consumer.poll(IDLE) {
            None => return Ok(false),
            Some(Err(error)) => {
                reader::judge(&error)?;
                return Ok(false);
            }
            Some(Ok(message)) => {
                let (offset, bytes) = (message.offset(), message.payload_len() + message.key_len());
                let Some(of) = self.reader.new_at(&message) else {
                    return Ok(true);
                };
                let is_buried = copier.has_buried(&message);
                if !is_buried && !self.send(&message, of, copier)? {
                    return Ok(false);
                }
                if let Some(partition) = self.reader.partitions.get_mut(of) {
                    match is_buried {
                        true => partition.position.passed(offset),
                        false => partition.position.sent(offset, bytes),
                    }
                }
                copier.pace.sent(bytes, copier.clock.monotonic_ns());
            }
        }
        Ok(true)
    }

    /// Hands a record to the client that sends it. False where the mirror ends before there is room.
    fn send(
        &self,
        message: &BorrowedMessage<'_>,
        of: usize,
        copier: &Copier<'_>,
    ) -> Result<bool, Failure> {
        let sent = Sent {
            of,
            offset: message.offset(),
            bytes: message.payload_len() + message.key_len(),
            written_ms: message.timestamp().to_millis(),
        };
        let mut record = BaseRecord::with_opaque_to(message.topic(), Box::new(sent))
            .partition(message.partition())
            .headers(headed(message, copier.settings));
        record.key = message.key();
        record.payload = message.payload();
        record.timestamp = sent.written_ms;
        loop {
            record = match self.producer.send::<[u8], [u8]>(record) {
                Ok(()) => return Ok(true),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => back,
                Err((error, _)) => return Err(cluster_says(&error)),
            };
            if copier.ending.has_begun() {
                return Ok(false);
            }
            // Acknowledgements make room.
            self.producer.poll(IDLE);
        }
    }

    /// Takes note of what became of records, waiting for it for `span`.
    fn settle(&mut self, span: Duration, copier: &mut Copier<'_>) -> Result<(), Failure> {
        self.producer.poll(span);
        let mut delivered = std::mem::take(&mut self.delivered);
        self.producer.client().context().take(&mut delivered);
        let mut arrived: BTreeMap<usize, Arrived> = BTreeMap::new();
        for told in delivered.drain(..) {
            match told {
                Delivered::Acknowledged(sent) => {
                    if let Some(partition) = self.reader.partitions.get_mut(sent.of) {
                        partition.position.acknowledged(sent.offset, sent.bytes);
                        arrived.entry(partition.topic).or_default().add(&sent);
                    }
                }
                Delivered::Failed(sent, code, record) => {
                    self.fail(sent, code, record.as_deref(), copier)?;
                }
            }
        }
        self.delivered = delivered;
        for (topic, arrived) in arrived {
            self.reader.count(topic, &arrived, copier.status);
        }
        Ok(())
    }

    /// What is to be done about a record that was not taken.
    fn fail(
        &mut self,
        sent: Sent,
        code: RDKafkaErrorCode,
        record: Option<&Undelivered>,
        copier: &mut Copier<'_>,
    ) -> Result<(), Failure> {
        let Some(partition) = self.reader.partitions.get(sent.of) else {
            return Ok(());
        };
        let (number, topic) = (partition.number, partition.topic);
        if record.is_some() && !self.is_careful {
            self.stuck.insert(sent.of);
            // The rest of its batch may be innocent: all of it is sent again, each by itself.
            copier.careful_until_ns = copier.now_ns().saturating_add(nanos(CAREFUL));
            self.has_refused = true;
            return Ok(());
        }
        if let Some(record) = record {
            let name = self.reader.name(topic).to_owned();
            let place = Place {
                topic: &name,
                partition: number,
                offset: sent.offset,
            };
            copier.bury(place, code, record)?;
            if let Some(partition) = self.reader.partitions.get_mut(sent.of) {
                partition.position.acknowledged(sent.offset, sent.bytes);
            }
            return Ok(());
        }
        let name = self.reader.name(topic).to_owned();
        if client::is_of_topic(code) {
            copier.refuse(&name, &format!("the cluster refuses it: {code}"));
            self.stuck.insert(sent.of);
            self.has_refused = true;
            return Ok(());
        }
        Err(Failure(format!("the cluster: {name} [{number}]: {code}")))
    }

    fn commit_now_and_then(&mut self, copier: &Copier<'_>) -> Result<(), Failure> {
        let now_ns = copier.now_ns();
        if now_ns.saturating_sub(self.commit_ns) < nanos(COMMIT) {
            return Ok(());
        }
        self.commit_ns = now_ns;
        let also_known = now_ns.saturating_sub(self.commit_all_ns) >= nanos(COMMIT_ALL);
        if also_known {
            self.commit_all_ns = now_ns;
        }
        self.reader
            .commit(CommitMode::Async, also_known, copier.status)
    }

    /// Exactly once.
    fn carry_in_transactions(&mut self, copier: &mut Copier<'_>) -> Result<(), Failure> {
        // All of it once at the start: what the cluster's group has is then as young as the local one's.
        let mut also_known = true;
        while !copier.ending.has_begun() && !self.has_changed(copier)? {
            if self.transact(also_known, copier)? {
                also_known = false;
            }
            if self.has_refused {
                // What was acknowledged in a transaction that is given up has not arrived.
                return Ok(());
            }
            let now_ns = copier.now_ns();
            if now_ns.saturating_sub(self.commit_all_ns) >= nanos(COMMIT_ALL) {
                self.commit_all_ns = now_ns;
                also_known = true;
            }
            self.commit_now_and_then(copier)?;
        }
        self.reader.commit(CommitMode::Sync, false, copier.status)
    }

    /// One transaction, if there is a record for it. True where it is committed.
    fn transact(&mut self, also_known: bool, copier: &mut Copier<'_>) -> Result<bool, Failure> {
        // The cluster hears of it with the first record only, so it may be begun long before.
        if !self.is_in_transaction {
            let begun = self.producer.begin_transaction();
            begun.map_err(|error| cluster_says(&error))?;
            self.is_in_transaction = true;
        }
        let before: Vec<_> = self.reader.nexts().collect();
        let until_ns = copier.now_ns().saturating_add(nanos(TRANSACTION));
        while copier.now_ns() < until_ns
            && self.reader.bytes_under_way() < TRANSACTION_BYTES
            && !copier.ending.has_begun()
        {
            for _ in 0..STRIDE {
                if !self.take_one(copier)? {
                    break;
                }
            }
            self.settle(Duration::ZERO, copier)?;
        }
        if self.reader.nexts().eq(before.iter().copied()) {
            return Ok(false);
        }
        let group = self.cluster.group_metadata();
        let group =
            group.ok_or_else(|| Failure("the cluster's group has no metadata".to_owned()))?;
        let reached = self.reader.reached(also_known)?;
        let told = patiently(|| {
            self.producer
                .send_offsets_to_transaction(&reached, &group, TRANSACTED_WITHIN)
        });
        let done =
            told.and_then(|()| patiently(|| self.producer.commit_transaction(TRANSACTED_WITHIN)));
        // Why a record was not taken says more than that the transaction was not.
        self.settle(Duration::ZERO, copier)?;
        if self.has_refused {
            return Ok(false);
        }
        done.map_err(|error| cluster_says(&error))?;
        self.is_in_transaction = false;
        Ok(true)
    }
}

/// Asks again where the client says that this helps.
fn patiently(mut ask: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    const TIMES: usize = 5;
    let mut said = ask();
    for _ in 0..TIMES {
        match &said {
            Err(KafkaError::Transaction(error)) if error.is_retriable() => said = ask(),
            _ => break,
        }
    }
    said
}

/// A record's own headers, and behind them where it comes from.
fn headed(message: &BorrowedMessage<'_>, settings: &Settings) -> OwnedHeaders {
    let headers = message.headers().map(|headers| headers.detach());
    let headers = headers.unwrap_or_else(|| OwnedHeaders::new_with_capacity(3));
    let partition = message.partition().to_string();
    let offset = message.offset().to_string();
    let told = [
        (NODE, settings.node.as_str()),
        (PARTITION, &partition),
        (OFFSET, &offset),
    ];
    told.into_iter().fold(headers, |headers, (key, value)| {
        let value = Some(value);
        headers.insert(Header { key, value })
    })
}

/// The headers that tell where a record comes from.
const NODE: &str = "wardent.node";
const PARTITION: &str = "wardent.partition";
const OFFSET: &str = "wardent.offset";

fn cluster_says(error: &KafkaError) -> Failure {
    Failure(format!("the cluster: {error}"))
}
