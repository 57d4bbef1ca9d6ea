//! The connection to the broker, behind a trait, so that tests can be the network and another client can take over.

mod mqtt;
mod tls;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::identity::{Identity, IdentityError};

pub use mqtt::{MqttOptions, MqttTransport};
pub(crate) use tls::no_trust;
pub use tls::{TlsError, client_config};

/// What happened on the connection.
#[derive(Debug)]
pub enum Signal {
    /// Connected and subscribed to `d/{id}/down/#`.
    Up,
    /// A message came down.
    Message {
        /// The whole topic.
        topic: String,
        /// The body.
        payload: Bytes,
    },
    /// A message that was handed over has reached the broker; that frees room for another one. It does not mean that
    /// the control plane has it.
    Sent,
    /// The broker refused a message: a wrong topic, or a quota. The message counts as not sent.
    Refused(String),
    /// The connection is gone, or could not be made. Nothing more comes until [`Transport::connect`].
    Down(DownReason),
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// The broker does not accept the device's credential.
    #[error("the server refuses this device's credential ({0})")]
    Credential(String),
    /// Network, TLS or protocol.
    #[error("{0}")]
    Network(String),
    /// The other side does not answer any more.
    #[error("no sign of life from the server for {0} s")]
    Silent(u64),
    /// Closed by this side.
    #[error("closed")]
    Closed,
}

/// No room for another message at the moment, or no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// Moves messages at least once. It keeps nothing: what was handed over when the connection broke is sent again by its
/// owner, who alone knows what has been acknowledged.
pub trait Transport: Send {
    /// Begins to connect; [`Signal::Up`] or [`Signal::Down`] follows. What was there before is dropped.
    fn connect(&mut self);

    /// Hands a message over, QoS 1. Never waits.
    ///
    /// # Errors
    /// [`Busy`]: try again after [`Signal::Sent`] or [`Signal::Up`].
    fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<(), Busy>;

    /// The next signal. May be dropped and called again without losing one.
    fn next(&mut self) -> impl Future<Output = Signal> + Send;

    /// Drops the connection at once, without a word and without a signal.
    fn drop_connection(&mut self);

    /// Uses another credential from the next connection on.
    ///
    /// # Errors
    /// When it does not fit; the old one is used further.
    fn set_identity(&mut self, identity: &Identity, keep_alive: Duration) -> Result<(), IdentityError>;

    /// Says goodbye to the broker and closes the connection.
    fn disconnect(&mut self) -> impl Future<Output = ()> + Send;
}
