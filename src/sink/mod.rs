//! Where events go, and how they are read back.

pub mod builder;
pub mod lane;
pub mod lines;
pub mod query;
pub mod salt;
pub mod verify;
