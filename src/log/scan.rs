//! Walks a segment whose end is not known, or not believed: which bytes are whole batches, which are not.
//!
//! A batch is one only if its bounds, its checksum and its place among the others are right. What is none is
//! a torn tail if nothing valid follows, and else damage, from the end of which the walk goes on.

use std::{io, ops::Range};

use super::{
    batch::{Damage, HEADER_BYTES, Header},
    index::{Built, Indexer},
    segment::Extent,
};
use crate::base::disk::File;

/// What is read at once, in bytes.
const WINDOW_BYTES: usize = 1024 * 1024;

/// What may be checksummed in search of a batch behind damage, in bytes. A search that would need more was
/// laid out to.
const SEARCHED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Where the checksum and what it is of begin in a batch.
const CRC_OF: u64 = 21;
/// What a disk writes whole or not at all, at the least.
const SECTOR_BYTES: u64 = 512;
/// The base offset and the length, which stand first in a batch.
const FIRST_BYTES: u64 = 12;
/// Where the format's version stands in a batch.
const MAGIC_AT: usize = 16;

/// Bytes that are no batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) bytes: Range<u64>,
    pub(super) damage: Damage,
}

/// What a segment's log has.
#[derive(Debug)]
pub(super) struct Scan {
    /// The whole batches, in order, neighbours together.
    pub(super) good: Vec<Range<u64>>,
    /// What is between them. What follows the last of them is [`Scan::tail`].
    pub(super) bad: Vec<Bad>,
    /// What follows the last whole batch.
    pub(super) tail: Option<Bad>,
    /// What the segment has once that is taken out.
    pub(super) extent: Extent,
    /// The indexes it should have then.
    pub(super) built: Built,
    pub(super) indexer: Indexer,
}

/// Walks the first `size` bytes of a segment, up to the first batch that has `until` or more.
///
/// # Errors
/// When the disk fails.
pub(super) fn scan(
    log: &dyn File,
    size: u64,
    base_offset: i64,
    until: Option<i64>,
) -> io::Result<Scan> {
    let mut walk = Walk {
        window: Window::new(log, size),
        size,
        base_offset,
        expected: base_offset,
        searched: 0,
    };
    let mut scan = Scan {
        good: Vec::new(),
        bad: Vec::new(),
        tail: None,
        extent: Extent::empty(base_offset),
        built: Built::default(),
        indexer: Indexer::new(base_offset),
    };
    let mut position = 0;
    while position < size {
        match walk.batch(position)? {
            Ok(header) if until.is_some_and(|until| header.last_offset() >= until) => break,
            Ok(header) => {
                scan.take(position, &header);
                walk.expected = header.last_offset() + 1;
                position += header.size() as u64;
            }
            Err(damage) => {
                let next = walk.next_batch(position)?;
                let bad = Bad {
                    bytes: position..next.unwrap_or(size),
                    damage,
                };
                match next {
                    Some(_) => scan.bad.push(bad),
                    None => scan.tail = Some(bad),
                }
                position = next.unwrap_or(size);
            }
        }
    }
    scan.close();
    Ok(scan)
}

impl Scan {
    fn take(&mut self, position: u64, header: &Header) {
        let end = position + header.size() as u64;
        match self.good.last_mut() {
            Some(last) if last.end == position => last.end = end,
            _ => self.good.push(position..end),
        }
        let due = self.indexer.appended(header, self.extent.size);
        self.built.put(due);
        self.extent.size += header.size() as u64;
        self.extent.end_offset = header.last_offset() + 1;
    }

    fn close(&mut self) {
        self.built.put(self.indexer.due());
        self.extent.max_timestamp = self.indexer.max_timestamp();
        let (offsets, times) = self.built.entries();
        self.extent.offset_entries = offsets;
        self.extent.time_entries = times;
    }

    /// Whether every byte belongs to a whole batch.
    pub(super) fn is_whole(&self) -> bool {
        self.bad.is_empty() && self.tail.is_none()
    }
}

struct Walk<'a> {
    window: Window<'a>,
    size: u64,
    base_offset: i64,
    /// The least base offset that the next batch may have.
    expected: i64,
    /// Bytes checksummed in search of batches.
    searched: u64,
}

impl Walk<'_> {
    /// The batch at `position`, if there is a whole one that may stand there.
    fn batch(&mut self, position: u64) -> io::Result<Result<Header, Damage>> {
        let bytes = self.window.bytes(position, HEADER_BYTES)?;
        let header = match Header::read(bytes) {
            Ok(header) => header,
            Err(damage) => return Ok(Err(damage)),
        };
        let end = position.saturating_add(header.size() as u64);
        if end > self.size {
            return Ok(Err(Damage::TooShort));
        }
        if !self.is_in_reach(&header) {
            return Ok(Err(Damage::Offsets));
        }
        if self.crc(position + CRC_OF..end)? != header.crc() {
            return Ok(Err(Damage::Crc));
        }
        match header.base_offset() > self.expected && self.is_contradicted(&header, end)? {
            true => Ok(Err(Damage::Offsets)),
            false => Ok(Ok(header)),
        }
    }

    /// Whether the offsets of a batch are those of the segment, and not of what came before.
    fn is_in_reach(&self, header: &Header) -> bool {
        let reach = header.last_offset().checked_sub(self.base_offset);
        let is_segments = reach.is_some_and(|reach| i32::try_from(reach).is_ok());
        header.base_offset() >= self.expected && is_segments
    }

    /// Whether the batch that follows begins before `header` ends, where it may. The base offset is not part
    /// of the checksum: one that is damaged would make all that follow look out of order.
    fn is_contradicted(&mut self, header: &Header, end: u64) -> io::Result<bool> {
        let Ok(next) = Header::read(self.window.bytes(end, HEADER_BYTES)?) else {
            return Ok(false);
        };
        let next_end = end.saturating_add(next.size() as u64);
        let is_before = (self.expected..=header.last_offset()).contains(&next.base_offset());
        Ok(is_before && next_end <= self.size && self.crc(end + CRC_OF..next_end)? == next.crc())
    }

    fn crc(&mut self, bytes: Range<u64>) -> io::Result<u32> {
        let (mut crc, mut at) = (0, bytes.start);
        while at < bytes.end {
            let wanted = usize::try_from(bytes.end - at).unwrap_or(usize::MAX);
            let chunk = self.window.bytes(at, wanted.min(WINDOW_BYTES))?;
            if chunk.is_empty() {
                break;
            }
            crc = crc32c::crc32c_append(crc, chunk);
            at += chunk.len() as u64;
        }
        Ok(crc)
    }

    /// Where the first whole batch behind the damage at `position` is.
    ///
    /// First where the damaged one itself says that it ends, so that a batch inside the bytes of another is
    /// not taken for the log's own; only then anywhere.
    fn next_batch(&mut self, position: u64) -> io::Result<Option<u64>> {
        let claimed = Header::read(self.window.bytes(position, HEADER_BYTES)?);
        if let Ok(claimed) = claimed {
            let end = position + claimed.size() as u64;
            if end < self.size
                && let Ok(header) = self.batch(end)?
                && (header.base_offset() == claimed.last_offset().saturating_add(1)
                    || !self.may_be_torn(end, &header)?)
            {
                return Ok(Some(end));
            }
        }
        let mut at = position + 1;
        while at + (HEADER_BYTES as u64) <= self.size {
            let bytes = self.window.rest(at, HEADER_BYTES)?;
            let magics = bytes.get(MAGIC_AT..).unwrap_or_default();
            let Some(skipped) = memchr::memchr(2, magics) else {
                // The next window begins where a header may begin whose magic is not in this one.
                at += (magics.len() as u64).max(1);
                continue;
            };
            at += skipped as u64;
            let claimed = Header::read(self.window.bytes(at, HEADER_BYTES)?);
            let claimed = claimed.ok().filter(|claimed| self.is_in_reach(claimed));
            let size = claimed.map_or(0, |claimed| claimed.size() as u64);
            if claimed.is_some() && at + size <= self.size {
                self.searched += size;
                if self.searched > SEARCHED_BYTES_MAX {
                    return Ok(None);
                }
                if let Ok(header) = self.batch(at)?
                    && !self.may_be_torn(at, &header)?
                {
                    return Ok(Some(at));
                }
            }
            at += 1;
        }
        Ok(None)
    }

    /// Whether the base offset of the batch at `position`, which stands behind damage, may be in a sector that
    /// is damaged too, and the batch that follows does not confirm it. It is not part of the checksum; and a
    /// sector that has the whole length is known to be right by it.
    fn may_be_torn(&mut self, position: u64, header: &Header) -> io::Result<bool> {
        if position % SECTOR_BYTES <= SECTOR_BYTES - FIRST_BYTES {
            return Ok(false);
        }
        let end = position.saturating_add(header.size() as u64);
        let next = Header::read(self.window.bytes(end, HEADER_BYTES)?);
        Ok(next.map(|next| next.base_offset()) != Ok(header.last_offset() + 1))
    }
}

/// A part of a file, moved along as it is walked.
struct Window<'a> {
    log: &'a dyn File,
    buffer: Vec<u8>,
    start: u64,
    filled: usize,
}

impl<'a> Window<'a> {
    fn new(log: &'a dyn File, size: u64) -> Self {
        let len = usize::try_from(size).map_or(WINDOW_BYTES, |size| size.min(WINDOW_BYTES));
        Self {
            log,
            buffer: vec![0; len],
            start: 0,
            filled: 0,
        }
    }

    /// The bytes at `at`: `wanted` of them, [`WINDOW_BYTES`] at most; fewer only at the end of the file.
    fn bytes(&mut self, at: u64, wanted: usize) -> io::Result<&[u8]> {
        let wanted = wanted.min(WINDOW_BYTES);
        let bytes = self.rest(at, wanted)?;
        Ok(bytes.get(..wanted).unwrap_or(bytes))
    }

    /// What there is from `at` on without reading twice, but `wanted` bytes at least; fewer only at the end
    /// of the file.
    fn rest(&mut self, at: u64, wanted: usize) -> io::Result<&[u8]> {
        let end = self.start + self.filled as u64;
        let is_inside = at >= self.start && at + wanted as u64 <= end;
        if !is_inside {
            self.start = at;
            self.filled = 0;
            self.filled = self.log.read_full_at(&mut self.buffer, at)?;
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        Ok(self.buffer.get(from..self.filled).unwrap_or_default())
    }
}
