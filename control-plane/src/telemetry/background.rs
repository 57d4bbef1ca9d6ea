//! What goes on beside the ingest: taking over from processes that died, rolling up, forgetting. One process at a time
//! does it, and it is harmless when two do.

use std::time::{Duration, Instant};

use super::limits;
use super::store::process::{self, Watch};
use super::store::retention::{self, ClockGuard, Retention};
use super::store::rollup::{self, RollupError};
use crate::app::App;
use crate::db::lease::Lease;

/// Runs until the application shuts down.
pub(super) async fn run(app: App) {
    let lease = Lease::new("telemetry", &app.process, crate::limits::LEASE);
    let began = Instant::now();
    let mut watch = Watch::default();
    let mut guard = ClockGuard::new(app.clock.now_us(), Duration::ZERO);
    let mut forgotten: Option<Instant> = None;
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => break,
            () = tokio::time::sleep(limits::BACKGROUND) => {}
        }
        let steady = guard.is_steady(app.clock.now_us(), began.elapsed());
        match lease.acquire(&app.db, app.clock.now_us()).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                tracing::warn!(%error, "telemetry's background work waits for the database");
                continue;
            }
        }
        if let Err(error) = round(&app, &mut watch, began.elapsed()).await {
            tracing::warn!(%error, "telemetry's background work failed; trying again");
            continue;
        }
        if steady && forgotten.is_none_or(|at| at.elapsed() >= limits::RETENTION) {
            forgotten = Some(Instant::now());
            match retention::forget(&app.db, &of_settings(&app), app.clock.now_us()).await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "telemetry beyond its retention is deleted"),
                Err(error) => tracing::warn!(%error, "old telemetry is not deleted; trying again"),
            }
        }
    }
    // The others need not wait for the lease's end. If this fails, they do.
    let _ = lease.release(&app.db).await;
}

async fn round(app: &App, watch: &mut Watch, now: Duration) -> Result<(), RollupError> {
    for (process, heartbeat_us) in watch.dead(process::list(&app.db).await?, now, limits::SILENCE) {
        if process::end(&app.db, &process, Some(heartbeat_us)).await? {
            tracing::warn!(process, "a process has died; its sums are taken over");
        }
    }
    roll_up_all(app).await?;
    retention::trim_letters(&app.db, i64::from(app.config.telemetry_dead_letters)).await?;
    Ok(())
}

/// Rolls up until nothing is left.
pub(super) async fn roll_up_all(app: &App) -> Result<(), RollupError> {
    loop {
        match rollup::roll_up(&app.db).await {
            Ok(0) => return Ok(()),
            // Another process that does the same is as good.
            Err(RollupError::Raced) => return Ok(()),
            Err(RollupError::Db(error)) if error.is_conflict() => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        // The ingest writes through the same connection.
        tokio::task::yield_now().await;
    }
}

fn of_settings(app: &App) -> Retention {
    let us = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let config = &app.config;
    Retention {
        levels_us: [config.telemetry_keep_minutes, config.telemetry_keep_hours, config.telemetry_keep_days]
            .map(us),
        events_us: us(config.telemetry_keep_events),
        sequences_us: us(limits::SEQUENCES_KEPT),
        letters: i64::from(config.telemetry_dead_letters),
    }
}
