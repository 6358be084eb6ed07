//! `log.avro`: values are Avro in Confluent's framing, by the schemas that the registry serves; and all
//! that reads events back reads both.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{collections::HashMap, fs, path::Path};

use apache_avro::{Schema, reader::datum::GenericDatumReader, types};
use serde_json::Value;
use support::{get, rig::Rig, time, wardent::Wardent};
use wardent::log::View;

const ACCESS: &str = "wardent.http.access";
const BANS: &str = "wardent.client.ban";
const AUDIT: &str = "wardent.audit.event";
const ALL: &str = "avro: [wardent.http.access, wardent.client.ban, wardent.audit.event]";

/// The values of a topic, as they are stored.
fn values(dir: &Path, topic: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for partition in 0..64 {
        let Ok(files) = fs::read_dir(dir.join(format!("log/{topic}-{partition}"))) else {
            break;
        };
        let files = files.map(|file| file.unwrap().path());
        for segment in files.filter(|path| path.extension().is_some_and(|own| own == "log")) {
            let bytes = fs::read(segment).unwrap();
            let (mut rest, mut scratch) = (bytes.as_slice(), Vec::new());
            while let Ok((batch, after)) = View::read(rest) {
                let records = batch.records(&mut scratch).unwrap();
                found
                    .extend(records.filter_map(|record| record.unwrap().value.map(<[u8]>::to_vec)));
                rest = after;
            }
        }
    }
    found
}

/// Schemas by their ids, as whoever reads the topic gets them.
struct Schemas<'a> {
    wardent: &'a Wardent,
    known: HashMap<u32, Schema>,
}

impl Schemas<'_> {
    /// The fields of a value.
    fn read(&mut self, value: &[u8]) -> HashMap<String, types::Value> {
        assert_eq!(value[0], 0, "{}", value.escape_ascii());
        let id = u32::from_be_bytes(value[1..5].try_into().unwrap());
        let wardent = self.wardent;
        let schema = self.known.entry(id).or_insert_with(|| {
            let (status, said) = wardent.ask_listener("GET", &format!("/schemas/ids/{id}"), "");
            assert_eq!(status, 200, "{said}");
            Schema::parse_str(said["schema"].as_str().unwrap()).unwrap()
        });
        let reader = GenericDatumReader::builder(schema).build().unwrap();
        let mut body = &value[5..];
        let types::Value::Record(fields) = reader.read_value(&mut body).unwrap() else {
            panic!("no record");
        };
        assert!(body.is_empty());
        fields.into_iter().collect()
    }
}

fn text(value: &types::Value) -> Option<&str> {
    if let types::Value::Union(_, value) = value {
        return text(value);
    }
    let types::Value::String(text) = value else {
        return None;
    };
    Some(text)
}

fn events(wardent: &Wardent, query: &str) -> Vec<Value> {
    let target = format!("/api/v1/events?order=oldest&{query}");
    let (status, said) = wardent.ask_listener("GET", &target, "");
    assert_eq!(status, 200, "{said}");
    said["events"].as_array().unwrap().clone()
}

#[track_caller]
fn wait_for(wardent: &Wardent, query: &str, count: usize) -> Vec<Value> {
    time::eventually("the events are there", || {
        events(wardent, query).len() >= count
    });
    events(wardent, query)
}

#[test]
fn values_are_avro_where_it_is_asked_for() {
    let rig = Rig::with(|setup| setup.log(ALL));
    let wardent = &rig.wardent;
    for path in ["/a", "/b%22\"", "/c"] {
        wardent.ask(get(path));
    }
    wardent.ban("198.51.100.99");
    wait_for(wardent, "path=/c", 1);
    let mut schemas = Schemas {
        wardent,
        known: HashMap::new(),
    };
    let dir = wardent.dir();
    let access: Vec<_> = values(dir, ACCESS)
        .iter()
        .map(|value| schemas.read(value))
        .collect();
    let mut paths: Vec<_> = access
        .iter()
        .map(|event| text(&event["path"]).unwrap())
        .collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/a", "/b%22\"", "/c"]);
    assert!(
        access
            .iter()
            .all(|event| text(&event["event"]) == Some("access"))
    );
    let bans: Vec<_> = values(dir, BANS)
        .iter()
        .map(|value| schemas.read(value))
        .collect();
    assert_eq!(text(&bans[0]["target"]), Some("198.51.100.99"));
    let audit: Vec<_> = values(dir, AUDIT)
        .iter()
        .map(|value| schemas.read(value))
        .collect();
    assert!(
        audit
            .iter()
            .any(|event| text(&event["what"]) == Some("ban"))
    );
    assert_eq!(schemas.known.len(), 3);
}

#[test]
fn other_topics_stay_json() {
    let rig = Rig::with(|setup| setup.log("avro: [wardent.http.access]"));
    rig.wardent.ask(get("/a"));
    rig.wardent.ban("198.51.100.99");
    wait_for(&rig.wardent, "path=/a", 1);
    let dir = rig.wardent.dir();
    let begins = |topic: &str, byte: u8| values(dir, topic).iter().all(|value| value[0] == byte);
    assert!(begins(ACCESS, 0) && begins(BANS, b'{') && begins(AUDIT, b'{'));
}

#[test]
fn a_topic_may_hold_both_and_is_read_as_one() {
    let rig = Rig::new();
    let mut wardent = rig.wardent;
    wardent.ask(get("/json"));
    wardent.ban("198.51.100.98");
    wait_for(&wardent, "path=/json", 1);
    let config = wardent.dir().join("wardent.yaml");
    let plain = fs::read_to_string(&config).unwrap();
    let switched = plain.replacen("log: {", &format!("log: {{{ALL}, "), 1);
    assert_ne!(plain, switched);
    for (path, target, text) in [
        ("/avro", "198.51.100.99", &switched),
        ("/again", "198.51.100.100", &plain),
    ] {
        fs::write(&config, text).unwrap();
        wardent = wardent.again();
        wardent.ask(get(path));
        wardent.ban(target);
        wait_for(&wardent, &format!("path={path}"), 1);
    }
    fs::write(&config, &switched).unwrap();
    let wardent = wardent.again();
    // Queries, by field and without.
    let all = wait_for(&wardent, "since=1h", 3);
    let paths = |events: &[Value]| {
        let paths = events
            .iter()
            .map(|event| event["path"].as_str().unwrap().to_owned());
        paths.collect::<Vec<_>>()
    };
    assert_eq!(paths(&all), ["/json", "/avro", "/again"]);
    let one = wait_for(&wardent, "path=/avro&status=200", 1);
    assert_eq!(one[0]["verdict"], "passed");
    for field in ["event", "v", "client", "method", "host", "route"] {
        assert_eq!(all[0][field], all[1][field], "{field}");
    }
    // Bans are back, whatever they were written as.
    let mut targets: Vec<_> = wardent
        .bans()
        .iter()
        .map(|ban| ban["target"].to_string())
        .collect();
    targets.sort_unstable();
    assert_eq!(
        targets,
        [
            "\"198.51.100.100\"",
            "\"198.51.100.98\"",
            "\"198.51.100.99\""
        ]
    );
    // The audit, and what became of one request.
    assert_eq!(
        wait_for(&wardent, "topic=audit&client=198.51.100.99", 1)[0]["what"],
        "ban"
    );
    let id = all[1]["id"].as_str().unwrap();
    let explained = wardent.command(&["explain", id, "--output", "json"], "");
    assert_eq!(explained.status, 0, "{explained:?}");
    assert!(explained.out.contains("/avro"), "{explained:?}");
    // Every byte, and that no event is missing.
    let verified = wardent.command(&["log", "verify", "--output", "json"], "");
    assert_eq!(verified.status, 0, "{verified:?}");
    assert_eq!(verified.json()["access"]["events"], 3);
    let values = values(wardent.dir(), ACCESS);
    let framed = values.iter().filter(|value| value[0] == 0).count();
    assert_eq!((framed, values.len()), (1, 3));
}
