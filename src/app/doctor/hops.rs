//! The hops, one after the other from the application outwards, each with what is asked of it.

use std::{net::SocketAddr, path::Path, time::Duration};

use http::Method;
use serde_json::Value;

use super::{
    Finding,
    probe::{Answer, Silence, To, ask, resolved},
};
use crate::{
    admin::status::Status,
    app::{
        admin_cli::{self, encoded, meaning, printable},
        cli::sign,
        client::Running,
    },
    base::net::{Address, Upstream},
    config::{
        Loaded,
        nginx::Nginx,
        policy::{Route, SecretRule},
    },
    secret::{Signed, generate},
};

/// Below it is nothing that anybody serves.
const FOLDER: &str = "/.well-known/wardent-doctor/";

/// Addresses for documentation (RFC 5737), which no visitor has.
const VISITOR: &str = "192.0.2.77";
const STRANGER: &str = "192.0.2.78";

const AGENT: &str = concat!("wardent-doctor/", env!("CARGO_PKG_VERSION"));

/// How long an answer is waited for, and the log's word about a request.
const PATIENCE: Duration = Duration::from_secs(5);
const LOG_WAIT: &str = "3s";

/// A body that is only declared is refused at once, or waited for.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);

/// Webhooks that are tried.
const HOOKS_MAX: usize = 5;

/// All that requests go through.
pub(super) struct Chain<'a> {
    config: &'a Path,
    loaded: &'a Loaded,
    running: Running<'a>,
    outside: Option<Outside>,
}

/// Where the chain begins.
struct Outside {
    to: To,
    host: String,
    /// Whether that is this machine's nginx, and not something further out.
    is_here: bool,
}

impl<'a> Chain<'a> {
    /// # Errors
    /// When the URL is none, or leads nowhere.
    pub(super) fn new(
        config: &'a Path,
        loaded: &'a Loaded,
        nginx: Option<&Nginx>,
        url: Option<&str>,
    ) -> Result<Self, String> {
        let outside = match url {
            Some(url) => Some(outside(url)?),
            None => nginx.and_then(|nginx| {
                let door = nginx.doors().into_iter().next()?;
                let to = match door.is_tls {
                    true => To::Tls(door.address, door.host.clone()),
                    false => To::Tcp(door.address),
                };
                Some(Outside {
                    to,
                    host: door.host,
                    is_here: true,
                })
            }),
        };
        Ok(Self {
            config,
            loaded,
            running: Running::behind(&loaded.wardent.admin.socket)?,
            outside,
        })
    }

    /// Looks at every hop.
    pub(super) fn look(&self) -> Vec<Finding> {
        let mut findings = self.application();
        let status = admin_cli::ask(&self.running, Method::GET, "/api/v1/status", None)
            .and_then(|answer| meaning::<Status>(&answer));
        match status {
            Ok(status) => {
                let warnings = status.standing.warnings.iter();
                findings.extend(warnings.map(|warning| {
                    Finding::warning("wardent", printable(warning), "`wardent status` says more")
                }));
            }
            Err(error) => {
                let fix = "start it: systemctl start wardent";
                findings.push(Finding::wrong("wardent", error, fix));
                return findings;
            }
        }
        findings.push(self.wardent());
        match &self.outside {
            Some(outside) => findings.extend(self.nginx(outside)),
            None => findings.push(Finding::warning(
                "nginx",
                "no nginx that leads here was found: that hop was not looked at",
                "--nginx FILE, or --url https://your.site",
            )),
        }
        findings
    }

    fn host(&self) -> &str {
        self.outside
            .as_ref()
            .map_or("localhost", |outside| &outside.host)
    }

    /// Every server of the application, without anything before it.
    fn application(&self) -> Vec<Finding> {
        let hop = "application";
        let upstream = &self.loaded.wardent.upstream;
        let path = upstream
            .health
            .as_ref()
            .map_or("/", |health| health.path.as_str());
        let one = |server: &Upstream| {
            let to = match server {
                Upstream::Unix(path) => Ok(To::Unix(path.clone())),
                Upstream::HostPort(at) => resolved(&at.host, at.port).map(To::Tcp),
            };
            let request = request("GET", path, self.host(), &[]);
            let asked = to.map_err(Silence::Failed);
            match asked.and_then(|to| ask(&to, &request, PATIENCE)) {
                Ok(answer) if answer.status >= 500 => Finding::warning(
                    hop,
                    format!("{server} answers {path} with {}", answer.status),
                    "its own log says why",
                ),
                Ok(answer) => Finding::ok(
                    hop,
                    format!("{server} answers {path} with {}", answer.status),
                ),
                Err(silence) => Finding::wrong(
                    hop,
                    format!("{server}: {silence}"),
                    "start it, or name where it is in `upstream.servers`",
                ),
            }
        };
        upstream.servers.iter().map(one).collect()
    }

    /// A visitor's request, with all that nginx and the CDN would say of it.
    fn wardent(&self) -> Finding {
        let hop = "wardent";
        let Some(listen) = self.loaded.wardent.listen.first() else {
            return Finding::warning(hop, "it listens nowhere", "`listen`");
        };
        let to = match listen {
            Address::Unix(path) => To::Unix(path.clone()),
            Address::Tcp(address) => To::Tcp(reachable(*address)),
        };
        let path = marked();
        let identity = self.loaded.wardent.client_ip.header.as_str();
        let mut headers = vec![(identity, VISITOR.to_owned())];
        let has_keys = !self.loaded.wardent.secret.keys.is_empty();
        if has_keys {
            let signed = Signed {
                method: b"GET",
                host: self.host().as_bytes(),
                target: path.as_bytes(),
                client_ip: VISITOR.parse().ok(),
            };
            match sign(self.config, None, &signed) {
                Ok(value) => headers.push((self.loaded.wardent.secret.header.as_str(), value)),
                Err(error) => {
                    let fix = "be root, or a member of the group `wardent`";
                    return Finding::warning(
                        hop,
                        format!("not asked: {}", error.to_string().trim_end()),
                        fix,
                    );
                }
            }
        }
        let answer = match ask(&to, &request("GET", &path, self.host(), &headers), PATIENCE) {
            Ok(answer) => answer,
            Err(silence) => {
                let fix = "is `listen` what the running one listens on? `wardent status`";
                return Finding::wrong(hop, format!("{to}: {silence}"), fix);
            }
        };
        let Some(seen) = self.seen(&path) else {
            let what = format!("{to} answers {} and is not this Wardent", answer.status);
            return Finding::wrong(hop, what, "another program listens there: see `ss -ltnp`");
        };
        match seen.reason.as_deref().filter(|_| seen.is_refused()) {
            None if seen.client.as_deref() == Some(VISITOR) || seen.client.is_none() => {
                Finding::ok(
                    hop,
                    format!(
                        "a visitor's request gets through, and is answered with {}",
                        answer.status
                    ),
                )
            }
            None => Finding::warning(
                hop,
                format!(
                    "a visitor's request gets through as {}, not as {VISITOR}",
                    printable(seen.client.as_deref().unwrap_or_default())
                ),
                "name this machine in `client_ip.trusted_peers`, if nginx is on it",
            ),
            Some("bad_secret") => Finding::wrong(
                hop,
                "the key in the file is not the one that is in force",
                "wardent reload",
            ),
            Some(reason) => Finding::warning(
                hop,
                format!("a visitor's request is refused: {}", printable(reason)),
                format!("wardent explain {}", printable(&seen.id)),
            ),
        }
    }

    /// Strangers' requests through nginx: none of them holds the secret.
    fn nginx(&self, outside: &Outside) -> Vec<Finding> {
        let mut findings = self.stranger(outside);
        let reached = findings.iter().all(|one| one.state != super::State::Wrong);
        if reached {
            findings.extend(self.body(outside));
            findings.extend(self.hooks(outside));
        }
        findings
    }

    fn stranger(&self, outside: &Outside) -> Vec<Finding> {
        let hop = "nginx";
        let path = marked();
        let wardent = &self.loaded.wardent;
        let identity = wardent.client_ip.header.as_str();
        let request = request(
            "GET",
            &path,
            &outside.host,
            &[(identity, STRANGER.to_owned())],
        );
        let answer = match ask(&outside.to, &request, PATIENCE) {
            Ok(answer) => answer,
            Err(silence) => {
                let fix = "is nginx running, and does it listen there?";
                return vec![Finding::wrong(
                    hop,
                    format!("{}: {silence}", outside.to),
                    fix,
                )];
            }
        };
        let Some(seen) = self.seen(&path) else {
            return vec![Finding::wrong(
                hop,
                format!(
                    "{} answers {} itself: the request does not come to Wardent",
                    outside.to, answer.status
                ),
                "its error log says why; `location /` needs `proxy_pass` to where `listen` is",
            )];
        };
        let mut findings = vec![Finding::ok(hop, format!("{} leads to Wardent", outside.to))];
        findings.extend(replaced(&answer, &seen));
        if answer.header("x-wardent-reason").is_some() {
            findings.push(Finding::warning(
                hop,
                "clients are shown X-Wardent-Reason",
                "proxy_hide_header X-Wardent-Reason;",
            ));
        }
        let asks_for_secret = !wardent.secret.keys.is_empty() && self.rest_requires_secret();
        match (asks_for_secret, seen.reason.as_deref()) {
            (true, Some("bad_secret")) => {
                findings.push(Finding::ok(hop, "a request without the secret is refused"))
            }
            // Looked at before the secret is.
            (true, Some("bad_request")) => {}
            (true, _) if outside.is_here => findings.push(Finding::wrong(
                hop,
                "a request without the secret gets through: nginx adds it, and it proves nothing",
                format!(
                    "remove `proxy_set_header {}`, and let the CDN add it",
                    wardent.secret.header.as_str()
                ),
            )),
            _ => {}
        }
        let is_believed = seen.client.as_deref() == Some(STRANGER);
        if is_believed && seen.is_proven {
            findings.push(Finding::wrong(
                hop,
                format!("a stranger that calls itself {STRANGER} by `{identity}` is believed"),
                "pass it on from the CDN's networks alone (nginx/wardent.conf), or use `secret` or `edge`",
            ));
        } else if outside.is_here {
            findings.push(Finding::ok(
                hop,
                format!("a stranger's `{identity}` is not believed"),
            ));
        }
        findings
    }

    fn rest_requires_secret(&self) -> bool {
        let policy = &self.loaded.policy;
        let takes = |route: &&Route| {
            route.matches.path.is_empty()
                || route
                    .matches
                    .path
                    .iter()
                    .any(|one| one.matches(FOLDER.as_bytes()))
        };
        let rule = policy
            .routes
            .iter()
            .find(takes)
            .and_then(|route| route.secret);
        rule.unwrap_or(policy.defaults.secret) == SecretRule::Require
    }

    /// A body as large as Wardent would take, which is only declared.
    fn body(&self, outside: &Outside) -> Option<Finding> {
        let bound = self.loaded.policy.defaults.body;
        let path = marked();
        let length = [("content-length", bound.to_string())];
        let request = request("POST", &path, &outside.host, &length);
        match ask(&outside.to, &request, REFUSED_WITHIN) {
            Ok(answer) if answer.status == 413 && self.seen(&path).is_none() => {
                Some(Finding::wrong(
                    "nginx",
                    format!(
                        "a body of {bound} bytes is refused before Wardent, whose bound that is"
                    ),
                    format!(
                        "client_max_body_size {}m;  (or 0: Wardent bounds them)",
                        (bound >> 20) + 1
                    ),
                ))
            }
            _ => None,
        }
    }

    /// Webhooks without a valid signature: they must be refused, and whoever sent them must see that.
    fn hooks(&self, outside: &Outside) -> Vec<Finding> {
        let policy = &self.loaded.policy;
        let signed = policy
            .routes
            .iter()
            .filter(|route| route.signature.is_some());
        let paths = signed.filter_map(|route| {
            let path = route.matches.path.first()?.to_string();
            (!path.contains('*')).then_some((route.name.as_str(), path))
        });
        let mut findings = Vec::new();
        for (name, path) in paths.take(HOOKS_MAX) {
            let headers = [
                (
                    self.loaded.wardent.client_ip.header.as_str(),
                    STRANGER.to_owned(),
                ),
                ("content-length", "2".to_owned()),
                ("stripe-signature", "t=1,v1=00".to_owned()),
            ];
            let request = request("POST", &path, &outside.host, &headers) + "{}";
            let Ok(answer) = ask(&outside.to, &request, PATIENCE) else {
                continue;
            };
            findings.push(match answer.status {
                200..=299 => Finding::wrong(
                    "nginx",
                    format!(
                        "a refused webhook of `{name}` is answered with {}: who sent it takes it as delivered",
                        answer.status
                    ),
                    "no `error_page … =200` there: include wardent/snippets/no-pages.conf",
                ),
                status if answer.has_body => Finding::warning(
                    "nginx",
                    format!("a refused webhook of `{name}` is answered with {status} and a page"),
                    "proxy_intercept_errors off;  in the webhooks' location",
                ),
                status => Finding::ok("nginx", format!("a refused webhook of `{name}` is answered with {status}")),
            });
        }
        findings
    }

    /// What Wardent's log says of the request for this path; none where it has not come.
    fn seen(&self, path: &str) -> Option<Seen> {
        let target = format!(
            "/api/v1/events?order=oldest&since=1m&wait={LOG_WAIT}&limit=1&path={}",
            encoded(path)
        );
        let said = admin_cli::ask(&self.running, Method::GET, &target, None).ok()?;
        let said: Value = serde_json::from_str(&said).ok()?;
        let event = said.get("events")?.get(0)?;
        let text = |name: &str| event.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Seen {
            id: text("id").unwrap_or_default(),
            client: text("client"),
            is_proven: event.get("proven") == Some(&Value::Bool(true)),
            verdict: text("verdict").unwrap_or_default(),
            reason: text("reason"),
            status: event
                .get("status")
                .and_then(Value::as_u64)
                .unwrap_or_default(),
        })
    }
}

/// A request, as Wardent's log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    id: String,
    client: Option<String>,
    is_proven: bool,
    verdict: String,
    reason: Option<String>,
    status: u64,
}

impl Seen {
    fn is_refused(&self) -> bool {
        self.verdict == "refused"
    }
}

/// Whether the client saw another answer than Wardent gave.
fn replaced(answer: &Answer, seen: &Seen) -> Option<Finding> {
    if u64::from(answer.status) == seen.status {
        return None;
    }
    Some(match answer.status {
        200..=399 => Finding::wrong(
            "nginx",
            format!(
                "Wardent's {} becomes {}: an error looks like a success",
                seen.status, answer.status
            ),
            "`error_page` without `=`: pages keep the code then (nginx/snippets/pages.conf)",
        ),
        status => Finding::wrong(
            "nginx",
            format!("Wardent's {} becomes {status}", seen.status),
            "the page's own location refuses it: `client_max_body_size 0;` there, and a path as its target",
        ),
    })
}

/// A path that nobody asked for before.
fn marked() -> String {
    let nonce = generate().unwrap_or_default();
    let plain = nonce.chars().filter(char::is_ascii_alphanumeric).take(16);
    format!("{FOLDER}{}", plain.collect::<String>())
}

fn request(method: &str, path: &str, host: &str, headers: &[(&str, String)]) -> String {
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n"
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true if address.is_ipv4() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        true => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port())),
        false => address,
    }
}

/// `https://www.example.com` or `http://127.0.0.1:8080`.
fn outside(url: &str) -> Result<Outside, String> {
    let bad = || format!("{}: write it as https://www.example.com", printable(url));
    let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
    let authority = rest.trim_end_matches('/');
    if authority.is_empty() || authority.contains(['/', '@', '?', '#', ' ']) {
        return Err(bad());
    }
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(bad()),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.ends_with(']') => {
            (host, port.parse().map_err(|_| bad())?)
        }
        _ => (authority, default),
    };
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let address = resolved(name, port)?;
    Ok(Outside {
        to: match scheme {
            "https" => To::Tls(address, name.to_owned()),
            _ => To::Tcp(address),
        },
        host: authority.to_owned(),
        is_here: address.ip().is_loopback(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_to_go_and_what_to_ask_for() {
        let plain = outside("http://127.0.0.1:8081/").unwrap();
        let address: SocketAddr = "127.0.0.1:8081".parse().unwrap();
        assert_eq!(
            (plain.to, plain.host.as_str()),
            (To::Tcp(address), "127.0.0.1:8081")
        );
        assert!(plain.is_here);
        let tls = outside("https://[::1]").unwrap();
        let address: SocketAddr = "[::1]:443".parse().unwrap();
        assert_eq!(tls.to, To::Tls(address, "::1".to_owned()));
        for bad in [
            "www.example.com",
            "ftp://127.0.0.1",
            "http://",
            "http://a@127.0.0.1",
            "http://127.0.0.1/x",
        ] {
            assert!(outside(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn another_answer_than_wardents_is_wrong() {
        let answer = Answer::of;
        let seen = Seen {
            id: String::new(),
            client: None,
            is_proven: false,
            verdict: "refused".to_owned(),
            reason: Some("bad_secret".to_owned()),
            status: 403,
        };
        assert_eq!(replaced(&answer(403), &seen), None);
        let made_good = replaced(&answer(200), &seen).unwrap();
        assert!(made_good.what.contains("looks like a success"));
        assert!(replaced(&answer(405), &seen).is_some());
    }
}
