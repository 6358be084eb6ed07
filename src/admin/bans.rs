//! `/api/v1/bans`: who is banned and why, for whoever may read; ban and unban, for whoever may act.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    api::{Query, Refused, Reply, read, say},
    server::{Door, Server},
};
use crate::{
    base::{clock::Clock, units::parse_duration},
    event::time::Stamps,
    owner::{Act, Ban, Done, NotDone, Place, Target, Violation},
};

/// Bans of one page, unless asked otherwise.
const PAGE: usize = 100;

/// Bans of one page at most.
pub const PAGE_MAX: usize = 10_000;

/// Of many bans, so many wait for the disk together.
pub const AT_ONCE: usize = 256;

/// Bytes of a reason at most.
const WHY_BYTES_MAX: usize = 500;

/// What is to be banned.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToBan {
    /// A client's address, or a network.
    pub(super) target: String,
    /// How long, as in `10m`.
    #[serde(rename = "for")]
    pub(super) duration: String,
    #[serde(default)]
    pub(super) why: String,
    /// Whether a very wide network is meant.
    #[serde(default)]
    pub(super) force: bool,
}

/// One ban, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Whom it is for.
    pub target: String,
    /// When it began, as RFC 3339 spells it.
    pub since: String,
    /// When it ends.
    pub until: String,
    /// What is left of it, in milliseconds.
    pub left_ms: u64,
    /// The how-manieth it is.
    pub level: u32,
    /// Who decided it: `policy`, or an operator.
    pub by: String,
    /// Why.
    pub why: String,
    /// Whether it holds, or would if the policy were enforced.
    pub enforced: bool,
    /// The node that decided it, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What led to it, oldest first; only where one ban was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Vec<Evidence>>,
}

/// One request that led to a ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its `X-Request-ID`.
    pub id: String,
    /// When it came.
    pub time: String,
    /// What it is held against its client for.
    pub cause: String,
    /// How much it counts.
    pub points: u32,
    /// What it asked for: the beginning of its path, in its client's own words.
    pub path: String,
}

/// A page of bans, those decided last first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listed {
    /// The page.
    pub bans: Vec<Shown>,
    /// How many bans there are in all.
    pub total: usize,
    /// What to give as `after` for the next page, if there is one.
    pub next: Option<String>,
}

/// Bans that are wanted all at once.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    bans: Vec<ToBan>,
}

/// What came of many.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Imported {
    /// How many are in force and on disk.
    pub imported: usize,
    /// Those that are not.
    pub wrong: Vec<Wrong>,
}

/// One that was not imported.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wrong {
    /// Which one, counted from 0.
    pub index: usize,
    /// Why not.
    pub error: String,
}

/// What came of an unban.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lifted {
    /// The ban that was in force; none where there was nothing but a time of grace to begin.
    pub lifted: Option<Shown>,
    /// How long nothing counts, in milliseconds.
    pub grace_ms: u64,
}

impl Server {
    /// Bans many at once: all are on disk, or told as wrong, when it is answered.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn import(&self, request: Request<Incoming>, door: Door) -> Reply {
        if *request.method() != Method::POST {
            return Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "use POST to ban many",
            ));
        }
        let actor = door.actor()?;
        let Many { bans } = read(request).await?;
        let doing = bans.into_iter().map(|wanted| self.ban_one(wanted, &actor));
        let done: Vec<_> = stream::iter(doing).buffered(AT_ONCE).collect().await;
        let mut imported = Imported::default();
        for (index, result) in done.into_iter().enumerate() {
            match result {
                Ok(_) => imported.imported += 1,
                Err(Refused { words, .. }) => imported.wrong.push(Wrong {
                    index,
                    error: words,
                }),
            }
        }
        say(StatusCode::OK, &imported)
    }

    /// Answers what is asked about bans, and does what is wanted.
    ///
    /// # Errors
    /// When it cannot be read, makes no sense, or is not done.
    pub(super) async fn bans(&self, request: Request<Incoming>, door: Door) -> Reply {
        match *request.method() {
            Method::GET | Method::HEAD => self.show_bans(request.uri().query()).await,
            Method::POST => {
                let actor = door.actor()?;
                let wanted = read(request).await?;
                let ban = self.ban_one(wanted, &actor).await?;
                say(StatusCode::CREATED, &self.shown(&ban, false))
            }
            Method::DELETE => {
                let actor = door.actor()?;
                self.unban(request.uri().query(), actor).await
            }
            _ => Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "use GET to read, POST to ban, DELETE to unban",
            )),
        }
    }

    async fn show_bans(&self, query: Option<&str>) -> Reply {
        let query = Query::read(query, &["target", "limit", "after"])?;
        if let Some(target) = query.get("target") {
            if query.get("limit").or(query.get("after")).is_some() {
                return Err(Refused::unreadable(
                    "`target` asks for one ban: `limit` and `after` do not go with it",
                ));
            }
            return say(StatusCode::OK, &self.ban_of(target).await?);
        }
        say(StatusCode::OK, &self.list_bans(&query).await?)
    }

    /// The ban that holds for a target, with its evidence.
    pub(super) async fn ban_of(&self, target: &str) -> Result<Shown, Refused> {
        let act = Act::Show(self.target(target)?);
        let Done::Shown(ban) = self.acts.ask(act).await? else {
            return Err(Refused::confused());
        };
        Ok(self.shown(&ban, true))
    }

    /// A page of bans, by `limit` and `after`.
    pub(super) async fn list_bans(&self, query: &Query) -> Result<Listed, Refused> {
        let count = match query.get("limit") {
            Some(limit) => page_length(limit)?,
            None => PAGE,
        };
        let after = query.get("after").map(|after| self.place(after));
        let act = Act::List {
            after: after.transpose()?,
            count,
        };
        let Done::Listed(page) = self.acts.ask(act).await? else {
            return Err(Refused::confused());
        };
        let next = page
            .next
            .map(|next| format!("{}-{}", next.since_unix_ms(), next.target()));
        Ok(Listed {
            bans: page.bans.iter().map(|ban| self.shown(ban, false)).collect(),
            total: page.total,
            next,
        })
    }

    pub(super) async fn ban_one(&self, wanted: ToBan, actor: &str) -> Result<Ban, Refused> {
        let target = self.target(&wanted.target)?;
        // The owner knows the client alone, and the client at `::1` is a whole network.
        let why_not = |ip| self.view.shared.policy.load().protected.why(ip);
        if let Some(because) = wanted.target.parse().ok().and_then(why_not) {
            return Err(NotDone::Protected { target, because }.into());
        }
        if is_very_wide(&target) && !wanted.force {
            return Err(Refused::senseless(format!(
                "`target`: {target} is a large part of all addresses: say so by force, if it is meant"
            )));
        }
        let duration = duration("for", &wanted.duration)?;
        if duration.is_zero() {
            return Err(Refused::senseless(
                "`for`: a ban of no time is none: use 10m or so",
            ));
        }
        if wanted.why.len() > WHY_BYTES_MAX {
            return Err(Refused::senseless(format!(
                "`why` is longer than {WHY_BYTES_MAX} bytes"
            )));
        }
        let act = Act::Ban {
            target,
            duration,
            why: wanted.why,
            actor: actor.to_owned(),
        };
        let Done::Banned(ban) = self.acts.ask(act).await? else {
            return Err(Refused::confused());
        };
        Ok(ban)
    }

    async fn unban(&self, query: Option<&str>, actor: String) -> Reply {
        let query = Query::read(query, &["target", "grace"])?;
        let target = query
            .get("target")
            .ok_or_else(|| Refused::unreadable("whom? `?target=198.51.100.7`"))?;
        let grace = query.get("grace").unwrap_or("0s");
        say(StatusCode::OK, &self.unban_one(target, grace, actor).await?)
    }

    /// Lifts the ban of a target; nothing counts for the time of `grace`.
    pub(super) async fn unban_one(
        &self,
        target: &str,
        grace: &str,
        actor: String,
    ) -> Result<Lifted, Refused> {
        let target = self.target(target)?;
        let grace = duration("grace", grace)?;
        let act = Act::Unban {
            target,
            grace,
            actor,
        };
        let done = self.acts.ask(act).await?;
        let lifted = if let Done::Lifted(ban) = done {
            Some(self.shown(&ban, false))
        } else {
            None
        };
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        Ok(Lifted { lifted, grace_ms })
    }

    pub(super) fn target(&self, text: &str) -> Result<Target, Refused> {
        let prefix = self.view.shared.policy.load().trust.ipv6_prefix;
        Target::parse(text, prefix)
            .map_err(|words| Refused::senseless(format!("`target`: {words}")))
    }

    /// Reads back what a page gave as `next`.
    fn place(&self, text: &str) -> Result<Place, Refused> {
        let (since, target) = text.split_once('-').unwrap_or_default();
        match (since.parse(), self.target(target)) {
            (Ok(since_unix_ms), Ok(target)) => Ok(Place::new(since_unix_ms, target)),
            _ => Err(Refused::senseless(
                "`after` takes what a page gave as `next`",
            )),
        }
    }

    pub(super) fn shown(&self, ban: &Ban, with_evidence: bool) -> Shown {
        let stamps = Stamps::default();
        let clock = &self.view.shared.clock;
        let left_ms = left_ms(ban, clock);
        let evidence = || ban.evidence.iter().map(|seen| evidence(seen, &stamps));
        Shown {
            target: ban.target.to_string(),
            since: stamps.rfc3339(ban.since_unix_ms),
            // The wall clock may have been set since the ban began: what is left of it counts.
            until: stamps.rfc3339(clock.unix_ms().saturating_add(left_ms)),
            left_ms,
            level: ban.level,
            by: ban.decided.name().to_owned(),
            why: ban.why.clone(),
            enforced: ban.enforced,
            node: ban.stamp.node.as_ref().map(ToString::to_string),
            evidence: with_evidence.then(|| evidence().collect()),
        }
    }
}

/// What is left of a ban, in milliseconds, rounded up.
fn left_ms(ban: &Ban, clock: &Clock) -> u64 {
    let left_ns = ban.until_ns.saturating_sub(clock.monotonic_ns());
    left_ns.div_ceil(1_000_000)
}

fn evidence(seen: &Violation, stamps: &Stamps) -> Evidence {
    Evidence {
        id: String::from_utf8_lossy(seen.request.as_bytes()).into_owned(),
        time: stamps.rfc3339(seen.unix_ms),
        cause: seen.cause.name().to_owned(),
        points: seen.points,
        path: String::from_utf8_lossy(seen.path.as_bytes()).into_owned(),
    }
}

fn page_length(text: &str) -> Result<usize, Refused> {
    let length = text.parse().ok();
    length
        .filter(|length| (1..=PAGE_MAX).contains(length))
        .ok_or_else(|| {
            Refused::senseless(format!("`limit` is a whole number from 1 to {PAGE_MAX}"))
        })
}

fn duration(what: &str, text: &str) -> Result<Duration, Refused> {
    parse_duration(text).map_err(|error| Refused::senseless(format!("`{what}`: {error}")))
}

/// Wider than what one operator of networks is given: more likely a slip than meant.
fn is_very_wide(target: &Target) -> bool {
    match target.network() {
        IpNet::V4(network) => network.prefix_len() < 8,
        IpNet::V6(network) => network.prefix_len() < 16,
    }
}

impl Refused {
    /// The owner answers each act in its own way, so this is never seen.
    pub(super) fn confused() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the owner of bans answered something else",
        )
    }
}

impl From<NotDone> for Refused {
    fn from(not_done: NotDone) -> Self {
        let status = match not_done {
            NotDone::NotBanned { .. } => StatusCode::NOT_FOUND,
            NotDone::Protected { .. } | NotDone::Full => StatusCode::CONFLICT,
            NotDone::NotKept { .. } | NotDone::Silent | NotDone::Busy | NotDone::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, not_done.to_string())
    }
}
