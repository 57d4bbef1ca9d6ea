//! Models: names, versions by number, and the artifacts behind them, addressed by their digest.

mod aliases;
mod api;
mod bytes;
mod compile;
mod delivery;
#[cfg(test)]
pub(crate) mod delivery_tests;
mod downloads;
mod metrics;
mod piece;
mod publish;
mod release;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod verified;
mod view;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStoreExt as _};
use sqlx::AnyConnection;
use tokio::sync::{Notify, Semaphore};

use crate::app::App;
use crate::db::DbError;
use crate::http::{Metrics, Problem, RateLimit};
use crate::limits;
use downloads::{Bounds, Downloads, Permit};
use metrics::Handles;
use verified::Verified;

pub use api::router;
pub use bytes::ArtifactBytes;
pub use compile::run;
pub(crate) use piece::piece;
pub use store::{Lineage, Model, Version};

/// Where devices fetch artifacts with tickets: a path begins with this.
pub(crate) const ARTIFACTS: &str = "/api/v1/artifacts/";

/// A model's version, as a digest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelVersion {
    /// The model's name.
    pub model: String,
    /// The version.
    pub version: i64,
}

/// What this domain keeps in memory.
#[derive(Debug)]
pub struct Models {
    /// By digest in hex. A version never changes once it is there, so entries are never wrong.
    known: Mutex<HashMap<String, ModelVersion>>,
    uploads: Arc<Semaphore>,
    /// A source came.
    came: Notify,
    downloads: Downloads,
    pieces: Downloads,
    pieces_rate: RateLimit<()>,
    verified: Verified,
}

impl Models {
    /// Nothing in memory yet.
    pub fn new(metrics: &Metrics) -> Self {
        let [http, mqtt] = Handles::of(metrics, ["http", "mqtt"]);
        let downloads = Bounds {
            all: limits::DOWNLOADS,
            device: limits::DEVICE_DOWNLOADS,
            rate: limits::DEVICE_DOWNLOADS_RATE,
            burst: limits::DEVICE_DOWNLOADS_BURST,
        };
        let pieces = Bounds {
            all: limits::PIECES,
            device: limits::DEVICE_PIECES,
            rate: limits::DEVICE_PIECES_RATE,
            burst: limits::DEVICE_PIECES_BURST,
        };
        Models {
            known: Mutex::default(),
            uploads: Arc::new(Semaphore::new(limits::UPLOADS)),
            came: Notify::new(),
            downloads: Downloads::new(downloads, http),
            pieces: Downloads::new(pieces, mqtt),
            pieces_rate: RateLimit::new(limits::PIECES_RATE, limits::PIECES_BURST),
            verified: Verified::default(),
        }
    }

    /// The right to read a piece of an artifact or a root for a device that asks over MQTT.
    ///
    /// # Errors
    /// 429 or 503, with the time to wait.
    pub(crate) fn begin_piece(&self, device: &str, now_us: i64) -> Result<Permit, Problem> {
        let permit = self.pieces.begin_by(device, now_us)?;
        // Last: who is refused for their own sake takes nothing from the others.
        let refused = |seconds| self.pieces.refuse(Problem::too_many_requests(seconds));
        self.pieces_rate.take((), now_us).map_err(refused)?;
        Ok(permit)
    }

    fn known(&self, digest: &str) -> Option<ModelVersion> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn remember(&self, digest: &str, found: &ModelVersion) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= limits::MODEL_DIGESTS_CACHED {
            known.clear();
        }
        known.insert(digest.to_owned(), found.clone());
    }
}

/// The version whose artifact has this digest (64 hex digits, lower case), if the registry has it. Mostly answered
/// from memory.
///
/// # Errors
/// When the database fails.
pub async fn find_by_digest(
    app: &App,
    db: &mut AnyConnection,
    digest: &str,
) -> Result<Option<ModelVersion>, DbError> {
    if let Some(found) = app.models.known(digest) {
        return Ok(Some(found));
    }
    let found = store::by_digest(db, digest).await?;
    if let Some(found) = &found {
        app.models.remember(digest, found);
    }
    Ok(found)
}

/// A model's version, if there is one.
///
/// # Errors
/// When the database fails.
pub async fn version(db: &mut AnyConnection, model: &str, version: i64) -> Result<Option<Version>, DbError> {
    store::version(db, model, version).await
}

/// Why a device of this hardware class would not install the version, if there is a reason; without a root there is
/// none, since devices then need no signatures.
///
/// # Errors
/// When the database fails.
pub(crate) async fn obstacle(
    app: &App,
    db: &mut AnyConnection,
    version: &Version,
    hardware: &str,
) -> Result<Option<String>, DbError> {
    let Some(root) = crate::trust::newest_root(db).await? else { return Ok(None) };
    let above = store::withdrawing(db, &version.model, version.version).await?;
    Ok(release::obstacle(version, &above, &root.release_keys(), hardware, app.clock.now_us()))
}

/// Reads an artifact and checks its digest.
///
/// # Errors
/// 503 when the object store fails; 500 when the object is missing or damaged.
pub async fn artifact(app: &App, digest: &str) -> Result<ArtifactBytes, Problem> {
    let object = app.artifacts.get(&path(digest)).await.map_err(|error| store_problem(digest, &error))?;
    let bytes = object.bytes().await.map_err(|error| store_problem(digest, &error))?;
    let bytes = ArtifactBytes::copy(&bytes);
    let is_whole = bytes
        .parse()
        .is_ok_and(|artifact| artifact.verify_digest().is_ok() && hex::encode(artifact.digest()) == digest);
    if is_whole {
        return Ok(bytes);
    }
    Err(damaged(digest))
}

/// Opens an artifact of this size, or a range of it, in the object store. A range is one of an object whose digest is
/// right; of the whole only the length was looked at.
async fn open(app: &App, digest: &str, size: u64, range: Option<Range<u64>>) -> Result<GetResult, Problem> {
    let (wanted, is_part) = (range.clone().unwrap_or(0..size), range.is_some());
    let options = GetOptions::new().with_range(range.map(GetRange::Bounded));
    let object = app
        .artifacts
        .get_opts(&path(digest), options)
        .await
        .map_err(|error| store_problem(digest, &error))?;
    if object.meta.size != size || object.range != wanted {
        return Err(damaged(digest));
    }
    if is_part {
        app.models.verified.check(app, digest, &object.meta).await?;
    }
    Ok(object)
}

fn damaged(digest: &str) -> Problem {
    Problem::internal(&format!("the artifact {digest} is damaged in the object store; upload it again"))
}

/// Where an artifact is in the object store.
fn path(digest: &str) -> Path {
    Path::from(format!("models/{digest}.dunlin"))
}

fn store_problem(digest: &str, error: &object_store::Error) -> Problem {
    match error {
        object_store::Error::NotFound { .. } => {
            Problem::internal(&format!("the artifact {digest} is missing in the object store"))
        }
        error => {
            tracing::warn!(%error, digest, "object store");
            Problem::unavailable("the object store is not available")
        }
    }
}
