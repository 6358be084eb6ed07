//! The admin socket of the local Wardent: one connection, kept, and made anew when it is gone.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::Bytes,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, runtime::Runtime, time::timeout};

use super::Failure;
use crate::event::exchange::{Answer, BYTES_MAX, PATH, Told};

/// For one exchange.
const WITHIN: Duration = Duration::from_secs(5);

type Sender = SendRequest<Full<Bytes>>;
type DoorError = Box<dyn std::error::Error + Send + Sync>;

/// The way in.
#[derive(Debug)]
pub(super) struct Door {
    socket: PathBuf,
    runtime: Runtime,
    sender: Option<Sender>,
}

impl Door {
    /// A way in to who serves `socket`; it is gone only when it is needed.
    ///
    /// # Errors
    /// When the system does not give what a conversation needs.
    pub(super) fn to(socket: PathBuf) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Ok(Self {
            socket,
            runtime: runtime.map_err(|error| Failure(error.to_string()))?,
            sender: None,
        })
    }

    /// Tells, and returns the answer.
    ///
    /// # Errors
    /// When there is none in time, or what was told is refused. It may have been heard all the same.
    pub(super) fn exchange(&mut self, told: &Told) -> Result<Answer, Failure> {
        let body = serde_json::to_vec(told).map_err(|error| self.failed(&error))?;
        self.ask(Method::POST, PATH, Bytes::from(body))
    }

    /// What stands at `path`.
    ///
    /// # Errors
    /// When there is no answer in time, or another one than is asked for.
    pub(super) fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, Bytes::new())
    }

    fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "wardent")
            .header("content-type", "application/json")
            .body(Full::new(body));
        let request = request.map_err(|error| self.failed(&error))?;
        let kept = self.sender.take();
        let asked = self.runtime.block_on(async {
            let asking = ask(&self.socket, kept, request);
            timeout(WITHIN, asking).await
        });
        let (sender, said) = asked
            .map_err(|_| self.failed(&"no answer in time"))?
            .map_err(|error| self.failed(&error))?;
        self.sender = Some(sender);
        serde_json::from_slice(&said).map_err(|error| self.failed(&error))
    }

    fn failed(&self, what: &dyn fmt::Display) -> Failure {
        Failure(format!("{}: {what}", self.socket.display()))
    }
}

async fn ask(
    socket: &Path,
    kept: Option<Sender>,
    request: Request<Full<Bytes>>,
) -> Result<(Sender, Bytes), DoorError> {
    let mut sender = match kept {
        Some(sender) if !sender.is_closed() => sender,
        Some(_) | None => {
            let stream = UnixStream::connect(socket).await?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // It is looked after whenever this runtime runs: while something is asked.
            tokio::spawn(connection);
            sender
        }
    };
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let said = Limited::new(answer.into_body(), BYTES_MAX)
        .collect()
        .await?;
    let said = said.to_bytes();
    if status != StatusCode::OK {
        let said = String::from_utf8_lossy(&said);
        return Err(format!("{status}: {}", said.trim_end()).into());
    }
    Ok((sender, said))
}
