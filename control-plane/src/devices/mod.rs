//! Devices: who they are, how they get in, what they say about themselves and what they should do.
//!
//! - [`filter`] selects devices by a small language; [`Directory`] knows every device in memory;
//! - a *claim* (enrolment key of a fleet) is exchanged for an identity by `enroll`; [`Authority`] signs certificates;
//! - [`authenticate`] decides who may connect, for the embedded endpoint ([`Gate`]) and for external brokers (hooks);
//! - [`apply_state`] and [`write_seen`] take what devices report, in the transaction of the ingest;
//! - [`desired`] is the retained message that says what a device should do; [`fetch`] answers devices that fetch what it
//!   names over MQTT.

mod api;
mod assign;
#[cfg(test)]
mod assign_tests;
mod authority;
mod background;
mod desired;
mod device;
mod directory;
mod enroll;
mod fetch;
#[cfg(test)]
mod fetch_tests;
pub mod filter;
mod hooks;
mod login;
mod names;
mod number;
mod presence;
mod secret;
mod settings;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod version;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::access::Visible;
use crate::app::App;
use crate::bus::DeviceId;
use crate::config::{ClientCertificates, Config};
use crate::db::{DbError, Tx};
use crate::http::Problem;
use crate::limits;

pub use api::router;
pub use authority::{Authority, AuthorityError, Csr, CsrError, Issued};
pub use background::run;
pub use desired::{announce, assign, desired};
pub use device::{DesiredModel, Device, Slot};
pub use directory::{Cohort, Directory, Entry};
pub use enroll::{RenewError, renew};
pub use fetch::{FetchError, fetch};
pub use filter::{Filter, FilterError};
pub(crate) use hooks::PREFIX as HOOKS;
pub use hooks::router as hooks_router;
pub use login::{Gate, authenticate};
pub(crate) use names::{check_name, is_value};
pub use settings::{OwnSettings, Settings};
pub use state::{Applied, apply_state};
pub(crate) use store::devices::{name_model, renew_all, renew_assigned};

/// What this domain keeps in memory.
#[derive(Debug)]
pub struct Devices {
    /// Every device.
    pub directory: Directory,
    authority: OnceLock<Arc<Authority>>,
    presence: presence::Presence,
    logins: login::Logins,
}

impl Devices {
    /// Nothing in memory yet; [`open`] fills it.
    pub fn new() -> Self {
        Devices {
            directory: Directory::default(),
            authority: OnceLock::new(),
            presence: presence::Presence::default(),
            logins: login::Logins::new(),
        }
    }

    /// The authority that signs devices' certificates.
    ///
    /// # Errors
    /// 503 before [`open`].
    pub fn authority(&self) -> Result<&Arc<Authority>, Problem> {
        self.authority.get().ok_or_else(|| Problem::unavailable("the server is starting"))
    }
}

impl Default for Devices {
    fn default() -> Self {
        Devices::new()
    }
}

/// Reads the authority (made at the first start) and all devices. To be called before anything is served; then
/// [`run`] keeps them up to date.
///
/// # Errors
/// When the authority's files or the database cannot be read, or do not belong together.
pub async fn open(app: &App) -> Result<(), AuthorityError> {
    let (certificate, key, create) = authority_files(&app.config);
    let now_us = app.clock.now_us();
    let authority = Authority::open(&certificate, &key, create, now_us)?;
    let mut tx = app.db.begin().await?;
    let first = store::certificates::claim_authority(&mut tx, authority.certificate_pem()).await?;
    tx.commit().await.map_err(DbError::from)?;
    if first.trim() != authority.certificate_pem().trim() {
        return Err(AuthorityError::Other { path: certificate });
    }
    // A second call finds the same authority.
    let _ = app.devices.authority.set(Arc::new(authority));
    app.devices.directory.load(&app.db).await?;
    Ok(())
}

/// Where the authority is, and whether it may be made there.
fn authority_files(config: &Config) -> (PathBuf, PathBuf, bool) {
    match (&config.devices_ca_certificate, &config.devices_ca_key) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone(), false),
        (Some(certificate), None) => (certificate.clone(), config.data_dir.join("device-ca.key"), false),
        (None, Some(key)) => (config.data_dir.join("device-ca.pem"), key.clone(), false),
        (None, None) => (config.data_dir.join("device-ca.pem"), config.data_dir.join("device-ca.key"), true),
    }
}

/// Whether new devices get certificates rather than passwords, if they ask for one: only where TLS checks them.
fn gives_certificates(config: &Config) -> bool {
    match &config.broker_url {
        Some(url) => is_tls(url),
        None => {
            config.mqtt_tls_certificate.is_some()
                && config.mqtt_client_certificates != ClientCertificates::Off
        }
    }
}

fn is_tls(broker_url: &str) -> bool {
    broker_url.starts_with("mqtts:") || broker_url.starts_with("ssl:") || broker_url.starts_with("tls:")
}

/// What reading devices depends on, now.
fn reading(app: &App) -> store::devices::Reading {
    let now_us = app.clock.now_us();
    let seen_is_connected_us = app
        .config
        .broker_url
        .as_ref()
        .map(|_| now_us.saturating_sub(limits::micros(limits::SEEN_IS_CONNECTED)));
    store::devices::Reading { dialect: app.db.dialect(), now_us, seen_is_connected_us }
}

/// The device with everything about it.
///
/// # Errors
/// When the database fails.
pub async fn get(app: &App, id: &str) -> Result<Option<Device>, DbError> {
    let mut db = app.db.read().acquire().await?;
    store::devices::get(&mut db, id, &reading(app)).await
}

/// How many of the devices that can be seen are connected, to whichever process: those that the filter `connected` fits.
///
/// # Errors
/// When the database fails.
pub async fn count_connected(app: &App, visible: Visible<'_>) -> Result<i64, DbError> {
    let connected = Filter::Flag(filter::Field::Connected);
    let mut db = app.db.read().acquire().await?;
    store::devices::count(&mut db, visible, Some(&connected), &reading(app)).await
}

/// Writes that these devices gave a sign of life (see [`Directory::unseen`]), in the transaction of what they sent.
///
/// # Errors
/// When the database fails.
pub async fn write_seen(tx: &mut Tx, ids: &[DeviceId], now_us: i64) -> Result<(), DbError> {
    store::devices::write_seen(tx, ids, now_us).await
}

/// Reads the device's entry again after a change was committed, and acts on it: a device that must not stay
/// connected is disconnected, a new desired state is sent. Failures are made up for by the next poll.
async fn changed(app: &App, id: &str) {
    match app.devices.directory.reload(&app.db, id).await {
        Ok((_, change)) => background::act(app, change.into_iter().collect()).await,
        Err(error) => tracing::warn!(device = id, %error, "cannot read the device again; the next poll will"),
    }
}
