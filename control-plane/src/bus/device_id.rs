//! A device's identity.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// Longest device id in bytes.
pub const MAX_DEVICE_ID: usize = 64;

/// A device's id: 1 to 64 characters of `A-Z a-z 0-9 . _ -`, hence always one level of an MQTT topic and never a
/// wildcard. It is the device's MQTT client id, its user name and its certificate's common name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

/// A text that is no device id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device id has 1 to {MAX_DEVICE_ID} characters of A-Z a-z 0-9 . _ -")]
pub struct InvalidDeviceId;

impl DeviceId {
    /// Checks a text.
    pub fn new(text: &str) -> Result<DeviceId, InvalidDeviceId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > MAX_DEVICE_ID || !text.bytes().all(allowed) {
            return Err(InvalidDeviceId);
        }
        Ok(DeviceId(Arc::from(text)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = InvalidDeviceId;

    fn from_str(text: &str) -> Result<DeviceId, InvalidDeviceId> {
        DeviceId::new(text)
    }
}

impl TryFrom<String> for DeviceId {
    type Error = InvalidDeviceId;

    fn try_from(text: String) -> Result<DeviceId, InvalidDeviceId> {
        DeviceId::new(&text)
    }
}

impl AsRef<str> for DeviceId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for DeviceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_is_one_topic_level() {
        for good in ["a", "kitchen-1", "01890a5d-ac96-774b-bcce-b302099a8057", "A.b_c-9", &"x".repeat(64)] {
            assert_eq!(DeviceId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "+", "#", "a b", "ä", "a\0", &"x".repeat(65)] {
            assert_eq!(DeviceId::new(bad), Err(InvalidDeviceId), "{bad:?}");
        }
    }
}
