//! Acts, as forms: they lead back to the page they were sent from, which says what came of them.
//!
//! A form is taken only from a page of this listener (`Origin`), of a session that the token has opened, with
//! the secret that this session's forms carry. Each of the three keeps other sites' forms out by itself.

use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use super::{
    Viewer, login, see_other,
    session::{Said, Seen},
    words,
};
use crate::admin::{
    Wanted,
    api::{Answer, Query, Refused},
    bans::ToBan,
    server::{Door, Server},
};

/// Bytes of a form at most.
const FORM_BYTES_MAX: usize = 16 * 1024;

impl Server {
    /// Does what a form wants, and leads back.
    pub(super) async fn act(&self, request: Request<Incoming>, viewer: &Viewer) -> Answer {
        let path = request.uri().path().to_owned();
        if !is_from_here(request.headers()) {
            let words = "the form was sent from somewhere else";
            return self.wrong(viewer, StatusCode::FORBIDDEN, words);
        }
        let form = match form(request).await {
            Ok(form) => form,
            Err(refused) => return self.wrong(viewer, refused.status, &refused.words),
        };
        let back = own_path(form.get("back").unwrap_or("/"));
        let Some(seen) = &viewer.seen else {
            return see_other(&format!("/login?back={}", words::encoded(&back)));
        };
        if !form.get("form").is_some_and(|shown| seen.gave(shown)) {
            let words = "the form belongs to an earlier session: open the page again";
            return self.wrong(viewer, StatusCode::FORBIDDEN, words);
        }
        if path == "/act/logout" {
            return login::with_cookie(see_other("/"), &self.dash.sessions.end(seen));
        }
        self.do_and_lead_back(&path, &form, seen, &back).await
    }

    async fn do_and_lead_back(&self, path: &str, form: &Query, seen: &Seen, back: &str) -> Answer {
        let done = match path {
            "/act/ban" => self.ban_by_form(form).await,
            "/act/unban" => self.unban_by_form(form).await,
            "/act/mode" => self.mode_by_form(form).await,
            "/act/reload" => self.reload_by_form().await,
            _ => Err(Refused::new(StatusCode::NOT_FOUND, "there is no such act")),
        };
        let (is_done, words) = match done {
            Ok(words) => (true, words),
            Err(refused) => (false, refused.words),
        };
        self.dash.sessions.say(seen, Said { is_done, words });
        see_other(back)
    }

    async fn ban_by_form(&self, form: &Query) -> Result<String, Refused> {
        let field = |name| form.get(name).unwrap_or_default().trim().to_owned();
        let wanted = ToBan {
            target: field("target"),
            duration: field("for"),
            why: field("why"),
            force: form.get("force").is_some(),
        };
        let ban = self.ban_one(wanted, &Door::Token.actor()?).await?;
        let shown = self.shown(&ban, false);
        Ok(format!(
            "{} is banned until {}",
            shown.target,
            words::moment(&shown.until)
        ))
    }

    async fn unban_by_form(&self, form: &Query) -> Result<String, Refused> {
        let field = |name| form.get(name).unwrap_or_default().trim();
        let (target, grace) = (field("target"), field("grace"));
        let grace = if grace.is_empty() { "0s" } else { grace };
        let actor = Door::Token.actor()?;
        let lifted = self.unban_one(target, grace, actor).await?;
        let free = match lifted.grace_ms {
            0 => String::new(),
            grace_ms => format!("; nothing counts for {}", words::span_ms(grace_ms)),
        };
        Ok(match lifted.lifted {
            Some(ban) => format!("{} is not banned any more{free}", ban.target),
            None => format!("{target} was not banned{free}"),
        })
    }

    async fn mode_by_form(&self, form: &Query) -> Result<String, Refused> {
        let wanted = super::policy::ToSwitch {
            route: form.get("route").map(str::to_owned),
            mode: form.get("mode").unwrap_or_default().to_owned(),
        };
        self.switch(wanted, &Door::Token.actor()?).await
    }

    async fn reload_by_form(&self) -> Result<String, Refused> {
        let actor = Door::Token.actor()?;
        let done = self.reloader.ask(&actor, Wanted::Reload).await;
        done.map_err(Refused::senseless)
    }
}

/// Reads a form (`application/x-www-form-urlencoded`; WHATWG URL section 5).
///
/// # Errors
/// When it is too long, breaks off, or is none.
pub(super) async fn form(request: Request<Incoming>) -> Result<Query, Refused> {
    let body = Limited::new(request.into_body(), FORM_BYTES_MAX);
    let body = body.collect().await.map_err(|_| {
        let words = format!("the form broke off, or is longer than {FORM_BYTES_MAX} bytes");
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, words)
    })?;
    let bytes = body.to_bytes();
    let text = std::str::from_utf8(&bytes).map_err(|_| Refused::unreadable("no form"))?;
    Query::read_any(Some(text))
}

/// Whether a form was sent from a page of this listener, as the browser says. One that says nothing is none.
pub(super) fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(host), Some(origin)) = (text(header::HOST), text(header::ORIGIN)) else {
        return false;
    };
    let (_, name) = origin.split_once("://").unwrap_or_default();
    name.eq_ignore_ascii_case(host)
}

/// Whether a form came over TLS, as its page's address says.
pub(super) fn is_over_tls(headers: &HeaderMap) -> bool {
    let origin = headers.get(header::ORIGIN);
    origin.is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

/// A path of this listener, as it was given; `/` for anything that might lead elsewhere.
pub(super) fn own_path(text: &str) -> String {
    let is_plain = text
        .bytes()
        .all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'\\');
    let is_own = text.starts_with('/') && !text.starts_with("//");
    if is_plain && is_own {
        text.to_owned()
    } else {
        "/".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn no_form_leads_elsewhere() {
        assert_eq!(own_path("/client/2001:db8::?x=1"), "/client/2001:db8::?x=1");
        for other in [
            "//evil.test",
            "https://evil.test",
            "/\\evil.test",
            "",
            "x",
            "/\r\nSet-Cookie: x",
            "/\t/x",
        ] {
            assert_eq!(own_path(other), "/", "{other:?}");
        }
    }

    #[test]
    fn a_form_of_another_site_is_none_of_ours() {
        let from = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:9901"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            is_from_here(&headers)
        };
        assert!(from(Some("http://127.0.0.1:9901")));
        for other in [
            None,
            Some("null"),
            Some("http://127.0.0.1"),
            Some("http://127.0.0.1:9902"),
            Some("http://evil.test"),
            Some("http://evil.test://127.0.0.1:9901"),
        ] {
            assert!(!from(other), "{other:?}");
        }
    }
}
