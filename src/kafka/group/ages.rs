//! Since when groups are behind: the time of the first record that each has not committed.
//!
//! Found by the headers of batches alone, once for each place in the log, and of not too many before each showing.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use super::shown::{GroupsShown, OffsetShown};
use crate::log::Partition;

/// Places that are looked up for one showing, those with the most records behind them first.
const LOOKS_MAX: usize = 256;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Ages {
    /// Times in Unix milliseconds, by the partition's number and the offset. As many as are shown.
    known: HashMap<(usize, i64), i64>,
}

/// Where a group that is behind would read on.
struct Place {
    partition: Arc<Partition>,
    offset: i64,
    behind: i64,
}

impl Ages {
    /// Adds the times to `shown`. Those that are looked up another time are none until then.
    pub(super) fn add_to(
        &mut self,
        shown: &mut GroupsShown,
        find: impl Fn(&str, u32) -> Option<Arc<Partition>>,
    ) {
        let mut known = HashMap::new();
        let mut unknown = Vec::new();
        let groups = shown.groups.iter_mut();
        for own in groups.flat_map(|group| group.offsets.iter_mut()) {
            let Some(place) = Place::of(own, &find) else {
                continue;
            };
            match self.known.get(&place.key()) {
                Some(first_ms) => {
                    known.insert(place.key(), *first_ms);
                    own.first_unix_ms = Some(*first_ms);
                }
                None => unknown.push((place, own)),
            }
        }
        unknown.sort_by_key(|(place, _)| Reverse(place.behind));
        for (place, own) in unknown.into_iter().take(LOOKS_MAX) {
            // What cannot be read now is looked up again.
            let found = place.partition.time_from(place.offset).ok().flatten();
            known.extend(found.map(|first_ms| (place.key(), first_ms)));
            own.first_unix_ms = found;
        }
        self.known = known;
    }
}

impl Place {
    /// None where there is nothing to read.
    fn of(own: &OffsetShown, find: impl Fn(&str, u32) -> Option<Arc<Partition>>) -> Option<Self> {
        let partition = find(&own.topic, u32::try_from(own.partition).ok()?)?;
        // What retention took is not before it any more.
        let offset = own.offset.max(partition.log_start_offset());
        let behind = partition.high_watermark() - offset;
        (behind > 0).then_some(Self {
            partition,
            offset,
            behind,
        })
    }

    fn key(&self) -> (usize, i64) {
        (self.partition.number(), self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{
        group::shown::GroupShown,
        rig::{Rig, with_broker},
    };

    /// A group that has committed at these offsets.
    fn shown(offsets: impl Iterator<Item = i64>) -> GroupsShown {
        let offset = |offset| OffsetShown {
            topic: "orders".to_owned(),
            partition: 0,
            offset,
            committed_unix_ms: 0,
            first_unix_ms: None,
        };
        let group = GroupShown {
            name: "g".to_owned(),
            state: "Empty",
            generation: 0,
            protocol: String::new(),
            members: Vec::new(),
            offsets: offsets.map(offset).collect(),
        };
        GroupsShown {
            groups: vec![group],
        }
    }

    fn told(ages: &mut Ages, rig: &Rig, mut shown: GroupsShown) -> Vec<Option<i64>> {
        ages.add_to(&mut shown, |topic, index| rig.log().partition(topic, index));
        let offsets = shown.groups.iter().flat_map(|group| &group.offsets);
        offsets.map(|own| own.first_unix_ms).collect()
    }

    #[test]
    fn a_place_is_looked_up_once_and_one_that_is_at_the_end_never() {
        with_broker(&[("orders", 1)], async |rig| {
            let partition = rig.partition("orders", 0);
            rig.append("orders", 0, &["a", "b"]).await;
            let first = partition.time_from(0).unwrap();
            assert!(first.is_some());
            let mut ages = Ages::default();
            let offsets = || shown([0, 1, 2, 3, -5].into_iter());
            let expected = [first, first, None, None, first];
            assert_eq!(told(&mut ages, &rig, offsets()), expected);
            // Nothing can be looked up any more.
            let file = partition.segments()[0].base_offset;
            let dir = rig.log().dir().join("orders-0");
            std::fs::File::create(dir.join(format!("{file:020}.log"))).unwrap();
            assert!(partition.time_from(0).is_err());
            assert_eq!(told(&mut ages, &rig, offsets()), expected);
            assert_eq!(told(&mut Ages::default(), &rig, offsets()), [None; 5]);
            // What nobody is shown is forgotten.
            told(&mut ages, &rig, shown([].into_iter()));
            assert!(ages.known.is_empty());
        });
    }

    #[test]
    fn a_showing_looks_up_so_many_and_the_furthest_behind_first() {
        with_broker(&[("orders", 1)], async |rig| {
            rig.append("orders", 0, &["x"; 300]).await;
            let mut ages = Ages::default();
            let all = || shown((0..300).rev());
            let known = told(&mut ages, &rig, all());
            let (near, far) = known.split_at(300 - LOOKS_MAX);
            assert!(near.iter().all(Option::is_none));
            assert!(far.iter().all(Option::is_some));
            assert!(told(&mut ages, &rig, all()).iter().all(Option::is_some));
        });
    }
}
