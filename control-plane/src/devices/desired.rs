//! What a device should do: the retained message.

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_protocol::{Desired, DesiredSlot, List, Pair, limits as wire};

use super::device::{DesiredModel, Device};
use super::settings::Settings;
use super::store;
use crate::app::App;
use crate::bus::{BusError, DeviceId, DownKind};
use crate::clock::SECOND_US;
use crate::db::{DbError, Tx};

/// The device's desired state as the message that it reads; `None` when there is no such device.
///
/// # Errors
/// When the database fails.
pub async fn desired(app: &App, device: &DeviceId) -> Result<Option<Bytes>, DbError> {
    Ok(read(app, device).await?.map(|(_, message)| message))
}

/// The generation of the device's desired state, and the message.
async fn read(app: &App, id: &DeviceId) -> Result<Option<(i64, Bytes)>, DbError> {
    let mut db = app.db.read().acquire().await?;
    let Some(device) = store::devices::get(&mut db, id.as_str(), &super::reading(app)).await? else {
        return Ok(None);
    };
    let Some(fleet) = store::fleets::get(&mut db, &device.fleet).await? else { return Ok(None) };
    let settings = fleet.settings.with(&device.settings);
    Ok(Some((device.generation, encode(&device, &settings, &app.endpoints().http_url))))
}

/// Sends the device its desired state. The embedded endpoint reaches devices connected to this process; an external
/// broker keeps the message.
pub(super) async fn send(app: &App, id: &DeviceId) -> Result<(), SendError> {
    let Some(bus) = app.bus() else { return Ok(()) };
    let Some((generation, message)) = read(app, id).await? else { return Ok(()) };
    bus.send(id, DownKind::Desired, message).await?;
    if app.config.broker_url.is_some() {
        let mut db = app.db.write().acquire().await.map_err(DbError::from)?;
        store::devices::mark_published(&mut db, id.as_str(), generation).await?;
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

/// The message. What is too long for the protocol is left out, and said in the log: the API accepts no such values.
fn encode(device: &Device, settings: &Settings, public_url: &str) -> Bytes {
    let urls: Vec<String> = device
        .desired
        .values()
        .map(|model| {
            format!("{public_url}/api/v1/models/{}/versions/{}/artifact", model.model, model.version)
        })
        .collect();
    let pairs: Vec<Vec<Pair<'_>>> = device
        .desired
        .values()
        .map(|model| model.settings.iter().map(|(key, value)| Pair { key, value }).collect())
        .collect();
    let slots: Vec<DesiredSlot<'_>> = device
        .desired
        .iter()
        .zip(urls.iter().zip(&pairs))
        .map(|((slot, model), (url, pairs))| DesiredSlot {
            slot,
            version: u32::try_from(model.version).unwrap_or(u32::MAX),
            model: super::secret::from_hex(&model.digest).unwrap_or_default(),
            size: u32::try_from(model.size).unwrap_or(u32::MAX),
            url,
            settings: List::from(pairs.as_slice()),
            name: &model.model,
            release: &[],
        })
        .collect();
    let seconds = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    let mut desired = Desired {
        generation: device.generation.unsigned_abs(),
        issued_unix_s: (device.generation_us / SECOND_US).unsigned_abs(),
        expires_unix_s: 0,
        report_period_s: seconds(settings.report_period_s),
        window_period_s: seconds(settings.window_period_s),
        window_count: seconds(settings.window_count),
        slots: List::from(slots.as_slice()),
        device: &device.id,
        root: 0,
    };
    let mut message = vec![0; wire::MAX_DOWN_MESSAGE];
    let length = desired.encode(&mut message).or_else(|error| {
        tracing::error!(device = device.id, %error, "the slots do not fit a message; they are left as they are");
        desired.slots = List::default();
        desired.encode(&mut message)
    });
    // Without slots a message of numbers always fits.
    message.truncate(length.unwrap_or(0));
    Bytes::from(message)
}
