//! The table with the scheduler's lock around one map; it promises what the real one does.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use shuttle::{hint, sync::RwLock};

use super::{
    cell::{CellKey, ClientCell},
    gcra::Ticks,
};
use crate::client::ClientKey;

/// How often a worker asks again for what the keeper is writing to.
const SPINS: u32 = 2;

/// What a look into the table found.
#[derive(Debug)]
pub(super) enum Found {
    /// The client's cell.
    Cell(Arc<ClientCell>),
    /// There is none.
    Unknown,
    /// The keeper was writing, for longer than one looks.
    Contended,
}

/// The map, as one shard.
#[derive(Debug, Default)]
pub(super) struct Table {
    cells: RwLock<HashMap<CellKey, Arc<ClientCell>>>,
}

impl Table {
    /// Its hashes are always the same.
    pub(super) fn seeded(_: u64) -> Self {
        Self::default()
    }

    /// The cell of this key, without ever waiting for the keeper.
    pub(super) fn find(&self, key: &CellKey) -> Found {
        for _ in 0..SPINS {
            if let Ok(cells) = self.cells.try_read() {
                return cells
                    .get(key)
                    .map_or(Found::Unknown, |cell| Found::Cell(Arc::clone(cell)));
            }
            hint::spin_loop();
        }
        Found::Contended
    }

    /// The limit's number picks the slot, so that all clients of one limit meet there; client and
    /// limit make the tag.
    pub(super) fn hash(&self, client: &ClientKey, clock: u16) -> u64 {
        let mut hasher = DefaultHasher::new();
        (client, clock).hash(&mut hasher);
        hasher.finish() >> 53 << 53 | u64::from(clock)
    }

    /// Adds a cell for `key`, which has none. The keeper alone calls this.
    pub(super) fn insert(&self, key: CellKey, now: Ticks) -> Arc<ClientCell> {
        let cell = Arc::new(ClientCell::new(key, now));
        let before = self.cells.write().unwrap().insert(key, Arc::clone(&cell));
        assert!(before.is_none(), "{key:?} has two cells");
        cell
    }

    /// Removes an idle cell; false when it is no longer idle. The keeper alone calls this.
    pub(super) fn remove(&self, key: &CellKey, now: Ticks) -> bool {
        let mut cells = self.cells.write().unwrap();
        let is_idle = cells
            .get(key)
            .is_some_and(|cell| !cell.is_banned(now) && cell.kill(now));
        if is_idle {
            cells.remove(key);
        }
        is_idle
    }
}
