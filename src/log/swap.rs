//! Removing and replacing closed segments of a partition, on the appender's thread.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    cleaned::Cleaned,
    commands::NotDone,
    files::{SWAP, write_indexes},
    index::Built,
    partition::Partition,
    segment::{Extent, INDEX, LOG, Segment, TIME_INDEX, path},
    writer::Writer,
};
use crate::base::disk::Disk;

/// Removes a segment's files: what would come back first, then the indexes, which are tidied up without it.
pub(super) fn remove(disk: &dyn Disk, dir: &Path, base_offset: i64) -> io::Result<()> {
    for extension in [SWAP, LOG, INDEX, TIME_INDEX] {
        match disk.remove(&path(dir, base_offset, extension)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Lets a partition begin at `offset` and removes what is wholly below. Its active segment stays.
pub(super) fn delete_below(
    partition: &Partition,
    disk: &dyn Disk,
    offset: i64,
) -> Result<(), NotDone> {
    let start = offset.min(partition.high_watermark());
    let segments = partition.all_segments();
    let is_below = |segment: &&Arc<Segment>| segment.is_closed() && segment.end_offset() <= start;
    let below = segments.iter().take_while(is_below).count();
    let (gone, left) = segments.split_at_checked(below).unwrap_or_default();
    // Where a crash took the end of the last that goes, the partition begins behind the hole.
    let first = left.first().map_or(start, |first| first.base_offset);
    if start.max(first) > partition.log_start_offset() {
        partition.set_log_start(start.max(first));
    }
    if !gone.is_empty() && !left.iter().all(|segment| segment.is_named()) {
        // Were the last that has batches gone, and the name of the next not safe, a crash would take where
        // the partition ends, and its offsets be given once more.
        disk.sync_dir(&partition.dir).map_err(NotDone::Io)?;
    }
    // One safely after the other, the oldest first, so that a crash leaves no hole. What cannot be removed
    // now stays among the segments, and is when it is asked for again.
    let remove = |segment: &Arc<Segment>| {
        remove(disk, &partition.dir, segment.base_offset)?;
        disk.sync_dir(&partition.dir)
    };
    let mut stay = gone;
    let mut result = Ok(());
    while let (Some((segment, rest)), Ok(())) = (stay.split_first(), &result) {
        result = remove(segment);
        if result.is_ok() {
            stay = rest;
        }
    }
    partition.set_segments([stay, left].concat());
    result.map_err(NotDone::Io)
}

/// A swap that has begun and is not at its end.
#[derive(Debug)]
pub(super) enum Unfinished {
    /// The new segment has its passing name, and does not count: it is to go.
    Undone(PathBuf),
    /// It counts: those it stands for are to go, and it is to get their name.
    Counting(Swapped),
}

/// A new segment that counts, and what is still to be done for it.
#[derive(Debug)]
pub(super) struct Swapped {
    segment: Arc<Segment>,
    run: Vec<i64>,
    built: Built,
    has_name: bool,
}

/// Puts `cleaned` in the place of the run of closed segments that begin at the offsets `run`.
pub(super) fn replace(
    writer: &mut Writer,
    disk: &Arc<dyn Disk>,
    run: Vec<i64>,
    cleaned: Cleaned,
) -> Result<(), NotDone> {
    settle(writer, &**disk).map_err(NotDone::Io)?;
    let partition = Arc::clone(&writer.partition);
    let segments = partition.all_segments();
    let first = segments
        .iter()
        .position(|one| Some(&one.base_offset) == run.first());
    let first = first.ok_or(NotDone::NoRun)?;
    let (before, from) = segments.split_at_checked(first).ok_or(NotDone::NoRun)?;
    let (replaced, after) = from.split_at_checked(run.len()).ok_or(NotDone::NoRun)?;
    let end = after.first().map_or(i64::MAX, |next| next.base_offset);
    let is_run = replaced
        .iter()
        .map(|one| one.base_offset)
        .eq(run.iter().copied())
        && replaced.iter().all(|one| one.is_closed())
        && run.first() == Some(&cleaned.base_offset)
        && cleaned.extent.end_offset <= end;
    if !is_run {
        return Err(NotDone::NoRun);
    }
    let swap = path(&partition.dir, cleaned.base_offset, SWAP);
    disk.rename(&cleaned.path, &swap).map_err(NotDone::Io)?;
    if let Err(error) = disk.sync_dir(&partition.dir) {
        writer.unfinished = Some(Unfinished::Undone(swap));
        return Err(NotDone::Io(error));
    }
    // From here on the new segment counts, whatever fails. It is read without indexes until it has them.
    let extent = Extent {
        offset_entries: 0,
        time_entries: 0,
        ..cleaned.extent
    };
    let (base_offset, log, disk) = (cleaned.base_offset, cleaned.log, Arc::clone(disk));
    let new = Segment::new(&partition.dir, base_offset, log, Arc::clone(&disk), extent);
    let new = Arc::new(new);
    partition.set_segments([before, &[Arc::clone(&new)], after].concat());
    writer.unfinished = Some(Unfinished::Counting(Swapped {
        segment: new,
        run,
        built: cleaned.built,
        has_name: false,
    }));
    settle(writer, &*disk).map_err(NotDone::Io)
}

/// Brings a swap to its end that failed half-way, if there is one. Nothing else is done to the segments of
/// the partition before: their files are not what is at work.
pub(super) fn settle(writer: &mut Writer, disk: &dyn Disk) -> io::Result<()> {
    match &mut writer.unfinished {
        None => return Ok(()),
        Some(Unfinished::Undone(swap)) => match disk.remove(swap) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        },
        Some(Unfinished::Counting(swapped)) => swapped.finish(disk)?,
    }
    writer.unfinished = None;
    Ok(())
}

impl Swapped {
    fn finish(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let segment = &self.segment;
        let (dir, base_offset) = (&segment.dir, segment.base_offset);
        if !self.has_name {
            for replaced in self.run.iter().filter(|base| **base != base_offset) {
                remove(disk, dir, *replaced)?;
            }
            // Before the name: where that outlived a power cut and they came back, nothing would say that they
            // are to go.
            disk.sync_dir(dir)?;
            disk.rename(&segment.path(SWAP), &segment.path(LOG))?;
            self.has_name = true;
        }
        write_indexes(disk, dir, base_offset, &self.built)?;
        disk.sync_dir(dir)?;
        let (offsets, times) = self.built.entries();
        segment.show_entries(offsets, times);
        segment.set_sealed(false);
        Ok(())
    }
}
