//! A partition read back whole when Wardent starts: from its beginning to the end that it has then.
//!
//! What was closed and safe is not walked when the log is opened, so that what rotted there is met here. It costs
//! the batch it is in: the segment is mended, and read again from where that stood. Where it cannot be mended the
//! batch is passed over, or, where nobody can tell where it ends, the rest of its segment. A disk that fails is no
//! damage.

use std::{
    sync::{Arc, mpsc::sync_channel},
    time::Duration,
};

use super::{Command, Log, ReadError, View, partition::Partition};

/// How long is waited for a segment to be mended.
pub const MENDED_WITHIN: Duration = Duration::from_secs(10);

/// A walk over a partition.
#[derive(Debug)]
pub struct Replay {
    partition: Arc<Partition>,
    next: i64,
    end: i64,
    /// Where something damaged stood that was to be mended.
    mended_at: Option<i64>,
    damaged: u64,
}

/// What a step came to.
#[derive(Debug)]
pub enum Replayed {
    /// Whole batches with the right checksums, one after the other.
    Batches(Vec<u8>),
    /// The next batch is damaged. The segment with this base offset is to be mended before the next step; where it
    /// is not, that passes over what is damaged.
    Damaged(i64),
    /// All was read.
    Over,
}

impl Replay {
    /// A walk over all that the partition shows now.
    pub fn of(partition: Arc<Partition>) -> Self {
        Self {
            next: partition.log_start_offset(),
            end: partition.high_watermark(),
            partition,
            mended_at: None,
            damaged: 0,
        }
    }

    /// The partition.
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// How many offsets are left, those among them that compaction took.
    pub fn left(&self) -> u64 {
        u64::try_from(self.end - self.next).unwrap_or(0)
    }

    /// How often something was damaged.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Reads up to so many bytes, one batch at least.
    ///
    /// # Errors
    /// When the disk fails. It may be tried again.
    pub fn step(&mut self, bytes_max: usize) -> Result<Replayed, ReadError> {
        if self.next >= self.end {
            return Ok(Replayed::Over);
        }
        let mut bytes = match self.partition.read(self.next, bytes_max) {
            Ok(bytes) => bytes,
            Err(error @ ReadError::Io(..)) => return Err(error),
            Err(ReadError::Damaged { .. }) => return Ok(self.met_damage(None)),
            Err(ReadError::OutOfRange { first, .. }) => {
                // What was deleted meanwhile is not missing.
                self.next = if first > self.next { first } else { self.end };
                return self.step(bytes_max);
            }
        };
        if bytes.is_empty() {
            // Compaction left nothing of the rest.
            self.next = self.end;
            return Ok(Replayed::Over);
        }
        let mut whole = 0;
        let mut after = None;
        while let Ok((view, rest)) = View::read(bytes.get(whole..).unwrap_or_default()) {
            let last = view.last_offset();
            // The first may begin before what is asked for.
            let is_in_place = (self.next..self.end).contains(&last)
                && (whole == 0 || view.base_offset() >= self.next)
                && !self.is_contradicted(&view, rest);
            if !is_in_place || view.verify().is_err() {
                after = Some(last.saturating_add(1));
                break;
            }
            self.next = last + 1;
            whole += view.size();
        }
        if whole == 0 {
            return Ok(self.met_damage(after));
        }
        bytes.truncate(whole);
        Ok(Replayed::Batches(bytes))
    }

    /// Whether the batch that follows begins before this one ends, where it may. Where a batch stands is not part
    /// of its checksum: one that says that it is further on would hide those after it.
    fn is_contradicted(&self, view: &View<'_>, rest: &[u8]) -> bool {
        if view.base_offset() <= self.next {
            return false;
        }
        let last = view.last_offset();
        let read = match rest.is_empty() {
            true => self.partition.read(last.saturating_add(1), 1),
            false => Ok(Vec::new()),
        };
        let after = read.unwrap_or_default();
        let next = View::read(if rest.is_empty() { &after } else { rest });
        let follows = |next: &View<'_>| (self.next..=last).contains(&next.base_offset());
        next.is_ok_and(|(next, _)| follows(&next) && next.verify().is_ok())
    }

    /// Has what is damaged mended, or passes over it where that was tried; `after` is where it ends, if that can
    /// be believed.
    fn met_damage(&mut self, after: Option<i64>) -> Replayed {
        let segments = self.partition.segments();
        let base = segments.iter().map(|segment| segment.base_offset);
        if self.mended_at != Some(self.next)
            && let Some(base) = base.clone().take_while(|base| *base <= self.next).last()
        {
            self.damaged += 1;
            self.mended_at = Some(self.next);
            return Replayed::Damaged(base);
        }
        let end = base.filter(|base| *base > self.next).min();
        let end = end.unwrap_or(self.end);
        let after = after.filter(|after| (self.next + 1..=end).contains(after));
        self.next = after.unwrap_or(end);
        Replayed::Batches(Vec::new())
    }

    /// The next batches; none where all was read. Has the log's appender mend what is damaged, and waits for that.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn batches(&mut self, log: &Log, bytes_max: usize) -> Result<Option<Vec<u8>>, ReadError> {
        loop {
            match self.step(bytes_max)? {
                Replayed::Batches(bytes) => return Ok(Some(bytes)),
                Replayed::Over => return Ok(None),
                Replayed::Damaged(base) => {
                    let (tell, told) = sync_channel(1);
                    let mend = Command::Mend(Arc::clone(&self.partition), base);
                    // Who waited may have gone on.
                    let done = Box::new(move |result| drop(tell.send(result)));
                    if log.ask(mend, done).is_ok() {
                        // What could not be mended, or not in time, is passed over by the next step.
                        let _ = told.recv_timeout(MENDED_WITHIN);
                    }
                }
            }
        }
    }
}
