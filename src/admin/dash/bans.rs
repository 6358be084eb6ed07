//! The page Bans: who is banned and why; ban, and unban with grace.

use maud::{Markup, html};

use super::{
    Viewer,
    page::{Part, part},
    shell::{act, log_in_to, nothing, table},
    words,
};
use crate::admin::{
    api::{Query, Refused},
    bans::{Evidence, Listed, Shown},
    server::Server,
};

/// Bans of one page.
const PAGE: &str = "50";

impl Server {
    /// The bans from a place of the list on.
    ///
    /// # Errors
    /// When there is no such place, or the owner of bans does not answer.
    pub(super) async fn bans_from(&self, after: Option<&str>) -> Result<Listed, Refused> {
        let after = after.map(|after| format!("&after={}", words::encoded(after)));
        let query = format!("limit={PAGE}{}", after.unwrap_or_default());
        self.list_bans(&Query::read_any(Some(&query))?).await
    }
}

pub(super) fn parts(listed: &Listed, is_further: bool, viewer: &Viewer, back: &str) -> Vec<Part> {
    vec![
        part(
            "ban",
            "Ban",
            html! {
                (ban_form(viewer, "", back))
                (log_in_to(viewer, "ban or unban", back))
            },
        ),
        part(
            "list",
            "In force",
            html! {
                @if listed.bans.is_empty() {
                    (nothing("Nobody is banned."))
                } @else {
                    p { (words::count(listed.total as u64)) " in all, the newest first." }
                    (list(&listed.bans, viewer, back))
                    nav.steps aria-label="More bans" {
                        @if is_further { a href="/bans" { "Newest" } }
                        @if let Some(next) = &listed.next {
                            a href={ "/bans?after=" (words::encoded(next)) } { "Older" }
                        }
                    }
                }
            },
        ),
    ]
}

fn list(bans: &[Shown], viewer: &Viewer, back: &str) -> Markup {
    let rows = html! {
        @for ban in bans {
            tr {
                td { (words::client(&ban.target)) }
                td { (words::span_ms(ban.left_ms)) @if !ban.enforced { br; small { "observed" } } }
                @if viewer.seen.is_some() { td { (unban_form(viewer, &ban.target, back)) } }
                td { (words::time(&ban.since)) }
                td.n { (ban.level) }
                td.text { (ban.why) }
                td { (ban.by) }
            }
        }
    };
    let mut heads = vec!["Client", "Left", "Since", "Nth ban", "Why", "By"];
    if viewer.seen.is_some() {
        heads.insert(2, "Unban");
    }
    table("Bans in force", &heads, &rows)
}

/// The form that bans `target`, or whoever is written into it.
pub(super) fn ban_form(viewer: &Viewer, target: &str, back: &str) -> Markup {
    act(
        viewer,
        "/act/ban",
        back,
        &html! {
            div.fields {
                @if target.is_empty() {
                    p {
                        label for="ban-target" { "Client or network" }
                        input #ban-target type="text" name="target" required placeholder="198.51.100.7" size="20"
                            autocomplete="off" spellcheck="false";
                    }
                } @else {
                    input type="hidden" name="target" value=(target);
                }
                p {
                    label for="ban-for" { "For" }
                    input #ban-for type="text" name="for" required value="1h" size="6" list="spans"
                        pattern="[0-9]+(ms|s|m|h|d)" title="such as 10m, 1h or 7d";
                    datalist #spans {
                        @for span in ["10m", "1h", "24h", "7d", "30d"] { option value=(span) {} }
                    }
                }
                p.grow {
                    label for="ban-why" { "Why" }
                    input #ban-why type="text" name="why" maxlength="500" placeholder="for whoever asks later";
                }
                p.check {
                    input #ban-force type="checkbox" name="force" value="yes";
                    label for="ban-force" { "even a very wide network" }
                }
                button type="submit" { "Ban" }
            }
        },
    )
}

/// The form that lifts a ban.
pub(super) fn unban_form(viewer: &Viewer, target: &str, back: &str) -> Markup {
    act(
        viewer,
        "/act/unban",
        back,
        &html! {
            input type="hidden" name="target" value=(target);
            div.fields.tight {
                select name="grace" aria-label={ "Grace for " (target) } {
                    option value="0s" { "no grace" }
                    option value="10m" { "10 min grace" }
                    option value="1h" selected { "1 h grace" }
                    option value="24h" { "24 h grace" }
                }
                button.quiet type="submit" aria-label={ "Unban " (target) } { "Unban" }
            }
        },
    )
}

/// The requests that led to a ban.
pub(super) fn evidence(seen: &[Evidence]) -> Markup {
    if seen.is_empty() {
        return nothing("None is kept: an operator decided it, or it is only remembered in short.");
    }
    let rows = html! {
        @for one in seen {
            tr {
                td { (words::time(&one.time)) }
                td { (words::plain(&one.cause)) }
                td.n { (one.points) }
                td.text.mono { (one.path) }
                td { (words::request(&one.id)) }
            }
        }
    };
    table(
        "Evidence",
        &["When", "What for", "Points", "Asked for", "Request"],
        &rows,
    )
}
