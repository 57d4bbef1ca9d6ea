//! Aliases in the database.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use crate::db::DbError;

/// A name for a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::models) struct Alias {
    pub(in crate::models) alias: String,
    pub(in crate::models) version: i64,
    /// Grows with every change.
    pub(super) revision: i64,
    pub(super) changed_us: i64,
    pub(super) changed_by: String,
}

fn from_row(row: &AnyRow) -> Result<Alias, DbError> {
    Ok(Alias {
        alias: row.try_get("alias")?,
        version: row.try_get("version")?,
        revision: row.try_get("revision")?,
        changed_us: row.try_get("changed_us")?,
        changed_by: row.try_get("changed_by")?,
    })
}

/// The model's aliases by name; there are at most [`crate::limits::ALIASES`].
pub(in crate::models) async fn of_model(db: &mut AnyConnection, model: &str) -> Result<Vec<Alias>, DbError> {
    let rows = sqlx::query(
        "select alias, version, revision, changed_us, changed_by from model_aliases where model = $1 order by alias",
    )
    .bind(model)
    .fetch_all(db)
    .await?;
    rows.iter().map(from_row).collect()
}

pub(super) async fn get(db: &mut AnyConnection, model: &str, alias: &str) -> Result<Option<Alias>, DbError> {
    let row = sqlx::query(
        "select alias, version, revision, changed_us, changed_by from model_aliases where model = $1 and alias = $2",
    )
    .bind(model)
    .bind(alias)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(from_row).transpose()
}

pub(super) async fn put(db: &mut AnyConnection, model: &str, alias: &Alias) -> Result<(), DbError> {
    sqlx::query(
        "insert into model_aliases (model, alias, version, revision, changed_us, changed_by) \
         values ($1, $2, $3, $4, $5, $6) on conflict (model, alias) do update set version = excluded.version, \
         revision = excluded.revision, changed_us = excluded.changed_us, changed_by = excluded.changed_by",
    )
    .bind(model)
    .bind(&alias.alias)
    .bind(alias.version)
    .bind(alias.revision)
    .bind(alias.changed_us)
    .bind(&alias.changed_by)
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn delete(db: &mut AnyConnection, model: &str, alias: &str) -> Result<(), DbError> {
    sqlx::query("delete from model_aliases where model = $1 and alias = $2")
        .bind(model)
        .bind(alias)
        .execute(db)
        .await?;
    Ok(())
}
