//! HTTP/2 by prior knowledge (RFC 9113 section 3.3), turned into HTTP/1.1.
//!
//! Each stream becomes a request on a pipe to [`connection::serve`], so that it meets exactly what
//! an HTTP/1.1 request meets. That costs a copy; HTTP/2 is off unless asked for.

use std::{io, pin::Pin, rc::Rc, task::{Context, Poll}};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use hyper::{
    body::Incoming,
    client::conn::http1,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, duplex},
    net::{TcpStream, UnixStream},
    task::spawn_local,
    time::{Duration, timeout},
};

use super::{connection, socket::Socket, worker::Worker};
use crate::client::Peer;

/// How every HTTP/2 connection begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_WITHIN: Duration = Duration::from_secs(10);
/// Streams of one connection at once.
const STREAMS_MAX: u32 = 128;
const PIPE_BYTES: usize = 64 * 1024;
const HEADERS_BYTES_MAX: u32 = 64 * 1024;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Serves `socket` in the protocol that its first bytes tell.
pub(crate) async fn serve_either(worker: Rc<Worker>, socket: Socket, peer: Peer) {
    match socket {
        Socket::Tcp(mut stream) => match is_http2_tcp(&mut stream).await {
            Some(true) => serve(worker, stream, peer).await,
            Some(false) => connection::serve(worker, Socket::Tcp(stream), peer).await,
            None => {}
        },
        Socket::Unix(stream) => {
            let mut stream = Rewound::new(stream);
            match timeout(PREFACE_WITHIN, stream.starts_with_preface()).await {
                Ok(Ok(true)) => serve(worker, stream, peer).await,
                _ => {}
            }
        }
        Socket::Pipe(_) => connection::serve(worker, socket, peer).await,
    }
}
