//! The processes that take messages in, and how one takes over what a dead one has left.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::Row as _;

use super::sql::count;
use crate::db::{Db, DbError, Tx};
use crate::telemetry::ingest::Counters;

/// Makes a process known; until then it cannot write.
pub(crate) async fn register(db: &Db, process: &str, now_us: i64) -> Result<(), DbError> {
    sqlx::query(
        "insert into telemetry_processes \
         (id, heartbeat_us, received, applied, duplicates, malformed, unknown, lost, skewed) \
         values ($1, $2, 0, 0, 0, 0, 0, 0, 0) on conflict (id) do nothing",
    )
    .bind(process)
    .bind(now_us)
    .execute(db.write())
    .await?;
    Ok(())
}

/// Writes a process' counters within a transaction; `false` when another process has taken it over. The row stays
/// locked until the commit, so that nobody can take it over in between.
pub(super) async fn beat(
    tx: &mut Tx,
    process: &str,
    counters: &Counters,
    now_us: i64,
) -> Result<bool, DbError> {
    let mut query = sqlx::query(
        "update telemetry_processes set heartbeat_us = $2, received = $3, applied = $4, duplicates = $5, \
         malformed = $6, unknown = $7, lost = $8, skewed = $9 where id = $1",
    )
    .bind(process)
    .bind(now_us);
    for value in counters.values() {
        query = query.bind(count(value));
    }
    Ok(query.execute(&mut **tx).await?.rows_affected() == 1)
}

/// Tells the others that the process lives; `false` when another process has taken it over.
pub(crate) async fn heartbeat(db: &Db, process: &str, now_us: i64) -> Result<bool, DbError> {
    let query = sqlx::query("update telemetry_processes set heartbeat_us = $2 where id = $1");
    Ok(query.bind(process).bind(now_us).execute(db.write()).await?.rows_affected() == 1)
}

/// Ends a process: seals its parts and keeps its counters. Only if its heartbeat is still `heartbeat_us`, if given.
/// Says whether it did.
pub(crate) async fn end(db: &Db, process: &str, heartbeat_us: Option<i64>) -> Result<bool, DbError> {
    let mut tx = db.begin().await?;
    // -1 is no heartbeat: it stands for any.
    let row = sqlx::query(
        "delete from telemetry_processes where id = $1 and ($2 = -1 or heartbeat_us = $2) \
         returning received, applied, duplicates, malformed, unknown, lost, skewed",
    )
    .bind(process)
    .bind(heartbeat_us.unwrap_or(-1))
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(false) };
    let mut query = sqlx::query(
        "update telemetry_counters set received = received + $1, applied = applied + $2, \
         duplicates = duplicates + $3, malformed = malformed + $4, unknown = unknown + $5, lost = lost + $6, \
         skewed = skewed + $7 where id = 1",
    );
    for column in 0..7_usize {
        query = query.bind(row.try_get::<i64, _>(column)?);
    }
    query.execute(&mut *tx).await?;
    sqlx::query("update telemetry_parts set sealed = 1 where process = $1 and sealed = 0")
        .bind(process)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(true)
}

/// All processes, with the times of their last heartbeats.
pub(crate) async fn list(db: &Db) -> Result<Vec<(String, i64)>, DbError> {
    let rows = sqlx::query("select id, heartbeat_us from telemetry_processes order by id")
        .fetch_all(db.read())
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Notices processes whose heartbeat stands still. Compares a heartbeat only with what it was before, by the time
/// that went by here: clocks of other processes may be wrong.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    seen: HashMap<String, (i64, Duration)>,
}

impl Watch {
    /// The processes that have been silent for at least `silence`, with their last heartbeats. `now` is monotonic.
    pub(crate) fn dead(
        &mut self,
        processes: Vec<(String, i64)>,
        now: Duration,
        silence: Duration,
    ) -> Vec<(String, i64)> {
        let before = std::mem::take(&mut self.seen);
        let mut dead = Vec::new();
        for (process, heartbeat_us) in processes {
            let since = match before.get(&process) {
                Some((same, since)) if *same == heartbeat_us => *since,
                _ => now,
            };
            if now.saturating_sub(since) >= silence {
                dead.push((process.clone(), heartbeat_us));
            }
            self.seen.insert(process, (heartbeat_us, since));
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_that_stands_still_is_noticed_whatever_the_clocks_say() {
        let mut watch = Watch::default();
        let mut look = |a: i64, b: i64, s: u64| {
            let rows = vec![("a".to_owned(), a), ("b".to_owned(), b)];
            watch.dead(rows, Duration::from_secs(s), Duration::from_secs(15))
        };
        // b's clock is years ahead and then goes back; what counts is that it changes.
        assert_eq!(look(10, 9_000_000, 0), []);
        assert_eq!(look(10, 8_000_000, 10), []);
        assert_eq!(look(10, 7_000_000, 15), [("a".to_owned(), 10)]);
        assert_eq!(look(11, 7_000_000, 20), []);
        assert_eq!(look(12, 7_000_000, 30), [("b".to_owned(), 7_000_000)]);
    }
}
