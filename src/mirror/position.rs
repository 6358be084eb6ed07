//! How far a partition is: what was sent, what was acknowledged, and what may be committed.

use std::collections::VecDeque;

/// One partition's records on their way. Offsets may have gaps, as compaction leaves them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// The next record to send.
    next: i64,
    /// All before it is acknowledged.
    done: i64,
    /// What is under way, by its offset; true where it is acknowledged, and one before it is not.
    under_way: VecDeque<(i64, bool)>,
    /// Of that, keys and values that are not acknowledged.
    bytes: usize,
}

impl Position {
    /// All before `offset` is acknowledged, and nothing is under way.
    pub(super) fn at(offset: i64) -> Self {
        Self {
            next: offset,
            done: offset,
            under_way: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Whether the record at `offset` has been sent or passed over already.
    pub(super) fn has(&self, offset: i64) -> bool {
        offset < self.next
    }

    /// The record at `offset` was sent.
    pub(super) fn sent(&mut self, offset: i64, bytes: usize) {
        self.under_way.push_back((offset, false));
        self.next = offset + 1;
        self.bytes += bytes;
    }

    /// The record at `offset` needs no sending.
    pub(super) fn passed(&mut self, offset: i64) {
        self.under_way.push_back((offset, true));
        self.next = offset + 1;
        self.settle();
    }

    /// The record at `offset` is acknowledged. One that is not under way changes nothing.
    pub(super) fn acknowledged(&mut self, offset: i64, bytes: usize) {
        let found = self.under_way.binary_search_by_key(&offset, |&(at, _)| at);
        let slot = found.ok().and_then(|index| self.under_way.get_mut(index));
        if let Some((_, is_done @ false)) = slot {
            *is_done = true;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.settle();
        }
    }

    fn settle(&mut self) {
        while let Some(&(offset, true)) = self.under_way.front() {
            self.under_way.pop_front();
            self.done = offset + 1;
        }
    }

    /// What may be committed: all before it is acknowledged.
    pub(super) fn done(&self) -> i64 {
        self.done
    }

    /// The next record to send.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// Whether an acknowledgement is to come.
    pub(super) fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Keys and values under way, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_has_no_gap_before_it_may_be_committed() {
        let mut position = Position::at(10);
        for offset in [10, 11, 14] {
            position.sent(offset, 100);
        }
        position.acknowledged(14, 100);
        position.acknowledged(11, 100);
        assert_eq!((position.done(), position.bytes()), (10, 100));
        position.acknowledged(10, 100);
        assert_eq!((position.done(), position.next()), (15, 15));
    }

    #[test]
    fn an_acknowledgement_that_comes_twice_counts_once() {
        let mut position = Position::at(0);
        position.sent(0, 7);
        position.sent(1, 7);
        position.acknowledged(1, 7);
        position.acknowledged(1, 7);
        position.acknowledged(9, 7);
        assert_eq!((position.done(), position.bytes()), (0, 7));
    }

    #[test]
    fn what_needs_no_sending_holds_nothing_up() {
        let mut position = Position::at(0);
        position.sent(0, 1);
        position.passed(1);
        assert_eq!(position.done(), 0);
        position.acknowledged(0, 1);
        assert_eq!(position.done(), 2);
        assert!(position.has(1) && !position.has(2));
    }

    proptest! {
        #[test]
        fn in_any_order_nothing_is_committed_before_all_before_it_is_acknowledged(
            order in Just((0..40_i64).collect::<Vec<_>>()).prop_shuffle()
        ) {
            // Every third offset is missing, as after compaction.
            let offsets: Vec<i64> = (0..60).filter(|offset| offset % 3 != 1).collect();
            let mut position = Position::at(0);
            for &offset in &offsets {
                position.sent(offset, 1);
            }
            let mut waiting: std::collections::BTreeSet<i64> = offsets.iter().copied().collect();
            for index in order {
                let offset = offsets[usize::try_from(index).unwrap()];
                position.acknowledged(offset, 1);
                waiting.remove(&offset);
                let first = waiting.first().copied().unwrap_or(60);
                prop_assert!(position.done() <= first);
                prop_assert!(!offsets.iter().any(|at| (position.done()..first).contains(at)));
                prop_assert_eq!(position.bytes(), waiting.len());
            }
            prop_assert_eq!(position.done(), 60);
        }
    }
}
