//! The crate kafka-protocol as a second opinion: requests that it wrote are read, answers are read by it.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::{Malformed, Reader, Shape, Writer};
use crate::kafka::table::{self, Key};

/// The body of a request, as the crate writes it.
pub(crate) fn body(request: &impl Encodable, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    request.encode(&mut bytes, version).unwrap();
    bytes.freeze()
}

/// Reads a request that the crate wrote, to its end.
pub(crate) fn read<T>(
    key: Key,
    version: i16,
    request: &impl Encodable,
    read: impl FnOnce(&mut Reader) -> Result<T, Malformed>,
) -> T {
    let mut reader = Reader::new(body(request, version), shape(key, version));
    let read = read(&mut reader).unwrap();
    reader.end().unwrap();
    read
}

/// Has an answer read by the crate, to its end.
pub(crate) fn written<T: Decodable>(key: Key, version: i16, write: impl FnOnce(&mut Writer)) -> T {
    let mut writer = Writer::new(Vec::new(), shape(key, version));
    write(&mut writer);
    let mut bytes = Bytes::from(writer.into_bytes());
    let decoded = T::decode(&mut bytes, version).unwrap();
    assert!(
        bytes.is_empty(),
        "{key:?} v{version}: {} bytes too many",
        bytes.len()
    );
    decoded
}

/// How that version of an API looks.
pub(crate) fn shape(key: Key, version: i16) -> Shape {
    table::row(key.code()).unwrap().shape(version)
}

/// The versions of an API that are served.
pub(crate) fn versions(key: Key) -> std::ops::RangeInclusive<i16> {
    let row = table::row(key.code()).unwrap();
    row.served_from..=row.newest
}
