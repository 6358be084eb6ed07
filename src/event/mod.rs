//! What happened, as data, encoded once.

pub mod access;
pub mod place;
pub mod privacy;
pub mod time;
