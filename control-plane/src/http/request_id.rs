//! A name for every request, for logs, audit log and problems.

use axum::http::HeaderMap;

use crate::app::App;

/// The header that carries the id, in requests from a proxy and in every answer.
pub(super) const HEADER: &str = "x-request-id";

/// Characters of an id that a client may bring along.
const CHARS: usize = 64;

/// The request's id.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    /// The id that the client or a proxy chose, if it is a plain word; else a new one.
    pub(super) fn of(app: &App, headers: &HeaderMap) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let chosen = headers
            .get(HEADER)
            .and_then(|value| value.to_str().ok())
            .filter(|text| (1..=CHARS).contains(&text.len()) && text.chars().all(plain));
        RequestId(chosen.map_or_else(|| app.ids.next(), str::to_owned))
    }
}
