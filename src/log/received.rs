//! A batch of a client, before it is taken: all that a broker checks of one, and what it sets right.
//!
//! A client numbers its records from 0 without a gap, marks nothing that is the broker's to mark, and says who
//! it is where it numbers its batches. What it says of the latest time is not believed but made right, as
//! Kafka's `LogValidator` does.

use std::fmt;

use super::batch::{Batch, CRC, Damage, Header, View, crc_of, put};

/// Records that are named where some do not fit the topic.
const NAMED_MAX: usize = 1000;

/// Where these fields of a batch begin.
const ATTRIBUTES: usize = 21;
const MAX_TIMESTAMP: usize = 35;
const LOG_APPEND_TIME: i16 = 1 << 3;

/// What a topic asks of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// That they have keys: without one nobody can say what would replace a record when it is compacted.
    pub keys: bool,
    /// That they are not later than this, in Unix milliseconds.
    pub latest_ms: i64,
}

impl Demands {
    /// Nothing.
    pub const NONE: Self = Self {
        keys: false,
        latest_ms: i64::MAX,
    };
}

/// Why a batch of a client is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It is not whole, or no batch.
    Damaged(Damage),
    /// It says something that no client may say.
    Claims(Claim),
    /// Some records, by their number in the batch, do not fit the topic; the first thousand of them.
    Records(Fault, Vec<u32>),
}

/// What no client may say of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// That it has no records, or other offsets than so many records take.
    Offsets,
    /// That its records are marks of transactions.
    Control,
    /// That it is part of a transaction, of which there are none here.
    Transaction,
    /// When its tombstones may go.
    Horizon,
    /// Who produced it, but in no epoch, or with no number.
    Sequence,
}

/// Why a record does not fit a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It has no key, and the topic is compacted.
    NoKey,
    /// It is of a time that is too far ahead.
    Late,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offsets => "the batch has not as many records as offsets",
            Self::Control => "clients write no control records",
            Self::Transaction => "transactions are not supported",
            Self::Horizon => "clients set no delete horizon",
            Self::Sequence => "the batch has a producer id but no epoch or sequence number",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "a compacted topic takes no record without a key",
            Self::Late => "the record's time is too far ahead",
        })
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(damage) => damage.fmt(f),
            Self::Claims(claim) => claim.fmt(f),
            Self::Records(fault, _) => fault.fmt(f),
        }
    }
}

impl std::error::Error for Unfit {}

impl From<Damage> for Unfit {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl Batch {
    /// Takes the bytes of one batch of a client, and only one, after all checks: its bounds, its checksum, what
    /// it says of itself, each record. `scratch` is where records are unpacked to.
    ///
    /// Where it says another latest time than its records have, or that the broker set their times, that is
    /// set right.
    ///
    /// # Errors
    /// With what is wrong; [`Damage::Length`] where something follows the batch.
    pub fn received(
        mut bytes: Vec<u8>,
        demands: Demands,
        scratch: &mut Vec<u8>,
    ) -> Result<Self, Unfit> {
        let (view, rest) = View::read(&bytes)?;
        if !rest.is_empty() {
            let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            return Err(Damage::Length(length).into());
        }
        view.verify()?;
        claim(&view).map_or(Ok(()), |claim| Err(Unfit::Claims(claim)))?;
        let attributes = view.attributes() & !LOG_APPEND_TIME;
        let mut is_changed = attributes != view.attributes();
        if is_changed {
            put(&mut bytes, ATTRIBUTES, attributes.to_be_bytes());
        }
        let (view, _) = View::read(&bytes)?;
        let latest_ms = look(&view, demands, scratch)?;
        if latest_ms != view.max_timestamp() {
            is_changed = true;
            put(&mut bytes, MAX_TIMESTAMP, latest_ms.to_be_bytes());
        }
        if is_changed {
            let crc = crc_of(&bytes);
            put(&mut bytes, CRC, crc.to_be_bytes());
        }
        Ok(Self::built(bytes)?)
    }
}

/// What the batch says of itself and may not.
fn claim(batch: &Header) -> Option<Claim> {
    let offsets = i64::from(batch.last_offset_delta()) + 1;
    let is_numbered = batch.producer_epoch() >= 0 && batch.base_sequence() >= 0;
    if offsets != i64::from(batch.count()) {
        Some(Claim::Offsets)
    } else if batch.is_control() {
        Some(Claim::Control)
    } else if batch.is_transactional() {
        Some(Claim::Transaction)
    } else if batch.delete_horizon().is_some() {
        Some(Claim::Horizon)
    } else if batch.producer_id() >= 0 && !is_numbered {
        Some(Claim::Sequence)
    } else {
        None
    }
}

/// Looks at each record. Returns the latest time of them.
fn look(view: &View<'_>, demands: Demands, scratch: &mut Vec<u8>) -> Result<i64, Unfit> {
    let (mut keyless, mut late) = (Vec::new(), Vec::new());
    let mut latest_ms = i64::MIN;
    for (index, record) in (0..).zip(view.records(scratch)?) {
        let record = record?;
        latest_ms = latest_ms.max(record.timestamp_ms);
        if demands.keys && record.key.is_none() && keyless.len() < NAMED_MAX {
            keyless.push(index);
        }
        if record.timestamp_ms > demands.latest_ms && late.len() < NAMED_MAX {
            late.push(index);
        }
    }
    match (keyless.is_empty(), late.is_empty()) {
        (false, _) => Err(Unfit::Records(Fault::NoKey, keyless)),
        (true, false) => Err(Unfit::Records(Fault::Late, late)),
        (true, true) => Ok(latest_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Builder, Compression};

    fn sent(records: &[(i64, Option<&[u8]>)]) -> Vec<u8> {
        let mut builder = Builder::new();
        for (time_ms, key) in records {
            builder.push(*time_ms, *key, Some(&[b'v'; 500]), &[]);
        }
        builder.finish(Compression::Gzip).bytes().to_vec()
    }

    /// The batch with another field, and the checksum that it should then have.
    fn with<const N: usize>(mut bytes: Vec<u8>, at: usize, field: [u8; N]) -> Vec<u8> {
        put(&mut bytes, at, field);
        let crc = crc_of(&bytes);
        put(&mut bytes, CRC, crc.to_be_bytes());
        bytes
    }

    fn received(bytes: Vec<u8>, demands: Demands) -> Result<Batch, Unfit> {
        Batch::received(bytes, demands, &mut Vec::new())
    }

    #[test]
    fn what_no_client_may_say_is_refused() {
        let batch = sent(&[(5, None), (6, None), (7, None)]);
        let attributes = i16::from_be_bytes([batch[21], batch[22]]);
        let said: [(usize, &[u8], Claim); 7] = [
            (23, &3_i32.to_be_bytes(), Claim::Offsets),
            (57, &2_i32.to_be_bytes(), Claim::Offsets),
            (57, &0_i32.to_be_bytes(), Claim::Offsets),
            (21, &(attributes | 1 << 5).to_be_bytes(), Claim::Control),
            (21, &(attributes | 1 << 4).to_be_bytes(), Claim::Transaction),
            (21, &(attributes | 1 << 6).to_be_bytes(), Claim::Horizon),
            // A producer's id, with the epoch and the number -1.
            (43, &7_i64.to_be_bytes(), Claim::Sequence),
        ];
        for (at, field, claim) in said {
            let mut other = batch.clone();
            other[at..at + field.len()].copy_from_slice(field);
            let other = with::<0>(other, 61, []);
            assert_eq!(
                received(other, Demands::NONE),
                Err(Unfit::Claims(claim)),
                "{at}"
            );
        }
        assert!(received(batch, Demands::NONE).is_ok());
    }

    #[test]
    fn records_that_do_not_fit_the_topic_are_named() {
        let batch = sent(&[(5, Some(b"a")), (9, None), (6, Some(b"b")), (8, None)]);
        let keys = Demands {
            keys: true,
            ..Demands::NONE
        };
        let times = Demands {
            latest_ms: 7,
            ..Demands::NONE
        };
        let named = Err(Unfit::Records(Fault::NoKey, vec![1, 3]));
        assert_eq!(received(batch.clone(), keys), named);
        let late = Err(Unfit::Records(Fault::Late, vec![1, 3]));
        assert_eq!(received(batch, times), late);
    }

    #[test]
    fn what_is_said_of_times_is_set_right() {
        let batch = sent(&[(5, None), (9, None)]);
        let attributes = i16::from_be_bytes([batch[21], batch[22]]);
        let wrong = with(batch.clone(), 35, 3_i64.to_be_bytes());
        let wrong = with(wrong, 21, (attributes | LOG_APPEND_TIME).to_be_bytes());
        let right = received(wrong, Demands::NONE).unwrap();
        assert_eq!(right.bytes(), batch);
        assert_eq!(right.max_timestamp(), 9);
    }
}
