//! The page Client, and `/api/v1/client`: one client's, or network's, whole story.

use std::{net::IpAddr, time::Duration};

use http::{Request, StatusCode};
use hyper::body::Incoming;
use maud::{Markup, html};
use serde::Serialize;
use serde_json::Value;

use super::{
    Viewer, bans,
    now::tile,
    page::{Moment, Part, part},
    request::text_of,
    shell::{log_in_to, nothing, table},
    words,
};
use crate::{
    admin::{
        api::{Query, Refused, Reply, say},
        bans::Shown,
        explain::{Held, Limit},
        now::only_reading,
        server::Server,
    },
    owner::{Act, Done, Target},
    proxy::explain::{Outcome, Question, outcome},
    sink::query::ask::{Ask, Found},
};

/// How long the log is looked through for each of the two lists, so that a page is there at once.
const LOOKED_WITHIN: Duration = Duration::from_millis(120);

/// A client, or a network.
#[derive(Debug, Serialize)]
pub(super) struct Story {
    /// What limits and bans are kept under.
    pub target: String,
    /// Why nothing bans it, if so.
    pub protected: Option<String>,
    /// The ban that holds, its own or that of a network around it, with what led to it.
    pub ban: Option<Shown>,
    /// What is held against a client.
    pub held: Option<Held>,
    /// What a client has left of the limits that a request for `/` would meet.
    pub limits: Vec<Limit>,
    /// Its last requests, the newest first, as they are in the log.
    pub requests: Events,
    /// What was decided about it, the newest first.
    pub decisions: Events,
}

/// Events of a client, as far as they were found in a moment.
#[derive(Debug, Default, Serialize)]
pub(super) struct Events {
    /// As they are in the log.
    pub events: Vec<Value>,
    /// Whether these are all that there are in the log; else `/api/v1/events` finds more.
    pub is_all: bool,
}

impl Server {
    /// Answers with a client's story.
    ///
    /// # Errors
    /// When it is no client, or the owner of bans does not answer.
    pub(in crate::admin) async fn client_answer(&self, request: &Request<Incoming>) -> Reply {
        only_reading(request)?;
        let query = Query::read(request.uri().query(), &["target"])?;
        let target = query
            .get("target")
            .ok_or_else(|| Refused::unreadable("whose? `?target=198.51.100.7`"))?;
        say(StatusCode::OK, &self.story(target, Moment::Whole).await?)
    }

    /// A client's story; without its events, where that would take long.
    ///
    /// # Errors
    /// When it is no client, or the owner of bans does not answer.
    pub(super) async fn story(&self, text: &str, moment: Moment) -> Result<Story, Refused> {
        let target = self.target(text)?;
        let ban = match self.acts.ask(Act::Show(target)).await {
            Ok(Done::Shown(ban)) => Some(self.shown(&ban, true)),
            Err(crate::owner::NotDone::NotBanned { .. }) => None,
            Ok(_) => return Err(Refused::confused()),
            Err(not_done) => return Err(not_done.into()),
        };
        let held = match target {
            Target::Client(client) => Some(self.weigh(client).await?),
            Target::Network(_) => None,
        };
        let (requests, decisions) = match moment {
            Moment::Beat => (Events::default(), Events::default()),
            Moment::Whole => tokio::join!(
                self.events_of(&target, "access", "40"),
                self.events_of(&target, "audit", "20"),
            ),
        };
        let ip = text.parse::<IpAddr>().unwrap_or(target.network().addr());
        let policy = self.view.shared.policy.load();
        Ok(Story {
            target: target.to_string(),
            protected: policy.protected.why(ip).map(str::to_owned),
            ban,
            held,
            limits: match target {
                Target::Client(_) => self.limits_of(ip),
                Target::Network(_) => Vec::new(),
            },
            requests,
            decisions,
        })
    }

    /// What a client has left; nothing is charged.
    fn limits_of(&self, ip: IpAddr) -> Vec<Limit> {
        let policy = self.view.shared.policy.load_full();
        let question = Question {
            ip,
            method: "GET".to_owned(),
            target: "/".to_owned(),
            host: "localhost".to_owned(),
            user_agent: None,
            fields: Vec::new(),
            has_secret: true,
        };
        match outcome(&self.view.shared, &policy, &question) {
            Ok(Outcome::Judged { explanation, .. }) => {
                explanation.meters.into_iter().map(Limit::from).collect()
            }
            Ok(Outcome::Unreadable { .. }) | Err(_) => Vec::new(),
        }
    }

    /// The newest events of a client, as far back as can be looked in a moment.
    async fn events_of(&self, target: &Target, topic: &str, limit: &str) -> Events {
        let client = match target {
            Target::Client(client) => client.to_string(),
            Target::Network(network) => network.to_string(),
        };
        let parameters = [
            ("topic", topic),
            ("client", client.as_str()),
            ("limit", limit),
        ];
        match self.found(&parameters, LOOKED_WITHIN).await {
            Ok(found) => Events {
                is_all: found.is_end,
                events: values(&found),
            },
            // Others read the log: the page says that it has not been looked through.
            Err(_) => Events::default(),
        }
    }

    /// What the log has of a question, found within this time.
    pub(super) async fn found(
        &self,
        parameters: &[(&str, &str)],
        within: Duration,
    ) -> Result<Found, Refused> {
        let get = |name| {
            let found = parameters.iter().find(|(own, _)| *own == name);
            found.map(|(_, text)| *text)
        };
        let ask = Ask::read(get, self.view.shared.clock.unix_ms())?;
        let partitions = ask.partitions(&self.view.log.log.partitions());
        self.find(&ask, &partitions, within).await
    }
}

/// The events of an answer; those that are no JSON are left out.
pub(super) fn values(found: &Found) -> Vec<Value> {
    let events = found.events.iter();
    events
        .filter_map(|event| serde_json::from_str(event.get()).ok())
        .collect()
}

pub(super) fn parts(story: &Story, viewer: &Viewer, back: &str, moment: Moment) -> Vec<Part> {
    let mut parts = vec![
        part("standing", "", standing(story)),
        part("ban", "Ban", ban(story, viewer, back)),
    ];
    if moment == Moment::Whole {
        parts.push(part("limits", "Limits", limits(&story.limits)));
        parts.push(part("decisions", "Decisions", decisions(&story.decisions)));
        parts.push(part(
            "requests",
            "Requests",
            requests(&story.requests, &story.target),
        ));
    }
    parts
}

fn standing(story: &Story) -> Markup {
    let state = match (&story.ban, &story.protected) {
        (_, Some(_)) => "cannot be banned",
        (Some(ban), _) if ban.enforced => "banned",
        (Some(_), _) => "would be banned",
        (None, None) => "not banned",
    };
    html! {
        dl.tiles {
            (tile("State", state, "", story.protected.as_deref().unwrap_or_default()))
            @if let Some(held) = &story.held {
                (tile("Points", &words::count(held.points), &format!("of {}", held.threshold),
                    &match held.points_observed {
                        0 => String::new(),
                        points => format!("{points} more, observed only"),
                    }))
                (tile("Bans so far", &held.level.to_string(), "", if held.has_grace { "nothing counts: grace" } else { "" }))
            }
        }
    }
}

fn ban(story: &Story, viewer: &Viewer, back: &str) -> Markup {
    html! {
        @if let Some(ban) = &story.ban {
            p {
                (words::client(&ban.target)) " is banned since " (words::time(&ban.since)) ", "
                (words::span_ms(ban.left_ms)) " are left. It is the ban number " (ban.level) " and was decided by "
                (ban.by) "."
                @if !ban.why.is_empty() { " Why: " q { (ban.why) } }
                @if !ban.enforced { " It is only observed." }
            }
            (bans::unban_form(viewer, &ban.target, back))
            h3 { "What led to it" }
            (bans::evidence(ban.evidence.as_deref().unwrap_or_default()))
        } @else if story.protected.is_some() {
            (nothing("Nothing bans this one."))
        } @else {
            @if viewer.seen.is_some() { (bans::ban_form(viewer, &story.target, back)) }
            @else { (nothing("There is none.")) }
        }
        (log_in_to(viewer, "ban or unban", back))
    }
}

fn limits(limits: &[Limit]) -> Markup {
    if limits.is_empty() {
        return nothing("A request for / meets none.");
    }
    let rows = html! {
        @for limit in limits {
            tr {
                td { (limit.name) }
                td {
                    meter min="0" max=(limit.burst) value=(limit.remaining) aria-label={ "Left of " (limit.name) } {}
                }
                td.n { (limit.remaining) " of " (limit.burst) }
                td.n { (limit.full_in_s) " s" }
            }
        }
    };
    table("Limits", &["Limit", "", "Left", "All back in"], &rows)
}

fn decisions(found: &Events) -> Markup {
    let rows = html! {
        @for event in &found.events {
            tr {
                td { (words::time(&text_of(event, "time"))) }
                td { (words::plain(&text_of(event, "what"))) }
                td { (text_of(event, "actor")) }
                td.text { (text_of(event, "why")) }
            }
        }
    };
    html! {
        @if found.events.is_empty() {
            (nothing("None was found."))
        } @else {
            (table("Decisions", &["When", "What", "Who", "Why"], &rows))
        }
        @if !found.is_all { (nothing("Older ones may be in the log: it was looked through for a moment only.")) }
    }
}

fn requests(found: &Events, target: &str) -> Markup {
    html! {
        @if found.events.is_empty() {
            (nothing("None was found."))
        } @else {
            (request_table(&found.events))
        }
        @if !found.is_all {
            p.hint {
                "The log was looked through for a moment only. All: "
                code { "wardent events query --client " (target) }
            }
        }
    }
}

/// Finished requests, as a table.
pub(super) fn request_table(events: &[Value]) -> Markup {
    let rows = html! {
        @for event in events.iter().filter(|event| event.get("id").is_some()) {
            tr {
                td { (words::time(&text_of(event, "time"))) }
                td.mono { (text_of(event, "method")) }
                td.text.mono { (text_of(event, "path")) }
                td.n { (text_of(event, "status")) }
                td {
                    (words::plain(&text_of(event, "verdict")))
                    @let reason = text_of(event, "reason");
                    @if !reason.is_empty() { ": " (words::plain(&reason)) }
                }
                td.text { (text_of(event, "user_agent")) }
                td { (words::request(&text_of(event, "id"))) }
            }
        }
    };
    let heads = [
        "When",
        "Method",
        "Path",
        "Status",
        "Verdict",
        "User agent",
        "Request",
    ];
    table("Requests", &heads, &rows)
}
