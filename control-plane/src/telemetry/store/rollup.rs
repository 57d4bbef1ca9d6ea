//! Sealed parts become statistics by minute, hour and day.

use std::collections::BTreeMap;

use sqlx::Row as _;

use super::sql::Rows;
use crate::db::{Db, DbError, Tx};
use crate::telemetry::aggregate::{Aggregate, CodecError};

/// The length of a roll-up's intervals, in seconds.
pub(crate) const LEVELS: [i64; 3] = [60, 3_600, 86_400];

/// Parts that are rolled up in one transaction.
const CHUNK: i64 = 256;

/// Why a roll-up was not done. Nothing of it took effect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RollupError {
    /// Another process did it at the same time.
    #[error("another process rolls up as well")]
    Raced,
    /// A row of statistics cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<sqlx::Error> for RollupError {
    fn from(error: sqlx::Error) -> Self {
        RollupError::Db(error.into())
    }
}

/// The key of a row of statistics, in the order of the primary key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    seconds: i64,
    model: String,
    slot: String,
    cohort: String,
    start_us: i64,
}

/// Rolls up some sealed parts; how many. 0: there were none.
///
/// The parts disappear in the transaction that adds them to the statistics of their minute, hour and day, so that
/// every report is at any time in exactly one of both.
///
/// # Errors
/// See [`RollupError`].
pub(crate) async fn roll_up(db: &Db) -> Result<usize, RollupError> {
    let mut tx = db.begin().await?;
    let rows = sqlx::query(
        "select id, model, slot, cohort, fleet, minute_us, sums from telemetry_parts where sealed = 1 \
         order by id limit $1",
    )
    .bind(CHUNK)
    .fetch_all(&mut *tx)
    .await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let mut ids: Vec<String> = Vec::with_capacity(rows.len());
    let mut damaged: Vec<String> = Vec::new();
    let mut sums: BTreeMap<Key, (String, Aggregate)> = BTreeMap::new();
    for row in &rows {
        let id: String = row.try_get(0)?;
        let part = match Aggregate::decode(&row.try_get::<Vec<u8>, _>(6)?) {
            Ok(part) => part,
            Err(error) => {
                tracing::error!(part = id, %error, "a sum of reports is left out of the statistics");
                damaged.push(id);
                continue;
            }
        };
        let minute_us: i64 = row.try_get(5)?;
        for seconds in LEVELS {
            let length_us = seconds * 1_000_000;
            let key = Key {
                seconds,
                model: row.try_get(1)?,
                slot: row.try_get(2)?,
                cohort: row.try_get(3)?,
                start_us: minute_us.div_euclid(length_us) * length_us,
            };
            let fleet: String = row.try_get(4)?;
            sums.entry(key).or_insert_with(|| (fleet, Aggregate::default())).1.merge(&part);
        }
        ids.push(id);
    }
    if remove(&mut tx, &ids).await? != ids.len() as u64 {
        return Err(RollupError::Raced);
    }
    for id in &damaged {
        // Kept for whoever can read it, and not taken again.
        sqlx::query("update telemetry_parts set sealed = 2 where id = $1")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
    }
    let versions = add_present(&mut tx, &mut sums).await?;
    if !write(&mut tx, &sums, &versions).await? {
        return Err(RollupError::Raced);
    }
    tx.commit().await?;
    Ok(rows.len())
}

async fn remove(tx: &mut Tx, ids: &[String]) -> Result<u64, DbError> {
    static DELETE: Rows = Rows::new(
        "with k(id) as (values ",
        1,
        ") delete from telemetry_parts where sealed = 1 and id in (select id from k)",
    );
    let mut removed = 0;
    for (range, text) in DELETE.split(ids.len()) {
        let mut query = sqlx::query(text);
        for id in ids.get(range).unwrap_or_default() {
            query = query.bind(id.as_str());
        }
        removed += query.execute(&mut **tx).await?.rows_affected();
    }
    Ok(removed)
}

/// Adds what the statistics hold already; gives the rows' versions.
async fn add_present(
    tx: &mut Tx,
    sums: &mut BTreeMap<Key, (String, Aggregate)>,
) -> Result<BTreeMap<Key, i64>, RollupError> {
    static SELECT: Rows = Rows::new(
        "with k(seconds, model, slot, cohort, start_us) as (values ",
        5,
        ") select r.seconds, r.model, r.slot, r.cohort, r.start_us, r.version, r.sums \
         from k cross join telemetry_rollups r where r.seconds = k.seconds and r.model = k.model \
         and r.slot = k.slot and r.cohort = k.cohort and r.start_us = k.start_us",
    );
    let keys: Vec<Key> = sums.keys().cloned().collect();
    let mut versions = BTreeMap::new();
    for (range, text) in SELECT.split(keys.len()) {
        let mut query = sqlx::query(text);
        for key in keys.get(range).unwrap_or_default() {
            query = query
                .bind(key.seconds)
                .bind(key.model.as_str())
                .bind(key.slot.as_str())
                .bind(key.cohort.as_str())
                .bind(key.start_us);
        }
        for row in query.fetch_all(&mut **tx).await? {
            let key = Key {
                seconds: row.try_get(0)?,
                model: row.try_get(1)?,
                slot: row.try_get(2)?,
                cohort: row.try_get(3)?,
                start_us: row.try_get(4)?,
            };
            let present = Aggregate::decode(&row.try_get::<Vec<u8>, _>(6)?)?;
            if let Some((_, sum)) = sums.get_mut(&key) {
                sum.merge(&present);
            }
            versions.insert(key, row.try_get(5)?);
        }
    }
    Ok(versions)
}

/// Writes the statistics; `false` when a row is not what it was when it was read.
async fn write(
    tx: &mut Tx,
    sums: &BTreeMap<Key, (String, Aggregate)>,
    versions: &BTreeMap<Key, i64>,
) -> Result<bool, DbError> {
    static WRITE: Rows = Rows::new(
        "insert into telemetry_rollups (seconds, model, slot, cohort, start_us, fleet, version, sums) values ",
        8,
        " on conflict (seconds, model, slot, cohort, start_us) \
         do update set version = excluded.version, sums = excluded.sums \
         where telemetry_rollups.version = excluded.version - 1",
    );
    let sums: Vec<_> = sums.iter().collect();
    let mut written = 0;
    for (range, text) in WRITE.split(sums.len()) {
        let mut query = sqlx::query(text);
        for (key, (fleet, sum)) in sums.get(range).unwrap_or_default() {
            query = query
                .bind(key.seconds)
                .bind(key.model.as_str())
                .bind(key.slot.as_str())
                .bind(key.cohort.as_str())
                .bind(key.start_us)
                .bind(fleet.as_str())
                .bind(versions.get(*key).copied().unwrap_or(0) + 1)
                .bind(sum.encode());
        }
        written += query.execute(&mut **tx).await?.rows_affected();
    }
    Ok(written == sums.len() as u64)
}
