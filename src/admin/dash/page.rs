//! Which pages there are, of which parts they are made, and which parts have changed.

use maud::Markup;

use super::{
    Viewer, bans, bots, client, clients, clients::Ranking, health, log, now, policy, request,
};
use crate::admin::{
    api::{Query, Refused, decoded},
    live::{Teller, event},
    server::Server,
};

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    /// How it goes.
    Now,
    /// Who asks most.
    Clients(Ranking),
    /// One client's, or network's, whole story.
    Client(String),
    /// What became of one request.
    Request(String),
    /// Who is banned: from this place of the list on.
    Bans(Option<String>),
    /// What holds.
    Policy,
    /// Who is a machine.
    Bots,
    /// What is kept, and who reads it.
    Log,
    /// Whether all is well.
    Health,
}

/// For whom parts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// For a whole page.
    Whole,
    /// For one that is there: what takes long to find out is left as it is.
    Beat,
}

/// A part of a page that changes as a whole.
#[derive(Debug)]
pub(super) struct Part {
    /// Its id in the page.
    pub(super) id: &'static str,
    /// Its heading; empty for none.
    pub(super) title: &'static str,
    pub(super) html: Markup,
}

/// A part.
pub(super) fn part(id: &'static str, title: &'static str, html: Markup) -> Part {
    Part { id, title, html }
}

impl Page {
    /// The page at a path.
    pub(super) fn at(path: &str, query: &str) -> Option<Self> {
        let rest = |prefix| {
            let rest = path.strip_prefix(prefix).filter(|rest| !rest.is_empty())?;
            // A plus is one, in a path.
            decoded(&rest.replace('+', "%2B"))
        };
        match path {
            "/" => Some(Self::Now),
            "/clients" => Ranking::of(query).map(Self::Clients),
            "/bans" => {
                let after = Query::read(Some(query), &["after"]).ok()?;
                Some(Self::Bans(after.get("after").map(str::to_owned)))
            }
            "/policy" => Some(Self::Policy),
            "/bots" => Some(Self::Bots),
            "/log" => Some(Self::Log),
            "/health" => Some(Self::Health),
            _ => rest("/client/")
                .map(Self::Client)
                .or_else(|| rest("/request/").map(Self::Request)),
        }
    }

    /// Where it stands, as links name it.
    pub(super) fn path(&self) -> String {
        let encoded = super::words::encoded;
        match self {
            Self::Now => "/".to_owned(),
            Self::Clients(ranking) => format!("/clients?{}", ranking.query()),
            Self::Client(target) => format!("/client/{}", encoded(target)),
            Self::Request(id) => format!("/request/{}", encoded(id)),
            Self::Bans(None) => "/bans".to_owned(),
            Self::Bans(Some(after)) => format!("/bans?after={}", encoded(after)),
            Self::Policy => "/policy".to_owned(),
            Self::Bots => "/bots".to_owned(),
            Self::Log => "/log".to_owned(),
            Self::Health => "/health".to_owned(),
        }
    }

    /// Its heading.
    pub(super) fn title(&self) -> String {
        match self {
            Self::Now => "Now".to_owned(),
            Self::Clients(_) => "Clients".to_owned(),
            Self::Client(target) => format!("Client {target}"),
            Self::Request(id) => format!("Request {id}"),
            Self::Bans(_) => "Bans".to_owned(),
            Self::Policy => "Policy".to_owned(),
            Self::Bots => "Bots".to_owned(),
            Self::Log => "Log".to_owned(),
            Self::Health => "Health".to_owned(),
        }
    }

    /// Where the same stands as JSON.
    pub(super) fn twins(&self) -> Vec<String> {
        let mut twins = vec![self.twin()];
        if *self == Self::Log {
            twins.push("/api/v1/log/groups".to_owned());
        }
        twins
    }

    fn twin(&self) -> String {
        let encoded = super::words::encoded;
        match self {
            Self::Now => "/api/v1/now".to_owned(),
            Self::Clients(ranking) => format!("/api/v1/top?{}", ranking.query()),
            Self::Client(target) => format!("/api/v1/client?target={}", encoded(target)),
            Self::Request(id) => format!("/api/v1/events?id={}", encoded(id)),
            Self::Bans(None) => "/api/v1/bans".to_owned(),
            Self::Bans(Some(after)) => format!("/api/v1/bans?after={}", encoded(after)),
            Self::Policy => "/api/v1/policy".to_owned(),
            Self::Bots => "/api/v1/bots".to_owned(),
            Self::Log => "/api/v1/log/topics".to_owned(),
            Self::Health => "/api/v1/health".to_owned(),
        }
    }
}

impl Server {
    /// The parts of a page as they are now.
    ///
    /// # Errors
    /// When there is no such client or request, or the owner of bans does not answer.
    pub(super) async fn parts(
        &self,
        page: &Page,
        viewer: &Viewer,
        moment: Moment,
    ) -> Result<Vec<Part>, Refused> {
        let back = page.path();
        Ok(match page {
            Page::Now => now::parts(&self.now().await),
            Page::Clients(ranking) => {
                let top = self.ranked(ranking).await?;
                clients::parts(top.as_ref(), ranking, viewer, &back)
            }
            Page::Client(target) => {
                let story = self.story(target, moment).await?;
                client::parts(&story, viewer, &back, moment)
            }
            Page::Request(id) => request::parts(&self.request(id, moment).await?, moment),
            Page::Bans(after) => {
                let listed = self.bans_from(after.as_deref()).await?;
                bans::parts(&listed, after.is_some(), viewer, &back)
            }
            Page::Policy => policy::parts(&self.view.policy(), viewer, &back),
            Page::Bots => {
                let seen = Ranking {
                    by: "bot".to_owned(),
                    window: "5m".to_owned(),
                };
                bots::parts(
                    &self.view.bots(),
                    self.ranked(&seen).await.ok().flatten().as_ref(),
                )
            }
            Page::Log => log::parts(&self.view),
            Page::Health => health::parts(&self.view.health(), self.view.standing().as_ref()),
        })
    }
}

/// Tells a page what has changed of it.
pub(super) struct Changes {
    server: Server,
    page: Page,
    viewer: Viewer,
    /// The parts as they were told last.
    told: Vec<(&'static str, String)>,
}

impl Changes {
    pub(super) fn new(server: Server, page: Page, viewer: Viewer) -> Self {
        Self {
            server,
            page,
            viewer,
            told: Vec::new(),
        }
    }

    /// Whether a part is not as it was told last; from now on it is.
    fn is_news(&mut self, id: &'static str, html: &str) -> bool {
        match self.told.iter_mut().find(|(own, _)| *own == id) {
            Some((_, told)) if told == html => false,
            Some((_, told)) => {
                html.clone_into(told);
                true
            }
            None => {
                self.told.push((id, html.to_owned()));
                true
            }
        }
    }
}

impl Teller for Changes {
    async fn tell(&mut self) -> String {
        let mut out = String::new();
        // What cannot be told now stays as it was.
        let parts = self
            .server
            .parts(&self.page, &self.viewer, Moment::Beat)
            .await;
        for part in parts.unwrap_or_default() {
            let html = part.html.into_string();
            if self.is_news(part.id, &html) {
                event("part", part.id, &html, &mut out);
            }
        }
        out
    }
}
