//! The way between devices and the control plane: one trait, one implementation per transport.
//!
//! | implementation | transport |
//! | --- | --- |
//! | [`EmbeddedBus`] | the MQTT endpoint inside this process (`dunlin-gateway`) |
//! | [`ExternalBus`] | an MQTT 5 broker; several processes share the devices' messages |
//! | [`MemoryBus`] | none: tests put messages in and look at what came out |
//!
//! Whatever the transport, a message stays unacknowledged until its [`AckToken`] is completed, and a message whose
//! token was dropped is delivered again. Delivery is therefore *at least once*; (device, boot, sequence) in the
//! message makes its effect happen once.

mod access;
mod device_id;
pub mod embedded;
pub mod external;
pub mod memory;

use async_trait::async_trait;
use bytes::Bytes;
use std::{fmt, time::Duration};

pub use access::{Credential, DeviceAccess, Login, LoginRefused};
pub use device_id::DeviceId;
pub use dunlin_protocol::limits::MAX_DEVICE_ID;
pub use dunlin_protocol::{DownKind, InvalidDeviceId, UpKind};
pub use embedded::EmbeddedBus;
pub use external::ExternalBus;
pub use memory::MemoryBus;

/// One message from a device.
#[derive(Debug)]
pub struct Inbound {
    /// Who sent it. The transport has authenticated the device: it cannot be another one's id.
    pub device: DeviceId,
    /// What it is, from the topic.
    pub kind: UpKind,
    /// The body, an envelope of the device protocol; not looked at by the bus, and bounded by the transport's
    /// packet limit.
    pub payload: Bytes,
    /// To be completed after the commit.
    pub ack: AckToken,
}

/// The duty to acknowledge one message: [`AckToken::done`] acknowledges it, dropping the token withholds the
/// acknowledgement, and the device (or the broker) will send the message again.
#[must_use = "dropping the token refuses the message"]
pub struct AckToken(Option<Box<dyn FnOnce(Outcome) + Send>>);

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The message's effect is committed (or it was recognised as one that needs none): acknowledge it.
    Committed,
    /// The token was dropped: the message must come again.
    Withheld,
}

impl AckToken {
    /// A token that calls `finish` exactly once. `finish` runs wherever the token ends, so it must not block.
    pub fn new(finish: impl FnOnce(Outcome) + Send + 'static) -> AckToken {
        AckToken(Some(Box::new(finish)))
    }

    /// A token of a message nobody waits for (QoS 0).
    pub fn none() -> AckToken {
        AckToken(None)
    }

    /// Acknowledges the message.
    pub fn done(mut self) {
        if let Some(finish) = self.0.take() {
            finish(Outcome::Committed);
        }
    }
}

impl Drop for AckToken {
    fn drop(&mut self) {
        if let Some(finish) = self.0.take() {
            finish(Outcome::Withheld);
        }
    }
}

impl fmt::Debug for AckToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AckToken")
    }
}

/// Why a message could not be sent to a device.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The bus is shut down.
    #[error("the message bus is shut down")]
    Closed,
}

/// A transport between devices and the control plane.
#[async_trait]
pub trait DeviceBus: Send + Sync {
    /// Waits for at least one message and returns at most `max` (>= 1) of those that are there. Empty means that
    /// the bus is closed and everything has been handed out. Cancel-safe: a message is never lost between two calls.
    async fn next(&self, max: usize) -> Vec<Inbound>;

    /// Sends a message to a device. [`DownKind::Desired`] is retained: a device that is not connected gets the
    /// latest one when it subscribes. The other kinds reach a device only while it is connected, and are dropped
    /// without an error if it is not: the device asks again by sending again.
    async fn send(&self, device: &DeviceId, kind: DownKind, payload: Bytes) -> Result<(), BusError>;

    /// Ends the device's connection, if this process holds it. With an external broker nothing happens: MQTT has no
    /// request for it, and a blocked device is refused by the broker's authorization hook instead.
    async fn kick(&self, device: &DeviceId);

    /// How many devices are connected to this process. An external broker's connections are not seen here: 0.
    fn connected(&self) -> usize;

    /// Whether messages can flow: false while an external broker cannot be reached.
    fn is_ready(&self) -> bool;

    /// Stops: takes in nothing more, sends the acknowledgements of what is in flight as it is committed, for at most
    /// `limit`, and closes the bus. [`DeviceBus::next`] must be called on meanwhile; it is empty in the end.
    async fn shutdown(&self, limit: Duration);
}
