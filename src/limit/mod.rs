//! How often a client may ask: exact clocks, and the one table of those who asked.
//!
//! The arithmetic ([`gcra`]) knows neither clock nor table. A known client's clocks stand in its
//! [`ClientCell`]; those of anybody else in the [`cold`] lane, an array of fixed size, until the
//! owner has made a cell. [`Clients`] joins both: workers only read it, and what they write is one
//! atomic of a clock. Nothing here ever waits.

mod cell;
pub mod clients;
pub mod cold;
pub mod gcra;
mod keeper;
mod networks;
pub mod spending;
mod sync;
mod table;
#[cfg(test)]
mod tests;

pub use cell::{CellKey, ClientCell};
pub use clients::{Clients, Clock, ClockIds, Limit, Sighting, Spent};
pub use gcra::{Quota, Ticks, seconds, ticks};
pub use keeper::Keeper;
pub use networks::BannedNetworks;
