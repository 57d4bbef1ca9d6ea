//! Errors as clients see them: `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::db::DbError;

/// What went wrong, and with which input.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{status} {title}: {detail}")]
pub struct Problem {
    /// The kind of problem, a URI reference that never changes: `/problems/not-found`.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "/problems/not-found")]
    pub kind: Box<str>,
    /// The kind in words.
    #[schema(value_type = String)]
    pub title: Box<str>,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What was wrong this time, and the way out.
    pub detail: String,
    /// The input that is to blame: a JSON pointer, a parameter or a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The request's id, to be found in the logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub request_id: Option<Box<str>>,
    /// Seconds to wait before the next attempt; sent as the header `Retry-After`.
    #[serde(skip)]
    pub retry_after_s: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Problem {
            kind: format!("/problems/{kind}").into(),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            request_id: None,
            retry_after_s: None,
        }
    }

    /// Names the input that is to blame.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// 400: the request cannot be read.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", "The request cannot be read", detail)
    }

    /// 401: no valid token.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "A valid token is needed", detail)
    }

    /// 403: the token's role or scope does not allow it.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
    }

    /// 404: there is no such thing (or none that the caller may know of).
    pub fn not_found(what: &str, id: &str) -> Self {
        let detail = format!("there is no {what} {id:?}");
        Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 404: nothing has this path.
    pub fn no_such_path() -> Self {
        let detail = "nothing has this path; /api/docs/ lists what there is";
        Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 405: the path exists, but not with this method.
    pub fn method_not_allowed() -> Self {
        let detail = "the path does not know this method; the header Allow names those it knows";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
    }

    /// 408: the request took too long.
    pub fn timeout() -> Self {
        let detail = "the request was not finished in time; it may or may not have had an effect";
        Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Too slow", detail)
    }

    /// 409: it contradicts what is there.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::CONFLICT, "conflict", "Contradicts what is there", detail)
    }

    /// 412: the thing has changed since the caller looked.
    pub fn precondition_failed() -> Self {
        let detail = "it has changed since; read it again and repeat with its new ETag";
        Problem::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", "Changed in between", detail)
            .field("If-Match")
    }

    /// 413: the body is too large.
    pub fn too_large(limit: u64) -> Self {
        let detail = format!("the body has more than {limit} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
    }

    /// 415: the body's media type is not understood.
    pub fn unsupported_media_type(expected: &str) -> Self {
        let detail = format!("the header Content-Type must be {expected}");
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "Unsupported media type",
            detail,
        )
    }

    /// 422: readable, but a value is not possible. `field` is a JSON pointer (`/name`) or a parameter's name.
    pub fn unprocessable(field: &str, detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", "A value is not possible", detail)
            .field(field)
    }

    /// 428: the change must say which state it changes.
    pub fn precondition_required() -> Self {
        let detail = "read the resource and repeat with its ETag in the header If-Match (or If-Match: *)";
        Problem::new(StatusCode::PRECONDITION_REQUIRED, "precondition-required", "If-Match is needed", detail)
            .field("If-Match")
    }

    /// 429: too many requests.
    pub fn too_many_requests(retry_after_s: u64) -> Self {
        let detail = format!("more requests than allowed; wait {retry_after_s} s");
        let mut problem =
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail);
        problem.retry_after_s = Some(retry_after_s);
        problem
    }

    /// 500: our fault. The cause goes to the log, not to the client.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "internal error");
        let detail = "the server failed; its log has the cause under this request's id";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed", detail)
    }

    /// 503: not now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not now", detail);
        problem.retry_after_s = Some(1);
        problem
    }

    /// An error of the framework that has no constructor of its own.
    pub(super) fn other(status: StatusCode) -> Self {
        let reason = status.canonical_reason().unwrap_or("The request failed");
        Problem::new(status, "other", reason, reason)
    }

    /// The status.
    pub fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        if error.is_unavailable() || error.is_conflict() {
            tracing::warn!(%error, "database unavailable");
            Problem::unavailable(error.reason())
        } else {
            Problem::internal(&error)
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        DbError::from(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status_code();
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}
