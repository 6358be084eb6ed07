//! How the house talks about itself: log lines for the operator.

pub mod log;
