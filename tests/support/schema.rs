//! Holds JSON to one of `docs/schemas`, by the keywords these use; another keyword fails the test.
//!
//! A field that is not described is a fault here: readers may meet one, of a later Wardent, and we may not.

use std::path::Path;

use regex_lite::Regex;
use serde_json::Value;

/// A JSON Schema (draft 2020-12).
pub(crate) struct Schema {
    /// What references lead into.
    root: Value,
    /// Where it stands in there.
    pointer: String,
}

impl Schema {
    /// `docs/schemas/<name>.json`.
    pub(crate) fn named(name: &str) -> Self {
        let path = Path::new("docs/schemas").join(format!("{name}.json"));
        Self {
            root: serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap(),
            pointer: String::new(),
        }
    }

    /// The one that stands in a document at a pointer (RFC 6901).
    pub(crate) fn within(document: &Value, pointer: &str) -> Self {
        Self {
            root: document.clone(),
            pointer: pointer.to_owned(),
        }
    }

    /// What is wrong with `value`; nothing when it is as described.
    pub(crate) fn faults(&self, value: &Value) -> Vec<String> {
        self.faults_by(self.root.pointer(&self.pointer).unwrap(), value)
    }

    fn faults_by(&self, schema: &Value, value: &Value) -> Vec<String> {
        let rules = schema.as_object().unwrap();
        let faults = rules.iter().flat_map(|(keyword, rule)| {
            let faults = self.faults_of(keyword, rule, value);
            faults.into_iter().map(move |fault| match fault.as_str() {
                "" => format!("{keyword}: {rule}: {value}"),
                _ => format!("{keyword}: {fault}"),
            })
        });
        faults.collect()
    }

    /// The faults by one keyword; an empty text for one that needs no words.
    fn faults_of(&self, keyword: &str, rule: &Value, value: &Value) -> Vec<String> {
        let unless = |holds: bool| {
            if holds {
                Vec::new()
            } else {
                vec![String::new()]
            }
        };
        match keyword {
            "$schema" | "$id" | "$defs" | "title" | "description" => Vec::new(),
            "$ref" => {
                let path = rule.as_str().unwrap().strip_prefix('#').unwrap();
                self.faults_by(self.root.pointer(path).unwrap(), value)
            }
            "oneOf" => {
                let all: Vec<_> = rule.as_array().unwrap().iter().collect();
                let faults = all.iter().map(|one| self.faults_by(one, value));
                let faults: Vec<_> = faults.collect();
                match faults.iter().filter(|faults| faults.is_empty()).count() {
                    1 => Vec::new(),
                    count => vec![format!("{count} apply: {faults:?}")],
                }
            }
            "required" | "dependentRequired" => faults_of_names(keyword, rule, value),
            "type" => unless(match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "number" => value.is_number(),
                "null" => value.is_null(),
                "integer" => value.is_u64() || value.is_i64(),
                other => panic!("type {other}"),
            }),
            "items" | "maxItems" => self.faults_of_items(keyword, rule, value),
            "additionalProperties" => {
                let fields = value.as_object().into_iter().flatten();
                fields
                    .flat_map(|(_, value)| self.faults_by(rule, value))
                    .collect()
            }
            "const" => unless(value == rule),
            "minProperties" => {
                let count = value.as_object().map_or(0, serde_json::Map::len);
                unless(count as u64 >= rule.as_u64().unwrap())
            }
            "enum" => unless(rule.as_array().unwrap().contains(value)),
            "minimum" => unless(value.as_i64() >= rule.as_i64()),
            "maximum" => unless(value.as_i64() <= rule.as_i64()),
            "maxLength" => {
                let most = usize::try_from(rule.as_u64().unwrap()).unwrap();
                unless(
                    value
                        .as_str()
                        .is_some_and(|text| text.chars().count() <= most),
                )
            }
            "pattern" => {
                let pattern = Regex::new(rule.as_str().unwrap()).unwrap();
                unless(value.as_str().is_some_and(|text| pattern.is_match(text)))
            }
            "properties" => self.faults_of_fields(rule, value),
            other => panic!("the keyword {other}"),
        }
    }

    fn faults_of_fields(&self, rule: &Value, value: &Value) -> Vec<String> {
        let fields = value.as_object().into_iter().flatten();
        let faults = fields.flat_map(|(name, value)| {
            let faults = match rule.get(name) {
                Some(rule) => self.faults_by(rule, value),
                None => vec!["is not described".to_owned()],
            };
            let faults = faults.into_iter();
            faults.map(move |fault| format!("{name}: {fault}"))
        });
        faults.collect()
    }

    fn faults_of_items(&self, keyword: &str, rule: &Value, value: &Value) -> Vec<String> {
        // What is no list is a fault of its `type`.
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        if keyword == "maxItems" {
            let is_over = items.len() as u64 > rule.as_u64().unwrap();
            return is_over.then(String::new).into_iter().collect();
        }
        let faults = items.iter().enumerate().flat_map(|(nth, item)| {
            let faults = self.faults_by(rule, item).into_iter();
            faults.map(move |fault| format!("{nth}: {fault}"))
        });
        faults.collect()
    }
}

/// The fields that are missing.
fn faults_of_names(keyword: &str, rule: &Value, value: &Value) -> Vec<String> {
    let names = |list: &Value| -> Vec<String> {
        let names = list.as_array().unwrap().iter();
        let names = names.map(|name| name.as_str().unwrap().to_owned());
        names.collect()
    };
    let mut needed = match keyword {
        "required" => names(rule),
        _ => {
            let rules = rule.as_object().unwrap().iter();
            let rules = rules.filter(|(name, _)| value.get(name).is_some());
            rules.flat_map(|(_, needed)| names(needed)).collect()
        }
    };
    needed.retain(|name| value.get(name).is_none());
    needed
}
