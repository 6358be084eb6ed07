//! How questions and acts are read, and how they are answered: bounded, strict, as JSON.

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{error::Category, json};

use super::{live::Stream, server::answer};
use crate::event::ascii;

/// Bytes of a question at most.
const QUESTION_BYTES_MAX: usize = 64 * 1024;

/// A body that is whole, or one that goes on while things happen.
pub(super) type Body = Either<Full<Bytes>, Stream>;

pub(super) type Answer = Response<Body>;

/// What a question or an act is answered with.
pub(super) type Reply = Result<Answer, Refused>;

/// A question that is not answered, or an act that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    /// What is wrong and what would be right.
    pub(super) words: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self {
            status,
            words: words.into(),
        }
    }

    /// The question cannot be read.
    pub(super) fn unreadable(words: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, words)
    }

    /// The question can be read and makes no sense.
    pub(super) fn senseless(words: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, words)
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        let body = written(&json!({"error": refused.words}));
        answer(refused.status, "application/json", body)
    }
}

/// An answer that says `what`, in printable ASCII alone: whoever shows it on a terminal as it comes shows
/// what strangers wrote.
pub(super) fn say(status: StatusCode, what: &impl Serialize) -> Reply {
    Ok(answer(status, "application/json", written(what)))
}

fn written(what: &impl Serialize) -> String {
    let mut body = Vec::new();
    ascii::write_json(what, &mut body);
    body.push(b'\n');
    String::from_utf8_lossy(&body).into_owned()
}

/// The body of a request, as what it means.
///
/// # Errors
/// When it is too long, breaks off, is no JSON, or says something else than is asked for.
pub(super) async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refused> {
    read_up_to(request, QUESTION_BYTES_MAX).await
}

/// As [`read`], of so many bytes at most.
///
/// # Errors
/// As [`read`].
pub(super) async fn read_up_to<T: DeserializeOwned>(
    request: Request<Incoming>,
    bytes_max: usize,
) -> Result<T, Refused> {
    let body = Limited::new(request.into_body(), bytes_max);
    let bytes = body.collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Refused::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is longer than {bytes_max} bytes"),
            )
        } else {
            Refused::unreadable("the body broke off")
        }
    })?;
    serde_json::from_slice(&bytes.to_bytes()).map_err(|error| match error.classify() {
        Category::Data => Refused::senseless(error.to_string()),
        Category::Syntax | Category::Eof | Category::Io => {
            Refused::unreadable(format!("the body is not JSON: {error}"))
        }
    })
}

/// The parameters of a query, decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2`.
    ///
    /// # Errors
    /// When a parameter is none of `known`, stands twice, or is badly encoded.
    pub(super) fn read(text: Option<&str>, known: &[&str]) -> Result<Self, Refused> {
        let mut query = Self::default();
        let parts = text.unwrap_or_default().split('&');
        for part in parts.filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if !known.contains(&name) {
                let known = match known {
                    [] => "none here".to_owned(),
                    known => known.join(", "),
                };
                return Err(Refused::unreadable(format!(
                    "unknown parameter `{name}`: there are {known}"
                )));
            }
            query.add(name, value)?;
        }
        Ok(query)
    }

    /// Reads `a=1&b=2`, whatever the names are.
    ///
    /// # Errors
    /// When a parameter stands twice, or is badly encoded.
    pub(super) fn read_any(text: Option<&str>) -> Result<Self, Refused> {
        let mut query = Self::default();
        let parts = text.unwrap_or_default().split('&');
        for part in parts.filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            query.add(name, value)?;
        }
        Ok(query)
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), Refused> {
        if self.get(name).is_some() {
            return Err(Refused::unreadable(format!("`{name}` stands twice")));
        }
        let value = decoded(value)
            .ok_or_else(|| Refused::unreadable(format!("`{name}` is badly encoded")))?;
        self.0.push((name.to_owned(), value));
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A value of a query with its percent-encoding undone; none when that is broken or no UTF-8.
pub(super) fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' => b' ',
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["target", "limit"];

    #[test]
    fn a_query_is_read_and_decoded() {
        let query = Query::read(Some("target=2001%3Adb8%3a%3A%2F64&limit=5"), KNOWN).unwrap();
        assert_eq!(query.get("target"), Some("2001:db8::/64"));
        assert_eq!(query.get("limit"), Some("5"));
        assert_eq!(Query::read(None, KNOWN).unwrap().get("target"), None);
    }

    #[test]
    fn a_query_with_two_meanings_or_none_is_refused() {
        for (text, words) in [
            ("x=1", "unknown parameter `x`: there are target, limit"),
            ("limit=1&limit=2", "`limit` stands twice"),
            ("target=%4", "`target` is badly encoded"),
            ("target=%zz", "`target` is badly encoded"),
            ("target=%ff", "`target` is badly encoded"),
        ] {
            let refused = Query::read(Some(text), KNOWN).unwrap_err();
            assert_eq!(refused, Refused::unreadable(words));
        }
        let refused = Query::read(Some("x=1"), &[]).unwrap_err();
        assert_eq!(refused.words, "unknown parameter `x`: there are none here");
    }
}
