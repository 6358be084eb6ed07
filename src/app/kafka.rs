//! The Kafka listener inside this process: bound before anything is served, ended before the log is closed.

use std::{net::SocketAddr, sync::Arc};

use super::{StartError, sockets::KafkaSocket};
use crate::{
    base::{clock::Clock, net::Address},
    config::wardent,
    kafka::{self, Listening, Settings, Socket},
    log::Log,
};

/// Serves the log to Kafka clients on `socket`.
///
/// # Errors
/// When the system gives no thread, or the log cannot be read.
pub(super) fn start(
    socket: KafkaSocket,
    document: &wardent::Log,
    log: &Arc<Log>,
    clock: &Clock,
) -> Result<Listening, StartError> {
    let KafkaSocket { socket, address } = socket;
    let settings = settings(document, &address);
    kafka::start(socket, settings, Arc::clone(log), clock.clone())
        .map_err(|error| StartError::System(format!("the Kafka listener: {error}")))
}

/// What clients are told to connect to: what the operator says, or else where it listens.
fn settings(document: &wardent::Log, address: &Address) -> Settings {
    /// Where a unix socket is reached through something else.
    const USUAL: (&str, u16) = ("127.0.0.1", 9092);
    let (host, port) = match (&document.advertised, address) {
        (Some(stated), _) => (stated.host.clone(), stated.port),
        (None, Address::Tcp(address)) => (address.ip().to_string(), address.port()),
        (None, Address::Unix(_)) => (USUAL.0.to_owned(), USUAL.1),
    };
    Settings { host, port }
}

impl KafkaSocket {
    /// A TCP socket that is bound.
    pub(super) fn tcp(socket: std::net::TcpListener, address: SocketAddr) -> Self {
        Self {
            socket: Socket::Tcp(socket),
            address: Address::Tcp(address),
        }
    }
}
