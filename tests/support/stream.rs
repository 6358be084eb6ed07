//! One socket type for TCP and unix sockets.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};
use wardent::base::net::Address;

use super::time::PATIENCE;

/// A connected stream socket.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// How the peer's sending ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// An orderly end.
    Fin,
    /// A reset.
    Reset,
}

impl Stream {
    /// Connects, from a given source address where one is given.
    pub(crate) fn connect(to: &Address, from: Option<&str>) -> io::Result<Self> {
        match to {
            Address::Unix(path) => Ok(Self::Unix(UnixStream::connect(path)?)),
            Address::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                if let Some(source) = from {
                    let source = SocketAddr::new(source.parse().unwrap(), 0);
                    socket.bind(&source.into())?;
                }
                socket.connect_timeout(&(*address).into(), PATIENCE)?;
                socket.set_tcp_nodelay(true)?;
                Ok(Self::Tcp(socket.into()))
            }
        }
    }

    /// Bounds every read and write from now on.
    pub(crate) fn set_deadlines(&self, read: Duration, write: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(read))?;
                stream.set_write_timeout(Some(write))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(read))?;
                stream.set_write_timeout(Some(write))
            }
        }
    }

    /// Ends one or both directions.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }

    /// A second handle of the same socket.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    /// Makes the closing of the last handle a reset.
    pub(crate) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            SockRef::from(stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    }

    /// Asks for a small receive buffer, so that a reader who stops is soon felt.
    ///
    /// One smaller than a few segments (64 KiB on loopback) opens its window only when a timer of
    /// the sender's asks: megabytes then take minutes.
    pub(crate) fn receive_little(&self) {
        if let Self::Tcp(stream) = self {
            SockRef::from(stream)
                .set_recv_buffer_size(256 * 1024)
                .unwrap();
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether an error says that the read or write only ran out of time.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Whether an error says that the peer has reset the connection.
pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
    )
}
