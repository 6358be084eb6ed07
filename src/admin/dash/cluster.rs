//! How this node stands with the others, as a part of the page Health. As JSON: `/api/v1/cluster`.

use maud::{Markup, html};

use super::{
    now::{mark, tile},
    shell::table,
    words,
};
use crate::{
    admin::cluster::{Bans, CONNECTED, Limits, Status},
    event::exchange::Topic,
};

/// What a node of a cluster shows.
pub(super) fn standing(status: &Status) -> Markup {
    let brokers = status.mirror.as_ref().map(|mirror| {
        let up = mirror.brokers.iter().filter(|broker| broker.is_up).count();
        format!("{up} of {}", mirror.brokers.len())
    });
    let topics = status
        .mirror
        .as_ref()
        .map_or(&[][..], |mirror| &mirror.topics);
    html! {
        @if let Some(why) = &status.why { p.said.warn role="status" { (why) } }
        dl.tiles {
            div { dt { "Node" } dd { (status.node) } }
            div { dt { "Mirror" } dd { (mark(status.state == CONNECTED, &status.state)) } }
            @if let Some(brokers) = brokers { div { dt { "Brokers connected" } dd { (brokers) } } }
            @if let Some(bans) = &status.bans { (of_bans(bans)) }
            @if let Some(limits) = &status.limits { (of_limits(limits)) }
        }
        @if !topics.is_empty() { (topic_table(topics)) }
        p.twin { "The same as JSON: " a href="/api/v1/cluster" { "/api/v1/cluster" } }
    }
}

fn of_bans(bans: &Bans) -> Markup {
    let refused = &bans.refused;
    let refused = refused.ahead + refused.protected + refused.full + refused.unreadable;
    let more = format!(
        "{} lifted, {} refused",
        words::count(bans.withdrawn),
        words::count(refused)
    );
    tile("Bans of other nodes", &words::count(bans.taken), "", &more)
}

fn of_limits(limits: &Limits) -> Markup {
    let more = format!("{} told to others", words::count(limits.told));
    tile(
        "Requests at other nodes",
        &words::count(limits.heard),
        "",
        &more,
    )
}

fn topic_table(topics: &[Topic]) -> Markup {
    let rows = html! {
        @for topic in topics {
            tr {
                th scope="row" { (topic.topic) }
                td { (mark(is_well(topic), &state(topic))) }
                td.n { (words::count(topic.lag)) }
                td.n { @if topic.lag > 0 { (words::span_ms(topic.behind_ms)) } }
                td.n { (words::count(topic.sent)) }
                td.n { (words::count(topic.lost)) }
            }
        }
    };
    let heads = ["Topic", "State", "To send", "Oldest", "Sent", "Lost"];
    table("Topics on their way to the cluster", &heads, &rows)
}

fn is_well(topic: &Topic) -> bool {
    topic.error.is_none() && topic.loses_in_ms.is_none()
}

fn state(topic: &Topic) -> String {
    match (&topic.error, topic.loses_in_ms) {
        (Some(error), _) => format!("stopped: {error}"),
        (None, Some(ms)) => format!("loses records in {}", words::span_ms(ms)),
        (None, None) => "follows".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Topic {
        Topic {
            topic: "wardent.audit.event".to_owned(),
            sent: 1_200,
            ..Topic::default()
        }
    }

    #[test]
    fn a_topic_that_stands_still_or_will_lose_records_is_not_well() {
        let shown = topic_table(&[topic()]).into_string();
        assert!(
            shown.contains("good") && shown.contains("follows"),
            "{shown}"
        );
        let refused = Topic {
            error: Some("<b>not authorised</b>".to_owned()),
            ..topic()
        };
        let shown = topic_table(&[refused]).into_string();
        assert!(
            shown.contains("ill") && shown.contains("stopped: &lt;b&gt;"),
            "{shown}"
        );
        let late = Topic {
            loses_in_ms: Some(60_000),
            ..topic()
        };
        let shown = topic_table(&[late]).into_string();
        assert!(
            shown.contains("ill") && shown.contains("loses records in"),
            "{shown}"
        );
    }
}
