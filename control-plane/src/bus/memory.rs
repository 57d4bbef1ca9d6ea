//! A bus without a transport, for tests.

use super::{AckToken, BusError, DeviceBus, DeviceId, DownKind, Inbound, Outcome, UpKind};
use async_trait::async_trait;
use bytes::Bytes;
use std::{sync::Mutex, time::Duration};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

/// Messages go in by [`MemoryBus::deliver`]; what the control plane sent is in [`MemoryBus::take_sent`].
///
/// ```
/// # use dunlin_control_plane::bus::{DeviceBus, DeviceId, MemoryBus, Outcome, UpKind};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let bus = MemoryBus::new(8);
/// let delivery = bus.deliver(&DeviceId::new("kitchen-1").unwrap(), UpKind::Report, vec![1, 2, 3]).await;
/// for message in bus.next(100).await {
///     message.ack.done(); // after the commit
/// }
/// assert_eq!(delivery.outcome().await, Outcome::Committed);
/// # });
/// ```
pub struct MemoryBus {
    input: Mutex<Option<mpsc::Sender<Inbound>>>,
    output: AsyncMutex<mpsc::Receiver<Inbound>>,
    sent: Mutex<Vec<Sent>>,
    kicked: Mutex<Vec<DeviceId>>,
}

/// A message that the control plane sent to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// To whom.
    pub device: DeviceId,
    /// What.
    pub kind: DownKind,
    /// The body.
    pub payload: Bytes,
}

/// The sender's end of a delivered message.
pub struct Delivery(oneshot::Receiver<Outcome>);

impl Delivery {
    /// Waits until the message's token has ended. A message that was lost with the bus is withheld.
    pub async fn outcome(self) -> Outcome {
        self.0.await.unwrap_or(Outcome::Withheld)
    }
}

impl MemoryBus {
    /// A bus that holds `capacity` (>= 1) messages; a further delivery waits.
    pub fn new(capacity: usize) -> MemoryBus {
        let (input, output) = mpsc::channel(capacity);
        MemoryBus {
            input: Mutex::new(Some(input)),
            output: AsyncMutex::new(output),
            sent: Mutex::default(),
            kicked: Mutex::default(),
        }
    }

    /// Delivers a message as if `device` had published it.
    pub async fn deliver(&self, device: &DeviceId, kind: UpKind, payload: impl Into<Bytes>) -> Delivery {
        let (ended, outcome) = oneshot::channel();
        let ack = AckToken::new(move |outcome| {
            // A test that does not look at the outcome has dropped the receiver.
            let _ = ended.send(outcome);
        });
        let message = Inbound { device: device.clone(), kind, payload: payload.into(), ack };
        let input = self.input.lock().expect("not poisoned").clone();
        if let Some(input) = input {
            // On a closed bus the message is dropped, and with it its token: withheld.
            let _ = input.send(message).await;
        }
        Delivery(outcome)
    }

    /// Takes what was sent since the last call, in order.
    pub fn take_sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.sent.lock().expect("not poisoned"))
    }

    /// The devices that were kicked, in order.
    pub fn kicked(&self) -> Vec<DeviceId> {
        self.kicked.lock().expect("not poisoned").clone()
    }

    /// Closes the bus: `next` hands out what is queued and then returns nothing.
    pub fn close(&self) {
        self.input.lock().expect("not poisoned").take();
    }
}

#[async_trait]
impl DeviceBus for MemoryBus {
    async fn next(&self, max: usize) -> Vec<Inbound> {
        let mut batch = Vec::new();
        self.output.lock().await.recv_many(&mut batch, max).await;
        batch
    }

    async fn send(&self, device: &DeviceId, kind: DownKind, payload: Bytes) -> Result<(), BusError> {
        if self.input.lock().expect("not poisoned").is_none() {
            return Err(BusError::Closed);
        }
        self.sent.lock().expect("not poisoned").push(Sent { device: device.clone(), kind, payload });
        Ok(())
    }

    async fn kick(&self, device: &DeviceId) {
        self.kicked.lock().expect("not poisoned").push(device.clone());
    }

    fn connected(&self) -> usize {
        0
    }

    fn is_ready(&self) -> bool {
        true
    }

    async fn shutdown(&self, _limit: Duration) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_token_withholds_and_a_closed_bus_drains() {
        let bus = MemoryBus::new(4);
        let device = DeviceId::new("a").unwrap();
        let first = bus.deliver(&device, UpKind::Report, vec![1]).await;
        let second = bus.deliver(&device, UpKind::State, vec![2]).await;
        bus.close();
        let late = bus.deliver(&device, UpKind::State, vec![3]).await;
        let mut batch = bus.next(10).await;
        assert_eq!(batch.len(), 2);
        drop(batch.pop());
        batch.pop().unwrap().ack.done();
        assert_eq!(first.outcome().await, Outcome::Committed);
        assert_eq!(second.outcome().await, Outcome::Withheld);
        assert_eq!(late.outcome().await, Outcome::Withheld);
        assert!(bus.next(1).await.is_empty());
    }
}
