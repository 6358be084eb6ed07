//! What a log promises, against disks that forget, tear and fail.
//!
//! Without more these are short, and always the same. `WARDENT_CRASH_SEEDS=10000` tries as many seeds, and
//! every operation for each fault; `WARDENT_CRASH_SEED` is the first of them, which a failure names.

mod changes;
mod damage;
mod faults;
mod idempotence;
mod model;
mod world;

use model::{Left, Wrong};
use world::World;

/// Seeds where nobody asked for more.
const SEEDS: u64 = 120;

fn of_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> std::ops::Range<u64> {
    let first = of_environment("WARDENT_CRASH_SEED").unwrap_or(1);
    first..first + of_environment("WARDENT_CRASH_SEEDS").unwrap_or(SEEDS)
}

fn is_long() -> bool {
    of_environment("WARDENT_CRASH_SEEDS").is_some()
}

/// Lives of one log: some steps, an end of some kind, and the next life.
fn lives(world: &mut World) -> Result<(), Wrong> {
    let mut left = Left::Closed;
    for _ in 0..1 + world.dice.below(5) {
        opened(world, left)?;
        for _ in 0..world.dice.below(150) {
            world.step()?;
        }
        left = ended(world)?;
    }
    opened(world, left)?;
    world.recover()
}

/// Opens the log; on the way the machine may stop, again and again.
fn opened(world: &mut World, mut left: Left) -> Result<Left, Wrong> {
    for tries in 0.. {
        let stops = tries < 3 && world.dice.below(3) == 0;
        let after = world.dice.below(120) as u64;
        world.disk.stop_after(stops.then_some(after));
        if world.open(left)? {
            return Ok(left);
        }
        if !world.disk.is_gone() {
            return Err("the log cannot be opened".to_owned());
        }
        left = match (left, world.dice.below(2)) {
            (Left::PowerCut, _) | (_, 0) => Left::PowerCut,
            (Left::Closed | Left::Killed, _) => Left::Killed,
        };
        world.stop(left);
    }
    unreachable!("the last try is not stopped")
}

/// Ends a life.
fn ended(world: &mut World) -> Result<Left, Wrong> {
    if world.dice.below(3) == 0 {
        let stops = world.dice.below(2) == 0;
        let after = world.dice.below(60) as u64;
        world.disk.stop_after(stops.then_some(after));
        if world.close()? {
            world.stop(Left::Closed);
            return Ok(Left::Closed);
        }
    } else if world.dice.below(2) == 0 {
        // In the middle of whatever it does.
        world.disk.stop_after(Some(world.dice.below(40) as u64));
        for _ in 0..60 {
            world.step()?;
            if world.disk.is_gone() {
                break;
            }
        }
    }
    let left = match world.dice.below(4) {
        0 => Left::Killed,
        _ => Left::PowerCut,
    };
    world.stop(left);
    Ok(left)
}

#[test]
fn nothing_that_was_acknowledged_is_lost_in_a_crash() {
    for seed in seeds() {
        let mut world = World::new(seed);
        if let Err(wrong) = lives(&mut world) {
            panic!("seed {seed}: {wrong}\n{}", world.story());
        }
    }
}
