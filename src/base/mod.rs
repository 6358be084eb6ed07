//! Ground: values without opinions.

pub mod net;
pub mod units;
