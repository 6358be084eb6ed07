//! `cluster` and `scope`, right and wrong.

use super::*;
use crate::config::{
    policy::Scope,
    values::SecretFrom,
    wardent::{Cluster, Delivery, Mechanism, Shared},
};

const WHOLE: &str = "
cluster:
  node: web-1
  kafka:
    bootstrap: [kafka-1:9092, 192.0.2.1:9092]
    tls: {ca: ca.pem, cert: node.pem, key: /run/node.key}
    sasl: {mechanism: SCRAM-SHA-512, username: web-1, password: {file: password}}
    replication: 3
  share: [bans]
  mirror: [wardent.http.access]
  delivery: exactly-once
  catch_up: 5MiB/s
";

fn cluster(text: &str) -> Cluster {
    let document = wardent(&format!("{MINIMAL}{text}")).unwrap();
    document.cluster.unwrap()
}

#[test]
fn there_is_no_cluster_until_one_is_given() {
    assert_eq!(wardent(MINIMAL).unwrap().cluster, None);
    let null = format!("{MINIMAL}cluster: null\n");
    assert_eq!(wardent(&null).unwrap().cluster, None);
}

#[test]
fn a_cluster_that_says_little_has_the_defaults() {
    let cluster = cluster("cluster: {node: web-1, kafka: {bootstrap: kafka-1:9092}}");
    assert_eq!(cluster.node.as_str(), "web-1");
    assert_eq!(cluster.kafka.bootstrap.len(), 1);
    assert_eq!(cluster.kafka.tls, None);
    assert_eq!(cluster.kafka.sasl, None);
    assert_eq!(cluster.kafka.replication, None);
    assert_eq!(cluster.share, [Shared::Bans, Shared::Limits]);
    let topics: Vec<_> = cluster.mirror.iter().map(|topic| topic.as_str()).collect();
    assert_eq!(topics, ["wardent.http.access", "wardent.audit.event"]);
    assert_eq!(cluster.delivery, Delivery::AtLeastOnce);
    assert_eq!(cluster.catch_up.per_second, 20 << 20);
}

#[test]
fn a_cluster_is_read_whole() {
    let cluster = cluster(WHOLE);
    let tls = cluster.kafka.tls.as_ref().unwrap();
    assert_eq!(tls.ca.as_deref(), Some(Path::new("/etc/w/ca.pem")));
    assert_eq!(tls.cert.as_deref(), Some(Path::new("/etc/w/node.pem")));
    assert_eq!(tls.key.as_deref(), Some(Path::new("/run/node.key")));
    let sasl = cluster.kafka.sasl.as_ref().unwrap();
    assert_eq!(sasl.mechanism, Mechanism::ScramSha512);
    assert_eq!(sasl.username.as_str(), "web-1");
    assert_eq!(
        sasl.password,
        SecretFrom::File(PathBuf::from("/etc/w/password"))
    );
    assert_eq!(cluster.kafka.replication.map(|count| count.get()), Some(3));
    assert!(cluster.shares(Shared::Bans) && !cluster.shares(Shared::Limits));
    assert_eq!(cluster.delivery, Delivery::ExactlyOnce);
    assert_eq!(cluster.catch_up.per_second, 5 << 20);
}

#[test]
fn what_is_wrong_with_a_cluster_says_what_would_be_right() {
    let changed = |from: &str, to: &str| {
        assert!(WHOLE.contains(from), "{from}");
        let whole = wrong(&WHOLE.replace(from, to));
        whole.split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(
        changed("node: web-1", "node: web 1"),
        "node: `web 1` is not a node's name (use 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`)"
    );
    assert_eq!(
        changed("cert: node.pem, ", ""),
        "tls: `cert` and `key` go together"
    );
    assert_eq!(
        changed("[bans]", "[bans, ban]"),
        "share[1]: `ban` is not known (use `bans` or `limits`)"
    );
    assert_eq!(
        changed("[bans]", "[bans, bans]"),
        "share: `bans` is given twice"
    );
    assert_eq!(
        changed("[wardent.http.access]", "[wardent.client.ban]"),
        "mirror: `wardent.client.ban` reaches the cluster by `share: [bans]`"
    );
    assert_eq!(
        changed("[wardent.http.access]", "[__consumer_offsets]"),
        "mirror: `__consumer_offsets` is the cluster's own"
    );
    assert_eq!(
        changed("[wardent.http.access]", "[a, a]"),
        "mirror: `a` is given twice"
    );
    assert_eq!(
        changed("5MiB/s", "5MiB"),
        "catch_up: `5MiB` is not a rate such as 20MiB/s"
    );
    assert_eq!(changed("5MiB/s", "0B/s"), "catch_up: must be more than 0");
    assert_eq!(
        changed("exactly-once", "once"),
        "delivery: `once` is not known (use `at-least-once` or `exactly-once`)"
    );
    assert_eq!(
        changed("cluster:", "log: {listen: null}\ncluster:"),
        "cluster: needs `log.listen`, where the mirror reads the log"
    );
}

#[test]
fn a_password_is_not_sent_to_the_cluster_in_the_open() {
    let open = WHOLE
        .replace("SCRAM-SHA-512", "PLAIN")
        .replace("tls: {ca: ca.pem, cert: node.pem, key: /run/node.key}", "");
    assert!(wrong(&open).contains("PLAIN sends passwords as they are"));
}

#[test]
fn a_limit_counts_the_requests_of_one_node_unless_it_says_otherwise() {
    let limit = |text: &str| policy(text).defaults.limit[0].scope;
    assert_eq!(limit("defaults: {limit: {rate: 5/s}}"), Scope::Node);
    assert_eq!(
        limit("defaults: {limit: {rate: 5/s, scope: cluster}}"),
        Scope::Cluster
    );
    assert_eq!(
        wrong_policy("defaults: {limit: {rate: 5/s, scope: all}}"),
        "1:38: scope: `all` is not known (use `node` or `cluster`)"
    );
}

#[test]
fn a_limit_of_a_cluster_that_there_is_not_is_told() {
    let text = "
defaults: {limit: [{rate: 5/s}, {rate: 100/m, scope: cluster}]}
routes:
  - {name: a, match: {path: /a}, limit: {rate: 1/s, scope: cluster}}
";
    let told = notes(text);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("`cluster` needs `cluster.share: [limits]`"));
    let beside = |wardent: &str| policy_beside(text, wardent).unwrap().1.len();
    let with = format!("{MINIMAL}cluster: {{node: a, kafka: {{bootstrap: a:1}}}}\n");
    assert_eq!(beside(&with), 0);
    assert_eq!(beside(&format!("{MINIMAL}{WHOLE}")), 2);
}
