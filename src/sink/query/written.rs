//! Partitions for tests, written as Wardent writes them.

use std::sync::Arc;

use crate::log::{
    build::{Builder, Compression},
    store::Partition,
};

/// A batch of events: each its moment and its JSON; an empty one is a tombstone.
pub(crate) type Events<'a> = &'a [(i64, &'a str)];

/// One partition for each list of batches.
pub(crate) fn partitions(batches: &[&[Events<'_>]]) -> Vec<Arc<Partition>> {
    let mut builder = Builder::new();
    (0..)
        .zip(batches)
        .map(|(index, batches)| {
            let partition = Partition::new(index);
            for events in *batches {
                for (timestamp_ms, event) in *events {
                    let value = (!event.is_empty()).then_some(event.as_bytes());
                    builder.push(*timestamp_ms, Some(b"key"), value, &[]);
                }
                partition.append(builder.finish(Compression::Lz4));
            }
            partition
        })
        .collect()
}
