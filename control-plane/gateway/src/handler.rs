//! What the gateway asks of, and tells to, the program around it.

use crate::{AckToken, CloseReason, Message};
use bytes::Bytes;
use std::{fmt, net::SocketAddr, sync::Arc};

/// A client that wants in: its CONNECT, and its certificate if TLS has verified one.
pub struct Login {
    /// The client id; never empty, not proven.
    pub client_id: String,
    /// The user name of the CONNECT.
    pub username: Option<String>,
    /// The password of the CONNECT.
    pub password: Option<Bytes>,
    /// The client certificate: verified against the listener's CA and its validity time. Whether it was revoked or
    /// replaced is for the handler to say.
    pub certificate: Option<Certificate>,
    /// Where it connects from.
    pub address: SocketAddr,
}

/// What a client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject's common name.
    pub common_name: String,
    /// The serial number: the bytes of the DER integer.
    pub serial: Vec<u8>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "masked"))
            .field("certificate", &self.certificate)
            .field("address", &self.address)
            .finish()
    }
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Unknown identity, wrong password or a certificate that is no longer good. The client learns nothing more.
    #[error("bad user name or password")]
    BadCredential,
    /// A known identity that may not connect.
    #[error("banned")]
    Banned,
    /// Cannot be checked now.
    #[error("server unavailable")]
    Unavailable,
}

/// A message from a device. The topic was the device's own.
#[derive(Debug)]
pub struct Publish {
    /// The authenticated device.
    pub device: Arc<str>,
    /// The topic's last level: what follows `d/{device}/up/`.
    pub level: String,
    /// The body; at most [`crate::Limits::packet_bytes`].
    pub payload: Bytes,
    /// To be completed when the message is committed. Of a QoS 0 message it only frees the memory it counts for.
    pub ack: AckToken,
}

/// The program around the gateway.
pub trait Handler: Send + Sync + 'static {
    /// Checks who a client is, and returns the device id. The gateway then refuses the client unless its client id
    /// equals that. Bounded in time by [`crate::Limits::login_timeout`].
    fn authenticate(&self, login: Login) -> impl Future<Output = Result<Arc<str>, Refusal>> + Send;

    /// Takes a message. Must not block: it is called on the connection's task, and need not, because the tokens that
    /// are out at a time are bounded by [`crate::Limits::in_flight_bytes`], so that an unbounded queue behind it is
    /// bounded by that.
    fn publish(&self, message: Publish);

    /// The messages that a device gets when it subscribes. Only those that a filter selects are sent.
    fn retained(&self, device: &Arc<str>) -> impl Future<Output = Vec<Message>> + Send;

    /// A device has connected, before its CONNACK is sent. Not called when it takes over its own connection. Must not
    /// block; `connected` and `disconnected` alternate for each device.
    fn connected(&self, device: &Arc<str>) {
        let _ = device;
    }

    /// A device is no longer connected. Must not block.
    fn disconnected(&self, device: &Arc<str>, reason: CloseReason) {
        let _ = (device, reason);
    }
}
