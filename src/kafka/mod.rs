//! How the world reads the log, and writes to it: the Kafka protocol.

pub mod auth;
mod error;
pub mod quota;
pub mod sasl;
mod table;
pub mod tls;
mod wire;

pub use error::ErrorCode;
