//! The page Clients: who asks most lately, and for what.

use maud::{Markup, html};

use super::{
    Viewer,
    page::{Part, part},
    shell::{act, nothing, table},
    words,
};
use crate::admin::{
    api::{Query, Refused},
    server::Server,
    top::{By, Row, Top},
};

/// Rows of the page.
const ROWS: &str = "30";

/// Spans of time to choose from, as the API spells them, and as people do.
const WINDOWS: [(&str, &str); 3] = [("10s", "10 s"), ("60s", "1 min"), ("5m", "5 min")];

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranking {
    pub(super) by: String,
    pub(super) window: String,
}

impl Ranking {
    /// What a query asks for: clients within a minute, unless it says otherwise.
    pub(super) fn of(query: &str) -> Option<Self> {
        let query = Query::read(Some(query), &["by", "window"]).ok()?;
        let word = |name, usual: &str| query.get(name).unwrap_or(usual).to_owned();
        Some(Self {
            by: word("by", By::Client.word()),
            window: word("window", "60s"),
        })
    }

    /// As parameters of the page and of its twin.
    pub(super) fn query(&self) -> String {
        let encoded = words::encoded;
        format!("by={}&window={}", encoded(&self.by), encoded(&self.window))
    }
}

impl Server {
    /// Who asks most.
    ///
    /// # Errors
    /// When it makes no sense, or enough others ask.
    pub(super) async fn ranked(&self, ranking: &Ranking) -> Result<Top, Refused> {
        let query = format!("{}&limit={ROWS}", ranking.query());
        self.top_of(&Query::read_any(Some(&query))?).await
    }
}

pub(super) fn parts(top: &Top, ranking: &Ranking, viewer: &Viewer, back: &str) -> Vec<Part> {
    vec![
        part("choice", "", choice(ranking)),
        part(
            "ranking",
            "Most requests",
            html! {
                @if top.rows.is_empty() {
                    (nothing("Nobody has asked in this time. What comes from now on is counted."))
                } @else {
                    (rows(top, viewer, back))
                }
                p.hint {
                    "Requests that ended since " (words::time(&top.since)) "."
                    @if top.share < 1.0 {
                        " One in " (words::decimal(1.0 / top.share.max(0.001))) " was looked at: the numbers are estimates."
                    }
                }
            },
        ),
    ]
}

fn choice(chosen: &Ranking) -> Markup {
    let link = |by: &str, window: &str, name: &str, is_chosen: bool| {
        let way = Ranking {
            by: by.to_owned(),
            window: window.to_owned(),
        };
        html! { a href={ "/clients?" (way.query()) } aria-current=[is_chosen.then_some("true")] { (name) } }
    };
    html! {
        nav.choice aria-label="By what, and within which time" {
            @for by in By::ALL {
                (link(by.word(), &chosen.window, &name_of(by.word()), by.word() == chosen.by))
            }
            span.gap {}
            @for (window, name) in WINDOWS {
                (link(&chosen.by, window, name, window == chosen.window))
            }
        }
    }
}

fn name_of(by: &str) -> String {
    let plain = words::plain(by);
    let (first, rest) = plain.split_at_checked(1).unwrap_or_default();
    format!("{}{rest}", first.to_uppercase())
}

fn rows(top: &Top, viewer: &Viewer, back: &str) -> Markup {
    let is_of_clients = top.by == By::Client.word();
    let may_ban = is_of_clients && viewer.seen.is_some();
    let most = top
        .rows
        .iter()
        .map(|row| row.requests)
        .max()
        .unwrap_or(1)
        .max(1);
    let rows = html! {
        @for row in &top.rows {
            tr {
                td.text {
                    @if is_of_clients && row.key != "-" { (words::client(&row.key)) } @else { span.mono { (row.key) } }
                }
                td { meter min="0" max=(most) value=(row.requests) aria-hidden="true" {} }
                (numbers(row))
                td { (words::time(&row.last)) }
                @if may_ban { td { @if row.key != "-" { (ban(&row.key, viewer, back)) } } }
            }
        }
    };
    let first = name_of(&top.by);
    let mut heads = vec![
        first.as_str(),
        "",
        "Requests",
        "Refused",
        "Observed",
        "Limited",
        "Banned",
        "Failed",
        "Sent",
        "p50 ms",
        "p99 ms",
        "Last",
    ];
    if may_ban {
        heads.push("Ban");
    }
    table("Most requests", &heads, &rows)
}

fn numbers(row: &Row) -> Markup {
    let counts = [
        row.requests,
        row.refused,
        row.observed,
        row.rate_limited,
        row.banned_hits,
        row.failed,
    ];
    html! {
        @for count in counts { td.n.soft[count == 0] { (words::count(count)) } }
        td.n { (words::bytes(row.bytes_out)) }
        td.n { (words::decimal(row.p50_ms)) }
        td.n { (words::decimal(row.p99_ms)) }
    }
}

fn ban(client: &str, viewer: &Viewer, back: &str) -> Markup {
    act(
        viewer,
        "/act/ban",
        back,
        &html! {
            input type="hidden" name="target" value=(client);
            input type="hidden" name="for" value="1h";
            input type="hidden" name="why" value="from the page Clients";
            button.quiet type="submit" aria-label={ "Ban " (client) " for 1 hour" } { "1 h" }
        },
    )
}
