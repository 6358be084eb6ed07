//! Setting a segment right in which a reader met what does not fit, while the log is at work.
//!
//! What was closed and safe is not walked when the log is opened: a bit that rots there is met by who reads.
//! It costs the batch it is in, as after a crash, and never what came after.

use std::{io, path::Path, sync::Arc};

use super::{
    Found,
    files::{rewrite, write_indexes},
    recovery::Recovery,
    scan::{Scan, scan},
    segment::{LOG, Segment},
    swap,
    writer::Writer,
};
use crate::base::disk::{Disk, Open};

/// Walks a segment of the partition; takes what is damaged out of it, and makes its indexes anew. Returns
/// what was found; nothing where there is no such segment.
///
/// # Errors
/// When the disk fails or is full. The segment then stays what it is.
pub(super) fn mend(
    writer: &mut Writer,
    disk: &Arc<dyn Disk>,
    log_dir: &Path,
    base_offset: i64,
) -> io::Result<Vec<Found>> {
    swap::settle(writer, &**disk)?;
    if writer.active.segment.base_offset == base_offset {
        // Nothing is appended to what is being rewritten.
        writer.roll()?;
    }
    let partition = Arc::clone(&writer.partition);
    let mut segments = partition.all_segments().to_vec();
    let own = |one: &&mut Arc<Segment>| one.base_offset == base_offset && one.is_closed();
    let Some(segment) = segments.iter_mut().find(own) else {
        return Ok(Vec::new());
    };
    let mut scan = scan(&*segment.log, segment.size(), base_offset, None)?;
    // In a closed segment, all that is bad has been good.
    scan.bad.extend(scan.tail.take());
    let mut found = Vec::new();
    let new = match scan.is_whole() {
        true => reopened(segment, disk, &scan, &mut found)?,
        false => {
            let mut recovery = Recovery {
                disk,
                log_dir,
                dir: &partition.dir,
                found: &mut found,
            };
            recovery.quarantine(&segment.path(LOG), base_offset, &*segment.log, &scan)?;
            let (new, named) = rewrite(disk, &partition.dir, base_offset, &*segment.log, &scan)?;
            new.set_named(named.is_ok());
            new
        }
    };
    new.set_sealed(false);
    *segment = Arc::new(new);
    partition.set_segments(segments);
    Ok(found)
}

/// The segment as it was, with indexes made anew.
fn reopened(
    segment: &Segment,
    disk: &Arc<dyn Disk>,
    scan: &Scan,
    found: &mut Vec<Found>,
) -> io::Result<Segment> {
    let path = segment.path(LOG);
    let log = disk.open(&path, Open::Write)?;
    write_indexes(&**disk, &segment.dir, segment.base_offset, &scan.built)?;
    found.push(Found::IndexRebuilt(path));
    let new = Segment::new(
        &segment.dir,
        segment.base_offset,
        log,
        Arc::clone(disk),
        scan.extent,
    );
    new.set_named(segment.is_named());
    Ok(new)
}
