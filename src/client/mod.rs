//! Who is calling: the one address a request is limited, banned and recorded under.
//!
//! Pure: no I/O, no clock, no allocation. Whoever is not trusted is its own socket address,
//! whatever it says; no identity is an explicit case ([`Who::Nobody`]), never an empty key.

mod claim;
mod edge;
mod identity;
mod key;
mod peer;
mod protected;

pub use claim::{BadClientIp, Claim, Claims};
pub use edge::{CLOUDFLARE_WORKERS, Edge, EdgeNetworks};
pub use identity::{Client, Missing, Trust, Who, identify};
pub use key::{BadClientKey, ClientKey};
pub use peer::{Peer, TrustedPeers, fold};
pub use protected::Protected;
