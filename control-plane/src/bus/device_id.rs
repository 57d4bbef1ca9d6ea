//! A device's identity.

use dunlin_protocol::{DownKind, InvalidDeviceId, UpKind};
use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// A device's id: 1 to 64 characters of `A-Z a-z 0-9 . _ -`, hence always one level of an MQTT topic and never a
/// wildcard. It is the device's MQTT client id, its user name and its certificate's common name. Cheap to clone; the
/// protocol's own [`dunlin_protocol::DeviceId`] is the borrowed form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// Checks a text.
    ///
    /// # Errors
    /// [`InvalidDeviceId`] when it is empty, too long or has other characters.
    pub fn new(text: &str) -> Result<DeviceId, InvalidDeviceId> {
        let checked = dunlin_protocol::DeviceId::new(text)?;
        Ok(DeviceId(Arc::from(checked.as_str())))
    }

    /// The id that a transport got from [`DeviceId::shared`] and gives back.
    pub(super) fn from_shared(text: Arc<str>) -> DeviceId {
        DeviceId(text)
    }

    /// The id for a transport that knows texts only.
    pub(super) fn shared(self) -> Arc<str> {
        self.0
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic on which the device publishes this kind.
    pub fn up(&self, kind: UpKind) -> String {
        format!("d/{}/up/{}", self.0, kind.as_str())
    }

    /// The topic on which the device is sent this kind.
    pub fn down(&self, kind: DownKind) -> String {
        format!("d/{}/down/{}", self.0, kind.as_str())
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
    use dunlin_protocol::Topic;

    #[test]
    fn accepts_what_is_one_topic_level() {
        for good in ["a", "kitchen-1", "01890a5d-ac96-774b-bcce-b302099a8057", "A.b_c-9", &"x".repeat(64)] {
            assert_eq!(DeviceId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "+", "#", "a b", "ä", "a\0", &"x".repeat(65)] {
            assert_eq!(DeviceId::new(bad), Err(InvalidDeviceId), "{bad:?}");
        }
    }

    #[test]
    fn topics_are_the_protocols() {
        let device = DeviceId::new("kitchen-1").unwrap();
        let borrowed = dunlin_protocol::DeviceId::new("kitchen-1").unwrap();
        for kind in UpKind::ALL {
            assert_eq!(Topic::parse(&device.up(kind)), Some(Topic::Up { device: borrowed, kind }));
        }
        for kind in DownKind::ALL {
            assert_eq!(Topic::parse(&device.down(kind)), Some(Topic::Down { device: borrowed, kind }));
        }
    }
}
