//! The page Request: what became of one request, by its `X-Request-ID`.

use std::time::Duration;

use http::StatusCode;
use maud::{Markup, html};
use serde_json::Value;

use super::{
    client::values,
    now::{mark, tile},
    page::{Moment, Part, part},
    words,
};
use crate::admin::{api::Refused, server::Server};

/// How long the log is looked through: the id names the second to look at.
const LOOKED_WITHIN: Duration = Duration::from_secs(2);

impl Server {
    /// The event of a request; for a page that is there, nothing: it does not change.
    ///
    /// # Errors
    /// When there is no such event in the log, or the log cannot be read now.
    pub(super) async fn request(&self, id: &str, moment: Moment) -> Result<Value, Refused> {
        if moment == Moment::Beat {
            return Ok(Value::Null);
        }
        let found = self
            .found(&[("id", id), ("limit", "1")], LOOKED_WITHIN)
            .await?;
        values(&found).into_iter().next().ok_or_else(|| {
            let words = format!(
                "there is no request {id} in the log: it has not ended yet, is older than the log keeps, or was lost"
            );
            Refused::new(StatusCode::NOT_FOUND, words)
        })
    }
}

pub(super) fn parts(event: &Value, moment: Moment) -> Vec<Part> {
    match moment {
        Moment::Beat => Vec::new(),
        Moment::Whole => vec![
            part("verdict", "", verdict(event)),
            part("fields", "As it is in the log", fields(event)),
        ],
    }
}

/// What stands in a field of an event, as text; nothing where there is no such field.
pub(super) fn text_of(event: &Value, name: &str) -> String {
    match event.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn verdict(event: &Value) -> Markup {
    let told = |name| text_of(event, name);
    let total_us = event.get("total_us").and_then(Value::as_u64).unwrap_or(0);
    let milliseconds = Duration::from_micros(total_us).as_secs_f64() * 1_000.0;
    let client = told("client");
    html! {
        p.headline {
            span.mono { (told("method")) " " (told("path")) }
            " "
            (mark(told("verdict") == "passed", &words::plain(&told("verdict"))))
        }
        dl.tiles {
            (tile("Status", &told("status"), "", &words::plain(&told("reason"))))
            (tile("Route", &told("route"), "", &told("rule")))
            (tile("Took", &words::decimal(milliseconds), "ms", ""))
            div {
                dt { "Client" }
                dd { @if client.is_empty() { "not known" } @else { (words::client(&client)) } }
            }
        }
        @let why = told("why");
        @if !why.is_empty() { p { "Why: " (why) "." } }
        @if event.get("enforced") == Some(&Value::Bool(false)) {
            p { "Its route observes: it passed, and would have been refused." }
        }
    }
}

fn fields(event: &Value) -> Markup {
    let all = event.as_object().into_iter().flatten();
    html! {
        dl.fields-of {
            @for (name, _) in all {
                dt { (name) }
                dd.mono { (text_of(event, name)) }
            }
        }
    }
}
