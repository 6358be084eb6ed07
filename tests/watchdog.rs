//! The watchdog goes the way of requests, and is none.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use support::{rig::Rig, time::eventually};

#[test]
fn canaries_are_no_traffic_and_nobody_is_blamed_for_them() {
    // A canary has no user agent: where its word is proof enough, one would be a ban.
    let policy = "mode: enforce
defaults: {bots: {unknown: block}}
bans: {threshold: 1}
";
    let rig = Rig::with(|setup| setup.secret(&[]).policy(policy));
    eventually("two canaries have come back", || {
        let metric = |name: &str| rig.wardent.metric(name);
        metric("wardent_canaries_total") - metric("wardent_canaries_lost_total") >= 2.0
    });
    for none in [
        "wardent_http_requests_total",
        "wardent_http_refusals_total",
        "wardent_http_responses_total",
        "wardent_bots_total",
        "wardent_violations_total",
        "wardent_bans ",
    ] {
        assert!(rig.wardent.metric(none).abs() < 0.5, "{none}");
    }
    assert_eq!(rig.origin.requests().len(), 0);
}
