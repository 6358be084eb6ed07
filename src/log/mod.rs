//! The append-only log, in Kafka's own on-disk format.

pub mod batch;
pub mod build;
mod lz4;
pub mod murmur2;
pub mod record;

pub use batch::{Batch, Damage, HEADER_BYTES, Header, View};
pub use build::{Builder, Compression};
pub use murmur2::{murmur2, partition_of};
pub use record::{Record, Records};

#[cfg(test)]
mod fuzz;
