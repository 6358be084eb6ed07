//! The one writer of the table of clients.

use std::sync::Arc;

use super::{
    cell::{CellKey, ClientCell},
    clients::{Clients, Limit},
    gcra::{Ticks, ticks},
    networks::BannedNetworks,
    sync::Ordering,
    table::Found,
};
use crate::client::ClientKey;

/// Cells looked at in one go.
const SLICE: usize = 1024;

/// First sights taken in one go.
const SIGHTS: usize = 4096;

/// A client that was quiet for so long gives its cell back.
const QUIET: Ticks = ticks(60 * 1_000_000_000);

/// Makes cells for new clients, takes those of quiet ones back, and sets the ends of bans.
///
/// There is one for a [`Clients`], and it is moved, never shared: the type is the proof that the
/// table has one writer.
#[derive(Debug)]
pub struct Keeper {
    clients: Arc<Clients>,
    /// All cells, in no order; a sweep goes round.
    cells: Vec<Arc<ClientCell>>,
    next: usize,
    cells_max: usize,
    /// Cells that a ban pins, or did when they were last looked at. They have a bound of their own,
    /// so that many bans leave other clients their room.
    pinned: usize,
}

impl Keeper {
    /// The keeper of a new table that holds `clients_max` cells, and those of banned clients.
    pub fn new(clients_max: usize) -> Self {
        Self::of(Clients::default(), clients_max)
    }

    /// The keeper of this table, which is new, and has room as with [`Keeper::new`].
    pub fn of(clients: Clients, clients_max: usize) -> Self {
        Self {
            clients: Arc::new(clients),
            cells: Vec::new(),
            next: 0,
            cells_max: clients_max,
            pinned: 0,
        }
    }

    /// The table, for the workers.
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// Makes cells for clients that were seen for the first time; says how many sights it took.
    pub fn take_sights(&mut self, now_ns: u64) -> usize {
        let mut taken = 0;
        while taken < SIGHTS
            && let Some(key) = self.clients.sights.pop()
        {
            taken += 1;
            if self.unpinned() < self.cells_max && matches!(self.find(&key), Found::Unknown) {
                self.insert(key, ticks(now_ns));
            }
        }
        if taken > 0 {
            self.tell_size();
        }
        taken
    }

    /// Bans a client until a moment, which may be one that is past. A banned client has a cell even
    /// when the table is full; how many are banned is the caller's to bound.
    pub fn ban_until(&mut self, client: ClientKey, until: Ticks, now_ns: u64) {
        let key = CellKey { client, page: 0 };
        let cell = match self.find(&key) {
            Found::Cell(cell) => cell,
            // The keeper does not contend with itself.
            Found::Unknown | Found::Contended => self.insert(key, ticks(now_ns)),
        };
        self.pinned -= usize::from(cell.banned_until() > 0);
        let until = if until > ticks(now_ns) { until } else { 0 };
        self.pinned += usize::from(until > 0);
        cell.ban_until(until);
        self.tell_size();
    }

    /// Moves a limit's clock on by what a client spent of it elsewhere; where it has no cell it gets one, or,
    /// when the table is full, the cold lane's clock is moved.
    pub fn spent_elsewhere(&mut self, client: ClientKey, limit: &Limit, spent: u32, now_ns: u64) {
        let now = ticks(now_ns);
        let key = limit.clock.cell_of(client);
        let clients = Arc::clone(&self.clients);
        let place = clients.place(client, limit.clock);
        let cell = match self.find(&key) {
            Found::Cell(cell) => Some(cell),
            Found::Unknown | Found::Contended if self.unpinned() < self.cells_max => {
                let cell = self.insert(key, now);
                self.tell_size();
                Some(cell)
            }
            Found::Unknown | Found::Contended => None,
        };
        // The keeper is the one who takes cells out: this one is in the table.
        match cell {
            Some(cell) => {
                cell.move_on(limit.clock.in_cell(), &limit.quota, now, place, spent);
            }
            None => place.move_on(&limit.quota, now, spent),
        }
    }

    /// Replaces the banned networks.
    pub fn ban_networks(&mut self, networks: BannedNetworks) {
        self.clients.networks.store(Arc::new(networks));
    }

    /// Looks at the next cells of the round and takes back those that hold nothing; says how many.
    ///
    /// A cell is kept for a minute after its last debt is paid; in a table that is nearly full, no
    /// longer than that.
    pub fn sweep(&mut self, now_ns: u64) -> usize {
        let now = ticks(now_ns);
        let is_scarce = self.unpinned() >= self.cells_max - self.cells_max / 8;
        let idle_since = if is_scarce {
            now
        } else {
            now.saturating_sub(QUIET)
        };
        let mut removed = 0;
        for _ in 0..SLICE.min(self.cells.len()) {
            if self.next >= self.cells.len() {
                self.next = 0;
            }
            let Some(cell) = self.cells.get(self.next) else {
                break;
            };
            if cell.banned_until() > 0 && !cell.is_banned(now) {
                cell.ban_until(0);
                self.pinned -= 1;
            }
            if cell.is_idle_since(idle_since) && self.clients.table.remove(&cell.key, now) {
                self.cells.swap_remove(self.next);
                removed += 1;
            } else {
                self.next += 1;
            }
        }
        self.tell_size();
        removed
    }

    fn unpinned(&self) -> usize {
        self.cells.len() - self.pinned
    }

    fn find(&self, key: &CellKey) -> Found {
        self.clients.table.find(key)
    }

    fn insert(&mut self, key: CellKey, now: Ticks) -> Arc<ClientCell> {
        let cell = self.clients.table.insert(key, now);
        self.cells.push(Arc::clone(&cell));
        cell
    }

    fn tell_size(&self) {
        let cells = self.cells.len() as u64;
        self.clients.cells.store(cells, Ordering::Relaxed);
        let is_full = self.unpinned() >= self.cells_max;
        self.clients.is_full.store(is_full, Ordering::Relaxed);
    }
}
