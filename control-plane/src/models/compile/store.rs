//! Compilations in the database.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::job::{Job, Status};
use crate::db::DbError;
use crate::models::store::Lineage;

const JOB: &str = "select id, model, status, format, source, size, run, dataset, attempts, step, message, version, \
                   created_us, created_by, changed_us from model_compilations";

fn from_row(row: &AnyRow) -> Result<Job, DbError> {
    Ok(Job {
        id: row.try_get("id")?,
        model: row.try_get("model")?,
        status: Status::from_name(row.try_get("status")?),
        format: row.try_get("format")?,
        size: row.try_get("size")?,
        lineage: Lineage {
            run: row.try_get("run")?,
            dataset: row.try_get("dataset")?,
            source: row.try_get("source")?,
        },
        attempts: row.try_get("attempts")?,
        step: row.try_get("step")?,
        message: row.try_get("message")?,
        version: row.try_get("version")?,
        created_us: row.try_get("created_us")?,
        created_by: row.try_get("created_by")?,
        changed_us: row.try_get("changed_us")?,
    })
}

pub(super) async fn insert(db: &mut AnyConnection, job: &Job) -> Result<(), DbError> {
    sqlx::query(
        "insert into model_compilations (id, model, status, waits, format, source, size, run, dataset, attempts, step, \
         message, version, created_us, created_by, changed_us) \
         values ($1, $2, $3, 1, $4, $5, $6, $7, $8, 0, '', '', null, $9, $10, $9)",
    )
    .bind(&job.id)
    .bind(&job.model)
    .bind(job.status.name())
    .bind(&job.format)
    .bind(&job.lineage.source)
    .bind(job.size)
    .bind(&job.lineage.run)
    .bind(&job.lineage.dataset)
    .bind(job.created_us)
    .bind(&job.created_by)
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn get(db: &mut AnyConnection, id: &str) -> Result<Option<Job>, DbError> {
    let sql = format!("{JOB} where id = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

/// Those of a model, the newest first, before `before`.
pub(super) async fn list(
    db: &mut AnyConnection,
    model: &str,
    before: Option<String>,
    limit: i64,
) -> Result<Vec<Job>, DbError> {
    let until = if before.is_some() { " and id < $3" } else { "" };
    let sql = format!("{JOB} where model = $1{until} order by id desc limit $2");
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(model.to_owned()).bind(limit);
    if let Some(before) = before {
        query = query.bind(before);
    }
    query.fetch_all(db).await?.iter().map(from_row).collect()
}

/// The ids of those that wait or are compiled, in their order.
pub(super) async fn waiting(db: &mut AnyConnection) -> Result<Vec<String>, DbError> {
    let rows =
        sqlx::query("select id from model_compilations where waits = 1 order by id").fetch_all(db).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// One of the model that waits or is compiled and has this source, wherever that is said to come from.
pub(super) async fn same(
    db: &mut AnyConnection,
    model: &str,
    lineage: &Lineage,
) -> Result<Option<Job>, DbError> {
    let sql = format!(
        "{JOB} where model = $1 and waits = 1 and source = $2 and run = $3 and dataset = $4 order by id limit 1"
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(model)
        .bind(&lineage.source)
        .bind(&lineage.run)
        .bind(&lineage.dataset)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Writes what has changed; false when it is over already, because another process was faster.
pub(super) async fn update(db: &mut AnyConnection, job: &Job, now_us: i64) -> Result<bool, DbError> {
    let done = sqlx::query(
        "update model_compilations set status = $1, waits = $2, attempts = $3, step = $4, message = $5, version = $6, \
         changed_us = $7 where id = $8 and waits = 1",
    )
    .bind(job.status.name())
    .bind(i64::from(job.status.waits()))
    .bind(job.attempts)
    .bind(&job.step)
    .bind(&job.message)
    .bind(job.version)
    .bind(now_us)
    .bind(&job.id)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes those that were over before then.
pub(super) async fn forget(db: &mut AnyConnection, before_us: i64) -> Result<u64, DbError> {
    let done = sqlx::query("delete from model_compilations where waits = 0 and changed_us < $1")
        .bind(before_us)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}
