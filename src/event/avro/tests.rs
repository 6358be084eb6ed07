//! Of events as Avro: there and back, and as the crate that others read it by understands it.

use std::collections::{BTreeMap, BTreeSet};

use apache_avro::{
    Schema,
    rabin::Rabin,
    reader::datum::GenericDatumReader,
    schema_compatibility::{Compatibility, SchemaCompatibility},
    types,
};
use serde_json::json;

use super::*;
use crate::{
    base::{
        fuzz::{campaign, hash},
        hlc::Hlc,
    },
    event::{
        ban::{BanState, Kind as BanKind, State},
        place::{Gap, Place, Run},
    },
};

const ACCESS: &str = r#"{"event":"access","v":1,"time":"2026-11-21T10:00:01.042Z","id":"01KAJ0000000000000000000AA","run":"00c0ffee","lane":1,"seq":9007199254740991,"client":"198.51.100.7","proven":true,"method":"GET","host":"App.test","path":"/a//%62/\u00e9\"\\\u000a","status":413,"verdict":"refused","reason":"body_too_large","enforced":false,"route":"up\"load","body_bytes_in":0,"bytes_out":65,"total_us":1042,"user_agent":"","country":"DE"}"#;
const AUDIT: &str = r#"{"event":"audit","v":1,"time":"2026-11-21T10:00:01.042Z","what":"ban","actor":"policy","target":"198.51.100.7","before":{"state":"expired","level":1,"by":"policy"},"after":{"state":"banned","level":2,"since":"2026-11-21T10:00:01.042Z","until":"2026-11-21T10:20:01.042Z","by":"policy"},"evidence":[{"id":"01KAJ0000000000000000000AA","time":"2026-11-21T10:00:01.042Z","cause":"trap","points":10,"path":"/.env"},{"id":"01KAJ0000000000000000000AB","time":"2026-11-21T10:00:01.043Z","cause":"bot","points":2,"path":"/\u00e9\u0001"}],"why":"\ud83d\ude00 trap","enforced":true}"#;
const RELOAD: &str = r#"{"event":"audit","v":1,"time":"1970-01-01T00:00:00.000Z","what":"reload","actor":"file","after":{"policy":2,"sha256":"ab","version":"0.1.0"},"why":"","enforced":true}"#;

const USER: &str = r#"{"event":"audit","v":1,"time":"1970-01-01T00:00:00.000Z","what":"kafka_access","actor":"User:ops","target":"User:reader","after":{"admin":false,"mechanisms":["SCRAM-SHA-512"],"rights":["a","b"]},"why":"","enforced":true}"#;
const QUOTA: &str = r#"{"event":"audit","v":1,"time":"1970-01-01T00:00:00.000Z","what":"kafka_access","actor":"User:ops","before":{"quota":{"consumer_byte_rate":1048576.0,"producer_byte_rate":0.5}},"after":{"quota":{"producer_byte_rate":1e300}},"why":"","enforced":true}"#;

fn gap() -> Vec<u8> {
    let first = Place {
        run: Run::new(0xc0ffee),
        lane: 3,
        seq: 7,
    };
    let gap = Gap {
        first,
        last_seq: 9,
        unix_ms: 1_795_255_201_042,
    };
    let mut out = Vec::new();
    gap.write(&Stamps::default(), &mut out);
    out
}

fn ban() -> Vec<u8> {
    let state = BanState {
        unix_ms: 1_795_255_201_042,
        target: "198.51.100.7".into(),
        kind: BanKind::Client,
        state: State::Banned,
        level: 3,
        since_unix_ms: Some(1_795_255_201_042),
        until_unix_ms: Some(1_795_255_801_042),
        ended_unix_ms: None,
        grace_until_unix_ms: None,
        why: "\u{1f600} \"quoted\"\n\u{7f}".into(),
        by: "uid:0".into(),
        request: None,
        node: Some("web-1".into()),
        hlc: Some(Hlc::at(1_795_255_201_042)),
    };
    let mut out = Vec::new();
    state.write(&Stamps::default(), &mut out);
    out
}

fn events() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (access::TOPIC, ACCESS.as_bytes().to_vec()),
        (access::TOPIC, gap()),
        (ban::TOPIC, ban()),
        (audit::TOPIC, AUDIT.as_bytes().to_vec()),
        (audit::TOPIC, RELOAD.as_bytes().to_vec()),
        (audit::TOPIC, USER.as_bytes().to_vec()),
        (audit::TOPIC, QUOTA.as_bytes().to_vec()),
    ]
}

fn framed(topic: &str, event: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(of_topic(topic).unwrap().write(event, &mut out));
    out
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn every_schema_is_understood() {
    assert_eq!(CODECS.len(), OWN.len());
    let ids: BTreeSet<_> = OWN.iter().map(|own| own.id).collect();
    assert_eq!(ids.len(), OWN.len());
    assert!(ids.iter().all(|id| (1..=OWN_ID_MAX).contains(id)));
}

#[test]
fn an_event_is_the_same_there_and_back() {
    for (topic, event) in events() {
        let value = framed(topic, &event);
        assert!(is_framed(&value) && value.len() < event.len());
        let mut out = Vec::new();
        let back = as_json(&value, &mut out).unwrap();
        assert_eq!(json_of(back), json_of(&event));
        assert!(back.iter().all(|byte| (0x20..0x7f).contains(byte)));
        // JSON stays as it is.
        assert_eq!(as_json(&event, &mut Vec::new()), Some(event.as_slice()));
    }
}

/// What an Avro value is as JSON, without the fields that are null.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "events hold no values of other kinds"
)]
fn shown(value: &types::Value) -> Value {
    match value {
        types::Value::Record(fields) => {
            let there = fields
                .iter()
                .map(|(name, value)| (name.clone(), shown(value)));
            Value::Object(there.filter(|(_, value)| !value.is_null()).collect())
        }
        types::Value::Union(_, value) => shown(value),
        types::Value::Array(all) => Value::Array(all.iter().map(shown).collect()),
        types::Value::Null => Value::Null,
        types::Value::String(text) => json!(text),
        types::Value::Int(number) => json!(number),
        types::Value::Long(number) => json!(number),
        types::Value::Boolean(truth) => json!(truth),
        types::Value::Double(number) => json!(number),
        types::Value::TimestampMillis(ms) => {
            json!(Stamps::default().rfc3339(u64::try_from(*ms).unwrap()))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn others_read_the_same() {
    for (topic, event) in events() {
        let value = framed(topic, &event);
        let own = of_topic(topic).unwrap().own;
        assert_eq!(value[..5], [0, 0, 0, 0, u8::try_from(own.id).unwrap()]);
        let schema = Schema::parse_str(own.text).unwrap();
        let mut rest = &value[5..];
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let read = reader.read_value(&mut rest).unwrap();
        assert!(rest.is_empty());
        assert_eq!(shown(&read), json_of(&event));
    }
}

#[test]
fn what_is_not_as_the_schema_says_is_not_written() {
    let codec = of_topic(access::TOPIC).unwrap();
    let mut out = b"before".to_vec();
    for wrong in [
        "",
        "{}",
        &ACCESS[..ACCESS.len() - 1],
        &format!("{ACCESS} "),
        &ACCESS.replace("\"lane\":1", "\"lane\":-1"),
        &ACCESS.replace("\"lane\":1", "\"lane\":1.5"),
        &ACCESS.replace("\"run\":\"00c0ffee\",", ""),
        &ACCESS.replace("\"country\":\"DE\"", "\"later\":1"),
        &ACCESS.replace("2026-11-21T", "2026-13-21T"),
        &ACCESS.replace("\\u00e9", "\\ud800"),
        &ACCESS.replace("\\u00e9", "\\u00"),
    ] {
        assert!(!codec.write(wrong.as_bytes(), &mut out), "{wrong}");
    }
    assert_eq!(out, b"before");
}

#[test]
fn the_fields_are_those_of_the_json_schemas() {
    for topic in [access::TOPIC, ban::TOPIC, audit::TOPIC] {
        let codec = of_topic(topic).unwrap();
        // JSON may have more fields without another version.
        let path = format!("docs/schemas/{topic}.v1.json");
        let json = json_of(&std::fs::read(path).unwrap());
        let avro = json_of(codec.own.text.as_bytes());
        assert_same_fields(&json, &[&json], &codec.layout, &avro);
    }
}

/// The objects that a JSON Schema stands for, with references followed.
fn objects<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    if let Some(reference) = schema["$ref"].as_str() {
        return objects(root, root.pointer(&reference[1..]).unwrap());
    }
    match schema["oneOf"].as_array() {
        Some(all) => all.iter().flat_map(|one| objects(root, one)).collect(),
        None => vec![schema],
    }
}

fn assert_same_fields(root: &Value, schemas: &[&Value], layout: &Layout, avro: &Value) {
    let objects: Vec<_> = schemas
        .iter()
        .flat_map(|schema| objects(root, schema))
        .collect();
    let mut properties = BTreeMap::<&str, Vec<&Value>>::new();
    for object in &objects {
        for (name, property) in object["properties"].as_object().unwrap() {
            properties.entry(name).or_default().push(property);
        }
    }
    let names: BTreeSet<_> = layout
        .0
        .iter()
        .map(|field| field.name.trim_matches(&['"', ':'][..]))
        .collect();
    assert_eq!(names, properties.keys().copied().collect());
    for (field, declared) in layout.0.iter().zip(avro["fields"].as_array().unwrap()) {
        let name = field.name.trim_matches(&['"', ':'][..]);
        assert_eq!(declared["name"], name);
        assert!(!declared["doc"].as_str().unwrap().is_empty());
        let is_required = |object: &&&Value| {
            let required = object["required"].as_array();
            required.is_some_and(|all| all.contains(&json!(name)))
        };
        let is_always = objects.iter().filter(is_required).count() == objects.len();
        assert_eq!(!field.is_optional, is_always, "{name}");
        assert_eq!(
            field.is_optional,
            declared.get("default").is_some(),
            "{name}"
        );
        for property in &properties[name] {
            let is_text = property["type"] == "string"
                || property["enum"][0].is_string()
                || property["const"].is_string();
            let is_moment = property["pattern"]
                .as_str()
                .is_some_and(|own| own.starts_with("^[0-9]{4}-"));
            match &field.kind {
                Kind::Text => assert!(is_text && !is_moment, "{name}"),
                Kind::Moment => assert!(is_moment, "{name}"),
                Kind::Number => assert!(
                    property["type"] == "integer" || property["const"].is_u64(),
                    "{name}"
                ),
                Kind::Truth => assert!(
                    property["type"] == "boolean" || property["const"].is_boolean(),
                    "{name}"
                ),
                Kind::Record(layout) => {
                    let own = &declared["type"][1];
                    // Named the second time, it is the same.
                    if own.is_object() {
                        assert_same_fields(root, &[property], layout, own);
                    }
                }
                Kind::Fraction => assert_eq!(property["type"], "number", "{name}"),
                Kind::List(kind) => {
                    let items = &declared["type"][1]["items"];
                    if let Kind::Record(layout) = &**kind {
                        assert_same_fields(root, &[&property["items"]], layout, items);
                    } else {
                        assert_text(kind, &property["items"], name);
                    }
                }
            }
        }
    }
}

fn assert_text(kind: &Kind, property: &Value, name: &str) {
    assert!(matches!(kind, Kind::Text), "{name}: {kind:?}");
    assert_eq!(property["type"], "string", "{name}");
}

/// Whoever has the newest schema reads what any older one wrote.
#[test]
fn versions_are_backward_compatible_with_all_before() {
    for (nth, new) in OWN.iter().enumerate() {
        let older = OWN[..nth].iter().filter(|old| old.topic == new.topic);
        for (version, old) in (1..).zip(older) {
            assert_eq!(old.version, version);
            let [old, new] = [old, new].map(|own| Schema::parse_str(own.text).unwrap());
            let read = SchemaCompatibility::can_read(&old, &new).unwrap();
            assert_eq!(read, Compatibility::Full);
        }
    }
    // What was released stays as it is: these are the versions that somebody's log may hold.
    let released = OWN.iter().map(|own| {
        let text: Value = json_of(own.text.as_bytes());
        Schema::parse(&text)
            .unwrap()
            .fingerprint::<Rabin>()
            .to_string()
    });
    assert_eq!(released.collect::<Vec<_>>(), RELEASED);
}

const RELEASED: &[&str] = &[
    "96295ffb2cf9c9a0",
    "4dc4e259b67aedba",
    "ae732708ed915ef1",
    "db1e91c94c53bfa3",
];

#[test]
fn campaign_avro_of_strangers() {
    let samples: Vec<_> = events()
        .iter()
        .map(|(topic, event)| framed(topic, event))
        .collect();
    let samples: Vec<_> = samples.iter().map(Vec::as_slice).collect();
    let words: [&[u8]; 6] = [
        b"\x00",
        b"\x02",
        b"\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x03",
        b"\x80",
    ];
    campaign("avro", &samples, &words, |input| {
        let mut out = Vec::new();
        let Some(json) = as_json(input, &mut out) else {
            return Ok(0);
        };
        if !is_framed(input) {
            return Ok(1);
        }
        let read: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        Ok(hash(&read.to_string().len()))
    });
}
