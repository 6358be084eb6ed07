//! Producers on disk: Kafka's `.snapshot` files, and how they are found again when the log is opened.
//!
//! ```text
//! version i16, 1   CRC-32C u32, of what follows   entries i32
//! { producer id i64   epoch i16   last sequence i32   last offset i64   offset delta i32   timestamp i64
//!   coordinator epoch i32   first offset of the current transaction i64 }*
//! ```
//!
//! A file is named by the offset below which it tells of all batches. It has an entry for each batch that is
//! remembered, the last of a producer last: that is the one that Kafka, which keeps one each, goes by.
//!
//! Files are not synced. One is believed only if its checksum is right and all that it tells of was safe; what came
//! after it is walked. So a file that is missing or damaged costs a longer walk.

use std::{io, path::Path, sync::Arc};

use super::{Numbered, Producers};
use crate::{
    base::disk::{Disk, Open},
    log::{
        files::fresh,
        segment::{ReadError, Segment, base_of, path},
    },
};

/// The end of the names of such files.
const SNAPSHOT: &str = "snapshot";
/// Until it is complete. It is removed when the log is opened.
const UNFINISHED: &str = "snapshot.tmp";

/// Files that are kept: should the last not be usable, there is one before.
const FILES_KEPT: usize = 2;

const VERSION: i16 = 1;
const NONE: i32 = -1;
const HEAD_BYTES: usize = 10;
const ENTRY_BYTES: usize = 46;
/// More than such a file has, in bytes.
const BYTES_MAX: u64 =
    (HEAD_BYTES + ENTRY_BYTES * super::PRODUCERS_MAX * super::BATCHES_KEPT) as u64;

/// The files of a partition, by offset.
#[derive(Debug, Default)]
pub(in crate::log) struct Snapshots(Vec<i64>);

impl Snapshots {
    /// Keeps what is known of all batches below `offset`. Where that fails, more is walked the next time.
    pub(in crate::log) fn keep(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        offset: i64,
        producers: &Producers,
    ) {
        if producers.has_missing() {
            // A file cannot tell it; who walks finds it.
            return;
        }
        if self.write(disk, dir, offset, producers).is_err() {
            // What is left of it is removed when the log is opened.
            let _ = disk.remove(&path(dir, offset, UNFINISHED));
            return;
        }
        self.0.retain(|one| *one != offset);
        self.0.push(offset);
        let excess = self.0.len().saturating_sub(FILES_KEPT);
        for old in self.0.drain(..excess) {
            // One more than needed costs nothing but its room.
            let _ = disk.remove(&path(dir, old, SNAPSHOT));
        }
    }

    fn write(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        offset: i64,
        producers: &Producers,
    ) -> io::Result<()> {
        let unfinished = path(dir, offset, UNFINISHED);
        fresh(disk, &unfinished)?.write_all_at(&encoded(producers), 0)?;
        disk.rename(&unfinished, &path(dir, offset, SNAPSHOT))
    }

    /// Removes files that tell of batches at or above `offset`, which are gone or may be, safely.
    ///
    /// # Errors
    /// When the disk fails.
    pub(in crate::log) fn remove_above(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        offset: i64,
    ) -> io::Result<()> {
        let gone: Vec<_> = self.0.extract_if(.., |one| *one > offset).collect();
        for one in &gone {
            match disk.remove(&path(dir, *one, SNAPSHOT)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.0.extend(gone);
                    return Err(error);
                }
                _ => {}
            }
        }
        match gone.is_empty() {
            true => Ok(()),
            // Else one could come back after a power cut, when others are in place of what it tells of.
            false => disk.sync_dir(dir).inspect_err(|_| self.0.extend(gone)),
        }
    }
}

/// What is known of the producers of a partition that has these segments, of which everything below `safe_below`
/// was safe when they were written last; and the files that tell of it. What is silent is silent from now on.
///
/// # Errors
/// When the disk fails.
pub(in crate::log) fn load(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    segments: &[Arc<Segment>],
    safe_below: i64,
    now_ns: u64,
) -> io::Result<(Producers, Snapshots)> {
    let names = disk.names(dir)?;
    let mut offsets: Vec<_> = names
        .iter()
        .filter_map(|name| base_of(name, SNAPSHOT))
        .collect();
    offsets.sort_unstable();
    let mut files = Snapshots(offsets);
    files.remove_above(&**disk, dir, safe_below)?;
    let mut producers = Producers::default();
    let mut from = 0;
    while let Some(offset) = files.0.last().copied() {
        if let Some(found) = read(&**disk, &path(dir, offset, SNAPSHOT), now_ns) {
            (producers, from) = (found, offset);
            break;
        }
        tracing::warn!(
            "the log: {} is no snapshot of producers; what came after the one before is walked",
            path(dir, offset, SNAPSHOT).display()
        );
        files.0.pop();
        // Where it stays, it is met again.
        let _ = disk.remove(&path(dir, offset, SNAPSHOT));
    }
    // The beginning may be missing, too.
    let mut expected = from;
    for segment in segments.iter().filter(|one| one.end_offset() > from) {
        let walked = segment.walk(from, |batch| {
            if batch.base_offset() > expected {
                producers.gap_end = Some(batch.base_offset());
            }
            expected = batch.last_offset() + 1;
            producers.took(batch, now_ns);
        });
        match walked {
            Ok(()) => {}
            // To know less than there is would be to refuse what follows it.
            Err(ReadError::Io(_, error)) => return Err(error),
            // It is mended by who reads it.
            Err(error) => tracing::warn!("the log: producers of {}: {error}", dir.display()),
        }
    }
    producers.gap_end = None;
    Ok((producers, files))
}

fn read(disk: &dyn Disk, path: &Path, now_ns: u64) -> Option<Producers> {
    let file = disk.open(path, Open::Read).ok()?;
    let size = file.size().ok().filter(|size| *size <= BYTES_MAX)?;
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    file.read_exact_at(&mut bytes, 0).ok()?;
    decoded(&bytes, now_ns)
}

/// The bytes of a file, those first who were silent longest.
pub(super) fn encoded(producers: &Producers) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut count: i32 = 0;
    for (id, heard) in &producers.heard {
        let own = producers.known.get(id).filter(|own| own.heard == *heard);
        for (producer, batch) in own
            .into_iter()
            .flat_map(|own| own.batches.iter().map(move |batch| (own, batch)))
        {
            entries.extend_from_slice(&id.to_be_bytes());
            entries.extend_from_slice(&producer.epoch.to_be_bytes());
            entries.extend_from_slice(&batch.last_sequence.to_be_bytes());
            entries.extend_from_slice(&batch.last_offset.to_be_bytes());
            entries.extend_from_slice(&batch.offset_delta.to_be_bytes());
            entries.extend_from_slice(&batch.timestamp_ms.to_be_bytes());
            entries.extend_from_slice(&NONE.to_be_bytes());
            entries.extend_from_slice(&i64::from(NONE).to_be_bytes());
            count += 1;
        }
    }
    let summed = [&count.to_be_bytes()[..], &entries].concat();
    let crc = crc32c::crc32c(&summed);
    [&VERSION.to_be_bytes()[..], &crc.to_be_bytes(), &summed].concat()
}

/// What such bytes tell; none where they are not those of a file, or of another version.
pub(super) fn decoded(bytes: &[u8], now_ns: u64) -> Option<Producers> {
    let (version, rest) = bytes.split_first_chunk()?;
    let (crc, summed) = rest.split_first_chunk()?;
    let is_right = i16::from_be_bytes(*version) == VERSION
        && u32::from_be_bytes(*crc) == crc32c::crc32c(summed);
    let (count, mut rest) = summed.split_first_chunk()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    let is_whole = rest.len() == count.checked_mul(ENTRY_BYTES)?;
    if !is_right || !is_whole {
        return None;
    }
    let mut producers = Producers::default();
    while !rest.is_empty() {
        let id = i64::from_be_bytes(*taken(&mut rest)?);
        let epoch = i16::from_be_bytes(*taken(&mut rest)?);
        let batch = Numbered {
            last_sequence: i32::from_be_bytes(*taken(&mut rest)?),
            last_offset: i64::from_be_bytes(*taken(&mut rest)?),
            offset_delta: i32::from_be_bytes(*taken(&mut rest)?),
            timestamp_ms: i64::from_be_bytes(*taken(&mut rest)?),
            missing: 0,
        };
        let _coordinator: &[u8; 4] = taken(&mut rest)?;
        let _transaction: &[u8; 8] = taken(&mut rest)?;
        let is_batch = batch.last_sequence >= 0
            && batch.offset_delta >= 0
            && batch.last_offset >= i64::from(batch.offset_delta);
        // Of who did nothing but end transactions, Kafka keeps an entry without a batch.
        if is_batch && id >= 0 && epoch >= 0 {
            producers.remember(id, epoch, batch, now_ns);
        }
    }
    Some(producers)
}

fn taken<'a, const N: usize>(from: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (own, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(own)
}
