//! The command line's side of the admin socket.

use std::{path::Path, time::Duration};

use http::Request;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

/// For a whole question and its answer.
const WITHIN: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What the running Wardent said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) is_ok: bool,
    pub(super) words: String,
}

/// Posts to `path` of the Wardent that serves `socket`.
///
/// # Errors
/// When none serves it, or it does not answer in time.
pub(super) fn post(socket: &Path, path: &str) -> Result<Said, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime
        .block_on(async { timeout(WITHIN, ask(socket, path)).await })
        .map_err(|_| format!("no answer within {} s", WITHIN.as_secs()))?
        .map_err(|error| {
            format!(
                "{}: {error}; is wardent running with this configuration?",
                socket.display()
            )
        })
}

type AskError = Box<dyn std::error::Error + Send + Sync>;

async fn ask(socket: &Path, path: &str) -> Result<Said, AskError> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(path)
        .header("host", "wardent")
        .body(Empty::<Bytes>::new())?;
    let asking = async {
        let answer = sender.send_request(request).await?;
        let is_ok = answer.status().is_success();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let words = body.collect().await?.to_bytes();
        Ok::<_, AskError>(Said {
            is_ok,
            words: String::from_utf8_lossy(&words).into_owned(),
        })
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        said = &mut asking => said,
        _ = connection => asking.await,
    }
}
