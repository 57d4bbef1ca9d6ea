//! Artifacts and roots piece by piece, for devices that speak nothing but MQTT.

use bytes::Bytes;
use dunlin_protocol::limits::{MAX_CHUNK, MAX_DOWN_MESSAGE};
use dunlin_protocol::{Chunk, DecodeError, Fetch, Object};

use super::store;
use crate::app::App;
use crate::bus::DeviceId;
use crate::http::Problem;
use crate::{limits, models, trust};

/// Why a device gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The request cannot be read.
    #[error("the request cannot be read: {0}")]
    Message(#[from] DecodeError),
    /// Who asks is no device, or a blocked one.
    #[error("the device is unknown or blocked")]
    Device,
}

/// What a device is told.
enum Answer {
    /// The piece, of an object with so many bytes; 0 and nothing if the device may not have it, or there is none.
    Piece(u32, Bytes),
    /// Ask again after so many seconds.
    Wait(u64),
}

/// Answers `up/fetch`: the body of `down/chunk`. A device gets the roots, and the artifacts that its desired state names;
/// when it asks too often, or something fails, it is told to wait.
///
/// # Errors
/// See [`FetchError`]: there is no answer.
pub async fn fetch(app: &App, device: &DeviceId, message: &[u8]) -> Result<Bytes, FetchError> {
    let Fetch { object, offset, len } = Fetch::decode(message)?;
    if app.devices.directory.get(device.as_str()).is_none_or(|entry| entry.blocked) {
        return Err(FetchError::Device);
    }
    let answer = match app.models.begin_piece(device.as_str(), app.clock.now_us()) {
        Ok(_permit) => {
            let len = len.min(u32::try_from(MAX_CHUNK).unwrap_or(u32::MAX));
            read(app, device, object, offset, len).await.unwrap_or_else(|problem| {
                tracing::warn!(%device, %problem, "a piece cannot be read; the device asks again");
                Answer::Wait(problem.retry_after_s.unwrap_or(limits::PIECE_FAILED.as_secs()))
            })
        }
        Err(problem) => Answer::Wait(problem.retry_after_s.unwrap_or(1)),
    };
    let (total, retry_after_s, bytes) = match &answer {
        Answer::Piece(total, bytes) => (*total, 0, bytes.as_ref()),
        Answer::Wait(seconds) => (0, u32::try_from(*seconds).unwrap_or(u32::MAX), &[][..]),
    };
    let mut out = vec![0; MAX_DOWN_MESSAGE];
    // A piece is at most MAX_CHUNK, for which there is room.
    let length = Chunk { object, offset, total, retry_after_s, bytes }.encode(&mut out).unwrap_or(0);
    out.truncate(length);
    Ok(out.into())
}

async fn read(
    app: &App,
    device: &DeviceId,
    object: Object,
    offset: u32,
    len: u32,
) -> Result<Answer, Problem> {
    let mut db = app.db.read().acquire().await?;
    let nothing = Answer::Piece(0, Bytes::new());
    match object {
        Object::Root(number) => {
            let Some(root) = trust::root(&mut db, number).await? else { return Ok(nothing) };
            let from = usize::try_from(offset).map_or(root.len(), |from| from.min(root.len()));
            let to = usize::try_from(len).map_or(root.len(), |len| from.saturating_add(len).min(root.len()));
            let total = u32::try_from(root.len()).unwrap_or(u32::MAX);
            Ok(Answer::Piece(total, Bytes::from(root).slice(from..to)))
        }
        Object::Artifact(digest) => {
            let digest = hex::encode(digest);
            let size = store::devices::assigned_size(&mut db, device.as_str(), &digest).await?;
            drop(db);
            let Some(size) = size else { return Ok(nothing) };
            let bytes = models::piece(app, &digest, size.unsigned_abs(), offset.into(), len.into()).await?;
            Ok(Answer::Piece(u32::try_from(size).unwrap_or(u32::MAX), bytes))
        }
    }
}
