//! One segment of a partition: a file of whole batches, and how readers find their way in it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
};

use super::{
    batch::{Damage, HEADER_BYTES, Header, View},
    index::{self, OffsetEntry, TimeEntry},
};
use crate::base::disk::{Disk, File, Open};

/// The ends of the names of a segment's files.
pub(super) const LOG: &str = "log";
pub(super) const INDEX: &str = "index";
pub(super) const TIME_INDEX: &str = "timeindex";

/// The last offset that is given. What says more is not believed: so nothing that is added to an offset, a
/// segment's reach for one, is too much.
pub(super) const OFFSET_MAX: i64 = i64::MAX - (1 << 33);

/// Segments of a log in all its partitions: each has a file that is open. From then on, none is closed for its
/// age but those of Wardent's own topics, and what others append is refused where it would begin another.
pub(super) const SEGMENTS_MAX: usize = 16_384;

/// That it has no time.
const NEVER: u64 = u64::MAX;

/// Read at once by who walks through headers, in bytes.
const WALKED_BYTES: usize = 64 * 1024;

/// The file of a segment in `dir`.
pub(super) fn path(dir: &Path, base_offset: i64, extension: &str) -> PathBuf {
    dir.join(format!("{base_offset:020}.{extension}"))
}

/// The base offset of the segment that a file with this name and end belongs to.
pub(super) fn base_of(name: &str, extension: &str) -> Option<i64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    let is_offset = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let offset = is_offset.then(|| digits.parse().ok()).flatten();
    offset.filter(|offset| *offset <= OFFSET_MAX)
}

/// Why a partition could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The offset is not, or no longer, in the partition, which has those from `first` to below `end`.
    OutOfRange {
        /// The first that is there.
        first: i64,
        /// The first that is not shown yet.
        end: i64,
    },
    /// At this position of this file there should be a batch, and there is none.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Bytes from its beginning.
        position: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// The disk failed.
    Io(PathBuf, io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { first, end } => {
                write!(f, "the partition has offsets from {first} to below {end}")
            }
            Self::Damaged {
                path,
                position,
                damage,
            } => write!(f, "{} at byte {position}: {damage}", path.display()),
            Self::Io(path, _) => write!(f, "reading {} failed", path.display()),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::OutOfRange { .. } | Self::Damaged { .. } => None,
        }
    }
}

/// A segment. What it says of itself is written by the appender alone, after the bytes are in the file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base_offset: i64,
    pub(super) dir: PathBuf,
    pub(super) log: Box<dyn File>,
    /// For the indexes, which are opened by who looks something up.
    disk: Arc<dyn Disk>,
    size: AtomicU64,
    end_offset: AtomicI64,
    max_timestamp: AtomicI64,
    offset_entries: AtomicU32,
    time_entries: AtomicU32,
    is_closed: AtomicBool,
    /// When it is to be closed for its age, in monotonic nanoseconds; never, while it has no batch.
    closes_at_ns: AtomicU64,
    /// Whether its name and those of its indexes outlive a power cut. Written by the flusher.
    is_named: AtomicBool,
    /// Whether it is closed and its indexes outlive a power cut. Written by the flusher.
    is_sealed: AtomicBool,
    index_lied: AtomicBool,
    /// Whether a reader met something that does not fit, in the log or in an index.
    is_odd: AtomicBool,
}

/// What is known of a segment when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extent {
    /// Bytes of its whole batches.
    pub(super) size: u64,
    /// The first offset after them.
    pub(super) end_offset: i64,
    /// Their latest time.
    pub(super) max_timestamp: i64,
    /// Entries of its indexes.
    pub(super) offset_entries: u32,
    pub(super) time_entries: u32,
}

impl Extent {
    /// The one of a segment without a batch.
    pub(super) fn empty(base_offset: i64) -> Self {
        Self {
            end_offset: base_offset,
            max_timestamp: -1,
            ..Self::default()
        }
    }
}

impl Segment {
    pub(super) fn new(
        dir: &Path,
        base_offset: i64,
        log: Box<dyn File>,
        disk: Arc<dyn Disk>,
        extent: Extent,
    ) -> Self {
        Self {
            base_offset,
            dir: dir.to_owned(),
            log,
            disk,
            size: extent.size.into(),
            end_offset: extent.end_offset.into(),
            max_timestamp: extent.max_timestamp.into(),
            offset_entries: extent.offset_entries.into(),
            time_entries: extent.time_entries.into(),
            is_closed: AtomicBool::new(true),
            closes_at_ns: AtomicU64::new(NEVER),
            is_named: AtomicBool::new(true),
            is_sealed: AtomicBool::new(true),
            index_lied: AtomicBool::new(false),
            is_odd: AtomicBool::new(false),
        }
    }

    /// The file of this segment that ends so.
    pub(super) fn path(&self, extension: &str) -> PathBuf {
        path(&self.dir, self.base_offset, extension)
    }

    /// Bytes of its whole batches.
    pub(super) fn size(&self) -> u64 {
        // Acquire: pairs with `show`; the bytes are in the file.
        self.size.load(Ordering::Acquire)
    }

    /// The first offset after its batches.
    pub(super) fn end_offset(&self) -> i64 {
        // Acquire: as above.
        self.end_offset.load(Ordering::Acquire)
    }

    /// The latest time of its batches, in Unix milliseconds; -1 where none has a time.
    pub(super) fn max_timestamp(&self) -> i64 {
        // Relaxed: it stands for itself.
        self.max_timestamp.load(Ordering::Relaxed)
    }

    /// Shows readers what was appended.
    pub(super) fn show(&self, size: u64, end_offset: i64, max_timestamp: i64) {
        self.max_timestamp.store(max_timestamp, Ordering::Relaxed);
        // Release: pairs with `size` and `end_offset`.
        self.end_offset.store(end_offset, Ordering::Release);
        self.size.store(size, Ordering::Release);
    }

    /// Shows readers so many entries of the indexes.
    pub(super) fn show_entries(&self, offsets: u32, times: u32) {
        // Release: pairs with the look-ups, which read the entries from the files.
        self.offset_entries.store(offsets, Ordering::Release);
        self.time_entries.store(times, Ordering::Release);
    }

    /// Entries of its two indexes.
    pub(super) fn entries(&self) -> (u32, u32) {
        let offsets = self.offset_entries.load(Ordering::Acquire);
        (offsets, self.time_entries.load(Ordering::Acquire))
    }

    /// Whether nothing will be appended to it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    pub(super) fn set_closed(&self, is_closed: bool) {
        self.is_closed.store(is_closed, Ordering::Release);
    }

    /// When it is to be closed for its age, in monotonic nanoseconds; none, while it has no batch.
    pub(super) fn closes_at_ns(&self) -> Option<u64> {
        // Relaxed: it stands for itself.
        let at_ns = self.closes_at_ns.load(Ordering::Relaxed);
        (at_ns != NEVER).then_some(at_ns)
    }

    pub(super) fn set_closes_at_ns(&self, at_ns: u64) {
        self.closes_at_ns.store(at_ns, Ordering::Relaxed);
    }

    pub(super) fn is_named(&self) -> bool {
        self.is_named.load(Ordering::Acquire)
    }

    pub(super) fn set_named(&self, is_named: bool) {
        self.is_named.store(is_named, Ordering::Release);
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.is_sealed.load(Ordering::Acquire)
    }

    pub(super) fn set_sealed(&self, is_sealed: bool) {
        self.is_sealed.store(is_sealed, Ordering::Release);
    }

    /// Makes its indexes safe, or leaves it to the next start to make them anew.
    pub(super) fn seal(&self) {
        for extension in [INDEX, TIME_INDEX] {
            let opened = self.disk.open(&self.path(extension), Open::Write);
            let _ = opened.and_then(|file| file.sync_data());
        }
        self.set_sealed(true);
    }

    /// Whether a look-up found that its index does not fit it.
    pub(super) fn index_lied(&self) -> bool {
        self.index_lied.load(Ordering::Relaxed)
    }

    /// Whether a reader met something that does not fit, since this was asked the last time.
    pub(super) fn take_odd(&self) -> bool {
        self.is_odd.load(Ordering::Relaxed) && self.is_odd.swap(false, Ordering::Relaxed)
    }

    fn io(&self, error: io::Error) -> ReadError {
        ReadError::Io(self.path(LOG), error)
    }

    /// The header of the batch at `position`; none at the end.
    pub(super) fn header(&self, position: u64) -> Result<Option<Header>, ReadError> {
        let size = self.size();
        if position >= size {
            return Ok(None);
        }
        let damaged = |damage| {
            self.is_odd.store(true, Ordering::Relaxed);
            ReadError::Damaged {
                path: self.path(LOG),
                position,
                damage,
            }
        };
        let mut bytes = [0; HEADER_BYTES];
        let read = self.log.read_full_at(&mut bytes, position);
        let read = read.map_err(|error| self.io(error))?;
        let header = Header::read(bytes.get(..read).unwrap_or_default()).map_err(damaged)?;
        if position + header.size() as u64 > size {
            return Err(damaged(Damage::TooShort));
        }
        // Where a batch stands is not part of its checksum; one of another segment would hide those after it.
        let is_own =
            header.base_offset() >= self.base_offset && header.last_offset() < self.end_offset();
        match is_own {
            true => Ok(Some(header)),
            false => Err(damaged(Damage::Offsets)),
        }
    }

    /// Where a walk to the batch with `offset` begins: at a batch that is not after it.
    fn walk_start(&self, offset: i64) -> u64 {
        let (entries, _) = self.entries();
        if entries == 0 || self.index_lied() || offset <= self.base_offset {
            return 0;
        }
        match self.looked_up(entries, offset) {
            Ok(Some(position)) => position,
            Ok(None) => 0,
            Err(error) => {
                self.disbelieve(&error);
                0
            }
        }
    }

    /// An index is never believed against the log. What does not fit it is made anew by the appender.
    fn disbelieve(&self, error: &io::Error) {
        let is_wrong = matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
        );
        if is_wrong {
            self.index_lied.store(true, Ordering::Relaxed);
            self.is_odd.store(true, Ordering::Relaxed);
        }
    }

    fn looked_up(&self, entries: u32, offset: i64) -> io::Result<Option<u64>> {
        let file = self.disk.open(&self.path(INDEX), Open::Read)?;
        let relative = u32::try_from(offset - self.base_offset).unwrap_or(u32::MAX);
        let is_before = |entry: OffsetEntry| entry.offset <= relative;
        let Some(entry) = index::last_before(&*file, entries, is_before)? else {
            return Ok(None);
        };
        let position = u64::from(entry.position);
        let header = self.header(position).ok().flatten();
        let is_right = header.is_some_and(|header| {
            header.last_offset() == self.base_offset + i64::from(entry.offset)
        });
        match is_right {
            true => Ok(Some(position)),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The first batch from `position` on for which `is_it`, and where it is.
    fn first_from(
        &self,
        mut position: u64,
        is_it: impl Fn(&Header) -> bool,
    ) -> Result<Option<(u64, Header)>, ReadError> {
        while let Some(header) = self.header(position)? {
            if is_it(&header) {
                return Ok(Some((position, header)));
            }
            position += header.size() as u64;
        }
        Ok(None)
    }

    /// Shows each batch from the one that holds `from` on, or the next.
    pub(super) fn walk(&self, from: i64, mut each: impl FnMut(&Header)) -> Result<(), ReadError> {
        let Some((mut position, _)) = self.find(from)? else {
            return Ok(());
        };
        let size = self.size();
        let mut ahead = vec![0; WALKED_BYTES];
        while position < size {
            let read = self.log.read_full_at(&mut ahead, position);
            let read = read.map_err(|error| self.io(error))?;
            let mut bytes = ahead.get(..read).unwrap_or_default();
            let start = position;
            // Those whose header is in what was read; the first always, if it is one.
            while let Ok(header) = Header::read(bytes)
                && position + header.size() as u64 <= size
            {
                each(&header);
                position += header.size() as u64;
                bytes = bytes.get(header.size()..).unwrap_or_default();
            }
            if position == start {
                self.header(position)?;
                return Ok(());
            }
        }
        Ok(())
    }

    /// The batch that holds `offset` or, where there is none, the next.
    pub(super) fn find(&self, offset: i64) -> Result<Option<(u64, Header)>, ReadError> {
        let start = self.walk_start(offset);
        self.first_from(start, |header| header.last_offset() >= offset)
    }

    /// The epoch of the leader that appended its last batch.
    pub(super) fn last_epoch(&self) -> Option<i32> {
        let last = self.find(self.end_offset() - 1).ok().flatten();
        last.map(|(_, header)| header.leader_epoch())
    }

    /// Whole batches from the one that holds `offset` on: up to `bytes_max` but one at least, none of them
    /// at or above `until`. None where the segment has no such.
    pub(super) fn read(
        &self,
        offset: i64,
        until: i64,
        bytes_max: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let first = self.find(offset)?;
        let Some((position, first)) = first.filter(|(_, first)| first.last_offset() < until) else {
            return Ok(Vec::new());
        };
        let rest = usize::try_from(self.size() - position).unwrap_or(usize::MAX);
        let mut bytes = vec![0; rest.min(bytes_max.max(first.size()))];
        self.log
            .read_exact_at(&mut bytes, position)
            .map_err(|error| self.io(error))?;
        let mut whole = 0;
        while let Ok((view, _)) = View::read(bytes.get(whole..).unwrap_or_default())
            && view.last_offset() < until
        {
            whole += view.size();
        }
        bytes.truncate(whole);
        Ok(bytes)
    }

    /// How many bytes [`Self::read`] gives at the most; nothing is read but headers.
    pub(super) fn measure(
        &self,
        offset: i64,
        until: i64,
        bytes_max: usize,
    ) -> Result<usize, ReadError> {
        let first = self.find(offset)?;
        let first = first.filter(|(_, first)| first.last_offset() < until);
        Ok(first.map_or(0, |(position, first)| {
            let rest = usize::try_from(self.size() - position).unwrap_or(usize::MAX);
            rest.min(bytes_max.max(first.size()))
        }))
    }

    /// The first record at `timestamp_ms` or later, from offset `first` to below `until`: its offset and its
    /// time.
    pub(super) fn at_or_after(
        &self,
        timestamp_ms: i64,
        first: i64,
        until: i64,
    ) -> Result<Option<(i64, i64)>, ReadError> {
        let mut position = self.walk_start_by_time(timestamp_ms);
        let mut scratch = Vec::new();
        let is_late = |header: &Header| {
            header.max_timestamp() >= timestamp_ms && header.last_offset() >= first
        };
        while let Some((at, header)) = self.first_from(position, is_late)? {
            if header.last_offset() >= until {
                return Ok(None);
            }
            if let Some(found) = self.in_batch(at, &header, (timestamp_ms, first), &mut scratch)? {
                return Ok(Some(found));
            }
            position = at + header.size() as u64;
        }
        Ok(None)
    }

    fn in_batch(
        &self,
        position: u64,
        header: &Header,
        (timestamp_ms, first): (i64, i64),
        scratch: &mut Vec<u8>,
    ) -> Result<Option<(i64, i64)>, ReadError> {
        let mut bytes = vec![0; header.size()];
        self.log
            .read_exact_at(&mut bytes, position)
            .map_err(|error| self.io(error))?;
        let damaged = |damage| ReadError::Damaged {
            path: self.path(LOG),
            position,
            damage,
        };
        let (view, _) = View::read(&bytes).map_err(damaged)?;
        view.verify().map_err(damaged)?;
        for record in view.records(scratch).map_err(damaged)? {
            let record = record.map_err(damaged)?;
            if record.timestamp_ms >= timestamp_ms && record.offset >= first {
                return Ok(Some((record.offset, record.timestamp_ms)));
            }
        }
        Ok(None)
    }

    /// Where a walk to the first batch of `timestamp_ms` or later begins.
    fn walk_start_by_time(&self, timestamp_ms: i64) -> u64 {
        let (_, entries) = self.entries();
        if entries == 0 || self.index_lied() {
            return 0;
        }
        self.looked_up_by_time(entries, timestamp_ms)
            .unwrap_or_else(|error| {
                self.disbelieve(&error);
                0
            })
    }

    fn looked_up_by_time(&self, entries: u32, timestamp_ms: i64) -> io::Result<u64> {
        let file = self.disk.open(&self.path(TIME_INDEX), Open::Read)?;
        let is_before = |entry: TimeEntry| entry.timestamp < timestamp_ms;
        let Some(entry) = index::last_before(&*file, entries, is_before)? else {
            return Ok(0);
        };
        let offset = self.base_offset + i64::from(entry.offset);
        let found = self.find(offset).ok().flatten();
        let is_its = |(_, batch): &(u64, Header)| {
            batch.last_offset() == offset && batch.max_timestamp() == entry.timestamp
        };
        match found.filter(is_its) {
            Some((position, _)) => Ok(position),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
