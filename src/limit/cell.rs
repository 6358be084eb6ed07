//! What is known of one client, in a few words of memory that anybody may read.
//!
//! Clocks are written by any worker, with one compare-and-swap; the ban by the keeper alone. A new
//! cell's clocks are unborn: whoever meets one first moves its TAT over from the cold lane. A cell
//! that leaves the table is dead, so that no charge goes into it unseen.

use super::{
    cold::Place,
    gcra::{Quota, Ticks},
    sync::{AtomicU64, Ordering},
};
use crate::client::ClientKey;

/// Clocks in one cell. A client that uses more limits has more cells.
pub(super) const CLOCKS: u16 = 4;

/// Which cell: the client, and which four of its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CellKey {
    /// Whose it is.
    pub client: ClientKey,
    /// The limits' place in the order of [`super::ClockIds`], divided by the clocks of a cell. The first
    /// page of a client holds its ban, too.
    pub page: u16,
}

/// What is known of one client: four limit clocks, and the end of its ban.
#[derive(Debug)]
pub struct ClientCell {
    pub(super) key: CellKey,
    made: Ticks,
    clocks: [AtomicU64; CLOCKS as usize],
    banned_until: AtomicU64,
}

/// A clock whose TAT still stands in the cold lane; whoever meets it first moves it over.
const UNBORN: u64 = u64::MAX;
/// A clock of a cell that is no longer in the table.
const DEAD: u64 = u64::MAX - 1;
/// The clock was born with a debt from the cold lane.
const CARRIED: u64 = 1 << 62;
/// That debt may be somebody else's; until it is paid.
const SHARED: u64 = 1 << 61;
const TAT_MASK: u64 = SHARED - 1;

/// What a charge to a cell's clock came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CellCharge {
    /// It was admitted; the TAT with it.
    Admitted(Ticks),
    /// It was not.
    Refused {
        /// The TAT as it stands.
        tat: Ticks,
        /// How long until it would be admitted, in ticks.
        wait: Ticks,
        /// Whether it was born with a debt that may be somebody else's.
        is_shared: bool,
    },
    /// The cell has left the table: look again.
    Dead,
}

impl ClientCell {
    pub(super) fn new(key: CellKey, made: Ticks) -> Self {
        Self {
            key,
            made,
            clocks: [const { AtomicU64::new(UNBORN) }; CLOCKS as usize],
            banned_until: AtomicU64::new(0),
        }
    }

    /// Whether the client is banned at `now`.
    #[inline]
    pub fn is_banned(&self, now: Ticks) -> bool {
        // Relaxed: the deadline stands for itself.
        self.banned_until.load(Ordering::Relaxed) > now
    }

    /// When the ban ends, in ticks; zero for none.
    pub fn banned_until(&self) -> Ticks {
        self.banned_until.load(Ordering::Relaxed)
    }

    pub(super) fn ban_until(&self, until: Ticks) {
        self.banned_until.store(until, Ordering::Relaxed);
    }

    /// Charges one request to a clock; `place` is where the clock stood before the cell was made.
    pub(super) fn charge(
        &self,
        clock: usize,
        quota: &Quota,
        now: Ticks,
        place: Place<'_>,
    ) -> CellCharge {
        let Some(word) = self.clocks.get(clock) else {
            return CellCharge::Dead;
        };
        let mut seen = born(word, now, place);
        loop {
            if seen == DEAD {
                return CellCharge::Dead;
            }
            let tat = quota.bounded(seen & TAT_MASK, now);
            let is_shared = seen & SHARED != 0 && tat > now;
            let (next, outcome) = match quota.admit(tat, now) {
                Ok(next) => (next, CellCharge::Admitted(next)),
                Err(wait) => (
                    tat,
                    CellCharge::Refused {
                        tat,
                        wait,
                        is_shared,
                    },
                ),
            };
            let next = next | seen & CARRIED | if is_shared { SHARED } else { 0 };
            if next == seen {
                return outcome;
            }
            // Release: pairs with the keeper's `kill`, which must not miss a charge.
            match word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return outcome,
                Err(UNBORN) => seen = born(word, now, place),
                Err(changed) => seen = changed,
            }
        }
    }

    /// Moves a clock on by what its client spent elsewhere; false when the cell has left the table.
    pub(super) fn move_on(
        &self,
        clock: usize,
        quota: &Quota,
        now: Ticks,
        place: Place<'_>,
        spent: u32,
    ) -> bool {
        let Some(word) = self.clocks.get(clock) else {
            return false;
        };
        let mut seen = born(word, now, place);
        while seen != DEAD {
            let tat = seen & TAT_MASK;
            let kept = if tat > now { CARRIED | SHARED } else { CARRIED };
            let next = quota.after(tat, now, spent).min(TAT_MASK) | seen & kept;
            match word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(UNBORN) => seen = born(word, now, place),
                Err(changed) => seen = changed,
            }
        }
        false
    }

    /// Whether the clock was born with a debt from the cold lane; none when the cell has left the
    /// table.
    pub(super) fn has_carried(&self, clock: usize, now: Ticks, place: Place<'_>) -> Option<bool> {
        let seen = born(self.clocks.get(clock)?, now, place);
        (seen != DEAD).then_some(seen & CARRIED != 0)
    }

    /// What a clock stands at, and whether that may be somebody else's debt; nothing is moved.
    pub(super) fn peek(&self, clock: usize, now: Ticks, place: Place<'_>) -> (Ticks, bool) {
        let word = self.clocks.get(clock);
        match word.map_or(DEAD, |word| word.load(Ordering::Acquire)) {
            UNBORN | DEAD => place.debt(now).unwrap_or((0, false)),
            seen => (seen & TAT_MASK, seen & SHARED != 0),
        }
    }

    /// Takes one admitted request back.
    pub(super) fn give_back(&self, clock: usize, quota: &Quota, now: Ticks, place: Place<'_>) {
        let Some(word) = self.clocks.get(clock) else {
            return;
        };
        let mut seen = born(word, now, place);
        while seen != DEAD && seen & TAT_MASK > now {
            let less = quota.without_one(seen & TAT_MASK) | seen & !TAT_MASK;
            match word.compare_exchange_weak(seen, less, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(UNBORN) => seen = born(word, now, place),
                Err(changed) => seen = changed,
            }
        }
    }

    /// Whether nothing has happened here since `then`: no ban, and no clock ahead of it.
    pub(super) fn is_idle_since(&self, then: Ticks) -> bool {
        let is_past = |word: &AtomicU64| {
            let seen = word.load(Ordering::Relaxed);
            seen == UNBORN || seen & TAT_MASK <= then
        };
        self.made <= then && !self.is_banned(then) && self.clocks.iter().all(is_past)
    }

    /// Ends all clocks, so that no charge is lost with the cell; false, and as before, when one is
    /// ahead of `now`.
    pub(super) fn kill(&self, now: Ticks) -> bool {
        let ended = |word: &AtomicU64| {
            let end = |seen| (seen == UNBORN || seen & TAT_MASK <= now).then_some(DEAD);
            word.fetch_update(Ordering::AcqRel, Ordering::Acquire, end)
                .is_ok()
        };
        let all = self.clocks.iter().all(ended);
        if !all {
            // What was in the past is as good as what the cold lane says: nothing, or what a worker
            // has charged there since.
            for word in &self.clocks {
                let _ = word.compare_exchange(DEAD, UNBORN, Ordering::AcqRel, Ordering::Acquire);
            }
        }
        all
    }
}

/// The clock's word, moved over from the cold lane if nobody has done it yet.
fn born(word: &AtomicU64, now: Ticks, place: Place<'_>) -> u64 {
    match word.load(Ordering::Acquire) {
        UNBORN => {
            let first = match place.seal(now) {
                Some((tat, is_shared)) => tat | CARRIED | if is_shared { SHARED } else { 0 },
                None => 0,
            };
            match word.compare_exchange(UNBORN, first, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => first,
                Err(others) => others,
            }
        }
        seen => seen,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::cold::ColdLane, *};

    /// Two hashes that fall on one slot of the cold lane under two tags.
    const ONE: u64 = 7;
    const OTHER: u64 = 7 | 1 << 60;

    fn quota() -> Quota {
        Quota::new("10/s".parse().unwrap(), 3)
    }

    fn cell() -> ClientCell {
        let client = ClientKey::new([198, 51, 100, 7].into(), 64);
        ClientCell::new(CellKey { client, page: 0 }, 5)
    }

    fn refusal(cell: &ClientCell, now: Ticks, place: Place<'_>) -> bool {
        loop {
            match cell.charge(0, &quota(), now, place) {
                CellCharge::Admitted(_) => {}
                CellCharge::Refused { is_shared, .. } => return is_shared,
                CellCharge::Dead => panic!("a cell in the table"),
            }
        }
    }

    #[test]
    fn a_cell_is_born_with_its_clients_debt_and_no_strangers() {
        let lane = ColdLane::default();
        let (one, other) = (lane.place(ONE), lane.place(OTHER));
        let _ = other.charge(&quota(), 5, true);
        let cell = cell();
        assert_eq!(cell.peek(0, 5, one), (0, false));
        assert_eq!(cell.has_carried(0, 5, one), Some(false));
        assert!(!refusal(&cell, 5, one));
    }

    #[test]
    fn a_debt_that_may_be_a_strangers_blames_nobody_until_it_is_paid() {
        let lane = ColdLane::default();
        let (one, other) = (lane.place(ONE), lane.place(OTHER));
        let _ = other.charge(&quota(), 5, true);
        let _ = one.charge(&quota(), 5, true);
        let cell = cell();
        assert_eq!(cell.has_carried(0, 5, one), Some(true));
        assert!(refusal(&cell, 5, one));
        let paid = 5 + quota().window();
        assert!(!refusal(&cell, paid, one));
    }

    #[test]
    fn what_was_spent_elsewhere_is_a_debt_that_is_carried() {
        let lane = ColdLane::default();
        let place = lane.place(ONE);
        let cell = cell();
        let shared = quota().shared();
        let mut now = 5;
        // Three at once here, and three each on two other nodes: 900 ms until the whole burst is back.
        let admitted = |now| matches!(cell.charge(0, &shared, now, place), CellCharge::Admitted(_));
        assert_eq!((0..9).filter(|_| admitted(now)).count(), 3);
        assert!(cell.move_on(0, &shared, now, place, 6));
        let tenth = quota().window() / 3;
        for _ in 0..6 {
            now += tenth;
            assert!(!admitted(now));
        }
        now += tenth;
        assert!(admitted(now) && !admitted(now));
        // A limit of this node alone has no debts.
        cell.move_on(0, &quota(), now, place, 1_000);
        assert_eq!(cell.peek(0, now, place).0, now + quota().window());
    }

    #[test]
    fn a_cell_that_has_left_takes_no_debt() {
        let lane = ColdLane::default();
        let place = lane.place(ONE);
        let cell = cell();
        assert!(cell.kill(5));
        assert!(!cell.move_on(0, &quota().shared(), 5, place, 1));
    }

    #[test]
    fn what_is_given_back_before_the_birth_is_given_back_after_it() {
        let lane = ColdLane::default();
        let place = lane.place(ONE);
        while !matches!(
            place.charge(&quota(), 5, true),
            super::super::cold::Charged::Refused { .. }
        ) {}
        let cell = cell();
        cell.give_back(0, &quota(), 5, place);
        assert!(!place.give_back(&quota(), 5), "its clock is in the cell");
        assert_eq!(quota().remaining(cell.peek(0, 5, place).0, 5), 1);
    }
}
