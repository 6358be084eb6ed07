//! Removing and replacing closed segments of a partition, on the appender's thread.

use std::{io, path::Path, sync::Arc};

use super::{
    cleaned::Cleaned,
    commands::NotDone,
    files::{SWAP, write_indexes},
    partition::Partition,
    segment::{INDEX, LOG, Segment, TIME_INDEX, path},
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
    partition.set_segments(left.to_vec());
    if !gone.is_empty() && !left.iter().all(|segment| segment.is_named()) {
        // Were the last that has batches gone, and the name of the next not safe, a crash would take where
        // the partition ends, and its offsets be given once more.
        disk.sync_dir(&partition.dir).map_err(NotDone::Io)?;
    }
    // One safely after the other, the oldest first, so that a crash leaves no hole. What cannot be removed
    // now is when the log is opened.
    for segment in gone {
        remove(disk, &partition.dir, segment.base_offset).map_err(NotDone::Io)?;
        disk.sync_dir(&partition.dir).map_err(NotDone::Io)?;
    }
    Ok(())
}

/// Puts `cleaned` in the place of the run of closed segments that begin at the offsets `run`.
pub(super) fn replace(
    partition: &Partition,
    disk: &Arc<dyn Disk>,
    run: &[i64],
    cleaned: Cleaned,
) -> Result<(), NotDone> {
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
    let new = swap_in(disk, &partition.dir, run, cleaned).map_err(NotDone::Io)?;
    let segments = [before, &[Arc::new(new)], after].concat();
    partition.set_segments(segments);
    Ok(())
}

fn swap_in(disk: &Arc<dyn Disk>, dir: &Path, run: &[i64], cleaned: Cleaned) -> io::Result<Segment> {
    let base_offset = cleaned.base_offset;
    let swap = path(dir, base_offset, SWAP);
    disk.rename(&cleaned.path, &swap)?;
    // From here on the new segment counts.
    disk.sync_dir(dir)?;
    for replaced in run.iter().filter(|base| **base != base_offset) {
        remove(&**disk, dir, *replaced)?;
    }
    disk.rename(&swap, &path(dir, base_offset, LOG))?;
    write_indexes(&**disk, dir, base_offset, &cleaned.built)?;
    disk.sync_dir(dir)?;
    let disk = Arc::clone(disk);
    let segment = Segment::new(dir, base_offset, cleaned.log, disk, cleaned.extent);
    segment.set_sealed(false);
    Ok(segment)
}
