//! The monitor hears that all is well, as often as asked for, and what becomes of that is counted.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use support::{
    origin::{Origin, answer},
    rig::Rig,
    time::eventually,
};

fn rig(monitor: &Origin) -> Rig {
    let server = monitor.server();
    let ping = format!("telemetry: {{ping: {{url: 'http://{server}/ping/token', interval: 1s}}}}");
    Rig::with(|setup| setup.top(&ping))
}

#[test]
fn the_monitor_is_told_again_and_again() {
    let monitor = Origin::answering(|_| answer("200 OK", "", b"ok"));
    let rig = rig(&monitor);
    for ping in monitor.wait_for(2) {
        assert_eq!(ping.head.method, "GET");
        assert_eq!(ping.head.target, "/ping/token");
        assert_eq!(ping.header("host"), Some(monitor.server().as_str()));
    }
    let started = rig.wardent.metric("process_start_time_seconds");
    let now = f64::from(u32::try_from(support::time::unix_seconds()).unwrap());
    assert!((now - 600.0..=now + 1.0).contains(&started), "{started}");
    eventually("both are counted", || {
        rig.wardent
            .metric("wardent_pings_total{result=\"answered\"}")
            >= 2.0
    });
    assert!(
        rig.wardent
            .metric("wardent_pings_total{result=\"failed\"}")
            .abs()
            < 0.5
    );
}

#[test]
fn a_monitor_that_refuses_is_counted() {
    let monitor = Origin::answering(|_| answer("404 Not Found", "", b""));
    let rig = rig(&monitor);
    eventually("a failed ping is counted", || {
        rig.wardent.metric("wardent_pings_total{result=\"failed\"}") >= 1.0
    });
}
