//! axum's extractors with problems as their errors. Handlers use these, never axum's own.

use axum::body::Body;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::limits;

/// A JSON body, in requests and in answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

/// Parameters in the path.
#[derive(Clone, Copy, Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub struct Path<T>(pub T);

/// Parameters in the query. Several may stand side by side; each ignores what it does not know.
#[derive(Clone, Copy, Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::unsupported_media_type("application/json"));
        }
        let bytes = bytes::Bytes::from_request(request, state).await.map_err(|rejection| match rejection
            .status()
        {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(limits::JSON_BODY_BYTES as u64),
            _ => Problem::bad_request("the body ended early"),
        })?;
        if holds_escaped_nul(&bytes) {
            return Err(Problem::bad_request("texts must not contain the character U+0000"));
        }
        match axum::Json::<T>::from_bytes(&bytes) {
            Ok(axum::Json(value)) => Ok(Json(value)),
            Err(rejection) => Err(rejection.into()),
        }
    }
}

/// A body of bytes, `application/octet-stream`.
///
/// # Errors
/// 415 when it is said to be something else, 413 when it is longer than `limit`, 400 when it ends early.
pub(crate) async fn octets(headers: &HeaderMap, body: Body, limit: u64) -> Result<bytes::Bytes, Problem> {
    if headers.get(header::CONTENT_TYPE).is_none_or(|value| value != "application/octet-stream") {
        return Err(Problem::unsupported_media_type("application/octet-stream"));
    }
    axum::body::to_bytes(body, usize::try_from(limit).unwrap_or(usize::MAX)).await.map_err(|error| {
        let cause = std::error::Error::source(&error);
        if cause.is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>()) {
            Problem::too_large(limit)
        } else {
            Problem::bad_request("the body ended early")
        }
    })
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// Whether the body is said to be JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let media_type = value.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("application/json")
    })
}

/// Whether a JSON text holds `\u0000`: PostgreSQL cannot store that character.
fn holds_escaped_nul(json: &[u8]) -> bool {
    let mut rest = json.iter();
    while let Some(byte) = rest.next() {
        // What follows a backslash belongs to it, so that an escaped backslash before "u0000" does not count.
        if *byte == b'\\' && rest.next() == Some(&b'u') && rest.as_slice().starts_with(b"0000") {
            return true;
        }
    }
    false
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::JsonDataError(error) => Problem::unprocessable("body", cause(&error.body_text())),
            other => Problem::bad_request(other.body_text()),
        }
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        match rejection.status() {
            StatusCode::INTERNAL_SERVER_ERROR => Problem::internal(&rejection),
            _ => Problem::bad_request(rejection.body_text()).field("path"),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Problem::bad_request(cause(&rejection.body_text())).field("query")
    }
}

/// What is wrong, without axum's words that something is wrong: `Failed to deserialize …: what is wrong`.
fn cause(text: &str) -> &str {
    text.split_once(": ")
        .filter(|(preamble, _)| preamble.starts_with("Failed to"))
        .map_or(text, |(_, cause)| cause)
}
