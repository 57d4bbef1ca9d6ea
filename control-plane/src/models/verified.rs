//! That parts of an artifact come from an object whose digest is right.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use dunlin_artifact::Digester;
use futures_util::TryStreamExt as _;
use object_store::{ObjectMeta, ObjectStoreExt as _};

use super::{damaged, path, store_problem};
use crate::app::App;
use crate::http::Problem;
use crate::limits;

/// Objects that were read as a whole and had the right digest, as the object store described them then.
#[derive(Debug, Default)]
pub(super) struct Verified {
    /// By digest in hex.
    known: Mutex<HashMap<String, ObjectMeta>>,
    /// Held while one is read: many may ask for it at once.
    reading: tokio::sync::Mutex<()>,
}

impl Verified {
    /// Makes sure that the artifact's object, described like this, has the right digest: it is read as a whole unless
    /// that was done before and it has not been written since.
    ///
    /// # Errors
    /// 500 when the object is damaged; 503 when it cannot be read, or is being written.
    pub(super) async fn check(&self, app: &App, digest: &str, now: &ObjectMeta) -> Result<(), Problem> {
        if self.knows(digest, now) {
            return Ok(());
        }
        let _reading = self.reading.lock().await;
        if self.knows(digest, now) {
            return Ok(());
        }
        let object = app.artifacts.get(&path(digest)).await.map_err(|error| store_problem(digest, &error))?;
        if object.meta != *now {
            return Err(Problem::unavailable("the artifact is being written"));
        }
        let mut digester = Digester::new();
        let mut pieces = object.into_stream();
        while let Some(piece) = pieces.try_next().await.map_err(|error| store_problem(digest, &error))? {
            digester.update(&piece);
        }
        if hex::encode(digester.finish()) != digest {
            return Err(damaged(digest));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= limits::MODEL_DIGESTS_CACHED {
            known.clear();
        }
        known.insert(digest.to_owned(), now.clone());
        Ok(())
    }

    fn knows(&self, digest: &str, now: &ObjectMeta) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest) == Some(now)
    }
}
