//! HTTP/2 by prior knowledge (RFC 9113 section 3.3), turned into HTTP/1.1.
//!
//! Each stream becomes a request on a pipe to [`connection::serve`], so that it meets exactly what
//! an HTTP/1.1 request meets. That costs a copy; HTTP/2 is off unless asked for.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{Either, Empty};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, duplex},
    task::spawn_local,
};

use super::{
    buffer::Buffer,
    connection,
    deadline::{Stage, Timers},
    socket::{Side, Socket},
    worker::Worker,
};
use crate::client::Peer;

/// How every HTTP/2 connection begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_WITHIN: Duration = Duration::from_secs(10);
/// Streams of one connection at once.
const STREAMS_MAX: u32 = 128;
const PIPE_BYTES: usize = 64 * 1024;
const HEADERS_BYTES_MAX: u32 = 64 * 1024;
/// How often a connection's idleness and the worker's drain are looked at.
const LOOK: Duration = Duration::from_millis(200);

type Error = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<Either<Incoming, Empty<Bytes>>>;

/// Serves `socket` in the protocol that its first bytes tell.
pub(crate) async fn serve_either(worker: Rc<Worker>, socket: Socket, peer: Peer) {
    let timers = Timers::of_this_task(&worker.deadlines).await;
    let side = Side::new(socket);
    let mut buffer = Buffer::default();
    {
        let wait = timers.wait(Stage::RequestHead, PREFACE_WITHIN);
        while buffer.len() < PREFACE.len() && PREFACE.starts_with(buffer.bytes()) {
            match side.fill(&mut buffer, PIPE_BYTES, &wait).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
    let socket = side.into_socket();
    if buffer.bytes().starts_with(PREFACE) {
        serve(worker, Rewound { buffer, socket }, peer).await;
    } else {
        connection::serve(worker, socket, peer, buffer).await;
    }
}

async fn serve(worker: Rc<Worker>, stream: Rewound, peer: Peer) {
    let streams = Rc::new(Cell::new(0_usize));
    let service = service_fn(|request| {
        let worker = Rc::clone(&worker);
        let streams = Rc::clone(&streams);
        async move {
            let _counted = Counted::begin(streams);
            pass_on(worker, peer, request).await
        }
    });
    let mut serving = std::pin::pin!(
        http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .keep_alive_interval(Some(Duration::from_secs(20)))
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut idle = Duration::ZERO;
    let mut is_ending = false;
    loop {
        tokio::select! {
            // Protocol errors have been answered by hyper; the requests told their own stories.
            _ = serving.as_mut() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        idle = if streams.get() == 0 {
            idle + LOOK
        } else {
            Duration::ZERO
        };
        let is_over = worker.is_draining() || idle >= worker.shared.settings.keep_alive;
        if is_over && !is_ending {
            is_ending = true;
            serving.as_mut().graceful_shutdown();
        }
    }
}

/// A stream under way.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn begin(streams: Rc<Cell<usize>>) -> Self {
        streams.set(streams.get() + 1);
        Self(streams)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn pass_on(
    worker: Rc<Worker>,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Answer, Error> {
    let request = match to_http1(request) {
        Ok(request) => request,
        Err(status) => return empty(status),
    };
    let (near, far) = duplex(PIPE_BYTES);
    spawn_local(connection::serve(
        worker,
        Socket::Pipe(near),
        peer,
        Buffer::default(),
    ));
    let (mut sender, pipe) = http1::handshake(TokioIo::new(far)).await?;
    spawn_local(pipe);
    let mut answer = sender.send_request(request).await?;
    *answer.version_mut() = Version::HTTP_2;
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        answer.headers_mut().remove(name);
    }
    Ok(answer.map(Either::Left))
}

fn empty(status: StatusCode) -> Result<Answer, Error> {
    let answer = Response::builder().status(status);
    Ok(answer.body(Either::Right(Empty::new()))?)
}

/// The same request as HTTP/1.1 spells it (RFC 9113 section 8.3.1).
fn to_http1(request: Request<Incoming>) -> Result<Request<Incoming>, StatusCode> {
    if request.method() == Method::CONNECT {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority() {
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|_| StatusCode::BAD_REQUEST)?;
        let said = parts.headers.insert(header::HOST, host.clone());
        if said.is_some_and(|said| said != host) {
            return Err(StatusCode::BAD_REQUEST);
        }
    }
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    parts.uri = target.parse::<Uri>().map_err(|_| StatusCode::BAD_REQUEST)?;
    parts.version = Version::HTTP_11;
    join_cookies(&mut parts.headers)?;
    Ok(Request::from_parts(parts, body))
}

/// One `Cookie` field of the several that HTTP/2 may split it into (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Result<(), StatusCode> {
    let crumbs: Vec<_> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1 {
        let joined = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice()))
            .map_err(|_| StatusCode::BAD_REQUEST)?;
        headers.insert(header::COOKIE, joined);
    }
    Ok(())
}

/// Spawns on the worker's own thread.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

/// A stream of which the first bytes had been read.
struct Rewound {
    buffer: Buffer,
    socket: Socket,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            return self.socket.reader().poll_read(cx, into);
        }
        let count = self.buffer.len().min(into.remaining());
        into.put_slice(self.buffer.front(count));
        self.buffer.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.socket.writer().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.writer().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.writer().poll_shutdown(cx)
    }
}
