//! A log whose disk fails, is full, or does things by halves: it never panics, loses nothing that it
//! acknowledged, and takes appends again when the disk does.

use super::{
    is_long,
    model::{Left, Wrong},
    seeds,
    world::World,
};
use crate::base::{
    disk::sim::{Fault, Plan},
    fuzz::Dice,
};

/// How many operations in a row fail.
const IN_A_ROW: [u64; 3] = [1, 3, 40];

/// Two lives of one log, always the same as long as nothing fails. Returns how many operations there were
/// before the end.
fn two_lives(seed: u64, plan: Option<Plan>) -> u64 {
    let mut world = World::new(seed);
    match lived(&mut world, plan) {
        Ok(operations) => operations,
        Err(wrong) => panic!("seed {seed}, {plan:?}: {wrong}\n{}", world.story()),
    }
}

fn lived(world: &mut World, plan: Option<Plan>) -> Result<u64, Wrong> {
    world.disk.plan(plan);
    open(world, Left::Closed)?;
    for _ in 0..120 {
        world.step()?;
    }
    let left = if world.close()? {
        Left::Closed
    } else {
        Left::Killed
    };
    // The plan goes on.
    let plan = world.disk.plan(None);
    world.stop(left);
    world.disk.plan(plan);
    open(world, left)?;
    for _ in 0..40 {
        world.step()?;
    }
    let operations = world.disk.operations();
    world.disk.plan(None);
    world.recover()?;
    world.stop(Left::PowerCut);
    open(world, Left::PowerCut)?;
    world.recover()?;
    Ok(operations)
}

/// Opens the log, if need be when the disk is well again.
fn open(world: &mut World, left: Left) -> Result<(), Wrong> {
    if world.open(left)? {
        return Ok(());
    }
    world.disk.plan(None);
    match world.open(left)? {
        true => Ok(()),
        false => Err("the log cannot be opened when the disk is well again".to_owned()),
    }
}

/// The failing operations that are tried: all of them in the long form.
fn step() -> usize {
    if is_long() { 1 } else { 53 }
}

#[test]
fn whichever_operation_fails_nothing_is_lost_and_all_goes_on_when_it_does_not() {
    let seed = seeds().start;
    let operations = two_lives(seed, None);
    let mut dice = Dice::seeded(seed);
    let mut tried = 0;
    for fault in Fault::ALL {
        for count in IN_A_ROW {
            let first = dice.below(step()) as u64;
            for from in (first..operations).step_by(step()) {
                two_lives(seed, Some(Plan { from, count, fault }));
                tried += 1;
            }
        }
    }
    assert!(tried > 60, "{tried} of {operations} operations were tried");
}

/// A disk that becomes full at some time, and has room again at another.
fn full_at_times(world: &mut World) -> Result<(), Wrong> {
    open(world, Left::Closed)?;
    for _ in 0..3 {
        for _ in 0..world.dice.below(60) {
            world.step()?;
        }
        let room = world.dice.below(4000) as u64;
        world.disk.set_capacity(world.disk.used() + room);
        for _ in 0..world.dice.below(80) {
            world.step()?;
        }
        let left = match world.dice.below(3) {
            0 => Some(Left::Killed),
            1 => Some(Left::PowerCut),
            _ => None,
        };
        if let Some(left) = left {
            world.stop(left);
            if world.dice.below(2) == 0 {
                world.disk.set_capacity(u64::MAX);
            }
            if !world.open(left)? {
                world.disk.set_capacity(u64::MAX);
                open(world, left)?;
            }
        }
        world.disk.set_capacity(u64::MAX);
        world.recover()?;
    }
    Ok(())
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_nothing_that_was_acknowledged() {
    for seed in seeds().step_by(4) {
        let mut world = World::new(seed);
        if let Err(wrong) = full_at_times(&mut world) {
            panic!("seed {seed}: {wrong}\n{}", world.story());
        }
    }
}
