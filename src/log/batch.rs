//! A batch of records as Kafka stores and sends it: RecordBatch v2 (KIP-98).
//!
//! ```text
//!  0 base offset i64            21 attributes i16           43 producer id i64
//!  8 length i32, from byte 12   23 last offset delta i32    51 producer epoch i16
//! 12 leader epoch i32           27 base timestamp i64       53 base sequence i32
//! 16 magic i8, 2                35 max timestamp i64        57 records i32
//! 17 CRC-32C u32, from byte 21                              61 the records, or their compressed form
//! ```
//!
//! The base offset and the leader epoch stand outside the checksum, so that whoever appends sets them
//! without touching the rest. Reading takes bytes of anybody: it never panics, and what it allocates is bounded.

use std::{fmt, ops::Deref};

use super::{
    codec::{Compression, unpack},
    record::{Common, RECORD_BYTES_MIN, Records},
};

/// What stands before the records.
pub const HEADER_BYTES: usize = 61;

/// What records of one batch may unpack to, in bytes.
pub const UNPACKED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Base offset and length: what the length does not count.
pub(super) const LENGTH_END: usize = 12;
/// Where the checksum stands, and where the part begins that it is of.
pub(super) const CRC: usize = 17;
const CRC_END: usize = 21;
pub(super) const MAGIC: i8 = 2;

/// Bits of the attributes.
pub(super) const CODEC: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
pub(super) const DELETE_HORIZON: i16 = 1 << 6;

/// Why bytes are no batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Damage {
    /// There are fewer bytes than the batch has.
    TooShort,
    /// The length cannot be that of a batch.
    Length(i32),
    /// Of another format.
    Magic(i8),
    /// The offsets cannot be those of a batch.
    Offsets,
    /// The checksum is another.
    Crc,
    /// The records are more or fewer than it says.
    Count,
    /// Compressed in a way that there is none of, by its number in the attributes.
    Compression(u8),
    /// What is compressed cannot be unpacked, or is more than [`UNPACKED_BYTES_MAX`].
    Packed,
    /// The record that is the so manieth of the batch, from 0.
    Record(u32),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("the batch is cut off"),
            Self::Length(length) => write!(f, "a batch cannot have the length {length}"),
            Self::Magic(magic) => write!(f, "the batch has the magic {magic} and not 2"),
            Self::Offsets => f.write_str("the offsets of the batch are none"),
            Self::Crc => f.write_str("the batch's checksum does not fit its bytes"),
            Self::Count => f.write_str("the batch has not as many records as it says"),
            Self::Compression(codec) => {
                write!(f, "there is no compression {codec}")
            }
            Self::Packed => f.write_str("the batch's compressed records cannot be unpacked"),
            Self::Record(index) => write!(f, "record {index} of the batch is damaged"),
        }
    }
}

impl std::error::Error for Damage {}

/// What stands before the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    base_offset: i64,
    length: i32,
    leader_epoch: i32,
    crc: u32,
    attributes: i16,
    last_offset_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    count: u32,
}

impl Header {
    /// The header at the front of `bytes`; whether the rest of the batch is there is not asked.
    ///
    /// # Errors
    /// When there are not 61 bytes, or they cannot be a header: of another format, shorter than itself,
    /// with offsets below zero or not as many as the records.
    pub fn read(bytes: &[u8]) -> Result<Self, Damage> {
        let header = bytes
            .first_chunk::<HEADER_BYTES>()
            .ok_or(Damage::TooShort)?;
        let magic = i8::from_be_bytes(field(header, 16));
        if magic != MAGIC {
            return Err(Damage::Magic(magic));
        }
        let length = i32::from_be_bytes(field(header, 8));
        let payload = usize::try_from(length)
            .ok()
            .and_then(|length| (LENGTH_END + length).checked_sub(HEADER_BYTES))
            .ok_or(Damage::Length(length))?;
        let header = Self {
            base_offset: i64::from_be_bytes(field(header, 0)),
            length,
            leader_epoch: i32::from_be_bytes(field(header, 12)),
            crc: u32::from_be_bytes(field(header, 17)),
            attributes: i16::from_be_bytes(field(header, 21)),
            last_offset_delta: i32::from_be_bytes(field(header, 23)),
            base_timestamp: i64::from_be_bytes(field(header, 27)),
            max_timestamp: i64::from_be_bytes(field(header, 35)),
            producer_id: i64::from_be_bytes(field(header, 43)),
            producer_epoch: i16::from_be_bytes(field(header, 51)),
            base_sequence: i32::from_be_bytes(field(header, 53)),
            count: i32::from_be_bytes(field(header, 57))
                .try_into()
                .map_err(|_| Damage::Count)?,
        };
        header.check_offsets()?;
        header.check_count(payload)?;
        Ok(header)
    }

    fn check_offsets(&self) -> Result<(), Damage> {
        let are_offsets = self.base_offset >= 0
            && self.last_offset_delta >= 0
            && self
                .base_offset
                .checked_add(i64::from(self.last_offset_delta))
                .is_some_and(|last| last < i64::MAX);
        are_offsets.then_some(()).ok_or(Damage::Offsets)
    }

    /// An offset is one record's at the most, and no record is shorter than [`RECORD_BYTES_MIN`].
    fn check_count(&self, payload: usize) -> Result<(), Damage> {
        let count = u64::from(self.count);
        let offsets = i64::from(self.last_offset_delta) + 1;
        let is_packed = self.attributes & CODEC != 0;
        let fitting = if is_packed {
            UNPACKED_BYTES_MAX
        } else {
            payload
        } / RECORD_BYTES_MIN;
        let fits = count <= offsets.cast_unsigned() && count <= fitting as u64;
        fits.then_some(()).ok_or(Damage::Count)
    }

    /// Bytes of the whole batch, with the header.
    pub fn size(&self) -> usize {
        LENGTH_END + usize::try_from(self.length).unwrap_or(0)
    }

    /// The offset of its first record, or of the one that compaction took from there.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// The offset of its last record, or of the one that compaction took from there.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// How far the last offset is from the first.
    pub fn last_offset_delta(&self) -> i32 {
        self.last_offset_delta
    }

    /// The epoch of the leader that appended it.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// What the checksum should be.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// As they are stored.
    pub fn attributes(&self) -> i16 {
        self.attributes
    }

    /// What the records' times are told from, in Unix milliseconds.
    pub fn base_timestamp(&self) -> i64 {
        self.base_timestamp
    }

    /// The latest time of its records, in Unix milliseconds.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Who produced it; -1 where the producer is not idempotent.
    pub fn producer_id(&self) -> i64 {
        self.producer_id
    }

    /// The epoch of its producer.
    pub fn producer_epoch(&self) -> i16 {
        self.producer_epoch
    }

    /// The producer's number of its first record.
    pub fn base_sequence(&self) -> i32 {
        self.base_sequence
    }

    /// Its records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether its records are marks of transactions.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether it is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// The number of its compression: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub fn codec(&self) -> u8 {
        (self.attributes & CODEC).to_le_bytes()[0]
    }

    /// When its tombstones may go, in Unix milliseconds (KIP-534).
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// The time of its first record, in Unix milliseconds; where the header does not tell it, the latest.
    pub fn first_timestamp(&self) -> i64 {
        match self.append_time().is_some() || self.delete_horizon().is_some() {
            true => self.max_timestamp,
            false => self.base_timestamp,
        }
    }

    pub(super) fn append_time(&self) -> Option<i64> {
        (self.attributes & LOG_APPEND_TIME != 0).then_some(self.max_timestamp)
    }
}

/// The field that begins at `at`. Where it would not fit, it is zero; no field does so.
fn field<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    header
        .get(at..)
        .and_then(|from| from.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

/// A whole batch inside other bytes; its [`Header`] is had through it.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    header: Header,
    bytes: &'a [u8],
    payload: &'a [u8],
}

impl Deref for View<'_> {
    type Target = Header;

    fn deref(&self) -> &Header {
        &self.header
    }
}

impl<'a> View<'a> {
    /// The batch at the front of `bytes`, and what follows it. Its checksum is not looked at.
    ///
    /// # Errors
    /// When there is no whole batch.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Damage> {
        let header = Header::read(bytes)?;
        let (bytes, rest) = bytes
            .split_at_checked(header.size())
            .ok_or(Damage::TooShort)?;
        let payload = bytes.get(HEADER_BYTES..).unwrap_or_default();
        let view = Self {
            header,
            bytes,
            payload,
        };
        Ok((view, rest))
    }

    /// Checks the bytes against their checksum. The base offset and the leader epoch are not part of it.
    ///
    /// # Errors
    /// When it is another.
    pub fn verify(&self) -> Result<(), Damage> {
        let is_right = crc_of(self.bytes) == self.header.crc;
        is_right.then_some(()).ok_or(Damage::Crc)
    }

    /// The batch as it is stored.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its records; `scratch` is where they are unpacked to, if they are compressed.
    ///
    /// # Errors
    /// When they cannot be unpacked, or are too few bytes for so many.
    pub fn records<'s>(&self, scratch: &'s mut Vec<u8>) -> Result<Records<'s>, Damage>
    where
        'a: 's,
    {
        let common = Common {
            base_offset: self.base_offset,
            last_offset_delta: self.last_offset_delta,
            base_timestamp: self.base_timestamp,
            append_time: self.append_time(),
            count: self.count,
        };
        let codec = self.codec();
        match Compression::of(codec).ok_or(Damage::Compression(codec))? {
            Compression::None => Records::new(self.payload, common),
            packed @ (Compression::Gzip
            | Compression::Snappy
            | Compression::Lz4
            | Compression::Zstd) => {
                unpack(packed, self.payload, UNPACKED_BYTES_MAX, scratch)?;
                Records::new(scratch, common)
            }
        }
    }
}

pub(super) fn crc_of(batch: &[u8]) -> u32 {
    crc32c::crc32c(batch.get(CRC_END..).unwrap_or_default())
}

/// A complete batch that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    header: Header,
    bytes: Vec<u8>,
}

impl Deref for Batch {
    type Target = Header;

    fn deref(&self) -> &Header {
        &self.header
    }
}

impl Batch {
    /// Takes what the builder made, or what was checked already.
    pub(super) fn built(bytes: Vec<u8>) -> Result<Self, Damage> {
        let header = Header::read(&bytes)?;
        Ok(Self { header, bytes })
    }

    /// As it is stored and sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives it its place in the partition. The checksum stays right.
    pub fn place(&mut self, base_offset: i64, leader_epoch: i32) {
        self.header.base_offset = base_offset;
        self.header.leader_epoch = leader_epoch;
        put(&mut self.bytes, 0, base_offset.to_be_bytes());
        put(&mut self.bytes, 12, leader_epoch.to_be_bytes());
    }
}

/// Overwrites the field at `at`, which is there.
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, field: [u8; N]) {
    debug_assert!(at + N <= bytes.len(), "no field at {at}");
    if let Some(place) = bytes.get_mut(at..at + N) {
        place.copy_from_slice(&field);
    }
}
