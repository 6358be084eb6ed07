//! Asks each server whether it is well, now and then, outside the request path.

use std::{sync::Arc, time::Duration};

use http_body_util::Empty;
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Server, Target, Upstream};

/// Failed checks in a row that take a server out of rotation; one good check brings it back.
const FAILURES_BEFORE_UNHEALTHY: u32 = 2;

/// What is asked, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path of a `GET`; any answer from 200 to 399 is well.
    pub path: String,
    /// Time between two checks of a server; a check that takes longer has failed.
    pub interval: Duration,
}

/// Checks every server of `upstream` until the task is dropped.
pub async fn watch(upstream: Arc<Upstream>, check: HealthCheck) {
    let checks = upstream
        .servers()
        .iter()
        .map(|server| watch_one(Arc::clone(server), &check));
    futures_util::future::join_all(checks).await;
}

async fn watch_one(server: Arc<Server>, check: &HealthCheck) {
    let mut ticks = interval(check.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0;
    loop {
        ticks.tick().await;
        let result = timeout(check.interval, ask(&server, &check.path)).await;
        let well = matches!(result, Ok(Ok(status)) if (200..400).contains(&status));
        failures = if well { 0 } else { failures + 1 };
        let healthy = failures < FAILURES_BEFORE_UNHEALTHY && (well || server.is_healthy());
        if healthy != server.is_healthy() {
            server.set_healthy(healthy);
            if healthy {
                tracing::info!(server = server.name(), "upstream server is healthy again");
            } else {
                tracing::warn!(
                    server = server.name(),
                    ?result,
                    "upstream server is unhealthy"
                );
            }
        }
    }
}

type AskError = Box<dyn std::error::Error + Send + Sync>;

async fn ask(server: &Server, path: &str) -> Result<u16, AskError> {
    match server.target() {
        Target::Tcp(address) => {
            ask_over(
                TcpStream::connect(address).await?,
                &address.to_string(),
                path,
            )
            .await
        }
        Target::Unix(socket) => {
            ask_over(UnixStream::connect(socket).await?, "localhost", path).await
        }
    }
}

async fn ask_over<S>(stream: S, host: &str, path: &str) -> Result<u16, AskError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header("host", host)
        .header("user-agent", "wardent-health")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        Ok::<_, AskError>(answer.status().as_u16())
    };
    // The connection is driven here and not by a task of its own, so that it ends with the check.
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}
