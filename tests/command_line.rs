//! The commands tell a person, or a program, what the running Wardent knows.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use support::{get, rig::Rig, time::eventually};

const OBSERVING: &str = "\
mode: observe
defaults: {bots: {http-library: allow}, limit: {rate: 1/m, burst: 1}}
bans: {threshold: 2, window: 60s, duration: 10m}
";

#[test]
fn status_says_that_nothing_is_enforced_yet_and_what_would_have_been() {
    let rig = Rig::with(|setup| setup.policy(OBSERVING));
    let wardent = &rig.wardent;
    for _ in 0..6 {
        assert_eq!(wardent.ask(get("/")).status, 200);
    }
    eventually("a ban that would be", || {
        wardent.metric("wardent_ban_changes_total{change=\"observed\"}") > 0.0
    });
    let ran = wardent.command(&["status"], "");
    assert_eq!(ran.status, 0, "{ran:?}");
    for words in [
        " serving, up ",
        "nothing is enforced yet (mode: observe)",
        "since start  6 passed, 0 refused",
        "would be     5 rate_limited by what is only observed",
        "bans         0 in force, 0 began, 1 would have begun",
        " healthy, 0 in flight",
        "log          ok, ",
    ] {
        assert!(ran.out.contains(words), "{words}\n{}", ran.out);
    }
    assert!(!ran.out.contains('\u{1b}'), "no colours for a pipe");
    assert!(ran.out.lines().count() <= 24, "{}", ran.out);
    let json = wardent.command(&["status", "--output", "json"], "").json();
    assert_eq!(json["enforcement"]["any"], false);
    assert_eq!(json["state"], "serving");
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert!(json["warnings"].as_array().unwrap().is_empty(), "{json}");
}

#[test]
fn status_tells_of_an_edit_that_was_refused() {
    let rig = Rig::new();
    let wardent = &rig.wardent;
    wardent.write_policy("routes: nonsense\n");
    assert!(wardent.reload().is_err());
    let ran = wardent.command(&["status"], "");
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(
        ran.out.contains("a later edit was refused: "),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("policy.yaml:1:9: "), "{}", ran.out);
    assert!(
        ran.out
            .contains("warning: an edit was refused, an older policy is in force"),
        "{}",
        ran.out
    );
}

#[test]
fn status_of_nobody_fails_and_says_so() {
    let rig = Rig::new();
    let dir = rig.wardent.end();
    let config = dir.path().join("wardent.yaml");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_wardent"))
        .arg("status")
        .arg("--config")
        .arg(config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("is wardent running"), "{err}");
}
