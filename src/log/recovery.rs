//! Opening the segments of one partition: what a crash left half-made is ended or removed, what cannot be
//! trusted is walked.
//!
//! After an orderly stop everything is trusted, and each segment is asked only whether its indexes fit it.
//! After a crash the segments from the recovery point on are walked. A torn tail is cut. Damage that a whole
//! batch follows is taken out and kept under `quarantine/`, so that it never costs what came after.

use std::{io, path::Path, sync::Arc};

use super::{
    Found,
    ballast::is_full,
    batch::Header,
    checkpoint::LOG_STARTS,
    files::{SWAP, copy, fresh, rewrite, write_again, write_indexes},
    index::{self, Indexer, OffsetEntry, TimeEntry},
    scan::{Scan, scan},
    segment::{Extent, INDEX, LOG, Segment, TIME_INDEX, base_of, path},
    swap,
    writer::new_segment,
};
use crate::base::disk::{Disk, File, Open};

/// The directory with what was taken out of segments, beside the partitions.
pub(super) const QUARANTINE: &str = "quarantine";
/// Files it may have; what is found beyond that is told and not kept.
const QUARANTINED_MAX: usize = 256;

/// More than an index of a segment can have, in bytes: an entry every 4 KiB of 2 GiB.
const INDEX_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What opening a partition needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Whether the log was closed in good order.
    pub(super) was_clean: bool,
    /// What was safe on disk.
    pub(super) recovery_point: i64,
    /// Where the partition begins.
    pub(super) log_start: i64,
}

/// A partition's segments, as they were opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) segments: Vec<Arc<Segment>>,
    /// Of the last of them.
    pub(super) indexer: Indexer,
    /// Where the partition begins, as far as that is believed.
    pub(super) log_start: i64,
    /// Whether the partition may not have all that it had.
    pub(super) was_cut: bool,
}

/// Opens one partition's directory, and sets right what is wrong in it.
#[derive(Debug)]
pub(super) struct Recovery<'a> {
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) log_dir: &'a Path,
    pub(super) dir: &'a Path,
    pub(super) found: &'a mut Vec<Found>,
}

impl Recovery<'_> {
    /// # Errors
    /// When the disk fails or is full.
    pub(super) fn open(mut self, known: Known) -> io::Result<Opened> {
        let bases = self.tidy()?;
        let losses = self.losses();
        // The last segment that begins at or before the recovery point has it.
        let trusted = match known.was_clean {
            true => bases.len(),
            false => bases
                .partition_point(|base| *base <= known.recovery_point)
                .min(bases.len())
                .saturating_sub(1),
        };
        let mut segments = Vec::<Arc<Segment>>::new();
        let mut indexer = None;
        for (place, base) in bases.iter().enumerate() {
            let (segment, own) = match place < trusted {
                true => self.trusted(*base)?,
                false => self.walked(*base, Some(known.recovery_point))?,
            };
            let is_over = |last: &Arc<Segment>| match segment.size() {
                // It was to be the next, could not be made whole, and could not be removed.
                0 => last.end_offset() > *base,
                // The one before took its place.
                _ => last.end_offset() >= segment.end_offset(),
            };
            if segments.last().is_some_and(is_over) {
                swap::remove(&**self.disk, self.dir, *base)?;
                self.found.push(Found::Removed(path(self.dir, *base, LOG)));
                continue;
            }
            segments.push(Arc::new(segment));
            indexer = Some(own);
        }
        self.tell_missing(segments.get(trusted..).unwrap_or_default());
        let log_start = self.believed(known.log_start, &segments);
        self.remove_below(log_start, &mut segments)?;
        if let (Some(last), Some(indexer)) = (segments.last(), indexer) {
            let end = last.end_offset();
            if end < known.recovery_point {
                self.found.push(Found::Shorter {
                    dir: self.dir.to_owned(),
                    expected: known.recovery_point,
                    end,
                });
            }
            return Ok(Opened {
                was_cut: self.losses() > losses,
                segments,
                indexer,
                log_start,
            });
        }
        let base = known.recovery_point.max(known.log_start);
        let segment = new_segment(self.disk, self.dir, base)?;
        self.disk.sync_dir(self.dir)?;
        segment.set_named(true);
        Ok(Opened {
            segments: vec![Arc::new(segment)],
            indexer: Indexer::new(base),
            log_start,
            was_cut: false,
        })
    }

    /// Where the log begins. Not beyond its end: rather is removed twice what was removed than once what was not.
    fn believed(&mut self, log_start: i64, segments: &[Arc<Segment>]) -> i64 {
        let Some(end) = segments.last().map(|last| last.end_offset()) else {
            return log_start;
        };
        if log_start <= end {
            return log_start;
        }
        let partition = self.dir.file_name().unwrap_or_default().display();
        self.found.push(Found::Checkpoint {
            path: self.log_dir.join(LOG_STARTS),
            what: format!("{partition} would begin at {log_start}, and ends at {end}"),
        });
        0
    }

    /// Removes segments that the log's start has passed, but for the last.
    fn remove_below(&mut self, log_start: i64, segments: &mut Vec<Arc<Segment>>) -> io::Result<()> {
        let last = segments.len().saturating_sub(1);
        let closed = segments.iter().take(last);
        let below = closed
            .take_while(|one| one.end_offset() <= log_start)
            .count();
        for segment in segments.drain(..below) {
            swap::remove(&**self.disk, self.dir, segment.base_offset)?;
            self.disk.sync_dir(self.dir)?;
            self.found.push(Found::Removed(segment.path(LOG)));
        }
        Ok(())
    }

    /// Tells what is gone between segments: of two that were not safe, the later may have outlived the end
    /// of the earlier.
    fn tell_missing(&mut self, walked: &[Arc<Segment>]) {
        for (segment, next) in walked.iter().zip(walked.iter().skip(1)) {
            if segment.end_offset() < next.base_offset {
                self.found.push(Found::Missing {
                    dir: self.dir.to_owned(),
                    from: segment.end_offset(),
                    until: next.base_offset,
                });
            }
        }
    }

    fn losses(&self) -> usize {
        self.found.iter().filter(|found| found.is_loss()).count()
    }

    /// Ends or removes what is half-made. Returns the base offsets of the segments, in order.
    fn tidy(&mut self) -> io::Result<Vec<i64>> {
        let names = self.disk.names(self.dir)?;
        let mut swaps: Vec<_> = names
            .iter()
            .filter_map(|name| base_of(name, SWAP))
            .collect();
        swaps.sort_unstable();
        for base in swaps {
            self.end_swap(base)?;
        }
        let is_half_made = |name: &String| {
            [".cleaned", ".mended", ".swap", ".deleted", ".tmp"]
                .iter()
                .any(|end| name.ends_with(end))
        };
        for name in names.iter().filter(|name| is_half_made(name)) {
            self.remove(name)?;
        }
        let names = self.disk.names(self.dir)?;
        let mut bases: Vec<_> = names.iter().filter_map(|name| base_of(name, LOG)).collect();
        bases.sort_unstable();
        for extension in [INDEX, TIME_INDEX] {
            let orphans = names
                .iter()
                .filter(|name| base_of(name, extension).is_some_and(|base| !bases.contains(&base)));
            for name in orphans {
                self.remove(name)?;
            }
        }
        Ok(bases)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let path = self.dir.join(name);
        match self.disk.remove(&path) {
            Ok(()) => self.found.push(Found::Removed(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Brings a swap to its end: the new segment is complete, and stands for those that begin in it.
    fn end_swap(&mut self, base: i64) -> io::Result<()> {
        let swap = path(self.dir, base, SWAP);
        let log = self.disk.open(&swap, Open::Write)?;
        let scan = scan(&*log, log.size()?, base, None)?;
        if !scan.is_whole() {
            // Only a disk that lies about what is safe brings this about; the old ones are still there, or
            // the walk below finds what is good in this one.
            let old = path(self.dir, base, LOG);
            if self.disk.open(&old, Open::Read).is_ok() {
                return Ok(());
            }
        }
        let names = self.disk.names(self.dir)?;
        let bases = names.iter().filter_map(|name| base_of(name, LOG));
        for other in bases.filter(|other| *other > base && *other < scan.extent.end_offset) {
            swap::remove(&**self.disk, self.dir, other)?;
        }
        self.disk.sync_dir(self.dir)?;
        let path = path(self.dir, base, LOG);
        self.disk.rename(&swap, &path)?;
        write_indexes(&**self.disk, self.dir, base, &scan.built)?;
        self.disk.sync_dir(self.dir)?;
        self.found.push(Found::Swapped(path));
        Ok(())
    }

    /// A segment of which everything is safe: its indexes are asked whether they fit it.
    fn trusted(&mut self, base: i64) -> io::Result<(Segment, Indexer)> {
        let log = self.disk.open(&path(self.dir, base, LOG), Open::Write)?;
        match checked(&**self.disk, self.dir, base, &*log)? {
            Some((extent, indexer)) => {
                let disk = Arc::clone(self.disk);
                Ok((Segment::new(self.dir, base, log, disk, extent), indexer))
            }
            None => self.walked(base, None),
        }
    }

    /// A segment of which nothing is believed. After a crash all is safe that is below the recovery point
    /// `safe_below`; without one, all is that is there, and its indexes should have fitted.
    fn walked(&mut self, base: i64, safe_below: Option<i64>) -> io::Result<(Segment, Indexer)> {
        let name = path(self.dir, base, LOG);
        let log = self.disk.open(&name, Open::Write)?;
        let size = log.size()?;
        let scan = scan(&*log, size, base, None)?;
        if let Some(tail) = &scan.tail {
            self.found.push(Found::TornTail {
                path: name.clone(),
                position: tail.bytes.start,
                bytes: tail.bytes.end - tail.bytes.start,
                damage: tail.damage,
            });
        }
        if !scan.bad.is_empty() {
            self.quarantine(&name, base, &*log, &scan)?;
            let (segment, named) = rewrite(self.disk, self.dir, base, &*log, &scan)?;
            named?;
            return Ok((segment, scan.indexer));
        }
        if scan.extent.size < size {
            log.set_len(scan.extent.size)?;
        }
        if let Some(offset) = safe_below {
            // A sync may have failed before the crash, and its pages be called clean: they are written anew,
            // so that the next sync means them too.
            write_again(&*log, position_of(&scan, base, offset)..scan.extent.size)?;
        }
        // What is shown from now on must outlive the next crash.
        log.sync_data()?;
        let mut extent = scan.extent;
        if !has_indexes(&**self.disk, self.dir, base, &scan) {
            if safe_below.is_none() {
                self.found.push(Found::IndexRebuilt(name));
            }
            match write_indexes(&**self.disk, self.dir, base, &scan.built) {
                // It is read without: that it could not be opened would cost more.
                Err(error) if is_full(&error) => {
                    (extent.offset_entries, extent.time_entries) = (0, 0);
                }
                written => written?,
            }
        }
        self.disk.sync_dir(self.dir)?;
        let disk = Arc::clone(self.disk);
        let segment = Segment::new(self.dir, base, log, disk, extent);
        segment.set_sealed(false);
        Ok((segment, scan.indexer))
    }

    /// Keeps what is bad in the middle of a segment.
    pub(super) fn quarantine(
        &mut self,
        name: &Path,
        base: i64,
        log: &dyn File,
        scan: &Scan,
    ) -> io::Result<()> {
        let dir = self.log_dir.join(QUARANTINE);
        self.disk.create_dir(&dir)?;
        let partition = self.dir.file_name().unwrap_or_default().to_string_lossy();
        for bad in &scan.bad {
            let has = self.disk.names(&dir)?.len();
            let kept = (has < QUARANTINED_MAX)
                .then(|| dir.join(format!("{partition}-{base:020}-{}.bytes", bad.bytes.start)));
            if let Some(kept) = &kept {
                let file = fresh(&**self.disk, kept)?;
                copy(log, bad.bytes.clone(), &*file, 0)?;
                file.sync_data()?;
            }
            self.found.push(Found::Quarantined {
                path: name.to_owned(),
                position: bad.bytes.start,
                bytes: bad.bytes.end - bad.bytes.start,
                damage: bad.damage,
                kept,
            });
        }
        self.disk.sync_dir(&dir)?;
        self.disk.sync_dir(self.log_dir)
    }
}

/// What a segment's indexes say of it, if they fit: in order, and ending with its last batch.
///
/// # Errors
/// When the log cannot be read.
pub(super) fn checked(
    disk: &dyn Disk,
    dir: &Path,
    base: i64,
    log: &dyn File,
) -> io::Result<Option<(Extent, Indexer)>> {
    let size = log.size()?;
    let offsets = entries::<OffsetEntry>(disk, &path(dir, base, INDEX));
    let times = entries::<TimeEntry>(disk, &path(dir, base, TIME_INDEX));
    let (Some(offsets), Some(times)) = (offsets, times) else {
        return Ok(None);
    };
    let (last, latest) = (offsets.last().copied(), times.last().copied());
    let indexer = Indexer::resumed(base, last, latest);
    let Some(last) = last else {
        let is_empty = size == 0 && times.is_empty();
        return Ok(is_empty.then(|| (Extent::empty(base), indexer)));
    };
    let mut bytes = [0; super::HEADER_BYTES];
    let position = u64::from(last.position);
    let read = log.read_full_at(&mut bytes, position)?;
    let Ok(header) = Header::read(bytes.get(..read).unwrap_or_default()) else {
        return Ok(None);
    };
    let max_timestamp = indexer.max_timestamp();
    let fits = header.last_offset() == base + i64::from(last.offset)
        && position + header.size() as u64 == size
        && header.max_timestamp() <= max_timestamp
        && latest.is_none_or(|latest| latest.offset <= last.offset);
    let count = |entries: usize| u32::try_from(entries).unwrap_or(u32::MAX);
    let extent = Extent {
        size,
        end_offset: header.last_offset() + 1,
        max_timestamp,
        offset_entries: count(offsets.len()),
        time_entries: count(times.len()),
    };
    Ok(fits.then_some((extent, indexer)))
}

/// Where a batch begins at or before `offset`, by the indexes that were just built.
fn position_of(scan: &Scan, base: i64, offset: i64) -> u64 {
    let entries = index::all::<OffsetEntry>(&scan.built.offsets).unwrap_or_default();
    let is_before = |entry: &OffsetEntry| base + i64::from(entry.offset) < offset;
    let before = entries.partition_point(is_before);
    let entry = before.checked_sub(1).and_then(|last| entries.get(last));
    entry.map_or(0, |entry| entry.position.into())
}

/// The entries of an index; none where it is not there, cannot be read, or is none.
fn entries<E: index::Entry>(disk: &dyn Disk, path: &Path) -> Option<Vec<E>> {
    index::all(&contents(disk, path)?)
}

fn contents(disk: &dyn Disk, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path, Open::Read).ok()?;
    let size = file.size().ok().filter(|size| *size <= INDEX_BYTES_MAX)?;
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

/// Whether the indexes on disk are those that the segment should have.
fn has_indexes(disk: &dyn Disk, dir: &Path, base: i64, scan: &Scan) -> bool {
    let is_same = |extension, built: &[u8]| {
        contents(disk, &path(dir, base, extension)).is_some_and(|bytes| bytes == built)
    };
    is_same(INDEX, &scan.built.offsets) && is_same(TIME_INDEX, &scan.built.times)
}
