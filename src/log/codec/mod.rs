//! How the records of a batch are packed: gzip, snappy, lz4, zstd, as Kafka's clients write them.
//!
//! Unpacking takes bytes of anybody: it never panics, and takes no more memory than twice what it may unpack
//! to, whatever the bytes claim.

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::io::Read;

use super::batch::Damage;

/// How records are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they are.
    None,
    /// As a gzip member (RFC 1952).
    Gzip,
    /// In blocks of snappy, as `snappy-java` frames them.
    Snappy,
    /// In an LZ4 frame.
    #[default]
    Lz4,
    /// In a Zstandard frame (RFC 8878).
    Zstd,
}

impl Compression {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The one with this number in the attributes of a batch; none where there is no such.
    pub fn of(codec: u8) -> Option<Self> {
        Self::ALL.get(usize::from(codec)).copied()
    }

    /// Its number in the attributes of a batch.
    pub(super) fn attributes(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
}

/// Packs records. Its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Packer {
    lz4: lz4::Encoder,
    packed: Vec<u8>,
}

impl Packer {
    /// `bytes`, packed.
    pub(super) fn pack<'s>(&'s mut self, compression: Compression, bytes: &'s [u8]) -> &'s [u8] {
        match compression {
            Compression::None => return bytes,
            Compression::Lz4 => return self.lz4.encode(bytes),
            Compression::Gzip => gzip::encode(bytes, &mut self.packed),
            Compression::Snappy => snappy::encode(bytes, &mut self.packed),
            Compression::Zstd => zstd::encode(bytes, &mut self.packed),
        }
        &self.packed
    }
}

/// What `packed` holds, put into `into`.
///
/// # Errors
/// When it cannot be unpacked, or is more than `bytes_max`.
pub(super) fn unpack(
    compression: Compression,
    packed: &[u8],
    bytes_max: usize,
    into: &mut Vec<u8>,
) -> Result<(), Damage> {
    into.clear();
    let is_right = match compression {
        Compression::None => {
            into.extend_from_slice(packed);
            true
        }
        Compression::Gzip => gzip::decode(packed, bytes_max, into),
        Compression::Snappy => snappy::decode(packed, bytes_max, into),
        Compression::Lz4 => lz4::decode(packed, bytes_max, into),
        Compression::Zstd => zstd::decode(packed, bytes_max, into),
    };
    is_right.then_some(()).ok_or(Damage::Packed)
}

/// All that comes out of `from`, behind what is in `into`; `false` where it fails, or `into` would have more
/// than `bytes_max`.
fn read_all(from: impl Read, bytes_max: usize, into: &mut Vec<u8>) -> bool {
    let room = bytes_max.saturating_sub(into.len());
    let bound = u64::try_from(room).unwrap_or(u64::MAX).saturating_add(1);
    from.take(bound).read_to_end(into).is_ok() && into.len() <= bytes_max
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACKED: [Compression; 4] = [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    const CONTENT: &[u8] = b"abcabcabcabcabcabcabcabc";

    fn unpacked(compression: Compression, packed: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        unpack(compression, packed, bytes_max, &mut bytes)
            .is_ok()
            .then_some(bytes)
    }

    #[test]
    fn a_bomb_is_not_unpacked_beyond_the_bound() {
        let zeros = vec![0; 8 * 1024 * 1024];
        let mut packer = Packer::default();
        for compression in PACKED {
            let bomb = packer.pack(compression, &zeros).to_vec();
            assert!(bomb.len() < zeros.len() / 20, "{compression:?}");
            let mut into = Vec::new();
            let result = unpack(compression, &bomb, 100_000, &mut into);
            assert_eq!(result, Err(Damage::Packed), "{compression:?}");
            assert!(into.capacity() < 1024 * 1024, "{compression:?}");
            assert_eq!(
                unpacked(compression, &bomb, zeros.len()).unwrap(),
                zeros,
                "{compression:?}"
            );
        }
    }

    #[test]
    fn what_is_cut_off_or_no_such_thing_is_refused() {
        let mut packer = Packer::default();
        for compression in PACKED {
            let no = b"\x7fno such thing at all".as_slice();
            assert_eq!(unpacked(compression, no, 1000), None, "{compression:?}");
            let whole = packer.pack(compression, CONTENT).to_vec();
            for cut in 1..whole.len() {
                // What LZ4 or snappy leave out is missed by who counts the records.
                let is_told = matches!(compression, Compression::Gzip | Compression::Zstd);
                match unpacked(compression, &whole[..cut], 1000) {
                    Some(found) => assert!(!is_told && CONTENT.starts_with(&found)),
                    None => assert_ne!(cut, whole.len()),
                }
            }
        }
    }

    #[test]
    fn every_number_is_one_of_a_compression_or_of_none() {
        for codec in 0..8 {
            let number = Compression::of(codec).map(Compression::attributes);
            assert_eq!(number, (codec < 5).then_some(i16::from(codec)));
        }
    }

    proptest! {
        #[test]
        fn bytes_come_back(seed in proptest::collection::vec(any::<u8>(), 0..300), times in 0..1_000_usize) {
            let bytes = seed.repeat(times);
            let mut packer = Packer::default();
            for compression in PACKED {
                for _ in 0..2 {
                    let packed = packer.pack(compression, &bytes).to_vec();
                    let back = unpacked(compression, &packed, bytes.len());
                    prop_assert_eq!(back.as_ref(), Some(&bytes));
                }
            }
        }
    }
}
