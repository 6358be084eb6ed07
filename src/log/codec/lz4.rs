//! LZ4 frames as Kafka's Java client writes them: independent blocks of 64 KiB, no checksums of their own
//! (the batch has one), no content size.
//!
//! Source: LZ4 Frame Format Description 1.6.1, Kafka's `Lz4BlockOutputStream`.

use lz4_flex::{
    block::{CompressTable, compress_into_with_table, get_maximum_output_size},
    frame::FrameDecoder,
};

const BLOCK_BYTES: usize = 64 * 1024;

/// Magic number; version 1 with independent blocks; blocks of 64 KiB; and the checksum of these two.
const FRAME_START: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const FRAME_END: [u8; 4] = [0; 4];
/// In the length of a block: it is stored as it is.
const STORED: u32 = 1 << 31;

/// Makes frames. Its memory is used again.
#[derive(Default)]
pub(super) struct Encoder {
    table: CompressTable,
    frame: Vec<u8>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    /// One frame that holds `bytes`.
    pub(super) fn encode(&mut self, bytes: &[u8]) -> &[u8] {
        self.frame.clear();
        self.frame.extend_from_slice(&FRAME_START);
        for block in bytes.chunks(BLOCK_BYTES) {
            self.put_block(block);
        }
        self.frame.extend_from_slice(&FRAME_END);
        &self.frame
    }

    fn put_block(&mut self, block: &[u8]) {
        let start = self.frame.len();
        let room = start + 4 + get_maximum_output_size(block.len());
        self.frame.resize(room, 0);
        let compressed = self
            .frame
            .get_mut(start + 4..)
            .and_then(|into| compress_into_with_table(block, into, &mut self.table).ok())
            .filter(|&bytes| bytes < block.len());
        let block_bytes = compressed.unwrap_or(block.len());
        // A block has 64 KiB at the most.
        let mut field = u32::try_from(block_bytes).unwrap_or(0);
        if compressed.is_none() {
            field |= STORED;
            if let Some(into) = self.frame.get_mut(start + 4..start + 4 + block.len()) {
                into.copy_from_slice(block);
            }
        }
        if let Some(into) = self.frame.get_mut(start..start + 4) {
            into.copy_from_slice(&field.to_le_bytes());
        }
        self.frame.truncate(start + 4 + block_bytes);
    }
}

/// What a frame holds, put behind what is in `into`; `false` where it is none, or holds more than fits into
/// `bytes_max`.
pub(super) fn decode(frame: &[u8], bytes_max: usize, into: &mut Vec<u8>) -> bool {
    super::read_all(FrameDecoder::new(frame), bytes_max, into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(frame: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        decode(frame, bytes_max, &mut bytes).then_some(bytes)
    }

    #[test]
    fn the_frame_is_read_by_the_library_and_is_the_one_it_writes() {
        use std::io::Write as _;

        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

        let info = FrameInfo::new()
            .block_size(BlockSize::Max64KB)
            .block_mode(BlockMode::Independent);
        let mut library = FrameEncoder::with_frame_info(info, Vec::new());
        library.write_all(b"as stored").unwrap();
        let frame = library.finish().unwrap();
        assert_eq!(Encoder::default().encode(b"as stored"), frame);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(decoded(b"no frame at all", 100), None);
        let mut encoder = Encoder::default();
        let mut frame = encoder.encode(&[7; 1000]).to_vec();
        frame[5] ^= 0x10;
        assert_eq!(decoded(&frame, 10_000), None);
    }
}
