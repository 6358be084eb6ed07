//! Brings back a partition whose data could not be made safe.
//!
//! After a failed fsync nobody knows what of a file is on disk, and asking again proves nothing: the system
//! may have dropped the pages and called them clean. So what can still be read and verified of the segments
//! that were not safe is written into new files, which are made safe and take the old ones' place.

use std::{io, sync::Arc};

use super::{
    files::rewrite,
    index::Indexer,
    scan::scan,
    segment::Segment,
    swap,
    writer::{Active, Writer},
};
use crate::base::disk::Disk;

/// Heals the partition and lets it take appends again. Its flusher has let go of it.
///
/// Of a durable partition, what was not safe goes: nobody was shown it, and who offered it has it back. Of
/// others, and of what one had that became durable since, all was shown, and what can be read of it stays;
/// no offset is given twice.
///
/// # Errors
/// When the disk fails or is full. The partition then stays offline, and this may be tried again.
pub(super) fn heal(writer: &mut Writer, disk: &Arc<dyn Disk>) -> io::Result<()> {
    let partition = Arc::clone(&writer.partition);
    let flushed = partition.flushed_offset();
    let shown = flushed.max(partition.high_watermark());
    let until = partition.is_durable().then_some(shown);
    let segments = partition.all_segments();
    let last = segments.len().saturating_sub(1);
    // The active one too where it has nothing new: its name may not be safe.
    let safe = segments.partition_point(|segment| segment.end_offset() <= flushed);
    let (safe, ailing) = segments
        .split_at_checked(safe.min(last))
        .unwrap_or_default();
    // Nothing of these was shown: later ones first, so that a crash leaves no hole.
    let (ailing, unseen) = match until {
        Some(until) => {
            let seen = ailing.partition_point(|segment| segment.base_offset < until);
            ailing.split_at_checked(seen.max(1)).unwrap_or_default()
        }
        None => (ailing, [].as_slice()),
    };
    for segment in unseen.iter().rev() {
        swap::remove(&**disk, &partition.dir, segment.base_offset)?;
    }
    let mut healed = safe.to_vec();
    let mut active = None;
    for segment in ailing {
        let (new, indexer) = renewed(segment, until, disk)?;
        let new = Arc::new(new);
        active = Some((Arc::clone(&new), indexer));
        healed.push(new);
    }
    let Some((segment, indexer)) = active else {
        return Ok(());
    };
    if until.is_some() {
        // What it knew of those that went. Of others all was acknowledged, and stays known.
        writer.reload_producers(&healed, flushed)?;
    }
    let end = match until {
        Some(until) => until.max(segment.base_offset),
        None => partition.log_end_offset(),
    };
    writer.active = Active::new(segment, indexer, &**disk);
    writer.next_offset = end;
    partition.set_segments(healed);
    partition.set_log_end(end);
    partition.set_flushed(end);
    partition.take_dirty();
    writer.came_back();
    Ok(())
}

fn renewed(
    segment: &Arc<Segment>,
    until: Option<i64>,
    disk: &Arc<dyn Disk>,
) -> io::Result<(Segment, Indexer)> {
    let scan = scan(&*segment.log, segment.size(), segment.base_offset, until)?;
    let (new, named) = rewrite(
        disk,
        &segment.dir,
        segment.base_offset,
        &*segment.log,
        &scan,
    )?;
    named?;
    new.set_sealed(false);
    Ok((new, scan.indexer))
}
