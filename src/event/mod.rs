//! What happened, as data, encoded once.

pub mod access;
pub mod ascii;
pub mod audit;
pub mod avro;
pub mod ban;
pub mod exchange;
pub mod flat;
pub mod place;
pub mod privacy;
pub mod time;
