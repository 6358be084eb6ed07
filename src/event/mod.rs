//! What happened, as data, encoded once.

pub mod access;
mod ascii;
pub mod audit;
pub mod avro;
pub mod ban;
pub mod exchange;
pub mod place;
pub mod privacy;
pub mod time;
