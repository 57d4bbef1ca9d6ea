//! Lists in pages: `?limit=&cursor=` gives `{"items": […], "next_cursor": …}`.
//!
//! A cursor holds the sort key of the last entry, so that pages stay right while entries come and go.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;
use crate::limits;

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Entries of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Where to go on: `next_cursor` of the page before.
    #[param(max_length = 1024)]
    cursor: Option<String>,
}

impl PageQuery {
    /// Entries of a page, 1 to [`limits::PAGE_MAX`].
    ///
    /// # Errors
    /// When the request asks for none or for too many.
    pub fn limit(&self) -> Result<i64, Problem> {
        let limit = self.limit.unwrap_or(limits::PAGE_DEFAULT);
        if (1..=limits::PAGE_MAX).contains(&limit) {
            Ok(i64::from(limit))
        } else {
            let detail = format!("limit must be 1 to {}", limits::PAGE_MAX);
            Err(Problem::unprocessable("limit", detail))
        }
    }

    /// The sort key after which the page begins; `None` at the list's beginning.
    ///
    /// # Errors
    /// When the cursor is not one that this list made.
    pub fn after<K: DeserializeOwned>(&self) -> Result<Option<K>, Problem> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let wrong =
            || Problem::unprocessable("cursor", "the cursor is not one of this list; begin without one");
        if cursor.len() > limits::CURSOR_CHARS {
            return Err(wrong());
        }
        let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
        // A forged cursor must not bring a character into a query that PostgreSQL refuses.
        if json.windows(6).any(|bytes| bytes == b"\\u0000") {
            return Err(wrong());
        }
        serde_json::from_slice(&json).map(Some).map_err(|_| wrong())
    }
}

/// A part of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page begins; null after the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page of at most `limit` entries from `rows`, which were fetched with `limit + 1`; `key` gives an entry's
    /// sort key.
    pub fn new<K: Serialize>(mut rows: Vec<T>, limit: i64, key: impl Fn(&T) -> K) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows
            .last()
            .filter(|_| more)
            .and_then(|last| serde_json::to_vec(&key(last)).ok().map(|json| URL_SAFE_NO_PAD.encode(json)));
        Page { items: rows, next_cursor }
    }

    /// The same page of other entries.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next_cursor: self.next_cursor }
    }
}
