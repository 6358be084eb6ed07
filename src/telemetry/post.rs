//! One short request to a collector or a monitor over plain HTTP/1.1, bounded in time and in what is read.
//!
//! No TLS: what watches stands on this host or in a network of the operator's (ADR 0013).

use std::{fmt, time::Duration};

use data_encoding::BASE64;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// For the whole of it: resolving the name, connecting, sending, reading the answer.
const WITHIN: Duration = Duration::from_secs(5);
/// Of the answer.
const BYTES_MAX: usize = 64 * 1024;

/// Where a request goes. What `Debug` shows of it holds no password and no path, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    /// As the field `Host` has it.
    authority: HeaderValue,
    /// Begins with a slash; with the query, if there is one.
    path: String,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl Target {
    /// What an address with the scheme `http` means; none for any other.
    pub fn of(uri: &Uri) -> Option<Self> {
        let authority = uri.authority()?;
        let host = authority.host();
        if uri.scheme_str() != Some("http") || host.is_empty() {
            return None;
        }
        let (user, own) = match authority.as_str().rsplit_once('@') {
            Some((user, own)) => (Some(user), own),
            None => (None, authority.as_str()),
        };
        // RFC 7617: the name and the password as they stand, in base 64.
        let authorization = user.map(|user| {
            let word = format!("Basic {}", BASE64.encode(user.as_bytes()));
            HeaderValue::from_str(&word).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        Some(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: HeaderValue::from_str(own).ok()?,
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            authorization: authorization.transpose().ok()?,
        })
    }

    /// Whether its path ends in a query.
    pub fn has_query(&self) -> bool {
        self.path.contains('?')
    }

    /// The same with `more` after its path.
    #[must_use]
    pub fn below(mut self, more: &str) -> Self {
        let kept = self.path.trim_end_matches('/').len();
        self.path.truncate(kept);
        self.path.push_str(more);
        self
    }
}

/// Why a request came to nothing.
#[derive(Debug)]
pub enum SendError {
    /// It was not over in 5 s.
    Late,
    /// Nobody listens there, or the name has no address.
    Unreachable(std::io::Error),
    /// What came is no answer.
    Broken(String),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("no answer within 5 s"),
            Self::Unreachable(error) => error.fmt(f),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for SendError {}

/// Asks for the target.
///
/// # Errors
/// When there is no answer in time; an answer of any status is one.
pub async fn get(target: &Target) -> Result<(StatusCode, Bytes), SendError> {
    send(target, Method::GET, Bytes::new()).await
}

/// Posts JSON to the target.
///
/// # Errors
/// As [`get`].
pub async fn json(target: &Target, body: Bytes) -> Result<(StatusCode, Bytes), SendError> {
    send(target, Method::POST, body).await
}

async fn send(
    target: &Target,
    method: Method,
    body: Bytes,
) -> Result<(StatusCode, Bytes), SendError> {
    let sent = tokio::time::timeout(WITHIN, ask(target, method, body)).await;
    sent.unwrap_or(Err(SendError::Late))
}

async fn ask(
    target: &Target,
    method: Method,
    body: Bytes,
) -> Result<(StatusCode, Bytes), SendError> {
    let broken = |error: &dyn fmt::Display| SendError::Broken(error.to_string());
    let stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(SendError::Unreachable)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let mut request = Request::new(Full::new(body));
    let posts = method == Method::POST;
    *request.method_mut() = method;
    *request.uri_mut() = target.path.parse().map_err(|error| broken(&error))?;
    let fields = request.headers_mut();
    fields.insert(header::HOST, target.authority.clone());
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    fields.insert(header::USER_AGENT, HeaderValue::from_static("wardent"));
    if posts {
        let json = HeaderValue::from_static("application/json");
        fields.insert(header::CONTENT_TYPE, json);
    }
    if let Some(authorization) = &target.authorization {
        fields.insert(header::AUTHORIZATION, authorization.clone());
    }
    let answering = async {
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| broken(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
        let body = body.map_err(|error| broken(&error))?;
        Ok((status, body.to_bytes()))
    };
    // The connection does the work; it ends with the answer, in the same task.
    let driving = async {
        match connection.await {
            Ok(()) => std::future::pending().await,
            Err(error) => broken(&error),
        }
    };
    tokio::select! {
        biased;
        answered = answering => answered,
        failed = driving => Err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Option<Target> {
        Target::of(&uri.parse().unwrap())
    }

    #[test]
    fn an_address_means_what_it_says() {
        let plain = target("http://collector.test").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("collector.test", 80));
        assert_eq!(plain.below("/v1/traces").path, "/v1/traces");
        let whole = target("http://user:word@[::1]:4318/otlp/").unwrap();
        assert_eq!((whole.host.as_str(), whole.port), ("::1", 4318));
        assert_eq!(whole.authority, "[::1]:4318");
        assert_eq!(whole.authorization.as_ref().unwrap(), "Basic dXNlcjp3b3Jk");
        assert_eq!(whole.below("/v1/traces").path, "/otlp/v1/traces");
        assert_eq!(target("https://collector.test"), None);
        assert_eq!(target("/only/a/path"), None);
    }

    #[test]
    fn what_is_shown_of_it_holds_no_secret() {
        let shown = format!("{:?}", target("http://user:word@monitor.test/ping/token"));
        assert_eq!(shown, "Some(http://monitor.test:80)");
    }
}
