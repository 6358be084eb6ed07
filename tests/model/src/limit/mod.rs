//! How often a client may ask: all of Wardent's, but for the atomics and the map.

#[path = "../../../../src/limit/cell.rs"]
mod cell;
#[path = "../../../../src/limit/clients.rs"]
pub mod clients;
#[path = "../../../../src/limit/cold.rs"]
pub mod cold;
#[path = "../../../../src/limit/gcra.rs"]
pub mod gcra;
#[path = "../../../../src/limit/keeper.rs"]
mod keeper;
#[path = "../../../../src/limit/networks.rs"]
mod networks;
mod sync;
mod table;

pub use cell::{CellKey, ClientCell};
pub use clients::{Clients, Clock, ClockIds, Limit, Sighting, Spent};
pub use gcra::{Quota, Ticks, ticks};
pub use keeper::Keeper;
pub use networks::BannedNetworks;
