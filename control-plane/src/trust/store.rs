//! Roots in the database.

use sqlx::{AnyConnection, Row as _};

use super::roots::CurrentRoot;
use crate::db::DbError;

/// The newest root; `None` when nobody has made keys yet.
///
/// # Errors
/// When the database fails.
pub async fn newest_root(db: &mut AnyConnection) -> Result<Option<CurrentRoot>, DbError> {
    let row = sqlx::query("select number, message from trust_roots order by number desc limit 1")
        .fetch_optional(db)
        .await?;
    row.map(|row| {
        let number = u32::try_from(row.try_get::<i64, _>(0)?).unwrap_or(u32::MAX);
        Ok(CurrentRoot { number, message: row.try_get(1)? })
    })
    .transpose()
}

/// The root with this number.
pub(crate) async fn root(db: &mut AnyConnection, number: u32) -> Result<Option<Vec<u8>>, DbError> {
    let row = sqlx::query("select message from trust_roots where number = $1")
        .bind(i64::from(number))
        .fetch_optional(db)
        .await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

pub(super) async fn insert_root(
    db: &mut AnyConnection,
    root: &CurrentRoot,
    created_us: i64,
    created_by: &str,
) -> Result<(), DbError> {
    sqlx::query("insert into trust_roots (number, message, created_us, created_by) values ($1, $2, $3, $4)")
        .bind(i64::from(root.number))
        .bind(root.message.clone())
        .bind(created_us)
        .bind(created_by.to_owned())
        .execute(db)
        .await?;
    Ok(())
}
