//! Which version a device's slot should hold.

use std::collections::BTreeMap;

use dunlin_protocol::limits as wire;
use sqlx::AnyConnection;

use super::desired::{self, Contents};
use super::device::{DesiredModel, Device};
use super::names::{check_key, is_value};
use crate::app::App;
use crate::bus::DeviceId;
use crate::db::Tx;
use crate::http::Problem;
use crate::models;

/// Checks the name of a slot.
pub(super) fn check_slot(slot: &str) -> Result<(), Problem> {
    if super::names::is_name(slot) && slot.len() <= wire::MAX_SLOT {
        return Ok(());
    }
    let detail = format!(
        "a slot's name has 1 to {} characters of A-Z a-z 0-9 . _ - and begins with a letter or a digit",
        wire::MAX_SLOT
    );
    Err(Problem::unprocessable("slot", detail))
}

/// Checks settings of a model.
pub(super) fn check_settings(settings: &BTreeMap<String, String>) -> Result<(), Problem> {
    if settings.len() > wire::MAX_PAIRS {
        let detail = format!("at most {} settings are possible", wire::MAX_PAIRS);
        return Err(Problem::unprocessable("/settings", detail));
    }
    for (key, value) in settings {
        check_key("/settings", key)?;
        if key.len() > wire::MAX_KEY {
            let detail = format!("the key {key:?} is longer than {} bytes", wire::MAX_KEY);
            return Err(Problem::unprocessable("/settings", detail));
        }
        if value.len() > wire::MAX_VALUE || !is_value(value) {
            let detail =
                format!("at most {} bytes are expected, without control characters", wire::MAX_VALUE);
            return Err(Problem::unprocessable(&format!("/settings/{key}"), detail));
        }
    }
    Ok(())
}

/// What the slot should hold: a version that the device would install.
pub(super) async fn desired_model(
    app: &App,
    db: &mut AnyConnection,
    device: &Device,
    (model, version): (&str, i64),
    settings: BTreeMap<String, String>,
) -> Result<DesiredModel, Problem> {
    let found = models::version(db, model, version).await?.ok_or_else(|| {
        Problem::unprocessable("/version", format!("there is no version {version} of a model {model:?}"))
    })?;
    if let Some(why) = models::obstacle(app, db, &found, &device.hardware).await? {
        return Err(Problem::conflict(why).field("/version"));
    }
    Ok(DesiredModel { model: found.model, version, digest: found.digest, size: found.size, settings })
}

/// Writes what the slots should hold, if the device can be told.
pub(super) async fn write(
    app: &App,
    tx: &mut Tx,
    device: &DeviceId,
    slots: &BTreeMap<String, DesiredModel>,
    now_us: i64,
) -> Result<(), Problem> {
    if slots.len() > wire::MAX_SLOTS {
        let detail = format!("a device has at most {} slots; emptied ones count", wire::MAX_SLOTS);
        return Err(Problem::unprocessable("slot", detail));
    }
    desired::assign(tx, device, slots, now_us).await?;
    let contents = Contents::read(app, tx, device.as_str()).await?;
    let fits = contents.is_none_or(|contents| contents.encode(app, true).is_ok());
    if fits {
        return Ok(());
    }
    let detail = format!(
        "all slots with their settings and releases do not fit a message of {} bytes; use fewer or shorter settings",
        wire::MAX_DOWN_MESSAGE
    );
    Err(Problem::unprocessable("/settings", detail))
}
