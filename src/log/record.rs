//! Records inside a batch: varints, keys, values, headers (KIP-98, "Message Format").
//!
//! Reading takes bytes of anybody: it never panics, and allocates nothing.

use super::batch::Damage;

/// The least a record can have: its length, attributes, two deltas, two lengths and a count, a byte each.
pub(super) const RECORD_BYTES_MIN: usize = 7;

/// One record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub timestamp_ms: i64,
    /// What it is about.
    pub key: Option<&'a [u8]>,
    /// What it says; none is a tombstone, which forgets the key where the topic is compacted.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// The headers of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    count: u32,
    /// Walked once already, by the record they belong to.
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Names and values, in the order of the record; a name that is no UTF-8 comes as it is.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut rest = Cursor(self.bytes);
        (0..self.count).map_while(move |_| rest.header())
    }

    /// As they are stored, without their count.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// What the records of a batch have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Common {
    pub(super) base_offset: i64,
    pub(super) last_offset_delta: i32,
    pub(super) base_timestamp: i64,
    /// The time of all of them, where the log and not the producer set it (`LogAppendTime`).
    pub(super) append_time: Option<i64>,
    pub(super) count: u32,
}

/// The records of a batch, one after the other. After damage nothing more comes.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: Cursor<'a>,
    common: Common,
    read: u32,
    last_delta: i32,
    is_over: bool,
}

impl<'a> Records<'a> {
    /// # Errors
    /// When so few bytes cannot be so many records.
    pub(super) fn new(bytes: &'a [u8], common: Common) -> Result<Self, Damage> {
        let fitting = bytes.len() / RECORD_BYTES_MIN;
        if usize::try_from(common.count).is_ok_and(|count| count > fitting) {
            return Err(Damage::Count);
        }
        Ok(Self {
            rest: Cursor(bytes),
            common,
            read: 0,
            last_delta: -1,
            is_over: false,
        })
    }

    fn record(&mut self) -> Option<Record<'a>> {
        let length = usize::try_from(self.rest.varint()?).ok()?;
        let mut body = Cursor(self.rest.take(length)?);
        let _attributes = body.byte()?;
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        if offset_delta <= self.last_delta || offset_delta > self.common.last_offset_delta {
            return None;
        }
        let key = body.bytes_or_null()?;
        let value = body.bytes_or_null()?;
        let headers = body.headers()?;
        let created = self.common.base_timestamp.wrapping_add(timestamp_delta);
        self.last_delta = offset_delta;
        Some(Record {
            offset: self.common.base_offset + i64::from(offset_delta),
            timestamp_ms: self.common.append_time.unwrap_or(created),
            key,
            value,
            headers,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        if self.read == self.common.count {
            self.is_over = true;
            return (!self.rest.0.is_empty()).then_some(Err(Damage::Count));
        }
        let record = self.record();
        self.is_over = record.is_none();
        let record = record.ok_or(Damage::Record(self.read));
        self.read += 1;
        Some(record)
    }
}

/// Bytes that are read from the front.
#[derive(Debug, Clone)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Seven bits a byte, the lowest first; not more than a `u64`.
    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn varlong(&mut self) -> Option<i64> {
        let zigzag = self.unsigned()?;
        Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    fn varint(&mut self) -> Option<i32> {
        self.varlong()?.try_into().ok()
    }

    /// The outer `None` is damage, the inner one null.
    #[expect(clippy::option_option, reason = "null is a value of the format")]
    fn bytes_or_null(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()? {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }

    fn header(&mut self) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        let name = self.bytes_or_null()??;
        Some((name, self.bytes_or_null()?))
    }

    /// All that is left, as headers.
    fn headers(&mut self) -> Option<Headers<'a>> {
        let count = u32::try_from(self.varint()?).ok()?;
        let bytes = self.0;
        for _ in 0..count {
            self.header()?;
        }
        self.0.is_empty().then_some(Headers { count, bytes })
    }
}

/// How many bytes a varint takes.
pub(super) fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(super) fn put_varint(into: &mut Vec<u8>, value: i64) {
    let mut left = zigzag(value);
    while left >= 0x80 {
        into.push(0x80 | low_bits(left));
        left >>= 7;
    }
    into.push(low_bits(left));
}

fn low_bits(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(value: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        bytes
    }

    #[test]
    fn varints_are_those_of_the_protocol() {
        // From Kafka's `ByteUtilsTest.testVarintSerde` and `testVarlongSerde`.
        let known: [(i64, &[u8]); 10] = [
            (0, &[0x00]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (-65, &[0x81, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (
                i64::MAX,
                &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ];
        for (value, bytes) in known {
            assert_eq!(put(value), bytes, "{value}");
        }
    }

    #[test]
    fn a_varint_that_is_too_long_is_damage() {
        assert_eq!(Cursor(&[0xff; 11]).varlong(), None);
        assert_eq!(Cursor(&[0x80, 0x80]).varlong(), None);
        let above = put(i64::from(i32::MAX) + 1);
        assert_eq!(Cursor(&above).varint(), None);
    }

    proptest! {
        #[test]
        fn every_number_comes_back(value: i64) {
            let bytes = put(value);
            prop_assert_eq!(bytes.len(), varint_bytes(value));
            prop_assert_eq!(Cursor(&bytes).varlong(), Some(value));
        }
    }
}
