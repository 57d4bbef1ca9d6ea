//! The bus of an installation with an MQTT 5 broker: processes share the devices' messages.
//!
//! - All processes subscribe to `$share/{group}/d/+/up/#`; the broker gives each message to one of them.
//! - A message is acknowledged to the broker when its token is completed, that is after the commit, in the order of
//!   arrival as MQTT demands. What is not acknowledged when a connection ends is delivered again; tokens of that
//!   connection do nothing then.
//! - A dropped token ends the connection, since that is how MQTT asks for a redelivery.
//! - The broker holds at most [`ExternalConfig::receive_maximum`] unacknowledged messages out to a process; that bounds
//!   the queue.
//! - The session outlives a connection by [`SESSION_EXPIRY`] only: a broker queues for a process that is gone, and what
//!   it queued comes to another process when the devices send it again, which they do until they have the
//!   application's acknowledgement. A short session makes a dead process' share move within seconds.
//! - Desired states are retained and published until the broker has acknowledged them, the latest of each device.

mod backoff;
mod config;
mod connection;
mod outbound;

use super::{BusError, DeviceBus, DeviceId, DownKind, Inbound};
use async_trait::async_trait;
use bytes::Bytes;
use outbound::Outbound;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

pub use config::{BrokerError, BrokerTls, ExternalConfig};

/// How long the broker keeps the session of a process that is away.
pub const SESSION_EXPIRY: Duration = Duration::from_secs(30);

/// The connection to a broker.
pub struct ExternalBus {
    shared: Arc<Shared>,
    queue: AsyncMutex<mpsc::Receiver<Inbound>>,
    stop: watch::Sender<Stop>,
    task: AsyncMutex<Option<JoinHandle<()>>>,
}

/// What the bus and its connection's task share.
#[derive(Default)]
struct Shared {
    outbound: Mutex<Outbound>,
    /// There is something in `outbound` for a connection that was idle.
    something_to_send: Notify,
    subscribed: AtomicBool,
    closed: AtomicBool,
}

/// How far the bus has been stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Running,
    /// No new messages; what is out may still be committed.
    Draining,
    /// At once.
    Now,
}

impl ExternalBus {
    /// Starts to connect, and connects again whenever the connection is lost. Must be called in a Tokio runtime.
    pub fn start(config: ExternalConfig) -> ExternalBus {
        let shared = Arc::<Shared>::default();
        let (sender, queue) = mpsc::channel(config.queue());
        let (stop, stopped) = watch::channel(Stop::Running);
        let task = tokio::spawn(connection::run(config, shared.clone(), sender, stopped));
        ExternalBus { shared, queue: AsyncMutex::new(queue), stop, task: AsyncMutex::new(Some(task)) }
    }
}

impl Drop for ExternalBus {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
    }
}

#[async_trait]
impl DeviceBus for ExternalBus {
    async fn next(&self, max: usize) -> Vec<Inbound> {
        let mut batch = Vec::new();
        self.queue.lock().await.recv_many(&mut batch, max).await;
        batch
    }

    async fn send(&self, device: &DeviceId, kind: DownKind, payload: Bytes) -> Result<(), BusError> {
        if self.shared.closed.load(Relaxed) {
            return Err(BusError::Closed);
        }
        // Without a connection only what is retained is worth keeping: the rest is made anew when devices send again.
        if kind.is_retained() || self.is_ready() {
            self.shared.outbound.lock().expect("not poisoned").push(device.clone(), kind, payload);
            self.shared.something_to_send.notify_one();
        }
        Ok(())
    }

    async fn kick(&self, _device: &DeviceId) {}

    fn connected(&self) -> usize {
        0
    }

    fn is_ready(&self) -> bool {
        self.shared.subscribed.load(Relaxed)
    }

    async fn shutdown(&self, limit: Duration) {
        self.stop.send_replace(Stop::Draining);
        if let Some(mut task) = self.task.lock().await.take()
            && timeout(limit, &mut task).await.is_err()
        {
            tracing::warn!("the broker was left before all messages were committed; it delivers them again");
            self.stop.send_replace(Stop::Now);
            // It ends by itself now; a panic in it has been reported.
            let _ = task.await;
        }
        self.shared.closed.store(true, Relaxed);
    }
}
