//! Makes batches of records, complete but for their place in the partition.

use super::{
    batch::{self, Batch, Damage, HEADER_BYTES, UNPACKED_BYTES_MAX, View},
    codec::{Compression, Packer},
    record::{Record, put_varint, varint_bytes},
};

/// Below it compressing costs time and saves next to nothing, in bytes of records. What it would not make
/// fewer bytes is not compressed either.
const PACKED_BYTES_MIN: usize = 1024;

/// Puts records together, one batch after the other. Its memory is used again: a record costs no allocation.
#[derive(Debug, Default)]
pub struct Builder {
    records: Vec<u8>,
    shape: Shape,
    packer: Packer,
    scratch: Vec<u8>,
}

/// What the header will say of the records.
#[derive(Debug, Clone, Copy)]
struct Shape {
    base_offset: i64,
    leader_epoch: i32,
    attributes: i16,
    last_offset_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    count: u32,
}

/// The one of records of a producer that numbers none of them.
impl Default for Shape {
    fn default() -> Self {
        Self {
            base_offset: 0,
            leader_epoch: 0,
            attributes: 0,
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: NO_TIMESTAMP,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: 0,
        }
    }
}

/// `RecordBatch.NO_TIMESTAMP` of Kafka.
const NO_TIMESTAMP: i64 = -1;

impl Shape {
    /// What a batch of which some records stay keeps of its header.
    fn of(view: &View<'_>, delete_horizon_ms: Option<i64>) -> Self {
        let horizon = view.delete_horizon().or(delete_horizon_ms);
        let mut attributes = view.attributes() & !batch::CODEC;
        if horizon.is_some() {
            attributes |= batch::DELETE_HORIZON;
        }
        Self {
            base_offset: view.base_offset(),
            leader_epoch: view.leader_epoch(),
            attributes,
            last_offset_delta: view.last_offset_delta(),
            base_timestamp: horizon.unwrap_or_else(|| view.base_timestamp()),
            max_timestamp: view.append_time().unwrap_or(NO_TIMESTAMP),
            producer_id: view.producer_id(),
            producer_epoch: view.producer_epoch(),
            base_sequence: view.base_sequence(),
            count: 0,
        }
    }

    /// The batch of these records, stored as they are in `payload`.
    fn sealed(&self, payload: &[u8]) -> Result<Batch, Damage> {
        let length = HEADER_BYTES - batch::LENGTH_END + payload.len();
        let length = i32::try_from(length).map_err(|_| Damage::Length(i32::MAX))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend_from_slice(&self.base_offset.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.leader_epoch.to_be_bytes());
        bytes.extend_from_slice(&batch::MAGIC.to_be_bytes());
        // The checksum, when the rest is there.
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.attributes.to_be_bytes());
        bytes.extend_from_slice(&self.last_offset_delta.to_be_bytes());
        bytes.extend_from_slice(&self.base_timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.max_timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.producer_id.to_be_bytes());
        bytes.extend_from_slice(&self.producer_epoch.to_be_bytes());
        bytes.extend_from_slice(&self.base_sequence.to_be_bytes());
        bytes.extend_from_slice(&self.count.to_be_bytes());
        bytes.extend_from_slice(payload);
        let crc = batch::crc_of(&bytes);
        batch::put(&mut bytes, batch::CRC, crc.to_be_bytes());
        Batch::built(bytes)
    }
}

/// The parts of a record that differ between one that comes and one that is kept.
struct Parts<'a> {
    timestamp_delta: i64,
    offset_delta: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl Builder {
    /// A builder without records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record, made at `timestamp_ms` (Unix milliseconds).
    ///
    /// How large a batch becomes is its maker's to decide: [`Self::raw_bytes`] says how far it is. What is
    /// more than [`UNPACKED_BYTES_MAX`] is not compressed, so that it can be read back.
    #[inline]
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) {
        if self.shape.count == 0 {
            self.shape.base_timestamp = timestamp_ms;
        }
        let parts = Parts {
            // Times so far apart that this wraps are none; a reader's sum wraps back.
            timestamp_delta: timestamp_ms.wrapping_sub(self.shape.base_timestamp),
            offset_delta: i64::from(self.shape.count),
            key,
            value,
        };
        let headers_bytes: usize = headers
            .iter()
            .map(|(name, value)| stored_bytes(Some(name.as_bytes())) + stored_bytes(Some(value)))
            .sum();
        self.put_parts(&parts, headers.len(), headers_bytes);
        for (name, value) in headers {
            self.put_bytes(Some(name.as_bytes()));
            self.put_bytes(Some(value));
        }
        self.shape.max_timestamp = self.shape.max_timestamp.max(timestamp_ms);
        self.shape.last_offset_delta = i32::try_from(self.shape.count).unwrap_or(i32::MAX);
        self.shape.count += 1;
    }

    /// Bytes of the records so far, before compression.
    pub fn raw_bytes(&self) -> usize {
        self.records.len()
    }

    /// How many records there are.
    pub fn count(&self) -> u32 {
        self.shape.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.shape.count == 0
    }

    /// The batch of these records, in place 0 of epoch 0; the builder is then empty.
    ///
    /// # Panics
    /// When the records are more than 2 GiB, which is more than a batch can say of itself.
    pub fn finish(&mut self, compression: Compression) -> Batch {
        let mut shape = std::mem::take(&mut self.shape);
        let is_packed = compression != Compression::None
            && (PACKED_BYTES_MIN..=UNPACKED_BYTES_MAX).contains(&self.records.len());
        let mut payload = self.records.as_slice();
        if is_packed {
            let packed = self.packer.pack(compression, &self.records);
            if packed.len() < payload.len() {
                shape.attributes |= compression.attributes();
                payload = packed;
            }
        }
        let batch = shape.sealed(payload);
        self.records.clear();
        #[expect(
            clippy::expect_used,
            reason = "a batch that is too large is our own mistake"
        )]
        batch.expect("a batch is below 2 GiB")
    }

    /// The batch that `view` becomes when only the records that `keep` names stay, as compaction leaves it:
    /// with its offsets, times, producer and epoch, and `delete_horizon_ms` (KIP-534), or that it has
    /// already. It may have no record left. Records not yet finished are gone.
    ///
    /// # Errors
    /// When the records of `view` cannot be read.
    pub fn rewrite(
        &mut self,
        view: &View<'_>,
        delete_horizon_ms: Option<i64>,
        compression: Compression,
        mut keep: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<Batch, Damage> {
        self.records.clear();
        self.shape = Shape::of(view, delete_horizon_ms);
        let mut scratch = std::mem::take(&mut self.scratch);
        let kept = view.records(&mut scratch).and_then(|records| {
            for record in records {
                let record = record?;
                if keep(&record) {
                    self.keep(&record);
                }
            }
            Ok(())
        });
        self.scratch = scratch;
        match kept {
            Ok(()) => Ok(self.finish(compression)),
            Err(damage) => {
                self.records.clear();
                self.shape = Shape::default();
                Err(damage)
            }
        }
    }

    fn keep(&mut self, record: &Record<'_>) {
        let parts = Parts {
            timestamp_delta: record.timestamp_ms.wrapping_sub(self.shape.base_timestamp),
            offset_delta: record.offset - self.shape.base_offset,
            key: record.key,
            value: record.value,
        };
        let headers = record.headers.bytes();
        self.put_parts(&parts, record.headers.count() as usize, headers.len());
        self.records.extend_from_slice(headers);
        self.shape.max_timestamp = self.shape.max_timestamp.max(record.timestamp_ms);
        self.shape.count += 1;
    }

    /// A record up to the count of its headers.
    #[inline]
    fn put_parts(&mut self, parts: &Parts<'_>, headers: usize, headers_bytes: usize) {
        let headers = i64::try_from(headers).unwrap_or(i64::MAX);
        let length = 1
            + varint_bytes(parts.timestamp_delta)
            + varint_bytes(parts.offset_delta)
            + stored_bytes(parts.key)
            + stored_bytes(parts.value)
            + varint_bytes(headers)
            + headers_bytes;
        self.records.reserve(5 + length);
        put_varint(&mut self.records, i64::try_from(length).unwrap_or(i64::MAX));
        // Attributes: none are defined.
        self.records.push(0);
        put_varint(&mut self.records, parts.timestamp_delta);
        put_varint(&mut self.records, parts.offset_delta);
        self.put_bytes(parts.key);
        self.put_bytes(parts.value);
        put_varint(&mut self.records, headers);
    }

    #[inline]
    fn put_bytes(&mut self, bytes: Option<&[u8]>) {
        put_varint(&mut self.records, length_of(bytes));
        self.records.extend_from_slice(bytes.unwrap_or_default());
    }
}

/// What stands before bytes: -1 where there are none.
fn length_of(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX))
}

fn stored_bytes(bytes: Option<&[u8]>) -> usize {
    varint_bytes(length_of(bytes)) + bytes.map_or(0, <[u8]>::len)
}

#[cfg(test)]
mod tests;
