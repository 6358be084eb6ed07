//! What clients spent of limits that count the requests of all nodes, on its way to those.
//!
//! Each worker notes it in a table of its own, of a fixed size: no lock, no allocation, no wait. The table
//! is handed over whole, through two slots: a full one goes, an empty one comes back. Where nobody fetches
//! them, what is older than ten seconds is forgotten: other nodes would hold it against clients for long.

use std::{
    cell::RefCell,
    hash::BuildHasher as _,
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use foldhash::fast::RandomState;

use super::clients::{Clock, Limit};
use crate::client::ClientKey;

/// Clients and limits of one table.
const SLOTS: usize = 4_096;

/// Slots that are looked at for one client; where all are others', its spending is lost, and counted.
const PROBES: usize = 16;

/// Tables on their way, of each worker.
const TABLES: usize = 2;

/// A table is handed over when it is this old, in nanoseconds.
const HANDED_OVER_NS: u64 = 50 * 1_000_000;

/// What is older is not told any more.
pub const TOLD_WITHIN: Duration = Duration::from_secs(10);

const TOLD_WITHIN_NS: u64 = 10 * 1_000_000_000;

/// What one client spent of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// Who.
    pub client: ClientKey,
    /// Of which limit.
    pub clock: Clock,
    /// How many requests.
    pub spent: u32,
}

/// What was spent within some time.
#[derive(Debug)]
pub struct Table {
    slots: Box<[Option<Noted>]>,
    /// Slots that are taken.
    taken: Vec<usize>,
    hasher: RandomState,
    began_ns: u64,
    last_ns: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            slots: vec![None; SLOTS].into(),
            taken: Vec::with_capacity(SLOTS),
            hasher: RandomState::default(),
            began_ns: 0,
            last_ns: 0,
        }
    }
}

impl Table {
    /// Notes one request; false where there is no room for it.
    fn note(&mut self, client: ClientKey, clock: Clock, now_ns: u64) -> bool {
        if self.taken.is_empty() {
            self.began_ns = now_ns;
        }
        self.last_ns = now_ns;
        let hash = usize::try_from(self.hasher.hash_one((client, clock)) >> 32).unwrap_or(0);
        for probe in 0..PROBES {
            let at = (hash + probe) % SLOTS;
            match self.slots.get_mut(at) {
                Some(Some(noted)) if noted.client == client && noted.clock == clock => {
                    noted.spent = noted.spent.saturating_add(1);
                    return true;
                }
                Some(empty @ None) => {
                    *empty = Some(Noted {
                        client,
                        clock,
                        spent: 1,
                    });
                    // There is room: it is as long as the slots.
                    self.taken.push(at);
                    return true;
                }
                Some(Some(_)) | None => {}
            }
        }
        false
    }

    /// Takes all out.
    pub fn drain(&mut self) -> impl Iterator<Item = Noted> {
        let slots = &mut self.slots;
        self.taken
            .drain(..)
            .filter_map(|at| slots.get_mut(at).and_then(Option::take))
    }

    /// When something was noted last, in nanoseconds of the monotonic clock.
    pub fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// How many clients and limits are noted.
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether nothing is noted.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}

/// One worker's tables between it and who fetches them.
#[derive(Debug)]
struct Handover {
    full: ArrayQueue<Box<Table>>,
    empty: ArrayQueue<Box<Table>>,
    /// Requests that were noted nowhere. Written by the worker.
    lost: AtomicU64,
}

/// Where one worker notes what its clients spend. Its own: nobody else writes here.
#[derive(Debug)]
pub struct Spending {
    table: RefCell<Box<Table>>,
    handover: Arc<Handover>,
}

impl Spending {
    /// Notes a request that was admitted by `limits`, of which some count for all nodes.
    #[inline]
    pub fn note(&self, client: ClientKey, limits: &[Limit], now_ns: u64) {
        let mut table = self.table.borrow_mut();
        for limit in limits.iter().filter(|limit| limit.quota.is_shared()) {
            if !table.note(client, limit.clock, now_ns) {
                self.handover.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(table);
        self.tick(now_ns);
    }

    /// Hands over what is old enough, or forgets what nobody fetched.
    pub fn tick(&self, now_ns: u64) {
        let mut table = self.table.borrow_mut();
        let age_ns = now_ns.saturating_sub(table.began_ns);
        if table.is_empty() || age_ns < HANDED_OVER_NS {
            return;
        }
        if let Some(empty) = self.handover.empty.pop() {
            let full = mem::replace(&mut *table, empty);
            // As many tables are there as slots and this one.
            let _ = self.handover.full.push(full);
        } else if age_ns > TOLD_WITHIN_NS {
            let forgotten: u64 = table.drain().map(|noted| u64::from(noted.spent)).sum();
            self.handover.lost.fetch_add(forgotten, Ordering::Relaxed);
        }
    }
}

/// The tables of all workers.
#[derive(Debug, Default)]
pub struct Spendings(Mutex<Vec<Arc<Handover>>>);

impl Spendings {
    /// A place for one more worker. For its beginning.
    pub fn join(&self) -> Spending {
        let handover = Arc::new(Handover {
            full: ArrayQueue::new(TABLES),
            empty: ArrayQueue::new(TABLES),
            lost: AtomicU64::new(0),
        });
        for _ in 0..TABLES {
            // It is new, and has room.
            let _ = handover.empty.push(Box::default());
        }
        self.handovers().push(Arc::clone(&handover));
        Spending {
            table: RefCell::default(),
            handover,
        }
    }

    /// Fetches all that was handed over: `take` empties each table.
    pub fn fetch(&self, mut take: impl FnMut(&mut Table)) {
        for handover in self.handovers().iter() {
            while let Some(mut table) = handover.full.pop() {
                take(&mut table);
                table.drain().for_each(drop);
                // It came from there.
                let _ = handover.empty.push(table);
            }
        }
    }

    /// Requests that were noted nowhere, or forgotten because nobody fetched them.
    pub fn lost(&self) -> u64 {
        let handovers = self.handovers();
        let lost = handovers.iter().map(|own| own.lost.load(Ordering::Relaxed));
        lost.sum()
    }

    /// Locked for the beginning of a worker and for an exchange, by no request.
    fn handovers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Handover>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{ClockIds, Quota};

    const MS: u64 = 1_000_000;

    fn limits() -> [Limit; 2] {
        let mut ids = ClockIds::default();
        let quota = Quota::new("20/s".parse().unwrap(), 40);
        [quota.shared(), quota].map(|quota| Limit {
            quota,
            clock: ids.clock("a", usize::from(quota.is_shared())).unwrap(),
        })
    }

    fn client(n: u32) -> ClientKey {
        ClientKey::new(std::net::Ipv4Addr::from_bits(n).into(), 64)
    }

    fn fetched(spendings: &Spendings) -> Vec<Noted> {
        let mut all = Vec::new();
        spendings.fetch(|table| all.extend(table.drain()));
        all
    }

    #[test]
    fn what_is_noted_is_handed_over_once_and_limits_of_one_node_are_not() {
        let spendings = Spendings::default();
        let (spending, limits) = (spendings.join(), limits());
        for n in 0..30 {
            spending.note(client(n % 3), &limits, MS);
        }
        assert_eq!(fetched(&spendings), []);
        spending.tick(51 * MS);
        let mut noted = fetched(&spendings);
        noted.sort_by_key(|noted| noted.client);
        let clients: Vec<_> = noted.iter().map(|noted| noted.client).collect();
        assert_eq!(clients, [client(0), client(1), client(2)]);
        assert!(noted.iter().all(|noted| noted.spent == 10));
        assert!(noted.iter().all(|noted| noted.clock == limits[0].clock));
        spending.tick(200 * MS);
        assert_eq!(fetched(&spendings), []);
        assert_eq!(spendings.lost(), 0);
    }

    #[test]
    fn what_nobody_fetches_is_forgotten_and_counted() {
        let spendings = Spendings::default();
        let (spending, limits) = (spendings.join(), limits());
        for second in 0..100 {
            spending.note(client(7), &limits, second * 1_000 * MS);
        }
        let told: u64 = fetched(&spendings)
            .iter()
            .map(|noted| u64::from(noted.spent))
            .sum();
        assert!(told < 50, "{told}");
        spending.tick(100_000 * MS);
        let last: u64 = fetched(&spendings)
            .iter()
            .map(|noted| u64::from(noted.spent))
            .sum();
        assert_eq!(told + last + spendings.lost(), 100);
        assert!(spendings.lost() > 50);
    }

    #[test]
    fn more_clients_than_there_is_room_for_are_counted() {
        let spendings = Spendings::default();
        let (spending, limits) = (spendings.join(), limits());
        for n in 0..20_000 {
            spending.note(client(n), &limits, MS);
        }
        spending.tick(100 * MS);
        let noted = fetched(&spendings);
        assert!(noted.len() > SLOTS * 9 / 10, "{}", noted.len());
        assert_eq!(noted.len() as u64 + spendings.lost(), 20_000);
    }
}
