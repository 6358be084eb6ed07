//! The two indexes of a segment, as Kafka keeps them: where an offset is, and when it was.
//!
//! ```text
//! .index      8 bytes: offset i32, from the segment's base · position in the log i32
//! .timeindex 12 bytes: latest time so far i64 · the offset of the batch it is of i32, from the base
//! ```
//!
//! They are sparse, an entry every [`INTERVAL_BYTES`], and stay in their files: a look-up reads a few of
//! their entries. They carry no checksum and are never believed: an entry of the first names the last offset
//! of the batch that begins at its position, which the batch confirms. Where it does not, the segment is
//! walked from its beginning. A closed segment's index ends with its last batch, so that one look at the two
//! shows whether they belong together.

use std::io;

use super::batch::Header;
use crate::base::disk::File;

/// Bytes of log between two entries (`index.interval.bytes`).
pub(super) const INTERVAL_BYTES: u64 = 4096;

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OffsetEntry {
    /// Its last offset, from the segment's base.
    pub(super) offset: u32,
    /// Where it begins in the log.
    pub(super) position: u32,
}

/// The latest time of the batches so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeEntry {
    /// In Unix milliseconds.
    pub(super) timestamp: i64,
    /// The last offset of the batch that has it, from the segment's base.
    pub(super) offset: u32,
}

/// An entry of fixed size.
pub(super) trait Entry: Copy {
    /// Bytes of one.
    const BYTES: usize;
    /// One at the front of `bytes`; none where there are too few.
    fn read(bytes: &[u8]) -> Option<Self>;
    /// Appends it to `into`.
    fn put(self, into: &mut Vec<u8>);
    /// Whether it may follow `before`.
    fn follows(self, before: Self) -> bool;
}

fn below_sign(bytes: &[u8]) -> Option<u32> {
    let number = i32::from_be_bytes(*bytes.first_chunk()?);
    u32::try_from(number).ok()
}

impl Entry for OffsetEntry {
    const BYTES: usize = 8;

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            offset: below_sign(bytes)?,
            position: below_sign(bytes.get(4..)?)?,
        })
    }

    fn put(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.offset.to_be_bytes());
        into.extend_from_slice(&self.position.to_be_bytes());
    }

    fn follows(self, before: Self) -> bool {
        self.offset > before.offset && self.position > before.position
    }
}

impl Entry for TimeEntry {
    const BYTES: usize = 12;

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            timestamp: i64::from_be_bytes(*bytes.first_chunk()?),
            offset: below_sign(bytes.get(8..)?)?,
        })
    }

    fn put(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.timestamp.to_be_bytes());
        into.extend_from_slice(&self.offset.to_be_bytes());
    }

    fn follows(self, before: Self) -> bool {
        self.timestamp > before.timestamp && self.offset > before.offset
    }
}

/// The last of the first `count` entries for which `is_before` holds; they stand first.
///
/// # Errors
/// When the file cannot be read, or has fewer or other entries.
pub(super) fn last_before<E: Entry>(
    file: &dyn File,
    count: u32,
    is_before: impl Fn(E) -> bool,
) -> io::Result<Option<E>> {
    // What is before `low` is before, what is from `high` on is not.
    let (mut low, mut high, mut found) = (0, count, None);
    while low < high {
        let middle = low + (high - low) / 2;
        let mut bytes = [0; 12];
        let wanted = bytes.get_mut(..E::BYTES).unwrap_or_default();
        file.read_exact_at(wanted, u64::from(middle) * E::BYTES as u64)?;
        let entry = E::read(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        if is_before(entry) {
            found = Some(entry);
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(found)
}

/// All entries of a file; none where it cannot be an index: cut within an entry, below zero, out of order.
pub(super) fn all<E: Entry>(bytes: &[u8]) -> Option<Vec<E>> {
    let entries: Vec<E> = bytes.chunks(E::BYTES).map(E::read).collect::<Option<_>>()?;
    let is_whole = bytes.len().is_multiple_of(E::BYTES);
    let in_order = entries
        .windows(2)
        .all(|pair| matches!(pair, [before, entry] if entry.follows(*before)));
    (is_whole && in_order).then_some(entries)
}

/// Decides which batches of a segment get entries.
#[derive(Debug, Clone, Default)]
pub(super) struct Indexer {
    base_offset: i64,
    bytes_since_entry: u64,
    last: Option<OffsetEntry>,
    last_indexed: Option<OffsetEntry>,
    latest: Option<TimeEntry>,
    latest_indexed: Option<TimeEntry>,
}

/// What is to be written to the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Due {
    pub(super) offset: Option<OffsetEntry>,
    pub(super) time: Option<TimeEntry>,
}

impl Indexer {
    /// For a segment that has no batch yet.
    pub(super) fn new(base_offset: i64) -> Self {
        Self {
            base_offset,
            ..Self::default()
        }
    }

    /// For a segment whose indexes end with these entries, as those of a closed one do.
    pub(super) fn resumed(
        base_offset: i64,
        last: Option<OffsetEntry>,
        latest: Option<TimeEntry>,
    ) -> Self {
        Self {
            base_offset,
            bytes_since_entry: 0,
            last,
            last_indexed: last,
            latest,
            latest_indexed: latest,
        }
    }

    /// A batch was appended at `position`.
    pub(super) fn appended(&mut self, batch: &Header, position: u64) -> Due {
        let relative = u32::try_from(batch.last_offset() - self.base_offset);
        let (Ok(offset), Ok(position)) = (relative, u32::try_from(position)) else {
            return Due::default();
        };
        self.last = Some(OffsetEntry { offset, position });
        let timestamp = batch.max_timestamp();
        if timestamp >= 0
            && self
                .latest
                .is_none_or(|latest| latest.timestamp < timestamp)
        {
            self.latest = Some(TimeEntry { timestamp, offset });
        }
        let is_due = self.bytes_since_entry > INTERVAL_BYTES;
        if is_due {
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += batch.size() as u64;
        if is_due { self.due() } else { Due::default() }
    }

    /// The segment is closed: its last batch and its latest time get entries.
    pub(super) fn due(&mut self) -> Due {
        let offset = (self.last != self.last_indexed).then_some(self.last);
        let time = (self.latest != self.latest_indexed).then_some(self.latest);
        self.last_indexed = self.last;
        self.latest_indexed = self.latest;
        Due {
            offset: offset.flatten(),
            time: time.flatten(),
        }
    }

    /// The latest time of the batches, in Unix milliseconds; -1 where none has a time.
    pub(super) fn max_timestamp(&self) -> i64 {
        self.latest.map_or(-1, |latest| latest.timestamp)
    }
}

/// Both indexes of a segment, in memory while they are built.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) offsets: Vec<u8>,
    pub(super) times: Vec<u8>,
}

impl Built {
    pub(super) fn put(&mut self, due: Due) {
        if let Some(entry) = due.offset {
            entry.put(&mut self.offsets);
        }
        if let Some(entry) = due.time {
            entry.put(&mut self.times);
        }
    }

    /// Entries of the two.
    pub(super) fn entries(&self) -> (u32, u32) {
        let count = |bytes: usize, of: usize| u32::try_from(bytes / of).unwrap_or(u32::MAX);
        (
            count(self.offsets.len(), OffsetEntry::BYTES),
            count(self.times.len(), TimeEntry::BYTES),
        )
    }
}
