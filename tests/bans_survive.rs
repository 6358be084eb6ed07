//! What was decided about bans outlives the process, and everything that was done can be accounted for.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{fs, path::Path};

use serde_json::{Value, json};
use support::{
    origin::Origin,
    p_from,
    records::{self, Found},
    rig,
    schema::Schema,
    time,
    wardent::{Setup, Wardent, work_dir},
};
use wardent::{base::clock::Clock, event::time::Stamps};

const WHO: &str = "198.51.100.20";
const OTHER: &str = "198.51.100.21";

/// Ten points are a ban of ten minutes, and a trap is worth them.
const POLICY: &str = "mode: enforce
defaults: {limit: {rate: 1000000/s, burst: 1000000}}
routes: [{name: trap, match: {path: /trap}, trap: true}]
bans: {threshold: 10, window: 60s, duration: 10m}
";

struct House {
    wardent: Wardent,
    _origin: Origin,
}

fn house() -> House {
    house_with(|setup| setup)
}

fn house_with(change: impl FnOnce(Setup) -> Setup) -> House {
    let origin = Origin::echo();
    let setup = change(Wardent::setup(&origin).policy(POLICY));
    House {
        wardent: setup.start(),
        _origin: origin,
    }
}

impl House {
    fn again(self) -> Self {
        Self {
            wardent: self.wardent.again(),
            ..self
        }
    }

    fn status(&self, client: &str, target: &str) -> u16 {
        let request = format!("GET {target} HTTP/1.1\r\n{}\r\n", p_from(client));
        self.wardent.ask(request).status
    }

    /// Has somebody banned by the policy, and waits until that can be read from the log.
    fn ban_by_policy(&self, client: &str) {
        let before = self.kept();
        assert_eq!(self.status(client, "/trap"), 403);
        time::eventually("the ban is on disk", || self.kept() > before);
    }

    /// Batches of bans and audit that are on disk.
    fn kept(&self) -> u64 {
        let states = records::of_topic(&self.wardent.dir().join("log"), BANS);
        states.len() as u64
    }

    fn level(&self, client: &str) -> Option<u64> {
        let target = format!("/api/v1/bans?target={client}");
        let (status, shown) = self.wardent.act("GET", &target, "");
        (status == 200).then(|| shown["level"].as_u64().unwrap())
    }

    fn unban(&self, target: &str, grace: &str) {
        let target = format!("/api/v1/bans?target={target}&grace={grace}");
        let (status, said) = self.wardent.act("DELETE", &target, "");
        assert_eq!(status, 200, "{said}");
    }
}

const BANS: &str = "wardent.client.ban";
const AUDIT: &str = "wardent.audit.event";

/// The records of a topic in the log of a Wardent at `dir`, each as its schema describes it.
#[track_caller]
fn records_of(dir: &Path, topic: &str) -> Vec<Found> {
    let schema = Schema::named(&format!("{topic}.v1"));
    let found = records::of_topic(&dir.join("log"), topic);
    for record in found.iter().filter(|record| record.text != "null") {
        let faults = schema.faults(&record.json());
        assert!(faults.is_empty(), "{}: {faults:#?}", record.text);
    }
    found
}

fn field(records: &[Found], name: &str) -> Vec<Value> {
    let values = records.iter().map(|record| record.json()[name].clone());
    values.collect()
}

/// As an export spells the end of a ban.
fn in_an_hour() -> String {
    Stamps::default().rfc3339(Clock::system().unix_ms() + 3_600_000)
}

/// What the audit has of some kinds, in its order.
fn audits(dir: &Path, kinds: &[&str]) -> Vec<Value> {
    let all = records_of(dir, AUDIT);
    let all = all.iter().map(Found::json);
    all.filter(|audit| kinds.contains(&audit["what"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_ban_binds_the_first_request_after_a_start() {
    let house = house();
    house.ban_by_policy(WHO);
    house.wardent.ban("203.0.113.0/24");
    let mut house = house.again();
    for _ in 0..2 {
        assert_eq!(house.status(WHO, "/"), 403);
        assert_eq!(house.status("203.0.113.9", "/"), 403);
        assert_eq!(house.status(OTHER, "/"), 200);
        house = house.again();
    }
    let bans = house.wardent.bans();
    assert_eq!(bans.len(), 2);
    let of_policy = bans.iter().find(|ban| ban["by"] == "policy").unwrap();
    assert_eq!(of_policy["why"], "trap");
    assert!(of_policy["left_ms"].as_u64().unwrap() <= 600_000);
}

#[test]
fn what_was_answered_is_in_the_files_whatever_becomes_of_the_process() {
    let house = house();
    house.wardent.ban(WHO);
    house.wardent.ban(OTHER);
    house.unban(OTHER, "0s");
    // The files as a kill at this very moment would leave them.
    let left = work_dir();
    copy(&house.wardent.dir().join("log"), &left.path().join("log"));
    fs::remove_file(left.path().join("log/.lock")).unwrap();
    let log = left.path().join("log");
    let after = house_with(|setup| setup.log_dir(&log));
    assert_eq!(after.status(WHO, "/"), 403);
    assert_eq!(after.status(OTHER, "/"), 200);
    assert_eq!(after.level(WHO), Some(1));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

#[test]
fn a_level_is_remembered_over_a_start_and_the_next_ban_is_longer() {
    let house = house_with(|setup| setup.policy(POLICY.replace("10m", "1s")));
    house.ban_by_policy(WHO);
    time::eventually("the ban is over", || house.level(WHO).is_none());
    let house = house.again();
    assert_eq!(house.status(WHO, "/"), 200);
    house.ban_by_policy(WHO);
    assert_eq!(house.level(WHO), Some(2));
}

#[test]
fn what_is_forgotten_leaves_a_tombstone() {
    let forgetful = POLICY.replace("10m}", "1s, escalate: {forget: 1s}}");
    let house = house_with(|setup| setup.policy(forgetful));
    house.ban_by_policy(WHO);
    time::eventually("a tombstone", || {
        let states = records::of_topic(&house.wardent.dir().join("log"), BANS);
        states.last().is_some_and(|last| last.text == "null")
    });
    let home = house.wardent.end();
    let states = records_of(home.path(), BANS);
    assert!(states.iter().all(|record| record.key == WHO));
    let states = field(&states, "state");
    assert_eq!(states, [json!("banned"), json!("expired"), Value::Null]);
}

#[test]
fn an_unban_and_its_grace_outlive_a_start() {
    let house = house();
    house.ban_by_policy(WHO);
    house.ban_by_policy(OTHER);
    house.unban(WHO, "10m");
    house.unban(OTHER, "0s");
    let house = house.again();
    for client in [WHO, OTHER] {
        assert_eq!(house.status(client, "/"), 200);
        assert_eq!(house.status(client, "/trap"), 403);
    }
    rig_gets_banned(&house, OTHER);
    assert_eq!(house.level(OTHER), Some(1), "what led to it was forgotten");
    assert_eq!(house.status(WHO, "/"), 200, "grace");
}

fn rig_gets_banned(house: &House, client: &str) {
    time::eventually("the ban binds", || house.status(client, "/") == 403);
}

#[test]
fn what_is_observed_comes_back_as_nothing() {
    let house = house_with(|setup| setup.policy(POLICY.replace("enforce", "observe")));
    assert_eq!(house.status(WHO, "/trap"), 200);
    time::eventually("it would be banned", || house.level(WHO).is_some());
    let house = house.again();
    house.wardent.write_policy(POLICY);
    house.wardent.reload().unwrap();
    assert_eq!(house.status(WHO, "/"), 200);
    assert_eq!(house.level(WHO), None);
    let home = house.wardent.end();
    assert!(records_of(home.path(), BANS).is_empty());
    let audits = audits(home.path(), &["ban", "would_ban", "expire"]);
    assert_eq!(audits.len(), 1);
    assert_eq!(audits[0]["enforced"], false);
    assert_eq!(audits[0]["evidence"][0]["path"], "/trap");
}

#[test]
fn every_act_is_accounted_for() {
    let house = house();
    house.ban_by_policy(WHO);
    house.wardent.ban("203.0.113.0/24");
    house.unban(WHO, "10m");
    house.unban(OTHER, "10m");
    let until = in_an_hour();
    let lines = format!("{{\"target\": \"192.0.2.1\", \"until\": \"{until}\", \"why\": \"x\"}}\n");
    let imported = house.wardent.command(&["bans", "import"], &lines);
    assert_eq!(imported.out, "1 imported, 0 over already, 0 wrong\n");
    let home = house.wardent.end();
    let acts = audits(home.path(), &["ban", "unban", "spare", "expire"]);
    let told: Vec<_> = acts
        .iter()
        .map(|act| {
            let [what, actor, target] = ["what", "actor", "target"].map(|name| &act[name]);
            let actor = actor.as_str().unwrap().split(':').next().unwrap();
            format!(
                "{} {actor} {}",
                what.as_str().unwrap(),
                target.as_str().unwrap()
            )
        })
        .collect();
    let expected = [
        "ban policy 198.51.100.20",
        "ban uid 203.0.113.0/24",
        "unban uid 198.51.100.20",
        "spare uid 198.51.100.21",
        "ban uid 192.0.2.1",
    ];
    assert_eq!(told, expected);
    assert_eq!(acts[0]["evidence"][0]["cause"], "trap");
    assert_eq!(acts[1]["why"], "test");
    assert_eq!(acts[1]["before"], Value::Null);
    assert_eq!(acts[2]["before"]["state"], "banned");
    assert_eq!(acts[2]["after"]["state"], "lifted");
    assert!(acts[3]["after"]["grace_until"].is_string());
    // Each state names the request that the evidence ends with.
    let states = records_of(home.path(), BANS);
    assert_eq!(states[0].json()["request"], acts[0]["evidence"][0]["id"]);
}

#[test]
fn every_reload_is_accounted_for_by_whom_and_with_which_policy() {
    let house = house();
    let fresh = POLICY.replace("10m", "20m");
    house.wardent.write_policy(&fresh);
    time::eventually("the file is seen", || {
        !audits(house.wardent.dir(), &["reload"]).is_empty()
    });
    let by_hand = house.wardent.command(&["reload"], "");
    assert_eq!(by_hand.status, 0, "{}", by_hand.err);
    house.wardent.write_policy("mode: enforc\n");
    let refused = house.wardent.command(&["reload"], "");
    assert_eq!(refused.status, 1);
    let home = house.wardent.end();
    let all = audits(home.path(), &["start", "stop", "reload", "reload_refused"]);
    let of = |what: &str, actor: &str| {
        let mut found = all.iter().filter(|audit| {
            let by = audit["actor"].as_str().unwrap();
            audit["what"] == what && by.split(':').next() == Some(actor)
        });
        found
            .next()
            .unwrap_or_else(|| panic!("no {what} by {actor}: {all:#?}"))
    };
    let start = of("start", "wardent");
    let by_file = of("reload", "file");
    assert_eq!(start["after"], by_file["before"]);
    assert_ne!(by_file["before"]["sha256"], by_file["after"]["sha256"]);
    assert_eq!(by_file["after"]["policy"], 2);
    let by_hand = of("reload", "uid");
    assert_eq!(by_hand["after"]["policy"], 3);
    assert_eq!(by_hand["after"]["sha256"], by_file["after"]["sha256"]);
    let refused = of("reload_refused", "uid");
    assert_eq!(refused["before"], refused["after"]);
    assert!(refused["why"].as_str().unwrap().contains("enforc"));
    of("stop", "wardent");
}

#[test]
fn the_audit_hides_addresses_where_it_should_and_bans_stay_whole() {
    for (privacy, shown) in [("truncate", "198.51.100.0/24"), ("hash", "h:")] {
        let house = house_with(|setup| setup.log(&format!("ip_privacy: {privacy}")));
        house.ban_by_policy(WHO);
        let house = house.again();
        assert_eq!(house.status(WHO, "/"), 403);
        house.unban(WHO, "10m");
        house.unban(OTHER, "10m");
        house.wardent.ban("198.51.100.0/28");
        let home = house.wardent.end();
        let acts = audits(home.path(), &["ban", "unban", "spare"]);
        assert_eq!(acts.len(), 4, "{acts:#?}");
        for audit in records_of(home.path(), AUDIT) {
            for told in [&audit.key, &audit.text] {
                for address in [WHO, OTHER, "198.51.100.0/28"] {
                    assert!(!told.contains(address), "{told}");
                }
            }
        }
        let ban = &audits(home.path(), &["ban"])[0];
        assert!(ban["target"].as_str().unwrap().starts_with(shown), "{ban}");
        assert_eq!(records_of(home.path(), BANS)[0].key, WHO);
    }
}

#[test]
fn many_are_imported_at_once_and_come_back() {
    const MANY: usize = 2_000;
    let house = house();
    let until = in_an_hour();
    let lines: String = (0..MANY)
        .map(|nth| {
            let client = format!("10.9.{}.{}", nth >> 8, nth & 255);
            format!("{{\"target\": \"{client}\", \"until\": \"{until}\", \"why\": \"x\"}}\n")
        })
        .collect();
    let imported = house.wardent.command(&["bans", "import"], &lines);
    let told = format!("{MANY} imported, 0 over already, 0 wrong\n");
    assert_eq!(imported.out, told, "{}", imported.err);
    let house = house.again();
    let (_, listed) = house.wardent.act("GET", "/api/v1/bans?limit=1", "");
    assert_eq!(listed["total"], MANY);
    rig::assert_alive("after many", &house.wardent);
}

#[test]
fn a_damaged_record_costs_its_batch_and_is_told() {
    let house = house();
    for client in [WHO, OTHER, "198.51.100.22"] {
        house.wardent.ban(client);
    }
    let home = house.wardent.end();
    let segment = home
        .path()
        .join("log/wardent.client.ban-0/00000000000000000000.log");
    let mut bytes = fs::read(&segment).unwrap();
    let place = bytes
        .windows(OTHER.len())
        .position(|text| text == OTHER.as_bytes())
        .unwrap();
    bytes[place] = b'2';
    fs::write(&segment, bytes).unwrap();
    let log = home.path().join("log");
    let house = house_with(|setup| setup.log_dir(&log));
    assert_eq!(house.status(WHO, "/"), 403);
    assert_eq!(house.status(OTHER, "/"), 200);
    assert_eq!(house.status("198.51.100.22", "/"), 403);
    drop(house);
    let restored = audits(home.path(), &["restore"]);
    let why = restored.last().unwrap()["why"].as_str().unwrap();
    assert!(why.contains("1 damaged batches"), "{why}");
}
