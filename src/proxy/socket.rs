//! Byte streams, whatever carries them, and reading and writing under a deadline.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::{
    buffer::Buffer,
    deadline::{Stage, Wait},
};

/// A connected byte stream.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// The near end of an HTTP/2 stream that has been turned into HTTP/1.1.
    Pipe(DuplexStream),
}

impl Socket {
    pub(crate) fn reader(&mut self) -> Pin<&mut (dyn AsyncRead + Unpin)> {
        match self {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Unix(stream) => Pin::new(stream),
            Self::Pipe(stream) => Pin::new(stream),
        }
    }

    pub(crate) fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        match self {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Unix(stream) => Pin::new(stream),
            Self::Pipe(stream) => Pin::new(stream),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => pin!(stream.read_buf(into)).poll(cx),
            Self::Unix(stream) => pin!(stream.read_buf(into)).poll(cx),
            Self::Pipe(stream) => pin!(stream.read_buf(into)).poll(cx),
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[&[u8]; PIECES],
    ) -> Poll<io::Result<usize>> {
        let [first, second, third] = *pieces;
        if second.is_empty() && third.is_empty() {
            return self.writer().poll_write(cx, first);
        }
        let slices = [first, second, third].map(IoSlice::new);
        self.writer().poll_write_vectored(cx, &slices)
    }

    /// Whether nothing has come in since the last read, neither bytes nor an end.
    ///
    /// Asks the runtime's readiness first, so that for a quiet connection it is no system call.
    fn is_quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut probe = ReadBuf::new(&mut byte);
        self.reader()
            .poll_read(&mut Context::from_waker(Waker::noop()), &mut probe)
            .is_pending()
    }
}

/// Why a read or a write did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireError {
    /// The stream broke, or ended where more was due.
    Broken,
    /// The deadline of this stage passed.
    Late(Stage),
}

/// One side of an exchange: the client or the upstream.
///
/// One future of a task may read while another writes; two may not do the same.
#[derive(Debug)]
pub(crate) struct Side {
    socket: RefCell<Socket>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

/// The most that is written in one call, in pieces.
const PIECES: usize = 3;

impl Side {
    pub(crate) fn new(socket: Socket) -> Self {
        Self {
            socket: RefCell::new(socket),
            received: Cell::new(0),
            sent: Cell::new(0),
        }
    }

    /// Bytes read so far, on the wire.
    pub(crate) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Bytes written so far, on the wire.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Whether nothing has come in since the last read, neither bytes nor an end.
    pub(crate) fn is_quiet(&self) -> bool {
        self.socket.borrow_mut().is_quiet()
    }

    /// Reads what there is, about `room` bytes at most; zero at the stream's end.
    ///
    /// # Errors
    /// When the stream breaks, or `wait` is over first.
    pub(crate) async fn fill(
        &self,
        buffer: &mut Buffer,
        room: usize,
        wait: &Wait,
    ) -> Result<usize, WireError> {
        let into = buffer.room(room);
        poll_fn(|cx| match self.socket.borrow_mut().poll_read(cx, into) {
            Poll::Ready(Ok(count)) => {
                self.received.set(self.received.get() + count as u64);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(WireError::Broken)),
            Poll::Pending => wait.over().map_or(Poll::Pending, |stage| {
                Poll::Ready(Err(WireError::Late(stage)))
            }),
        })
        .await
    }

    /// Writes all of `pieces`; `wait` starts anew, `idle` long, with every progress.
    ///
    /// # Errors
    /// When the stream breaks, or takes nothing for `idle`.
    pub(crate) async fn write(
        &self,
        mut pieces: [&[u8]; PIECES],
        wait: &Wait,
        idle: Duration,
    ) -> Result<(), WireError> {
        poll_fn(|cx| {
            loop {
                let left: usize = pieces.iter().map(|piece| piece.len()).sum();
                if left == 0 {
                    return Poll::Ready(Ok(()));
                }
                match self.socket.borrow_mut().poll_write(cx, &pieces) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(WireError::Broken)),
                    Poll::Ready(Ok(count)) => {
                        self.sent.set(self.sent.get() + count as u64);
                        advance(&mut pieces, count);
                        if count < left {
                            wait.restart(idle);
                        }
                    }
                    Poll::Pending => {
                        return wait.over().map_or(Poll::Pending, |stage| {
                            Poll::Ready(Err(WireError::Late(stage)))
                        });
                    }
                }
            }
        })
        .await
    }

    /// From now on, closing the stream resets it, where it can be reset.
    pub(crate) fn reset_on_close(&self) {
        if let Socket::Tcp(stream) = &*self.socket.borrow() {
            // A peer that is gone needs no reset.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Gives the stream back, for another protocol.
    pub(crate) fn into_socket(self) -> Socket {
        self.socket.into_inner()
    }

    /// Says that no more will be written; what is unread can still be read.
    pub(crate) async fn finish_writing(&self) {
        // A peer that is gone needs no farewell.
        let _ = poll_fn(|cx| self.socket.borrow_mut().writer().poll_shutdown(cx)).await;
    }
}

/// Cuts the first `count` bytes off `pieces`.
fn advance(pieces: &mut [&[u8]; PIECES], mut count: usize) {
    for piece in pieces {
        let cut = count.min(piece.len());
        *piece = piece.get(cut..).unwrap_or_default();
        count -= cut;
    }
}
