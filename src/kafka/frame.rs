//! What stands before a request and an answer: a length, and a header.
//!
//! ```text
//! length i32, of what follows
//! request:  key i16, version i16, correlation i32, client id, tags where the version is flexible
//! answer:   correlation i32, tags where the version is flexible (never in ApiVersions)
//! ```

use bytes::Bytes;

use super::{
    table::{self, Key, Row},
    wire::{Malformed, Reader, Shape},
};

/// The longest request that is read (Kafka's `socket.request.max.bytes`, which is 100 MiB there), in bytes.
pub(crate) const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The same where logging in is asked for and has not happened.
pub(crate) const LOGIN_BYTES_MAX: usize = 64 * 1024;

/// Key, version and correlation.
const REQUEST_BYTES_MIN: usize = 8;

/// Bytes that tell how long what follows is.
pub(crate) const LENGTH_BYTES: usize = 4;

/// How long a request is; none where it cannot be one.
pub(crate) fn length_of(prefix: [u8; LENGTH_BYTES], bytes_max: usize) -> Option<usize> {
    let length = usize::try_from(i32::from_be_bytes(prefix)).ok()?;
    (REQUEST_BYTES_MIN..=bytes_max)
        .contains(&length)
        .then_some(length)
}

/// What a request says before it says what it wants.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) correlation: i32,
    pub(crate) client_id: Option<String>,
    /// The API, and what is left of the request.
    pub(crate) asked: Asked,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A version that is advertised, with the request's body.
    Spoken(&'static Row, Reader),
    /// An API that is spoken, in a version that is not.
    Version(Key, i16),
    /// An API that is not spoken.
    Unknown(i16, i16),
}

/// Reads the header of a request.
///
/// # Errors
/// When it is none.
pub(crate) fn header(frame: Bytes) -> Result<Header, Malformed> {
    // The client id has a fixed length in every version, so that it can be read before the version is known.
    let fixed = Shape {
        version: 0,
        is_flexible: false,
    };
    let mut front = Reader::new(frame, fixed);
    let (key, version) = (front.i16()?, front.i16()?);
    let correlation = front.i32()?;
    let unread = |asked| Header {
        correlation,
        client_id: None,
        asked,
    };
    let Some(row) = table::row(key) else {
        return Ok(unread(Asked::Unknown(key, version)));
    };
    if !row.has(version) {
        return Ok(unread(Asked::Version(row.key, version)));
    }
    let client_id = front.nullable_string()?;
    let mut body = front.reshaped(row.shape(version));
    body.tags()?;
    Ok(Header {
        correlation,
        client_id,
        asked: Asked::Spoken(row, body),
    })
}

/// The beginning of an answer: room for its length, its correlation, and tags where it has them.
pub(crate) fn begin(correlation: i32, key: Key, shape: Shape) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH_BYTES];
    bytes.extend_from_slice(&correlation.to_be_bytes());
    // Who asks for the versions cannot know yet which header the answer has (KIP-511).
    if shape.is_flexible && key != Key::ApiVersions {
        bytes.push(0);
    }
    bytes
}

/// Writes the length of an answer that is complete.
pub(crate) fn end(bytes: &mut [u8]) {
    let length = bytes.len().saturating_sub(LENGTH_BYTES);
    let length = i32::try_from(length).unwrap_or(i32::MAX);
    if let Some(prefix) = bytes.first_chunk_mut() {
        *prefix = length.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_that_of_a_request() {
        for (prefix, length) in [
            (0x7fff_ffff, None),
            (-1, None),
            (0, None),
            (3, None),
            (7, None),
            (8, Some(8)),
            (i32::from_be_bytes(*b"GET "), None),
            (16 * 1024 * 1024, Some(16 * 1024 * 1024)),
            (16 * 1024 * 1024 + 1, None),
        ] {
            assert_eq!(
                length_of(i32::to_be_bytes(prefix), REQUEST_BYTES_MAX),
                length,
                "{prefix}"
            );
        }
    }

    #[test]
    fn an_unknown_version_is_read_as_far_as_its_correlation() {
        let frame = Bytes::from_static(b"\x00\x12\x7f\xff\x00\x00\x00\x07\xff\xff");
        let header = header(frame).unwrap();
        assert_eq!(header.correlation, 7);
        assert!(matches!(
            header.asked,
            Asked::Version(Key::ApiVersions, 0x7fff)
        ));
    }
}
