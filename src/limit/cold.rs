//! The cold lane: the clocks of those who have no cell, in an array of fixed size.
//!
//! A new client's very first burst is limited here, and so is everybody for whom the table has no
//! room: memory stays bounded, and nobody waits. A slot is picked by a hash of client and limit. Two
//! that fall on one slot share its clock, so it may refuse too early but never admits too much; the
//! slot says that it is shared, and a refusal by a shared clock blames nobody.
//!
//! One slot is one word, so that a charge is one compare-and-swap:
//!
//! | bits | hold |
//! | --- | --- |
//! | 63 | `MOVED`: the clock has gone into its client's cell |
//! | 53–62 | the tag of who charged it, 0 when several did |
//! | 0–52 | the TAT in ticks of 64 ns, enough for 18 years after the start |

use super::{
    gcra::{Quota, Ticks},
    sync::{AtomicU64, Ordering, SLOTS},
};

const TAT_BITS: u32 = 53;
const TAT_MASK: u64 = (1 << TAT_BITS) - 1;
const MOVED: u64 = 1 << 63;
const TAG_MAX: u64 = (MOVED >> TAT_BITS) - 1;
const SHARED: u64 = 0;

/// Clocks for whoever has no cell. Written by any worker, one word at a time.
#[derive(Debug)]
pub struct ColdLane {
    slots: Box<[AtomicU64]>,
}

/// The place of one client's one limit in the lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    slot: &'a AtomicU64,
    tag: u64,
}

/// What became of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charged {
    /// It was admitted.
    Admitted {
        /// The TAT with it.
        tat: Ticks,
        /// Whether somebody else charges this clock as well, or nobody did before.
        by_claim: bool,
        /// Whether the clock had gone into a cell before, so that this charge is in none.
        is_late: bool,
    },
    /// It was not.
    Refused {
        /// The TAT as it stands.
        tat: Ticks,
        /// How long until it would be admitted, in ticks.
        wait: Ticks,
        /// Whether somebody else charges this clock as well.
        is_shared: bool,
    },
    /// The clock is in a cell by now.
    Moved,
}

/// What a word says.
#[derive(Debug, Clone, Copy)]
struct Word {
    moved: bool,
    tag: u64,
    tat: Ticks,
}

impl Word {
    fn read(bits: u64) -> Self {
        Self {
            moved: bits & MOVED != 0,
            tag: (bits & !MOVED) >> TAT_BITS,
            tat: bits & TAT_MASK,
        }
    }

    fn bits(self) -> u64 {
        let moved = if self.moved { MOVED } else { 0 };
        moved | self.tag << TAT_BITS | self.tat.min(TAT_MASK)
    }
}

impl Default for ColdLane {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl ColdLane {
    /// The place that belongs to this hash of client and limit.
    #[expect(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "the index is reduced to the array's length"
    )]
    pub(super) fn place(&self, hash: u64) -> Place<'_> {
        Place {
            slot: &self.slots[hash as usize % SLOTS],
            tag: (hash >> TAT_BITS) % TAG_MAX + 1,
        }
    }
}

impl Place<'_> {
    /// Charges one request. `heeds_moved` is false for whoever knows that its clock is in no cell it
    /// could reach.
    pub(super) fn charge(self, quota: &Quota, now: Ticks, heeds_moved: bool) -> Charged {
        let mut seen = self.slot.load(Ordering::Acquire);
        loop {
            let word = Word::read(seen);
            let is_live = word.tat > now;
            let is_own = word.tag == self.tag;
            if is_live && heeds_moved && word.moved && (is_own || word.tag == SHARED) {
                return Charged::Moved;
            }
            let tat = match (is_live, is_own) {
                (false, _) => 0,
                // The tag holds for one limit of one client: its debt may be lowered to its bound.
                (true, true) => quota.bounded(word.tat, now),
                (true, false) => word.tat,
            };
            let (next, outcome) = match quota.admit(tat, now) {
                Ok(next) => (
                    next,
                    Charged::Admitted {
                        tat: next,
                        by_claim: !is_live || !is_own,
                        is_late: is_live && word.moved,
                    },
                ),
                Err(wait) => (
                    tat,
                    Charged::Refused {
                        tat,
                        wait,
                        is_shared: !is_own,
                    },
                ),
            };
            let changes =
                next != word.tat && (is_live || matches!(outcome, Charged::Admitted { .. }));
            if !changes {
                return outcome;
            }
            let charged = Word {
                moved: is_live && word.moved,
                tag: if is_live && !is_own { SHARED } else { self.tag },
                tat: next,
            };
            // AcqRel: pairs with the owner's `seal`, so that a charge is either in what it takes
            // along, or sees the mark.
            match self.slot.compare_exchange_weak(
                seen,
                charged.bits(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return outcome,
                Err(changed) => seen = changed,
            }
        }
    }

    /// Moves the clock on by what this client spent elsewhere.
    pub(super) fn move_on(self, quota: &Quota, now: Ticks, spent: u32) {
        let mut seen = self.slot.load(Ordering::Acquire);
        loop {
            let word = Word::read(seen);
            let is_live = word.tat > now;
            let is_own = word.tag == self.tag;
            // Another client's debt is not lowered to this one's bound.
            let tat = quota.after(word.tat, now, spent).max(word.tat);
            let next = Word {
                moved: is_live && word.moved,
                tag: if is_live && !is_own { SHARED } else { self.tag },
                tat,
            };
            match self.slot.compare_exchange_weak(
                seen,
                next.bits(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
    }

    /// What the clock stands at, and whether it is shared; nothing is charged.
    pub(super) fn peek(self, now: Ticks) -> (Ticks, bool) {
        let word = Word::read(self.slot.load(Ordering::Acquire));
        if word.tat <= now {
            return (0, false);
        }
        (word.tat, word.tag != self.tag)
    }

    /// Takes one admitted request back; false when it is in a cell by now.
    pub(super) fn give_back(self, quota: &Quota, now: Ticks) -> bool {
        let mut seen = self.slot.load(Ordering::Acquire);
        loop {
            let word = Word::read(seen);
            if !self.is_mine(word, now) {
                // Time has paid it back.
                return true;
            }
            if word.moved {
                return false;
            }
            let without = Word {
                tat: quota.without_one(word.tat),
                ..word
            };
            match self.slot.compare_exchange_weak(
                seen,
                without.bits(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(changed) => seen = changed,
            }
        }
    }

    /// What this client owes here, and whether somebody else's debt may be in it.
    pub(super) fn debt(self, now: Ticks) -> Option<(Ticks, bool)> {
        let word = Word::read(self.slot.load(Ordering::Acquire));
        self.is_mine(word, now)
            .then_some((word.tat, word.tag == SHARED))
    }

    /// Whether the clock has been moved into a cell, and none has charged it anew since.
    pub(super) fn has_moved(self, now: Ticks) -> bool {
        let word = Word::read(self.slot.load(Ordering::Acquire));
        word.moved && self.is_mine(word, now)
    }

    /// Marks the clock as moved into a cell, and says what it stood at, and whether somebody else's
    /// debt may be in it; none when this client has not charged it.
    pub(super) fn seal(self, now: Ticks) -> Option<(Ticks, bool)> {
        let mut seen = self.slot.load(Ordering::Acquire);
        loop {
            let word = Word::read(seen);
            if !self.is_mine(word, now) {
                return None;
            }
            let sealed = Word {
                moved: true,
                ..word
            };
            match self.slot.compare_exchange_weak(
                seen,
                sealed.bits(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some((word.tat, word.tag == SHARED)),
                Err(changed) => seen = changed,
            }
        }
    }

    /// Whether what this word says may be this client's debt.
    fn is_mine(self, word: Word, now: Ticks) -> bool {
        word.tat > now && (word.tag == self.tag || word.tag == SHARED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota() -> Quota {
        Quota::new("10/s".parse().unwrap(), 3)
    }

    fn admitted(charged: Charged) -> bool {
        matches!(charged, Charged::Admitted { .. })
    }

    /// Two hashes that fall on one slot under two tags.
    const ONE: u64 = 7;
    const OTHER: u64 = 7 | 1 << 60;

    #[test]
    fn a_new_client_gets_its_burst_and_no_more() {
        let lane = ColdLane::default();
        let place = lane.place(ONE);
        let taken = (0..10).filter(|_| admitted(place.charge(&quota(), 5, true)));
        assert_eq!(taken.count(), 3);
    }

    #[test]
    fn what_was_spent_elsewhere_counts_before_there_is_a_cell() {
        let lane = ColdLane::default();
        let place = lane.place(ONE);
        let shared = quota().shared();
        place.move_on(&shared, 5, 2);
        assert!(admitted(place.charge(&shared, 5, true)));
        assert!(!admitted(place.charge(&shared, 5, true)));
        // It is the client's, and so are its refusals.
        let refused = place.charge(&shared, 5, true);
        assert!(matches!(
            refused,
            Charged::Refused {
                is_shared: false,
                ..
            }
        ));
        lane.place(OTHER).move_on(&shared, 5, 1);
        let refused = place.charge(&shared, 5, true);
        assert!(matches!(
            refused,
            Charged::Refused {
                is_shared: true,
                ..
            }
        ));
    }

    #[test]
    fn two_on_one_slot_share_its_clock_and_neither_is_blamed() {
        let lane = ColdLane::default();
        let (one, other) = (lane.place(ONE), lane.place(OTHER));
        assert!(admitted(one.charge(&quota(), 5, true)));
        assert!(admitted(other.charge(&quota(), 5, true)));
        assert!(admitted(one.charge(&quota(), 5, true)));
        for place in [one, other] {
            let refused = place.charge(&quota(), 5, true);
            assert!(
                matches!(
                    refused,
                    Charged::Refused {
                        is_shared: true,
                        ..
                    }
                ),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn a_clock_in_the_past_is_anybodys() {
        let lane = ColdLane::default();
        let (one, other) = (lane.place(ONE), lane.place(OTHER));
        while admitted(one.charge(&quota(), 5, true)) {}
        let later = 5 + quota().window() + 1;
        assert!(matches!(
            other.charge(&quota(), later, true),
            Charged::Admitted { by_claim: true, .. }
        ));
        while admitted(other.charge(&quota(), later, true)) {}
        let refused = other.charge(&quota(), later, true);
        assert!(matches!(
            refused,
            Charged::Refused {
                is_shared: false,
                ..
            }
        ));
    }

    #[test]
    fn what_has_moved_is_charged_no_more_while_it_lasts() {
        let lane = ColdLane::default();
        let place = lane.place(ONE);
        let Charged::Admitted { tat, .. } = place.charge(&quota(), 5, true) else {
            panic!("the first is admitted");
        };
        assert_eq!(place.seal(5), Some((tat, false)));
        assert_eq!(place.charge(&quota(), 5, true), Charged::Moved);
        assert!(admitted(place.charge(&quota(), tat + 1, true)));
    }

    #[test]
    fn a_strangers_clock_is_not_taken_along() {
        let lane = ColdLane::default();
        let _ = lane.place(OTHER).charge(&quota(), 5, true);
        assert_eq!(lane.place(ONE).seal(5), None);
    }

    #[test]
    fn what_is_given_back_can_be_spent() {
        let lane = ColdLane::default();
        let place = lane.place(ONE);
        while admitted(place.charge(&quota(), 5, true)) {}
        assert!(place.give_back(&quota(), 5));
        assert!(admitted(place.charge(&quota(), 5, true)));
        assert!(!admitted(place.charge(&quota(), 5, true)));
    }
}
