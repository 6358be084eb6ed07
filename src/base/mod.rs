//! Ground: values without opinions.

pub mod clock;
pub mod id;
pub mod net;
pub mod network_set;
pub mod units;
