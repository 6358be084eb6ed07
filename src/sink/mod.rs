//! Where events go.

pub mod lines;
