//! Wardent's own table of clients, cold lane and keeper, under the scheduler of `shuttle`.
//!
//! The files are those of Wardent. Two of `limit` have a stand-in here: the atomics are shuttle's, and
//! so is the lock of the map. A test then runs one interleaving after the other.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "only a part of each room is used here"
)]

pub mod base;
pub mod client;
pub mod limit;
