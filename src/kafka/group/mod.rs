//! Groups of consumers: who reads which partitions, and how far they are.
//!
//! One machine without clock, disk or network decides ([`Coordinator`]); one task drives it. What a group has
//! committed or assigned is a record of the topic `__consumer_offsets`, in Kafka's own format, and is
//! answered when it is on disk.

mod ask;
mod classic;
mod coordinator;
mod member;
mod offsets;
mod rebalance;
mod record;
mod writes;

#[cfg(test)]
mod model;


pub(crate) use ask::{
    Beat, Commit, Committed, Effect, Join, Joined, JoinedMember, Leave, Now, Sync, Synced, Ticket,
    TopicPartition, Who, Write, WriteId,
};
pub(crate) use coordinator::{Coordinator, Ids};
pub(crate) use record::partition_of;
pub(crate) use writes::NotKept;
