//! How many producers the whole log remembers, in all its partitions.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::Producers;

/// Producers that the log remembers in all its partitions, some 50 MB; for more, who was silent longest is
/// forgotten, wherever that is.
pub const ALL_PRODUCERS_MAX: usize = 100_000;

/// Where there are too many, one in so many is forgotten besides, so that the next does not begin it anew.
const SPARE: usize = 16;

/// Forgets who was silent longest of all, where there are more than `max`. Says how many there are then.
pub(in crate::log) fn fit<'a>(all: impl Iterator<Item = &'a mut Producers>, max: usize) -> usize {
    let mut all: Vec<_> = all.collect();
    let count: usize = all.iter().map(|one| one.len()).sum();
    if count <= max {
        return count;
    }
    let excess = count - max + max / SPARE;
    let mut silent = BinaryHeap::new();
    for (place, one) in all.iter_mut().enumerate() {
        silent.extend(one.longest_silent().map(|since| Reverse((since, place))));
    }
    for _ in 0..excess {
        let Some(Reverse((_, place))) = silent.pop() else {
            break;
        };
        let Some(one) = all.get_mut(place) else {
            continue;
        };
        one.forget_longest();
        silent.extend(one.longest_silent().map(|since| Reverse((since, place))));
    }
    all.iter_mut().for_each(|one| one.shrink());
    all.iter().map(|one| one.len()).sum()
}
