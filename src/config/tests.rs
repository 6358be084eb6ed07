//! What operators meet: whole files, good and bad.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use proptest::prelude::*;

use super::{
    policy::{BotAction, BotCategory, BotRule, Document, Mode, SecretRule},
    *,
};

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
telemetry: {otlp: null, log: info}
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
    for category in BotCategory::ALL {
        let action = |document: &Document| match &document.defaults.bots {
            BotRule::Act(actions) => actions.of(*category),
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
    let wrong = |note: &&Problem| !note.what.contains("not yet in force");
    assert_eq!(loaded.notes.iter().find(wrong), None);
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
    assert_eq!(bots.of(BotCategory::Seo), BotAction::Allow);
    assert_eq!(bots.of(BotCategory::Unknown), BotAction::Block);
    assert_eq!(bots.of(BotCategory::AiTraining), BotAction::Block);
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

// What is wrong with one value.

#[test]
fn an_unknown_unit_is_shown_where_it_stands() {
    let report = policy_beside("defaults:\n  limit:\n    rate: 10/parsec\n", MINIMAL).unwrap_err();
    let expected = "\
policy.yaml:3:11: rate: unknown unit `parsec` (use s, m, h, d)
  |
3 |     rate: 10/parsec
  |           ^^^^^^^^^
";
    assert_eq!(report.to_string(), expected);
}

#[test]
fn an_unknown_key_is_met_with_a_suggestion() {
    assert_eq!(
        wrong("limts: []"),
        "3:1: unknown key `limts` (did you mean `limits`?)"
    );
    assert_eq!(
        wrong_policy("routes:\n  - name: a\n    match: {pth: /a}\n"),
        "3:13: unknown key `pth` (did you mean `path`?)"
    );
    assert_eq!(
        wrong_policy("colour: blue"),
        "1:1: unknown key `colour` (use `mode`, `allow`, `deny`, `defaults`, `routes` or `bans`)"
    );
    assert_eq!(
        wrong_policy("defaults: {bots: {ai-trainig: block}}"),
        "1:19: bots: `ai-trainig` is not known (did you mean `ai-training`?)"
    );
    assert_eq!(
        wrong_policy("bans: {points: {trp: 1}}"),
        "1:17: unknown key `trp` (did you mean `trap`?)"
    );
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        alone(
            &wardent("upstream: {servers: a:1}").unwrap_err(),
            "wardent.yaml:"
        ),
        "1:1: `listen` is missing"
    );
    assert_eq!(
        alone(
            &wardent("listen: 127.0.0.1:1\nupstream: {idle_timeout: 1s}").unwrap_err(),
            "wardent.yaml:"
        ),
        "2:11: `upstream.servers` is missing"
    );
    assert_eq!(
        wrong_policy("routes:\n  - match: {path: /a}"),
        "2:5: `routes[0].name` is missing"
    );
    assert_eq!(
        wrong_policy("bans:\n"),
        "1:1: `bans` has no value (give one, or leave it out)"
    );
    assert_eq!(
        wrong_policy("allow: [null]"),
        "1:9: `allow[0]` has no value (give one, or leave it out)"
    );
}

#[test]
fn wrong_shapes_are_told_in_plain_words() {
    for (text, says) in [
        (
            "mode: {a: b}",
            "1:7: mode: expected one word, found a mapping",
        ),
        (
            "mode: [enforce]",
            "1:7: mode: expected one word, found a list",
        ),
        (
            "bans: 5",
            "1:7: bans: expected a mapping, found a single value",
        ),
        ("bans: [1]", "1:7: bans: expected a mapping, found a list"),
        ("- a", "1:1: expected a mapping, found a list"),
        ("hello", "1:1: expected a mapping, found a single value"),
        (
            "routes: {a: b}",
            "1:9: routes: expected a list, found a mapping",
        ),
        (
            "allow: 10.0.0.0/8",
            "1:8: allow: expected a list, found a single value",
        ),
        (
            "defaults: {limit: []}",
            "1:19: limit: the list is empty (give one at least)",
        ),
        (
            "defaults: {limit: none}",
            "1:19: limit: `none` is not known (use `skip` or a mapping)",
        ),
        (
            "defaults: {bots: [a]}",
            "1:18: bots: expected a mapping, found a list",
        ),
    ] {
        assert_eq!(wrong_policy(text), says, "{text}");
    }
}

#[test]
fn each_value_says_what_would_be_right() {
    for (text, says) in [
        (
            "allow: [10.0.0.1/33]",
            "1:9: allow[0]: `10.0.0.1/33`: prefix must be 0..32",
        ),
        (
            "mode: enforcing",
            "1:7: mode: `enforcing` is not known (did you mean `enforce`?)",
        ),
        (
            "mode: no",
            "1:7: mode: `no` is not known (use `enforce` or `observe`)",
        ),
        (
            "bans: {threshold: 0}",
            "1:19: threshold: `0` is not a whole number of 1 or more",
        ),
        (
            "bans: {threshold: -1}",
            "1:19: threshold: `-1` is not a whole number of 1 or more",
        ),
        (
            "bans: {threshold: 1e9}",
            "1:19: threshold: `1e9` is not a whole number of 1 or more",
        ),
        (
            "bans: {threshold: .nan}",
            "1:19: threshold: `.nan` is not a whole number of 1 or more",
        ),
        (
            "bans: {threshold: 010}",
            "1:19: threshold: `010` is not a whole number of 1 or more",
        ),
        (
            "bans: {threshold: 0x10}",
            "1:19: threshold: `0x10` is not a whole number of 1 or more",
        ),
        (
            "bans: {threshold: 4294967296}",
            "1:19: threshold: `4294967296` is not a whole number of 1 or more",
        ),
        (
            "bans: {escalate: {factor: 1.5}}",
            "1:27: factor: `1.5` is not a whole number from 1 to 1000",
        ),
        (
            "bans: {window: 0s}",
            "1:16: window: must be longer than nothing",
        ),
        (
            "bans: {window: 60}",
            "1:16: window: the unit is missing (use ms, s, m, h, d)",
        ),
        (
            "defaults: {body: 0B}",
            "1:18: body: must be more than nothing",
        ),
        (
            "defaults: {body: 10MB}",
            "1:18: body: unknown unit `MB` (use B, KiB, MiB, GiB, TiB)",
        ),
        (
            "routes: [{name: a b, match: {path: /}}]",
            "1:17: name: `a b` is not a name (use 1 to 64 of A-Z, a-z, 0-9, _ and -)",
        ),
        (
            "routes: [{name: a, match: {path: /a, methods: [post]}}]",
            "1:48: methods[0]: `post` is written in capitals (use POST)",
        ),
        (
            "routes: [{name: a, match: {path: /a, methods: PSOT}}]",
            "1:47: methods: `PSOT` is not a method (did you mean `POST`?)",
        ),
        (
            "routes: [{name: a, match: {path: [/a, b]}}]",
            "1:39: path[1]: `b` must start with `/`",
        ),
        (
            "routes: [{name: a, match: {path: /a}, trap: yes}]",
            "1:45: trap: `yes` is not known (use `true` or `false`)",
        ),
        (
            "routes: [{name: a, match: {path: /a}, penalize: {\"99\": 1}}]",
            "1:50: penalize: `99` is not a whole number from 200 to 599",
        ),
        (
            "routes: [{name: a, match: {path: /a}, signature: {scheme: stripe, secrets: []}}]",
            "1:76: secrets: the list is empty (give one at least)",
        ),
    ] {
        assert_eq!(wrong_policy(text), says, "{text}");
    }
    for (text, says) in [
        (
            "workers: 0",
            "3:10: workers: `0` is neither `auto` nor from 1 to 1024",
        ),
        (
            "workers: 1025",
            "3:10: workers: `1025` is neither `auto` nor from 1 to 1024",
        ),
        (
            "client_ip: {ipv6_prefix: 24}",
            "3:26: ipv6_prefix: `24` is not a whole number from 32 to 128",
        ),
        (
            "client_ip: {header: host}",
            "3:21: header: `host` has a meaning of its own in HTTP (use another header)",
        ),
        (
            "admin: {listen: unix:/a}",
            "3:17: listen: must be host:port (the unix socket is `admin.socket`)",
        ),
        (
            "telemetry: {otlp: collector}",
            "3:19: otlp: must be an address such as http://127.0.0.1:4318",
        ),
        (
            "secret: {keys: [{id: a, from: {file: a, env: b}}]}",
            "3:31: from: give exactly one of `file`, `env` and `credential`",
        ),
        (
            "secret: {keys: [{id: a, from: {}}]}",
            "3:31: from: give exactly one of `file`, `env` and `credential`",
        ),
    ] {
        assert_eq!(wrong(text), says, "{text}");
    }
}

// What is wrong across keys.

#[test]
fn one_port_is_used_once() {
    assert_eq!(
        wrong("admin: {listen: 127.0.0.1:8080}"),
        "3:17: admin.listen 127.0.0.1:8080 is already used by listen"
    );
    assert_eq!(
        wrong("log: {listen: 127.0.0.1:9901}"),
        "3:15: log.listen 127.0.0.1:9901 is already used by admin.listen"
    );
    let any = "listen: [0.0.0.0:80, 127.0.0.1:80, '[::]:80', 127.0.0.1:0, 127.0.0.1:0]\nupstream: {servers: a:1}";
    assert_eq!(
        alone(&wardent(any).unwrap_err(), "wardent.yaml:"),
        "1:22: listen 127.0.0.1:80 is already used by listen"
    );
}

#[test]
fn nobody_is_their_own_upstream() {
    for (listen, server) in [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("127.0.0.1:8080", "localhost:8080"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("unix:/w", "unix:/w"),
    ] {
        let text = format!("listen: {listen}\nupstream: {{servers: ['{server}']}}");
        assert_eq!(
            alone(&wardent(&text).unwrap_err(), "wardent.yaml:"),
            format!("2:22: upstream {server} is this server's own listen address")
        );
    }
}

#[test]
fn nobody_trusts_the_whole_internet() {
    assert_eq!(
        wrong("client_ip: {trusted_peers: [unix, 0.0.0.0/0]}"),
        "3:35: trusted_peers[1]: 0.0.0.0/0 trusts the whole internet; anybody could forge CF-Connecting-IP"
    );
    assert_eq!(
        wrong("client_ip: {trusted_peers: ['::/1', '8000::/1']}"),
        "3:28: trusted_peers: all of it together trusts the whole internet; anybody could forge CF-Connecting-IP"
    );
    assert!(wrong("client_ip: {trusted_peers: ['::ffff:0:0/96']}").contains("0.0.0.0/0 trusts"));
    assert!(wrong("client_ip: {edge: {header: x, networks: '::/0'}}").contains("trusts the whole"));
}

#[test]
fn what_can_be_reached_from_elsewhere_needs_tls_and_a_proof() {
    assert_eq!(
        wrong("admin: {listen: 0.0.0.0:9901}"),
        "3:17: admin.listen 0.0.0.0:9901 can be reached from elsewhere: it needs `admin.tls` and \
         `admin.token` (or listen on 127.0.0.1)"
    );
    assert!(wrong("log: {listen: 192.0.2.1:9092, tls: {cert: c, key: k}}").contains("`log.sasl`"));
    let whole = "log: {listen: 192.0.2.1:9092, tls: {cert: c, key: k}, sasl: {mechanisms: [SCRAM-SHA-512]}}";
    assert!(wardent(&format!("{MINIMAL}{whole}")).is_ok());
}

#[test]
fn several_problems_are_told_at_once() {
    let text = "listen: 127.0.0.1:80\nupstream: {servers: 127.0.0.1:80}\n\
                admin: {listen: 127.0.0.1:80}\nsecret: {keys: [{id: a, from: {env: A}}, {id: a, from: {env: B}}]}\n";
    let report = wardent(text).unwrap_err();
    assert_eq!(report.problems.len(), 3, "{report}");
    assert_eq!(
        heads(&report)[2],
        "wardent.yaml:4:47: id: `a` is given twice"
    );
    let report = policy_beside(
        "routes:\n  - {name: a, match: {path: /}, trap: true}\n  - {name: a, match: {path: /b}, secret: require}\n\
         bans: {duration: 8d}\n",
        MINIMAL,
    );
    assert_eq!(report.unwrap_err().problems.len(), 4);
}

// What is no configuration at all.

#[test]
fn each_kind_of_broken_file_has_its_line() {
    for (text, says) in [
        ("", "1:1: the file is empty"),
        ("# nothing\n", "1:1: the file is empty"),
        ("{}", "1:1: the file is empty"),
        (
            "bans:\n\twindow: 1s",
            "2:1: tab characters are not allowed for indentation (use spaces)",
        ),
        (
            "mode: \u{1b}[0m",
            "1:7: the character `\\u{1b}` is not allowed",
        ),
        (
            "mode: a\rbans: b",
            "1:8: the character `\\r` is not allowed",
        ),
        (
            "mode: enforce\nmode: observe",
            "2:1: the key `mode` is given twice",
        ),
        (
            "defaults: {bots: {seo: block, seo: allow}}",
            "1:31: the key `seo` is given twice",
        ),
        (
            "mode: enforce\n---\nmode: observe",
            "2:1: a second document begins here (use one a file)",
        ),
    ] {
        assert_eq!(wrong_policy(text), says, "{text:?}");
    }
    let large = format!("# {}\nmode: enforce", "x".repeat(4 << 20));
    assert_eq!(wrong_policy(&large), "1:1: the file is larger than 4 MiB");
    assert!(
        wrong_policy("mode: [").starts_with("1:8: not YAML: "),
        "{}",
        wrong_policy("mode: [")
    );
}

#[test]
fn windows_files_are_read_as_others() {
    let unix = "mode: observe\nbans:\n  window: 5s\n";
    let windows = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
    assert_eq!(policy(&windows), policy(unix));
    assert_eq!(
        wrong_policy("\u{feff}mode: x\r\n"),
        "1:7: mode: `x` is not known (use `enforce` or `observe`)"
    );
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.yaml");
    let document = wardent(MINIMAL).unwrap();
    let complaint = || heads(&load_policy(&path, &document).unwrap_err())[0].clone();
    assert!(complaint().ends_with(":1:1: cannot be read: No such file or directory (os error 2)"));
    fs::write(&path, b"mode: enforce\n# caf\xe9\n").unwrap();
    assert!(
        complaint().ends_with("policy.yaml:2:6: this byte is not UTF-8 (save the file as UTF-8)")
    );
    fs::write(&path, b"\xff\xfem\0o\0").unwrap();
    assert!(complaint().ends_with("the file is UTF-16 (save it as UTF-8)"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(complaint().ends_with("cannot be read: not a regular file"));
}

#[test]
fn what_is_wrong_in_both_files_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wardent.yaml");
    fs::write(&path, format!("{MINIMAL}admin: {{listen: 0.0.0.0:9901}}")).unwrap();
    fs::write(dir.path().join("policy.yaml"), "mode: x").unwrap();
    let report = load(&path).unwrap_err();
    assert_eq!(report.problems.len(), 2, "{report}");
}

// Secrets and hostile text.

#[test]
fn a_secret_in_the_wrong_place_is_never_repeated() {
    const SECRET: &str = "hunter2hunter2";
    for more in [
        "secret: {keys: [hunter2hunter2]}",
        "secret: {keys: [{id: 'hunter2 hunter2hunter2', from: {file: a}}]}",
        "secret: {keys: [{id: a, from: hunter2hunter2}]}",
        "secret: {keys: [{id: a, from: {hunter2hunter2}}]}",
        "secret: {keys: [{id: a, from: {env: 'hunter2hunter2 x'}}]}",
        "secret: hunter2hunter2",
        "secret: {keys: [{id: a, from: {hunter2hunter2: a, hunter2hunter2: b}}]}",
        "secret: {keys: [{id: a, from: {hunter2hunter2: a}}]}",
        "secert: {keys: [{id: a, value: hunter2hunter2}]}",
        "tokn: hunter2hunter2",
        "admin: {tokn: hunter2hunter2}",
        "admin: {token: hunter2hunter2}",
        "admin: {token: \"hunter2hunter2}",
        "telemetry: {otlp: 'hunter2hunter2'}",
        "log: {sasl: {mechanisms: [hunter2hunter2]}}",
    ] {
        let report = wardent(&format!("{MINIMAL}{more}\n")).unwrap_err();
        let report = format!("{report}{report:?}");
        assert!(!report.contains(SECRET), "{report}");
    }
    for text in [
        "routes: [{name: a, match: {path: /a}, signature: {scheme: stripe, secrets: [hunter2hunter2]}}]",
        "routes: [{name: a, match: {path: /a}, secret: hunter2hunter2}]",
        "defaults: {secret: hunter2hunter2}",
    ] {
        let report = policy_beside(text, MINIMAL).unwrap_err();
        let report = format!("{report}{report:?}");
        assert!(!report.contains(SECRET), "{report}");
    }
}

#[test]
fn hostile_text_cannot_drive_a_terminal() {
    let report = policy_beside("mode: \"\\e[31m\\u202e\"", MINIMAL)
        .unwrap_err()
        .to_string();
    assert!(
        report.contains("mode: `\\u{1b}[31m\\u{202e}` is not known"),
        "{report}"
    );
    let long = format!("mode: {}", "x".repeat(100_000));
    let report = policy_beside(&long, MINIMAL).unwrap_err().to_string();
    assert!(report.len() < 1_000, "{}", report.len());
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
fn what_is_not_yet_in_force_is_said() {
    let notes = notes(
        "mode: observe\nroutes:\n  - name: a\n    match: {path: /a}\n    bots: skip\n    limit: skip\n    body: 1MiB\n    trap: true\n",
    );
    assert_eq!(
        notes,
        [
            "policy.yaml:1:1: warning: `mode` is read and checked, but not yet in force in this version",
            "policy.yaml:8:5: warning: `routes[0].trap` is read and checked, but not yet in force in this version",
        ]
    );
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
    assert_eq!(
        load(&path).unwrap().notes,
        [],
        "a file that is not there yet is no problem"
    );
    fs::write(&secret, "hunter2").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(load(&path).unwrap().notes, []);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let notes = load(&path).unwrap().notes;
    assert_eq!(notes.len(), 1);
    assert!(notes[0].what.ends_with("can be read by everybody"));
}

#[test]
fn durations_reach_the_document() {
    let document = policy("bans: {window: 250ms}");
    assert_eq!(document.bans.window, Duration::from_millis(250));
}

proptest! {
    #[test]
    fn no_bytes_make_the_loader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let base = wardent(MINIMAL).unwrap();
        if let Ok(text) = yaml::decode("f", bytes) {
            let _ = wardent(&text);
            let _ = policy::parse(&text, "f", Path::new(""), &base);
        }
    }

    #[test]
    fn no_text_that_looks_like_yaml_makes_it_panic(
        words in proptest::collection::vec(
            prop::sample::select(vec![
                "listen", "upstream", "routes", "match", "path", "bots", ": ", ":", "- ", "\n", "\n  ",
                "[", "]", "{", "}", ", ", "&a ", "*a", "!x ", "\"", "'", "| ", "> ", "<<", "? ", "# ",
                "---\n", "...\n", "~", "%", "401", "/a", "20/s", "é", "\u{feff}", "\r\n", "\t",
            ]),
            0..40,
        )
    ) {
        let text = words.concat();
        let base = wardent(MINIMAL).unwrap();
        let _ = wardent(&text);
        let _ = policy::parse(&text, "f", Path::new(""), &base);
    }
}
