//! Where events go.

pub mod bans;
pub mod lines;
pub mod publisher;
