//! What stands around every page: the head, the ways to the others, who looks, and what came of an act.

use http::StatusCode;
use maud::{DOCTYPE, Markup, html};

use super::{
    Viewer,
    page::{Page, Part},
    session::Said,
    words,
};

/// The pages that lead to all others.
const WAYS: [(&str, &str); 7] = [
    ("/", "Now"),
    ("/clients", "Clients"),
    ("/bans", "Bans"),
    ("/policy", "Policy"),
    ("/bots", "Bots"),
    ("/log", "Log"),
    ("/health", "Health"),
];

/// A file of the page, by its version: a browser keeps it until that changes.
macro_rules! asset {
    ($path:literal) => {
        concat!($path, "?v=", env!("CARGO_PKG_VERSION"))
    };
}

/// A whole page.
pub(super) fn page(page: &Page, parts: &[Part], viewer: &Viewer, said: Option<&Said>) -> Markup {
    let live = format!("/live?page={}", live_name(page));
    let content = html! {
        h1 { (page.title()) }
        @if let Some(said) = said {
            p.said.bad[!said.is_done] role=(if said.is_done { "status" } else { "alert" }) { (said.words) }
        }
        @for part in parts {
            section aria-label=(if part.title.is_empty() { part.id } else { part.title }) {
                @if !part.title.is_empty() { h2 { (part.title) } }
                div.part id=(part.id) { (part.html) }
            }
        }
        p.twin { "The same as JSON:" @for twin in page.twins() { " " a href=(twin) { (twin) } } }
    };
    around(&page.title(), Some(page), viewer, Some(&live), &content)
}

/// The path of a page as a parameter.
fn live_name(page: &Page) -> String {
    words::encoded(&page.path())
}

/// A page that says what is wrong.
pub(super) fn wrong(status: StatusCode, words: &str, viewer: &Viewer) -> Markup {
    let title = status.canonical_reason().unwrap_or("Not possible");
    let content = html! {
        h1 { (title) }
        p.said.bad role="alert" { (words) }
        p { a href="/" { "Now" } }
    };
    around(title, None, viewer, None, &content)
}

/// The page that takes the token.
pub(super) fn login(back: &str, viewer: &Viewer, wrong: Option<&str>) -> Markup {
    let content = html! {
        h1 { "Log in" }
        @if let Some(words) = wrong { p.said.bad role="alert" { (words) } }
        @if viewer.seen.is_some() { p { "You are logged in already." } }
        form.card method="post" action="/login" {
            input type="hidden" name="back" value=(back);
            label for="token" { "Token" }
            input #token type="password" name="token" autocomplete="current-password" required autofocus
                aria-describedby="where";
            p #where.hint {
                "It stands in the file that " code { "admin.token" } " names, or in " code { "admin.token" }
                " beside the log: " code { "sudo cat /var/lib/wardent/admin.token" } "."
            }
            button type="submit" { "Log in" }
        }
    };
    around("Log in", None, viewer, None, &content)
}

fn around(
    title: &str,
    page: Option<&Page>,
    viewer: &Viewer,
    live: Option<&str>,
    content: &Markup,
) -> Markup {
    let path = page.map(Page::path);
    let without_query = path.as_deref().and_then(|path| path.split('?').next());
    let is_here = |way: &str| without_query == Some(way);
    let back = path.as_deref().unwrap_or("/");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Wardent" }
                link rel="icon" type="image/svg+xml" href=(asset!("/static/wardent.svg"));
                link rel="stylesheet" href=(asset!("/static/wardent.css"));
                script src=(asset!("/static/wardent.js")) defer {}
            }
            body data-live=[live] {
                a.skip href="#main" { "Skip to the content" }
                header {
                    a.brand href="/" { "Wardent" }
                    nav aria-label="Pages" {
                        ul {
                            @for (way, name) in &WAYS {
                                li { a href=(way) aria-current=[is_here(way).then_some("page")] { (name) } }
                            }
                        }
                    }
                    form.find role="search" action="/find" {
                        label.unseen for="q" { "Client or request" }
                        input #q type="search" name="q" placeholder="Client or request" required;
                        button type="submit" { "Find" }
                    }
                    div.who {
                        @if viewer.seen.is_some() {
                            (act(viewer, "/act/logout", back, &html! { button.quiet type="submit" { "Log out" } }))
                        } @else {
                            a href={ "/login?back=" (words::encoded(back)) } { "Log in" }
                        }
                    }
                }
                main #main tabindex="-1" { (content) }
                footer {
                    p { "Wardent " (env!("CARGO_PKG_VERSION")) " · times are UTC" }
                }
            }
        }
    }
}

/// A form of an act; nothing where nobody is logged in.
pub(super) fn act(viewer: &Viewer, path: &str, back: &str, fields: &Markup) -> Markup {
    html! {
        @if let Some(seen) = &viewer.seen {
            form.act method="post" action=(path) {
                input type="hidden" name="form" value=(seen.form);
                input type="hidden" name="back" value=(back);
                (fields)
            }
        }
    }
}

/// What stands in place of a form, for who is not logged in.
pub(super) fn log_in_to(viewer: &Viewer, what: &str, back: &str) -> Markup {
    html! {
        @if viewer.seen.is_none() {
            p.hint { a href={ "/login?back=" (words::encoded(back)) } { "Log in" } " to " (what) "." }
        }
    }
}

/// A table that scrolls by itself where it is too wide, also by keys.
pub(super) fn table(label: &str, heads: &[&str], rows: &Markup) -> Markup {
    html! {
        div.wide role="region" tabindex="0" aria-label=(label) {
            table {
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody { (rows) }
            }
        }
    }
}

/// What stands where there is nothing.
pub(super) fn nothing(words: &str) -> Markup {
    html! { p.hint { (words) } }
}
