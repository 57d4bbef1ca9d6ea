//! Device ids and topics.
//!
//! A device publishes under `d/{id}/up/` and subscribes to `d/{id}/down/#`; a control plane on an external broker
//! subscribes to the shared filter [`UP_FILTER`]. All with QoS 1. As the device id is one topic level and also the
//! MQTT client id and user name, one rule per broker keeps devices apart: write `d/%u/up/#`, read `d/%u/down/#`.

use core::fmt::{self, Write};

use heapless::String;

use crate::limits::{MAX_DEVICE_ID, MAX_TOPIC};

/// What a control plane subscribes to on an external broker: all messages from devices, split among all processes.
pub const UP_FILTER: &str = "$share/dunlin/d/+/up/#";

/// A topic in a buffer of its own.
pub type TopicString = String<MAX_TOPIC>;

/// What a device sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpKind {
    /// [`crate::Report`]: statistics of one window.
    Report,
    /// [`crate::State`]: what the device runs.
    State,
    /// [`crate::Event`]: something happened.
    Event,
    /// [`crate::Label`]: what would have been right.
    Label,
    /// [`crate::CertificateRequest`]: asks for a new certificate. Without an [`crate::Envelope`].
    Csr,
    /// [`crate::Fetch`]: asks for a piece of an artifact or a root. Without an [`crate::Envelope`].
    Fetch,
}

impl UpKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Report, Self::State, Self::Event, Self::Label, Self::Csr, Self::Fetch];

    /// The last level of the topic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::State => "state",
            Self::Event => "event",
            Self::Label => "label",
            Self::Csr => "csr",
            Self::Fetch => "fetch",
        }
    }

    /// The kind with this last topic level.
    pub fn from_level(level: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == level)
    }

    /// Whether messages of this kind begin with an [`crate::Envelope`] and take part in the sequence.
    pub const fn has_envelope(self) -> bool {
        !matches!(self, Self::Csr | Self::Fetch)
    }
}

/// What a device receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DownKind {
    /// [`crate::Desired`]: what the device should run (retained).
    Desired,
    /// [`crate::Ack`]: which messages are committed.
    Ack,
    /// [`crate::Certificate`]: the answer to a [`crate::CertificateRequest`].
    Cert,
    /// [`crate::Chunk`]: the answer to a [`crate::Fetch`].
    Chunk,
}

impl DownKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Desired, Self::Ack, Self::Cert, Self::Chunk];

    /// The last level of the topic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Desired => "desired",
            Self::Ack => "ack",
            Self::Cert => "cert",
            Self::Chunk => "chunk",
        }
    }

    /// The kind with this last topic level.
    pub fn from_level(level: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == level)
    }

    /// Whether the broker keeps the last message for devices that connect later.
    pub const fn is_retained(self) -> bool {
        matches!(self, Self::Desired)
    }
}

/// A device id, checked: 1 to 64 characters of `A-Z a-z 0-9 . _ -`. It is one topic level, the MQTT client id, the
/// user name and the common name of the device's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId<'a>(&'a str);

/// The text is not a device id: it must have 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidDeviceId;

impl fmt::Display for InvalidDeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a device id: it must have 1 to {MAX_DEVICE_ID} characters of A-Z a-z 0-9 . _ -")
    }
}

impl core::error::Error for InvalidDeviceId {}

impl<'a> DeviceId<'a> {
    /// Checks a device id.
    ///
    /// # Errors
    /// [`InvalidDeviceId`] when it is empty, too long or has other characters.
    pub fn new(id: &'a str) -> Result<Self, InvalidDeviceId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        match id.len() {
            1..=MAX_DEVICE_ID if id.bytes().all(allowed) => Ok(Self(id)),
            _ => Err(InvalidDeviceId),
        }
    }

    /// The id as text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The topic that the device publishes this kind of message to.
    pub fn up(self, kind: UpKind) -> TopicString {
        self.topic("up", kind.as_str())
    }

    /// The topic that this kind of message reaches the device on.
    pub fn down(self, kind: DownKind) -> TopicString {
        self.topic("down", kind.as_str())
    }

    /// What the device subscribes to: `d/{id}/down/#`.
    pub fn down_filter(self) -> TopicString {
        self.topic("down", "#")
    }

    fn topic(self, direction: &str, level: &str) -> TopicString {
        let mut topic = TopicString::new();
        // The limits make every topic fit, see the assertion below; a topic that does not is never sent cut off.
        match write!(topic, "d/{}/{direction}/{level}", self.0) {
            Ok(()) => topic,
            Err(_) => TopicString::new(),
        }
    }
}

const _: () = assert!(MAX_TOPIC == "d/".len() + MAX_DEVICE_ID + "/down/desired".len());

impl fmt::Display for DeviceId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A topic taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic<'a> {
    /// `d/{device}/up/{kind}`.
    Up {
        /// Who sent it, as the topic says. Only the broker's access rule makes it true.
        device: DeviceId<'a>,
        /// What it is.
        kind: UpKind,
    },
    /// `d/{device}/down/{kind}`.
    Down {
        /// Who receives it.
        device: DeviceId<'a>,
        /// What it is.
        kind: DownKind,
    },
}

impl<'a> Topic<'a> {
    /// Takes a topic apart; `None` for topics that are not part of the protocol.
    pub fn parse(topic: &'a str) -> Option<Self> {
        let (root, rest) = split_level(topic)?;
        let (device, rest) = split_level(rest)?;
        let (direction, level) = split_level(rest)?;
        if root != "d" {
            return None;
        }
        let device = DeviceId::new(device).ok()?;
        match direction {
            "up" => Some(Self::Up { device, kind: UpKind::from_level(level)? }),
            "down" => Some(Self::Down { device, kind: DownKind::from_level(level)? }),
            _ => None,
        }
    }
}

/// The first level and what follows. (`str::split_once` contains code that can panic.)
fn split_level(topic: &str) -> Option<(&str, &str)> {
    let slash = topic.bytes().position(|byte| byte == b'/')?;
    Some((topic.get(..slash)?, topic.get(slash + 1..)?))
}
