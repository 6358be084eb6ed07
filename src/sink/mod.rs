//! Where events go.

pub mod lane;
pub mod lines;
