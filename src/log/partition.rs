//! A partition as its readers see it: whole batches below the high watermark.
//!
//! The appender writes, the flusher makes safe; readers take a snapshot of the segments and never wait for
//! either. A segment that retention removes stays readable for whoever has it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{
    segment::{ReadError, Segment},
    topic::{Topic, dir_name},
};

/// Nothing waits to be flushed.
const CLEAN: u64 = u64::MAX;

/// Whether a partition takes appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Online,
    /// The disk failed it. Set by whom it failed: appender or flusher.
    Offline,
    /// The flusher has let go of it, so that the appender may heal it. Set by the flusher.
    LetGo,
}

/// A partition of a topic.
#[derive(Debug)]
pub struct Partition {
    topic: Arc<Topic>,
    index: u32,
    /// What tells it from all other partitions that the log has or had since it was opened.
    pub(super) number: usize,
    pub(super) dir: PathBuf,
    /// By base offset, the one that is appended to last; there is always one. Written by the appender.
    segments: ArcSwap<Vec<Arc<Segment>>>,
    /// Written by the appender.
    log_start: AtomicI64,
    /// Written by the appender.
    log_end: AtomicI64,
    /// Below it everything is safe on disk. Written by the flusher; by the appender while it heals.
    flushed: AtomicI64,
    /// Raised by the flusher when what was appended is safe, by the appender where that is not waited for.
    high_watermark: AtomicI64,
    told: watch::Sender<i64>,
    /// Whether what is appended waits to be safe. Written by the appender.
    is_durable: AtomicBool,
    standing: AtomicU8,
    /// Whether its files are on their way out. Written by the changer.
    is_deleted: AtomicBool,
    /// How often it was healed: what was written before that and not safe then is in it no more.
    /// Written by the appender.
    generation: AtomicU64,
    /// Since when something waits to be flushed, in monotonic nanoseconds. Set by the appender, reset by the
    /// flusher.
    dirty_since_ns: AtomicU64,
    /// Bytes ever appended. Written by the appender.
    appended_bytes: AtomicU64,
    /// Leaders' epochs, each with its first offset; the last is this process's. Written when the log is opened.
    epochs: Vec<(i32, i64)>,
}

/// What is told of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Its first offset, and its name.
    pub base_offset: i64,
    /// The first offset after its batches.
    pub end_offset: i64,
    /// Bytes of its log.
    pub bytes: u64,
    /// The latest time of its batches, in Unix milliseconds; -1 where none has a time.
    pub max_timestamp_ms: i64,
    /// Whether it may still be appended to.
    pub is_active: bool,
}

impl Partition {
    pub(super) fn new(
        topic: Arc<Topic>,
        index: u32,
        number: usize,
        log_dir: &Path,
        segments: Vec<Arc<Segment>>,
        log_start: i64,
    ) -> Self {
        let end = segments.last().map_or(log_start, |last| last.end_offset());
        Self {
            dir: log_dir.join(dir_name(&topic.name, index)),
            is_durable: topic.config().flush.is_durable().into(),
            is_deleted: AtomicBool::new(false),
            topic,
            index,
            number,
            segments: ArcSwap::from_pointee(segments),
            log_start: log_start.into(),
            log_end: end.into(),
            flushed: end.into(),
            high_watermark: end.into(),
            told: watch::Sender::new(end),
            standing: AtomicU8::new(Standing::Online as u8),
            generation: AtomicU64::new(0),
            dirty_since_ns: AtomicU64::new(CLEAN),
            appended_bytes: AtomicU64::new(0),
            epochs: Vec::new(),
        }
    }

    /// With the epochs of its leaders, each with its first offset, in order.
    pub(super) fn with_epochs(self, epochs: Vec<(i32, i64)>) -> Self {
        Self { epochs, ..self }
    }

    /// The epoch in which is appended now; another than before where something may have been lost since
    /// (KIP-320). -1 where nobody appends.
    pub fn leader_epoch(&self) -> i32 {
        self.epochs.last().map_or(-1, |(epoch, _)| *epoch)
    }

    /// The last epoch up to that one in which something was appended, and the first offset after it. Who read
    /// further in that epoch read what is gone. None for an epoch that is yet to come.
    pub fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        if epoch == self.leader_epoch() {
            return Some((epoch, self.log_end_offset()));
        }
        let later = self.epochs.partition_point(|(own, _)| *own <= epoch);
        let (_, end) = self.epochs.get(later)?;
        let last = later.checked_sub(1).and_then(|last| self.epochs.get(last));
        Some((last.map_or(epoch, |(own, _)| *own), *end))
    }

    /// The topic it is of.
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Its number in the topic, from 0.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its first offset.
    pub fn log_start_offset(&self) -> i64 {
        self.log_start.load(Ordering::Acquire)
    }

    /// The first offset that is not shown yet.
    pub fn high_watermark(&self) -> i64 {
        // Acquire: pairs with `show_below`; the batches below it are in their files.
        self.high_watermark.load(Ordering::Acquire)
    }

    /// The offset that the next record gets.
    pub fn log_end_offset(&self) -> i64 {
        self.log_end.load(Ordering::Acquire)
    }

    /// The first offset that is not known to be safe on disk.
    pub fn flushed_offset(&self) -> i64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// Whether what is appended to it is acknowledged and shown only when it is on disk. Where the topic's
    /// config says so no longer, it becomes so when nothing waits to be safe.
    pub fn is_durable(&self) -> bool {
        self.is_durable.load(Ordering::Acquire)
    }

    /// Whether its topic was deleted. Who has it may go on reading what is there.
    pub fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    /// Whether it takes no appends, because the disk failed it.
    pub fn is_offline(&self) -> bool {
        self.standing() != Standing::Online
    }

    /// Bytes of its segments' logs.
    pub fn size_bytes(&self) -> u64 {
        self.segments.load().iter().map(|one| one.size()).sum()
    }

    /// Its segments, by base offset; the last is the active one.
    pub fn segments(&self) -> Vec<SegmentFacts> {
        let facts = |segment: &Arc<Segment>| SegmentFacts {
            base_offset: segment.base_offset,
            end_offset: segment.end_offset(),
            bytes: segment.size(),
            max_timestamp_ms: segment.max_timestamp(),
            is_active: !segment.is_closed(),
        };
        self.segments.load().iter().map(facts).collect()
    }

    /// How many segments it has.
    pub(super) fn segment_count(&self) -> usize {
        self.segments.load().len()
    }

    /// Whether its active segment is to be closed for its age by now.
    pub(super) fn is_overdue(&self, now_ns: u64) -> bool {
        let active = self.active();
        let at_ns = active.and_then(|active| active.closes_at_ns());
        at_ns.is_some_and(|at_ns| at_ns <= now_ns)
    }

    /// The high watermark, whenever it moves.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.told.subscribe()
    }

    /// Those who are told.
    #[cfg(test)]
    pub(crate) fn waiters(&self) -> usize {
        self.told.receiver_count()
    }

    /// Whole stored batches, the first of which holds `offset` or, where compaction left nothing of it, is
    /// the next: up to `bytes_max`, but one at least, none of them at or above the high watermark. Nothing at
    /// the high watermark. They come from one segment, and their checksums are not looked at.
    ///
    /// # Errors
    /// When there is no such offset, the disk fails, or what is there is no batch.
    pub fn read(&self, offset: i64, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
        // In this order: the segments have at least what the high watermark shows.
        let until = self.high_watermark();
        let segments = self.segments.load_full();
        let first = self.first_of(&segments);
        if offset < first || offset > until {
            return Err(ReadError::OutOfRange { first, end: until });
        }
        let after = segments.partition_point(|segment| segment.base_offset <= offset);
        for segment in segments.iter().skip(after.saturating_sub(1)) {
            let bytes = segment.read(offset, until, bytes_max)?;
            if !bytes.is_empty() {
                return Ok(bytes);
            }
        }
        Ok(Vec::new())
    }

    /// The time of the first record from `offset` on, in Unix milliseconds, as the header of its batch tells it: no
    /// later than the record's own, unless the batch tells but one time. None at the high watermark.
    ///
    /// # Errors
    /// When there is no such offset, the disk fails, or what is there is no batch.
    pub fn time_from(&self, offset: i64) -> Result<Option<i64>, ReadError> {
        // In this order, as `read`.
        let until = self.high_watermark();
        let segments = self.segments.load_full();
        let first = self.first_of(&segments);
        if offset < first || offset > until {
            return Err(ReadError::OutOfRange { first, end: until });
        }
        let after = segments.partition_point(|segment| segment.base_offset <= offset);
        for segment in segments.iter().skip(after.saturating_sub(1)) {
            if let Some((_, batch)) = segment.find(offset)? {
                let is_shown = batch.last_offset() < until;
                return Ok(is_shown.then(|| batch.first_timestamp()));
            }
        }
        Ok(None)
    }

    /// What tells it from all other partitions that the log has or had since it was opened.
    pub fn number(&self) -> usize {
        self.number
    }

    /// How many bytes [`Self::read`] gives at the most, without reading them: fewer where some of them are not
    /// to be shown yet.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn measure(&self, offset: i64, bytes_max: usize) -> Result<usize, ReadError> {
        self.check(offset)?;
        let until = self.high_watermark();
        if offset >= until {
            return Ok(0);
        }
        let segments = self.segments.load_full();
        let after = segments.partition_point(|segment| segment.base_offset <= offset);
        for segment in segments.iter().skip(after.saturating_sub(1)) {
            let bytes = segment.measure(offset, until, bytes_max)?;
            if bytes > 0 {
                return Ok(bytes);
            }
        }
        Ok(0)
    }

    /// Whether [`Self::read`] would take this offset.
    ///
    /// # Errors
    /// When there is no such offset.
    pub fn check(&self, offset: i64) -> Result<(), ReadError> {
        let end = self.high_watermark();
        let first = self.first_of(&self.segments.load());
        match (first..=end).contains(&offset) {
            true => Ok(()),
            false => Err(ReadError::OutOfRange { first, end }),
        }
    }

    /// The first record of that time or later: its offset and its time, in Unix milliseconds. None where all
    /// are earlier.
    ///
    /// # Errors
    /// When the disk fails, or what is there is no batch.
    pub fn offset_at_or_after(&self, timestamp_ms: i64) -> Result<Option<(i64, i64)>, ReadError> {
        let until = self.high_watermark();
        let segments = self.segments.load_full();
        let first = self.first_of(&segments);
        let late = |segment: &&Arc<Segment>| segment.max_timestamp() >= timestamp_ms;
        for segment in segments.iter().filter(late) {
            let found = segment.at_or_after(timestamp_ms, first, until)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first offset that these segments have and retention has not taken.
    fn first_of(&self, segments: &[Arc<Segment>]) -> i64 {
        let base = segments.first().map_or(0, |first| first.base_offset);
        self.log_start_offset().max(base)
    }

    pub(super) fn all_segments(&self) -> Arc<Vec<Arc<Segment>>> {
        self.segments.load_full()
    }

    /// The segment that is appended to.
    pub(super) fn active(&self) -> Option<Arc<Segment>> {
        self.segments.load().last().cloned()
    }

    pub(super) fn set_segments(&self, segments: Vec<Arc<Segment>>) {
        self.segments.store(Arc::new(segments));
    }

    pub(super) fn set_log_start(&self, offset: i64) {
        self.log_start.store(offset, Ordering::Release);
    }

    pub(super) fn set_log_end(&self, offset: i64) {
        self.log_end.store(offset, Ordering::Release);
    }

    pub(super) fn set_flushed(&self, offset: i64) {
        self.flushed.store(offset, Ordering::Release);
    }

    /// Shows readers everything below `offset`, and what was shown before.
    pub(super) fn show_below(&self, offset: i64) {
        // Release: pairs with `high_watermark`. It never falls, whoever of appender and flusher is late when
        // the topic becomes durable, or is so no more.
        if self.high_watermark.fetch_max(offset, Ordering::Release) < offset {
            self.told.send_if_modified(|told| {
                let is_more = *told < offset;
                *told = offset.max(*told);
                is_more
            });
        }
    }

    pub(super) fn set_durable(&self, is_durable: bool) {
        self.is_durable.store(is_durable, Ordering::Release);
    }

    /// Its files go. Who looks something up walks the segments: another topic of the same name may have
    /// files where its indexes were.
    pub(super) fn set_deleted(&self) {
        self.is_deleted.store(true, Ordering::Release);
        for segment in self.segments.load().iter() {
            segment.show_entries(0, 0);
        }
    }

    pub(super) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Acquire) {
            0 => Standing::Online,
            1 => Standing::Offline,
            _ => Standing::LetGo,
        }
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Release);
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn next_generation(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Counts what was appended, and from when on it waits to be flushed.
    pub(super) fn add_dirty(&self, bytes: u64, now_ns: u64) {
        self.appended_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Fails where something waits already.
        let _ = self.dirty_since_ns.compare_exchange(
            CLEAN,
            now_ns,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
    }

    /// Since when something waits to be flushed.
    pub(super) fn dirty_since_ns(&self) -> Option<u64> {
        let since = self.dirty_since_ns.load(Ordering::Acquire);
        (since != CLEAN).then_some(since)
    }

    /// What is appended from now on waits anew.
    pub(super) fn take_dirty(&self) -> Option<u64> {
        let since = self.dirty_since_ns.swap(CLEAN, Ordering::AcqRel);
        (since != CLEAN).then_some(since)
    }

    pub(super) fn appended_bytes(&self) -> u64 {
        self.appended_bytes.load(Ordering::Relaxed)
    }

    /// How it is told: topic and number.
    pub fn name(&self) -> String {
        dir_name(&self.topic.name, self.index)
    }
}
