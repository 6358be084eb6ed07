//! Request ids: 26 characters that sort by time (the ULID layout).
//!
//! 48 bits of Unix milliseconds, then 80 bits that start at random and count up, in Crockford's
//! base 32. An id names a decision; it is never taken from a request, so no stranger can choose one.

/// Makes the ids of one worker.
#[derive(Debug)]
pub struct RequestIds {
    /// The lower 80 bits of the last id.
    tail: u128,
}

/// The text of an id: 26 ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId([u8; 26]);

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Which bytes are digits.
const IS_DIGIT: [bool; 256] = {
    let (mut is_digit, mut byte) = ([false; 256], 0);
    while byte < 256 {
        let mut place = 0;
        while place < ALPHABET.len() {
            #[expect(
                clippy::indexing_slicing,
                reason = "both are below the arrays' lengths"
            )]
            if ALPHABET[place] as usize == byte {
                is_digit[byte] = true;
            }
            place += 1;
        }
        byte += 1;
    }
    is_digit
};

const TAIL_MASK: u128 = (1 << 80) - 1;

impl RequestIds {
    /// Ids whose tails begin at `seed`; two workers with random seeds do not meet.
    pub fn starting_at(seed: u128) -> Self {
        Self {
            tail: seed & TAIL_MASK,
        }
    }

    /// The next id, stamped `unix_ms`.
    #[inline]
    pub fn next(&mut self, unix_ms: u64) -> RequestId {
        self.tail = self.tail.wrapping_add(1) & TAIL_MASK;
        let mut bits = (u128::from(unix_ms) << 80) | self.tail;
        let mut text = [0; 26];
        for digit in text.iter_mut().rev() {
            *digit = ALPHABET.get((bits & 31) as usize).copied().unwrap_or(b'0');
            bits >>= 5;
        }
        RequestId(text)
    }
}

impl RequestId {
    /// Reads an id back; none for any other text.
    pub fn read(text: &[u8]) -> Option<Self> {
        let id: [u8; 26] = text.try_into().ok()?;
        let is_id = id
            .iter()
            .all(|&byte| IS_DIGIT.get(usize::from(byte)).is_some_and(|&is| is));
        is_id.then_some(Self(id))
    }

    /// The id as ASCII bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// When the id was made, in milliseconds since 1970.
    pub fn unix_ms(&self) -> u64 {
        let digits = self.0.iter().take(10);
        digits.fold(0, |ms, digit| {
            let value = ALPHABET.iter().position(|own| own == digit).unwrap_or(0);
            ms << 5 | value as u64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_up_and_sort_by_time() {
        let mut ids = RequestIds::starting_at(7);
        let first = ids.next(1_000);
        let second = ids.next(1_000);
        let later = ids.next(1_001);
        assert!(first.as_bytes() < second.as_bytes());
        assert!(second.as_bytes() < later.as_bytes());
    }

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        let id = RequestIds::starting_at(7).next(1_000);
        assert_eq!(RequestId::read(id.as_bytes()), Some(id));
        for text in [
            "",
            "01ARYZ6S41",
            "01ARYZ6S4100000000000000-0",
            "01aryz6s410000000000000000",
        ] {
            assert_eq!(RequestId::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_layout_is_the_ulid_one() {
        // The stamp of the ULID specification's own example.
        let id = RequestIds::starting_at(0).next(1_469_918_176_385);
        assert_eq!(id.as_bytes().get(..10), Some(b"01ARYZ6S41".as_slice()));
        assert_eq!(id.unix_ms(), 1_469_918_176_385);
    }
}
