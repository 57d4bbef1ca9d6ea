//! Devices in the database.

use std::collections::{BTreeMap, HashMap};

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::super::device::{DesiredModel, Device, Slot};
use super::super::filter::{Filter, SqlContext, SqlValue};
use super::super::settings::OwnSettings;
use super::super::version;
use super::{CHUNK, placeholders};
use crate::access::Visible;
use crate::bus::DeviceId;
use crate::db::{DbError, Dialect};

/// What reading devices depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) dialect: Dialect,
    pub(crate) now_us: i64,
    /// See [`SqlContext::seen_is_connected_us`].
    pub(crate) seen_is_connected_us: Option<i64>,
}

/// A device to be.
#[derive(Clone, Debug)]
pub(crate) struct NewDevice<'a> {
    pub(crate) id: &'a DeviceId,
    pub(crate) fleet: &'a str,
    pub(crate) hardware: &'a str,
    pub(crate) serial: Option<&'a str>,
    pub(crate) claim: Option<&'a str>,
    pub(crate) password_digest: Option<&'a str>,
}

const SELECT: &str = "select d.id, d.fleet, d.hardware, d.serial, d.claim, d.created_us, d.blocked_us, \
    d.blocked_reason, d.password_digest, d.report_period_s, d.window_period_s, d.window_count, d.generation, \
    d.generation_us, d.agent_version, d.reported_hardware, d.reported_generation, d.state_us, d.revision, \
    a.last_seen_us, e.expires_us as connected_until_us, \
    (select max(c.expires_us) from device_certificates c where c.device = d.id and c.revoked_us is null) \
    as certificate_us \
    from devices d left join device_activity a on a.device = d.id \
    left join device_connections n on n.device = d.id left join device_endpoints e on e.process = n.process";

fn from_row(row: &AnyRow, reading: &Reading) -> Result<Device, DbError> {
    let last_seen_us: Option<i64> = row.try_get("last_seen_us")?;
    let connected = match reading.seen_is_connected_us {
        Some(since_us) => last_seen_us.is_some_and(|seen_us| seen_us >= since_us),
        None => row
            .try_get::<Option<i64>, _>("connected_until_us")?
            .is_some_and(|until_us| until_us > reading.now_us),
    };
    Ok(Device {
        id: row.try_get("id")?,
        fleet: row.try_get("fleet")?,
        hardware: row.try_get("hardware")?,
        serial: row.try_get("serial")?,
        claim: row.try_get("claim")?,
        created_us: row.try_get("created_us")?,
        blocked_us: row.try_get("blocked_us")?,
        blocked_reason: row.try_get("blocked_reason")?,
        has_password: row.try_get::<Option<String>, _>("password_digest")?.is_some(),
        certificate_expires_us: row.try_get("certificate_us")?,
        settings: OwnSettings {
            report_period_s: row.try_get("report_period_s")?,
            window_period_s: row.try_get("window_period_s")?,
            window_count: row.try_get("window_count")?,
        },
        generation: row.try_get("generation")?,
        generation_us: row.try_get("generation_us")?,
        agent_version: row.try_get("agent_version")?,
        reported_hardware: row.try_get("reported_hardware")?,
        reported_generation: row.try_get("reported_generation")?,
        state_us: row.try_get("state_us")?,
        last_seen_us,
        connected,
        revision: row.try_get("revision")?,
        tags: BTreeMap::new(),
        attributes: BTreeMap::new(),
        slots: BTreeMap::new(),
        desired: BTreeMap::new(),
    })
}

/// The device with everything about it.
pub(crate) async fn get(
    db: &mut AnyConnection,
    id: &str,
    reading: &Reading,
) -> Result<Option<Device>, DbError> {
    let sql = format!("{SELECT} where d.id = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id.to_owned()).fetch_optional(&mut *db).await?;
    let mut devices =
        row.as_ref().map(|row| from_row(row, reading)).transpose()?.into_iter().collect::<Vec<_>>();
    add_children(db, &mut devices).await?;
    Ok(devices.pop())
}

/// The condition of a list: what the caller may see, and the filter. Placeholders begin after `bound`.
fn condition(
    visible: Visible<'_>,
    filter: Option<&Filter>,
    reading: &Reading,
    bound: usize,
) -> Option<(String, Vec<SqlValue>)> {
    let mut sql = String::new();
    let mut values = Vec::new();
    match visible {
        Visible::All => {}
        Visible::Only(fleet) => {
            values.push(SqlValue::Text(fleet.to_owned()));
            sql.push_str(&format!(" and devices.fleet = ${}", bound + 1));
        }
        Visible::Nothing => return None,
    }
    if let Some(filter) = filter {
        let context = SqlContext {
            dialect: reading.dialect,
            now_us: reading.now_us,
            seen_is_connected_us: reading.seen_is_connected_us,
            bound: bound + values.len(),
        };
        let condition = filter.to_sql(&context);
        sql.push_str(" and ");
        sql.push_str(&condition.sql);
        values.extend(condition.values);
    }
    Some((sql, values))
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

fn bind_all<'q>(mut query: Query<'q>, values: Vec<SqlValue>) -> Query<'q> {
    for value in values {
        query = match value {
            SqlValue::Text(text) => query.bind(text),
            SqlValue::Integer(integer) => query.bind(integer),
            SqlValue::Number(number) => query.bind(number),
        };
    }
    query
}

/// Devices in the order of their ids.
pub(crate) async fn list(
    db: &mut AnyConnection,
    visible: Visible<'_>,
    filter: Option<&Filter>,
    after: Option<String>,
    limit: i64,
    reading: &Reading,
) -> Result<Vec<Device>, DbError> {
    let Some((condition, values)) = condition(visible, filter, reading, 2) else { return Ok(Vec::new()) };
    let sql = format!(
        "select devices.id from devices where devices.id > $1{condition} order by devices.id limit $2"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).persistent(false).bind(after.unwrap_or_default()).bind(limit);
    let rows = bind_all(query, values).fetch_all(&mut *db).await?;
    let mut devices = Vec::with_capacity(rows.len());
    for chunk in rows.chunks(CHUNK) {
        let sql = format!("{SELECT} where d.id in ({}) order by d.id", placeholders(0, chunk.len()));
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        for row in chunk {
            query = query.bind(row.try_get::<String, _>(0)?);
        }
        for row in query.fetch_all(&mut *db).await? {
            devices.push(from_row(&row, reading)?);
        }
    }
    add_children(db, &mut devices).await?;
    Ok(devices)
}

/// How many devices fit.
pub(crate) async fn count(
    db: &mut AnyConnection,
    visible: Visible<'_>,
    filter: Option<&Filter>,
    reading: &Reading,
) -> Result<i64, DbError> {
    let Some((condition, values)) = condition(visible, filter, reading, 0) else { return Ok(0) };
    let sql = format!("select count(*) from devices where 1 = 1{condition}");
    let query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
    Ok(bind_all(query, values).fetch_one(db).await?.try_get(0)?)
}

/// Reads tags, attributes and slots of the devices, which are few enough for a page.
async fn add_children(db: &mut AnyConnection, devices: &mut [Device]) -> Result<(), DbError> {
    for chunk in devices.chunks_mut(CHUNK) {
        let ids: Vec<String> = chunk.iter().map(|device| device.id.clone()).collect();
        let mut by_id: HashMap<String, &mut Device> =
            chunk.iter_mut().map(|device| (device.id.clone(), device)).collect();
        for row in children(db, "device, key, value", "device_tags", &ids).await? {
            if let Some(device) = by_id.get_mut(row.try_get::<&str, _>(0)?) {
                device.tags.insert(row.try_get(1)?, row.try_get(2)?);
            }
        }
        for row in children(db, "device, key, value", "device_attributes", &ids).await? {
            if let Some(device) = by_id.get_mut(row.try_get::<&str, _>(0)?) {
                device.attributes.insert(row.try_get(1)?, row.try_get(2)?);
            }
        }
        let columns = "device, slot, status, digest, model, version, reason, changed_us";
        for row in children(db, columns, "device_slots", &ids).await? {
            if let Some(device) = by_id.get_mut(row.try_get::<&str, _>(0)?) {
                let slot = Slot {
                    status: row.try_get(2)?,
                    digest: row.try_get(3)?,
                    model: row.try_get(4)?,
                    version: row.try_get(5)?,
                    reason: row.try_get(6)?,
                    changed_us: row.try_get(7)?,
                };
                device.slots.insert(row.try_get(1)?, slot);
            }
        }
        let columns = "device, slot, model, version, digest, size, settings_json";
        for row in children(db, columns, "device_desired", &ids).await? {
            if let Some(device) = by_id.get_mut(row.try_get::<&str, _>(0)?) {
                let settings: String = row.try_get(6)?;
                let model = DesiredModel {
                    model: row.try_get(2)?,
                    version: row.try_get(3)?,
                    digest: row.try_get(4)?,
                    size: row.try_get(5)?,
                    settings: serde_json::from_str(&settings)
                        .map_err(|error| sqlx::Error::Decode(error.into()))?,
                };
                device.desired.insert(row.try_get(1)?, model);
            }
        }
    }
    Ok(())
}

async fn children(
    db: &mut AnyConnection,
    columns: &str,
    table: &str,
    ids: &[String],
) -> Result<Vec<AnyRow>, DbError> {
    let sql = format!("select {columns} from {table} where device in ({})", placeholders(0, ids.len()));
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(ids.len() == 1);
    for id in ids {
        query = query.bind(id.clone());
    }
    Ok(query.fetch_all(db).await?)
}

pub(crate) async fn insert(
    db: &mut AnyConnection,
    device: &NewDevice<'_>,
    now_us: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "insert into devices (id, fleet, hardware, serial, claim, created_us, password_digest, generation, \
         generation_us, published_generation, revision, changed_us) \
         values ($1, $2, $3, $4, $5, $6, $7, 1, $6, 0, 1, $6)",
    )
    .bind(device.id.as_str())
    .bind(device.fleet)
    .bind(device.hardware)
    .bind(device.serial)
    .bind(device.claim)
    .bind(now_us)
    .bind(device.password_digest)
    .execute(db)
    .await?;
    Ok(())
}

/// The device in the fleet whose hardware has this serial number: its id, the claim it came with, whether it is
/// blocked.
pub(crate) async fn by_serial(
    db: &mut AnyConnection,
    fleet: &str,
    serial: &str,
) -> Result<Option<(String, Option<String>, bool)>, DbError> {
    let row = sqlx::query("select id, claim, blocked_us from devices where fleet = $1 and serial = $2")
        .bind(fleet)
        .bind(serial)
        .fetch_optional(db)
        .await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<Option<i64>, _>(2)?.is_some())))
        .transpose()
}

/// Until when the id of a deleted device cannot be used.
pub(crate) async fn deleted_until(db: &mut AnyConnection, id: &str) -> Result<Option<i64>, DbError> {
    let row =
        sqlx::query("select until_us from deleted_devices where id = $1").bind(id).fetch_optional(db).await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// Locks the device's row until the transaction's end and gives it the next revision, if its revision is `revision`.
pub(crate) async fn next_revision(
    db: &mut AnyConnection,
    id: &str,
    revision: i64,
    now_us: i64,
) -> Result<bool, DbError> {
    let done = sqlx::query(
        "update devices set revision = revision + 1, changed_us = $1 where id = $2 and revision = $3",
    )
    .bind(now_us)
    .bind(id)
    .bind(revision)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn place(
    db: &mut AnyConnection,
    id: &str,
    fleet: &str,
    hardware: &str,
) -> Result<(), DbError> {
    sqlx::query("update devices set fleet = $1, hardware = $2 where id = $3")
        .bind(fleet)
        .bind(hardware)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

pub(crate) async fn block(
    db: &mut AnyConnection,
    id: &str,
    blocked: Option<(i64, &str)>,
) -> Result<(), DbError> {
    sqlx::query("update devices set blocked_us = $1, blocked_reason = $2 where id = $3")
        .bind(blocked.map(|(us, _)| us))
        .bind(blocked.map(|(_, reason)| reason))
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Gives the device other credentials: a password, or none if it has a certificate.
pub(crate) async fn set_credentials(
    db: &mut AnyConnection,
    id: &str,
    digest: Option<&str>,
) -> Result<(), DbError> {
    sqlx::query("update devices set password_digest = $1, credentials = credentials + 1 where id = $2")
        .bind(digest)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

pub(crate) async fn set_settings(
    db: &mut AnyConnection,
    id: &str,
    settings: &OwnSettings,
) -> Result<(), DbError> {
    sqlx::query(
        "update devices set report_period_s = $1, window_period_s = $2, window_count = $3 where id = $4",
    )
    .bind(settings.report_period_s)
    .bind(settings.window_period_s)
    .bind(settings.window_count)
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// Gives the device a new desired state.
pub(crate) async fn renew_desired(db: &mut AnyConnection, id: &str, now_us: i64) -> Result<(), DbError> {
    sqlx::query("update devices set generation = generation + 1, generation_us = $1 where id = $2")
        .bind(now_us)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Gives all devices a new desired state, since there is a new root.
pub(crate) async fn renew_all(db: &mut AnyConnection, now_us: i64) -> Result<(), DbError> {
    sqlx::query(
        "update devices set generation = generation + 1, generation_us = $1, changed_us = $1, revision = revision + 1",
    )
    .bind(now_us)
    .execute(db)
    .await?;
    Ok(())
}

/// Gives the devices that should run this version a new desired state, since its release has changed.
pub(crate) async fn renew_assigned(
    db: &mut AnyConnection,
    model: &str,
    version: i64,
    now_us: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "update devices set generation = generation + 1, generation_us = $1, changed_us = $1, revision = revision + 1 \
         where id in (select device from device_desired where model = $2 and version = $3)",
    )
    .bind(now_us)
    .bind(model)
    .bind(version)
    .execute(db)
    .await?;
    Ok(())
}

/// The size of an artifact that one of the device's slots should hold; `None` when none should.
pub(crate) async fn assigned_size(
    db: &mut AnyConnection,
    id: &str,
    digest: &str,
) -> Result<Option<i64>, DbError> {
    let row = sqlx::query("select size from device_desired where device = $1 and digest = $2 limit 1")
        .bind(id)
        .bind(digest)
        .fetch_optional(db)
        .await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// Replaces what the slots should hold.
pub(crate) async fn set_desired(
    db: &mut AnyConnection,
    id: &str,
    slots: &BTreeMap<String, DesiredModel>,
) -> Result<(), DbError> {
    sqlx::query("delete from device_desired where device = $1").bind(id).execute(&mut *db).await?;
    for (slot, model) in slots {
        let settings =
            serde_json::to_string(&model.settings).map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query(
            "insert into device_desired (device, slot, model, version, digest, size, settings_json) \
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id)
        .bind(slot)
        .bind(&model.model)
        .bind(model.version)
        .bind(&model.digest)
        .bind(model.size)
        .bind(settings)
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// Deletes the device with everything that hangs on it; its id rests until `until_us`.
pub(crate) async fn delete(
    db: &mut AnyConnection,
    device: &Device,
    now_us: i64,
    until_us: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "insert into deleted_devices (id, fleet, deleted_us, until_us) values ($1, $2, $3, $4) \
         on conflict (id) do update set fleet = excluded.fleet, deleted_us = excluded.deleted_us, \
         until_us = excluded.until_us",
    )
    .bind(&device.id)
    .bind(&device.fleet)
    .bind(now_us)
    .bind(until_us)
    .execute(&mut *db)
    .await?;
    sqlx::query("delete from devices where id = $1").bind(&device.id).execute(db).await?;
    Ok(())
}

pub(crate) async fn write_seen(db: &mut AnyConnection, ids: &[DeviceId], now_us: i64) -> Result<(), DbError> {
    for chunk in ids.chunks(CHUNK) {
        // A device that was deleted meanwhile has no row, and gets none.
        let sql = format!(
            "insert into device_activity (device, last_seen_us) select id, $1 from devices where id in ({}) \
             order by id on conflict (device) do update set last_seen_us = excluded.last_seen_us \
             where device_activity.last_seen_us < excluded.last_seen_us",
            placeholders(1, chunk.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false).bind(now_us);
        for id in chunk {
            query = query.bind(id.as_str().to_owned());
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// A device's own words about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) agent_version: String,
    pub(crate) hardware: String,
    pub(crate) generation: i64,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) slots: BTreeMap<String, Slot>,
}

/// Writes what the device reported; returns the generation of its desired state, `None` when there is no such
/// device.
pub(crate) async fn write_reported(
    db: &mut AnyConnection,
    id: &str,
    reported: &Reported,
    now_us: i64,
) -> Result<Option<i64>, DbError> {
    let row = sqlx::query(
        "update devices set agent_version = $1, agent_order = $2, reported_hardware = $3, reported_generation = $4, \
         state_us = $5 where id = $6 returning generation",
    )
    .bind(&reported.agent_version)
    .bind(version::order(&reported.agent_version))
    .bind(&reported.hardware)
    .bind(reported.generation)
    .bind(now_us)
    .bind(id)
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    super::pairs::report(db, id, &reported.attributes).await?;
    let mut since: BTreeMap<String, (String, Option<String>, i64)> = BTreeMap::new();
    let rows = sqlx::query("select slot, status, digest, changed_us from device_slots where device = $1")
        .bind(id)
        .fetch_all(&mut *db)
        .await?;
    for row in rows {
        since.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
    }
    sqlx::query("delete from device_slots where device = $1").bind(id).execute(&mut *db).await?;
    for (name, slot) in &reported.slots {
        // The time is when the slot came into its state, not when the device last told of it.
        let changed_us = since
            .get(name)
            .filter(|(status, digest, _)| *status == slot.status && *digest == slot.digest)
            .map_or(now_us, |(_, _, changed_us)| *changed_us);
        sqlx::query(
            "insert into device_slots (device, slot, status, digest, model, version, reason, changed_us) \
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(id)
        .bind(name)
        .bind(&slot.status)
        .bind(slot.digest.clone())
        .bind(slot.model.clone())
        .bind(slot.version)
        .bind(&slot.reason)
        .bind(changed_us)
        .execute(&mut *db)
        .await?;
    }
    Ok(Some(row.try_get(0)?))
}

/// Names the model in slots that hold a digest which the registry has just learnt.
pub(crate) async fn name_model(
    db: &mut AnyConnection,
    digest: &str,
    model: &str,
    version: i64,
) -> Result<(), DbError> {
    sqlx::query("update device_slots set model = $1, version = $2 where digest = $3")
        .bind(model)
        .bind(version)
        .bind(digest)
        .execute(db)
        .await?;
    Ok(())
}

/// Devices whose desired state the broker does not have yet, or has with a signature from before `signed_us`.
pub(crate) async fn unpublished(
    db: &mut AnyConnection,
    signed_us: i64,
    limit: i64,
) -> Result<Vec<String>, DbError> {
    let rows = sqlx::query(
        "select id from devices where published_generation < generation or published_us < $1 order by id limit $2",
    )
    .bind(signed_us)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Writes down that the broker has this generation, signed at that time.
pub(crate) async fn mark_published(
    db: &mut AnyConnection,
    id: &str,
    generation: i64,
    signed_us: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "update devices set published_generation = $1, published_us = $2 where id = $3 and published_generation <= $1",
    )
    .bind(generation)
    .bind(signed_us)
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// Says that this process can hold connections, until `expires_us`.
pub(crate) async fn renew_endpoint(
    db: &mut AnyConnection,
    process: &str,
    expires_us: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "insert into device_endpoints (process, expires_us) values ($1, $2) \
         on conflict (process) do update set expires_us = excluded.expires_us",
    )
    .bind(process)
    .bind(expires_us)
    .execute(db)
    .await?;
    Ok(())
}

/// Says that this process is gone, and with it its connections.
pub(crate) async fn end_endpoint(db: &mut AnyConnection, process: &str) -> Result<(), DbError> {
    sqlx::query("delete from device_endpoints where process = $1").bind(process).execute(&mut *db).await?;
    sqlx::query("delete from device_connections where process = $1").bind(process).execute(db).await?;
    Ok(())
}

pub(crate) async fn write_presence(
    db: &mut AnyConnection,
    process: &str,
    presence: &[(DeviceId, bool)],
    now_us: i64,
) -> Result<(), DbError> {
    for (id, connected) in presence {
        if *connected {
            sqlx::query(
                "insert into device_connections (device, process, since_us) \
                 select id, $1, $2 from devices where id = $3 \
                 on conflict (device) do update set process = excluded.process, since_us = excluded.since_us",
            )
            .bind(process)
            .bind(now_us)
            .bind(id.as_str())
            .execute(&mut *db)
            .await?;
        } else {
            sqlx::query("delete from device_connections where device = $1 and process = $2")
                .bind(id.as_str())
                .bind(process)
                .execute(&mut *db)
                .await?;
        }
    }
    Ok(())
}
