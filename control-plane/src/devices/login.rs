//! Who may connect: the same answer for the embedded endpoint and for external brokers.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;

use super::background;
use super::directory::Entry;
use super::secret;
use super::store::certificates::{self, Standing};
use crate::access::{Caller, Subject, audit};
use crate::app::App;
use crate::bus::{Credential, DeviceAccess, DeviceId, Login, LoginRefused};
use crate::db::DbError;
use crate::http::RateLimit;
use crate::limits;
use crate::live::{DeviceChange, LiveEvent};

/// Bounds on what strangers can make the server do.
#[derive(Debug)]
pub(super) struct Logins {
    /// Look-ups in the database of ids that are not in memory.
    lookups: RateLimit<()>,
    /// Failures of one address.
    failures: RateLimit<IpAddr>,
}

impl Logins {
    pub(super) fn new() -> Self {
        Logins {
            lookups: RateLimit::new(limits::LOGIN_LOOKUPS_RATE, limits::LOGIN_LOOKUPS_BURST),
            failures: RateLimit::new(limits::LOGIN_FAILURES_RATE, limits::LOGIN_FAILURES_BURST),
        }
    }
}

/// Decides whether somebody may connect, and as which device.
///
/// Who knows the secret of a device always gets in, however many attempts fail from the same address: passwords
/// have 256 random bits, so failures are counted only to keep them from costing look-ups and log lines.
///
/// A certificate is looked up in the database, so that one that any process has revoked is refused at once. With its
/// first login a new certificate takes the place of the older ones, which are revoked by that: until then they are good,
/// since the device may have lost the answer to its request.
///
/// # Errors
/// Unknown device or wrong credential, certificate revoked or replaced, blocked device, or the database is away.
pub async fn authenticate(
    app: &App,
    credential: Credential<'_>,
    address: IpAddr,
) -> Result<Arc<Entry>, LoginRefused> {
    let id = match credential {
        Credential::Certificate { common_name, .. } => common_name,
        Credential::Password { username, .. } => username,
    };
    let result = match find(app, id).await {
        Ok(Some(entry)) => check(app, entry, credential).await,
        Ok(None) => Err(LoginRefused::BadCredential),
        Err(refused) => Err(refused),
    };
    if let Err(refused) = &result
        && app.devices.logins.failures.take(address, app.clock.now_us()).is_ok()
    {
        let id: String = id.chars().take(crate::bus::MAX_DEVICE_ID).collect();
        tracing::info!(device = ?id, %address, %refused, "login refused");
    }
    result
}

async fn find(app: &App, id: &str) -> Result<Option<Arc<Entry>>, LoginRefused> {
    if let Some(entry) = app.devices.directory.get(id) {
        return Ok(Some(entry));
    }
    // Another process may have enrolled it a moment ago. Strangers must not make this a flood of look-ups.
    if DeviceId::new(id).is_err() {
        return Ok(None);
    }
    if app.devices.logins.lookups.take((), app.clock.now_us()).is_err() {
        return Err(LoginRefused::Unavailable);
    }
    match app.devices.directory.reload(&app.db, id).await {
        Ok((entry, _)) => Ok(entry),
        Err(error) => {
            tracing::warn!(%error, "cannot look a device up");
            Err(LoginRefused::Unavailable)
        }
    }
}

async fn check(app: &App, entry: Arc<Entry>, credential: Credential<'_>) -> Result<Arc<Entry>, LoginRefused> {
    let standing = match credential {
        Credential::Certificate { serial: Some(serial), .. } => {
            Some((serial, look(app, &entry, serial).await?))
        }
        // The broker has verified it; the id is its common name.
        Credential::Certificate { serial: None, .. } => None,
        Credential::Password { password, .. } => {
            let digest = entry.password.as_ref();
            if !digest.is_some_and(|digest| secret::fits(digest, password)) {
                return Err(LoginRefused::BadCredential);
            }
            None
        }
    };
    if entry.blocked {
        return Err(LoginRefused::Blocked);
    }
    if let Some((serial, standing)) = standing.filter(|(_, standing)| standing.replaces)
        && let Err(error) = replace(app, &entry, serial, standing).await
    {
        tracing::warn!(
            device = %entry.id, %error, "older certificates were not revoked; that is tried again at the next login"
        );
    }
    Ok(entry)
}

async fn look(app: &App, entry: &Entry, serial: &str) -> Result<Standing, LoginRefused> {
    let look = async {
        let mut db = app.db.read().acquire().await?;
        certificates::standing(&mut db, serial, entry.id.as_str()).await
    };
    match look.await {
        Ok(standing) => standing.ok_or(LoginRefused::Revoked),
        Err(error) => {
            tracing::warn!(%error, "cannot look a certificate up");
            Err(LoginRefused::Unavailable)
        }
    }
}

/// The device has shown a new certificate: the older ones are no longer needed.
async fn replace(app: &App, entry: &Entry, serial: &str, standing: Standing) -> Result<(), DbError> {
    let mut tx = app.db.begin().await?;
    certificates::revoke_older(&mut tx, entry.id.as_str(), standing, app.clock.now_us()).await?;
    let caller = Caller::internal(format!("device:{}", entry.id), entry.id.as_str(), None);
    let subject = Subject::of_fleet("device", entry.id.as_str(), &entry.cohort.fleet);
    let after = json!({ "serial": serial });
    audit(app, &mut tx, &caller, "device.replace_certificate", subject, None, Some(after)).await?;
    Ok(tx.commit().await?)
}

/// What the embedded endpoint asks.
#[derive(Clone, Debug)]
pub struct Gate(App);

impl Gate {
    /// The gate of this application.
    pub fn new(app: App) -> Self {
        Gate(app)
    }
}

#[async_trait]
impl DeviceAccess for Gate {
    async fn authenticate(&self, login: Login<'_>) -> Result<DeviceId, LoginRefused> {
        let entry = authenticate(&self.0, login.credential, login.address).await?;
        Ok(entry.id.clone())
    }

    async fn desired(&self, device: &DeviceId) -> Option<Bytes> {
        match super::desired(&self.0, device).await {
            Ok(message) => message,
            Err(error) => {
                // The device says in its state which generation it has, and gets the message then.
                tracing::warn!(%device, %error, "cannot read the desired state");
                None
            }
        }
    }

    fn presence(&self, device: &DeviceId, connected: bool) {
        let app = &self.0;
        app.devices.presence.note(device, connected);
        if let Some(entry) = app.devices.directory.get(device.as_str()) {
            let change = if connected { DeviceChange::Connected } else { DeviceChange::Disconnected };
            background::tell(app, &entry.cohort.fleet, device.as_str(), change);
        }
    }
}

/// Tells who looks.
pub(super) fn event(fleet: &str, device: &str, change: DeviceChange) -> LiveEvent {
    LiveEvent::Device { fleet: fleet.to_owned(), device: device.to_owned(), change }
}
