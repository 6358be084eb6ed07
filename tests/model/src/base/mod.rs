//! Values without opinions.

#[path = "../../../../src/base/units.rs"]
pub mod units;
