//! Issued certificates in the database, so that they can be revoked, and the authority that issues them.

use std::time::Duration;

use sqlx::{AnyConnection, Row as _};

use super::super::authority::Issued;
use crate::bus::DeviceId;
use crate::db::DbError;
use crate::limits;

/// How many certificates were issued to the device since then.
pub(crate) async fn issued_since(
    db: &mut AnyConnection,
    device: &str,
    since_us: i64,
) -> Result<i64, DbError> {
    let row = sqlx::query("select count(*) from device_certificates where device = $1 and issued_us > $2")
        .bind(device)
        .bind(since_us)
        .fetch_one(db)
        .await?;
    Ok(row.try_get(0)?)
}

/// Writes down that a certificate was issued. The times of a device's certificates grow, whatever the clock does:
/// they say which one replaces which.
pub(crate) async fn insert(
    db: &mut AnyConnection,
    device: &DeviceId,
    issued: &Issued,
    now_us: i64,
) -> Result<(), DbError> {
    let row = sqlx::query("select max(issued_us) from device_certificates where device = $1")
        .bind(device.as_str())
        .fetch_one(&mut *db)
        .await?;
    let issued_us = row.try_get::<Option<i64>, _>(0)?.map_or(now_us, |last_us| now_us.max(last_us + 1));
    sqlx::query(
        "insert into device_certificates (serial, device, issued_us, expires_us) values ($1, $2, $3, $4)",
    )
    .bind(&issued.serial)
    .bind(device.as_str())
    .bind(issued_us)
    .bind(issued.expires_us)
    .execute(db)
    .await?;
    Ok(())
}

/// Revokes all certificates of a device; returns when the last of them would have expired.
pub(crate) async fn revoke_all(
    db: &mut AnyConnection,
    device: &str,
    now_us: i64,
) -> Result<Option<i64>, DbError> {
    sqlx::query("update device_certificates set revoked_us = $1 where device = $2 and revoked_us is null")
        .bind(now_us)
        .bind(device)
        .execute(&mut *db)
        .await?;
    let row = sqlx::query("select max(expires_us) from device_certificates where device = $1")
        .bind(device)
        .fetch_one(db)
        .await?;
    Ok(row.try_get(0)?)
}

/// A certificate that is good as far as the database knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    issued_us: i64,
    /// Whether older ones of the device are still good.
    pub(crate) replaces: bool,
}

/// What is known of the certificate with this serial number; `None` if it was not issued to the device, or is revoked.
pub(crate) async fn standing(
    db: &mut AnyConnection,
    serial: &str,
    device: &str,
) -> Result<Option<Standing>, DbError> {
    let row = sqlx::query(
        "select c.issued_us, (select count(*) from device_certificates o where o.device = c.device \
         and o.revoked_us is null and o.issued_us < c.issued_us) from device_certificates c \
         where c.serial = $1 and c.device = $2 and c.revoked_us is null",
    )
    .bind(serial)
    .bind(device)
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Standing { issued_us: row.try_get(0)?, replaces: row.try_get::<i64, _>(1)? > 0 }))
}

/// Revokes the device's certificates that are older than this one.
pub(crate) async fn revoke_older(
    db: &mut AnyConnection,
    device: &str,
    standing: Standing,
    now_us: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "update device_certificates set revoked_us = $1 where device = $2 and revoked_us is null and issued_us < $3",
    )
    .bind(now_us)
    .bind(device)
    .bind(standing.issued_us)
    .execute(db)
    .await?;
    Ok(())
}

/// Certificates that are valid by their dates and must not be accepted, with the times of revocation: revoked ones,
/// and those of blocked devices.
pub(crate) async fn revoked(db: &mut AnyConnection, now_us: i64) -> Result<Vec<(String, i64)>, DbError> {
    let rows = sqlx::query(
        "select c.serial, coalesce(c.revoked_us, d.blocked_us) from device_certificates c \
         left join devices d on d.id = c.device \
         where c.expires_us > $1 and (c.revoked_us is not null or d.blocked_us is not null) order by c.serial",
    )
    .bind(now_us)
    .fetch_all(db)
    .await?;
    let mut revoked = Vec::with_capacity(rows.len());
    for row in rows {
        revoked.push((row.try_get(0)?, row.try_get(1)?));
    }
    Ok(revoked)
}

/// Forgets what has expired: certificates that can no longer be renewed either, and ids of deleted devices that can be
/// used again.
pub(crate) async fn clean(db: &mut AnyConnection, now_us: i64, grace: Duration) -> Result<(), DbError> {
    sqlx::query("delete from device_certificates where expires_us <= $1")
        .bind(now_us.saturating_sub(limits::micros(grace)))
        .execute(&mut *db)
        .await?;
    sqlx::query("delete from deleted_devices where until_us <= $1").bind(now_us).execute(&mut *db).await?;
    sqlx::query("delete from device_connections where process not in (select process from device_endpoints)")
        .execute(&mut *db)
        .await?;
    sqlx::query("delete from device_endpoints where expires_us <= $1").bind(now_us).execute(db).await?;
    Ok(())
}

/// Writes down which authority this database belongs to, if nothing is written yet; returns what is written.
pub(crate) async fn claim_authority(
    db: &mut AnyConnection,
    certificate_pem: &str,
) -> Result<String, DbError> {
    sqlx::query(
        "insert into device_authority (id, certificate_pem) values (1, $1) on conflict (id) do nothing",
    )
    .bind(certificate_pem)
    .execute(&mut *db)
    .await?;
    let row = sqlx::query("select certificate_pem from device_authority where id = 1").fetch_one(db).await?;
    Ok(row.try_get(0)?)
}
