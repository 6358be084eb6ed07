//! Zstandard frames (RFC 8878), one or several after each other. Checksums of their own are not looked at:
//! the batch has one.

use std::{
    io::Read as _,
    panic::{AssertUnwindSafe, catch_unwind},
};

use ruzstd::{
    decoding::{FrameDecoder, StreamingDecoder},
    encoding::{CompressionLevel, compress},
};

const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// Magic numbers of frames that hold nothing, but for their lowest four bits.
const SKIPPED: u32 = 0x184D_2A50;

/// In the frame's descriptor: the window is as long as the content, and is not told.
const SINGLE_SEGMENT: u8 = 1 << 5;
/// The window's descriptor for 16 MiB, which no batch unpacks to more than.
const WINDOW_MAX: u8 = 14 << 3;
const WINDOW_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One frame that holds `bytes`, put into `into`.
pub(super) fn encode(bytes: &[u8], into: &mut Vec<u8>) {
    into.clear();
    compress(bytes, into, CompressionLevel::Fastest);
}

/// What the frames hold, put behind what is in `into`; `false` where they are none, or hold more than fits
/// into `bytes_max`.
pub(super) fn decode(packed: &[u8], bytes_max: usize, into: &mut Vec<u8>) -> bool {
    // The library asserts what it believes to be impossible: if it is not, that costs the batch and no more.
    catch_unwind(AssertUnwindSafe(|| frames(packed, bytes_max, into))).unwrap_or(false)
}

fn frames(packed: &[u8], bytes_max: usize, into: &mut Vec<u8>) -> bool {
    let mut rest = packed;
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(WINDOW_BYTES_MAX);
    while !rest.is_empty() {
        if let Some(after) = without_skipped(rest) {
            rest = after;
            continue;
        }
        let Some((start, mut after)) = bounded_start(rest) else {
            return false;
        };
        let source = start.chain(&mut after);
        let Ok(frame) = StreamingDecoder::new_with_decoder(source, &mut decoder) else {
            return false;
        };
        if !super::read_all(frame, bytes_max, into) {
            return false;
        }
        rest = after;
    }
    !packed.is_empty()
}

/// The magic and the descriptors of a frame, and what follows them.
///
/// Whoever packs without knowing how much will come may claim a window of 128 MiB, which would be allocated.
/// No content here is longer than 16 MiB, so nothing refers further back than that.
fn bounded_start(frame: &[u8]) -> Option<(std::io::Cursor<[u8; 6]>, &[u8])> {
    let (start, after) = frame.split_first_chunk::<6>()?;
    let mut start = *start;
    let [_, _, _, _, descriptor, window] = &mut start;
    if *descriptor & SINGLE_SEGMENT == 0 {
        *window = (*window).min(WINDOW_MAX);
    }
    start
        .starts_with(&MAGIC)
        .then(|| (std::io::Cursor::new(start), after))
}

/// What follows a frame that holds nothing.
fn without_skipped(bytes: &[u8]) -> Option<&[u8]> {
    let (magic, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    (u32::from_le_bytes(*magic) & !0xf == SKIPPED)
        .then(|| rest.get(length..))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(packed: &[u8]) -> Option<Vec<u8>> {
        let mut into = Vec::new();
        decode(packed, 1_000_000, &mut into).then_some(into)
    }

    fn encoded(bytes: &[u8]) -> Vec<u8> {
        let mut into = Vec::new();
        encode(bytes, &mut into);
        into
    }

    /// What libzstd 1.5 makes of [`lines`], with `zstd --ultra -22 --check` from a pipe: a window of 128 MiB, and
    /// a checksum.
    const OF_LIBZSTD: &str = "28b52ffd04880d040022c71310c03b749cd05ed533bd2929294175e9dfa09dbb934cb1e94f54b90919da4eb0f905\
         e733fb6f8bc4b1dbaf9eab3a06b3ee2651f67c465f6f6d4ffe65cd04ed501871e58e32e802a2964b4b19958e0531\
         a811a0e9eeff06c097c611bc4f8809bf3f992f8a0a2027a0ab8c40a829a8a266848ffd868487cfde45bd8580b0ab\
         0ee2f4be";

    fn lines() -> String {
        let line = |i| {
            format!(
                "{{\"status\":{},\"path\":\"/a/{}\"}}\n",
                200 + i % 7,
                i * i % 97
            )
        };
        (0..40).map(line).collect()
    }

    #[test]
    fn what_libzstd_packs_is_unpacked() {
        let packed = data_encoding::HEXLOWER
            .decode(OF_LIBZSTD.as_bytes())
            .unwrap();
        assert_eq!(decoded(&packed).unwrap(), lines().into_bytes());
    }

    #[test]
    fn frames_follow_each_other_and_some_hold_nothing() {
        let nothing = [
            &(SKIPPED + 7).to_le_bytes()[..],
            &3_u32.to_le_bytes(),
            b"abc",
        ]
        .concat();
        let all = [encoded(b"one "), nothing, encoded(b"two")].concat();
        assert_eq!(decoded(&all).unwrap(), b"one two");
    }

    #[test]
    fn a_claimed_window_is_not_allocated() {
        // No content size, a window of 2 GiB; one raw block, the last, of three bytes.
        let window = 21 << 3;
        let frame = [&MAGIC[..], &[0x00, window, 0x19, 0x00, 0x00], b"abc"].concat();
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW_BYTES_MAX);
        assert!(StreamingDecoder::new_with_decoder(frame.as_slice(), &mut decoder).is_err());
        assert_eq!(decoded(&frame).unwrap(), b"abc");
    }
}
