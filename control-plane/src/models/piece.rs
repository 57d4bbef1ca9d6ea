//! Artifacts piece by piece, as MQTT carries them.

use bytes::Bytes;

use super::store_problem;
use crate::app::App;
use crate::http::Problem;

/// The bytes of an artifact of this size from `offset` on, at most `len`; none behind its end. To be called with a permit
/// of [`super::Models::begin_piece`].
///
/// # Errors
/// 503 when the object store fails; 500 when the object is missing or damaged.
pub(crate) async fn piece(
    app: &App,
    digest: &str,
    size: u64,
    offset: u64,
    len: u64,
) -> Result<Bytes, Problem> {
    let range = offset..size.min(offset.saturating_add(len));
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let object = super::open(app, digest, size, Some(range)).await?;
    let bytes = object.bytes().await.map_err(|error| store_problem(digest, &error))?;
    app.models.pieces.sent().inc_by(bytes.len() as u64);
    Ok(bytes)
}
