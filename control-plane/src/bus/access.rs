//! What a transport that accepts devices itself asks of the rest of the control plane.

use super::DeviceId;
use async_trait::async_trait;
use bytes::Bytes;
use std::{fmt, net::IpAddr};

/// A device that wants to connect.
#[derive(Debug)]
pub struct Login<'a> {
    /// The device it says it is (the MQTT client id). Not proven yet.
    pub claimed: &'a str,
    /// The proof.
    pub credential: Credential<'a>,
    /// Where it connects from, for the log.
    pub address: IpAddr,
}

/// How a device proves its identity.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// A client certificate that TLS has verified against the device CA and its validity time.
    Certificate {
        /// The certificate's common name.
        common_name: &'a str,
        /// The serial number in hex. `None` where an external broker has verified the certificate: that checks the
        /// list of revoked ones itself.
        serial: Option<&'a str>,
    },
    /// A user name and a password, as MQTT carries them.
    Password {
        /// The user name.
        username: &'a str,
        /// The password; any bytes.
        password: &'a [u8],
    },
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Certificate { common_name, serial } => {
                write!(f, "Certificate({common_name}, {})", serial.unwrap_or("serial number not known"))
            }
            Credential::Password { username, .. } => write!(f, "Password({username}, masked)"),
        }
    }
}

/// Why a device may not connect. It learns no more than the MQTT reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefused {
    /// Unknown device, wrong password, or a certificate that does not belong to a device.
    #[error("unknown device or wrong credential")]
    BadCredential,
    /// A certificate that is not the device's any more.
    #[error("the certificate was revoked or replaced by a newer one")]
    Revoked,
    /// The device is known and blocked.
    #[error("the device is blocked")]
    Blocked,
    /// The answer cannot be had now (the database is away); the device tries again.
    #[error("cannot be checked now")]
    Unavailable,
}

/// Implemented by the devices domain; asked by the embedded endpoint.
#[async_trait]
pub trait DeviceAccess: Send + Sync {
    /// Checks the credential and names the device that it belongs to. The bus itself refuses a device whose claimed
    /// id is another one than that, so `claimed` need not be compared here.
    async fn authenticate(&self, login: Login<'_>) -> Result<DeviceId, LoginRefused>;

    /// The device's desired state: the body of the retained `down/desired` message, or `None` if there is none.
    async fn desired(&self, device: &DeviceId) -> Option<Bytes>;

    /// A device's connection came up or went down. Called in order for each device; must not block.
    fn presence(&self, device: &DeviceId, connected: bool);
}
