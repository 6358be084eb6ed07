//! Where events go.

pub mod bans;
pub mod builder;
pub mod lane;
pub mod lines;
pub mod publisher;
pub mod salt;
pub mod shelf;
