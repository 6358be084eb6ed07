//! What happened, as data, encoded once.

pub mod access;
pub mod time;
