//! One question per file: may this request pass?
//!
//! Guards see the head alone, so none of them can wait, and none reads a body. Their order and its
//! reasons stand in [`chain`]; what they decide by is the [`policy`].

pub mod blame;
pub mod bots;
pub mod chain;
pub mod explain;
pub mod limit;
pub mod path;
pub mod policy;
pub mod route;
pub mod signature;
pub mod tally;
pub mod verdict;
