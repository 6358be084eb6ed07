//! One keep-alive connection: whole messages in, whole messages out.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
};

use memchr::{memchr, memmem};
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::Fallible;

/// A message's head may be so long; more is a fault of the proxy.
const HEAD_BYTES_MAX: usize = 64 * 1024;

pub(crate) struct Connection {
    stream: TcpStream,
    messages: Messages,
    sent: usize,
}

/// What `Connection::receive` found.
pub(crate) struct Received {
    /// Messages whose last byte has now come.
    pub(crate) completed: usize,
    /// The peer will send no more.
    pub(crate) closed: bool,
}

impl Connection {
    /// Takes `stream` over; its events come edge-triggered, so one registration lasts for life.
    pub(crate) fn register(stream: TcpStream, epoll: &OwnedFd, token: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, &stream, EventData::new_u64(token), wanted)?;
        Ok(Self {
            stream,
            messages: Messages::default(),
            sent: 0,
        })
    }

    /// Sends `message` from where the last call stopped; true when its last byte is out.
    pub(crate) fn send(&mut self, message: &[u8]) -> io::Result<bool> {
        while let Some(rest) = message.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        Ok(true)
    }

    /// Reads what is there. `body_length` sees each head and says how long the body after it is.
    pub(crate) fn receive(
        &mut self,
        flags: EventFlags,
        scratch: &mut [u8],
        mut body_length: impl FnMut(&[u8]) -> Fallible<usize>,
    ) -> Fallible<Received> {
        let hangup = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let mut received = Received {
            completed: 0,
            closed: false,
        };
        loop {
            match self.stream.read(scratch) {
                Ok(0) => {
                    received.closed = true;
                    return Ok(received);
                }
                // HAProxy ends its idle pooled connections so.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    received.closed = true;
                    return Ok(received);
                }
                Ok(count) => {
                    received.completed +=
                        self.messages.feed(&scratch[..count], &mut body_length)?;
                    // epoll(7): a short read has emptied the socket. Only the end may still be in it.
                    if count < scratch.len() && !hangup {
                        return Ok(received);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(received),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Follows the messages of one direction: looks at heads, only counts bodies.
#[derive(Default)]
struct Messages {
    /// The beginning of a head whose end has not come.
    head: Vec<u8>,
    body_left: usize,
}

impl Messages {
    /// Takes what was read and returns how many messages it completed.
    fn feed(
        &mut self,
        mut bytes: &[u8],
        mut body_length: impl FnMut(&[u8]) -> Fallible<usize>,
    ) -> Fallible<usize> {
        let mut completed = 0;
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let count = bytes.len().min(self.body_left);
                self.body_left -= count;
                bytes = &bytes[count..];
            } else if self.head.is_empty() {
                let Some(end) = head_end(bytes) else {
                    self.head.extend_from_slice(bytes);
                    break;
                };
                self.body_left = body_length(&bytes[..end])?;
                bytes = &bytes[end..];
            } else {
                let before = self.head.len();
                self.head.extend_from_slice(bytes);
                let Some(end) = head_end(&self.head) else {
                    break;
                };
                self.body_left = body_length(&self.head[..end])?;
                self.head.clear();
                bytes = &bytes[end - before..];
            }
            completed += usize::from(self.body_left == 0);
        }
        if self.head.len() > HEAD_BYTES_MAX {
            return Err("a message's head does not end".into());
        }
        Ok(completed)
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The `Content-Length` of a head. Every message of the rig has one; a proxy that answers or forwards
/// in chunks instead does other work than its rivals.
pub(crate) fn content_length(head: &[u8]) -> Fallible<usize> {
    const NAME: &[u8] = b"content-length:";
    let mut rest = head;
    while let Some(at) = memchr(b'\n', rest) {
        let (line, after) = rest.split_at(at + 1);
        rest = after;
        if let Some((name, value)) = line.split_at_checked(NAME.len())
            && name.eq_ignore_ascii_case(NAME)
        {
            return Ok(std::str::from_utf8(value)?.trim().parse()?);
        }
    }
    Err(format!("no Content-Length in {:?}", String::from_utf8_lossy(head)).into())
}
