//! What the workers see of all clients: who is banned, and who may ask once more.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;

use super::{
    cell::{CLOCKS, CellCharge, CellKey, ClientCell},
    cold::{Charged, ColdLane, Place},
    gcra::{Quota, Ticks, ticks},
    networks::BannedNetworks,
    sync::{AtomicBool, AtomicU64, Ordering},
    table::{Found, Table},
};
use crate::client::ClientKey;

/// First sights that may wait for the keeper; more are counted and dropped.
const SIGHTS_MAX: usize = 16 * 1024;

/// How often a request looks again because its client's cell has just come or gone.
const LOOKS_MAX: u32 = 4;

/// One limit of a route, and the place of its clock in every client's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How often.
    pub quota: Quota,
    /// Which clock.
    pub clock: Clock,
}

/// The place of one limit's clock in every client's cells, the same as long as the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Clock(u16);

impl Clock {
    pub(super) fn cell_of(self, client: ClientKey) -> CellKey {
        CellKey {
            client,
            page: self.0 / CLOCKS,
        }
    }

    pub(super) fn in_cell(self) -> usize {
        usize::from(self.0 % CLOCKS)
    }
}

/// Gives each limit its clock, by name, so that limits survive a reload. Belongs to the reloader.
#[derive(Debug, Default)]
pub struct ClockIds {
    names: Vec<(String, usize)>,
}

impl ClockIds {
    /// The clock of the `nth` limit of `route`; none when 65,536 others have had one.
    pub fn clock(&mut self, route: &str, nth: usize) -> Option<Clock> {
        let same = |(name, of): &(String, usize)| name == route && *of == nth;
        let known = self.names.iter().position(same);
        let clock = u16::try_from(known.unwrap_or(self.names.len())).ok()?;
        if known.is_none() {
            self.names.push((route.to_owned(), nth));
        }
        Some(Clock(clock))
    }
}

/// What became of a request at its route's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Whether it may pass.
    pub admitted: bool,
    /// Which of the limits is the tightest now.
    pub tightest: usize,
    /// What the tightest would still admit at once.
    pub remaining: u32,
    /// Until the tightest has its whole burst again, in ticks.
    pub full_in: Ticks,
    /// Until it may pass, in ticks; zero when it may.
    pub wait: Ticks,
    /// Whether others charge the clock that refused it, so that nobody is to blame.
    pub is_shared: bool,
}

/// Where a clock was charged.
#[derive(Debug)]
enum Lane<'a> {
    Cell(Arc<ClientCell>),
    Cold(Place<'a>),
}

/// One clock after a charge.
#[derive(Debug)]
struct Charge<'a> {
    lane: Lane<'a>,
    tat: Ticks,
    /// Until it would be admitted, in ticks; none when it is.
    wait: Option<Ticks>,
    is_shared: bool,
}

/// All clients. Workers read it and charge clocks; the [`Keeper`](super::keeper::Keeper) does the rest.
#[derive(Debug)]
pub struct Clients {
    pub(super) table: Table,
    cold: ColdLane,
    pub(super) networks: ArcSwap<BannedNetworks>,
    pub(super) sights: ArrayQueue<CellKey>,
    /// Written by the keeper: the table takes no more cells.
    pub(super) is_full: AtomicBool,
    /// Written by the keeper: cells in the table.
    pub(super) cells: AtomicU64,
    sights_dropped: AtomicU64,
    contended: AtomicU64,
}

impl Default for Clients {
    fn default() -> Self {
        Self::of(Table::default())
    }
}

impl Clients {
    /// Clients that meet in the cold lane as they do in every process with this seed. For traffic that
    /// is over: who still asks could choose whom to meet.
    pub fn seeded(seed: u64) -> Self {
        Self::of(Table::seeded(seed))
    }

    fn of(table: Table) -> Self {
        Self {
            table,
            cold: ColdLane::default(),
            networks: ArcSwap::default(),
            sights: ArrayQueue::new(SIGHTS_MAX),
            is_full: AtomicBool::new(false),
            cells: AtomicU64::new(0),
            sights_dropped: AtomicU64::new(0),
            contended: AtomicU64::new(0),
        }
    }
}

/// One look at a client's first cell, for all that one request asks of it.
#[derive(Debug)]
pub struct Sighting {
    client: ClientKey,
    found: Found,
}

impl Sighting {
    /// Whose cell was looked for.
    pub fn client(&self) -> ClientKey {
        self.client
    }
}

impl Clients {
    /// Looks for a client's first cell.
    #[inline]
    pub fn see(&self, client: ClientKey) -> Sighting {
        let found = self.find(&CellKey { client, page: 0 });
        Sighting { client, found }
    }

    /// When the ban of a client ends that was looked for a moment ago, in ticks; a moment that is past
    /// for none.
    ///
    /// Fails open: a cell that the keeper keeps from being read for microseconds counts as not
    /// banned, and is counted in [`Clients::contended`].
    pub fn banned_until(&self, seen: &Sighting, ip: IpAddr) -> Ticks {
        let own = match &seen.found {
            Found::Cell(cell) => cell.banned_until(),
            Found::Unknown | Found::Contended => 0,
        };
        own.max(self.networks.load().banned_until(ip))
    }

    /// Charges one request of a client to all of `limits`, or to none of them. None when there are no
    /// limits. Its cell may have come or gone since it was looked for: that is seen, and looked for
    /// again.
    pub fn spend(&self, seen: Sighting, limits: &[Limit], now_ns: u64) -> Option<Spent> {
        let now = ticks(now_ns);
        let client = seen.client;
        match limits {
            [] => None,
            [only] => {
                let mut spent = Spent::default();
                // A look that saw nothing is worth another: the keeper is through by now.
                let is_of_use =
                    only.clock.cell_of(client).page == 0 && !matches!(seen.found, Found::Contended);
                let found = is_of_use.then_some(seen.found);
                spent.add(0, only, &self.charge(client, only, now, found), now);
                Some(spent)
            }
            several => {
                let mut spent = self.look(client, several, now);
                if spent.admitted {
                    spent = Spent::default();
                    self.charge_all(client, several, 0, now, &mut spent);
                }
                Some(spent)
            }
        }
    }

    /// What [`Clients::spend`] would say now, without charging anything.
    pub fn look(&self, client: ClientKey, limits: &[Limit], now: Ticks) -> Spent {
        let mut spent = Spent::default();
        for (nth, limit) in limits.iter().enumerate() {
            let place = self.place(client, limit.clock);
            let (tat, is_shared) = match self.table.find(&limit.clock.cell_of(client)) {
                Found::Cell(cell) => cell.peek(limit.clock.in_cell(), now, place),
                Found::Unknown | Found::Contended => place.peek(now),
            };
            let wait = limit.quota.admit(limit.quota.bounded(tat, now), now).err();
            let charge = Charge {
                lane: Lane::Cold(place),
                tat,
                wait,
                is_shared,
            };
            spent.add(nth, limit, &charge, now);
        }
        spent
    }

    /// Whether somebody new waits for a cell.
    pub fn has_sights(&self) -> bool {
        !self.sights.is_empty()
    }

    /// Cells in the table.
    pub fn cells(&self) -> u64 {
        self.cells.load(Ordering::Relaxed)
    }

    /// Whether new clients stay in the cold lane because the table is full.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// First sights that found no room in the queue.
    pub fn sights_dropped(&self) -> u64 {
        self.sights_dropped.load(Ordering::Relaxed)
    }

    /// Looks that the keeper's writing kept from seeing a cell.
    pub fn contended(&self) -> u64 {
        self.contended.load(Ordering::Relaxed)
    }

    /// Charges the limits one after the other, and gives all back when one of them refuses: another
    /// request was faster at that one. Says whether all admitted.
    fn charge_all(
        &self,
        client: ClientKey,
        limits: &[Limit],
        nth: usize,
        now: Ticks,
        spent: &mut Spent,
    ) -> bool {
        let Some((limit, rest)) = limits.split_first() else {
            return true;
        };
        let charge = self.charge(client, limit, now, None);
        spent.add(nth, limit, &charge, now);
        if charge.wait.is_some() {
            return false;
        }
        let is_admitted = self.charge_all(client, rest, nth + 1, now, spent);
        if !is_admitted {
            self.give_back(client, limit, now, &charge.lane);
        }
        is_admitted
    }

    fn give_back(&self, client: ClientKey, limit: &Limit, now: Ticks, lane: &Lane<'_>) {
        let place = self.place(client, limit.clock);
        let give_to = |cell: &ClientCell| {
            cell.give_back(limit.clock.in_cell(), &limit.quota, now, place);
        };
        match lane {
            Lane::Cell(cell) => give_to(cell),
            Lane::Cold(place) => {
                if !place.give_back(&limit.quota, now)
                    && let Found::Cell(cell) = self.table.find(&limit.clock.cell_of(client))
                {
                    give_to(&cell);
                }
            }
        }
    }

    pub(super) fn place(&self, client: ClientKey, clock: Clock) -> Place<'_> {
        self.cold.place(self.table.hash(&client, clock.0))
    }

    /// Charges one clock, wherever it stands; `found` is an earlier look for its cell.
    fn charge(
        &self,
        client: ClientKey,
        limit: &Limit,
        now: Ticks,
        mut found: Option<Found>,
    ) -> Charge<'_> {
        let key = limit.clock.cell_of(client);
        let place = self.place(client, limit.clock);
        for _ in 0..LOOKS_MAX {
            match found.take().unwrap_or_else(|| self.find(&key)) {
                Found::Cell(cell) => {
                    if let Some(charge) = charge_cell(cell, limit, now, place) {
                        return charge;
                    }
                }
                Found::Unknown => {
                    let charged = place.charge(&limit.quota, now, true);
                    if charged != Charged::Moved {
                        return self.settle(key, limit, now, place, charged);
                    }
                }
                Found::Contended => break,
            }
        }
        let charged = place.charge(&limit.quota, now, false);
        self.settle(key, limit, now, place, charged)
    }

    /// Looks again after a charge in the cold lane: whose cell came between the first look and the
    /// charge has to be charged there, unless its clock was born after the charge, and so with it.
    fn settle<'a>(
        &'a self,
        key: CellKey,
        limit: &Limit,
        now: Ticks,
        place: Place<'a>,
        charged: Charged,
    ) -> Charge<'a> {
        let cold = Charge::cold(place, charged);
        let Charged::Admitted {
            by_claim, is_late, ..
        } = charged
        else {
            self.tell_sight(key);
            return cold;
        };
        match self.find(&key) {
            Found::Cell(cell) => {
                let clock = limit.clock.in_cell();
                // A birth before this charge either marked the clock or carried nothing.
                let is_born_with_it = !is_late
                    && cell.has_carried(clock, now, place) == Some(true)
                    && place.has_moved(now);
                if is_born_with_it {
                    return Charge {
                        lane: Lane::Cell(cell),
                        ..cold
                    };
                }
                let Some(charge) = charge_cell(cell, limit, now, place) else {
                    return cold;
                };
                place.give_back(&limit.quota, now);
                return charge;
            }
            Found::Unknown => {
                // After the charge: the cell is born with it.
                if by_claim {
                    self.tell_sight(key);
                }
            }
            Found::Contended => {}
        }
        cold
    }

    fn tell_sight(&self, key: CellKey) {
        if !self.is_full() && self.sights.push(key).is_err() {
            self.sights_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A look for a cell; one that the keeper's writing outlasted is counted.
    #[inline]
    fn find(&self, key: &CellKey) -> Found {
        let found = self.table.find(key);
        if matches!(found, Found::Contended) {
            self.contended.fetch_add(1, Ordering::Relaxed);
        }
        found
    }
}

/// Charges a clock in a cell; none when the cell has left the table.
fn charge_cell<'a>(
    cell: Arc<ClientCell>,
    limit: &Limit,
    now: Ticks,
    place: Place<'_>,
) -> Option<Charge<'a>> {
    let clock = limit.clock.in_cell();
    let (tat, wait, is_shared) = match cell.charge(clock, &limit.quota, now, place) {
        CellCharge::Admitted(tat) => (tat, None, false),
        CellCharge::Refused {
            tat,
            wait,
            is_shared,
        } => (tat, Some(wait), is_shared),
        CellCharge::Dead => return None,
    };
    Some(Charge {
        lane: Lane::Cell(cell),
        tat,
        wait,
        is_shared,
    })
}

impl<'a> Charge<'a> {
    fn cold(place: Place<'a>, charged: Charged) -> Self {
        let (tat, wait, is_shared) = match charged {
            Charged::Admitted { tat, .. } => (tat, None, false),
            Charged::Refused {
                tat,
                wait,
                is_shared,
            } => (tat, Some(wait), is_shared),
            // Only told to those who heed it.
            Charged::Moved => (0, None, true),
        };
        Self {
            lane: Lane::Cold(place),
            tat,
            wait,
            is_shared,
        }
    }
}

impl Default for Spent {
    /// Of no limits.
    fn default() -> Self {
        Self {
            admitted: true,
            tightest: 0,
            remaining: u32::MAX,
            full_in: 0,
            wait: 0,
            is_shared: false,
        }
    }
}

impl Spent {
    /// Adds what became of the charge to the `nth` limit.
    fn add(&mut self, nth: usize, limit: &Limit, charge: &Charge<'_>, now: Ticks) {
        let remaining = match charge.wait {
            Some(_) => 0,
            None => limit.quota.remaining(charge.tat, now),
        };
        if remaining < self.remaining {
            self.tightest = nth;
            self.remaining = remaining;
            self.full_in = limit.quota.ahead(charge.tat, now);
        }
        if let Some(wait) = charge.wait {
            self.admitted = false;
            self.wait = self.wait.max(wait);
            self.is_shared |= charge.is_shared;
        }
    }
}
