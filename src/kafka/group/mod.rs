//! Groups of consumers: who reads which partitions, and how far they are.
//!
//! One machine without clock, disk or network decides ([`Coordinator`]); one task drives it. What a group has
//! committed or assigned is a record of the topic `__consumer_offsets`, in Kafka's own format, and is
//! answered when it is on disk.

mod ages;
mod ask;
mod classic;
mod coordinator;
mod groups;
mod member;
mod offsets;
mod owner;
mod rebalance;
mod record;
mod replay;
mod shown;
mod writes;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub(crate) use ask::{
    Beat, Commit, Committed, Join, Joined, Leave, Sync, Synced, TopicPartition, Who,
};
pub(crate) use groups::Groups;
pub(crate) use owner::start;
pub use replay::groups_in;
pub(crate) use shown::{Described, Listed};
pub use shown::{GroupShown, GroupsShown, MemberShown, OffsetShown};
#[cfg(test)]
pub(crate) use {ask::JoinedMember, shown::DescribedMember};
#[cfg(test)]
use {owner::TOPIC, record::partition_of};
