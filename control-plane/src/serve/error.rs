//! Why the control plane cannot start.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::bus::external::BrokerError;
use crate::db::{DbError, MigrateError};
use crate::devices::AuthorityError;
use crate::http::Problem;
use crate::trust::DirectorError;

/// A start that failed. Names the setting that is to blame, and holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made.
    #[error("data_dir {path}: {source}", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A port cannot be listened on.
    #[error("{setting} {address}: {source}; is another process using it?")]
    Listen {
        /// The setting.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A certificate or a key cannot be used.
    #[error("{setting}: {message}")]
    Certificate {
        /// The setting.
        setting: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The devices' authority or the devices cannot be read.
    #[error(transparent)]
    Devices(#[from] AuthorityError),
    /// The director's key cannot be read or made.
    #[error(transparent)]
    Director(#[from] DirectorError),
    /// The embedded MQTT endpoint cannot listen.
    #[error("mqtt.listen: {0}")]
    Mqtt(#[from] dunlin_gateway::BindError),
    /// The external broker's settings cannot be used.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The place for artifacts cannot be used.
    #[error("artifacts.url: {0}")]
    Artifacts(String),
    /// The database cannot be reached.
    #[error("database_url: {0}")]
    Database(DbError),
    /// The schema cannot be brought up to date.
    #[error("database_url: {0}")]
    Migrate(#[from] MigrateError),
    /// An administrator's token cannot be made.
    #[error("the administrator's token cannot be made: {0}")]
    AdministratorToken(String),
    /// Signals cannot be caught.
    #[error("signals cannot be caught: {0}")]
    Signals(std::io::Error),
}

impl StartError {
    pub(super) fn listen(
        setting: &'static str,
        address: SocketAddr,
    ) -> impl Fn(std::io::Error) -> StartError {
        move |source| StartError::Listen { setting, address, source }
    }

    pub(super) fn administrator_token(problem: Problem) -> StartError {
        StartError::AdministratorToken(problem.detail)
    }
}
