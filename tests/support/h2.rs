//! HTTP/2 clients: hyper's, which plays by the rules, and one that writes any frame it is told.

use std::{convert::Infallible, future::Future, io};

use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc, task::JoinHandle};
use wardent::base::net::Address;

use super::{client::RawClient, time::PATIENCE};

/// Runs an HTTP/2 client to its end, which must come in time.
pub(crate) fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(3 * PATIENCE, client)
            .await
            .unwrap_or_else(|_| panic!("the client came to no end"))
    })
}

/// What is sent as a body.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// Ends with an HTTP/2 connection.
pub(crate) type Connection = JoinHandle<hyper::Result<()>>;

/// Connects with the windows given, in bytes.
pub(crate) async fn connect(to: &Address, window: u32) -> (SendRequest<Body>, Connection) {
    let Address::Tcp(address) = to else {
        panic!("not a TCP address: {to:?}")
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .initial_connection_window_size(1 << 20)
        .max_header_list_size(1 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

/// A body of one piece; none at all when it is empty.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).boxed()
}

/// A body that a test sends piece by piece; it ends with its sender.
pub(crate) fn streamed() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, receiver) = mpsc::channel::<Frame<Bytes>>(1);
    let frames = stream::unfold(receiver, |mut receiver| async {
        let frame = receiver.recv().await?;
        Some((Ok::<_, Infallible>(frame), receiver))
    });
    (sender, StreamBody::new(frames).boxed())
}

/// A good request, as [`super::P`] spells it.
pub(crate) fn good(method: &str, target: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("http://app.test{target}"))
        .header("user-agent", "wtest/1")
        .header("cf-connecting-ip", super::CLIENT)
        .header("x-wardent-secret", super::KEY)
}

/// A good GET.
pub(crate) fn get(target: &str) -> Request<Body> {
    good("GET", target).body(whole("")).unwrap()
}

/// The bytes of an answer's body.
pub(crate) async fn bytes_of(answer: Response<Incoming>) -> Bytes {
    answer.into_body().collect().await.unwrap().to_bytes()
}

/// The value of an answer's field, or nothing.
pub(crate) fn field<'a>(answer: &'a Response<Incoming>, name: &str) -> &'a str {
    let value = answer.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// A setting's number (RFC 9113 section 6.5.2).
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
/// Error codes (RFC 9113 section 7).
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;

/// A frame as it came.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    /// The code of an `RST_STREAM`.
    pub(crate) fn code(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }
}

/// A client that writes any frame.
#[derive(Debug)]
pub(crate) struct RawH2 {
    pub(crate) client: RawClient,
}

impl RawH2 {
    /// Connects and sends the preface, with settings as (number, value).
    pub(crate) fn connect(to: &Address, settings: &[(u16, u32)]) -> Self {
        let mut client = RawClient::connect(to);
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut payload = Vec::new();
        for (number, value) in settings {
            payload.extend_from_slice(&number.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        client.send(frame(SETTINGS, 0, 0, &payload));
        Self { client }
    }

    /// Reads the next frame that is no `SETTINGS`, `PING` or `WINDOW_UPDATE`; pings are answered.
    pub(crate) fn next(&mut self) -> io::Result<Raw> {
        loop {
            let head = self.client.try_exact(9)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let raw = Raw {
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes(head[5..].try_into().unwrap()) & 0x7fff_ffff,
                payload: self.client.try_exact(usize::try_from(length).unwrap())?,
            };
            if raw.kind == PING && raw.flags == 0 {
                self.client.send_anyway(frame(PING, 1, 0, &raw.payload));
            }
            if matches!(
                raw.kind,
                DATA | HEADERS | RST_STREAM | GOAWAY | CONTINUATION
            ) {
                return Ok(raw);
            }
        }
    }

    /// Reads until a frame of the kind on the stream; the others are dropped.
    pub(crate) fn until(&mut self, kind: u8, stream: u32) -> Raw {
        loop {
            let raw = self
                .next()
                .unwrap_or_else(|error| panic!("no frame {kind} on {stream}: {error}"));
            if raw.kind == kind && raw.stream == stream {
                return raw;
            }
        }
    }

    /// Reads until the peer ends the connection, cleanly.
    pub(crate) fn rest(&mut self) -> Vec<Raw> {
        let mut all = Vec::new();
        loop {
            match self.next() {
                Ok(raw) => all.push(raw),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return all,
                Err(error) => panic!("no clean end after {all:?}: {error}"),
            }
        }
    }

    /// Opens a stream with these fields, and ends it.
    pub(crate) fn ask(&mut self, stream: u32, fields: &[(&str, &str)]) {
        let flags = END_STREAM | END_HEADERS;
        self.client
            .send(frame(HEADERS, flags, stream, &block(fields)));
    }
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields as HPACK literals that are not indexed (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        text(name, &mut bytes);
        text(value, &mut bytes);
    }
    bytes
}

fn text(text: &str, bytes: &mut Vec<u8>) {
    let length = text.len();
    if length < 127 {
        bytes.push(u8::try_from(length).unwrap());
    } else {
        bytes.push(127);
        let mut rest = length - 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128 + 128).unwrap());
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes.extend_from_slice(text.as_bytes());
}

/// The fields of a good GET, as frames carry them.
pub(crate) fn good_fields(target: &str) -> Vec<(&str, &str)> {
    vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "app.test"),
        (":path", target),
        ("user-agent", "wtest/1"),
        ("cf-connecting-ip", super::CLIENT),
        ("x-wardent-secret", super::KEY),
    ]
}
