//! Spans as a collector reads them: OTLP/HTTP with JSON (OpenTelemetry protocol 1.x).
//!
//! Ids are hexadecimal, 64-bit numbers are strings, and names are in lowerCamelCase, as that asks for.

use serde::{Deserialize, Serialize, Serializer};

use super::trace_context::write_hex;

/// Where below a collector's address traces go.
pub const PATH: &str = "/v1/traces";

/// A stretch of work.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// The trace that it belongs to.
    #[serde(serialize_with = "trace_id")]
    pub trace_id: u128,
    /// Its own id.
    #[serde(serialize_with = "span_id")]
    pub span_id: u64,
    /// The span that it is a part of; zero for none.
    #[serde(serialize_with = "span_id", skip_serializing_if = "is_zero")]
    pub parent_span_id: u64,
    /// What it is called.
    pub name: String,
    /// On which side of which call it is.
    pub kind: Kind,
    /// When it began, in nanoseconds since 1970.
    #[serde(serialize_with = "text")]
    pub start_time_unix_nano: u64,
    /// When it ended, likewise.
    #[serde(serialize_with = "text")]
    pub end_time_unix_nano: u64,
    /// What is known of it.
    pub attributes: Vec<Attribute>,
    /// Whether it came to a good end.
    pub status: Status,
}

/// On which side of which call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Inside.
    Internal = 1,
    /// It answers a call.
    Server = 2,
    /// It makes one.
    Client = 3,
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// Whether a span came to a good end.
#[derive(Debug, Default, Serialize)]
pub struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

impl Status {
    /// It did not, and why, where that is known.
    pub fn error(message: Option<&'static str>) -> Self {
        const ERROR: u8 = 2;
        Self {
            code: Some(ERROR),
            message,
        }
    }
}

/// A name and a value.
#[derive(Debug, Clone, Serialize)]
pub struct Attribute {
    key: &'static str,
    value: Value,
}

#[derive(Debug, Clone, Serialize)]
enum Value {
    #[serde(rename = "stringValue")]
    Text(String),
    #[serde(rename = "intValue", serialize_with = "text")]
    Number(u64),
    #[serde(rename = "boolValue")]
    Truth(bool),
}

impl Attribute {
    /// A text.
    pub fn text(key: &'static str, text: impl Into<String>) -> Self {
        let value = Value::Text(text.into());
        Self { key, value }
    }

    /// A whole number.
    pub fn number(key: &'static str, number: u64) -> Self {
        let value = Value::Number(number);
        Self { key, value }
    }

    /// Whether something is so.
    pub fn truth(key: &'static str, is_so: bool) -> Self {
        let value = Value::Truth(is_so);
        Self { key, value }
    }
}

/// The body of a request to a collector: `spans` of the process that `resource` tells of.
///
/// # Errors
/// Never in practice: these types have no text that JSON lacks.
pub fn body(resource: &[Attribute], spans: &[Span]) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        resource_spans: [ResourceSpans<'a>; 1],
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ResourceSpans<'a> {
        resource: Resource<'a>,
        scope_spans: [ScopeSpans<'a>; 1],
    }
    #[derive(Serialize)]
    struct Resource<'a> {
        attributes: &'a [Attribute],
    }
    #[derive(Serialize)]
    struct ScopeSpans<'a> {
        scope: Scope,
        spans: &'a [Span],
    }
    #[derive(Serialize)]
    struct Scope {
        name: &'static str,
        version: &'static str,
    }
    let scope = Scope {
        name: "wardent",
        version: env!("CARGO_PKG_VERSION"),
    };
    serde_json::to_vec(&Body {
        resource_spans: [ResourceSpans {
            resource: Resource {
                attributes: resource,
            },
            scope_spans: [ScopeSpans { scope, spans }],
        }],
    })
}

/// How many spans a collector says it did not take, in its answer to a request that succeeded.
pub fn rejected(answer: &[u8]) -> u64 {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Answer {
        partial_success: Partial,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Partial {
        rejected_spans: serde_json::Value,
    }
    let answer: Answer = serde_json::from_slice(answer).unwrap_or_default();
    let count = answer.partial_success.rejected_spans;
    let as_text = || count.as_str()?.parse().ok();
    count.as_u64().or_else(as_text).unwrap_or(0)
}

fn trace_id<S: Serializer>(id: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    let mut digits = [0; 32];
    write_hex(*id, &mut digits);
    serializer.serialize_str(std::str::from_utf8(&digits).unwrap_or_default())
}

fn span_id<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    let mut digits = [0; 16];
    write_hex((*id).into(), &mut digits);
    serializer.serialize_str(std::str::from_utf8(&digits).unwrap_or_default())
}

fn is_zero(id: &u64) -> bool {
    *id == 0
}

fn text<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_the_protocol_asks() {
        let span = Span {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span_id: 0xf0,
            parent_span_id: 0,
            name: "GET shop".to_owned(),
            kind: Kind::Server,
            start_time_unix_nano: 1_795_255_201_042_000_000,
            end_time_unix_nano: 1_795_255_201_043_000_001,
            attributes: vec![
                Attribute::number("http.response.status_code", 502),
                Attribute::truth("wardent.observed", false),
            ],
            status: Status::error(Some("refused the connection")),
        };
        let body = body(&[Attribute::text("service.name", "wardent")], &[span]).unwrap();
        let expected = serde_json::json!({"resourceSpans": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "wardent"}}]},
            "scopeSpans": [{
                "scope": {"name": "wardent", "version": env!("CARGO_PKG_VERSION")},
                "spans": [{
                    "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
                    "spanId": "00000000000000f0",
                    "name": "GET shop",
                    "kind": 2,
                    "startTimeUnixNano": "1795255201042000000",
                    "endTimeUnixNano": "1795255201043000001",
                    "attributes": [
                        {"key": "http.response.status_code", "value": {"intValue": "502"}},
                        {"key": "wardent.observed", "value": {"boolValue": false}},
                    ],
                    "status": {"code": 2, "message": "refused the connection"},
                }],
            }],
        }]});
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body, expected);
    }

    #[test]
    fn what_a_collector_did_not_take_is_counted() {
        for (answer, count) in [
            ("{}", 0),
            ("", 0),
            (r#"{"partialSuccess": {}}"#, 0),
            (r#"{"partialSuccess": {"rejectedSpans": "7"}}"#, 7),
            (
                r#"{"partialSuccess": {"rejectedSpans": 7, "errorMessage": "x"}}"#,
                7,
            ),
        ] {
            assert_eq!(rejected(answer.as_bytes()), count, "{answer}");
        }
    }
}
