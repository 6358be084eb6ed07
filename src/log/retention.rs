//! Which segments go: for their age, for the size of their topic, and for the size of the whole log.
//!
//! A decision is made of plain numbers, so that every clock and every disk fits into a test. What it
//! guarantees: a partition's segments go oldest first; an active segment never goes, and neither age nor
//! size takes the newest segment that holds records; nothing goes for its age while the clock is not
//! believed ([`super::trusted_time`]); the size of the whole log never costs Wardent's bans, audit or
//! offsets.

use std::time::Duration;

use super::trusted_time::{EARLIEST_MS, JUMP_MAX, millis};

/// What may go, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How old a record may become.
    pub age_max: Option<Duration>,
    /// How much one partition may hold, in bytes.
    pub bytes_max: Option<u64>,
    /// What becomes of it when the whole log is too large.
    pub at_cap: AtCap,
}

/// A partition's turn when the whole log is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AtCap {
    /// What happens all day: it goes first, to the last segment if need be.
    First,
    /// What others wrote: its closed segments go when nothing that goes first is left.
    Then,
    /// Bans, audit, offsets, and all that is compacted.
    Never,
}

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The offset it is named by.
    pub base_offset: i64,
    /// Its length on the disk with its indexes, in bytes.
    pub bytes: u64,
    /// Whether there is no record in it.
    pub is_empty: bool,
    /// The greatest timestamp of its records, in milliseconds since 1970; less than 0 where none has one.
    pub max_timestamp_ms: i64,
    /// When it was first met as a closed one, in milliseconds since 1970 by a clock that was believed.
    pub met_ms: Option<u64>,
}

/// One partition: its segments from the oldest to the active one, which is the last.
#[derive(Debug, Clone)]
pub(crate) struct Holding {
    /// What may go of it.
    pub rules: Rules,
    /// Its segments, the active one last.
    pub segments: Vec<Segment>,
}

/// The bytes of the whole log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// What it may take.
    pub bytes_max: u64,
    /// What it takes beside its segments.
    pub bytes_else: u64,
    /// What is to be free of `bytes_max` after each decision, for what is written until the next.
    pub bytes_spare: u64,
}

/// Why a segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// All its records are too old.
    Age,
    /// Its partition is too large.
    Size,
    /// The whole log is too large.
    Cap,
}

/// A segment that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deletion {
    /// Which of the partitions.
    pub partition: usize,
    /// The segment's name.
    pub base_offset: i64,
    /// What it frees.
    pub bytes: u64,
    /// Why it goes.
    pub reason: Reason,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// What goes, each partition's oldest first.
    pub deletions: Vec<Deletion>,
    /// Partitions whose active segment must be closed before it can go.
    pub rolls: Vec<usize>,
    /// Bytes above the cap when all this is done.
    pub bytes_over: u64,
}

/// Decides what goes. `now_ms` is `None` while the clock is not believed.
pub(crate) fn decide(partitions: &[Holding], now_ms: Option<u64>, budget: Budget) -> Decision {
    let mut decision = Decision::default();
    let mut doomed = Vec::with_capacity(partitions.len());
    for (index, holding) in partitions.iter().enumerate() {
        let old = now_ms.map_or(0, |now_ms| too_old(holding, now_ms));
        let large = too_large(holding);
        let prefix = holding.segments.iter().take(old.max(large));
        let reasons = std::iter::repeat_n(Reason::Age, old).chain(std::iter::repeat(Reason::Size));
        let deletions = prefix
            .zip(reasons)
            .map(|(segment, reason)| deletion(index, segment, reason));
        decision.deletions.extend(deletions);
        doomed.push(old.max(large));
    }
    fit_budget(partitions, now_ms, budget, &mut doomed, &mut decision);
    decision
}

fn deletion(partition: usize, segment: &Segment, reason: Reason) -> Deletion {
    Deletion {
        partition,
        base_offset: segment.base_offset,
        bytes: segment.bytes,
        reason,
    }
}

/// How many of a partition's oldest segments may go at all for its own sake: not the active one, nor the
/// newest that holds records. So a clock that lies in spite of all never empties a partition.
fn dispensable(holding: &Holding) -> usize {
    let newest = holding
        .segments
        .iter()
        .rposition(|segment| !segment.is_empty);
    newest.unwrap_or_default()
}

fn too_old(holding: &Holding, now_ms: u64) -> usize {
    let Some(age_max) = holding.rules.age_max else {
        return 0;
    };
    let is_old = |index| {
        let stamp_ms = stamp_ms(&holding.segments, index, Some(now_ms));
        stamp_ms.is_some_and(|stamp_ms| now_ms.saturating_sub(stamp_ms) > millis(age_max))
    };
    (0..dispensable(holding))
        .take_while(|&index| is_old(index))
        .count()
}

fn too_large(holding: &Holding) -> usize {
    let Some(bytes_max) = holding.rules.bytes_max else {
        return 0;
    };
    let mut bytes = total(&holding.segments);
    let dispensable = holding.segments.iter().take(dispensable(holding));
    let going = dispensable.take_while(|segment| {
        let is_over = bytes > bytes_max;
        bytes = bytes.saturating_sub(segment.bytes);
        is_over
    });
    going.count()
}

/// How old a segment counts, in milliseconds since 1970.
///
/// Records can be stamped wrongly: by a clock that was, or by a foreign producer. A segment stamped in the
/// future would stay for ever, one stamped in 1970 go at once. Such a segment takes the stamp of the next
/// one that is stamped credibly: that one's records came later, so nothing goes too early. Where there
/// is none, it counts from when it was met.
fn stamp_ms(segments: &[Segment], index: usize, now_ms: Option<u64>) -> Option<u64> {
    let mut rest = segments.iter().skip(index);
    let stamp_ms = rest.clone().find_map(|segment| credible(segment, now_ms));
    stamp_ms.or_else(|| rest.next().and_then(|segment| segment.met_ms))
}

/// A segment's own stamp, where it can be true.
pub(crate) fn credible(segment: &Segment, now_ms: Option<u64>) -> Option<u64> {
    let latest_ms = now_ms.map_or(u64::MAX, |now_ms| now_ms.saturating_add(millis(JUMP_MAX)));
    let stamp_ms = u64::try_from(segment.max_timestamp_ms).ok()?;
    (EARLIEST_MS..=latest_ms)
        .contains(&stamp_ms)
        .then_some(stamp_ms)
}

fn total(segments: &[Segment]) -> u64 {
    let bytes = segments.iter().map(|segment| segment.bytes);
    bytes.fold(0, u64::saturating_add)
}

/// Adds what must go so that the whole log fits: the oldest closed segment of all that go first, again
/// and again; then active segments, which are closed now and go next time; then what others wrote.
fn fit_budget(
    partitions: &[Holding],
    now_ms: Option<u64>,
    budget: Budget,
    doomed: &mut [usize],
    decision: &mut Decision,
) {
    let all = partitions.iter().map(|holding| total(&holding.segments));
    let in_use = all.fold(budget.bytes_else, u64::saturating_add);
    let freed = decision.deletions.iter().map(|deletion| deletion.bytes);
    let left = freed.fold(in_use, u64::saturating_sub);
    let target = budget.bytes_max.saturating_sub(budget.bytes_spare);
    let mut over = left.saturating_sub(target);

    for turn in [AtCap::First, AtCap::Then] {
        while over > 0
            && let Some(partition) = oldest(partitions, turn, now_ms, doomed)
            && let Some(next) = doomed.get_mut(partition)
            && let Some(segment) = partitions
                .get(partition)
                .and_then(|holding| holding.segments.get(*next))
        {
            *next += 1;
            over = over.saturating_sub(segment.bytes);
            let going = deletion(partition, segment, Reason::Cap);
            decision.deletions.push(going);
        }
        if turn == AtCap::First && over > 0 {
            over = over.saturating_sub(roll(partitions, over, decision));
        }
    }
    let freed = decision.deletions.iter().map(|deletion| deletion.bytes);
    let left = freed.fold(in_use, u64::saturating_sub);
    decision.bytes_over = left.saturating_sub(budget.bytes_max);
}

/// The partition whose next closed segment is the oldest of those whose turn it is.
fn oldest(
    partitions: &[Holding],
    turn: AtCap,
    now_ms: Option<u64>,
    doomed: &[usize],
) -> Option<usize> {
    let candidates = partitions.iter().zip(doomed).enumerate();
    let closed = candidates.filter(|(_, (holding, next))| {
        holding.rules.at_cap == turn && **next + 1 < holding.segments.len()
    });
    let stamped = closed.map(|(index, (holding, next))| {
        // A segment nothing is known of counts as young: it may have been written just now.
        let stamp_ms = stamp_ms(&holding.segments, *next, now_ms).unwrap_or(u64::MAX);
        (stamp_ms, index)
    });
    stamped.min().map(|(_, index)| index)
}

/// Asks the largest active segments that go first to be closed, until what they hold is enough. Says how
/// many bytes that will be.
fn roll(partitions: &[Holding], bytes: u64, decision: &mut Decision) -> u64 {
    let actives = partitions
        .iter()
        .enumerate()
        .filter_map(|(index, holding)| {
            let active = holding.segments.last()?;
            let may_go = holding.rules.at_cap == AtCap::First && !active.is_empty;
            may_go.then_some((active.bytes, index))
        });
    let mut actives: Vec<_> = actives.collect();
    actives.sort_unstable_by(|one, other| other.cmp(one));
    let mut promised: u64 = 0;
    for (held, index) in actives {
        if promised >= bytes {
            break;
        }
        promised = promised.saturating_add(held);
        decision.rolls.push(index);
    }
    promised
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;
    /// 2026-11-21T00:00:00Z.
    const NOW_MS: u64 = 1_795_219_200_000;
    const MIB: u64 = 1 << 20;
    const ROOMY: Budget = Budget {
        bytes_max: u64::MAX,
        bytes_else: 0,
        bytes_spare: 0,
    };

    fn rules(at_cap: AtCap) -> Rules {
        Rules {
            age_max: None,
            bytes_max: None,
            at_cap,
        }
    }

    /// Segments of a mebibyte, one for each age in days, the active one last.
    fn aged(rules: Rules, ages_days: &[i64]) -> Holding {
        let now_ms = i64::try_from(NOW_MS).unwrap();
        let day_ms = i64::try_from(DAY_MS).unwrap();
        let segments = (0_i64..).zip(ages_days).map(|(index, age)| Segment {
            base_offset: index * 100,
            bytes: MIB,
            is_empty: false,
            max_timestamp_ms: now_ms - age * day_ms,
            met_ms: None,
        });
        Holding {
            rules,
            segments: segments.collect(),
        }
    }

    fn week() -> Rules {
        Rules {
            age_max: Some(Duration::from_millis(7 * DAY_MS)),
            ..rules(AtCap::First)
        }
    }

    fn budget(mebibytes: u64) -> Budget {
        Budget {
            bytes_max: mebibytes * MIB,
            ..ROOMY
        }
    }

    /// What goes, as partition and offset, for this reason alone.
    fn gone(decision: &Decision, reason: Reason) -> Vec<(usize, i64)> {
        assert!(decision.deletions.iter().all(|one| one.reason == reason));
        let gone = decision.deletions.iter();
        gone.map(|one| (one.partition, one.base_offset)).collect()
    }

    #[test]
    fn what_is_too_old_goes_from_the_oldest_to_the_first_that_is_not() {
        let log = [aged(week(), &[30, 9, 6, 8, 0])];
        let decision = decide(&log, Some(NOW_MS), ROOMY);
        assert_eq!(gone(&decision, Reason::Age), [(0, 0), (0, 100)]);
    }

    #[test]
    fn while_the_clock_is_not_believed_nothing_goes_for_its_age() {
        let log = [aged(week(), &[30, 9, 8, 0])];
        assert_eq!(decide(&log, None, ROOMY), Decision::default());
    }

    #[test]
    fn neither_age_nor_size_takes_the_newest_segment_with_records() {
        let mut rules = week();
        rules.bytes_max = Some(0);
        let mut log = aged(rules, &[30, 30, 30]);
        let decision = decide(&[log.clone()], Some(NOW_MS), ROOMY);
        assert_eq!(gone(&decision, Reason::Age), [(0, 0), (0, 100)]);
        log.segments[2].is_empty = true;
        let decision = decide(&[log], Some(NOW_MS), ROOMY);
        assert_eq!(gone(&decision, Reason::Age), [(0, 0)]);
    }

    #[test]
    fn even_a_believed_clock_of_the_last_year_leaves_each_partition_its_newest_segment() {
        for now_ms in [0, 4_294_967_296_000, 253_402_300_799_999, u64::MAX] {
            let log = [aged(week(), &[3, 2, 1, 0]), aged(week(), &[0])];
            let decision = decide(&log, Some(now_ms), ROOMY);
            let left = 5 - decision.deletions.len();
            assert!(left >= 2, "{now_ms}");
            assert_eq!(decision.deletions.is_empty(), now_ms == 0, "{now_ms}");
        }
    }

    #[test]
    fn a_partition_above_its_size_loses_its_oldest_until_it_fits() {
        let mut rules = rules(AtCap::Never);
        rules.bytes_max = Some(3 * MIB);
        let log = [aged(rules, &[5, 4, 3, 2, 1]), aged(rules, &[2, 1, 0])];
        let decision = decide(&log, None, ROOMY);
        assert_eq!(gone(&decision, Reason::Size), [(0, 0), (0, 100)]);
    }

    #[test]
    fn a_segment_of_the_future_goes_with_the_next_one_that_is_stamped_credibly() {
        let log = [aged(week(), &[-3_000, 9, 8, 0])];
        let decision = decide(&log, Some(NOW_MS), ROOMY);
        assert_eq!(gone(&decision, Reason::Age), [(0, 0), (0, 100), (0, 200)]);
        let log = [aged(week(), &[-3_000, 6, 0])];
        assert_eq!(decide(&log, Some(NOW_MS), ROOMY), Decision::default());
    }

    #[test]
    fn a_segment_of_the_seventies_does_not_go_before_those_that_came_after_it() {
        let age_1970 = i64::try_from(NOW_MS / DAY_MS).unwrap();
        let log = [aged(week(), &[age_1970, age_1970, 6, 0])];
        assert_eq!(decide(&log, Some(NOW_MS), ROOMY), Decision::default());
    }

    #[test]
    fn a_log_of_nothing_but_the_future_counts_from_when_it_was_met() {
        let mut log = aged(week(), &[-3_000, -3_000, -3_000]);
        assert_eq!(
            decide(&[log.clone()], Some(NOW_MS), ROOMY),
            Decision::default()
        );
        log.segments[0].met_ms = Some(NOW_MS - 8 * DAY_MS);
        log.segments[1].met_ms = Some(NOW_MS - 6 * DAY_MS);
        let decision = decide(&[log], Some(NOW_MS), ROOMY);
        assert_eq!(gone(&decision, Reason::Age), [(0, 0)]);
    }

    #[test]
    fn above_the_cap_the_oldest_of_all_partitions_goes_first_and_no_more_than_must() {
        let log = [
            aged(rules(AtCap::Never), &[90, 80, 0]),
            aged(rules(AtCap::First), &[5, 3, 0]),
            aged(rules(AtCap::First), &[4, 1, 0]),
            aged(rules(AtCap::Then), &[50, 40, 0]),
        ];
        let decision = decide(&log, Some(NOW_MS), budget(9));
        assert_eq!(gone(&decision, Reason::Cap), [(1, 0), (2, 0), (1, 100)]);
        assert_eq!((decision.bytes_over, decision.rolls), (0, vec![]));
    }

    #[test]
    fn room_is_made_for_what_comes_before_the_next_look() {
        let log = [aged(rules(AtCap::First), &[5, 3, 2, 0])];
        let spare = Budget {
            bytes_spare: 1,
            bytes_else: 2 * MIB,
            ..budget(6)
        };
        let decision = decide(&log, None, spare);
        assert_eq!(gone(&decision, Reason::Cap), [(0, 0)]);
    }

    #[test]
    fn what_goes_for_age_counts_for_the_cap() {
        let log = [aged(week(), &[30, 20, 3, 0])];
        let decision = decide(&log, Some(NOW_MS), budget(2));
        assert_eq!(gone(&decision, Reason::Age), [(0, 0), (0, 100)]);
    }

    #[test]
    fn when_closed_access_segments_are_not_enough_active_ones_are_asked_to_roll() {
        let mut log = [
            aged(rules(AtCap::First), &[2, 0]),
            aged(rules(AtCap::First), &[0]),
            aged(rules(AtCap::Then), &[9, 0]),
        ];
        log[1].segments[0].bytes = 3 * MIB;
        let decision = decide(&log, Some(NOW_MS), budget(4));
        assert_eq!(gone(&decision, Reason::Cap), [(0, 0)]);
        assert_eq!(decision.rolls, [1]);
        assert_eq!(decision.bytes_over, 2 * MIB);
    }

    #[test]
    fn what_others_wrote_goes_when_nothing_else_is_left_and_bans_never_do() {
        let log = [
            aged(rules(AtCap::Never), &[90, 80, 0]),
            aged(rules(AtCap::First), &[0]),
            aged(rules(AtCap::Then), &[50, 40, 0]),
        ];
        let decision = decide(&log, Some(NOW_MS), budget(1));
        assert_eq!(gone(&decision, Reason::Cap), [(2, 0), (2, 100)]);
        assert_eq!(decision.rolls, [1]);
        assert_eq!(decision.bytes_over, 4 * MIB);
    }

    fn some_partition() -> impl Strategy<Value = Holding> {
        let stamps = prop_oneof![
            Just(-1),
            Just(i64::MAX),
            0_i64..1_000,
            1_795_000_000_000_i64..1_796_000_000_000,
        ];
        let segment = (0_u64..4 * MIB, any::<bool>(), stamps);
        let rules = (
            prop::option::of(0_u64..100 * DAY_MS),
            prop::option::of(0_u64..8 * MIB),
            prop_oneof![Just(AtCap::First), Just(AtCap::Then), Just(AtCap::Never)],
        );
        (prop::collection::vec(segment, 1..8), rules).prop_map(|(segments, rules)| {
            let segments = (0_i64..).zip(segments).map(|(index, segment)| Segment {
                base_offset: index,
                bytes: segment.0,
                is_empty: segment.1,
                max_timestamp_ms: segment.2,
                met_ms: None,
            });
            Holding {
                rules: Rules {
                    age_max: rules.0.map(Duration::from_millis),
                    bytes_max: rules.1,
                    at_cap: rules.2,
                },
                segments: segments.collect(),
            }
        })
    }

    proptest! {
        #[test]
        fn whatever_the_log_and_the_clock_are_the_guarantees_hold(
            log in prop::collection::vec(some_partition(), 0..5),
            now_ms in prop::option::of(prop_oneof![
                any::<u64>(),
                1_795_000_000_000_u64..1_796_000_000_000,
            ]),
            bytes_max in 0..40 * MIB,
        ) {
            let budget = Budget { bytes_max, bytes_else: MIB, bytes_spare: 0 };
            let decision = decide(&log, now_ms, budget);
            for (index, holding) in log.iter().enumerate() {
                let going: Vec<_> = decision.deletions.iter()
                    .filter(|one| one.partition == index)
                    .collect();
                // The oldest go, each once, and never the active one.
                let offsets: Vec<_> = going.iter().map(|one| one.base_offset).collect();
                let oldest: Vec<_> = holding.segments.iter()
                    .map(|segment| segment.base_offset)
                    .take(going.len())
                    .collect();
                prop_assert_eq!(offsets, oldest);
                prop_assert!(going.len() < holding.segments.len());
                for one in &going {
                    match one.reason {
                        Reason::Age => prop_assert!(now_ms.is_some() && holding.rules.age_max.is_some()),
                        Reason::Size => prop_assert!(holding.rules.bytes_max.is_some()),
                        Reason::Cap => prop_assert!(holding.rules.at_cap != AtCap::Never),
                    }
                }
            }
            // What goes for the cap is enough, or there is nothing more that may.
            let may_go = |holding: &&Holding| holding.rules.at_cap != AtCap::Never;
            let spared: usize = log.iter().filter(may_go).map(|one| one.segments.len() - 1).sum();
            let gone = decision.deletions.iter()
                .filter(|one| log[one.partition].rules.at_cap != AtCap::Never)
                .count();
            prop_assert!(decision.bytes_over == 0 || !decision.rolls.is_empty() || gone == spared);
            for index in &decision.rolls {
                prop_assert_eq!(log[*index].rules.at_cap, AtCap::First);
            }
        }
    }
}
