//! What is refused, where, and in which words.

use super::*;

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
fn words_and_numbers_say_what_would_be_right() {
    for (text, says) in [
        (
            "allow: [10.0.0.1/33]",
            "1:9: allow[0]: `10.0.0.1/33`: prefix must be 0..32",
        ),
        (
            "mode: enforcing",
            "1:7: mode: `enforcing` is not known (use `enforce` or `observe`)",
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
    ] {
        assert_eq!(wrong_policy(text), says, "{text}");
    }
}

#[test]
fn quantities_say_what_would_be_right() {
    for (text, says) in [
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
    ] {
        assert_eq!(wrong_policy(text), says, "{text}");
    }
}

#[test]
fn routes_say_what_would_be_right() {
    for (text, says) in [
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
            "routes: [{name: a, match: {path: /*.php}}]",
            "1:34: path: `/*.php` has a `*` inside a segment (it must stand alone, as in `/*/`)",
        ),
        (
            "routes: [{name: a, match: {path: \"/\\e\"}}]",
            "1:34: path: `/\\u{1b}` has a control character in it",
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
}

#[test]
fn settings_say_what_would_be_right() {
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
            "telemetry: {otlp: 'http://127.0.0.1:4318/?key=hunter2'}",
            "3:19: otlp: must be without `?`: `/v1/traces` is added to its path",
        ),
        (
            "telemetry: {otlp: 'https://collector'}",
            "3:19: otlp: must be an address such as http://127.0.0.1:4318: TLS is not spoken here (put a collector or a relay on this host)",
        ),
        (
            "telemetry: {sample: 1.5}",
            "3:21: sample: `1.5` is not a number from 0 to 1, such as 0.1",
        ),
        (
            "telemetry: {ping: {url: 'http://a', interval: 200ms}}",
            "3:47: telemetry.ping.interval: must be 1s or more",
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
    let without_token = wrong("admin: {listen: 192.0.2.1:9901, tls: {cert: c, key: k}}");
    assert!(without_token.contains("`admin.token`"));
    let whole = "admin: {listen: '[2001:db8::1]:9901', tls: {cert: c, key: k}, token: {file: t}}";
    assert!(wardent(&format!("{MINIMAL}{whole}")).is_ok());
    assert!(wrong("log: {listen: 192.0.2.1:9092, tls: {cert: c, key: k}}").contains("`log.sasl`"));
    let whole = "log: {listen: 192.0.2.1:9092, tls: {cert: c, key: k}, sasl: {mechanisms: [SCRAM-SHA-512]}}";
    assert!(wardent(&format!("{MINIMAL}{whole}")).is_ok());
}

#[test]
fn passwords_are_not_sent_in_the_open() {
    assert_eq!(
        wrong("log: {sasl: {mechanisms: [SCRAM-SHA-256, PLAIN]}}"),
        "3:42: mechanisms: PLAIN sends passwords as they are, so it needs `log.tls` (or use SCRAM-SHA-512)"
    );
    let inside = "log: {tls: {cert: c, key: k}, sasl: {mechanisms: [PLAIN]}}";
    assert!(wardent(&format!("{MINIMAL}{inside}")).is_ok());
    let twice = "log: {sasl: {mechanisms: [SCRAM-SHA-256, SCRAM-SHA-256]}}";
    assert!(wrong(twice).ends_with("mechanisms: SCRAM-SHA-256 is given twice"));
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

#[test]
fn a_file_where_the_logs_directory_belongs_is_told_and_nothing_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wardent.yaml");
    fs::write(dir.path().join("policy.yaml"), "mode: observe").unwrap();
    let files = || fs::read_dir(dir.path()).unwrap().count();
    let report = |log_dir: &str| {
        fs::write(&path, format!("{MINIMAL}log: {{dir: {log_dir}}}\n")).unwrap();
        load(&path).map(drop)
    };
    assert_eq!(report("log/of/wardent"), Ok(()));
    assert_eq!(files(), 2, "looking creates nothing");
    for (log_dir, in_the_way) in [("policy.yaml", ""), ("policy.yaml/a/b", "/a/b: {}")] {
        let file = dir.path().join("policy.yaml").display().to_string();
        let report = report(log_dir).unwrap_err();
        assert_eq!(
            alone(&report, &path.display().to_string()),
            format!(
                ":3:12: log.dir: {file}{} is no directory (choose another, or move away what is there)",
                in_the_way.replace("{}", &file)
            )
        );
    }
}
