//! The two topics of the log that the publisher writes, and the way of bans back from one of them.

use std::sync::Arc;

use super::{
    bans::{Replayed, replay},
    publisher::{Ack, Shelf, Topic},
};
use crate::{
    log::{Append, Batch, Log, Partition},
    owner::Restoring,
};

/// Bytes of the log that are read in one go.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// The log's topics of bans and of the audit.
#[derive(Debug)]
pub struct LogShelf {
    log: Arc<Log>,
    bans: Arc<Partition>,
    audit: Arc<Partition>,
}

impl LogShelf {
    /// The topics of `log`.
    ///
    /// # Errors
    /// When it has none of that name.
    pub fn of(log: &Arc<Log>) -> Result<Self, String> {
        let partition = |topic: Topic| {
            log.partition(topic.name(), 0)
                .ok_or_else(|| format!("the log has no topic {}", topic.name()))
        };
        Ok(Self {
            bans: partition(Topic::Bans)?,
            audit: partition(Topic::Audit)?,
            log: Arc::clone(log),
        })
    }

    /// Where bans are remembered.
    pub fn bans(&self) -> &Arc<Partition> {
        &self.bans
    }
}

impl Shelf for LogShelf {
    fn offer(&self, topic: Topic, batch: Batch, ack: Ack) -> Result<(), String> {
        let partition = match topic {
            Topic::Bans => &self.bans,
            Topic::Audit => &self.audit,
        };
        let append = Append {
            partition: Arc::clone(partition),
            batch,
            done: Box::new(|result| {
                let result = result.map(drop);
                ack(result.map_err(|not_appended| not_appended.reason.to_string()));
            }),
        };
        let offered = self.log.appends().offer(append);
        offered.map_err(|_| "too much waits to be appended already".to_owned())
    }
}

/// Takes back the bans that a partition remembers, from its beginning to the end that it has now.
///
/// What is damaged is passed over: the batch, or where its end cannot be told, all up to the next
/// segment.
pub fn bring_back(partition: &Partition, ipv6_prefix: u8, into: &mut Restoring<'_>) -> Replayed {
    let mut replayed = Replayed::default();
    let mut scratch = Vec::new();
    let end = partition.high_watermark();
    let mut next = partition.log_start_offset();
    // Compaction may have left fewer.
    into.expect(usize::try_from(end - next).unwrap_or(0));
    while next < end {
        let batches = partition.read(next, READ_BYTES);
        let last = match &batches {
            // Compaction left nothing of the rest.
            Ok(batches) if batches.is_empty() => break,
            Ok(batches) => replay(batches, ipv6_prefix, &mut scratch, into, &mut replayed),
            Err(_) => None,
        };
        next = match last {
            Some(last) if last >= next => last + 1,
            Some(_) | None => {
                replayed.damaged += 1;
                let starts = partition.segments().into_iter();
                let starts = starts.map(|segment| segment.base_offset);
                starts.filter(|&base| base > next).min().unwrap_or(end)
            }
        };
    }
    replayed
}
