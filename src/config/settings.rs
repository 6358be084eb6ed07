//! From the documents to what the rooms below work with.

use std::{net::ToSocketAddrs as _, time::Duration};

use super::{
    Loaded,
    policy::{self, BotRule, Effective, Mode, Scheme, Scope, SecretRule},
    secrets::Secrets,
    values::SecretFrom,
    wardent::{self, Shared},
};
use crate::{
    base::net::Upstream as UpstreamAddress,
    client::{Edge, EdgeNetworks, Missing, Protected, Trust, TrustedPeers},
    event,
    guard::{
        limit::Limits,
        policy::{Points, Policy, Rules},
        route::{Route, Routes},
        signature::Stripe,
        tally::Tallies,
    },
    kafka,
    limit::{ClockIds, Limit, Quota},
    log::{self, Cleanup, Flush, TopicConfig, TopicSettings},
    owner::BanPolicy,
    proxy::{
        ConfiguredNames, Settings, UpstreamSettings,
        upstream::{Server, Target, Upstream},
    },
    registry,
    secret::{Keyring, SecretBytes, Signer},
    sink,
};

/// What the proxy reads once at start.
pub fn proxy(document: &wardent::Document) -> Settings {
    let edge = document.client_ip.edge.as_ref();
    let upstream = &document.upstream;
    Settings {
        names: ConfiguredNames {
            client_ip: document.client_ip.header.as_str().to_owned(),
            edge: edge.map(|edge| edge.header.as_str().to_owned()),
            secret: document.secret.header.as_str().to_owned(),
            upstream_secret: document
                .secret
                .upstream
                .as_ref()
                .map(|upstream| upstream.header.as_str().to_owned()),
        },
        keep_alive: document.keep_alive,
        http2: document.http2,
        upstream: UpstreamSettings {
            connect_timeout: upstream.connect_timeout,
            response_timeout: upstream.response_timeout,
            idle_timeout: upstream.idle_timeout,
            pool_idle: upstream.pool_idle,
            tunnel_idle: upstream.tunnel_idle,
        },
    }
}

/// The servers, their names resolved now: no request ever waits for a resolver.
///
/// # Errors
/// When a name has no address.
pub fn upstream(document: &wardent::Document) -> Result<Upstream, String> {
    let servers = document.upstream.servers.iter().map(|address| {
        let target = match address {
            UpstreamAddress::Unix(path) => Target::Unix(path.clone()),
            UpstreamAddress::HostPort(host_port) => Target::Tcp(
                (host_port.host.as_str(), host_port.port)
                    .to_socket_addrs()
                    .map_err(|error| format!("upstream.servers: `{address}`: {error}"))?
                    .min_by_key(|found| found.is_ipv6())
                    .ok_or_else(|| format!("upstream.servers: `{address}` has no address"))?,
            ),
        };
        Ok(Server::new(target))
    });
    servers.collect::<Result<_, String>>().map(Upstream::new)
}

/// The topic of requests.
pub const ACCESS: &str = event::access::TOPIC;
/// The topic of bans as they are.
pub const BANS: &str = event::ban::TOPIC;
/// The topic of what was done.
pub const AUDIT: &str = event::audit::TOPIC;
/// The topic of what could not be read or delivered.
pub const DEAD_LETTERS: &str = sink::letters::TOPIC;
/// The topic of the offsets of consumer groups, as Kafka calls it.
pub const OFFSETS: &str = "__consumer_offsets";
/// The topic of what administrators decided of topics, users and quotas.
pub const METADATA: &str = "__wardent_metadata";
/// The topic of schemas, as Confluent's registry calls it.
pub const SCHEMAS: &str = registry::TOPIC;

/// The log: its directory, its bounds, and the topics that are always there.
pub fn log(document: &wardent::Log) -> log::Settings {
    const MIB: u64 = 1 << 20;
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    let segment_bytes = (document.disk_max / 128).clamp(MIB, 64 * MIB);
    let kept = TopicConfig {
        segment_bytes,
        delete_retention: DAY,
        is_reserved: true,
        ..TopicConfig::default()
    };
    let access = &document.access;
    let retention_bytes = (access.retention_size / u64::from(access.partitions.get())).max(1);
    let of_access = TopicConfig {
        retention: Some(access.retention),
        retention_bytes: Some(retention_bytes),
        // What is kept is given up in segments: the last of them should not be all of it.
        segment_bytes: (retention_bytes / 8).clamp(MIB, segment_bytes),
        segment_age: (access.retention / 28).clamp(Duration::from_secs(60), DAY),
        flush: Flush::Lazily {
            age: Duration::from_secs(5),
            bytes: 8 * MIB,
        },
        is_expendable: true,
        ..kept
    };
    let compacted = TopicConfig {
        cleanup: Cleanup::Compact,
        segment_age: DAY,
        ..kept
    };
    let of_audit = TopicConfig {
        retention: Some(365 * DAY),
        ..kept
    };
    let of_dead_letters = TopicConfig {
        retention: Some(30 * DAY),
        ..kept
    };
    let topics = [
        (ACCESS, access.partitions.get(), of_access),
        (BANS, 1, compacted.clone()),
        (AUDIT, 1, of_audit),
        (DEAD_LETTERS, 1, of_dead_letters),
        (OFFSETS, 4, compacted.clone()),
        (METADATA, 1, compacted.clone()),
        (SCHEMAS, 1, compacted),
    ];
    let topic = |(name, partitions, config)| TopicSettings {
        name: str::to_owned(name),
        partitions,
        config,
    };
    log::Settings {
        dir: document.dir.clone(),
        disk_max: document.disk_max,
        ballast_bytes: (document.disk_max / 256).clamp(MIB, 32 * MIB),
        topics: topics.map(topic).into(),
    }
}

/// Where the listener's certificate and key are.
pub fn tls(tls: &wardent::Tls) -> kafka::tls::Files {
    kafka::tls::Files {
        cert: tls.cert.clone(),
        key: tls.key.clone(),
    }
}

/// How the listener's clients prove who they are.
pub fn sasl(sasl: &wardent::Sasl) -> kafka::Sasl {
    use kafka::sasl::{Mechanism, Scram};
    let mechanism = |mechanism: &wardent::Mechanism| match mechanism {
        wardent::Mechanism::Plain => Mechanism::Plain,
        wardent::Mechanism::ScramSha256 => Mechanism::Scram(Scram::Sha256),
        wardent::Mechanism::ScramSha512 => Mechanism::Scram(Scram::Sha512),
    };
    kafka::Sasl {
        mechanisms: sasl.mechanisms.iter().map(mechanism).collect(),
    }
}

/// What outlives a reload, so that what it names stays what it is.
#[derive(Debug, Default)]
pub struct Lasting {
    /// The secrets as last read.
    pub secrets: Secrets,
    /// The limits' clocks.
    pub clocks: ClockIds,
    /// What became of the routes' requests.
    pub tallies: Tallies,
}

/// A policy that may take effect, and what the operator should know.
#[derive(Debug)]
pub struct Built {
    /// The policy.
    pub policy: Policy,
    /// What the owner of bans goes by.
    pub bans: BanPolicy,
    /// New secrets that were refused; the old ones stay in force.
    pub notes: Vec<String>,
}

/// Builds the policy of both documents, with the secrets read anew.
///
/// # Errors
/// When a secret cannot be had, all that is wrong at once.
pub fn policy(loaded: &Loaded, lasting: &mut Lasting, generation: u64) -> Result<Built, String> {
    let mut reading = Reading {
        shares_limits: shares(&loaded.wardent, Shared::Limits),
        lasting,
        notes: Vec::new(),
        wrong: Vec::new(),
    };
    let keyring = reading.keyring(&loaded.wardent.secret);
    let signer = reading.signer(&loaded.wardent.secret);
    let rest = loaded.policy.rest();
    let routes: Vec<_> = loaded
        .policy
        .routes
        .iter()
        .map(|route| reading.route(&loaded.policy, &rest, route))
        .collect();
    let defaults = reading.rest(&rest);
    let Reading { notes, wrong, .. } = reading;
    let protected = protected(loaded);
    match (
        keyring,
        signer,
        routes.into_iter().collect::<Option<Vec<_>>>(),
    ) {
        (Some(keyring), Some(signer), Some(routes)) if wrong.is_empty() => {
            let policy = Policy {
                generation,
                trust: trust(&loaded.wardent.client_ip),
                keyring,
                signer,
                denied: loaded.policy.deny.iter().copied().collect(),
                protected: protected.clone(),
                points: points(&loaded.policy.bans.points),
                routes: Routes::from(routes),
                defaults,
            };
            let names = policy.all_rules().map(|rules| rules.route.as_str());
            lasting.tallies.keep_only(names);
            Ok(Built {
                policy,
                bans: bans(&loaded.policy.bans, protected),
                notes,
            })
        }
        _ => Err(wrong.join("\n")),
    }
}

/// Reads secrets, and gathers what is wrong with them.
struct Reading<'a> {
    /// Whether there are nodes that share limits.
    shares_limits: bool,
    lasting: &'a mut Lasting,
    notes: Vec<String>,
    wrong: Vec<String>,
}

impl Reading<'_> {
    fn secret(
        &mut self,
        what: &str,
        from: &SecretFrom,
        check: impl FnOnce(&SecretBytes) -> Result<(), String>,
    ) -> Option<SecretBytes> {
        match self.lasting.secrets.get(what, from, check) {
            Ok(found) => {
                self.notes.extend(found.kept_because);
                Some(found.value)
            }
            Err(wrong) => {
                self.wrong.push(wrong);
                None
            }
        }
    }

    fn key(&mut self, section: &str, id: &str, from: &SecretFrom) -> Option<SecretBytes> {
        self.secret(&format!("{section} `{id}`"), from, |value| {
            value.long_enough(id).map_err(|bad| bad.to_string())
        })
    }

    fn keyring(&mut self, secret: &wardent::Secret) -> Option<Keyring> {
        let keys: Vec<_> = secret
            .keys
            .iter()
            .map(|key| {
                let value = self.key("secret.keys", key.id.as_str(), &key.from)?;
                Some((key.id.as_str().to_owned(), value))
            })
            .collect();
        let keys = keys.into_iter().collect::<Option<_>>()?;
        self.valid("secret.keys", Keyring::new(keys))
    }

    /// Outer none: it is wrong. Inner none: there is to be no signature.
    fn signer(&mut self, secret: &wardent::Secret) -> Option<Option<Signer>> {
        let Some(upstream) = &secret.upstream else {
            return Some(None);
        };
        let id = upstream.id.as_str();
        let value = self.key("secret.upstream", id, &upstream.from)?;
        self.valid("secret.upstream", Signer::new(id, value))
            .map(Some)
    }

    /// What holds where no route matches.
    fn rest(&mut self, rest: &Effective) -> Rules {
        Rules {
            route: DEFAULTS.to_owned(),
            tally: self.lasting.tallies.of(DEFAULTS),
            needs_secret: rest.secret == SecretRule::Require,
            is_exempt: false,
            enforces: rest.mode == Mode::Enforce,
            bots: rest.bots.actions(),
            is_trap: false,
            limits: self.limits(DEFAULTS, rest),
            penalize: Vec::new(),
            body_bytes_max: rest.body,
            signature: None,
        }
    }

    fn limits(&mut self, route: &str, effective: &Effective) -> Limits {
        let name = if effective.limit_is_shared {
            DEFAULTS
        } else {
            route
        };
        let mut limits = Vec::new();
        for (nth, limit) in effective.limit.iter().enumerate() {
            let quota = Quota::new(limit.rate, limit.burst.get());
            let is_shared = self.shares_limits && limit.scope == Scope::Cluster;
            let quota = if is_shared { quota.shared() } else { quota };
            match self.lasting.clocks.clock(name, nth) {
                Some(clock) => limits.push(Limit { quota, clock }),
                None => self.wrong.push(format!(
                    "{name}: 65536 limits have had other names since the start: restart to forget them"
                )),
            }
        }
        Limits::new(name, limits)
    }

    fn route(
        &mut self,
        document: &policy::Document,
        rest: &Effective,
        route: &policy::Route,
    ) -> Option<Route<Rules>> {
        let effective = document.effective(route);
        let signature = match &route.signature {
            Some(signature) => Some(self.signature(route.name.as_str(), signature)?),
            None => None,
        };
        let skips_secret =
            rest.secret == SecretRule::Require && effective.secret == SecretRule::Skip;
        let skips_bots = rest.bots != BotRule::Skip && effective.bots == BotRule::Skip;
        let methods: Vec<_> = route
            .matches
            .methods
            .iter()
            .map(|method| method.as_str().to_owned())
            .collect();
        let limits = self.limits(route.name.as_str(), &effective);
        Some(Route {
            patterns: route.matches.path.clone(),
            methods: Some(methods).filter(|methods| !methods.is_empty()),
            value: Rules {
                route: route.name.as_str().to_owned(),
                tally: self.lasting.tallies.of(route.name.as_str()),
                needs_secret: effective.secret == SecretRule::Require,
                is_exempt: skips_secret || skips_bots,
                enforces: effective.mode == Mode::Enforce,
                // A valid signature says more than a user agent.
                bots: effective.bots.actions().filter(|_| signature.is_none()),
                is_trap: route.trap,
                limits,
                penalize: route
                    .penalize
                    .iter()
                    .map(|(status, points)| (status.as_u16(), points.get()))
                    .collect(),
                body_bytes_max: effective.body,
                signature,
            },
        })
    }

    fn signature(&mut self, route: &str, signature: &policy::Signature) -> Option<Stripe> {
        let Scheme::Stripe = signature.scheme;
        let secrets: Vec<_> = signature
            .secrets
            .iter()
            .map(|from| self.secret(&format!("routes `{route}`: signature"), from, |_| Ok(())))
            .collect();
        let secrets = secrets.into_iter().collect::<Option<_>>()?;
        self.valid(route, Stripe::new(secrets, signature.tolerance))
    }

    fn valid<T, E: std::fmt::Display>(&mut self, what: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong.push(format!("{what}: {error}"));
                None
            }
        }
    }
}

/// The name of the limits that all routes without limits of their own share.
const DEFAULTS: &str = "defaults";

/// Whether nodes of a cluster share this.
pub fn shares(document: &wardent::Document, what: Shared) -> bool {
    let cluster = document.cluster.as_ref();
    cluster.is_some_and(|cluster| cluster.shares(what))
}

fn points(points: &policy::Points) -> Points {
    Points {
        rate_limited: points.rate_limited,
        bot: points.bot,
        body_too_large: points.body_too_large,
        trap: points.trap,
    }
}

fn bans(bans: &policy::Bans, protected: Protected) -> BanPolicy {
    BanPolicy {
        threshold: bans.threshold.get(),
        window: bans.window,
        duration: bans.duration,
        factor: bans.escalate.factor.get(),
        max: bans.escalate.max,
        forget: bans.escalate.forget,
        protected,
    }
}

fn protected(loaded: &Loaded) -> Protected {
    let peers = trust(&loaded.wardent.client_ip).trusted.networks;
    Protected {
        allowed: loaded.policy.allow.iter().copied().collect(),
        trusted_peers: peers.into_iter().collect(),
    }
}

fn trust(client_ip: &wardent::ClientIp) -> Trust {
    let peers = &client_ip.trusted_peers;
    Trust {
        header: client_ip.header.as_str().to_owned(),
        trusted: TrustedPeers {
            networks: peers
                .iter()
                .filter_map(|peer| match peer {
                    wardent::Peer::Network(network) => Some(*network),
                    wardent::Peer::Unix => None,
                })
                .collect(),
            unix: peers.contains(&wardent::Peer::Unix),
        },
        edge: client_ip.edge.as_ref().map(|edge| Edge {
            header: edge.header.as_str().to_owned(),
            networks: match &edge.networks {
                wardent::EdgeNetworks::Cloudflare => EdgeNetworks::cloudflare(),
                wardent::EdgeNetworks::Listed(networks) => networks.iter().copied().collect(),
            },
        }),
        missing: match client_ip.missing {
            wardent::Missing::Reject => Missing::Reject,
            wardent::Missing::Peer => Missing::Peer,
        },
        ipv6_prefix: client_ip.ipv6_prefix,
    }
}
