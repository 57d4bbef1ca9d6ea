//! Telemetry: what devices report is counted exactly once, and found again as statistics.
//!
//! A message goes this way: the bus hands it out unacknowledged; [`ingest`] takes it apart, asks the sequence window of
//! its device and boot whether it is new, and adds it to a *part*, the sum of what this process has received for one
//! model, slot, cohort and minute; one transaction writes the batch's parts, sequence windows, events, labels and
//! counters; after the commit the bus may acknowledge, and the device is told what is committed. Nobody but its process
//! writes a part. A part that rests is sealed, and background work adds it to the statistics of its minute, hour and
//! day, in the transaction that deletes it. Statistics are read as the sum of both, in one statement.
//!
//! Why no count is lost or doubled:
//! - effects and sequence windows are written in one transaction, with the windows' versions checked, so that a message
//!   that comes again, to whichever process, is recognised;
//! - memory is changed after the commit only, and thrown away when a commit's outcome is not known;
//! - a process checks in each transaction that nobody took it for dead; who takes over deletes its row first.

mod adapters;
pub mod aggregate;
mod api;
mod background;
mod baseline;
pub mod ingest;
mod limits;
mod metrics;
mod neighbours;
mod obstacle;
mod store;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::bus::DeviceBus;
use crate::live::{DeviceChange, LiveEvent};
use adapters::Registered;
use ingest::Horizon;
use obstacle::Obstacle;
use store::batch::Committed;

pub use api::router;
pub use baseline::{BaselineFeature, Baselines, OwnedBaseline};

/// What this domain keeps in memory for the API.
#[derive(Debug, Default)]
pub struct Telemetry {
    baselines: Baselines,
    /// What keeps telemetry from being committed.
    pub(crate) obstacle: Obstacle,
}

/// Takes messages from the bus until it is closed and everything that it handed out is committed; background work ends
/// when the application shuts down. To be called once, after [`App::set_bus`].
pub async fn run(app: App) {
    let Some(bus) = app.bus().map(Arc::clone) else {
        tracing::error!("there is no bus to take telemetry from");
        return;
    };
    let background = tokio::spawn(background::run(app.clone()));
    worker(&app, bus).run().await;
    // It ends at the shutdown, which may come later than the bus' end.
    let _ = background.await;
}

fn worker(app: &App, bus: Arc<dyn DeviceBus>) -> worker::Worker {
    let us = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let (ids, observed) = (app.clone(), app.clone());
    worker::Worker::new(worker::Parts {
        db: app.db.clone(),
        clock: Arc::clone(&app.clock),
        ids: Arc::new(move || ids.ids.next()),
        bus,
        devices: Arc::new(Registered(app.clone())),
        metrics: metrics::Handles::new(&app.metrics),
        obstacle: app.telemetry.obstacle.clone(),
        shutdown: app.shutdown.clone(),
        batch: app.config.telemetry_batch.max(1) as usize,
        horizon: Horizon { future_us: us(limits::FUTURE), past_us: us(app.config.telemetry_keep_hours) },
        observer: Box::new(move |committed| publish(&observed, committed)),
    })
}

/// Tells those who look on.
fn publish(app: &App, committed: &Committed) {
    if app.live.readers() == 0 {
        return;
    }
    for event in &committed.events {
        app.live.publish(LiveEvent::Event {
            fleet: event.fleet.to_string(),
            device: event.device.to_string(),
            slot: Some(event.slot.clone()).filter(|slot| !slot.is_empty()),
            kind: event.kind.clone(),
            detail: event.detail.clone(),
        });
    }
    for (device, fleet) in &committed.states {
        let (fleet, device) = (fleet.to_string(), device.to_string());
        app.live.publish(LiveEvent::Device { fleet, device, change: DeviceChange::State });
    }
    let (app, sums) = (app.clone(), committed.live.clone());
    // The models' names may have to be read.
    tokio::spawn(async move {
        for ((fleet, digest), sums) in sums {
            let Ok(mut db) = app.db.read().acquire().await else { return };
            let known =
                crate::models::find_by_digest(&app, &mut db, &hex::encode(digest)).await.ok().flatten();
            app.live.publish(LiveEvent::Telemetry {
                fleet: fleet.to_string(),
                version: known.as_ref().and_then(|known| u32::try_from(known.version).ok()),
                model: known.map(|known| known.model),
                reports: sums.reports,
                inferences: sums.inferences,
                failures: sums.failures,
            });
        }
    });
}
