//! Times and bounds of an uplink.

/// Times and bounds of an [`Uplink`](super::Uplink); the defaults suit a device that is always on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a connection may take from the first packet to the answered subscription, in milliseconds.
    pub connect_timeout_ms: u32,
    /// After this time without an acknowledgement a message is sent again, in milliseconds. When nothing at all is
    /// acknowledged for twice as long, the connection counts as dead. Must be longer than the control plane takes
    /// for a commit, and than the slowest link for a message there and back.
    pub ack_timeout_ms: u32,
    /// The first pause before connecting again, in milliseconds. Each further pause is twice as long, until something
    /// is acknowledged: a connection alone proves nothing, as the control plane behind the broker may be down. Every
    /// pause is shortened at random by up to a half, so that a fleet does not come back all at once.
    pub least_pause_ms: u32,
    /// The longest pause, in milliseconds; also the pause after the broker has refused the device's credential.
    pub longest_pause_ms: u32,
    /// Most messages that are sent and not acknowledged, at most [`Settings::MAX_IN_FLIGHT`]; at least 1.
    pub in_flight: u8,
    /// How often windows are sent while there is a connection, in milliseconds; 0 as soon as they close. The control
    /// plane may set another one (`Desired::report_period_s`).
    pub report_period_ms: u32,
}

impl Settings {
    /// Upper bound of [`Settings::in_flight`].
    pub const MAX_IN_FLIGHT: u8 = 16;
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 30_000,
            ack_timeout_ms: 30_000,
            least_pause_ms: 1_000,
            longest_pause_ms: 300_000,
            in_flight: 8,
            report_period_ms: 0,
        }
    }
}
