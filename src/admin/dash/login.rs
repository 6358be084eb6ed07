//! The token's way into a browser: a form, and the session that comes of it.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;

use super::{Viewer, act, html, see_other, shell};
use crate::admin::{
    api::{Answer, Query},
    server::Server,
    token::Shown,
};

/// How late a wrong token is answered, after several.
const LATE: Duration = Duration::from_secs(1);

impl Server {
    pub(super) fn login_page(&self, request: &Request<Incoming>, viewer: &Viewer) -> Answer {
        let query = Query::read(request.uri().query(), &["back"]);
        let back = query
            .ok()
            .and_then(|query| query.get("back").map(act::own_path));
        html(
            StatusCode::OK,
            shell::login(back.as_deref().unwrap_or("/"), viewer, None),
        )
    }

    /// Takes the token, and begins a session.
    pub(super) async fn log_in(&self, request: Request<Incoming>) -> Answer {
        let viewer = Viewer::default();
        let wrong =
            |status, back: &str, words| html(status, shell::login(back, &viewer, Some(words)));
        if !act::is_from_here(request.headers()) {
            return wrong(
                StatusCode::FORBIDDEN,
                "/",
                "the form was sent from somewhere else",
            );
        }
        let is_secure = act::is_over_tls(request.headers());
        let form = match act::form(request).await {
            Ok(form) => form,
            Err(refused) => return wrong(refused.status, "/", &refused.words),
        };
        let back = act::own_path(form.get("back").unwrap_or("/"));
        let now_ms = self.view.shared.clock.monotonic_ns() / 1_000_000;
        if !self.is_token(form.get("token").unwrap_or_default()) {
            if self.dash.sessions.was_wrong(now_ms) {
                tokio::time::sleep(LATE).await;
            }
            let words = "this is not the token of this Wardent";
            return wrong(StatusCode::UNAUTHORIZED, &back, words);
        }
        let Ok(cookie) = self.dash.sessions.begin(now_ms, is_secure) else {
            let words = "there is no randomness for a session";
            return wrong(StatusCode::INTERNAL_SERVER_ERROR, &back, words);
        };
        with_cookie(see_other(&back), &cookie)
    }

    fn is_token(&self, text: &str) -> bool {
        let mut shown = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
        let (Some(token), Ok(value)) = (&self.token, value) else {
            return false;
        };
        shown.insert(header::AUTHORIZATION, value);
        token.shown_in(&shown) == Shown::Token
    }
}

/// The answer, with a cookie to keep or to forget.
pub(super) fn with_cookie(mut answer: Answer, cookie: &str) -> Answer {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}
