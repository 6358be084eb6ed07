//! HTTP/2 by prior knowledge (RFC 9113 section 3.3), turned into HTTP/1.1.
//!
//! Each stream becomes a request on a pipe to [`connection::serve`], so that it meets exactly what
//! an HTTP/1.1 request meets, is answered by it and told by it. That costs a copy; HTTP/2 is off
//! unless asked for. Interim answers end here, and request trailers pass where `Trailer` names them.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version, header};
use hyper::{
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    client::conn::http1,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, duplex},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_local,
};

use super::{
    answer,
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
/// Requests of one connection under way at once. A stream that its client has reset is no stream
/// any more, but its request takes a moment to end: without this bound, opening and resetting
/// streams in a hurry (CVE-2023-44487) would fill `max_in_flight` for everybody.
const REQUESTS_MAX: usize = STREAMS_MAX as usize;
const PIPE_BYTES: usize = 64 * 1024;
/// Of a header list at most, as RFC 9113 section 6.5.2 counts. More than a head may have, so that
/// the head's own judge answers and tells what is too long; what goes beyond this gets 431 too.
const HEADERS_BYTES_MAX: u32 = 96 * 1024;
/// How often a connection's idleness and the worker's drain are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a connection without requests may take to end, once it has been told to.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

type Error = Box<dyn std::error::Error + Send + Sync>;

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
    let streams = Streams::new();
    let service = service_fn(|request| {
        let worker = Rc::clone(&worker);
        let open = Open::begin(&streams);
        async move { pass_on(worker, peer, open, request).await }
    });
    let mut serving = std::pin::pin!(
        http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .keep_alive_interval(Some(Duration::from_secs(20)))
            .serve_connection(TokioIo::new(stream), service)
    );
    let settings = &worker.shared.settings;
    let mut ending = None;
    loop {
        tokio::select! {
            // Protocol errors have been answered by hyper; the requests told their own stories.
            _ = serving.as_mut() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let quiet = streams.quiet_for_another(LOOK);
        // Requests under way have deadlines of their own. An answer that has left them and is not
        // taken by the client has this one.
        let is_idle = streams.open.get() == 0;
        if !is_idle && streams.no_requests() && quiet >= settings.upstream.idle_timeout {
            return;
        }
        let is_over = worker.is_draining() || (is_idle && quiet >= settings.keep_alive);
        match &mut ending {
            None if is_over => {
                ending = Some(Duration::ZERO);
                serving.as_mut().graceful_shutdown();
            }
            // A client that acknowledges nothing cannot keep its connection by that.
            Some(waited) if is_idle => {
                *waited += LOOK;
                if *waited >= ENDED_WITHIN {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// The streams of one connection, and their requests.
///
/// All of it is written and read by the connection's own thread.
struct Streams {
    /// Streams whose answer has not been taken whole.
    open: Cell<usize>,
    /// How long nothing has begun, moved or ended.
    quiet: Cell<Duration>,
    /// [`REQUESTS_MAX`]; a permit lives as long as its request.
    requests: Arc<Semaphore>,
}

impl Streams {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            open: Cell::new(0),
            quiet: Cell::new(Duration::ZERO),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
        })
    }

    fn no_requests(&self) -> bool {
        self.requests.available_permits() == REQUESTS_MAX
    }

    fn quiet_for_another(&self, more: Duration) -> Duration {
        let quiet = self.quiet.get().saturating_add(more);
        self.quiet.set(quiet);
        quiet
    }
}

/// A stream under way.
struct Open(Rc<Streams>);

impl Open {
    fn begin(streams: &Rc<Streams>) -> Self {
        streams.open.set(streams.open.get() + 1);
        streams.quiet.set(Duration::ZERO);
        Self(Rc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.quiet.set(Duration::ZERO);
    }
}

/// The body of an answer, whose stream counts as long as it lasts.
struct AnswerBody {
    inner: Incoming,
    open: Open,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if frame.is_ready() {
            self.open.0.quiet.set(Duration::ZERO);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

async fn pass_on(
    worker: Rc<Worker>,
    peer: Peer,
    open: Open,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Error> {
    // A reset stream drops this future, so those that wait here cost nothing more.
    let permit = Arc::clone(&open.0.requests).acquire_owned().await?;
    let request = to_http1(request)?;
    let (near, far) = duplex(PIPE_BYTES);
    spawn_local(serve_pipe(worker, near, peer, permit));
    let (mut sender, pipe) = http1::Builder::new()
        .max_headers(answer::FIELDS_MAX + FIELDS_ADDED_MAX)
        .handshake(TokioIo::new(far))
        .await?;
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
    Ok(answer.map(|inner| AnswerBody { inner, open }))
}

/// Fields that Wardent adds to an answer at most.
const FIELDS_ADDED_MAX: usize = 8;

async fn serve_pipe(
    worker: Rc<Worker>,
    near: tokio::io::DuplexStream,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
) {
    connection::serve(worker, Socket::Pipe(near), peer, Buffer::default()).await;
}

/// The same request as HTTP/1.1 spells it (RFC 9113 section 8.3.1).
///
/// What is wrong with it stays wrong, for the head's own judge to see: an authority beside another
/// `Host` becomes two `Host` fields.
fn to_http1(request: Request<Incoming>) -> Result<Request<Incoming>, Error> {
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str())?;
        let said: Vec<_> = parts.headers.get_all(header::HOST).iter().collect();
        if said != [&host] {
            parts.headers.append(header::HOST, host);
        }
    }
    let target = parts.uri.path_and_query();
    parts.uri = target
        .map_or("/", |target| target.as_str())
        .parse::<Uri>()?;
    parts.version = Version::HTTP_11;
    join_cookies(&mut parts.headers)?;
    Ok(Request::from_parts(parts, body))
}

/// One `Cookie` field of the several that HTTP/2 may split it into (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Result<(), Error> {
    let crumbs: Vec<_> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1 {
        let joined = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice()))?;
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
