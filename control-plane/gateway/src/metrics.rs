//! Counters.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a connection ended, or was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum CloseReason {
    /// The device disconnected or closed the connection.
    Device,
    /// The network failed.
    Network,
    /// There are as many connections as are allowed.
    ConnectionLimit,
    /// Too many connections per second from one address.
    ConnectionRate,
    /// The TLS handshake failed: no or a bad certificate, an expired one, not TLS at all.
    TlsRefused,
    /// No complete handshake and CONNECT within the time allowed for them.
    LoginTimeout,
    /// The handler refused the credential.
    BadCredential,
    /// The handler knows the device and does not let it in.
    Banned,
    /// The client id is not the authenticated identity.
    IdentityMismatch,
    /// The handler could not check the credential now.
    LoginUnavailable,
    /// The client certificate expired while the device was connected (or was resumed from an old session).
    CertificateExpired,
    /// Bytes that are not MQTT, or MQTT against the rules.
    Malformed,
    /// A packet above the size limit.
    PacketTooLarge,
    /// A publish to a topic that is not the device's own.
    ForbiddenTopic,
    /// A QoS 2 publish.
    QosNotSupported,
    /// Silence for one and a half keep-alives.
    KeepAlive,
    /// The same device connected again.
    TakenOver,
    /// [`crate::Gateway::kick`].
    Kicked,
    /// The handler dropped a message's token: the device must send it again.
    Withheld,
    /// The device did not read what was sent to it.
    SlowReader,
    /// The gateway shut down.
    ShuttingDown,
}

impl CloseReason {
    /// Every reason, in the order of the declaration.
    pub const ALL: [CloseReason; 21] = [
        CloseReason::Device,
        CloseReason::Network,
        CloseReason::ConnectionLimit,
        CloseReason::ConnectionRate,
        CloseReason::TlsRefused,
        CloseReason::LoginTimeout,
        CloseReason::BadCredential,
        CloseReason::Banned,
        CloseReason::IdentityMismatch,
        CloseReason::LoginUnavailable,
        CloseReason::CertificateExpired,
        CloseReason::Malformed,
        CloseReason::PacketTooLarge,
        CloseReason::ForbiddenTopic,
        CloseReason::QosNotSupported,
        CloseReason::KeepAlive,
        CloseReason::TakenOver,
        CloseReason::Kicked,
        CloseReason::Withheld,
        CloseReason::SlowReader,
        CloseReason::ShuttingDown,
    ];

    /// A name for labels and logs: lower case, words joined by `_`.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Device => "device",
            CloseReason::Network => "network",
            CloseReason::ConnectionLimit => "connection_limit",
            CloseReason::ConnectionRate => "connection_rate",
            CloseReason::TlsRefused => "tls_refused",
            CloseReason::LoginTimeout => "login_timeout",
            CloseReason::BadCredential => "bad_credential",
            CloseReason::Banned => "banned",
            CloseReason::IdentityMismatch => "identity_mismatch",
            CloseReason::LoginUnavailable => "login_unavailable",
            CloseReason::CertificateExpired => "certificate_expired",
            CloseReason::Malformed => "malformed",
            CloseReason::PacketTooLarge => "packet_too_large",
            CloseReason::ForbiddenTopic => "forbidden_topic",
            CloseReason::QosNotSupported => "qos_not_supported",
            CloseReason::KeepAlive => "keep_alive",
            CloseReason::TakenOver => "taken_over",
            CloseReason::Kicked => "kicked",
            CloseReason::Withheld => "withheld",
            CloseReason::SlowReader => "slow_reader",
            CloseReason::ShuttingDown => "shutting_down",
        }
    }
}

/// The gateway's counters at one moment. All but the first two count up from the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Connections that are open now, logged in or not.
    pub connections: u64,
    /// Devices that are connected now.
    pub devices: u64,
    /// TCP connections accepted.
    pub accepted: u64,
    /// Successful logins.
    pub logins: u64,
    /// Publishes handed to the handler.
    pub publishes: u64,
    /// PUBACKs of committed publishes.
    pub acknowledged: u64,
    /// Publishes refused because of their topic.
    pub publishes_refused: u64,
    /// Topic filters refused.
    pub subscriptions_refused: u64,
    /// Times that a connection was not read from because it was over its rate.
    pub throttled: u64,
    /// Times that a publish waited because [`crate::Limits::in_flight_bytes`] was used up.
    pub waited: u64,
    /// Messages written to devices.
    pub sent: u64,
    /// Messages to devices that were dropped, or replaced by a newer one, because the device did not keep up.
    pub dropped: u64,
    /// Bytes read, after TLS.
    pub bytes_in: u64,
    /// Bytes written, before TLS.
    pub bytes_out: u64,
    /// Connections ended, by reason; indexed by `CloseReason as usize`.
    closed: [u64; CloseReason::ALL.len()],
}

impl Metrics {
    /// Connections ended (or not let in) for this reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }
}

/// The live counters. Each stands for itself: relaxed ordering is enough.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) logins: AtomicU64,
    pub(crate) publishes: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) publishes_refused: AtomicU64,
    pub(crate) subscriptions_refused: AtomicU64,
    pub(crate) throttled: AtomicU64,
    pub(crate) waited: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: usize) {
        if amount > 0 {
            counter.fetch_add(amount as u64, Relaxed);
        }
    }

    pub(crate) fn count_close(&self, reason: CloseReason) {
        self.closed[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self, devices: usize) -> Metrics {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Metrics {
            connections: read(&self.connections),
            devices: devices as u64,
            accepted: read(&self.accepted),
            logins: read(&self.logins),
            publishes: read(&self.publishes),
            acknowledged: read(&self.acknowledged),
            publishes_refused: read(&self.publishes_refused),
            subscriptions_refused: read(&self.subscriptions_refused),
            throttled: read(&self.throttled),
            waited: read(&self.waited),
            sent: read(&self.sent),
            dropped: read(&self.dropped),
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            closed: std::array::from_fn(|reason| read(&self.closed[reason])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_index_the_counters() {
        let counters = Counters::default();
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
            counters.count_close(reason);
        }
        let metrics = counters.snapshot(0);
        assert!(CloseReason::ALL.into_iter().all(|reason| metrics.closed(reason) == 1));
    }
}
