//! Fleets in the database.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::super::settings::Settings;
use crate::access::Visible;
use crate::db::DbError;

/// A fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fleet {
    pub(crate) id: String,
    pub(crate) description: String,
    pub(crate) settings: Settings,
    pub(crate) devices: i64,
    pub(crate) revision: i64,
    pub(crate) created_us: i64,
}

const SELECT: &str = "select id, description, report_period_s, window_period_s, window_count, revision, created_us, \
                      (select count(*) from devices d where d.fleet = fleets.id) as devices from fleets";

fn from_row(row: &AnyRow) -> Result<Fleet, DbError> {
    Ok(Fleet {
        id: row.try_get("id")?,
        description: row.try_get("description")?,
        settings: Settings {
            report_period_s: row.try_get("report_period_s")?,
            window_period_s: row.try_get("window_period_s")?,
            window_count: row.try_get("window_count")?,
        },
        devices: row.try_get("devices")?,
        revision: row.try_get("revision")?,
        created_us: row.try_get("created_us")?,
    })
}

pub(crate) async fn get(db: &mut AnyConnection, id: &str) -> Result<Option<Fleet>, DbError> {
    let sql = format!("{SELECT} where id = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(db).await?;
    row.as_ref().map(from_row).transpose()
}

pub(crate) async fn list(
    db: &mut AnyConnection,
    visible: Visible<'_>,
    after: Option<String>,
    limit: i64,
) -> Result<Vec<Fleet>, DbError> {
    let only = match visible {
        Visible::All => "",
        Visible::Only(_) => " and id = $3",
        Visible::Nothing => return Ok(Vec::new()),
    };
    let sql = format!("{SELECT} where id > $1{only} order by id limit $2");
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(after.unwrap_or_default()).bind(limit);
    if let Visible::Only(id) = visible {
        query = query.bind(id.to_owned());
    }
    query.fetch_all(db).await?.iter().map(from_row).collect()
}

pub(crate) async fn insert(db: &mut AnyConnection, fleet: &Fleet) -> Result<(), DbError> {
    sqlx::query(
        "insert into fleets (id, description, report_period_s, window_period_s, window_count, revision, created_us) \
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&fleet.id)
    .bind(&fleet.description)
    .bind(fleet.settings.report_period_s)
    .bind(fleet.settings.window_period_s)
    .bind(fleet.settings.window_count)
    .bind(fleet.revision)
    .bind(fleet.created_us)
    .execute(db)
    .await?;
    Ok(())
}

/// Writes what can change, with the next revision; false when the fleet's revision is not `fleet.revision` any more.
pub(crate) async fn update(db: &mut AnyConnection, fleet: &Fleet) -> Result<bool, DbError> {
    let done = sqlx::query(
        "update fleets set description = $1, report_period_s = $2, window_period_s = $3, window_count = $4, \
         revision = revision + 1 where id = $5 and revision = $6",
    )
    .bind(&fleet.description)
    .bind(fleet.settings.report_period_s)
    .bind(fleet.settings.window_period_s)
    .bind(fleet.settings.window_count)
    .bind(&fleet.id)
    .bind(fleet.revision)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives all devices of the fleet a new desired state, after a change of the fleet's settings.
pub(crate) async fn renew_desired(db: &mut AnyConnection, fleet: &str, now_us: i64) -> Result<(), DbError> {
    sqlx::query(
        "update devices set generation = generation + 1, generation_us = $1, changed_us = $1, revision = revision + 1 \
         where fleet = $2",
    )
    .bind(now_us)
    .bind(fleet)
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes a fleet and its enrolment keys. Fails with a foreign key violation while it has devices.
pub(crate) async fn delete(db: &mut AnyConnection, id: &str) -> Result<(), DbError> {
    sqlx::query("delete from claims where fleet = $1").bind(id).execute(&mut *db).await?;
    sqlx::query("delete from fleets where id = $1").bind(id).execute(db).await?;
    Ok(())
}
