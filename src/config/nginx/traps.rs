//! What in an nginx configuration works against Wardent. Each was seen to bite; the sources are nginx's own
//! (`ngx_http_upstream.c`, `ngx_http_realip_module.c`) and its documentation.

use super::{Location, Site, parse::Directive, time};
use crate::config::{Loaded, Problem, policy::Route};

/// Pages that nginx puts in place of answers.
struct Page<'a> {
    codes: Vec<u16>,
    /// The status that the client gets instead: `Some(None)` for that of the page.
    becomes: Option<Option<u16>>,
    target: &'a str,
    said: &'a Directive,
}

/// All of a site.
pub(super) fn of(site: &Site, loaded: &Loaded) -> Vec<Problem> {
    let mut problems = Vec::new();
    for location in site.locations.iter().filter(|one| one.pass.is_some()) {
        let routes = routes_of(site, location, loaded);
        problems.extend(target(location));
        problems.extend(secret(location, loaded));
        problems.extend(identity(location, loaded));
        problems.extend(edge(location, loaded));
        problems.extend(everybody_is_trusted(location));
        problems.extend(host(location));
        problems.extend(body(location, &routes, loaded));
        problems.extend(limit(location, loaded));
        problems.extend(patience(location, loaded));
        problems.extend(pages(site, location, &routes));
    }
    problems
}

/// The routes that nginx sends to this location, as far as their paths tell.
fn routes_of<'a>(site: &Site, location: &Location, loaded: &'a Loaded) -> Vec<&'a Route> {
    let is_here = |route: &&Route| {
        route.matches.path.iter().any(|pattern| {
            let text = pattern.to_string();
            let literal = text.split('*').next().unwrap_or_default();
            takes(site, literal).is_some_and(|taker| std::ptr::eq(taker, location))
        })
    };
    loaded.policy.routes.iter().filter(is_here).collect()
}

/// The location that takes a path: an exact one, else the longest prefix. Regular expressions are not
/// understood: where there are any, it may be another.
fn takes<'a>(site: &'a Site, path: &str) -> Option<&'a Location> {
    let plain = site.locations.iter();
    let exact = |one: &&Location| one.modifier == "=" && one.pattern == path;
    let prefix = |one: &&Location| {
        matches!(one.modifier.as_str(), "" | "^~")
            && !one.pattern.starts_with('@')
            && path.starts_with(&one.pattern)
    };
    plain.clone().find(exact).or_else(|| {
        plain
            .filter(prefix)
            .max_by_key(|location| location.pattern.len())
    })
}

/// A path behind `proxy_pass` makes nginx decode and rewrite what the client asked for.
fn target(location: &Location) -> Option<Problem> {
    let pass = location.pass.as_ref()?;
    let rest = pass.arg(0).strip_prefix("http://")?;
    let has_path = match rest.strip_prefix("unix:") {
        Some(path) => path.contains(':'),
        None => rest.contains('/'),
    };
    has_path.then(|| {
        pass.at.warning(
            "a path behind `proxy_pass`: nginx decodes and rewrites every target",
            "leave the path out: `proxy_pass http://wardent;`",
        )
    })
}

/// What nginx adds to every request proves nothing.
fn secret(location: &Location, loaded: &Loaded) -> Option<Problem> {
    let name = loaded.wardent.secret.header.as_str();
    let set = location.header(name)?;
    let own = format!("$http_{}", name.replace('-', "_"));
    if set.arg(1) == own {
        return None;
    }
    let (what, help) = match set.arg(1) {
        "" => (
            format!("nginx takes `{name}` away: no request can prove that it came the right way"),
            "remove this line: nginx passes the header on by itself",
        ),
        _ => (
            format!("nginx adds `{name}` to everybody's requests: it proves nothing then"),
            "remove this line, and let the CDN add the header (a transform rule)",
        ),
    };
    // The line may hold the secret itself.
    Some(Problem {
        excerpt: None,
        ..set.at.warning(what, help)
    })
}

/// Who the client is: what nginx says of it.
fn identity(location: &Location, loaded: &Loaded) -> Option<Problem> {
    let name = loaded.wardent.client_ip.header.as_str();
    let has_realip = location.said("real_ip_header").is_some();
    if location
        .said("proxy_pass_request_headers")
        .is_some_and(|one| one.arg(0) == "off")
        && location.header(name).is_none()
    {
        let at = &location.said("proxy_pass_request_headers")?.at;
        let what = format!("`{name}` does not get to Wardent: nobody can be limited or banned");
        let help = format!("proxy_set_header {name} $wardent_client_ip;  (see nginx/wardent.conf)");
        return Some(at.warning(what, help));
    }
    let Some(set) = location.header(name) else {
        return unguarded(location, loaded, name);
    };
    let what = match set.arg(1) {
        "" => format!("nginx takes `{name}` away: nobody can be limited or banned"),
        "$remote_addr" | "$realip_remote_addr" if !has_realip || set.arg(1).contains("realip") => {
            format!("`{name}` is the hop before nginx: behind a CDN, all its clients are one")
        }
        value
            if value.starts_with("$http_x_forwarded_for")
                || value == "$proxy_add_x_forwarded_for" =>
        {
            format!("`{name}` is what the client itself may write, or a list of it")
        }
        value if value == format!("$http_{}", name.replace('-', "_")) => {
            return unguarded(location, loaded, name);
        }
        _ => return None,
    };
    let help = format!("proxy_set_header {name} $wardent_client_ip;  (see nginx/wardent.conf)");
    Some(set.at.warning(what, help))
}

/// Whoever reaches nginx around the CDN may call itself anybody, where nothing proves the way.
fn unguarded(location: &Location, loaded: &Loaded, name: &str) -> Option<Problem> {
    let wardent = &loaded.wardent;
    let is_proven = !wardent.secret.keys.is_empty() || wardent.client_ip.edge.is_some();
    let is_guarded = location.is_on("ssl_verify_client") || location.said("deny").is_some();
    if is_proven || is_guarded {
        return None;
    }
    let at = location
        .header(name)
        .map_or(&location.own.at, |set| &set.at);
    Some(at.warning(
        format!("`{name}` is passed on from everybody: a stranger may call itself anybody"),
        "pass it on from the CDN's networks alone ($wardent_client_ip of nginx/wardent.conf), or use \
         `secret` or `edge`",
    ))
}

/// `edge` looks at the hop before nginx: nginx must name that, and not what realip made of it.
fn edge(location: &Location, loaded: &Loaded) -> Option<Problem> {
    let name = loaded.wardent.client_ip.edge.as_ref()?.header.as_str();
    let help = format!("proxy_set_header {name} $realip_remote_addr;");
    let Some(set) = location.header(name) else {
        let what =
            format!("`{name}`, which `client_ip.edge` goes by, is the client's own word here");
        return Some(location.own.at.warning(what, help));
    };
    let has_realip = location.said("real_ip_header").is_some();
    match set.arg(1) {
        "$realip_remote_addr" => None,
        "$remote_addr" if !has_realip => None,
        "$remote_addr" => Some(set.at.warning(
            format!(
                "realip has replaced $remote_addr: `{name}` is the client, not the hop before nginx"
            ),
            help,
        )),
        _ => Some(set.at.warning(
            format!(
                "`{name}`, which `client_ip.edge` goes by, is not the address of the connection"
            ),
            help,
        )),
    }
}

/// realip that believes everybody.
fn everybody_is_trusted(location: &Location) -> Option<Problem> {
    let from = location.all_said("set_real_ip_from");
    let all = from
        .into_iter()
        .find(|one| matches!(one.arg(0), "0.0.0.0/0" | "::/0"))?;
    Some(all.at.warning(
        "realip believes everybody: $remote_addr is whatever a stranger writes",
        "name the CDN's networks instead (nginx/cloudflare.conf)",
    ))
}

/// Without, the application and signed requests see the name of the upstream.
fn host(location: &Location) -> Option<Problem> {
    location.header("host").is_none().then(|| {
        location.own.at.warning(
            format!("{}: no `Host` is set: the application is called by the upstream's name", location.title()),
            "proxy_set_header Host $host;  (a `proxy_set_header` here drops all that stand further out)",
        )
    })
}

/// A bound that is not above Wardent's answers in its place.
fn body(location: &Location, routes: &[&Route], loaded: &Loaded) -> Option<Problem> {
    let own = location.body_max()?;
    let defaults = ("defaults", loaded.policy.defaults.body);
    let routes = routes.iter().map(|route| {
        let body = loaded.policy.effective(route).body;
        (route.name.as_str(), body)
    });
    let (name, bound) = routes.chain([defaults]).max_by_key(|(_, body)| *body)?;
    if own > bound {
        return None;
    }
    let at = location
        .said("client_max_body_size")
        .map_or(&location.own.at, |said| &said.at);
    let what = format!(
        "nginx refuses bodies over {}, before Wardent's own bound of {} (`{name}`): \
         without a reason, an event or points",
        shown(own),
        shown(bound)
    );
    let help = format!(
        "client_max_body_size {}m;  (or 0: Wardent bounds them)",
        (bound >> 20) + 1
    );
    Some(at.warning(what, help))
}

fn shown(bytes: u64) -> String {
    match bytes {
        bytes if bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    }
}

/// A limit below Wardent's refuses in its place.
fn limit(location: &Location, loaded: &Loaded) -> Option<Problem> {
    let said = location.said("limit_req")?;
    let zone = said.args.iter().find_map(|arg| arg.strip_prefix("zone="))?;
    let zones = location.levels.iter().flatten();
    let named = |one: &&Directive| {
        let own = one.args.iter().find_map(|arg| arg.strip_prefix("zone="));
        let own = own.map(|own| own.split(':').next().unwrap_or(own));
        one.name == "limit_req_zone" && own == Some(zone)
    };
    let own = zones.clone().find(named)?;
    let rate = own.args.iter().find_map(|arg| arg.strip_prefix("rate="))?;
    let per_minute = match rate.split_once("r/")? {
        (count, "s") => count.parse::<u64>().ok()?.checked_mul(60)?,
        (count, _) => count.parse().ok()?,
    };
    let slowest = loaded.policy.defaults.limit.iter().find(|limit| {
        let bound = u64::from(limit.rate.count.get()).saturating_mul(60);
        per_minute.saturating_mul(limit.rate.per.as_secs()) < bound
    })?;
    Some(said.at.warning(
        format!(
            "nginx limits to {rate}, below Wardent's {}: its 503 comes first, without a reason or `Retry-After`",
            slowest.rate
        ),
        "leave limits to Wardent, or raise this one well above them",
    ))
}

/// nginx must wait a little longer than Wardent, or its own answer comes first.
fn patience(location: &Location, loaded: &Loaded) -> Option<Problem> {
    let said = location.said("proxy_read_timeout");
    let own = said.map_or(time("60s"), |one| time(one.arg(0)))?;
    let bound = loaded.wardent.upstream.response_timeout;
    if own > bound {
        return None;
    }
    let at = said.map_or(&location.own.at, |said| &said.at);
    Some(at.warning(
        format!(
            "nginx waits {} s for an answer, Wardent {} s (`upstream.response_timeout`): nginx's 504 \
             comes first, without a reason",
            own.as_secs(),
            bound.as_secs()
        ),
        format!("proxy_read_timeout {}s;", bound.as_secs() + 30),
    ))
}

/// What `error_page` says here.
fn error_pages(location: &Location) -> Vec<Page<'_>> {
    let said = location.all_said("error_page");
    said.into_iter()
        .filter_map(|said| {
            let (target, rest) = said.args.split_last()?;
            let codes = rest.iter().filter_map(|arg| arg.parse().ok()).collect();
            let becomes = rest.iter().find_map(|arg| arg.strip_prefix('='));
            Some(Page {
                codes,
                becomes: becomes.map(|code| code.parse().ok()),
                target,
                said,
            })
        })
        .collect()
}

fn pages(site: &Site, location: &Location, routes: &[&Route]) -> Vec<Problem> {
    let intercepts = location.is_on("proxy_intercept_errors");
    let pages = error_pages(location);
    let mut problems = Vec::new();
    let hook = routes.iter().find(|route| route.signature.is_some());
    for page in &pages {
        // nginx's own 502 and 504 take their pages whether it intercepts or not.
        let is_used = intercepts || page.codes.iter().any(|code| matches!(code, 502 | 504));
        if let (Some(route), true, Some(Some(200..=299) | None)) = (hook, is_used, page.becomes) {
            problems.push(page.said.at.warning(
                format!(
                    "an error becomes a success for the webhooks of `{}`: who sent it takes it as delivered",
                    route.name
                ),
                "no `=` here, or `include wardent/snippets/no-pages.conf;` in the webhooks' location",
            ));
        }
        if intercepts {
            problems.extend(page_target(site, page));
        }
    }
    if let (Some(route), true) = (hook, intercepts && !pages.is_empty()) {
        let at = location
            .said("proxy_intercept_errors")
            .map_or(&location.own.at, |said| &said.at);
        problems.push(at.warning(
            format!(
                "nginx replaces the answers to the webhooks of `{}` by pages",
                route.name
            ),
            "give them a location of their own, with `proxy_intercept_errors off;`",
        ));
    }
    problems
}

/// What a page loses, or cannot do, where it stands.
fn page_target(site: &Site, page: &Page<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let is_named = page.target.starts_with('@');
    let target = match is_named {
        true => site.locations.iter().find(|one| one.pattern == page.target),
        false => takes(site, page.target),
    };
    let Some(target) = target else {
        return problems;
    };
    let answers = ["return", "proxy_pass", "fastcgi_pass", "uwsgi_pass"];
    let is_static = !target
        .own
        .inner()
        .iter()
        .any(|one| answers.contains(&one.name.as_str()));
    if is_named && is_static {
        problems.push(page.said.at.warning(
            format!(
                "`{}` keeps the method: a POST gets 405 in place of the page",
                page.target
            ),
            "name a path instead, as nginx/snippets/pages.conf does: a path makes it a GET",
        ));
    }
    if page.codes.contains(&413) && !is_named && target.body_max().is_some() {
        problems.push(target.own.at.warning(
            "nginx looks at the body's size again on the way to the page of 413, and refuses it",
            "client_max_body_size 0;  in this location",
        ));
    }
    let keeps = target.all_said("add_header");
    let keeps_it = keeps
        .iter()
        .any(|one| one.arg(0).eq_ignore_ascii_case("retry-after"));
    if page.codes.contains(&429) && !keeps_it && page.becomes.is_none() {
        problems.push(target.own.at.warning(
            "the page of 429 loses `Retry-After`: nginx drops the headers of what it replaces",
            "add_header Retry-After $upstream_http_retry_after always;  in this location",
        ));
    }
    problems
}
