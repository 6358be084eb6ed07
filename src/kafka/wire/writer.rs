//! Writing: the mirror of reading. What is written comes from Wardent, so nothing can fail.

use super::{Shape, Uuid};

/// Writes an answer.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    shape: Shape,
}

impl Writer {
    /// Writes behind `bytes`, in that shape.
    pub(crate) fn new(bytes: Vec<u8>, shape: Shape) -> Self {
        Self { bytes, shape }
    }

    /// The version that is written.
    pub(crate) fn version(&self) -> i16 {
        self.shape.version
    }

    /// What was written.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// INT8
    pub(crate) fn i8(&mut self, value: i8) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// INT16
    pub(crate) fn i16(&mut self, value: i16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// INT32
    pub(crate) fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// INT64
    pub(crate) fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// FLOAT64
    pub(crate) fn f64(&mut self, value: f64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// BOOLEAN
    pub(crate) fn bool(&mut self, value: bool) {
        self.i8(i8::from(value));
    }

    /// UUID
    pub(crate) fn uuid(&mut self, value: &Uuid) {
        self.bytes.extend_from_slice(value);
    }

    /// `UNSIGNED_VARINT`
    pub(crate) fn varint(&mut self, mut value: u32) {
        loop {
            let low = (value & 0x7f).to_le_bytes()[0];
            value >>= 7;
            if value == 0 {
                self.bytes.push(low);
                return;
            }
            self.bytes.push(low | 0x80);
        }
    }

    /// Nothing that Wardent writes has so many bytes or elements that they do not fit.
    fn length(&mut self, length: Option<usize>, fixed: fn(&mut Self, i32)) {
        let length = length.map(|length| i32::try_from(length).unwrap_or(i32::MAX));
        if self.shape.is_flexible {
            self.varint(length.map_or(0, |length| length.cast_unsigned() + 1));
        } else {
            fixed(self, length.unwrap_or(-1));
        }
    }

    /// `STRING`, `COMPACT_STRING`; what is longer than a string may be is cut.
    pub(crate) fn string(&mut self, text: &str) {
        self.nullable_string(Some(text));
    }

    /// `NULLABLE_STRING`, `COMPACT_NULLABLE_STRING`
    pub(crate) fn nullable_string(&mut self, text: Option<&str>) {
        let text = text.map(|text| {
            let end = text.floor_char_boundary(i16::MAX.unsigned_abs().into());
            text.get(..end).unwrap_or_default()
        });
        self.length(text.map(str::len), |own, length| {
            own.i16(i16::try_from(length).unwrap_or(i16::MAX));
        });
        self.bytes
            .extend_from_slice(text.unwrap_or_default().as_bytes());
    }

    /// `BYTES`, `COMPACT_BYTES`
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.nullable_bytes(Some(bytes));
    }

    /// `NULLABLE_BYTES`, `COMPACT_NULLABLE_BYTES`, `RECORDS`, `COMPACT_RECORDS`
    pub(crate) fn nullable_bytes(&mut self, bytes: Option<&[u8]>) {
        self.length(bytes.map(<[u8]>::len), Self::i32);
        self.bytes.extend_from_slice(bytes.unwrap_or_default());
    }

    /// `ARRAY`, `COMPACT_ARRAY`
    pub(crate) fn array<T>(&mut self, elements: &[T], each: impl FnMut(&mut Self, &T)) {
        self.nullable_array(Some(elements), each);
    }

    /// `ARRAY`, `COMPACT_ARRAY`, where null means something else than none.
    pub(crate) fn nullable_array<T>(
        &mut self,
        elements: Option<&[T]>,
        mut each: impl FnMut(&mut Self, &T),
    ) {
        self.length(elements.map(<[T]>::len), Self::i32);
        for element in elements.unwrap_or_default() {
            each(self, element);
        }
    }

    /// The end of a structure: no tagged fields.
    pub(crate) fn tags(&mut self) {
        if self.shape.is_flexible {
            self.varint(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{super::Reader, *};

    #[test]
    fn what_is_written_is_read_back() {
        for is_flexible in [false, true] {
            let shape = Shape {
                version: 3,
                is_flexible,
            };
            let mut writer = Writer::new(Vec::new(), shape);
            writer.i8(-1);
            writer.i16(-2);
            writer.i32(-3);
            writer.i64(-4);
            writer.bool(true);
            writer.uuid(&[7; 16]);
            writer.varint(300);
            writer.string("ä");
            writer.nullable_string(None);
            writer.bytes(b"ab");
            writer.nullable_bytes(None);
            writer.array(&[1, 2], |own, one| own.i32(*one));
            writer.nullable_array::<i32>(None, |own, one| own.i32(*one));
            writer.tags();
            let mut reader = Reader::new(Bytes::from(writer.into_bytes()), shape);
            assert_eq!(reader.version(), 3);
            assert_eq!(reader.i8().unwrap(), -1);
            assert_eq!(reader.i16().unwrap(), -2);
            assert_eq!(reader.i32().unwrap(), -3);
            assert_eq!(reader.i64().unwrap(), -4);
            assert!(reader.bool().unwrap());
            assert_eq!(reader.uuid().unwrap(), [7; 16]);
            assert_eq!(reader.varint().unwrap(), 300);
            assert_eq!(reader.string().unwrap(), "ä");
            assert_eq!(reader.nullable_string().unwrap(), None);
            assert_eq!(reader.bytes().unwrap(), "ab");
            assert_eq!(reader.records().unwrap(), None);
            assert_eq!(reader.array(Reader::i32).unwrap(), [1, 2]);
            assert_eq!(reader.nullable_array(Reader::i32).unwrap(), None);
            reader.tags().unwrap();
            reader.end().unwrap();
        }
    }

    #[test]
    fn a_string_that_is_too_long_is_cut_between_characters() {
        let shape = Shape {
            version: 0,
            is_flexible: false,
        };
        let mut writer = Writer::new(Vec::new(), shape);
        writer.string(&"ä".repeat(20_000));
        let mut reader = Reader::new(Bytes::from(writer.into_bytes()), shape);
        assert_eq!(reader.string().unwrap().len(), 32_766);
    }
}
