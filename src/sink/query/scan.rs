//! A walk over partitions that finds wanted events, oldest or newest first, a page at a time.
//!
//! Within a partition events come in the order of the log, or its reverse; between partitions, by time.
//! An event stands in the log where its request ended and carries the moment it began, so neighbours may
//! be out of order by as long as requests take. Memory is bounded by what one read of each partition
//! holds.

use std::{collections::VecDeque, fmt, ops::Range, sync::Arc};

use serde_json::{Map, Value};

use super::{filter::Filter, position::Position, tally::Tally};
use crate::{
    event::avro,
    log::{Partition, ReadError, View},
};

/// Which events come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Those told last.
    Newest,
    /// Those told first.
    Oldest,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The partition it is in.
    pub partition: u32,
    /// Its offset there.
    pub offset: i64,
    /// Its moment, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// What it is about.
    pub key: Option<Vec<u8>>,
    /// The event: a JSON object, as it is stored or as it was told. None forgets what was told of the key before.
    pub value: Option<Vec<u8>>,
}

/// When a page is done, beside having come to the end.
pub struct Bounds<'a> {
    /// Events of one page.
    pub events: usize,
    /// Asked between two reads: whether the page has taken long enough, or nobody waits for it.
    pub is_over: &'a mut dyn FnMut() -> bool,
}

impl fmt::Debug for Bounds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounds")
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The events, in the order that was asked for.
    pub events: Vec<Event>,
    /// Where to go on, in the same order.
    pub next: Position,
    /// Whether there is nothing more, for now.
    pub is_end: bool,
    /// What it took.
    pub tally: Tally,
}

/// The place behind all events that can be read now.
pub fn end(partitions: &[Arc<Partition>]) -> Position {
    let mut end = Position::default();
    for partition in partitions {
        end.set(partition.index(), partition.high_watermark());
    }
    end
}

/// The next page of wanted events of the partitions of one topic, going on from `from`; in a partition of
/// which that says nothing, from the beginning of the order.
///
/// # Errors
/// When a partition cannot be read.
pub fn page(
    partitions: &[Arc<Partition>],
    filter: &Filter,
    order: Order,
    from: &Position,
    bounds: &mut Bounds<'_>,
) -> Result<Page, ReadError> {
    let mut search = Search {
        filter,
        order,
        tally: Tally::default(),
        scratch: Vec::new(),
        json: Vec::new(),
    };
    let mut readers = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let at = from.offset(partition.index());
        readers.push(Reader::new(partition, at, bounds.events, &mut search)?);
    }
    let mut page = Page::default();
    loop {
        take_what_is_due(&mut readers, &mut search, bounds.events, &mut page.events);
        page.is_end = readers.iter().all(Reader::is_exhausted);
        let is_full = page.events.len() >= bounds.events;
        // Each partition is read once, so that every page gets further than the one before.
        let has_begun = readers
            .iter()
            .all(|reader| reader.has_begun || reader.is_done);
        if page.is_end || is_full || (has_begun && (bounds.is_over)()) {
            break;
        }
        let unread = readers.iter_mut().filter(|reader| !reader.is_done);
        if let Some(reader) = unread.min_by_key(|reader| reader.frontier) {
            reader.read(&mut search)?;
        }
    }
    for reader in &readers {
        page.next
            .set(reader.partition.index(), reader.position(order));
    }
    page.tally = search.tally;
    Ok(page)
}

/// What is looked for, and what that took so far.
struct Search<'a> {
    filter: &'a Filter,
    order: Order,
    tally: Tally,
    /// Where batches are unpacked to.
    scratch: Vec<u8>,
    /// Where Avro is turned into JSON.
    json: Vec<u8>,
}

/// Moves events to the page, as long as no partition could still hold one that comes before.
fn take_what_is_due(
    readers: &mut [Reader],
    search: &mut Search<'_>,
    events_max: usize,
    events: &mut Vec<Event>,
) {
    let unread = readers.iter().filter(|reader| !reader.is_done);
    let horizon = unread.map(|reader| reader.frontier).min();
    while events.len() < events_max {
        let with_event = readers.iter_mut().filter_map(|reader| {
            let (rank, _) = *reader.found.front()?;
            Some((rank, reader))
        });
        let Some((rank, reader)) = with_event.min_by_key(|(rank, _)| *rank) else {
            return;
        };
        if horizon.is_some_and(|horizon| rank > horizon) {
            return;
        }
        let Some((_, event)) = reader.found.pop_front() else {
            return;
        };
        // Whoever asks for all has not parsed it yet.
        let is_sound = |value: &[u8]| !search.filter.takes_all() || object(value).is_some();
        if event.value.as_deref().is_none_or(is_sound) {
            events.push(event);
        } else {
            search.tally.unreadable += 1;
        }
    }
}

impl Order {
    /// What comes first has the lower rank.
    fn rank(self, timestamp_ms: i64) -> i64 {
        match self {
            Self::Newest => !timestamp_ms,
            Self::Oldest => timestamp_ms,
        }
    }
}

fn object(value: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(value).ok()
}

/// Bytes of one read.
const READ_BYTES: usize = 256 * 1024;

/// Offsets of one read, newest first: what is found in it waits to be turned round.
const WINDOW_MAX: i64 = 4_096;

/// The widest a read becomes where compaction has left nothing.
const EMPTY_WINDOW_MAX: i64 = 1 << 20;

/// Offsets that are passed over where bytes are no batch, until reading goes on.
const PAST_DAMAGE: i64 = 256;

/// An event may be told so long after its moment, for [`Filter::until_ms`] to be sure to find it.
const LATE_MS: i64 = 3_600_000;

/// What is read of one partition.
#[derive(Debug)]
struct Reader {
    partition: Arc<Partition>,
    /// Oldest first: the next offset to read. Newest first: the one above it.
    at: i64,
    /// Where reading ends: above, or at, which offset.
    end: i64,
    window: i64,
    has_begun: bool,
    is_done: bool,
    /// The rank that whatever is read next has at least.
    frontier: i64,
    /// Wanted events that were not given out yet, in order, with their ranks. A rank is never below the
    /// one before: behind a moment that is far ahead, as of a clock that was wrong, the partition waits
    /// for the others instead of being read on and on.
    found: VecDeque<(i64, Event)>,
}

impl Reader {
    fn new(
        partition: &Arc<Partition>,
        at: Option<i64>,
        events: usize,
        search: &mut Search<'_>,
    ) -> Result<Self, ReadError> {
        let (start, end) = (partition.log_start_offset(), partition.high_watermark());
        let first = match search.filter.since_ms() {
            Some(since) => match partition.offset_at_or_after(since) {
                Ok(found) => found.map_or(end, |(offset, _)| offset.clamp(start, end)),
                // What is in the way of looking it up is in the way of reading, too, and told then.
                Err(ReadError::Damaged { .. } | ReadError::OutOfRange { .. }) => start,
                Err(error @ ReadError::Io(..)) => return Err(error),
            },
            None => start,
        };
        let (at, end) = match search.order {
            Order::Oldest => {
                let gone = at.map_or(0, |at| start.saturating_sub(at).max(0));
                search.tally.gone += gone.unsigned_abs();
                // A place behind the end is one of an earlier log, or of what a power cut took: what comes
                // from now on is new there.
                (at.unwrap_or(first).min(end).max(first), end)
            }
            Order::Newest => (at.unwrap_or(end).min(end), first),
        };
        let events = i64::try_from(events).unwrap_or(WINDOW_MAX);
        Ok(Self {
            partition: Arc::clone(partition),
            at,
            end,
            window: events.saturating_mul(2).clamp(64, WINDOW_MAX),
            has_begun: false,
            is_done: match search.order {
                Order::Oldest => at >= end,
                Order::Newest => at <= end,
            },
            frontier: i64::MIN,
            found: VecDeque::new(),
        })
    }

    fn is_exhausted(&self) -> bool {
        self.is_done && self.found.is_empty()
    }

    /// Where to go on: before what was not given out.
    fn position(&self, order: Order) -> i64 {
        match (self.found.front(), order) {
            (Some((_, event)), Order::Oldest) => event.offset,
            (Some((_, event)), Order::Newest) => event.offset + 1,
            (None, _) => self.at,
        }
    }

    fn read(&mut self, search: &mut Search<'_>) -> Result<(), ReadError> {
        self.has_begun = true;
        match search.order {
            Order::Oldest => self.read_on(search),
            Order::Newest => self.read_back(search),
        }
    }

    fn read_on(&mut self, search: &mut Search<'_>) -> Result<(), ReadError> {
        let known = self.found.len();
        let seen = self.look_at(self.at..self.end, search)?;
        self.rank(search.order, known, seen.last_ms);
        self.at = seen.next;
        self.is_done = self.at >= self.end;
        Ok(())
    }

    fn read_back(&mut self, search: &mut Search<'_>) -> Result<(), ReadError> {
        let low = self.at.saturating_sub(self.window).max(self.end);
        let known = self.found.len();
        let mut next = low;
        let mut first_ms = None;
        while next < self.at {
            let seen = self.look_at(next..self.at, search)?;
            first_ms = first_ms.or(seen.first_ms);
            next = seen.next;
        }
        if let Some(new) = self.found.make_contiguous().get_mut(known..) {
            new.reverse();
        }
        self.rank(search.order, known, first_ms);
        self.at = low;
        self.is_done = low <= self.end;
        self.window = match first_ms {
            Some(_) => WINDOW_MAX,
            None => (self.window * 2).min(EMPTY_WINDOW_MAX),
        };
        Ok(())
    }

    /// Gives ranks to what was found behind the first `known`, and moves the frontier to `end_ms`.
    fn rank(&mut self, order: Order, known: usize, end_ms: Option<i64>) {
        for (rank, event) in self.found.iter_mut().skip(known) {
            self.frontier = self.frontier.max(order.rank(event.timestamp_ms));
            *rank = self.frontier;
        }
        if let Some(end_ms) = end_ms {
            self.frontier = self.frontier.max(order.rank(end_ms));
        }
    }

    /// Reads once and looks for wanted events with these offsets.
    fn look_at(&mut self, offsets: Range<i64>, search: &mut Search<'_>) -> Result<Seen, ReadError> {
        let mut seen = Seen {
            next: offsets.end,
            first_ms: None,
            last_ms: None,
        };
        let stored = match self.partition.read(offsets.start, READ_BYTES) {
            Ok(stored) => stored,
            Err(ReadError::OutOfRange { first, .. }) => {
                // Retention was faster.
                let next = first.clamp(offsets.start, offsets.end);
                search.tally.gone += (next - offsets.start).unsigned_abs();
                seen.next = next;
                // Where it is not gone it cannot be read, and neither can what follows.
                if next == offsets.start {
                    seen.next = offsets.end;
                }
                return Ok(seen);
            }
            Err(ReadError::Damaged { .. }) => {
                // What stands behind the damage is found again by the index.
                search.tally.damaged += 1;
                seen.next = (offsets.start + PAST_DAMAGE).min(offsets.end);
                return Ok(seen);
            }
            Err(error @ ReadError::Io(..)) => return Err(error),
        };
        let mut bytes = stored.as_slice();
        while let Ok((batch, rest)) = View::read(bytes) {
            bytes = rest;
            if batch.base_offset() >= offsets.end {
                seen.next = offsets.end;
                break;
            }
            seen.next = (batch.last_offset() + 1).max(offsets.start);
            seen.first_ms = seen.first_ms.or(Some(batch.base_timestamp()));
            seen.last_ms = Some(batch.max_timestamp());
            let is_sound = batch.is_control()
                || !may_hold(search.filter, &batch)
                || self.look_into(&batch, &offsets, search);
            search.tally.damaged += u64::from(!is_sound);
        }
        Ok(seen)
    }

    /// Whether the batch is what was written.
    fn look_into(
        &mut self,
        batch: &View<'_>,
        offsets: &Range<i64>,
        search: &mut Search<'_>,
    ) -> bool {
        if batch.verify().is_err() {
            return false;
        }
        let Ok(records) = batch.records(&mut search.scratch) else {
            return false;
        };
        for record in records {
            let Ok(record) = record else {
                return false;
            };
            if !offsets.contains(&record.offset) {
                continue;
            }
            search.tally.scanned += 1;
            if !search.filter.is_in_time(record.timestamp_ms) {
                continue;
            }
            // What is neither JSON nor Avro is told as it is, and found unreadable there.
            let json = &mut search.json;
            let value = record
                .value
                .map(|value| avro::as_json(value, json).unwrap_or(value));
            if search.filter.wants(record.key, value, &mut search.tally) {
                let event = Event {
                    partition: self.partition.index(),
                    offset: record.offset,
                    timestamp_ms: record.timestamp_ms,
                    key: record.key.map(<[u8]>::to_vec),
                    value: value.map(<[u8]>::to_vec),
                };
                // Its rank is known when all of this read is.
                self.found.push_back((i64::MIN, event));
            }
        }
        true
    }
}

/// What one read came to.
struct Seen {
    /// The offset after the last one seen; the end of what was asked for, if nothing was.
    next: i64,
    first_ms: Option<i64>,
    last_ms: Option<i64>,
}

/// Whether a batch may hold events of the wanted time; it need not be unpacked if not.
fn may_hold(filter: &Filter, batch: &View<'_>) -> bool {
    let is_late = |until: i64| batch.base_timestamp() >= until.saturating_add(LATE_MS);
    filter
        .since_ms()
        .is_none_or(|since| batch.max_timestamp() >= since)
        && !filter.until_ms().is_some_and(is_late)
}

impl Filter {
    /// Whether a record is wanted, by both looks.
    fn wants(&self, key: Option<&[u8]>, value: Option<&[u8]>, tally: &mut Tally) -> bool {
        let Some(value) = value else {
            return self.takes_tombstone(key.unwrap_or_default(), tally);
        };
        if self.takes_all() {
            return true;
        }
        if !self.may_take(value, tally) {
            return false;
        }
        let Some(event) = object(value) else {
            tally.unreadable += 1;
            return false;
        };
        self.takes(&event, tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::query::{
        EventTopic,
        written::{Events, Written},
    };

    fn filter(conditions: &[(&str, &str)]) -> Filter {
        let get = |name| {
            let found = conditions.iter().find(|(own, _)| *own == name);
            found.map(|(_, text)| *text)
        };
        Filter::read(EventTopic::Access, get, 1_000).unwrap()
    }

    fn one_page(
        partitions: &[Arc<Partition>],
        filter: &Filter,
        order: Order,
        from: &Position,
        events: usize,
    ) -> Page {
        let is_over = &mut || false;
        page(
            partitions,
            filter,
            order,
            from,
            &mut Bounds { events, is_over },
        )
        .unwrap()
    }

    fn moments(page: &Page) -> Vec<i64> {
        page.events.iter().map(|event| event.timestamp_ms).collect()
    }

    /// All pages one after another.
    fn all(
        partitions: &[Arc<Partition>],
        filter: &Filter,
        order: Order,
        events: usize,
    ) -> Vec<(u32, i64)> {
        let mut from = Position::default();
        let mut found = Vec::new();
        loop {
            let page = one_page(partitions, filter, order, &from, events);
            assert!(page.events.len() <= events);
            assert!(page.is_end || page.next != from, "no way on from {from}");
            found.extend(
                page.events
                    .iter()
                    .map(|event| (event.partition, event.offset)),
            );
            from = page.next;
            if page.is_end {
                return found;
            }
        }
    }

    const A: &str = r#"{"event":"access","status":200}"#;
    const B: &str = r#"{"event":"access","status":403}"#;

    #[test]
    fn partitions_are_merged_by_time_either_way() {
        let first: &[Events<'_>] = &[&[(10, A), (40, A)], &[(50, A)]];
        let second: &[Events<'_>] = &[&[(20, A), (30, B)], &[(45, A), (60, A)]];
        let written = Written::new(&[first, second]);
        let log = written.partitions();
        let none = Position::default();
        let oldest = one_page(log, &filter(&[]), Order::Oldest, &none, 100);
        assert_eq!(moments(&oldest), [10, 20, 30, 40, 45, 50, 60]);
        assert_eq!((oldest.is_end, oldest.next), (true, end(log)));
        let newest = one_page(log, &filter(&[]), Order::Newest, &none, 3);
        assert_eq!(moments(&newest), [60, 50, 45]);
        let rest = one_page(log, &filter(&[]), Order::Newest, &newest.next, 100);
        assert_eq!(moments(&rest), [40, 30, 20, 10]);
        assert!(rest.is_end && !newest.is_end);
    }

    #[test]
    fn a_position_lies_between_what_was_read_and_what_was_not_either_way() {
        let first: &[Events<'_>] = &[&[(10, A), (20, A), (30, A)]];
        let written = Written::new(&[first]);
        let log = written.partitions();
        let two = one_page(log, &filter(&[]), Order::Oldest, &Position::default(), 2);
        assert_eq!(two.next.to_string(), "0-2");
        let back = one_page(log, &filter(&[]), Order::Newest, &two.next, 100);
        assert_eq!(moments(&back), [20, 10]);
    }

    #[test]
    fn what_is_written_later_comes_behind_the_end() {
        let first: &[Events<'_>] = &[&[(10, A)]];
        let written = Written::new(&[first]);
        let log = written.partitions();
        let page = one_page(log, &filter(&[]), Order::Oldest, &Position::default(), 9);
        let again = one_page(log, &filter(&[]), Order::Oldest, &page.next, 9);
        assert_eq!((again.events.len(), again.is_end), (0, true));
        assert_eq!(again.next, page.next);
        // So it does behind a place that was never reached, or was lost.
        let lost = "0-9000".parse().unwrap();
        let later = one_page(log, &filter(&[]), Order::Oldest, &lost, 9);
        assert_eq!((later.is_end, later.next), (true, end(log)));
    }

    #[test]
    fn pages_of_any_size_are_the_same_events() {
        let mut events: [Vec<Vec<(i64, &str)>>; 3] = Default::default();
        for number in 0..600_i64 {
            // Out of order by up to 40, in batches of 1 to 100.
            let moment = number + (number * 7_919) % 41;
            let batches = &mut events[usize::try_from(number % 7 % 3).unwrap()];
            if number % 100 == 0 || number % 33 == 0 || batches.is_empty() {
                batches.push(Vec::new());
            }
            let event = if number % 3 == 0 { B } else { A };
            batches.last_mut().unwrap().push((moment, event));
        }
        let batches: Vec<Vec<Events<'_>>> = events
            .iter()
            .map(|batches| batches.iter().map(Vec::as_slice).collect())
            .collect();
        let lists: Vec<&[Events<'_>]> = batches.iter().map(Vec::as_slice).collect();
        let written = Written::new(&lists);
        let log = written.partitions();
        for (conditions, count) in [
            (&[][..], 600),
            (&[("status", "403")], 200),
            (&[("status", "5xx")], 0),
        ] {
            let filter = filter(conditions);
            let mut expected = all(log, &filter, Order::Oldest, 10_000);
            expected.sort_unstable();
            assert_eq!(expected.len(), count);
            for (order, events) in [
                (Order::Oldest, 1),
                (Order::Oldest, 7),
                (Order::Newest, 1),
                (Order::Newest, 7),
                (Order::Newest, 10_000),
            ] {
                let mut found = all(log, &filter, order, events);
                found.sort_unstable();
                assert_eq!(found, expected, "{order:?} {events} {conditions:?}");
            }
        }
    }

    #[test]
    fn a_clock_that_was_wrong_once_makes_no_page_read_everything() {
        // What compresses badly, so that one read is a small part of it.
        let noise = |ms: u64| {
            let numbers = (1..9).map(|nth| (ms * 9 + nth).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let noise: String = numbers.map(|number| format!("{number:016x}")).collect();
            format!(r#"{{"event":"access","path":"/{noise}"}}"#)
        };
        let texts: Vec<String> = (0..20_000).map(noise).collect();
        let many: Vec<(i64, &str)> = (0..).zip(texts.iter().map(String::as_str)).collect();
        let mut wrong = many.clone();
        wrong[5].0 = 1 << 50;
        wrong[19_990].0 = 0;
        let batches: Vec<Events<'_>> = many.chunks(100).collect();
        let wrong: Vec<Events<'_>> = wrong.chunks(100).collect();
        let written = Written::new(&[&wrong, &batches]);
        let log = written.partitions();
        for order in [Order::Oldest, Order::Newest] {
            let first = one_page(log, &filter(&[]), order, &Position::default(), 10);
            assert_eq!(first.events.len(), 10);
            let some = first.tally.scanned;
            assert!(some < 20_000, "{order:?}: {some}");
            assert_eq!(all(log, &filter(&[]), order, 5_000).len(), 40_000);
        }
    }

    #[test]
    fn a_page_that_takes_too_long_is_cut_and_the_next_goes_on() {
        let many: Vec<(i64, &str)> = (0..2_000).map(|ms| (ms, A)).collect();
        let batches: Vec<Events<'_>> = many.chunks(10).collect();
        let written = Written::new(&[&batches, &batches]);
        let log = written.partitions();
        for order in [Order::Oldest, Order::Newest] {
            let (mut from, mut pages) = (Position::default(), 0);
            loop {
                let bounds = &mut Bounds {
                    events: 10,
                    is_over: &mut || true,
                };
                let none = filter(&[("status", "500")]);
                let cut = page(log, &none, order, &from, bounds).unwrap();
                pages += 1;
                if cut.is_end {
                    break;
                }
                assert_ne!(cut.next, from);
                from = cut.next;
            }
            assert!(pages < 100, "{order:?}: {pages}");
        }
    }

    #[test]
    fn since_and_until_bound_what_is_found() {
        let first: &[Events<'_>] = &[&[(100, A), (300, A)], &[(200, A)], &[(400, A), (500, A)]];
        let written = Written::new(&[first]);
        let log = written.partitions();
        let mut wanted = filter(&[]);
        for (since, until, found) in [
            (Some(200), None, vec![300, 200, 400, 500]),
            (Some(200), Some(400), vec![300, 200]),
            (None, Some(101), vec![100]),
            (Some(501), None, vec![]),
        ] {
            (wanted.since_ms, wanted.until_ms) = (since, until);
            for order in [Order::Oldest, Order::Newest] {
                let page = one_page(log, &wanted, order, &Position::default(), 10);
                let mut told = moments(&page);
                if order == Order::Newest {
                    told.reverse();
                }
                assert_eq!(told, found, "{since:?} {until:?} {order:?}");
                assert!(page.is_end);
            }
        }
    }

    #[test]
    fn tombstones_are_for_who_wants_all_and_what_is_no_json_is_counted() {
        let first: &[Events<'_>] = &[&[(10, ""), (20, "x"), (30, "[1]"), (40, A)]];
        let written = Written::new(&[first]);
        let log = written.partitions();
        let none = Position::default();
        let page = one_page(log, &filter(&[]), Order::Oldest, &none, 10);
        assert_eq!(moments(&page), [10, 40]);
        assert_eq!((page.tally.unreadable, page.tally.scanned), (2, 4));
        let page = one_page(log, &filter(&[("status", "200")]), Order::Oldest, &none, 10);
        assert_eq!(moments(&page), [40]);
    }
}
