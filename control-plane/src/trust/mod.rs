//! Which keys devices believe, and the one key of them that this server has.
//!
//! Roots are written and signed by the owners of the models and uploaded; the server passes them on. It believes them
//! no more than a device does: each is checked by `dunlin-trust` against the one before. The *director* key signs what
//! a device shall run; it is the server's own and never leaves it.

mod api;
mod director;
mod key_file;
#[cfg(test)]
pub(crate) mod owner;
mod roots;
mod store;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use crate::app::App;
use crate::http::Problem;

pub use api::router;
pub(crate) use director::SIGNATURE_BYTES;
pub use director::{Director, DirectorError};
pub use key_file::{KeyFileError, from_pem, to_pem};
pub use roots::CurrentRoot;
pub(crate) use roots::KeySet;
pub use store::newest_root;
pub(crate) use store::root;

/// What this domain keeps in memory.
#[derive(Debug, Default)]
pub struct Trust {
    director: OnceLock<Arc<Director>>,
}

impl Trust {
    /// The director's key.
    ///
    /// # Errors
    /// 503 before [`open`].
    pub fn director(&self) -> Result<&Arc<Director>, Problem> {
        self.director.get().ok_or_else(|| Problem::unavailable("the server is starting"))
    }
}

/// Reads the director's key, which is made at the first start. To be called before anything is served.
///
/// # Errors
/// When the key or the database cannot be read, or the key cannot be made.
pub async fn open(app: &App) -> Result<(), DirectorError> {
    let (path, create) = match &app.config.trust_director_key {
        Some(path) => (path.clone(), false),
        None => (app.config.data_dir.join("director.key"), true),
    };
    let director = Director::open(&path, create)?;
    let mut db = app.db.read().acquire().await.map_err(crate::db::DbError::from)?;
    let root = newest_root(&mut db).await?;
    if let Some(root) = root.filter(|root| !root.names_director(&director.public())) {
        // Not the end: the next root may name it, when the key was replaced on purpose.
        tracing::error!(
            root = root.number,
            director = hex::encode(director.public()),
            "the newest root does not name this server's director key: devices refuse what it assigns. Restore the \
             key, set trust.director_key, or upload a root that names it (dunlin keys rotate --role director)"
        );
    }
    // A second call finds the same key.
    let _ = app.trust.director.set(Arc::new(director));
    Ok(())
}
