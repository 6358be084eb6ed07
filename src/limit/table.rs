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

use std::{hash::BuildHasher as _, hint, sync::Arc};

use dashmap::{DashMap, try_result::TryResult};
use foldhash::{SharedSeed, quality::SeedableRandomState};

use super::{
    cell::{CellKey, ClientCell},
    gcra::Ticks,
};
use crate::client::ClientKey;

/// The map's shards. One holds about a thousand of a million clients.
const SHARDS: usize = 1024;

/// How often a worker asks again for a shard that the keeper is writing to: some microseconds.
const SPINS: u32 = 200;

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
    cells: DashMap<CellKey, Arc<ClientCell>, SeedableRandomState>,
    hasher: SeedableRandomState,
}

impl Default for Table {
    fn default() -> Self {
        Self::of(SeedableRandomState::random())
    }
}

impl Table {
    /// A table whose hashes are the same in every process.
    pub(super) fn seeded(seed: u64) -> Self {
        Self::of(SeedableRandomState::with_seed(
            seed,
            SharedSeed::global_fixed(),
        ))
    }

    fn of(hasher: SeedableRandomState) -> Self {
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

    /// A hash of one limit of one client.
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
