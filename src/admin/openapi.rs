//! `/api/v1/openapi.json`: what may be asked here, as OpenAPI 3.1 describes it.

use http::{Request, StatusCode};
use hyper::body::Incoming;

use super::{
    api::{Query, Reply},
    now::only_reading,
    server::answer as whole,
};

/// The document. It is written by hand, and held to what is served by `tests/openapi.rs`.
const DOCUMENT: &str = include_str!("openapi.json");

/// Answers with the document.
///
/// # Errors
/// By any method but GET.
pub(super) fn answer(request: &Request<Incoming>) -> Reply {
    only_reading(request)?;
    Query::read(request.uri().query(), &[])?;
    Ok(whole(
        StatusCode::OK,
        "application/json",
        DOCUMENT.to_owned(),
    ))
}
