//! `policy.yaml`: what is edited daily and reloaded while running.

use std::{collections::BTreeMap, num::NonZeroU32, path::Path, time::Duration};

use http::{Method, StatusCode};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use crate::{base::units::Rate, guard::route::Pattern};

use super::{
    check::check_policy,
    report::{Problem, Report},
    values::{Id, SecretFrom},
    wardent,
    words::{self, Map, OneOrMore, Within, one, one_or_list, optional_size, size, vocabulary},
    yaml::{self, Source},
};

mod bots;
pub mod switch;

pub use bots::*;

/// The whole file. Relative paths in it are already relative to its folder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Document {
    /// What a refusal does.
    pub mode: Mode,
    /// Who is never limited and never banned.
    #[serde(deserialize_with = "words::list")]
    pub allow: Vec<IpNet>,
    /// Who is always refused.
    #[serde(deserialize_with = "words::list")]
    pub deny: Vec<IpNet>,
    /// What every route starts from.
    pub defaults: Defaults,
    /// The routes; the first match wins, the rest gets the defaults.
    #[serde(deserialize_with = "routes")]
    pub routes: Vec<Route>,
    /// When and how long a client is banned.
    pub bans: Bans,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            allow: Vec::new(),
            deny: Vec::new(),
            defaults: Defaults::default(),
            routes: Vec::new(),
            bans: Bans::default(),
        }
    }
}

vocabulary! {
    /// What a refusal does.
    Mode {
        /// It refuses.
        Enforce = "enforce",
        /// It is counted and published, and lets pass.
        Observe = "observe",
    }
}

vocabulary! {
    /// Whether a request must carry the secret.
    SecretRule {
        /// It must.
        Require = "require",
        /// It need not.
        Skip = "skip",
    }
}

/// What every route starts from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Defaults {
    /// Left out, it is `require` where `wardent.yaml` gives keys and `skip` where it does not.
    pub secret: SecretRule,
    /// What is done with bots.
    pub bots: BotRule,
    /// The limits of each client, one clock each across all routes that inherit them; none for `skip`.
    #[serde(deserialize_with = "limits")]
    pub limit: Vec<Limit>,
    /// The largest body, in bytes.
    #[serde(deserialize_with = "size")]
    pub body: u64,
}

impl Default for Defaults {
    fn default() -> Self {
        const TWENTY: NonZeroU32 = NonZeroU32::new(20).unwrap();
        const FORTY: NonZeroU32 = NonZeroU32::new(40).unwrap();
        Self {
            secret: SecretRule::Require,
            bots: BotRule::Act(BotActions::default()),
            limit: vec![Limit {
                rate: Rate {
                    count: TWENTY,
                    per: Duration::from_secs(1),
                },
                burst: FORTY,
                scope: Scope::Node,
            }],
            body: 10 << 20,
        }
    }
}

/// One limit of a client (GCRA).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "WrittenLimit")]
pub struct Limit {
    /// How many requests in how much time.
    pub rate: Rate,
    /// How many are admitted at once; left out, as many as the rate counts.
    pub burst: NonZeroU32,
    /// What is counted.
    pub scope: Scope,
}

vocabulary! {
    /// Whose requests a limit counts.
    Scope {
        /// Those of this node.
        Node = "node",
        /// Those of all nodes of the cluster.
        Cluster = "cluster",
    }
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a mapping {rate: …, burst: …}, or `skip`"
)]
struct WrittenLimit {
    #[serde(deserialize_with = "one")]
    rate: Rate,
    #[serde(default, deserialize_with = "words::optional")]
    burst: Option<NonZeroU32>,
    #[serde(default = "node", deserialize_with = "one")]
    scope: Scope,
}

fn node() -> Scope {
    Scope::Node
}

impl From<WrittenLimit> for Limit {
    fn from(WrittenLimit { rate, burst, scope }: WrittenLimit) -> Self {
        Self {
            rate,
            burst: burst.unwrap_or(rate.count),
            scope,
        }
    }
}

/// What some requests get instead of the defaults; `None` is left out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping {name: …, match: …}")]
pub struct Route {
    /// Its name in answers, metrics and events.
    pub name: Id,
    /// Which requests it is for.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Whether the secret must be there.
    #[serde(default)]
    pub secret: Option<SecretRule>,
    /// What is done with bots; what it leaves out is as in the defaults.
    #[serde(default)]
    pub bots: Option<BotRule>,
    /// Limits with clocks of their own; empty for `skip`.
    #[serde(default, deserialize_with = "some_limits")]
    pub limit: Option<Vec<Limit>>,
    /// The largest body, in bytes.
    #[serde(default, deserialize_with = "optional_size")]
    pub body: Option<u64>,
    /// What proves the body.
    #[serde(default)]
    pub signature: Option<Signature>,
    /// Answers of the application that count as violations, and how many points each.
    #[serde(default, deserialize_with = "penalties")]
    pub penalize: BTreeMap<StatusCode, NonZeroU32>,
    /// Whether asking for it is a violation.
    #[serde(default, deserialize_with = "one")]
    pub trap: bool,
    /// What a refusal does here.
    #[serde(default)]
    pub mode: Option<Mode>,
}

/// Which requests a route is for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping {path: …, methods: …}")]
pub struct Match {
    /// Any of these paths; never empty.
    #[serde(deserialize_with = "words::words")]
    pub path: Vec<Pattern>,
    /// Any of these methods; empty for all.
    #[serde(default, deserialize_with = "words::words")]
    pub methods: Vec<Method>,
}

impl Match {
    /// Whether every request with one of `other`'s methods has one of these.
    pub(super) fn has_methods_of(&self, other: &Self) -> bool {
        let listed = |method| self.methods.contains(method);
        self.methods.is_empty() || (!other.methods.is_empty() && other.methods.iter().all(listed))
    }
}

/// What proves that a webhook's body is genuine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Signature {
    /// Who signs, and how.
    pub scheme: Scheme,
    /// The secrets that are valid, all at once; never empty.
    #[serde(deserialize_with = "one_or_list")]
    pub secrets: Vec<SecretFrom>,
    /// How old a signature may be.
    #[serde(default = "tolerance", deserialize_with = "one")]
    pub tolerance: Duration,
}

vocabulary! {
    /// Who signs, and how.
    Scheme {
        /// Stripe: HMAC-SHA256 over time and body.
        Stripe = "stripe",
    }
}

/// When and how long a client is banned.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Bans {
    /// So many points …
    #[serde(deserialize_with = "one")]
    pub threshold: NonZeroU32,
    /// … within this time …
    #[serde(deserialize_with = "one")]
    pub window: Duration,
    /// … ban the client this long.
    #[serde(deserialize_with = "one")]
    pub duration: Duration,
    /// How further bans become longer.
    pub escalate: Escalate,
    /// What a violation is worth.
    pub points: Points,
}

impl Default for Bans {
    fn default() -> Self {
        const TEN: NonZeroU32 = NonZeroU32::new(10).unwrap();
        Self {
            threshold: TEN,
            window: Duration::from_secs(60),
            duration: Duration::from_secs(600),
            escalate: Escalate::default(),
            points: Points::default(),
        }
    }
}

/// How every further ban is longer than the one before.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Escalate {
    /// By this factor, 1 to 1000 …
    #[serde(deserialize_with = "factor")]
    pub factor: NonZeroU32,
    /// … up to this long …
    #[serde(deserialize_with = "one")]
    pub max: Duration,
    /// … until nothing has happened for this long.
    #[serde(deserialize_with = "one")]
    pub forget: Duration,
}

impl Default for Escalate {
    fn default() -> Self {
        const TWO: NonZeroU32 = NonZeroU32::new(2).unwrap();
        Self {
            factor: TWO,
            max: Duration::from_secs(7 * 86_400),
            forget: Duration::from_secs(30 * 86_400),
        }
    }
}

/// What a violation is worth; 0 is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Points {
    /// Over a limit.
    #[serde(deserialize_with = "one")]
    pub rate_limited: u32,
    /// A bot that is blocked.
    #[serde(deserialize_with = "one")]
    pub bot: u32,
    /// A body over its bound.
    #[serde(deserialize_with = "one")]
    pub body_too_large: u32,
    /// A trap.
    #[serde(deserialize_with = "one")]
    pub trap: u32,
}

impl Default for Points {
    fn default() -> Self {
        Self {
            rate_limited: 1,
            bot: 2,
            body_too_large: 1,
            trap: 10,
        }
    }
}

/// What is in force for a request: its route's word where there is one, else the defaults'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// What a refusal does.
    pub mode: Mode,
    /// Whether the secret must be there.
    pub secret: SecretRule,
    /// What is done with bots.
    pub bots: BotRule,
    /// The limits of each client; empty for none.
    pub limit: Vec<Limit>,
    /// Whether their clocks are the ones that all routes without limits of their own share.
    pub limit_is_shared: bool,
    /// The largest body, in bytes.
    pub body: u64,
}

impl Document {
    /// What is in force where no route matches.
    pub fn rest(&self) -> Effective {
        Effective {
            mode: self.mode,
            secret: self.defaults.secret,
            bots: self.defaults.bots.clone(),
            limit: self.defaults.limit.clone(),
            limit_is_shared: true,
            body: self.defaults.body,
        }
    }

    /// What is in force for the requests of `route`.
    pub fn effective(&self, route: &Route) -> Effective {
        let rest = self.rest();
        let bots = match (&rest.bots, &route.bots) {
            (BotRule::Act(defaults), Some(BotRule::Act(own))) => {
                BotRule::Act(defaults.overlaid(own))
            }
            (_, Some(own)) => own.clone(),
            (defaults, None) => defaults.clone(),
        };
        Effective {
            mode: route.mode.unwrap_or(rest.mode),
            secret: route.secret.unwrap_or(rest.secret),
            bots,
            limit: route.limit.clone().unwrap_or(rest.limit),
            limit_is_shared: route.limit.is_none(),
            body: route.body.unwrap_or(rest.body),
        }
    }
}

/// What may be written without a value: there is simply none.
const NULLABLE: &[&str] = &[
    "allow",
    "deny",
    "routes",
    "routes[].signature",
    "routes[].penalize",
];

/// Reads the text of a `policy.yaml` called `name`, whose relative paths start at `base`, for a
/// Wardent that is set up as in `wardent`. Returns what is worth knowing beside the document.
///
/// # Errors
/// When it is refused: everything that is wrong across keys is reported at once.
pub fn parse(
    text: &str,
    name: &str,
    base: &Path,
    wardent: &wardent::Document,
) -> Result<(Document, Vec<Problem>), Report> {
    let (document, source) = read(text, name, base, wardent)?;
    let notes = super::notes::of_policy(&document, &source, wardent);
    Ok((document, notes))
}

/// As [`parse`], and looks at the files that hold secrets, too.
pub(super) fn load(
    text: &str,
    name: &str,
    base: &Path,
    wardent: &wardent::Document,
) -> Result<(Document, Vec<Problem>), Report> {
    let (document, source) = read(text, name, base, wardent)?;
    let mut notes = super::notes::of_policy(&document, &source, wardent);
    notes.extend(super::notes::exposed_files_of_policy(&document, &source));
    Ok((document, notes))
}

fn read<'a>(
    text: &'a str,
    name: &'a str,
    base: &Path,
    wardent: &wardent::Document,
) -> Result<(Document, Source<'a>), Report> {
    let (mut document, source): (Document, _) = yaml::read(name, text, NULLABLE)?;
    let keys_given = !wardent.secret.keys.is_empty();
    if !keys_given && source.index().written("defaults.secret").is_empty() {
        document.defaults.secret = SecretRule::Skip;
    }
    let signatures = document
        .routes
        .iter_mut()
        .flat_map(|route| &mut route.signature);
    for from in signatures.flat_map(|signature| &mut signature.secrets) {
        from.resolve(base);
    }
    let problems = check_policy(&document, &source, keys_given);
    match problems.is_empty() {
        true => Ok((document, source)),
        false => Err(Report { problems }),
    }
}

/// `skip`, one limit, or a list of them.
fn limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Limit>, D::Error> {
    let limits: Option<OneOrMore<Limit>> = words::skip_or(deserializer)?;
    Ok(limits.map_or_else(Vec::new, |OneOrMore(limits)| limits))
}

fn some_limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Limit>>, D::Error> {
    limits(deserializer).map(Some)
}

fn penalties<'de, D>(deserializer: D) -> Result<BTreeMap<StatusCode, NonZeroU32>, D::Error>
where
    D: Deserializer<'de>,
{
    let penalties: Option<Map<StatusCode, NonZeroU32>> = Option::deserialize(deserializer)?;
    Ok(penalties.map_or_else(BTreeMap::new, |Map(penalties)| penalties))
}

fn routes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Route>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn factor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    one(deserializer).map(|Within::<1, 1_000>(factor)| factor)
}

fn tolerance() -> Duration {
    Duration::from_secs(300)
}
