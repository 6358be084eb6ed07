//! The log as a whole, played through step by step.

mod crashes;
mod reading;
mod rig;
