//! Issued certificates in the database, so that they can be revoked, and the authority that issues them.

use sqlx::{AnyConnection, Row as _};

use super::super::authority::Issued;
use crate::bus::DeviceId;
use crate::db::DbError;

pub(crate) async fn insert(
    db: &mut AnyConnection,
    device: &DeviceId,
    issued: &Issued,
    now_us: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "insert into device_certificates (serial, device, issued_us, expires_us) values ($1, $2, $3, $4)",
    )
    .bind(&issued.serial)
    .bind(device.as_str())
    .bind(now_us)
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

/// Whether the certificate with this serial number was issued to the device and not revoked.
pub(crate) async fn is_good(db: &mut AnyConnection, serial: &str, device: &str) -> Result<bool, DbError> {
    let row = sqlx::query(
        "select count(*) from device_certificates where serial = $1 and device = $2 and revoked_us is null",
    )
    .bind(serial)
    .bind(device)
    .fetch_one(db)
    .await?;
    Ok(row.try_get::<i64, _>(0)? == 1)
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

/// Forgets what has expired: certificates, and ids of deleted devices that can be used again.
pub(crate) async fn clean(db: &mut AnyConnection, now_us: i64) -> Result<(), DbError> {
    sqlx::query("delete from device_certificates where expires_us <= $1")
        .bind(now_us)
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
