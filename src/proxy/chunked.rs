//! The chunked transfer coding, taken off strictly (RFC 9112 section 7.1).
//!
//! Extensions are skipped and never passed on. Nothing here waits or copies: the decoder says how
//! many of the bytes that are there are body, and its caller takes them.

use super::buffer::Buffer;

/// Bytes of chunk extensions in one body at most, so that they cannot be a second, unjudged body.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a trailer section at most.
const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// Fields of a trailer section at most.
const TRAILERS_MAX: usize = 64;
/// Digits of a chunk size at most: 2^60 bytes, more than any body.
const SIZE_DIGITS_MAX: u8 = 15;

/// The coding was broken; the body has no end that could be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChunk(pub(crate) &'static str);

/// What stands at the front of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// So many bytes of body, at least one; the caller consumes them.
    Data(usize),
    /// Nothing that could be judged yet.
    NeedMore,
    /// The end; the trailers are whole.
    End,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataCarriageReturn,
    DataLineFeed,
    Trailers,
    End,
}

/// Takes the coding off one body.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    state: State,
    digits: u8,
    left: u64,
    extension_bytes: usize,
    trailers: Vec<u8>,
}

impl Decoder {
    /// The trailer section as it came, each line with its end, without the empty last one.
    pub(crate) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Says that `count` bytes of the last [`Found::Data`] have been consumed.
    pub(crate) fn took(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count as u64);
        if self.left == 0 {
            self.state = State::DataCarriageReturn;
        }
    }

    /// Looks at the front of `buffer`, and consumes what is coding.
    pub(crate) fn find(&mut self, buffer: &mut Buffer) -> Result<Found, BadChunk> {
        loop {
            match self.state {
                State::Data if buffer.is_empty() => return Ok(Found::NeedMore),
                State::Data => {
                    let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                    return Ok(Found::Data(left.min(buffer.len())));
                }
                State::Trailers => return self.find_trailers(buffer),
                State::End => return Ok(Found::End),
                State::Size
                | State::Extension
                | State::SizeLineFeed
                | State::DataCarriageReturn
                | State::DataLineFeed => {
                    let Some(&byte) = buffer.bytes().first() else {
                        return Ok(Found::NeedMore);
                    };
                    buffer.consume(1);
                    self.state = self.after(byte)?;
                }
            }
        }
    }

    fn after(&mut self, byte: u8) -> Result<State, BadChunk> {
        match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLineFeed),
            (State::Size, b';') if self.digits > 0 => Ok(State::Extension),
            (State::Size, byte) => self.after_digit(byte),
            (State::Extension, b'\r') => Ok(State::SizeLineFeed),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension_bytes += 1;
                if self.extension_bytes > EXTENSION_BYTES_MAX {
                    return Err(BadChunk("too many chunk extensions"));
                }
                Ok(State::Extension)
            }
            (State::SizeLineFeed, b'\n') => {
                self.digits = 0;
                Ok(if self.left == 0 {
                    State::Trailers
                } else {
                    State::Data
                })
            }
            (State::DataCarriageReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::Size),
            _ => Err(BadChunk("a bad chunk")),
        }
    }

    fn after_digit(&mut self, byte: u8) -> Result<State, BadChunk> {
        let digit = char::from(byte)
            .to_digit(16)
            .ok_or(BadChunk("a bad chunk size"))?;
        self.digits += 1;
        if self.digits > SIZE_DIGITS_MAX {
            return Err(BadChunk("a chunk size that is too long"));
        }
        self.left = self.left * 16 + u64::from(digit);
        Ok(State::Size)
    }

    fn find_trailers(&mut self, buffer: &mut Buffer) -> Result<Found, BadChunk> {
        while let Some(at) = memchr::memchr(b'\n', buffer.bytes()) {
            let line = buffer.front(at + 1);
            if line == b"\r\n" {
                buffer.consume(2);
                self.state = State::End;
                check_trailers(&self.trailers)?;
                return Ok(Found::End);
            }
            if !line.ends_with(b"\r\n") || self.trailers.len() + line.len() > TRAILER_BYTES_MAX {
                return Err(BadChunk("a bad trailer section"));
            }
            self.trailers.extend_from_slice(line);
            buffer.consume(at + 1);
        }
        if buffer.len() + self.trailers.len() > TRAILER_BYTES_MAX {
            return Err(BadChunk("a trailer section that is too long"));
        }
        Ok(Found::NeedMore)
    }
}

/// Trailers must be fields as in a head.
fn check_trailers(section: &[u8]) -> Result<(), BadChunk> {
    fields_of(section, |_, _| {})
}

/// Calls `each` with the name and value of every field of a trailer section.
pub(crate) fn fields_of(
    section: &[u8],
    mut each: impl FnMut(&[u8], &[u8]),
) -> Result<(), BadChunk> {
    if section.is_empty() {
        return Ok(());
    }
    let mut whole = Vec::with_capacity(section.len() + 2);
    whole.extend_from_slice(section);
    whole.extend_from_slice(b"\r\n");
    let mut fields = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    match httparse::parse_headers(&whole, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => {
            for field in fields {
                each(field.name.as_bytes(), field.value);
            }
            Ok(())
        }
        Ok(httparse::Status::Partial) | Err(_) => Err(BadChunk("a bad trailer section")),
    }
}

/// Appends the size line of a chunk of `length` bytes, which is not zero: zero ends a body.
pub(crate) fn write_size(length: usize, out: &mut Vec<u8>) {
    debug_assert!(length > 0, "an empty chunk would end the body");
    let mut digits = [0; 16];
    let mut rest = length;
    let mut first = digits.len();
    while rest > 0 {
        first -= 1;
        if let Some(digit) = digits.get_mut(first) {
            *digit = b"0123456789abcdef".get(rest % 16).copied().unwrap_or(b'0');
        }
        rest /= 16;
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input`, handed over in pieces of `piece` bytes.
    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<u8>, bool), BadChunk> {
        let mut decoder = Decoder::default();
        let mut buffer = Buffer::default();
        let mut body = Vec::new();
        for part in input.chunks(piece) {
            buffer.room(part.len()).extend_from_slice(part);
            loop {
                match decoder.find(&mut buffer)? {
                    Found::Data(count) => {
                        body.extend_from_slice(buffer.front(count));
                        buffer.consume(count);
                        decoder.took(count);
                    }
                    Found::NeedMore => break,
                    Found::End => return Ok((body, decoder.trailers().to_vec(), true)),
                }
            }
        }
        Ok((body, Vec::new(), false))
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let input = b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
        for piece in 1..=input.len() {
            let (body, trailers, ended) = decode(input, piece).unwrap();
            assert_eq!(body, b"hello world");
            assert_eq!(trailers, b"X-Sum: 1\r\n");
            assert!(ended);
        }
    }

    #[test]
    fn a_body_without_its_end_never_ends() {
        let input = b"5\r\nhello\r\n0\r\n";
        assert!(!decode(input, 3).unwrap().2);
    }

    #[test]
    fn sloppy_coding_is_refused() {
        for input in [
            "0x5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "5_0\r\nhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "\r\nhello\r\n",
            "0\n\r\n",
            "0\r\n\n",
            "0\r\nbad trailer\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "1000000000000000\r\n",
            "5;a\u{1}\r\nhello\r\n",
        ] {
            assert!(decode(input.as_bytes(), 7).is_err(), "{input:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000));
        assert!(decode(extension.as_bytes(), 4096).is_err());
        let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(5_000));
        assert!(decode(trailers.as_bytes(), 4096).is_err());
    }

    #[test]
    fn sizes_are_written_without_padding() {
        let mut out = Vec::new();
        write_size(1, &mut out);
        write_size(0xabc_def0, &mut out);
        assert_eq!(out, b"1\r\nabcdef0\r\n");
    }
}
