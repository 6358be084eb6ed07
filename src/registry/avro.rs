//! Avro schemas, and whether one reads what another wrote (Avro 1.12, "Schema Resolution").
//!
//! The crate decides for each pair of types. It takes a reference to a named type for the type of that
//! name, whatever that is; so each named type of both schemas is compared by itself, once, with
//! references in place of what it holds. Where a name means something else in both, that refuses what
//! might be read; it never takes what might not.

use std::collections::BTreeMap;

use apache_avro::{
    Schema,
    schema::UnionSchema,
    schema_compatibility::{Compatibility, SchemaCompatibility},
};
use serde_json::Value;

/// Variants of a union at most: each may have to be compared with each.
const VARIANTS_MAX: usize = 200;

/// A schema, taken apart.
#[derive(Debug)]
pub(super) struct Types {
    /// All of it, with references in place of named types.
    top: Schema,
    /// Named types by their full names, likewise.
    named: BTreeMap<String, Schema>,
}

impl Types {
    /// Reads a schema whose bounds were checked.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let schema = Schema::parse(value).map_err(|error| error.to_string())?;
        let mut named = BTreeMap::new();
        let top = taken_apart(schema, &mut named)?;
        Ok(Self { top, named })
    }

    /// Whether this reads all that `writer` writes.
    ///
    /// # Errors
    /// What it would not.
    pub(super) fn can_read(&self, writer: &Self) -> Result<(), String> {
        reads(&self.top, &writer.top)?;
        for (name, own) in &self.named {
            if let Some(others) = writer.named.get(name) {
                reads(own, others).map_err(|why| format!("{name}: {why}"))?;
            }
        }
        Ok(())
    }
}

fn reads(reader: &Schema, writer: &Schema) -> Result<(), String> {
    match SchemaCompatibility::can_read(writer, reader) {
        Ok(Compatibility::Full) => Ok(()),
        Ok(Compatibility::Partial) => {
            Err("some of what may be written could not be read".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The schema with references in place of the named types in it, which go to `named`.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all others hold no types, and there are many of them"
)]
fn taken_apart(schema: Schema, named: &mut BTreeMap<String, Schema>) -> Result<Schema, String> {
    match schema {
        Schema::Array(mut array) => {
            array.items = Box::new(taken_apart(*array.items, named)?);
            Ok(Schema::Array(array))
        }
        Schema::Map(mut map) => {
            map.types = Box::new(taken_apart(*map.types, named)?);
            Ok(Schema::Map(map))
        }
        Schema::Union(union) if union.variants().len() > VARIANTS_MAX => {
            Err(format!("a union has more than {VARIANTS_MAX} variants"))
        }
        Schema::Union(union) => {
            let variants = union.variants().iter().cloned();
            let variants: Result<Vec<_>, _> = variants
                .map(|variant| taken_apart(variant, named))
                .collect();
            let union = UnionSchema::new(variants?).map_err(|error| error.to_string())?;
            Ok(Schema::Union(union))
        }
        Schema::Record(mut record) => {
            for field in &mut record.fields {
                let schema = std::mem::replace(&mut field.schema, Schema::Null);
                field.schema = taken_apart(schema, named)?;
            }
            let name = record.name.clone();
            named.insert(name.fullname(None), Schema::Record(record));
            Ok(Schema::Ref { name })
        }
        Schema::Enum(symbols) => {
            let name = symbols.name.clone();
            named.insert(name.fullname(None), Schema::Enum(symbols));
            Ok(Schema::Ref { name })
        }
        Schema::Fixed(fixed) => {
            let name = fixed.name.clone();
            named.insert(name.fullname(None), Schema::Fixed(fixed));
            Ok(Schema::Ref { name })
        }
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(text: &str) -> Types {
        Types::read(&serde_json::from_str(text).unwrap()).unwrap()
    }

    fn reads(reader: &str, writer: &str) -> bool {
        types(reader).can_read(&types(writer)).is_ok()
    }

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"A","fields":[{fields}]}}"#)
    }

    #[test]
    fn types_are_resolved_as_the_specification_says() {
        for (reader, writer, fits) in [
            (r#""long""#, r#""int""#, true),
            (r#""int""#, r#""long""#, false),
            (r#""bytes""#, r#""string""#, true),
            (r#"["null","long"]"#, r#""int""#, true),
            (r#""long""#, r#"["null","long"]"#, false),
            (r#"["null","long","string"]"#, r#"["null","long"]"#, true),
            (r#"["null","long"]"#, r#"["null","string"]"#, false),
            (
                r#"{"type":"enum","name":"E","symbols":["X","Y"]}"#,
                r#"{"type":"enum","name":"E","symbols":["X"]}"#,
                true,
            ),
            (
                r#"{"type":"enum","name":"E","symbols":["X"]}"#,
                r#"{"type":"enum","name":"E","symbols":["X","Y"]}"#,
                false,
            ),
            (
                r#"{"type":"enum","name":"E","symbols":["X"],"default":"X"}"#,
                r#"{"type":"enum","name":"E","symbols":["X","Y"]}"#,
                true,
            ),
            (
                r#"{"type":"fixed","name":"F","size":4}"#,
                r#"{"type":"fixed","name":"F","size":8}"#,
                false,
            ),
        ] {
            assert_eq!(reads(reader, writer), fits, "{reader} reads {writer}");
        }
    }

    #[test]
    fn a_new_field_needs_a_default() {
        let old = record(r#"{"name":"a","type":"long"}"#);
        let without = record(r#"{"name":"a","type":"long"},{"name":"b","type":"long"}"#);
        let with = record(r#"{"name":"a","type":"long"},{"name":"b","type":"long","default":0}"#);
        assert!(!reads(&without, &old));
        assert!(reads(&with, &old));
        assert!(reads(&old, &without));
        let renamed = record(r#"{"name":"c","aliases":["a"],"type":"long"}"#);
        assert!(reads(&renamed, &old) && !reads(&old, &renamed));
    }

    #[test]
    fn a_type_that_holds_itself_is_compared_once() {
        let list = |value: &str| {
            record(&format!(
                r#"{{"name":"v","type":"{value}"}},{{"name":"next","type":["null","A"],"default":null}}"#
            ))
        };
        assert!(reads(&list("long"), &list("int")));
        assert!(!reads(&list("int"), &list("long")));
    }

    #[test]
    fn a_reference_stands_for_what_its_name_means_there() {
        let inner = |name: &str, value: &str| {
            format!(
                r#"{{"name":"{name}","type":{{"type":"record","name":"N","fields":[{{"name":"v","type":"{value}"}}]}}}}"#
            )
        };
        let by_name = r#"{"name":"x","type":"N"}"#;
        // What `x` is stands elsewhere in both, and not at the same place.
        let writer = record(&format!("{},{by_name}", inner("z", "string")));
        let optional =
            inner("y", "long").replace(r#""name":"y""#, r#""name":"y","default":{"v":1}"#);
        let reader = record(&format!("{optional},{by_name}"));
        assert!(!reads(&reader, &writer));
        assert!(reads(&reader, &writer.replace("string", "int")));
        // Where the definition moves to another field, nothing changes.
        let moved = record(&format!(
            r#"{},{{"name":"y","default":{{"v":1}},"type":"N"}}"#,
            inner("x", "long")
        ));
        assert!(reads(&moved, &reader) && reads(&reader, &moved));
    }
}
