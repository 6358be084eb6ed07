//! The write side of one partition: its active segment, and how it is closed for the next.

use std::{io, path::Path, sync::Arc};

use super::{
    Batch, Header,
    appends::Appended,
    index::{Due, Entry, Indexer, OffsetEntry, TimeEntry},
    partition::{Partition, Standing},
    producers::{self, Producers, Snapshots},
    segment::{Extent, INDEX, LOG, OFFSET_MAX, Segment, TIME_INDEX, path},
    swap::Unfinished,
    topic::{Flush, TopicConfig},
};
use crate::base::{
    clock::Clock,
    disk::{Disk, File, Open},
};

/// The furthest an offset or a byte of a segment may be from its beginning: the indexes have 31 bits for it.
const REACH_MAX: u64 = i32::MAX.unsigned_abs() as u64;

/// One partition, as the appender has it. There is one for each, and nobody else appends.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) partition: Arc<Partition>,
    pub(super) active: Active,
    pub(super) next_offset: i64,
    pub(super) leader_epoch: i32,
    /// The swap that failed half-way, if one did.
    pub(super) unfinished: Option<Unfinished>,
    pub(super) producers: Producers,
    snapshots: Snapshots,
    /// Bytes that had been appended when the flusher was rung for them.
    rung_at_bytes: u64,
    disk: Arc<dyn Disk>,
    clock: Clock,
}

/// The segment that is appended to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    pub(super) indexer: Indexer,
    /// Its indexes; none where one could not be opened. What is missing in them is made anew when the log is
    /// opened the next time.
    indexes: Option<[Box<dyn File>; 2]>,
    /// Whether bytes of a batch that failed may stand behind the last one.
    has_leftover: bool,
}

impl Active {
    pub(super) fn new(segment: Arc<Segment>, indexer: Indexer, disk: &dyn Disk) -> Self {
        let opened = [INDEX, TIME_INDEX].map(|end| disk.open(&segment.path(end), Open::Create));
        let [Ok(offsets), Ok(times)] = opened else {
            return Self::without_indexes(segment, indexer);
        };
        Self {
            indexes: Some([offsets, times]),
            ..Self::without_indexes(segment, indexer)
        }
    }

    fn without_indexes(segment: Arc<Segment>, indexer: Indexer) -> Self {
        segment.set_closed(false);
        segment.set_sealed(false);
        Self {
            segment,
            indexer,
            indexes: None,
            has_leftover: false,
        }
    }

    /// Adds entries to the indexes. They are no promise: one that cannot be written is missing, and the next
    /// start finds it so.
    fn put(&mut self, due: Due) {
        let Some([offsets, times]) = &self.indexes else {
            return;
        };
        let (mut offset_entries, mut time_entries) = self.segment.entries();
        let mut bytes = Vec::with_capacity(TimeEntry::BYTES);
        if let Some(entry) = due.offset {
            entry.put(&mut bytes);
            let at = u64::from(offset_entries) * OffsetEntry::BYTES as u64;
            offset_entries += u32::from(offsets.write_all_at(&bytes, at).is_ok());
        }
        bytes.clear();
        if let Some(entry) = due.time {
            entry.put(&mut bytes);
            let at = u64::from(time_entries) * TimeEntry::BYTES as u64;
            time_entries += u32::from(times.write_all_at(&bytes, at).is_ok());
        }
        self.segment.show_entries(offset_entries, time_entries);
    }

    /// Ends the indexes with the last batch, as those of a closed segment end.
    pub(super) fn end_indexes(&mut self) {
        let due = self.indexer.due();
        self.put(due);
    }
}

fn age_ns(config: &TopicConfig) -> u64 {
    let age = config.segment_age.as_nanos();
    u64::try_from(age).unwrap_or(u64::MAX / 2).min(u64::MAX / 2)
}

/// Makes a new segment, empty. Its name is not safe yet.
pub(super) fn new_segment(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    base_offset: i64,
) -> io::Result<Segment> {
    // What has the name is left over from a segment that was never taken into use.
    let log = disk.open(&path(dir, base_offset, LOG), Open::Create)?;
    log.set_len(0)?;
    for extension in [INDEX, TIME_INDEX] {
        disk.open(&path(dir, base_offset, extension), Open::Create)?
            .set_len(0)?;
    }
    let extent = Extent::empty(base_offset);
    let segment = Segment::new(dir, base_offset, log, Arc::clone(disk), extent);
    segment.set_named(false);
    Ok(segment)
}

impl Writer {
    pub(super) fn new(
        partition: Arc<Partition>,
        active: Active,
        leader_epoch: i32,
        (producers, snapshots): (Producers, Snapshots),
        disk: Arc<dyn Disk>,
        clock: Clock,
    ) -> Self {
        let writer = Self {
            next_offset: partition.log_end_offset(),
            partition,
            active,
            leader_epoch,
            unfinished: None,
            producers,
            snapshots,
            rung_at_bytes: 0,
            disk,
            clock,
        };
        writer.resume_age();
        writer
    }

    /// A segment that was begun earlier goes on ageing. A clock that was set meanwhile makes it neither
    /// younger than new nor older than it may become.
    fn resume_age(&self) {
        if self.active.segment.size() == 0 {
            return;
        }
        let first = self.active.segment.header(0).ok().flatten();
        let began_ms = first.and_then(|first| u64::try_from(first.max_timestamp()).ok());
        let now_ms = self.clock.unix_ms();
        let age_ms = began_ms.map_or(0, |began_ms| now_ms.saturating_sub(began_ms));
        let age_ns = age_ms.saturating_mul(1_000_000);
        let limit_ns = self.segment_age_ns();
        let closes_at_ns = self.clock.monotonic_ns() + limit_ns.saturating_sub(age_ns);
        self.active.segment.set_closes_at_ns(closes_at_ns);
    }

    fn segment_age_ns(&self) -> u64 {
        age_ns(&self.partition.topic().config())
    }

    /// Goes by what the topic's config is now; it was another. Says whether the partition is what that says:
    /// see [`Self::settle_class`].
    pub(super) fn reconfigured(&mut self, was: &TopicConfig) -> bool {
        let segment = &self.active.segment;
        if let Some(closes_at_ns) = segment.closes_at_ns() {
            let began_ns = closes_at_ns.saturating_sub(age_ns(was));
            segment.set_closes_at_ns(began_ns.saturating_add(self.segment_age_ns()));
        }
        self.settle_class()
    }

    /// Lets the partition be durable, or be so no longer, as its topic's config says. Says whether it is so.
    ///
    /// What was shown stays shown. Who waits until a batch is safe is told so, and not that it need not be:
    /// so the partition stays durable as long as anything of it is not.
    pub(super) fn settle_class(&mut self) -> bool {
        let partition = &self.partition;
        let wanted = partition.topic().config().flush.is_durable();
        let is_still = partition.flushed_offset() >= partition.log_end_offset()
            && partition.standing() == Standing::Online;
        if wanted != partition.is_durable() && (wanted || is_still) {
            partition.set_durable(wanted);
        }
        wanted == partition.is_durable()
    }

    /// Writes a batch into its place, in another segment if `rolls`. What fails leaves nothing behind that a reader, or the next batch,
    /// could meet. Nobody sees it before [`Self::show`].
    ///
    /// # Errors
    /// When the disk fails or is full. The batch is then not in the log.
    pub(super) fn write(&mut self, batch: &mut Batch, rolls: bool) -> io::Result<Appended> {
        if self.next_offset > OFFSET_MAX - i64::from(batch.last_offset_delta()) {
            return Err(io::Error::other("the partition has no more offsets"));
        }
        if rolls {
            self.roll()?;
        }
        let position = self.active.segment.size();
        if self.active.has_leftover {
            // Where it cannot be cut, it is overwritten.
            self.active.has_leftover = self.active.segment.log.set_len(position).is_err();
        }
        batch.place(self.next_offset, self.leader_epoch);
        if let Err(error) = self
            .active
            .segment
            .log
            .write_all_at(batch.bytes(), position)
        {
            self.active.has_leftover = self.active.segment.log.set_len(position).is_err();
            return Err(error);
        }
        Ok(Appended {
            base_offset: batch.base_offset(),
            last_offset: batch.last_offset(),
        })
    }

    /// Shows the batch that was just written: to the flusher, and to readers where they need not wait for it.
    pub(super) fn show(&mut self, batch: &Header, now_ns: u64) {
        let position = self.active.segment.size();
        let size = batch.size() as u64;
        let due = self.active.indexer.appended(batch, position);
        if due != Due::default() {
            self.active.put(due);
        }
        self.next_offset = batch.last_offset() + 1;
        self.producers.took(batch, now_ns);
        let max_timestamp = self.active.indexer.max_timestamp();
        let segment = &self.active.segment;
        segment.show(position + size, self.next_offset, max_timestamp);
        if segment.closes_at_ns().is_none() {
            segment.set_closes_at_ns(now_ns.saturating_add(self.segment_age_ns()));
        }
        self.partition.set_log_end(self.next_offset);
        self.partition.add_dirty(size, now_ns);
        if !self.partition.is_durable() {
            self.partition.show_below(self.next_offset);
        }
    }

    /// Whether the flusher should look at the partition at once.
    pub(super) fn wants_flush(&mut self) -> bool {
        match self.partition.topic().config().flush {
            Flush::EachAppend => true,
            Flush::Lazily { .. } if self.partition.is_durable() => true,
            Flush::Lazily { bytes, .. } => {
                let appended = self.partition.appended_bytes();
                let wants = appended.saturating_sub(self.rung_at_bytes) >= bytes;
                if wants {
                    self.rung_at_bytes = appended;
                }
                wants
            }
        }
    }

    /// Whether there is no room for the batch in the active segment.
    pub(super) fn must_roll(&self, batch: &Batch) -> bool {
        let segment = &self.active.segment;
        let size = segment.size();
        if size == 0 {
            // An empty segment is not closed; but its base may be out of the indexes' reach.
            return self.reach(batch) > REACH_MAX;
        }
        let grown = size + batch.bytes().len() as u64;
        grown > self.partition.topic().config().segment_bytes
            || grown > REACH_MAX
            || self.reach(batch) > REACH_MAX
    }

    /// How far the batch's last offset would be from the segment's base.
    fn reach(&self, batch: &Batch) -> u64 {
        let last = self.next_offset + i64::from(batch.last_offset_delta());
        u64::try_from(last - self.active.segment.base_offset).unwrap_or(u64::MAX)
    }

    /// Closes the active segment and begins another; one without a batch stays, unless it begins elsewhere
    /// than where the next batch goes.
    ///
    /// # Errors
    /// When the disk fails or is full. The active segment then stays what it is.
    pub(super) fn roll(&mut self) -> io::Result<()> {
        if self.active.segment.base_offset == self.next_offset {
            return Ok(());
        }
        let made = new_segment(&self.disk, &self.partition.dir, self.next_offset);
        let segment = Arc::new(made.inspect_err(|_| self.tidy(self.next_offset))?);
        self.active.end_indexes();
        let closed = &self.active.segment;
        if self.active.has_leftover {
            // Where it cannot be cut, the next start finds it.
            let _ = closed.log.set_len(closed.size());
        }
        closed.set_closed(true);
        let mut segments = self.partition.all_segments().to_vec();
        segments.push(Arc::clone(&segment));
        let indexer = Indexer::new(segment.base_offset);
        self.active = Active::new(segment, indexer, &*self.disk);
        self.partition.set_segments(segments);
        self.keep_producers();
        Ok(())
    }

    /// Keeps what is known of producers up to here.
    pub(super) fn keep_producers(&mut self) {
        let dir = &self.partition.dir;
        self.snapshots
            .keep(&*self.disk, dir, self.next_offset, &self.producers);
    }

    /// Learns anew what is known of producers, from segments of which what is below `safe_below` was not
    /// touched.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn reload_producers(
        &mut self,
        segments: &[Arc<Segment>],
        safe_below: i64,
    ) -> io::Result<()> {
        let now_ns = self.clock.monotonic_ns();
        let dir = &self.partition.dir;
        let (mut left, snapshots) = producers::load(&self.disk, dir, segments, safe_below, now_ns)?;
        left.missed_all(&self.producers, now_ns);
        (self.producers, self.snapshots) = (left, snapshots);
        Ok(())
    }

    /// The partition is healed: what was written before and not safe is in it no more.
    pub(super) fn came_back(&self) {
        self.resume_age();
        self.partition.next_generation();
        self.partition.set_standing(Standing::Online);
    }

    /// Removes what was made of a segment that could not be made whole.
    fn tidy(&self, base_offset: i64) {
        for extension in [LOG, INDEX, TIME_INDEX] {
            // What stays is removed, or used, by the next segment of that name.
            let _ = self
                .disk
                .remove(&path(&self.partition.dir, base_offset, extension));
        }
    }
}
