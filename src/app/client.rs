//! The command line's side of the admin socket.

use std::{io::ErrorKind, path::Path, time::Duration};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

/// For a whole question and its answer.
const WITHIN: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What the running Wardent said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) is_ok: bool,
    /// Whether it would do it at another time.
    pub(super) is_busy: bool,
    pub(super) words: String,
}

impl Said {
    /// What it says is wrong.
    pub(super) fn error(&self) -> String {
        let said: Option<Value> = serde_json::from_str(&self.words).ok();
        let error = said.as_ref().and_then(|said| said.get("error"));
        let error = error.and_then(Value::as_str);
        error.unwrap_or(self.words.trim_end()).to_owned()
    }
}

/// The running Wardent, as the command line reaches it.
#[derive(Debug)]
pub(super) struct Running<'a> {
    socket: &'a Path,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Running<'a> {
    /// The one that serves `socket`, if one does.
    ///
    /// # Errors
    /// When the system does not give what a conversation needs.
    pub(super) fn behind(socket: &'a Path) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { socket, runtime })
    }

    /// Whether one serves the socket.
    ///
    /// # Errors
    /// When that cannot be known: this user may not open it.
    pub(super) fn is_there(&self) -> Result<bool, String> {
        match std::os::unix::net::UnixStream::connect(self.socket) {
            Ok(_) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(false)
            }
            Err(error) => {
                let advice = match error.kind() == ErrorKind::PermissionDenied {
                    true => "; be root, or a member of the group `wardent`",
                    false => "",
                };
                Err(format!("{}: {error}{advice}", self.socket.display()))
            }
        }
    }

    /// Asks it for `target`, with a JSON body or none.
    ///
    /// # Errors
    /// When none serves the socket, or it does not answer in time.
    pub(super) fn ask(
        &self,
        method: Method,
        target: &str,
        body: Option<String>,
    ) -> Result<Said, String> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "wardent")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| error.to_string())?;
        // The deadline is started inside the runtime, which has its timer.
        let asking = async { timeout(WITHIN, ask(self.socket, request)).await };
        self.runtime
            .block_on(asking)
            .map_err(|_| format!("no answer within {} s", WITHIN.as_secs()))?
            .map_err(|error| {
                format!(
                    "{}: {error}; is wardent running with this configuration?",
                    self.socket.display()
                )
            })
    }
}

type AskError = Box<dyn std::error::Error + Send + Sync>;

async fn ask(socket: &Path, request: Request<Full<Bytes>>) -> Result<Said, AskError> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let answer = sender.send_request(request).await?;
        let is_ok = answer.status().is_success();
        let is_busy = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let words = body.collect().await?.to_bytes();
        Ok::<_, AskError>(Said {
            is_ok,
            is_busy,
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
