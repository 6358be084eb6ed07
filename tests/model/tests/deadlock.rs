//! The harness finds the deadlock that Wardent was built to be free of.
//!
//! Two maps, each with a lock of its own: a request reads one and, holding it, asks the other; the
//! cleanup goes the other way round. It takes one interleaving in thousands, and then everybody waits.

use std::{collections::HashMap, panic, sync::Arc};

use shuttle::{
    Config, FailurePersistence, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
    sync::RwLock,
    thread,
};

#[derive(Debug, Default)]
struct TwoMaps {
    bans: RwLock<HashMap<u8, u32>>,
    counts: RwLock<HashMap<u8, u32>>,
}

impl TwoMaps {
    fn request(&self, client: u8) {
        let bans = self.bans.read().unwrap();
        if !bans.contains_key(&client) {
            *self.counts.write().unwrap().entry(client).or_default() += 1;
        }
    }

    fn cleanup(&self) {
        let mut counts = self.counts.write().unwrap();
        counts.retain(|client, _| !self.bans.write().unwrap().contains_key(client));
    }
}

fn serve() {
    let maps = Arc::new(TwoMaps::default());
    let mut threads: Vec<_> = (0..2)
        .map(|client| {
            let maps = Arc::clone(&maps);
            thread::spawn(move || maps.request(client))
        })
        .collect();
    threads.push(thread::spawn(move || maps.cleanup()));
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

fn found_by(scheduler: impl Scheduler + Send + 'static) -> String {
    let mut config = Config::default();
    config.failure_persistence = FailurePersistence::None;
    let run = panic::AssertUnwindSafe(|| Runner::new(scheduler, config).run(serve));
    let panicked = panic::catch_unwind(run).expect_err("the deadlock must be found");
    let text = panicked.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| panicked.downcast_ref::<&str>().unwrap_or(&"").to_string())
}

#[test]
fn two_maps_in_two_orders_are_found_to_deadlock() {
    for found in [
        found_by(RandomScheduler::new(10_000)),
        found_by(PctScheduler::new(3, 10_000)),
    ] {
        assert!(found.contains("deadlock"), "{found}");
    }
}
