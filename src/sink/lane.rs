//! From a worker to the log: a bounded ring of bytes for each worker.
//!
//! Telling an event is a copy: no lock, no allocation, no wait, and no system call while the builder is
//! awake. When the ring is full the event is lost, but not its number: as soon as there is room again
//! the next thing in the ring is a gap that tells which numbers are missing ([`Gap`]).

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use rtrb::{Consumer, Producer, RingBuffer};

use crate::{
    base::bell::Bell,
    event::{
        place::{Gap, Place, Run},
        time::Stamps,
    },
};

/// Bytes of all lanes together, where that leaves each within its bounds.
const ALL_BYTES: usize = 16 << 20;
/// Bytes of one lane at least.
const LANE_BYTES_MIN: usize = 256 << 10;
/// Bytes of one lane at most.
const LANE_BYTES_MAX: usize = 4 << 20;

/// Bytes of each of so many lanes.
pub fn lane_bytes(lanes: usize) -> usize {
    (ALL_BYTES / lanes.max(1)).clamp(LANE_BYTES_MIN, LANE_BYTES_MAX)
}

/// What stands before an event in the ring: the lengths of its value and key, and its timestamp.
const HEADER_BYTES: usize = 4 + 1 + 8;
/// Bytes of a key at most.
const KEY_BYTES_MAX: usize = u8::MAX as usize;

/// Room that a gap may need in the ring.
const GAP_BYTES_MAX: usize = 256;

/// What one lane counts. Written by its worker alone, read by whoever shows it; all orderings are
/// relaxed, since each number stands for itself.
#[derive(Debug, Default)]
pub struct LaneCounts {
    numbered: AtomicU64,
    lost: AtomicU64,
    gaps: AtomicU64,
}

impl LaneCounts {
    /// Events that were numbered, lost ones among them.
    pub fn numbered(&self) -> u64 {
        self.numbered.load(Ordering::Relaxed)
    }

    /// Events that found no room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Gaps that were told.
    pub fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }
}

/// The worker's end.
#[derive(Debug)]
pub struct Lane {
    ring: Producer<u8>,
    /// Where the next event will stand.
    next: Place,
    /// The key of what belongs to no client.
    key: String,
    /// What has been lost and not been told.
    gap: Option<Gap>,
    /// The gap that was still to be told at the end.
    last_gap: Arc<OnceLock<Gap>>,
    lost: u64,
    gaps: u64,
    counts: Arc<LaneCounts>,
    bell: Arc<Bell>,
}

/// The builder's end.
#[derive(Debug)]
pub struct Drain {
    ring: Consumer<u8>,
    last_gap: Arc<OnceLock<Gap>>,
    took_last_gap: bool,
    counts: Arc<LaneCounts>,
    /// An event that goes around the ring's end.
    whole: Vec<u8>,
}

/// One event, as it lies in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<'a> {
    /// When it happened, in milliseconds since 1970.
    pub unix_ms: i64,
    /// What it is found by, and kept together with.
    pub key: &'a [u8],
    /// The event itself.
    pub value: &'a [u8],
}

/// The lane number `lane` of this run, of so many bytes. `bell` wakes who drains it.
pub fn lane(run: Run, lane: u32, bytes: usize, bell: &Arc<Bell>) -> (Lane, Drain) {
    let (producer, consumer) = RingBuffer::new(bytes);
    let next = Place { run, lane, seq: 1 };
    let (last_gap, counts) = (Arc::default(), Arc::default());
    let lane = Lane {
        ring: producer,
        next,
        key: next.lane_text(),
        gap: None,
        last_gap: Arc::clone(&last_gap),
        lost: 0,
        gaps: 0,
        counts: Arc::clone(&counts),
        bell: Arc::clone(bell),
    };
    let drain = Drain {
        ring: consumer,
        last_gap,
        took_last_gap: false,
        counts,
        whole: Vec::new(),
    };
    (lane, drain)
}

impl Lane {
    /// Where the next event will stand.
    pub fn next(&self) -> Place {
        self.next
    }

    /// Tells the event that stands at [`Lane::next`], or counts it as lost. Its key is that of the lane
    /// where it has none of its own.
    pub fn tell(&mut self, unix_ms: u64, key: Option<&[u8]>, value: &[u8]) {
        let at = self.next;
        self.next.seq += 1;
        self.counts.numbered.store(at.seq, Ordering::Relaxed);
        let is_gapless =
            self.gap.is_none() || self.has_told_gap(HEADER_BYTES + KEY_BYTES_MAX + value.len());
        let key = key.unwrap_or(self.key.as_bytes());
        if !(is_gapless && push(&mut self.ring, unix_ms, key, value)) {
            self.lose(at, unix_ms);
        }
        self.bell.ring();
    }

    /// Tells what was lost, if there is room now; to be called now and then.
    pub fn tell_gap(&mut self) {
        if self.gap.is_some() && self.has_told_gap(0) {
            self.bell.ring();
        }
    }

    /// Whether what was lost has been told, with room for so many bytes left behind it.
    ///
    /// Only when an eighth of the ring is free: else one long gap would become many short ones.
    #[cold]
    fn has_told_gap(&mut self, room: usize) -> bool {
        let Some(gap) = self.gap else {
            return true;
        };
        let eighth = self.ring.buffer().capacity() / 8;
        if self.ring.slots() < eighth.max(GAP_BYTES_MAX + room) {
            return false;
        }
        let mut value = Vec::with_capacity(GAP_BYTES_MAX);
        gap.write(&Stamps::default(), &mut value);
        let is_told = push(&mut self.ring, gap.unix_ms, self.key.as_bytes(), &value);
        if is_told {
            self.gap = None;
            self.gaps += 1;
            self.counts.gaps.store(self.gaps, Ordering::Relaxed);
        }
        is_told
    }

    #[cold]
    fn lose(&mut self, at: Place, unix_ms: u64) {
        self.lost += 1;
        self.counts.lost.store(self.lost, Ordering::Relaxed);
        let begun = Gap {
            first: at,
            last_seq: at.seq,
            unix_ms,
        };
        self.gap.get_or_insert(begun).last_seq = at.seq;
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(gap) = self.gap.take() {
            // Nobody else writes here.
            let _ = self.last_gap.set(gap);
        }
    }
}

/// Copies one event into the ring, or does nothing where there is no room.
///
/// The parts become visible one by one; the reader takes an event when all of it is there.
#[inline]
fn push(ring: &mut Producer<u8>, unix_ms: u64, key: &[u8], value: &[u8]) -> bool {
    let (Ok(value_bytes), Ok(key_bytes)) = (u32::try_from(value.len()), u8::try_from(key.len()))
    else {
        return false;
    };
    let all = HEADER_BYTES + key.len() + value.len();
    // `cached_slots` spares a look at what the reader writes, until it may be needed.
    if ring.cached_slots() < all && ring.slots() < all {
        return false;
    }
    let [v0, v1, v2, v3] = value_bytes.to_le_bytes();
    let [t0, t1, t2, t3, t4, t5, t6, t7] = unix_ms.to_le_bytes();
    let header = [v0, v1, v2, v3, key_bytes, t0, t1, t2, t3, t4, t5, t6, t7];
    // There is room for all three.
    [&header, key, value]
        .into_iter()
        .all(|part| ring.push_entire_slice(part).is_ok())
}

impl Drain {
    /// What the lane counts.
    pub fn counts(&self) -> &Arc<LaneCounts> {
        &self.counts
    }

    /// Whether nothing waits in the lane.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Bytes that wait in the lane.
    pub fn waiting_bytes(&self) -> usize {
        self.ring.slots()
    }

    /// Whether more than half of the lane waits.
    pub fn is_half_full(&self) -> bool {
        self.waiting_bytes() > self.ring.buffer().capacity() / 2
    }

    /// Whether the worker has ended, so that what waits is the last of it.
    pub fn has_ended(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// What was lost at the very end and found no room to be told; once, after the lane has ended and
    /// nothing waits in it.
    pub fn take_last_gap(&mut self) -> Option<Gap> {
        let gap = self.last_gap.get().copied();
        gap.filter(|_| !std::mem::replace(&mut self.took_last_gap, true))
    }

    /// Hands the oldest event to `take` and makes its room free; none when there is none.
    pub fn next<T>(&mut self, take: impl FnOnce(Told<'_>) -> T) -> Option<T> {
        let waiting = self.ring.slots();
        let chunk = self.ring.read_chunk(waiting).ok()?;
        let (front, back) = chunk.as_slices();
        let mut header = [0; HEADER_BYTES];
        if waiting < HEADER_BYTES {
            return None;
        }
        for (to, from) in header.iter_mut().zip(front.iter().chain(back)) {
            *to = *from;
        }
        let [v0, v1, v2, v3, key_bytes, unix_ms @ ..] = header;
        let key_end = HEADER_BYTES + usize::from(key_bytes);
        let all = key_end + u32::from_le_bytes([v0, v1, v2, v3]) as usize;
        if waiting < all {
            return None;
        }
        let whole = match front.get(..all) {
            Some(whole) => whole,
            None => {
                self.whole.clear();
                self.whole.extend_from_slice(front);
                let rest = all - front.len();
                self.whole.extend_from_slice(back.get(..rest)?);
                &self.whole
            }
        };
        let taken = take(Told {
            unix_ms: i64::from_le_bytes(unix_ms),
            key: whole.get(HEADER_BYTES..key_end)?,
            value: whole.get(key_end..all)?,
        });
        chunk.commit(all);
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane_of(bytes: usize) -> (Lane, Drain) {
        lane(Run::new(7), 1, bytes, &Arc::default())
    }

    fn next(drain: &mut Drain) -> Option<(i64, String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        drain.next(|told| (told.unix_ms, text(told.key), text(told.value)))
    }

    #[test]
    fn events_come_out_as_they_went_in_also_around_the_end_of_the_ring() {
        let (mut lane, mut drain) = lane_of(101);
        for (number, times) in (0..1_000_u32).zip((0..15).cycle()) {
            let value = number.to_string().repeat(times);
            assert_eq!(lane.next().seq, u64::from(number) + 1);
            lane.tell(number.into(), Some(b"client"), value.as_bytes());
            assert_eq!(
                next(&mut drain),
                Some((number.into(), "client".to_owned(), value))
            );
            assert_eq!(next(&mut drain), None);
        }
        assert_eq!(
            (drain.counts().numbered(), drain.counts().lost()),
            (1_000, 0)
        );
    }

    #[test]
    fn what_has_no_client_has_the_key_of_its_lane() {
        let (mut lane, mut drain) = lane_of(100);
        lane.tell(5, None, b"x");
        let told = next(&mut drain).unwrap();
        assert_eq!(told, (5, "00000007-1".to_owned(), "x".to_owned()));
    }

    /// The numbers that a gap tells.
    fn gap(value: &str) -> (u64, u64, u64) {
        let gap: serde_json::Value = serde_json::from_str(value).unwrap();
        assert_eq!((&gap["event"], &gap["lane"]), (&"gap".into(), &1.into()));
        let number = |name: &str| gap[name].as_u64().unwrap();
        (number("from"), number("to"), number("events"))
    }

    #[test]
    fn what_finds_no_room_is_told_as_a_gap_before_what_comes_after_it() {
        let (mut lane, mut drain) = lane_of(1_000);
        let value = [b'x'; 500];
        for unix_ms in 0..6 {
            lane.tell(unix_ms, None, &value);
        }
        assert_eq!((drain.counts().numbered(), drain.counts().lost()), (6, 5));
        assert_eq!(drain.counts().gaps(), 0);
        next(&mut drain).unwrap();
        lane.tell(6, None, b"after");
        let (unix_ms, key, told) = next(&mut drain).unwrap();
        assert_eq!((unix_ms, key.as_str()), (1, "00000007-1"));
        assert_eq!(gap(&told), (2, 6, 5));
        assert_eq!(next(&mut drain).unwrap().2, "after");
        assert_eq!((drain.counts().lost(), drain.counts().gaps()), (5, 1));
    }

    #[test]
    fn a_gap_is_told_without_another_event_too() {
        let (mut lane, mut drain) = lane_of(300);
        lane.tell(0, None, &[b'x'; 250]);
        lane.tell(1, None, &[b'x'; 250]);
        lane.tell_gap();
        assert_eq!(next(&mut drain).unwrap().0, 0);
        assert_eq!(next(&mut drain), None);
        lane.tell_gap();
        assert_eq!(gap(&next(&mut drain).unwrap().2), (2, 2, 1));
        lane.tell_gap();
        assert_eq!(next(&mut drain), None);
    }

    #[test]
    fn the_last_gap_is_told_at_the_end() {
        let (mut lane, mut drain) = lane_of(300);
        lane.tell(0, None, &[b'x'; 250]);
        lane.tell(1, None, &[b'x'; 250]);
        assert!(drain.take_last_gap().is_none());
        drop(lane);
        assert!(drain.has_ended());
        let last = drain.take_last_gap().unwrap();
        assert_eq!((last.first.seq, last.last_seq), (2, 2));
        assert!(drain.take_last_gap().is_none());
    }

    #[test]
    fn every_number_is_told_or_in_a_gap_however_the_two_ends_race() {
        const EVENTS: u64 = 200_000;
        let (mut lane, mut drain) = lane_of(2_000);
        let worker = std::thread::spawn(move || {
            for number in 1..=EVENTS {
                let value = format!("{{\"event\":\"access\",\"seq\":{}}}", lane.next().seq);
                lane.tell(number, None, value.as_bytes());
            }
        });
        let (mut expected, mut gaps) = (1, 0);
        loop {
            let has_ended = drain.has_ended();
            match next(&mut drain) {
                Some((_, _, value)) if value.contains("gap") => {
                    let (from, to, _) = gap(&value);
                    assert_eq!(from, expected);
                    expected = to + 1;
                    gaps += 1;
                }
                Some((_, _, value)) => {
                    let seq = format!("{{\"event\":\"access\",\"seq\":{expected}}}");
                    assert_eq!(value, seq);
                    expected += 1;
                }
                None if has_ended => break,
                None => std::thread::yield_now(),
            }
        }
        worker.join().unwrap();
        if let Some(last) = drain.take_last_gap() {
            assert_eq!(last.first.seq, expected);
            expected = last.last_seq + 1;
        }
        assert_eq!(expected, EVENTS + 1);
        assert_eq!(drain.counts().gaps(), gaps);
    }

    #[test]
    fn lanes_share_16_mib_within_their_bounds() {
        assert_eq!(lane_bytes(0), 4 << 20);
        assert_eq!(lane_bytes(1), 4 << 20);
        assert_eq!(lane_bytes(8), 2 << 20);
        assert_eq!(lane_bytes(1_000), 256 << 10);
    }
}
