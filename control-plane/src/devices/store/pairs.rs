//! Tags and attributes in the database: a row for each key.

use std::collections::BTreeMap;

use sqlx::{AnyConnection, AssertSqlSafe};

use super::super::number::number;
use crate::db::DbError;

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Tags,
    /// Attributes, set by operators (`false`) or reported by the device (`true`).
    Attributes(bool),
}

/// Sets and removes (`None`) some keys.
pub(crate) async fn change(
    db: &mut AnyConnection,
    table: Table,
    device: &str,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<(), DbError> {
    for (key, value) in changes {
        match value {
            Some(value) => set(db, table, device, key, value).await?,
            None => {
                let sql = match table {
                    Table::Tags => "delete from device_tags where device = $1 and key = $2",
                    Table::Attributes(_) => "delete from device_attributes where device = $1 and key = $2",
                };
                sqlx::query(sql).bind(device).bind(key).execute(&mut *db).await?;
            }
        }
    }
    Ok(())
}

async fn set(
    db: &mut AnyConnection,
    table: Table,
    device: &str,
    key: &str,
    value: &str,
) -> Result<(), DbError> {
    let (name, reported_column, reported) = match table {
        Table::Tags => ("device_tags", "", ""),
        Table::Attributes(false) => ("device_attributes", ", reported", ", 0"),
        Table::Attributes(true) => ("device_attributes", ", reported", ", 1"),
    };
    let keep = if reported.is_empty() { "" } else { ", reported = excluded.reported" };
    let number = number(value);
    // sqlx 0.9 binds a missing f64 as a missing f32 to PostgreSQL, which then takes no f64 in the same prepared statement.
    let number_sql = if number.is_some() { "$4" } else { "null" };
    let sql = format!(
        "insert into {name} (device, key, value, number{reported_column}) values ($1, $2, $3, {number_sql}{reported}) \
         on conflict (device, key) do update set value = excluded.value, number = excluded.number{keep}"
    );
    let query =
        sqlx::query(AssertSqlSafe(sql)).bind(device.to_owned()).bind(key.to_owned()).bind(value.to_owned());
    let query = if let Some(number) = number { query.bind(number) } else { query };
    query.execute(db).await?;
    Ok(())
}

/// Replaces what the device reported; an operator's attribute of the same name gives way.
pub(crate) async fn report(
    db: &mut AnyConnection,
    device: &str,
    attributes: &BTreeMap<String, String>,
) -> Result<(), DbError> {
    sqlx::query("delete from device_attributes where device = $1 and reported = 1")
        .bind(device)
        .execute(&mut *db)
        .await?;
    for (key, value) in attributes {
        set(db, Table::Attributes(true), device, key, value).await?;
    }
    Ok(())
}
