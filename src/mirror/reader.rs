//! The local topics as they are read: where each partition begins, how far it is, and what is committed.

use rdkafka::{
    Message as _, TopicPartitionList,
    consumer::{CommitMode, Consumer as _},
    error::KafkaError,
    message::BorrowedMessage,
    topic_partition_list::Offset,
};

use super::{
    Failure,
    client::{self, Consumer, IN_FLIGHT_BYTES_MAX, Sent},
    position::Position,
    status::Status,
    target::ASKED_WITHIN,
};

/// The group of the local listener that keeps how far the mirror is.
pub(super) const GROUP: &str = "wardent-mirror";

/// One partition that is read.
#[derive(Debug)]
pub(super) struct Partition {
    /// Its topic's number.
    pub(super) topic: usize,
    /// Its number in that topic.
    pub(super) number: i32,
    pub(super) position: Position,
    /// What is committed.
    committed: i64,
    /// Too much of it is under way: no more is read.
    is_paused: bool,
    /// Bytes of it that may be under way.
    bytes_max: usize,
}

/// Reads the partitions of some topics.
pub(super) struct Reader {
    pub(super) consumer: Consumer,
    /// Each topic, with the numbers here of its partitions.
    topics: Vec<(String, Vec<usize>)>,
    pub(super) partitions: Vec<Partition>,
}

impl Reader {
    /// Reads `topics`, each with so many partitions, from where the local group is, or `elsewhere` says, whichever
    /// is further; or, with `from_start`, from the first record that there is.
    ///
    /// # Errors
    /// When the local listener cannot be asked.
    pub(super) fn open(
        consumer: Consumer,
        topics: &[(String, usize)],
        elsewhere: Option<&TopicPartitionList>,
        from_start: bool,
        status: &Status,
    ) -> Result<Self, Failure> {
        let list = listed(topics);
        let committed = consumer.committed_offsets(list, ASKED_WITHIN);
        let committed = committed.map_err(|error| local(&error))?;
        let mut reader = Self {
            consumer,
            topics: Vec::new(),
            partitions: Vec::new(),
        };
        let all: usize = topics.iter().map(|(_, count)| count).sum();
        for (number, (name, count)) in topics.iter().enumerate() {
            let mut numbers = Vec::new();
            for partition in 0..i32::try_from(*count).unwrap_or(i32::MAX) {
                let known = [Some(&committed), elsewhere]
                    .into_iter()
                    .flatten()
                    .filter_map(|list| offset(list, name, partition));
                let known = known.max().filter(|_| !from_start);
                let start = reader.begin(name, partition, known, status)?;
                numbers.push(reader.partitions.len());
                reader.partitions.push(Partition {
                    topic: number,
                    number: partition,
                    position: Position::at(start),
                    committed: start,
                    is_paused: false,
                    bytes_max: (IN_FLIGHT_BYTES_MAX / all.max(1)).max(BYTES_MIN),
                });
            }
            reader.topics.push((name.clone(), numbers));
        }
        reader.assign()?;
        Ok(reader)
    }

    /// Where a partition begins that is `known` to be so far.
    fn begin(
        &self,
        topic: &str,
        partition: i32,
        known: Option<i64>,
        status: &Status,
    ) -> Result<i64, Failure> {
        let asked = self
            .consumer
            .fetch_watermarks(topic, partition, ASKED_WITHIN);
        let (low, high) = asked.map_err(|error| local(&error))?;
        let start = match known {
            None => low,
            Some(known) if known > high => {
                tracing::warn!(
                    topic,
                    partition,
                    known,
                    high,
                    "the local log is another one: from its start"
                );
                low
            }
            Some(known) if known < low => {
                let lost = u64::try_from(low - known).unwrap_or(0);
                tracing::error!(
                    topic,
                    partition,
                    lost,
                    "deleted here before they were mirrored"
                );
                status.of(topic, |topic| topic.lost += lost);
                low
            }
            Some(known) => known,
        };
        status.of(topic, |topic| {
            let entry = topic.partitions.entry(partition).or_default();
            (entry.done, entry.low, entry.high) = (start, low, high);
        });
        Ok(start)
    }

    fn assign(&self) -> Result<(), Failure> {
        let mut list = TopicPartitionList::new();
        for partition in &self.partitions {
            self.add(&mut list, partition, partition.position.next())?;
        }
        let assigned = self.consumer.assign(&list);
        assigned.map_err(|error| local(&error))
    }

    fn add(
        &self,
        list: &mut TopicPartitionList,
        of: &Partition,
        offset: i64,
    ) -> Result<(), Failure> {
        let added = list.add_partition_offset(self.topic(of), of.number, Offset::Offset(offset));
        added.map_err(|error| local(&error))
    }

    /// The name of a partition's topic.
    pub(super) fn topic(&self, of: &Partition) -> &str {
        self.name(of.topic)
    }

    /// The number here of a partition.
    fn find(&self, topic: &str, partition: i32) -> Option<usize> {
        let (_, numbers) = self.topics.iter().find(|(name, _)| name == topic)?;
        numbers.get(usize::try_from(partition).ok()?).copied()
    }

    /// The name of a topic.
    pub(super) fn name(&self, topic: usize) -> &str {
        self.topics.get(topic).map_or("", |(name, _)| name)
    }

    /// Records of a topic have arrived.
    pub(super) fn count(&self, topic: usize, arrived: &Arrived, status: &Status) {
        status.of(self.name(topic), |topic| {
            topic.sent += arrived.records;
            topic.sent_bytes += arrived.bytes;
            topic.written_ms = topic.written_ms.max(arrived.written_ms);
        });
    }

    /// The next record of each partition.
    pub(super) fn nexts(&self) -> impl Iterator<Item = i64> {
        self.partitions
            .iter()
            .map(|partition| partition.position.next())
    }

    /// Keys and values under way, in bytes.
    pub(super) fn bytes_under_way(&self) -> usize {
        let partitions = self.partitions.iter();
        partitions.map(|partition| partition.position.bytes()).sum()
    }

    /// Whether acknowledgements are to come.
    pub(super) fn is_under_way(&self) -> bool {
        let mut partitions = self.partitions.iter();
        partitions.any(|partition| partition.position.is_under_way())
    }

    /// Where a transaction leaves off; of all partitions, where `also_known`.
    pub(super) fn reached(&self, also_known: bool) -> Result<TopicPartitionList, Failure> {
        let mut list = TopicPartitionList::new();
        for partition in &self.partitions {
            let next = partition.position.next();
            if also_known || next > partition.committed {
                self.add(&mut list, partition, next)?;
            }
        }
        Ok(list)
    }

    /// The number here of a record's partition, unless the record has been taken already.
    pub(super) fn new_at(&self, message: &BorrowedMessage<'_>) -> Option<usize> {
        let of = self.find(message.topic(), message.partition())?;
        let partition = self.partitions.get(of)?;
        (!partition.position.has(message.offset())).then_some(of)
    }

    /// What is acknowledged and not committed yet; all there is, where `also_known`.
    fn acknowledged(&self, also_known: bool) -> Result<TopicPartitionList, Failure> {
        let mut list = TopicPartitionList::new();
        for partition in &self.partitions {
            let done = partition.position.done();
            if also_known || done > partition.committed {
                self.add(&mut list, partition, done)?;
            }
        }
        Ok(list)
    }

    /// Commits what is acknowledged to the local group, and tells it.
    ///
    /// # Errors
    /// When a commit that is waited for fails. One that is not waited for is made again with the next.
    pub(super) fn commit(
        &mut self,
        mode: CommitMode,
        also_known: bool,
        status: &Status,
    ) -> Result<(), Failure> {
        let list = self.acknowledged(also_known)?;
        if list.count() == 0 {
            return Ok(());
        }
        self.consumer
            .commit(&list, mode)
            .map_err(|error| local(&error))?;
        for partition in &mut self.partitions {
            partition.committed = partition.position.done();
        }
        for partition in &self.partitions {
            status.of(self.topic(partition), |topic| {
                let entry = topic.partitions.entry(partition.number).or_default();
                entry.done = partition.committed;
                entry.high = entry.high.max(partition.committed);
            });
        }
        Ok(())
    }

    /// Stops reading partitions of which too much is under way, and reads on where enough has arrived: one that
    /// the cluster does not take holds no other up.
    pub(super) fn hold_and_go_on(&mut self) -> Result<(), Failure> {
        for index in 0..self.partitions.len() {
            let Some(partition) = self.partitions.get(index) else {
                break;
            };
            let bytes = partition.position.bytes();
            let holds = match partition.is_paused {
                false => bytes > partition.bytes_max,
                true => bytes > partition.bytes_max / 2,
            };
            if holds == partition.is_paused {
                continue;
            }
            let mut list = TopicPartitionList::new();
            list.add_partition(self.topic(partition), partition.number);
            let changed = match holds {
                true => self.consumer.pause(&list),
                false => self.consumer.resume(&list),
            };
            changed.map_err(|error| local(&error))?;
            if let Some(partition) = self.partitions.get_mut(index) {
                partition.is_paused = holds;
            }
        }
        Ok(())
    }
}

/// Records that the cluster has acknowledged.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    records: u64,
    bytes: u64,
    /// When the last of them was written.
    written_ms: Option<i64>,
}

impl Arrived {
    pub(super) fn add(&mut self, sent: &Sent) {
        self.records += 1;
        self.bytes += u64::try_from(sent.bytes).unwrap_or(0);
        self.written_ms = self.written_ms.max(sent.written_ms);
    }
}

/// Bytes under way that every partition may have, however many there are.
const BYTES_MIN: usize = 2 << 20;

/// These topics' partitions, without offsets.
pub(super) fn listed(topics: &[(String, usize)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (name, count) in topics {
        for partition in 0..i32::try_from(*count).unwrap_or(i32::MAX) {
            list.add_partition(name, partition);
        }
    }
    list
}

fn offset(list: &TopicPartitionList, topic: &str, partition: i32) -> Option<i64> {
    match list.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        Offset::Beginning
        | Offset::End
        | Offset::Stored
        | Offset::Invalid
        | Offset::OffsetTail(_) => None,
    }
}

/// Whether what the local client says ends the try.
///
/// # Errors
/// When it does.
pub(super) fn judge(error: &KafkaError) -> Result<(), Failure> {
    if client::ends(error) {
        return Err(local(error));
    }
    tracing::debug!(%error, "the local listener");
    Ok(())
}

/// What is wrong with the local listener.
pub(super) fn local(error: &KafkaError) -> Failure {
    Failure(format!("the local listener: {error}"))
}
