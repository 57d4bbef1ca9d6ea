//! HTTP as a client of the control plane.

use reqwest::{Client, ClientBuilder, Response};
use serde::Deserialize;

use crate::transport::{TlsError, client_config, no_trust};

/// The parts of a problem+json body (RFC 9457) that tell people what is wrong.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

/// A client for an address; `ca` (PEM) is trusted for HTTPS, the system's roots without it.
pub(crate) fn client(address: &str, ca: Option<&str>) -> Result<ClientBuilder, TlsError> {
    let tls = match address.starts_with("https:") {
        true => (*client_config(ca, None)?).clone(),
        false => no_trust()?,
    };
    Ok(Client::builder().tls_backend_preconfigured(tls))
}

/// Reads a body of at most `limit` bytes; `None` when it is longer.
pub(crate) async fn body(mut response: Response, limit: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > limit {
            return Ok(None);
        }
    }
    Ok(Some(body))
}

/// What the body of a refusal says, if it says something.
pub(crate) fn reason(body: &[u8]) -> Option<String> {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    problem.detail.or(problem.title)
}

/// An HTTP error with its deepest cause, and without the URL, which is named already or holds a ticket.
pub(crate) fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
