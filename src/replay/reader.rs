//! The requests of the log in the order in which they came.
//!
//! An event stands in the log where its request ended, so those that took longer stand behind those that
//! came later. They are put in order within [`WINDOW_MS`]; what took longer than that is handed out late,
//! and counted. Memory is bounded by [`HELD_MAX`] requests.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde::Serialize;

use super::record::{self, Line, Recorded, Shown};
use crate::{
    event::avro,
    log::{Partition, ReadError, View},
};

/// How long requests may take and still be put in order.
const WINDOW_MS: u64 = 10_000;

/// Requests that wait to be put in order, at most.
const HELD_MAX: usize = 200_000;

/// Requests of one delivery, at least, unless it is the last.
const CHUNK: usize = 2_048;

/// Bytes of one read.
const READ_BYTES: usize = 256 * 1024;

/// Offsets that are passed over where bytes are no batch, until reading goes on.
const PAST_DAMAGE: i64 = 256;

/// An event may be told so long after its moment, for the end of the wanted time to be sure to find it.
const LATE_MS: u64 = 3_600_000;

/// Requests, each large enough to be moved by its address.
pub(super) type Requests = Vec<Box<Recorded>>;

/// What was read so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Requests.
    pub requests: u64,
    /// Requests that were lost before they got into the log.
    pub lost: u64,
    /// Records that hold no event.
    pub unreadable: u64,
    /// Batches whose bytes are damaged.
    pub damaged: u64,
    /// Records that went by retention before they were read.
    pub gone: u64,
    /// Requests that took so long that others were judged before them which came later.
    pub late: u64,
    /// Requests whose client is told as a network, so that it is not known whose they are.
    pub truncated: u64,
    /// Requests whose client is told as a hash.
    pub hashed: u64,
    /// Requests with a path or user agent that may have been longer than the event keeps.
    pub cut: u64,
    /// Lives of the process that the requests are of.
    pub runs: u64,
    /// How many of a thousand records that there are have been looked at.
    pub permille: u16,
}

/// Reads partitions side by side.
#[derive(Debug)]
pub(super) struct Reader {
    walks: Vec<Walk>,
    since_ms: u64,
    until_ms: u64,
    /// By the second in which they came.
    held: BTreeMap<u64, Requests>,
    held_count: usize,
    /// The first second of which nothing has been handed out yet.
    next_s: u64,
    runs: HashSet<Box<[u8]>>,
    last_run: Vec<u8>,
    reading: Reading,
    records: i64,
    scratch: Vec<u8>,
    texts: Vec<u8>,
    /// Where Avro is turned into JSON.
    json: Vec<u8>,
}

/// One partition.
#[derive(Debug)]
struct Walk {
    partition: Arc<Partition>,
    at: i64,
    end: i64,
    is_done: bool,
    /// The latest end of a request that was read.
    frontier_ms: u64,
}

impl Reader {
    /// A reader of the requests that came at `since_ms` or later, and before `until_ms`.
    ///
    /// # Errors
    /// When a partition cannot be read.
    pub(super) fn new(
        partitions: &[Arc<Partition>],
        since_ms: u64,
        until_ms: u64,
    ) -> Result<Self, ReadError> {
        let walks = partitions
            .iter()
            .map(|partition| Walk::new(partition, since_ms))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            records: walks.iter().map(|walk| walk.end - walk.at).sum(),
            walks,
            since_ms,
            until_ms,
            held: BTreeMap::new(),
            held_count: 0,
            next_s: 0,
            runs: HashSet::new(),
            last_run: Vec::new(),
            reading: Reading::default(),
            scratch: Vec::new(),
            texts: Vec::new(),
            json: Vec::new(),
        })
    }

    /// What was read so far.
    pub(super) fn reading(&self) -> Reading {
        let left: i64 = self.walks.iter().map(Walk::left).sum();
        let done = self.records - left;
        let permille = (done * 1_000).checked_div(self.records).unwrap_or(1_000);
        Reading {
            runs: self.runs.len() as u64,
            permille: u16::try_from(permille).unwrap_or(1_000),
            ..self.reading
        }
    }

    /// The next requests, in their order; none when there are no more.
    ///
    /// # Errors
    /// When a partition cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<Requests>, ReadError> {
        let mut chunk = Vec::new();
        loop {
            self.hand_out(&mut chunk);
            if chunk.len() >= CHUNK {
                return Ok(Some(chunk));
            }
            let unread = self
                .walks
                .iter()
                .enumerate()
                .filter(|(_, walk)| !walk.is_done);
            let Some((nth, _)) = unread.min_by_key(|(_, walk)| walk.frontier_ms) else {
                return Ok((!chunk.is_empty()).then_some(chunk));
            };
            self.read(nth)?;
        }
    }

    /// Moves to `chunk` what nothing can come before any more.
    fn hand_out(&mut self, chunk: &mut Requests) {
        let unread = self.walks.iter().filter(|walk| !walk.is_done);
        let frontier_ms = unread.map(|walk| walk.frontier_ms).min();
        let safe_s = frontier_ms.map(|ms| ms.saturating_sub(WINDOW_MS) / 1_000);
        while let Some(entry) = self.held.first_entry() {
            let is_safe = safe_s.is_none_or(|safe_s| *entry.key() < safe_s);
            if !is_safe && self.held_count <= HELD_MAX {
                return;
            }
            let (second, mut requests) = entry.remove_entry();
            self.next_s = self.next_s.max(second + 1);
            self.held_count -= requests.len();
            requests.sort_by_cached_key(|request| (request.unix_ms, request.id));
            chunk.append(&mut requests);
        }
    }

    /// Reads once from the partition of this place.
    fn read(&mut self, nth: usize) -> Result<(), ReadError> {
        let Some(walk) = self.walks.get(nth) else {
            return Ok(());
        };
        let (partition, at, end) = (Arc::clone(&walk.partition), walk.at, walk.end);
        let mut next = end;
        let mut is_over = false;
        match partition.read(at, READ_BYTES) {
            Ok(stored) => {
                let mut bytes = stored.as_slice();
                while let Ok((batch, rest)) = View::read(bytes) {
                    bytes = rest;
                    next = (batch.last_offset() + 1).max(at);
                    if batch.base_offset() >= end {
                        is_over = true;
                        break;
                    }
                    let base_ms = u64::try_from(batch.base_timestamp()).unwrap_or(0);
                    if base_ms >= self.until_ms.saturating_add(LATE_MS) {
                        is_over = true;
                        break;
                    }
                    if !batch.is_control() && !self.look_into(nth, &batch, at..end) {
                        self.reading.damaged += 1;
                    }
                }
            }
            Err(ReadError::OutOfRange { first, .. }) if first > at => {
                // Retention was faster.
                next = first.min(end);
                self.reading.gone += (next - at).unsigned_abs();
            }
            Err(ReadError::OutOfRange { .. }) => is_over = true,
            Err(ReadError::Damaged { .. }) => {
                self.reading.damaged += 1;
                next = (at + PAST_DAMAGE).min(end);
            }
            Err(error @ ReadError::Io(..)) => return Err(error),
        }
        if let Some(walk) = self.walks.get_mut(nth) {
            // Every read gets further than the one before.
            walk.at = next.max(at + 1);
            walk.is_done = is_over || walk.at >= end;
        }
        Ok(())
    }

    /// Takes a batch's requests; false where it is not what was written.
    fn look_into(&mut self, nth: usize, batch: &View<'_>, offsets: std::ops::Range<i64>) -> bool {
        if batch.verify().is_err() {
            return false;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let is_sound = match batch.records(&mut scratch) {
            Err(_) => false,
            Ok(records) => {
                let mut is_sound = true;
                for record in records {
                    let Ok(record) = record else {
                        is_sound = false;
                        break;
                    };
                    if offsets.contains(&record.offset) {
                        let unix_ms = u64::try_from(record.timestamp_ms).unwrap_or(0);
                        self.take(nth, unix_ms, record.value);
                    }
                }
                is_sound
            }
        };
        self.scratch = scratch;
        is_sound
    }

    fn take(&mut self, nth: usize, unix_ms: u64, value: Option<&[u8]>) {
        let mut texts = std::mem::take(&mut self.texts);
        let (runs, last) = (&mut self.runs, &mut self.last_run);
        let mut note_run = |run: &[u8]| {
            if run != last.as_slice() {
                last.clear();
                last.extend_from_slice(run);
                runs.insert(run.into());
            }
        };
        let is_wanted = (self.since_ms..self.until_ms).contains(&unix_ms);
        let line = match value {
            Some(event) => match avro::as_json(event, &mut self.json) {
                Some(event) => record::read(event, unix_ms, &mut texts, &mut note_run),
                None => Line::Unreadable,
            },
            None => Line::Unreadable,
        };
        self.texts = texts;
        let mut end_ms = unix_ms;
        match line {
            Line::Request(request) => {
                end_ms = unix_ms.saturating_add(request.total_us / 1_000);
                if is_wanted {
                    self.hold(request);
                }
            }
            Line::Gap(events) if is_wanted => self.reading.lost += events,
            Line::Unreadable if is_wanted => self.reading.unreadable += 1,
            Line::Gap(_) | Line::Unreadable => {}
        }
        if let Some(walk) = self.walks.get_mut(nth) {
            walk.frontier_ms = walk.frontier_ms.max(end_ms);
        }
    }

    fn hold(&mut self, request: Box<Recorded>) {
        let reading = &mut self.reading;
        reading.requests += 1;
        reading.cut += u64::from(request.is_cut);
        match request.client {
            Shown::Truncated => reading.truncated += 1,
            Shown::Hashed(_) => reading.hashed += 1,
            Shown::Nobody | Shown::Whole(_) => {}
        }
        let second = request.unix_ms / 1_000;
        reading.late += u64::from(second < self.next_s);
        self.held.entry(second).or_default().push(request);
        self.held_count += 1;
    }
}

impl Walk {
    fn new(partition: &Arc<Partition>, since_ms: u64) -> Result<Self, ReadError> {
        let (start, end) = (partition.log_start_offset(), partition.high_watermark());
        let since = i64::try_from(since_ms).unwrap_or(i64::MAX);
        let at = match partition.offset_at_or_after(since) {
            Ok(found) => found.map_or(end, |(offset, _)| offset.clamp(start, end)),
            // What is in the way of looking it up is in the way of reading, too, and told then.
            Err(ReadError::Damaged { .. } | ReadError::OutOfRange { .. }) => start,
            Err(error @ ReadError::Io(..)) => return Err(error),
        };
        Ok(Self {
            partition: Arc::clone(partition),
            at,
            end,
            is_done: at >= end,
            frontier_ms: 0,
        })
    }

    fn left(&self) -> i64 {
        match self.is_done {
            true => 0,
            false => self.end - self.at,
        }
    }
}
