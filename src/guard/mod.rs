//! (room guard)

pub mod path;
pub mod route;
pub mod signature;
