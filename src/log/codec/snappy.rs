//! Snappy: as one block, as librdkafka writes it, or in the frame of `snappy-java`, which most others use.
//!
//! ```text
//! 82 'S' 'N' 'A' 'P' 'P' 'Y' 00   version i32   compatible with i32   { length i32   block }*
//! ```
//!
//! Source: the format description of snappy, `SnappyOutputStream` and `SnappyCodec` of `snappy-java`.

use snap::raw::{Decoder, Encoder, decompress_len};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// The magic and two versions.
const FRAME_START_BYTES: usize = 16;
/// What `snappy-java` puts into one block.
const BLOCK_BYTES: usize = 32 * 1024;

/// More than a byte of a block can come to: a copy of 64 bytes takes three.
const GROWTH_MAX: usize = 64;

/// A frame that holds `bytes`, put into `into`.
pub(super) fn encode(bytes: &[u8], into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&MAGIC);
    into.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    let mut encoder = Encoder::new();
    for block in bytes.chunks(BLOCK_BYTES) {
        // It fails only where a block has 4 GiB.
        let packed = encoder.compress_vec(block).unwrap_or_default();
        let length = u32::try_from(packed.len()).unwrap_or(0);
        into.extend_from_slice(&length.to_be_bytes());
        into.extend_from_slice(&packed);
    }
}

/// What a frame or a block holds, put behind what is in `into`; `false` where it is none, or holds more than
/// fits into `bytes_max`.
pub(super) fn decode(packed: &[u8], bytes_max: usize, into: &mut Vec<u8>) -> bool {
    let mut decoder = Decoder::new();
    let Some(mut rest) = without_start(packed) else {
        return block(&mut decoder, packed, bytes_max, into);
    };
    while !rest.is_empty() {
        // Frames may follow each other.
        if let Some(next) = without_start(rest) {
            rest = next;
            continue;
        }
        let Some((length, after)) = rest.split_first_chunk() else {
            return false;
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((own, after)) = after.split_at_checked(length) else {
            return false;
        };
        if !block(&mut decoder, own, bytes_max, into) {
            return false;
        }
        rest = after;
    }
    true
}

/// What follows the start of a frame.
fn without_start(bytes: &[u8]) -> Option<&[u8]> {
    bytes
        .starts_with(&MAGIC)
        .then(|| bytes.get(FRAME_START_BYTES..))
        .flatten()
}

fn block(decoder: &mut Decoder, packed: &[u8], bytes_max: usize, into: &mut Vec<u8>) -> bool {
    let start = into.len();
    let Ok(claimed) = decompress_len(packed) else {
        return false;
    };
    let is_possible = claimed / GROWTH_MAX <= packed.len();
    if !is_possible || claimed > bytes_max.saturating_sub(start) {
        return false;
    }
    into.resize(start + claimed, 0);
    let room = into.get_mut(start..).unwrap_or_default();
    decoder.decompress(packed, room) == Ok(claimed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(packed: &[u8]) -> Option<Vec<u8>> {
        let mut into = Vec::new();
        decode(packed, 1_000_000, &mut into).then_some(into)
    }

    #[test]
    fn a_block_is_read_without_a_frame() {
        let packed = Encoder::new().compress_vec(b"as librdkafka does").unwrap();
        assert_eq!(decoded(&packed).unwrap(), b"as librdkafka does");
    }

    #[test]
    fn frames_and_their_blocks_follow_each_other() {
        let long = b"0123456789".repeat(10_000);
        let (mut one, mut two) = (Vec::new(), Vec::new());
        encode(&long, &mut one);
        encode(b"end", &mut two);
        let all = [&long[..], b"end"].concat();
        assert_eq!(decoded(&[one, two].concat()).unwrap(), all);
    }

    #[test]
    fn what_a_block_cannot_hold_is_not_allocated() {
        let mut into = Vec::new();
        // A varint that claims 16 MiB - 1, and a literal of one byte.
        let claim = [0xff, 0xff, 0xff, 0x07, 0x00, b'x'];
        assert!(!decode(&claim, 16 * 1024 * 1024, &mut into));
        assert_eq!(into.capacity(), 0);
    }
}
