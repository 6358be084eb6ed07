//! `/api/v1/explain`: what would become of a request, and why. It changes nothing, so whoever may
//! read may ask.

use std::net::IpAddr;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::{
    api::{Refused, Reply, read, say},
    server::Server,
};
use crate::{
    client::ClientKey,
    guard::{
        explain::{Explanation, Finding, Meter, Verdict},
        verdict::{Reason, Refusal},
    },
    owner::{Act, Cause, Done, Standing},
    proxy::explain::{BrokenLine, Outcome, Question, outcome},
};

/// The request to explain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    ip: IpAddr,
    path: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default = "localhost")]
    host: String,
    user_agent: Option<String>,
    /// Further header fields, as `Name: value`.
    #[serde(default)]
    headers: Vec<String>,
    /// Valid, unless said otherwise here or by a header.
    secret: Option<Secret>,
}

fn get() -> String {
    Method::GET.as_str().to_owned()
}

fn localhost() -> String {
    "localhost".to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Secret {
    Valid,
    None,
}

/// What would become of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Explained {
    /// Which policy decides: they are counted from the start.
    pub policy: u64,
    /// What the client would find.
    pub outcome: End,
    /// What the guards said; none where the request cannot be read.
    #[serde(flatten)]
    pub judged: Option<Judged>,
}

/// What the client would find.
#[derive(Debug, Serialize, Deserialize)]
pub struct End {
    /// `passes`, `refuses` or `would_refuse`.
    pub verdict: String,
    /// The answer's status, unless it is passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The reason's public name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What exactly is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What the guards said, and what they go by.
#[derive(Debug, Serialize, Deserialize)]
pub struct Judged {
    /// The route's name.
    pub route: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// What the client's limits and bans are kept under; none for nobody in particular.
    pub client: Option<String>,
    /// Whether the client's identity is beyond doubt.
    pub proven: bool,
    /// Each guard, in their order.
    pub guards: Vec<Guard>,
    /// What the client has left of the route's limits.
    pub limits: Vec<Limit>,
    /// What is left of a ban, in seconds.
    pub banned_for_s: Option<u64>,
    /// What would be held against the client.
    pub blame: Option<Blame>,
    /// What is held against it already.
    pub held: Option<Held>,
}

/// What one guard saw and said.
#[derive(Debug, Serialize, Deserialize)]
pub struct Guard {
    /// Which.
    pub guard: String,
    /// `passes`, `refuses`, `would_refuse` or `not_asked`.
    pub verdict: String,
    /// What it goes by.
    pub saw: String,
}

/// What a client has left of one limit.
#[derive(Debug, Serialize, Deserialize)]
pub struct Limit {
    /// Its name, as answers tell it.
    pub name: String,
    /// How many requests are admitted at once.
    pub burst: u32,
    /// How many would be now.
    pub remaining: u32,
    /// Until all would be again, in seconds.
    pub full_in_s: u64,
    /// Until one would be, in seconds.
    pub wait_s: u64,
}

/// What a request would be held against its client for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Blame {
    /// What for.
    pub cause: String,
    /// How much.
    pub points: u32,
    /// Whether it would count towards a ban that holds.
    pub enforced: bool,
}

/// What is held against a client.
#[derive(Debug, Serialize, Deserialize)]
pub struct Held {
    /// Points within the window.
    pub points: u64,
    /// Points that would count, were the policy enforced.
    pub points_observed: u64,
    /// Points that are a ban.
    pub threshold: u32,
    /// Bans that make the next one longer.
    pub level: u32,
    /// Whether nothing counts for now.
    pub has_grace: bool,
}

impl Server {
    /// Explains a request.
    ///
    /// # Errors
    /// When the question cannot be read or makes no sense.
    pub(super) async fn explain(&self, request: Request<Incoming>) -> Reply {
        if request.method() != Method::POST {
            return Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "use POST with a request such as {\"ip\": \"198.51.100.7\", \"path\": \"/\"}",
            ));
        }
        let question = self.question(read(request).await?)?;
        let policy = self.view.shared.policy.load_full();
        let outcome = outcome(&self.view.shared, &policy, &question)
            .map_err(|BrokenLine| Refused::senseless("a line break inside a part of a request"))?;
        let (explanation, blame) = match outcome {
            Outcome::Unreadable { status, why } => {
                let explained = Explained {
                    policy: policy.generation,
                    outcome: End {
                        verdict: Verdict::Refuses.name().to_owned(),
                        status: Some(status),
                        reason: Some(Reason::BadRequest.name().to_owned()),
                        why: Some(why.to_owned()),
                    },
                    judged: None,
                };
                return say(StatusCode::OK, &explained);
            }
            Outcome::Judged { explanation, blame } => (explanation, blame),
        };
        let key = explanation
            .judgement
            .client
            .as_ref()
            .and_then(|client| client.key());
        let held = match key {
            Some(client) => Some(self.weigh(client).await?),
            None => None,
        };
        let explained = Explained {
            policy: policy.generation,
            outcome: end(&explanation),
            judged: Some(judged(*explanation, blame, held)),
        };
        say(StatusCode::OK, &explained)
    }

    fn question(&self, asked: Asked) -> Result<Question, Refused> {
        let fields = asked.headers.iter().map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        });
        let fields: Vec<_> = fields
            .collect::<Option<_>>()
            .ok_or_else(|| Refused::senseless("`headers`: write each as `Name: value`"))?;
        let own = &self.view.shared.settings.names.secret;
        let is_there = |(name, _): &(String, String)| name.eq_ignore_ascii_case(own);
        let has_secret = match asked.secret {
            Some(said) => said == Secret::Valid,
            None => !fields.iter().any(is_there),
        };
        Ok(Question {
            ip: asked.ip,
            method: asked.method,
            target: asked.path,
            host: asked.host,
            user_agent: asked.user_agent,
            fields,
            has_secret,
        })
    }

    pub(super) async fn weigh(&self, client: ClientKey) -> Result<Held, Refused> {
        let Done::Weighed(standing) = self.acts.ask(Act::Weigh(client)).await? else {
            return Err(Refused::confused());
        };
        let Standing {
            points,
            points_observed,
            threshold,
            level,
            has_grace,
        } = standing;
        Ok(Held {
            points,
            points_observed,
            threshold,
            level,
            has_grace,
        })
    }
}

fn end(explanation: &Explanation<'_>) -> End {
    let told = |verdict: Verdict, refusal: Refusal| End {
        verdict: verdict.name().to_owned(),
        status: Some(refusal.status),
        reason: Some(refusal.reason.name().to_owned()),
        why: Some(refusal.why.to_owned()),
    };
    let judgement = &explanation.judgement;
    match (judgement.verdict, judgement.observed) {
        (Err(refusal), _) => told(Verdict::Refuses, refusal),
        (Ok(()), Some(refusal)) => told(Verdict::WouldRefuse, refusal),
        (Ok(()), None) => End {
            verdict: Verdict::Passes.name().to_owned(),
            status: None,
            reason: None,
            why: None,
        },
    }
}

fn judged(explanation: Explanation<'_>, blame: Option<(Cause, u32)>, held: Option<Held>) -> Judged {
    let Explanation {
        judgement,
        findings,
        meters,
        banned_for_s,
    } = explanation;
    let enforced = judgement.rules.enforces;
    Judged {
        route: judgement.rules.route.clone(),
        mode: match judgement.rules.enforces {
            true => "enforce".to_owned(),
            false => "observe".to_owned(),
        },
        client: judgement
            .client
            .and_then(|client| client.key())
            .map(|key| key.to_string()),
        proven: judgement.is_proven,
        guards: findings.into_iter().map(Guard::from).collect(),
        limits: meters.into_iter().map(Limit::from).collect(),
        banned_for_s,
        blame: blame.map(|(cause, points)| Blame {
            cause: cause.name().to_owned(),
            points,
            enforced,
        }),
        held,
    }
}

impl From<Finding> for Guard {
    fn from(finding: Finding) -> Self {
        Self {
            guard: finding.guard.name().to_owned(),
            verdict: finding.verdict.name().to_owned(),
            saw: finding.saw,
        }
    }
}

impl From<Meter> for Limit {
    fn from(meter: Meter) -> Self {
        Self {
            name: meter.name,
            burst: meter.burst,
            remaining: meter.remaining,
            full_in_s: meter.full_in_s,
            wait_s: meter.wait_s,
        }
    }
}
