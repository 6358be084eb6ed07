//! A schema: its text, what it is the same as, and what it gets along with.
//!
//! Texts come from strangers. Their length, depth and width are bounded before anything walks through
//! them, so that none costs more than its bounds: no stack, and no more than some hundred milliseconds.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{avro, json, level::Level, refused::Refused};

/// Bytes of a schema's text at most.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// How deep its JSON may be nested.
pub const DEPTH_MAX: usize = 48;
/// How many elements one list of it may have, and members one object: the symbols of an enum, the fields
/// of a record.
pub const WIDTH_MAX: usize = 2_000;

/// What language a schema is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    /// Apache Avro.
    #[default]
    Avro,
    /// JSON Schema.
    Json,
    /// Protocol buffers: shown where another registry kept them, never taken.
    Protobuf,
}

impl Kind {
    /// Those that are taken.
    pub const TAKEN: [&'static str; 2] = ["AVRO", "JSON"];

    /// Its public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Json => "JSON",
            Self::Protobuf => "PROTOBUF",
        }
    }
}

/// What tells a schema from others: white space and the order of members do not.
pub(super) type Identity = [u8; 32];

/// A schema.
#[derive(Clone, PartialEq, Eq)]
pub struct Schema {
    kind: Kind,
    text: String,
    identity: Identity,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, bytes) = (self.kind, self.text.len());
        write!(f, "Schema({kind:?}, {bytes} bytes)")
    }
}

impl Schema {
    /// Reads a schema that somebody brings. It may take a while.
    ///
    /// # Errors
    /// When it is none, or more than is looked at.
    pub fn read(kind: Kind, text: &str) -> Result<Self, Refused> {
        if text.len() > SCHEMA_BYTES_MAX {
            let words = format!("the schema is longer than {SCHEMA_BYTES_MAX} bytes");
            return Err(Refused::too_much(words));
        }
        if kind == Kind::Protobuf {
            return Err(Refused::bad_schema(
                "PROTOBUF is not supported here; AVRO and JSON are",
            ));
        }
        let value: Value = serde_json::from_str(text).map_err(Refused::bad_schema)?;
        bounded(&value, 0).map_err(Refused::too_much)?;
        match kind {
            Kind::Avro => drop(avro::Types::read(&value).map_err(Refused::bad_schema)?),
            Kind::Json => json::check(&value).map_err(Refused::bad_schema)?,
            Kind::Protobuf => {}
        }
        Ok(Self {
            kind,
            text: without_spaces(text),
            identity: identity(kind, &canonical(kind, value).to_string()),
        })
    }

    /// A schema as some registry kept it, whatever it says.
    pub(super) fn kept(kind: Kind, text: String) -> Self {
        let value = match kind {
            Kind::Avro | Kind::Json => serde_json::from_str(&text).ok(),
            Kind::Protobuf => None,
        };
        let identity = match value.filter(|value| bounded(value, 0).is_ok()) {
            Some(value) => identity(kind, &canonical(kind, value).to_string()),
            None => identity(kind, &text),
        };
        Self {
            kind,
            text,
            identity,
        }
    }

    /// Its language.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What keeps this from taking the place of `old` under `level`; nothing where it may. It may take a
    /// while.
    pub(super) fn objections(&self, old: &Self, level: Level) -> Vec<String> {
        if level == Level::None {
            return Vec::new();
        }
        if self.kind != old.kind {
            let (old, new) = (old.kind.name(), self.kind.name());
            return vec![format!("the type changes from {old} to {new}")];
        }
        let mut wrong = Vec::new();
        if level.is_backward()
            && let Err(why) = self.can_read(old)
        {
            wrong.push(format!(
                "the new schema cannot read what the old one wrote: {why}"
            ));
        }
        if level.is_forward()
            && let Err(why) = old.can_read(self)
        {
            wrong.push(format!(
                "the old schema cannot read what the new one writes: {why}"
            ));
        }
        wrong
    }

    /// Whether all that `writer` describes can be read by this.
    fn can_read(&self, writer: &Self) -> Result<(), String> {
        let value = |schema: &Self| {
            let value: Value =
                serde_json::from_str(&schema.text).map_err(|error| error.to_string())?;
            bounded(&value, 0)?;
            Ok::<_, String>(value)
        };
        let (reader, writer) = (value(self)?, value(writer)?);
        match self.kind {
            Kind::Avro => avro::Types::read(&reader)?.can_read(&avro::Types::read(&writer)?),
            Kind::Json => json::takes_all_of(&reader, &writer),
            Kind::Protobuf => Err("PROTOBUF is not compared".to_owned()),
        }
    }
}

/// Whether a value is neither deeper nor wider than is looked at.
fn bounded(value: &Value, depth: usize) -> Result<(), String> {
    let width = match value {
        Value::Array(all) => all.len(),
        Value::Object(all) => all.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return Ok(()),
    };
    if depth >= DEPTH_MAX {
        return Err(format!("the schema is nested deeper than {DEPTH_MAX}"));
    }
    if width > WIDTH_MAX {
        return Err(format!(
            "a list in the schema is longer than {WIDTH_MAX} elements"
        ));
    }
    match value {
        Value::Array(all) => all.iter().try_for_each(|each| bounded(each, depth + 1)),
        Value::Object(all) => all.values().try_for_each(|each| bounded(each, depth + 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn identity(kind: Kind, canonical: &str) -> Identity {
    let mut digest = Sha256::new();
    digest.update(kind.name());
    digest.update([0]);
    digest.update(canonical);
    digest.finalize().into()
}

/// The value with its members in order; of Avro, `{"type": "long"}` is `"long"`.
fn canonical(kind: Kind, value: Value) -> Value {
    match value {
        Value::Array(all) => {
            let each = all.into_iter().map(|each| canonical(kind, each));
            Value::Array(each.collect())
        }
        Value::Object(all) => {
            let mut all: Vec<_> = all.into_iter().collect();
            if kind == Kind::Avro
                && let [(name, Value::String(primitive))] = &all[..]
                && name == "type"
            {
                return Value::String(primitive.clone());
            }
            all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            let each = all
                .into_iter()
                .map(|(name, value)| (name, canonical(kind, value)));
            Value::Object(each.collect::<Map<_, _>>())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// JSON without the white space between its parts.
fn without_spaces(text: &str) -> String {
    let (mut is_text, mut is_escaped) = (false, false);
    let stays = |c: &char| {
        let is_space = !is_text && matches!(c, ' ' | '\t' | '\n' | '\r');
        match (is_text, is_escaped, c) {
            (true, true, _) => is_escaped = false,
            (true, false, '\\') => is_escaped = true,
            (_, false, '"') => is_text = !is_text,
            (true | false, _, _) => {}
        }
        !is_space
    };
    text.chars().filter(stays).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fuzz::{campaign, hash};

    const RECORD: &str = r#"{"type":"record","name":"A","fields":[
        {"name":"a","type":{"type":"long"}},
        {"name":"b","type":["null",{"type":"enum","name":"E","symbols":["X","Y"]}],"default":null},
        {"name":"next","type":["null","A"],"default":null},
        {"name":"more","type":{"type":"map","values":{"type":"array","items":"E"}}}]}"#;
    const OBJECT: &str = r##"{"type":"object","required":["a"],"properties":{"a":{"type":"string","maxLength":3},
        "b":{"$ref":"#/$defs/b"}},"additionalProperties":false,"$defs":{"b":{"enum":[1,2]}}}"##;

    fn avro(text: &str) -> Schema {
        Schema::read(Kind::Avro, text).unwrap()
    }

    #[test]
    fn spaces_and_the_order_of_members_make_no_other_schema() {
        let one = avro(RECORD);
        assert!(!one.text().contains('\n'));
        let other = avro(&RECORD.replace(
            r#"{"name":"a","type":{"type":"long"}}"#,
            r#"{"type" : "long", "name":"a"}"#,
        ));
        assert_eq!(one.identity(), other.identity());
        let another = avro(&RECORD.replace("long", "int"));
        assert_ne!(one.identity(), another.identity());
        assert_ne!(
            Schema::read(Kind::Json, "{}").unwrap().identity(),
            Schema::kept(Kind::Protobuf, "{}".to_owned()).identity()
        );
    }

    #[test]
    fn spaces_inside_texts_stay() {
        assert_eq!(
            without_spaces(" { \"a b\" : \"\\\" \\\\\" , \"c\" : [ 1 ] } "),
            "{\"a b\":\"\\\" \\\\\",\"c\":[1]}"
        );
    }

    #[test]
    fn what_is_too_long_deep_or_wide_is_refused() {
        let code = |text: &str| Schema::read(Kind::Avro, text).unwrap_err().code;
        assert_eq!(
            code(&format!("\"{}\"", "a".repeat(SCHEMA_BYTES_MAX))),
            42_209
        );
        let arrays = |depth: usize| {
            let open = r#"{"type":"array","items":"#.repeat(depth);
            format!("{open}\"long\"{}", "}".repeat(depth))
        };
        assert!(Schema::read(Kind::Avro, &arrays(DEPTH_MAX)).is_ok());
        assert_eq!(code(&arrays(DEPTH_MAX + 1)), 42_209);
        assert_eq!(code(&arrays(500)), 42_201);
        assert_eq!(code(&"[".repeat(100_000)), 42_201);
        let symbols = |count: usize| {
            let symbols: Vec<_> = (0..count).map(|n| format!("\"S{n}\"")).collect();
            let symbols = symbols.join(",");
            format!(r#"{{"type":"enum","name":"E","symbols":[{symbols}]}}"#)
        };
        assert!(Schema::read(Kind::Avro, &symbols(WIDTH_MAX)).is_ok());
        assert_eq!(code(&symbols(WIDTH_MAX + 1)), 42_209);
    }

    #[test]
    fn the_widest_schemas_are_compared_all_the_same() {
        let variants: Vec<_> = (0..200)
            .map(|n| format!(r#"{{"type":"fixed","name":"F{n}","size":1}}"#))
            .collect();
        let fields: Vec<_> = (0..WIDTH_MAX)
            .map(|n| format!(r#"{{"name":"f{n}","type":"int","default":0}}"#))
            .collect();
        let (variants, fields) = (variants.join(","), fields.join(","));
        let text = format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
        for schema in [avro(&text), avro(&format!("[{variants}]"))] {
            assert!(schema.objections(&schema, Level::Full).is_empty());
        }
        let refused = Schema::read(Kind::Avro, &format!(r#"[{variants},"long"]"#)).unwrap_err();
        assert_eq!(refused.code, 42_201);
    }

    #[test]
    fn protobuf_is_refused_and_says_so() {
        let refused = Schema::read(Kind::Protobuf, "message A {}").unwrap_err();
        assert_eq!(refused.code, 42_201);
        assert!(refused.message.contains("PROTOBUF"));
    }

    /// A schema gets along with itself under every level, and nothing that a stranger writes ends in a
    /// panic.
    #[test]
    fn campaign_schemas() {
        let samples = [
            RECORD,
            OBJECT,
            r#"["null","string",{"type":"fixed","name":"n.F","size":16,"aliases":["G"]}]"#,
            r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}"#,
            r#"{"type":"record","name":"L","fields":[{"name":"v","type":"long","default":1,"doc":"d","order":"ignore"}]}"#,
            r#"{"anyOf":[{"type":["integer","null"]},true],"not":{},"items":{"minimum":1.5}}"#,
        ];
        let words = [
            "\"type\":",
            "\"record\"",
            "\"enum\"",
            "\"fields\":[",
            "{",
            "}",
            "[",
            "]",
            ",",
            "\"A\"",
            "\"default\":",
            "\"logicalType\":",
            "\"decimal\"",
            "\"precision\":",
            "99999999999",
            "-1",
            "\"size\":",
            "\"uuid\"",
            "\"duration\"",
            "\"namespace\":",
            "\"\"",
            "null",
            "true",
            "\"properties\":",
            "\"patternProperties\":",
            "\"$ref\":",
            "\"map\"",
            "\"values\":",
        ];
        campaign(
            "schemas",
            &samples.map(str::as_bytes),
            &words.map(str::as_bytes),
            |input| {
                let Ok(text) = std::str::from_utf8(input) else {
                    return Ok(0);
                };
                let mut class = 0;
                for kind in [Kind::Avro, Kind::Json] {
                    let Ok(schema) = Schema::read(kind, text) else {
                        continue;
                    };
                    class = hash(&(class, kind.name(), text.len() / 16));
                    let again = Schema::read(kind, schema.text()).map_err(|e| e.to_string())?;
                    if again != schema {
                        return Err("is not what it was when it is read again".to_owned());
                    }
                    let wrong = schema.objections(&again, Level::Full);
                    if !wrong.is_empty() {
                        return Err(format!("does not get along with itself: {wrong:?}"));
                    }
                }
                Ok(class)
            },
        );
    }
}
