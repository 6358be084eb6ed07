//! A segment that is to take the place of a run of others: written beside them, and swapped in when it is
//! complete.
//!
//! As Kafka does it: the new log is `.log.cleaned` until it is safe on disk, then `.log.swap`; from there on
//! it counts. The segments it stands for are removed, and it gets its name. A crash in between is brought to
//! its end when the log is opened.

use std::{io, path::PathBuf, sync::Arc};

use super::{
    batch::{Damage, View},
    files::{CLEANED, fresh},
    index::{Built, Indexer},
    partition::Partition,
    segment::{Extent, path},
};
use crate::base::disk::{Disk, File};

/// A segment that is being written, or is complete and on disk. One that is dropped leaves a file that is
/// removed when the log is opened, or when its place is written the next time.
#[derive(Debug)]
pub struct Cleaned {
    pub(super) base_offset: i64,
    pub(super) path: PathBuf,
    pub(super) log: Box<dyn File>,
    pub(super) extent: Extent,
    pub(super) built: Built,
    indexer: Indexer,
}

impl Cleaned {
    /// Begins a segment that will take the place of the one at `base_offset`, and perhaps of others after it.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub fn begin(
        partition: &Arc<Partition>,
        disk: &dyn Disk,
        base_offset: i64,
    ) -> io::Result<Self> {
        let path = path(&partition.dir, base_offset, CLEANED);
        Ok(Self {
            base_offset,
            log: fresh(disk, &path)?,
            path,
            extent: Extent::empty(base_offset),
            built: Built::default(),
            indexer: Indexer::new(base_offset),
        })
    }

    /// Bytes written to it.
    pub fn bytes(&self) -> u64 {
        self.extent.size
    }

    /// Writes whole batches, which keep their offsets and their leaders' epochs.
    ///
    /// # Errors
    /// `InvalidData` where they are none, or do not follow what was written; else when the disk fails or is
    /// full.
    pub fn write(&mut self, batches: &[u8]) -> io::Result<()> {
        let invalid = |damage: Damage| io::Error::new(io::ErrorKind::InvalidData, damage);
        let mut rest = batches;
        let mut at = self.extent.size;
        while !rest.is_empty() {
            let (view, after) = View::read(rest).map_err(invalid)?;
            view.verify().map_err(invalid)?;
            if view.base_offset() < self.extent.end_offset {
                return Err(invalid(Damage::Offsets));
            }
            let due = self.indexer.appended(&view, at);
            self.built.put(due);
            at += view.size() as u64;
            self.extent.end_offset = view.last_offset() + 1;
            rest = after;
        }
        self.log.write_all_at(batches, self.extent.size)?;
        self.extent.size = at;
        Ok(())
    }

    /// Makes it safe on disk, after which it can be handed to the appender.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub fn finish(mut self) -> io::Result<Self> {
        self.built.put(self.indexer.due());
        let (offsets, times) = self.built.entries();
        self.extent.offset_entries = offsets;
        self.extent.time_entries = times;
        self.extent.max_timestamp = self.indexer.max_timestamp();
        self.log.sync_data()?;
        Ok(self)
    }
}
