//! What no file can do: tell a secret, drive a terminal, make the loader panic.

use proptest::prelude::*;

use super::*;

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
