//! One worker's connections to the servers, kept for the next request.

use std::{cell::RefCell, time::Duration};

use tokio::net::{TcpStream, UnixStream};

use super::{Target, Upstream};
use crate::proxy::{
    buffer::Buffer,
    deadline::{Stage, Timers},
    socket::{Side, Socket},
};

/// Connections kept to one server by one worker at most; more are closed after use.
const KEPT_MAX: usize = 256;

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) side: Side,
    pub(crate) buffer: Buffer,
    /// Whether it has served a request before, so that it may have been closed meanwhile.
    pub(crate) used: bool,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectError {
    Refused,
    Late,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since_ms: u64,
}

/// The idle connections of one worker: per server, the latest used last.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Vec<RefCell<Vec<Idle>>>,
    keep: Duration,
}

impl Pool {
    /// An empty pool for `upstream` that keeps a connection for `keep` at most.
    pub(crate) fn new(upstream: &Upstream, keep: Duration) -> Self {
        Self {
            idle: upstream
                .servers()
                .iter()
                .map(|_| RefCell::default())
                .collect(),
            keep,
        }
    }

    /// The connection to server `place` that was used last and still stands, if there is one.
    pub(crate) fn take(&self, place: usize) -> Option<Connection> {
        let mut idle = self.idle.get(place)?.borrow_mut();
        while let Some(latest) = idle.pop() {
            if latest.connection.side.is_quiet() {
                return Some(latest.connection);
            }
        }
        None
    }

    /// Keeps `connection` to server `place`; it must stand between two requests.
    pub(crate) fn give_back(&self, place: usize, mut connection: Connection, now_ms: u64) {
        let Some(idle) = self.idle.get(place) else {
            return;
        };
        let mut idle = idle.borrow_mut();
        if idle.len() < KEPT_MAX && !self.keep.is_zero() {
            connection.used = true;
            connection.buffer.shrink(false);
            idle.push(Idle {
                connection,
                since_ms: now_ms,
            });
        }
    }

    /// Closes what has been idle for too long, and what its server has closed.
    pub(crate) fn reap(&self, now_ms: u64) {
        let keep_ms = u64::try_from(self.keep.as_millis()).unwrap_or(u64::MAX);
        for idle in &self.idle {
            idle.borrow_mut().retain(|one| {
                now_ms.saturating_sub(one.since_ms) < keep_ms && one.connection.side.is_quiet()
            });
        }
    }

    /// How many connections are kept.
    pub(crate) fn kept(&self) -> usize {
        self.idle.iter().map(|idle| idle.borrow().len()).sum()
    }
}

/// Connects to `target`, within `timeout`.
///
/// # Errors
/// When the server refuses, or does not take the connection in time.
pub(crate) async fn connect(
    target: &Target,
    timers: &Timers,
    timeout: Duration,
) -> Result<Connection, ConnectError> {
    let wait = timers.wait(Stage::Connect, timeout);
    let mut connecting = std::pin::pin!(open(target));
    let socket = std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(done) = connecting.as_mut().poll(cx) {
            return std::task::Poll::Ready(done.map_err(|_| ConnectError::Refused));
        }
        match wait.over() {
            Some(_) => std::task::Poll::Ready(Err(ConnectError::Late)),
            None => std::task::Poll::Pending,
        }
    })
    .await?;
    Ok(Connection {
        side: Side::new(socket),
        buffer: Buffer::default(),
        used: false,
    })
}

async fn open(target: &Target) -> std::io::Result<Socket> {
    match target {
        Target::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Socket::Tcp(stream))
        }
        Target::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
    }
}
