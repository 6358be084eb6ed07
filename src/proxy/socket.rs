//! Byte streams, whatever carries them, and reading and writing under a deadline.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, ReadBuf},
    net::{TcpStream, UnixStream},
    task::coop,
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

    /// Whether nothing has come in since the last read, neither bytes nor an end, as far as the
    /// runtime knows; a stream that is not quiet has lost a byte and is of no more use.
    ///
    /// For a quiet connection it is no system call.
    fn is_quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut probe = ReadBuf::new(&mut byte);
        // Unconstrained: a task that has used up its budget would find every stream quiet.
        let mut reading = pin!(coop::unconstrained(poll_fn(|cx| {
            self.reader().poll_read(cx, &mut probe)
        })));
        reading
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    }

    /// Whether bytes or an end wait to be read, as the system knows it; nothing is taken.
    fn has_unread(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Self::Tcp(stream) => SockRef::from(stream).peek(&mut byte),
            Self::Unix(stream) => SockRef::from(stream).peek(&mut byte),
            Self::Pipe(_) => return false,
        };
        !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
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

    /// Whether nothing has come in since the last read, neither bytes nor an end. For streams
    /// between two uses: one that is not quiet must be closed.
    pub(crate) fn is_quiet(&self) -> bool {
        self.socket.borrow_mut().is_quiet()
    }

    /// Whether bytes or an end wait to be read. Asks the system; takes nothing.
    pub(crate) fn has_unread(&self) -> bool {
        self.socket.borrow().has_unread()
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
        self.read(buffer, room, || wait.over()).await
    }

    /// As [`Self::fill`], for however long the caller has patience: it must end this by itself.
    ///
    /// # Errors
    /// When the stream breaks.
    pub(crate) async fn fill_at_leisure(
        &self,
        buffer: &mut Buffer,
        room: usize,
    ) -> Result<usize, WireError> {
        self.read(buffer, room, || None).await
    }

    async fn read(
        &self,
        buffer: &mut Buffer,
        room: usize,
        over: impl Fn() -> Option<Stage>,
    ) -> Result<usize, WireError> {
        let into = buffer.room(room);
        poll_fn(|cx| match self.socket.borrow_mut().poll_read(cx, into) {
            Poll::Ready(Ok(count)) => {
                self.received.set(self.received.get() + count as u64);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(WireError::Broken)),
            Poll::Pending => over().map_or(Poll::Pending, |stage| {
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
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn what_is_asked_for_without_reading_is_still_there() {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let side = Side::new(Socket::Unix(UnixStream::from_std(near).unwrap()));
        assert!(!side.has_unread());
        far.write_all(b"GET").unwrap();
        assert!(side.has_unread());
        let mut buffer = Buffer::default();
        assert_eq!(side.fill_at_leisure(&mut buffer, 64).await, Ok(3));
        assert_eq!(buffer.bytes(), b"GET");
        assert!(!side.has_unread());
        drop(far);
        assert!(side.has_unread(), "an end is something to read");
    }

    #[tokio::test]
    async fn a_task_that_has_used_up_its_budget_still_sees_an_end() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let side = Side::new(Socket::Unix(UnixStream::from_std(near).unwrap()));
        drop(far);
        // The runtime learns of the end.
        while side.is_quiet() {
            tokio::task::yield_now().await;
        }
        while coop::has_budget_remaining() {
            coop::consume_budget().await;
        }
        assert!(!side.is_quiet());
    }
}
