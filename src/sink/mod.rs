//! Where events go.

pub mod builder;
pub mod lane;
pub mod lines;
pub mod salt;
