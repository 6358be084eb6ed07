//! Reading: every step is checked, and costs no more than the bytes that it takes.

use bytes::{Buf, Bytes};

use super::{Malformed, Shape, Uuid};

/// Elements that are allocated for before the first of them was read.
const ELEMENTS_AT_FIRST: usize = 16;

/// The most elements of arrays that a request has, all together: more than there are partitions, groups and
/// committed offsets.
const ELEMENTS_MAX: usize = 100_000;

/// The longest string, in both shapes, as Kafka has it.
const STRING_BYTES_MAX: usize = 32_767;

/// Reads a request, or a part of one.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    left: Bytes,
    shape: Shape,
    /// Of arrays, and tagged fields, that were read.
    elements: usize,
}

impl Reader {
    /// Reads `bytes` as a request of that shape.
    pub(crate) fn new(bytes: Bytes, shape: Shape) -> Self {
        Self {
            left: bytes,
            shape,
            elements: 0,
        }
    }

    /// What is left, to be read as of that shape.
    pub(crate) fn reshaped(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    /// The version that is read.
    pub(crate) fn version(&self) -> i16 {
        self.shape.version
    }

    /// How many elements of arrays were read, and tagged fields.
    pub(crate) fn elements(&self) -> usize {
        self.elements
    }

    fn element(&mut self) -> Result<(), Malformed> {
        self.elements += 1;
        match self.elements > ELEMENTS_MAX {
            true => Err(Malformed("it names more than a request may")),
            false => Ok(()),
        }
    }

    /// Whether anything is left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.left.is_empty()
    }

    /// Ends the request.
    ///
    /// # Errors
    /// When something follows.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        match self.is_at_end() {
            true => Ok(()),
            false => Err(Malformed("something follows its end")),
        }
    }

    /// The next `count` bytes, which share the memory of the whole.
    pub(crate) fn take(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if count > self.left.len() {
            return Err(Malformed("it is shorter than it says"));
        }
        Ok(self.left.split_to(count))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let front = self.left.first_chunk().copied();
        let front = front.ok_or(Malformed("it ends too early"))?;
        self.left.advance(N);
        Ok(front)
    }

    /// INT8
    pub(crate) fn i8(&mut self) -> Result<i8, Malformed> {
        Ok(i8::from_be_bytes(self.fixed()?))
    }

    /// INT16
    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    /// INT32
    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    /// INT64
    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    /// FLOAT64
    pub(crate) fn f64(&mut self) -> Result<f64, Malformed> {
        Ok(f64::from_be_bytes(self.fixed()?))
    }

    /// BOOLEAN: all but 0 is true.
    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.i8()? != 0)
    }

    /// UUID
    pub(crate) fn uuid(&mut self) -> Result<Uuid, Malformed> {
        self.fixed()
    }

    /// `UNSIGNED_VARINT`: seven bits a byte, the lowest first.
    pub(crate) fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.fixed()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a varint has more than 32 bits"))
    }

    /// A length or a count; none for null.
    fn length(
        &mut self,
        fixed: fn(&mut Self) -> Result<i32, Malformed>,
    ) -> Result<Option<usize>, Malformed> {
        if self.shape.is_flexible {
            let stored = self.varint()?;
            return Ok(stored.checked_sub(1).map(|length| length as usize));
        }
        match fixed(self)? {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| Malformed("a length is below zero")),
        }
    }

    fn long(&mut self) -> Result<Option<usize>, Malformed> {
        self.length(Self::i32)
    }

    fn short(&mut self) -> Result<Option<usize>, Malformed> {
        self.length(|own| own.i16().map(i32::from))
    }

    /// `STRING`, `COMPACT_STRING`
    pub(crate) fn string(&mut self) -> Result<String, Malformed> {
        self.nullable_string()?
            .ok_or(Malformed("a string is null that must not be"))
    }

    /// `NULLABLE_STRING`, `COMPACT_NULLABLE_STRING`
    pub(crate) fn nullable_string(&mut self) -> Result<Option<String>, Malformed> {
        let Some(length) = self.short()? else {
            return Ok(None);
        };
        if length > STRING_BYTES_MAX {
            return Err(Malformed("a string is longer than one may be"));
        }
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Malformed("a string is not UTF-8"))?;
        Ok(Some(text.to_owned()))
    }

    /// `BYTES`, `COMPACT_BYTES`; they share no memory with the whole.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let bytes = self.records()?;
        let bytes = bytes.ok_or(Malformed("bytes are null that must not be"))?;
        Ok(Bytes::copy_from_slice(&bytes))
    }

    /// `RECORDS`, `COMPACT_RECORDS`; they share the memory of the whole.
    pub(crate) fn records(&mut self) -> Result<Option<Bytes>, Malformed> {
        match self.long()? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// `ARRAY`, `COMPACT_ARRAY`; one that is null has no elements.
    pub(crate) fn array<T>(
        &mut self,
        each: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        Ok(self.nullable_array(each)?.unwrap_or_default())
    }

    /// `ARRAY`, `COMPACT_ARRAY`, where null means something else than none.
    pub(crate) fn nullable_array<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<Vec<T>>, Malformed> {
        let Some(count) = self.long()? else {
            return Ok(None);
        };
        // No element is shorter than a byte.
        if count > self.left.len() {
            return Err(Malformed("an array has fewer elements than it says"));
        }
        let mut elements = Vec::with_capacity(count.min(ELEMENTS_AT_FIRST));
        for _ in 0..count {
            self.element()?;
            elements.push(each(self)?);
        }
        Ok(Some(elements))
    }

    /// The end of a structure: its tagged fields, none of which is known.
    pub(crate) fn tags(&mut self) -> Result<(), Malformed> {
        self.tagged(|_, _| Ok(()))
    }

    /// The end of a structure: each tagged field, by its tag. What `each` leaves of it is passed over.
    pub(crate) fn tagged(
        &mut self,
        mut each: impl FnMut(u32, &mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if !self.shape.is_flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let length = self.varint()? as usize;
            self.element()?;
            let mut field = Self {
                left: self.take(length)?,
                ..*self
            };
            each(tag, &mut field)?;
            self.elements = field.elements;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Writer, *};

    fn reader(bytes: &'static [u8], is_flexible: bool) -> Reader {
        let shape = Shape {
            version: 0,
            is_flexible,
        };
        Reader::new(Bytes::from_static(bytes), shape)
    }

    #[test]
    fn lengths_are_fixed_or_varints() {
        assert_eq!(reader(b"\0\x02ab", false).string().unwrap(), "ab");
        assert_eq!(reader(b"\x03ab", true).string().unwrap(), "ab");
        assert_eq!(reader(b"\xff\xff", false).nullable_string().unwrap(), None);
        assert_eq!(reader(b"\0", true).nullable_string().unwrap(), None);
        let each = |own: &mut Reader| own.i8();
        assert_eq!(
            reader(b"\0\0\0\x02\x01\x02", false).array(each).unwrap(),
            [1, 2]
        );
        assert_eq!(reader(b"\x03\x01\x02", true).array(each).unwrap(), [1, 2]);
        assert_eq!(
            reader(b"\xff\xff\xff\xff", false)
                .nullable_array(each)
                .unwrap(),
            None
        );
        assert_eq!(reader(b"\0", true).nullable_array(each).unwrap(), None);
        assert_eq!(
            reader(b"\x01", true).nullable_array(each).unwrap(),
            Some(vec![])
        );
    }

    #[test]
    fn a_string_has_32_767_bytes_at_most() {
        let shape = Shape {
            version: 0,
            is_flexible: true,
        };
        let read = |length: u32| {
            let mut writer = Writer::new(Vec::new(), shape);
            writer.varint(length + 1);
            let mut bytes = writer.into_bytes();
            bytes.resize(bytes.len() + length as usize, b'x');
            Reader::new(bytes.into(), shape).string()
        };
        assert_eq!(read(32_767).unwrap().len(), 32_767);
        read(32_768).unwrap_err();
    }

    #[test]
    fn a_varint_has_32_bits() {
        assert_eq!(
            reader(b"\xff\xff\xff\xff\x0f", true).varint().unwrap(),
            u32::MAX
        );
        assert_eq!(reader(b"\xac\x02", true).varint().unwrap(), 300);
        for bytes in [
            b"\xff\xff\xff\xff\x1f".as_slice(),
            b"\x80\x80\x80\x80\x80\x01",
        ] {
            let mut reader = Reader::new(
                Bytes::copy_from_slice(bytes),
                Shape {
                    version: 0,
                    is_flexible: true,
                },
            );
            reader.varint().unwrap_err();
        }
    }

    #[test]
    fn elements_are_counted_wherever_they_stand() {
        let shape = Shape {
            version: 0,
            is_flexible: true,
        };
        let read = |each: u32| {
            let mut writer = Writer::new(Vec::new(), shape);
            writer.varint(100 + 1);
            for _ in 0..100 {
                writer.varint(each + 1);
                (0..each).for_each(|_| writer.i8(0));
            }
            let mut reader = Reader::new(writer.into_bytes().into(), shape);
            let read = reader.array(|from| from.array(Reader::i8));
            read.map(|_| reader.elements())
        };
        assert_eq!(read(999).unwrap(), 100_000);
        read(1_000).unwrap_err();
        // Tagged fields, of no bytes.
        let tags = |count: u32| {
            let mut writer = Writer::new(Vec::new(), shape);
            writer.varint(count);
            (0..2 * count).for_each(|_| writer.varint(0));
            Reader::new(writer.into_bytes().into(), shape).tags()
        };
        tags(100_000).unwrap();
        tags(100_001).unwrap_err();
    }

    #[test]
    fn nothing_is_allocated_for_what_is_not_there() {
        let each = |own: &mut Reader| own.i64();
        for (bytes, is_flexible) in [
            (b"\x7f\xff\xff\xff".as_slice(), false),
            (b"\x80\0\0\0", false),
            (b"\xff\xff\xff\xff\x0f", true),
        ] {
            reader(bytes, is_flexible).array(each).unwrap_err();
            reader(bytes, is_flexible).records().unwrap_err();
        }
    }

    #[test]
    fn unknown_tags_are_passed_over() {
        // Two fields, of two bytes and of none, and then the rest.
        let mut reader = reader(b"\x02\x05\x02ab\x07\0\x2a", true);
        reader.tags().unwrap();
        assert_eq!(reader.i8().unwrap(), 42);
        reader.end().unwrap();
    }

    #[test]
    fn a_field_that_is_longer_than_the_request_is_none() {
        reader(b"\x01\x05\x09ab", true).tags().unwrap_err();
        reader(b"\xff\xff\xff\xff\x0f", true).tags().unwrap_err();
    }
}
