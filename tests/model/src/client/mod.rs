//! Who is calling.

#[path = "../../../../src/client/key.rs"]
mod key;
#[path = "../../../../src/client/peer.rs"]
mod peer;

pub use key::ClientKey;
