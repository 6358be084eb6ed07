//! Ground: values without opinions.

pub mod net;
