//! Which batches of usage have been counted, so that none counts twice, in whatever order they come.

use std::collections::HashMap;

use crate::{base::node::NodeName, event::exchange::Number};

/// Runs of nodes that are remembered: those heard of last.
const RUNS_MAX: usize = 256;

/// Batches that a window holds: 6.4 s at ten a second.
const WINDOW: u32 = u64::BITS;

/// What has been counted of each node.
#[derive(Debug, Default)]
pub(super) struct Windows {
    runs: HashMap<(NodeName, u64), Window>,
    /// Counts what was counted, for whose turn it is to be forgotten.
    turns: u64,
}

/// What has been counted of one run.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// The highest number that was counted.
    last: u64,
    /// The lowest bit is the last one's, the next that of the one before.
    counted: u64,
    turn: u64,
}

impl Windows {
    /// Whether this batch has not been counted, and is not too old to tell.
    pub(super) fn is_new(&self, node: &NodeName, number: Number) -> bool {
        let Some(window) = self.runs.get(&(node.clone(), number.run)) else {
            return true;
        };
        let is_ahead = number.seq > window.last;
        is_ahead || bit(window.last, number.seq).is_some_and(|bit| window.counted & bit == 0)
    }

    /// Notes that it is not counted after all.
    pub(super) fn uncount(&mut self, node: &NodeName, number: Number) {
        if let Some(window) = self.runs.get_mut(&(node.clone(), number.run))
            && let Some(bit) = bit(window.last, number.seq)
        {
            window.counted &= !bit;
        }
    }

    /// Notes that it is counted.
    pub(super) fn count(&mut self, node: &NodeName, number: Number) {
        self.turns += 1;
        let key = (node.clone(), number.run);
        if self.runs.len() >= RUNS_MAX && !self.runs.contains_key(&key) {
            let oldest = self.runs.iter().min_by_key(|(_, window)| window.turn);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.runs.remove(&oldest);
            }
        }
        let window = self.runs.entry(key).or_insert(Window {
            last: number.seq,
            counted: 0,
            turn: 0,
        });
        window.turn = self.turns;
        if let Some(ahead) = number.seq.checked_sub(window.last) {
            let ahead = u32::try_from(ahead).unwrap_or(WINDOW);
            window.counted = window.counted.checked_shl(ahead).unwrap_or(0) | 1;
            window.last = number.seq;
        } else if let Some(bit) = bit(window.last, number.seq) {
            window.counted |= bit;
        }
    }
}

/// The bit of `seq` in a window that ends with `last`; none where it is further behind.
fn bit(last: u64, seq: u64) -> Option<u64> {
    let behind = u32::try_from(last.checked_sub(seq)?).ok()?;
    1_u64.checked_shl(behind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn heard(windows: &mut Windows, node: &NodeName, run: u64, seq: u64) -> bool {
        let number = Number { run, seq };
        let is_new = windows.is_new(node, number);
        if is_new {
            windows.count(node, number);
        }
        is_new
    }

    #[test]
    fn another_run_begins_anew_and_the_one_before_is_not_forgotten() {
        let mut windows = Windows::default();
        let one = node("web-1");
        assert!(heard(&mut windows, &one, 7, 100));
        assert!(heard(&mut windows, &one, 3, 1), "a clock may be set back");
        assert!(!heard(&mut windows, &one, 7, 100));
        assert!(heard(&mut windows, &node("web-2"), 7, 100));
    }

    #[test]
    fn what_is_far_behind_is_not_counted() {
        let mut windows = Windows::default();
        let one = node("web-1");
        assert!(heard(&mut windows, &one, 1, 1_000));
        assert!(heard(&mut windows, &one, 1, 1_000 - 63));
        assert!(!heard(&mut windows, &one, 1, 1_000 - 64));
        assert!(!heard(&mut windows, &one, 1, 0));
    }

    #[test]
    fn many_nodes_take_bounded_memory() {
        let mut windows = Windows::default();
        for n in 0..1_000 {
            assert!(heard(&mut windows, &node(&format!("web-{n}")), 1, 1));
        }
        assert_eq!(windows.runs.len(), RUNS_MAX);
        assert!(!heard(&mut windows, &node("web-999"), 1, 1));
    }

    #[test]
    fn what_is_not_counted_after_all_may_come_again() {
        let mut windows = Windows::default();
        let one = node("web-1");
        for seq in [5, 4] {
            assert!(heard(&mut windows, &one, 1, seq));
            windows.uncount(&one, Number { run: 1, seq });
            assert!(heard(&mut windows, &one, 1, seq));
            assert!(!heard(&mut windows, &one, 1, seq));
        }
    }

    proptest! {
        #[test]
        fn each_counts_once_in_any_order_within_the_window(
            mut seqs in prop::collection::vec(1_u64..40, 1..120),
            shift in 0_u64..1_000_000,
        ) {
            let mut windows = Windows::default();
            let one = node("web-1");
            let counted = seqs.iter().filter(|seq| heard(&mut windows, &one, 1, shift + **seq)).count();
            seqs.sort_unstable();
            seqs.dedup();
            prop_assert_eq!(counted, seqs.len());
        }
    }
}
