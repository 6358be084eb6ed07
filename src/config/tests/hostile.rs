//! What no file can do: tell a secret, drive a terminal, make the loader panic.

use proptest::prelude::*;

use super::*;
use crate::base::fuzz::{Outcome, campaign, hash};

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
        "telemetry: {otlp: 'https://hunter2hunter2'}",
        "telemetry: {otlp: 'http://collector/?hunter2hunter2'}",
        "telemetry: {ping: {url: 'hunter2hunter2'}}",
        "telemetry: {ping: 'http://a/hunter2hunter2'}",
        "telemetry: {ping: {url: 'https://a/hunter2hunter2'}}",
        "log: {sasl: {mechanisms: [hunter2hunter2]}}",
    ] {
        let report = wardent(&format!("{MINIMAL}{more}\n")).unwrap_err();
        let report = format!("{report}{report:?}");
        assert!(!report.contains(SECRET), "{report}");
    }
    for server in [
        "http://user:hunter2hunter2@127.0.0.1:8000",
        "http://hunter2hunter2@127.0.0.1:8000/",
        "https://user:hunter2hunter2/@a",
        "user:hunter2hunter2@127.0.0.1:8000",
        "user:hunter2hunter2@127.0.0.1",
        "127.0.0.1:hunter2hunter2@8000",
    ] {
        for text in [
            format!("listen: 127.0.0.1:8080\nupstream: {{servers: ['{server}']}}\n"),
            format!("listen: '{server}'\nupstream: {{servers: 127.0.0.1:8000}}\n"),
            format!("{MINIMAL}log: {{advertised: '{server}'}}\n"),
            format!("upstream: {{server: '{server}'}}\nlisten: []\n"),
            format!("upstream: {{servers: '{server}\n"),
        ] {
            let report = wardent(&text).unwrap_err();
            let report = format!("{report}{report:?}");
            assert!(!report.contains(SECRET), "{report}");
        }
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

/// Refused with places in the text and no panic, or accepted, and then the same again.
fn is_read_or_refused<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    read: impl Fn(&str) -> Result<(T, Vec<Problem>), Report>,
) -> Outcome {
    let Ok(text) = yaml::decode("f", bytes.to_vec()) else {
        return Ok(0);
    };
    let lines = text.lines().count() + 1;
    let (accepted, problems) = match read(&text) {
        Ok((document, notes)) => {
            if read(&text).map(|(again, _)| again) != Ok(document) {
                return Err("read again, it says something else".to_owned());
            }
            (true, notes)
        }
        Err(report) if report.problems.is_empty() => return Err("refused for nothing".to_owned()),
        Err(report) => (false, report.problems),
    };
    for problem in &problems {
        let place = (problem.line, problem.column);
        if problem.line > lines || problem.column > text.chars().count() + 1 {
            return Err(format!("{place:?} is outside the text: {problem}"));
        }
        if problem
            .to_string()
            .chars()
            .any(|c| c.is_control() && c != '\n')
        {
            return Err(format!("a control character in {problem:?}"));
        }
    }
    let keys: Vec<_> = problems
        .iter()
        .map(|problem| (&problem.key, problem.severity))
        .collect();
    Ok(if accepted {
        hash(&format!("{keys:?}"))
    } else {
        0
    })
}

const WORDS: &[&[u8]] = &[
    b"\n",
    b"\n  ",
    b": ",
    b"- ",
    b"[",
    b"]",
    b"{",
    b"}",
    b", ",
    b"&a ",
    b"*a",
    b"!x ",
    b"\"",
    b"'",
    b"| ",
    b"> ",
    b"<<: ",
    b"? ",
    b"# ",
    b"---\n",
    b"...\n",
    b"~",
    b"null",
    b"\t",
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\x1b",
    b"\xe2\x80\xae",
    b"mode: observe\n",
    b"routes:\n",
    b"  - name: a\n",
    b"    match: {path: /a}\n",
    b"path: \"/a/**\"",
    b"/**",
    b"*",
    b"methods: [POST]",
    b"limit: {rate: 5/m, burst: 5}",
    b"20/s",
    b"0/s",
    b"-1",
    b"1e9",
    b"0x10",
    b"9999999999999999999",
    b"10MiB",
    b"30s",
    b"401",
    b"secret: skip",
    b"bots: skip",
    b"trap: true",
    b"yes",
    b"198.51.100.0/24",
    b"::/0",
    b"/33",
];

#[test]
fn campaign_policy() {
    let base = wardent(MINIMAL).unwrap();
    let samples: &[&[u8]] = &[
        include_bytes!("../../../config/policy.yaml"),
        b"mode: enforce\n",
        b"defaults:\n  body: 1MiB\nroutes:\n  - name: a\n    match: {path: [/a, \"/b/**\"], methods: [GET]}\n    body: 1KiB\n",
        b"allow: [198.51.100.7/32]\ndeny: [203.0.113.0/24]\nbans: {threshold: 3, window: 60s, duration: 10m}\n",
    ];
    campaign("policy.yaml", samples, WORDS, |bytes| {
        is_read_or_refused(bytes, |text| {
            policy::parse(text, "f", Path::new("/etc/w"), &base)
        })
    });
}

#[test]
fn campaign_configuration() {
    let samples: &[&[u8]] = &[
        include_bytes!("../../../config/wardent.yaml"),
        MINIMAL.as_bytes(),
        b"listen: [127.0.0.1:8080, \"unix:/run/w.sock\"]\nupstream:\n  servers: [127.0.0.1:8000]\n  idle_timeout: 60s\nclient_ip: {missing: peer, ipv6_prefix: 56}\n",
    ];
    campaign("wardent.yaml", samples, WORDS, |bytes| {
        is_read_or_refused(bytes, |text| wardent::parse(text, "f", Path::new("/etc/w")))
    });
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
