//! Small work in the background that belongs to no domain.

use std::time::Duration;

use tokio::time::Instant;

use crate::app::App;
use crate::db::lease::Lease;
use crate::http::idempotency;
use crate::limits;

/// How often there is something to clean.
const PERIOD: Duration = Duration::from_secs(60);

/// Deletes what has expired, in one process at a time, until the process stops.
pub(super) async fn run(app: App) {
    let lease = Lease::new("housekeeping", &app.process, limits::LEASE);
    let mut next = Instant::now();
    loop {
        // Renewed much more often than there is work, so that another process takes over within seconds.
        match lease.acquire(&app.db, app.clock.now_us()).await {
            Ok(true) if Instant::now() >= next => match idempotency::forget_expired(&app).await {
                Ok(forgotten) => {
                    tracing::debug!(forgotten, "deleted kept answers whose time is over");
                    next = Instant::now() + PERIOD;
                }
                Err(error) => tracing::warn!(%error, "housekeeping failed; it is tried again"),
            },
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the lease of housekeeping was not renewed; it is tried again")
            }
        }
        tokio::select! {
            () = app.shutdown.cancelled() => break,
            () = tokio::time::sleep(limits::LEASE / 3) => {}
        }
    }
    if let Err(error) = lease.release(&app.db).await {
        tracing::debug!(%error, "the lease of housekeeping ends by itself");
    }
}
