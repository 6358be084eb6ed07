//! How the house talks about itself: log lines for the operator, traces for a collector, signs of life for a
//! monitor.

pub mod log;
pub mod otlp;
pub mod post;
pub mod trace_context;
