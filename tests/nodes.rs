//! Several Wardents behind one load balancer: who is banned on one is banned on all, and limits with
//! `scope: cluster` count what was asked of all of them.
//!
//! In the mirror's place is a courier that reads each node's log and speaks with each node's admin socket as the
//! mirror does. What it carries is late, doubled and mixed up, and a part of it gets lost on the way and is sent
//! again.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{
    origin::Origin,
    p_from,
    random::Random,
    records::{self, Found},
    schema::Schema,
    time,
    wardent::{Wardent, work_dir},
};

const WHO: &str = "198.51.100.20";
const OTHER: &str = "198.51.100.21";

const POLICY: &str = "mode: enforce
allow: [198.51.100.99/32]
defaults: {limit: {rate: 1000000/s, burst: 1000000}}
routes:
  - {name: trap, match: {path: /trap}, trap: true}
  - {name: login, match: {path: /login}, limit: {rate: 5/m, burst: 5, scope: cluster}}
  - {name: alone, match: {path: /alone}, limit: {rate: 5/m, burst: 5}}
bans: {threshold: 10, window: 60s, duration: 10m, points: {rate_limited: 0}}
";

struct Node {
    name: String,
    wardent: Option<Wardent>,
    /// How much of its log the courier has read.
    read: usize,
    /// How much of the cluster's topics the node has been told.
    told_bans: usize,
    told_usage: usize,
    next_read: u64,
    wants_bans: bool,
    usage_taken: Value,
}

/// A cluster: nodes, and two topics.
struct Cluster {
    nodes: Vec<Node>,
    bans: Vec<(String, Value)>,
    usage: Vec<Value>,
    random: Random,
    /// Whether the courier is a bad one.
    is_bad: bool,
    _origin: Origin,
}

fn setup(origin: &Origin, name: &str) -> support::wardent::Setup {
    // Nobody is at that address, and no node asks for it.
    let cluster = format!("cluster: {{node: {name}, kafka: {{bootstrap: 127.0.0.1:9}}}}");
    Wardent::setup(origin).policy(POLICY).top(&cluster)
}

impl Cluster {
    fn of(count: usize) -> Self {
        let origin = Origin::echo();
        let node = |nth| {
            let name = format!("web-{nth}");
            Node {
                wardent: Some(setup(&origin, &name).start()),
                name,
                read: 0,
                told_bans: 0,
                told_usage: 0,
                next_read: 0,
                wants_bans: false,
                usage_taken: Value::Null,
            }
        };
        Self {
            nodes: (1..=count).map(node).collect(),
            bans: Vec::new(),
            usage: Vec::new(),
            random: Random::seeded(7),
            is_bad: false,
            _origin: origin,
        }
    }

    fn wardent(&self, nth: usize) -> &Wardent {
        self.nodes[nth].wardent.as_ref().unwrap()
    }

    fn status(&self, nth: usize, client: &str, target: &str) -> u16 {
        let request = format!("GET {target} HTTP/1.1\r\n{}\r\n", p_from(client));
        self.wardent(nth).ask(request).status
    }

    /// Whether every node refuses the client as banned.
    fn is_banned_everywhere(&self, client: &str) -> bool {
        (0..self.nodes.len()).all(|nth| self.status(nth, client, "/") == 403)
    }

    fn is_free_everywhere(&self, client: &str) -> bool {
        (0..self.nodes.len()).all(|nth| self.status(nth, client, "/") == 200)
    }

    /// What a node has decided, from its log to the cluster's topic.
    fn collect(&mut self, nth: usize) {
        let node = &mut self.nodes[nth];
        let Some(wardent) = &node.wardent else {
            return;
        };
        let found = records::of_topic(&wardent.dir().join("log"), "wardent.client.ban");
        for record in &found[node.read.min(found.len())..] {
            if record.text != "null" && record.json()["node"] == node.name.as_str() {
                let key = format!("{}|{}", record.key, node.name);
                self.bans.push((key, Value::from(record.text.as_str())));
            }
        }
        node.read = found.len();
    }

    /// One exchange with a node that is there.
    fn exchange(&mut self, nth: usize) {
        let node = &self.nodes[nth];
        if node.wardent.is_none() {
            return;
        }
        let record = |(key, value): &(String, Value)| json!({"key": key, "value": value});
        let (mut bans, read): (Vec<Value>, _) = if node.wants_bans {
            let last = self.compacted();
            let part = json!({"read": node.next_read, "part": 0, "last": true});
            (last.iter().map(record).collect(), part)
        } else {
            let news = &self.bans[node.told_bans..];
            (news.iter().map(record).collect(), Value::Null)
        };
        let mut usage = self.usage[node.told_usage..].to_vec();
        if self.is_bad {
            bans.extend(bans.clone());
            usage.extend(usage.clone());
            bans.reverse();
            usage.reverse();
        }
        let told = json!({
            "bans": bans,
            "bans_read": read,
            "usage": usage,
            "usage_taken": node.usage_taken,
        });
        let (status, answer) =
            self.wardent(nth)
                .act("POST", "/api/v1/cluster/exchange", &told.to_string());
        assert_eq!(status, 200, "{answer}");
        // An answer that is lost: all of it is told again.
        if self.is_bad && self.random.one_in(3) {
            return;
        }
        let node = &mut self.nodes[nth];
        (node.told_bans, node.told_usage) = (self.bans.len(), self.usage.len());
        node.next_read = answer["next_read"].as_u64().unwrap();
        node.wants_bans = answer["wants_bans"].as_bool().unwrap();
        if answer["usage"].is_object() {
            node.usage_taken = answer["usage"]["number"].clone();
            self.usage.push(answer["usage"].clone());
        }
    }

    /// What compaction leaves: the last record of each key.
    fn compacted(&self) -> Vec<(String, Value)> {
        let last: BTreeMap<_, _> = self.bans.iter().cloned().collect();
        last.into_iter().collect()
    }

    fn round(&mut self) {
        for nth in 0..self.nodes.len() {
            self.collect(nth);
        }
        for nth in 0..self.nodes.len() {
            self.exchange(nth);
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        time::eventually(what, || {
            self.round();
            holds(self)
        });
    }

    fn ban(&self, nth: usize, target: &str) {
        self.wardent(nth).ban(target);
    }

    fn unban(&self, nth: usize, target: &str) {
        let target = format!("/api/v1/bans?target={target}");
        let (status, said) = self.wardent(nth).act("DELETE", &target, "");
        assert_eq!(status, 200, "{said}");
    }

    fn restart(&mut self, nth: usize) {
        let wardent = self.nodes[nth].wardent.take().unwrap();
        self.nodes[nth].wardent = Some(wardent.again());
    }
}

#[test]
fn who_is_banned_on_one_node_is_banned_on_all_and_an_unban_lifts_everywhere() {
    for is_bad in [false, true] {
        let mut cluster = Cluster::of(3);
        cluster.is_bad = is_bad;
        assert_eq!(cluster.status(0, WHO, "/trap"), 403);
        cluster.ban(1, "203.0.113.0/24");
        cluster.until("banned everywhere", |all| {
            all.is_banned_everywhere(WHO) && all.is_banned_everywhere("203.0.113.9")
        });
        let target = format!("/api/v1/bans?target={WHO}");
        let (_, shown) = cluster.wardent(2).act("GET", &target, "");
        assert_eq!(shown["node"], "web-1");
        assert_eq!(
            (&shown["by"], &shown["why"]),
            (&json!("policy"), &json!("trap"))
        );
        cluster.unban(2, WHO);
        cluster.until("free everywhere", |all| all.is_free_everywhere(WHO));
        assert!(cluster.is_banned_everywhere("203.0.113.9"));
        // Who hears everything once more learns nothing new.
        for node in &mut cluster.nodes {
            node.told_bans = 0;
        }
        cluster.round();
        assert!(cluster.is_free_everywhere(WHO));
    }
}

#[test]
fn what_others_decided_is_in_the_log_with_their_name_and_in_the_audit() {
    let mut cluster = Cluster::of(2);
    assert_eq!(cluster.status(0, WHO, "/trap"), 403);
    cluster.until("banned everywhere", |all| all.is_banned_everywhere(WHO));
    let log = cluster.wardent(1).dir().join("log");
    let schema = Schema::named("wardent.client.ban.v1");
    let found = || records::of_topic(&log, "wardent.client.ban");
    time::eventually("on the other node's disk", || !found().is_empty());
    let kept = found().pop().unwrap().json();
    assert_eq!(schema.faults(&kept), Vec::<String>::new());
    assert_eq!(
        (&kept["node"], &kept["by"]),
        (&json!("web-1"), &json!("policy"))
    );
    assert!(kept["hlc"].as_str().unwrap().ends_with("-0"));
    let actors = || -> Vec<Value> {
        let audit = records::of_topic(&log, "wardent.audit.event");
        let audit = audit.iter().map(Found::json);
        let bans = audit.filter(|event| event["what"] == "ban");
        bans.map(|event| event["actor"].clone()).collect()
    };
    time::eventually("in the audit", || actors() == ["cluster:web-1"]);
    // It goes nowhere from there.
    cluster.round();
    let keys: Vec<_> = cluster.bans.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, [format!("{WHO}|web-1")]);
}

#[test]
fn a_node_that_was_away_has_what_it_had_and_hears_the_rest() {
    let mut cluster = Cluster::of(2);
    cluster.ban(0, WHO);
    cluster.until("banned everywhere", |all| all.is_banned_everywhere(WHO));
    let log = cluster.wardent(1).dir().join("log");
    time::eventually("on its own disk", || {
        !records::of_topic(&log, "wardent.client.ban").is_empty()
    });
    cluster.restart(1);
    // Before it has heard of anybody.
    assert_eq!(cluster.status(1, WHO, "/"), 403);
    cluster.ban(0, OTHER);
    cluster.until("the other is, too", |all| all.is_banned_everywhere(OTHER));
    // What the cluster has lost is lifted where it came from elsewhere.
    cluster.bans.clear();
    cluster.nodes[0].read = usize::MAX;
    cluster.restart(1);
    for node in &mut cluster.nodes {
        node.told_bans = 0;
    }
    cluster.until("lifted", |all| all.status(1, WHO, "/") == 200);
    assert_eq!(cluster.status(0, WHO, "/"), 403, "its own it keeps");
    assert_eq!(
        cluster
            .wardent(1)
            .metric("wardent_cluster_bans_total{outcome=\"withdrawn\"}"),
        2.0
    );
}

#[test]
fn nobody_whom_a_node_allows_is_banned_there_by_others() {
    let mut cluster = Cluster::of(2);
    let text = POLICY.replace("198.51.100.99/32", "198.51.100.98/32");
    cluster.wardent(0).write_policy(&text);
    cluster.wardent(0).reload().unwrap();
    cluster.ban(0, "198.51.100.99");
    cluster.ban(0, WHO);
    cluster.until("the other is banned", |all| all.is_banned_everywhere(WHO));
    assert_eq!(cluster.status(0, "198.51.100.99", "/"), 403);
    assert_eq!(cluster.status(1, "198.51.100.99", "/"), 200);
    let (_, status) = cluster.wardent(1).act("GET", "/api/v1/cluster", "");
    assert_eq!(status["bans"]["refused"]["protected"], 1);
}

#[test]
fn a_limit_of_the_cluster_counts_what_was_asked_of_all_nodes() {
    for is_bad in [false, true] {
        let mut cluster = Cluster::of(3);
        cluster.is_bad = is_bad;
        for _ in 0..5 {
            assert_eq!(cluster.status(0, WHO, "/login"), 200);
            assert_eq!(cluster.status(0, WHO, "/alone"), 200);
        }
        let heard = |all: &Cluster, nth: usize| {
            all.wardent(nth)
                .metric("wardent_cluster_spent_total{outcome=\"heard\"}")
        };
        cluster.until("the others know", |all| {
            heard(all, 1) >= 5.0 && heard(all, 2) >= 5.0
        });
        for nth in [1, 2] {
            assert_eq!(heard(&cluster, nth), 5.0, "nothing counts twice");
            assert_eq!(cluster.status(nth, WHO, "/login"), 429);
            // Another limit, and another client.
            assert_eq!(cluster.status(nth, WHO, "/alone"), 200);
            assert_eq!(cluster.status(nth, OTHER, "/login"), 200);
        }
        // The other's two requests are told as well.
        cluster.until("the first knows", |all| heard(all, 0) >= 2.0);
        assert_eq!(cluster.status(0, WHO, "/login"), 429);
    }
}

#[test]
fn what_was_spent_everywhere_at_once_is_a_debt_and_the_answer_says_how_long() {
    let mut cluster = Cluster::of(3);
    for nth in 0..3 {
        for _ in 0..5 {
            assert_eq!(cluster.status(nth, WHO, "/login"), 200);
        }
    }
    cluster.until("the first knows", |all| {
        all.wardent(0)
            .metric("wardent_cluster_spent_total{outcome=\"heard\"}")
            >= 10.0
    });
    let request = format!("GET /login HTTP/1.1\r\n{}\r\n", p_from(WHO));
    let answer = cluster.wardent(0).ask(request);
    assert_eq!(answer.status, 429);
    // Fifteen of five a minute: eleven intervals of twelve seconds until the next.
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((100..=132).contains(&wait), "{wait}");
}

#[test]
fn the_exchange_is_the_mirrors_alone() {
    let cluster = Cluster::of(1);
    let wardent = cluster.wardent(0);
    let path = "/api/v1/cluster/exchange";
    let (status, said) = wardent.ask_listener("POST", path, "{}");
    assert_eq!(
        (status, &said["error"]),
        (
            403,
            &json!("the mirror comes through the admin socket alone")
        )
    );
    assert_eq!(wardent.act("GET", path, "").0, 405);
    assert_eq!(wardent.act("POST", path, "{").0, 400);
    assert_eq!(wardent.act("POST", path, r#"{"more": 1}"#).0, 422);
    let many = vec![json!({"key": "a|b", "value": null}); 1_001];
    let (status, _) = wardent.act("POST", path, &json!({"bans": many}).to_string());
    assert_eq!(status, 413);
    let (status, answer) = wardent.act(
        "POST",
        path,
        r#"{"bans": [{"key": "198.51.100.7|web-9", "value": "{}"}]}"#,
    );
    assert_eq!(status, 200);
    assert_eq!(answer["refused"][0]["key"], "198.51.100.7|web-9");
    // One that is in no cluster says so.
    let origin = Origin::echo();
    let alone = Wardent::before(&origin);
    assert_eq!(alone.act("POST", path, "{}").0, 404);
    assert_eq!(alone.act("GET", "/api/v1/cluster", "").0, 404);
}

#[test]
fn how_it_stands_is_told_and_keeps_no_node_from_serving() {
    let cluster = Cluster::of(1);
    let wardent = cluster.wardent(0);
    let state = || wardent.act("GET", "/readyz", "").1["cluster"]["state"].clone();
    let ran =
        |arguments: &[&str]| wardent.command(&[&["cluster", "status"], arguments].concat(), "");
    assert_eq!(wardent.act("GET", "/readyz", "").0, 200);
    assert_eq!(state(), "silent");
    assert_eq!(
        wardent.metric("wardent_cluster_state{state=\"silent\"}"),
        1.0
    );
    let silent = ran(&[]);
    assert_eq!(silent.status, 1, "{silent:?}");
    assert!(silent.out.contains("is it running?"), "{silent:?}");
    let report = json!({"report": {
        "state": "connected",
        "since_unix_ms": 1_795_255_201_042_u64,
        "brokers": [
            {"id": 1, "address": "kafka-1:9092", "is_up": true},
            {"id": 2, "address": "kafka-2:9092", "is_up": false},
        ],
        "topics": [{
            "topic": "wardent.http.access", "lag": 7, "behind_ms": 1_500, "loses_in_ms": 60_000,
            "sent": 100, "sent_bytes": 50_000, "lost": 0, "dead": 0, "partitions": [],
        }],
    }});
    let (status, _) = wardent.act("POST", "/api/v1/cluster/exchange", &report.to_string());
    assert_eq!(status, 200);
    assert_eq!(state(), "connected");
    for (metric, value) in [
        ("wardent_cluster_state{state=\"connected\"}", 1.0),
        (
            "wardent_cluster_lag_records{topic=\"wardent.http.access\"}",
            7.0,
        ),
        ("wardent_cluster_lag_seconds{", 1.5),
        ("wardent_cluster_loses_in_seconds{", 60.0),
        ("wardent_cluster_sent_total{", 100.0),
        ("wardent_cluster_brokers{of=\"connected\"}", 1.0),
        ("wardent_cluster_exchanges_total", 1.0),
    ] {
        assert_eq!(wardent.metric(metric), value, "{metric}");
    }
    let connected = ran(&[]);
    assert_eq!(connected.status, 0, "{connected:?}");
    for words in [
        "web-1",
        "1 of 2 connected; not kafka-2:9092",
        "loses records in 1m",
    ] {
        assert!(connected.out.contains(words), "{words}: {connected:?}");
    }
    assert_eq!(
        ran(&["--output", "json"]).json()["mirror"]["topics"][0]["lag"],
        7
    );
}

#[test]
fn bans_from_before_the_cluster_are_this_nodes() {
    let origin = Origin::echo();
    let dir = work_dir();
    let log = dir.path().join("log");
    let alone = Wardent::setup(&origin).policy(POLICY).log_dir(&log).start();
    alone.ban(WHO);
    drop(alone.end());
    let node = setup(&origin, "web-1").log_dir(&log).start();
    let (_, shown) = node.act("GET", &format!("/api/v1/bans?target={WHO}"), "");
    assert_eq!(shown["node"], "web-1");
}
