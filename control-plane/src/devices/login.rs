//! Who may connect: the same answer for the embedded endpoint and for external brokers.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::background;
use super::directory::Entry;
use super::secret;
use crate::app::App;
use crate::bus::{Credential, DeviceAccess, DeviceId, Login, LoginRefused};
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
/// # Errors
/// Unknown device or wrong credential, blocked device, or the database is away.
pub async fn authenticate(
    app: &App,
    credential: Credential<'_>,
    address: IpAddr,
) -> Result<Arc<Entry>, LoginRefused> {
    let id = match credential {
        Credential::Certificate { common_name } => common_name,
        Credential::Password { username, .. } => username,
    };
    let result = match find(app, id).await {
        Ok(Some(entry)) => check(entry, credential),
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

fn check(entry: Arc<Entry>, credential: Credential<'_>) -> Result<Arc<Entry>, LoginRefused> {
    let proven = match credential {
        // TLS has verified it; the id is its common name.
        Credential::Certificate { .. } => true,
        Credential::Password { password, .. } => {
            entry.password.as_ref().is_some_and(|digest| secret::fits(digest, password))
        }
    };
    match (proven, entry.blocked) {
        (false, _) => Err(LoginRefused::BadCredential),
        (true, true) => Err(LoginRefused::Blocked),
        (true, false) => Ok(entry),
    }
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
