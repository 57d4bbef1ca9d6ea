//! Entity tags: a change names the state it is based on, so that two editors do not undo each other's work.
//!
//! PATCH and PUT need `If-Match` (428 without, 412 when the resource has changed; `*` means "whatever it is");
//! DELETE heeds it when it is there. GET answers 304 to a fitting `If-None-Match`.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;

/// The tag of a resource's revision, a number that grows with every change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// The tag of revision `revision`.
    pub fn revision(revision: i64) -> Self {
        ETag(format!("\"{revision}\""))
    }

    /// The tag with its quotes, as in the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The headers `If-Match` and `If-None-Match` of a request.
#[derive(Clone, Debug, Default)]
pub struct Preconditions {
    if_match: Option<Vec<String>>,
    if_none_match: Option<Vec<String>>,
}

impl Preconditions {
    /// For a change that must be based on a state that the caller has seen.
    ///
    /// # Errors
    /// 428 without `If-Match`, 412 when `current` is not among its tags.
    pub fn require(&self, current: &ETag) -> Result<(), Problem> {
        if self.if_match.is_none() {
            return Err(Problem::precondition_required());
        }
        self.check(current)
    }

    /// For a change that may be based on a state that the caller has seen.
    ///
    /// # Errors
    /// 412 when there is `If-Match` and `current` is not among its tags.
    pub fn check(&self, current: &ETag) -> Result<(), Problem> {
        match &self.if_match {
            Some(tags) if !tags.iter().any(|tag| tag == "*" || tag == current.as_str()) => {
                Err(Problem::precondition_failed())
            }
            _ => Ok(()),
        }
    }

    /// Whether the caller has the current representation already. Weak comparison, as RFC 9110 asks for.
    pub fn is_not_modified(&self, current: &ETag) -> bool {
        let Some(tags) = &self.if_none_match else { return false };
        tags.iter().any(|tag| tag == "*" || tag.trim_start_matches("W/") == current.as_str())
    }
}

impl<S: Sync> FromRequestParts<S> for Preconditions {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Preconditions {
            if_match: tags(&parts.headers, &header::IF_MATCH),
            if_none_match: tags(&parts.headers, &header::IF_NONE_MATCH),
        })
    }
}

/// The tags of all headers of this name. A header that is not text matches nothing, but is there.
fn tags(headers: &HeaderMap, name: &header::HeaderName) -> Option<Vec<String>> {
    let values: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    if values.is_empty() {
        return None;
    }
    let texts = values.into_iter().filter_map(|value| value.to_str().ok());
    Some(texts.flat_map(|text| text.split(',')).map(|tag| tag.trim().to_owned()).collect())
}

/// A JSON answer with an entity tag; 304 when the caller has it already.
#[derive(Clone, Debug)]
pub struct Tagged<T> {
    /// The tag.
    pub etag: ETag,
    /// The representation.
    pub body: T,
    /// Whether to answer 304.
    pub not_modified: bool,
}

impl<T> Tagged<T> {
    /// The answer to a change: always with the body.
    pub fn new(etag: ETag, body: T) -> Self {
        Tagged { etag, body, not_modified: false }
    }

    /// The answer to a GET.
    pub fn get(preconditions: &Preconditions, etag: ETag, body: T) -> Self {
        Tagged { not_modified: preconditions.is_not_modified(&etag), etag, body }
    }
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = if self.not_modified {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            axum::Json(self.body).into_response()
        };
        if let Ok(value) = HeaderValue::from_str(self.etag.as_str()) {
            response.headers_mut().insert(header::ETAG, value);
        }
        response
    }
}
