//! Gzip members (RFC 1952), one or several after each other.

use std::io::Write as _;

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

/// One member that holds `bytes`, put into `into`.
pub(super) fn encode(bytes: &[u8], into: &mut Vec<u8>) {
    into.clear();
    let mut encoder = GzEncoder::new(into, Compression::fast());
    // A vector takes everything.
    let _ = encoder.write_all(bytes).and_then(|()| encoder.try_finish());
}

/// What the members hold, put behind what is in `into`; `false` where they are none, or hold more than fits
/// into `bytes_max`.
pub(super) fn decode(packed: &[u8], bytes_max: usize, into: &mut Vec<u8>) -> bool {
    super::read_all(MultiGzDecoder::new(packed), bytes_max, into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_after_each_other_are_one() {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        encode(b"one ", &mut one);
        encode(b"two", &mut two);
        let mut into = Vec::new();
        assert!(decode(&[one, two].concat(), 100, &mut into));
        assert_eq!(into, b"one two");
    }
}
