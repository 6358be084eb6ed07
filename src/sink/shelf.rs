//! The two topics of the log that the publisher writes, and the way of bans back from one of them.

use std::sync::Arc;

use super::{
    bans::{Replayed, replay},
    publisher::{Ack, Shelf, Topic},
};
use crate::{
    log::{Append, Batch, Log, Partition, ReadError, Replay},
    owner::Restoring,
};

/// Bytes of the log that are read in one go.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// The log's topics of bans and of the audit.
#[derive(Debug, Clone)]
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

/// Takes back the bans that the log remembers, from their beginning to the end that they have now.
///
/// # Errors
/// When the disk fails.
pub fn bring_back(
    shelf: &LogShelf,
    ipv6_prefix: u8,
    into: &mut Restoring<'_>,
) -> Result<Replayed, ReadError> {
    let mut replayed = Replayed::default();
    let mut scratch = Vec::new();
    let mut bans = Replay::of(Arc::clone(&shelf.bans));
    // Compaction may have left fewer.
    into.expect(usize::try_from(bans.left()).unwrap_or(0));
    while let Some(batches) = bans.batches(&shelf.log, READ_BYTES)? {
        replay(&batches, ipv6_prefix, &mut scratch, into, &mut replayed);
    }
    replayed.damaged += bans.damaged();
    Ok(replayed)
}
