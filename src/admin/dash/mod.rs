//! The dashboard: what the API tells, as pages; and acts, as forms.
//!
//! A page is made of parts from the same answers that `/api/v1/…` gives as JSON. It is whole without scripts;
//! with them, parts that have changed come as server-sent events. Whatever clients wrote is put in as text,
//! which maud escapes where it is written, and the content security policy forbids what would not be text.
//! Acts need a session that the token has opened, and a form that this session was given.

mod act;
mod bans;
mod bots;
mod chart;
mod client;
mod clients;
mod cluster;
mod health;
mod log;
mod login;
mod now;
mod page;
mod policy;
mod request;
mod session;
mod shell;
mod words;

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use maud::Markup;

use super::{
    api::{Answer, Refused},
    live::Listeners,
    now::Lately,
    openapi,
    server::{Door, Server},
};
use page::Page;
use session::{Seen, Sessions};

/// What the dashboard remembers.
#[derive(Debug, Default)]
pub(super) struct Dash {
    pub(super) lately: Lately,
    pub(super) listeners: Listeners,
    sessions: Sessions,
}

/// What a page may load, and where its forms go: from here alone, and nothing that stands in the page itself.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// A file that pages load: its path, its type, and its bytes.
type Asset = (&'static str, &'static str, &'static [u8]);

/// They change with the program, whose version stands in their query.
const ASSETS: [Asset; 3] = [
    (
        "/static/wardent.css",
        "text/css; charset=utf-8",
        include_bytes!("assets/wardent.css"),
    ),
    (
        "/static/wardent.js",
        "text/javascript; charset=utf-8",
        include_bytes!("assets/wardent.js"),
    ),
    (
        "/static/wardent.svg",
        "image/svg+xml",
        include_bytes!("assets/wardent.svg"),
    ),
];

/// Answers in JSON that the dashboard's pages are the twins of.
const TWINS: [&str; 8] = [
    "/api/v1/now",
    "/api/v1/live",
    "/api/v1/client",
    "/api/v1/policy",
    "/api/v1/policy/mode",
    "/api/v1/bots",
    "/api/v1/health",
    "/api/v1/openapi.json",
];

/// Whether a path is the dashboard's.
pub(super) fn is_here(path: &str) -> bool {
    TWINS.contains(&path)
        || is_act(path)
        || matches!(path, "/login" | "/live" | "/find")
        || path.starts_with("/static/")
        || Page::at(path, "").is_some()
}

/// Whether a path is for who has not shown the token yet, too: the form that takes it, and how it looks.
pub(super) fn is_for_strangers(path: &str) -> bool {
    path == "/login" || path.starts_with("/static/")
}

/// Whether somebody opens a page.
pub(super) fn is_page(request: &Request<Incoming>) -> bool {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    reads && Page::at(request.uri().path(), "").is_some()
}

/// Leads to the form that takes the token, and from there to the page that was wanted.
pub(super) fn to_login(request: &Request<Incoming>) -> Answer {
    see_other(&format!(
        "/login?back={}",
        words::encoded(request.uri().path())
    ))
}

/// Whether a path of the dashboard or its twins is for acts alone.
pub(super) fn is_act(path: &str) -> bool {
    path.starts_with("/act/") || path == "/api/v1/policy/mode"
}

/// Who looks at a page.
#[derive(Debug, Clone, Default)]
struct Viewer {
    /// The session, where the token has opened one.
    seen: Option<Seen>,
}

impl Server {
    /// Whether a request is of a session and may go by that alone: it reads, or is a form, which shows more.
    pub(super) fn is_in_session(&self, request: &Request<Incoming>) -> bool {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let now_ms = self.view.shared.clock.monotonic_ns() / 1_000_000;
        (reads || request.uri().path().starts_with("/act/"))
            && self.dash.sessions.find(request.headers(), now_ms).is_some()
    }

    /// Answers what the dashboard is asked, and its twins.
    pub(super) async fn dash(&self, request: Request<Incoming>, door: Door) -> Answer {
        let path = request.uri().path().to_owned();
        let reply = match path.as_str() {
            "/api/v1/now" => self.now_answer(&request).await,
            "/api/v1/live" => self.live(&request),
            "/api/v1/client" => self.client_answer(&request).await,
            "/api/v1/policy" => self.policy_answer(&request),
            "/api/v1/policy/mode" => self.mode_answer(request, door).await,
            "/api/v1/bots" => self.bots_answer(&request),
            "/api/v1/health" => self.health_answer(&request),
            "/api/v1/openapi.json" => openapi::answer(&request),
            _ => return self.pages(request, &path).await,
        };
        reply.unwrap_or_else(Answer::from)
    }

    async fn pages(&self, request: Request<Incoming>, path: &str) -> Answer {
        let now_ms = self.view.shared.clock.monotonic_ns() / 1_000_000;
        let seen = self.dash.sessions.find(request.headers(), now_ms);
        let viewer = Viewer { seen };
        match (request.method(), path) {
            (&Method::POST, "/login") => self.log_in(request).await,
            (&Method::POST, path) if is_act(path) => self.act(request, &viewer).await,
            (&Method::GET | &Method::HEAD, "/login") => self.login_page(&request, &viewer),
            (&Method::GET | &Method::HEAD, "/live") => self.live_page(&request, viewer),
            (&Method::GET | &Method::HEAD, "/find") => find(&request),
            (&Method::GET | &Method::HEAD, path) if path.starts_with("/static/") => asset(path),
            (&Method::GET | &Method::HEAD, path) => {
                let query = request.uri().query().unwrap_or_default();
                match Page::at(path, query) {
                    Some(page) => self.show(&page, &viewer).await,
                    None => self.wrong(&viewer, StatusCode::NOT_FOUND, "there is no such page"),
                }
            }
            _ => {
                let words = "use GET to read; forms say how to act";
                self.wrong(&viewer, StatusCode::METHOD_NOT_ALLOWED, words)
            }
        }
    }

    async fn show(&self, page: &Page, viewer: &Viewer) -> Answer {
        match self.parts(page, viewer, page::Moment::Whole).await {
            Ok(parts) => {
                let said = viewer
                    .seen
                    .as_ref()
                    .and_then(|seen| self.dash.sessions.said(seen));
                html(
                    StatusCode::OK,
                    shell::page(page, &parts, viewer, said.as_ref()),
                )
            }
            Err(Refused { status, words }) => self.wrong(viewer, status, &words),
        }
    }

    fn wrong(&self, viewer: &Viewer, status: StatusCode, words: &str) -> Answer {
        html(status, shell::wrong(status, words, viewer))
    }

    /// Goes on sending the parts of a page that have changed.
    fn live_page(&self, request: &Request<Incoming>, viewer: Viewer) -> Answer {
        let asked = super::api::Query::read(request.uri().query(), &["page"]);
        let page = asked.map(|asked| {
            let wanted = asked.get("page").unwrap_or("/");
            let (path, query) = wanted.split_once('?').unwrap_or((wanted, ""));
            Page::at(path, query)
        });
        match page {
            Ok(Some(page)) => {
                let teller = page::Changes::new(self.clone(), page, viewer);
                self.dash
                    .listeners
                    .answer(teller)
                    .unwrap_or_else(Answer::from)
            }
            Ok(None) => Answer::from(Refused::new(StatusCode::NOT_FOUND, "there is no such page")),
            Err(refused) => Answer::from(refused),
        }
    }
}

/// Leads to the page of the client or network that somebody looks for, or of a request by its id.
fn find(request: &Request<Incoming>) -> Answer {
    let asked = super::api::Query::read(request.uri().query(), &["q"]);
    let wanted = asked
        .ok()
        .and_then(|asked| asked.get("q").map(str::to_owned));
    let wanted = wanted.unwrap_or_default();
    let wanted = wanted.trim();
    let is_client = wanted.parse::<std::net::IpAddr>().is_ok() || wanted.contains('/');
    let place = match wanted {
        "" => "/".to_owned(),
        wanted if is_client => format!("/client/{}", words::encoded(wanted)),
        wanted => format!("/request/{}", words::encoded(wanted)),
    };
    see_other(&place)
}

fn asset(path: &str) -> Answer {
    let Some((_, kind, bytes)) = ASSETS.iter().find(|(own, ..)| *own == path) else {
        return Answer::from(Refused::new(StatusCode::NOT_FOUND, "there is no such file"));
    };
    let mut answer = Response::new(Either::Left(Full::new(Bytes::from_static(bytes))));
    let headers = answer.headers_mut();
    set(headers, header::CONTENT_TYPE, kind);
    set(headers, header::CACHE_CONTROL, "max-age=86400, immutable");
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // An icon is a document of its own when it is opened as one.
    set(
        headers,
        header::CONTENT_SECURITY_POLICY,
        CONTENT_SECURITY_POLICY,
    );
    answer
}

/// A page, with what keeps it from being used against who looks at it.
fn html(status: StatusCode, markup: Markup) -> Answer {
    let body = Bytes::from(markup.into_string());
    let mut answer = Response::new(Either::Left(Full::new(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    set(headers, header::CONTENT_TYPE, "text/html; charset=utf-8");
    set(
        headers,
        header::CONTENT_SECURITY_POLICY,
        CONTENT_SECURITY_POLICY,
    );
    set(headers, header::CACHE_CONTROL, "no-store");
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(headers, header::X_FRAME_OPTIONS, "DENY");
    // Not `no-referrer`, with which browsers send forms with `Origin: null` (Fetch section 3.2).
    set(headers, header::REFERRER_POLICY, "same-origin");
    let opener = header::HeaderName::from_static("cross-origin-opener-policy");
    set(headers, opener, "same-origin");
    let resource = header::HeaderName::from_static("cross-origin-resource-policy");
    set(headers, resource, "same-origin");
    answer
}

/// Leads on, by GET, after a form (RFC 9110 section 15.4.4).
fn see_other(place: &str) -> Answer {
    let mut answer = html(StatusCode::SEE_OTHER, maud::html! {});
    let place = header::HeaderValue::from_str(place);
    let place = place.unwrap_or(header::HeaderValue::from_static("/"));
    answer.headers_mut().insert(header::LOCATION, place);
    answer
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &'static str) {
    headers.insert(name, header::HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_others_is_taken_for_a_page() {
        for path in [
            "/",
            "/bans",
            "/client/2001:db8::/64",
            "/request/1",
            "/static/x",
            "/act/ban",
        ] {
            assert!(is_here(path), "{path}");
        }
        for path in [
            "/metrics",
            "/livez",
            "/subjects",
            "/api/v1/bans",
            "/bans/x",
            "/x",
            "",
        ] {
            assert!(!is_here(path), "{path}");
        }
    }

    #[test]
    fn strangers_get_the_form_and_how_it_looks_and_nothing_else() {
        for path in ["/login", "/static/wardent.css"] {
            assert!(is_for_strangers(path), "{path}");
        }
        for path in [
            "/",
            "/live",
            "/find",
            "/act/ban",
            "/api/v1/now",
            "/loginx",
            "/static",
        ] {
            assert!(!is_for_strangers(path), "{path}");
        }
    }

    #[test]
    fn what_stands_in_a_page_may_not_run() {
        assert!(!CONTENT_SECURITY_POLICY.contains("unsafe"));
        let markup = shell::wrong(
            StatusCode::NOT_FOUND,
            "<script>alert(1)</script>",
            &Viewer::default(),
        );
        let page = markup.into_string();
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
        for inline in [
            "<style",
            "style=",
            "onclick",
            "onerror=",
            "javascript:",
            "<script>",
        ] {
            assert!(!page.contains(inline), "{inline} stands in {page}");
        }
    }
}
