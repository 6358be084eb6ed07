//! Where events go, and how they are read back.

pub mod lines;
pub mod query;
pub mod verify;
