//! What goes on without requests: noticing other processes' changes, writing down connections, publishing desired
//! states, cleaning up.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::desired;
use super::directory::Change;
use super::login::event;
use super::store::{certificates, devices};
use crate::app::App;
use crate::bus::DeviceId;
use crate::db::DbError;
use crate::db::lease::Lease;
use crate::limits;
use crate::live::DeviceChange;

/// Runs until [`crate::app::Parts::shutdown`] is cancelled; call it once, after [`super::open`] and
/// [`App::set_bus`].
pub async fn run(app: App) {
    let mut tasks = JoinSet::new();
    tasks.spawn(watch(app.clone()));
    if app.config.broker_url.is_some() {
        tasks.spawn(publish(app.clone()));
    } else {
        tasks.spawn(presence(app.clone()));
    }
    tasks.spawn(clean(app));
    while tasks.join_next().await.is_some() {}
}

/// Times to do something, until the process stops.
struct Rounds {
    app: App,
    ticks: tokio::time::Interval,
    what: &'static str,
}

impl Rounds {
    fn new(app: &App, period: Duration, what: &'static str) -> Self {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Rounds { app: app.clone(), ticks, what }
    }

    /// Waits for the next round; false when there is none any more.
    async fn next(&mut self) -> bool {
        tokio::select! {
            () = self.app.shutdown.cancelled() => false,
            _ = self.ticks.tick() => true,
        }
    }

    /// A round that failed is logged; the next one tries again.
    fn check(&self, result: Result<(), DbError>) {
        if let Err(error) = result {
            tracing::warn!(%error, "{} failed; it is tried again", self.what);
        }
    }
}

/// Notices what other processes have changed.
async fn watch(app: App) {
    let mut rounds = Rounds::new(&app, limits::DIRECTORY_POLL, "reading changed devices");
    let mut since_load = Duration::ZERO;
    while rounds.next().await {
        since_load += limits::DIRECTORY_POLL;
        let result = look(&app, &mut since_load).await;
        rounds.check(result);
    }
}

async fn look(app: &App, since_load: &mut Duration) -> Result<(), DbError> {
    let directory = &app.devices.directory;
    let changes = if *since_load >= limits::DIRECTORY_RELOAD {
        let changes = directory.load(&app.db).await?;
        *since_load = Duration::ZERO;
        changes
    } else {
        let since_us = app.clock.now_us().saturating_sub(limits::micros(limits::DIRECTORY_OVERLAP));
        directory.poll(&app.db, since_us).await?
    };
    act(app, changes).await;
    Ok(())
}

/// Does what follows from changes.
pub(super) async fn act(app: &App, changes: Vec<Change>) {
    let Some(bus) = app.bus() else { return };
    for change in changes {
        match change {
            Change::Out(id) => bus.kick(&id).await,
            Change::Desired(id) => desired::announce(app, &id).await,
        }
    }
}

/// Hands desired states that the external broker does not have, or whose signature is getting old, to it; one process at
/// a time.
async fn publish(app: App) {
    let lease = Lease::new("devices.publish", &app.process, limits::LEASE);
    let mut rounds = Rounds::new(&app, limits::DIRECTORY_POLL, "publishing desired states");
    while rounds.next().await {
        let result = publish_waiting(&app, &lease).await;
        rounds.check(result);
    }
    if let Err(error) = lease.release(&app.db).await {
        tracing::debug!(%error, "the lease ends by itself");
    }
}

pub(super) async fn publish_waiting(app: &App, lease: &Lease) -> Result<(), DbError> {
    while !app.shutdown.is_cancelled() && lease.acquire(&app.db, app.clock.now_us()).await? {
        let mut db = app.db.read().acquire().await?;
        let signed_us = desired::signed_before_us(app, &mut db).await?;
        let waiting = devices::unpublished(&mut db, signed_us, limits::PUBLISH_BATCH).await?;
        drop(db);
        let is_last = i64::try_from(waiting.len()).is_ok_and(|count| count < limits::PUBLISH_BATCH);
        for id in waiting {
            // Ids were checked when they were written.
            let Ok(id) = DeviceId::new(&id) else { continue };
            if let Err(error) = desired::send(app, &id).await {
                tracing::debug!(device = %id, %error, "the desired state was not published yet");
                return Ok(());
            }
        }
        if is_last {
            break;
        }
    }
    Ok(())
}

/// Writes down which devices are connected to this process' embedded endpoint.
async fn presence(app: App) {
    let mut rounds = Rounds::new(&app, limits::ENDPOINT / 3, "the endpoint's sign of life");
    loop {
        tokio::select! {
            more = rounds.next() => {
                if !more {
                    break;
                }
                let result = renew_endpoint(&app).await;
                rounds.check(result);
            }
            () = app.devices.presence.came.notified() => {
                tokio::time::sleep(limits::PRESENCE_DELAY).await;
                write_presence(&app).await;
            }
        }
    }
    let end = async {
        let mut tx = app.db.begin().await?;
        devices::end_endpoint(&mut tx, &app.process).await?;
        Ok::<_, DbError>(tx.commit().await?)
    };
    if let Err(error) = end.await {
        tracing::debug!(%error, "the endpoint's connections end by themselves");
    }
}

pub(super) async fn renew_endpoint(app: &App) -> Result<(), DbError> {
    let expires_us = app.clock.now_us().saturating_add(limits::micros(limits::ENDPOINT));
    let mut db = app.db.write().acquire().await?;
    devices::renew_endpoint(&mut db, &app.process, expires_us).await
}

pub(super) async fn write_presence(app: &App) {
    let waiting = app.devices.presence.take();
    if waiting.is_empty() {
        return;
    }
    let now_us = app.clock.now_us();
    let write = async {
        let mut tx = app.db.begin().await?;
        devices::write_presence(&mut tx, &app.process, &waiting, now_us).await?;
        Ok::<_, DbError>(tx.commit().await?)
    };
    if let Err(error) = write.await {
        tracing::warn!(%error, "connections were not written down; it is tried again");
        app.devices.presence.put_back(waiting);
        app.devices.presence.came.notify_one();
    }
}

/// Forgets what has expired; one process at a time.
async fn clean(app: App) {
    const PERIOD: Duration = Duration::from_secs(60);
    let lease = Lease::new("devices.clean", &app.process, PERIOD + limits::LEASE);
    let mut rounds = Rounds::new(&app, PERIOD, "cleaning up devices");
    while rounds.next().await {
        let result = forget_expired(&app, &lease).await;
        rounds.check(result);
    }
}

pub(super) async fn forget_expired(app: &App, lease: &Lease) -> Result<(), DbError> {
    let now_us = app.clock.now_us();
    if lease.acquire(&app.db, now_us).await? {
        let mut tx = app.db.begin().await?;
        certificates::clean(&mut tx, now_us, app.config.devices_certificate_grace).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Tells who looks that something about a device changed.
pub(super) fn tell(app: &App, fleet: &str, device: &str, change: DeviceChange) {
    app.live.publish(event(fleet, device, change));
}
