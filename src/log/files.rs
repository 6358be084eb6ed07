//! Copying and replacing files of segments, so that a crash leaves the old or the new.

use std::{io, ops::Range, path::Path, sync::Arc};

use super::{
    index::Built,
    scan::Scan,
    segment::{INDEX, LOG, Segment, TIME_INDEX, path},
};
use crate::base::disk::{Disk, File, Open};

/// The ends of the names of files that are not complete, and are removed when the log is opened: what who cleans
/// writes, and what the appender does, which may be at the same segment.
pub(super) const CLEANED: &str = "log.cleaned";
const MENDED: &str = "log.mended";
/// The end of the name of a complete log that takes the place of others. It does so when the log is opened.
pub(super) const SWAP: &str = "log.swap";

/// What is copied at once, in bytes.
const CHUNK_BYTES: usize = 1024 * 1024;

/// A new, empty file; what had the name is gone.
pub(super) fn fresh(disk: &dyn Disk, path: &Path) -> io::Result<Box<dyn File>> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk.open(path, Open::CreateNew)
}

/// Appends a part of one file to another, which has `len` bytes. Returns how many it has then.
pub(super) fn copy(
    from: &dyn File,
    bytes: Range<u64>,
    to: &dyn File,
    mut len: u64,
) -> io::Result<u64> {
    let whole = usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX);
    let mut buffer = vec![0; whole.min(CHUNK_BYTES)];
    let mut at = bytes.start;
    while at < bytes.end {
        let rest = usize::try_from(bytes.end - at).unwrap_or(usize::MAX);
        let chunk = buffer.get_mut(..rest.min(CHUNK_BYTES)).unwrap_or_default();
        from.read_exact_at(chunk, at)?;
        to.write_all_at(chunk, len)?;
        at += chunk.len() as u64;
        len += chunk.len() as u64;
    }
    Ok(len)
}

/// Writes a part of a file over itself.
pub(super) fn write_again(file: &dyn File, bytes: Range<u64>) -> io::Result<()> {
    let len = bytes.start;
    copy(file, bytes, file, len).map(|_| ())
}

/// Writes the indexes of a segment anew. A crash may leave them torn; that is found when the log is opened.
pub(super) fn write_indexes(
    disk: &dyn Disk,
    dir: &Path,
    base_offset: i64,
    built: &Built,
) -> io::Result<()> {
    for (extension, bytes) in [(INDEX, &built.offsets), (TIME_INDEX, &built.times)] {
        fresh(disk, &path(dir, base_offset, extension))?.write_all_at(bytes, 0)?;
    }
    Ok(())
}

/// Writes what is good of a segment into a new file, which takes its place and name. Where that fails the
/// segment is as it was, but for its indexes; from there on the new one is. Says whether its name is safe, too.
///
/// # Errors
/// When the disk fails or is full.
pub(super) fn rewrite(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    base_offset: i64,
    old: &dyn File,
    scan: &Scan,
) -> io::Result<(Segment, io::Result<()>)> {
    let unfinished = path(dir, base_offset, MENDED);
    let log = fresh(&**disk, &unfinished)?;
    let mut len = 0;
    for good in &scan.good {
        len = copy(old, good.clone(), &*log, len)?;
    }
    log.sync_data()?;
    write_indexes(&**disk, dir, base_offset, &scan.built)?;
    disk.rename(&unfinished, &path(dir, base_offset, LOG))?;
    let named = disk.sync_dir(dir);
    let disk = Arc::clone(disk);
    let new = Segment::new(dir, base_offset, log, disk, scan.extent);
    Ok((new, named))
}
