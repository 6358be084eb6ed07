//! The admin listener and the admin socket.
//!
//! On loopback the listener is for reading and checks the `Host` it is called by, so that no web page can reach
//! it by a name of its own (DNS rebinding); acts need the token there. Off loopback everything needs it, and no
//! page has it. The socket is for acts as well: who may open it is up to its file's mode.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};

use super::{
    Reloader, View,
    api::{Answer, Refused},
    dash::{self, Dash},
    events::WAITS_MAX,
    exposition, health, metrics,
    reading::Walks,
    registry,
    status::Looks,
    token::{Shown, Token},
    top::Following,
    verify::Jobs,
};
use crate::{event::exchange, kafka::tls::Tls, owner::Acts};

/// Connections at once, of the listener and of the socket each; more wait in the backlog.
const CONNECTIONS_MAX: usize = 64;
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// For a whole connection once hands are shaken: these are short questions.
const CONNECTION_WITHIN: Duration = Duration::from_secs(60);
const AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(100);

/// Answers operators.
#[derive(Debug, Clone)]
pub struct Server {
    pub(super) view: Arc<View>,
    pub(super) reloader: Reloader,
    /// What acts over the listener need, and all of it off loopback; without one there is none of that.
    pub(super) token: Option<Token>,
    pub(super) acts: Acts,
    pub(super) walks: Walks,
    /// Places for questions that wait for events.
    pub(super) waits: Arc<Semaphore>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) looks: Arc<Looks>,
    pub(super) following: Arc<Following>,
    pub(super) dash: Arc<Dash>,
}

/// Where a question came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// The listener, at this address of the machine.
    Listener(IpAddr),
    /// The listener, with the token.
    Token,
    /// The user who opened it, where the system says so (`SO_PEERCRED`).
    Socket(Option<u32>),
}

/// Where a request stays that shows no token, or another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    /// This one reads nothing without the token.
    ToStrangers,
    /// That is not the token.
    ToThis,
}

impl Door {
    /// The listener is loopback's: whoever calls it is on this machine.
    fn is_loopback(self) -> bool {
        matches!(self, Self::Listener(own) if own.to_canonical().is_loopback())
    }

    /// The door that a request opens here with what it shows.
    fn opened_with(self, shown: Shown) -> Result<Self, Closed> {
        match (self, shown) {
            (Self::Socket(_) | Self::Token, _) => Ok(self),
            (Self::Listener(_), Shown::Token) => Ok(Self::Token),
            (Self::Listener(_), Shown::Wrong) => Err(Closed::ToThis),
            (Self::Listener(_), Shown::Nothing) if self.is_loopback() => Ok(self),
            (Self::Listener(_), Shown::Nothing) => Err(Closed::ToStrangers),
        }
    }

    /// Who acts through this door.
    ///
    /// # Errors
    /// When it is for reading only.
    pub(super) fn actor(self) -> Result<String, Refused> {
        match self {
            Self::Socket(Some(uid)) => Ok(format!("uid:{uid}")),
            Self::Socket(None) => Ok("socket".to_owned()),
            Self::Token => Ok("token".to_owned()),
            Self::Listener(_) => Err(Refused::new(
                StatusCode::UNAUTHORIZED,
                "acts need the token, or the admin socket: use the `wardent` command",
            )),
        }
    }
}

/// What may be asked of a path, as `Allow` says it (RFC 9110 section 10.2.1).
fn methods_of(path: &str) -> &'static str {
    match path {
        path if registry::is_here(path) => registry::methods_of(path),
        "/api/v1/bans" => "GET, POST, DELETE",
        "/api/v1/bans/import" | "/api/v1/explain" | "/api/v1/reload" | exchange::PATH => "POST",
        "/api/v1/log/verify" => "GET, POST",
        "/api/v1/log/users" => "GET, POST, PUT, DELETE",
        path if dash::is_act(path) => "POST",
        _ => "GET, HEAD",
    }
}

impl Server {
    /// A server of what `view` shows, and what `reloader` and the owner of bans do; over the listener for
    /// whoever has the token.
    pub fn new(view: Arc<View>, reloader: Reloader, acts: Acts, token: Option<Token>) -> Self {
        let looks = Looks::since(view.shared.clock.unix_ms());
        Self {
            looks,
            view,
            reloader,
            token,
            acts,
            walks: Walks::new(),
            waits: Arc::new(Semaphore::new(WAITS_MAX)),
            jobs: Arc::default(),
            following: Arc::default(),
            dash: Arc::default(),
        }
    }

    /// Serves a TCP listener until the task is dropped, where there is a certificate over TLS alone.
    ///
    /// Whoever fills it with connections takes no room from the socket.
    pub async fn serve_listener(self, listener: TcpListener, tls: Option<Tls>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let permit = Arc::clone(&room).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (server, tls) = (self.clone(), tls.clone());
                    tokio::spawn(async move {
                        let _permit = permit;
                        // The address it was called by; of a listener on all of them, this is one.
                        let Ok(address) = stream.local_addr() else {
                            return;
                        };
                        let door = Door::Listener(address.ip());
                        match tls {
                            None => server.serve(stream, door).await,
                            Some(tls) => match tls.accept(stream).await {
                                Ok(stream) => server.serve(stream, door).await,
                                Err(why) => tracing::debug!(%why, "no TLS at the admin listener"),
                            },
                        }
                    });
                }
                Err(_) => tokio::time::sleep(AFTER_ACCEPT_ERROR).await,
            }
        }
    }

    /// Serves the admin socket until the task is dropped.
    pub async fn serve_socket(self, listener: UnixListener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let permit = Arc::clone(&room).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                    tokio::spawn(async move {
                        let _permit = permit;
                        server.serve(stream, Door::Socket(uid)).await;
                    });
                }
                Err(_) => tokio::time::sleep(AFTER_ACCEPT_ERROR).await,
            }
        }
    }

    async fn serve<S>(self, stream: S, door: Door)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request, door).await) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        // A questioner that goes away, or stays too long, is nobody's problem but its own.
        let _ = tokio::time::timeout(CONNECTION_WITHIN, serving).await;
    }

    async fn answer(&self, request: Request<Incoming>, door: Door) -> Answer {
        let host = request.headers().get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok());
        if door.is_loopback() && !host.is_some_and(is_loopback_name) {
            return text(
                StatusCode::MISDIRECTED_REQUEST,
                "this is the admin listener: call it by its address or as localhost\n",
            );
        }
        let door = match door.opened_with(self.shown_in(&request)) {
            Ok(door) => door,
            Err(Closed::ToStrangers) if dash::is_for_strangers(request.uri().path()) => door,
            Err(Closed::ToStrangers) if dash::is_page(&request) => return dash::to_login(&request),
            Err(closed) => return turned_away(closed),
        };
        let methods = methods_of(request.uri().path());
        let mut answer = self.answer_to(request, door).await;
        if answer.status() == StatusCode::METHOD_NOT_ALLOWED {
            let methods = header::HeaderValue::from_static(methods);
            answer.headers_mut().insert(header::ALLOW, methods);
        }
        if answer.status() == StatusCode::UNAUTHORIZED {
            return challenging(answer);
        }
        answer
    }

    /// What a request says of the token; where there is none, nothing.
    fn shown_in(&self, request: &Request<Incoming>) -> Shown {
        let token = self.token.as_ref();
        match token.map(|token| token.shown_in(request.headers())) {
            None | Some(Shown::Nothing) if self.is_in_session(request) => Shown::Token,
            None => Shown::Nothing,
            Some(shown) => shown,
        }
    }

    async fn answer_to(&self, request: Request<Incoming>, door: Door) -> Answer {
        match (request.method(), request.uri().path(), door) {
            (&Method::GET | &Method::HEAD, "/metrics", _) => self.metrics(&request),
            (&Method::GET | &Method::HEAD, "/livez", _) => health_answer(&health::live(&self.view)),
            (&Method::GET | &Method::HEAD, "/readyz", _) => {
                health_answer(&health::ready(&self.view))
            }
            (&Method::POST, "/api/v1/reload", _) => self.reload(door).await,
            (_, "/api/v1/bans", _) => self.bans(request, door).await.unwrap_or_else(Answer::from),
            (_, "/api/v1/bans/import", _) => self
                .import(request, door)
                .await
                .unwrap_or_else(Answer::from),
            (_, "/api/v1/explain", _) => self.explain(request).await.unwrap_or_else(Answer::from),
            (_, "/api/v1/events", _) => self.events(request).await.unwrap_or_else(Answer::from),
            (_, "/api/v1/cluster", _) => self.cluster(&request).unwrap_or_else(Answer::from),
            (_, exchange::PATH, _) => self
                .exchange(request, door)
                .await
                .unwrap_or_else(Answer::from),
            (_, "/api/v1/status", _) => self.status(&request).unwrap_or_else(Answer::from),
            (_, "/api/v1/top", _) => self.top(&request).await.unwrap_or_else(Answer::from),
            (_, path, _) if dash::is_here(path) => self.dash(request, door).await,
            (_, "/api/v1/log/users", _) => self
                .kafka_users(request, door)
                .await
                .unwrap_or_else(Answer::from),
            (_, "/api/v1/log/topics", _) => self.topics(&request).unwrap_or_else(Answer::from),
            (_, "/api/v1/log/groups", _) => self.groups(&request).unwrap_or_else(Answer::from),
            (_, "/api/v1/log/verify", _) => self
                .verify(request, door)
                .await
                .unwrap_or_else(Answer::from),
            (_, "/metrics" | "/livez" | "/readyz" | "/api/v1/reload", _) => {
                text(StatusCode::METHOD_NOT_ALLOWED, "another method, please\n")
            }
            (_, path, _) if registry::is_here(path) => self.registry(request, door).await,
            (_, path, _) if path.starts_with("/api/") => Answer::from(Refused::new(
                StatusCode::NOT_FOUND,
                "here are /api/v1/bans, /api/v1/bans/import, /api/v1/explain, /api/v1/reload, \
                 /api/v1/events, /api/v1/status, /api/v1/top, /api/v1/cluster, /api/v1/log/topics, /api/v1/log/groups, /api/v1/log/users \
                 and /api/v1/log/verify, and for the dashboard /api/v1/now, /api/v1/live, /api/v1/client, \
                 /api/v1/policy, /api/v1/bots and /api/v1/health: see /api/v1/openapi.json",
            )),
            _ => text(
                StatusCode::NOT_FOUND,
                "here are /metrics, /livez, /readyz, /api/v1/ and the schema registry: /subjects, /schemas, \
                 /config, /mode, /compatibility\n",
            ),
        }
    }

    async fn reload(&self, door: Door) -> Answer {
        let Ok(actor) = door.actor() else {
            return text(
                StatusCode::UNAUTHORIZED,
                "acts need the token, or the admin socket: use `wardent reload`\n",
            );
        };
        match self.reloader.reload(&actor).await {
            Ok(done) => text(StatusCode::OK, done),
            Err(report) => text(StatusCode::UNPROCESSABLE_ENTITY, report),
        }
    }

    fn metrics(&self, request: &Request<Incoming>) -> Answer {
        let accept = request.headers().get(header::ACCEPT);
        let accept = accept.and_then(|accept| accept.to_str().ok());
        let page = match metrics::render(&self.view) {
            Ok(page) => page,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        };
        let mut answer = if accept.is_some_and(exposition::wants_open_metrics) {
            answer(StatusCode::OK, exposition::OPEN_METRICS, page)
        } else {
            let page = exposition::as_text(&page);
            answer(StatusCode::OK, exposition::TEXT, page)
        };
        let vary = header::HeaderValue::from_static("accept");
        answer.headers_mut().insert(header::VARY, vary);
        answer
    }
}

/// An answer that says what is missing (RFC 9110 section 11.6.1). Not `Basic`, for which a browser would ask
/// and then send it along with whatever any page has it ask.
fn challenging(mut answer: Answer) -> Answer {
    let scheme = header::HeaderValue::from_static("Bearer realm=\"wardent\"");
    answer
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, scheme);
    answer
}

/// The answer to who may not come in; it ends the connection, so that strangers make room.
fn turned_away(closed: Closed) -> Answer {
    let words = match closed {
        Closed::ToStrangers => "off loopback, reading needs the token, too\n",
        Closed::ToThis => "this is not the token of this Wardent\n",
    };
    let mut answer = challenging(text(StatusCode::UNAUTHORIZED, words));
    let close = header::HeaderValue::from_static("close");
    answer.headers_mut().insert(header::CONNECTION, close);
    answer
}

/// Whether a `Host` is a name of loopback that no web page could have given it: `localhost` or an address.
fn is_loopback_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

fn health_answer(health: &health::Health) -> Answer {
    let status = if health.is_well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    answer(status, "application/json", format!("{}\n", health.detail))
}

fn text(status: StatusCode, words: impl Into<String>) -> Answer {
    answer(status, "text/plain; charset=utf-8", words.into())
}

pub(super) fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_loopback_it_answers_to_its_own_names_alone() {
        for host in [
            "localhost",
            "LocalHost:9901",
            "127.0.0.1:9901",
            "127.0.0.2",
            "[::1]:9901",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback_name(host), "{host}");
        }
        for host in ["", "evil.test", "192.0.2.2:9901", "127.0.0.1.evil.test"] {
            assert!(!is_loopback_name(host), "{host}");
        }
    }

    #[test]
    fn off_loopback_reading_needs_the_token_too() {
        let at = |address: &str| Door::Listener(address.parse().unwrap());
        for here in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"].map(at) {
            assert_eq!(here.opened_with(Shown::Nothing), Ok(here));
            assert_eq!(here.opened_with(Shown::Token), Ok(Door::Token));
            assert_eq!(here.opened_with(Shown::Wrong), Err(Closed::ToThis));
        }
        for there in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "fe80::1"].map(at) {
            assert_eq!(there.opened_with(Shown::Nothing), Err(Closed::ToStrangers));
            assert_eq!(there.opened_with(Shown::Token), Ok(Door::Token));
            assert_eq!(there.opened_with(Shown::Wrong), Err(Closed::ToThis));
        }
        let socket = Door::Socket(Some(0));
        assert_eq!(socket.opened_with(Shown::Nothing), Ok(socket));
    }
}
