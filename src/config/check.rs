//! What is wrong across keys, though each value is right by itself. Everything is reported at once.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    base::net::{Address, Upstream},
    event,
};

use super::{
    policy::{self, SecretRule},
    report::Problem,
    wardent::{self, EdgeNetworks, Peer},
    yaml::Source,
};

/// More routes than anybody reads; comparing all with all stays cheap.
const ROUTES_MAX: usize = 1_000;
/// More paths than that in all routes together.
const PATHS_MAX: usize = 10_000;

pub(super) fn check_wardent(document: &wardent::Document, source: &Source<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    addresses(document, source, &mut problems);
    exposure(document, source, &mut problems);
    passwords(&document.log, source, &mut problems);
    trust(document, source, &mut problems);
    secrets(document, source, &mut problems);
    collector(document, source, &mut problems);
    ping(document, source, &mut problems);
    cluster(document, source, &mut problems);
    problems
}

/// The path of OTLP goes to the end of what is given.
fn collector(document: &wardent::Document, source: &Source<'_>, problems: &mut Vec<Problem>) {
    let collector = document.telemetry.otlp.as_ref();
    if collector.is_some_and(|collector| collector.target().has_query()) {
        let what = "otlp: must be without `?`: `/v1/traces` is added to its path";
        problems.push(source.error("telemetry.otlp", what));
    }
}

/// The mirror finds what it copies, copies nothing twice, and sends no password in the open.
fn cluster(document: &wardent::Document, source: &Source<'_>, problems: &mut Vec<Problem>) {
    let Some(cluster) = &document.cluster else {
        return;
    };
    let mut wrong = |key: &str, what: String| problems.push(source.error(key, what));
    if document.log.listen.is_none() {
        let what = "cluster: needs `log.listen`, where the mirror reads the log";
        wrong("cluster", what.to_owned());
    }
    if let Some(tls) = &cluster.kafka.tls
        && tls.cert.is_some() != tls.key.is_some()
    {
        let what = "tls: `cert` and `key` go together";
        wrong("cluster.kafka.tls", what.to_owned());
    }
    if let Some(sasl) = &cluster.kafka.sasl
        && sasl.mechanism == wardent::Mechanism::Plain
        && cluster.kafka.tls.is_none()
    {
        let what = "mechanism: PLAIN sends passwords as they are, so it needs `cluster.kafka.tls` \
                    (or use SCRAM-SHA-512)";
        wrong("cluster.kafka.sasl.mechanism", what.to_owned());
    }
    for (nth, topic) in cluster.mirror.iter().enumerate() {
        let key = format!("cluster.mirror[{nth}]");
        let name = topic.as_str();
        if cluster
            .mirror
            .iter()
            .take(nth)
            .any(|earlier| earlier == topic)
        {
            wrong(&key, format!("mirror: `{name}` is given twice"));
        }
        if name == event::ban::TOPIC {
            let what = format!("mirror: `{name}` reaches the cluster by `share: [bans]`");
            wrong(&key, what);
        } else if name.starts_with("__") || name.starts_with("wardent.cluster.") {
            wrong(&key, format!("mirror: `{name}` is the cluster's own"));
        }
    }
    for (nth, share) in cluster.share.iter().enumerate() {
        if cluster
            .share
            .iter()
            .take(nth)
            .any(|earlier| earlier == share)
        {
            let key = format!("cluster.share[{nth}]");
            wrong(&key, format!("share: `{share}` is given twice"));
        }
    }
}

/// A monitor is not asked more often than the watchdog looks.
fn ping(document: &wardent::Document, source: &Source<'_>, problems: &mut Vec<Problem>) {
    let is_hasty = |ping: &wardent::Ping| ping.interval < Duration::from_secs(1);
    if document.telemetry.ping.as_ref().is_some_and(is_hasty) {
        let key = "telemetry.ping.interval";
        problems.push(source.error(key, format!("{key}: must be 1s or more")));
    }
}

/// Every address is bound once, and none is its own upstream.
fn addresses(document: &wardent::Document, source: &Source<'_>, problems: &mut Vec<Problem>) {
    let mut bound: Vec<(String, Address)> = Vec::new();
    let listen = document.listen.iter().cloned().enumerate();
    let listen = listen.map(|(nth, address)| (format!("listen[{nth}]"), address));
    let admin = document.admin.listen.map(Address::Tcp);
    let admin = admin.map(|address| ("admin.listen".to_owned(), address));
    let socket = Address::Unix(document.admin.socket.clone());
    let log = document.log.listen.clone();
    let log = log.map(|address| ("log.listen".to_owned(), address));
    let others = admin
        .into_iter()
        .chain([("admin.socket".to_owned(), socket)]);
    for (key, address) in listen.chain(others).chain(log) {
        if let Some((other, _)) = bound.iter().find(|(_, taken)| collide(taken, &address)) {
            let (name, other) = (short(&key), short(other));
            let what = format!("{name} {address} is already used by {other}");
            problems.push(source.error(&key, what));
        }
        bound.push((key, address));
    }
    let servers = &document.upstream.servers;
    for (nth, server) in servers.iter().enumerate() {
        let path = format!("upstream.servers[{nth}]");
        if let Some((key, _)) = bound.iter().find(|(_, own)| reaches(server, own)) {
            let what = format!(
                "upstream {server} is this server's own {} address",
                short(key)
            );
            problems.push(source.error(&path, what));
        }
        if servers.iter().take(nth).any(|earlier| earlier == server) {
            problems.push(source.error(&path, format!("upstream {server} is given twice")));
        }
    }
}

/// `listen[2]` as `listen`.
fn short(key: &str) -> &str {
    key.split('[').next().unwrap_or(key)
}

fn collide(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one), Address::Tcp(other)) => {
            let same_family = one.is_ipv4() == other.is_ipv4();
            let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
            let same_host = one.ip() == other.ip() || (same_family && everywhere);
            same_host && one.port() == other.port() && one.port() != 0
        }
        (one, other) => one == other,
    }
}

/// Whether a connection to `server` would arrive at `own`.
fn reaches(server: &Upstream, own: &Address) -> bool {
    match (server, own) {
        (Upstream::Unix(path), Address::Unix(own)) => path == own,
        (Upstream::HostPort(server), Address::Tcp(own)) => {
            let arrives = |ip: IpAddr| match own.ip().is_unspecified() {
                true => ip.is_loopback() || ip.is_unspecified(),
                false => ip == own.ip() || (ip.is_unspecified() && own.ip().is_loopback()),
            };
            server.port == own.port() && server.ip().is_some_and(arrives)
        }
        (Upstream::Unix(_), Address::Tcp(_)) | (Upstream::HostPort(_), Address::Unix(_)) => false,
    }
}

/// What can be reached from elsewhere proves who it is and asks who comes.
fn exposure(document: &wardent::Document, source: &Source<'_>, problems: &mut Vec<Problem>) {
    let wardent::Document { admin, log, .. } = document;
    let is_open = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
    if let Some(address) = admin.listen.as_ref().filter(|address| is_open(address))
        && (admin.tls.is_none() || admin.token.is_none())
    {
        let what = format!(
            "admin.listen {address} can be reached from elsewhere: it needs `admin.tls` and \
             `admin.token` (or listen on 127.0.0.1)"
        );
        problems.push(source.error("admin.listen", what));
    }
    if let Some(Address::Tcp(address)) = &log.listen {
        if is_open(address) && (log.tls.is_none() || log.sasl.is_none()) {
            let what = format!(
                "log.listen {address} can be reached from elsewhere: it needs `log.tls` and \
                 `log.sasl` (or listen on 127.0.0.1)"
            );
            problems.push(source.error("log.listen", what));
        }
        if address.ip().is_unspecified() && log.advertised.is_none() {
            let what = format!(
                "log.listen {address} is no address to connect to: `log.advertised` must say one"
            );
            problems.push(source.error("log.listen", what));
        }
    }
}

/// Passwords are never sent in the open.
fn passwords(log: &wardent::Log, source: &Source<'_>, problems: &mut Vec<Problem>) {
    let mechanisms = log.sasl.iter().flat_map(|sasl| &sasl.mechanisms);
    let mut seen = Vec::new();
    for (nth, mechanism) in mechanisms.enumerate() {
        let path = format!("log.sasl.mechanisms[{nth}]");
        if seen.contains(mechanism) {
            let what = format!("mechanisms: {mechanism} is given twice");
            problems.push(source.error(&path, what));
        }
        seen.push(*mechanism);
        if *mechanism == wardent::Mechanism::Plain && log.tls.is_none() {
            let what = "mechanisms: PLAIN sends passwords as they are, so it needs `log.tls` \
                        (or use SCRAM-SHA-512)";
            problems.push(source.error(&path, what));
        }
    }
}

/// Nobody believes the whole internet, and every header has one meaning.
fn trust(document: &wardent::Document, source: &Source<'_>, problems: &mut Vec<Problem>) {
    let wardent::ClientIp {
        header,
        trusted_peers,
        edge,
        ..
    } = &document.client_ip;
    let network = |peer: &Peer| match peer {
        Peer::Network(network) => Some(*network),
        Peer::Unix => None,
    };
    let peers: Vec<_> = trusted_peers.iter().map(network).collect();
    everybody(&peers, "client_ip.trusted_peers", header, source, problems);
    if let Some(edge) = edge {
        if let EdgeNetworks::Listed(networks) = &edge.networks {
            let networks: Vec<_> = networks.iter().copied().map(Some).collect();
            let path = "client_ip.edge.networks";
            everybody(&networks, path, header, source, problems);
        }
        if edge.header == *header {
            let what = format!("edge.header: `{header}` is already client_ip.header");
            problems.push(source.error("client_ip.edge.header", what));
        }
    }
    if document.secret.header == *header {
        let what = format!("secret.header: `{header}` is already client_ip.header");
        problems.push(source.error("secret.header", what));
    }
}

/// Refuses a list that holds every address there is, in one network or in several.
fn everybody(
    listed: &[Option<IpNet>],
    path: &str,
    header: &http::HeaderName,
    source: &Source<'_>,
    problems: &mut Vec<Problem>,
) {
    let list = path.rsplit('.').next().unwrap_or(path);
    let forge = format!(
        "trusts the whole internet; anybody could forge {}",
        canonical(header)
    );
    let before = problems.len();
    for (nth, network) in listed.iter().enumerate() {
        if let Some(network) = network.filter(|network| network.prefix_len() == 0) {
            let what = format!("{list}[{nth}]: {network} {forge}");
            problems.push(source.error(&format!("{path}[{nth}]"), what));
        }
    }
    let networks: Vec<IpNet> = listed.iter().flatten().copied().collect();
    let together = IpNet::aggregate(&networks);
    if problems.len() == before && together.iter().any(|network| network.prefix_len() == 0) {
        problems.push(source.error(path, format!("{list}: all of it together {forge}")));
    }
}

/// `cf-connecting-ip` as people know it: `CF-Connecting-IP`.
fn canonical(header: &http::HeaderName) -> String {
    let words = header.as_str().split('-').map(|word| match word {
        "cf" | "ip" => word.to_uppercase(),
        word => {
            let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
            first.to_uppercase() + rest
        }
    });
    words.collect::<Vec<_>>().join("-")
}

fn secrets(document: &wardent::Document, source: &Source<'_>, problems: &mut Vec<Problem>) {
    let keys = &document.secret.keys;
    let mut ids = BTreeSet::new();
    for (nth, key) in keys.iter().enumerate() {
        if !ids.insert(&key.id) {
            let path = format!("secret.keys[{nth}].id");
            problems.push(source.error(&path, format!("id: `{}` is given twice", key.id)));
        }
    }
    let written = !source.index().written("secret.keys").is_empty();
    if written && keys.is_empty() {
        let what = "keys: the list is empty (give a key, or leave `keys` out to require no secret)";
        problems.push(source.error("secret.keys", what));
    }
}

pub(super) fn check_policy(
    document: &policy::Document,
    source: &Source<'_>,
    keys_given: bool,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let paths: usize = document
        .routes
        .iter()
        .map(|route| route.matches.path.len())
        .sum();
    if document.routes.len() > ROUTES_MAX || paths > PATHS_MAX {
        let what = format!("more than {ROUTES_MAX} routes or {PATHS_MAX} paths");
        return vec![source.error("routes", what)];
    }
    if !keys_given {
        let required = document.routes.iter().enumerate();
        let required = required.filter(|(_, route)| route.secret == Some(SecretRule::Require));
        let required = required.map(|(nth, _)| format!("routes[{nth}].secret"));
        let by_default = document.defaults.secret == SecretRule::Require;
        let by_default = by_default.then(|| "defaults.secret".to_owned());
        for path in by_default.into_iter().chain(required) {
            let what = "secret: `require` needs `secret.keys` in wardent.yaml, and there are none";
            problems.push(source.error(&path, what));
        }
    }
    let mut names = BTreeSet::new();
    for (nth, route) in document.routes.iter().enumerate() {
        if !names.insert(&route.name) {
            let what = format!("name: the route `{}` is given twice", route.name);
            problems.push(source.error(&format!("routes[{nth}].name"), what));
        }
        let everything = route
            .matches
            .path
            .iter()
            .find(|path| path.matches_everything());
        if let Some(path) = everything.filter(|_| route.trap) {
            let what =
                format!("trap: the path `{path}` matches everything; everybody would be banned");
            problems.push(source.error(&format!("routes[{nth}].trap"), what));
        }
    }
    let bans = &document.bans;
    if bans.duration > bans.escalate.max {
        let what = "duration: the first ban is longer than `escalate.max`";
        problems.push(source.error("bans.duration", what));
    }
    problems
}
