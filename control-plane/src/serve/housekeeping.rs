//! Small work in the background that belongs to no domain.

use std::time::Duration;

use crate::app::App;
use crate::db::lease::Lease;
use crate::http::idempotency;
use crate::limits;

/// How often there is something to clean.
const PERIOD: Duration = Duration::from_secs(60);

/// Deletes what has expired, in one process at a time, until the process stops.
pub(super) async fn run(app: App) {
    let lease = Lease::new("housekeeping", &app.process, PERIOD + limits::LEASE);
    loop {
        if let Err(error) = clean(&app, &lease).await {
            tracing::warn!(%error, "housekeeping failed; it is tried again");
        }
        tokio::select! {
            () = app.shutdown.cancelled() => break,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    if let Err(error) = lease.release(&app.db).await {
        tracing::debug!(%error, "the lease of housekeeping ends by itself");
    }
}

async fn clean(app: &App, lease: &Lease) -> Result<(), crate::db::DbError> {
    if lease.acquire(&app.db, app.clock.now_us()).await? {
        let forgotten = idempotency::forget_expired(app).await?;
        tracing::debug!(forgotten, "deleted kept answers whose time is over");
    }
    Ok(())
}
