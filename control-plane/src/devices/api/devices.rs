//! Devices over HTTP.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::assign;
use super::super::background::tell;
use super::super::device::{DesiredModel, Device};
use super::super::enroll::{self, Endpoint, Given};
use super::super::names::{check_key, check_name, check_value};
use super::super::settings::OwnSettings;
use super::super::store::{certificates, devices as store, fleets, pairs};
use super::super::{changed, reading};
use super::enroll::{answer_credentials, device_id, read_csr};
use super::filters;
use super::view::{DeviceView, SettingsView, desired_json, to_json};
use crate::access::{Action, Caller, Resource, Subject, audit, authorize};
use crate::app::App;
use crate::bus::DeviceId;
use crate::db::Tx;
use crate::http::{ETag, Json, Page, PageQuery, Path, Preconditions, Problem, Query, Tagged};
use crate::limits;
use crate::live::DeviceChange;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, change, delete))
        .routes(routes!(block))
        .routes(routes!(unblock))
        .routes(routes!(new_credentials))
        .routes(routes!(get_settings, put_settings))
        .routes(routes!(put_slot, delete_slot))
}

/// A device to be made by an operator, without an enrolment key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateDevice {
    /// Its id; the server chooses one, if absent.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    id: Option<String>,
    /// Its fleet.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    fleet: String,
    /// Its hardware class.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    hardware: String,
    /// The serial number of its hardware.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    serial: Option<String>,
    /// Tags.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// Attributes.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    /// A certificate signing request (PKCS #10, PEM), to get a certificate rather than a password where devices log
    /// in by certificate.
    #[schema(max_length = 8192)]
    csr: Option<String>,
}

/// A new device with its credentials. Exactly one of `password` and `certificate` is there.
#[derive(Serialize, ToSchema)]
struct CreatedDevice {
    /// The device.
    device: DeviceView,
    /// The MQTT password; it is shown here only.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    /// The certificate (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    /// Where to reach MQTT.
    mqtt: Endpoint,
}

/// Changes of a device; what is absent stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct ChangeDevice {
    /// Moves it to another fleet.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    fleet: Option<String>,
    /// Another hardware class.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    hardware: Option<String>,
    /// Tags to set; null removes one.
    tags: BTreeMap<String, Option<String>>,
    /// Attributes to set; null removes one. What the device itself reports wins with its next state.
    attributes: BTreeMap<String, Option<String>>,
}

/// Which devices are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeviceQuery {
    /// A filter, as in `tags.region == "eu" and running.kws < 3`; see POST /api/v1/devices/filter/check.
    #[param(max_length = 4096)]
    filter: Option<String>,
}

/// Why a device is blocked.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct BlockDevice {
    /// For people.
    #[schema(max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    reason: String,
}

/// What new credentials are made from.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct NewCredentials {
    /// A certificate signing request (PKCS #10, PEM), where devices log in by certificate.
    #[schema(max_length = 8192)]
    csr: Option<String>,
}

fn check_pairs<'a>(field: &str, pairs: impl Iterator<Item = (&'a String, &'a str)>) -> Result<(), Problem> {
    let mut count = 0;
    for (key, value) in pairs {
        check_key(field, key)?;
        check_value(&format!("{field}/{key}"), value)?;
        count += 1;
    }
    check_count(field, count)
}

fn check_count(field: &str, count: usize) -> Result<(), Problem> {
    if count > limits::PAIRS {
        return Err(Problem::unprocessable(field, format!("at most {} are possible", limits::PAIRS)));
    }
    Ok(())
}

/// The device, if the caller may do this with it. Who may not see the fleet does not learn whether the device exists.
async fn find(
    app: &App,
    tx: &mut sqlx::AnyConnection,
    caller: &Caller,
    action: Action,
    id: &str,
) -> Result<Device, Problem> {
    authorize(caller, action, Resource::Listing)?;
    let device = store::get(tx, id, &reading(app)).await?;
    let device = device.ok_or_else(|| Problem::not_found("device", id))?;
    authorize(caller, Action::Read, Resource::Fleet(&device.fleet))
        .map_err(|_| Problem::not_found("device", id))?;
    authorize(caller, action, Resource::Fleet(&device.fleet))?;
    Ok(device)
}

/// Takes the next revision, so that of two changes at once only one gets through.
async fn lock(tx: &mut Tx, device: &Device, now_us: i64) -> Result<(), Problem> {
    if store::next_revision(tx, &device.id, device.revision, now_us).await? {
        return Ok(());
    }
    Err(Problem::precondition_failed())
}

async fn read_again(app: &App, tx: &mut Tx, id: &str) -> Result<Device, Problem> {
    store::get(tx, id, &reading(app)).await?.ok_or_else(|| Problem::not_found("device", id))
}

/// Makes a device without an enrolment key.
#[utoipa::path(post, path = "/devices", operation_id = "create_device", tag = "devices", request_body = CreateDevice,
    responses((status = 201, body = CreatedDevice, headers(("location" = String, description = "The device's path")))))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<CreateDevice>,
) -> Result<(StatusCode, [(HeaderName, String); 2], Json<CreatedDevice>), Problem> {
    authorize(&caller, Action::ManageDevices, Resource::Fleet(&body.fleet))?;
    check_name("/fleet", &body.fleet)?;
    check_name("/hardware", &body.hardware)?;
    if let Some(serial) = &body.serial {
        check_value("/serial", serial)?;
        if serial.is_empty() {
            return Err(Problem::unprocessable("/serial", "the serial number is empty"));
        }
    }
    check_pairs("/tags", body.tags.iter().map(|(key, value)| (key, value.as_str())))?;
    check_pairs("/attributes", body.attributes.iter().map(|(key, value)| (key, value.as_str())))?;
    let csr = body.csr.as_deref().map(|csr| read_csr("/csr", csr)).transpose()?;
    let id = match &body.id {
        Some(id) => device_id("/id", id)?,
        None => DeviceId::new(&app.ids.next()).map_err(|error| Problem::internal(&error))?,
    };
    let set = |pairs: &BTreeMap<String, String>| -> BTreeMap<String, Option<String>> {
        pairs.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
    };
    let (tags, attributes) = (set(&body.tags), set(&body.attributes));
    let now_us = app.clock.now_us();
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let (device, given) = async {
        if fleets::get(tx, &body.fleet).await?.is_none() {
            let detail = format!("there is no fleet {:?}", body.fleet);
            return Err(Problem::unprocessable("/fleet", detail));
        }
        enroll::check_free(&app, tx, &id).await.map_err(|problem| problem.field("/id"))?;
        if let Some(serial) = &body.serial
            && let Some((other, ..)) = store::by_serial(tx, &body.fleet, serial).await?
        {
            let detail = format!("the device {other:?} has this serial number");
            return Err(Problem::conflict(detail).field("/serial"));
        }
        let new = store::NewDevice {
            id: &id,
            fleet: &body.fleet,
            hardware: &body.hardware,
            serial: body.serial.as_deref(),
            claim: None,
            password_digest: None,
        };
        store::insert(tx, &new, now_us).await.map_err(enroll::taken)?;
        pairs::change(tx, pairs::Table::Tags, id.as_str(), &tags).await?;
        pairs::change(tx, pairs::Table::Attributes(false), id.as_str(), &attributes).await?;
        let given = enroll::give(&app, tx, &id, csr.as_ref(), now_us).await?;
        let device = read_again(&app, tx, id.as_str()).await?;
        let subject = Subject::of_fleet("device", id.as_str(), &body.fleet);
        audit(&app, tx, &caller, "device.create", subject, None, Some(to_json(&device))).await?;
        Ok::<_, Problem>((device, given))
    }
    .await?;
    transaction.commit().await?;
    changed(&app, id.as_str()).await;
    tell(&app, &device.fleet, id.as_str(), DeviceChange::Enrolled);
    let headers = [
        (header::LOCATION, format!("/api/v1/devices/{id}")),
        (header::ETAG, ETag::revision(device.revision).as_str().to_owned()),
    ];
    let (password, certificate) = match given {
        Given::Password(password) => (Some(password.reveal().to_owned()), None),
        Given::Certificate(issued) => (None, Some(issued.pem)),
    };
    let mqtt = enroll::endpoint(&app);
    Ok((
        StatusCode::CREATED,
        headers,
        Json(CreatedDevice { device: device.into(), password, certificate, mqtt }),
    ))
}

/// Lists devices by id, those that a filter fits.
#[utoipa::path(get, path = "/devices", operation_id = "list_devices", tag = "devices", params(DeviceQuery, PageQuery),
    responses((status = 200, body = Page<DeviceView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<DeviceQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<DeviceView>>, Problem> {
    authorize(&caller, Action::Read, Resource::Listing)?;
    let limit = page.limit()?;
    let after = page.after()?;
    let filter = filters::parse(query.filter.as_deref())?;
    let mut db = app.db.read().acquire().await?;
    let devices =
        store::list(&mut db, caller.fleets(), filter.as_ref(), after, limit + 1, &reading(&app)).await?;
    Ok(Json(Page::new(devices, limit, |device| device.id.clone()).map(DeviceView::from)))
}

/// Shows a device. Its ETag is for changes: it does not follow what the device reports.
#[utoipa::path(get, path = "/devices/{id}", operation_id = "get_device", tag = "devices",
    params(("id" = String, Path, min_length = 1, max_length = 64)), responses((status = 200, body = DeviceView)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Tagged<DeviceView>, Problem> {
    let mut db = app.db.read().acquire().await?;
    let device = find(&app, &mut db, &caller, Action::Read, &id).await?;
    Ok(Tagged::new(ETag::revision(device.revision), device.into()))
}

/// Changes a device: its fleet, hardware class, tags and attributes.
#[utoipa::path(patch, path = "/devices/{id}", operation_id = "change_device", tag = "devices",
    params(("id" = String, Path, min_length = 1, max_length = 64)), request_body = ChangeDevice,
    responses((status = 200, body = DeviceView)))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    preconditions: Preconditions,
    Json(body): Json<ChangeDevice>,
) -> Result<Tagged<DeviceView>, Problem> {
    if let Some(fleet) = &body.fleet {
        authorize(&caller, Action::ManageDevices, Resource::Fleet(fleet))?;
        check_name("/fleet", fleet)?;
    }
    if let Some(hardware) = &body.hardware {
        check_name("/hardware", hardware)?;
    }
    let values = |pairs: &BTreeMap<String, Option<String>>| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| (key.clone(), value.clone().unwrap_or_default())).collect()
    };
    check_pairs("/tags", values(&body.tags).iter().map(|(key, value)| (key, value.as_str())))?;
    check_pairs("/attributes", values(&body.attributes).iter().map(|(key, value)| (key, value.as_str())))?;
    let now_us = app.clock.now_us();
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let (device, is_moved) = async {
        let before = find(&app, tx, &caller, Action::ManageDevices, &id).await?;
        preconditions.require(&ETag::revision(before.revision))?;
        let fleet = body.fleet.as_ref().unwrap_or(&before.fleet);
        let hardware = body.hardware.as_ref().unwrap_or(&before.hardware);
        let is_moved = *fleet != before.fleet;
        let new_tags = body.tags.iter().any(|(key, value)| before.tags.get(key) != value.as_ref());
        let new_attributes =
            body.attributes.iter().any(|(key, value)| before.attributes.get(key) != value.as_ref());
        if !is_moved && *hardware == before.hardware && !new_tags && !new_attributes {
            return Ok((before, false));
        }
        lock(tx, &before, now_us).await?;
        if is_moved {
            if fleets::get(tx, fleet).await?.is_none() {
                return Err(Problem::unprocessable("/fleet", format!("there is no fleet {fleet:?}")));
            }
            // The new fleet has other settings.
            store::renew_desired(tx, &id, now_us).await?;
        }
        store::place(tx, &id, fleet, hardware).await.map_err(|error| match error.is_unique_violation() {
            true => Problem::conflict(format!("the fleet {fleet:?} has a device with this serial number"))
                .field("/fleet"),
            false => error.into(),
        })?;
        pairs::change(tx, pairs::Table::Tags, &id, &body.tags).await?;
        pairs::change(tx, pairs::Table::Attributes(false), &id, &body.attributes).await?;
        let after = read_again(&app, tx, &id).await?;
        check_count("/tags", after.tags.len())?;
        // What the device reports comes on top.
        if after.attributes.len() > before.attributes.len() {
            check_count("/attributes", after.attributes.len())?;
        }
        let subject = Subject::of_fleet("device", &id, fleet);
        audit(&app, tx, &caller, "device.change", subject, Some(to_json(&before)), Some(to_json(&after)))
            .await?;
        Ok::<_, Problem>((after, is_moved))
    }
    .await?;
    transaction.commit().await?;
    changed(&app, &id).await;
    tell(&app, &device.fleet, &id, DeviceChange::State);
    if is_moved {
        tracing::debug!(device = id, "moved; its desired state is sent again");
    }
    Ok(Tagged::new(ETag::revision(device.revision), device.into()))
}

/// Deletes a device and disconnects it. Its statistics stay. Its id can be used again after its last certificate has
/// expired.
#[utoipa::path(delete, path = "/devices/{id}", operation_id = "delete_device", tag = "devices",
    params(("id" = String, Path, min_length = 1, max_length = 64)), responses((status = 204)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    preconditions: Preconditions,
) -> Result<StatusCode, Problem> {
    let now_us = app.clock.now_us();
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let device = async {
        let device = find(&app, tx, &caller, Action::ManageDevices, &id).await?;
        preconditions.check(&ETag::revision(device.revision))?;
        lock(tx, &device, now_us).await?;
        let last_us = certificates::revoke_all(tx, &id, now_us).await?;
        store::delete(tx, &device, now_us, enroll::rests_until_us(last_us, now_us)).await?;
        let subject = Subject::of_fleet("device", &id, &device.fleet);
        audit(&app, tx, &caller, "device.delete", subject, Some(to_json(&device)), None).await?;
        Ok::<_, Problem>(device)
    }
    .await?;
    transaction.commit().await?;
    changed(&app, &id).await;
    tell(&app, &device.fleet, &id, DeviceChange::Deleted);
    Ok(StatusCode::NO_CONTENT)
}

/// Blocks a device: it is disconnected, cannot connect, and what it sent does not count any more.
#[utoipa::path(post, path = "/devices/{id}/block", operation_id = "block_device", tag = "devices",
    params(("id" = String, Path, min_length = 1, max_length = 64)), request_body = BlockDevice,
    responses((status = 200, body = DeviceView)))]
async fn block(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    preconditions: Preconditions,
    Json(body): Json<BlockDevice>,
) -> Result<Tagged<DeviceView>, Problem> {
    check_value("/reason", &body.reason)?;
    set_blocked(&app, &caller, &id, &preconditions, Some(&body.reason)).await
}

/// Lets a blocked device in again, with the credentials it had.
#[utoipa::path(post, path = "/devices/{id}/unblock", operation_id = "unblock_device", tag = "devices",
    params(("id" = String, Path, min_length = 1, max_length = 64)), responses((status = 200, body = DeviceView)))]
async fn unblock(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    preconditions: Preconditions,
) -> Result<Tagged<DeviceView>, Problem> {
    set_blocked(&app, &caller, &id, &preconditions, None).await
}

async fn set_blocked(
    app: &App,
    caller: &Caller,
    id: &str,
    preconditions: &Preconditions,
    reason: Option<&str>,
) -> Result<Tagged<DeviceView>, Problem> {
    let now_us = app.clock.now_us();
    let (action, change) = match reason {
        Some(_) => ("device.block", DeviceChange::Blocked),
        None => ("device.unblock", DeviceChange::Unblocked),
    };
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let (device, is_changed) = async {
        let before = find(app, tx, caller, Action::ManageDevices, id).await?;
        preconditions.check(&ETag::revision(before.revision))?;
        if before.blocked_us.is_some() == reason.is_some() && before.blocked_reason.as_deref() == reason {
            return Ok::<_, Problem>((before, false));
        }
        lock(tx, &before, now_us).await?;
        let since_us = before.blocked_us.unwrap_or(now_us);
        store::block(tx, id, reason.map(|reason| (since_us, reason))).await?;
        let after = read_again(app, tx, id).await?;
        let subject = Subject::of_fleet("device", id, &after.fleet);
        audit(app, tx, caller, action, subject, Some(to_json(&before)), Some(to_json(&after))).await?;
        Ok::<_, Problem>((after, true))
    }
    .await?;
    transaction.commit().await?;
    if is_changed {
        changed(app, id).await;
        tell(app, &device.fleet, id, change);
    }
    Ok(Tagged::new(ETag::revision(device.revision), device.into()))
}

/// Gives a device new credentials; the old ones are no longer good, and it is disconnected. For a device whose secret
/// leaked, or was lost.
#[utoipa::path(post, path = "/devices/{id}/credentials", operation_id = "new_credentials", tag = "devices",
    params(("id" = String, Path, min_length = 1, max_length = 64)), request_body = NewCredentials,
    responses((status = 201, body = super::enroll::Enrolled)))]
async fn new_credentials(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    preconditions: Preconditions,
    Json(body): Json<NewCredentials>,
) -> Result<Response, Problem> {
    let csr = body.csr.as_deref().map(|csr| read_csr("/csr", csr)).transpose()?;
    let now_us = app.clock.now_us();
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let (device, given) = async {
        let before = find(&app, tx, &caller, Action::ManageDevices, &id).await?;
        preconditions.check(&ETag::revision(before.revision))?;
        lock(tx, &before, now_us).await?;
        let device = DeviceId::new(&id).map_err(|error| Problem::internal(&error))?;
        let given = enroll::give(&app, tx, &device, csr.as_ref(), now_us).await?;
        let after = serde_json::json!({ "credential": given.name() });
        let subject = Subject::of_fleet("device", &id, &before.fleet);
        audit(&app, tx, &caller, "device.new_credentials", subject, None, Some(after)).await?;
        Ok::<_, Problem>((before, given))
    }
    .await?;
    transaction.commit().await?;
    changed(&app, &id).await;
    let device_id = DeviceId::new(&id).map_err(|error| Problem::internal(&error))?;
    answer_credentials(&app, device_id, device.fleet, given).await
}

/// Shows how often a device reports.
#[utoipa::path(get, path = "/devices/{id}/settings", operation_id = "get_device_settings", tag = "devices",
    params(("id" = String, Path, min_length = 1, max_length = 64)), responses((status = 200, body = SettingsView)))]
async fn get_settings(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Tagged<SettingsView>, Problem> {
    let mut db = app.db.read().acquire().await?;
    let device = find(&app, &mut db, &caller, Action::Read, &id).await?;
    let view = settings_view(&mut db, &device).await?;
    Ok(Tagged::new(ETag::revision(device.revision), view))
}

async fn settings_view(db: &mut sqlx::AnyConnection, device: &Device) -> Result<SettingsView, Problem> {
    let fleet = fleets::get(db, &device.fleet).await?;
    let fleet = fleet.ok_or_else(|| Problem::not_found("fleet", &device.fleet))?.settings;
    Ok(SettingsView { own: device.settings, fleet, effective: fleet.with(&device.settings) })
}

/// Sets how often a device reports; null or absent: as its fleet. The device is told as soon as it is connected.
#[utoipa::path(put, path = "/devices/{id}/settings", operation_id = "set_device_settings", tag = "devices",
    params(("id" = String, Path, min_length = 1, max_length = 64)), request_body = OwnSettings,
    responses((status = 200, body = SettingsView)))]
async fn put_settings(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    preconditions: Preconditions,
    Json(body): Json<OwnSettings>,
) -> Result<Tagged<SettingsView>, Problem> {
    body.check("")?;
    let now_us = app.clock.now_us();
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let (device, view) = async {
        let mut device = find(&app, tx, &caller, Action::ManageDevices, &id).await?;
        preconditions.require(&ETag::revision(device.revision))?;
        if device.settings != body {
            lock(tx, &device, now_us).await?;
            store::set_settings(tx, &id, &body).await?;
            store::renew_desired(tx, &id, now_us).await?;
            let before = to_json(&device);
            device = read_again(&app, tx, &id).await?;
            let subject = Subject::of_fleet("device", &id, &device.fleet);
            audit(&app, tx, &caller, "device.settings", subject, Some(before), Some(to_json(&device)))
                .await?;
        }
        let view = settings_view(tx, &device).await?;
        Ok::<_, Problem>((device, view))
    }
    .await?;
    transaction.commit().await?;
    changed(&app, &id).await;
    Ok(Tagged::new(ETag::revision(device.revision), view))
}

/// What a slot should hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AssignModel {
    /// The model's name.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    model: String,
    /// The model's version.
    #[schema(minimum = 1)]
    version: i64,
    /// Settings of the model on this device.
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

/// Says which version a slot of a device should hold. The device is told as soon as it is connected. Refused when the
/// device would refuse it: without a release that enough keys have signed, or for other hardware.
#[utoipa::path(put, path = "/devices/{id}/slots/{slot}", operation_id = "assign_model", tag = "devices",
    params(("id" = String, Path, min_length = 1, max_length = 64), ("slot" = String, Path, min_length = 1, max_length = 32)),
    request_body = AssignModel, responses((status = 200, body = DeviceView)))]
async fn put_slot(
    State(app): State<App>,
    caller: Caller,
    Path((id, slot)): Path<(String, String)>,
    preconditions: Preconditions,
    Json(body): Json<AssignModel>,
) -> Result<Tagged<DeviceView>, Problem> {
    authorize(&caller, Action::Read, Resource::Model(&body.model))?;
    check_name("/model", &body.model)?;
    assign::check_settings(&body.settings)?;
    set_slot(&app, &caller, (&id, &slot), &preconditions, Some(body)).await
}

/// Says that a slot of a device should be empty.
#[utoipa::path(delete, path = "/devices/{id}/slots/{slot}", operation_id = "unassign_model", tag = "devices",
    params(("id" = String, Path, min_length = 1, max_length = 64), ("slot" = String, Path, min_length = 1, max_length = 32)),
    responses((status = 200, body = DeviceView)))]
async fn delete_slot(
    State(app): State<App>,
    caller: Caller,
    Path((id, slot)): Path<(String, String)>,
    preconditions: Preconditions,
) -> Result<Tagged<DeviceView>, Problem> {
    set_slot(&app, &caller, (&id, &slot), &preconditions, None).await
}

async fn set_slot(
    app: &App,
    caller: &Caller,
    (id, slot): (&str, &str),
    preconditions: &Preconditions,
    body: Option<AssignModel>,
) -> Result<Tagged<DeviceView>, Problem> {
    assign::check_slot(slot)?;
    let now_us = app.clock.now_us();
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let device = async {
        let before = find(app, tx, caller, Action::ManageDevices, id).await?;
        let tag = ETag::revision(before.revision);
        let model = match body {
            Some(body) => {
                preconditions.require(&tag)?;
                let version = (body.model.as_str(), body.version);
                assign::desired_model(app, tx, &before, version, body.settings).await?
            }
            None => {
                preconditions.check(&tag)?;
                DesiredModel::nothing()
            }
        };
        if before.desired.get(slot) == Some(&model) {
            return Ok(before);
        }
        lock(tx, &before, now_us).await?;
        let device = DeviceId::new(id).map_err(|error| Problem::internal(&error))?;
        let mut slots = before.desired.clone();
        slots.insert(slot.to_owned(), model);
        assign::write(app, tx, &device, &slots, now_us).await?;
        let after = read_again(app, tx, id).await?;
        let subject = Subject::of_fleet("device", id, &after.fleet);
        let (old, new) = (desired_json(&before), desired_json(&after));
        audit(app, tx, caller, "device.assign", subject, Some(old), Some(new)).await?;
        Ok::<_, Problem>(after)
    }
    .await?;
    transaction.commit().await?;
    changed(app, id).await;
    tell(app, &device.fleet, id, DeviceChange::State);
    Ok(Tagged::new(ETag::revision(device.revision), device.into()))
}
