//! How the world reads the log, and writes to it: the Kafka protocol.
//!
//! What it guarantees:
//! - It runs on a thread and a runtime of its own, less urgent than requests: no client, however many, sick or
//!   greedy, keeps a request waiting.
//! - What comes is bounded before anything is allocated for it, and read by code of this room alone.
//! - What is acknowledged as written is in the log as the topic promises; what is read is below the high
//!   watermark.
//! - Topics of Wardent's own are written by Wardent alone.
//!
//! An API is one file in `api/`, one row in `table.rs` and one line in `api/mod.rs`. `docs/kafka-support.md`
//! is held to the table.

mod access;
mod api;
pub mod auth;
mod broker;
mod connection;
mod counters;
mod error;
mod frame;
mod group;
mod listener;
mod login;
mod meta;
mod producers;
pub mod quota;
mod room;
pub mod sasl;
mod table;
pub mod tls;
mod topics;
pub mod users;
mod wire;

pub use access::{
    Account, Sasl, Teller, is_user_name, read as read_credential, written as written_credential,
};
pub use auth::{Operation, Principal, Resource, is_reserved};
pub use broker::{Security, Settings};
pub use counters::{Count, Counters, Cut};
pub use error::ErrorCode;
pub use group::{GroupShown, GroupsShown, MemberShown, OffsetShown, groups_in};
pub use listener::{Listening, Socket, start};
pub use topics::{Unkept, differing, restore_kept};

#[cfg(test)]
mod denied;
#[cfg(test)]
mod frugal;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod secured;
#[cfg(test)]
mod tests;
