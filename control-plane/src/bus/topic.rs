//! Topics: `d/{device}/up/{kind}` and `d/{device}/down/{kind}`.

use super::DeviceId;

/// What a device publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpKind {
    /// A telemetry report: counts of a window.
    Report,
    /// The device's actual state.
    State,
    /// Something happened: a failure, a revert, a restart.
    Event,
    /// A true label for an earlier prediction.
    Label,
    /// A request to renew the device's certificate.
    Csr,
}

/// What a device is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DownKind {
    /// The state that the device should reach; retained.
    Desired,
    /// Which messages are committed.
    Ack,
    /// A renewed certificate.
    Cert,
}

impl UpKind {
    /// Every kind.
    pub const ALL: [UpKind; 5] = [UpKind::Report, UpKind::State, UpKind::Event, UpKind::Label, UpKind::Csr];

    /// The last level of the topic.
    pub fn level(self) -> &'static str {
        match self {
            UpKind::Report => "report",
            UpKind::State => "state",
            UpKind::Event => "event",
            UpKind::Label => "label",
            UpKind::Csr => "csr",
        }
    }

    /// The kind whose topic ends in `level`.
    pub fn from_level(level: &str) -> Option<UpKind> {
        UpKind::ALL.into_iter().find(|kind| kind.level() == level)
    }

    /// The topic on which a device publishes this kind.
    pub fn topic(self, device: &DeviceId) -> String {
        format!("d/{device}/up/{}", self.level())
    }
}

impl DownKind {
    /// Every kind.
    pub const ALL: [DownKind; 3] = [DownKind::Desired, DownKind::Ack, DownKind::Cert];

    /// The last level of the topic.
    pub fn level(self) -> &'static str {
        match self {
            DownKind::Desired => "desired",
            DownKind::Ack => "ack",
            DownKind::Cert => "cert",
        }
    }

    /// The topic on which a device is sent this kind.
    pub fn topic(self, device: &DeviceId) -> String {
        format!("d/{device}/down/{}", self.level())
    }

    /// Whether the latest message waits for a device that is not connected.
    pub fn retained(self) -> bool {
        self == DownKind::Desired
    }
}

/// The device and the kind of a topic that a device publishes to, or `None` if it is not such a topic.
pub fn parse_up(topic: &str) -> Option<(DeviceId, UpKind)> {
    let (device, level) = topic.strip_prefix("d/")?.split_once("/up/")?;
    Some((DeviceId::new(device).ok()?, UpKind::from_level(level)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_round_trip() {
        let device = DeviceId::new("kitchen-1").unwrap();
        for kind in UpKind::ALL {
            assert_eq!(parse_up(&kind.topic(&device)), Some((device.clone(), kind)));
        }
        assert_eq!(DownKind::Desired.topic(&device), "d/kitchen-1/down/desired");
    }

    #[test]
    fn other_topics_have_no_kind() {
        for topic in
            ["", "d/x/up", "d/x/up/", "d/x/up/report/x", "d//up/report", "d/a/b/up/report", "d/x/down/ack"]
        {
            assert_eq!(parse_up(topic), None, "{topic}");
        }
    }
}
