//! The page Bots, and `/api/v1/bots`: who is a machine, and what is done about it.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use maud::{Markup, html};
use serde::Serialize;

use super::{
    now::{mark, tile},
    page::{Part, part},
    shell::{nothing, table},
    words,
};
use crate::{
    admin::{
        View,
        api::{Query, Reply, say},
        now::only_reading,
        server::Server,
        top::Top,
    },
    bots::Category,
};

/// Who is a machine.
#[derive(Debug, Clone, Serialize)]
pub(super) struct BotsShown {
    /// Each category, in the order of a policy.
    pub categories: Vec<CategoryShown>,
    /// Bots in the catalogue.
    pub listed: u64,
    /// Those of them that can be shown to be whom they name.
    pub verifiable: u64,
    /// Questions to the DNS about bots' addresses.
    pub lookups: Lookups,
}

/// A category of bots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct CategoryShown {
    /// The policy's word for it.
    pub category: String,
    /// What is done with it where no route says otherwise; none where bots are not looked for.
    pub action: Option<String>,
    /// Its requests since the start, whatever became of them.
    pub requests: u64,
    /// Bots of it in the catalogue.
    pub listed: u64,
}

/// Questions to the DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Lookups {
    /// Asked.
    pub asked: u64,
    /// Answered.
    pub answered: u64,
    /// Not answered in time.
    pub failed: u64,
    /// Not asked, since too many waited.
    pub queue_full: u64,
    /// Addresses whose answer is remembered.
    pub remembered: u64,
}

impl View {
    /// Who is a machine.
    pub(super) fn bots(&self) -> BotsShown {
        let policy = self.shared.policy.load();
        let catalogue = self.shared.bots.catalogue();
        let entries = catalogue.entries();
        let categories = Category::ALL
            .into_iter()
            .enumerate()
            .map(|(nth, category)| {
                let counts = self
                    .workers
                    .iter()
                    .filter_map(|worker| worker.bots.get(nth));
                let actions = policy.defaults.bots.as_ref();
                CategoryShown {
                    category: category.word().to_owned(),
                    action: actions.map(|actions| actions.of(category).word().to_owned()),
                    requests: counts.map(|count| count.get()).sum(),
                    listed: entries
                        .iter()
                        .filter(|entry| entry.category == category)
                        .count() as u64,
                }
            });
        let figures = self.shared.bots.verifier.figures();
        BotsShown {
            categories: categories.collect(),
            listed: entries.len() as u64,
            verifiable: entries.iter().filter(|entry| entry.is_verifiable()).count() as u64,
            lookups: Lookups {
                asked: figures.asked,
                answered: figures.answered,
                failed: figures.failed,
                queue_full: figures.queue_full,
                remembered: figures.remembered,
            },
        }
    }
}

impl Server {
    /// Answers who is a machine.
    ///
    /// # Errors
    /// By any method but GET.
    pub(in crate::admin) fn bots_answer(&self, request: &Request<Incoming>) -> Reply {
        only_reading(request)?;
        Query::read(request.uri().query(), &[])?;
        say(StatusCode::OK, &self.view.bots())
    }
}

/// The page, with those that came lately where that is known.
pub(super) fn parts(shown: &BotsShown, lately: Option<&Top>) -> Vec<Part> {
    vec![
        part("catalogue", "", catalogue(shown)),
        part(
            "categories",
            "By category, since the start",
            categories(&shown.categories),
        ),
        part("lately", "Seen in the last five minutes", seen(lately)),
    ]
}

fn catalogue(shown: &BotsShown) -> Markup {
    let lookups = shown.lookups;
    html! {
        dl.tiles {
            (tile("Catalogue", &words::count(shown.listed), "bots",
                &format!("{} can be verified", words::count(shown.verifiable))))
            (tile("Asked the DNS", &words::count(lookups.asked), "times",
                &format!("{} failed", words::count(lookups.failed + lookups.queue_full))))
            (tile("Remembered", &words::count(lookups.remembered), "addresses", ""))
        }
    }
}

fn seen(lately: Option<&Top>) -> Markup {
    let rows = lately.map_or(&[][..], |top| &top.rows);
    if rows.is_empty() {
        return nothing("None. What comes from now on is counted.");
    }
    let rows = html! {
        @for row in rows {
            tr {
                th scope="row" { (row.key) }
                td.n { (words::count(row.requests)) }
                td.n { (words::count(row.refused)) }
                td.n { (words::bytes(row.bytes_out)) }
                td { (words::time(&row.last)) }
            }
        }
    };
    table(
        "Bots seen lately",
        &["Bot", "Requests", "Refused", "Sent", "Last"],
        &rows,
    )
}

fn categories(categories: &[CategoryShown]) -> Markup {
    let rows = html! {
        @for own in categories {
            tr {
                th scope="row" { (own.category) }
                td {
                    @match own.action.as_deref() {
                        Some("block") => (mark(false, "block")),
                        Some(action) => (mark(true, action)),
                        None => "not looked for",
                    }
                }
                td.n { (words::count(own.requests)) }
                td.n { (words::count(own.listed)) }
            }
        }
    };
    table(
        "Bots by category",
        &["Category", "Action", "Requests", "In the catalogue"],
        &rows,
    )
}
