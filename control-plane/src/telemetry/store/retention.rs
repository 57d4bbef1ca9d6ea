//! What is forgotten, and when.

use std::time::Duration;

use sqlx::Row as _;

use crate::db::{Db, DbError};

/// How long things are kept, microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// Statistics by minute, hour and day, in the order of [`super::rollup::LEVELS`].
    pub(crate) levels_us: [i64; 3],
    /// Events, labels and dead letters.
    pub(crate) events_us: i64,
    /// Boots of devices that are not heard of any more. A message of such a boot that comes once more after that counts
    /// twice; devices keep messages for much shorter.
    pub(crate) sequences_us: i64,
    /// Dead letters, at most.
    pub(crate) letters: i64,
}

/// Rows that are deleted in one transaction.
const CHUNK: i64 = 5_000;

/// Deletes what is too old; how many rows.
///
/// # Errors
/// When the database fails; what was deleted before stays deleted.
pub(crate) async fn forget(db: &Db, retention: &Retention, now_us: i64) -> Result<u64, DbError> {
    let mut rows = 0;
    for (seconds, keep_us) in super::rollup::LEVELS.into_iter().zip(retention.levels_us) {
        rows += sqlx::query("delete from telemetry_rollups where seconds = $1 and start_us < $2")
            .bind(seconds)
            .bind(now_us.saturating_sub(keep_us).saturating_sub(seconds * 1_000_000))
            .execute(db.write())
            .await?
            .rows_affected();
    }
    let before_us = now_us.saturating_sub(retention.events_us);
    rows += sqlx::query("delete from telemetry_labels where day_us < $1")
        .bind(before_us.saturating_sub(86_400_000_000))
        .execute(db.write())
        .await?
        .rows_affected();
    rows += repeat(
        db,
        "delete from telemetry_events where id in \
         (select id from telemetry_events where received_us < $1 order by received_us limit $2)",
        before_us,
    )
    .await?;
    rows += repeat(
        db,
        "delete from telemetry_dead_letters where id in \
         (select id from telemetry_dead_letters where received_us < $1 order by received_us limit $2)",
        before_us,
    )
    .await?;
    rows += forget_boots(db, now_us.saturating_sub(retention.sequences_us)).await?;
    Ok(rows + trim_letters(db, retention.letters).await?)
}

async fn repeat(db: &Db, sql: &'static str, before_us: i64) -> Result<u64, DbError> {
    let mut rows = 0;
    loop {
        let deleted = sqlx::query(sql).bind(before_us).bind(CHUNK).execute(db.write()).await?.rows_affected();
        rows += deleted;
        if deleted < CHUNK.unsigned_abs() {
            return Ok(rows);
        }
    }
}

/// Deletes the oldest dead letters beyond `keep`.
///
/// # Errors
/// When the database fails.
pub(crate) async fn trim_letters(db: &Db, keep: i64) -> Result<u64, DbError> {
    // Ids grow with time.
    let result = sqlx::query(
        "delete from telemetry_dead_letters where id <= \
         (select id from telemetry_dead_letters order by id desc limit 1 offset $1)",
    )
    .bind(keep.max(0))
    .execute(db.write())
    .await?;
    Ok(result.rows_affected())
}

/// Deletes the oldest events of a device beyond `keep`.
///
/// # Errors
/// When the database fails.
pub(crate) async fn trim_events(db: &Db, device: &str, keep: i64) -> Result<u64, DbError> {
    let result = sqlx::query(
        "delete from telemetry_events where device = $1 and id <= \
         (select id from telemetry_events where device = $1 order by id desc limit 1 offset $2)",
    )
    .bind(device)
    .bind(keep.max(0))
    .execute(db.write())
    .await?;
    Ok(result.rows_affected())
}

/// Forgets boots that nothing was heard of since `before_us`; the device's sums stay.
async fn forget_boots(db: &Db, before_us: i64) -> Result<u64, DbError> {
    let mut forgotten = 0;
    loop {
        let mut tx = db.begin().await?;
        let rows = sqlx::query(
            "delete from telemetry_sequences where updated_us < $1 and device in \
             (select device from telemetry_sequences where updated_us < $1 order by device limit 500) \
             returning device, applied, lost, reports, inferences, failures, report_us",
        )
        .bind(before_us)
        .fetch_all(&mut *tx)
        .await?;
        if rows.is_empty() {
            return Ok(forgotten);
        }
        for row in &rows {
            let mut query = sqlx::query(
                "insert into telemetry_forgotten (device, boots, applied, lost, reports, inferences, failures, report_us) \
                 values ($1, 1, $2, $3, $4, $5, $6, $7) on conflict (device) do update set \
                 boots = telemetry_forgotten.boots + 1, applied = telemetry_forgotten.applied + excluded.applied, \
                 lost = telemetry_forgotten.lost + excluded.lost, \
                 reports = telemetry_forgotten.reports + excluded.reports, \
                 inferences = telemetry_forgotten.inferences + excluded.inferences, \
                 failures = telemetry_forgotten.failures + excluded.failures, \
                 report_us = case when excluded.report_us > telemetry_forgotten.report_us \
                 then excluded.report_us else telemetry_forgotten.report_us end",
            )
            .bind(row.try_get::<String, _>(0)?);
            for column in 1..7_usize {
                query = query.bind(row.try_get::<i64, _>(column)?);
            }
            query.execute(&mut *tx).await?;
        }
        tx.commit().await?;
        forgotten += rows.len() as u64;
    }
}

/// Decides whether the clock can be believed when it comes to deleting: a clock that jumps years ahead must not
/// delete everything.
#[derive(Debug)]
pub(crate) struct ClockGuard {
    wall_us: i64,
    monotonic: Duration,
}

impl ClockGuard {
    /// Time for which both clocks must have gone on together.
    pub(crate) const STEADY: Duration = Duration::from_secs(600);
    /// How far they may drift apart meanwhile, microseconds.
    const DRIFT_US: i64 = 60_000_000;

    /// Begins to watch.
    pub(crate) fn new(wall_us: i64, monotonic: Duration) -> Self {
        ClockGuard { wall_us, monotonic }
    }

    /// Whether the clock has been steady for [`ClockGuard::STEADY`]; a jump begins that time anew.
    pub(crate) fn is_steady(&mut self, wall_us: i64, monotonic: Duration) -> bool {
        let elapsed = monotonic.saturating_sub(self.monotonic);
        let elapsed_us = i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX);
        let drift_us = wall_us.saturating_sub(self.wall_us).saturating_sub(elapsed_us);
        if drift_us.saturating_abs() > Self::DRIFT_US {
            *self = ClockGuard::new(wall_us, monotonic);
            return false;
        }
        elapsed >= Self::STEADY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_must_be_steady_before_anything_is_deleted() {
        let second = |s: u64| Duration::from_secs(s);
        let us = |s: i64| s * 1_000_000;
        let mut guard = ClockGuard::new(us(1_000), second(0));
        assert!(!guard.is_steady(us(1_300), second(300)));
        assert!(guard.is_steady(us(1_601), second(600)));
        // Years ahead.
        assert!(!guard.is_steady(us(99_999_999), second(700)));
        assert!(!guard.is_steady(us(99_999_999 + 500), second(1_200)));
        // And back again.
        assert!(!guard.is_steady(us(2_300), second(1_300)));
        assert!(guard.is_steady(us(2_900), second(1_900)));
    }
}
