//! The page Policy, and `/api/v1/policy`: the rules in force with what came of them, the last load, and whether
//! each route enforces or observes.

use std::collections::BTreeMap;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::{
    Viewer,
    now::{self, tile},
    page::{Part, part},
    shell::{act, log_in_to, table},
    words,
};
use crate::{
    admin::{
        Switch, View, Wanted,
        api::{Query, Refused, Reply, read, say},
        now::only_reading,
        server::{Door, Server},
        status::Enforcement,
    },
    bots::Category,
    event::{access::Verdict, time::Stamps},
    guard::{policy::Rules, route::Route},
    limit::seconds,
};

/// What holds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PolicyShown {
    /// Which policy, counted from the start.
    pub policy: u64,
    /// When it was loaded, as RFC 3339 spells it.
    pub loaded: String,
    /// How much of it is enforced.
    pub enforcement: Enforcement,
    /// Why the file as it is now was refused, where it was: an older one is in force.
    pub refused: Option<String>,
    /// What an operator should know about the policy in force.
    pub notes: Vec<String>,
    /// The routes in their order, and last what holds where none matches.
    pub routes: Vec<RouteShown>,
    /// What violations are worth, in points.
    pub points: BTreeMap<String, u32>,
}

/// What holds on a route, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RouteShown {
    /// Its name; `defaults` where none matches.
    pub route: String,
    /// The paths it is for; none for all that is left.
    pub paths: Vec<String>,
    /// The methods it is for; none for all.
    pub methods: Option<Vec<String>>,
    /// `enforce` or `observe`.
    pub mode: String,
    /// Whether requests need the secret.
    pub secret: bool,
    /// What is done with each category of bots; none where they are not looked for.
    pub bots: Option<BTreeMap<String, String>>,
    /// How often each client may ask.
    pub limits: Vec<LimitShown>,
    /// Whether asking for it is a violation.
    pub trap: bool,
    /// Answers of the application that count as violations: the status, and the points.
    pub penalize: BTreeMap<String, u32>,
    /// Bytes of a body at most.
    pub body_bytes_max: u64,
    /// Whether bodies need a valid signature.
    pub signature: bool,
    /// Finished requests by verdict, since the route is there.
    pub requests: BTreeMap<String, u64>,
    /// What they took on average, in milliseconds; none where there were none.
    pub mean_ms: Option<f64>,
}

/// A limit, in the terms of `RateLimit-Policy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LimitShown {
    /// Its name in answers.
    pub name: String,
    /// So many at once …
    pub burst: u32,
    /// … and so many in so many seconds.
    pub window_s: u64,
}

/// A route to be switched.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToSwitch {
    /// Its name; none for all that say nothing themselves.
    #[serde(default)]
    pub(super) route: Option<String>,
    /// `enforce` or `observe`.
    pub(super) mode: String,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Switched {
    done: String,
}

impl View {
    /// What holds.
    pub(super) fn policy(&self) -> PolicyShown {
        let policy = self.shared.policy.load();
        let told = self.reloads.told();
        let routes = policy.routes.iter().map(RouteShown::of);
        let mut rest = RouteShown::by_rules(&policy.defaults);
        "defaults".clone_into(&mut rest.route);
        let points = &policy.points;
        let points = [
            ("rate_limited", points.rate_limited),
            ("bot", points.bot),
            ("body_too_large", points.body_too_large),
            ("trap", points.trap),
        ];
        PolicyShown {
            policy: policy.generation,
            loaded: Stamps::default().rfc3339(self.reloads.last_success_unix_ms()),
            enforcement: Enforcement::of(&policy),
            refused: told.refused.clone(),
            notes: told.notes.clone(),
            routes: routes.chain([rest]).collect(),
            points: points.map(|(name, own)| (name.to_owned(), own)).into(),
        }
    }
}

impl RouteShown {
    fn of(route: &Route<Rules>) -> Self {
        Self {
            paths: route.patterns.iter().map(ToString::to_string).collect(),
            methods: route.methods.clone(),
            ..Self::by_rules(&route.value)
        }
    }

    fn by_rules(rules: &Rules) -> Self {
        let verdicts = rules.tally.verdicts();
        let all: u64 = verdicts.iter().sum();
        let mean = std::time::Duration::from_micros(
            rules.tally.duration_us().checked_div(all).unwrap_or(0),
        );
        let actions = rules.bots.as_ref().map(|actions| {
            let each = Category::ALL.into_iter();
            let each = each.map(|own| (own.word().to_owned(), actions.of(own).word().to_owned()));
            each.collect()
        });
        let limits = rules.limits.named().map(|(name, limit)| LimitShown {
            name: name.to_owned(),
            burst: limit.quota.burst(),
            window_s: seconds(limit.quota.window()).max(1),
        });
        Self {
            route: rules.route.clone(),
            paths: Vec::new(),
            methods: None,
            mode: if rules.enforces { "enforce" } else { "observe" }.to_owned(),
            secret: rules.needs_secret,
            bots: actions,
            limits: limits.collect(),
            trap: rules.is_trap,
            penalize: rules
                .penalize
                .iter()
                .map(|(status, points)| (status.to_string(), *points))
                .collect(),
            body_bytes_max: rules.body_bytes_max,
            signature: rules.signature.is_some(),
            requests: Verdict::ALL
                .iter()
                .map(|verdict| verdict.name().to_owned())
                .zip(verdicts)
                .collect(),
            mean_ms: (all > 0).then_some(mean.as_secs_f64() * 1_000.0),
        }
    }
}

impl Server {
    /// Answers what holds.
    ///
    /// # Errors
    /// By any method but GET.
    pub(in crate::admin) fn policy_answer(&self, request: &Request<Incoming>) -> Reply {
        only_reading(request)?;
        Query::read(request.uri().query(), &[])?;
        say(StatusCode::OK, &self.view.policy())
    }

    /// Switches a route between enforce and observe.
    ///
    /// # Errors
    /// When it cannot be read, there is no such route, or the file cannot be changed.
    pub(in crate::admin) async fn mode_answer(
        &self,
        request: Request<Incoming>,
        door: Door,
    ) -> Reply {
        if *request.method() != Method::POST {
            let words = "use POST with {\"route\": \"login\", \"mode\": \"enforce\"}";
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, words));
        }
        let actor = door.actor()?;
        let done = self.switch(read(request).await?, &actor).await?;
        say(StatusCode::OK, &Switched { done })
    }

    /// Switches a route by an edit of the policy's file, and says what came of it.
    ///
    /// # Errors
    /// When there is no such route, or the file cannot be changed.
    pub(super) async fn switch(&self, wanted: ToSwitch, actor: &str) -> Result<String, Refused> {
        let enforces = match wanted.mode.as_str() {
            "enforce" => true,
            "observe" => false,
            _ => return Err(Refused::senseless("`mode`: write enforce or observe")),
        };
        let route = wanted
            .route
            .filter(|route| !route.is_empty() && route != "defaults");
        let switch = Switch { route, enforces };
        let done = self.reloader.ask(actor, Wanted::Switch(switch)).await;
        done.map(|words| words.trim_end().to_owned())
            .map_err(|words| Refused::new(StatusCode::CONFLICT, words))
    }
}

pub(super) fn parts(shown: &PolicyShown, viewer: &Viewer, back: &str) -> Vec<Part> {
    vec![
        part("load", "", load(shown, viewer, back)),
        part(
            "routes",
            "Routes",
            html! {
                p.hint { "The first that matches decides. Hits are counted since the start, or since the route is there." }
                (routes(shown, viewer, back))
                (log_in_to(viewer, "switch routes between observe and enforce", back))
            },
        ),
        part("points", "What violations are worth", points(&shown.points)),
    ]
}

fn load(shown: &PolicyShown, viewer: &Viewer, back: &str) -> Markup {
    let enforcement = shown.enforcement;
    html! {
        @if let Some(refused) = &shown.refused {
            div.said.bad role="alert" {
                p { "The file was refused; the policy before it stays in force:" }
                pre { (refused) }
            }
        }
        dl.tiles {
            (tile("Policy", &shown.policy.to_string(), "", "in force; counted from the start"))
            div { dt { "Loaded" } dd { (words::time(&shown.loaded)) } }
            (tile("Enforced", &enforcement.routes_enforced.to_string(), "routes", ""))
            (tile("Observed", &enforcement.routes_observed.to_string(), "routes",
                if enforcement.any { "" } else { "nothing is enforced yet" }))
        }
        @if !shown.notes.is_empty() {
            ul.said.warn { @for note in &shown.notes { li { (note) } } }
        }
        (act(viewer, "/act/reload", back, &html! { button.quiet type="submit" { "Reload the file" } }))
    }
}

fn routes(shown: &PolicyShown, viewer: &Viewer, back: &str) -> Markup {
    let rows = html! {
        @for route in &shown.routes {
            tr {
                th scope="row" { (route.route) }
                td { (mode(route, viewer, back)) }
                td.mono.text {
                    @if let Some(methods) = &route.methods { (methods.join(" ")) " " }
                    @if route.paths.is_empty() { "everything else" }
                    @for path in &route.paths { div { (path) } }
                }
                td { (limits(&route.limits)) }
                td.text { (rules(route)) }
                @let of = |verdict: &str| route.requests.get(verdict).copied().unwrap_or(0);
                td.n { (words::count(route.requests.values().sum())) }
                td.n { (words::count(of("refused"))) }
                td.n { (words::count(of("failed"))) }
                td.n { (words::ms(route.mean_ms)) }
            }
        }
    };
    let heads = [
        "Route", "Mode", "For", "Limits", "Rules", "Requests", "Refused", "Failed", "Mean ms",
    ];
    table("Routes", &heads, &rows)
}

fn mode(route: &RouteShown, viewer: &Viewer, back: &str) -> Markup {
    let other = if route.mode == "enforce" {
        "observe"
    } else {
        "enforce"
    };
    html! {
        (now::mode(&route.mode))
        (act(viewer, "/act/mode", back, &html! {
            input type="hidden" name="route" value=(route.route);
            input type="hidden" name="mode" value=(other);
            button.quiet type="submit" aria-label={ "Switch " (route.route) " to " (other) } { "→ " (other) }
        }))
    }
}

fn limits(limits: &[LimitShown]) -> Markup {
    html! {
        @if limits.is_empty() { "none" }
        @for limit in limits { div { (limit.burst) " in " (limit.window_s) " s" } }
    }
}

fn rules(route: &RouteShown) -> Markup {
    let blocked = route
        .bots
        .iter()
        .flatten()
        .filter(|(_, action)| *action != "allow");
    let blocked: Vec<_> = blocked
        .map(|(category, action)| format!("{category}: {action}"))
        .collect();
    html! {
        @if route.trap { div { "trap" } }
        @if route.secret { div { "needs the secret" } }
        @if route.signature { div { "needs a signature" } }
        @for (status, points) in &route.penalize { div { (status) " costs " (points) } }
        div { "body up to " (words::bytes(route.body_bytes_max)) }
        @if blocked.is_empty() {
            div { "bots pass" }
        } @else {
            details { summary { "bots" } @for each in blocked { div { (each) } } }
        }
    }
}

fn points(points: &BTreeMap<String, u32>) -> Markup {
    html! {
        dl.tiles { @for (name, worth) in points { (tile(&words::plain(name), &worth.to_string(), "points", "")) } }
    }
}
