//! How the world reads the log, and writes to it: the Kafka protocol.

mod error;
mod table;
mod wire;

pub use error::ErrorCode;
