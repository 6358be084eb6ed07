//! The log as a whole, played through step by step.

mod changing;
mod crashes;
mod crowded;
mod failing;
mod halfway;
mod indexes;
mod measured;
mod mending;
mod opening;
mod reading;
mod replaying;
pub(super) mod rig;
mod running;
mod swapping;
