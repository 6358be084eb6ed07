//! The schema registry, at the paths and in the words of Confluent's API.
//!
//! Reading, looking a schema up and trying one out are for whoever may read; what changes something needs
//! the token or the admin socket. Parameters that are not known here are passed over, as clients of all
//! ages send theirs.

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    api::{Answer, Query, decoded},
    server::{Door, Server, answer},
};
use crate::registry::{Which, level::Level, refused::Refused, schema::Kind};

/// What an answer is.
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// What a question may be.
const CONTENT_TYPES: &[&str] = &[
    CONTENT_TYPE,
    "application/vnd.schemaregistry+json",
    "application/json",
    "application/octet-stream",
];

/// Bytes of a question at most: a schema as long as it may be, escaped, and what stands around it.
const QUESTION_BYTES_MAX: usize = 640 << 10;

/// Whether a path is one of the registry's.
pub(super) fn is_here(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    matches!(
        parts.next(),
        Some("subjects" | "schemas" | "config" | "mode" | "compatibility")
    )
}

/// What may be asked of a path of the registry.
pub(super) fn methods_of(path: &str) -> &'static str {
    let parts: Vec<_> = path
        .split('/')
        .skip(1)
        .filter(|part| !part.is_empty())
        .collect();
    match parts[..] {
        ["subjects", _] => "POST, DELETE",
        ["subjects", _, "versions"] => "GET, POST",
        ["subjects", _, "versions", _] => "GET, DELETE",
        ["config" | "mode"] | ["config" | "mode", _] => "GET, PUT, DELETE",
        ["compatibility", ..] => "POST",
        _ => "GET",
    }
}

/// A schema that somebody brings.
#[derive(Debug, Deserialize)]
struct Brought {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Option<Vec<Value>>,
}

impl Brought {
    /// The language, where it is one that is taken.
    fn kind(&self) -> Result<Kind, Refused> {
        if self.references.as_ref().is_some_and(|all| !all.is_empty()) {
            return Err(bad_schema(
                "references to other schemas are not supported here",
            ));
        }
        match self.kind.as_deref() {
            None | Some("AVRO" | "") => Ok(Kind::Avro),
            Some("JSON") => Ok(Kind::Json),
            Some("PROTOBUF") => Ok(Kind::Protobuf),
            Some(other) => Err(bad_schema(&format!(
                "there is no type {}",
                other.escape_debug()
            ))),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Wanted {
    compatibility: String,
}

fn bad_schema(why: &str) -> Refused {
    Refused {
        code: 42_201,
        message: format!("Invalid schema: {why}"),
    }
}

fn no_method() -> Refused {
    Refused {
        code: 405,
        message: "HTTP 405 Method Not Allowed".to_owned(),
    }
}

fn not_here() -> Refused {
    Refused {
        code: 404,
        message: "HTTP 404 Not Found".to_owned(),
    }
}

/// A question, taken apart.
struct Question {
    method: Method,
    /// The parts of its path, decoded.
    parts: Vec<String>,
    query: Query,
    door: Door,
    body: Vec<u8>,
}

impl Question {
    async fn read(request: Request<Incoming>, door: Door) -> Result<Self, Refused> {
        let (head, body) = request.into_parts();
        let unreadable = |message: &str| Refused {
            code: 400,
            message: message.to_owned(),
        };
        let parts = head.uri.path().split('/').filter(|part| !part.is_empty());
        let parts: Option<Vec<_>> = parts.map(decoded_part).collect();
        let parts = parts.ok_or_else(|| unreadable("the path is badly encoded"))?;
        let query =
            Query::read_any(head.uri.query()).map_err(|refused| unreadable(&refused.words))?;
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.map(|value| value.to_str().unwrap_or_default());
        let media = content_type.map(|value| value.split(';').next().unwrap_or_default().trim());
        // A page of another site can send what says nothing of its type, and nothing of these types, without
        // being asked for permission (Fetch standard, CORS-safelisted request-header).
        let is_taken = match media {
            Some(media) => CONTENT_TYPES.contains(&media),
            None => !matches!(head.method, Method::POST | Method::PUT),
        };
        if !is_taken {
            return Err(Refused {
                code: 415,
                message: "HTTP 415 Unsupported Media Type".to_owned(),
            });
        }
        let body = Limited::new(body, QUESTION_BYTES_MAX).collect().await;
        let body = body.map_err(|_| Refused {
            code: 413,
            message: format!("the body broke off, or is longer than {QUESTION_BYTES_MAX} bytes"),
        })?;
        Ok(Self {
            method: head.method,
            parts,
            query,
            door,
            body: body.to_bytes().to_vec(),
        })
    }

    fn is_set(&self, name: &str) -> bool {
        self.query.get(name).is_some_and(|value| value == "true")
    }

    fn body<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Refused> {
        serde_json::from_slice(&self.body).map_err(|error| Refused {
            code: 42_201,
            message: format!("the body is not what is asked for: {error}"),
        })
    }

    /// Whoever asks may act.
    fn may_act(&self) -> Result<(), Refused> {
        self.door.actor().map(drop).map_err(|refused| Refused {
            code: refused.status.as_u16().into(),
            message: refused.words,
        })
    }
}

/// Adds a member to an object.
fn add(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Value::Object(members) = object {
        members.insert(name.to_owned(), value.into());
    }
}

/// A part of a path, where a plus is one.
fn decoded_part(part: &str) -> Option<String> {
    decoded(&part.replace('+', "%2B"))
}

impl Server {
    /// Answers what is asked of the registry.
    pub(super) async fn registry(&self, request: Request<Incoming>, door: Door) -> Answer {
        let said = match Question::read(request, door).await {
            Ok(question) => self.registry_answer(&question).await,
            Err(refused) => Err(refused),
        };
        let (status, body) = match said {
            Ok(body) => (StatusCode::OK, body),
            Err(refused) => {
                let status = StatusCode::from_u16(refused.status());
                let body = json!({"error_code": refused.code, "message": refused.message});
                let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, body.to_string())
            }
        };
        answer(status, CONTENT_TYPE, body)
    }

    async fn registry_answer(&self, question: &Question) -> Result<String, Refused> {
        let parts: Vec<_> = question.parts.iter().map(String::as_str).collect();
        let Some((first, rest)) = parts.split_first() else {
            return Err(not_here());
        };
        let said = match *first {
            "subjects" => return self.subjects(question, rest).await,
            "schemas" => return self.schemas(question, rest),
            "config" => self.levels(question, rest).await,
            "mode" => self.modes(question, rest),
            "compatibility" => self.try_out(question, rest).await,
            _ => Err(not_here()),
        };
        said.map(|said| said.to_string())
    }

    async fn subjects(&self, question: &Question, path: &[&str]) -> Result<String, Refused> {
        let (registry, deleted) = (&self.view.log.registry, question.is_set("deleted"));
        let permanently = question.is_set("permanent");
        let said = match (question.method.as_str(), path) {
            ("GET", []) => {
                let prefix = question.query.get("subjectPrefix").unwrap_or_default();
                json!(registry.subjects(prefix, deleted))
            }
            ("POST", [subject]) => {
                let brought: Brought = question.body()?;
                let kind = brought.kind()?;
                let found = registry.find(subject, kind, brought.schema, deleted);
                found.await?.as_json()
            }
            ("DELETE", [subject]) => {
                question.may_act()?;
                json!(registry.delete_subject(subject, permanently).await?)
            }
            ("GET", [subject, "versions"]) => json!(registry.versions(subject, deleted)?),
            ("POST", [subject, "versions"]) => {
                question.may_act()?;
                let brought: Brought = question.body()?;
                let kind = brought.kind()?;
                let id = registry.register(subject, kind, brought.schema).await?;
                json!({"id": id})
            }
            ("GET", [subject, "versions", version]) => {
                let which = Which::parse(version)?;
                registry.version(subject, which, deleted)?.as_json()
            }
            ("DELETE", [subject, "versions", version]) => {
                question.may_act()?;
                let which = Which::parse(version)?;
                json!(registry.delete_version(subject, which, permanently).await?)
            }
            ("GET", [subject, "versions", version, "schema"]) => {
                let which = Which::parse(version)?;
                let shown = registry.version(subject, which, deleted)?;
                return Ok(shown.schema.text().to_owned());
            }
            ("GET", [subject, "versions", version, "referencedby"]) => {
                registry.version(subject, Which::parse(version)?, deleted)?;
                json!([])
            }
            (_, [] | [_] | [_, "versions"] | [_, "versions", _] | [_, "versions", _, "schema"]) => {
                return Err(no_method());
            }
            _ => return Err(not_here()),
        };
        Ok(said.to_string())
    }

    fn schemas(&self, question: &Question, path: &[&str]) -> Result<String, Refused> {
        if question.method != Method::GET {
            return Err(no_method());
        }
        let (registry, deleted) = (&self.view.log.registry, question.is_set("deleted"));
        let number = |id: &str| {
            let id = id.parse::<u32>().ok();
            id.ok_or_else(|| Refused {
                code: 404,
                message: "HTTP 404 Not Found".to_owned(),
            })
        };
        let said = match path {
            ["types"] => json!(Kind::TAKEN),
            ["ids", id] => {
                let mut shown = registry.schema(number(id)?)?.schema_as_json();
                if question.is_set("fetchMaxId") {
                    add(&mut shown, "maxId", registry.last_id());
                }
                shown
            }
            ["ids", id, "schema"] => {
                let shown = registry.schema(number(id)?)?;
                return Ok(shown.schema.text().to_owned());
            }
            ["ids", id, "versions"] => {
                let uses = registry.uses(number(id)?, deleted)?.into_iter();
                let each =
                    uses.map(|(subject, version)| json!({"subject": subject, "version": version}));
                Value::Array(each.collect())
            }
            ["ids", id, "subjects"] => {
                let uses = registry.uses(number(id)?, deleted)?.into_iter();
                let mut subjects: Vec<_> = uses.map(|(subject, _)| subject).collect();
                subjects.dedup();
                json!(subjects)
            }
            _ => return Err(not_here()),
        };
        Ok(said.to_string())
    }

    async fn levels(&self, question: &Question, path: &[&str]) -> Result<Value, Refused> {
        let subject = match path {
            [] => None,
            [subject] => Some(*subject),
            _ => return Err(not_here()),
        };
        let registry = &self.view.log.registry;
        let own = || {
            registry.own_level(subject).ok_or_else(|| Refused {
                code: 40_408,
                message: format!(
                    "Subject '{}' does not have subject-level compatibility configured",
                    subject.unwrap_or_default()
                ),
            })
        };
        match question.method.as_str() {
            "GET" => {
                let default = registry.own_level(None).unwrap_or_default();
                let level = match question.is_set("defaultToGlobal") {
                    true => own().unwrap_or(default),
                    false => own()?,
                };
                Ok(json!({"compatibilityLevel": level}))
            }
            "PUT" => {
                question.may_act()?;
                let wanted: Wanted = question.body()?;
                let level = Level::parse(&wanted.compatibility).ok_or_else(|| Refused {
                    code: 42_203,
                    message: "Invalid compatibility level. Valid values are none, backward, forward, full, backward_transitive, forward_transitive, and full_transitive".to_owned(),
                })?;
                registry.set_level(subject, Some(level)).await?;
                Ok(json!({"compatibility": level}))
            }
            "DELETE" => {
                question.may_act()?;
                let before = own()?;
                registry.set_level(subject, None).await?;
                Ok(json!({"compatibilityLevel": before}))
            }
            _ => Err(no_method()),
        }
    }

    fn modes(&self, question: &Question, path: &[&str]) -> Result<Value, Refused> {
        let subject = match path {
            [] => None,
            [subject] => Some(*subject),
            _ => return Err(not_here()),
        };
        let registry = &self.view.log.registry;
        match question.method.as_str() {
            "GET" => {
                let default = || registry.own_mode(None);
                let own = registry.own_mode(subject);
                let mode = match question.is_set("defaultToGlobal") {
                    true => own.or_else(default),
                    false => own,
                };
                let mode = mode.ok_or_else(|| Refused {
                    code: 40_409,
                    message: format!(
                        "Subject '{}' does not have subject-level mode configured",
                        subject.unwrap_or_default()
                    ),
                })?;
                Ok(json!({"mode": mode}))
            }
            "PUT" | "DELETE" => {
                question.may_act()?;
                Err(Refused {
                    code: 42_205,
                    message: "the mode cannot be changed here".to_owned(),
                })
            }
            _ => Err(no_method()),
        }
    }

    async fn try_out(&self, question: &Question, path: &[&str]) -> Result<Value, Refused> {
        let (subject, which) = match path {
            ["subjects", subject, "versions"] => (*subject, None),
            ["subjects", subject, "versions", version] => (*subject, Some(Which::parse(version)?)),
            _ => return Err(not_here()),
        };
        if question.method != Method::POST {
            return Err(no_method());
        }
        let brought: Brought = question.body()?;
        let kind = brought.kind()?;
        let registry = &self.view.log.registry;
        let wrong = registry
            .objections(subject, which, kind, brought.schema)
            .await?;
        let mut said = json!({"is_compatible": wrong.is_empty()});
        if question.is_set("verbose") {
            add(&mut said, "messages", wrong);
        }
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subjects_name_is_one_part_of_the_path_whatever_it_holds() {
        assert_eq!(decoded_part("a%2Fb+c%20d").as_deref(), Some("a/b+c d"));
        assert_eq!(decoded_part("%zz"), None);
    }

    #[test]
    fn its_paths_are_told_from_all_others() {
        for path in [
            "/subjects",
            "/subjects/a/versions",
            "/schemas/types",
            "/config",
            "/mode/a",
            "/compatibility/subjects/a/versions",
        ] {
            assert!(is_here(path), "{path}");
        }
        for path in [
            "/",
            "",
            "/metrics",
            "/subjectsx",
            "/api/v1/subjects",
            "//subjects",
        ] {
            assert!(!is_here(path), "{path}");
        }
        assert_eq!(methods_of("/subjects/a/versions/1"), "GET, DELETE");
        assert_eq!(methods_of("/subjects"), "GET");
    }
}
