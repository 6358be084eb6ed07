//! Ground: values without opinions.

pub mod abort;
pub mod bell;
pub mod clock;
pub mod disk;
pub mod hlc;
pub mod id;
pub mod ip_text;
pub mod net;
pub mod network_set;
pub mod node;
pub mod units;

#[cfg(test)]
pub(crate) mod fuzz;
