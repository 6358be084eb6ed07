//! The segments of a partition that another process may be writing: looked at, and left as they are.

use std::{io, path::Path, sync::Arc};

use super::{
    recovery::checked,
    scan::scan,
    segment::{Extent, LOG, Segment, base_of, path},
};
use crate::base::disk::{Disk, Open};

/// The segments of the partition in `dir`, by base offset. One whose indexes fit it is believed; another is
/// walked, and read without them.
pub(super) fn segments(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<Vec<Arc<Segment>>> {
    let names = disk.names(dir)?;
    let mut bases: Vec<_> = names.iter().filter_map(|name| base_of(name, LOG)).collect();
    bases.sort_unstable();
    let mut segments = Vec::new();
    for base in bases {
        let log = match disk.open(&path(dir, base, LOG), Open::Read) {
            Ok(log) => log,
            // Retention was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let extent = match checked(&**disk, dir, base, &*log)? {
            Some((extent, _)) => extent,
            None => walked(&*log, base)?,
        };
        let disk = Arc::clone(disk);
        segments.push(Arc::new(Segment::new(dir, base, log, disk, extent)));
    }
    Ok(segments)
}

/// What a segment has that is read without indexes: everything up to its last whole batch.
fn walked(log: &dyn crate::base::disk::File, base: i64) -> io::Result<Extent> {
    let scan = scan(log, log.size()?, base, None)?;
    let end = scan.good.last().map_or(0, |good| good.end);
    Ok(Extent {
        size: end,
        offset_entries: 0,
        time_entries: 0,
        ..scan.extent
    })
}
