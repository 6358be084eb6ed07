//! Which partition a key belongs to, as Kafka's own producers decide it.
//!
//! Source: `Utils.murmur2` and `BuiltInPartitioner.partitionForKey` of Kafka's Java clients. Producers that
//! agree on it keep the events of one key in one partition, whoever writes them.

const SEED: u32 = 0x9747_b28c;
const FACTOR: u32 = 0x5bd1_e995;

/// MurmurHash2 of `key`, as Kafka seeds it.
pub fn murmur2(key: &[u8]) -> i32 {
    // The reference hashes the length as 32 bits too.
    let mut hash = key
        .len()
        .to_le_bytes()
        .first_chunk()
        .map_or(SEED, |low| SEED ^ u32::from_le_bytes(*low));
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(FACTOR);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(FACTOR) ^ mixed.wrapping_mul(FACTOR);
    }
    if !tail.is_empty() {
        let word = tail
            .iter()
            .rev()
            .fold(0, |word, &byte| (word << 8) | u32::from(byte));
        hash = (hash ^ word).wrapping_mul(FACTOR);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(FACTOR);
    (hash ^ (hash >> 15)).cast_signed()
}

/// The partition, below `partitions`, that records with this key go to; 0 where there is none to choose.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    // Kafka's `toPositive`: the sign bit goes, the number is not negated.
    let positive = murmur2(key).cast_unsigned() & 0x7fff_ffff;
    positive.checked_rem(partitions).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's `UtilsTest.testMurmur2`.
    const KNOWN: [(&[u8], i32); 6] = [
        (b"21", -973_932_308),
        (b"foobar", -790_332_482),
        (b"a-little-bit-long-string", -985_981_536),
        (b"a-little-bit-longer-string", -1_486_304_829),
        (
            b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        (b"abc", 479_470_107),
    ];

    #[test]
    fn hashes_are_those_of_kafkas_own_tests() {
        for (key, hash) in KNOWN {
            assert_eq!(murmur2(key), hash, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn partitions_are_those_of_kafkas_clients() {
        // What kafka-python's `DefaultPartitioner` answers for ten partitions.
        let partitions = KNOWN.map(|(key, _)| partition_of(key, 10));
        assert_eq!(partitions, [0, 6, 2, 9, 7, 7]);
        assert_eq!(partition_of(b"any", 1), 0);
        assert_eq!(partition_of(b"any", 0), 0);
    }
}
