//! hyper's reading of the same bytes, over a pipe in memory: the second opinion.

use std::{cell::RefCell, convert::Infallible, rc::Rc};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::{Bytes, Incoming},
    client, server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    runtime::{Builder, Runtime},
    task::LocalSet,
};

use super::{Fields, Seen};

/// More than any input and its answers.
const PIPE_BYTES: usize = 1024 * 1024;

pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn fields_of(headers: &http::HeaderMap) -> Fields {
    let fields = headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    let mut fields: Fields = fields.collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

/// The requests that hyper's server finds in `input`; the last may lack its body.
pub(super) fn requests(runtime: &Runtime, input: &[u8]) -> Vec<Seen> {
    let found = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let found = Rc::clone(&found);
        async move {
            let (head, body) = request.into_parts();
            let mut seen = Seen {
                method: head.method.as_str().as_bytes().to_vec(),
                target: head
                    .uri
                    .path_and_query()
                    .map_or_else(Vec::new, |target| target.as_str().as_bytes().to_vec()),
                fields: fields_of(&head.headers),
                ..Seen::default()
            };
            if let Ok(body) = body.collect().await {
                seen.trailers = body.trailers().map(fields_of).unwrap_or_default();
                seen.body = Some(body.to_bytes().to_vec());
            }
            found.borrow_mut().push(seen);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    LocalSet::new().block_on(runtime, async {
        let (mut near, far) = duplex(PIPE_BYTES);
        near.write_all(input).await.unwrap();
        near.shutdown().await.unwrap();
        // What it makes of a bad request does not matter here, only what it took for good ones.
        let _ = server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(far), service)
            .await;
    });
    found.take()
}

/// What hyper's client takes `input` for, as the answer to `method`: status, fields, body.
///
/// The body is `None` where it did not come to its end; all of it is where there is no answer.
pub(super) fn answer(
    runtime: &Runtime,
    method: &str,
    input: &[u8],
) -> Option<(u16, Fields, Option<Vec<u8>>)> {
    LocalSet::new().block_on(runtime, async {
        let (mut near, far) = duplex(PIPE_BYTES);
        let (mut sender, connection) = client::conn::http1::Builder::new()
            .max_headers(600)
            .handshake(TokioIo::new(far))
            .await
            .unwrap();
        tokio::task::spawn_local(connection);
        let request = Request::builder()
            .method(method)
            .uri("/")
            .header("host", "a");
        let asking = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
        let answering = async {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                near.read_buf(&mut asked).await.unwrap();
            }
            near.write_all(input).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let (answer, ()) = tokio::join!(asking, answering);
        let (head, body) = answer.ok()?.into_parts();
        let body = body.collect().await.ok();
        Some((
            head.status.as_u16(),
            fields_of(&head.headers),
            body.map(|body| body.to_bytes().to_vec()),
        ))
    })
}
