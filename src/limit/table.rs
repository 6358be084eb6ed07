//! The one table of clients, and the only file that touches its map.
//!
//! Guarantees: no guard of the map leaves this file, a worker never takes a lock that it would have
//! to wait for, and nobody holds two. The [`Keeper`](super::keeper::Keeper) alone inserts and
//! removes; it holds a shard for one probe, and shards are many, so that a map that grows moves few
//! entries at a time.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the one file that may use the map's methods"
)]

use std::{
    hash::BuildHasher as _,
    hint,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use dashmap::{DashMap, try_result::TryResult};
use foldhash::quality::RandomState;

use super::{
    cold::Place,
    gcra::{Quota, Ticks},
};
use crate::client::ClientKey;

/// Clocks in one cell. A client that uses more limits has more cells.
pub(super) const CLOCKS: u16 = 4;

/// The map's shards. One holds about a thousand of a million clients.
const SHARDS: usize = 1024;

/// How often a worker asks again for a shard that the keeper is writing to: some microseconds.
const SPINS: u32 = 200;

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
///
/// Clocks are written by any worker, with one compare-and-swap; the ban by the keeper alone.
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

/// What a charge to a cell's clock came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CellCharge {
    /// It was admitted; the TAT with it.
    Admitted(Ticks),
    /// It was not; the TAT, and how long until it would be.
    Refused(Ticks, Ticks),
    /// The cell has left the table: look again.
    Dead,
}

impl ClientCell {
    fn new(key: CellKey, made: Ticks) -> Self {
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
            let tat = quota.bounded(seen, now);
            let (next, outcome) = match quota.admit(tat, now) {
                Ok(next) => (next, CellCharge::Admitted(next)),
                Err(wait) => (tat, CellCharge::Refused(tat, wait)),
            };
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

    /// Whether the clock has its TAT from the cold lane already.
    pub(super) fn is_born(&self, clock: usize) -> bool {
        let word = self.clocks.get(clock);
        word.is_some_and(|word| word.load(Ordering::Acquire) < DEAD)
    }

    /// What a clock stands at, without moving it.
    pub(super) fn peek(&self, clock: usize, now: Ticks, place: Place<'_>) -> Ticks {
        let word = self.clocks.get(clock);
        match word.map_or(DEAD, |word| word.load(Ordering::Acquire)) {
            UNBORN | DEAD => place.peek(now).0,
            tat => tat,
        }
    }

    /// Takes one admitted request back.
    pub(super) fn give_back(&self, clock: usize, quota: &Quota) {
        let Some(word) = self.clocks.get(clock) else {
            return;
        };
        let mut seen = word.load(Ordering::Acquire);
        while seen < DEAD {
            let less = quota.without_one(seen);
            match word.compare_exchange_weak(seen, less, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
    }

    /// Whether nothing has happened here since `then`: no ban, and no clock ahead of it.
    pub(super) fn is_idle_since(&self, then: Ticks) -> bool {
        let is_past = |word: &AtomicU64| {
            let tat = word.load(Ordering::Relaxed);
            tat == UNBORN || tat <= then
        };
        self.made <= then && !self.is_banned(then) && self.clocks.iter().all(is_past)
    }

    /// Ends all clocks, so that no charge is lost with the cell; false, and as before, when one is
    /// ahead of `now`.
    fn kill(&self, now: Ticks) -> bool {
        let ended = |word: &AtomicU64| {
            let end = |tat| (tat == UNBORN || tat <= now).then_some(DEAD);
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
            let tat = place.seal(now);
            match word.compare_exchange(UNBORN, tat, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => tat,
                Err(others) => others,
            }
        }
        seen => seen,
    }
}

/// What a look into the table found.
#[derive(Debug)]
pub(super) enum Found {
    /// The client's cell.
    Cell(Arc<ClientCell>),
    /// There is none.
    Unknown,
    /// The keeper was writing next to it, for longer than one looks.
    Contended,
}

/// The map. Read by workers without waiting, written by the keeper.
#[derive(Debug)]
pub(super) struct Table {
    cells: DashMap<CellKey, Arc<ClientCell>, RandomState>,
    hasher: RandomState,
}

impl Default for Table {
    fn default() -> Self {
        let hasher = RandomState::default();
        Self {
            cells: DashMap::with_hasher_and_shard_amount(hasher.clone(), SHARDS),
            hasher,
        }
    }
}

impl Table {
    /// The cell of this key, without ever waiting for the keeper.
    #[inline]
    pub(super) fn find(&self, key: &CellKey) -> Found {
        for _ in 0..SPINS {
            match self.cells.try_get(key) {
                TryResult::Present(cell) => return Found::Cell(Arc::clone(&cell)),
                TryResult::Absent => return Found::Unknown,
                TryResult::Locked => hint::spin_loop(),
            }
        }
        Found::Contended
    }

    /// A hash of one limit of one client, seeded at random when the process starts.
    #[inline]
    pub(super) fn hash(&self, client: &ClientKey, clock: u16) -> u64 {
        self.hasher.hash_one((client, clock))
    }

    /// Adds a cell for `key`, which has none. The keeper alone calls this.
    pub(super) fn insert(&self, key: CellKey, now: Ticks) -> Arc<ClientCell> {
        let cell = Arc::new(ClientCell::new(key, now));
        self.cells.insert(key, Arc::clone(&cell));
        cell
    }

    /// Removes an idle cell; false when it is no longer idle. The keeper alone calls this.
    pub(super) fn remove(&self, key: &CellKey, now: Ticks) -> bool {
        self.cells
            .remove_if(key, |_, cell| !cell.is_banned(now) && cell.kill(now))
            .is_some()
    }
}
