//! Where a route is only observed, nothing leads to a ban that holds.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use support::{client::RawClient, post, rig, rig::Rig, time};
use wardent::base::net::Address;

const OBSERVED: &str = "mode: observe
defaults: {body: 1KiB}
bans: {threshold: 1}
";

fn metric(rig: &Rig, name: &str) -> u64 {
    let mut admin = RawClient::connect(&Address::Tcp(rig.wardent.admin()));
    let page = admin.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let page = String::from_utf8(page.body).unwrap();
    let mut values = page.lines().filter_map(|line| line.strip_prefix(name));
    values.next().unwrap().trim().parse().unwrap()
}

#[test]
fn a_body_that_is_refused_there_bans_nobody() {
    let rig = Rig::with(|setup| setup.policy(OBSERVED));
    let too_large = post("/a", &[b'x'; 2048]);
    let refused = rig.wardent.ask(&too_large);
    rig::assert_refusal("declared", &refused, &[413], "body_too_large");
    time::eventually("the violation is heard", || {
        metric(&rig, "wardent_ban_changes_total{change=\"observed\"}") == 1
    });
    assert_eq!(metric(&rig, "wardent_bans"), 0);
    rig.wardent
        .write_policy(&OBSERVED.replace("observe", "enforce"));
    rig.wardent.reload().unwrap();
    assert_eq!(rig.wardent.get("/a").status, 200);
    // The same bans where it is enforced.
    let refused = rig.wardent.ask(&too_large);
    rig::assert_refusal("declared", &refused, &[413], "body_too_large");
    time::eventually("a ban begins", || metric(&rig, "wardent_bans") == 1);
    rig::assert_refusal("banned", &rig.wardent.get("/a"), &[403], "banned");
}
