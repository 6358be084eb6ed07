//! Workers and the keeper in all sorts of orders: no limit admits more than its burst, no charge and
//! no ban is lost, and nobody waits for anybody.
//!
//! Time stands still within a scenario, so that nothing is earned while it runs.

use std::{env, net::IpAddr, sync::Arc};

use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    thread,
};
use wardent_model::{
    client::ClientKey,
    limit::{Clients, ClockIds, Keeper, Limit, Quota, ticks},
};

/// Interleavings of each scenario and scheduler, where the environment does not say otherwise.
const SCHEDULES: usize = 20_000;

/// How many orderings of threads PCT must get right to find a bug.
const DEPTH: usize = 4;

const NOW_NS: u64 = 1_000_000;
const HOUR_NS: u64 = 3_600_000_000_000;

/// Runs a scenario under a scheduler that picks at random, and one that keeps priorities and changes
/// them a few times (PCT: Burckhardt et al., ASPLOS 2010).
fn in_all_sorts_of_orders(scenario: fn()) {
    let schedules = env::var("WARDENT_MODEL_SCHEDULES");
    let schedules = schedules.map_or(SCHEDULES, |text| text.parse().unwrap());
    let mut config = Config::default();
    // That orderings weaker than sequential consistency are not told apart is known.
    config.silence_warnings = true;
    Runner::new(RandomScheduler::new(schedules), config.clone()).run(scenario);
    Runner::new(PctScheduler::new(DEPTH, schedules), config).run(scenario);
}

fn ip(who: u8) -> IpAddr {
    [198, 51, 100, who].into()
}

fn client(who: u8) -> ClientKey {
    ClientKey::new(ip(who), 64)
}

/// So many limits of one client, in one cell, each with this burst.
fn limits<const N: usize>(bursts: [u32; N]) -> [Limit; N] {
    let mut ids = ClockIds::default();
    let mut nth = 0;
    bursts.map(|burst| {
        nth += 1;
        Limit {
            quota: Quota::new("1/s".parse().unwrap(), burst),
            clock: ids.clock("test", nth).unwrap(),
        }
    })
}

/// What came of the requests of one client.
#[derive(Debug, Default)]
struct Tally {
    admitted: AtomicU32,
    refused: AtomicU32,
}

impl Tally {
    fn ask(&self, clients: &Clients, who: u8, limits: &[Limit], now_ns: u64) {
        let spent = clients
            .spend(clients.see(client(who)), limits, now_ns)
            .unwrap();
        let count = if spent.admitted {
            &self.admitted
        } else {
            &self.refused
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn admitted(&self) -> u32 {
        self.admitted.load(Ordering::Relaxed)
    }
}

/// A worker that asks so many times.
fn worker(
    clients: &Arc<Clients>,
    tally: &Arc<Tally>,
    who: u8,
    limits: &[Limit],
    now_ns: u64,
    requests: u32,
) -> thread::JoinHandle<()> {
    let (clients, tally, limits) = (Arc::clone(clients), Arc::clone(tally), limits.to_vec());
    thread::spawn(move || {
        for _ in 0..requests {
            tally.ask(&clients, who, &limits, now_ns);
        }
    })
}

/// A keeper that takes so many turns.
fn keeper(mut keeper: Keeper, now_ns: u64, turns: u32) -> thread::JoinHandle<Keeper> {
    thread::spawn(move || {
        for _ in 0..turns {
            keeper.take_sights(now_ns);
            keeper.sweep(now_ns);
        }
        keeper
    })
}

fn join_all<T>(threads: impl IntoIterator<Item = thread::JoinHandle<T>>) -> Vec<T> {
    threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect()
}

/// Exactly the burst, and nothing is left of it. Where the keeper kept somebody from seeing a cell, the
/// cold lane has a burst of its own to give, and a charge may count in both.
fn assert_spent(clients: &Clients, tally: &Tally, who: u8, limit: &Limit, now_ns: u64) {
    let burst = limit.quota.burst();
    if clients.contended() == 0 {
        assert_eq!(tally.admitted(), burst);
        assert_eq!(
            clients
                .look(client(who), &[*limit], ticks(now_ns))
                .remaining,
            0
        );
    } else {
        assert!((1..=2 * burst).contains(&tally.admitted()), "{tally:?}");
    }
}

#[test]
fn a_new_clients_first_burst_is_exact() {
    in_all_sorts_of_orders(|| {
        let keeps = Keeper::new(1);
        let (clients, tally) = (Arc::clone(keeps.clients()), Arc::<Tally>::default());
        let limits = limits([3]);
        let workers = [2, 2, 2].map(|n| worker(&clients, &tally, 1, &limits, NOW_NS, n));
        let keeps = keeper(keeps, NOW_NS, 2);
        join_all(workers);
        join_all([keeps]);
        assert_spent(&clients, &tally, 1, &limits[0], NOW_NS);
    });
}

#[test]
fn a_cell_that_comes_for_another_limit_loses_no_charge() {
    in_all_sorts_of_orders(|| {
        let keeps = Keeper::new(100);
        let (clients, tally) = (Arc::clone(keeps.clients()), Arc::<Tally>::default());
        let limits = limits([2, 3]);
        clients.spend(clients.see(client(1)), &limits[..1], NOW_NS);
        let workers = [2, 2, 2].map(|n| worker(&clients, &tally, 1, &limits[1..], NOW_NS, n));
        let keeps = keeper(keeps, NOW_NS, 1);
        join_all(workers);
        join_all([keeps]);
        assert_spent(&clients, &tally, 1, &limits[1], NOW_NS);
    });
}

#[test]
fn a_cell_that_goes_loses_no_charge() {
    in_all_sorts_of_orders(|| {
        let mut keeps = Keeper::new(1);
        let (clients, tally) = (Arc::clone(keeps.clients()), Arc::<Tally>::default());
        let limits = limits([3, 1]);
        clients.spend(clients.see(client(1)), &limits, NOW_NS);
        keeps.take_sights(NOW_NS);
        clients.spend(clients.see(client(1)), &limits, NOW_NS);
        assert_eq!(clients.cells(), 1);
        let later = NOW_NS + HOUR_NS;
        let workers = [2, 2, 2].map(|n| worker(&clients, &tally, 1, &limits[..1], later, n));
        let keeps = thread::spawn(move || {
            for _ in 0..2 {
                keeps.sweep(later);
                keeps.take_sights(later);
            }
        });
        join_all(workers);
        join_all([keeps]);
        assert_spent(&clients, &tally, 1, &limits[0], later);
    });
}

#[test]
fn what_the_slower_limit_refuses_the_faster_one_gets_back() {
    in_all_sorts_of_orders(|| {
        let keeps = Keeper::new(100);
        let (clients, tally) = (Arc::clone(keeps.clients()), Arc::<Tally>::default());
        let limits = limits([4, 2]);
        let workers = [1, 2, 1].map(|n| worker(&clients, &tally, 1, &limits, NOW_NS, n));
        let keeps = keeper(keeps, NOW_NS, 2);
        join_all(workers);
        join_all([keeps]);
        if clients.contended() == 0 {
            // The faster limit has room for all: none is refused but by the slower one.
            assert_eq!(tally.admitted(), 2);
            let left = clients
                .look(client(1), &limits[..1], ticks(NOW_NS))
                .remaining;
            assert_eq!(left, 2, "a refused request costs nothing");
        }
    });
}

#[test]
fn two_equal_limits_refuse_more_only_by_a_lost_race() {
    in_all_sorts_of_orders(|| {
        let keeps = Keeper::new(100);
        let (clients, tally) = (Arc::clone(keeps.clients()), Arc::<Tally>::default());
        let limits = limits([2, 2]);
        // Each limit alone has one more request to refuse, by somebody who asks for it only.
        let alone = Arc::<Tally>::default();
        let workers = [
            worker(&clients, &tally, 1, &limits, NOW_NS, 2),
            worker(&clients, &tally, 1, &limits, NOW_NS, 1),
            worker(&clients, &alone, 1, &limits[1..], NOW_NS, 1),
        ];
        let keeps = keeper(keeps, NOW_NS, 2);
        join_all(workers);
        join_all([keeps]);
        if clients.contended() == 0 {
            let (both, one) = (tally.admitted(), alone.admitted());
            assert!(both + one <= 2, "{both} and {one}");
            let look = |limit| clients.look(client(1), &[limit], ticks(NOW_NS)).remaining;
            assert_eq!(
                look(limits[0]),
                2 - both,
                "what was given back is there again"
            );
            assert_eq!(look(limits[1]), 2 - both - one);
        }
    });
}

#[test]
fn strangers_on_one_slot_get_no_more_than_their_bursts() {
    in_all_sorts_of_orders(|| {
        let keeps = Keeper::new(1);
        let clients = Arc::clone(keeps.clients());
        let tallies: [Arc<Tally>; 2] = Default::default();
        let limits = limits([2]);
        let workers = [
            worker(&clients, &tallies[0], 1, &limits, NOW_NS, 2),
            worker(&clients, &tallies[0], 1, &limits, NOW_NS, 2),
            worker(&clients, &tallies[1], 2, &limits, NOW_NS, 3),
        ];
        let keeps = keeper(keeps, NOW_NS, 2);
        join_all(workers);
        join_all([keeps]);
        if clients.contended() == 0 {
            for tally in &tallies {
                assert!(tally.admitted() <= 2, "{tallies:?}");
            }
            assert!(
                tallies[0].admitted() + tallies[1].admitted() >= 2,
                "{tallies:?}"
            );
        }
    });
}

#[test]
fn a_ban_is_seen_from_its_beginning_and_outlives_every_sweep() {
    in_all_sorts_of_orders(|| {
        let mut keeps = Keeper::new(1);
        let clients = Arc::clone(keeps.clients());
        let limits = limits([2]);
        let until = ticks(NOW_NS + HOUR_NS);
        let begun = Arc::new(AtomicU64::new(0));
        let workers = [1, 2].map(|_| {
            let (clients, begun) = (Arc::clone(&clients), Arc::clone(&begun));
            thread::spawn(move || {
                for _ in 0..2 {
                    let expected = begun.load(Ordering::Acquire);
                    let contended = clients.contended();
                    let seen = clients.banned_until(&clients.see(client(1)), ip(1));
                    assert!(
                        seen >= expected || clients.contended() > contended,
                        "{seen}"
                    );
                    clients.spend(clients.see(client(1)), &limits, NOW_NS);
                }
            })
        });
        let keeps = thread::spawn(move || {
            keeps.take_sights(NOW_NS);
            keeps.sweep(NOW_NS);
            keeps.ban_until(client(1), until, NOW_NS);
            begun.store(until, Ordering::Release);
            keeps.take_sights(NOW_NS);
            keeps.sweep(NOW_NS + HOUR_NS - 64);
            keeps.sweep(NOW_NS + HOUR_NS - 64);
        });
        join_all(workers);
        join_all([keeps]);
        assert_eq!(clients.banned_until(&clients.see(client(1)), ip(1)), until);
    });
}
