//! What a device should do: the retained message.
//!
//! It is made anew, and signed, whenever it is sent: a signature is valid for a while (`trust.assignment_validity`).
//! Its generation grows only with what it says.

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_protocol::{Desired, DesiredSlot, EncodeError, List, Pair, limits as wire};
use sqlx::AnyConnection;

use super::device::{DesiredModel, Device};
use super::settings::Settings;
use super::store;
use crate::app::App;
use crate::bus::{BusError, DeviceId, DownKind};
use crate::clock::SECOND_US;
use crate::db::{DbError, Tx};
use crate::limits;
use crate::models::ARTIFACTS;
use crate::trust::{SIGNATURE_BYTES, newest_root};

/// The device's desired state as the message that it reads; `None` when there is no such device.
///
/// # Errors
/// When the database fails.
pub async fn desired(app: &App, device: &DeviceId) -> Result<Option<Bytes>, DbError> {
    let mut db = app.db.read().acquire().await?;
    Ok(Contents::read(app, &mut db, device.as_str()).await?.map(|contents| contents.message(app)))
}

/// When a signature must have been made so that the broker needs no new one: within half of its validity. Without
/// signatures, or when they are valid for ever: whenever.
pub(super) async fn signed_before_us(app: &App, db: &mut AnyConnection) -> Result<i64, DbError> {
    let validity = app.config.trust_assignment_validity;
    if validity.is_zero() || newest_root(db).await?.is_none() {
        return Ok(i64::MIN);
    }
    Ok(app.clock.now_us().saturating_sub(limits::micros(validity / 2)))
}

/// Sends the device its desired state. The embedded endpoint reaches devices connected to this process; an external
/// broker keeps the message.
pub(super) async fn send(app: &App, id: &DeviceId) -> Result<(), SendError> {
    let Some(bus) = app.bus() else { return Ok(()) };
    let now_us = app.clock.now_us();
    let mut db = app.db.read().acquire().await.map_err(DbError::from)?;
    let Some(contents) = Contents::read(app, &mut db, id.as_str()).await? else { return Ok(()) };
    drop(db);
    bus.send(id, DownKind::Desired, contents.message(app)).await?;
    if app.config.broker_url.is_some() {
        let mut db = app.db.write().acquire().await.map_err(DbError::from)?;
        let generation = contents.device.generation;
        store::devices::mark_published(&mut db, id.as_str(), generation, now_us).await?;
    }
    Ok(())
}

/// Why a desired state was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Sends the device its desired state again: after [`assign`] was committed, or when the device is
/// [`super::Applied::Behind`]. A failure is made up for when the device connects or reports its state.
pub async fn announce(app: &App, device: &DeviceId) {
    if let Err(error) = send(app, device).await {
        tracing::debug!(%device, %error, "the desired state was not sent");
    }
}

/// Replaces what the device's slots should hold; a new generation. The caller commits, and calls [`announce`]
/// afterwards.
///
/// # Errors
/// When the database fails.
pub async fn assign(
    tx: &mut Tx,
    device: &DeviceId,
    slots: &BTreeMap<String, DesiredModel>,
    now_us: i64,
) -> Result<(), DbError> {
    store::devices::set_desired(tx, device.as_str(), slots).await?;
    store::devices::renew_desired(tx, device.as_str(), now_us).await
}

/// Everything that stands in a device's desired state.
pub(super) struct Contents {
    device: Device,
    settings: Settings,
    /// The number of the newest root; 0 without one.
    root: u32,
    /// Signed releases by slot.
    releases: BTreeMap<String, Vec<u8>>,
}

impl Contents {
    /// Reads it; `None` when there is no such device.
    pub(super) async fn read(app: &App, db: &mut AnyConnection, id: &str) -> Result<Option<Self>, DbError> {
        let Some(device) = store::devices::get(db, id, &super::reading(app)).await? else { return Ok(None) };
        let Some(fleet) = store::fleets::get(db, &device.fleet).await? else { return Ok(None) };
        let settings = fleet.settings.with(&device.settings);
        let root = newest_root(db).await?.map_or(0, |root| root.number);
        let mut releases = BTreeMap::new();
        for (slot, model) in device.desired.iter().filter(|(_, model)| !model.is_empty()) {
            let version = crate::models::version(db, &model.model, model.version).await?;
            releases
                .extend(version.and_then(|version| version.release).map(|release| (slot.clone(), release)));
        }
        Ok(Some(Contents { device, settings, root, releases }))
    }

    /// The message, signed if there is a root. What is too long for the protocol is left out, and said in the log: the
    /// API accepts no such values.
    fn message(&self, app: &App) -> Bytes {
        let slots = self.encode(app, true).or_else(|error| {
            let id = &self.device.id;
            tracing::error!(device = id, %error, "the slots do not fit a message; they are left as they are");
            self.encode(app, false)
        });
        // Without slots a message of numbers always fits.
        let message = slots.unwrap_or_default();
        match app.trust.director() {
            Ok(director) if self.root > 0 => director.sign(&message).into(),
            _ => message.into(),
        }
    }

    /// The message without its signature, for which there is room.
    pub(super) fn encode(&self, app: &App, with_slots: bool) -> Result<Vec<u8>, EncodeError> {
        let (issued_unix_s, expires_unix_s) = self.valid_unix_s(app);
        let listed: Vec<_> = self.device.desired.iter().filter(|_| with_slots).collect();
        let urls: Vec<String> =
            listed.iter().map(|(_, model)| url(app, &self.device.id, model, expires_unix_s)).collect();
        let pairs: Vec<Vec<Pair<'_>>> = listed
            .iter()
            .map(|(_, model)| model.settings.iter().map(|(key, value)| Pair { key, value }).collect())
            .collect();
        let slots: Vec<DesiredSlot<'_>> = listed
            .iter()
            .zip(urls.iter().zip(&pairs))
            .map(|((slot, model), (url, pairs))| DesiredSlot {
                slot,
                version: u32::try_from(model.version).unwrap_or(u32::MAX),
                // Zeros empty the slot.
                model: super::secret::from_hex(&model.digest).unwrap_or_default(),
                size: u32::try_from(model.size).unwrap_or(u32::MAX),
                url,
                settings: List::from(pairs.as_slice()),
                name: &model.model,
                release: self.releases.get(*slot).map_or(&[], Vec::as_slice),
            })
            .collect();
        let seconds = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        let desired = Desired {
            generation: self.device.generation.unsigned_abs(),
            issued_unix_s,
            expires_unix_s,
            report_period_s: seconds(self.settings.report_period_s),
            window_period_s: seconds(self.settings.window_period_s),
            window_count: seconds(self.settings.window_count),
            slots: List::from(slots.as_slice()),
            device: &self.device.id,
            root: self.root,
        };
        let room = if self.root > 0 { SIGNATURE_BYTES } else { 0 };
        let mut message = vec![0; wire::MAX_DOWN_MESSAGE - room];
        let length = desired.encode(&mut message)?;
        message.truncate(length);
        Ok(message)
    }

    /// From when to when the message is valid, in seconds since 1970; 0: for ever.
    fn valid_unix_s(&self, app: &App) -> (u64, u64) {
        if self.root == 0 {
            return ((self.device.generation_us / SECOND_US).unsigned_abs(), 0);
        }
        let now_unix_s = (app.clock.now_us() / SECOND_US).unsigned_abs();
        match app.config.trust_assignment_validity.as_secs() {
            0 => (now_unix_s, 0),
            validity => (now_unix_s, now_unix_s.saturating_add(validity)),
        }
    }
}

/// Where the device fetches an artifact; no other credential is needed, so that HTTP clients of devices stay simple.
fn url(app: &App, device: &str, model: &DesiredModel, until_unix_s: u64) -> String {
    // Before the director's key is read nothing is sent.
    let (Ok(director), false) = (app.trust.director(), model.is_empty()) else { return String::new() };
    let (url, digest) = (app.endpoints().http_url, &model.digest);
    let ticket = director.ticket(digest, device, until_unix_s);
    format!("{url}{ARTIFACTS}{digest}?device={device}&until={until_unix_s}&ticket={ticket}")
}
