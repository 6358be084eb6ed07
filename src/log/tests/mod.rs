//! The log as a whole, played through step by step.

mod reading;
mod rig;
