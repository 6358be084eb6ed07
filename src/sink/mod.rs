//! Where events go, and how they are read back.

pub mod bans;
pub mod builder;
pub mod lane;
pub mod letters;
pub mod lines;
pub mod publisher;
pub mod query;
pub mod salt;
pub mod shelf;
pub mod verify;
