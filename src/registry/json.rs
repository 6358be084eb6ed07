//! JSON Schema, and whether one takes every value that another takes (drafts 4 to 2020-12).
//!
//! That question has no cheap exact answer. This one is sound and no more: each keyword of the wider
//! schema must follow from a keyword of the same name in the narrower one, by itself. What would need two
//! keywords together, references, or looking into `anyOf` and the like, only follows from being the same.
//! So a yes is one, and some changes that would do no harm are refused.

use std::{cmp::Ordering, collections::BTreeSet};

use serde_json::{Map, Number, Value};

/// What says nothing about values.
const ANNOTATIONS: &[&str] = &[
    "$comment",
    "default",
    "deprecated",
    "description",
    "example",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
];

/// What a schema is called. It says nothing about values, unless something refers to it.
const NAMES: &[&str] = &["$id", "id"];

/// Which draft it is written for.
const DRAFT: &str = "$schema";

/// Keywords whose meaning lies elsewhere in the schema.
const REFERENCES: &[&str] = &["$ref", "$dynamicRef", "$recursiveRef"];

/// The names of types.
const TYPES: &[&str] = &[
    "array", "boolean", "integer", "null", "number", "object", "string",
];

/// Whether a value is a schema.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    let Value::Object(schema) = schema else {
        let words = || "a JSON Schema is an object, or true or false".to_owned();
        return schema.is_boolean().then_some(()).ok_or_else(words);
    };
    if let Some(kinds) = schema.get("type")
        && types(kinds).is_none()
    {
        return Err(format!(
            "`type` must be one of {}, or a list of them",
            TYPES.join(", ")
        ));
    }
    for name in ["properties", "patternProperties", "$defs", "definitions"] {
        match schema.get(name) {
            Some(Value::Object(all)) => all.values().try_for_each(check)?,
            Some(_) => return Err(format!("`{name}` must be an object of schemas")),
            None => {}
        }
    }
    for name in ["allOf", "anyOf", "oneOf", "prefixItems"] {
        match schema.get(name) {
            Some(Value::Array(all)) if !all.is_empty() => all.iter().try_for_each(check)?,
            Some(_) => return Err(format!("`{name}` must be a list of schemas")),
            None => {}
        }
    }
    for name in [
        "not",
        "if",
        "then",
        "else",
        "contains",
        "additionalProperties",
        "propertyNames",
    ] {
        schema.get(name).map_or(Ok(()), check)?;
    }
    match schema.get("required") {
        // Draft 3's own is not read here.
        Some(required) if texts(required).is_none() => {
            Err("`required` must be a list of names".to_owned())
        }
        _ => Ok(()),
    }
}

/// Whether `wider` takes every value that `narrower` takes.
///
/// # Errors
/// Where that does not follow.
pub(super) fn takes_all_of(wider: &Value, narrower: &Value) -> Result<(), String> {
    let (wider, narrower) = (bare(wider), bare(narrower));
    if wider == narrower {
        return Ok(());
    }
    if has_references(&wider) || has_references(&narrower) {
        return Err("it holds references, and is not the same schema".to_owned());
    }
    follows(&nameless(&wider), &nameless(&narrower), "#")
}

/// The schema without what says nothing about values.
fn bare(schema: &Value) -> Value {
    without(ANNOTATIONS, schema)
}

/// The schema without what it is called.
fn nameless(schema: &Value) -> Value {
    without(NAMES, schema)
}

/// The schema, and those in it, without these keywords.
fn without(keywords: &[&str], schema: &Value) -> Value {
    let Value::Object(all) = schema else {
        return schema.clone();
    };
    let left = all
        .iter()
        .filter(|(name, _)| !keywords.contains(&name.as_str()));
    let left = left.map(|(name, value)| (name.clone(), within(keywords, name, value)));
    Value::Object(left.collect())
}

/// What a keyword says, likewise. Only where schemas stand: all else may hold words that look like keywords.
fn within(keywords: &[&str], name: &str, value: &Value) -> Value {
    let each = |value: &Value| without(keywords, value);
    match (name, value) {
        // By names of properties. Draft 7's `dependencies` are schemas, or lists of names.
        (
            "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas"
            | "dependencies",
            Value::Object(named),
        ) => {
            let named = named
                .iter()
                .map(|(name, schema)| (name.clone(), each(schema)));
            Value::Object(named.collect())
        }
        ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(all)) => {
            Value::Array(all.iter().map(each).collect())
        }
        (
            "not"
            | "if"
            | "then"
            | "else"
            | "contains"
            | "items"
            | "additionalItems"
            | "unevaluatedItems"
            | "additionalProperties"
            | "unevaluatedProperties"
            | "propertyNames"
            | "contentSchema",
            _,
        ) => each(value),
        _ => value.clone(),
    }
}

fn has_references(schema: &Value) -> bool {
    match schema {
        Value::Object(all) => all
            .iter()
            .any(|(name, value)| REFERENCES.contains(&name.as_str()) || has_references(value)),
        Value::Array(all) => all.iter().any(has_references),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A schema that takes everything.
const ANYTHING: Value = Value::Bool(true);

fn takes_anything(schema: &Value) -> bool {
    match schema {
        Value::Bool(takes) => *takes,
        Value::Object(all) => all.is_empty(),
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => false,
    }
}

fn follows(wider: &Value, narrower: &Value, place: &str) -> Result<(), String> {
    if takes_anything(wider) || *narrower == Value::Bool(false) || wider == narrower {
        return Ok(());
    }
    let empty = Map::new();
    let narrower = narrower.as_object().unwrap_or(&empty);
    let Value::Object(all) = wider else {
        return Err(format!("{place}: takes nothing any more"));
    };
    if draft(all) != draft(narrower) {
        return Err(format!("{place}: `{DRAFT}` is another"));
    }
    for (keyword, value) in all {
        keyword_follows(keyword, value, all, narrower, place)
            .then_some(())
            .or_else(|| objects_follow(keyword, all, narrower, place))
            .ok_or_else(|| format!("{place}: `{keyword}` takes less than before"))?;
    }
    Ok(())
}

/// The draft that says what the keywords mean; one that is written with and without `#` is the same.
fn draft(schema: &Map<String, Value>) -> Option<&str> {
    let draft = schema.get(DRAFT)?.as_str()?;
    Some(draft.trim_end_matches('#'))
}

/// Whether what a keyword of the wider schema asks for is asked by the narrower one's own.
fn keyword_follows(
    keyword: &str,
    value: &Value,
    wider: &Map<String, Value>,
    narrower: &Map<String, Value>,
    place: &str,
) -> bool {
    let other = narrower.get(keyword);
    if other == Some(value) && !matches!(keyword, "additionalProperties" | "additionalItems") {
        return is_alone(keyword, wider, narrower);
    }
    let order = || match (other, value) {
        (Some(Value::Number(narrow)), Value::Number(wide)) => compared(narrow, wide),
        _ => None,
    };
    match keyword {
        // Looked at already.
        DRAFT => true,
        "type" => types(value)
            .zip(other.and_then(types))
            .is_some_and(|(wide, narrow)| {
                narrow.iter().all(|kind| {
                    wide.contains(kind) || (*kind == "integer" && wide.contains("number"))
                })
            }),
        "enum" | "const" => {
            let narrow = values(narrower);
            let wide = match (keyword, value) {
                ("enum", Value::Array(all)) => all.iter().collect(),
                _ => vec![value],
            };
            narrow.is_some_and(|narrow| narrow.iter().all(|value| wide.contains(value)))
        }
        "minimum" | "minLength" | "minItems" | "minProperties" => {
            // Draft 4's is a mark beside the bound, and changes what it means.
            !has_marks(wider, narrower) && order().is_some_and(Ordering::is_ge)
        }
        "maximum" | "maxLength" | "maxItems" | "maxProperties" => {
            !has_marks(wider, narrower) && order().is_some_and(Ordering::is_le)
        }
        "required" => texts(value).is_some_and(|wide| {
            let narrow = other.and_then(texts).unwrap_or_default();
            wide.is_subset(&narrow)
        }),
        "uniqueItems" => *value == Value::Bool(false),
        "items" => {
            let is_plain = |schema: &Map<String, Value>| !schema.contains_key("prefixItems");
            let wide_is_one = value.is_object() || value.is_boolean();
            let narrow = other.unwrap_or(&ANYTHING);
            let narrow_is_one = narrow.is_object() || narrow.is_boolean();
            is_plain(wider)
                && is_plain(narrower)
                && wide_is_one
                && narrow_is_one
                && follows(value, narrow, &format!("{place}/items")).is_ok()
        }
        // Without what refers to them, they say nothing.
        "$defs" | "definitions" => true,
        _ => false,
    }
}

/// Whether a keyword that is the same in both means the same in both: some mean what others leave.
fn is_alone(keyword: &str, wider: &Map<String, Value>, narrower: &Map<String, Value>) -> bool {
    let neighbours: &[&str] = match keyword {
        "items" => &["prefixItems", "additionalItems"],
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
            return !has_marks(wider, narrower) || bounds(wider) == bounds(narrower);
        }
        "contains" | "minContains" | "maxContains" => &["contains", "minContains", "maxContains"],
        "if" | "then" | "else" => &["if", "then", "else"],
        "unevaluatedProperties" | "unevaluatedItems" => return wider == narrower,
        _ => &[],
    };
    neighbours
        .iter()
        .all(|name| wider.get(*name) == narrower.get(*name))
}

fn has_marks(wider: &Map<String, Value>, narrower: &Map<String, Value>) -> bool {
    let is_mark = |schema: &Map<String, Value>| {
        ["exclusiveMinimum", "exclusiveMaximum"]
            .iter()
            .any(|name| schema.get(*name).is_some_and(Value::is_boolean))
    };
    is_mark(wider) || is_mark(narrower)
}

fn bounds(schema: &Map<String, Value>) -> [Option<&Value>; 4] {
    ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"].map(|name| schema.get(name))
}

/// What is asked of members: `properties` and `additionalProperties` together.
fn objects_follow(
    keyword: &str,
    wider: &Map<String, Value>,
    narrower: &Map<String, Value>,
    place: &str,
) -> Option<()> {
    if !matches!(keyword, "properties" | "additionalProperties") {
        return None;
    }
    if wider.get("patternProperties") != narrower.get("patternProperties") {
        return None;
    }
    let has_patterns = wider.contains_key("patternProperties");
    let rest = |schema: &Map<String, Value>| {
        let rest = schema.get("additionalProperties");
        rest.cloned().unwrap_or(ANYTHING)
    };
    let members = |schema: &Map<String, Value>| match schema.get("properties") {
        Some(Value::Object(all)) => all.clone(),
        _ => Map::new(),
    };
    let (wide, narrow) = (members(wider), members(narrower));
    let (wide_rest, narrow_rest) = (rest(wider), rest(narrower));
    if keyword == "properties" {
        for (name, schema) in &wide {
            let place = format!("{place}/properties/{name}");
            let own = narrow.get(name);
            // A member that a pattern takes is not one of the rest.
            let other = own.unwrap_or(if has_patterns {
                &ANYTHING
            } else {
                &narrow_rest
            });
            follows(schema, other, &place).ok()?;
        }
        return Some(());
    }
    let place = format!("{place}/additionalProperties");
    follows(&wide_rest, &narrow_rest, &place).ok()?;
    let gone = narrow.iter().filter(|(name, _)| !wide.contains_key(*name));
    for (_, schema) in gone {
        follows(&wide_rest, schema, &place).ok()?;
    }
    Some(())
}

/// Which number is the greater, exactly: beyond 2^53 not every integer is a floating-point number.
fn compared(one: &Number, other: &Number) -> Option<Ordering> {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        (Some(one), None) => Some(compared_with(one, other.as_f64()?)),
        (None, Some(other)) => Some(compared_with(other, one.as_f64()?).reverse()),
        (None, None) => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

fn compared_with(whole: i128, number: f64) -> Ordering {
    let floor = number.floor();
    match format!("{floor:.0}").parse::<i128>() {
        Ok(below) if whole == below && floor < number => Ordering::Less,
        Ok(below) => whole.cmp(&below),
        Err(_) if number > 0.0 => Ordering::Less,
        Err(_) => Ordering::Greater,
    }
}

fn types(value: &Value) -> Option<BTreeSet<&str>> {
    let known = |value: &'_ Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    match value {
        Value::String(name) => known(value).then(|| BTreeSet::from([name.as_str()])),
        Value::Array(all) if !all.is_empty() && all.iter().all(known) => {
            Some(all.iter().filter_map(Value::as_str).collect())
        }
        Value::Array(_) | Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {
            None
        }
    }
}

fn texts(value: &Value) -> Option<BTreeSet<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

/// All values that a schema names, where it takes no others.
fn values(schema: &Map<String, Value>) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(Value::Array(all))) => Some(all.iter().collect()),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn takes(wider: &Value, narrower: &Value) -> bool {
        takes_all_of(wider, narrower).is_ok()
    }

    #[test]
    fn annotations_change_nothing() {
        let one = json!({"type": "string", "title": "a", "$id": "x", "examples": ["y"]});
        let other = json!({"type": "string", "description": "b", "default": "z"});
        assert!(takes(&one, &other) && takes(&other, &one));
        // A property may be called as one of them is.
        let one = json!({"properties": {"title": {"type": "string"}}});
        let other = json!({"properties": {"title": {"type": "integer"}}});
        assert!(!takes(&one, &other));
    }

    #[test]
    fn a_word_is_an_annotation_only_where_a_keyword_stands() {
        for (one, other) in [
            (
                json!({"dependentRequired": {"title": ["a"]}}),
                json!({"dependentRequired": {}}),
            ),
            (
                json!({"dependentSchemas": {"default": {"required": ["a"]}}}),
                json!({"dependentSchemas": {}}),
            ),
            (
                json!({"dependencies": {"id": ["a"]}}),
                json!({"dependencies": {}}),
            ),
            (
                json!({"dependencies": {"a": ["title"]}}),
                json!({"dependencies": {"a": ["id"]}}),
            ),
            (json!({"const": {"title": 1}}), json!({"const": {}})),
            (json!({"x-own": {"title": 1}}), json!({"x-own": {}})),
        ] {
            assert!(!takes(&one, &other), "{one} {other}");
            assert!(takes(&one, &one) && takes(&other, &other));
        }
        let one = json!({"dependencies": {"a": {"title": "a", "required": ["b"]}}});
        let other = json!({"dependencies": {"a": {"required": ["b"]}}});
        assert!(takes(&one, &other) && takes(&other, &one));
    }

    #[test]
    fn another_draft_may_mean_something_else() {
        let of = |draft: &str| json!({"$schema": draft, "minimum": 1});
        let seven = "http://json-schema.org/draft-07/schema#";
        assert!(!takes(
            &of(seven),
            &of("http://json-schema.org/draft-04/schema#")
        ));
        assert!(!takes(&of(seven), &json!({"minimum": 1})));
        assert!(!takes(&json!({"minimum": 1}), &of(seven)));
        assert!(takes(
            &of(seven),
            &of("http://json-schema.org/draft-07/schema")
        ));
        let narrower = json!({"$schema": seven, "minimum": 2});
        assert!(takes(&of(seven), &narrower));
    }

    #[test]
    fn what_refers_to_a_name_means_another_when_that_changes() {
        let called = |name: &str| json!({"$id": name, "$ref": "other.json"});
        assert!(takes(
            &called("http://a.test/x"),
            &called("http://a.test/x")
        ));
        assert!(!takes(
            &called("http://a.test/x"),
            &called("http://b.test/x")
        ));
    }

    #[test]
    fn numbers_are_compared_exactly() {
        let limit = 1_u64 << 53;
        for (keyword, wide, narrow) in [
            ("minimum", json!(limit), json!(limit + 1)),
            ("maximum", json!(limit + 1), json!(limit)),
            ("maximum", json!(u64::MAX), json!(u64::MAX - 1)),
            ("minimum", json!(i64::MIN), json!(i64::MIN + 1)),
            ("minimum", json!(-1.5), json!(-1)),
            ("minimum", json!(-2), json!(-1.5)),
            ("maximum", json!(1e300), json!(u64::MAX)),
            ("minimum", json!(-1e300), json!(i64::MIN)),
            ("maximum", json!(0.5), json!(0.25)),
        ] {
            let of = |bound: &Value| {
                Value::Object(Map::from_iter([(keyword.to_owned(), bound.clone())]))
            };
            let (wide, narrow) = (of(&wide), of(&narrow));
            assert!(takes(&wide, &narrow), "{wide} takes {narrow}");
            assert!(!takes(&narrow, &wide), "{narrow} does not take {wide}");
        }
        let (whole, real) = (json!({"minimum": 2}), json!({"minimum": 2.0}));
        assert!(takes(&whole, &real) && takes(&real, &whole));
    }

    #[test]
    fn each_keyword_may_grow_wider_and_not_narrower() {
        for (wider, narrower) in [
            (json!({}), json!({"type": "string"})),
            (json!(true), json!({"type": "string"})),
            (
                json!({"type": ["string", "number"]}),
                json!({"type": "integer"}),
            ),
            (json!({"enum": [1, 2, 3]}), json!({"enum": [3, 1]})),
            (json!({"enum": [1, 2, 3]}), json!({"const": 2})),
            (json!({"minimum": 1}), json!({"minimum": 2})),
            (json!({"maxLength": 10}), json!({"maxLength": 9})),
            (json!({"required": ["a"]}), json!({"required": ["a", "b"]})),
            (
                json!({"items": {"type": "number"}}),
                json!({"items": {"type": "integer"}}),
            ),
            (
                json!({"properties": {"a": {"type": ["string", "null"]}}}),
                json!({"properties": {"a": {"type": "string"}}}),
            ),
            // A new property, where none but the known ones could be before.
            (
                json!({"properties": {"a": {}, "b": {"type": "string"}}, "additionalProperties": false}),
                json!({"properties": {"a": {}}, "additionalProperties": false}),
            ),
            (
                json!({"properties": {"a": {"type": "string"}}}),
                json!({"properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}),
            ),
        ] {
            assert!(takes(&wider, &narrower), "{wider} takes {narrower}");
            assert!(
                !takes(&narrower, &wider),
                "{narrower} does not take {wider}"
            );
        }
    }

    #[test]
    fn what_values_of_before_may_hold_counts() {
        // `b` could be there before, as anything.
        assert!(!takes(
            &json!({"properties": {"b": {"type": "string"}}}),
            &json!({})
        ));
        // What was a property is one of the rest now.
        assert!(!takes(
            &json!({"additionalProperties": {"type": "string"}}),
            &json!({"properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}),
        ));
        assert!(!takes(
            &json!({"properties": {"ab": {"type": "string"}}, "patternProperties": {"^a": {}}, "additionalProperties": false}),
            &json!({"patternProperties": {"^a": {}}, "additionalProperties": false}),
        ));
    }

    #[test]
    fn what_is_not_understood_only_follows_from_itself() {
        for (one, other) in [
            (json!({"pattern": "a"}), json!({"pattern": "aa"})),
            (
                json!({"not": {"const": 1}}),
                json!({"not": {"enum": [1, 2]}}),
            ),
            (json!({"anyOf": [{}, {"const": 1}]}), json!({"anyOf": [{}]})),
            (json!({"x-own": 1}), json!({"x-own": 2})),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"const": 1}}}),
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"const": 2}}}),
            ),
            // Draft 4: a bound that is not taken itself.
            (
                json!({"minimum": 1, "exclusiveMinimum": true}),
                json!({"minimum": 1}),
            ),
        ] {
            assert!(takes(&one, &one) && !takes(&one, &other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for wrong in [
            json!(1),
            json!({"type": "text"}),
            json!({"type": []}),
            json!({"properties": [1]}),
            json!({"properties": {"a": 3}}),
            json!({"anyOf": []}),
            json!({"required": [1]}),
        ] {
            assert!(check(&wrong).is_err(), "{wrong}");
        }
    }
}
