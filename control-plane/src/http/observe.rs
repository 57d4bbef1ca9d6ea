//! What happens around every request: id, log line, numbers, and problems in place of bare errors.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use tracing::Instrument as _;

use super::metrics::HttpLabels;
use super::problem::Problem;
use super::request_id::{HEADER, RequestId};
use crate::app::App;

/// Gives the request an id, logs and counts it, and sees to it that every error is a problem.
pub(super) async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response<Body> {
    let started = Instant::now();
    let id = RequestId::of(&app, request.headers());
    request.extensions_mut().insert(id.clone());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // The route, not the path: its cardinality is bounded.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", request_id = %id.0, %method, route = %route);
    let response = async {
        let mut response = as_problem(next.run(request).await, &id);
        if let Ok(value) = HeaderValue::from_str(&id.0) {
            response.headers_mut().insert(HEADER, value);
        }
        let (status, elapsed) = (response.status(), started.elapsed());
        let elapsed_ms = elapsed.as_secs_f64() * 1e3;
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), elapsed_ms, path, "answered");
        } else if method == Method::GET || method == Method::HEAD {
            tracing::debug!(status = status.as_u16(), elapsed_ms, path, "answered");
        } else {
            tracing::info!(status = status.as_u16(), elapsed_ms, path, "answered");
        }
        let labels = HttpLabels { method: method_label(&method), route, status: status.as_u16() };
        app.metrics.http(labels, elapsed);
        response
    }
    .instrument(span)
    .await;
    security_headers(response)
}

/// Methods that nobody defined would let a client make up labels.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Puts the request's id into a problem, and makes a problem of an error that is none yet.
fn as_problem(response: Response<Body>, id: &RequestId) -> Response<Body> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let mut problem = match response.extensions().get::<Problem>() {
        Some(problem) => problem.clone(),
        None => bare(status),
    };
    problem.request_id = Some(id.0.as_str().into());
    let mut answer = problem.into_response();
    // What else the answer says stays: Allow, Retry-After, whether it was kept.
    for (name, value) in response.headers() {
        if *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}

/// The problem for an error of the framework, which knows no more than a status.
fn bare(status: StatusCode) -> Problem {
    match status {
        StatusCode::NOT_FOUND => Problem::no_such_path(),
        StatusCode::METHOD_NOT_ALLOWED => Problem::method_not_allowed(),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(crate::limits::JSON_BODY_BYTES as u64),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::unsupported_media_type("one that this path understands")
        }
        status if status.is_server_error() => Problem::internal(&format!("bare status {status}")),
        status => Problem::other(status),
    }
}

/// Headers that every answer carries.
fn security_headers(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Answers belong to the token that asked; tagged ones may be kept and asked about again.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    response
}
