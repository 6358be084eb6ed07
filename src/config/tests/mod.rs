//! What operators meet: whole files, good and bad.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use super::{
    policy::{BotRule, Document, Mode, SecretRule},
    *,
};
use crate::bots::{Action, Category};

mod cluster;
mod hostile;
mod refusals;

const MINIMAL: &str = "listen: 127.0.0.1:8080\nupstream: {servers: 127.0.0.1:8000}\n";
const WITH_KEY: &str = "secret: {keys: [{id: a, from: {file: s}}]}\n";

fn wardent(text: &str) -> Result<wardent::Document, Report> {
    wardent::parse(text, "wardent.yaml", Path::new("/etc/w")).map(|(document, _)| document)
}

fn policy_beside(text: &str, wardent_yaml: &str) -> Result<(Document, Vec<Problem>), Report> {
    let wardent = wardent(wardent_yaml).unwrap();
    policy::parse(text, "policy.yaml", Path::new("/etc/w"), &wardent)
}

fn policy(text: &str) -> Document {
    policy_beside(text, MINIMAL).unwrap().0
}

/// The first lines of all that is wrong.
fn heads(report: &Report) -> Vec<String> {
    let line = |problem: &Problem| problem.to_string().lines().next().unwrap().to_owned();
    report.problems.iter().map(line).collect()
}

/// The one thing that is wrong with a `wardent.yaml` that is otherwise minimal.
#[track_caller]
fn wrong(more: &str) -> String {
    alone(
        &wardent(&format!("{MINIMAL}{more}")).unwrap_err(),
        "wardent.yaml:",
    )
}

#[track_caller]
fn wrong_policy(text: &str) -> String {
    alone(&policy_beside(text, MINIMAL).unwrap_err(), "policy.yaml:")
}

#[track_caller]
fn alone(report: &Report, file: &str) -> String {
    let heads = heads(report);
    assert_eq!(heads.len(), 1, "{heads:?}");
    heads[0].strip_prefix(file).unwrap().to_owned()
}

fn notes(text: &str) -> Vec<String> {
    let (_, problems) = policy_beside(text, MINIMAL).unwrap();
    heads(&Report { problems })
}

// The defaults of the contract.

#[test]
fn a_minimal_file_has_the_defaults_of_the_contract() {
    let document = wardent(MINIMAL).unwrap();
    let whole = wardent(
        r#"
listen: [127.0.0.1:8080]
workers: auto
http2: false
max_connections: 20000
keep_alive: 75s
upstream:
  servers: [127.0.0.1:8000]
  connect_timeout: 2s
  response_timeout: 60s
  idle_timeout: 60s
  pool_idle: 1s
  tunnel_idle: 1h
  max_in_flight: 1024
client_ip:
  header: cf-connecting-ip
  trusted_peers: [127.0.0.0/8, "::1/128", unix]
  missing: reject
  ipv6_prefix: 64
policy: policy.yaml
limits: {clients_max: 1000000, bans_max: 1000000}
log:
  dir: /var/lib/wardent/log
  listen: 127.0.0.1:9092
  disk_max: 8GiB
  access: {partitions: 4, retention: 7d, retention_size: 4GiB}
  ip_privacy: full
  tls: null
  sasl: null
admin:
  listen: 127.0.0.1:9901
  socket: /run/wardent/admin.sock
  token: null
  tls: null
telemetry: {otlp: null, sample: 1, ping: null, log: info}
"#,
    );
    assert_eq!(document, whole.unwrap());
    assert_eq!(document.policy, PathBuf::from("/etc/w/policy.yaml"));
}

#[test]
fn a_policy_that_says_little_has_the_defaults_of_the_contract() {
    let whole = policy(
        "
mode: enforce
defaults:
  bots: {ai-training: block, ai-search: block, ai-assistant: block, seo: block,
         security-scanner: block, http-library: allow, headless-browser: block,
         search-engine: verify, unknown: allow}
  limit: {rate: 20/s, burst: 40}
  body: 10MiB
bans:
  threshold: 10
  window: 60s
  duration: 10m
  escalate: {factor: 2, max: 7d, forget: 30d}
  points: {rate_limited: 1, bot: 2, body_too_large: 1, trap: 10}
",
    );
    let little = policy("mode: enforce");
    for category in Category::ALL {
        let action = |document: &Document| match &document.defaults.bots {
            BotRule::Act(actions) => actions.of(category),
            BotRule::Skip => panic!("bots are not skipped"),
        };
        assert_eq!(action(&little), action(&whole), "{category}");
    }
    assert_eq!(little.defaults.limit, whole.defaults.limit);
    assert_eq!(little.defaults.body, whole.defaults.body);
    assert_eq!(little.bans, whole.bans);
}

#[test]
fn the_shipped_samples_load() {
    let loaded = load(Path::new("config/wardent.yaml")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.policy.mode, Mode::Observe);
    assert_eq!(loaded.policy.routes.len(), 3);
    assert_eq!(loaded.notes, []);
}

#[test]
fn the_secret_is_required_where_keys_are_given_and_skipped_where_none_are() {
    assert_eq!(policy("mode: enforce").defaults.secret, SecretRule::Skip);
    let with_key = format!("{MINIMAL}{WITH_KEY}");
    let (document, _) = policy_beside("mode: enforce", &with_key).unwrap();
    assert_eq!(document.defaults.secret, SecretRule::Require);
    let (document, _) = policy_beside("defaults: {secret: skip}", &with_key).unwrap();
    assert_eq!(document.defaults.secret, SecretRule::Skip);
    assert_eq!(
        wrong_policy("defaults: {secret: require}"),
        "1:20: secret: `require` needs `secret.keys` in wardent.yaml, and there are none"
    );
}

#[test]
fn a_bot_is_allowed_blocked_tagged_limited_or_verified() {
    let document = policy(
        "
defaults: {bots: {ai-training: allow, ai-search: block, ai-assistant: tag, seo: limit, unknown: verify}}
",
    );
    let BotRule::Act(bots) = &document.defaults.bots else {
        panic!("bots are looked for")
    };
    for (category, action) in [
        (Category::AiTraining, Action::Allow),
        (Category::AiSearch, Action::Block),
        (Category::AiAssistant, Action::Tag),
        (Category::Seo, Action::Limit),
        (Category::Unknown, Action::Verify),
    ] {
        assert_eq!(bots.of(category), action);
    }
}

#[test]
fn a_route_takes_from_the_defaults_what_it_leaves_out() {
    let document = policy(
        "
defaults: {bots: {seo: allow}, body: 2MiB}
routes:
  - {name: a, match: {path: /a}, bots: {unknown: block}, limit: {rate: 5/m}}
  - {name: b, match: {path: [/b, /c/], methods: POST}, bots: skip, limit: skip, mode: observe}
",
    );
    let a = document.effective(&document.routes[0]);
    let BotRule::Act(bots) = &a.bots else {
        panic!("bots are looked for")
    };
    assert_eq!(bots.of(Category::Seo), Action::Allow);
    assert_eq!(bots.of(Category::Unknown), Action::Block);
    assert_eq!(bots.of(Category::AiTraining), Action::Block);
    assert_eq!(
        a.limit[0].burst.get(),
        5,
        "left out, the burst is the rate's count"
    );
    assert_eq!(
        (a.limit_is_shared, a.body, a.mode),
        (false, 2 << 20, Mode::Enforce)
    );
    let b = document.effective(&document.routes[1]);
    assert_eq!(
        (b.bots, b.limit, b.mode),
        (BotRule::Skip, vec![], Mode::Observe)
    );
    assert!(document.rest().limit_is_shared);
}

#[test]
fn relative_paths_start_at_the_file() {
    let document = wardent(
        "listen: unix:w.sock\nupstream: {servers: [unix:run/app.sock]}\nlog: {dir: log}\n\
         secret: {keys: [{id: a, from: {file: s}}]}\nadmin: {token: {file: /t}, socket: a.sock}\n",
    )
    .unwrap();
    assert_eq!(document.listen[0].to_string(), "unix:/etc/w/w.sock");
    assert_eq!(
        document.upstream.servers[0].to_string(),
        "unix:/etc/w/run/app.sock"
    );
    assert_eq!(document.log.dir, PathBuf::from("/etc/w/log"));
    assert_eq!(
        document.secret.keys[0].from,
        values::SecretFrom::File("/etc/w/s".into())
    );
    assert_eq!(
        document.admin.token,
        Some(values::SecretFrom::File("/t".into()))
    );
}

#[test]
fn quotes_and_numbers_do_not_matter() {
    let quoted = policy("routes: [{name: '1', match: {path: /a}, penalize: {'401': '1'}}]");
    let plain = policy("routes: [{name: 1, match: {path: /a}, penalize: {401: 1}}]");
    assert_eq!(quoted, plain);
}

#[test]
fn an_anchor_may_be_used_again() {
    let document = policy(
        "defaults: {limit: &l {rate: 1/s}}\nroutes: [{name: a, match: {path: /a}, limit: *l}]",
    );
    assert_eq!(
        document.routes[0].limit.as_deref(),
        Some(&document.defaults.limit[..])
    );
}

#[test]
fn an_anchored_value_is_told_where_it_stands() {
    assert_eq!(
        wrong_policy("defaults:\n  limit:\n    rate: &r 1/parsec\n"),
        "3:11: rate: unknown unit `parsec` (use s, m, h, d)"
    );
    assert_eq!(
        wrong_policy("defaults: {limit: &l {rat: 1/s}}\n"),
        "1:23: unknown key `rat` (did you mean `rate`?)"
    );
    assert_eq!(
        wrong_policy("defaults: {limit: &l {burst: 1}}\n"),
        "1:19: `defaults.limit.rate` is missing"
    );
}

// What is right, and still worth a word.

#[test]
fn a_route_behind_a_wider_one_can_never_match() {
    let notes = notes(
        "
routes:
  - {name: all-posts, match: {path: /a/, methods: [POST, PUT]}}
  - {name: gets, match: {path: /a/b, methods: GET}}
  - {name: posts, match: {path: /a/b, methods: POST}}
  - {name: both, match: {path: [/a/b, /a/*/c]}}
  - {name: either, match: {path: [/a/b, /a/x/c]}}
",
    );
    assert_eq!(
        notes,
        [
            "policy.yaml:5:12: warning: route `posts` can never match: `all-posts` takes all of it before",
            "policy.yaml:7:12: warning: route `either` can never match: `both` takes all of it before",
        ]
    );
}

#[test]
fn the_log_has_the_topics_and_the_bounds_of_the_document() {
    const MIB: u64 = 1 << 20;
    let log = |text: &str| {
        let text = format!("{MINIMAL}{text}");
        let (document, _) = wardent::parse(&text, "wardent.yaml", Path::new("")).unwrap();
        settings::log(&document.log)
    };
    let usual = log("");
    let names: Vec<_> = usual
        .topics
        .iter()
        .map(|topic| topic.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "wardent.http.access",
            "wardent.client.ban",
            "wardent.audit.event",
            "wardent.dead.letter",
            "__consumer_offsets",
            "__wardent_metadata",
            "_schemas",
        ]
    );
    let [access, others @ ..] = &usual.topics[..] else {
        panic!("{usual:#?}")
    };
    assert_eq!(
        (access.name.as_str(), access.partitions),
        (settings::ACCESS, 4)
    );
    assert_eq!(access.config.retention_bytes, Some(1024 * MIB));
    assert_eq!(access.config.segment_bytes, 64 * MIB);
    assert!(access.config.is_expendable && !access.config.flush.is_durable());
    for topic in others {
        let partitions = if topic.name == settings::OFFSETS {
            4
        } else {
            1
        };
        assert_eq!(topic.partitions, partitions, "{}", topic.name);
        assert!(!topic.config.is_expendable && topic.config.flush.is_durable());
    }
    assert_eq!(
        (usual.disk_max, usual.ballast_bytes),
        (8192 * MIB, 32 * MIB)
    );
    let small =
        log("log: {disk_max: 64MiB, access: {partitions: 2, retention: 1h, retention_size: 4MiB}}");
    let access = &small.topics[0];
    assert_eq!(access.partitions, 2);
    assert_eq!(access.config.retention, Some(Duration::from_secs(3_600)));
    assert_eq!(access.config.retention_bytes, Some(2 * MIB));
    assert_eq!(access.config.segment_bytes, MIB);
    assert_eq!(small.ballast_bytes, MIB);
}

#[test]
fn the_environment_is_no_good_place_for_a_secret() {
    let text = format!("{MINIMAL}secret: {{keys: [{{id: a, from: {{env: KEY}}}}]}}");
    let (_, notes) = wardent::parse(&text, "wardent.yaml", Path::new("")).unwrap();
    assert_eq!(notes[0].key, "secret.keys[0].from.env");
    assert!(notes[0].help.is_some());
}

#[test]
fn a_secret_file_that_everybody_can_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (path, secret) = (dir.path().join("wardent.yaml"), dir.path().join("s"));
    fs::write(&path, format!("{MINIMAL}{WITH_KEY}")).unwrap();
    fs::write(dir.path().join("policy.yaml"), "defaults: {body: 1MiB}").unwrap();
    let notes = || {
        let notes = load(&path).unwrap().notes.into_iter();
        let about_key = notes.filter(|note| note.key.starts_with("secret"));
        about_key.map(|note| note.what).collect::<Vec<_>>()
    };
    assert!(
        notes().is_empty(),
        "a file that is not there yet is no problem"
    );
    fs::write(&secret, "hunter2").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(notes().is_empty());
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let notes = notes();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].ends_with("can be read by everybody"));
}

#[test]
fn durations_reach_the_document() {
    let document = policy("bans: {window: 250ms}");
    assert_eq!(document.bans.window, Duration::from_millis(250));
}

#[test]
fn a_log_that_asks_for_more_room_than_it_has_is_told() {
    let keys = |log: &str| {
        let text = format!("{MINIMAL}log: {{listen: null, {log}}}\n");
        let (_, notes) = wardent::parse(&text, "wardent.yaml", Path::new("")).unwrap();
        notes
            .into_iter()
            .map(|note| note.key)
            .collect::<Vec<String>>()
    };
    let size = "log.access.retention_size";
    assert_eq!(keys("disk_max: 1KiB"), ["log.disk_max"]);
    assert_eq!(keys("access: {retention_size: 9GiB}"), [size]);
    // Its default is not what somebody asked for.
    assert!(keys("disk_max: 64MiB").is_empty());
    assert!(keys("disk_max: 1GiB, access: {retention_size: 1GiB}").is_empty());
}
