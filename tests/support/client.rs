//! A client that sends exactly the bytes it is told and reads answers strictly.

use std::{
    io::{self, Write},
    net::Shutdown,
    time::Duration,
};

use wardent::base::net::Address;

use super::{
    message::{Fields, Framing, Response, ResponseHead, Wire},
    stream::{self, Ending, Stream},
    time::PATIENCE,
};

/// A connection of a client.
#[derive(Debug)]
pub(crate) struct RawClient {
    wire: Wire<Stream>,
}

impl RawClient {
    /// Connects from the loopback address the system picks.
    pub(crate) fn connect(to: &Address) -> Self {
        Self::connect_as(to, None)
    }

    /// Connects from a source address of the test's choosing.
    pub(crate) fn connect_from(to: &Address, source: &str) -> Self {
        Self::connect_as(to, Some(source))
    }

    /// Connects, or says why not.
    pub(crate) fn try_connect(to: &Address) -> io::Result<Self> {
        let stream = Stream::connect(to, None)?;
        stream.set_deadlines(PATIENCE, PATIENCE)?;
        Ok(Self {
            wire: Wire::new(stream),
        })
    }

    fn connect_as(to: &Address, source: Option<&str>) -> Self {
        let stream = Stream::connect(to, source).unwrap();
        stream.set_deadlines(PATIENCE, PATIENCE).unwrap();
        Self {
            wire: Wire::new(stream),
        }
    }

    /// Waits longer, or less long, for what it reads.
    pub(crate) fn patience(&self, read: Duration) {
        self.wire.source.set_deadlines(read, PATIENCE).unwrap();
    }

    /// Sends bytes; a peer that does not take them is a failed test.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.source.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends bytes to a peer that may have had enough already; says whether it took them all.
    pub(crate) fn send_anyway(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.source.write_all(bytes.as_ref()).is_ok()
    }

    /// Reads a whole response to a request of this method.
    pub(crate) fn response(&mut self, method: &str) -> Response {
        self.try_response(method)
            .unwrap_or_else(|error| panic!("no whole response to {method}: {error}"))
    }

    /// Reads a whole response to a request of this method, or says what came instead.
    pub(crate) fn try_response(&mut self, method: &str) -> io::Result<Response> {
        self.wire.response(method)
    }

    /// Sends a request and reads the answer.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        let method = method_of(request.as_ref());
        self.send(request);
        self.response(&method)
    }

    /// Reads the next response head, also an informational one.
    pub(crate) fn response_head(&mut self) -> ResponseHead {
        self.wire
            .response_head()
            .unwrap_or_else(|error| panic!("no response head: {error}"))
    }

    /// Reads the rest of a body whose head was read apart; what came before an error stays in `body`.
    pub(crate) fn body(&mut self, framing: Framing, body: &mut Vec<u8>) -> io::Result<Fields> {
        self.wire.body(framing, body)
    }

    /// Reads one chunk.
    pub(crate) fn chunk(&mut self) -> io::Result<Vec<u8>> {
        self.wire.chunk()
    }

    /// Reads exactly so many bytes.
    pub(crate) fn exact(&mut self, len: usize) -> Vec<u8> {
        self.try_exact(len)
            .unwrap_or_else(|error| panic!("not {len} more bytes: {error}"))
    }

    /// Reads exactly so many bytes, or says why not.
    pub(crate) fn try_exact(&mut self, len: usize) -> io::Result<Vec<u8>> {
        self.wire.exact(len)
    }

    /// Reads bytes as chunk data until so many have come, whatever the chunks' sizes.
    pub(crate) fn chunk_bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let chunk = self.chunk().unwrap();
            assert!(!chunk.is_empty(), "the body ended after {bytes:?}");
            bytes.extend_from_slice(&chunk);
        }
        bytes
    }

    /// Reads to the end of the connection: the bytes, and how it ended (`None`: it stayed open).
    pub(crate) fn ending(&mut self) -> (Vec<u8>, Option<Ending>) {
        let mut bytes = self.wire.pending().to_vec();
        let len = bytes.len();
        self.wire.exact(len).unwrap();
        loop {
            match self.wire.fill() {
                Ok(()) => {
                    let len = self.wire.pending().len();
                    bytes.extend_from_slice(&self.wire.exact(len).unwrap());
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return (bytes, Some(Ending::Fin));
                }
                Err(error) if stream::is_reset(&error) => return (bytes, Some(Ending::Reset)),
                Err(error) if stream::is_timeout(&error) => return (bytes, None),
                Err(error) => panic!("reading to the end: {error}"),
            }
        }
    }

    /// Asserts that nothing more comes and that the connection ends, one way or the other.
    pub(crate) fn assert_closed(&mut self, id: &str) {
        let (bytes, ending) = self.ending();
        assert!(
            bytes.is_empty(),
            "{id}: bytes after the answer: {:?}",
            super::message::latin1(&bytes)
        );
        assert!(ending.is_some(), "{id}: the connection stayed open");
    }

    /// Whether the peer says nothing and leaves the connection open for so long.
    pub(crate) fn stays_quiet(&mut self, time: Duration) -> bool {
        if !self.wire.pending().is_empty() {
            return false;
        }
        self.patience(time);
        let outcome = self.wire.fill();
        self.patience(PATIENCE);
        matches!(outcome, Err(error) if stream::is_timeout(&error))
    }

    /// Says that it will send no more, and goes on reading.
    pub(crate) fn half_close(&self) {
        self.wire.source.shutdown(Shutdown::Write).unwrap();
    }

    /// Goes away with a reset.
    pub(crate) fn reset(self) {
        self.wire.source.reset_on_close();
    }

    /// Asks the kernel for a small receive buffer.
    pub(crate) fn receive_little(&self) {
        self.wire.source.receive_little();
    }

    /// A second handle of the socket, for a thread that writes while this one reads.
    pub(crate) fn writer(&self) -> Stream {
        self.wire.source.try_clone().unwrap()
    }
}

/// The method a request starts with.
pub(crate) fn method_of(request: &[u8]) -> String {
    let method = request.split(|&byte| byte == b' ').next();
    super::message::latin1(method.unwrap_or_default())
}
