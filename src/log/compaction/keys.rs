//! Which record of a key is its last: what compaction remembers of a partition.

use sha2::{Digest as _, Sha256};

/// Keys that one pass handles; what does not fit waits for the next one. A million bans fit with room
/// to spare.
pub(crate) const KEYS_MAX: usize = 1 << 20;

/// Slots for [`KEYS_MAX`] keys: five in six are taken at most, so that a key is found after three or four
/// looks. At 24 bytes each they are 30 MB, and 45 MB for the moment in which they are made from half as many.
const SLOTS_MAX: usize = KEYS_MAX / 5 * 6 + 6;

/// Slots of an empty map.
const SLOTS_MIN: usize = 1 << 12;

/// The first half of a key's SHA-256.
///
/// Two keys of the same name would be taken for one, and the older one's record be lost. Keys come from
/// clients, so the hash must stand against those who look for two such keys: that takes 2^64 tries here,
/// and among a million keys that nobody chose it happens once in 10^26 logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyName([u64; 2]);

impl KeyName {
    pub(crate) fn of(key: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut halves = digest.chunks_exact(8).map(|eight| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(eight);
            u64::from_le_bytes(bytes)
        });
        Self([
            halves.next().unwrap_or_default(),
            halves.next().unwrap_or_default(),
        ])
    }
}

/// The last offset of each key, for as many keys as one pass handles.
///
/// Open addressing with linear probing, because a map of the standard library takes more than twice the
/// memory where it is just above a power of two, as a million is.
#[derive(Debug, Default)]
pub(crate) struct LastOffsets {
    keys_max: usize,
    slots: Vec<Slot>,
    taken: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    name: KeyName,
    /// Less than 0: nobody's.
    offset: i64,
}

impl Slot {
    const FREE: Self = Self {
        name: KeyName([0; 2]),
        offset: -1,
    };
}

impl LastOffsets {
    /// An empty one for so many keys.
    pub(crate) fn new(keys_max: usize) -> Self {
        Self {
            keys_max,
            ..Self::default()
        }
    }

    /// Whether a batch of so many records can still be remembered. The first one always can: else a batch
    /// of more records than that would stop compaction for ever.
    pub(crate) fn has_room_for(&self, records: usize) -> bool {
        self.taken == 0 || self.taken.saturating_add(records) <= self.keys_max
    }

    /// Keys remembered.
    pub(crate) fn len(&self) -> usize {
        self.taken
    }

    /// Bytes taken.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
    }

    /// Remembers a record. Offsets of a key may come in any order; negative ones are nobody's.
    pub(crate) fn see(&mut self, name: KeyName, offset: i64) {
        if offset < 0 {
            return;
        }
        if self.taken + self.taken / 5 + 1 >= self.slots.len() {
            self.grow();
        }
        let is_new = Self::put(&mut self.slots, Slot { name, offset });
        self.taken += usize::from(is_new);
    }

    /// The last offset of a key, where it is remembered.
    pub(crate) fn last(&self, name: KeyName) -> Option<i64> {
        let (ahead, behind) = self.slots.split_at_checked(self.home(name))?;
        let mut probes = behind.iter().chain(ahead);
        probes
            .find(|slot| slot.offset < 0 || slot.name == name)
            .map(|slot| slot.offset)
            .filter(|offset| *offset >= 0)
    }

    fn grow(&mut self) {
        let doubled = self.slots.len() * 2;
        let slots = if self.slots.len() < SLOTS_MAX {
            doubled.clamp(SLOTS_MIN, SLOTS_MAX)
        } else {
            doubled
        };
        let mut grown = vec![Slot::FREE; slots];
        for slot in self.slots.drain(..).filter(|slot| slot.offset >= 0) {
            Self::put(&mut grown, slot);
        }
        self.slots = grown;
    }

    /// Whether the key was new. There must be a free slot.
    fn put(slots: &mut [Slot], new: Slot) -> bool {
        let home = home(new.name, slots.len());
        let (ahead, behind) = slots.split_at_mut(home.min(slots.len()));
        let mut probes = behind.iter_mut().chain(ahead);
        let found = probes.find(|slot| slot.offset < 0 || slot.name == new.name);
        let Some(slot) = found else {
            debug_assert!(false, "a map without a free slot");
            return false;
        };
        let is_new = slot.offset < 0;
        if is_new || new.offset > slot.offset {
            *slot = new;
        }
        is_new
    }

    fn home(&self, name: KeyName) -> usize {
        home(name, self.slots.len())
    }
}

/// Where the search for a key begins: the hash as a fraction of the slots.
fn home(name: KeyName, slots: usize) -> usize {
    let KeyName([high, _]) = name;
    let place = (u128::from(high) * slots as u128) >> 64;
    usize::try_from(place).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_million_keys_take_thirty_megabytes() {
        let mut map = LastOffsets::new(KEYS_MAX);
        for key in 0..1_000_000_u64 {
            assert!(map.has_room_for(1));
            map.see(KeyName([key.wrapping_mul(0x9e37_79b9_7f4a_7c15), key]), 1);
        }
        assert_eq!(map.len(), 1_000_000);
        assert!(map.bytes() <= 31_000_000, "{}", map.bytes());
    }

    #[test]
    fn more_records_than_fit_are_left_for_the_next_pass_but_the_first_batch_never_is() {
        let mut map = LastOffsets::new(KEYS_MAX);
        assert!(map.has_room_for(KEYS_MAX * 2));
        map.see(KeyName::of(b"a"), 0);
        assert!(map.has_room_for(KEYS_MAX - 1));
        assert!(!map.has_room_for(KEYS_MAX));
    }

    #[test]
    fn keys_that_begin_alike_are_told_apart() {
        let mut map = LastOffsets::new(KEYS_MAX);
        for second in 0..200 {
            map.see(KeyName([u64::MAX, second]), 3);
        }
        assert_eq!(map.len(), 200);
        assert_eq!(map.last(KeyName([u64::MAX, 200])), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn it_remembers_what_a_plain_map_remembers(
            seen in prop::collection::vec((0_u64..6_000, 0_i64..100_000), 0..12_000),
        ) {
            let name = |key: u64| KeyName([key << 52, key]);
            let mut map = LastOffsets::new(KEYS_MAX);
            let mut plain: HashMap<u64, i64> = HashMap::new();
            for (key, offset) in seen {
                map.see(name(key), offset);
                let last = plain.entry(key).or_insert(offset);
                *last = offset.max(*last);
            }
            prop_assert_eq!(map.len(), plain.len());
            for key in 0..6_100 {
                prop_assert_eq!(map.last(name(key)), plain.get(&key).copied());
            }
        }
    }
}
