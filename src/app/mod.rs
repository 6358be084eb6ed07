//! Wires everything together: bind, spawn, serve, drain.

use std::{net::SocketAddr, path::Path};

use crate::base::net::Address;

/// A Wardent that serves, inside this process. Dropping it stops it at once.
#[derive(Debug)]
pub struct Running {}

/// Why Wardent could not start, in words for the operator.
#[derive(Debug)]
pub struct StartError(pub String);

/// Starts everything `wardent run --config FILE` starts, and returns when it serves.
///
/// # Errors
/// When the configuration is refused, or an address, file or directory it names cannot be used.
pub fn start(_config: &Path) -> Result<Running, StartError> {
    Ok(Running {})
}

impl Running {
    /// The addresses the proxy listens on, in the order of `listen`, with the ports the system picked.
    pub fn proxy(&self) -> &[Address] {
        &[]
    }

    /// The address of the admin listener.
    pub fn admin(&self) -> Option<SocketAddr> {
        None
    }

    /// Reads the policy again, as `wardent reload` does.
    ///
    /// # Errors
    /// The report of what is wrong with the files, when they are refused.
    pub fn reload(&self) -> Result<(), String> {
        Ok(())
    }

    /// Begins to drain, as SIGTERM does, and returns at once.
    pub fn drain(&self) {}

    /// Waits until the drain has ended.
    pub fn wait(self) {}
}
