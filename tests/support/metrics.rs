//! `/metrics` of a Wardent that has everything there can be numbers of.

use super::{client::RawClient, rig::Rig};
use wardent::{base::net::Address, event::exchange};

/// What a mirror tells of one topic in trouble.
const REPORT: &str = r#"{"report": {"state": "degraded", "since_unix_ms": 1795255201042, "topics": [
    {"topic": "wardent.http.access", "lag": 1, "behind_ms": 1, "loses_in_ms": 1, "sent": 1, "sent_bytes": 1,
     "lost": 0, "dead": 0}]}}"#;

/// The text of the page: of a node in a cluster, whose mirror has reported.
pub(crate) fn of_a_node() -> String {
    // Nobody is at that address, and no node asks for it.
    let cluster = "cluster: {node: web-1, kafka: {bootstrap: 127.0.0.1:9}}";
    let rig = Rig::with(|setup| setup.top(cluster));
    let (status, said) = rig.wardent.act("POST", exchange::PATH, REPORT);
    assert_eq!(status, 200, "{said}");
    let mut client = RawClient::connect(&Address::Tcp(rig.wardent.admin()));
    let page = client.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    String::from_utf8(page.body).unwrap()
}
