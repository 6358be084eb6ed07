//! What an operator should know about files that are right: what they hold that has no effect.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use super::{
    policy::{self, Route},
    report::Problem,
    values::SecretFrom,
    wardent,
    yaml::Source,
};

/// Everything worth knowing about a `wardent.yaml` that is right.
pub(super) fn of_wardent(document: &wardent::Document, source: &Source<'_>) -> Vec<Problem> {
    let mut notes = secrets_in_environment(source, &WARDENT_SECRETS);
    notes.extend(narrow_log(&document.log, source));
    notes
}

/// Everything worth knowing about a `policy.yaml` that is right.
pub(super) fn of_policy(
    document: &policy::Document,
    source: &Source<'_>,
    wardent: &wardent::Document,
) -> Vec<Problem> {
    let mut notes = secrets_in_environment(source, &POLICY_SECRETS);
    notes.extend(unreachable_routes(document, source));
    notes.extend(whole_internet(document, source));
    notes.extend(lonely_limits(document, source, wardent));
    notes
}

/// Limits of a cluster that there is not.
fn lonely_limits(
    document: &policy::Document,
    source: &Source<'_>,
    wardent: &wardent::Document,
) -> Vec<Problem> {
    let cluster = wardent.cluster.as_ref();
    if cluster.is_some_and(|cluster| cluster.shares(wardent::Shared::Limits)) {
        return Vec::new();
    }
    let sections = document.routes.iter().enumerate();
    let sections = sections.filter_map(|(nth, route)| {
        let limits = route.limit.as_deref()?;
        Some((format!("routes[{nth}].limit"), limits))
    });
    let defaults = ("defaults.limit".to_owned(), &*document.defaults.limit);
    let shared = sections.chain([defaults]).filter(|(_, limits)| {
        let mut scopes = limits.iter().map(|limit| limit.scope);
        scopes.any(|scope| scope == policy::Scope::Cluster)
    });
    let note = |(key, _): (String, _)| {
        let what = "scope: `cluster` needs `cluster.share: [limits]` in wardent.yaml: \
                    each node limits by itself";
        source.warning(&source.index().nearest(&key), what)
    };
    shared.map(note).collect()
}

/// A log that `disk_max` leaves less room than other keys ask for.
fn narrow_log(log: &wardent::Log, source: &Source<'_>) -> Vec<Problem> {
    /// Below, the segments that are written to and the ballast take most of it.
    const DISK_MAX_SENSIBLE: u64 = 64 << 20;
    let mut notes = Vec::new();
    let mut note = |key: &str, what: &str| {
        let written = source.index().written(key);
        notes.extend(written.iter().map(|place| source.warning(place, what)));
    };
    if log.disk_max < DISK_MAX_SENSIBLE {
        let what = "log.disk_max: below 64MiB there is hardly room for access events";
        note("log.disk_max", what);
    }
    if log.access.retention_size > log.disk_max {
        let what = "log.access.retention_size: larger than `log.disk_max`, past which access events go before";
        note("log.access.retention_size", what);
    }
    notes
}

const WARDENT_SECRETS: [&str; 4] = [
    "secret.keys[].from.env",
    "secret.upstream.from.env",
    "admin.token.env",
    "cluster.kafka.sasl.password.env",
];
const POLICY_SECRETS: [&str; 2] = [
    "routes[].signature.secrets[].env",
    "routes[].signature.secrets.env",
];

fn secrets_in_environment(source: &Source<'_>, patterns: &[&str]) -> Vec<Problem> {
    let written = patterns
        .iter()
        .flat_map(|pattern| source.index().written(pattern));
    let note = |place| {
        let what = "env: the environment can be read in /proc and is inherited by every child";
        Problem {
            help: Some("prefer `credential` (systemd) or `file`".to_owned()),
            ..source.warning(&place, what)
        }
    };
    written.map(note).collect()
}

/// Routes whose every request goes to an earlier one.
fn unreachable_routes(document: &policy::Document, source: &Source<'_>) -> Vec<Problem> {
    // All are compared with all; beyond this a reload would notice.
    const PATHS_MAX: usize = 2_000;
    let paths: usize = document
        .routes
        .iter()
        .map(|route| route.matches.path.len())
        .sum();
    let mut notes = Vec::new();
    if paths > PATHS_MAX {
        return notes;
    }
    for (nth, route) in document.routes.iter().enumerate() {
        let earlier = || document.routes.iter().take(nth);
        let all_covered = earlier().any(|other| covers(other, route))
            || route.matches.path.iter().all(|path| {
                let whole = |other: &&Route| other.matches.has_methods_of(&route.matches);
                let mut whole = earlier().filter(whole);
                whole.any(|other| other.matches.path.iter().any(|wide| wide.covers(path)))
            });
        if all_covered {
            let by = earlier().find(|other| covers(other, route));
            let by = by.map_or_else(|| "earlier routes".into(), |by| format!("`{}`", by.name));
            let what = format!(
                "route `{}` can never match: {by} takes all of it before",
                route.name
            );
            let place = source.index().nearest(&format!("routes[{nth}].name"));
            notes.push(source.warning(&place, what));
        }
    }
    notes
}

fn covers(wide: &Route, narrow: &Route) -> bool {
    let (wide, narrow) = (&wide.matches, &narrow.matches);
    let covered = |path| wide.path.iter().any(|wide| wide.covers(path));
    wide.has_methods_of(narrow) && narrow.path.iter().all(covered)
}

fn whole_internet(document: &policy::Document, source: &Source<'_>) -> Vec<Problem> {
    let lists = [
        ("allow", &document.allow, "nobody is limited or banned"),
        ("deny", &document.deny, "everybody is refused"),
    ];
    let mut notes = Vec::new();
    for (key, networks, meaning) in lists {
        for (nth, network) in networks
            .iter()
            .enumerate()
            .filter(|(_, net)| net.prefix_len() == 0)
        {
            let place = source.index().nearest(&format!("{key}[{nth}]"));
            notes.push(source.warning(&place, format!("{key}[{nth}]: {network}: {meaning}")));
        }
    }
    notes
}

/// The files of `wardent.yaml` that hold secrets and that everybody on this machine can read.
/// Looks at the files; one that is not there is no problem here.
pub(super) fn exposed_files_of_wardent(
    document: &wardent::Document,
    source: &Source<'_>,
) -> Vec<Problem> {
    let keys = document.secret.keys.iter().enumerate();
    let keys = keys.map(|(nth, key)| (format!("secret.keys[{nth}].from.file"), file_of(&key.from)));
    let upstream = document.secret.upstream.iter();
    let upstream = upstream.map(|to| ("secret.upstream.from.file".into(), file_of(&to.from)));
    let token = document.admin.token.iter();
    let token = token.map(|from| ("admin.token.file".into(), file_of(from)));
    let log = document.log.tls.iter();
    let log = log.map(|tls| ("log.tls.key".into(), Some(&tls.key)));
    let admin = document.admin.tls.iter();
    let admin = admin.map(|tls| ("admin.tls.key".into(), Some(&tls.key)));
    let kafka = document.cluster.iter().map(|cluster| &cluster.kafka);
    let password = kafka.clone().flat_map(|kafka| &kafka.sasl).map(|sasl| {
        let key = "cluster.kafka.sasl.password.file".to_owned();
        (key, file_of(&sasl.password))
    });
    let key = kafka.flat_map(|kafka| &kafka.tls);
    let key = key.map(|tls| ("cluster.kafka.tls.key".into(), tls.key.as_ref()));
    let files = keys.chain(upstream).chain(token).chain(log).chain(admin);
    exposed(files.chain(password).chain(key), source)
}

/// The same for `policy.yaml`.
pub(super) fn exposed_files_of_policy(
    document: &policy::Document,
    source: &Source<'_>,
) -> Vec<Problem> {
    let signatures = document.routes.iter().enumerate();
    let signatures = signatures.flat_map(|(nth, route)| {
        let secrets = route
            .signature
            .iter()
            .flat_map(|signature| &signature.secrets);
        let path = move |(at, from)| {
            let path = format!("routes[{nth}].signature.secrets[{at}].file");
            (path, file_of(from))
        };
        secrets.enumerate().map(path)
    });
    exposed(signatures, source)
}

fn file_of(from: &SecretFrom) -> Option<&PathBuf> {
    match from {
        SecretFrom::File(path) => Some(path),
        SecretFrom::Env(_) | SecretFrom::Credential(_) => None,
    }
}

fn exposed<'a>(
    files: impl Iterator<Item = (String, Option<&'a PathBuf>)>,
    source: &Source<'_>,
) -> Vec<Problem> {
    const READ_BY_OTHERS: u32 = 0o004;
    let files = files.filter_map(|(key, file)| Some((key, file?)));
    let open = files.filter(|(_, file)| {
        let mode = fs::metadata(file).map(|meta| meta.permissions().mode());
        mode.is_ok_and(|mode| mode & READ_BY_OTHERS != 0)
    });
    let note = |(key, file): (String, &PathBuf)| {
        let place = source.index().nearest(&key);
        let what = format!("`{key}`: {} can be read by everybody", file.display());
        Problem {
            help: Some(format!("chmod 0640 {}", file.display())),
            ..source.warning(&place, what)
        }
    };
    open.map(note).collect()
}
