//! One segment, byte by byte: every batch, and whether its two indexes say the truth.

use std::{io, path::PathBuf};

use crate::{
    base::disk::{Disk, File, Open},
    log::{HEADER_BYTES, Header, View},
};

/// Bytes of one read; a batch that is longer is read whole.
const READ_BYTES: usize = 1024 * 1024;

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The end of the file's name.
    pub(super) extension: &'static str,
    /// Where in the file.
    pub(super) position: Option<u64>,
    pub(super) what: String,
}

/// A segment that is being walked.
#[derive(Debug)]
pub(super) struct Walk {
    log: Box<dyn File>,
    base_offset: i64,
    /// Bytes of whole batches, as far as the log knows.
    bytes: u64,
    /// Bytes of the file.
    size: u64,
    position: u64,
    /// The least offset that the next batch may begin with.
    expected: i64,
    /// Whether offsets may be missing, as compaction leaves it.
    may_skip: bool,
    is_closed: bool,
    offsets: Index<OffsetEntry>,
    times: Index<TimeEntry>,
    max_timestamp: i64,
    pub(super) wrong: Vec<Wrong>,
    buffer: Vec<u8>,
}

/// The entries of an index that were not met yet.
#[derive(Debug)]
struct Index<E> {
    entries: Vec<E>,
    met: usize,
}

/// Where a batch is: its last offset from the segment's base, its position.
type OffsetEntry = (u64, u64);

/// The latest moment so far, and the last offset of the batch that has it, from the segment's base.
type TimeEntry = (i64, u64);

/// Which files a segment has.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The partition's directory and the beginning of the names.
    pub(super) stem: PathBuf,
    pub(super) base_offset: i64,
    pub(super) bytes: u64,
    /// Whether nothing is appended to it any more, so that its files are all there is.
    pub(super) is_closed: bool,
    pub(super) may_skip: bool,
}

impl Walk {
    /// Opens a segment whose first batch begins at `expected` or later.
    pub(super) fn open(disk: &dyn Disk, files: &Files, expected: i64) -> io::Result<Self> {
        let log = disk.open(&files.stem.with_extension("log"), Open::Read)?;
        let size = log.size()?;
        let mut wrong = Vec::new();
        if size < files.bytes {
            wrong.push(Wrong {
                extension: "log",
                position: Some(size),
                what: format!("is cut off: there were {} bytes", files.bytes),
            });
        }
        let mut index = |extension, entry_bytes: usize| {
            match read_all(disk, &files.stem.with_extension(extension)) {
                // What is still written may end in half an entry.
                Ok(bytes) if !files.is_closed || bytes.len().is_multiple_of(entry_bytes) => bytes,
                Ok(bytes) => {
                    wrong.push(Wrong {
                        extension,
                        position: Some(bytes.len() as u64),
                        what: "ends within an entry".to_owned(),
                    });
                    bytes
                }
                Err(error) => {
                    if files.is_closed && files.bytes > 0 {
                        wrong.push(Wrong {
                            extension,
                            position: None,
                            what: format!("cannot be read: {error}"),
                        });
                    }
                    Vec::new()
                }
            }
        };
        let offsets = index("index", 8);
        let times = index("timeindex", 12);
        Ok(Self {
            log,
            base_offset: files.base_offset,
            bytes: files.bytes.min(size),
            size,
            position: 0,
            expected,
            may_skip: files.may_skip,
            is_closed: files.is_closed,
            offsets: Index::of(&offsets, |entry: &[u8; 8]| {
                let [a, b, c, d, e, f, g, h] = *entry;
                let number = |bytes| u64::from(u32::from_be_bytes(bytes));
                (number([a, b, c, d]), number([e, f, g, h]))
            }),
            times: Index::of(&times, |entry: &[u8; 12]| {
                let [a, b, c, d, e, f, g, h, i, j, k, l] = *entry;
                let offset = u32::from_be_bytes([i, j, k, l]);
                (i64::from_be_bytes([a, b, c, d, e, f, g, h]), offset.into())
            }),
            max_timestamp: i64::MIN,
            wrong,
            buffer: Vec::new(),
        })
    }

    /// Bytes that were looked at.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that follow the last whole batch.
    pub(super) fn torn_bytes(&self) -> u64 {
        self.size - self.bytes
    }

    /// The offset that should come next.
    pub(super) fn expected(&self) -> i64 {
        self.expected
    }

    /// Reads once and gives every sound batch to `see`; false at the end.
    pub(super) fn step(
        &mut self,
        mut see: impl FnMut(&View<'_>) -> Option<String>,
    ) -> io::Result<bool> {
        if self.position >= self.bytes {
            self.finish();
            return Ok(false);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.fill(&mut buffer)?;
        let mut rest = buffer.get(..read).unwrap_or_default();
        let mut has_moved = false;
        while self.position < self.bytes {
            match View::read(rest) {
                Ok((batch, after)) => {
                    self.look_at(&batch, &mut see);
                    self.position += batch.size() as u64;
                    rest = after;
                }
                // The batch goes on behind what was read.
                Err(_) if has_moved && self.position + (rest.len() as u64) < self.bytes => break,
                Err(damage) => {
                    self.tell("log", Some(self.position), damage.to_string());
                    let damaged = self.position;
                    self.position = self.next_known(damaged);
                    while self.offsets.next_if(|entry| entry.1 <= damaged).is_some() {}
                    break;
                }
            }
            has_moved = true;
        }
        self.buffer = buffer;
        Ok(true)
    }

    /// Reads from the position on, a whole batch at least.
    fn fill(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let left = usize::try_from(self.bytes - self.position).unwrap_or(usize::MAX);
        buffer.resize(READ_BYTES.min(left), 0);
        let read = self.log.read_full_at(buffer, self.position)?;
        let header = Header::read(buffer.get(..read.min(HEADER_BYTES)).unwrap_or_default());
        let size = header.map_or(0, |header| header.size());
        if size <= read || size > left {
            return Ok(read);
        }
        buffer.resize(size, 0);
        self.log.read_full_at(buffer, self.position)
    }

    /// Where the first batch behind a damaged one begins, as the index says; else the end.
    fn next_known(&self, position: u64) -> u64 {
        let entries = self.offsets.entries.iter();
        let known = entries
            .map(|&(_, known)| known)
            .find(|&known| known > position);
        known.unwrap_or(self.bytes).min(self.bytes)
    }

    fn look_at(&mut self, batch: &View<'_>, see: &mut impl FnMut(&View<'_>) -> Option<String>) {
        let (position, first, last) = (self.position, batch.base_offset(), batch.last_offset());
        if first < self.expected {
            let what = format!("offset {first} comes again, or out of order");
            self.tell("log", Some(position), what);
        } else if first > self.expected && !self.may_skip {
            let what = format!("offsets {} to {} are missing", self.expected, first - 1);
            self.tell("log", Some(position), what);
        }
        self.expected = last + 1;
        match batch.verify() {
            Ok(()) => {
                if let Some(what) = see(batch) {
                    self.tell("log", Some(position), what);
                }
            }
            Err(damage) => {
                let what = format!("{damage}: offsets {first} to {last}");
                self.tell("log", Some(position), what);
            }
        }
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp());
        let last = u64::try_from(last - self.base_offset).unwrap_or(u64::MAX);
        self.check_offsets(position, last);
        self.check_times(last, batch.max_timestamp());
    }

    /// What the index says of the batch at `position`, and of places before it where none begins.
    fn check_offsets(&mut self, position: u64, last: u64) {
        while let Some((number, (offset, at))) = self.offsets.next_if(|entry| entry.1 <= position) {
            let what = if at < position {
                format!("points at byte {at}, where no batch begins")
            } else if offset != last {
                format!("says {offset} of the batch at byte {at}, which ends with {last}")
            } else {
                continue;
            };
            self.tell("index", Some(number * 8), what);
        }
    }

    fn check_times(&mut self, last: u64, own_max: i64) {
        while let Some((number, (timestamp, offset))) = self.times.next_if(|entry| entry.1 <= last)
        {
            let what = if offset < last {
                format!("names the offset {offset}, with which no batch ends")
            } else if timestamp != own_max || timestamp != self.max_timestamp {
                format!(
                    "says {timestamp} of offset {offset}; the latest time up to there is {}",
                    self.max_timestamp
                )
            } else {
                continue;
            };
            self.tell("timeindex", Some(number * 12), what);
        }
    }

    fn finish(&mut self) {
        if !self.is_closed {
            return;
        }
        if self.torn_bytes() > 0 {
            let what = format!("{} bytes follow the last batch", self.torn_bytes());
            self.tell("log", Some(self.bytes), what);
        }
        while let Some((number, (_, at))) = self.offsets.next_if(|_| true) {
            let what = format!("points at byte {at}, behind the last batch");
            self.tell("index", Some(number * 8), what);
        }
        while let Some((number, (_, offset))) = self.times.next_if(|_| true) {
            let what = format!("names the offset {offset}, behind the last batch");
            self.tell("timeindex", Some(number * 12), what);
        }
    }

    fn tell(&mut self, extension: &'static str, position: Option<u64>, what: String) {
        self.wrong.push(Wrong {
            extension,
            position,
            what,
        });
    }
}

impl<E: Copy> Index<E> {
    fn of<const N: usize>(bytes: &[u8], read: impl Fn(&[u8; N]) -> E) -> Self {
        let (entries, _) = bytes.as_chunks();
        Self {
            entries: entries.iter().map(read).collect(),
            met: 0,
        }
    }

    /// The next entry and its number, if it is one that `is_due`.
    fn next_if(&mut self, is_due: impl Fn(E) -> bool) -> Option<(u64, E)> {
        let entry = *self.entries.get(self.met).filter(|entry| is_due(**entry))?;
        self.met += 1;
        Some((self.met as u64 - 1, entry))
    }
}

fn read_all(disk: &dyn Disk, path: &std::path::Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let size = usize::try_from(file.size()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size.min(INDEX_BYTES_MAX)];
    let read = file.read_full_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Bytes of an index that are looked at: more than those of a segment of 2 GiB.
const INDEX_BYTES_MAX: usize = 16 * 1024 * 1024;
