//! The application behind the proxy: the same answer to every request, once its body has come.

use std::{io::ErrorKind, net::TcpListener, os::fd::OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::{
    Fallible, LISTENER,
    connection::{Connection, content_length},
    options::Options,
};

/// What Django under gunicorn sends before a page.
const HEAD: &str = "HTTP/1.1 200 OK\r
Date: Sat, 21 Nov 2026 10:00:00 GMT\r
Server: gunicorn\r
Content-Type: text/html; charset=utf-8\r
Vary: Accept-Encoding, Cookie\r
X-Frame-Options: DENY\r
X-Content-Type-Options: nosniff\r
Referrer-Policy: same-origin\r
Cross-Origin-Opener-Policy: same-origin\r
Set-Cookie: sessionid=5t1x0v8k3j9h2g7f6d5s4a3q2w1e0r9t; HttpOnly; Path=/; SameSite=Lax\r
";

pub(crate) struct Origin {
    listener: TcpListener,
    /// By token, less the listener's; a closed one stays as a gap.
    connections: Vec<Option<Served>>,
    answer: Vec<u8>,
    /// Bytes of body that each request but GET must announce.
    post: usize,
}

struct Served {
    connection: Connection,
    /// Answers that are not yet wholly sent.
    owed: usize,
}

impl Origin {
    pub(crate) fn bind(options: &Options, epoll: &OwnedFd) -> Fallible<Self> {
        let listener = TcpListener::bind(options.origin)
            .map_err(|error| format!("origin {}: {error}", options.origin))?;
        listener.set_nonblocking(true)?;
        epoll::add(
            epoll,
            &listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )?;
        let mut answer = format!("{HEAD}Content-Length: {}\r\n\r\n", options.answer).into_bytes();
        answer.extend((b'a'..=b'z').cycle().take(options.answer));
        Ok(Self {
            listener,
            connections: Vec::new(),
            answer,
            post: options.post,
        })
    }

    pub(crate) fn accept(&mut self, epoll: &OwnedFd) -> Fallible<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let token = LISTENER + 1 + self.connections.len() as u64;
                    let connection = Connection::register(stream, epoll, token)?;
                    self.connections.push(Some(Served {
                        connection,
                        owed: 0,
                    }));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn ready(
        &mut self,
        index: usize,
        flags: EventFlags,
        scratch: &mut [u8],
    ) -> Fallible<()> {
        let slot = &mut self.connections[index];
        let Some(served) = slot else {
            return Ok(());
        };
        let post = self.post;
        let body_length = |head: &[u8]| request_length(head, post);
        let received = served.connection.receive(flags, scratch, body_length)?;
        served.owed += received.completed;
        let mut closed = received.closed;
        while served.owed > 0 && !closed {
            match served.connection.send(&self.answer) {
                Ok(true) => served.owed -= 1,
                Ok(false) => return Ok(()),
                // The proxy gave up; whether it may, its client decides.
                Err(_) => closed = true,
            }
        }
        if closed {
            *slot = None;
        }
        Ok(())
    }
}

fn request_length(head: &[u8], post: usize) -> Fallible<usize> {
    if head.starts_with(b"GET ") {
        return Ok(0);
    }
    match content_length(head)? {
        length if length == post => Ok(length),
        length => Err(format!("a request of {length} bytes instead of {post}").into()),
    }
}
